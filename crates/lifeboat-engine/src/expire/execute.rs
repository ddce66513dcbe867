//! Making it so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lifeboat_repo::lock::LockHolder;
use lifeboat_repo::prune::{PruneEstimate, PruneEvent, PruneOptions, PruneReport, PruneRequest};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use super::{Candidate, Evidence, Health, Policy, Verdict, decide, dropped};
use crate::catalog::{self, Backup};
use crate::config::TimeSpan;
use crate::event::{Event, Observer, Stage};
use crate::journal::{Journal, JournalError, Outcome, Run, RunKind};

/// What shall expire.
#[derive(Debug, Clone)]
pub struct ExpireRequest {
    /// What is kept.
    pub policy: Policy,
    /// Only this database's backups; else those of all.
    pub database: Option<String>,
    /// Whether data that no backup needs is removed, too.
    pub prune: bool,
    /// How much of the stored data may stay that no backup needs, in thousandths.
    pub max_unused_permille: u64,
    /// How old a database's newest backup may be before none of its backups is removed.
    pub overdue_after: TimeSpan,
    /// How long to wait for others that work on the repository.
    pub patience: Duration,
    /// This host, for the locks.
    pub hostname: String,
    /// The user, for the locks.
    pub username: String,
    /// The present.
    pub now: Timestamp,
    /// Set to stop. What was done by then stays done, and is consistent.
    pub interrupt: Arc<AtomicBool>,
}

/// What was decided, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct ExpireReport {
    /// About every backup, by database, newest first.
    pub verdicts: Vec<Verdict>,
    /// Databases whose backups fail for want of room: these go by the policy, where others would lose nothing.
    pub for_room: BTreeSet<String>,
    /// Of a dry run: what would be freed.
    pub estimate: Option<PruneEstimate>,
    /// Of a real run: what was done.
    pub done: Option<PruneReport>,
}

/// Why nothing, or not everything, was removed.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// The policy keeps nothing: that is nobody's wish.
    #[error("the policy keeps nothing")]
    EmptyPolicy,
    /// There is no backup of this database.
    #[error("there is no backup of {database} in {location}")]
    NoSuchDatabase {
        /// The database.
        database: String,
        /// The repository.
        location: String,
    },
    /// The repository failed, or is not in a state in which anything may be removed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The journal failed, so nobody knows whether backups do.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Decides, and changes nothing.
///
/// # Errors
/// [`ExpireError`].
pub fn plan(
    repository: &Repository,
    journal: &Journal,
    request: &ExpireRequest,
) -> Result<ExpireReport, ExpireError> {
    let facts = Facts::gather(repository, journal, request)?;
    let choose = |snapshots: &[Snapshot]| facts.choose(snapshots);
    let estimate = if request.prune {
        Some(repository.prune_estimate(&prune_request(request, &choose, &|_| ()))?)
    } else {
        None
    };
    Ok(ExpireReport {
        verdicts: facts.verdicts,
        for_room: facts.for_room,
        estimate,
        done: None,
    })
}

/// Decides, and removes.
///
/// # Errors
/// [`ExpireError`]; what was removed by then stays removed, and what is left is whole.
pub fn execute(
    repository: &Repository,
    journal: &Journal,
    request: &ExpireRequest,
    observer: &dyn Observer,
) -> Result<ExpireReport, ExpireError> {
    let facts = Facts::gather(repository, journal, request)?;
    let choose = |snapshots: &[Snapshot]| facts.choose(snapshots);
    let tell = |event: PruneEvent| match event {
        PruneEvent::Waiting(by) => observer.event(&Event::Warning {
            message: format!("the repository is locked by {by}: waiting"),
        }),
        PruneEvent::Marking => observer.event(&Event::StageStarted { stage: Stage::Mark }),
        PruneEvent::Repacking { .. } => observer.event(&Event::StageStarted {
            stage: Stage::Repack,
        }),
        PruneEvent::Removing { .. } => observer.event(&Event::StageStarted {
            stage: Stage::Remove,
        }),
    };
    let asked = prune_request(request, &choose, &tell);
    let done = if request.prune {
        repository.prune(&asked)?
    } else {
        repository.forget(&asked)?
    };
    Ok(ExpireReport {
        verdicts: facts.verdicts.clone(),
        for_room: facts.for_room.clone(),
        estimate: None,
        done: Some(done),
    })
}

fn prune_request<'a>(
    request: &ExpireRequest,
    choose: lifeboat_repo::prune::Choose<'a>,
    observer: &'a (dyn Fn(PruneEvent) + Sync),
) -> PruneRequest<'a> {
    PruneRequest {
        options: PruneOptions {
            max_unused_permille: request.max_unused_permille,
            patience: request.patience,
            interrupt: Arc::clone(&request.interrupt),
            known_damaged: Some(catalog::DAMAGED_TAG.to_owned()),
            ..PruneOptions::default()
        },
        holder: LockHolder {
            hostname: request.hostname.clone(),
            username: request.username.clone(),
            pid: std::process::id(),
        },
        clock: Arc::new(Timestamp::now),
        choose,
        observer,
    }
}

/// Everything a decision is a function of, besides the snapshots.
struct Facts<'r> {
    repository: &'r Repository,
    request: &'r ExpireRequest,
    proven: BTreeSet<String>,
    /// What this machine has imported: rightly stored later than it is dated.
    imported: BTreeSet<String>,
    /// What the last drill did not prove.
    unproven: BTreeSet<String>,
    /// When this machine copied backups into this repository: files of that time are stored later than they are dated.
    copying: Vec<(Timestamp, Timestamp)>,
    /// Of each database the last backup run that failed, with no successful one after it.
    failed: BTreeMap<String, Failing>,
    /// When each snapshot's file was stored, as last known.
    stored: Mutex<HashMap<SnapshotId, Timestamp>>,
    verdicts: Vec<Verdict>,
    for_room: BTreeSet<String>,
}

impl<'r> Facts<'r> {
    fn gather(
        repository: &'r Repository,
        journal: &Journal,
        request: &'r ExpireRequest,
    ) -> Result<Self, ExpireError> {
        if request.policy.is_empty() {
            return Err(ExpireError::EmptyPolicy);
        }
        let (snapshots, damaged) = repository.snapshots()?;
        // One that cannot be read may be the newest, or a proven one: nothing can be decided.
        if let Some(error) = damaged.into_iter().next() {
            return Err(error.into());
        }
        let (backups, _) = catalog::backups_of(snapshots.clone());
        let names: BTreeSet<&String> = backups.iter().map(|backup| &backup.database).collect();
        let mut failed = BTreeMap::new();
        for name in &names {
            if let Some(failing) = last_failure(journal, name)? {
                failed.insert((*name).clone(), failing);
            }
        }
        if let Some(database) = request
            .database
            .as_ref()
            .filter(|name| !names.contains(name))
        {
            return Err(ExpireError::NoSuchDatabase {
                database: database.clone(),
                location: repository.location(),
            });
        }
        let mut facts = Self {
            repository,
            request,
            // Of a copy the journal knows what it knows of the original: backups are taken into one repository and
            // drilled out of any, and bear one ID everywhere.
            proven: journal.proven_anywhere()?,
            unproven: journal.unproven_anywhere()?,
            imported: journal.imported()?,
            copying: copying(journal, repository.id(), request.now)?,
            failed,
            stored: Mutex::new(repository.snapshots_stored()?),
            verdicts: Vec::new(),
            for_room: BTreeSet::new(),
        };
        facts.verdicts = facts.decide(&backups);
        facts.for_room = facts
            .health(&facts.candidates(&backups))
            .into_iter()
            .filter(|(_, health)| health.wants_room)
            .map(|(database, _)| database)
            .collect();
        Ok(facts)
    }

    fn decide(&self, backups: &[Backup]) -> Vec<Verdict> {
        let candidates = self.candidates(backups);
        let request = self.request;
        decide(
            &candidates,
            &request.policy,
            &self.health(&candidates),
            request.overdue_after,
            request.now,
        )
    }

    fn candidates(&self, backups: &[Backup]) -> Vec<Candidate> {
        let wanted = |backup: &&Backup| {
            let database = self.request.database.as_ref();
            database.is_none_or(|name| *name == backup.database)
        };
        let wanted = backups.iter().filter(wanted);
        wanted.map(|one| self.candidate(one)).collect()
    }

    fn health(&self, candidates: &[Candidate]) -> BTreeMap<String, Health> {
        let now = self.request.now;
        let mut health: BTreeMap<String, Health> = BTreeMap::new();
        for (database, Failing { run, wants_room }) in &self.failed {
            // A success on another host is not in this journal, but its backup is in the repository.
            let newer = |one: &Candidate| {
                one.database == *database && one.time > run.started && one.time <= now
            };
            if !candidates.iter().any(newer) {
                let reason = run.error.clone();
                let reason = reason.unwrap_or_else(|| "it ended without a word".to_owned());
                let failing = Health {
                    failing: (!wants_room).then_some(reason),
                    wants_room: *wants_room,
                };
                health.insert(database.clone(), failing);
            }
        }
        health
    }

    fn candidate(&self, backup: &Backup) -> Candidate {
        let name = backup.first_id().to_string();
        // A file that was written anew tells nothing about the backup.
        let is_first = backup.snapshot.original.is_none();
        // Nor does that of a dump that was imported: only the journal of the machine that did it is believed, since
        // anybody with the key can say so in the backup itself.
        let is_imported = self.imported.contains(&name);
        Candidate {
            id: backup.id,
            database: backup.database.clone(),
            time: backup.time,
            evidence: Evidence {
                first_id: Some(backup.first_id()),
                parent: backup.snapshot.parent.filter(|_| !is_imported),
                stored: if is_first && !is_imported {
                    self.stored_at(backup.id)
                } else {
                    None
                },
            },
            is_proven: self.proven.contains(&name),
            is_bad: backup.lost.is_some() || self.unproven.contains(&name),
            held: backup.held.clone(),
        }
    }

    fn stored_at(&self, id: SnapshotId) -> Option<Timestamp> {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let at = *stored.get(&id)?;
        let was_copied = |(from, to): &(Timestamp, Timestamp)| (*from..=*to).contains(&at);
        (!self.copying.iter().any(was_copied)).then_some(at)
    }

    /// The snapshots that go, of these. What an interrupted hold left beside its successor goes as well.
    fn choose(&self, snapshots: &[Snapshot]) -> Vec<SnapshotId> {
        // What came since the first look is the newest there is; if nothing is learnt of it, it is kept.
        if let Ok(stored) = self.repository.snapshots_stored() {
            *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = stored;
        }
        let (backups, replaced) = catalog::backups_of(snapshots.to_vec());
        let mut gone: Vec<SnapshotId> = dropped(&self.decide(&backups)).into_iter().collect();
        gone.extend(replaced);
        gone
    }
}

/// The storage's clock may differ so much from ours.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// When runs of this machine copied into a repository, by the storage's clock.
fn copying(
    journal: &Journal,
    repository: &str,
    now: Timestamp,
) -> Result<Vec<(Timestamp, Timestamp)>, JournalError> {
    let runs = journal.runs_of(RunKind::Copy, repository)?;
    Ok(runs
        .into_iter()
        .map(|run| {
            let (from, to) = (run.started, run.finished.unwrap_or(now));
            (
                from.checked_sub(CLOCK_TOLERANCE).unwrap_or(from),
                to.checked_add(CLOCK_TOLERANCE).unwrap_or(to),
            )
        })
        .collect())
}

/// Backups of a database fail.
struct Failing {
    /// The last run that did.
    run: Run,
    /// Whether all that failed since the last success did so for want of room.
    wants_room: bool,
}

/// The last backup run of a database that failed, unless a later one succeeded.
fn last_failure(journal: &Journal, database: &str) -> Result<Option<Failing>, JournalError> {
    let last = |outcome| journal.last_run(RunKind::Backup, None, Some(database), Some(outcome));
    let good = last(Outcome::Succeeded)?;
    let since = |run: &Run| good.as_ref().is_none_or(|good| good.started <= run.started);
    let mut worst: Option<Run> = None;
    for outcome in [Outcome::Failed, Outcome::Vanished, Outcome::Interrupted] {
        if let Some(run) = last(outcome)?
            && worst
                .as_ref()
                .is_none_or(|worst| worst.started < run.started)
        {
            worst = Some(run);
        }
    }
    if let Some(run) = worst.filter(&since) {
        let wants_room = false;
        return Ok(Some(Failing { run, wants_room }));
    }
    let full = last(Outcome::NoRoom)?.filter(since);
    Ok(full.map(|run| Failing {
        run,
        wants_room: true,
    }))
}
