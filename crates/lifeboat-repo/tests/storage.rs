//! Every storage passes the one conformance suite; then what only a folder can do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use lifeboat_repo::storage::{
    Cached, FileKind, LocalStorage, MemoryStorage, Storage, StorageErrorKind,
};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use lifeboat_testkit::storage_conformance::storage_conformance;
use sha2::{Digest, Sha256};

fn name(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn local_storage_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    storage_conformance(&|| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        Arc::new(LocalStorage::new(
            folder.path().join(format!("{number}/deep/repo")),
        ))
    });
}

#[test]
fn memory_storage_conforms() {
    storage_conformance(&|| Arc::new(MemoryStorage::new()));
}

#[test]
fn faulty_storage_without_a_fault_conforms() {
    storage_conformance(&|| Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new()))));
}

#[test]
fn local_folders_and_files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    let storage = LocalStorage::new(&root);
    storage.create().unwrap();
    storage.write(FileKind::Config, "config", b"x").unwrap();
    storage.write(FileKind::Pack, &name('a'), b"x").unwrap();

    for folder in [
        "",
        "keys",
        "locks",
        "snapshots",
        "index",
        "data",
        "data/00",
        "data/aa",
        "data/ff",
    ] {
        assert_eq!(mode(&root.join(folder)), 0o700, "{folder}");
    }
    assert_eq!(fs::read_dir(root.join("data")).unwrap().count(), 256);
    assert_eq!(mode(&root.join("config")), 0o600);
    assert_eq!(mode(&root.join("data/aa").join(name('a'))), 0o600);
}

#[test]
fn local_missing_folders_are_made_again() {
    // What a copy through an object store or an archive that drops empty folders leaves.
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(folder.path());
    for kind in [FileKind::Pack, FileKind::Lock] {
        assert!(storage.list(kind).unwrap().is_empty());
        storage.write(kind, &name('b'), b"x").unwrap();
        assert_eq!(storage.list(kind).unwrap().len(), 1);
    }
    assert_eq!(mode(&folder.path().join("data/bb")), 0o700);
}

#[test]
fn local_leftovers_are_never_listed_and_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(folder.path());
    storage.create().unwrap();
    storage.write(FileKind::Pack, &name('c'), b"x").unwrap();
    let leftovers = ["", "keys", "snapshots", "index", "locks", "data/cc"].map(|sub| {
        let path = folder
            .path()
            .join(sub)
            .join(".lifeboat-0123456789abcdef.tmp");
        fs::write(&path, b"half").unwrap();
        path
    });
    fs::write(
        folder.path().join("data/cc").join(name('d')),
        b"under another's prefix",
    )
    .unwrap();

    assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 1);
    assert!(storage.list(FileKind::Snapshot).unwrap().is_empty());
    assert_eq!(
        storage.sweep().unwrap(),
        0,
        "their writer may be on another machine still"
    );
    for path in &leftovers {
        let long_ago = SystemTime::now() - Duration::from_secs(24 * 3600);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    assert_eq!(storage.sweep().unwrap(), leftovers.len());
    assert!(leftovers.iter().all(|path| !path.exists()));
    assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 1);
}

#[test]
fn local_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(folder.path());
    storage.create().unwrap();
    // A folder in the place of the file: refused, and no temporary file stays.
    fs::create_dir(folder.path().join("keys").join(name('e'))).unwrap();
    let error = storage.write(FileKind::Key, &name('e'), b"x").unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::AlreadyExists);
    assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
}

#[test]
fn local_file_in_place_of_the_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"not a folder").unwrap();
    let storage = LocalStorage::new(&path);
    assert!(storage.list(FileKind::Key).is_err());
    assert!(storage.create().is_err());
    assert!(storage.write(FileKind::Config, "config", b"x").is_err());
}

#[test]
fn local_relative_path_and_free_space() {
    let storage = LocalStorage::new("no/such/folder");
    assert!(storage.free_space_bytes().unwrap() > 0);
    let folder = tempfile::tempdir().unwrap();
    assert!(
        LocalStorage::new(folder.path().join("not/yet"))
            .free_space_bytes()
            .unwrap()
            > 0
    );
}

#[test]
fn faults_strike_once_where_planned() {
    let inner = Arc::new(MemoryStorage::new());
    inner.create().unwrap();
    let storage = FaultyStorage::new(inner.clone());
    let write = |digit| {
        storage
            .write(FileKind::Key, &name(digit), b"x")
            .map_err(|error| error.kind())
    };

    let kind = StorageErrorKind::NoSpace;
    storage.plan(Fault {
        calls: Calls::Changes,
        after: 1,
        failure: Failure::Refused,
        kind,
    });
    storage.list(FileKind::Key).unwrap();
    assert_eq!(
        [write('a'), write('b'), write('c')],
        [Ok(()), Err(kind), Ok(())]
    );
    assert_eq!(
        (
            storage.count(Calls::All),
            storage.count(Calls::Changes),
            storage.has_struck()
        ),
        (4, 3, true)
    );

    storage.plan(Fault {
        calls: Calls::All,
        after: 0,
        failure: Failure::AnswerLost,
        kind,
    });
    assert_eq!(write('d'), Err(kind));
    assert!(inner.read(FileKind::Key, &name('d')).is_ok());

    storage.plan(Fault {
        calls: Calls::All,
        after: 1,
        failure: Failure::Dead,
        kind,
    });
    assert_eq!(
        [write('e'), write('f'), write('f')],
        [Ok(()), Err(kind), Err(kind)]
    );
    assert!(storage.list(FileKind::Key).is_err());
    storage.heal();
    assert_eq!(write('f'), Ok(()));
}

/// A file whose name is the hash of its content.
fn named(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

#[test]
fn cached_storage_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    storage_conformance(&|| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        Arc::new(Cached::new(
            Arc::new(MemoryStorage::new()),
            folder.path().join(number.to_string()),
        ))
    });
}

/// A storage that counts, one that keeps what is read of it, and every file that is kept.
fn cached(folder: &Path) -> (FaultyStorage, Cached, impl Fn() -> Vec<PathBuf>) {
    let inner = FaultyStorage::new(Arc::new(MemoryStorage::new()));
    inner.create().unwrap();
    let storage = Cached::new(Arc::new(inner.clone()), folder);
    let folder = folder.to_owned();
    let kept = move || {
        let mut folders = vec![folder.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let is_folder = entry.file_type().unwrap().is_dir();
                if is_folder { &mut folders } else { &mut files }.push(entry.path());
            }
        }
        files
    };
    (inner, storage, kept)
}

#[test]
fn cached_storage_fetches_index_and_snapshots_once() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, storage, kept) = cached(folder.path());
    for kind in [FileKind::Index, FileKind::Snapshot] {
        let (own, other) = (b"written here".as_slice(), b"by somebody else".as_slice());
        storage.write(kind, &named(own), own).unwrap();
        inner.write(kind, &named(other), other).unwrap();
        assert_eq!(storage.read(kind, &named(other)).unwrap(), other);
        let before = inner.count(Calls::All);
        assert_eq!(storage.read(kind, &named(own)).unwrap(), own);
        assert_eq!(storage.read(kind, &named(other)).unwrap(), other);
        assert_eq!(inner.count(Calls::All), before, "{kind} was fetched again");
        // Another storage's files are its own, whatever their names.
        let elsewhere = Cached::new(Arc::new(LocalStorage::new("/elsewhere")), folder.path());
        assert!(elsewhere.read(kind, &named(own)).is_err());

        storage.delete(kind, &named(own)).unwrap();
        inner.delete(kind, &named(other)).unwrap();
        assert!(storage.list(kind).unwrap().is_empty());
        for name in [named(own), named(other)] {
            let error = storage.read(kind, &name).unwrap_err();
            assert_eq!(error.kind(), StorageErrorKind::NotFound);
        }
        assert!(kept().is_empty(), "{:?}", kept());
    }
    for kind in [FileKind::Key, FileKind::Lock, FileKind::Pack] {
        storage.write(kind, &named(b"x"), b"x").unwrap();
        storage.read(kind, &named(b"x")).unwrap();
    }
    assert!(kept().is_empty(), "{:?}", kept());
}

#[test]
fn cached_storage_believes_nothing_that_is_not_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, storage, kept) = cached(folder.path());
    let content = b"an index".as_slice();
    storage
        .write(FileKind::Index, &named(content), content)
        .unwrap();
    let [file] = &kept()[..] else {
        panic!("{:?}", kept())
    };
    assert_eq!(mode(file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    for wrong in ["", "an indey", "an index and more"] {
        fs::write(file, wrong).unwrap();
        let read = storage.read(FileKind::Index, &named(content)).unwrap();
        assert_eq!(read, content);
        assert_eq!(fs::read(file).unwrap(), content, "kept anew");
    }
    // Nor does it hide what a listing shows: that the file itself was cut short.
    let short = b"an in".as_slice();
    inner.delete(FileKind::Index, &named(content)).unwrap();
    inner
        .write(FileKind::Index, &named(content), short)
        .unwrap();
    storage.list(FileKind::Index).unwrap();
    let read = storage.read(FileKind::Index, &named(content)).unwrap();
    assert_eq!(read, short);
    assert!(kept().is_empty(), "damage was kept");
}

#[test]
fn cached_storage_works_without_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "").unwrap();
    let (_, storage, _) = cached(&file);
    storage.write(FileKind::Index, &named(b"x"), b"x").unwrap();
    assert_eq!(storage.list(FileKind::Index).unwrap().len(), 1);
    assert_eq!(storage.read(FileKind::Index, &named(b"x")).unwrap(), b"x");
}
