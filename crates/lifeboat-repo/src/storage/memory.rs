//! A repository in memory, for tests and for drafts that nobody keeps.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{FileEntry, FileKind, Storage, StorageError, StorageErrorKind, is_valid_name};

type Files = BTreeMap<(FileKind, String), Arc<[u8]>>;

/// A repository's files in memory. Clones share the files.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    /// `None` until [`Storage::create`].
    files: Arc<RwLock<Option<Files>>>,
}

impl MemoryStorage {
    /// An empty storage, not yet created.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A storage with the same files that shares nothing with this one.
    #[must_use]
    pub fn deep_clone(&self) -> Self {
        Self {
            files: Arc::new(RwLock::new(self.get().clone())),
        }
    }

    /// Puts bytes in place of a file's content, as damage would, without asking whether it exists.
    pub fn overwrite(&self, kind: FileKind, name: &str, content: &[u8]) {
        self.get_mut()
            .get_or_insert_default()
            .insert((kind, name.to_owned()), content.into());
    }

    // A panic elsewhere can't leave a map half changed, since each change is one insert or one remove.
    fn get(&self) -> RwLockReadGuard<'_, Option<Files>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_mut(&self) -> RwLockWriteGuard<'_, Option<Files>> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(
        &self,
        kind: StorageErrorKind,
        action: &'static str,
        file: String,
        reason: &str,
    ) -> StorageError {
        StorageError::new(kind, action, file, self.location(), reason)
    }

    fn not_found(&self, action: &'static str, kind: FileKind, name: &str) -> StorageError {
        self.error(
            StorageErrorKind::NotFound,
            action,
            format!("{kind} {name}"),
            "no such file",
        )
    }

    fn not_created(&self, action: &'static str) -> StorageError {
        self.error(
            StorageErrorKind::NotFound,
            action,
            "the folder".to_owned(),
            "it was never created",
        )
    }

    fn content(&self, kind: FileKind, name: &str) -> Result<Arc<[u8]>, StorageError> {
        let files = self.get();
        let content = files
            .as_ref()
            .and_then(|files| files.get(&(kind, name.to_owned())));
        content
            .cloned()
            .ok_or_else(|| self.not_found("read", kind, name))
    }
}

impl std::fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = self.get().as_ref().map_or(0, BTreeMap::len);
        f.debug_struct("MemoryStorage")
            .field("files", &files)
            .finish()
    }
}

impl Storage for MemoryStorage {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError> {
        let files = self.get();
        let files = files.as_ref().ok_or_else(|| self.not_created("list"))?;
        let of_kind = files.iter().filter(|((k, _), _)| *k == kind);
        Ok(of_kind
            .map(|((_, name), content)| FileEntry {
                name: name.clone(),
                size_bytes: content.len() as u64,
                modified: None,
            })
            .collect())
    }

    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        Ok(self.content(kind, name)?.len() as u64)
    }

    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        Ok(self.content(kind, name)?.to_vec())
    }

    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        let content = self.content(kind, name)?;
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        let part = range.and_then(|range| content.get(range));
        part.map(<[u8]>::to_vec).ok_or_else(|| {
            let reason = format!(
                "{} bytes long, wanted {length} from {offset}",
                content.len()
            );
            self.error(
                StorageErrorKind::TooShort,
                "read",
                format!("{kind} {name}"),
                &reason,
            )
        })
    }

    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        let file = || format!("{kind} {name}");
        if !is_valid_name(kind, name) {
            let reason = "no file of a repository has such a name";
            return Err(self.error(StorageErrorKind::Other, "write", file(), reason));
        }
        let mut files = self.get_mut();
        let files = files.as_mut().ok_or_else(|| self.not_created("write"))?;
        match files.entry((kind, name.to_owned())) {
            std::collections::btree_map::Entry::Occupied(_) => Err(self.error(
                StorageErrorKind::AlreadyExists,
                "write",
                file(),
                "it exists already",
            )),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(content.into());
                Ok(())
            }
        }
    }

    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        let removed = self
            .get_mut()
            .as_mut()
            .and_then(|files| files.remove(&(kind, name.to_owned())));
        removed
            .map(|_| ())
            .ok_or_else(|| self.not_found("delete", kind, name))
    }

    fn create(&self) -> Result<(), StorageError> {
        self.get_mut().get_or_insert_default();
        Ok(())
    }

    fn free_space_bytes(&self) -> Option<u64> {
        None
    }
}
