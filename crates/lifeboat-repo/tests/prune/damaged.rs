//! Where something is damaged, nothing is removed.

use std::sync::Arc;

use lifeboat_repo::RepositoryError;
use lifeboat_repo::prune::PruneOptions;
use lifeboat_repo::storage::{FileKind, MemoryStorage, Storage};

use crate::backups::{all_but_newest, options, request, sorted, with_backups};
use crate::support::{check, open};

#[test]
fn a_snapshot_that_lacks_a_blob_keeps_everything() {
    let base = MemoryStorage::new();
    with_backups(Arc::new(base.clone()), 1..=3);
    for file in base.list(FileKind::Pack).unwrap() {
        let storage = base.deep_clone();
        storage.delete(FileKind::Pack, &file.name).unwrap();
        let repository = open(Arc::new(storage.clone())).unwrap();
        let before: Vec<_> = crate::support::ALL_KINDS
            .map(|kind| sorted(&storage, kind))
            .into();
        match repository.prune(&request(&all_but_newest, options())) {
            // It belonged to what goes.
            Ok(_) => assert_eq!(check(&repository, true).findings, []),
            Err(error) => {
                assert!(
                    matches!(error, RepositoryError::MissingBlob { .. }),
                    "{error}"
                );
                let after: Vec<_> = crate::support::ALL_KINDS
                    .map(|kind| sorted(&storage, kind))
                    .into();
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
