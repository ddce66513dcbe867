//! Repositories to be damaged, and to be repaired.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_repo::check::reading::Everything;
use lifeboat_repo::copy::{CopyOptions, CopyRequest};
use lifeboat_repo::lock::{LockGuard, LockHolder, LockMode};
use lifeboat_repo::prune::{PruneOptions, PruneRequest};
use lifeboat_repo::repair::{
    Decision, RepairDone, RepairOptions, RepairPlan, RepairReport, RepairRequest, Source,
};
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, MemoryStorage};
use lifeboat_repo::tree::NodeKind;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use super::{
    PASSWORD, back_up, clock, ended_process, hand_to_restic, init, noise, rows, this_process,
};

pub const PACK_BYTES: usize = 40_000;

/// Three hours of a small database: a table that never changes, one that is new each hour, one that grows.
pub fn hour(number: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut grown = noise(7, 60_000);
    grown.extend(noise(u64::from(number), 20_000));
    vec![
        ("dump/toc.dat", rows(1, 300)),
        ("dump/tables/users/data", noise(2, 100_000)),
        (
            "dump/tables/events/data",
            noise(100 + u64::from(number), 50_000),
        ),
        ("dump/tables/memes/data", grown),
    ]
}

pub fn three_hours() -> Repository {
    let repository = init(Arc::new(MemoryStorage::new())).unwrap();
    for number in 1..=3 {
        back_up(&repository, number, &hour(number), PACK_BYTES).unwrap();
    }
    repository
}

pub fn clone_of(repository: &Repository) -> Repository {
    let copy = MemoryStorage::new();
    super::copy(&**repository.storage(), &copy);
    super::open(Arc::new(copy)).unwrap()
}

/// Whose lock nobody honours once it has let go, whatever happened.
pub fn holder() -> LockHolder {
    LockHolder {
        pid: ended_process(),
        ..this_process()
    }
}

pub fn shared_lock(repository: &Repository) -> LockGuard {
    repository
        .lock(LockMode::Shared, &holder(), clock())
        .unwrap()
}

/// All of a repository's snapshots in another one, with the same master key or with one of its own.
pub fn elsewhere(repository: &Repository, keys_are_shared: bool) -> Repository {
    let storage = Arc::new(MemoryStorage::new());
    let there = if keys_are_shared {
        let options = InitOptions {
            chunk_sizes: ChunkSizes::with_average(4 << 10),
            scrypt: ScryptParams::cheap(),
            hostname: "there".to_owned(),
            username: "tester".to_owned(),
            now: "2026-03-01T09:00:00Z".parse().unwrap(),
        };
        Repository::init_with_keys_of(repository, storage, &PASSWORD.into(), &options).unwrap()
    } else {
        init(storage).unwrap()
    };
    let (snapshots, _) = repository.snapshots().unwrap();
    let (here, to) = (shared_lock(repository), shared_lock(&there));
    repository
        .copy_to(
            &there,
            &CopyRequest {
                options: CopyOptions {
                    pack_size_bytes: PACK_BYTES * 2,
                    ..CopyOptions::default()
                },
                snapshots: &snapshots,
                source_lock: &here,
                destination_lock: &to,
                progress: &|_| (),
            },
        )
        .unwrap();
    there
}

pub fn repair(
    repository: &Repository,
    sources: &[&Repository],
    decide: &dyn Fn(&RepairPlan) -> Decision,
) -> Result<RepairReport, RepositoryError> {
    let locks: Vec<LockGuard> = sources.iter().map(|source| shared_lock(source)).collect();
    let sources: Vec<Source<'_>> = sources
        .iter()
        .zip(&locks)
        .map(|(repository, lock)| Source { repository, lock })
        .collect();
    repository.repair(&RepairRequest {
        options: RepairOptions {
            jobs: 2,
            pack_size_bytes: PACK_BYTES,
            patience: Duration::ZERO,
            interrupt: Arc::default(),
        },
        holder: holder(),
        clock: clock(),
        sources: &sources,
        reading: &Everything,
        decide,
        observer: &|_| (),
    })
}

pub fn mend(repository: &Repository, sources: &[&Repository]) -> (RepairPlan, RepairDone) {
    let report = repair(repository, sources, &|_| Decision::Mend).unwrap();
    (report.plan, report.done.unwrap())
}

pub fn give_up(repository: &Repository, sources: &[&Repository]) -> (RepairPlan, RepairDone) {
    let report = repair(repository, sources, &|_| Decision::MendAndGiveUp).unwrap();
    (report.plan, report.done.unwrap())
}

/// The content of every file of every snapshot that can be read; `None` for one that cannot. A repository whose
/// index does not load has nothing that can be read.
pub fn readable(repository: &Repository) -> BTreeMap<(SnapshotId, String), Vec<u8>> {
    let mut found = BTreeMap::new();
    let (snapshots, _) = repository.snapshots().unwrap();
    let Ok(reader) = repository.reader() else {
        return found;
    };
    for snapshot in snapshots {
        let first = snapshot.original.unwrap_or(snapshot.id);
        let mut waiting = vec![(String::new(), snapshot.tree)];
        while let Some((folder, tree)) = waiting.pop() {
            let Ok(tree) = reader.tree(tree) else {
                continue;
            };
            for node in tree.nodes {
                let path = format!("{folder}/{}", node.name);
                if node.kind == NodeKind::File
                    && let Ok(content) = reader.content(&node)
                    && let mut bytes = Vec::new()
                    && reader
                        .open(&content)
                        .unwrap()
                        .read_to_end(&mut bytes)
                        .is_ok()
                {
                    found.insert((first, path), bytes);
                } else if let Some(tree) = node.subtree {
                    waiting.push((path, tree));
                }
            }
        }
    }
    found
}

pub fn files(repository: &Repository) -> Vec<(FileKind, String)> {
    let mut all = Vec::new();
    for kind in [FileKind::Snapshot, FileKind::Index, FileKind::Pack] {
        let listed = repository.storage().list(kind).unwrap();
        all.extend(listed.into_iter().map(|file| (kind, file.name)));
    }
    all.sort();
    all
}

pub fn everything(repository: &Repository) -> BTreeMap<(FileKind, String), Vec<u8>> {
    let storage = repository.storage();
    let files = files(repository).into_iter();
    files
        .map(|(kind, name)| {
            let content = storage.read(kind, &name).unwrap();
            ((kind, name), content)
        })
        .collect()
}

/// Writes a file anew with a changed content, or removes it.
pub fn change(
    repository: &Repository,
    (kind, name): &(FileKind, String),
    change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
) {
    let storage = repository.storage();
    let content = storage.read(*kind, name).unwrap();
    storage.delete(*kind, name).unwrap();
    if let Some(content) = change(content) {
        storage.write(*kind, name, &content).unwrap();
    }
}

pub const DAMAGES: [&str; 7] = ["first", "middle", "last", "cut", "empty", "longer", "gone"];

/// Three of them for each file, and all of them where the whole torture is asked for.
pub fn damages(number: usize) -> impl Iterator<Item = &'static str> {
    let all = std::env::var_os("LIFEBOAT_TORTURE").is_some();
    let numbered = DAMAGES.into_iter().enumerate();
    numbered
        .filter(move |(turn, _)| all || (number * 3 + DAMAGES.len() - turn) % DAMAGES.len() < 3)
        .map(|(_, how)| how)
}

pub fn damage(repository: &Repository, file: &(FileKind, String), how: &str) {
    change(repository, file, |mut bytes| {
        let length = bytes.len();
        match how {
            "first" => bytes[3] ^= 1,
            "middle" => bytes[length / 2] ^= 8,
            "last" => bytes[length - 2] ^= 32,
            "cut" => bytes.truncate(length * 2 / 3),
            "empty" => bytes.clear(),
            "longer" => bytes.extend([0; 20]),
            _ => return None,
        }
        Some(bytes)
    });
}

pub fn restic_is_content(repository: &Repository) {
    let storage = MemoryStorage::new();
    super::copy(&**repository.storage(), &storage);
    hand_to_restic(&storage).check_is_clean();
}

/// Damage of every sort at once, by the numbers of the files of each sort.
pub fn ruin(repository: &Repository) {
    let all = files(repository);
    let of = |kind: FileKind| all.iter().filter(move |file| file.0 == kind);
    damage(repository, of(FileKind::Snapshot).nth(1).unwrap(), "middle");
    damage(repository, of(FileKind::Index).next().unwrap(), "cut");
    let packs: Vec<_> = of(FileKind::Pack).collect();
    assert!(packs.len() > 8, "{}", packs.len());
    for (at, pack) in packs.iter().enumerate() {
        match at % 4 {
            0 => damage(repository, pack, "gone"),
            1 => damage(repository, pack, "middle"),
            2 => damage(repository, pack, "last"),
            _ => {}
        }
    }
}

pub fn prune(repository: &Repository, gone: &[SnapshotId]) -> Result<(), RepositoryError> {
    repository
        .prune(&PruneRequest {
            options: PruneOptions {
                pack_size_bytes: PACK_BYTES,
                known_damaged: Some("damaged".to_owned()),
                ..PruneOptions::default()
            },
            holder: holder(),
            clock: clock(),
            choose: &|_: &[Snapshot]| gone.to_vec(),
            observer: &|_| (),
        })
        .map(drop)
}
