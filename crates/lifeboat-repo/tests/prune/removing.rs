//! What goes, and what stays.

use std::sync::Arc;

use lifeboat_repo::SnapshotId;
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::prune::PruneOptions;
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, MemoryStorage, Storage};

use crate::backups::{
    PACK_BYTES, all_but_newest, files, is_whole, nothing, options, pack_bytes, request, sorted,
    with_backups,
};
use crate::support::{
    Restic, back_up, check, clock, hand_to_restic, init, noise, open, this_process,
};

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
    let before = crate::support::ALL_KINDS.map(|kind| sorted(&storage, kind));
    let estimate = repository
        .prune_estimate(&request(&all_but_newest, options()))
        .unwrap();
    assert_eq!(
        before,
        crate::support::ALL_KINDS.map(|kind| sorted(&storage, kind))
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
