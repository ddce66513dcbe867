//! A repository's small files: snapshots and the index, and sealed documents in general.

use crate::error::RepositoryError;
use crate::id::IndexId;
use crate::index::{Index, IndexBuilder};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, Storage, StorageErrorKind};
use crate::unpacked;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// The most files that are fetched at once.
const MOST_AT_ONCE: usize = 8;

impl Repository {
    /// Every snapshot, oldest first; and for each snapshot file that can't be read, why.
    ///
    /// # Errors
    /// When the storage can't list them, or a failure to read one says nothing about that file: who takes the part
    /// that was read for all there is would take backups for missing.
    pub fn snapshots(&self) -> Result<(Vec<Snapshot>, Vec<RepositoryError>), RepositoryError> {
        let (mut snapshots, mut damaged) = (Vec::new(), Vec::new());
        self.load_each(FileKind::Snapshot, |name, json| {
            match json.and_then(|json| parse_snapshot(name, &json)) {
                Ok(snapshot) => snapshots.push(snapshot),
                // Removed since the listing: then it is no snapshot any more.
                Err(RepositoryError::Storage(error))
                    if error.kind() == StorageErrorKind::NotFound => {}
                Err(RepositoryError::Storage(error)) if !error.is_about_the_file() => {
                    return Err(error.into());
                }
                Err(error) => damaged.push((name.to_owned(), error)),
            }
            Ok(())
        })?;
        snapshots.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
        damaged.sort_by(|left, right| left.0.cmp(&right.0));
        let damaged = damaged.into_iter().map(|(_, error)| error).collect();
        Ok((snapshots, damaged))
    }

    pub(crate) fn load_snapshot(&self, name: &str) -> Result<Snapshot, RepositoryError> {
        parse_snapshot(name, &self.load_file(FileKind::Snapshot, name)?)
    }

    /// Hands the document of each file of a kind to `take`, in any order. Several are fetched at once where
    /// answers take long: a month of backups has hundreds of small files.
    ///
    /// # Errors
    /// When the storage can't list them, or the first that `take` returns.
    fn load_each(
        &self,
        kind: FileKind,
        mut take: impl FnMut(&str, Result<Vec<u8>, RepositoryError>) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        let files = self.storage().list(kind)?;
        let at_once = self.storage().requests_at_once().min(MOST_AT_ONCE);
        let threads = if at_once > 1 {
            at_once.min(files.len())
        } else {
            0
        };
        let next = AtomicUsize::new(0);
        let fetch = || {
            let file = files.get(next.fetch_add(1, Ordering::Relaxed))?;
            let content = read_listed(self.storage().as_ref(), kind, &file.name, file.size_bytes);
            let json = content.and_then(|content| self.open_file(kind, &file.name, content));
            Some((file.name.as_str(), json))
        };
        // Holds as many documents as there are threads: a slow taker does not fill memory.
        let (done, arrived) = sync_channel(threads.max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (done, fetch) = (done.clone(), &fetch);
                let work = move || while fetch().is_some_and(|one| done.send(one).is_ok()) {};
                // Without a thread there are fewer at once; what is left over is fetched below.
                let thread = std::thread::Builder::new().name("fetch".to_owned());
                let _ = thread.spawn_scoped(scope, work);
            }
            drop(done);
            for (name, json) in arrived {
                take(name, json)?;
            }
            while let Some((name, json)) = fetch() {
                take(name, json)?;
            }
            Ok(())
        })
    }

    /// The JSON in a snapshot or index file, after its content was hashed against its name.
    pub(crate) fn load_file(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, RepositoryError> {
        let content = read_bounded(self.storage().as_ref(), kind, name)?;
        self.open_file(kind, name, content)
    }

    /// As [`Repository::load_file`], of a content that was read.
    pub(crate) fn open_file(
        &self,
        kind: FileKind,
        name: &str,
        content: Vec<u8>,
    ) -> Result<Vec<u8>, RepositoryError> {
        if hex::encode(Sha256::digest(&content)) != name {
            return Err(RepositoryError::damaged(
                kind,
                name,
                "its content does not match its name",
            ));
        }
        unpacked::decode(kind, content, self.sealer())
            .map_err(|error| RepositoryError::damaged(kind, name, error))
    }

    /// Seals and writes a document; returns its hash, which is its name, and its size as stored.
    pub(crate) fn store_file(
        &self,
        kind: FileKind,
        json: &[u8],
    ) -> Result<([u8; 32], u64), RepositoryError> {
        let content = unpacked::encode(kind, json, self.sealer()).map_err(|error| {
            RepositoryError::Encode {
                what: error.to_string(),
            }
        })?;
        let hash = Sha256::digest(&content).into();
        self.storage().write(kind, &hex::encode(hash), &content)?;
        Ok((hash, content.len() as u64))
    }

    /// Everything the index files say. Read the snapshots first: what is written after an index was listed is
    /// not in it.
    ///
    /// # Errors
    /// `Damaged` with the first file that can't be read: with a part of the index missing, blobs would seem
    /// to be missing.
    pub fn load_index(&self) -> Result<Index, RepositoryError> {
        let mut builder = IndexBuilder::default();
        let damaged = |name: &str, what: &dyn ToString| {
            RepositoryError::damaged(FileKind::Index, name, what.to_string())
        };
        self.load_each(FileKind::Index, |name, json| {
            let json = json?;
            let id: IndexId = name.parse().map_err(|error| damaged(name, &error))?;
            builder
                .add(id, &json)
                .map_err(|error| damaged(name, &error))
        })?;
        builder.build().map_err(|error| damaged("", &error))
    }
}

fn parse_snapshot(name: &str, json: &[u8]) -> Result<Snapshot, RepositoryError> {
    let damaged =
        |what: &dyn ToString| RepositoryError::damaged(FileKind::Snapshot, name, what.to_string());
    let id = name.parse().map_err(|error| damaged(&error))?;
    Snapshot::parse(id, json).map_err(|error| damaged(&error))
}

/// Reads a file, unless it is longer than is believed of its kind.
pub(crate) fn read_bounded(
    storage: &dyn Storage,
    kind: FileKind,
    name: &str,
) -> Result<Vec<u8>, RepositoryError> {
    let size_bytes = storage.size(kind, name)?;
    read_listed(storage, kind, name, size_bytes)
}

/// As [`read_bounded`], where a listing told the size: one question less for each of hundreds of small files.
pub(crate) fn read_listed(
    storage: &dyn Storage,
    kind: FileKind,
    name: &str,
    size_bytes: u64,
) -> Result<Vec<u8>, RepositoryError> {
    let limit = unpacked::most_plain_bytes(kind);
    if size_bytes > limit {
        let what = format_args!("it is longer than {limit} bytes");
        return Err(RepositoryError::damaged(kind, name, what));
    }
    Ok(storage.read(kind, name)?)
}
