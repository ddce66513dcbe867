//! Marking: which blobs the snapshots need.

use super::bits::Bits;
use super::survey::{Listing, PackFacts};
use crate::error::RepositoryError;
use crate::id::BlobId;
use crate::index::{BlobLocation, Index};
use crate::pack::{BlobKind, BlobOpener};
use crate::repository::Repository;
use crate::storage::FileKind;
use crate::tree::Tree;
use std::sync::atomic::{AtomicBool, Ordering};

/// Index files that appeared later, with their packs.
pub(crate) struct Delta {
    pub(crate) listing: Listing,
    pub(crate) packs: Vec<PackFacts>,
}

impl Delta {
    /// Where a blob lies whole in one of these packs.
    pub(crate) fn find(&self, kind: BlobKind, id: &BlobId) -> Option<BlobLocation> {
        whole(&self.listing.index, &self.packs, kind, id)
    }
}

fn whole(index: &Index, packs: &[PackFacts], kind: BlobKind, id: &BlobId) -> Option<BlobLocation> {
    index.span(kind, id).find_map(|at| {
        let (number, blob) = index.entry(at)?;
        let pack = packs.get(number as usize)?;
        pack.is_whole().then_some(BlobLocation {
            pack: pack.id,
            blob,
        })
    })
}

/// Walks trees and marks what they need.
pub(crate) struct Marker<'a> {
    repository: &'a Repository,
    index: &'a Index,
    packs: &'a [PackFacts],
    delta: Option<&'a Delta>,
    opener: BlobOpener,
    buffer: Vec<u8>,
    is_tolerant: bool,
}

impl<'a> Marker<'a> {
    pub(crate) fn new(
        repository: &'a Repository,
        index: &'a Index,
        packs: &'a [PackFacts],
        delta: Option<&'a Delta>,
    ) -> Result<Self, RepositoryError> {
        let opener = BlobOpener::new(repository.sealer().clone()).map_err(|error| {
            RepositoryError::Encode {
                what: error.to_string(),
            }
        })?;
        Ok(Self {
            repository,
            index,
            packs,
            delta,
            opener,
            buffer: Vec::new(),
            is_tolerant: false,
        })
    }

    /// Whether from now on a blob that no index lists is passed over, with all that only it leads to.
    pub(crate) fn tolerant(&mut self, is_tolerant: bool) -> &mut Self {
        self.is_tolerant = is_tolerant;
        self
    }

    /// Marks a tree and all that is below it. A tree that is marked already is not read again: all below it is
    /// marked, too.
    pub(crate) fn mark(
        &mut self,
        root: BlobId,
        used: &mut Bits,
        interrupt: &AtomicBool,
    ) -> Result<(), RepositoryError> {
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            if !self.need(BlobKind::Tree, &id, used)? {
                continue;
            }
            if interrupt.load(Ordering::Relaxed) {
                return Err(RepositoryError::Interrupted);
            }
            for node in &self.load(&id)?.nodes {
                for chunk in &node.content {
                    self.need(BlobKind::Data, chunk, used)?;
                }
                waiting.extend(node.subtree);
            }
        }
        Ok(())
    }

    /// Marks one blob; whether it was not marked before.
    fn need(&self, kind: BlobKind, id: &BlobId, used: &mut Bits) -> Result<bool, RepositoryError> {
        let span = self.index.span(kind, id);
        if !span.is_empty() && used.get(span.start) {
            return Ok(false);
        }
        // In one of the later packs only, which are not marked: then a tree may be read again, which costs time.
        let found = whole(self.index, self.packs, kind, id);
        if span.is_empty() && self.is_tolerant && self.in_delta(kind, id).is_none() {
            return Ok(false);
        }
        if found.is_none() && self.in_delta(kind, id).is_none() {
            return Err(RepositoryError::MissingBlob { kind, id: *id });
        }
        if !span.is_empty() {
            used.set(span.start);
        }
        Ok(true)
    }

    fn in_delta(&self, kind: BlobKind, id: &BlobId) -> Option<BlobLocation> {
        self.delta?.find(kind, id)
    }

    fn load(&mut self, id: &BlobId) -> Result<Tree, RepositoryError> {
        let location = whole(self.index, self.packs, BlobKind::Tree, id)
            .or_else(|| self.in_delta(BlobKind::Tree, id))
            .ok_or(RepositoryError::MissingBlob {
                kind: BlobKind::Tree,
                id: *id,
            })?;
        let name = location.pack.to_string();
        self.repository.storage().read_range_into(
            FileKind::Pack,
            &name,
            location.blob.offset.into(),
            location.blob.length as usize,
            &mut self.buffer,
        )?;
        let damaged = |what: &dyn ToString| {
            RepositoryError::damaged(
                FileKind::Pack,
                &name,
                format_args!("tree {}: {}", id.short(), what.to_string()),
            )
        };
        let json = self
            .opener
            .open(&location.blob, &mut self.buffer)
            .map_err(|error| damaged(&error))?;
        Tree::parse(json).map_err(|error| damaged(&error))
    }
}
