//! Runs of commands: how each began and ended.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, named_params, params};
use serde::Serialize;

use super::kinds::{Outcome, RunKind};
use super::{Journal, JournalError, count, time, whole};

/// A run's number in this journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(i64);

/// The beginning of a run.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// What it does.
    pub kind: RunKind,
    /// The database's name.
    pub database: String,
    /// The repository's id.
    pub repository: String,
    /// When it began.
    pub started: Timestamp,
}

/// The end of a run.
#[derive(Debug, Clone)]
pub struct RunEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub finished: Timestamp,
    /// The backup it made or used, in full.
    pub backup: Option<String>,
    /// Why it failed, in one line; never a secret.
    pub error: Option<String>,
    /// Bytes read from the server or the repository.
    pub bytes_read: Option<u64>,
    /// New bytes stored.
    pub bytes_stored: Option<u64>,
}

impl RunEnd {
    /// An end with nothing else to tell.
    pub fn new(outcome: Outcome, finished: Timestamp) -> Self {
        Self {
            outcome,
            finished,
            backup: None,
            error: None,
            bytes_read: None,
            bytes_stored: None,
        }
    }
}

/// A run as remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// What it did.
    pub kind: RunKind,
    /// The database's name.
    pub database: String,
    /// The repository's id.
    pub repository: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; `None` while it goes on.
    pub finished: Option<Timestamp>,
    /// How it ended; `None` while it goes on.
    pub outcome: Option<Outcome>,
    /// The backup it made or used.
    pub backup: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Bytes read.
    pub bytes_read: Option<u64>,
    /// New bytes stored.
    pub bytes_stored: Option<u64>,
}

impl Journal {
    /// Notes that a run begins. Runs whose process is gone are closed as [`Outcome::Vanished`] on the way.
    pub fn begin(&self, run: &RunStart) -> Result<RunId, JournalError> {
        self.close_vanished(run.started)?;
        let connection = self.connection();
        connection.execute(
            "INSERT INTO run (kind, database, repository, pid, started_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![run.kind, run.database, run.repository, std::process::id(), run.started.as_millisecond()],
        )?;
        Ok(RunId(connection.last_insert_rowid()))
    }

    /// Notes how a run ended.
    pub fn finish(&self, run: RunId, end: &RunEnd) -> Result<(), JournalError> {
        self.connection().execute(
            "UPDATE run SET outcome = ?2, finished_ms = ?3, backup = ?4, error = ?5, bytes_read = ?6, bytes_stored = ?7
             WHERE id = ?1",
            params![
                run.0,
                end.outcome,
                end.finished.as_millisecond(),
                end.backup,
                end.error,
                end.bytes_read.map(whole),
                end.bytes_stored.map(whole),
            ],
        )?;
        Ok(())
    }

    fn close_vanished(&self, now: Timestamp) -> Result<(), JournalError> {
        let connection = self.connection();
        let mut open = connection.prepare("SELECT id, pid FROM run WHERE outcome IS NULL")?;
        let rows = open.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i32>(1)?)))?;
        for row in rows {
            let (id, pid) = row?;
            if !is_alive(pid) {
                connection.execute(
                    "UPDATE run SET outcome = ?2, finished_ms = ?3 WHERE id = ?1 AND outcome IS NULL",
                    params![id, Outcome::Vanished, now.as_millisecond()],
                )?;
            }
        }
        Ok(())
    }

    /// The last run of a kind, in any repository where none is given, with this outcome if one is given; runs that go on have none.
    pub fn last_run(
        &self,
        kind: RunKind,
        repository: Option<&str>,
        database: Option<&str>,
        outcome: Option<Outcome>,
    ) -> Result<Option<Run>, JournalError> {
        let connection = self.connection();
        connection
            .query_row(
                &format!(
                    "{RUN} WHERE kind = :kind AND (:repository IS NULL OR repository = :repository)
                     AND (:database IS NULL OR database = :database) AND (:outcome IS NULL OR outcome = :outcome)
                     ORDER BY started_ms DESC, id DESC LIMIT 1"
                ),
                named_params! {":kind": kind, ":repository": repository, ":database": database, ":outcome": outcome},
                run,
            )
            .optional()
            .map_err(JournalError::from)
    }

    /// The backups that this machine has imported, by their IDs. Copies of a backup bear the ID of the first.
    pub fn imported(&self) -> Result<BTreeSet<String>, JournalError> {
        let connection = self.connection();
        let mut query = connection.prepare(
            "SELECT backup FROM run WHERE kind = ?1 AND outcome = ?2 AND backup IS NOT NULL",
        )?;
        let backups = query.query_map(params![RunKind::Import, Outcome::Succeeded], |row| {
            row.get(0)
        })?;
        backups
            .map(|backup| backup.map_err(JournalError::from))
            .collect()
    }

    /// All runs of a kind in a repository, the oldest first.
    pub fn runs_of(&self, kind: RunKind, repository: &str) -> Result<Vec<Run>, JournalError> {
        let connection = self.connection();
        let mut query = connection.prepare(&format!(
            "{RUN} WHERE kind = ?1 AND repository = ?2 ORDER BY started_ms, id"
        ))?;
        let runs = query.query_map(params![kind, repository], run)?;
        runs.map(|run| run.map_err(JournalError::from)).collect()
    }

    /// The newest runs of every kind, newest first, at most `limit`.
    pub fn runs(&self, limit: usize) -> Result<Vec<Run>, JournalError> {
        let connection = self.connection();
        let mut query =
            connection.prepare(&format!("{RUN} ORDER BY started_ms DESC, id DESC LIMIT ?1"))?;
        let runs = query.query_map([whole(limit as u64)], run)?;
        runs.map(|run| run.map_err(JournalError::from)).collect()
    }
}

const RUN: &str = "SELECT kind, database, repository, started_ms, finished_ms, outcome, backup, error, bytes_read,
    bytes_stored FROM run";

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        kind: row.get(0)?,
        database: row.get(1)?,
        repository: row.get(2)?,
        started: time(row.get(3)?)?,
        finished: row.get::<_, Option<i64>>(4)?.map(time).transpose()?,
        outcome: row.get(5)?,
        backup: row.get(6)?,
        error: row.get(7)?,
        bytes_read: row.get::<_, Option<i64>>(8)?.map(count),
        bytes_stored: row.get::<_, Option<i64>>(9)?.map(count),
    })
}

fn is_alive(pid: i32) -> bool {
    match rustix::process::Pid::from_raw(pid) {
        // EPERM means that it lives and is somebody else's.
        Some(pid) => !matches!(
            rustix::process::test_kill_process(pid),
            Err(rustix::io::Errno::SRCH)
        ),
        None => false,
    }
}
