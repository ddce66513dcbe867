//! What is damaged, and what is cut off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_repo::copy::{CopyOptions, CopyRequest};
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, MemoryStorage, Storage, StorageErrorKind};
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use lifeboat_testkit::remote::SshServer;

use crate::places::{
    OTHER_PASSWORD, beside, change, content, copy, hour, ids, memory, newest_first, packs,
    restic_is_content, three_hours,
};
use crate::support::remote::sftp;
use crate::support::{PASSWORD, check, clock, init, this_process};

/// Every way to damage each pack: no damaged byte arrives, what needs it is named, all else is copied and whole.
#[test]
fn damage_is_not_spread() {
    let pristine = three_hours();
    let names = packs(&pristine);
    assert!(names.len() > 6);
    let snapshots = newest_first(&pristine);
    let mut whole_nevertheless = 0;
    for keys_are_shared in [true, false] {
        for name in &names {
            for damage in ["start", "end", "gone"] {
                let storage = memory(&pristine);
                let source = crate::support::open(Arc::new(storage)).unwrap();
                match damage {
                    "start" => change(&source, name, |bytes| bytes[20] ^= 1),
                    "end" => change(&source, name, |bytes| {
                        let at = bytes.len() - 10;
                        bytes[at] ^= 1;
                    }),
                    _ => source.storage().delete(FileKind::Pack, name).unwrap(),
                }
                let there = if keys_are_shared {
                    beside(&source, Arc::new(MemoryStorage::new()))
                } else {
                    init(Arc::new(MemoryStorage::new())).unwrap()
                };
                let report = copy(&source, &there, &snapshots).unwrap();
                let what = format!("{name} {damage} {keys_are_shared}: {report:?}");
                assert_eq!(report.copied.len() + report.damaged.len(), 3, "{what}");
                // Where a pack's end alone is damaged its blobs can still be moved, one by one.
                if damage == "end" {
                    whole_nevertheless += 1;
                    assert_eq!(report.damaged, [], "{what}");
                } else {
                    assert!(!report.damaged.is_empty(), "{what}");
                }
                assert!(!packs(&there).contains(name), "{what}");
                assert_eq!(check(&there, true).findings, [], "{what}");
                // Just those are named that a check of the source names.
                let named: BTreeSet<SnapshotId> = report.damaged.iter().map(|one| one.id).collect();
                let findings = check(&source, true).findings;
                let truly: BTreeSet<SnapshotId> = findings
                    .iter()
                    .flat_map(|finding| finding.snapshots.iter().copied())
                    .collect();
                // `check` blames a pack that is damaged anywhere on all that need any of it; of one that is gone
                // there is nothing to be had.
                assert!(named.is_subset(&truly), "{what}\n{truly:?}");
                if damage == "gone" {
                    assert_eq!(named, truly, "{what}");
                }
                if damage == "end" {
                    assert_eq!(report.damaged_packs.is_empty(), !keys_are_shared, "{what}");
                }
            }
        }
    }
    assert!(whole_nevertheless > 0);
}

/// A login that has run out says nothing about the source's content.
#[test]
fn what_is_not_about_a_file_is_no_damage() {
    let faulty = FaultyStorage::new(three_hours().storage().clone());
    let source = crate::support::open(Arc::new(faulty.clone())).unwrap();
    let snapshots = newest_first(&source);
    faulty.heal();
    copy(
        &source,
        &init(Arc::new(MemoryStorage::new())).unwrap(),
        &snapshots,
    )
    .unwrap();
    let calls = faulty.count(Calls::All);
    for kind in [
        StorageErrorKind::BadCredentials,
        StorageErrorKind::PermissionDenied,
    ] {
        for after in 0..calls {
            let there = init(Arc::new(MemoryStorage::new())).unwrap();
            faulty.plan(Fault {
                calls: Calls::All,
                after,
                failure: Failure::Dead,
                kind,
            });
            match copy(&source, &there, &snapshots) {
                Err(RepositoryError::Storage(error)) => assert_eq!(error.kind(), kind),
                // Only the lock's own end came after.
                Ok(report) => assert_eq!((report.copied.len(), report.damaged.len()), (3, 0)),
                Err(other) => panic!("{other}"),
            }
            faulty.heal();
        }
    }
}

#[test]
fn a_copy_that_is_cut_is_taken_up_where_it_was() {
    let source = three_hours();
    let snapshots = newest_first(&source);
    let counting = FaultyStorage::new(Arc::new(MemoryStorage::new()));
    let there = beside(&source, Arc::new(counting.clone()));
    counting.heal();
    let whole = copy(&source, &there, &snapshots).unwrap();
    let count = counting.count(Calls::Changes);
    assert!(count > 12, "{count}");
    for (failure, kind) in [
        (Failure::Dead, StorageErrorKind::Other),
        (Failure::Refused, StorageErrorKind::NoSpace),
        (Failure::AnswerLost, StorageErrorKind::Unreachable),
    ] {
        for after in 0..count {
            let storage = MemoryStorage::new();
            let made = beside(&source, Arc::new(storage.clone()));
            drop(made);
            let faulty = FaultyStorage::new(Arc::new(storage.clone()));
            let there = Repository::open(Arc::new(faulty.clone()), &OTHER_PASSWORD.into()).unwrap();
            faulty.plan(Fault {
                calls: Calls::Changes,
                after,
                failure,
                kind,
            });
            let cut = copy(&source, &there, &snapshots);
            let what = format!("{failure:?} after {after}: {cut:?}");
            faulty.heal();
            assert_eq!(check(&there, true).findings, [], "{what}");
            let before = packs(&there);
            let done: BTreeSet<SnapshotId> = ids(&newest_first(&there));
            let rest: Vec<Snapshot> = snapshots
                .iter()
                .filter(|one| !done.contains(&one.id))
                .cloned()
                .collect();
            let report = copy(&source, &there, &rest).unwrap();
            // Nothing that arrived is sent again.
            assert_eq!(
                report.packs_moved as usize,
                packs(&source).len() - before.len(),
                "{what}"
            );
            // The order of packs in the index is that of their arrival, which changes how it compresses.
            assert!(
                report.bytes_written <= whole.bytes_written + 2_000,
                "{what}"
            );
            assert_eq!(ids(&newest_first(&there)), ids(&snapshots), "{what}");
            assert_eq!(packs(&there), packs(&source), "{what}");
            assert_eq!(check(&there, true).findings, [], "{what}");
        }
    }
}

#[test]
fn packs_put_together_by_a_copy_that_was_cut_are_found_too() {
    let source = three_hours();
    let snapshots = newest_first(&source);
    let storage = MemoryStorage::new();
    let faulty = FaultyStorage::new(Arc::new(storage.clone()));
    let there = init(Arc::new(faulty.clone())).unwrap();
    // After the lock and some packs, all of them sealed anew.
    faulty.plan(Fault {
        calls: Calls::Changes,
        after: 6,
        failure: Failure::Dead,
        kind: StorageErrorKind::Other,
    });
    copy(&source, &there, &snapshots).unwrap_err();
    faulty.heal();
    let left = packs(&there);
    assert!(left.len() >= 3, "{left:?}");
    assert!(storage.list(FileKind::Index).unwrap().is_empty());
    let report = copy(&source, &there, &snapshots).unwrap();
    assert_eq!(report.packs_adopted as usize, left.len());
    assert!(left.is_subset(&packs(&there)));
    assert_eq!(check(&there, true).findings, []);
    restic_is_content(&there, PASSWORD);
}

/// A pack of that name that is not whole is no help, and in nobody's way.
#[test]
fn a_broken_pack_in_the_destination_is_not_counted_on() {
    let source = three_hours();
    let snapshots = newest_first(&source);
    let name = packs(&source).into_iter().next().unwrap();
    let whole = source.storage().read(FileKind::Pack, &name).unwrap();
    for listed in [false, true] {
        let there = beside(&source, Arc::new(MemoryStorage::new()));
        if listed {
            copy(&source, &there, &snapshots).unwrap();
            change(&there, &name, |bytes| bytes.truncate(whole.len() / 2));
        } else {
            let half = &whole[..whole.len() / 2];
            there.storage().write(FileKind::Pack, &name, half).unwrap();
        }
        let report = copy(&source, &there, &snapshots).unwrap();
        assert_eq!(report.copied.len(), 3);
        assert!(report.packs_written >= 1, "{report:?}");
        for snapshot in &snapshots {
            for (path, _) in hour(1) {
                assert_eq!(
                    content(&there, snapshot, path),
                    content(&source, snapshot, path)
                );
            }
        }
    }
}

/// The server is gone in the midst of it for a while: the storage's own retries carry the copy over.
#[test]
fn a_server_that_dies_and_comes_back_costs_no_copy() {
    let source = three_hours();
    let snapshots = newest_first(&source);
    let mut server = SshServer::start();
    let there = beside(&source, sftp(&server, "copy"));
    let holder = this_process();
    let source_lock = source.lock(LockMode::Shared, &holder, clock()).unwrap();
    let destination_lock = there.lock(LockMode::Shared, &holder, clock()).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(Some(told));
    let progress = |now: lifeboat_repo::copy::CopyProgress| {
        // Once, with packs still to come.
        if now.packs_done == 2
            && let Some(told) = told.lock().unwrap().take()
        {
            told.send(()).unwrap();
        }
    };
    let report = std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            source.copy_to(
                &there,
                &CopyRequest {
                    options: CopyOptions {
                        jobs: 1,
                        ..CopyOptions::default()
                    },
                    snapshots: &snapshots,
                    source_lock: &source_lock,
                    destination_lock: &destination_lock,
                    progress: &progress,
                },
            )
        });
        heard.recv_timeout(Duration::from_secs(60)).unwrap();
        server.kill();
        server.start_again();
        copying.join().unwrap()
    });
    assert_eq!(report.unwrap().copied.len(), 3);
    assert_eq!(check(&there, true).findings, []);
}
