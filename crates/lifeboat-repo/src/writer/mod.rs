//! The writer: from streams of bytes to a snapshot.
//!
//! Each worker does all of a chunk's work where the bytes arrive: cut, hash, look up, compress, seal, append to
//! the worker's own open pack. There is no queue between the source and the pack, so memory does not depend on
//! the size of what is written: `workers * (pack + two chunks) + (uploaders + 1) * pack`. Only full packs
//! change hands: uploader threads add the header, hash and store them.
//!
//! Invariant: an index file lists only packs that are durable, and the snapshot is written only after the index
//! is durable, and only when every blob it leads to is in one. The first error anywhere ends everything.

mod known;
mod progress;
mod trees;
mod upload;
mod worker;

pub use progress::{Progress, WriteStats};
pub use worker::{FileWriter, WriterWorker};

use crate::chunker::Cutter;
use crate::error::RepositoryError;
use crate::id::{BlobId, SnapshotId};
use crate::index::{Index, IndexQueue};
use crate::pack::{BlobKind, PackBuilder};
use crate::repository::Repository;
use crate::snapshot::{Snapshot, SnapshotSummary};
use crate::storage::FileKind;
pub use crate::tree::{Directory, Entry, FileContent};
use jiff::Timestamp;
use known::Known;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use trees::Totals;
use upload::PackQueue;

/// How to write.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// zstd's level for data. At level 1 compression already takes more time than all other steps together.
    pub compression_level: i32,
    /// A pack is stored when it has grown to this size.
    pub pack_size_bytes: usize,
    /// Threads that store packs. Each holds one pack.
    pub uploaders: usize,
    /// The index of what is stored is written at least this often, so that an interrupted run can be built on.
    pub index_every: Duration,
    /// Set by someone who wants all of it to end: the next push, or the commit, fails with `Interrupted`.
    pub interrupt: Arc<AtomicBool>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            compression_level: 1,
            pack_size_bytes: 16 << 20,
            uploaders: 2,
            index_every: Duration::from_secs(5 * 60),
            interrupt: Arc::default(),
        }
    }
}

/// What a snapshot shall say of itself.
#[derive(Debug, Clone)]
pub struct SnapshotDraft {
    /// The moment it shows.
    pub time: Timestamp,
    /// The snapshot before it, if there is one: what came after what does not depend on clocks then.
    pub parent: Option<SnapshotId>,
    /// The machine.
    pub hostname: String,
    /// The user.
    pub username: String,
    /// What was backed up, as absolute paths.
    pub paths: Vec<String>,
    /// Words attached to it.
    pub tags: Vec<String>,
    /// When the work began and ended; then the file holds a summary.
    pub worked: Option<(Timestamp, Timestamp)>,
    /// What the application has to say of it.
    pub extra: Option<serde_json::Value>,
}

/// What our snapshots say they were written by.
const PROGRAM_VERSION: &str = concat!("lifeboat ", env!("CARGO_PKG_VERSION"));

/// Writes one snapshot. Made by [`Repository::writer`]; the caller holds a lock for as long.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    uploaders: Vec<JoinHandle<()>>,
}

struct Shared {
    repository: Repository,
    options: WriterOptions,
    cutter: Cutter,
    base: Index,
    known: Known,
    packs: PackQueue,
    index: IndexQueue,
    progress: Arc<Progress>,
    /// Open packs of workers that have finished.
    partial: Mutex<Vec<PackBuilder>>,
    workers: AtomicUsize,
    failed: AtomicBool,
    failure: Mutex<Option<Arc<RepositoryError>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Fails once something has failed, or when the interrupt flag is set.
    fn check(&self) -> Result<(), RepositoryError> {
        if self.failed.load(Ordering::Acquire) {
            let failure = self
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            return Err(failure.map_or(RepositoryError::Interrupted, RepositoryError::Poisoned));
        }
        if self.options.interrupt.load(Ordering::Relaxed) {
            return Err(RepositoryError::Interrupted);
        }
        Ok(())
    }

    /// Ends everything: from here on every push and the commit fail. Returns the first error.
    fn fail(&self, error: RepositoryError) -> RepositoryError {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let first = failure.get_or_insert_with(|| Arc::new(error)).clone();
        drop(failure);
        self.failed.store(true, Ordering::Release);
        self.packs.discard();
        RepositoryError::Poisoned(first)
    }

    fn take_partial(&self) -> Option<PackBuilder> {
        self.partial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    /// Hands a full pack to the uploaders; waits while they are behind.
    fn submit(&self, pack: PackBuilder) -> Result<(), RepositoryError> {
        if self.packs.push(pack) {
            Ok(())
        } else {
            Err(self.closed())
        }
    }

    fn closed(&self) -> RepositoryError {
        self.check().err().unwrap_or(RepositoryError::Interrupted)
    }

    fn new_pack(&self, kind: BlobKind) -> PackBuilder {
        let room = self.options.pack_size_bytes + 2 * self.cutter.sizes().max as usize;
        let buffer = self
            .packs
            .recycled()
            .unwrap_or_else(|| Vec::with_capacity(room));
        PackBuilder::new(kind, buffer)
    }

    fn compressor(&self, level: i32) -> Result<zstd::bulk::Compressor<'static>, RepositoryError> {
        let mut compressor = zstd::bulk::Compressor::new(level).map_err(encode)?;
        // restic finds the length in its own header, and the hash is the checksum.
        compressor.include_checksum(false).map_err(encode)?;
        Ok(compressor)
    }
}

fn encode(error: impl ToString) -> RepositoryError {
    RepositoryError::Encode {
        what: error.to_string(),
    }
}

impl Repository {
    /// Starts to write a snapshot: loads the index and starts the uploaders. The caller holds a lock until the
    /// writer is committed, abandoned or dropped.
    ///
    /// Blobs whose pack is gone or too short count as not stored, and are stored again: a backup does not build
    /// on what `check` would call damaged.
    ///
    /// # Errors
    /// When the index can't be read, or no thread be started.
    pub fn writer(&self, options: WriterOptions) -> Result<Writer, RepositoryError> {
        let index = self.load_index()?;
        let lost = self.lost_packs(&index)?;
        let shared = Arc::new(Shared {
            cutter: Cutter::new(self.chunk_sizes(), self.polynomial()),
            base: index.without_packs(&lost),
            known: Known::default(),
            packs: PackQueue::default(),
            index: IndexQueue::new(options.index_every),
            progress: Arc::default(),
            partial: Mutex::default(),
            workers: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            repository: self.clone(),
            options,
        });
        let mut writer = Writer {
            shared,
            uploaders: Vec::new(),
        };
        for number in 0..writer.shared.options.uploaders.max(1) {
            let shared = Arc::clone(&writer.shared);
            let thread = std::thread::Builder::new().name(format!("uploader {number}"));
            let thread = thread.spawn(move || upload::run(&shared)).map_err(encode)?;
            writer.uploaders.push(thread);
        }
        Ok(writer)
    }

    /// The numbers of the packs that are not there as the index says.
    pub(crate) fn lost_packs(&self, index: &Index) -> Result<HashSet<u32>, RepositoryError> {
        let mut ends = vec![0u64; index.packs().len()];
        for (pack, blob) in index.iter() {
            let end = &mut ends[pack as usize];
            *end = (*end).max(u64::from(blob.offset) + u64::from(blob.length));
        }
        let files = self.storage().list(FileKind::Pack)?;
        let sizes: HashMap<String, u64> = files
            .into_iter()
            .map(|file| (file.name, file.size_bytes))
            .collect();
        let is_lost = |pack: &crate::id::PackId, end: u64| {
            sizes.get(&pack.to_string()).is_none_or(|&size| size <= end)
        };
        let packs = index.packs().iter().zip(ends).zip(0u32..);
        Ok(packs
            .filter(|((pack, end), _)| is_lost(pack, *end))
            .map(|(_, number)| number)
            .collect())
    }
}

impl Writer {
    /// A worker for one thread. Any number may exist at once; all have to finish before the commit.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn worker(&self) -> Result<WriterWorker, RepositoryError> {
        WriterWorker::new(Arc::clone(&self.shared))
    }

    /// What has been done so far; stays valid after the writer is gone.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.shared.progress)
    }

    /// Writes what is missing: trees, the last packs, the index, and then the snapshot. When it returns `Ok` the
    /// snapshot is durable; with an error there is none.
    ///
    /// # Errors
    /// The first error of any part; `WorkersUnfinished` while a worker lives; `MissingBlob` for a file with a
    /// chunk that nobody stored; `Interrupted`.
    pub fn commit(
        mut self,
        root: &Directory,
        draft: SnapshotDraft,
    ) -> Result<(Snapshot, WriteStats), RepositoryError> {
        let result = self.try_commit(root, draft);
        if result.is_err() {
            // The work is lost as a snapshot, but not as blobs: what is durable gets indexed for the next run.
            // Should that fail too, the first error is the one to know.
            let _ = self.keep();
        }
        result
    }

    fn try_commit(
        &mut self,
        root: &Directory,
        draft: SnapshotDraft,
    ) -> Result<(Snapshot, WriteStats), RepositoryError> {
        self.shared.check()?;
        let count = self.shared.workers.load(Ordering::Acquire);
        if count > 0 {
            return Err(RepositoryError::WorkersUnfinished { count });
        }
        let (tree, totals) = trees::store(root, &self.shared)?;
        self.flush_partial()?;
        self.join_uploaders();
        self.shared.check()?;
        self.flush_index()?;
        // The last moment at which an interrupt leaves no snapshot behind.
        self.shared.check()?;
        self.store_snapshot(tree, totals, draft)
    }

    fn store_snapshot(
        &self,
        tree: BlobId,
        totals: Totals,
        draft: SnapshotDraft,
    ) -> Result<(Snapshot, WriteStats), RepositoryError> {
        let progress = &self.shared.progress;
        let stats = progress.stats();
        let summary = draft
            .worked
            .map(|(backup_start, backup_end)| SnapshotSummary {
                backup_start,
                backup_end,
                files_new: totals.files,
                files_changed: 0,
                files_unmodified: 0,
                dirs_new: totals.directories,
                dirs_changed: 0,
                dirs_unmodified: 0,
                data_blobs: stats.data_blobs_new,
                tree_blobs: stats.tree_blobs_new,
                data_added: stats.data_bytes_new + stats.tree_bytes_new,
                data_added_packed: stats.data_bytes_sealed + stats.tree_bytes_sealed,
                total_files_processed: totals.files,
                total_bytes_processed: totals.bytes,
            });
        let mut snapshot = Snapshot {
            id: SnapshotId::from_bytes([0; 32]),
            time: draft.time,
            parent: draft.parent,
            tree,
            paths: draft.paths,
            hostname: draft.hostname,
            username: draft.username,
            uid: 0,
            gid: 0,
            excludes: Vec::new(),
            tags: draft.tags,
            original: None,
            program_version: PROGRAM_VERSION.to_owned(),
            summary,
            extra: draft.extra,
        };
        let json = serde_json::to_vec(&snapshot).map_err(encode)?;
        let (hash, size) = self
            .shared
            .repository
            .store_file(FileKind::Snapshot, &json)?;
        snapshot.id = SnapshotId::from_bytes(hash);
        progress.bytes_stored.fetch_add(size, Ordering::Relaxed);
        Ok((snapshot, progress.stats()))
    }

    /// Gives up, but keeps the packs that are stored, and the full blobs of finished workers: they are indexed,
    /// and the next run finds what this one stored. No snapshot is written.
    ///
    /// # Errors
    /// When the index can't be written; packs that no index lists do no harm, and are found by no one.
    pub fn abandon(mut self) -> Result<WriteStats, RepositoryError> {
        self.keep()?;
        Ok(self.shared.progress.stats())
    }

    fn keep(&mut self) -> Result<(), RepositoryError> {
        if !self.shared.failed.load(Ordering::Acquire) {
            self.flush_partial()?;
        }
        self.join_uploaders();
        self.flush_index()
    }

    fn flush_index(&self) -> Result<(), RepositoryError> {
        let written = self.shared.index.flush(&self.shared.repository)?;
        self.shared.progress.note_index(written);
        Ok(())
    }

    /// Sends off what finished workers left, put together to packs as large as wanted.
    fn flush_partial(&self) -> Result<(), RepositoryError> {
        let mut open: Option<PackBuilder> = None;
        while let Some(pack) = self.shared.take_partial() {
            open = match open {
                None => Some(pack),
                Some(mut open) => {
                    let buffer = open.absorb(pack).map_err(encode)?;
                    self.shared.packs.recycle(buffer);
                    Some(open)
                }
            };
            if open
                .as_ref()
                .is_some_and(|pack| pack.is_full(self.shared.options.pack_size_bytes))
            {
                open.take()
                    .map_or(Ok(()), |pack| self.shared.submit(pack))?;
            }
        }
        open.map_or(Ok(()), |pack| self.shared.submit(pack))
    }

    fn join_uploaders(&mut self) {
        self.shared.packs.close();
        for thread in self.uploaders.drain(..) {
            // One that panicked has ended the writer already.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody commits any more: what is queued is not worth storing, what is being stored ends by itself.
        self.shared.packs.discard();
        self.join_uploaders();
    }
}

#[cfg(test)]
pub(crate) mod tests;
