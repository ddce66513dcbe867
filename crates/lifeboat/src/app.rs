//! What every command is handed: configuration, environment, output, the interrupt flag.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_engine::config::{
    Config, ConfigError, PasswordSource, RepositoryLocation, RepositorySettings, Sources,
    UrlSource, search,
};
use lifeboat_engine::journal::Journal;
use lifeboat_engine::locking::{self, Reading};
use lifeboat_pg::tools::ToolFinder;
use lifeboat_pg::{ConnInfo, ConnectOptions, Connection};
use lifeboat_repo::Repository;
use lifeboat_repo::lock::LockGuard;
use lifeboat_repo::storage::{AppendOnly, Cached, LocalStorage, Storage};
use secrecy::{ExposeSecret, SecretString};

use crate::cli::{ConfigUse, GlobalArgs, RepositoryArg};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::progress::Progress;
use crate::{remote, secrets};

/// The process, as far as commands may know it.
#[derive(Debug)]
pub struct App {
    /// What was configured.
    pub config: Config,
    /// The environment, as it was at the start. Variables that are not UTF-8 are not in it.
    pub environment: BTreeMap<String, String>,
    /// The two streams.
    pub out: Output,
    /// Set when somebody asked the process to stop.
    pub interrupt: Arc<AtomicBool>,
    /// The `--config` flag, for `init`.
    pub config_flag: Option<PathBuf>,
}

impl App {
    /// Finds, reads and resolves the configuration.
    pub fn new(
        global: &GlobalArgs,
        environment: BTreeMap<String, String>,
        out: Output,
        interrupt: Arc<AtomicBool>,
        config_use: ConfigUse,
    ) -> Result<Self, Failure> {
        let file = match config_use {
            ConfigUse::Ignored => None,
            _ => find_config(global, &environment, config_use)?,
        };
        if let Some((path, _)) = &file {
            out.detail(&format!("configuration: {}", path.display()));
        }
        let config = Config::resolve(&Sources {
            file,
            environment: &environment,
            is_root: rustix::process::geteuid().is_root(),
        })?;
        for notice in &config.notices {
            out.warn(notice);
        }
        Ok(Self {
            config,
            environment,
            out,
            interrupt,
            config_flag: global.config.clone(),
        })
    }

    /// The database to work on, with the name it goes by, and how to reach it.
    pub fn source(&self, name: Option<&str>) -> Result<Source, Failure> {
        // A database without a name in the configuration goes by the server's name for it.
        let unnamed = matches!(self.config.databases.as_slice(), [only] if only.name.is_none());
        let database = self.config.database(name.filter(|_| !unnamed))?;
        if let UrlSource::File(path) = &database.url.value {
            self.warn_of_readers("the connection string", path);
        }
        let url = secrets::database_url(&database.url)?;
        let conninfo = self.conninfo(&url)?;
        let found = database
            .name
            .clone()
            .unwrap_or_else(|| conninfo.database().to_owned());
        match name {
            Some(name) if name != found => Err(ConfigError::UnknownDatabase {
                name: name.to_owned(),
                nearest: None,
                names: vec![found],
            }
            .into()),
            _ => Ok(Source {
                name: found,
                conninfo,
            }),
        }
    }

    /// Reads a connection string by libpq's rules, in this process's environment.
    pub fn conninfo(&self, url: &SecretString) -> Result<ConnInfo, Failure> {
        let environment = |name: &str| self.environment.get(name).cloned();
        let conninfo = ConnInfo::parse(url.expose_secret(), &environment)?;
        for warning in conninfo.warnings() {
            self.out.warn(&warning.to_string());
        }
        for (name, _) in conninfo.ignored() {
            self.out.detail(&format!(
                "the URL's parameter `{name}` means nothing to PostgreSQL and is left out"
            ));
        }
        Ok(conninfo)
    }

    /// A connection string that was given as a flag. It may hold a password, and then the operator should
    /// know who else has seen it.
    pub fn url_argument(&self, flag: &str, url: &str) -> Result<ConnInfo, Failure> {
        let conninfo = self.conninfo(&SecretString::from(url))?;
        let alone = ConnInfo::parse(url, &|_: &str| None::<String>);
        if alone.is_ok_and(|alone| alone.password().is_some()) {
            self.out.warn(&format!("the URL of {flag} holds a password, which other users of this machine can see; ~/.pgpass or PGPASSWORD keep it private"));
        }
        Ok(conninfo)
    }

    /// Whose backups a command on the repository means: the flag's, else the only configured database's,
    /// else everybody's. The repository is the truth here, so a flag need not be configured.
    pub fn database_filter(&self, flag: Option<&str>) -> Option<String> {
        flag.map(str::to_owned)
            .or_else(|| match self.config.databases.as_slice() {
                [only] => only
                    .name
                    .clone()
                    .or_else(|| self.source(None).ok().map(|source| source.name)),
                _ => None,
            })
    }

    /// Connects.
    pub fn connect(&self, conninfo: &ConnInfo) -> Result<Connection, Failure> {
        let options = ConnectOptions {
            application_name: Some("lifeboat".to_owned()),
            connect_timeout: None,
            interrupt: Arc::clone(&self.interrupt),
        };
        Connection::connect(conninfo, &options).map_err(Failure::from)
    }

    /// Says it when others can read a file that holds a secret. No refusal: a container's secrets are mounted
    /// like that, and a backup that was not taken protects nobody.
    fn warn_of_readers(&self, what: &str, path: &Path) {
        if let Some(mode) = secrets::mode(path).filter(|mode| mode & 0o077 != 0) {
            let path = path.display();
            self.out.warn(&format!(
                "others can read {what} in {path} (mode {mode:04o}); `chmod 600 {path}`"
            ));
        }
    }

    /// The repository that was asked for, else the primary, open.
    pub fn repository(&self, which: &RepositoryArg) -> Result<Repository, Failure> {
        self.open(self.config.repository(which.name())?)
    }

    /// A configured repository, open.
    pub fn open(&self, settings: &RepositorySettings) -> Result<Repository, Failure> {
        self.open_over(settings, |storage, _| storage)
    }

    /// As [`App::open`], for what comes every hour and adds to it: of one on another machine, index and snapshot
    /// files that were read before are not fetched again. Not for telling whether it is whole.
    pub fn open_to_add(&self, settings: &RepositorySettings) -> Result<Repository, Failure> {
        self.open_over(settings, |storage, location| {
            match (location, &self.config.state_dir.value) {
                (RepositoryLocation::Remote(_), Some(state)) => {
                    Arc::new(Cached::new(storage, state.join("cache")))
                }
                _ => storage,
            }
        })
    }

    fn open_over(
        &self,
        settings: &RepositorySettings,
        over: impl FnOnce(Arc<dyn Storage>, &RepositoryLocation) -> Arc<dyn Storage>,
    ) -> Result<Repository, Failure> {
        let (location, password) = settings.access()?;
        if let PasswordSource::File(path) = &password.value {
            self.warn_of_readers("the passphrase", path);
        }
        let password = secrets::password(password)?;
        let storage = self.storage(settings, &location.value)?;
        Repository::open(over(storage, &location.value), &password).map_err(|error| {
            let mut failure = Failure::from(error);
            if failure.exit == Exit::NoRepository && settings.name != self.config.primary.name {
                let name = &settings.name;
                failure.hints = vec![format!("`lifeboat init --repository {name}` makes it")];
            }
            failure
        })
    }

    /// Keeps others from removing data while it is read.
    pub fn lock_to_read(
        &self,
        repository: &Repository,
        reading: Reading,
        most: Duration,
    ) -> Result<Option<LockGuard>, Failure> {
        let who = (&*hostname(), &*self.username());
        let progress = Progress::new(&self.out);
        Ok(locking::to_read(
            repository,
            reading,
            who,
            most,
            &self.interrupt,
            &progress,
        )?)
    }

    /// A location as a storage, with the settings and credentials that are configured. Connects to nothing yet.
    pub fn storage(
        &self,
        settings: &RepositorySettings,
        location: &RepositoryLocation,
    ) -> Result<Arc<dyn Storage>, Failure> {
        let storage: Arc<dyn Storage> = match location {
            RepositoryLocation::Remote(location) => {
                remote::storage(self, &settings.remote, location)?
            }
            RepositoryLocation::Local(path) => Arc::new(LocalStorage::new(path)),
            other => return Err(Failure::bug(format_args!("no storage for {other}"))),
        };
        Ok(if settings.remote.append_only.value {
            Arc::new(AppendOnly::new(storage))
        } else {
            storage
        })
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Who runs this, for key files, locks and backups.
    pub fn username(&self) -> String {
        ["USER", "LOGNAME"]
            .iter()
            .find_map(|name| {
                self.environment
                    .get(*name)
                    .filter(|value| !value.is_empty())
                    .cloned()
            })
            .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
    }

    /// How PostgreSQL's programs are found.
    pub fn tools(&self) -> ToolFinder {
        let settings = &self.config.tools;
        ToolFinder {
            bin_dir: settings.bin_dir.value.clone(),
            prefix: settings.prefix.value.clone(),
            ..ToolFinder::new(std::env::var_os("PATH"))
        }
    }

    /// How many connections a restore loads over: what was asked for, else one per processor.
    pub fn jobs(&self, configured: Option<NonZeroUsize>) -> usize {
        configured
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get)
    }

    /// How many connections a backup reads over: what was asked for, else one more than processors, so that one
    /// works while another waits for the disk or for the server. On two processors that takes a tenth off a
    /// backup; for a restore it changes nothing. Not more than eight, since each holds a pack of 16 MiB, and the
    /// server has others to serve.
    pub fn backup_jobs(&self, configured: Option<NonZeroUsize>) -> usize {
        configured.map_or_else(|| (self.jobs(None) + 1).min(8), NonZeroUsize::get)
    }

    /// Where scratch servers are started.
    pub fn scratch_dir(&self) -> PathBuf {
        self.config
            .drill
            .scratch_dir
            .value
            .clone()
            .unwrap_or_else(std::env::temp_dir)
    }

    /// Opens the journal. When its folder cannot be used, says so once and goes on without history.
    pub fn journal(&self) -> Result<Journal, Failure> {
        let journal = Journal::open(self.config.state_dir.value.as_deref())
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        if let Some(reason) = journal.fallback() {
            self.out
                .warn(&format!("{reason}: this run is not kept in the history"));
        }
        Ok(journal)
    }

    /// Whether somebody asked the process to stop.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

/// A database to work on.
#[derive(Debug, Clone)]
pub struct Source {
    /// The name its backups go by.
    pub name: String,
    /// How to reach it.
    pub conninfo: ConnInfo,
}

/// The name of this machine, for key files, locks and backups.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The first configuration file that exists. One that was asked for must exist.
fn find_config(
    global: &GlobalArgs,
    environment: &BTreeMap<String, String>,
    config_use: ConfigUse,
) -> Result<Option<(PathBuf, String)>, Failure> {
    for candidate in search::candidates(global.config.as_deref(), environment) {
        match std::fs::read_to_string(&candidate.path) {
            Ok(text) => return Ok(Some((candidate.path, text))),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && (!candidate.required || config_use == ConfigUse::MayBeMissing) => {}
            Err(error) => {
                let path = candidate.path.display();
                let failure = Failure::new(
                    Exit::Usage,
                    format!("cannot read the configuration file {path}"),
                )
                .cause(&error);
                return Err(match error.kind() {
                    io::ErrorKind::NotFound => failure.hint(format!(
                        "{} names it; `lifeboat init` writes a new one",
                        candidate.origin
                    )),
                    io::ErrorKind::PermissionDenied => failure
                        .hint("run as the user that owns it, or name another with `--config FILE`"),
                    _ => failure,
                });
            }
        }
    }
    Ok(None)
}
