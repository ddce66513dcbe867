//! Pruning removes what no snapshot needs and nothing else, wherever it is cut off and whoever works beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat_repo::lock::{LockError, LockHolder, LockMode, Patience};
use lifeboat_repo::prune::{PruneEvent, PruneOptions, PruneReport, PruneRequest};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, LocalStorage, MemoryStorage, Storage, StorageErrorKind};
use lifeboat_repo::tree::NodeKind;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use support::{
    Restic, back_up, check, clock, copy, ended_process, hand_to_restic, init, noise, open, rows,
    this_process,
};

/// Small enough that one backup fills several packs.
const PACK_BYTES: usize = 16_000;

fn options() -> PruneOptions {
    PruneOptions {
        pack_size_bytes: PACK_BYTES,
        patience: Duration::ZERO,
        ..PruneOptions::default()
    }
}

type Choose<'a> = &'a (dyn Fn(&[Snapshot]) -> Vec<SnapshotId> + Sync);

fn request<'a>(choose: Choose<'a>, options: PruneOptions) -> PruneRequest<'a> {
    PruneRequest {
        options,
        holder: this_process(),
        clock: clock(),
        choose,
        observer: &|_| (),
    }
}

fn nothing(_: &[Snapshot]) -> Vec<SnapshotId> {
    Vec::new()
}

fn all_but_newest(snapshots: &[Snapshot]) -> Vec<SnapshotId> {
    let keep = snapshots.len().saturating_sub(1);
    snapshots[..keep].iter().map(|one| one.id).collect()
}

/// What a backup at `hour` holds: a part that never changes, one that grows, one that is new each time.
fn files(hour: u32) -> Vec<(&'static str, Vec<u8>)> {
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

fn with_backups(storage: Arc<dyn Storage>, hours: std::ops::RangeInclusive<u32>) -> Repository {
    let repository = init(storage).unwrap();
    for hour in hours {
        back_up(&repository, hour, &files(hour), PACK_BYTES).unwrap();
    }
    repository
}

fn content(repository: &Repository, snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
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

fn expected(hour: u32) -> BTreeMap<String, Vec<u8>> {
    files(hour)
        .into_iter()
        .map(|(path, bytes)| (path.to_owned(), bytes))
        .collect()
}

/// Every snapshot that is left is whole, byte by byte.
fn is_whole(repository: &Repository) -> usize {
    let (snapshots, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty());
    for snapshot in &snapshots {
        let hour = snapshot.time.strftime("%-H").to_string().parse().unwrap();
        assert_eq!(content(repository, snapshot), expected(hour));
    }
    snapshots.len()
}

fn pack_bytes(storage: &dyn Storage) -> u64 {
    storage
        .list(FileKind::Pack)
        .unwrap()
        .iter()
        .map(|file| file.size_bytes)
        .sum()
}

#[test]
fn removes_what_nobody_needs_and_keeps_the_rest() {
    let storage = MemoryStorage::new();
    let repository = with_backups(Arc::new(storage.clone()), 1..=10);
    let before = pack_bytes(&storage);
    let report = repository
        .prune(&request(&all_but_newest, options()))
        .unwrap();
    assert_eq!(report.snapshots_removed.len(), 9);
    assert_eq!(is_whole(&repository), 1);
    assert_eq!(check(&repository, true).findings, []);
    let after = pack_bytes(&storage);
    assert_eq!(after, report.bytes_left);
    assert_eq!(before + report.bytes_written - report.bytes_removed, after);
    assert!(report.bytes_unreferenced * 20 <= after, "{report:?}");
    // A repository with nothing but that one backup is hardly smaller.
    let alone = MemoryStorage::new();
    with_backups(Arc::new(alone.clone()), 10..=10);
    assert!(after * 100 <= pack_bytes(&alone) * 108, "{after}");
    assert!(storage.list(FileKind::Lock).unwrap().is_empty());
    hand_to_restic(&storage).check_is_clean();

    // Again: nothing to do, nothing done.
    let again = repository.prune(&request(&nothing, options())).unwrap();
    assert_eq!(
        (
            again.packs_removed,
            again.packs_written,
            again.index_files_written
        ),
        (0, 0, 0)
    );
    // A backup on top finds what it knows.
    back_up(&repository, 11, &files(11), PACK_BYTES).unwrap();
    assert_eq!(is_whole(&repository), 2);
}

#[test]
fn any_choice_leaves_the_others_whole() {
    for seed in 0..12u64 {
        let storage = MemoryStorage::new();
        let repository = with_backups(Arc::new(storage.clone()), 1..=8);
        let bits = noise(seed, 8);
        let choose = move |snapshots: &[Snapshot]| -> Vec<SnapshotId> {
            let picked = snapshots
                .iter()
                .zip(&bits)
                .filter(|(_, bit)| **bit % 2 == 0);
            picked.map(|(one, _)| one.id).collect()
        };
        let report = repository.prune(&request(&choose, options())).unwrap();
        assert_eq!(is_whole(&repository), 8 - report.snapshots_removed.len());
        assert_eq!(check(&repository, true).findings, []);
        assert!(
            report.bytes_unreferenced * 20 <= report.bytes_left,
            "{report:?}"
        );
    }
}

#[test]
fn restic_made_the_repository_and_restic_likes_the_result() {
    let restic = Restic::new();
    restic.run(&["init"]);
    std::fs::create_dir(restic.path("in")).unwrap();
    for hour in 0..4 {
        std::fs::write(restic.path("in/same"), noise(1, 3_000_000)).unwrap();
        std::fs::write(restic.path("in/new"), noise(50 + hour, 2_000_000)).unwrap();
        restic.run(&["backup", restic.path("in").to_str().unwrap()]);
    }
    let repository = open(restic.storage()).unwrap();
    let all = PruneOptions {
        max_unused_permille: 0,
        ..options()
    };
    let report = repository.prune(&request(&all_but_newest, all)).unwrap();
    assert!(
        report.packs_written > 0 && report.packs_removed > 0,
        "{report:?}"
    );
    restic.check_is_clean();
    let back = restic.path("back");
    restic.run(&["restore", "latest", "--target", back.to_str().unwrap()]);
    let inside = back.join(restic.path("in").strip_prefix("/").unwrap());
    assert_eq!(
        std::fs::read(inside.join("same")).unwrap(),
        noise(1, 3_000_000)
    );
    assert_eq!(
        std::fs::read(inside.join("new")).unwrap(),
        noise(53, 2_000_000)
    );
    // And restic has nothing left to prune.
    let dry = restic.text(&["prune", "--dry-run", "--max-unused", "0"]);
    assert!(
        dry.contains("total prune:") && dry.contains("0 blobs"),
        "{dry}"
    );
}

#[test]
fn a_snapshot_that_lacks_a_blob_keeps_everything() {
    let base = MemoryStorage::new();
    with_backups(Arc::new(base.clone()), 1..=3);
    for file in base.list(FileKind::Pack).unwrap() {
        let storage = base.deep_clone();
        storage.delete(FileKind::Pack, &file.name).unwrap();
        let repository = open(Arc::new(storage.clone())).unwrap();
        let before: Vec<_> = support::ALL_KINDS.map(|kind| sorted(&storage, kind)).into();
        match repository.prune(&request(&all_but_newest, options())) {
            // It belonged to what goes.
            Ok(_) => assert_eq!(check(&repository, true).findings, []),
            Err(error) => {
                assert!(
                    matches!(error, RepositoryError::MissingBlob { .. }),
                    "{error}"
                );
                let after: Vec<_> = support::ALL_KINDS.map(|kind| sorted(&storage, kind)).into();
                assert_eq!(before, after, "nothing was touched");
            }
        }
    }
    // A snapshot file that cannot be read: nobody knows what it needs.
    let storage = base.deep_clone();
    let name = &storage.list(FileKind::Snapshot).unwrap()[0].name;
    storage.delete(FileKind::Snapshot, name).unwrap();
    storage
        .write(FileKind::Snapshot, name, b"nonsense")
        .unwrap();
    let repository = open(Arc::new(storage)).unwrap();
    let refused = repository.prune(&request(&all_but_newest, options()));
    assert!(matches!(
        refused,
        Err(RepositoryError::Damaged {
            kind: FileKind::Snapshot,
            ..
        })
    ));
}

fn sorted(storage: &dyn Storage, kind: FileKind) -> Vec<String> {
    let mut names: Vec<String> = storage
        .list(kind)
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect();
    names.sort();
    names
}

#[test]
fn a_flipped_bit_in_what_would_be_copied_stops_it() {
    let storage = MemoryStorage::new();
    let repository = with_backups(Arc::new(storage.clone()), 1..=3);
    for file in storage.list(FileKind::Pack).unwrap() {
        let mut bytes = storage.read(FileKind::Pack, &file.name).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 4;
        storage.delete(FileKind::Pack, &file.name).unwrap();
        storage.write(FileKind::Pack, &file.name, &bytes).unwrap();
    }
    let before = sorted(&storage, FileKind::Pack).len();
    let all = PruneOptions {
        max_unused_permille: 0,
        ..options()
    };
    let result = repository.prune(&request(&all_but_newest, all));
    assert!(
        matches!(
            result,
            Err(RepositoryError::Damaged {
                kind: FileKind::Pack,
                ..
            })
        ),
        "{result:?}"
    );
    assert!(sorted(&storage, FileKind::Pack).len() >= before);
    assert_eq!(sorted(&storage, FileKind::Snapshot).len(), 3);
}

/// A repository with six backups, and how many calls of a sort their pruning makes.
fn base(calls: Calls) -> (MemoryStorage, usize) {
    let base = MemoryStorage::new();
    with_backups(Arc::new(base.clone()), 1..=6);
    let counting = FaultyStorage::new(Arc::new(base.deep_clone()));
    prune_dying(&counting).unwrap();
    (base, counting.count(calls))
}

/// All but the two newest, by a process whose locks are stale once it is dead.
fn prune_dying(storage: &FaultyStorage) -> Result<PruneReport, RepositoryError> {
    let repository = open(Arc::new(storage.clone()))?;
    let choose = |snapshots: &[Snapshot]| -> Vec<SnapshotId> {
        let keep = snapshots.len().saturating_sub(2);
        snapshots[..keep].iter().map(|one| one.id).collect()
    };
    let all = PruneOptions {
        max_unused_permille: 0,
        ..options()
    };
    repository.prune(&PruneRequest {
        holder: LockHolder {
            pid: ended_process(),
            ..this_process()
        },
        ..request(&choose, all)
    })
}

fn cut_off_everywhere(calls: Calls, failure: Failure, kind: StorageErrorKind, ask_restic: bool) {
    let (base, count) = base(calls);
    assert!(count > 25, "packs, index files, snapshots: {count}");
    for after in 0..count {
        let storage = base.deep_clone();
        let faulty = FaultyStorage::new(Arc::new(storage.clone()));
        faulty.plan(Fault {
            calls,
            after,
            failure,
            kind,
        });
        let result = prune_dying(&faulty);
        let repository = open(Arc::new(storage.clone())).unwrap();
        assert_eq!(
            check(&repository, true).findings,
            [],
            "{failure:?} of call {after}: {result:?}"
        );
        assert!(is_whole(&repository) >= 2);
        if ask_restic {
            let restic = hand_to_restic(&storage);
            restic.run(&["unlock"]);
            // Packs that two index files list are worth a hint to it, not a complaint.
            restic.run(&["check", "--read-data"]);
        }
        // The next one needs no clean-up, and leaves what one that was not cut off leaves.
        let report = prune_dying(&FaultyStorage::new(Arc::new(storage.clone()))).unwrap();
        assert_eq!(is_whole(&repository), 2);
        assert_eq!(report.bytes_unreferenced, 0, "{failure:?} of call {after}");
        assert_eq!(
            pack_bytes(&storage),
            report.bytes_left,
            "{failure:?} of call {after}"
        );
        if ask_restic {
            hand_to_restic(&storage).check_is_clean();
        }
    }
}

#[test]
fn dead_at_any_change_leaves_what_restic_calls_clean() {
    cut_off_everywhere(Calls::Changes, Failure::Dead, StorageErrorKind::Other, true);
}

#[test]
fn dead_at_any_call_leaves_what_is_whole() {
    cut_off_everywhere(Calls::All, Failure::Dead, StorageErrorKind::Other, false);
}

#[test]
fn a_disk_that_refuses_once_leaves_what_is_whole() {
    cut_off_everywhere(
        Calls::Changes,
        Failure::Refused,
        StorageErrorKind::NoSpace,
        false,
    );
    cut_off_everywhere(Calls::All, Failure::Refused, StorageErrorKind::Other, false);
}

#[test]
fn an_answer_that_is_lost_leaves_what_is_whole() {
    cut_off_everywhere(
        Calls::Changes,
        Failure::AnswerLost,
        StorageErrorKind::Unreachable,
        false,
    );
}

/// Between looking and removing: a backup that needs what was about to go.
#[test]
fn a_backup_in_between_keeps_what_it_counts_on() {
    let storage = MemoryStorage::new();
    let repository = with_backups(Arc::new(storage.clone()), 1..=6);
    // Which goes is decided from the first look at them: a snapshot that comes later stays.
    let (first, _) = repository.snapshots().unwrap();
    let drop: Vec<SnapshotId> = first[..5].iter().map(|one| one.id).collect();
    let choose = move |_: &[Snapshot]| drop.clone();
    let in_between = AtomicBool::new(false);
    let other = open(Arc::new(storage.clone())).unwrap();
    let observer = |event: PruneEvent| {
        // Copying is the last thing before the exclusive lock: all was marked by then.
        if matches!(event, PruneEvent::Repacking { .. }) && !in_between.swap(true, Ordering::SeqCst)
        {
            let _shared = other
                .lock(LockMode::Shared, &this_process(), clock())
                .unwrap();
            // The same as the third, whose own blobs are in packs that were about to go.
            back_up(&other, 3, &files(3), PACK_BYTES).unwrap();
        }
    };
    let report = repository
        .prune(&PruneRequest {
            observer: &observer,
            ..request(&choose, options())
        })
        .unwrap();
    assert!(in_between.load(Ordering::SeqCst));
    assert_eq!(report.snapshots_removed.len(), 5);
    assert_eq!(is_whole(&repository), 2);
    assert_eq!(check(&repository, true).findings, []);
    hand_to_restic(&storage).check_is_clean();
}

#[test]
fn backups_and_prunes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(folder.path().join("repo")));
    with_backups(Arc::clone(&storage), 1..=2);
    let most = Duration::from_secs(60);
    let taken = Mutex::new(Vec::new());
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..2u32 {
            let (storage, taken, done) = (&storage, &taken, &done);
            scope.spawn(move || {
                for round in 0..6 {
                    let repository = open(Arc::clone(storage)).unwrap();
                    let patience = Patience {
                        most,
                        interrupt: &AtomicBool::new(false),
                        waits_for: &|_| (),
                    };
                    let lock = repository.lock_patiently(
                        LockMode::Shared,
                        &this_process(),
                        &clock(),
                        patience,
                    );
                    let lock = lock.unwrap();
                    let hour = 3 + round * 2 + worker;
                    let (snapshot, _) =
                        back_up(&repository, hour, &files(hour), PACK_BYTES).unwrap();
                    lock.check().unwrap();
                    taken.lock().unwrap().push(snapshot.id);
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        for _ in 0..2 {
            let (storage, done) = (&storage, &done);
            scope.spawn(move || {
                while done.load(Ordering::SeqCst) < 2 {
                    let repository = open(Arc::clone(storage)).unwrap();
                    // Drops what is older than the three newest by name of hour.
                    let choose = |snapshots: &[Snapshot]| -> Vec<SnapshotId> {
                        let keep = snapshots.len().saturating_sub(3);
                        snapshots[..keep].iter().map(|one| one.id).collect()
                    };
                    let patient = PruneOptions {
                        patience: most,
                        ..options()
                    };
                    repository.prune(&request(&choose, patient)).unwrap();
                }
            });
        }
    });
    let repository = open(storage).unwrap();
    repository.prune(&request(&nothing, options())).unwrap();
    assert!(is_whole(&repository) >= 3);
    assert_eq!(check(&repository, true).findings, []);
    assert_eq!(taken.lock().unwrap().len(), 12);
}

/// The process stops; someone takes its lock for stale and prunes; it wakes.
#[test]
fn who_lost_the_lock_removes_nothing() {
    for stop_at in ["marking", "repacking", "removing"] {
        let storage = MemoryStorage::new();
        let repository = with_backups(Arc::new(storage.clone()), 1..=6);
        let other = open(Arc::new(storage.clone())).unwrap();
        let seen = Mutex::new(None);
        let observer = |event: PruneEvent| {
            let now = match event {
                PruneEvent::Marking => "marking",
                PruneEvent::Repacking { .. } => "repacking",
                PruneEvent::Removing { .. } => "removing",
                PruneEvent::Waiting(_) => "waiting",
            };
            if now != stop_at || seen.lock().unwrap().is_some() {
                return;
            }
            // As `restic unlock --remove-all` does.
            for lock in storage.list(FileKind::Lock).unwrap() {
                storage.delete(FileKind::Lock, &lock.name).unwrap();
            }
            *seen.lock().unwrap() = Some(());
            other.prune(&request(&all_but_newest, options())).unwrap();
            *seen.lock().unwrap() = Some(());
        };
        let before_waking = || support::ALL_KINDS.map(|kind| sorted(&storage, kind));
        let result = repository.prune(&PruneRequest {
            observer: &observer,
            ..request(&all_but_newest, options())
        });
        if stop_at == "removing" {
            assert!(
                matches!(result, Err(RepositoryError::Lock(LockError::Lost { .. }))),
                "{stop_at}: {result:?}"
            );
        }
        let after = before_waking();
        assert_eq!(after[3].len(), 1, "{stop_at}");
        assert_eq!(is_whole(&repository), 1, "{stop_at}");
        assert_eq!(check(&repository, true).findings, [], "{stop_at}");
    }
}

#[test]
fn an_interrupt_between_two_files_leaves_what_is_whole() {
    let base = MemoryStorage::new();
    with_backups(Arc::new(base.clone()), 1..=5);
    let storage = MemoryStorage::new();
    copy(&base, &storage);
    let repository = open(Arc::new(storage)).unwrap();
    let interrupt = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&interrupt);
    let observer = move |event: PruneEvent| {
        if matches!(event, PruneEvent::Removing { .. }) {
            stopping.store(true, Ordering::SeqCst);
        }
    };
    let result = repository.prune(&PruneRequest {
        observer: &observer,
        ..request(
            &all_but_newest,
            PruneOptions {
                interrupt,
                ..options()
            },
        )
    });
    assert!(
        matches!(result, Err(RepositoryError::Interrupted)),
        "{result:?}"
    );
    assert_eq!(is_whole(&repository), 5);
}

#[test]
fn many_small_packs_and_index_files_become_few() {
    let storage = MemoryStorage::new();
    let repository = init(Arc::new(storage.clone())).unwrap();
    for hour in 0..23 {
        for round in 0..2u64 {
            let file = vec![("x", noise(u64::from(hour) * 2 + round, 500))];
            back_up(&repository, hour, &file, 1 << 20).unwrap();
        }
    }
    let (packs, indexes) = (
        sorted(&storage, FileKind::Pack).len(),
        sorted(&storage, FileKind::Index).len(),
    );
    assert_eq!((packs, indexes), (92, 46));
    let large = PruneOptions {
        pack_size_bytes: 1 << 20,
        ..options()
    };
    repository.prune(&request(&nothing, large.clone())).unwrap();
    repository.prune(&request(&nothing, large)).unwrap();
    assert_eq!(sorted(&storage, FileKind::Pack).len(), 2);
    assert!(sorted(&storage, FileKind::Index).len() <= 2);
    assert_eq!(check(&repository, true).findings, []);
    hand_to_restic(&storage).check_is_clean();
}

#[test]
fn an_estimate_changes_nothing_and_is_near() {
    let storage = MemoryStorage::new();
    let repository = with_backups(Arc::new(storage.clone()), 1..=6);
    let before = support::ALL_KINDS.map(|kind| sorted(&storage, kind));
    let estimate = repository
        .prune_estimate(&request(&all_but_newest, options()))
        .unwrap();
    assert_eq!(
        before,
        support::ALL_KINDS.map(|kind| sorted(&storage, kind))
    );
    let size = pack_bytes(&storage);
    repository
        .prune(&request(&all_but_newest, options()))
        .unwrap();
    let freed = size - pack_bytes(&storage);
    assert!(
        estimate.bytes.abs_diff(freed) * 10 <= freed,
        "{} {freed}",
        estimate.bytes
    );
}

#[test]
fn the_first_identity_still_finds_it() {
    let storage = MemoryStorage::new();
    let repository = with_backups(Arc::new(storage.clone()), 1..=2);
    let (snapshots, _) = repository.snapshots().unwrap();
    let lock = repository
        .lock(LockMode::Exclusive, &this_process(), clock())
        .unwrap();
    let mut tags = snapshots[0].tags.clone();
    tags.push("hold".to_owned());
    let held = repository.retag(&snapshots[0], tags, &lock).unwrap();
    let again = repository
        .retag(&held, snapshots[0].tags.clone(), &lock)
        .unwrap();
    drop(lock);
    assert_eq!(again.original, Some(snapshots[0].id));
    let found = repository.find_snapshot(&snapshots[0].id.short()).unwrap();
    assert_eq!(found, again);
    assert!(repository.find_snapshot(&held.id.to_string()).is_err());
    // A change of tags that was cut off leaves two of the same first identity: that is no ambiguity.
    let sealed = storage
        .read(FileKind::Snapshot, &again.id.to_string())
        .unwrap();
    let lock = repository
        .lock(LockMode::Exclusive, &this_process(), clock())
        .unwrap();
    let other = repository
        .retag(&again, vec!["other".to_owned()], &lock)
        .unwrap();
    drop(lock);
    storage
        .write(FileKind::Snapshot, &again.id.to_string(), &sealed)
        .unwrap();
    let found = repository.find_snapshot(&snapshots[0].id.short()).unwrap();
    assert!([&again, &other].contains(&&found));
    storage
        .delete(FileKind::Snapshot, &other.id.to_string())
        .unwrap();
    assert_eq!(repository.snapshots().unwrap().0.len(), 2);
    let restic = hand_to_restic(&storage);
    restic.check_is_clean();
    assert!(
        restic
            .text(&["snapshots", "--json"])
            .contains(&again.id.to_string())
    );
}
