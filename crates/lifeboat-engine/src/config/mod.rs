//! The configuration: typed, validated, and immutable once resolved.
//!
//! [`Config::resolve`] is a pure function of a file's text and a map of environment variables; this room
//! opens no file and reads no variable itself, and it never holds a secret that a source only points at
//! (a password file, a command, a URL file). Every value remembers where it came from, so that whatever
//! later goes wrong with it can be reported with its place. Its invariant: a `Config` that exists is
//! usable, and an unknown key never passes.
//!
//! restic's own variables (`RESTIC_REPOSITORY`, `RESTIC_PASSWORD`, `RESTIC_PASSWORD_FILE`) are **not**
//! read. On a machine that also runs restic they point at restic's repository, and Lifeboat must never
//! write there by accident.

mod error;
mod file;
mod nearest;
mod origin;
mod parse;
pub mod reference;
mod repositories;
mod resolve;
pub mod search;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use lifeboat_repo::storage::remote::{LocationError, RemoteLocation};
use secrecy::SecretString;

use crate::expire::Policy;

pub use error::{ConfigError, ConfigErrors, Place};
pub use nearest::nearest;
pub use origin::{Origin, Setting};
pub use units::{ByteSize, ByteSizeError, TimeSpan, TimeSpanError};

/// What [`Config::resolve`] is a function of.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The configuration file's path and text, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// The environment. An empty value counts as not set, as compose files and unit files write it.
    pub environment: &'a BTreeMap<String, String>,
    /// Whether the process runs as root: then the state folder is the system's.
    pub is_root: bool,
}

/// Everything Lifeboat was told, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, if there was one.
    pub file: Option<PathBuf>,
    /// The databases, in the file's order. May be empty: `list` and `restore` need none.
    pub databases: Vec<Database>,
    /// The primary repository, to which backups are written. Where nothing is configured it has no location.
    pub primary: RepositorySettings,
    /// The repositories that are kept up to date with it, in the file's order.
    pub others: Vec<RepositorySettings>,
    /// The promises.
    pub objectives: Objectives,
    /// How backups are taken.
    pub backup: BackupSettings,
    /// Which backups `expire` keeps.
    pub retention: Setting<Policy>,
    /// How much of the stored data may stay that no backup needs, in thousandths.
    pub max_unused_permille: Setting<u64>,
    /// What `verify` accepts.
    pub verify: VerifySettings,
    /// How drills run.
    pub drill: DrillSettings,
    /// Where PostgreSQL's programs are.
    pub tools: ToolSettings,
    /// The journal's folder. `None` when neither a home nor a state folder is known.
    pub state_dir: Setting<Option<PathBuf>>,
    /// True facts about the configuration that may surprise, one line each, for people.
    pub notices: Vec<String>,
}

/// A database to back up.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name in the configuration. `None` for the only database: then it is called what the server
    /// calls it.
    pub name: Option<String>,
    /// Its connection string, or where that stands.
    pub url: Setting<UrlSource>,
}

/// Where a connection string is found.
#[derive(Debug, Clone)]
pub enum UrlSource {
    /// The text itself.
    Literal(SecretString),
    /// The only line of this file.
    File(PathBuf),
    /// libpq's own variables: `PGHOST`, `PGDATABASE`, `PGSERVICE`…
    LibpqEnvironment,
}

/// Where the repository's password is found.
#[derive(Debug, Clone)]
pub enum PasswordSource {
    /// The text itself (from the environment only).
    Literal(SecretString),
    /// The only line of this file.
    File(PathBuf),
    /// What this program prints, on one line: its name, then its arguments. Never empty.
    Command(Vec<String>),
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepositoryLocation {
    /// A folder.
    Local(PathBuf),
    /// On another machine.
    Remote(RemoteLocation),
}

impl RepositoryLocation {
    /// Reads a location as restic writes it: a folder, `file:…`, `s3:…`, `sftp:…`. A relative folder stays one.
    ///
    /// # Errors
    /// When it begins with another scheme, or can't be one; an empty path is `Malformed`.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let folder = match resolve::scheme(text) {
            None => text,
            Some("file") => {
                let rest = &text["file:".len()..];
                match rest.strip_prefix("//") {
                    Some(rest) if rest.starts_with('/') => rest,
                    Some(rest) => rest.strip_prefix("localhost").unwrap_or(""),
                    None => rest,
                }
            }
            Some("local") => &text["local:".len()..],
            Some(_) => return RemoteLocation::parse(text).map(Self::Remote),
        };
        if folder.is_empty() {
            let what = "the repository's path is empty";
            return Err(LocationError::Malformed { what });
        }
        Ok(Self::Local(folder.into()))
    }
}

impl fmt::Display for RepositoryLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Remote(location) => location.fmt(f),
        }
    }
}

/// A repository: where it is, what opens it, how it is reached.
#[derive(Debug, Clone)]
pub struct RepositorySettings {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub location: Option<Setting<RepositoryLocation>>,
    /// How its password is found: its own, or else the primary's.
    pub password: Option<Setting<PasswordSource>>,
    /// How it is reached, where it is on another machine.
    pub remote: RemoteSettings,
    /// Whether a backup is copied to it straight after it was taken.
    pub after_backup: Setting<bool>,
}

impl RepositorySettings {
    /// Where it is, and how its password is found. Errors: `NoRepository`, `NoPassword`.
    pub fn access(
        &self,
    ) -> Result<(&Setting<RepositoryLocation>, &Setting<PasswordSource>), ConfigError> {
        let location = self.location.as_ref().ok_or(ConfigError::NoRepository)?;
        let password = self.password.as_ref().ok_or(ConfigError::NoPassword)?;
        Ok((location, password))
    }

    /// Whether it is on another machine, as far as its location tells: what a fire here does not take.
    #[must_use]
    pub fn is_off_host(&self) -> bool {
        let location = self.location.as_ref().map(|location| &location.value);
        matches!(location, Some(RepositoryLocation::Remote(_)))
    }
}

/// How a repository is reached, mostly one on another machine.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// Whether nothing is ever removed from it by this machine.
    pub append_only: Setting<bool>,
    /// S3: the region that requests are signed for; `None` means what the host's name or the environment tell.
    pub region: Setting<Option<String>>,
    /// S3: whether the bucket stands in the path; `None` means yes, except at Amazon.
    pub path_style: Setting<Option<bool>>,
    /// S3: the file with the access key; `None` means the environment.
    pub credentials_file: Setting<Option<PathBuf>>,
    /// The most bytes per second.
    pub bandwidth_limit: Setting<Option<ByteSize>>,
    /// How long nothing may move before a try counts as failed.
    pub stall_timeout: Setting<TimeSpan>,
    /// For how long one request is tried.
    pub give_up_after: Setting<TimeSpan>,
    /// SFTP: the program and the first arguments of `ssh`. Never empty.
    pub ssh_command: Setting<Vec<String>>,
}

/// The two promises of a recovery plan.
#[derive(Debug, Clone)]
pub struct Objectives {
    /// The newest data that may be lost.
    pub rpo: Setting<TimeSpan>,
    /// The time that a recovery may take.
    pub rto: Setting<TimeSpan>,
}

/// How backups are taken.
#[derive(Debug, Clone)]
pub struct BackupSettings {
    /// Parallel connections; `None` means one more than processors, at most 8.
    pub jobs: Setting<Option<NonZeroUsize>>,
    /// zstd's level, 1 to 19.
    pub compression_level: Setting<i32>,
    /// Patience with other sessions' locks.
    pub lock_timeout: Setting<TimeSpan>,
    /// The size of a slice of a large table.
    pub slice_size: Setting<ByteSize>,
}

/// What `verify` accepts.
#[derive(Debug, Clone)]
pub struct VerifySettings {
    /// The oldest that the newest backup may be. For a folder of dumps too, unless `BACKUP_MAX_AGE_HOURS` is set.
    pub max_age: Setting<TimeSpan>,
    /// How long a pack that was read counts as read.
    pub max_proof_age: Setting<TimeSpan>,
    /// The check of a folder of plain dumps, as the `BACKUP_*` variables describe it.
    pub dumps: DumpFolder,
}

/// A folder of `pg_dump` files, for `verify`.
#[derive(Debug, Clone)]
pub struct DumpFolder {
    /// The folder.
    pub dir: Setting<PathBuf>,
    /// Which names in it are dumps: `*` and `?` as in a shell.
    pub glob: Setting<String>,
    /// One file to check instead of the newest match.
    pub file: Setting<Option<PathBuf>>,
    /// `BACKUP_MAX_AGE_HOURS`, if set.
    pub max_age: Option<Setting<TimeSpan>>,
}

impl DumpFolder {
    /// Whether somebody asked for this check: any part of it was set. Else `verify` means the repository.
    pub fn is_selected(&self) -> bool {
        self.dir.origin != Origin::Default
            || self.glob.origin != Origin::Default
            || self.file.origin != Origin::Default
            || self.max_age.is_some()
    }
}

/// How drills run.
#[derive(Debug, Clone)]
pub struct DrillSettings {
    /// How old the last successful drill may be.
    pub max_age: Setting<TimeSpan>,
    /// Parallel connections; `None` means one per processor.
    pub jobs: Setting<Option<NonZeroUsize>>,
    /// Where scratch servers live; `None` means the system's temporary folder.
    pub scratch_dir: Setting<Option<PathBuf>>,
    /// Questions that the restored database must answer rightly.
    pub checks: Vec<DrillCheck>,
}

/// One SQL check of a drill.
#[derive(Debug, Clone, PartialEq)]
pub struct DrillCheck {
    /// What the report calls it.
    pub name: String,
    /// A query that gives one row with one column.
    pub sql: String,
    /// What it must give.
    pub expect: Expectation,
}

/// A value that a drill's check must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Exactly this text, as PostgreSQL prints the value.
    Text(String),
    /// This number, however it is printed: `5` matches `5.00`.
    Number(String),
    /// PostgreSQL's `t` or `f`.
    Boolean(bool),
}

impl Expectation {
    /// Whether PostgreSQL's answer, as text (`None` for NULL), is this value.
    pub fn is_met_by(&self, answer: Option<&str>) -> bool {
        let Some(answer) = answer else {
            return false;
        };
        match self {
            Self::Text(text) => text == answer,
            // Compared as text first: a 64-bit integer does not survive a float.
            Self::Number(number) => {
                number == answer
                    || match (number.parse::<f64>(), answer.parse::<f64>()) {
                        (Ok(left), Ok(right)) => left == right && left.abs() < 2f64.powi(53),
                        _ => false,
                    }
            }
            Self::Boolean(true) => matches!(answer, "t" | "true"),
            Self::Boolean(false) => matches!(answer, "f" | "false"),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Number(text) => f.write_str(text),
            Self::Boolean(value) => value.fmt(f),
        }
    }
}

/// Where PostgreSQL's programs are.
#[derive(Debug, Clone)]
pub struct ToolSettings {
    /// The folder to take them from; `None` means the usual places.
    pub bin_dir: Setting<Option<PathBuf>>,
    /// Words put before each command line.
    pub prefix: Setting<Vec<String>>,
}

impl Config {
    /// Resolves flags' absence, environment and file into a configuration; flags are laid over single
    /// values later, with [`Setting::or_flag`]. Errors: everything that is wrong, at once.
    pub fn resolve(sources: &Sources<'_>) -> Result<Self, ConfigErrors> {
        resolve::resolve(sources)
    }

    /// The database called `name`, or the only one. Errors: `NoDatabase`, `ChooseDatabase`,
    /// `UnknownDatabase`.
    pub fn database(&self, name: Option<&str>) -> Result<&Database, ConfigError> {
        let names = || -> Vec<String> {
            self.databases
                .iter()
                .filter_map(|database| database.name.clone())
                .collect()
        };
        match (name, self.databases.as_slice()) {
            (_, []) => Err(ConfigError::NoDatabase),
            (None, [only]) => Ok(only),
            (None, _) => Err(ConfigError::ChooseDatabase { names: names() }),
            (Some(name), all) => all
                .iter()
                .find(|database| database.name.as_deref() == Some(name))
                .ok_or_else(|| {
                    let names = names();
                    ConfigError::UnknownDatabase {
                        name: name.to_owned(),
                        nearest: nearest(name, names.iter().map(String::as_str)).map(str::to_owned),
                        names,
                    }
                }),
        }
    }

    /// All repositories, the primary first.
    pub fn repositories(&self) -> impl Iterator<Item = &RepositorySettings> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    /// The repository called `name`, or the primary. Errors: `UnknownRepository`.
    pub fn repository(&self, name: Option<&str>) -> Result<&RepositorySettings, ConfigError> {
        let Some(name) = name else {
            return Ok(&self.primary);
        };
        let mut all = self.repositories();
        all.find(|one| one.name == name).ok_or_else(|| {
            let names: Vec<String> = self.repositories().map(|one| one.name.clone()).collect();
            ConfigError::UnknownRepository {
                name: name.to_owned(),
                nearest: nearest(name, names.iter().map(String::as_str)).map(str::to_owned),
                names,
            }
        })
    }
}
