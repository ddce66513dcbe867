//! Numbers of a writer, live and final.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a writer has done so far; for showing it while it works.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) bytes_read: AtomicU64,
    pub(super) blobs_read: AtomicU64,
    pub(super) data: NewBlobs,
    pub(super) trees: NewBlobs,
    pub(super) packs: AtomicU64,
    pub(super) bytes_stored: AtomicU64,
    pub(super) index_files: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct NewBlobs {
    count: AtomicU64,
    plain_bytes: AtomicU64,
    sealed_bytes: AtomicU64,
}

impl NewBlobs {
    pub(super) fn add(&self, plain: usize, sealed: u32) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.plain_bytes.fetch_add(plain as u64, Ordering::Relaxed);
        self.sealed_bytes
            .fetch_add(sealed.into(), Ordering::Relaxed);
    }
}

impl Progress {
    /// Bytes of file content that workers have taken in and cut.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes that went into new files of the repository, or are about to: chunks that were not there before,
    /// compressed and sealed.
    #[must_use]
    pub fn bytes_new(&self) -> u64 {
        let sealed = |blobs: &NewBlobs| blobs.sealed_bytes.load(Ordering::Relaxed);
        sealed(&self.data) + sealed(&self.trees)
    }

    /// Bytes of files that are durably in the repository.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.bytes_stored.load(Ordering::Relaxed)
    }

    /// Counts an index file of that size, if one was written.
    pub(super) fn note_index(&self, size: Option<u64>) {
        if let Some(size) = size {
            self.bytes_stored.fetch_add(size, Ordering::Relaxed);
            self.index_files.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn stats(&self) -> WriteStats {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        WriteStats {
            data_blobs: get(&self.blobs_read),
            data_bytes_read: get(&self.bytes_read),
            data_blobs_new: get(&self.data.count),
            data_bytes_new: get(&self.data.plain_bytes),
            data_bytes_sealed: get(&self.data.sealed_bytes),
            tree_blobs_new: get(&self.trees.count),
            tree_bytes_new: get(&self.trees.plain_bytes),
            tree_bytes_sealed: get(&self.trees.sealed_bytes),
            packs_new: get(&self.packs),
            index_files_new: get(&self.index_files),
            bytes_stored_new: get(&self.bytes_stored),
        }
    }
}

/// What a commit, with all that led to it, wrote. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteStats {
    /// Chunks of all files, known ones too.
    pub data_blobs: u64,
    /// The content of all files.
    pub data_bytes_read: u64,
    /// Chunks that were not in the repository.
    pub data_blobs_new: u64,
    /// Their content.
    pub data_bytes_new: u64,
    /// Their content, compressed and sealed.
    pub data_bytes_sealed: u64,
    /// Trees that were not in the repository.
    pub tree_blobs_new: u64,
    /// Their content.
    pub tree_bytes_new: u64,
    /// Their content, compressed and sealed.
    pub tree_bytes_sealed: u64,
    /// Pack files written.
    pub packs_new: u64,
    /// Index files written.
    pub index_files_new: u64,
    /// All that the repository grew by: packs, index files, the snapshot file.
    pub bytes_stored_new: u64,
}
