//! A backup that is cut off at any call to the storage leaves a valid repository, and the next one needs no
//! clean-up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use lifeboat_repo::lock::{LockHolder, LockMode};
use lifeboat_repo::storage::{FileKind, MemoryStorage, Storage, StorageErrorKind};
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use support::{
    back_up, check, clock, ended_process, hand_to_restic, init, noise, open, rows, this_process,
};

/// Small enough that one backup fills several packs.
const PACK_BYTES: usize = 20_000;

fn first() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("dump/toc.dat", rows(1, 500)),
        ("dump/tables/users/data.dat", noise(2, 40_000)),
    ]
}

fn second() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("dump/toc.dat", rows(1, 500)),
        ("dump/tables/users/data.dat", noise(3, 60_000)),
    ]
}

fn locked_backup(storage: &Arc<dyn Storage>) -> Result<SnapshotId, RepositoryError> {
    let repository = open(Arc::clone(storage))?;
    // When this run dies its lock is one of a process that is no more.
    let holder = LockHolder {
        pid: ended_process(),
        ..this_process()
    };
    let _lock = repository.lock(LockMode::Shared, &holder, clock())?;
    Ok(back_up(&repository, 2, &second(), PACK_BYTES)?.0.id)
}

fn snapshot_ids(repository: &Repository) -> Vec<SnapshotId> {
    let (snapshots, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    snapshots.into_iter().map(|snapshot| snapshot.id).collect()
}

/// A repository with one snapshot, and how many calls of a sort a second backup makes.
fn base(calls: Calls) -> (MemoryStorage, SnapshotId, usize) {
    let base = MemoryStorage::new();
    let repository = init(Arc::new(base.clone())).unwrap();
    let (snapshot, _) = back_up(&repository, 1, &first(), PACK_BYTES).unwrap();
    let counting = FaultyStorage::new(Arc::new(base.deep_clone()));
    locked_backup(&(Arc::new(counting.clone()) as Arc<dyn Storage>)).unwrap();
    (base, snapshot.id, counting.count(calls))
}

fn cut_off_everywhere(calls: Calls, failure: Failure, kind: StorageErrorKind, ask_restic: bool) {
    let (base, kept, count) = base(calls);
    assert!(count > 8, "several packs, an index, a snapshot, a lock");
    for after in 0..count {
        let storage = base.deep_clone();
        let faulty = FaultyStorage::new(Arc::new(storage.clone()));
        faulty.plan(Fault {
            calls,
            after,
            failure,
            kind,
        });
        let result = locked_backup(&(Arc::new(faulty.clone()) as Arc<dyn Storage>));

        let repository = open(Arc::new(storage.clone())).unwrap();
        assert_eq!(
            check(&repository, true).findings,
            [],
            "{failure:?} of call {after}"
        );
        let left = snapshot_ids(&repository);
        match &result {
            Ok(new) => assert_eq!(left, [kept, *new], "{failure:?} of call {after}"),
            // Whether the write was done is unknown to the writer; if so, then wholly.
            Err(_) if failure == Failure::AnswerLost => {
                assert!(left.starts_with(&[kept]) && left.len() <= 2)
            }
            Err(_) => assert_eq!(left, [kept], "{failure:?} of call {after}: {result:?}"),
        }
        if ask_restic {
            let restic = hand_to_restic(&storage);
            restic.run(&["unlock"]);
            restic.check_is_clean();
        }

        let next = locked_backup(&(Arc::new(storage.clone()) as Arc<dyn Storage>)).unwrap();
        assert!(snapshot_ids(&repository).contains(&next));
        assert_eq!(check(&repository, true).findings, []);
        assert!(
            storage.list(FileKind::Lock).unwrap().is_empty(),
            "no clean-up was needed"
        );
    }
}

#[test]
fn a_process_that_dies_at_any_change_leaves_a_repository_that_restic_calls_clean() {
    cut_off_everywhere(Calls::Changes, Failure::Dead, StorageErrorKind::Other, true);
}

#[test]
fn a_process_that_dies_at_any_call_leaves_a_valid_repository() {
    cut_off_everywhere(Calls::All, Failure::Dead, StorageErrorKind::Other, false);
}

#[test]
fn a_disk_that_is_full_once_leaves_a_valid_repository() {
    cut_off_everywhere(
        Calls::Changes,
        Failure::Refused,
        StorageErrorKind::NoSpace,
        false,
    );
}

#[test]
fn an_answer_lost_on_the_way_leaves_a_valid_repository() {
    cut_off_everywhere(
        Calls::Changes,
        Failure::AnswerLost,
        StorageErrorKind::Unreachable,
        false,
    );
}

#[test]
fn what_was_stored_before_the_end_is_not_stored_again() {
    let (base, _, count) = base(Calls::Changes);
    // The last change is the lock's removal, the one before it the snapshot.
    let storage = base.deep_clone();
    let faulty = FaultyStorage::new(Arc::new(storage.clone()));
    let (calls, kind) = (Calls::Changes, StorageErrorKind::Other);
    faulty.plan(Fault {
        calls,
        after: count - 2,
        failure: Failure::Dead,
        kind,
    });
    locked_backup(&(Arc::new(faulty) as Arc<dyn Storage>)).unwrap_err();

    let packs = storage.list(FileKind::Pack).unwrap().len();
    locked_backup(&(Arc::new(storage.clone()) as Arc<dyn Storage>)).unwrap();
    assert_eq!(storage.list(FileKind::Pack).unwrap().len(), packs);
}

#[test]
fn an_interrupted_init_can_be_run_again() {
    let counting = FaultyStorage::new(Arc::new(MemoryStorage::new()));
    init(Arc::new(counting.clone())).unwrap();
    for failure in [Failure::Refused, Failure::AnswerLost, Failure::Dead] {
        for after in 0..counting.count(Calls::All) {
            let storage = MemoryStorage::new();
            let faulty = FaultyStorage::new(Arc::new(storage.clone()));
            faulty.plan(Fault {
                calls: Calls::All,
                after,
                failure,
                kind: StorageErrorKind::Other,
            });
            init(Arc::new(faulty)).unwrap_err();
            let again = match init(Arc::new(storage.clone())) {
                // Only the answer to the very last write was lost.
                Err(RepositoryError::AlreadyExists { .. }) if failure == Failure::AnswerLost => {
                    open(Arc::new(storage)).unwrap()
                }
                again => again.unwrap(),
            };
            back_up(&again, 1, &first(), PACK_BYTES).unwrap();
            assert_eq!(check(&again, true).findings, []);
        }
    }
}
