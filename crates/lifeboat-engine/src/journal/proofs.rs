//! What was shown of backups: proofs, and the drills that gave the best of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Params, Row, params};
use serde::Serialize;

use super::kinds::ProofLevel;
use super::{Journal, JournalError, count, time, whole};

/// A drill's number in this journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrillId(i64);

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

    /// Backups that a drill has proven, from whichever repository, by their IDs. Copies bear the ID of the first.
    pub fn proven_anywhere(&self) -> Result<BTreeSet<String>, JournalError> {
        self.backups(
            "SELECT backup FROM proof WHERE level = ?1",
            params![ProofLevel::Proven],
        )
    }

    /// Backups whose last drill from some repository did not prove them.
    pub fn unproven_anywhere(&self) -> Result<BTreeSet<String>, JournalError> {
        // SQLite takes the other columns from the row that has the maximum.
        self.backups(
            "SELECT backup FROM (SELECT backup, proven, max(started_ms) FROM drill GROUP BY repository, backup)
             WHERE NOT proven",
            params![],
        )
    }

    fn backups(&self, query: &str, of: impl Params) -> Result<BTreeSet<String>, JournalError> {
        let connection = self.connection();
        let mut query = connection.prepare(query)?;
        let backups = query.query_map(of, |row| row.get(0))?;
        backups
            .map(|backup| backup.map_err(JournalError::from))
            .collect()
    }
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
