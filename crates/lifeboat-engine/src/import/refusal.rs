//! Why a dump is not imported, and why an import ends.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use lifeboat_pg::archive::{ArchiveError, Content};
use lifeboat_pg::data_file::DataRowsError;
use lifeboat_repo::RepositoryError;

use crate::backup::BackupError;

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// A device, a pipe, a socket.
    #[error("it is no file")]
    NoFile,
    /// A folder without a dump that matches.
    #[error("it is a folder")]
    Folder,
    /// A dump of the directory format, or the table of contents of one.
    #[error("it is a dump in the directory format (pg_dump -Fd), not in the custom format")]
    DirectoryFormat,
    /// Not an archive.
    #[error("it is {}, not a dump in the custom format (pg_dump -Fc)", found.describe())]
    NotCustom {
        /// What it looks like.
        found: Content,
    },
    /// An archive with a defect, or of a version that is not known.
    #[error(transparent)]
    Damaged(ArchiveError),
    /// No rows at all, for tables that it makes.
    #[error("it holds no rows (pg_dump --schema-only)")]
    SchemaOnly,
    /// Rows without the tables for them.
    #[error("it holds rows without their tables (pg_dump --data-only)")]
    DataOnly,
    /// Data that a restore could not load.
    #[error("{entry} cannot be taken over: {why}")]
    Entry {
        /// Kind and name.
        entry: String,
        /// Why not.
        why: &'static str,
    },
    /// A table's rows are not whole.
    #[error("the rows of {table} are damaged: {source}")]
    Rows {
        /// The table.
        table: String,
        /// What is wrong.
        source: DataRowsError,
    },
    /// A large object comes twice.
    #[error("the large object {oid} is in it twice")]
    Twice {
        /// Its OID.
        oid: u32,
    },
    /// Its header names no database.
    #[error("it does not name its database")]
    NoDatabase,
    /// Several configured databases are called as it is.
    #[error("it is of a database {database}, and so are several that are configured: {names}")]
    Ambiguous {
        /// The name in its header.
        database: String,
        /// What the configuration calls them.
        names: String,
    },
    /// The time in its header is none.
    #[error("the time in its header is no time")]
    NoTime,
    /// It claims to be from the future.
    #[error("it is dated {time}, in the future")]
    Future {
        /// When it says it was begun.
        time: Timestamp,
    },
    /// It claims to be older than any such dump can be.
    #[error("it is dated {time}, before there were such dumps")]
    TooOld {
        /// When it says it was begun.
        time: Timestamp,
    },
    /// Somebody writes to it.
    #[error("it was changed while it was read")]
    Changed,
}

/// Why nothing more is imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// What was read and what is to be stored do not fit together.
    #[error("{0}")]
    Inconsistent(String),
    /// A folder cannot be read.
    #[error("cannot read {}: {source}", folder.display())]
    Folder {
        /// Which one.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No file of a folder matches.
    #[error("no file in {} matches {pattern}", folder.display())]
    NoMatch {
        /// The folder.
        folder: PathBuf,
        /// The pattern.
        pattern: String,
    },
    /// One name for dumps of several databases.
    #[error("the files are of several databases ({names}), and one name was given for all")]
    SeveralDatabases {
        /// Their own names.
        names: String,
    },
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Why one file was not imported: for its own sake, or for everybody's.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("{0}")]
    Inconsistent(String),
    #[error("interrupted")]
    Interrupted,
}

impl From<BackupError> for FileError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Repository(error) => error.into(),
            BackupError::Interrupted => Self::Interrupted,
            other => Self::Inconsistent(other.to_string()),
        }
    }
}

impl From<RepositoryError> for FileError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Interrupted => Self::Interrupted,
            error => Self::Repository(error),
        }
    }
}

impl From<FileError> for ImportError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Repository(error) => Self::Repository(error),
            FileError::Interrupted => Self::Interrupted,
            FileError::Refused(refusal) => Self::Inconsistent(refusal.to_string()),
            FileError::Inconsistent(what) => Self::Inconsistent(what),
        }
    }
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        match error {
            // What comes from the system has a number.
            ArchiveError::Read { source, .. } if source.raw_os_error().is_some() => {
                Self::Unreadable(source)
            }
            ArchiveError::NotAnArchive { found } => Self::NotCustom { found },
            other => Self::Damaged(other),
        }
    }
}
