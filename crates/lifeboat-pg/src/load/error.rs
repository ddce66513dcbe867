//! What can go wrong while loading.

use std::io;

use crate::archive::ArchiveError;
use crate::dump::DumpError;
use crate::wire::PgError;

/// Why something could not be loaded or read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The server refused, or the connection broke, while a table was loaded.
    #[error("{table}: {source}")]
    Table {
        /// `schema.table`.
        table: String,
        /// The server's words.
        source: PgError,
    },
    /// A data file is not what a dump's data file is.
    #[error("the rows of {table} are damaged: {what}")]
    Malformed {
        /// `schema.table`.
        table: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The server took another number of rows than were sent.
    #[error("{table}: {sent} rows were sent, the server took {taken}")]
    RowCount {
        /// `schema.table`.
        table: String,
        /// Ours.
        sent: u64,
        /// The command tag's.
        taken: u64,
    },
    /// A large object could not be written.
    #[error("large object {oid}: {source}")]
    LargeObject {
        /// Which one.
        oid: u32,
        /// The server's words.
        source: PgError,
    },
    /// `pg_restore` could not be started, or its files not be written.
    #[error("cannot run pg_restore: {0}")]
    Spawn(#[source] io::Error),
    /// `pg_restore` gave up.
    #[error("pg_restore failed ({status}): {words}")]
    PgRestore {
        /// Its exit status in words.
        status: String,
        /// What it wrote to stderr.
        words: String,
    },
    /// The table of contents could not be written for `pg_restore`.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Reading back failed.
    #[error(transparent)]
    ReadBack(#[from] DumpError),
    /// The server failed.
    #[error(transparent)]
    Pg(PgError),
    /// The caller asked to give up.
    #[error("interrupted")]
    Interrupted,
}

impl From<PgError> for LoadError {
    fn from(error: PgError) -> Self {
        match error {
            PgError::Interrupted => Self::Interrupted,
            other => Self::Pg(other),
        }
    }
}
