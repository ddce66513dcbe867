//! The reader: from a snapshot back to bytes, as a stream or at any offset.
//!
//! Nothing is handed out before its hash was checked. A blob that can't be read from one pack is looked for in
//! the other packs that hold it, if there are any: on the day of a restore the question is whether the bytes
//! are there, not whether every copy of them is.

mod ahead;
mod cache;
mod file;
mod random;

pub use file::FileReader;
pub use random::RandomFile;

use crate::error::RepositoryError;
use crate::id::{BlobId, PackId};
use crate::index::{BlobLocation, Index};
use crate::pack::{BlobKind, BlobOpener};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::FileKind;
use crate::tree::{FileContent, Node, NodeKind, Tree};
use cache::Cache;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Plaintext that is kept for random access, and trees.
const CACHE_BYTES: usize = 32 << 20;

/// Reads what snapshots hold. Clones are cheap and share index and cache; all methods may be called from many
/// threads.
#[derive(Debug, Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

struct Inner {
    repository: Repository,
    index: Index,
    cache: Cache,
    openers: Mutex<Vec<BlobOpener>>,
    fetchers: ahead::Fetchers,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Loads the index for reading. Choose the snapshot first: what is committed later is not in it.
    ///
    /// # Errors
    /// When the index can't be read.
    pub fn reader(&self) -> Result<Reader, RepositoryError> {
        let index = self.load_index()?;
        let cache = Cache::new(CACHE_BYTES);
        let inner = Inner {
            repository: self.clone(),
            index,
            cache,
            openers: Mutex::default(),
            fetchers: ahead::Fetchers::default(),
        };
        Ok(Reader {
            inner: Arc::new(inner),
        })
    }
}

fn damaged_pack(pack: &PackId, what: impl ToString) -> RepositoryError {
    RepositoryError::damaged(FileKind::Pack, pack.to_string(), what)
}

impl Reader {
    /// What the repository's index says.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.inner.index
    }

    fn opener(&self) -> Result<BlobOpener, RepositoryError> {
        BlobOpener::new(self.inner.repository.sealer().clone()).map_err(|error| {
            RepositoryError::Encode {
                what: error.to_string(),
            }
        })
    }

    fn locate(&self, kind: BlobKind, id: &BlobId) -> Result<BlobLocation, RepositoryError> {
        self.inner
            .index
            .get(kind, id)
            .ok_or(RepositoryError::MissingBlob { kind, id: *id })
    }

    fn plain_length(&self, id: &BlobId) -> Result<u64, RepositoryError> {
        let length = self.inner.index.plain_length(BlobKind::Data, id);
        length.map(u64::from).ok_or(RepositoryError::MissingBlob {
            kind: BlobKind::Data,
            id: *id,
        })
    }

    fn read_pack(&self, pack: &PackId, range: Range<u64>) -> Result<Vec<u8>, RepositoryError> {
        let length =
            usize::try_from(range.end - range.start).map_err(|error| damaged_pack(pack, error))?;
        let storage = self.inner.repository.storage();
        Ok(storage.read_range(FileKind::Pack, &pack.to_string(), range.start, length)?)
    }

    /// How many requests one file should have under way at once.
    fn requests_at_once(&self) -> usize {
        self.inner.repository.storage().requests_at_once()
    }

    fn fetch_ahead(&self, pack: PackId, range: Range<u64>) -> Option<ahead::Fetch> {
        let storage = self.inner.repository.storage();
        self.inner.fetchers.fetch(storage, pack, range)
    }

    /// Opens a blob from one of its places, whose pack is not `except`; the plaintext is in `opener` then.
    fn load(
        &self,
        kind: BlobKind,
        id: &BlobId,
        except: Option<&PackId>,
        opener: &mut BlobOpener,
    ) -> Result<(), RepositoryError> {
        let mut first = None;
        let places = self.inner.index.locations(kind, id);
        for place in places.filter(|place| Some(&place.pack) != except) {
            let start = u64::from(place.blob.offset);
            let loaded = self
                .read_pack(&place.pack, start..start + u64::from(place.blob.length))
                .and_then(|mut sealed| match opener.open(&place.blob, &mut sealed) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(damaged_pack(&place.pack, error)),
                });
            match loaded {
                Ok(()) => return Ok(()),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(RepositoryError::MissingBlob { kind, id: *id }))
    }

    /// The plaintext of a blob, from the cache or the storage.
    ///
    /// # Errors
    /// `MissingBlob`; `Damaged`, or what the storage says, of the first of its places when none is good.
    pub fn blob(&self, kind: BlobKind, id: &BlobId) -> Result<Arc<[u8]>, RepositoryError> {
        if let Some(plain) = self.inner.cache.get(kind, id) {
            return Ok(plain);
        }
        let openers = || {
            self.inner
                .openers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let idle = openers().pop();
        let mut opener = match idle {
            Some(opener) => opener,
            None => self.opener()?,
        };
        let loaded = self.load(kind, id, None, &mut opener);
        let plain: Result<Arc<[u8]>, _> = loaded.map(|()| opener.plain().into());
        opener.shrink();
        openers().push(opener);
        let plain = plain?;
        self.inner.cache.insert(kind, *id, Arc::clone(&plain));
        Ok(plain)
    }

    /// A tree: what is in one folder.
    ///
    /// # Errors
    /// As [`Reader::blob`]; `Damaged` when the blob is no tree.
    pub fn tree(&self, id: BlobId) -> Result<Tree, RepositoryError> {
        let json = self.blob(BlobKind::Tree, &id)?;
        Tree::parse(&json).map_err(|error| match self.locate(BlobKind::Tree, &id) {
            Ok(place) => damaged_pack(&place.pack, format_args!("tree {}: {error}", id.short())),
            Err(missing) => missing,
        })
    }

    /// What a snapshot holds at `path` (parts separated by `/`).
    ///
    /// # Errors
    /// `NoSuchFile`, or as [`Reader::tree`].
    pub fn find(&self, snapshot: &Snapshot, path: &str) -> Result<Node, RepositoryError> {
        let missing = || RepositoryError::NoSuchFile {
            snapshot: snapshot.id,
            path: path.to_owned(),
        };
        let mut folder = Some(snapshot.tree);
        let mut found = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let tree = self.tree(folder.ok_or_else(missing)?)?;
            let node = tree
                .nodes
                .into_iter()
                .find(|node| node.name == name)
                .ok_or_else(missing)?;
            folder = node.subtree.filter(|_| node.kind == NodeKind::Dir);
            found = Some(node);
        }
        found.ok_or_else(missing)
    }

    /// Shows `visit` everything in a snapshot with its path, folders before what is in them.
    ///
    /// # Errors
    /// The first error of `visit`, or as [`Reader::tree`].
    pub fn walk<E: From<RepositoryError>>(
        &self,
        snapshot: &Snapshot,
        mut visit: impl FnMut(&str, &Node) -> Result<(), E>,
    ) -> Result<(), E> {
        // A stack of our own: how deep trees nest is for whoever wrote them to say.
        let mut folders = vec![(String::new(), self.tree(snapshot.tree)?.nodes.into_iter())];
        while let Some((folder, nodes)) = folders.last_mut() {
            let Some(node) = nodes.next() else {
                folders.pop();
                continue;
            };
            let path = if folder.is_empty() {
                node.name.clone()
            } else {
                format!("{folder}/{}", node.name)
            };
            visit(&path, &node)?;
            if let Some(tree) = node.subtree.filter(|_| node.kind == NodeKind::Dir) {
                folders.push((path, self.tree(tree)?.nodes.into_iter()));
            }
        }
        Ok(())
    }

    /// The content of a file's node, with the size that its chunks have.
    ///
    /// # Errors
    /// `MissingBlob`.
    pub fn content(&self, node: &Node) -> Result<FileContent, RepositoryError> {
        let mut content = node.file_content();
        content.size_bytes = 0;
        for id in &content.chunks {
            content.size_bytes += self.plain_length(id)?;
        }
        Ok(content)
    }

    /// A file from its beginning to its end.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn open(&self, content: &FileContent) -> Result<FileReader, RepositoryError> {
        FileReader::new(self.clone(), content.chunks.clone(), 0, u64::MAX)
    }

    /// A part of a file, in order: for reading one table with several workers. What of `range` lies beyond the
    /// end is left out.
    ///
    /// # Errors
    /// `MissingBlob`.
    pub fn open_range(
        &self,
        content: &FileContent,
        range: Range<u64>,
    ) -> Result<FileReader, RepositoryError> {
        let (mut start, mut skip) = (0, range.start);
        for id in &content.chunks {
            let length = self.plain_length(id)?;
            if skip < length {
                break;
            }
            skip -= length;
            start += 1;
        }
        let (mut end, mut wanted) = (
            start,
            range.end.saturating_sub(range.start).saturating_add(skip),
        );
        while let Some(id) = content.chunks.get(end).filter(|_| wanted > 0) {
            wanted = wanted.saturating_sub(self.plain_length(id)?);
            end += 1;
        }
        let chunks = content.chunks[start..end].to_vec();
        FileReader::new(
            self.clone(),
            chunks,
            skip,
            range.end.saturating_sub(range.start),
        )
    }

    /// A file for reading at many offsets.
    ///
    /// # Errors
    /// `MissingBlob`.
    pub fn random(&self, content: &FileContent) -> Result<RandomFile, RepositoryError> {
        RandomFile::new(self.clone(), content)
    }

    /// Reads at one offset of a file: as many bytes as `buffer` has room for, fewer only at the end of the file.
    /// Takes time with the number of chunks; for more than one read take [`Reader::random`].
    ///
    /// # Errors
    /// As [`Reader::blob`].
    pub fn read_at(
        &self,
        content: &FileContent,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, RepositoryError> {
        self.random(content)?.read_at(offset, buffer)
    }
}

#[cfg(test)]
mod tests;
