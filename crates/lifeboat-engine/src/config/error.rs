//! What can be wrong with a configuration: facts only, each with its place.

use std::fmt;
use std::path::PathBuf;

use super::Origin;

/// A line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was given.
    pub path: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// Where the parser stopped.
        place: Place,
        /// The parser's own words, on one line.
        message: String,
    },
    /// A key that no version of this program has.
    #[error("{place}: unknown key `{key}`")]
    UnknownKey {
        /// Where it stands.
        place: Place,
        /// Its full path, such as `objectives.rpoo`.
        key: String,
        /// The full path of the known key that was probably meant.
        nearest: Option<String>,
    },
    /// A key whose value has the wrong type or does not parse.
    #[error("{place}: {message}")]
    BadValue {
        /// Where the value stands.
        place: Place,
        /// What is wrong with it, on one line.
        message: String,
    },
    /// A value that parses but cannot be used, from any layer.
    #[error("{origin}: {message}")]
    Unusable {
        /// Where the value came from.
        origin: Origin,
        /// What is wrong with it, on one line; never a secret.
        message: String,
    },
    /// A repository in a place that this release cannot reach.
    #[error(
        "{origin}: repositories are kept in folders, in `s3:` and in `sftp:`, not in `{scheme}`"
    )]
    StorageUnknown {
        /// Where the value came from.
        origin: Origin,
        /// The scheme that was asked for, such as `rclone`.
        scheme: String,
    },
    /// Two keys that say the same thing; at most one may be set.
    #[error("{second}: set, but {first} already says this")]
    Conflict {
        /// The one that came first.
        first: Origin,
        /// The one that is too many.
        second: Origin,
    },
    /// Two databases share a name.
    #[error("{origin}: a database named `{name}` exists already")]
    DuplicateDatabase {
        /// The second one.
        origin: Origin,
        /// Their name.
        name: String,
    },
    /// Two repositories share a name.
    #[error("{origin}: a repository named `{name}` exists already")]
    DuplicateRepository {
        /// The second one.
        origin: Origin,
        /// Their name.
        name: String,
    },
    /// The chosen repository is not configured.
    #[error("no repository named `{name}` is configured")]
    UnknownRepository {
        /// The name that was asked for.
        name: String,
        /// The configured name that was probably meant.
        nearest: Option<String>,
        /// All configured names.
        names: Vec<String>,
    },
    /// Nothing says which database to work on.
    #[error("no database is configured")]
    NoDatabase,
    /// Several databases are configured and none was chosen.
    #[error("several databases are configured: {}", names.join(", "))]
    ChooseDatabase {
        /// Their names.
        names: Vec<String>,
    },
    /// The chosen database is not configured.
    #[error("no database named `{name}` is configured")]
    UnknownDatabase {
        /// The name that was asked for.
        name: String,
        /// The configured name that was probably meant.
        nearest: Option<String>,
        /// All configured names.
        names: Vec<String>,
    },
    /// Nothing says where the repository is.
    #[error("no repository is configured")]
    NoRepository,
    /// Nothing says what the repository's password is.
    #[error("no password is configured for the repository")]
    NoPassword,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `Err(self)` when there is anything to report.
    pub(super) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }

    /// All of them, in the order they were found.
    pub fn all(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
