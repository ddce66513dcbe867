//! Packs in the destination that no index lists: what a copy or a backup that was cut had already brought there.
//!
//! A pack is written whole or not at all, and its name is the hash of its content. So a header that opens with our
//! key and that describes a file of just this size is all that has to be read of it.

use crate::error::RepositoryError;
use crate::id::{BlobId, PackId};
use crate::pack::{self, BlobKind, LENGTH_FIELD_BYTES, PackedBlob};
use crate::repository::Repository;
use crate::storage::{FileKind, StorageErrorKind};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;

/// What is fetched from a pack's end in the hope that the whole header is in it.
const TAIL_BYTES: u64 = 32 << 10;

/// What packs without an index hold.
#[derive(Debug, Default)]
pub(super) struct Unlisted {
    packs: Vec<(PackId, Vec<PackedBlob>)>,
    blobs: HashMap<(BlobKind, BlobId), usize>,
    wanted: HashSet<usize>,
}

impl Unlisted {
    /// Reads the headers of these packs, which the destination's index does not know. Those that are not what
    /// they should be are passed over: nothing needs them.
    pub(super) fn read(
        destination: &Repository,
        packs: &[(String, u64)],
        interrupt: &AtomicBool,
    ) -> Result<Self, RepositoryError> {
        let mut unlisted = Self::default();
        for (name, size) in packs {
            super::stop_if(interrupt)?;
            let Ok(id) = name.parse::<PackId>() else {
                continue;
            };
            let Some(blobs) = header(destination, name, *size)? else {
                continue;
            };
            let number = unlisted.packs.len();
            for blob in &blobs {
                unlisted.blobs.insert((blob.kind, blob.id), number);
            }
            unlisted.packs.push((id, blobs));
        }
        Ok(unlisted)
    }

    /// Whether a blob is in one of them; that pack is then to be listed.
    pub(super) fn take(&mut self, kind: BlobKind, id: &BlobId) -> bool {
        match self.blobs.get(&(kind, *id)) {
            Some(pack) => {
                self.wanted.insert(*pack);
                true
            }
            None => false,
        }
    }

    /// The packs of which something was taken.
    pub(super) fn into_taken(self) -> Vec<(PackId, Vec<PackedBlob>)> {
        let wanted = self.wanted;
        let numbered = self.packs.into_iter().enumerate();
        numbered
            .filter(|(number, _)| wanted.contains(number))
            .map(|(_, pack)| pack)
            .collect()
    }
}

/// What the header of a pack of `size` bytes lists; `None` when it is not the header of such a pack.
pub(crate) fn header(
    repository: &Repository,
    name: &str,
    size: u64,
) -> Result<Option<Vec<PackedBlob>>, RepositoryError> {
    let tail = |length: u64| {
        let length = length.min(size);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        match repository
            .storage()
            .read_range(FileKind::Pack, name, size - length, bytes)
        {
            Ok(bytes) => Ok(Some(bytes)),
            // It may go at any time, since nothing needs it.
            Err(error)
                if matches!(
                    error.kind(),
                    StorageErrorKind::NotFound | StorageErrorKind::TooShort
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(RepositoryError::from(error)),
        }
    };
    let Some(mut end) = tail(TAIL_BYTES)? else {
        return Ok(None);
    };
    let Some(field) = end.last_chunk::<LENGTH_FIELD_BYTES>() else {
        return Ok(None);
    };
    let Ok(length) = pack::header_length(*field, size) else {
        return Ok(None);
    };
    let whole = length + LENGTH_FIELD_BYTES;
    if end.len() < whole {
        match tail(whole as u64)? {
            Some(longer) => end = longer,
            None => return Ok(None),
        }
    }
    let start = end.len() - whole;
    let sealed = &mut end[start..start + length];
    Ok(pack::parse_header(sealed, size, repository.sealer()).ok())
}
