//! Local history: runs, proofs and drills, in a small SQLite file of the state folder.
//!
//! The journal is convenience, the repository is truth. So nothing here may stop a backup: when the file
//! cannot be used, [`Journal::open`] gives a journal in memory that says why ([`Journal::fallback`]), and
//! the caller reports that once. Several processes may use the file at the same time (WAL mode, short
//! transactions, a busy timeout). The room knows nothing of repositories or PostgreSQL: ids are text.

mod kinds;
mod proofs;
mod reads;
mod runs;
mod schema;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

pub use kinds::{Outcome, ProofLevel, RunKind};
pub use proofs::{Drill, DrillId, Proof, Stage};
pub use reads::PackRead;
pub use runs::{Run, RunEnd, RunId, RunStart};

/// The journal's file name in the state folder.
pub const FILE_NAME: &str = "journal.sqlite3";

/// How long one process waits for another's transaction. Transactions here take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the journal, or one statement on it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Neither a state folder nor a home folder is known.
    #[error("no state folder is known")]
    NoFolder,
    /// The folder or the file cannot be made or opened.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer Lifeboat wrote the file.
    #[error("the journal {} was written by a newer version (schema {found}, known {known})", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The schema version in it.
        found: i64,
        /// The newest this program knows.
        known: i64,
    },
    /// SQLite said no.
    #[error("journal: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// The open journal. Share it by reference; it locks inside.
#[derive(Debug)]
pub struct Journal {
    connection: Mutex<Connection>,
    path: Option<PathBuf>,
    fallback: Option<JournalError>,
}

impl Journal {
    /// Opens the journal in `folder`, making folder (0700) and file (0600) when missing.
    ///
    /// Fails only when not even memory works. A folder that cannot be used gives a journal that forgets
    /// at exit, with the reason in [`Self::fallback`].
    pub fn open(folder: Option<&Path>) -> Result<Self, JournalError> {
        match folder.ok_or(JournalError::NoFolder).and_then(open_file) {
            Ok((connection, path)) => Ok(Self {
                connection: Mutex::new(connection),
                path: Some(path),
                fallback: None,
            }),
            Err(reason) => Ok(Self {
                fallback: Some(reason),
                ..Self::in_memory()?
            }),
        }
    }

    /// A journal that forgets at exit: for tests and the demo.
    pub fn in_memory() -> Result<Self, JournalError> {
        let mut connection = Connection::open_in_memory()?;
        schema::migrate(&mut connection, Path::new(":memory:"))?;
        Ok(Self {
            connection: Mutex::new(connection),
            path: None,
            fallback: None,
        })
    }

    /// The file, unless the journal is in memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Why the history of this run will not be kept, if it will not.
    pub fn fallback(&self) -> Option<&JournalError> {
        self.fallback.as_ref()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves SQLite's own state sound: its transactions roll back on drop.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_file(folder: &Path) -> Result<(Connection, PathBuf), JournalError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| JournalError::Io { path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(io_error(folder))?;
    let path = folder.join(FILE_NAME);
    // Made before SQLite sees it, since SQLite would make it 0644; its -wal and -shm files copy the mode.
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error(&path))?;
    let mut connection = Connection::open(&path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Where WAL cannot work (some network file systems) SQLite stays in its old mode: slower, as safe.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    schema::migrate(&mut connection, &path)?;
    Ok((connection, path))
}

fn time(ms: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(ms).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, ms))
}

/// SQLite counts up to 2^63; bytes and milliseconds never get there.
fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
