//! Who else is at work meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat_repo::lock::{LockError, LockMode, Patience};
use lifeboat_repo::prune::{PruneEvent, PruneOptions, PruneRequest};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, LocalStorage, MemoryStorage, Storage};
use lifeboat_repo::{RepositoryError, SnapshotId};

use crate::backups::{
    PACK_BYTES, all_but_newest, files, is_whole, nothing, options, request, sorted, with_backups,
};
use crate::support::{back_up, check, clock, hand_to_restic, open, this_process};

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
        let before_waking = || crate::support::ALL_KINDS.map(|kind| sorted(&storage, kind));
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
