//! Who else is at work meanwhile.

use std::sync::Arc;

use lifeboat_repo::copy::{CopyOptions, CopyRequest};
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::prune::{PruneOptions, PruneRequest};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, MemoryStorage};
use lifeboat_repo::{Repository, RepositoryError};
use lifeboat_testkit::faulty_storage::FaultyStorage;

use crate::places::{
    OTHER_PASSWORD, PACK_BYTES, beside, copy, copy_as, hour, ids, newest_first, patiently,
    restic_is_content, three_hours,
};
use crate::support::{back_up, check, clock, this_process};

/// Backups, a copy and a prune of the copy, all at once: what is there in the end is whole.
#[test]
fn beside_backups_and_a_prune_of_the_copy() {
    let source = three_hours();
    let there = beside(&source, Arc::new(MemoryStorage::new()));
    let holder = this_process();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let done = || is_done.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let backing_up = scope.spawn(|| {
            for number in 4..16 {
                let _lock = patiently(&source, &holder).unwrap();
                back_up(&source, number, &hour(number), PACK_BYTES).unwrap();
            }
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let pruning = scope.spawn(|| {
            // The three newest stay.
            let choose = |snapshots: &[Snapshot]| {
                let count = snapshots.len().saturating_sub(3);
                snapshots[..count].iter().map(|one| one.id).collect()
            };
            let request = PruneRequest {
                options: PruneOptions {
                    pack_size_bytes: PACK_BYTES,
                    ..PruneOptions::default()
                },
                holder: holder.clone(),
                clock: clock(),
                choose: &choose,
                observer: &|_| (),
            };
            while !done() {
                there.prune(&request).unwrap();
            }
        });
        while !done() {
            let newest = newest_first(&source);
            let known = ids(&there.snapshots().unwrap().0);
            let lacking = newest.into_iter().take(3);
            let lacking: Vec<Snapshot> = lacking.filter(|one| !known.contains(&one.id)).collect();
            let report = copy_as(&holder, &source, &there, &lacking).unwrap();
            assert_eq!(report.damaged, []);
        }
        pruning.join().unwrap();
        backing_up.join().unwrap();
    });
    copy(&source, &there, &newest_first(&source)[..3]).unwrap();
    assert_eq!(check(&there, true).findings, []);
    assert_eq!(check(&source, true).findings, []);
    restic_is_content(&there, OTHER_PASSWORD);
}

#[test]
fn a_lost_lock_ends_the_copy() {
    let source = three_hours();
    let there = beside(&source, Arc::new(MemoryStorage::new()));
    let holder = this_process();
    let source_lock = source.lock(LockMode::Shared, &holder, clock()).unwrap();
    let destination_lock = there.lock(LockMode::Shared, &holder, clock()).unwrap();
    for file in there.storage().list(FileKind::Lock).unwrap() {
        there.storage().delete(FileKind::Lock, &file.name).unwrap();
    }
    let result = source.copy_to(
        &there,
        &CopyRequest {
            options: CopyOptions::default(),
            snapshots: &newest_first(&source),
            source_lock: &source_lock,
            destination_lock: &destination_lock,
            progress: &|_| (),
        },
    );
    assert!(
        matches!(result, Err(RepositoryError::Lock(_))),
        "{result:?}"
    );
    assert!(newest_first(&there).is_empty());
}

/// A destination where, right before the file of that kind is written that comes after so many others, somebody
/// takes the copy's lock for stale and prunes what no snapshot needs yet: the machine that copies slept.
fn pruned_meanwhile(source: &Repository, kind: FileKind, after: usize) -> Repository {
    let storage = MemoryStorage::new();
    drop(beside(source, Arc::new(storage.clone())));
    let others = Repository::open(Arc::new(storage.clone()), &OTHER_PASSWORD.into()).unwrap();
    let faulty = FaultyStorage::new(Arc::new(storage));
    let there = Repository::open(Arc::new(faulty.clone()), &OTHER_PASSWORD.into()).unwrap();
    faulty.meanwhile(kind, after, move || {
        for file in others.storage().list(FileKind::Lock).unwrap() {
            others.storage().delete(FileKind::Lock, &file.name).unwrap();
        }
        let request = PruneRequest {
            options: PruneOptions {
                pack_size_bytes: PACK_BYTES,
                ..PruneOptions::default()
            },
            holder: this_process(),
            clock: clock(),
            choose: &|_| Vec::new(),
            observer: &|_| (),
        };
        assert!(others.prune(&request).unwrap().packs_removed > 0);
    });
    there
}

/// Whether the copy then ends or goes on, no backup with a hole stands.
#[test]
fn a_snapshot_whose_data_was_pruned_before_it_was_written_does_not_stand() {
    let source = three_hours();
    let snapshots = newest_first(&source);
    // The second of three: it shares its batch with the third. And the third, after which nothing comes.
    for after in [1, 2] {
        let there = pruned_meanwhile(&source, FileKind::Snapshot, after);
        let result = copy(&source, &there, &snapshots);
        assert!(
            matches!(result, Err(RepositoryError::Lock(_))),
            "{after}: {result:?}"
        );
        assert_eq!(check(&there, true).findings, [], "{after}");
        assert_eq!(newest_first(&there).len(), after, "{after}");
        // The next run brings what is missing.
        let report = copy(&source, &there, &snapshots[after..]).unwrap();
        assert_eq!(report.copied.len(), 3 - after);
        assert_eq!(check(&there, true).findings, []);
    }
}

#[test]
fn no_index_names_packs_that_were_pruned_while_the_lock_was_lost() {
    let source = three_hours();
    let there = pruned_meanwhile(&source, FileKind::Pack, 3);
    let result = copy(&source, &there, &newest_first(&source));
    assert!(
        matches!(result, Err(RepositoryError::Lock(_))),
        "{result:?}"
    );
    assert_eq!(check(&there, true).findings, []);
}
