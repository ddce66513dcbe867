use std::io;
use std::time::Duration;

use crate::archive::ArchiveError;

use crate::wire::PgError;

use super::tables::TableName;

/// Why a dump could not be taken, or is not one.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The connection could not be had, broke, or the server refused a statement that is not about one
    /// table.
    #[error(transparent)]
    Pg(PgError),
    /// The server is older than what this module understands.
    #[error("the server runs PostgreSQL {version}; dumps are taken from 13 on")]
    ServerTooOld {
        /// As it tells it.
        version: String,
    },
    /// `pg_dump` refuses servers newer than itself.
    #[error("pg_dump {tool} cannot dump a PostgreSQL {server} server")]
    ToolTooOld {
        /// `pg_dump`'s version.
        tool: String,
        /// The server's.
        server: String,
    },
    /// Tables that this role may not read. A dump without them would have holes.
    #[error("no permission to read {}", names(tables))]
    Unreadable {
        /// All of them.
        tables: Vec<TableName>,
    },
    /// Tables with row security that applies to this role. A dump of what it may see would have holes.
    #[error("row security hides rows from this role in {}", names(tables))]
    RowSecurity {
        /// All of them.
        tables: Vec<TableName>,
    },
    /// Somebody held a conflicting lock for too long.
    #[error("no lock on the tables within {} s; held by {}", waited.as_secs(), holders(held))]
    LockTimeout {
        /// How long it was tried.
        waited: Duration,
        /// Who holds what, as far as it could be seen.
        held: Vec<LockHolder>,
    },
    /// Tables were made, dropped or renamed faster than they could be locked.
    #[error("the list of tables kept changing: {attempts} attempts to lock them all failed")]
    TablesKeepChanging {
        /// How often it was tried.
        attempts: u32,
    },
    /// A program could not be started.
    #[error("cannot run {tool}: {source}")]
    Spawn {
        /// Its name.
        tool: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// `pg_dump` ended before its table of contents was complete.
    #[error("pg_dump failed ({status}): {words}")]
    PgDump {
        /// Its exit status in words.
        status: String,
        /// What it wrote to stderr.
        words: String,
    },
    /// The table of contents cannot be read.
    #[error("pg_dump's table of contents: {source}")]
    Archive {
        /// Where and what.
        source: ArchiveError,
        /// What pg_dump wrote to stderr.
        words: String,
    },
    /// The table of contents holds something that cannot be dumped.
    #[error("pg_dump's table of contents: {what}")]
    Toc {
        /// One line of fact.
        what: String,
    },
    /// The table is gone, or is not what it was.
    #[error("{table} was dropped or changed while it was read: {source}")]
    Vanished {
        /// Which one.
        table: TableName,
        /// The server's words.
        source: PgError,
    },
    /// Reading one table failed.
    #[error("{table}: {source}")]
    Table {
        /// Which one.
        table: TableName,
        /// The server's words, or how the connection broke.
        source: PgError,
    },
    /// The server counted other rows than came in.
    #[error("{table}: the server sent {stated} rows, {received} arrived")]
    RowCount {
        /// Which table.
        table: TableName,
        /// The command tag's.
        stated: u64,
        /// Ours.
        received: u64,
    },
    /// A large object could not be read.
    #[error("large object {oid}: {what}")]
    LargeObject {
        /// Which one; 0 if a whole group failed.
        oid: u32,
        /// One line of fact.
        what: String,
    },
    /// The leader's transaction ended before the dump did: nothing held the tables any more.
    #[error("the transaction that held the snapshot did not live to the end: {what}")]
    SnapshotLost {
        /// One line of fact.
        what: String,
    },
    /// The caller asked to give up.
    #[error("interrupted")]
    Interrupted,
}

impl From<PgError> for DumpError {
    fn from(error: PgError) -> DumpError {
        match error {
            PgError::Interrupted => DumpError::Interrupted,
            error => DumpError::Pg(error),
        }
    }
}

/// Somebody who holds, or waits for, a lock that kept us from reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The table.
    pub table: TableName,
    /// The server process.
    pub pid: i32,
    /// Its `application_name`.
    pub application: String,
    /// Its role.
    pub user: String,
    /// Its lock's mode.
    pub mode: String,
}

/// Reading a unit failed: the server's side, or the one who takes the bytes.
#[derive(Debug, thiserror::Error)]
pub enum CopyFailure<E> {
    /// The server's side.
    #[error(transparent)]
    Dump(DumpError),
    /// The taker's error. The worker's connection is closed.
    #[error("{0}")]
    Sink(E),
}

impl<E> From<DumpError> for CopyFailure<E> {
    fn from(error: DumpError) -> CopyFailure<E> {
        CopyFailure::Dump(error)
    }
}

fn names(tables: &[TableName]) -> String {
    const SHOWN: usize = 10;
    let mut text = tables
        .iter()
        .take(SHOWN)
        .map(TableName::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if tables.len() > SHOWN {
        text.push_str(&format!(" and {} more", tables.len() - SHOWN));
    }
    text
}

fn holders(held: &[LockHolder]) -> String {
    if held.is_empty() {
        return "nobody who could be seen".into();
    }
    let one = |held: &LockHolder| {
        format!(
            "process {} ({}, {}) with {} on {}",
            held.pid, held.user, held.application, held.mode, held.table
        )
    };
    held.iter().map(one).collect::<Vec<_>>().join("; ")
}
