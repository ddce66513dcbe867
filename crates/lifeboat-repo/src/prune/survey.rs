//! What there is: snapshots, index files, packs, and which blobs are needed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::PruneRequest;
use super::bits::Bits;
use super::mark::Marker;
use crate::error::RepositoryError;
use crate::id::{IndexId, PackId, SnapshotId};
use crate::index::{Index, IndexBuilder};
use crate::pack::FIXED_BYTES;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::FileKind;

/// Index files and what they list.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) index: Index,
    /// The files that count, and the packs each lists by number.
    pub(crate) files: BTreeMap<IndexId, Vec<(u32, u32)>>,
    /// Files that are there but that another one supersedes.
    pub(crate) superseded: Vec<IndexId>,
    /// All files that any of them supersedes.
    pub(crate) supersedes: HashSet<IndexId>,
}

impl Listing {
    /// Reads these index files. The second value names one that is gone, if one is.
    pub(crate) fn read(
        repository: &Repository,
        names: &[String],
        interrupt: &AtomicBool,
    ) -> Result<Self, RepositoryError> {
        let mut builder = IndexBuilder::default();
        let mut files = BTreeMap::new();
        let damaged = |name: &str, what: &dyn ToString| {
            RepositoryError::damaged(FileKind::Index, name, what.to_string())
        };
        for name in names {
            if interrupt.load(Ordering::Relaxed) {
                return Err(RepositoryError::Interrupted);
            }
            let json = repository.load_file(FileKind::Index, name)?;
            let id: IndexId = name.parse().map_err(|error| damaged(name, &error))?;
            builder
                .add(id, &json)
                .map_err(|error| damaged(name, &error))?;
            files.insert(id, builder.last_file());
        }
        let supersedes = builder.superseded().clone();
        let superseded: Vec<IndexId> = files
            .keys()
            .filter(|id| supersedes.contains(id))
            .copied()
            .collect();
        files.retain(|id, _| !supersedes.contains(id));
        let index = builder.build().map_err(|error| damaged("", &error))?;
        Ok(Self {
            index,
            files,
            superseded,
            supersedes,
        })
    }

    /// What its packs are, with their files as they were listed.
    pub(crate) fn packs(&self, sizes: &HashMap<String, u64>) -> Vec<PackFacts> {
        facts(&self.index, sizes)
    }
}

/// What the packs of an index are, by its numbers, with their files as they were listed.
pub(crate) fn facts(index: &Index, sizes: &HashMap<String, u64>) -> Vec<PackFacts> {
    let mut packs: Vec<PackFacts> = index
        .packs()
        .iter()
        .map(|id| PackFacts {
            id: *id,
            expected_bytes: FIXED_BYTES as u64,
            blobs: 0,
            file_bytes: sizes.get(&id.to_string()).copied(),
        })
        .collect();
    for (number, blob) in index.iter() {
        if let Some(pack) = packs.get_mut(number as usize) {
            pack.expected_bytes += u64::from(blob.length) + blob.header_entry_bytes();
            pack.blobs += 1;
        }
    }
    packs
}

/// A pack that the index knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackFacts {
    pub(crate) id: PackId,
    /// The length of a file with these blobs.
    pub(crate) expected_bytes: u64,
    /// Blobs that the index places in it; none when only superseded files list it.
    pub(crate) blobs: u32,
    /// The length of the file, if there is one.
    pub(crate) file_bytes: Option<u64>,
}

impl PackFacts {
    /// Whether what the index places in it can be there.
    pub(crate) fn is_whole(&self) -> bool {
        self.blobs > 0 && self.file_bytes == Some(self.expected_bytes)
    }
}

/// The repository as the first phase saw it.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The snapshots that shall go.
    pub(crate) dropped: Vec<SnapshotId>,
    /// The snapshots whose blobs are all in `used`.
    pub(crate) marked: HashSet<SnapshotId>,
    pub(crate) listing: Listing,
    /// By the numbers of the index.
    pub(crate) packs: Vec<PackFacts>,
    /// The first entry of each blob that is needed.
    pub(crate) used: Bits,
}

impl Survey {
    /// Looks at everything, and reads every tree of what stays.
    pub(crate) fn take(
        repository: &Repository,
        request: &PruneRequest<'_>,
    ) -> Result<Self, RepositoryError> {
        // Snapshots before the index, the index before packs: what a backup adds meanwhile is then unknown at
        // most, never seemingly missing.
        let snapshots = all_snapshots(repository)?;
        let dropped = (request.choose)(&snapshots);
        let names = names(repository, FileKind::Index)?;
        let listing = Listing::read(repository, &names, &request.options.interrupt)?;
        let packs = listing.packs(&pack_sizes(repository)?);
        let mut survey = Self {
            used: Bits::new(listing.index.len()),
            marked: HashSet::new(),
            dropped,
            listing,
            packs,
        };
        let kept: Vec<&Snapshot> = snapshots
            .iter()
            .filter(|snapshot| !survey.dropped.contains(&snapshot.id))
            .collect();
        let mut marker = Marker::new(repository, &survey.listing.index, &survey.packs, None)?;
        for snapshot in &kept {
            let is_damaged = request.options.is_known_damaged(snapshot);
            let marker = marker.tolerant(is_damaged);
            marker.mark(snapshot.tree, &mut survey.used, &request.options.interrupt)?;
        }
        survey.marked = kept.iter().map(|snapshot| snapshot.id).collect();
        Ok(survey)
    }
}

/// All snapshots; one that cannot be read is an error, since nobody knows what it needs.
pub(crate) fn all_snapshots(repository: &Repository) -> Result<Vec<Snapshot>, RepositoryError> {
    let (snapshots, damaged) = repository.snapshots()?;
    damaged.into_iter().next().map_or(Ok(snapshots), Err)
}

pub(crate) fn names(
    repository: &Repository,
    kind: FileKind,
) -> Result<Vec<String>, RepositoryError> {
    let files = repository.storage().list(kind)?;
    let mut names: Vec<String> = files.into_iter().map(|file| file.name).collect();
    names.sort();
    Ok(names)
}

pub(crate) fn pack_sizes(repository: &Repository) -> Result<HashMap<String, u64>, RepositoryError> {
    let files = repository.storage().list(FileKind::Pack)?;
    Ok(files
        .into_iter()
        .map(|file| (file.name, file.size_bytes))
        .collect())
}
