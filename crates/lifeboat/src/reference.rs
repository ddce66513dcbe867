//! The documents that are made from the definitions: manual pages, completions, the configuration
//! reference. `cargo xtask` writes them to files.

use clap_complete::Shell;

use crate::cli;
use crate::failure::Failure;

/// A file to write: its name and content.
pub type Document = (String, Vec<u8>);

/// `lifeboat.1` and one page for each command.
pub fn man_pages() -> Result<Vec<Document>, Failure> {
    let mut root = cli::command();
    root.build();
    let mut pages = vec![(
        "lifeboat.1".to_owned(),
        cli::completions::page(cli::command())?,
    )];
    add_pages(&root, "lifeboat", &mut pages)?;
    Ok(pages)
}

/// A page for each command below this one, and below those.
fn add_pages(
    parent: &clap::Command,
    prefix: &str,
    pages: &mut Vec<Document>,
) -> Result<(), Failure> {
    for command in visible(parent) {
        let name = format!("{prefix}-{}", command.get_name());
        // A page that is called `lifeboat-backup` while its text says `lifeboat backup`, as git's are.
        let page = command.clone().display_name(name.clone());
        pages.push((format!("{name}.1"), cli::completions::page(page)?));
        add_pages(command, &name, pages)?;
    }
    Ok(())
}

fn visible(parent: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    let commands = parent.get_subcommands();
    commands.filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// Completion scripts for bash, zsh and fish, under the names those shells look for.
pub fn completions() -> Vec<Document> {
    [
        (Shell::Bash, "lifeboat.bash"),
        (Shell::Zsh, "_lifeboat"),
        (Shell::Fish, "lifeboat.fish"),
    ]
    .into_iter()
    .map(|(shell, name)| (name.to_owned(), cli::completions::script(shell)))
    .collect()
}

/// `docs/configuration.md`.
pub fn configuration() -> String {
    lifeboat_engine::config::reference::markdown()
}

/// Every visible command with its help, for snapshots and for a document.
pub fn helps() -> Vec<(String, String)> {
    let mut root = cli::command();
    root.build();
    let mut helps = vec![(
        "lifeboat".to_owned(),
        cli::command()
            .term_width(100)
            .render_long_help()
            .to_string(),
    )];
    add_helps(&root, "", &mut helps);
    helps
}

fn add_helps(parent: &clap::Command, prefix: &str, helps: &mut Vec<(String, String)>) {
    for command in visible(parent) {
        let name = format!("{prefix}{}", command.get_name());
        let mut shown = command.clone().term_width(100);
        helps.push((name.clone(), shown.render_long_help().to_string()));
        add_helps(command, &format!("{name}-"), helps);
    }
}
