//! What the journal remembers, and the questions it answers.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, Row, named_params, params};
use serde::{Deserialize, Serialize};

use super::{Journal, JournalError};

/// An enum that is stored as its lower-case name: in SQLite and in JSON.
macro_rules! stored_as_name {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The name it is stored and shown under.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.name()))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_str()? {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(FromSqlError::InvalidType),
                }
            }
        }
    };
}

stored_as_name! {
    /// What a run did.
    RunKind {
        /// `lifeboat backup`.
        Backup = "backup",
        /// `lifeboat verify`.
        Verify = "verify",
        /// `lifeboat restore`.
        Restore = "restore",
        /// `lifeboat drill`.
        Drill = "drill",
        /// `lifeboat export`.
        Export = "export",
        /// `lifeboat expire`.
        Expire = "expire",
        /// `lifeboat copy`, or a backup that copies; the repository is the one that is brought up to date.
        Copy = "copy",
        /// `lifeboat import`, of one file.
        Import = "import",
    }
}

stored_as_name! {
    /// How a run ended.
    Outcome {
        /// It did what it was for.
        Succeeded = "succeeded",
        /// It did not.
        Failed = "failed",
        /// Somebody stopped it.
        Interrupted = "interrupted",
        /// Its process is gone without a word: a crash, a kill, a power cut.
        Vanished = "vanished",
    }
}

/// How much is known about a backup beyond that it was taken. Ordered: more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofLevel {
    /// Every blob it needs is indexed, in a pack of the right size. No stored byte was read.
    Complete,
    /// Every stored byte was read, opened, and matched its hash.
    Verified,
    /// It was restored into a real PostgreSQL and its content compared.
    Proven,
}

impl ProofLevel {
    /// The word it is shown under.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Verified => "verified",
            Self::Proven => "proven",
        }
    }
}

impl ToSql for ProofLevel {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // A number, so that the best proof of a backup is a plain maximum.
        Ok(ToSqlOutput::from(match self {
            Self::Complete => 1_i64,
            Self::Verified => 2,
            Self::Proven => 3,
        }))
    }
}

impl FromSql for ProofLevel {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            1 => Ok(Self::Complete),
            2 => Ok(Self::Verified),
            3 => Ok(Self::Proven),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// A run's number in this journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(i64);

/// A drill's number in this journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrillId(i64);

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

/// One proof of one backup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// The backup's id, in full.
    pub backup: String,
    /// The repository's id.
    pub repository: String,
    /// The database's name.
    pub database: String,
    /// What was shown.
    pub level: ProofLevel,
    /// When.
    pub at: Timestamp,
    /// How, in a few words: `scratch server 16.4`, `verify --read-data`.
    pub how: String,
    /// What was counted, as JSON; `null` when there is nothing to tell.
    pub details: serde_json::Value,
}

/// One stage of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Its name, such as `load`.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drill {
    /// The backup that was restored.
    pub backup: String,
    /// The repository's id.
    pub repository: String,
    /// The database's name.
    pub database: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Whether the backup was proven.
    pub proven: bool,
    /// Why not, in one line.
    pub error: Option<String>,
    /// The age of the backup's data when the drill began, in milliseconds: the data a disaster at that
    /// moment would have cost.
    pub rpo_ms: Option<u64>,
    /// From the start to a usable database, in milliseconds. Comparing it comes after, and is not counted.
    pub rto_ms: Option<u64>,
    /// The database's size as restored, in bytes.
    pub bytes: Option<u64>,
    /// Its stages, in order.
    pub stages: Vec<Stage>,
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

    /// Notes a proof.
    pub fn record_proof(&self, proof: &Proof) -> Result<(), JournalError> {
        self.connection().execute(
            "INSERT INTO proof (repository, backup, database, level, at_ms, how, details)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                proof.repository,
                proof.backup,
                proof.database,
                proof.level,
                proof.at.as_millisecond(),
                proof.how,
                proof.details.to_string(),
            ],
        )?;
        Ok(())
    }

    /// Notes a drill with its stages.
    pub fn record_drill(&self, drill: &Drill) -> Result<DrillId, JournalError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        transaction.execute(
            "INSERT INTO drill (repository, backup, database, started_ms, finished_ms, proven, error, rpo_ms, rto_ms, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                drill.repository,
                drill.backup,
                drill.database,
                drill.started.as_millisecond(),
                drill.finished.as_millisecond(),
                drill.proven,
                drill.error,
                drill.rpo_ms.map(whole),
                drill.rto_ms.map(whole),
                drill.bytes.map(whole),
            ],
        )?;
        let id = transaction.last_insert_rowid();
        for (position, stage) in (0_i64..).zip(&drill.stages) {
            transaction.execute(
                "INSERT INTO drill_stage (drill, position, name, ms) VALUES (?1, ?2, ?3, ?4)",
                params![id, position, stage.name, whole(stage.ms)],
            )?;
        }
        transaction.commit()?;
        Ok(DrillId(id))
    }

    /// The best proof of each backup of a repository: the highest level, and of those the newest.
    pub fn best_proofs(&self, repository: &str) -> Result<BTreeMap<String, Proof>, JournalError> {
        let connection = self.connection();
        let mut query = connection.prepare(
            "SELECT repository, backup, database, level, at_ms, how, details FROM proof
             WHERE repository = ?1 ORDER BY level, at_ms",
        )?;
        let proofs = query.query_map([repository], proof)?;
        // Sorted upwards, so that the last one of a backup, which stays in the map, is the best.
        proofs
            .map(|proof| {
                proof
                    .map(|proof| (proof.backup.clone(), proof))
                    .map_err(JournalError::from)
            })
            .collect()
    }

    /// When any backup of this database was last shown to be at least this good.
    pub fn last_proof(
        &self,
        repository: &str,
        database: Option<&str>,
        at_least: ProofLevel,
    ) -> Result<Option<Proof>, JournalError> {
        let connection = self.connection();
        connection
            .query_row(
                "SELECT repository, backup, database, level, at_ms, how, details FROM proof
                 WHERE repository = ?1 AND (?2 IS NULL OR database = ?2) AND level >= ?3
                 ORDER BY at_ms DESC, id DESC LIMIT 1",
                params![repository, database, at_least],
                proof,
            )
            .optional()
            .map_err(JournalError::from)
    }

    /// The last drill, or with `proven_only` the last that proved its backup, with its stages.
    pub fn last_drill(
        &self,
        repository: &str,
        database: Option<&str>,
        proven_only: bool,
    ) -> Result<Option<Drill>, JournalError> {
        let connection = self.connection();
        let found = connection
            .query_row(
                "SELECT id, repository, backup, database, started_ms, finished_ms, proven, error, rpo_ms, rto_ms, bytes
                 FROM drill
                 WHERE repository = ?1 AND (?2 IS NULL OR database = ?2) AND (NOT ?3 OR proven)
                 ORDER BY started_ms DESC, id DESC LIMIT 1",
                params![repository, database, proven_only],
                |row| Ok((row.get::<_, i64>(0)?, drill(row)?)),
            )
            .optional()?;
        let Some((id, mut drill)) = found else {
            return Ok(None);
        };
        let mut query = connection
            .prepare("SELECT name, ms FROM drill_stage WHERE drill = ?1 ORDER BY position")?;
        drill.stages = query
            .query_map([id], |row| {
                Ok(Stage {
                    name: row.get(0)?,
                    ms: count(row.get(1)?),
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(Some(drill))
    }

    /// What the last drill of each backup of a repository said: whether it proved it.
    pub fn last_verdicts(&self, repository: &str) -> Result<BTreeMap<String, bool>, JournalError> {
        let connection = self.connection();
        let mut query = connection.prepare(
            "SELECT backup, proven FROM drill WHERE repository = ?1 ORDER BY started_ms, id",
        )?;
        let verdicts = query.query_map([repository], |row| Ok((row.get(0)?, row.get(1)?)))?;
        // The last one of a backup stays in the map.
        verdicts
            .map(|verdict| verdict.map_err(JournalError::from))
            .collect()
    }

    /// The last run of a kind, with this outcome if one is given; runs that go on have none.
    pub fn last_run(
        &self,
        kind: RunKind,
        repository: &str,
        database: Option<&str>,
        outcome: Option<Outcome>,
    ) -> Result<Option<Run>, JournalError> {
        let connection = self.connection();
        connection
            .query_row(
                &format!(
                    "{RUN} WHERE kind = :kind AND repository = :repository
                     AND (:database IS NULL OR database = :database) AND (:outcome IS NULL OR outcome = :outcome)
                     ORDER BY started_ms DESC, id DESC LIMIT 1"
                ),
                named_params! {":kind": kind, ":repository": repository, ":database": database, ":outcome": outcome},
                run,
            )
            .optional()
            .map_err(JournalError::from)
    }

    /// The backups of a repository that this machine has imported, by their IDs.
    pub fn imported(&self, repository: &str) -> Result<BTreeSet<String>, JournalError> {
        let connection = self.connection();
        let mut query = connection.prepare(
            "SELECT backup FROM run
             WHERE kind = ?1 AND repository = ?2 AND outcome = ?3 AND backup IS NOT NULL",
        )?;
        let of = params![RunKind::Import, repository, Outcome::Succeeded];
        let backups = query.query_map(of, |row| row.get(0))?;
        backups
            .map(|backup| backup.map_err(JournalError::from))
            .collect()
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

fn proof(row: &Row<'_>) -> rusqlite::Result<Proof> {
    Ok(Proof {
        repository: row.get(0)?,
        backup: row.get(1)?,
        database: row.get(2)?,
        level: row.get(3)?,
        at: time(row.get(4)?)?,
        how: row.get(5)?,
        details: serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or_default(),
    })
}

fn drill(row: &Row<'_>) -> rusqlite::Result<Drill> {
    Ok(Drill {
        repository: row.get(1)?,
        backup: row.get(2)?,
        database: row.get(3)?,
        started: time(row.get(4)?)?,
        finished: time(row.get(5)?)?,
        proven: row.get(6)?,
        error: row.get(7)?,
        rpo_ms: row.get::<_, Option<i64>>(8)?.map(count),
        rto_ms: row.get::<_, Option<i64>>(9)?.map(count),
        bytes: row.get::<_, Option<i64>>(10)?.map(count),
        stages: Vec::new(),
    })
}

pub(super) fn time(ms: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(ms).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, ms))
}

/// SQLite counts up to 2^63; bytes and milliseconds never get there.
pub(super) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
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
