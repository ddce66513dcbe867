//! What every storage has to do, whatever it is made of.
//!
//! A new storage is done when [`storage_conformance`] passes on it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::{Arc, Barrier};

use lifeboat_repo::storage::{FileKind, Storage, StorageErrorKind};

const NAMED_KINDS: [FileKind; 5] = [
    FileKind::Key,
    FileKind::Lock,
    FileKind::Snapshot,
    FileKind::Index,
    FileKind::Pack,
];

/// Runs every clause of the contract, each on a new storage from `make`, which must not be created yet.
///
/// # Panics
/// On the first clause that does not hold.
pub fn storage_conformance(make: &dyn Fn() -> Arc<dyn Storage>) {
    not_created_is_not_found(&*make());
    create_makes_an_empty_storage_and_can_be_repeated(&*make());
    what_was_written_is_listed_and_read(&*make());
    ranges_are_exact(&*make());
    an_existing_file_is_never_replaced(&*make());
    a_missing_file_is_not_found(&*make());
    delete_removes_one_file(&*make());
    names_are_checked(&*make());
    of_two_writers_of_one_name_one_wins(&*make());
    files_of_many_threads_all_arrive(&*make());
    sweep_leaves_every_file(&*make());
}

/// A name whose first two digits are `prefix`, so that packs spread over folders.
fn name(prefix: u8) -> String {
    format!("{prefix:02x}{}", "5a".repeat(31))
}

fn created(storage: &dyn Storage) -> &dyn Storage {
    storage.create().expect("create");
    storage
}

fn kind_of<T: std::fmt::Debug>(
    result: Result<T, lifeboat_repo::storage::StorageError>,
) -> StorageErrorKind {
    result.expect_err("this has to fail").kind()
}

fn not_created_is_not_found(storage: &dyn Storage) {
    // An unmounted backup disk must not look like an empty repository, nor be written to.
    for kind in NAMED_KINDS {
        assert_eq!(
            kind_of(storage.list(kind)),
            StorageErrorKind::NotFound,
            "list {kind}"
        );
        assert_eq!(
            kind_of(storage.write(kind, &name(1), b"x")),
            StorageErrorKind::NotFound,
            "write {kind}"
        );
        assert_eq!(
            kind_of(storage.read(kind, &name(1))),
            StorageErrorKind::NotFound,
            "read {kind}"
        );
    }
    assert_eq!(
        kind_of(storage.read(FileKind::Config, "config")),
        StorageErrorKind::NotFound
    );
    assert!(!storage.location().is_empty());
}

fn create_makes_an_empty_storage_and_can_be_repeated(storage: &dyn Storage) {
    storage.create().expect("create");
    storage
        .write(FileKind::Key, &name(1), b"key")
        .expect("write");
    storage.create().expect("create again");
    assert_eq!(storage.read(FileKind::Key, &name(1)).expect("read"), b"key");
    assert!(storage.list(FileKind::Pack).expect("list").is_empty());
    assert!(storage.list(FileKind::Config).expect("list").is_empty());
}

fn what_was_written_is_listed_and_read(storage: &dyn Storage) {
    let storage = created(storage);
    let big = vec![0xA5; 3 << 20];
    for kind in NAMED_KINDS {
        storage
            .write(kind, &name(0x00), b"")
            .expect("write nothing");
        storage.write(kind, &name(0xff), &big).expect("write much");
    }
    storage
        .write(FileKind::Config, "config", b"sealed")
        .expect("write config");

    for kind in NAMED_KINDS {
        let mut listed = storage.list(kind).expect("list");
        listed.sort();
        let listed: Vec<_> = listed
            .into_iter()
            .map(|entry| (entry.name, entry.size_bytes))
            .collect();
        assert_eq!(
            listed,
            [(name(0x00), 0), (name(0xff), big.len() as u64)],
            "list {kind}"
        );
        assert_eq!(storage.read(kind, &name(0x00)).expect("read nothing"), b"");
        assert!(
            storage.read(kind, &name(0xff)).expect("read much") == big,
            "read {kind}"
        );
        assert_eq!(
            storage.size(kind, &name(0xff)).expect("size"),
            big.len() as u64
        );
    }
    let config = storage.list(FileKind::Config).expect("list config");
    assert_eq!(
        (config.len(), config[0].name.as_str(), config[0].size_bytes),
        (1, "config", 6)
    );
}

fn ranges_are_exact(storage: &dyn Storage) {
    let storage = created(storage);
    let content: Vec<u8> = (0..=255).collect();
    storage
        .write(FileKind::Pack, &name(7), &content)
        .expect("write");
    let range = |offset, length| storage.read_range(FileKind::Pack, &name(7), offset, length);

    assert_eq!(range(0, 256).expect("all"), content);
    assert_eq!(range(10, 5).expect("middle"), [10, 11, 12, 13, 14]);
    assert_eq!(range(256, 0).expect("nothing at the end"), b"");
    // What a damaged index may ask for: never fewer bytes than asked, never memory for what is not there.
    for (offset, length) in [
        (250, 7),
        (256, 1),
        (257, 0),
        (u64::MAX, 1),
        (0, usize::MAX),
        (u64::MAX, usize::MAX),
    ] {
        assert_eq!(
            kind_of(range(offset, length)),
            StorageErrorKind::TooShort,
            "{length} from {offset}"
        );
    }

    let mut buffer = b"left over".to_vec();
    storage
        .read_range_into(FileKind::Pack, &name(7), 3, 2, &mut buffer)
        .expect("into");
    assert_eq!(buffer, [3, 4]);
    assert!(
        storage
            .read_range_into(FileKind::Pack, &name(7), 255, 2, &mut buffer)
            .is_err()
    );
}

fn an_existing_file_is_never_replaced(storage: &dyn Storage) {
    let storage = created(storage);
    storage
        .write(FileKind::Config, "config", b"first")
        .expect("write");
    assert_eq!(
        kind_of(storage.write(FileKind::Config, "config", b"second")),
        StorageErrorKind::AlreadyExists
    );
    assert_eq!(
        storage.read(FileKind::Config, "config").expect("read"),
        b"first"
    );
    assert_eq!(storage.list(FileKind::Config).expect("list").len(), 1);
}

fn a_missing_file_is_not_found(storage: &dyn Storage) {
    let storage = created(storage);
    for kind in NAMED_KINDS {
        assert_eq!(
            kind_of(storage.read(kind, &name(9))),
            StorageErrorKind::NotFound
        );
        assert_eq!(
            kind_of(storage.read_range(kind, &name(9), 0, 1)),
            StorageErrorKind::NotFound
        );
        assert_eq!(
            kind_of(storage.size(kind, &name(9))),
            StorageErrorKind::NotFound
        );
        assert_eq!(
            kind_of(storage.delete(kind, &name(9))),
            StorageErrorKind::NotFound
        );
    }
    let error = storage.read(FileKind::Pack, &name(9)).expect_err("missing");
    assert!(
        error.file().contains(&name(9)),
        "the error names the file: {error}"
    );
    assert!(error.is_permanent());
}

fn delete_removes_one_file(storage: &dyn Storage) {
    let storage = created(storage);
    storage
        .write(FileKind::Lock, &name(1), b"one")
        .expect("write");
    storage
        .write(FileKind::Lock, &name(2), b"two")
        .expect("write");
    storage
        .write(FileKind::Key, &name(1), b"key")
        .expect("write");
    storage.delete(FileKind::Lock, &name(1)).expect("delete");
    let left: Vec<_> = storage
        .list(FileKind::Lock)
        .expect("list")
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(left, [name(2)]);
    assert_eq!(storage.read(FileKind::Key, &name(1)).expect("read"), b"key");
    storage
        .write(FileKind::Lock, &name(1), b"again")
        .expect("the name is free again");
}

fn names_are_checked(storage: &dyn Storage) {
    let storage = created(storage);
    let upper = name(0xab).to_uppercase();
    let bad = [
        "",
        "config",
        "../config",
        "é",
        &name(1)[1..],
        &upper,
        &format!("{}/..", &name(1)[3..]),
    ];
    for bad in bad {
        assert!(
            storage.write(FileKind::Snapshot, bad, b"x").is_err(),
            "{bad:?}"
        );
        assert!(storage.read(FileKind::Pack, bad).is_err(), "{bad:?}");
    }
    assert!(storage.write(FileKind::Config, &name(1), b"x").is_err());
    assert!(storage.list(FileKind::Snapshot).expect("list").is_empty());
}

fn of_two_writers_of_one_name_one_wins(storage: &dyn Storage) {
    let storage = created(storage);
    for round in 0..20 {
        let start = Barrier::new(2);
        let write = |content: &'static [u8]| {
            start.wait();
            storage.write(FileKind::Pack, &name(round), content)
        };
        let results = std::thread::scope(|scope| {
            let other = scope.spawn(|| write(b"other"));
            [write(b"one"), other.join().unwrap()]
        });
        let [one, other] = results.map(|result| result.map_err(|error| error.kind()));
        let content = storage.read(FileKind::Pack, &name(round)).expect("read");
        match (one, other) {
            (Ok(()), Err(StorageErrorKind::AlreadyExists)) => assert_eq!(content, b"one"),
            (Err(StorageErrorKind::AlreadyExists), Ok(())) => assert_eq!(content, b"other"),
            both => panic!("exactly one may win: {both:?}"),
        }
    }
}

fn files_of_many_threads_all_arrive(storage: &dyn Storage) {
    let storage = created(storage);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for file in 0..8 {
                    let name = name(thread * 64 + file);
                    storage
                        .write(FileKind::Pack, &name, name.as_bytes())
                        .expect("write");
                    storage.list(FileKind::Pack).expect("list beside writers");
                }
            });
        }
    });
    let listed = storage.list(FileKind::Pack).expect("list");
    assert_eq!(listed.len(), 32);
    for entry in listed {
        assert_eq!(
            storage.read(FileKind::Pack, &entry.name).expect("read"),
            entry.name.as_bytes()
        );
    }
}

fn sweep_leaves_every_file(storage: &dyn Storage) {
    let storage = created(storage);
    for kind in NAMED_KINDS {
        storage.write(kind, &name(3), b"x").expect("write");
    }
    assert_eq!(storage.sweep().expect("sweep"), 0);
    for kind in NAMED_KINDS {
        assert_eq!(storage.list(kind).expect("list").len(), 1, "{kind}");
    }
}
