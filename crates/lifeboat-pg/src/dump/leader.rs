//! Locks first, then the snapshot.
//!
//! pg_dump takes its snapshot and locks the tables afterwards. A TRUNCATE or a rewrite that commits in
//! between leaves a table that the snapshot sees as empty: the dump succeeds, without the rows. Here every
//! table is locked before the first query that takes the transaction's snapshot, and the snapshot is then
//! asked whether it knows a table that is not locked; if so, all is let go and tried again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::lsn::Lsn;
use crate::wire::{Connection, PgError, Rows, SqlState};

use super::error::{DumpError, LockHolder};
use super::tables::{self, TableFacts, TableName, Tables};
use super::worker::LOCK_NOT_AVAILABLE;

/// Attempts before a database in which tables come and go all the time is given up.
const ATTEMPTS: u32 = 20;
/// Tables locked by one statement.
const LOCKS_PER_STATEMENT: usize = 500;

/// The snapshot that all of a dump is read in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// What `SET TRANSACTION SNAPSHOT` and `pg_dump --snapshot` take.
    pub id: String,
    /// The server's clock when it got the statement that took the snapshot: the backup's time. Never
    /// later than the snapshot, so that no age is told too young.
    pub server_time: Timestamp,
    /// Our own clock at that moment, just before the statement was sent.
    pub client_time: Timestamp,
    /// The WAL position soon after, where the role may ask; on a standby, what had been replayed.
    pub lsn: Option<Lsn>,
}

/// Opens the transaction: afterwards `connection` holds the locks and the exported snapshot.
pub(super) fn take_snapshot(
    connection: &mut Connection,
    lock_timeout: Duration,
    also: &[u32],
) -> Result<(SnapshotInfo, Tables), DumpError> {
    let deadline = Instant::now() + lock_timeout;
    for _ in 0..ATTEMPTS {
        let wanted = tables::list(connection, also)?;
        check_access(&wanted)?;
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
        match lock_all(connection, &wanted, deadline) {
            Ok(()) => {}
            Err(error) => {
                let state = error.sqlstate().map(str::to_owned);
                if connection.is_closed() {
                    return Err(error.into());
                }
                connection.execute("ROLLBACK")?;
                match state.as_deref() {
                    Some(LOCK_NOT_AVAILABLE) => {
                        let held = holders(connection, &wanted).unwrap_or_default();
                        return Err(DumpError::LockTimeout {
                            waited: lock_timeout,
                            held,
                        });
                    }
                    // The list was old: undefined_table, invalid_schema_name, wrong_object_type,
                    // insufficient_privilege (the next attempt names the tables); or deadlock_detected.
                    Some(
                        SqlState::UNDEFINED_TABLE
                        | "3F000"
                        | "42809"
                        | SqlState::INSUFFICIENT_PRIVILEGE
                        | "40P01",
                    ) => continue,
                    _ => return Err(error.into()),
                }
            }
        }
        let client_time = Timestamp::now();
        let rows = connection.query(
            "SELECT pg_catalog.pg_export_snapshot() AS id,
                    (extract(epoch FROM pg_catalog.statement_timestamp()) * 1000000)::bigint AS time",
        )?;
        let id = rows.value("id")?.to_owned();
        let micros: i64 = rows.value("time")?.parse().map_err(|_| PgError::Column {
            column: "time".into(),
        })?;
        let server_time = Timestamp::from_microsecond(micros).map_err(|_| PgError::Column {
            column: "time".into(),
        })?;

        let mut seen = tables::list(connection, also)?;
        let locked = held_locks(connection)?;
        if seen.keys().all(|oid| locked.contains(oid)) {
            check_access(&seen)?;
            tables::measure(connection, &mut seen)?;
            let lsn = current_lsn(connection)?;
            return Ok((
                SnapshotInfo {
                    id,
                    server_time,
                    client_time,
                    lsn,
                },
                seen,
            ));
        }
        connection.execute("ROLLBACK")?;
    }
    Err(DumpError::TablesKeepChanging { attempts: ATTEMPTS })
}

fn check_access(tables: &Tables) -> Result<(), DumpError> {
    let those = |which: fn(&TableFacts) -> bool| -> Vec<TableName> {
        tables
            .values()
            .filter(|table| which(table))
            .map(|table| table.name.clone())
            .collect()
    };
    let unreadable = those(|table| !table.readable);
    if !unreadable.is_empty() {
        return Err(DumpError::Unreadable { tables: unreadable });
    }
    let hidden = those(|table| table.hidden_rows);
    if !hidden.is_empty() {
        return Err(DumpError::RowSecurity { tables: hidden });
    }
    Ok(())
}

/// LOCK and SET are utility statements that need no snapshot, so the transaction has none after them.
fn lock_all(
    connection: &mut Connection,
    tables: &Tables,
    deadline: Instant,
) -> Result<(), PgError> {
    let names: Vec<String> = tables
        .values()
        .map(|table| format!("ONLY {}", table.name.sql()))
        .collect();
    for some in names.chunks(LOCKS_PER_STATEMENT) {
        // 0 would mean to wait for ever.
        let left_ms = deadline
            .saturating_duration_since(Instant::now())
            .as_millis()
            .clamp(1, i32::MAX as u128);
        connection.execute(&format!(
            "SET LOCAL lock_timeout = {left_ms}; LOCK TABLE {} IN ACCESS SHARE MODE",
            some.join(", ")
        ))?;
    }
    connection.execute("SET LOCAL lock_timeout = 0").map(drop)
}

/// By OID, not by name: a table that was renamed and replaced while we waited would have our lock on the
/// wrong one.
fn held_locks(connection: &mut Connection) -> Result<HashSet<u32>, PgError> {
    let rows = connection.query(
        "SELECT l.relation FROM pg_catalog.pg_locks l
          WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                               WHERE d.datname = pg_catalog.current_database())",
    )?;
    rows.iter().map(|row| row.parse("relation")).collect()
}

/// Who holds or awaits a lock that excludes reading one of `tables`. What a role may not see of others
/// comes back empty, so this is best effort.
pub(super) fn holders(
    connection: &mut Connection,
    tables: &Tables,
) -> Result<Vec<LockHolder>, PgError> {
    let rows = connection.query(
        "SELECT l.relation, l.pid, l.mode, coalesce(a.application_name, '') AS application,
                coalesce(a.usename, '') AS usename
           FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
          WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid IS NOT NULL
            AND l.pid <> pg_catalog.pg_backend_pid()
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                               WHERE d.datname = pg_catalog.current_database())
          ORDER BY l.granted DESC, l.pid",
    )?;
    let read = |row: crate::wire::Row<'_>| -> Option<LockHolder> {
        Some(LockHolder {
            table: tables.get(&row.parse("relation").ok()?)?.name.clone(),
            pid: row.parse("pid").ok()?,
            application: row.get("application")?.to_owned(),
            user: row.get("usename")?.to_owned(),
            mode: row.get("mode")?.to_owned(),
        })
    };
    Ok(rows.iter().filter_map(read).collect())
}

fn current_lsn(connection: &mut Connection) -> Result<Option<Lsn>, PgError> {
    let rows = guarded(
        connection,
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                     ELSE pg_catalog.pg_current_wal_lsn() END AS lsn",
    )?;
    Ok(rows.and_then(|rows| rows.value("lsn").ok().and_then(|text| text.parse().ok())))
}

/// Runs a query that may fail without ending the transaction; `None` if the server refused it.
pub(super) fn guarded(connection: &mut Connection, sql: &str) -> Result<Option<Rows>, PgError> {
    connection.execute("SAVEPOINT lifeboat")?;
    match connection.query(sql) {
        Ok(rows) => {
            connection.execute("RELEASE SAVEPOINT lifeboat")?;
            Ok(Some(rows))
        }
        Err(PgError::Server(_)) if !connection.is_closed() => {
            connection.execute("ROLLBACK TO SAVEPOINT lifeboat; RELEASE SAVEPOINT lifeboat")?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
