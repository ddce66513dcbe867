//! Looking into damaged packs: which of their blobs are still good?

use std::sync::atomic::AtomicBool;

use super::{stop_if, unless_damaged};
use crate::error::RepositoryError;
use crate::pack::{BlobOpener, PackedBlob};
use crate::prune::repack::window;
use crate::repository::Repository;
use crate::storage::FileKind;

/// Is given a good blob: as it is sealed, and what that opened to.
type Take<'a> = &'a mut dyn FnMut(&PackedBlob, &[u8], &[u8]) -> Result<(), RepositoryError>;

/// Reads blobs out of packs that can't be trusted.
pub(super) struct Examiner<'a> {
    repository: &'a Repository,
    interrupt: &'a AtomicBool,
    opener: BlobOpener,
    fetched: Vec<u8>,
    scratch: Vec<u8>,
}

impl<'a> Examiner<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        interrupt: &'a AtomicBool,
    ) -> Result<Self, RepositoryError> {
        let opener = BlobOpener::new(repository.sealer().clone()).map_err(super::encode)?;
        Ok(Self {
            repository,
            interrupt,
            opener,
            fetched: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Shows `take` each of these blobs of a pack, sorted by offset, that is good: as it is sealed, and what it
    /// opened to.
    pub(super) fn each_good(
        &mut self,
        pack: &str,
        blobs: &[PackedBlob],
        take: Take<'_>,
    ) -> Result<(), RepositoryError> {
        let mut rest = blobs;
        while let Some(first) = rest.first().map(|blob| blob.offset) {
            stop_if(self.interrupt)?;
            let window = window(rest, first);
            let (now, later) = rest.split_at(window.blobs);
            rest = later;
            if self.fetch(pack, first, window.bytes)? {
                self.prove(now, first, take)?;
            } else {
                // One sector that can't be read shall not cost the blobs on the others, nor one failure that passes
                // any.
                for blob in now {
                    if self.fetch(pack, blob.offset, blob.length as usize)? {
                        self.prove(std::slice::from_ref(blob), blob.offset, take)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn fetch(&mut self, pack: &str, offset: u32, length: usize) -> Result<bool, RepositoryError> {
        let read = self.repository.storage().read_range_into(
            FileKind::Pack,
            pack,
            offset.into(),
            length,
            &mut self.fetched,
        );
        Ok(unless_damaged(read.map_err(RepositoryError::from))?.is_some())
    }

    fn prove(
        &mut self,
        blobs: &[PackedBlob],
        first: u32,
        take: Take<'_>,
    ) -> Result<(), RepositoryError> {
        for blob in blobs {
            let start = (blob.offset - first) as usize;
            let sealed = self.fetched.get(start..start + blob.length as usize);
            let sealed = sealed.unwrap_or_default();
            if self.opener.prove(blob, sealed, &mut self.scratch) {
                take(blob, sealed, &self.scratch)?;
            }
        }
        Ok(())
    }
}
