//! `lifeboat key add`.

use std::path::PathBuf;

use clap::Args;
use lifeboat_engine::keys::{self, Added};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{LockArg, RepositoryArg};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::new_files::NewFiles;
use crate::output::progress::Progress;
use crate::output::table;
use crate::{passphrase, prompt, secrets};

/// Flags of `key add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without either flag the passphrase is asked for, twice, on a terminal. The new key is read
back from the repository and has to open it before this says that it was added.")]
pub struct AddArgs {
    /// Take the new passphrase from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub new_password_file: Option<PathBuf>,
    /// Make a passphrase, and write it into this new file (mode 0600).
    #[arg(long, value_name = "FILE")]
    pub generate: Option<PathBuf>,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Runs it.
pub fn run(app: &App, args: &AddArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let mut files = NewFiles::default();
    let passphrase = new_passphrase(app, args, &mut files)?;
    let progress = Progress::new(&app.out);
    let result = keys::add(
        &repository,
        &passphrase,
        &super::holder(app, &args.lock),
        &progress,
    );
    drop(progress);
    let key = match result? {
        Added::New(key) => key,
        Added::Already(key) => {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "this passphrase opens the repository already, with key {}",
                    key.short()
                ),
            )
            .hint(
                "`lifeboat key list` shows the keys; choose another passphrase for another key",
            ));
        }
    };
    files.keep();
    app.out.object(
        "key",
        &json!({ "added": key.to_string(), "key": repository.key_id().to_string(), "passphrase_file": args.generate }),
    )?;
    let mut facts = vec![("added", key.short())];
    facts.extend(
        args.generate
            .as_ref()
            .map(|path| ("passphrase", path.display().to_string())),
    );
    app.out.report(&table::pairs(&facts));
    app.out
        .say("\nThe new key was read back from the repository, and opens it.");
    Ok(Exit::Done)
}

fn new_passphrase(
    app: &App,
    args: &AddArgs,
    files: &mut NewFiles,
) -> Result<SecretString, Failure> {
    match (&args.new_password_file, &args.generate) {
        (Some(path), _) => secrets::new_password(path),
        (None, Some(path)) => {
            let passphrase = passphrase::generate()?;
            files.write(path, &format!("{passphrase}\n"))?;
            Ok(passphrase.into())
        }
        (None, None) if prompt::is_possible() && !app.out.is_json() => ask(app),
        (None, None) => Err(Failure::new(Exit::Usage, "there is no new passphrase, and nobody to ask for one")
            .hint("`--generate FILE` makes one and writes it into FILE, `--new-password-file FILE` takes yours")),
    }
}

fn ask(app: &App) -> Result<SecretString, Failure> {
    loop {
        let first = prompt::secret(app, "New passphrase")?;
        if first.expose_secret().is_empty() {
            app.out.warn("an empty passphrase protects nothing");
            continue;
        }
        let second = prompt::secret(app, "The same again")?;
        if first.expose_secret() == second.expose_secret() {
            return Ok(first);
        }
        app.out.warn("the two differ");
    }
}
