//! Repairing: what is damaged is replaced by good copies, from here or from other repositories; what is lost is
//! named.
//!
//! Two phases, as in `prune`. The first works beside backups, under a shared lock: it reads everything (`check`),
//! looks into each file that is damaged for what is still good (`survey`), finds out what the snapshots need of the
//! rest (`needs`), and writes that anew (`mend`): packs, then the index that lists them, then snapshot files. All
//! it does is to add. The second (`replace`) takes the exclusive lock, reads the index again, and only then takes
//! damaged packs out of it and removes damaged files.
//!
//! Invariants. What could be read before can be read at every moment: a damaged pack is removed only after all
//! that is good in it lies in another one that an index file lists. Nothing counts as good that was not opened and
//! hashed, wherever it came from: identities are hashes of plaintext, so that a blob of any repository is as good
//! as our own. A file is given up, with data that a snapshot needs and that was found nowhere, only when the caller
//! says so. A failure that says nothing about the content (no permission, no network) ends the repair: it must never
//! be taken for damage.
//!
//! Memory: the index of each repository, two packs, and some 200 bytes for each blob of a damaged pack.

mod examine;
mod losses;
mod mend;
mod needs;
mod replace;
mod survey;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::check::reading::Reading;
use crate::check::{CheckOptions, CheckProgress, CheckScope, Finding};
use crate::error::RepositoryError;
use crate::id::{BlobId, PackId, SnapshotId};
use crate::lock::{Clock, LockGuard, LockHolder, LockInfo, LockMode, Patience};
use crate::pack::BlobKind;
use crate::reader::Reader;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, StorageErrorKind};

pub use losses::{Loss, LostPath};

use needs::Needs;
use replace::Removing;
use survey::Survey;

/// How to repair.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// Threads that read packs.
    pub jobs: usize,
    /// A pack that is put together of blobs is closed at this size.
    pub pack_size_bytes: usize,
    /// How long to wait for the locks of others: before, and again before anything is removed.
    pub patience: Duration,
    /// Set to stop. What was done by then stays done, and the next run goes on from there.
    pub interrupt: Arc<AtomicBool>,
}

/// What is done with what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Nothing,
    /// All that loses nothing: files with data that is needed and was found nowhere stay.
    Mend,
    /// Those are given up, too, so that the next backup stores anew what it still has of them.
    MendAndGiveUp,
}

/// A repository to take good copies from. Nothing is written to it but the caller's lock.
#[derive(Debug)]
pub struct Source<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Shared, so that nobody removes what is read.
    pub lock: &'a LockGuard,
}

/// Who repairs, with what, and who is told.
pub struct RepairRequest<'a> {
    /// How.
    pub options: RepairOptions,
    /// For the locks.
    pub holder: LockHolder,
    /// For the locks.
    pub clock: Clock,
    /// Other repositories, the one to be asked first first.
    pub sources: &'a [Source<'a>],
    /// Which packs are read.
    pub reading: &'a dyn Reading,
    /// Asked once, when it is known what is damaged and before anything is changed.
    pub decide: &'a dyn Fn(&RepairPlan) -> Decision,
    /// Told what happens, from several threads.
    pub observer: &'a (dyn Fn(RepairEvent) + Sync),
}

impl std::fmt::Debug for RepairRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepairRequest")
            .field("options", &self.options)
            .field("holder", &self.holder)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// What happens while repairing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairEvent {
    /// Someone else's lock is in the way, and is waited for.
    Waiting(Box<LockInfo>),
    /// Everything is read.
    Checking(CheckProgress),
    /// Files that are damaged are looked into, and other repositories.
    Examining,
    /// Good copies are written.
    Mending,
    /// Damaged files are removed; others have to wait from here on.
    Removing,
}

/// A damaged pack, and what there is of each of its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackPlan {
    /// The pack.
    pub id: PackId,
    /// Blobs that the index, or its own header, says are in it.
    pub blobs: u64,
    /// Blobs that are good in it, or in another pack of this repository.
    pub here: u64,
    /// Blobs that other repositories have, by the number of the source; of a pack that is brought as it was, all.
    pub elsewhere: BTreeMap<usize, u64>,
    /// Whether it is brought as it was.
    pub is_brought_whole: bool,
    /// Blobs that a snapshot needs and that nobody has.
    pub lost: u64,
}

/// What is damaged, and what would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// What is wrong, as the check has it.
    pub findings: Vec<Finding>,
    /// What seemed to be wrong, and was right when it was read again: memory, cables and controllers fail, too.
    pub misread: Vec<Finding>,
    /// Lock files that could not be read and that nobody held any more: they are gone.
    pub locks_removed: Vec<String>,
    /// Bytes of packs that were read.
    pub bytes_read: u64,
    /// Of each damaged pack.
    pub packs: Vec<PackPlan>,
    /// Packs that no index lists any more and whose headers tell what is in them.
    pub packs_to_list: u64,
    /// Blobs that a snapshot needs and that are in no pack that an index lists, by where they were found.
    pub unlisted_found: BTreeMap<usize, u64>,
    /// Snapshot files that do not open, with the source that has them.
    pub snapshots_found: BTreeMap<SnapshotId, usize>,
    /// Snapshot files that do not open and that no source has.
    pub snapshots_lost: Vec<String>,
    /// What snapshots have lost for good, oldest first.
    pub losses: Vec<Loss>,
    /// Sources that could not be used, by their number, and why.
    pub unusable: BTreeMap<usize, String>,
    /// Whether something has to be removed, and may be.
    pub may_remove: bool,
}

impl RepairPlan {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether there are files whose removal gives up data that a snapshot needs and that nobody has. What is in no
    /// file and no index any more was given up before.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        self.packs.iter().any(|pack| pack.lost > 0) || !self.snapshots_lost.is_empty()
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairDone {
    /// Packs brought as they were.
    pub packs_brought: u64,
    /// Packs written with blobs of damaged ones and of other repositories.
    pub packs_written: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Blobs taken out of damaged packs.
    pub blobs_kept: u64,
    /// Blobs from other repositories, by the number of the source.
    pub blobs_brought: BTreeMap<usize, u64>,
    /// Packs that are in the index again.
    pub packs_listed: u64,
    /// Damaged packs that are gone.
    pub packs_removed: u64,
    /// Index files that could not be read and are gone.
    pub index_files_removed: u64,
    /// Snapshots that can be read again: the file that was damaged, and the one that is there now.
    pub snapshots_restored: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshot files that did not open and are gone.
    pub snapshots_removed: Vec<String>,
    /// Damaged files that are still there.
    pub left: Vec<Finding>,
    /// What snapshots lack now, oldest first.
    pub losses: Vec<Loss>,
    /// Whether there was too little room to take damaged packs out of the index.
    pub short_of_room: bool,
}

impl RepairDone {
    /// Whether all is well now.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.left.is_empty() && self.losses.is_empty() && self.snapshots_removed.is_empty()
    }
}

/// What was found and, unless nothing was to be done, what was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was found.
    pub plan: RepairPlan,
    /// What was done.
    pub done: Option<RepairDone>,
}

impl Repository {
    /// Finds what is damaged, asks `request.decide` and repairs.
    ///
    /// # Errors
    /// Whatever says nothing about the content: a place can't be reached or refuses us, a lock was lost, `Locked`,
    /// `Interrupted`. What was done by then stays done.
    pub fn repair(&self, request: &RepairRequest<'_>) -> Result<RepairReport, RepositoryError> {
        let locks_removed = self.remove_unreadable_locks((request.clock)())?;
        let lock = wait_for(self, request, LockMode::Shared)?;
        let options = CheckOptions {
            read_data: true,
            jobs: request.options.jobs,
            packs_of: None,
            interrupt: Arc::clone(&request.options.interrupt),
        };
        let check = self.check_reading(
            CheckScope::Everything,
            &options,
            request.reading,
            &|progress| (request.observer)(RepairEvent::Checking(progress)),
        )?;
        if !check.is_clean() {
            (request.observer)(RepairEvent::Examining);
        }
        let bytes_read = check.bytes_read;
        let survey = Survey::take(self, check, &request.options.interrupt)?;
        let (sources, unusable) = open_sources(request, &survey)?;
        let needs = Needs::find(&survey, &sources, &request.options.interrupt)?;
        let mut plan = needs.plan(&survey, &sources);
        if !needs.lost.is_empty() {
            plan.losses = losses::find(
                &survey.view,
                &survey.and_found(&needs.snapshots),
                &sources,
                &request.options.interrupt,
            )?;
        }
        plan.unusable = unusable;
        plan.bytes_read = bytes_read;
        plan.locks_removed = locks_removed;
        plan.may_remove = self.storage().may_delete();
        let decision = if plan.is_clean() {
            Decision::Nothing
        } else {
            (request.decide)(&plan)
        };
        if decision == Decision::Nothing {
            return Ok(RepairReport { plan, done: None });
        }
        (request.observer)(RepairEvent::Mending);
        let mut done = RepairDone::default();
        let mended = mend::mend(&survey, &needs, &sources, request, &lock, &mut done)?;
        drop(lock);
        let removing = Removing {
            survey: &survey,
            needs: &needs,
            mended: &mended,
            gives_up: decision == Decision::MendAndGiveUp,
        };
        removing.run(request, &mut done)?;
        Ok(RepairReport {
            plan,
            done: Some(done),
        })
    }
}

/// A source that can be asked.
struct OpenSource<'a> {
    /// Its number in the request.
    number: usize,
    repository: &'a Repository,
    lock: &'a LockGuard,
    reader: Reader,
    /// Its snapshots, if any were asked for.
    snapshots: Vec<Snapshot>,
    shares_keys: bool,
}

/// Those that can be read; and why the others cannot. With nothing to ask for, none.
fn open_sources<'a>(
    request: &RepairRequest<'a>,
    survey: &Survey<'_>,
) -> Result<(Vec<OpenSource<'a>>, BTreeMap<usize, String>), RepositoryError> {
    let (mut sources, mut unusable) = (Vec::new(), BTreeMap::new());
    if survey.findings.is_empty() {
        return Ok((sources, unusable));
    }
    for (number, source) in request.sources.iter().enumerate() {
        stop_if(&request.options.interrupt)?;
        let repository = source.repository;
        let opened = repository.snapshots().and_then(|(snapshots, _)| {
            let reader = repository.reader()?;
            Ok((snapshots, reader))
        });
        match opened {
            Ok((snapshots, reader)) => sources.push(OpenSource {
                number,
                repository,
                lock: source.lock,
                reader,
                snapshots,
                shares_keys: repository.shares_keys_with(survey.view.repository),
            }),
            Err(RepositoryError::Interrupted) => return Err(RepositoryError::Interrupted),
            Err(error) => drop(unusable.insert(number, error.to_string())),
        }
    }
    Ok((sources, unusable))
}

fn wait_for(
    repository: &Repository,
    request: &RepairRequest<'_>,
    mode: LockMode,
) -> Result<LockGuard, RepositoryError> {
    let tell = |by: &LockInfo| (request.observer)(RepairEvent::Waiting(Box::new(by.clone())));
    let patience = Patience {
        most: request.options.patience,
        interrupt: &request.options.interrupt,
        waits_for: &tell,
    };
    repository.lock_patiently(mode, &request.holder, &request.clock, patience)
}

/// A blob, as it is asked for.
type Wanted = (BlobKind, BlobId);

fn stop_if(interrupt: &AtomicBool) -> Result<(), RepositoryError> {
    if interrupt.load(Ordering::Relaxed) {
        return Err(RepositoryError::Interrupted);
    }
    Ok(())
}

/// `None` when a failure says that the content is not there, or not what it should be. Whatever says that we may
/// not look, or could not just now, stays an error.
fn unless_damaged<T>(result: Result<T, RepositoryError>) -> Result<Option<T>, RepositoryError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(RepositoryError::Damaged { .. } | RepositoryError::MissingBlob { .. }) => Ok(None),
        Err(RepositoryError::Storage(error)) => {
            let is_content = matches!(
                error.kind(),
                StorageErrorKind::NotFound | StorageErrorKind::TooShort | StorageErrorKind::Other
            );
            if is_content {
                Ok(None)
            } else {
                Err(error.into())
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether a file can be looked at, be it damaged or not.
fn require_access(
    repository: &Repository,
    kind: FileKind,
    name: &str,
) -> Result<(), RepositoryError> {
    let read = repository.storage().read_range(kind, name, 0, 1);
    unless_damaged(read.map_err(RepositoryError::from)).map(|_| ())
}

fn encode(error: impl ToString) -> RepositoryError {
    RepositoryError::Encode {
        what: error.to_string(),
    }
}
