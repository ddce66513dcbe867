//! A storage that only ever grows, whatever it could do.
//!
//! For machines whose credential may not delete: what is never asked for is never refused, and a mistake of ours
//! can't remove anything either.

use std::sync::Arc;

use super::{FileEntry, FileKind, Storage, StorageError, StorageErrorKind};

/// Passes everything on but what removes.
#[derive(Debug)]
pub struct AppendOnly(Arc<dyn Storage>);

impl AppendOnly {
    /// Over this storage.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self(storage)
    }
}

impl Storage for AppendOnly {
    fn location(&self) -> String {
        self.0.location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError> {
        self.0.list(kind)
    }

    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        self.0.size(kind, name)
    }

    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        self.0.read(kind, name)
    }

    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        self.0.read_range(kind, name, offset, length)
    }

    fn read_range_into(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.0.read_range_into(kind, name, offset, length, buffer)
    }

    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        self.0.write(kind, name, content)
    }

    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        Err(StorageError::new(
            StorageErrorKind::PermissionDenied,
            "delete",
            format!("{kind} {name}"),
            self.location(),
            "the repository is append-only here",
        ))
    }

    fn may_delete(&self) -> bool {
        false
    }

    fn create(&self) -> Result<(), StorageError> {
        self.0.create()
    }

    fn free_space_bytes(&self) -> Option<u64> {
        self.0.free_space_bytes()
    }

    fn requests_at_once(&self) -> usize {
        self.0.requests_at_once()
    }

    /// What interrupted writers left stays.
    fn sweep(&self) -> Result<usize, StorageError> {
        Ok(0)
    }
}
