//! What is pruned, and what has to be left of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_repo::prune::{PruneOptions, PruneRequest};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, Storage};
use lifeboat_repo::tree::NodeKind;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::support::{back_up, clock, init, noise, rows, this_process};

pub const PACK_BYTES: usize = 16_000;

pub fn options() -> PruneOptions {
    PruneOptions {
        pack_size_bytes: PACK_BYTES,
        patience: Duration::ZERO,
        ..PruneOptions::default()
    }
}

pub type Choose<'a> = &'a (dyn Fn(&[Snapshot]) -> Vec<SnapshotId> + Sync);

pub fn request<'a>(choose: Choose<'a>, options: PruneOptions) -> PruneRequest<'a> {
    PruneRequest {
        options,
        holder: this_process(),
        clock: clock(),
        choose,
        observer: &|_| (),
    }
}

pub fn nothing(_: &[Snapshot]) -> Vec<SnapshotId> {
    Vec::new()
}

pub fn all_but_newest(snapshots: &[Snapshot]) -> Vec<SnapshotId> {
    let keep = snapshots.len().saturating_sub(1);
    snapshots[..keep].iter().map(|one| one.id).collect()
}

/// What a backup at `hour` holds: a part that never changes, one that grows, one that is new each time.
pub fn files(hour: u32) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("dump/toc.dat", rows(1, 300)),
        ("dump/tables/a/data.dat", noise(7, 30_000)),
        ("dump/tables/b/data.dat", noise(8, 4_000 * hour as usize)),
        (
            "dump/tables/c/data.dat",
            noise(100 + u64::from(hour), 25_000),
        ),
    ]
}

pub fn with_backups(storage: Arc<dyn Storage>, hours: std::ops::RangeInclusive<u32>) -> Repository {
    let repository = init(storage).unwrap();
    for hour in hours {
        back_up(&repository, hour, &files(hour), PACK_BYTES).unwrap();
    }
    repository
}

pub fn content(repository: &Repository, snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    let reader = repository.reader().unwrap();
    let mut nodes = Vec::new();
    reader
        .walk(snapshot, |path, node| {
            if node.kind == NodeKind::File {
                nodes.push((path.to_owned(), node.clone()));
            }
            Ok::<(), RepositoryError>(())
        })
        .unwrap();
    nodes
        .into_iter()
        .map(|(path, node)| {
            let mut bytes = Vec::new();
            let file = reader.content(&node).unwrap();
            reader.open(&file).unwrap().read_to_end(&mut bytes).unwrap();
            (path, bytes)
        })
        .collect()
}

pub fn expected(hour: u32) -> BTreeMap<String, Vec<u8>> {
    files(hour)
        .into_iter()
        .map(|(path, bytes)| (path.to_owned(), bytes))
        .collect()
}

/// Every snapshot that is left is whole, byte by byte.
pub fn is_whole(repository: &Repository) -> usize {
    let (snapshots, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty());
    for snapshot in &snapshots {
        let hour = snapshot.time.strftime("%-H").to_string().parse().unwrap();
        assert_eq!(content(repository, snapshot), expected(hour));
    }
    snapshots.len()
}

pub fn pack_bytes(storage: &dyn Storage) -> u64 {
    storage
        .list(FileKind::Pack)
        .unwrap()
        .iter()
        .map(|file| file.size_bytes)
        .sum()
}

pub fn sorted(storage: &dyn Storage, kind: FileKind) -> Vec<String> {
    let mut names: Vec<String> = storage
        .list(kind)
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect();
    names.sort();
    names
}
