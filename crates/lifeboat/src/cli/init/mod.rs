//! `lifeboat init`: make the repository; on a terminal, also ask what is not configured and write it down.

mod ask;
mod dotenv;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lifeboat_engine::config::{ConfigError, RepositoryLocation, RepositorySettings};
use lifeboat_engine::recovery_kit::Kit;
use lifeboat_pg::ConnInfo;
use lifeboat_repo::chunker::ChunkSizes;
use lifeboat_repo::key::ScryptParams;
use lifeboat_repo::repository::InitOptions;
use lifeboat_repo::storage::Storage;
use lifeboat_repo::{Repository, RepositoryError};
use secrecy::SecretString;
use serde::Serialize;

use super::recovery_kit::{self, write};
use crate::app::{self, App};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{human, table};
use crate::{prompt, secrets};

/// Flags of `init`.
#[derive(Debug, Args)]
#[command(after_help = "\
With DATABASE_URL, LIFEBOAT_REPOSITORY and LIFEBOAT_PASSWORD_FILE set, or the same in a
configuration file, init asks nothing. On a terminal it asks for what is missing, makes a
passphrase and writes a configuration file. It never overwrites anything.

The recovery kit, which brings the data back on a bare machine, is written beside the
configuration file. Without such a file it is written only where --recovery-kit says: it holds
the passphrase, and does not belong into whatever folder init happens to run in. `lifeboat
recovery-kit write` writes it later.

`init --repository NAME` makes another configured repository. It gets the master key of the first
one, under a passphrase of its own if it has one, so that `copy` can move packs as they are: who
can open one of the two can read both. With --separate-keys it gets a key of its own, and `copy`
has more to do. When the first one is lost, `init --keys-of NAME` makes it anew, for
`copy --from NAME --to FIRST` to fill.")]
pub struct InitArgs {
    /// Write the recovery kit into this folder.
    #[arg(long, value_name = "DIR")]
    pub recovery_kit: Option<PathBuf>,
    /// Make this configured repository (default: the first one).
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Make it with a master key of its own.
    #[arg(long, requires = "repository")]
    pub separate_keys: bool,
    /// Make it with the master key of this configured repository (default: that of the first one).
    #[arg(long, value_name = "NAME", conflicts_with = "separate_keys")]
    pub keys_of: Option<String>,
}

/// What was made, for `--json`.
#[derive(Debug, Serialize)]
struct Made {
    /// What the configuration calls it.
    name: String,
    repository: String,
    /// Whether it is on another machine.
    #[serde(skip)]
    is_remote: bool,
    repository_id: String,
    /// Of one that was made beside another: whether it has that one's master key.
    shared_keys: Option<bool>,
    /// That other one.
    #[serde(skip)]
    keys_of: Option<String>,
    /// False when it was there already and the passphrase opens it.
    created: bool,
    chunk_average_bytes: u32,
    config_file: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    database_url_file: Option<PathBuf>,
    /// The kit's text, when one was written.
    recovery_kit: Option<PathBuf>,
}

/// Runs it.
pub fn run(app: &App, args: &InitArgs) -> Result<(), Failure> {
    let settings = app.config.repository(args.repository.as_deref())?;
    if settings.name != app.config.primary.name || args.keys_of.is_some() {
        return another(app, settings, args);
    }
    let complete = settings.access().is_ok();
    if complete && !app.config.databases.is_empty() {
        from_configuration(app, args)
    } else if app.config.file.is_none() && !app.out.is_json() && prompt::is_possible() {
        ask::run(app, args)
    } else if complete {
        // A repository that will hold somebody else's backups, copied or restored from: a size is all
        // that is missing.
        from_configuration(app, args)
    } else {
        Err(missing(app))
    }
}

fn missing(app: &App) -> Failure {
    let error = match app.config.primary.access() {
        Err(error) => error,
        Ok(_) => ConfigError::NoDatabase,
    };
    let failure = Failure::new(Exit::Usage, error.to_string());
    match &app.config.file {
        Some(file) => failure.hint(format!("add it to {}", file.display())),
        None => failure
            .hint("set DATABASE_URL, LIFEBOAT_REPOSITORY and LIFEBOAT_PASSWORD_FILE")
            .hint("or run `lifeboat init` on a terminal: it asks, and writes a configuration file"),
    }
}

fn from_configuration(app: &App, args: &InitArgs) -> Result<(), Failure> {
    let asked_for = kit_folder(args.recovery_kit.as_deref())?;
    let settings = &app.config.primary;
    let (location, password) = settings.access()?;
    let secret = secrets::password(password)?;
    let chunk_sizes = chunk_sizes(app, &databases(app)?)?;
    let storage = app.storage(settings, &location.value)?;
    let (repository, created) = make(app, storage, &secret, Keys::New(chunk_sizes))?;
    // Run again by whatever sets up machines, it changes nothing.
    let beside = recovery_kit::default_folder(app.config.file.as_deref()).filter(|_| created);
    let recovery_kit = match asked_for.or(beside) {
        Some(folder) => write_kit(app, &folder, || {
            let configured = write::configured(app)?;
            write::kit(
                app,
                settings,
                &location.value,
                &repository,
                secret,
                configured,
            )
        }),
        None => None,
    };
    let made = made(settings, &repository, created, None)?;
    finished(
        app,
        &Made {
            config_file: app.config.file.clone(),
            recovery_kit,
            ..made
        },
    )
}

/// Makes a repository beside one that is there.
fn another(app: &App, settings: &RepositorySettings, args: &InitArgs) -> Result<(), Failure> {
    let (location, password) = settings.access()?;
    let secret = secrets::password(password)?;
    let storage = app.storage(settings, &location.value)?;
    if args.separate_keys {
        let chunk_sizes = chunk_sizes(app, &databases(app)?)?;
        let (repository, created) = make(app, storage, &secret, Keys::New(chunk_sizes))?;
        let made = made(settings, &repository, created, Some(("", false)))?;
        return finished(
            app,
            &Made {
                config_file: app.config.file.clone(),
                ..made
            },
        );
    }
    let whose = app.config.repository(args.keys_of.as_deref())?;
    if whose.name == settings.name {
        let fact = format!("{} cannot get its keys from itself", settings.name);
        return Err(Failure::new(Exit::Usage, fact).hint("name another one with `--keys-of NAME`"));
    }
    let other = app.open(whose).map_err(|failure| {
        let hint = "its key is what the new one shares: make it first, or give the new one keys of its own with `--separate-keys`";
        failure.hint(hint)
    })?;
    let (repository, created) = make(app, storage, &secret, Keys::Of(&other))?;
    let shared = repository.shares_keys_with(&other);
    let made = made(settings, &repository, created, Some((&whose.name, shared)))?;
    finished(
        app,
        &Made {
            config_file: app.config.file.clone(),
            ..made
        },
    )
}

fn databases(app: &App) -> Result<Vec<ConnInfo>, Failure> {
    let mut databases = Vec::new();
    for database in &app.config.databases {
        let url = secrets::database_url(&database.url)?;
        databases.push(app.conninfo(&url)?);
    }
    Ok(databases)
}

/// What is to be told of a repository, files that were written beside it left out.
fn made(
    settings: &RepositorySettings,
    repository: &Repository,
    created: bool,
    keys: Option<(&str, bool)>,
) -> Result<Made, Failure> {
    let (location, password) = settings.access()?;
    Ok(Made {
        name: settings.name.clone(),
        shared_keys: keys.map(|(_, shared)| shared),
        keys_of: keys.map(|(whose, _)| whose.to_owned()),
        is_remote: matches!(location.value, RepositoryLocation::Remote(_)),
        repository: location.value.to_string(),
        repository_id: repository.id().to_owned(),
        created,
        chunk_average_bytes: repository.chunk_sizes().avg,
        config_file: None,
        passphrase_file: match &password.value {
            lifeboat_engine::config::PasswordSource::File(path) => Some(path.clone()),
            _ => None,
        },
        database_url_file: None,
        recovery_kit: None,
    })
}

/// Where a new repository's master key comes from.
enum Keys<'a> {
    /// It gets one of its own, and cuts streams like this.
    New(ChunkSizes),
    /// It is another's.
    Of(&'a Repository),
}

/// The folder that a kit was asked to be in, made sure of before anything is made.
fn kit_folder(asked: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let Some(folder) = asked else {
        return Ok(None);
    };
    write::refuse_older(&folder.join(recovery_kit::TEXT))?;
    write::refuse_older(&folder.join(recovery_kit::PAGE))?;
    Ok(Some(folder.to_owned()))
}

/// Writes the kit. The repository is there by now, so a failure is told and no more.
fn write_kit(
    app: &App,
    folder: &Path,
    kit: impl FnOnce() -> Result<Kit, Failure>,
) -> Option<PathBuf> {
    match kit().and_then(|kit| write::write(app, &kit, folder, false)) {
        Ok(written) => Some(written.text),
        Err(failure) => {
            app.out.warn(&format!(
                "no recovery kit was written: {}; `lifeboat recovery-kit write` does it later",
                failure.fact
            ));
            None
        }
    }
}

/// Chunk sizes for the databases together, since they share the repository. They are kept for its life,
/// so a database that cannot be asked is a failure and not a guess.
fn chunk_sizes(app: &App, databases: &[ConnInfo]) -> Result<ChunkSizes, Failure> {
    let mut bytes = 0;
    for conninfo in databases {
        bytes += database_bytes(app, conninfo).map_err(|failure| {
            failure.hint(
                "the repository's chunk sizes depend on the database's size: nothing was made yet",
            )
        })?;
    }
    if databases.is_empty() {
        app.out
            .say("no database is configured: the repository is made for one of 10 to 30 GB");
        return Ok(ChunkSizes::with_average(
            lifeboat_repo::chunker::DEFAULT_AVERAGE,
        ));
    }
    app.out
        .detail(&format!("the databases hold {}", human::bytes(bytes)));
    Ok(ChunkSizes::for_database_size(bytes))
}

fn database_bytes(app: &App, conninfo: &ConnInfo) -> Result<u64, Failure> {
    let mut connection = app.connect(conninfo)?;
    let rows = connection
        .query("SELECT pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes")?;
    match rows.first() {
        Some(row) => Ok(row.parse("bytes")?),
        None => Err(Failure::bug("no size")),
    }
}

/// Makes the repository; one that is there and that the passphrase opens is as good, so that init can be
/// run again by whatever sets up machines.
fn make(
    app: &App,
    storage: Arc<dyn Storage>,
    password: &SecretString,
    keys: Keys<'_>,
) -> Result<(Repository, bool), Failure> {
    let options = InitOptions {
        chunk_sizes: match &keys {
            Keys::New(chunk_sizes) => *chunk_sizes,
            Keys::Of(primary) => primary.chunk_sizes(),
        },
        scrypt: ScryptParams::default(),
        hostname: app::hostname(),
        username: app.username(),
        now: app.now(),
    };
    let result = match keys {
        Keys::New(_) => Repository::init(Arc::clone(&storage), password, &options),
        Keys::Of(primary) => {
            Repository::init_with_keys_of(primary, Arc::clone(&storage), password, &options)
        }
    };
    match result {
        Ok(repository) => Ok((repository, true)),
        Err(RepositoryError::AlreadyExists { .. }) => {
            Ok((Repository::open(storage, password)?, false))
        }
        Err(error) => Err(error.into()),
    }
}

fn finished(app: &App, made: &Made) -> Result<(), Failure> {
    app.out.object("init", made)?;
    let first = &app.config.primary.name;
    app.out.data(&kit(made, first, app.config_flag.as_deref()));
    Ok(())
}

/// What to keep safe and what to type next.
fn kit(made: &Made, first: &str, config_flag: Option<&Path>) -> String {
    let repository = &made.repository;
    let lifeboat = match config_flag {
        Some(path) => format!("lifeboat --config {}", path.display()),
        None => "lifeboat".to_owned(),
    };
    let passphrase = made
        .passphrase_file
        .as_ref()
        .map(|path| path.display().to_string());
    let mut text = if made.created {
        "The repository is ready.\n\n".to_owned()
    } else {
        "There is a repository already, and the passphrase opens it. Nothing was changed.\n\n"
            .to_owned()
    };
    let mut facts = vec![
        ("repository", repository.clone()),
        ("repository id", made.repository_id.clone()),
    ];
    if let Some(path) = &made.config_file {
        facts.push(("configuration", path.display().to_string()));
    }
    if let Some(path) = &made.database_url_file {
        facts.push(("connection string", path.display().to_string()));
    }
    facts.push((
        "passphrase",
        passphrase
            .clone()
            .unwrap_or_else(|| "from the environment or a command".to_owned()),
    ));
    if let Some(shared) = made.shared_keys {
        let whose = match shared {
            true => format!(
                "those of {}: packs move as they are",
                made.keys_of.as_deref().unwrap_or_default()
            ),
            false => "its own: copies are opened and sealed anew".to_owned(),
        };
        facts.push(("keys", whose));
    }
    if let Some(path) = &made.recovery_kit {
        facts.push(("recovery kit", path.display().to_string()));
    }
    text.push_str(&table::pairs(&facts));
    if made.shared_keys.is_some() {
        let from = match made.keys_of.as_deref() {
            Some(whose) if first == made.name => format!("--from {whose} "),
            _ => String::new(),
        };
        text.push_str(&format!(
            "\n\n\
             Keep its passphrase safe, away from this machine. Without Lifeboat:\n\
             \x20 restic -r {repository} -p {} restore latest --target DIR\n\n\
             Next:\n\
             \x20 {lifeboat} copy {from}--to {}",
            passphrase.as_deref().unwrap_or("PASSPHRASE_FILE"),
            made.name,
        ));
        return text;
    }
    text.push_str(&format!(
        "\n\n\
         Keep safe, away from this machine:\n\
         \x20 1. the passphrase: without it nobody can read the backups, and nobody can reset it\n\
         \x20 2. {second}\n\
         \x20 3. the recovery kit, printed: it tells all that is needed, and holds the passphrase.\n\
         \x20    {third}\n\n\
         Next:\n\
         \x20 {lifeboat} check\n\
         \x20 {lifeboat} backup\n\
         \x20 {lifeboat} recovery-kit test{test}",
        second = if made.is_remote {
            "the credentials that reach the repository"
        } else {
            "a second repository on another machine (docs/off-host.md), or a copy of this folder"
        },
        third = match &made.recovery_kit {
            Some(path) => format!("Print {}", path.with_file_name(recovery_kit::PAGE).display()),
            None => format!("It was not written: `{lifeboat} recovery-kit write -o DIR` does"),
        },
        test = if made.config_file.is_some() { "" } else { " FILE" },
    ));
    text
}

/// Where things go by default, as a value for the questions and the tests.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    config_file: PathBuf,
    repository: RepositoryLocation,
}

impl Places {
    fn default_for(app: &App) -> Self {
        let env = |name: &str| {
            app.environment
                .get(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let is_root = rustix::process::geteuid().is_root();
        let home = env("HOME").unwrap_or_default();
        let config = env("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| home.join(".config"));
        let data = env("XDG_DATA_HOME")
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| home.join(".local/share"));
        let config_file = match (&app.config_flag, env("LIFEBOAT_CONFIG")) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => path,
            (None, None) if is_root => PathBuf::from("/etc/lifeboat/lifeboat.toml"),
            (None, None) => config.join("lifeboat/lifeboat.toml"),
        };
        let repository = if is_root {
            PathBuf::from("/var/backups/lifeboat")
        } else {
            data.join("lifeboat/repository")
        };
        Self {
            config_file,
            repository: RepositoryLocation::Local(repository),
        }
    }
}
