//! Copying needed blobs out of packs that go.
//!
//! Blobs move as they are sealed; each is opened beside, and its hash checked, before it counts as moved. This
//! only adds to the repository: packs first, then the index files that list them.

use super::plan::Plan;
use super::survey::Survey;
use super::{PruneEvent, PruneRequest, is_full, stop_if_interrupted};
use crate::error::RepositoryError;
use crate::id::PackId;
use crate::index;
use crate::lock::LockGuard;
use crate::pack::{BlobKind, BlobOpener, PackBuilder, PackedBlob};
use crate::repository::Repository;
use crate::seal::Nonces;
use crate::storage::FileKind;

/// What one read fetches at most, unless a blob is longer.
const WINDOW_BYTES: u64 = 8 << 20;
/// Unneeded bytes between two needed blobs that are read rather than skipped.
const GAP_BYTES: u64 = 64 << 10;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) packs: u64,
    pub(super) bytes: u64,
    pub(super) index_files: u64,
    /// Whether the disk was full before the end. What was copied by then counts.
    pub(super) fell_short: bool,
}

/// Copies what `plan` says.
pub(super) fn repack(
    repository: &Repository,
    survey: &Survey,
    plan: &Plan,
    request: &PruneRequest<'_>,
    lock: &LockGuard,
) -> Result<Moved, RepositoryError> {
    if plan.repack.is_empty() {
        return Ok(Moved::default());
    }
    (request.observer)(PruneEvent::Repacking {
        packs: plan.repack.len() as u64,
        bytes: plan.repack_bytes(),
    });
    let mut mover = Mover {
        repository,
        request,
        lock,
        opener: BlobOpener::new(repository.sealer().clone()).map_err(encode)?,
        nonces: Nonces::default(),
        open: [None, None],
        unindexed: Vec::new(),
        unindexed_blobs: 0,
        moved: Moved::default(),
        scratch: Vec::new(),
    };
    let result = mover.run(survey, plan);
    let result = result.and_then(|()| mover.finish());
    match result {
        Err(error) if is_full(&error) => {
            mover.moved.fell_short = true;
            Ok(mover.moved)
        }
        other => other.map(|()| mover.moved),
    }
}

struct Mover<'a> {
    repository: &'a Repository,
    request: &'a PruneRequest<'a>,
    lock: &'a LockGuard,
    opener: BlobOpener,
    nonces: Nonces,
    /// The packs that grow: of data, of trees.
    open: [Option<PackBuilder>; 2],
    unindexed: Vec<(PackId, Vec<PackedBlob>)>,
    unindexed_blobs: usize,
    moved: Moved,
    scratch: Vec<u8>,
}

impl Mover<'_> {
    fn run(&mut self, survey: &Survey, plan: &Plan) -> Result<(), RepositoryError> {
        let index = &survey.listing.index;
        let mut wanted = vec![false; survey.packs.len()];
        for &number in &plan.repack {
            wanted[number as usize] = true;
        }
        // Twelve bytes for each blob that moves.
        let mut moves: Vec<(u32, u32, u32)> = Vec::new();
        for (at, (number, blob)) in index.iter().enumerate() {
            if wanted[number as usize] && plan.needed.get(at) {
                let at = u32::try_from(at).map_err(encode)?;
                moves.push((number, blob.offset, at));
            }
        }
        moves.sort_unstable();
        let mut rest = moves.as_slice();
        let mut buffer = Vec::new();
        while let Some(&(number, first, _)) = rest.first() {
            stop_if_interrupted(self.request)?;
            let name = survey.packs[number as usize].id.to_string();
            let blobs = |moves: &[(u32, u32, u32)]| -> Vec<PackedBlob> {
                moves
                    .iter()
                    .filter_map(|(_, _, at)| index.entry(*at as usize).map(|(_, blob)| blob))
                    .collect()
            };
            let of_pack = rest
                .iter()
                .take_while(|(pack, _, _)| *pack == number)
                .count();
            let window = window(&blobs(&rest[..of_pack]), first);
            let now = blobs(&rest[..window.blobs]);
            rest = &rest[window.blobs..];
            self.repository.storage().read_range_into(
                FileKind::Pack,
                &name,
                first.into(),
                window.bytes,
                &mut buffer,
            )?;
            for blob in now {
                let start = (blob.offset - first) as usize;
                let sealed = buffer.get(start..start + blob.length as usize);
                self.add(&name, &blob, sealed.unwrap_or_default())?;
            }
        }
        Ok(())
    }

    fn add(&mut self, pack: &str, blob: &PackedBlob, sealed: &[u8]) -> Result<(), RepositoryError> {
        self.scratch.clear();
        self.scratch.extend_from_slice(sealed);
        self.opener
            .open(blob, &mut self.scratch)
            .map_err(|error| RepositoryError::damaged(FileKind::Pack, pack, error))?;
        let slot = usize::from(blob.kind == BlobKind::Tree);
        let open = self.open[slot].get_or_insert_with(|| PackBuilder::new(blob.kind, Vec::new()));
        open.add_sealed(blob, sealed).map_err(encode)?;
        if open.is_full(self.request.options.pack_size_bytes) {
            self.store(slot)?;
        }
        Ok(())
    }

    /// Stores an open pack.
    fn store(&mut self, slot: usize) -> Result<(), RepositoryError> {
        let Some(pack) = self.open[slot].take() else {
            return Ok(());
        };
        // Whoever took this lock for stale may be removing what we copy.
        self.lock.check()?;
        let pack = pack
            .finish(self.repository.sealer(), &mut self.nonces)
            .map_err(encode)?;
        self.repository
            .storage()
            .write(FileKind::Pack, &pack.id.to_string(), &pack.bytes)?;
        self.moved.packs += 1;
        self.moved.bytes += pack.bytes.len() as u64;
        self.unindexed_blobs += pack.blobs.len();
        self.unindexed.push((pack.id, pack.blobs));
        if self.unindexed_blobs >= index::BLOBS_PER_FILE {
            self.write_index()?;
        }
        Ok(())
    }

    fn write_index(&mut self) -> Result<(), RepositoryError> {
        if self.unindexed.is_empty() {
            return Ok(());
        }
        let json = index::write(
            self.unindexed
                .iter()
                .map(|(id, blobs)| (id, blobs.as_slice())),
        );
        self.repository.store_file(FileKind::Index, &json)?;
        self.unindexed.clear();
        self.unindexed_blobs = 0;
        self.moved.index_files += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), RepositoryError> {
        self.store(0)?;
        self.store(1)?;
        self.write_index()
    }
}

pub(crate) struct Window {
    pub(crate) blobs: usize,
    pub(crate) bytes: usize,
}

/// How many of a pack's blobs, sorted by offset and beginning at `first`, are fetched by one read.
pub(crate) fn window(blobs: &[PackedBlob], first: u32) -> Window {
    let mut found = Window { blobs: 0, bytes: 0 };
    let mut end = u64::from(first);
    for blob in blobs {
        let (start, next) = (
            u64::from(blob.offset),
            u64::from(blob.offset) + u64::from(blob.length),
        );
        let far = start > end + GAP_BYTES || next - u64::from(first) > WINDOW_BYTES;
        if far && found.blobs > 0 {
            break;
        }
        end = end.max(next);
        found.blobs += 1;
    }
    found.bytes = usize::try_from(end - u64::from(first)).unwrap_or(0);
    found
}

fn encode(error: impl ToString) -> RepositoryError {
    RepositoryError::Encode {
        what: error.to_string(),
    }
}
