//! What is copied, where to, and what it is compared with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_repo::copy::{CopyOptions, CopyReport, CopyRequest};
use lifeboat_repo::lock::{LockHolder, LockMode, Patience};
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, MemoryStorage, Storage};
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::support::{
    back_up, clock, ended_process, hand_to_restic, init, noise, rows, this_process,
};

pub const PACK_BYTES: usize = 40_000;

pub const OTHER_PASSWORD: &str = "another horse";

/// A repository beside `primary` with the same master key, under another password.
pub fn beside(primary: &Repository, storage: Arc<dyn Storage>) -> Repository {
    let options = InitOptions {
        chunk_sizes: ChunkSizes::with_average(64 << 10),
        scrypt: ScryptParams::cheap(),
        hostname: "there".to_owned(),
        username: "tester".to_owned(),
        now: "2026-03-01T09:00:00Z".parse().unwrap(),
    };
    Repository::init_with_keys_of(primary, storage, &OTHER_PASSWORD.into(), &options).unwrap()
}

pub fn memory(repository: &Repository) -> MemoryStorage {
    let copy = MemoryStorage::new();
    crate::support::copy(&**repository.storage(), &copy);
    copy
}

pub fn newest_first(repository: &Repository) -> Vec<Snapshot> {
    let (mut snapshots, damaged) = repository.snapshots().unwrap();
    assert_eq!(damaged.len(), 0);
    snapshots.reverse();
    snapshots
}

pub fn ids(snapshots: &[Snapshot]) -> BTreeSet<SnapshotId> {
    snapshots.iter().map(|snapshot| snapshot.id).collect()
}

pub fn copy(
    source: &Repository,
    destination: &Repository,
    snapshots: &[Snapshot],
) -> Result<CopyReport, RepositoryError> {
    // When a run dies its lock is one of a process that is no more.
    let holder = LockHolder {
        pid: ended_process(),
        ..this_process()
    };
    copy_as(&holder, source, destination, snapshots)
}

pub fn patiently(
    repository: &Repository,
    holder: &LockHolder,
) -> Result<lifeboat_repo::lock::LockGuard, RepositoryError> {
    let patience = Patience {
        most: Duration::from_secs(60),
        interrupt: &false.into(),
        waits_for: &|_| (),
    };
    repository.lock_patiently(LockMode::Shared, holder, &clock(), patience)
}

pub fn copy_as(
    holder: &LockHolder,
    source: &Repository,
    destination: &Repository,
    snapshots: &[Snapshot],
) -> Result<CopyReport, RepositoryError> {
    let source_lock = patiently(source, holder)?;
    let destination_lock = patiently(destination, holder)?;
    source.copy_to(
        destination,
        &CopyRequest {
            options: CopyOptions {
                pack_size_bytes: PACK_BYTES,
                jobs: 3,
                ..CopyOptions::default()
            },
            snapshots,
            source_lock: &source_lock,
            destination_lock: &destination_lock,
            progress: &|now| assert!(now.packs_done <= now.packs_total, "{now:?}"),
        },
    )
}

pub fn packs(repository: &Repository) -> BTreeSet<String> {
    let files = repository.storage().list(FileKind::Pack).unwrap();
    files.into_iter().map(|file| file.name).collect()
}

pub fn content(repository: &Repository, snapshot: &Snapshot, path: &str) -> Vec<u8> {
    use std::io::Read;
    let reader = repository.reader().unwrap();
    let node = reader.find(snapshot, path).unwrap();
    let mut bytes = Vec::new();
    let mut file = reader.open(&reader.content(&node).unwrap()).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// restic, with that password, finds nothing wrong with any byte.
pub fn restic_is_content(repository: &Repository, password: &str) {
    let restic = hand_to_restic(&memory(repository));
    let output = restic
        .command(&["check", "--read-data"])
        .env("RESTIC_PASSWORD", password)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && out.contains("no errors were found"),
        "{out}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Three hours of a small database: a table that never changes, one that is new each hour, one that grows.
pub fn hour(number: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut grown = noise(7, 60_000);
    grown.extend(noise(u64::from(number), 20_000));
    vec![
        ("dump/toc.dat", rows(1, 300)),
        ("dump/tables/users/data", noise(2, 200_000)),
        (
            "dump/tables/events/data",
            noise(100 + u64::from(number), 50_000),
        ),
        ("dump/tables/memes/data", grown),
    ]
}

pub fn three_hours() -> Repository {
    let source = init(Arc::new(MemoryStorage::new())).unwrap();
    for number in 1..=3 {
        back_up(&source, number, &hour(number), PACK_BYTES).unwrap();
    }
    source
}

/// Writes a file anew with a changed content.
pub fn change(repository: &Repository, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let storage = repository.storage();
    let mut content = storage.read(FileKind::Pack, name).unwrap();
    change(&mut content);
    storage.delete(FileKind::Pack, name).unwrap();
    storage.write(FileKind::Pack, name, &content).unwrap();
}
