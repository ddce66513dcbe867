//! A storage on another machine, with what was read of its index and its snapshots kept on this one.
//!
//! A backup or a copy asks what a repository holds, every hour, and nearly all of the answer is the same as an hour
//! ago. These files are named by their content, so what was read once need never be fetched again.
//!
//! Invariants. Which files there are, and how long they are, is always asked of the storage itself. What is kept
//! is believed only when it hashes to its name; so whatever happens to the folder costs a transfer, never an
//! answer that is wrong. What can't be kept is not kept, and that is no failure. The files stay sealed.
//!
//! It is for those who add. Whoever shall tell whether a repository is whole has to read it, not this.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::temporary::{self, TemporaryFile};
use super::{FileEntry, FileKind, Storage, StorageError, is_valid_name};

/// How long a temporary file lies untouched before it is taken for abandoned.
const ABANDONED_AFTER: Duration = Duration::from_secs(15 * 60);

/// Keeps index and snapshot files of another storage in a folder.
#[derive(Debug)]
pub struct Cached {
    inner: Arc<dyn Storage>,
    folder: PathBuf,
}

impl Cached {
    /// Over `inner`. What is kept goes to a folder of this location's own within `folder`.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, folder: impl Into<PathBuf>) -> Self {
        let place = hex::encode(&Sha256::digest(inner.location())[..16]);
        let folder = folder.into().join(place);
        Self { inner, folder }
    }

    /// Where files of a kind are kept, if they are.
    fn kept(&self, kind: FileKind) -> Option<PathBuf> {
        matches!(kind, FileKind::Index | FileKind::Snapshot)
            .then(|| self.folder.join(kind.as_str()))
    }

    fn keep(&self, kind: FileKind, name: &str, content: &[u8]) {
        if let Some(folder) = self.kept(kind)
            && is_its_name(name, content)
        {
            // A full disk, or a folder that is not ours: then it is fetched again.
            let _ = put(&folder, name, content);
        }
    }

    fn forget(&self, kind: FileKind, name: &str) {
        if let Some(folder) = self.kept(kind)
            && is_valid_name(kind, name)
        {
            let _ = fs::remove_file(folder.join(name));
        }
    }

    /// Removes what is no longer there, or not as long: a file that was cut short has to be found out.
    fn forget_others(&self, kind: FileKind, listed: &[FileEntry]) {
        let Some(folder) = self.kept(kind) else {
            return;
        };
        let Ok(entries) = fs::read_dir(&folder) else {
            return;
        };
        let _ = temporary::sweep(&folder, ABANDONED_AFTER);
        let sizes: HashMap<&str, u64> = listed
            .iter()
            .map(|file| (file.name.as_str(), file.size_bytes))
            .collect();
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if is_valid_name(kind, &name)
                && entry.metadata().ok().map(|kept| kept.len()) != sizes.get(&*name).copied()
            {
                self.forget(kind, &name);
            }
        }
    }
}

fn is_its_name(name: &str, content: &[u8]) -> bool {
    hex::encode(Sha256::digest(content)) == name
}

/// Not synced: what a power cut leaves of it does not hash to its name.
fn put(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut file = TemporaryFile::create(folder)?;
    file.file().write_all(content)?;
    fs::rename(file.path(), folder.join(name))?;
    file.keep();
    Ok(())
}

impl Storage for Cached {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError> {
        let listed = self.inner.list(kind)?;
        self.forget_others(kind, &listed);
        Ok(listed)
    }

    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        self.inner.size(kind, name)
    }

    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        if let Some(folder) = self.kept(kind)
            && is_valid_name(kind, name)
            && let Ok(content) = fs::read(folder.join(name))
            && is_its_name(name, &content)
        {
            return Ok(content);
        }
        let content = self.inner.read(kind, name)?;
        self.keep(kind, name, &content);
        Ok(content)
    }

    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        self.inner.read_range(kind, name, offset, length)
    }

    fn read_range_into(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.inner
            .read_range_into(kind, name, offset, length, buffer)
    }

    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        self.inner.write(kind, name, content)?;
        self.keep(kind, name, content);
        Ok(())
    }

    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        self.inner.delete(kind, name)?;
        self.forget(kind, name);
        Ok(())
    }

    fn may_delete(&self) -> bool {
        self.inner.may_delete()
    }

    fn create(&self) -> Result<(), StorageError> {
        self.inner.create()
    }

    fn free_space_bytes(&self) -> Option<u64> {
        self.inner.free_space_bytes()
    }

    fn requests_at_once(&self) -> usize {
        self.inner.requests_at_once()
    }

    fn sweep(&self) -> Result<usize, StorageError> {
        self.inner.sweep()
    }
}
