#![expect(clippy::unwrap_used)]
use super::*;
use crate::key::ScryptParams;
use crate::repository::{ChunkSizes, InitOptions};
use crate::storage::MemoryStorage;
use secrecy::SecretString;

pub(crate) fn password() -> SecretString {
    "correct horse".into()
}

fn options() -> InitOptions {
    InitOptions {
        chunk_sizes: ChunkSizes::with_average(4 << 10),
        scrypt: ScryptParams::cheap(),
        hostname: "db1".to_owned(),
        username: "postgres".to_owned(),
        now: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn repository() -> Repository {
    Repository::init(Arc::new(MemoryStorage::new()), &password(), &options()).unwrap()
}

pub(crate) fn draft() -> SnapshotDraft {
    SnapshotDraft {
        parent: None,
        time: "2026-03-01T09:00:00.123456789Z".parse().unwrap(),
        hostname: "db1".to_owned(),
        username: "postgres".to_owned(),
        paths: vec!["/dump".to_owned()],
        tags: Vec::new(),
        worked: Some((Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH)),
        extra: None,
    }
}

/// Rows that compress, all different.
pub(crate) fn rows(from: u32, to: u32) -> Vec<u8> {
    (from..to)
        .flat_map(|n| {
            format!(
                "{n}\t{}\tuser{n}@example.com\n",
                BlobId::of(&n.to_le_bytes()).short()
            )
            .into_bytes()
        })
        .collect()
}

pub(crate) fn store(writer: &Writer, bytes: &[u8]) -> FileContent {
    let mut worker = writer.worker().unwrap();
    let mut file = worker.file();
    bytes.chunks(77).for_each(|piece| file.push(piece).unwrap());
    file.finish().unwrap()
}

pub(crate) fn directory(files: &[(&str, &FileContent)]) -> Directory {
    let mut root = Directory::default();
    files
        .iter()
        .for_each(|(path, file)| root.insert(path, (*file).clone()).unwrap());
    root
}

fn small_packs() -> WriterOptions {
    WriterOptions {
        pack_size_bytes: 64 << 10,
        ..WriterOptions::default()
    }
}

fn count(repository: &Repository, kind: FileKind) -> usize {
    repository.storage().list(kind).unwrap().len()
}

#[test]
fn a_second_backup_of_the_same_stores_next_to_nothing() {
    let repository = repository();
    let bytes = rows(0, 30_000);
    let write = || {
        let writer = repository.writer(small_packs()).unwrap();
        let content = store(&writer, &bytes);
        assert_eq!(content.size_bytes, bytes.len() as u64);
        let root = directory(&[
            ("dump/a/data.dat", &content),
            ("dump/empty", &FileContent::default()),
        ]);
        writer.commit(&root, draft()).unwrap()
    };
    let before = repository.size_bytes().unwrap();
    let (first, stats) = write();
    assert_eq!(
        stats.bytes_stored_new,
        repository.size_bytes().unwrap() - before
    );
    assert_eq!(stats.packs_new as usize, count(&repository, FileKind::Pack));
    assert!(
        stats.packs_new > 3 && stats.data_blobs_new == stats.data_blobs,
        "{stats:?}"
    );
    assert_eq!(
        (stats.tree_blobs_new, stats.data_bytes_read),
        (3, bytes.len() as u64)
    );
    assert_eq!(first.summary.as_ref().unwrap().total_files_processed, 2);
    let (second, stats) = write();
    assert_eq!(
        (
            stats.data_blobs_new,
            stats.tree_blobs_new,
            stats.packs_new,
            stats.index_files_new
        ),
        (0, 0, 0, 0)
    );
    assert!(stats.bytes_stored_new < 1000, "{stats:?}");
    assert_eq!((first.tree, first.id == second.id), (second.tree, false));
    assert_eq!(
        repository.find_snapshot(&second.id.short()).unwrap(),
        second
    );
    assert_eq!(repository.snapshots().unwrap().0.len(), 2);
}

#[test]
fn workers_share_what_they_store_and_their_packs() {
    let repository = repository();
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let bytes = rows(0, 20_000);
    let contents: Vec<FileContent> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| store(&writer, &bytes)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(contents.iter().all(|content| *content == contents[0]));
    let (_, stats) = writer
        .commit(&directory(&[("a", &contents[0])]), draft())
        .unwrap();
    assert_eq!(stats.data_blobs, 4 * stats.data_blobs_new);
    // Four open packs became one; the trees have their own.
    assert_eq!(count(&repository, FileKind::Pack), 2);
    assert_eq!(
        repository.load_index().unwrap().len() as u64,
        stats.data_blobs_new + 1
    );
}

#[test]
fn an_abandoned_run_is_built_on() {
    let repository = repository();
    let bytes = rows(0, 20_000);
    let writer = repository.writer(small_packs()).unwrap();
    store(&writer, &bytes);
    assert!(writer.abandon().unwrap().bytes_stored_new > 0);
    assert_eq!(count(&repository, FileKind::Snapshot), 0);
    let writer = repository.writer(small_packs()).unwrap();
    let content = store(&writer, &bytes);
    let (_, stats) = writer
        .commit(&directory(&[("a", &content)]), draft())
        .unwrap();
    assert_eq!(stats.data_blobs_new, 0);
}

#[test]
fn an_interrupt_ends_the_push_and_the_commit() {
    let repository = repository();
    let interrupt = Arc::new(AtomicBool::new(false));
    let options = WriterOptions {
        interrupt: Arc::clone(&interrupt),
        ..small_packs()
    };
    let writer = repository.writer(options).unwrap();
    let content = store(&writer, &rows(0, 10_000));
    let mut worker = writer.worker().unwrap();
    interrupt.store(true, Ordering::Relaxed);
    let mut file = worker.file();
    assert!(matches!(
        file.push(&rows(0, 100_000)),
        Err(RepositoryError::Interrupted)
    ));
    drop(worker);
    let root = directory(&[("a", &content)]);
    assert!(matches!(
        writer.commit(&root, draft()),
        Err(RepositoryError::Interrupted)
    ));
    assert_eq!(count(&repository, FileKind::Snapshot), 0);
    // What was stored until then is found by the next run.
    assert!(count(&repository, FileKind::Index) > 0);
}

#[test]
fn a_file_with_chunks_of_another_size() {
    let repository = repository();
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let mut worker = writer.worker().unwrap();
    let bytes = rows(0, 60_000);
    let write = |mut file: FileWriter<'_>| {
        // Pieces larger than the buffer, and smaller ones.
        let (large, small) = bytes.split_at(bytes.len() - 100_000);
        file.push(large).unwrap();
        small.chunks(77).for_each(|piece| file.push(piece).unwrap());
        file.finish().unwrap()
    };
    let own = write(worker.file());
    let sizes = ChunkSizes::with_average(repository.chunk_sizes().avg * 4);
    let larger = write(worker.file_with(sizes));
    assert_eq!(write(worker.file_with(repository.chunk_sizes())), own);
    assert_eq!(write(worker.file_with(sizes)), larger);
    assert!(larger.chunks.len() * 2 < own.chunks.len());
    drop(worker);
    let root = directory(&[("own", &own), ("larger", &larger)]);
    writer.commit(&root, draft()).unwrap();
    let mut reader = repository.reader().unwrap().open(&larger).unwrap();
    let mut read = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        read.extend_from_slice(chunk);
    }
    assert!(read == bytes);
}

#[test]
fn no_snapshot_with_a_hole() {
    let repository = repository();
    let stranger = FileContent {
        chunks: vec![BlobId::of(b"never stored")],
        size_bytes: 12,
    };
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let error = writer
        .commit(&directory(&[("a", &stranger)]), draft())
        .unwrap_err();
    assert!(
        matches!(
            error,
            RepositoryError::MissingBlob {
                kind: BlobKind::Data,
                ..
            }
        ),
        "{error}"
    );
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let worker = writer.worker().unwrap();
    let error = writer.commit(&Directory::default(), draft()).unwrap_err();
    assert!(
        matches!(error, RepositoryError::WorkersUnfinished { count: 1 }),
        "{error}"
    );
    drop(worker);
    assert_eq!(count(&repository, FileKind::Snapshot), 0);
}

#[test]
fn a_lost_pack_is_not_built_on() {
    let repository = repository();
    let bytes = rows(0, 10_000);
    let write = || {
        let writer = repository.writer(small_packs()).unwrap();
        let content = store(&writer, &bytes);
        writer
            .commit(&directory(&[("a", &content)]), draft())
            .unwrap()
            .1
    };
    let stored = write().data_blobs_new;
    let pack = &repository.storage().list(FileKind::Pack).unwrap()[0];
    repository
        .storage()
        .delete(FileKind::Pack, &pack.name)
        .unwrap();
    let again = write();
    assert!(
        again.data_blobs_new + again.tree_blobs_new > 0 && again.data_blobs_new < stored,
        "{again:?}"
    );
    assert_eq!(write().data_blobs_new, 0);
}

#[test]
fn a_writer_that_is_dropped_leaves_no_snapshot_and_no_thread() {
    let repository = repository();
    let writer = repository.writer(small_packs()).unwrap();
    let mut worker = writer.worker().unwrap();
    worker.file().push(&rows(0, 50_000)).unwrap();
    let shared = Arc::downgrade(&writer.shared);
    drop(writer);
    // The worker that is left can't store any more, and does not wait for someone to take its pack.
    let error = worker.file().push(&rows(60_000, 120_000)).unwrap_err();
    assert!(
        matches!(
            error,
            RepositoryError::Poisoned(_) | RepositoryError::Interrupted
        ),
        "{error}"
    );
    drop(worker);
    assert_eq!(shared.strong_count(), 0, "a thread still holds the writer");
    assert_eq!(count(&repository, FileKind::Snapshot), 0);
}

#[test]
fn init_refuses_a_second_time_and_open_tells_what_is_wrong() {
    let repository = repository();
    let storage = repository.storage();
    let again = Repository::open(Arc::clone(storage), &password()).unwrap();
    let second = Repository::init(Arc::clone(storage), &password(), &options()).unwrap_err();
    assert!(
        matches!(second, RepositoryError::AlreadyExists { .. }),
        "{second}"
    );
    assert_eq!(
        (again.id(), again.chunk_sizes()),
        (repository.id(), repository.chunk_sizes())
    );
    let error = Repository::open(Arc::clone(storage), &"wrong".into()).unwrap_err();
    assert!(
        matches!(error, RepositoryError::WrongPassword { .. }),
        "{error}"
    );
    let key = storage.list(FileKind::Key).unwrap()[0].name.clone();
    storage.delete(FileKind::Key, &key).unwrap();
    let error = Repository::open(Arc::clone(storage), &password()).unwrap_err();
    assert!(matches!(error, RepositoryError::NoKey { .. }), "{error}");
    let empty: Arc<dyn crate::storage::Storage> = Arc::new(MemoryStorage::new());
    let error = Repository::open(empty, &password()).unwrap_err();
    assert!(matches!(error, RepositoryError::NotFound { .. }), "{error}");
}

/// An init that was interrupted before the config leaves a key that opens with the same password.
#[test]
fn a_key_that_an_interrupted_init_left_is_no_obstacle() {
    let left = repository();
    let storage = left.storage();
    storage
        .delete(FileKind::Config, crate::repository::CONFIG)
        .unwrap();
    let repository = Repository::init(Arc::clone(storage), &password(), &options()).unwrap();
    assert_eq!(count(&repository, FileKind::Key), 1);
    // Interrupted once more, before it was removed.
    let other = self::repository();
    let key = other.key_id().to_string();
    let content = other.storage().read(FileKind::Key, &key).unwrap();
    storage.write(FileKind::Key, &key, &content).unwrap();
    let opened = Repository::open(Arc::clone(storage), &password()).unwrap();
    assert_eq!(
        (opened.id(), opened.key_id()),
        (repository.id(), repository.key_id())
    );
    // Without its own key the repository is lost, and not for a wrong password.
    storage
        .delete(FileKind::Key, &repository.key_id().to_string())
        .unwrap();
    let error = Repository::open(Arc::clone(storage), &password()).unwrap_err();
    assert!(
        matches!(error, RepositoryError::DamagedConfig { .. }),
        "{error}"
    );
    // The key that is left opens nothing, so it counts as none; a config that cannot be one says nothing of keys.
    assert!(error.means_no_key());
    storage
        .delete(FileKind::Config, crate::repository::CONFIG)
        .unwrap();
    storage
        .write(
            FileKind::Config,
            crate::repository::CONFIG,
            &vec![0; 2 << 20],
        )
        .unwrap();
    let error = Repository::open(Arc::clone(storage), &password()).unwrap_err();
    assert!(
        matches!(error, RepositoryError::DamagedConfig { .. }) && !error.means_no_key(),
        "{error}"
    );
}
