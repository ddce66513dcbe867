//! Objectives against reality: what would be lost now, what recovery would take, and what is overdue.
//!
//! What counts is what can be shown. A promise about which nothing is known (no drill ever, no backup at all)
//! is not kept. The repository tells which backups exist; the journal of this host tells what was proven.
//!
//! Where a repository on another machine is configured, a backup counts only once it is there: what burns with the
//! database is no backup. One that cannot be asked shows nothing, whatever the journal remembers of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use lifeboat_repo::{Repository, RepositoryError};
use serde::Serialize;

use crate::catalog::{self, Backup, Catalog, CatalogError};
use crate::config::TimeSpan;
use crate::journal::{Drill, Journal, JournalError, Outcome, Proof, ProofLevel, RunKind};
use crate::objectives::{self, Objective, Routine, Verdict};

/// What is promised.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// At most this much data may be lost.
    pub rpo: TimeSpan,
    /// At most this long may a recovery take.
    pub rto: TimeSpan,
    /// A drill must not be longer ago than this.
    pub drill_max_age: TimeSpan,
}

/// A repository beside the one that is looked at first.
#[derive(Debug)]
pub struct Other {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub location: String,
    /// Whether it is on another machine.
    pub off_host: bool,
    /// It, or why it cannot be opened.
    pub repository: Result<Repository, String>,
}

/// The repository that is looked at first, as far as its configuration tells.
#[derive(Debug, Clone)]
pub struct First {
    /// What it is called.
    pub name: String,
    /// Whether it is on another machine.
    pub off_host: bool,
}

/// A repository, and how far it is up to date.
#[derive(Debug, Clone, Serialize)]
pub struct RepositoryStatus {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub location: String,
    /// Its ID; `None` when it cannot be opened.
    pub repository: Option<String>,
    /// Whether it is on another machine.
    pub off_host: bool,
    /// Backups in it, of all databases.
    pub backups: u64,
    /// The newest one.
    pub newest: Option<String>,
    /// Its snapshot time.
    pub newest_time: Option<Timestamp>,
    /// When the last copy to it ended well, by the journal.
    pub last_copy: Option<Timestamp>,
    /// Why nothing is known of it now.
    pub error: Option<String>,
}

/// The newest backup of a database in one of the repositories.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// The repository's name.
    pub repository: String,
    /// Whether that is on another machine.
    pub off_host: bool,
    /// The newest backup there.
    pub newest: Option<String>,
    /// Its snapshot time.
    pub newest_time: Option<Timestamp>,
    /// The time of one that is dated in the future, and counts for nothing.
    pub future_time: Option<Timestamp>,
}

/// How things stand.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// Where the repository is.
    pub location: String,
    /// The repository's ID.
    pub repository: String,
    /// Its size in bytes.
    pub repository_bytes: u64,
    /// Every database that is configured or has a backup.
    pub databases: Vec<DatabaseStatus>,
    /// All repositories, this one first.
    pub repositories: Vec<RepositoryStatus>,
    /// Snapshot files of any of them that cannot be read.
    pub damaged: Vec<String>,
}

/// How things stand for one database.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseStatus {
    /// Its name.
    pub database: String,
    /// How many backups it has.
    pub backups: u64,
    /// How many of them are known to have lost data: those count for nothing.
    pub damaged_backups: u64,
    /// The newest one's ID.
    pub newest: Option<String>,
    /// The newest one's snapshot time.
    pub newest_time: Option<Timestamp>,
    /// What would be lost now: counted from the newest backup on another machine, where a repository on another
    /// machine is configured.
    pub rpo: Objective,
    /// Where its newest backup is, repository by repository.
    pub held: Vec<Held>,
    /// What a recovery would take, by the last good drill.
    pub rto: Objective,
    /// The best proof of the newest backup.
    pub newest_proof: Option<ProofLevel>,
    /// The last backup that was proven by a restore.
    pub last_proven: Option<ProvenBackup>,
    /// Drills, and whether one is overdue.
    pub drill: Routine,
    /// Everything that is wrong, one sentence each; empty when all promises are kept.
    pub problems: Vec<String>,
}

/// A backup that was restored and compared.
#[derive(Debug, Clone, Serialize)]
pub struct ProvenBackup {
    /// Its ID.
    pub backup: String,
    /// When it was proven.
    pub at: Timestamp,
    /// How long its recovery took then, in milliseconds.
    pub rto_ms: Option<u64>,
}

impl StatusReport {
    /// Whether every promise about every database is kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.damaged.is_empty()
            && !self.databases.is_empty()
            && self.repositories.iter().all(|one| one.error.is_none())
            && self
                .databases
                .iter()
                .all(|database| database.problems.is_empty())
    }
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The repository cannot be listed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Looks at the repositories and the journal. `configured` are the databases that should have backups.
///
/// # Errors
/// When the repository or the journal cannot be read.
pub fn status(
    catalog: &Catalog<'_>,
    first: &First,
    others: &[Other],
    journal: &Journal,
    configured: &[String],
    promises: Promises,
    now: Timestamp,
) -> Result<StatusReport, StatusError> {
    let repository = catalog.repository();
    let (backups, damaged) = catalog.backups(None)?;
    let mut damaged: Vec<String> = damaged.iter().map(ToString::to_string).collect();
    let mut stores = vec![Store {
        status: RepositoryStatus {
            name: first.name.clone(),
            location: repository.location(),
            repository: Some(repository.id().to_owned()),
            off_host: first.off_host,
            backups: backups.len() as u64,
            newest: backups.last().map(|one| one.id.to_string()),
            newest_time: backups.last().map(|one| one.time),
            last_copy: last_copy(journal, repository.id())?,
            error: None,
        },
        backups,
    }];
    for other in others {
        stores.push(look(other, journal, &mut damaged)?);
    }
    let backups = &stores[0].backups;
    let proofs = journal.best_proofs(repository.id())?;
    let names: BTreeSet<&str> = configured
        .iter()
        .map(String::as_str)
        .chain(backups.iter().map(|backup| backup.database.as_str()))
        .collect();
    let mut databases = Vec::with_capacity(names.len());
    for name in names {
        let (own, damaged): (Vec<&Backup>, Vec<&Backup>) = backups
            .iter()
            .filter(|backup| backup.database == name)
            .partition(|backup| backup.lost.is_none());
        let history = History {
            newest_proof: own
                .last()
                .and_then(|backup| backup.lookup(&proofs).cloned()),
            proven: journal.last_proof(repository.id(), Some(name), ProofLevel::Proven)?,
            last_drill: journal.last_drill(repository.id(), Some(name), false)?,
            good_drill: journal.last_drill(repository.id(), Some(name), true)?,
            failed_backup: failed_since(journal, repository.id(), name)?,
        };
        let held = stores.iter().map(|store| store.holds(name, now)).collect();
        databases.push(judge(name, &own, held, history, promises, now));
        if let Some(status) = databases.last_mut() {
            status.backups += damaged.len() as u64;
            status.damaged_backups = damaged.len() as u64;
        }
    }
    Ok(StatusReport {
        location: repository.location(),
        repository: repository.id().to_owned(),
        repository_bytes: repository.size_bytes()?,
        databases,
        damaged,
        repositories: stores.into_iter().map(|store| store.status).collect(),
    })
}

/// A repository, and what is in it.
struct Store {
    status: RepositoryStatus,
    /// Oldest first.
    backups: Vec<Backup>,
}

impl Store {
    fn holds(&self, database: &str, now: Timestamp) -> Held {
        let own = self.backups.iter().filter(|one| one.database == database);
        let newest = catalog::newest(own, now);
        Held {
            repository: self.status.name.clone(),
            off_host: self.status.off_host,
            newest: newest.backup.map(|one| one.id.to_string()),
            newest_time: newest.backup.map(|one| one.time),
            future_time: newest.future.map(|one| one.time),
        }
    }
}

fn look(
    other: &Other,
    journal: &Journal,
    damaged: &mut Vec<String>,
) -> Result<Store, JournalError> {
    let mut status = RepositoryStatus {
        name: other.name.clone(),
        location: other.location.clone(),
        repository: None,
        off_host: other.off_host,
        backups: 0,
        newest: None,
        newest_time: None,
        last_copy: None,
        error: None,
    };
    let opened = other.repository.as_ref().map_err(Clone::clone);
    let listed = opened.and_then(|repository| {
        status.repository = Some(repository.id().to_owned());
        let found = Catalog::new(repository).backups(None);
        found.map_err(|error| error.to_string())
    });
    let (backups, unreadable) = match listed {
        Ok(found) => found,
        Err(error) => {
            status.error = Some(error);
            (Vec::new(), Vec::new())
        }
    };
    damaged.extend(
        unreadable
            .iter()
            .map(|error| format!("{}: {error}", other.name)),
    );
    if let Some(id) = &status.repository {
        status.last_copy = last_copy(journal, id)?;
    }
    status.backups = backups.len() as u64;
    status.newest = backups.last().map(|one| one.id.to_string());
    status.newest_time = backups.last().map(|one| one.time);
    Ok(Store { status, backups })
}

fn last_copy(journal: &Journal, repository: &str) -> Result<Option<Timestamp>, JournalError> {
    let last = journal.last_run(
        RunKind::Copy,
        Some(repository),
        None,
        Some(Outcome::Succeeded),
    )?;
    Ok(last.and_then(|run| run.finished))
}

/// What the journal remembers of one database.
struct History {
    newest_proof: Option<Proof>,
    proven: Option<Proof>,
    last_drill: Option<Drill>,
    good_drill: Option<Drill>,
    failed_backup: Option<String>,
}

/// Why the last backup run failed, when no later one succeeded.
fn failed_since(
    journal: &Journal,
    repository: &str,
    database: &str,
) -> Result<Option<String>, JournalError> {
    let last = journal.last_run(RunKind::Backup, Some(repository), Some(database), None)?;
    Ok(last.and_then(|run| match run.outcome {
        Some(Outcome::Failed | Outcome::NoRoom) => {
            Some(run.error.unwrap_or_else(|| "it failed".to_owned()))
        }
        Some(Outcome::Vanished) => Some("its process ended without a word".to_owned()),
        Some(Outcome::Interrupted) => Some("it was interrupted".to_owned()),
        Some(Outcome::Succeeded) | None => None,
    }))
}

fn judge(
    name: &str,
    own: &[&Backup],
    held: Vec<Held>,
    history: History,
    promises: Promises,
    now: Timestamp,
) -> DatabaseStatus {
    let newest = own.last();
    let newest_time = newest.map(|backup| backup.time);
    // What burns with the database is no backup, where there is a place that does not.
    let counts_off_host = held.iter().any(|one| one.off_host);
    let counted = held
        .iter()
        .filter(|one| one.off_host || !counts_off_host)
        .filter_map(|one| one.newest_time)
        .max();
    let rpo = objectives::rpo_now(counted, now, promises.rpo);
    let bytes_now = newest
        .and_then(|backup| backup.summary.as_ref())
        .map(|summary| summary.data_bytes);
    let rto = objectives::rto_predicted(history.good_drill.as_ref(), bytes_now, promises.rto);
    let drill = objectives::routine(
        history.good_drill.as_ref().map(|drill| drill.finished),
        now,
        promises.drill_max_age,
    );

    let mut problems = Vec::new();
    match rpo.verdict {
        Verdict::Unknown if newest.is_none() => problems.push("there is no backup".to_owned()),
        Verdict::Unknown => problems.push("no backup is known to be off-host".to_owned()),
        Verdict::Missed if counts_off_host => problems.push(format!(
            "the newest backup off-host is {} old: more would be lost than the {} allowed",
            human(rpo.actual_seconds),
            human(Some(rpo.target_seconds))
        )),
        Verdict::Missed => problems.push(format!(
            "the newest backup is {} old: more would be lost than the {} allowed",
            human(rpo.actual_seconds),
            human(Some(rpo.target_seconds))
        )),
        Verdict::Met => {}
    }
    for one in &held {
        if let Some(ahead) = one.future_time.map(|time| time.duration_since(now)) {
            problems.push(format!(
                "the newest backup in {} is dated {} in the future: a clock is wrong",
                one.repository,
                human(u64::try_from(ahead.as_secs()).ok())
            ));
        }
    }
    if let Some(reason) = history.failed_backup {
        problems.push(format!("the last backup run failed: {reason}"));
    }
    if newest.is_some() {
        match (&history.last_drill, drill.is_overdue()) {
            (Some(last), _) if !last.proven => problems.push(format!(
                "the last drill did not prove its backup: {}",
                last.error.as_deref().unwrap_or("see its report")
            )),
            (None, true) => problems.push("no backup was ever proven by a drill".to_owned()),
            (Some(_), true) => problems.push(format!(
                "a drill is overdue by {}",
                human(drill.overdue_seconds)
            )),
            _ => {}
        }
        if rto.verdict == Verdict::Missed {
            problems.push(format!(
                "recovery would take {}, more than the {} allowed",
                human(rto.actual_seconds),
                human(Some(rto.target_seconds))
            ));
        }
    }
    DatabaseStatus {
        database: name.to_owned(),
        backups: own.len() as u64,
        damaged_backups: 0,
        newest: newest.map(|backup| backup.id.to_string()),
        newest_time,
        held,
        rpo,
        rto,
        newest_proof: history.newest_proof.map(|proof| proof.level),
        last_proven: history.proven.map(|proof| ProvenBackup {
            rto_ms: history
                .good_drill
                .as_ref()
                .filter(|drill| drill.backup == proof.backup)
                .and_then(|drill| drill.rto_ms),
            backup: proof.backup,
            at: proof.at,
        }),
        drill,
        problems,
    }
}

fn human(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "an unknown time".to_owned(), objectives::human_seconds)
}
