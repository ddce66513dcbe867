//! The tables, by version. A released version's text never changes; the next one is added below it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::JournalError;

/// `VERSIONS[n]` takes a file from schema version n to n + 1. Times are milliseconds since 1970, UTC.
const VERSIONS: [&str; 2] = [
    "
    CREATE TABLE run (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        database TEXT NOT NULL,
        repository TEXT NOT NULL,
        backup TEXT,
        pid INTEGER NOT NULL,
        started_ms INTEGER NOT NULL,
        finished_ms INTEGER,
        outcome TEXT,
        error TEXT,
        bytes_read INTEGER,
        bytes_stored INTEGER
    ) STRICT;
    CREATE INDEX run_by_kind ON run (kind, outcome, started_ms);
    CREATE TABLE proof (
        id INTEGER PRIMARY KEY,
        repository TEXT NOT NULL,
        backup TEXT NOT NULL,
        database TEXT NOT NULL,
        level INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        how TEXT NOT NULL,
        details TEXT NOT NULL
    ) STRICT;
    CREATE INDEX proof_by_backup ON proof (repository, backup, level, at_ms);
    CREATE TABLE drill (
        id INTEGER PRIMARY KEY,
        repository TEXT NOT NULL,
        backup TEXT NOT NULL,
        database TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        finished_ms INTEGER NOT NULL,
        proven INTEGER NOT NULL,
        error TEXT,
        rpo_ms INTEGER,
        rto_ms INTEGER,
        bytes INTEGER
    ) STRICT;
    CREATE INDEX drill_by_time ON drill (repository, database, started_ms);
    CREATE TABLE drill_stage (
        drill INTEGER NOT NULL REFERENCES drill (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        ms INTEGER NOT NULL,
        PRIMARY KEY (drill, position)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE place (
        id INTEGER PRIMARY KEY,
        repository TEXT NOT NULL,
        location TEXT NOT NULL,
        UNIQUE (repository, location)
    ) STRICT;
    CREATE TABLE pack_read (
        place INTEGER NOT NULL REFERENCES place (id) ON DELETE CASCADE,
        pack BLOB NOT NULL,
        size_bytes INTEGER NOT NULL,
        modified_ms INTEGER,
        read_ms INTEGER NOT NULL,
        PRIMARY KEY (place, pack)
    ) STRICT, WITHOUT ROWID;
",
];

/// The schema version of this program.
pub(super) const KNOWN: i64 = VERSIONS.len() as i64;

/// Brings the file to [`KNOWN`]. A newer file is left alone: an old program must not write into it.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let version = |connection: &Connection| -> Result<i64, rusqlite::Error> {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    };
    let found = version(connection)?;
    if found == KNOWN {
        return Ok(());
    }
    // IMMEDIATE, and the version read again inside: two first runs at once must not both create tables.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    let Some(missing) = usize::try_from(found)
        .ok()
        .and_then(|found| VERSIONS.get(found..))
    else {
        return Err(JournalError::TooNew {
            path: path.to_owned(),
            found,
            known: KNOWN,
        });
    };
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()?;
    Ok(())
}
