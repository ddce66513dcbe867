//! Wherever it ends early, what is left is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_repo::lock::LockHolder;
use lifeboat_repo::prune::{PruneEvent, PruneOptions, PruneReport, PruneRequest};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{MemoryStorage, StorageErrorKind};
use lifeboat_repo::{RepositoryError, SnapshotId};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};

use crate::backups::{all_but_newest, is_whole, options, pack_bytes, request, with_backups};
use crate::support::{check, copy, ended_process, hand_to_restic, open, this_process};

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
