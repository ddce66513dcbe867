//! What moves, and what does not.

use std::sync::Arc;

use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::MemoryStorage;
use lifeboat_repo::{Repository, RepositoryError};
use lifeboat_testkit::remote::{S3Server, SshServer};

use crate::places::{
    OTHER_PASSWORD, PACK_BYTES, beside, content, copy, hour, ids, newest_first, packs,
    restic_is_content, three_hours,
};
use crate::support::remote::{s3, s3_at, sftp};
use crate::support::{Files, PASSWORD, back_up, check, init, noise};

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
