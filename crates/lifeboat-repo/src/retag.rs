//! Changing the words attached to a snapshot.
//!
//! A snapshot file is named by its content, so this writes another one and removes the old, as `restic tag` does:
//! the new one says in `original` which was the first. Written before the other is removed, so that an
//! interruption leaves two that show the same, never none.

use std::collections::HashMap;

use crate::error::RepositoryError;
use crate::id::SnapshotId;
use crate::lock::LockGuard;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, StorageErrorKind};

impl Repository {
    /// Gives a snapshot other tags. `lock` is exclusive.
    ///
    /// # Errors
    /// When the new file could not be written, the lock was lost, or the old file not be removed.
    pub fn retag(
        &self,
        snapshot: &Snapshot,
        tags: Vec<String>,
        lock: &LockGuard,
    ) -> Result<Snapshot, RepositoryError> {
        self.require_removal()?;
        let mut new = Snapshot {
            tags,
            original: snapshot.original.or(Some(snapshot.id)),
            ..snapshot.clone()
        };
        let json = serde_json::to_vec(&new).map_err(|error| RepositoryError::Encode {
            what: error.to_string(),
        })?;
        lock.verify()?;
        let (hash, _) = self.store_file(FileKind::Snapshot, &json)?;
        new.id = SnapshotId::from_bytes(hash);
        self.remove_snapshot(snapshot.id, lock)?;
        Ok(new)
    }

    fn remove_snapshot(&self, id: SnapshotId, lock: &LockGuard) -> Result<(), RepositoryError> {
        lock.verify()?;
        match self.storage().delete(FileKind::Snapshot, &id.to_string()) {
            Err(error) if error.kind() != StorageErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// When each snapshot was stored, where the storage tells: by its clock, not the writer's.
    ///
    /// # Errors
    /// What the storage says.
    pub fn snapshots_stored(
        &self,
    ) -> Result<HashMap<SnapshotId, jiff::Timestamp>, RepositoryError> {
        let files = self.storage().list(FileKind::Snapshot)?;
        let stored = files.into_iter().filter_map(|file| {
            let id = file.name.parse().ok()?;
            Some((id, file.modified?))
        });
        Ok(stored.collect())
    }
}
