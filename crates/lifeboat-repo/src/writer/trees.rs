//! The folders of a snapshot, stored as trees.

use super::{Shared, encode};
use crate::error::RepositoryError;
use crate::id::BlobId;
use crate::pack::{BlobKind, PackBuilder};
use crate::seal::Nonces;
use crate::tree::{Directory, Entry, FileContent, Stored, TreeWriter, check_name};
use std::collections::HashSet;

/// Stores every folder of `root` that is not stored already; returns the tree of `root` itself.
pub(super) fn store(
    root: &Directory,
    shared: &Shared,
) -> Result<(BlobId, Totals), RepositoryError> {
    let mut trees = Trees {
        shared,
        // Trees are hexadecimal text, small beside the data and read at every restore: worth a better level.
        compressor: shared.compressor(3)?,
        nonces: Nonces::default(),
        pack: None,
        stored: HashSet::new(),
        totals: Totals::default(),
    };
    let id = trees.store(root)?;
    let totals = trees.totals;
    trees.pack.map_or(Ok(()), |pack| shared.submit(pack))?;
    Ok((id, totals))
}

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) directories: u64,
    pub(super) bytes: u64,
}

struct Trees<'a> {
    shared: &'a Shared,
    compressor: zstd::bulk::Compressor<'static>,
    nonces: Nonces,
    pack: Option<PackBuilder>,
    stored: HashSet<BlobId>,
    totals: Totals,
}

impl Trees<'_> {
    /// Stores a folder, after all folders in it.
    fn store(&mut self, directory: &Directory) -> Result<BlobId, RepositoryError> {
        self.shared.check()?;
        self.totals.directories += 1;
        let mut tree = TreeWriter::new();
        for (name, entry) in &directory.0 {
            check_name(name)?;
            match entry {
                Entry::Directory(inner) => tree.add(name, &Stored::Directory(self.store(inner)?)),
                Entry::File(content) => {
                    self.check_chunks(content)?;
                    self.totals.files += 1;
                    self.totals.bytes += content.size_bytes;
                    tree.add(name, &Stored::File(content));
                }
            }
        }
        let json = tree.finish();
        let id = BlobId::of(&json);
        if !self.shared.base.contains(BlobKind::Tree, &id) && self.stored.insert(id) {
            self.add(id, &json)?;
        }
        Ok(id)
    }

    /// A file may come from anywhere. A chunk of it that nobody stored would make this a snapshot with a hole.
    fn check_chunks(&self, content: &FileContent) -> Result<(), RepositoryError> {
        let is_stored = |id: &BlobId| {
            self.shared.base.contains(BlobKind::Data, id) || self.shared.known.contains(id)
        };
        match content.chunks.iter().find(|id| !is_stored(id)) {
            Some(&id) => Err(RepositoryError::MissingBlob {
                kind: BlobKind::Data,
                id,
            }),
            None => Ok(()),
        }
    }

    fn add(&mut self, id: BlobId, json: &[u8]) -> Result<(), RepositoryError> {
        let shared = self.shared;
        let pack = self
            .pack
            .get_or_insert_with(|| PackBuilder::new(BlobKind::Tree, Vec::new()));
        let sealed = pack
            .add(
                id,
                json,
                &mut self.compressor,
                shared.repository.sealer(),
                &mut self.nonces,
            )
            .map_err(encode)?;
        shared.progress.trees.add(json.len(), sealed);
        if pack.is_full(shared.options.pack_size_bytes) {
            self.pack
                .take()
                .map_or(Ok(()), |pack| shared.submit(pack))?;
        }
        Ok(())
    }
}
