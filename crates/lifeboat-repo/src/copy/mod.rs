//! Copying snapshots from one repository into another.
//!
//! Where both have the same master key, sealed packs move as they are: a pack of which every blob is wanted goes
//! over whole, and of a pack that is partly wanted the sealed blobs go into new packs, unopened but for the check.
//! The snapshot file moves as it is, too, so a backup has the same identity everywhere. Where the keys differ,
//! each blob is opened, proven and sealed anew, still compressed, and the new snapshot file says in `original`
//! which one it was; so does restic's own `copy`.
//!
//! Invariants. Nothing is written that was not proven before: a pack by its hash and its header, a blob by its
//! code and its hash. So damage in the source stays there; it costs the snapshots that need what was damaged,
//! and no other. The order is the writer's: packs, then the index that lists them, then the snapshots that need
//! them, each durable before the next. A copy that was cut is taken up where it was: packs that are there and
//! that no index lists are taken over by their headers.
//!
//! Memory is bounded by construction: `jobs * (a pack or a window of one) + two packs`, the two indexes, and 12
//! bytes for each blob that moves.

pub(crate) mod adopt;
mod moving;
pub(crate) mod output;
mod plan;

use crate::error::RepositoryError;
use crate::id::{PackId, SnapshotId};
use crate::lock::{LockError, LockGuard};
use crate::repository::{Repository, read_bounded};
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, StorageErrorKind};
use moving::Moving;
use output::Output;
use plan::{Batch, Plan};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// A pack that is put together of blobs is closed at this size.
    pub pack_size_bytes: usize,
    /// Packs that are under way at once; each is in memory.
    pub jobs: usize,
    /// The index of what is there is written at least this often.
    pub index_every: Duration,
    /// Set to stop: the copy then ends with [`RepositoryError::Interrupted`]. What is there is found again.
    pub interrupt: Arc<AtomicBool>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            pack_size_bytes: 16 << 20,
            jobs: 4,
            index_every: Duration::from_secs(5 * 60),
            interrupt: Arc::default(),
        }
    }
}

/// What to copy, and under which locks.
pub struct CopyRequest<'a> {
    /// How.
    pub options: CopyOptions,
    /// The snapshots of the source that the destination lacks, the most wanted first: they become whole there in
    /// this order.
    pub snapshots: &'a [Snapshot],
    /// Shared, on the source: nobody removes what is read.
    pub source_lock: &'a LockGuard,
    /// Shared, on the destination: nobody removes what is counted on.
    pub destination_lock: &'a LockGuard,
    /// Told how far it has come, from several threads.
    pub progress: &'a (dyn Fn(CopyProgress) + Sync),
}

impl std::fmt::Debug for CopyRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyRequest")
            .field("options", &self.options)
            .field("snapshots", &self.snapshots.len())
            .finish_non_exhaustive()
    }
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Packs of the source that are done with.
    pub packs_done: u64,
    /// Packs of the source that something is wanted of.
    pub packs_total: u64,
    /// Bytes of them that were read and stored.
    pub bytes_done: u64,
    /// Bytes to read and store.
    pub bytes_total: u64,
}

/// What a copy would move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyEstimate {
    /// Packs of the source that something is wanted of.
    pub packs: u64,
    /// About so many bytes.
    pub bytes: u64,
    /// Snapshots that can't be copied, as far as that can be told without reading their data.
    pub damaged: Vec<Uncopied>,
}

/// A snapshot that can't be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncopied {
    /// The snapshot in the source.
    pub id: SnapshotId,
    /// What is damaged.
    pub what: String,
}

/// What a copy did. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// The snapshots that are whole in the destination now: as the source names them, and as the destination does.
    pub copied: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshots that were not copied because something that they need is damaged.
    pub damaged: Vec<Uncopied>,
    /// Packs of the source that were found damaged, and what is wrong with each.
    pub damaged_packs: Vec<(PackId, String)>,
    /// Packs that moved as they are.
    pub packs_moved: u64,
    /// Packs that were put together of blobs.
    pub packs_written: u64,
    /// Packs that a copy or a backup that was cut had left there, and that were taken over.
    pub packs_adopted: u64,
    /// Index files written.
    pub index_files: u64,
    /// All that was written: packs, index files, snapshot files.
    pub bytes_written: u64,
}

impl Repository {
    /// What [`Repository::copy_to`] would move. Reads trees, and writes nothing.
    ///
    /// # Errors
    /// As [`Repository::copy_to`].
    pub fn copy_estimate(
        &self,
        destination: &Self,
        snapshots: &[Snapshot],
        interrupt: &AtomicBool,
    ) -> Result<CopyEstimate, RepositoryError> {
        let plan = Plan::make(self, destination, snapshots, interrupt)?;
        Ok(CopyEstimate {
            packs: plan.tasks.len() as u64,
            bytes: plan.bytes(),
            damaged: plan.unreadable(snapshots),
        })
    }

    /// Copies snapshots to `destination`, with all that they need and that is not there. Damage in the source
    /// costs the snapshots that need what is damaged, which are named in the report; the others are copied.
    ///
    /// # Errors
    /// Whatever says nothing about the content: the destination or the source can't be reached, a lock was lost,
    /// `Interrupted`. Snapshots whose files were written by then are whole.
    pub fn copy_to(
        &self,
        destination: &Self,
        request: &CopyRequest<'_>,
    ) -> Result<CopyReport, RepositoryError> {
        let interrupt = &request.options.interrupt;
        let plan = Plan::make(self, destination, request.snapshots, interrupt)?;
        let output = Output::new(destination, &request.options);
        let mut report = CopyReport {
            damaged: plan.unreadable(request.snapshots),
            packs_adopted: plan.adopted.len() as u64,
            ..CopyReport::default()
        };
        let result = self.carry_out(plan, request, &output, &mut report);
        if result.is_err() {
            // What is durable gets indexed, so that the next run finds it without looking into every pack. Should
            // that fail too, the first error is the one to know. Without the lock somebody may have removed the
            // packs: an index that names them would be damage. By the clocks alone, since after an interrupt a
            // place on the network answers nobody.
            if request.destination_lock.check().is_ok() {
                let _ = output.flush_index();
            }
        }
        result?;
        output.account(&mut report);
        Ok(report)
    }

    fn carry_out(
        &self,
        mut plan: Plan,
        request: &CopyRequest<'_>,
        output: &Output<'_>,
        report: &mut CopyReport,
    ) -> Result<(), RepositoryError> {
        for (id, blobs) in std::mem::take(&mut plan.adopted) {
            output.list(id, blobs)?;
        }
        let mut moving = Moving::new(self, &plan, output, request);
        for batch in &plan.batches {
            moving.run(&plan.tasks[batch.tasks.clone()])?;
            output.flush(request.destination_lock)?;
            // Someone who took it for stale may have removed packs that then seem to be missing.
            request.source_lock.verify()?;
            self.commit(&plan, &moving, batch, request, output, report)?;
        }
        report.damaged_packs = moving.damaged_packs();
        Ok(())
    }

    /// Writes the snapshots of a batch, whose blobs are all there and indexed.
    fn commit(
        &self,
        plan: &Plan,
        moving: &Moving<'_>,
        batch: &Batch,
        request: &CopyRequest<'_>,
        output: &Output<'_>,
        report: &mut CopyReport,
    ) -> Result<(), RepositoryError> {
        let before = report.copied.len();
        let result = self.write_snapshots(plan, moving, batch, request, output, report);
        // Also when that ended early: what is written by then stands, and has to be whole.
        settle(&report.copied[before..], request, output)?;
        result
    }

    /// Writes what [`Repository::commit`] settles then; what was written is in the report, also after an error.
    fn write_snapshots(
        &self,
        plan: &Plan,
        moving: &Moving<'_>,
        batch: &Batch,
        request: &CopyRequest<'_>,
        output: &Output<'_>,
        report: &mut CopyReport,
    ) -> Result<(), RepositoryError> {
        for at in batch.snapshots.clone() {
            let Some(snapshot) = request.snapshots.get(at) else {
                continue;
            };
            if plan.unreadable.contains_key(&at) {
                continue;
            }
            if let Some(what) = moving.what_is_lost(snapshot)? {
                report.damaged.push(Uncopied {
                    id: snapshot.id,
                    what,
                });
                continue;
            }
            stop_if(&request.options.interrupt)?;
            // A lock that somebody took for stale and removed no longer protects what is counted on.
            request.destination_lock.verify()?;
            match self.copy_snapshot_file(snapshot, output) {
                Ok(id) => report.copied.push((snapshot.id, id)),
                Err(RepositoryError::Damaged { kind, name, what }) => {
                    let what = format!("{kind} {name} is damaged: {what}");
                    let id = snapshot.id;
                    report.damaged.push(Uncopied { id, what });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn copy_snapshot_file(
        &self,
        snapshot: &Snapshot,
        output: &Output<'_>,
    ) -> Result<SnapshotId, RepositoryError> {
        let destination = output.destination;
        let name = snapshot.id.to_string();
        let content = read_bounded(self.storage().as_ref(), FileKind::Snapshot, &name)?;
        // Hashed against its name, and opened: what arrives is what was written once.
        let json = self.open_file(FileKind::Snapshot, &name, content.clone())?;
        if !self.shares_keys_with(destination) {
            let json = with_original(&json, snapshot)?;
            let (hash, size) = destination.store_file(FileKind::Snapshot, &json)?;
            output.count_bytes(size);
            return Ok(SnapshotId::from_bytes(hash));
        }
        match destination
            .storage()
            .write(FileKind::Snapshot, &name, &content)
        {
            Ok(()) => output.count_bytes(content.len() as u64),
            Err(error) if error.kind() == StorageErrorKind::AlreadyExists => {
                if read_bounded(destination.storage().as_ref(), FileKind::Snapshot, &name)?
                    != content
                {
                    let what = format_args!("in {}", destination.location());
                    return Err(RepositoryError::damaged(FileKind::Snapshot, name, what));
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(snapshot.id)
    }
}

/// Sees to it that of the snapshots `written` none stands that is not whole: when the lock was lost meanwhile,
/// somebody may have removed what they count on before they were there to be seen.
///
/// # Errors
/// When one was not whole and was removed, or none can say whether it is.
fn settle(
    written: &[(SnapshotId, SnapshotId)],
    request: &CopyRequest<'_>,
    output: &Output<'_>,
) -> Result<(), RepositoryError> {
    if written.is_empty() {
        return Ok(());
    }
    let lost = match request.destination_lock.verify() {
        Ok(()) => return Ok(()),
        // Nobody can be asked, after an interrupt for instance. By the clocks the lock is in force or it is not.
        Err(LockError::Storage(error)) if !error.is_permanent() => {
            match request.destination_lock.check() {
                Ok(()) => return Ok(()),
                Err(lost) => lost,
            }
        }
        Err(lost) => lost,
    };
    let mut result = Ok(());
    for (_, id) in written {
        let stands = output.destination.remove_unless_whole(
            *id,
            request.destination_lock,
            &request.options.interrupt,
        );
        // Each is judged, whatever became of another. The first failure is the one to know.
        match stands {
            Ok(true) => {}
            Ok(false) if result.is_ok() => result = Err(None),
            Err(error) if result.is_ok() => result = Err(Some(error)),
            _ => {}
        }
    }
    result.map_err(|error| error.unwrap_or_else(|| lost.into()))
}

/// The snapshot's document, which says of which snapshot it is a copy. All else stays, also what we don't know.
pub(crate) fn with_original(json: &[u8], snapshot: &Snapshot) -> Result<Vec<u8>, RepositoryError> {
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(json).map_err(encode)?;
    let original = snapshot.original.unwrap_or(snapshot.id);
    document.insert("original".to_owned(), original.to_string().into());
    serde_json::to_vec(&document).map_err(encode)
}

fn stop_if(interrupt: &AtomicBool) -> Result<(), RepositoryError> {
    if interrupt.load(Ordering::Relaxed) {
        return Err(RepositoryError::Interrupted);
    }
    Ok(())
}

fn encode(error: impl ToString) -> RepositoryError {
    RepositoryError::Encode {
        what: error.to_string(),
    }
}
