//! `lifeboat recovery-kit write`.

use std::path::{Path, PathBuf};

use clap::Args;
use lifeboat_engine::catalog::Catalog;
use lifeboat_engine::config::{RemoteSettings, RepositoryLocation, RepositorySettings};
use lifeboat_engine::recovery_kit::{Credential, Kit, KitDatabase, Receipt};
use lifeboat_pg::Connection;
use lifeboat_repo::Repository;
use lifeboat_repo::storage::remote::RemoteLocation;
use secrecy::SecretString;
use serde_json::json;

use super::{PAGE, TEXT};
use crate::app::{self, App};
use crate::cli::RepositoryArg;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::new_files::NewFiles;
use crate::output::table;
use crate::{remote, secrets};

/// Flags of `recovery-kit write`.
#[derive(Debug, Args)]
#[command(after_help = "\
Two files are written, both with mode 0600: the text, which `recovery-kit test` reads, and the
same as a page that prints well from any browser, without anything fetched from elsewhere.")]
pub struct WriteArgs {
    /// Write into this folder (default: that of the configuration file).
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace an older kit. It may be the only way into copies of the repository with an older key.
    #[arg(long)]
    pub replace: bool,
    /// Put the access key to the bucket into the kit as well.
    #[arg(long)]
    pub with_credentials: bool,
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Runs it.
pub fn run(app: &App, args: &WriteArgs) -> Result<Exit, Failure> {
    let folder = match args
        .output
        .clone()
        .or_else(|| super::default_folder(app.config.file.as_deref()))
    {
        Some(folder) => folder,
        None => {
            return Err(Failure::new(Exit::Usage, "there is no configuration file to put the recovery kit beside")
                .hint("say where with `-o DIR`: best a stick, or a folder that you print from and then empty"));
        }
    };
    // Refused before the passphrase is asked of a command or a person.
    let (text, page) = (folder.join(TEXT), folder.join(PAGE));
    if !args.replace {
        refuse_older(&text)?;
        refuse_older(&page)?;
    }
    let settings = app.config.repository(args.repository.name())?;
    let (location, password) = settings.access()?;
    let repository = app.open(settings)?;
    let passphrase = secrets::password(password)?;
    let mut kit = kit(
        app,
        settings,
        &location.value,
        &repository,
        passphrase,
        configured(app)?,
    )?;
    if args.with_credentials {
        add_credentials(app, &settings.remote, &mut kit)?;
    }
    let files = write(app, &kit, &folder, args.replace)?;
    app.out.object("recovery-kit", &json!({
        "text": files.text, "page": files.page, "repository_id": kit.repository_id, "key": kit.key, "written": kit.written,
    }))?;
    app.out.report(&table::pairs(&[
        ("text", files.text.display().to_string()),
        ("page", files.page.display().to_string()),
        ("key", kit.key.clone()),
    ]));
    app.out.say(&format!(
        "\nIt holds the passphrase: print it, put it where deeds and keys are kept, and keep none on this machine\n\
         that others can read. Prove it with `lifeboat recovery-kit test {}`.",
        files.text.display()
    ));
    Ok(Exit::Done)
}

/// An older kit is not written over unasked: it may be the only way into an older copy of the repository.
pub fn refuse_older(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("{} exists, and a recovery kit is not written over unasked", path.display()))
        .hint("it may be the only way into copies of the repository that were made before the passphrase changed")
        .hint("`--replace` replaces it, `-o DIR` writes elsewhere"))
}

/// The files that were written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The text.
    pub text: PathBuf,
    /// The page.
    pub page: PathBuf,
}

/// What there is to tell. The repository is open with this passphrase.
pub fn kit(
    app: &App,
    settings: &RepositorySettings,
    location: &RepositoryLocation,
    repository: &Repository,
    passphrase: SecretString,
    configured: Vec<KitDatabase>,
) -> Result<Kit, Failure> {
    let access = &settings.remote;
    let mut kit = Kit {
        written: app.now(),
        lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: app::hostname(),
        location: match location {
            // A relative one means something else on the machine that it is read on.
            RepositoryLocation::Local(path) => {
                RepositoryLocation::Local(std::path::absolute(path).map_err(Failure::bug)?)
            }
            other => other.clone(),
        },
        repository_id: repository.id().to_owned(),
        key: repository.key_id().short(),
        passphrase,
        region: None,
        path_style: None,
        ssh_command: Vec::new(),
        credentials: Vec::new(),
        databases: databases(repository, configured)?,
    };
    match location {
        RepositoryLocation::Remote(RemoteLocation::S3(location)) => {
            kit.region = Some(remote::region(app, access, location));
            kit.path_style = access.path_style.value;
            kit.credentials = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
                .map(|name| Credential {
                    name: name.to_owned(),
                    value: None,
                })
                .to_vec();
        }
        RepositoryLocation::Remote(RemoteLocation::Sftp(_))
            if access.ssh_command.value != ["ssh"] =>
        {
            kit.ssh_command.clone_from(&access.ssh_command.value);
        }
        _ => {}
    }
    Ok(kit)
}

fn add_credentials(app: &App, settings: &RemoteSettings, kit: &mut Kit) -> Result<(), Failure> {
    let RepositoryLocation::Remote(RemoteLocation::S3(location)) = &kit.location else {
        return Ok(());
    };
    let (id, secret) = remote::access_key(app, settings, location)?;
    for (credential, value) in kit.credentials.iter_mut().zip([id.into(), secret]) {
        credential.value = Some(value);
    }
    Ok(())
}

/// The configured databases, with the version that their server tells. One that cannot be asked has none.
pub fn configured(app: &App) -> Result<Vec<KitDatabase>, Failure> {
    let mut databases = Vec::new();
    for database in &app.config.databases {
        let source = app.source(database.name.as_deref())?;
        let server_version = match app.connect(&source.conninfo) {
            Ok(connection) => version(&connection),
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => {
                app.out
                    .detail(&format!("{}: {}", source.name, failure.fact));
                None
            }
        };
        databases.push(KitDatabase {
            name: source.name,
            server_version,
        });
    }
    Ok(databases)
}

/// The server's version without what its packager added.
pub fn version(connection: &Connection) -> Option<String> {
    let version = connection.parameter("server_version")?;
    version.split_whitespace().next().map(str::to_owned)
}

/// The configured databases and those that have backups; of these, the newest backup tells the version.
fn databases(
    repository: &Repository,
    configured: Vec<KitDatabase>,
) -> Result<Vec<KitDatabase>, Failure> {
    let (backups, _) = Catalog::new(repository).backups(None)?;
    let mut databases: Vec<KitDatabase> = Vec::new();
    for backup in backups.iter().rev() {
        if databases.iter().any(|known| known.name == backup.database) {
            continue;
        }
        let number = backup
            .summary
            .as_ref()
            .map(|summary| summary.server_version_num);
        databases.push(KitDatabase {
            name: backup.database.clone(),
            server_version: number.map(|number| format!("{}.{}", number / 10_000, number % 10_000)),
        });
    }
    for database in configured {
        if !databases.iter().any(|known| known.name == database.name) {
            databases.push(database);
        }
    }
    databases.sort_by(|left, right| left.name.cmp(&right.name));
    if databases.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "there is no backup and no configured database for a recovery kit to tell of",
        )
        .hint("take a backup first, or set DATABASE_URL"));
    }
    Ok(databases)
}

/// Writes both files, and remembers that it did.
pub fn write(app: &App, kit: &Kit, folder: &Path, replace: bool) -> Result<Written, Failure> {
    let folder = std::path::absolute(folder).map_err(Failure::bug)?;
    let written = Written {
        text: folder.join(TEXT),
        page: folder.join(PAGE),
    };
    let mut files = NewFiles::default();
    for (path, content) in [(&written.page, kit.html()), (&written.text, kit.text())] {
        if replace {
            files.replace(path, &content)?;
        } else {
            files.write(path, &content)?;
        }
    }
    files.keep();
    remember(app, &Receipt::of(kit, &written.text));
    Ok(written)
}

/// Keeps the receipt. The kit is as good without, so a failure is only told.
pub fn remember(app: &App, receipt: &Receipt) {
    if let Some(folder) = &app.config.state_dir.value
        && let Err(error) = receipt.write(folder)
    {
        app.out.warn(&format!(
            "{error}: `lifeboat check` will not know of this kit"
        ));
    }
}
