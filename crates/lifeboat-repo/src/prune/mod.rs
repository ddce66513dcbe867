//! Pruning: removing snapshots, and what no snapshot needs any more.
//!
//! Two phases. The first works beside backups, under a shared lock: it reads every tree of every snapshot that
//! stays (`mark`), decides which packs go (`plan`) and copies what is still needed out of packs that are
//! mostly not (`repack`); all it does to the repository is to add packs and index files. The second
//! (`sweep`) takes the exclusive lock, so that no backup is under way, looks again at everything that may have
//! changed, and only then removes: snapshots, index files once their successors are durable, packs once no
//! index lists them.
//!
//! Invariants. A blob that a snapshot needs is, at every moment, in a pack that is whole and in an index file
//! that is there: so an interruption anywhere leaves unreferenced files and nothing worse. Nothing is removed
//! without the exclusive lock, asked for before each file. A snapshot that cannot be read, or that lacks a blob,
//! ends everything before anything was removed.

pub(crate) mod bits;
pub(crate) mod mark;
mod plan;
pub(crate) mod repack;
pub(crate) mod survey;
pub(crate) mod sweep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::RepositoryError;
use crate::id::SnapshotId;
use crate::lock::{Clock, LockGuard, LockHolder, LockInfo, LockMode, Patience};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, StorageErrorKind};

use plan::Plan;
use survey::Survey;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// How much of the packs may stay unreferenced, in thousandths. Less means more copying.
    pub max_unused_permille: u64,
    /// A pack that is written is closed at this size; packs below a quarter of it are put together once there
    /// are many.
    pub pack_size_bytes: usize,
    /// A snapshot with this tag is known to have lost blobs: those that are in no index it can do without. Of any other
    /// one that lacks a blob ends everything.
    pub known_damaged: Option<String>,
    /// How long to wait for the locks of others: before, and again before anything is removed.
    pub patience: Duration,
    /// Set to stop. What was done by then stays done, and is consistent.
    pub interrupt: Arc<AtomicBool>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            max_unused_permille: 50,
            known_damaged: None,
            pack_size_bytes: 16 << 20,
            patience: Duration::from_secs(120),
            interrupt: Arc::default(),
        }
    }
}

/// Which snapshots go. Asked once to plan, and again under the exclusive lock with what there is then: only
/// those go that were named both times.
pub type Choose<'a> = &'a (dyn Fn(&[Snapshot]) -> Vec<SnapshotId> + Sync);

/// Who prunes, and who is told.
pub struct PruneRequest<'a> {
    /// How.
    pub options: PruneOptions,
    /// For the locks.
    pub holder: LockHolder,
    /// For the locks.
    pub clock: Clock,
    /// Which snapshots go.
    pub choose: Choose<'a>,
    /// Told what happens.
    pub observer: &'a (dyn Fn(PruneEvent) + Sync),
}

impl std::fmt::Debug for PruneRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PruneRequest")
            .field("options", &self.options)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

/// What happens while pruning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruneEvent {
    /// Someone else's lock is in the way, and is waited for.
    Waiting(Box<LockInfo>),
    /// The trees of what stays are read.
    Marking,
    /// Needed blobs are copied out of packs that are mostly not needed.
    Repacking {
        /// Packs they are copied from.
        packs: u64,
        /// Bytes to copy.
        bytes: u64,
    },
    /// Files are removed; others have to wait from here on.
    Removing {
        /// Snapshots.
        snapshots: u64,
        /// Packs.
        packs: u64,
    },
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Snapshots removed.
    pub snapshots_removed: Vec<SnapshotId>,
    /// Packs removed, also those that an interrupted backup had left.
    pub packs_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// Packs written with blobs of others.
    pub packs_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Index files removed.
    pub index_files_removed: u64,
    /// Index files written.
    pub index_files_written: u64,
    /// Bytes of all packs at the end.
    pub bytes_left: u64,
    /// Bytes of packs at the end that no snapshot needs.
    pub bytes_unreferenced: u64,
    /// Whether there was too little room to do everything: what could be freed without writing was.
    pub short_of_room: bool,
}

/// What a prune would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneEstimate {
    /// Packs that would go.
    pub packs: u64,
    /// Bytes that would be free, those to be written taken off. Packs that no index lists are not in it.
    pub bytes: u64,
}

/// How often everything is begun anew because others pruned at the same time.
const MOST_ATTEMPTS: usize = 4;

impl Repository {
    /// Removes the snapshots that `request.choose` names, and then what no snapshot needs.
    ///
    /// # Errors
    /// `Damaged` or `MissingBlob` when a snapshot that stays cannot be read, with nothing removed; `Locked` when
    /// waiting for others was in vain, `Contended` when they were too busy, `Lock` when the own lock was lost, `Interrupted`, or what the storage says.
    pub fn prune(&self, request: &PruneRequest<'_>) -> Result<PruneReport, RepositoryError> {
        self.require_removal()?;
        let mut report = PruneReport::default();
        let mut attempts = 0;
        let mut is_second_pass = false;
        loop {
            let shared = self.lock_or_make_room(request, LockMode::Shared, &mut report)?;
            (request.observer)(PruneEvent::Marking);
            let mut survey = Survey::take(self, request)?;
            let mut plan = Plan::make(&survey, &request.options);
            let is_short = plan.needs_more_than(self.storage().free_space_bytes());
            if is_short {
                plan.forget_repacking();
            }
            let moved = repack::repack(self, &survey, &plan, request, &shared)?;
            report.packs_written += moved.packs;
            report.bytes_written += moved.bytes;
            report.index_files_written += moved.index_files;
            drop(shared);

            let exclusive = self.lock_or_make_room(request, LockMode::Exclusive, &mut report)?;
            let swept = sweep::sweep(
                self,
                &mut survey,
                &mut plan,
                request,
                &exclusive,
                &mut report,
            )?;
            drop(exclusive);
            if swept.is_outdated {
                attempts += 1;
                if attempts == MOST_ATTEMPTS {
                    return Err(RepositoryError::Contended);
                }
                continue;
            }
            report.short_of_room = is_short || moved.fell_short || swept.fell_short;
            // What was freed may be room enough for what was left out. Asked once: a disk that others fill at the
            // same time is not chased.
            let has_room = !plan.needs_more_than(self.storage().free_space_bytes());
            let again = report.short_of_room && has_room && report.packs_removed > 0;
            if !again || std::mem::replace(&mut is_second_pass, true) {
                return Ok(report);
            }
        }
    }

    /// Removes the snapshots that `request.choose` names, and nothing else.
    ///
    /// # Errors
    /// As [`Repository::prune`].
    pub fn forget(&self, request: &PruneRequest<'_>) -> Result<PruneReport, RepositoryError> {
        self.require_removal()?;
        let mut report = PruneReport::default();
        let (snapshots, _) = self.snapshots()?;
        let planned = (request.choose)(&snapshots);
        if planned.is_empty() {
            return Ok(report);
        }
        let lock = self.lock_or_make_room(request, LockMode::Exclusive, &mut report)?;
        let (snapshots, _) = self.snapshots()?;
        let chosen = (request.choose)(&snapshots);
        for id in chosen.iter().filter(|id| planned.contains(id)) {
            remove_snapshot(self, *id, request, &lock, &mut report)?;
        }
        Ok(report)
    }

    /// What [`Repository::prune`] would do, by what there is now. Takes no lock and changes nothing.
    ///
    /// # Errors
    /// As [`Repository::prune`], locks aside.
    pub fn prune_estimate(
        &self,
        request: &PruneRequest<'_>,
    ) -> Result<PruneEstimate, RepositoryError> {
        let survey = Survey::take(self, request)?;
        Ok(Plan::make(&survey, &request.options).estimate(&survey))
    }

    /// A lock; on a disk without room for even that, the room of a snapshot that goes anyway.
    ///
    /// Removing a snapshot file without a lock harms nobody: backups and prunes that work at the same time don't
    /// count on one, and readers take one that is gone for one that is gone. Locks that are there are honoured.
    fn lock_or_make_room(
        &self,
        request: &PruneRequest<'_>,
        mode: LockMode,
        report: &mut PruneReport,
    ) -> Result<LockGuard, RepositoryError> {
        let tell = |by: &LockInfo| (request.observer)(PruneEvent::Waiting(Box::new(by.clone())));
        let patience = Patience {
            most: request.options.patience,
            interrupt: &request.options.interrupt,
            waits_for: &tell,
        };
        loop {
            let full = match self.lock_patiently(mode, &request.holder, &request.clock, patience) {
                Err(RepositoryError::Storage(error))
                    if error.kind() == StorageErrorKind::NoSpace =>
                {
                    error
                }
                other => return other,
            };
            self.could_lock(LockMode::Exclusive, &request.holder, (request.clock)())?;
            let (snapshots, _) = self.snapshots()?;
            let Some(id) = (request.choose)(&snapshots).first().copied() else {
                return Err(full.into());
            };
            self.storage().delete(FileKind::Snapshot, &id.to_string())?;
            report.snapshots_removed.push(id);
        }
    }
}

impl PruneOptions {
    fn is_known_damaged(&self, snapshot: &Snapshot) -> bool {
        let tag = self.known_damaged.as_ref();
        tag.is_some_and(|tag| snapshot.tags.contains(tag))
    }
}

/// Removes a file under the exclusive lock. One that is gone already is as good.
pub(crate) fn remove(
    repository: &Repository,
    kind: FileKind,
    name: &str,
    request: &PruneRequest<'_>,
    lock: &LockGuard,
) -> Result<(), RepositoryError> {
    stop_if_interrupted(request)?;
    lock.verify()?;
    match repository.storage().delete(kind, name) {
        Err(error) if error.kind() != StorageErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn remove_snapshot(
    repository: &Repository,
    id: SnapshotId,
    request: &PruneRequest<'_>,
    lock: &LockGuard,
    report: &mut PruneReport,
) -> Result<(), RepositoryError> {
    remove(
        repository,
        FileKind::Snapshot,
        &id.to_string(),
        request,
        lock,
    )?;
    report.snapshots_removed.push(id);
    Ok(())
}

fn stop_if_interrupted(request: &PruneRequest<'_>) -> Result<(), RepositoryError> {
    if request.options.interrupt.load(Ordering::Relaxed) {
        return Err(RepositoryError::Interrupted);
    }
    Ok(())
}

/// Whether a failure only says that the disk is full.
fn is_full(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::Storage(error) if error.kind() == StorageErrorKind::NoSpace)
}
