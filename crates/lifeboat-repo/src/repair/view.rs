//! What can be read of a repository in which some packs are damaged.

use std::collections::{HashMap, HashSet};

use super::{OpenSource, Wanted, unless_damaged};
use crate::error::RepositoryError;
use crate::id::BlobId;
use crate::index::{BlobLocation, Index};
use crate::pack::{BlobKind, BlobOpener};
use crate::repository::Repository;
use crate::storage::FileKind;
use crate::tree::Tree;

/// The index, and what it is wrong about.
pub(super) struct View<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: Index,
    /// The numbers of the packs that are damaged.
    pub(super) bad: HashSet<u32>,
    /// Blobs that are good in damaged packs, and in no other.
    pub(super) kept: HashMap<Wanted, BlobLocation>,
}

impl View<'_> {
    /// Where a blob lies in a pack that is not damaged.
    pub(super) fn whole_place(&self, kind: BlobKind, id: &BlobId) -> Option<BlobLocation> {
        self.index.span(kind, id).find_map(|at| {
            let (number, blob) = self.index.entry(at)?;
            let pack = *self.index.packs().get(number as usize)?;
            (!self.bad.contains(&number)).then_some(BlobLocation { pack, blob })
        })
    }

    /// Where a blob can be read.
    pub(super) fn place(&self, kind: BlobKind, id: &BlobId) -> Option<BlobLocation> {
        self.whole_place(kind, id)
            .or_else(|| self.kept.get(&(kind, *id)).copied())
    }

    pub(super) fn has(&self, kind: BlobKind, id: &BlobId) -> bool {
        self.place(kind, id).is_some()
    }
}

/// Reads trees from wherever they are.
pub(super) struct Trees<'a> {
    view: &'a View<'a>,
    sources: &'a [OpenSource<'a>],
    opener: BlobOpener,
    buffer: Vec<u8>,
}

impl<'a> Trees<'a> {
    pub(super) fn new(
        view: &'a View<'a>,
        sources: &'a [OpenSource<'a>],
    ) -> Result<Self, RepositoryError> {
        let opener = BlobOpener::new(view.repository.sealer().clone()).map_err(super::encode)?;
        Ok(Self {
            view,
            sources,
            opener,
            buffer: Vec::new(),
        })
    }

    /// `None` when nobody has it.
    pub(super) fn load(&mut self, id: &BlobId) -> Result<Option<Tree>, RepositoryError> {
        if let Some(place) = self.view.place(BlobKind::Tree, id) {
            let damaged = |what: &dyn ToString| {
                let name = place.pack.to_string();
                let what = format!("tree {}: {}", id.short(), what.to_string());
                RepositoryError::damaged(FileKind::Pack, name, what)
            };
            self.view.repository.storage().read_range_into(
                FileKind::Pack,
                &place.pack.to_string(),
                place.blob.offset.into(),
                place.blob.length as usize,
                &mut self.buffer,
            )?;
            // The check has read it: what fails now was damaged since, and the next run will see it.
            let json = self
                .opener
                .open(&place.blob, &mut self.buffer)
                .map_err(|error| damaged(&error))?;
            return Tree::parse(json).map(Some).map_err(|error| damaged(&error));
        }
        for source in self.sources {
            if !source.reader.index().contains(BlobKind::Tree, id) {
                continue;
            }
            if let Some(tree) = unless_damaged(source.reader.tree(*id))? {
                return Ok(Some(tree));
            }
        }
        Ok(None)
    }
}

/// Whether one of the sources should have a blob, by its index.
pub(super) fn found_in(sources: &[OpenSource<'_>], kind: BlobKind, id: &BlobId) -> Option<usize> {
    let mut sources = sources.iter();
    sources
        .find(|source| source.reader.index().contains(kind, id))
        .map(|source| source.number)
}
