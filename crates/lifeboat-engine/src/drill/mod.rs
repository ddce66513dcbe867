//! Proving a backup: restoring it for real, comparing every row, running the operator's own checks, measuring.
//!
//! A drill runs the very code of a restore, against a server that it starts itself or a temporary database
//! that nobody else uses. What it measures is what a recovery would have taken; the comparison that makes it a
//! proof comes after and is not counted.
//!
//! Invariants: nothing but scratch servers and databases named `lifeboat_drill_…` is ever created or removed;
//! both go away also when the drill fails, and what a crashed drill left is swept by the next one; a backup is
//! called proven only when all of it was read back and equal and every check held.

mod place;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use lifeboat_pg::conninfo::ConnInfo;
use lifeboat_pg::instance::InstanceError;
use lifeboat_pg::tools::ToolFinder;
use lifeboat_pg::wire::{ConnectOptions, Connection, PgError};
use serde::Serialize;

use crate::catalog::{Backup, Catalog, Selector};
use crate::config::{DrillCheck, TimeSpan};
use crate::event::{Event, Observer, Stage, StageTime, Stages};
use crate::journal::{self, Journal, Proof, ProofLevel};
use crate::objectives::{self, Objective};
use crate::restore::{self, Comparison, RestoreError, RestoreRequest, Target, What};

pub use place::DATABASE_PREFIX;
use place::Place;
pub(crate) use place::throw_away_settings;

/// What to drill, and where.
#[derive(Debug, Clone)]
pub struct DrillRequest {
    /// Which backup.
    pub selector: Selector,
    /// Of which database, when the selector is `latest`.
    pub database: Option<String>,
    /// Where to restore it.
    pub place: DrillPlace,
    /// How many sessions load and compare.
    pub jobs: usize,
    /// The operator's SQL checks.
    pub checks: Vec<DrillCheck>,
    /// At most this much data may be lost.
    pub rpo: TimeSpan,
    /// At most this long may a recovery take.
    pub rto: TimeSpan,
    /// How `pg_restore` and the server's programs are found.
    pub tools: ToolFinder,
    /// The present.
    pub now: Timestamp,
    /// Set to stop.
    pub interrupt: Arc<AtomicBool>,
}

/// Where a drill restores to.
#[derive(Debug, Clone)]
pub enum DrillPlace {
    /// A server of its own, of the backup's major version, started in this folder and removed afterwards.
    Scratch {
        /// The folder in which the server's private folder is made.
        parent_dir: PathBuf,
    },
    /// A temporary database on a server that runs already.
    Server(Box<ConnInfo>),
}

/// What a drill found.
#[derive(Debug, Clone, Serialize)]
pub struct DrillReport {
    /// The backup.
    #[serde(skip)]
    pub backup: Backup,
    /// Whether the backup is proven.
    pub proven: bool,
    /// Why not, one sentence each.
    pub failures: Vec<String>,
    /// Where it was restored, for people.
    pub place: String,
    /// The server that it was restored into, as it calls its version.
    pub server_version: String,
    /// Rows and content of every table against the backup's census.
    pub comparison: Comparison,
    /// The operator's checks.
    pub checks: Vec<CheckResult>,
    /// The age of the backup's data when the drill began, against what may be lost.
    pub rpo: Objective,
    /// How long the recovery took, against what it may take.
    pub rto: Objective,
    /// The same in seconds, unrounded.
    pub rto_seconds: f64,
    /// Rows restored.
    pub rows: u64,
    /// Bytes loaded.
    pub bytes: u64,
    /// The stages and their times; those after [`Stage::Analyze`] are not part of the RTO.
    pub stages: Vec<StageTime>,
    /// What a crashed drill had left behind and this one removed.
    pub swept: Vec<String>,
    /// Seconds from beginning to end.
    pub seconds: f64,
}

/// One of the operator's checks.
#[derive(Debug, Clone, Serialize)]
pub struct CheckResult {
    /// Its name.
    pub name: String,
    /// Whether the answer was the expected one.
    pub passed: bool,
    /// The first column of the first row; absent when NULL, no row, or an error.
    pub answer: Option<String>,
    /// What went wrong, when it did not even answer.
    pub error: Option<String>,
}

/// Why a drill came to no verdict on the backup. What it had created is gone, or named in the text.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Finding, planning or running the restore failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The scratch server did not start.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The scratch server's own address could not be used.
    #[error(transparent)]
    ConnInfo(#[from] lifeboat_pg::conninfo::ConnInfoError),
    /// The server to drill on failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// No PostgreSQL server of the wanted version is installed.
    #[error(transparent)]
    Tools(#[from] lifeboat_pg::tools::ToolError),
}

impl DrillError {
    /// Whether the backup itself is to blame, so that the verdict is "not proven" and not "could not tell".
    #[must_use]
    pub fn blames_backup(&self) -> bool {
        matches!(
            self,
            Self::Restore(
                RestoreError::BackupDamaged { .. }
                    | RestoreError::Incomplete { .. }
                    | RestoreError::Catalog(_)
            )
        )
    }
}

/// Restores a backup, compares it, and says whether it is proven.
///
/// # Errors
/// When no verdict was possible: no backup, no server, an interrupt. A backup that does not restore or does not
/// compare is no error but a report that says so.
pub fn execute(
    catalog: &Catalog<'_>,
    request: &DrillRequest,
    observer: &dyn Observer,
) -> Result<DrillReport, DrillError> {
    let started = std::time::Instant::now();
    let backup = catalog
        .select(&request.selector, request.database.as_deref())
        .map_err(RestoreError::from)?;
    let manifest = catalog.manifest(&backup).map_err(RestoreError::from)?;
    let mut stages = Stages::new(observer);

    let place = stages.run(Stage::Scratch, || Place::prepare(request, &manifest))?;
    for left in place.swept() {
        observer.event(&Event::Warning {
            message: format!("removed {left}, left by a drill that did not end"),
        });
    }
    let restore_request = RestoreRequest {
        selector: Selector::Id(backup.id.to_string()),
        database: None,
        target: Target::New {
            server: place.server().clone(),
            name: place.database().to_owned(),
        },
        tables: Vec::new(),
        what: What::Everything,
        jobs: request.jobs,
        // A scratch server has the roles of the backup; elsewhere whoever drills owns what is restored.
        keep_owner: place.is_scratch(),
        leave_out_subscriptions: !place.is_scratch(),
        read_back: true,
        tools: place.tools().clone(),
        now: request.now,
        interrupt: Arc::clone(&request.interrupt),
    };
    let plan = stages.run(Stage::Preflight, || {
        restore::plan(catalog, &restore_request)
    })?;
    let restored = restore::execute(catalog, &plan, &restore_request, None, observer)?;
    let checks = stages.run(Stage::Checks, || run_checks(&plan.target.conninfo, request))?;
    let swept = place.swept().to_vec();
    let description = place.describe();
    let server_version = place.server_version().to_owned();
    stages.run(Stage::CleanUp, || place.remove())?;

    let mut failures = restored.problems.clone();
    failures.extend(restored.comparison.differences());
    failures.extend(checks.iter().filter_map(CheckResult::failure));
    let mut times = stages.into_times();
    // The restore's own stages belong between the preflight and the checks.
    times.splice(2..2, restored.stages.iter().copied());
    let rto_seconds = times
        .iter()
        .filter(|time| counts_as_recovery(time.stage))
        .map(|time| time.seconds)
        .sum::<f64>();
    Ok(DrillReport {
        proven: failures.is_empty(),
        failures,
        place: description,
        server_version,
        rpo: objectives::rpo_now(Some(backup.time), request.now, request.rpo),
        rto: objectives::rto_reached(rto_seconds, request.rto),
        rto_seconds,
        rows: restored.rows,
        bytes: restored.bytes,
        comparison: restored.comparison,
        checks,
        stages: times,
        swept,
        seconds: started.elapsed().as_secs_f64(),
        backup,
    })
}

/// Whether a stage is part of what a recovery takes.
fn counts_as_recovery(stage: Stage) -> bool {
    !matches!(stage, Stage::Compare | Stage::Checks | Stage::CleanUp)
}

impl CheckResult {
    fn failure(&self) -> Option<String> {
        if self.passed {
            return None;
        }
        Some(match (&self.error, &self.answer) {
            (Some(error), _) => format!("check {} failed: {error}", self.name),
            (None, Some(answer)) => format!("check {} answered {answer:?}", self.name),
            (None, None) => format!("check {} answered nothing", self.name),
        })
    }
}

fn run_checks(conninfo: &ConnInfo, request: &DrillRequest) -> Result<Vec<CheckResult>, DrillError> {
    if request.checks.is_empty() {
        return Ok(Vec::new());
    }
    let mut results = Vec::with_capacity(request.checks.len());
    for check in &request.checks {
        // A connection each: what one check sets or breaks must not colour the next.
        let mut connection = Connection::connect(
            conninfo,
            &ConnectOptions {
                application_name: Some("lifeboat drill".to_owned()),
                interrupt: Arc::clone(&request.interrupt),
                ..ConnectOptions::default()
            },
        )?;
        let result = match connection.query(&check.sql) {
            Ok(rows) => {
                let answer = rows.first().and_then(|row| row.at(0).map(str::to_owned));
                CheckResult {
                    name: check.name.clone(),
                    passed: check.expect.is_met_by(answer.as_deref()),
                    answer,
                    error: None,
                }
            }
            Err(PgError::Interrupted) => return Err(PgError::Interrupted.into()),
            Err(error) => CheckResult {
                name: check.name.clone(),
                passed: false,
                answer: None,
                error: Some(error.to_string()),
            },
        };
        results.push(result);
    }
    Ok(results)
}

/// Writes a drill into the journal: the drill itself and, when it is one, the proof.
///
/// # Errors
/// When the journal cannot be written; the drill's verdict stands all the same.
pub fn remember(
    journal: &Journal,
    repository: &str,
    report: &DrillReport,
    started: Timestamp,
) -> Result<(), journal::JournalError> {
    let finished = Timestamp::now();
    journal.record_drill(&journal::Drill {
        backup: report.backup.first_id().to_string(),
        repository: repository.to_owned(),
        database: report.backup.database.clone(),
        started,
        finished,
        proven: report.proven,
        error: report.failures.first().cloned(),
        rpo_ms: report.rpo.actual_seconds.map(|seconds| seconds * 1_000),
        rto_ms: Some(milliseconds(report.rto_seconds)),
        bytes: Some(report.bytes),
        stages: report
            .stages
            .iter()
            .map(|time| journal::Stage {
                name: time.stage.name().to_owned(),
                ms: milliseconds(time.seconds),
            })
            .collect(),
    })?;
    if report.proven {
        journal.record_proof(&Proof {
            backup: report.backup.first_id().to_string(),
            repository: repository.to_owned(),
            database: report.backup.database.clone(),
            level: ProofLevel::Proven,
            at: finished,
            how: report.place.clone(),
            details: serde_json::json!({
                "tables": report.comparison.tables.len(),
                "rows": report.rows,
                "checks": report.checks.len(),
            }),
        })?;
    }
    Ok(())
}

/// Writes a drill that came to an error into the journal, when its backup is to blame: what cannot be restored is
/// what `status` most has to tell. Anything else is no drill, only a run that failed.
///
/// # Errors
/// As [`remember`].
pub fn remember_failure(
    journal: &Journal,
    repository: &str,
    catalog: &Catalog<'_>,
    request: &DrillRequest,
    error: &DrillError,
) -> Result<(), journal::JournalError> {
    if !error.blames_backup() {
        return Ok(());
    }
    // An error of the selection itself is no backup's fault.
    let Ok(backup) = catalog.select(&request.selector, request.database.as_deref()) else {
        return Ok(());
    };
    journal.record_drill(&journal::Drill {
        backup: backup.first_id().to_string(),
        repository: repository.to_owned(),
        database: backup.database,
        started: request.now,
        finished: Timestamp::now(),
        proven: false,
        error: Some(error.to_string()),
        rpo_ms: None,
        rto_ms: None,
        bytes: None,
        stages: Vec::new(),
    })?;
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a stage's seconds are positive and far below 2^53 ms"
)]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}
