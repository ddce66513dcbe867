//! Putting right what is damaged in a repository, with good copies out of others.
//!
//! What is damaged and how it is mended is `lifeboat-repo`'s. Here it is told in an operator's words (which backups,
//! which tables), and what is lost for good is written where the backup is: as the tags `damaged` and `lost=…` of
//! its snapshot, so that every machine sees it, and stock restic as well. A backup that is whole again, because a
//! later one brought the same bytes, loses its mark with the next repair.

mod parts;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifeboat_repo::check::CheckProgress;
use lifeboat_repo::lock::{LockGuard, LockHolder, LockMode};
pub use lifeboat_repo::repair::Decision;
use lifeboat_repo::repair::{self as repo, Loss, RepairDone, RepairEvent, RepairOptions};
use lifeboat_repo::storage::FileKind;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::catalog::{Backup, Catalog, CatalogError, DAMAGED_TAG, LOST_TAG, backups_of};
use crate::event::{Event, Observer, Stage};
use crate::journal::{Journal, RunKind};
use crate::locking;
use crate::verify::ReadData;
use crate::verify::reading::Ledger;
pub use parts::{LostPart, Part};

/// The most names of lost parts that a snapshot's tags carry.
const MOST_NAMES: usize = 16;

/// What to repair, and how.
#[derive(Debug, Clone)]
pub struct RepairRequest {
    /// Whether what the journal remembers as read lately, and good, is not read again.
    pub trust_journal: bool,
    /// How long a pack that was read counts as read, then.
    pub max_proof_age: SignedDuration,
    /// How many threads read.
    pub jobs: usize,
    /// This host, for the locks.
    pub hostname: String,
    /// The user, for the locks.
    pub username: String,
    /// How long to wait for others that work on the repositories.
    pub patience: Duration,
    /// The present.
    pub now: Timestamp,
    /// Set to stop. What was done by then stays done, and the next run goes on from there.
    pub interrupt: Arc<AtomicBool>,
}

/// A repository to take good copies from.
#[derive(Debug)]
pub struct Source {
    /// What it is called.
    pub name: String,
    /// It, or why it cannot be opened.
    pub repository: Result<Repository, String>,
}

/// What a backup has lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLoss {
    /// The snapshot's ID.
    pub id: SnapshotId,
    /// The ID it had at first.
    pub first_id: SnapshotId,
    /// Its database; `None` for a snapshot that Lifeboat did not make.
    pub database: Option<String>,
    /// Its snapshot's time.
    pub time: Timestamp,
    /// What it has lost; not empty.
    pub parts: Vec<LostPart>,
}

impl BackupLoss {
    /// The names of what is lost, each once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut parts: Vec<&Part> = self.parts.iter().map(|one| &one.part).collect();
        parts.sort();
        parts.dedup();
        parts.iter().map(ToString::to_string).collect()
    }
}

/// A backup of which nothing is left but a file that does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBackup {
    /// Its ID.
    pub id: String,
    /// Its database and when it was taken, where this machine's journal remembers.
    pub known: Option<(String, Timestamp)>,
}

/// What is damaged, and what would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// As the repository sees it. Sources are numbers in [`RepairPlan::sources`].
    pub found: repo::RepairPlan,
    /// The names of the sources that were asked.
    pub sources: Vec<String>,
    /// Sources that could not be asked, by name, and why.
    pub unusable: Vec<(String, String)>,
    /// What backups have lost for good, oldest first.
    pub losses: Vec<BackupLoss>,
    /// Backups whose file in the repository does not open and that no source has.
    pub backups_lost: Vec<LostBackup>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// As the repository sees it.
    pub done: RepairDone,
    /// What backups lack now, oldest first.
    pub losses: Vec<BackupLoss>,
}

/// What was found and, unless nothing was to be done, what was done.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// What was found.
    pub plan: RepairPlan,
    /// What was done; `None` when nothing is damaged, or nothing was to be done.
    pub repaired: Option<Repaired>,
    /// Backups that are whole again and were known to have lost something.
    pub whole_again: Vec<SnapshotId>,
    /// Why what is lost could not be written down with the backups, if it could not.
    pub unmarked: Option<String>,
    /// Seconds it took.
    pub seconds: f64,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The repository, or one of the sources, failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The repository's backups cannot be listed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Finds what is damaged, asks `decide`, and repairs.
///
/// # Errors
/// [`RepairError`]; what was done by then stays done, and the next run goes on from there.
pub fn execute(
    repository: &Repository,
    journal: &Journal,
    sources: &[Source],
    request: &RepairRequest,
    decide: &dyn Fn(&RepairPlan) -> Decision,
    observer: &dyn Observer,
) -> Result<RepairReport, RepairError> {
    match run(repository, journal, sources, request, decide, observer) {
        // Whatever broke first when the operator pressed Ctrl-C, the reason is the operator.
        Err(_) if request.interrupt.load(Ordering::Relaxed) => Err(RepairError::Interrupted),
        other => other,
    }
}

fn run(
    repository: &Repository,
    journal: &Journal,
    sources: &[Source],
    request: &RepairRequest,
    decide: &dyn Fn(&RepairPlan) -> Decision,
    observer: &dyn Observer,
) -> Result<RepairReport, RepairError> {
    let started = Instant::now();
    let (open, unusable) = lock_sources(repository, sources, request, observer)?;
    let names: Vec<String> = open.iter().map(|one| one.name.clone()).collect();
    let repo_sources: Vec<repo::Source<'_>> = open
        .iter()
        .map(|one| repo::Source {
            repository: one.repository,
            lock: &one.lock,
        })
        .collect();
    let read = if request.trust_journal {
        ReadData::Due
    } else {
        ReadData::All
    };
    let ledger = Ledger::open(
        repository,
        journal,
        read,
        request.max_proof_age,
        request.now,
    );
    let told: RefCell<RepairPlan> = RefCell::default();
    let tell = |plan: &repo::RepairPlan| {
        let words = Words::new(repository, journal);
        let mut unusable = unusable.clone();
        let more = plan.unusable.iter();
        unusable.extend(more.filter_map(|(at, why)| Some((names.get(*at)?.clone(), why.clone()))));
        let lost = plan.snapshots_lost.iter();
        let plan = RepairPlan {
            losses: words.losses(&plan.losses),
            backups_lost: lost.map(|name| words.lost(name)).collect(),
            found: plan.clone(),
            sources: names.clone(),
            unusable,
        };
        let decision = decide(&plan);
        *told.borrow_mut() = plan;
        decision
    };
    observer.event(&Event::StageStarted {
        stage: Stage::Check,
    });
    let result = repository.repair(&repo::RepairRequest {
        options: RepairOptions {
            jobs: request.jobs,
            pack_size_bytes: 16 << 20,
            patience: request.patience,
            interrupt: Arc::clone(&request.interrupt),
        },
        holder: LockHolder {
            hostname: request.hostname.clone(),
            username: request.username.clone(),
            pid: std::process::id(),
        },
        clock: Arc::new(Timestamp::now),
        sources: &repo_sources,
        reading: &ledger,
        decide: &tell,
        observer: &|event| pass_on(event, observer),
    });
    // Also what an interrupted run has read is read.
    ledger.flush();
    let found = result?;
    let bad = found.plan.findings.iter();
    let bad = bad
        .filter(|finding| finding.kind == FileKind::Pack)
        .filter_map(|finding| finding.name.parse().ok())
        .collect();
    ledger.finish(&std::collections::HashSet::new(), &bad);

    let is_clean = found.plan.is_clean();
    let mut report = RepairReport {
        plan: told.into_inner(),
        ..RepairReport::default()
    };
    report.plan.found = found.plan;
    if let Some(done) = found.done {
        let losses = Words::new(repository, journal).losses(&done.losses);
        report.repaired = Some(Repaired { done, losses });
    }
    // With nothing damaged nobody was asked, and nothing is lost.
    if is_clean || report.repaired.is_some() {
        let nothing = &mut Vec::new();
        let losses = report
            .repaired
            .as_mut()
            .map_or(nothing, |one| &mut one.losses);
        match mark(repository, losses, request, observer) {
            Ok(whole_again) => report.whole_again = whole_again,
            Err(error @ (RepairError::Interrupted | RepairError::Catalog(_))) => return Err(error),
            // What was repaired is repaired; the next run marks them.
            Err(RepairError::Repository(error)) => report.unmarked = Some(error.to_string()),
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

struct OpenSource<'a> {
    name: String,
    repository: &'a Repository,
    lock: LockGuard,
}

/// Those that can be asked, and of the others the names and why not.
type Sources<'a> = (Vec<OpenSource<'a>>, Vec<(String, String)>);

/// The sources under shared locks, so that nobody removes what is read; and those that can't be asked.
fn lock_sources<'a>(
    repository: &Repository,
    sources: &'a [Source],
    request: &RepairRequest,
    observer: &dyn Observer,
) -> Result<Sources<'a>, RepairError> {
    let (mut open, mut unusable) = (Vec::new(), Vec::new());
    for source in sources {
        let name = source.name.clone();
        let there = match &source.repository {
            Ok(there) => there,
            Err(why) => {
                unusable.push((name, why.clone()));
                continue;
            }
        };
        // A copy of the folder has the same ID, and may be what saves the day.
        if there.id() == repository.id() && there.location() == repository.location() {
            unusable.push((
                name,
                "it is the repository that is to be repaired".to_owned(),
            ));
            continue;
        }
        let who = (request.hostname.as_str(), request.username.as_str());
        match locking::lock(
            there,
            LockMode::Shared,
            who,
            request.patience,
            &request.interrupt,
            observer,
        ) {
            Ok(lock) => open.push(OpenSource {
                name,
                repository: there,
                lock,
            }),
            Err(RepositoryError::Interrupted) => return Err(RepairError::Interrupted),
            Err(error) => unusable.push((name, error.to_string())),
        }
    }
    Ok((open, unusable))
}

fn pass_on(event: RepairEvent, observer: &dyn Observer) {
    let stage = |stage| observer.event(&Event::StageStarted { stage });
    match event {
        RepairEvent::Waiting(by) => observer.event(&Event::Warning {
            message: format!("the repository is locked by {by}: waiting"),
        }),
        RepairEvent::Checking(CheckProgress {
            packs_done,
            packs_total,
            bytes_done,
            ..
        }) => observer.event(&Event::CheckProgress {
            packs_done,
            packs_total,
            bytes: bytes_done,
        }),
        RepairEvent::Examining => stage(Stage::Examine),
        RepairEvent::Mending => stage(Stage::Mend),
        RepairEvent::Removing => stage(Stage::Discard),
    }
}

/// Tells snapshots and paths as backups and tables.
struct Words<'a> {
    catalog: Catalog<'a>,
    journal: &'a Journal,
}

impl<'a> Words<'a> {
    fn new(repository: &'a Repository, journal: &'a Journal) -> Self {
        Self {
            catalog: Catalog::new(repository),
            journal,
        }
    }

    fn losses(&self, losses: &[Loss]) -> Vec<BackupLoss> {
        losses
            .iter()
            .map(|loss| {
                let (backups, _) = backups_of(vec![loss.snapshot.clone()]);
                let backup = backups.into_iter().next();
                // Where it can't be read, paths tell nearly as much.
                let manifest = backup
                    .as_ref()
                    .and_then(|backup| self.catalog.manifest(backup).ok());
                BackupLoss {
                    id: loss.snapshot.id,
                    first_id: loss.snapshot.original.unwrap_or(loss.snapshot.id),
                    database: backup.map(|backup| backup.database),
                    time: loss.snapshot.time,
                    parts: parts::of_paths(&loss.paths, manifest.as_ref()),
                }
            })
            .collect()
    }

    fn lost(&self, name: &str) -> LostBackup {
        let runs = self.journal.runs(usize::MAX >> 1).unwrap_or_default();
        let made = runs
            .into_iter()
            .find(|run| run.kind == RunKind::Backup && run.backup.as_deref() == Some(name));
        LostBackup {
            id: name.to_owned(),
            known: made.map(|run| (run.database, run.started)),
        }
    }
}

/// Writes down with each backup what it has lost, and takes the word back where that is no longer so. Gives the
/// losses the IDs that their backups have then. Returns the backups that are whole again.
fn mark(
    repository: &Repository,
    losses: &mut [BackupLoss],
    request: &RepairRequest,
    observer: &dyn Observer,
) -> Result<Vec<SnapshotId>, RepairError> {
    if changes(repository, losses)?.is_empty() {
        return Ok(Vec::new());
    }
    if !repository.storage().may_delete() {
        let location = repository.location();
        return Err(RepositoryError::AppendOnly { location }.into());
    }
    let lock = locking::lock(
        repository,
        LockMode::Exclusive,
        (&request.hostname, &request.username),
        request.patience,
        &request.interrupt,
        observer,
    )?;
    let mut whole_again = Vec::new();
    let mut renamed: HashMap<SnapshotId, SnapshotId> = HashMap::new();
    for (backup, tags) in changes(repository, losses)? {
        if request.interrupt.load(Ordering::Relaxed) {
            return Err(RepairError::Interrupted);
        }
        let is_whole = !tags.iter().any(|tag| tag == DAMAGED_TAG);
        let now = repository.retag(&backup.snapshot, tags, &lock)?;
        renamed.insert(backup.id, now.id);
        if is_whole {
            whole_again.push(now.id);
        }
    }
    for loss in losses {
        loss.id = renamed.get(&loss.id).copied().unwrap_or(loss.id);
    }
    Ok(whole_again)
}

/// The backups whose tags are not what they should be, and what those should be.
fn changes(
    repository: &Repository,
    losses: &[BackupLoss],
) -> Result<Vec<(Backup, Vec<String>)>, RepairError> {
    let lost: BTreeMap<SnapshotId, Vec<String>> = losses
        .iter()
        .map(|loss| (loss.id, tags_of(&loss.names())))
        .collect();
    let (backups, _) = Catalog::new(repository).backups(None)?;
    let changed = backups.into_iter().filter_map(|backup| {
        let is_ours = |tag: &&String| *tag == DAMAGED_TAG || tag.starts_with(LOST_TAG);
        let (now, mut tags): (Vec<&String>, Vec<&String>) =
            backup.snapshot.tags.iter().partition(is_ours);
        let nothing = Vec::new();
        let wanted = lost.get(&backup.id).unwrap_or(&nothing);
        if now.into_iter().eq(wanted) {
            return None;
        }
        tags.extend(wanted);
        let tags = tags.into_iter().cloned().collect();
        Some((backup, tags))
    });
    Ok(changed.collect())
}

fn tags_of(names: &[String]) -> Vec<String> {
    let mut tags = vec![DAMAGED_TAG.to_owned()];
    // A comma separates tags on restic's command line.
    let plain = |name: &String| name.replace([',', '\n', '\r'], ";");
    let named = names.iter().take(MOST_NAMES);
    tags.extend(named.map(|name| format!("{LOST_TAG}{}", plain(name))));
    if let Some(more) = names.len().checked_sub(MOST_NAMES).filter(|more| *more > 0) {
        tags.push(format!("{LOST_TAG}and {more} more"));
    }
    tags
}
