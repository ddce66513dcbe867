//! What goes into the destination: packs, and the index that lists them.

use super::{CopyOptions, CopyReport, encode};
use crate::error::RepositoryError;
use crate::id::PackId;
use crate::index::IndexQueue;
use crate::lock::LockGuard;
use crate::pack::{BlobKind, PackBuilder, PackError, PackedBlob};
use crate::repository::Repository;
use crate::seal::{Nonces, Sealer};
use crate::storage::{FileKind, StorageErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The destination, as the threads that bring packs see it.
pub(crate) struct Output<'a> {
    pub(crate) destination: &'a Repository,
    pack_size_bytes: usize,
    open: Mutex<Open>,
    index: IndexQueue,
    packs_moved: AtomicU64,
    packs_written: AtomicU64,
    index_files: AtomicU64,
    bytes: AtomicU64,
}

/// The packs that grow: of data, of trees. One of each for all threads, so that memory does not grow with them.
#[derive(Default)]
struct Open {
    packs: [Option<PackBuilder>; 2],
    nonces: Nonces,
}

impl<'a> Output<'a> {
    pub(crate) fn new(destination: &'a Repository, options: &CopyOptions) -> Self {
        Self {
            destination,
            pack_size_bytes: options.pack_size_bytes,
            open: Mutex::default(),
            index: IndexQueue::new(options.index_every),
            packs_moved: AtomicU64::new(0),
            packs_written: AtomicU64::new(0),
            index_files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a pack that is there.
    pub(crate) fn list(&self, id: PackId, blobs: Vec<PackedBlob>) -> Result<(), RepositoryError> {
        let written = self.index.add(id, blobs, self.destination)?;
        self.note_index(written);
        Ok(())
    }

    /// Stores a pack as it is. The caller has proven it.
    pub(crate) fn store_whole(
        &self,
        id: PackId,
        bytes: &[u8],
        blobs: Vec<PackedBlob>,
    ) -> Result<(), RepositoryError> {
        let storage = self.destination.storage();
        let name = id.to_string();
        match storage.write(FileKind::Pack, &name, bytes) {
            Ok(()) => {
                self.packs_moved.fetch_add(1, Ordering::Relaxed);
                self.count_bytes(bytes.len() as u64);
            }
            // Another copy has brought it meanwhile: by its name it is the same.
            Err(error)
                if error.kind() == StorageErrorKind::AlreadyExists
                    && storage.size(FileKind::Pack, &name)? == bytes.len() as u64 => {}
            Err(error) => return Err(error.into()),
        }
        self.list(id, blobs)
    }

    /// Appends a blob to the pack that grows, by `add`. Stores the pack when it is full.
    pub(crate) fn append(
        &self,
        kind: BlobKind,
        add: impl FnOnce(&mut PackBuilder, &Sealer, &mut Nonces) -> Result<(), PackError>,
    ) -> Result<(), RepositoryError> {
        let full = {
            let mut open = self.open();
            let Open { packs, nonces } = &mut *open;
            let slot = &mut packs[usize::from(kind == BlobKind::Tree)];
            let pack = slot.get_or_insert_with(|| PackBuilder::new(kind, Vec::new()));
            add(pack, self.destination.sealer(), nonces).map_err(encode)?;
            if pack.is_full(self.pack_size_bytes) {
                slot.take()
            } else {
                None
            }
        };
        // Outside of the lock: others go on with the next pack while this one travels.
        full.map_or(Ok(()), |pack| self.store(pack))
    }

    fn store(&self, pack: PackBuilder) -> Result<(), RepositoryError> {
        let pack = pack
            .finish(self.destination.sealer(), &mut Nonces::default())
            .map_err(encode)?;
        let storage = self.destination.storage();
        storage.write(FileKind::Pack, &pack.id.to_string(), &pack.bytes)?;
        self.packs_written.fetch_add(1, Ordering::Relaxed);
        self.count_bytes(pack.bytes.len() as u64);
        self.list(pack.id, pack.blobs)
    }

    /// Stores the packs that grow, and lists all that is not listed. Afterwards everything that was appended is
    /// durable and indexed.
    pub(crate) fn flush(&self, lock: &LockGuard) -> Result<(), RepositoryError> {
        let packs = std::mem::take(&mut self.open().packs);
        for pack in packs.into_iter().flatten() {
            self.store(pack)?;
        }
        lock.verify()?;
        self.flush_index()
    }

    /// Lists what is stored and not listed.
    pub(crate) fn flush_index(&self) -> Result<(), RepositoryError> {
        let written = self.index.flush(self.destination)?;
        self.note_index(written);
        Ok(())
    }

    fn note_index(&self, size: Option<u64>) {
        if let Some(size) = size {
            self.index_files.fetch_add(1, Ordering::Relaxed);
            self.count_bytes(size);
        }
    }

    pub(crate) fn count_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Puts the sums into the report.
    pub(crate) fn account(&self, report: &mut CopyReport) {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        report.packs_moved = get(&self.packs_moved);
        report.packs_written = get(&self.packs_written);
        report.index_files = get(&self.index_files);
        report.bytes_written = get(&self.bytes);
    }
}
