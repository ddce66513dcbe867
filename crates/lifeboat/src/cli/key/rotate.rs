//! `lifeboat key rotate`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lifeboat_engine::config::{PasswordSource, RepositorySettings, Setting};
use lifeboat_engine::keys::{self, Added, RotateRequest};
use lifeboat_repo::storage::Storage;
use lifeboat_repo::{KeyId, Repository, RepositoryError};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{LockArg, RepositoryArg};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::table;
use crate::{passphrase, secrets};

/// Flags of `key rotate`.
#[derive(Debug, Args)]
#[command(after_help = "\
The configured passphrase file is replaced by one with a new passphrase (mode 0600, same
owner), and the old key is removed once the repository was opened with the new one.
Interrupted at any point, the file opens the repository; run it again, and it finishes what it
began.

Where the passphrase comes from a command or from LIFEBOAT_PASSWORD there is no file to
replace: give the new one with --new-password-file. It is added, and this says what to change
and which key to remove then.

Other machines that use the old passphrase need the new one. Kits and copies of the old
passphrase are out of date. The master key does not change: see `lifeboat key --help`.")]
pub struct RotateArgs {
    /// Take the new passphrase from this file, in place of a generated one.
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Runs it.
pub fn run(app: &App, args: &RotateArgs) -> Result<Exit, Failure> {
    let settings = app.config.repository(args.repository.name())?;
    let (location, password) = settings.access()?;
    refuse_shared_file(app, settings, password)?;
    let storage = app.storage(settings, &location.value)?;
    // Told before anything is made, and not when the old key stays in the end.
    if !storage.may_delete() {
        let location = storage.location();
        return Err(RepositoryError::AppendOnly { location }.into());
    }
    match &password.value {
        PasswordSource::File(path) => replace_file(app, args, storage, path),
        _ => add_beside(app, args, storage, password),
    }
}

/// A file that opens other repositories too would not open them any more.
fn refuse_shared_file(
    app: &App,
    settings: &RepositorySettings,
    password: &Setting<PasswordSource>,
) -> Result<(), Failure> {
    let PasswordSource::File(path) = &password.value else {
        return Ok(());
    };
    let others = app.config.repositories();
    let mut shared = None;
    for other in others.filter(|other| other.name != settings.name) {
        if let Some(theirs) = &other.password
            && is_shared(path, password, theirs)?
        {
            shared = Some(&other.name);
            break;
        }
    }
    let Some(name) = shared else {
        return Ok(());
    };
    let fact = format!(
        "{} opens the repository {name} as well, which would be locked out",
        path.display()
    );
    Err(Failure::new(Exit::Refused, fact)
        .hint(format!(
            "give {name} a passphrase of its own: `lifeboat key add --repository {name} --new-password-file FILE`, and `password_file = \"FILE\"` in its section"
        ))
        .hint("then run this again"))
}

/// Whether what another repository's passphrase comes from is this file, by whatever name.
fn is_shared(
    path: &Path,
    own: &Setting<PasswordSource>,
    theirs: &Setting<PasswordSource>,
) -> Result<bool, Failure> {
    // One that is not there yet is nobody's.
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match &theirs.value {
        PasswordSource::File(theirs) => Ok(real(theirs) == real(path)),
        // What a program reads cannot be told, only what it says.
        PasswordSource::Command(_) => {
            let (own, theirs) = (secrets::password(own)?, secrets::password(theirs)?);
            Ok(own.expose_secret() == theirs.expose_secret())
        }
        PasswordSource::Literal(_) => Ok(false),
    }
}

fn replace_file(
    app: &App,
    args: &RotateArgs,
    storage: Arc<dyn Storage>,
    path: &Path,
) -> Result<Exit, Failure> {
    let request = RotateRequest {
        storage,
        password_file: path.to_owned(),
        new: match &args.new_password_file {
            Some(path) => secrets::new_password(path)?,
            None => passphrase::generate()?.into(),
        },
        is_chosen: args.new_password_file.is_some(),
        holder: super::holder(app, &args.lock),
    };
    let progress = Progress::new(&app.out);
    let result = keys::rotate(&request, &progress);
    drop(progress);
    let rotated = result?;
    let file = rotated.password_file.display().to_string();
    app.out.object(
        "key",
        &json!({
            "finished": true,
            "resumed": rotated.resumed,
            "key": rotated.key.to_string(),
            "removed": rotated.removed,
            "passphrase_file": file,
        }),
    )?;
    let removed: Vec<&str> = rotated
        .removed
        .iter()
        .map(|name| name.get(..8).unwrap_or(name))
        .collect();
    app.out.report(&table::pairs(&[
        ("key", rotated.key.short()),
        (
            "removed",
            if removed.is_empty() {
                "none was left".to_owned()
            } else {
                removed.join(", ")
            },
        ),
        ("passphrase", file.clone()),
    ]));
    if rotated.resumed {
        app.out.say("\nAn earlier rotation had not ended: this finished it, with the passphrase that it had made.");
    }
    if let Some(mode) = rotated.was_wider {
        app.out.warn(&format!(
            "{file} had mode {mode:04o} and has 0600 now: whoever read it by its group needs to be its owner"
        ));
    }
    app.out.say(
        "\nThe repository was opened with the new passphrase, and the old one opens it no more. Now:\n\
         \x20 1. other machines that open this repository with the old passphrase need the new one\n\
         \x20 2. the recovery kit is out of date: `lifeboat recovery-kit write --replace`, print it, burn the old\n\
         \x20 3. if the old passphrase was stolen: copies of the repository that hold the old key file still\n\
         \x20    open with it, and the master key is the same. docs/keys.md says what to do then",
    );
    Ok(Exit::Done)
}

/// There is no file to replace: the new passphrase is added, and the operator does the rest.
fn add_beside(
    app: &App,
    args: &RotateArgs,
    storage: Arc<dyn Storage>,
    password: &Setting<PasswordSource>,
) -> Result<Exit, Failure> {
    let place = match &password.value {
        // Its arguments may say more than a message should.
        PasswordSource::Command(words) => {
            let program = words.first().map_or("", String::as_str);
            format!("the command `{program}` ({})", password.origin)
        }
        _ => password.origin.to_string(),
    };
    let Some(path) = &args.new_password_file else {
        return Err(Failure::new(
            Exit::Usage,
            format!("the passphrase comes from {place}, which cannot be rewritten from here"),
        )
        .hint("write the new passphrase into a file (mode 0600), and give it with `--new-password-file FILE`"));
    };
    let repository = Repository::open(storage, &secrets::password(password)?)?;
    let new = secrets::new_password(path)?;
    let progress = Progress::new(&app.out);
    let result = keys::add(
        &repository,
        &new,
        &super::holder(app, &args.lock),
        &progress,
    );
    drop(progress);
    let old: KeyId = repository.key_id();
    let (Added::New(key) | Added::Already(key)) = result?;
    if key == old {
        return Err(Failure::new(Exit::Usage, "the new passphrase is the one in use").hint(
            "`lifeboat key list` shows the keys, and `lifeboat key remove ID` removes the one that is not needed any more",
        ));
    }
    app.out.object(
        "key",
        &json!({ "finished": false, "key": key.to_string(), "old": old.to_string(), "change": place }),
    )?;
    app.out.report(&table::pairs(&[
        ("new key", key.short()),
        ("old key", old.short()),
    ]));
    app.out.say(&format!(
        "\nBoth passphrases open the repository now. To finish:\n\
         \x20 1. make {place} give the new passphrase\n\
         \x20 2. lifeboat key list                # shows {} in use\n\
         \x20 3. lifeboat key remove {}     # refuses while that one is in use\n\
         \x20 4. lifeboat recovery-kit write --replace -o DIR",
        key.short(),
        old.short()
    ));
    Ok(Exit::Done)
}
