//! `lifeboat completions` and `lifeboat man`: made from the same definitions as the help.

use std::io::Write as _;

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    write(&script(args.shell));
    Ok(())
}

/// Prints the manual page of the program; those of the commands come with the package.
pub fn man() -> Result<(), Failure> {
    write(&page(super::command())?);
    Ok(())
}

/// A completion script.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "lifeboat", &mut script);
    script
}

/// A manual page.
pub fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(Failure::bug)?;
    Ok(page)
}

/// As all output here: a reader that goes away is no failure.
fn write(bytes: &[u8]) {
    let _ = std::io::stdout().lock().write_all(bytes);
}
