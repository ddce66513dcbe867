//! Damage of every sort to every file of a small repository: check names the file and the snapshots.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lifeboat_repo::check::{CheckOptions, CheckProgress, CheckScope, Finding, Problem};
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::pack::BlobKind;
use lifeboat_repo::storage::{FileKind, MemoryStorage, Storage, StorageErrorKind};
use lifeboat_repo::{RepositoryError, SnapshotId};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use support::{back_up, check, clock, init, noise, open, rows, this_process};

/// A repository with three snapshots in separate packs and index files, which share some.
struct Sample {
    storage: MemoryStorage,
    snapshots: Vec<SnapshotId>,
    /// Every file, with the snapshots (by number) that it belongs to.
    files: Vec<(FileKind, String, Vec<usize>)>,
}

impl Sample {
    fn new() -> Self {
        let storage = MemoryStorage::new();
        let repository = init(Arc::new(storage.clone())).unwrap();
        let (common, users, memes) = (rows(1, 300), rows(2, 300), noise(3, 30_000));
        let backups = [
            vec![
                ("dump/toc.dat", common.clone()),
                ("dump/tables/users/data.dat", users),
            ],
            vec![
                ("dump/toc.dat", common.clone()),
                ("dump/tables/memes/data.dat", memes),
            ],
            vec![
                ("dump/toc.dat", common),
                ("globals.sql", b"-- nothing".to_vec()),
            ],
        ];
        let mut files: Vec<(FileKind, String, Vec<usize>)> = Vec::new();
        let mut snapshots = Vec::new();
        for (number, backup) in backups.iter().enumerate() {
            let hour = u32::try_from(number).unwrap();
            let (snapshot, _) = back_up(&repository, hour, backup, 64 << 10).unwrap();
            snapshots.push(snapshot.id);
            for kind in [FileKind::Snapshot, FileKind::Index, FileKind::Pack] {
                for file in storage.list(kind).unwrap() {
                    if !files
                        .iter()
                        .any(|(k, name, _)| (*k, name) == (kind, &file.name))
                    {
                        files.push((kind, file.name, vec![number]));
                    }
                }
            }
        }
        // What the first backup stored of `common` the others refer to: in its data pack, through its index.
        let index = repository.load_index().unwrap();
        let holds_data = |name: &str| {
            let blobs = index
                .iter()
                .map(|(pack, blob)| (index.packs()[pack as usize].to_string(), blob.kind));
            blobs
                .into_iter()
                .any(|blob| blob == (name.to_owned(), BlobKind::Data))
        };
        for (kind, name, belongs) in &mut files {
            let shared = *kind == FileKind::Index || (*kind == FileKind::Pack && holds_data(name));
            if *belongs == [0] && shared {
                *belongs = vec![0, 1, 2];
            }
        }
        let all = || vec![0, 1, 2];
        files.push((FileKind::Config, "config".to_owned(), all()));
        files.push((FileKind::Key, repository.key_id().to_string(), all()));
        std::mem::forget(
            repository
                .lock(LockMode::Shared, &this_process(), clock())
                .unwrap(),
        );
        let lock = storage.list(FileKind::Lock).unwrap().remove(0);
        files.push((FileKind::Lock, lock.name, Vec::new()));
        Self {
            storage,
            snapshots,
            files,
        }
    }

    fn ids(&self, numbers: &[usize]) -> Vec<SnapshotId> {
        numbers
            .iter()
            .map(|number| self.snapshots[*number])
            .collect()
    }
}

/// A finding as (kind, name, snapshots), which is what the tests compare.
fn brief(findings: &[Finding]) -> Vec<(FileKind, String, Vec<SnapshotId>)> {
    findings
        .iter()
        .map(|found| (found.kind, found.name.clone(), found.snapshots.clone()))
        .collect()
}

/// What a whole check says of `storage`: the files it names, or that a repository which does not open names.
fn named(storage: &MemoryStorage, sample: &Sample) -> Vec<(FileKind, String, Vec<SnapshotId>)> {
    match open(Arc::new(storage.clone())) {
        Ok(repository) => brief(&check(&repository, true).findings),
        Err(RepositoryError::DamagedKey { name, .. }) => {
            vec![(FileKind::Key, name, sample.snapshots.clone())]
        }
        Err(RepositoryError::DamagedConfig { .. }) => {
            vec![(
                FileKind::Config,
                "config".to_owned(),
                sample.snapshots.clone(),
            )]
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_undamaged_repository_is_clean() {
    let sample = Sample::new();
    assert_eq!(sample.files.len(), 6 + 3 + 3 + 3);
    let repository = open(Arc::new(sample.storage.clone())).unwrap();
    for read_data in [false, true] {
        let report = check(&repository, read_data);
        assert_eq!(report.findings, []);
        assert_eq!((report.snapshots_checked, report.packs_checked), (3, 6));
        assert_eq!(
            report.blobs_checked,
            repository.load_index().unwrap().len() as u64
        );
        let packs = sample.storage.list(FileKind::Pack).unwrap();
        let bytes: u64 = packs.iter().map(|file| file.size_bytes).sum();
        assert_eq!(report.bytes_read, if read_data { bytes } else { 0 });
    }
}

#[test]
fn any_flipped_byte_is_named_with_its_snapshots() {
    let sample = Sample::new();
    for (kind, name, belongs) in &sample.files {
        let content = sample.storage.read(*kind, name).unwrap();
        // Both ends, where lengths and codes are, and a spread of what lies between.
        let between = (1..40).map(|step| content.len() * step / 40);
        let ends = (0..40).flat_map(|end| [end, content.len().saturating_sub(end + 1)]);
        for at in between.chain(ends).filter(|at| *at < content.len()) {
            let storage = sample.storage.deep_clone();
            let mut damaged = content.clone();
            damaged[at] ^= 1 << (at % 8);
            storage.overwrite(*kind, name, &damaged);
            let expected = vec![(*kind, name.clone(), sample.ids(belongs))];
            assert_eq!(
                named(&storage, &sample),
                expected,
                "byte {at} of {}",
                content.len()
            );
        }
    }
}

#[test]
fn a_file_cut_off_or_grown_is_named_with_its_snapshots() {
    let sample = Sample::new();
    for (kind, name, belongs) in &sample.files {
        let content = sample.storage.read(*kind, name).unwrap();
        let grown = [content.as_slice(), b"x"].concat();
        let lengths = [0, 1, 3, 31, 32, content.len() / 2, content.len() - 1];
        let cut = lengths.map(|length| content[..length.min(content.len() - 1)].to_vec());
        for damaged in cut.into_iter().chain([grown, vec![0; content.len()]]) {
            let storage = sample.storage.deep_clone();
            storage.overwrite(*kind, name, &damaged);
            let expected = vec![(*kind, name.clone(), sample.ids(belongs))];
            assert_eq!(
                named(&storage, &sample),
                expected,
                "{} bytes",
                damaged.len()
            );
        }
    }
}

#[test]
fn a_missing_file_is_named_where_anything_points_at_it() {
    let sample = Sample::new();
    for (kind, name, belongs) in &sample.files {
        let storage = sample.storage.deep_clone();
        storage.delete(*kind, name).unwrap();
        let opened = open(Arc::new(storage.clone()));
        let repository = match (kind, opened) {
            (FileKind::Config, Err(RepositoryError::NotFound { .. }))
            | (FileKind::Key, Err(RepositoryError::NoKey { .. })) => continue,
            (_, opened) => opened.unwrap(),
        };
        let expected = match kind {
            FileKind::Pack => vec![(*kind, name.clone(), sample.ids(belongs))],
            // Nothing holds an index file's name, so it can only be missed by what it is needed for.
            FileKind::Index => {
                let mut missed = sample.ids(belongs);
                missed.sort();
                missed
                    .into_iter()
                    .map(|id| (FileKind::Snapshot, id.to_string(), vec![id]))
                    .collect()
            }
            // Nothing points at a snapshot or a lock.
            _ => Vec::new(),
        };
        for read_data in [false, true] {
            assert_eq!(
                brief(&check(&repository, read_data).findings),
                expected,
                "{kind} {name}"
            );
        }
    }
}

#[test]
fn the_structure_check_sees_sizes_and_small_files() {
    let sample = Sample::new();
    for (kind, name, belongs) in &sample.files {
        if matches!(kind, FileKind::Config | FileKind::Key) {
            continue;
        }
        let storage = sample.storage.deep_clone();
        let content = storage.read(*kind, name).unwrap();
        storage.overwrite(*kind, name, &content[..content.len() - 1]);
        let report = check(&open(Arc::new(storage)).unwrap(), false);
        assert_eq!(
            brief(&report.findings),
            [(*kind, name.clone(), sample.ids(belongs))]
        );
        if *kind == FileKind::Pack {
            let (expected, found) = (content.len() as u64, content.len() as u64 - 1);
            assert_eq!(
                report.findings[0].what,
                Problem::WrongSize { expected, found }
            );
        }
    }
}

#[test]
fn a_check_of_one_snapshot_leaves_out_what_it_does_not_need() {
    let sample = Sample::new();
    let (snapshots, _) = open(Arc::new(sample.storage.clone()))
        .unwrap()
        .snapshots()
        .unwrap();
    for (kind, name, belongs) in &sample.files {
        let storage = sample.storage.deep_clone();
        let mut content = storage.read(*kind, name).unwrap();
        content[20] ^= 1;
        storage.overwrite(*kind, name, &content);
        let Ok(repository) = open(Arc::new(storage)) else {
            continue;
        };
        for (number, snapshot) in snapshots.iter().enumerate() {
            let options = CheckOptions {
                read_data: true,
                ..CheckOptions::default()
            };
            let report = repository
                .check(CheckScope::Snapshot(snapshot), &options, &|_| ())
                .unwrap();
            let found = brief(&report.findings);
            if belongs.contains(&number) {
                assert_eq!(found, [(*kind, name.clone(), vec![snapshot.id])]);
            } else if *kind == FileKind::Index {
                // A damaged index file may hold anything, so it is named, but nothing needs it.
                assert_eq!(found, [(*kind, name.clone(), Vec::new())]);
            } else {
                assert_eq!(found, []);
            }
        }
    }
}

#[test]
fn several_damaged_files_are_all_named() {
    let sample = Sample::new();
    let mut expected = Vec::new();
    for (kind, name, belongs) in &sample.files {
        if matches!(kind, FileKind::Pack | FileKind::Snapshot | FileKind::Lock) {
            let mut content = sample.storage.read(*kind, name).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 0x10;
            // A snapshot that can't be read says no more what it needs: so leave the last one.
            if *kind != FileKind::Snapshot || *belongs == [0] {
                sample.storage.overwrite(*kind, name, &content);
                expected.push((*kind, name.clone()));
            }
        }
    }
    expected.sort();
    let report = check(&open(Arc::new(sample.storage.clone())).unwrap(), true);
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|found| (found.kind, found.name.clone()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_lost_pack_whose_blobs_were_stored_again_belongs_to_no_snapshot() {
    let storage = MemoryStorage::new();
    let repository = init(Arc::new(storage.clone())).unwrap();
    let files = [("a", rows(1, 1000))];
    back_up(&repository, 0, &files, 1 << 20).unwrap();
    let lost: Vec<String> = storage
        .list(FileKind::Pack)
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect();
    lost.iter()
        .for_each(|name| storage.delete(FileKind::Pack, name).unwrap());
    back_up(&repository, 1, &files, 1 << 20).unwrap();
    for read_data in [false, true] {
        let report = check(&repository, read_data);
        assert_eq!(report.findings.len(), lost.len());
        for finding in report.findings {
            assert!(lost.contains(&finding.name) && finding.what == Problem::Missing);
            assert_eq!(finding.snapshots, []);
        }
    }
}

#[test]
fn leftovers_of_an_interrupted_backup_are_no_finding_unless_damaged() {
    let sample = Sample::new();
    let leftover = noise(9, 1000);
    sample
        .storage
        .overwrite(FileKind::Pack, &"0".repeat(64), &leftover);
    let repository = open(Arc::new(sample.storage.clone())).unwrap();
    assert_eq!(check(&repository, false).findings, []);
    assert_eq!(
        brief(&check(&repository, true).findings),
        [(FileKind::Pack, "0".repeat(64), Vec::new())]
    );
}

#[test]
fn progress_ends_at_its_total_and_an_interrupt_ends_the_check() {
    let sample = Sample::new();
    let repository = open(Arc::new(sample.storage.clone())).unwrap();
    let options = CheckOptions {
        read_data: true,
        ..CheckOptions::default()
    };
    let (calls, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |progress: CheckProgress| {
        calls.fetch_add(1, Ordering::Relaxed);
        done.fetch_max(progress.bytes_done, Ordering::Relaxed);
        assert!(progress.packs_done <= 6 && progress.packs_total == 6);
    };
    let report = repository
        .check(CheckScope::Everything, &options, &progress)
        .unwrap();
    assert_eq!(
        (calls.into_inner(), done.into_inner()),
        (7, report.bytes_read)
    );

    let interrupted = CheckOptions {
        interrupt: Arc::new(AtomicBool::new(true)),
        ..options
    };
    let error = repository
        .check(CheckScope::Everything, &interrupted, &|_| ())
        .unwrap_err();
    assert!(matches!(error, RepositoryError::Interrupted), "{error}");
}

/// A storage that fails to read a file for good is a finding; one that is out of reach says nothing about files.
#[test]
fn every_failing_read_is_a_finding_or_an_error_never_silence() {
    let sample = Sample::new();
    let storage = FaultyStorage::new(Arc::new(sample.storage.clone()));
    let repository = open(Arc::new(storage.clone())).unwrap();
    storage.heal();
    check(&repository, true);
    let calls = storage.count(Calls::All);
    for after in 0..calls {
        for kind in [
            StorageErrorKind::Other,
            StorageErrorKind::Unreachable,
            // A session that ran out: permanent, and about no file.
            StorageErrorKind::BadCredentials,
        ] {
            storage.plan(Fault {
                calls: Calls::All,
                after,
                failure: Failure::Refused,
                kind,
            });
            let options = CheckOptions {
                read_data: true,
                jobs: 1,
                ..CheckOptions::default()
            };
            let result = repository.check(CheckScope::Everything, &options, &|_| ());
            match (kind, result) {
                (_, Err(RepositoryError::Storage(error))) => assert_eq!(error.kind(), kind),
                (StorageErrorKind::Other, Ok(report)) => {
                    assert!(!report.is_clean(), "call {after}")
                }
                (_, other) => panic!("call {after}: {other:?}"),
            }
        }
    }
}

/// Of a listing that was read in part, nobody knows what the rest is: no list of backups comes of it.
#[test]
fn snapshots_are_listed_whole_or_not_at_all() {
    let sample = Sample::new();
    let storage = FaultyStorage::new(Arc::new(sample.storage.clone()));
    let repository = open(Arc::new(storage.clone())).unwrap();
    storage.heal();
    assert_eq!(repository.snapshots().unwrap().0.len(), 3);
    // A listing, and one question for each.
    assert_eq!(storage.count(Calls::All), 4);
    for after in 0..storage.count(Calls::All) {
        for (kind, is_about_the_file) in [
            (StorageErrorKind::Other, true),
            (StorageErrorKind::PermissionDenied, true),
            (StorageErrorKind::Unreachable, false),
            (StorageErrorKind::Interrupted, false),
            (StorageErrorKind::BadCredentials, false),
        ] {
            storage.plan(Fault {
                calls: Calls::All,
                after,
                failure: Failure::Refused,
                kind,
            });
            match repository.snapshots() {
                Ok((snapshots, damaged)) => {
                    assert!(is_about_the_file, "{kind:?} at call {after}");
                    assert_eq!((snapshots.len(), damaged.len()), (2, 1));
                }
                Err(RepositoryError::Storage(error)) => {
                    assert!(after == 0 || !is_about_the_file, "{kind:?} at call {after}");
                    assert_eq!(error.kind(), kind);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// Who lost the lock after the snapshot was written keeps it only if it is whole and nobody is at work who has not
/// seen it: a prune that found the place without that snapshot goes on to remove what it needs.
#[test]
fn a_snapshot_written_while_the_lock_was_lost_stands_only_if_it_can_be_judged() {
    for (others_prune, is_damaged) in [(false, false), (true, false), (false, true)] {
        let storage = MemoryStorage::new();
        let repository = init(Arc::new(storage.clone())).unwrap();
        let lock = repository
            .lock(LockMode::Shared, &this_process(), clock())
            .unwrap();
        let content = [("dump/toc.dat", rows(1, 300))];
        let (snapshot, _) = back_up(&repository, 1, &content, 64 << 10).unwrap();
        storage.delete(FileKind::Lock, &lock.info().name).unwrap();
        assert!(lock.verify().is_err());
        if is_damaged {
            let pack = storage.list(FileKind::Pack).unwrap().remove(0);
            storage.delete(FileKind::Pack, &pack.name).unwrap();
        }
        let exclusive = others_prune.then(|| {
            repository
                .lock(LockMode::Exclusive, &this_process(), clock())
                .unwrap()
        });
        let stands = repository.remove_unless_whole(snapshot.id, &lock, &Arc::default());
        let is_there = storage.list(FileKind::Snapshot).unwrap().len() == 1;
        match (others_prune, is_damaged) {
            (false, false) => assert!(stands.unwrap() && is_there),
            (false, true) => assert!(!stands.unwrap() && !is_there),
            _ => {
                assert!(
                    matches!(stands, Err(RepositoryError::Lock(_))),
                    "{stands:?}"
                );
                assert!(!is_there);
            }
        }
        drop((lock, exclusive));
        assert_eq!(storage.list(FileKind::Lock).unwrap().len(), 0);
    }
}
