//! What has to move: which blobs the destination lacks, and out of which packs they come.

use super::Uncopied;
use super::adopt::Unlisted;
use crate::error::RepositoryError;
use crate::id::{BlobId, PackId};
use crate::index::Index;
use crate::pack::{BlobKind, FIXED_BYTES, PackedBlob};
use crate::prune::bits::Bits;
use crate::prune::mark::Marker;
use crate::prune::survey::{PackFacts, facts, pack_sizes};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::StorageErrorKind;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// A longer pack is not taken into memory whole: its blobs move one by one. Ours end at a quarter of it.
const MOST_WHOLE_BYTES: u64 = 64 << 20;
/// Snapshots are put together until so much has to move for them: each batch ends with an index file.
const BATCH_BYTES: u64 = 512 << 20;

/// A pack of the source that something is wanted of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Its number in the source's index.
    pub(super) pack: u32,
    /// Which of [`Plan::moves`] are its blobs, by their place in it.
    pub(super) moves: Range<usize>,
    /// Whether it moves as it is.
    pub(super) is_whole: bool,
    /// What it takes in the destination, about.
    pub(super) bytes: u64,
}

/// Packs that move together, and the snapshots that are whole then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Batch {
    pub(super) tasks: Range<usize>,
    pub(super) snapshots: Range<usize>,
}

/// What has to move, in which order.
pub(super) struct Plan {
    pub(super) index: Index,
    pub(super) packs: Vec<PackFacts>,
    /// Every blob that moves: its pack, its offset there, and its place in the index.
    pub(super) moves: Vec<(u32, u32, u32)>,
    pub(super) tasks: Vec<Task>,
    pub(super) batches: Vec<Batch>,
    /// Snapshots whose trees can't be read or that lack a blob, by their place in what was asked for.
    pub(super) unreadable: BTreeMap<usize, String>,
    /// Packs of the destination to be listed first.
    pub(super) adopted: Vec<(PackId, Vec<PackedBlob>)>,
}

/// What the destination has.
struct There {
    index: Index,
    unlisted: Unlisted,
    /// Names that are taken by files that are of no use: a pack cannot be brought under such a name.
    taken: HashSet<PackId>,
}

impl There {
    fn look(destination: &Repository, interrupt: &AtomicBool) -> Result<Self, RepositoryError> {
        // The index before packs: what others add meanwhile is then unknown at most, never seemingly missing.
        let index = destination.load_index()?;
        let sizes = pack_sizes(destination)?;
        let packs = facts(&index, &sizes);
        let numbers = packs.iter().zip(0u32..);
        let lost: HashSet<u32> = numbers
            .filter(|(pack, _)| !pack.is_whole())
            .map(|(_, number)| number)
            .collect();
        let whole: HashSet<String> = packs
            .iter()
            .filter(|pack| pack.is_whole())
            .map(|pack| pack.id.to_string())
            .collect();
        let mut others: Vec<(String, u64)> = sizes
            .into_iter()
            .filter(|(name, _)| !whole.contains(name))
            .collect();
        others.sort();
        let unlisted = Unlisted::read(destination, &others, interrupt)?;
        let taken = others
            .iter()
            .filter_map(|(name, _)| name.parse().ok())
            .collect();
        Ok(Self {
            index: index.without_packs(&lost),
            unlisted,
            taken,
        })
    }

    fn has(&mut self, kind: BlobKind, id: &BlobId) -> bool {
        self.index.contains(kind, id) || self.unlisted.take(kind, id)
    }
}

impl Plan {
    pub(super) fn make(
        source: &Repository,
        destination: &Repository,
        snapshots: &[Snapshot],
        interrupt: &AtomicBool,
    ) -> Result<Self, RepositoryError> {
        let mut there = There::look(destination, interrupt)?;
        let index = source.load_index()?;
        let packs = facts(&index, &pack_sizes(source)?);
        let mut gathered = Gathered {
            group_of: vec![None; packs.len()],
            moves: Vec::new(),
        };
        let mut unreadable = BTreeMap::new();
        let mut used = Bits::new(index.len());
        let mut marker = Marker::new(source, &index, &packs, None)?;
        for (group, snapshot) in snapshots.iter().enumerate() {
            let before = used.clone();
            match marker.mark(snapshot.tree, &mut used, interrupt) {
                Ok(()) => {}
                Err(error) if is_damage(&error) => {
                    // A tree that is marked counts as read with all below it, which this one was not.
                    used = before;
                    unreadable.insert(group, error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            }
            for at in used.added_since(&before) {
                gathered.want(at, group, &index, &packs, &mut there)?;
            }
        }
        let may_move_whole = source.shares_keys_with(destination);
        let (tasks, groups) =
            gathered.tasks(&packs, |id| may_move_whole && !there.taken.contains(id));
        let tasks = tasks
            .into_iter()
            .map(|task| weigh(task, &gathered.moves, &index, &packs))
            .collect::<Vec<Task>>();
        Ok(Self {
            batches: batches(&tasks, &groups, snapshots.len()),
            tasks,
            moves: gathered.moves,
            index,
            packs,
            unreadable,
            adopted: there.unlisted.into_taken(),
        })
    }

    /// The blobs of a task, by their offset.
    pub(super) fn blobs(&self, task: &Task) -> Vec<PackedBlob> {
        self.moves[task.moves.clone()]
            .iter()
            .filter_map(|(_, _, at)| self.index.entry(*at as usize))
            .map(|(_, blob)| blob)
            .collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.tasks.iter().map(|task| task.bytes).sum()
    }

    pub(super) fn unreadable(&self, snapshots: &[Snapshot]) -> Vec<Uncopied> {
        self.unreadable
            .iter()
            .filter_map(|(at, what)| {
                let id = snapshots.get(*at)?.id;
                let what = what.clone();
                Some(Uncopied { id, what })
            })
            .collect()
    }
}

/// Whether a failure says something about the source's content.
pub(super) fn is_damage(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Damaged { .. } | RepositoryError::MissingBlob { .. } => true,
        // Where we may not look, nobody knows what is there.
        RepositoryError::Storage(error) => {
            error.is_about_the_file() && error.kind() != StorageErrorKind::PermissionDenied
        }
        _ => false,
    }
}

struct Gathered {
    /// The first snapshot that needs something of a pack.
    group_of: Vec<Option<usize>>,
    moves: Vec<(u32, u32, u32)>,
}

impl Gathered {
    /// Takes note of the blob whose first entry is `at`, unless it is there.
    fn want(
        &mut self,
        at: usize,
        group: usize,
        index: &Index,
        packs: &[PackFacts],
        there: &mut There,
    ) -> Result<(), RepositoryError> {
        let Some((_, blob)) = index.entry(at) else {
            return Ok(());
        };
        if there.has(blob.kind, &blob.id) {
            return Ok(());
        }
        let place = index.span(blob.kind, &blob.id).find_map(|at| {
            let (number, blob) = index.entry(at)?;
            let is_whole = packs.get(number as usize)?.is_whole();
            is_whole.then_some((number, blob.offset, at))
        });
        let (number, offset, at) = place.ok_or(RepositoryError::MissingBlob {
            kind: blob.kind,
            id: blob.id,
        })?;
        if let Some(first) = self.group_of.get_mut(number as usize) {
            first.get_or_insert(group);
        }
        let at = u32::try_from(at).map_err(super::encode)?;
        self.moves.push((number, offset, at));
        Ok(())
    }

    /// The tasks in the order in which snapshots need them, and for each the snapshot.
    fn tasks(
        &mut self,
        packs: &[PackFacts],
        may_move_whole: impl Fn(&PackId) -> bool,
    ) -> (Vec<Task>, Vec<usize>) {
        self.moves.sort_unstable();
        let mut found: Vec<(usize, Task)> = Vec::new();
        let mut start = 0;
        for of_pack in self.moves.chunk_by(|left, right| left.0 == right.0) {
            let moves = start..start + of_pack.len();
            start = moves.end;
            let pack = of_pack[0].0;
            let Some(facts) = packs.get(pack as usize) else {
                continue;
            };
            let is_whole = facts.blobs as usize == of_pack.len()
                && facts.expected_bytes <= MOST_WHOLE_BYTES
                && may_move_whole(&facts.id);
            let group = self.group_of.get(pack as usize).copied().flatten();
            found.push((
                group.unwrap_or(0),
                Task {
                    pack,
                    moves,
                    is_whole,
                    bytes: 0,
                },
            ));
        }
        found.sort_by_key(|(group, task)| (*group, task.pack));
        let groups = found.iter().map(|(group, _)| *group).collect();
        (found.into_iter().map(|(_, task)| task).collect(), groups)
    }
}

fn weigh(task: Task, moves: &[(u32, u32, u32)], index: &Index, packs: &[PackFacts]) -> Task {
    let bytes = if task.is_whole {
        packs
            .get(task.pack as usize)
            .map_or(0, |pack| pack.expected_bytes)
    } else {
        let blobs = moves[task.moves.clone()].iter();
        let lengths = blobs.filter_map(|(_, _, at)| index.entry(*at as usize));
        let sum: u64 = lengths
            .map(|(_, blob)| u64::from(blob.length) + blob.header_entry_bytes())
            .sum();
        sum + FIXED_BYTES as u64
    };
    Task { bytes, ..task }
}

/// The first snapshot alone, since it is the one that is wanted most; then as many together as make a good deal.
fn batches(tasks: &[Task], groups: &[usize], snapshots: usize) -> Vec<Batch> {
    let mut by_group: HashMap<usize, (usize, u64)> = HashMap::new();
    for (group, task) in groups.iter().zip(tasks) {
        let (count, bytes) = by_group.entry(*group).or_default();
        *count += 1;
        *bytes += task.bytes;
    }
    let mut found = Vec::new();
    let mut batch = Batch::default();
    let mut bytes = 0;
    for group in 0..snapshots {
        let (count, more) = by_group.get(&group).copied().unwrap_or_default();
        batch.tasks.end += count;
        batch.snapshots.end = group + 1;
        bytes += more;
        if group == 0 || group + 1 == snapshots || bytes >= BATCH_BYTES {
            found.push(batch.clone());
            batch.tasks.start = batch.tasks.end;
            batch.snapshots.start = batch.snapshots.end;
            bytes = 0;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_snapshot_does_not_wait_for_the_others() {
        let task = |bytes| Task {
            pack: 0,
            moves: 0..0,
            is_whole: true,
            bytes,
        };
        let sizes = [10, 20, 400 << 20, 200 << 20, 5];
        let tasks: Vec<Task> = sizes.map(task).to_vec();
        // The second snapshot of six needs two packs, the fifth none.
        let found = batches(&tasks, &[0, 1, 2, 3, 5], 6);
        let ranges: Vec<_> = found
            .into_iter()
            .map(|batch| (batch.tasks, batch.snapshots))
            .collect();
        assert_eq!(ranges, [(0..1, 0..1), (1..4, 1..4), (4..5, 4..6)]);
        assert!(batches(&[], &[], 0).is_empty());
    }
}
