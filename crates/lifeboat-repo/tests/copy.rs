//! Copying between repositories: what moves, what does not, and what becomes of it when something is damaged or
//! cut off. The real restic judges the result.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_repo::copy::{CopyOptions, CopyReport, CopyRequest};
use lifeboat_repo::lock::{LockHolder, LockMode, Patience};
use lifeboat_repo::prune::{PruneOptions, PruneRequest};
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, MemoryStorage, Storage, StorageErrorKind};
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use lifeboat_testkit::remote::{S3Server, SshServer};
use support::remote::{s3, s3_at, sftp};
use support::{
    Files, PASSWORD, back_up, check, clock, ended_process, hand_to_restic, init, noise, rows,
    this_process,
};

const PACK_BYTES: usize = 40_000;
const OTHER_PASSWORD: &str = "another horse";

/// A repository beside `primary` with the same master key, under another password.
fn beside(primary: &Repository, storage: Arc<dyn Storage>) -> Repository {
    let options = InitOptions {
        chunk_sizes: ChunkSizes::with_average(64 << 10),
        scrypt: ScryptParams::cheap(),
        hostname: "there".to_owned(),
        username: "tester".to_owned(),
        now: "2026-03-01T09:00:00Z".parse().unwrap(),
    };
    Repository::init_with_keys_of(primary, storage, &OTHER_PASSWORD.into(), &options).unwrap()
}

fn memory(repository: &Repository) -> MemoryStorage {
    let copy = MemoryStorage::new();
    support::copy(&**repository.storage(), &copy);
    copy
}

fn newest_first(repository: &Repository) -> Vec<Snapshot> {
    let (mut snapshots, damaged) = repository.snapshots().unwrap();
    assert_eq!(damaged.len(), 0);
    snapshots.reverse();
    snapshots
}

fn ids(snapshots: &[Snapshot]) -> BTreeSet<SnapshotId> {
    snapshots.iter().map(|snapshot| snapshot.id).collect()
}

fn copy(
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

fn patiently(
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

fn copy_as(
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

fn packs(repository: &Repository) -> BTreeSet<String> {
    let files = repository.storage().list(FileKind::Pack).unwrap();
    files.into_iter().map(|file| file.name).collect()
}

fn content(repository: &Repository, snapshot: &Snapshot, path: &str) -> Vec<u8> {
    use std::io::Read;
    let reader = repository.reader().unwrap();
    let node = reader.find(snapshot, path).unwrap();
    let mut bytes = Vec::new();
    let mut file = reader.open(&reader.content(&node).unwrap()).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// restic, with that password, finds nothing wrong with any byte.
fn restic_is_content(repository: &Repository, password: &str) {
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
fn hour(number: u32) -> Vec<(&'static str, Vec<u8>)> {
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

fn three_hours() -> Repository {
    let source = init(Arc::new(MemoryStorage::new())).unwrap();
    for number in 1..=3 {
        back_up(&source, number, &hour(number), PACK_BYTES).unwrap();
    }
    source
}

#[test]
fn shared_keys_move_packs_as_they_are() {
    let source = three_hours();
    let there = beside(&source, Arc::new(MemoryStorage::new()));
    assert!(source.shares_keys_with(&there));
    assert_ne!(source.id(), there.id());
    assert_eq!(source.chunk_sizes(), there.chunk_sizes());
    let snapshots = newest_first(&source);
    let estimate = source
        .copy_estimate(&there, &snapshots, &false.into())
        .unwrap();
    let report = copy(&source, &there, &snapshots).unwrap();
    assert_eq!(report.copied.len(), 3);
    assert!(report.copied.iter().all(|(here, there)| here == there));
    assert_eq!(packs(&source), packs(&there));
    assert_eq!(report.packs_moved, estimate.packs);
    assert_eq!(report.packs_written, 0);
    assert_eq!(ids(&newest_first(&there)), ids(&snapshots));
    assert_eq!(check(&there, true).findings, []);
    restic_is_content(&there, OTHER_PASSWORD);
    for snapshot in &snapshots {
        let path = "dump/tables/events/data";
        assert_eq!(
            content(&there, snapshot, path),
            content(&source, snapshot, path)
        );
    }
    // Its own password opens it, and no other.
    let again = Repository::open(Arc::clone(there.storage()), &OTHER_PASSWORD.into()).unwrap();
    assert!(again.shares_keys_with(&source));
    assert!(matches!(
        Repository::open(Arc::clone(there.storage()), &PASSWORD.into()),
        Err(RepositoryError::WrongPassword { .. })
    ));
    // What is there does not move again.
    let report = copy(&source, &there, &snapshots).unwrap();
    assert_eq!((report.bytes_written, report.packs_moved), (0, 0));
}

#[test]
fn an_hour_of_churn_moves_its_new_bytes_and_no_more() {
    let source = three_hours();
    let there = beside(&source, Arc::new(MemoryStorage::new()));
    copy(&source, &there, &newest_first(&source)).unwrap();
    let (snapshot, stats) = back_up(&source, 4, &hour(4), PACK_BYTES).unwrap();
    let report = copy(&source, &there, &[snapshot]).unwrap();
    let most = stats.bytes_stored_new * 105 / 100;
    assert!(
        report.bytes_written <= most,
        "{} of {}",
        report.bytes_written,
        stats.bytes_stored_new
    );
    assert!(
        stats.bytes_stored_new < 200_000,
        "the table that never changes is not new"
    );
}

#[test]
fn of_a_pack_that_is_partly_needed_only_that_part_moves() {
    let source = init(Arc::new(MemoryStorage::new())).unwrap();
    // One pack for all: the second snapshot needs a piece of it.
    let both: Files<'_> = &[("keep", noise(1, 60_000)), ("drop", noise(2, 300_000))];
    back_up(&source, 1, both, 1 << 20).unwrap();
    let (snapshot, _) = back_up(&source, 2, &both[..1], 1 << 20).unwrap();
    for keys_are_shared in [true, false] {
        let there = if keys_are_shared {
            beside(&source, Arc::new(MemoryStorage::new()))
        } else {
            init(Arc::new(MemoryStorage::new())).unwrap()
        };
        let report = copy(&source, &there, std::slice::from_ref(&snapshot)).unwrap();
        assert!(
            (60_000..70_000).contains(&report.bytes_written),
            "{report:?}"
        );
        assert!(report.packs_written >= 1, "{report:?}");
        assert_eq!(check(&there, true).findings, []);
        let copied = newest_first(&there).remove(0);
        assert_eq!(content(&there, &copied, "keep"), both[0].1);
        let password = if keys_are_shared {
            OTHER_PASSWORD
        } else {
            PASSWORD
        };
        restic_is_content(&there, password);
    }
}

#[test]
fn with_other_keys_everything_is_sealed_anew() {
    let source = three_hours();
    let there = init(Arc::new(MemoryStorage::new())).unwrap();
    assert!(!source.shares_keys_with(&there));
    let snapshots = newest_first(&source);
    let report = copy(&source, &there, &snapshots).unwrap();
    assert_eq!((report.copied.len(), report.packs_moved), (3, 0));
    assert!(packs(&source).is_disjoint(&packs(&there)));
    assert_eq!(check(&there, true).findings, []);
    restic_is_content(&there, PASSWORD);
    let copies = newest_first(&there);
    for (copy, snapshot) in copies.iter().zip(&snapshots) {
        assert_eq!(copy.original, Some(snapshot.id));
        let same = Snapshot {
            id: snapshot.id,
            original: None,
            ..copy.clone()
        };
        assert_eq!(same, *snapshot);
        for (path, bytes) in hour(u32::from(
            snapshot
                .time
                .strftime("%H")
                .to_string()
                .parse::<u8>()
                .unwrap(),
        )) {
            assert!(content(&there, copy, path) == bytes, "{path}");
        }
    }
    // Blobs that are there stay where they are.
    let (snapshot, stats) = back_up(&source, 4, &hour(4), PACK_BYTES).unwrap();
    let report = copy(&source, &there, &[snapshot]).unwrap();
    assert!(report.bytes_written <= stats.bytes_stored_new * 105 / 100);
}

/// Writes a file anew with a changed content.
fn change(repository: &Repository, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let storage = repository.storage();
    let mut content = storage.read(FileKind::Pack, name).unwrap();
    change(&mut content);
    storage.delete(FileKind::Pack, name).unwrap();
    storage.write(FileKind::Pack, name, &content).unwrap();
}

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
                let source = support::open(Arc::new(storage)).unwrap();
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
    let source = support::open(Arc::new(faulty.clone())).unwrap();
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

#[test]
fn to_a_bucket_and_to_a_folder_behind_ssh() {
    let source = three_hours();
    let snapshots = newest_first(&source);
    let server = S3Server::shared();
    let bucket = s3(&s3_at(&server.endpoint(), &server.bucket(), "copy"));
    let behind_ssh = sftp(SshServer::shared(), "copy");
    for storage in [bucket, behind_ssh] {
        let there = beside(&source, storage);
        let report = copy(&source, &there, &snapshots).unwrap();
        assert_eq!(report.copied.len(), 3);
        assert_eq!(check(&there, true).findings, []);
        restic_is_content(&there, OTHER_PASSWORD);
        // And back: a new primary from what is off-host.
        let back = beside(&there, Arc::new(MemoryStorage::new()));
        copy(&there, &back, &snapshots).unwrap();
        assert_eq!(packs(&back), packs(&source));
        assert_eq!(check(&back, true).findings, []);
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
