//! Where answers take long, a file asks for what comes next before it is wanted, and for no more than it may.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lifeboat_repo::storage::{FileEntry, FileKind, MemoryStorage, Storage, StorageError};
use support::{back_up, init, noise, open};

const AT_ONCE: usize = 4;

/// A storage that answers a read of a pack only when `together` of them are under way, or after a while.
#[derive(Debug)]
struct Distant {
    inner: Arc<MemoryStorage>,
    together: usize,
    under_way: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Distant {
    /// Waits until enough reads are under way.
    fn meet(&self) {
        let mut under_way = self.under_way.lock().unwrap();
        under_way.0 += 1;
        under_way.1 = under_way.1.max(under_way.0);
        self.changed.notify_all();
        let enough = |state: &mut (usize, usize)| state.1 < self.together;
        let (mut under_way, _) = self
            .changed
            .wait_timeout_while(under_way, Duration::from_secs(20), enough)
            .unwrap();
        under_way.0 -= 1;
    }
}

impl Storage for Distant {
    fn location(&self) -> String {
        "far away".to_owned()
    }
    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError> {
        self.inner.list(kind)
    }
    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        self.inner.size(kind, name)
    }
    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        if kind == FileKind::Snapshot {
            self.meet();
        }
        self.inner.read(kind, name)
    }
    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        self.meet();
        self.inner.read_range(kind, name, offset, length)
    }
    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        self.inner.write(kind, name, content)
    }
    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        self.inner.delete(kind, name)
    }
    fn create(&self) -> Result<(), StorageError> {
        self.inner.create()
    }
    fn free_space_bytes(&self) -> Option<u64> {
        None
    }
    fn requests_at_once(&self) -> usize {
        AT_ONCE
    }
}

/// Noise with runs of equal chunks in it, and what came before once more.
fn content() -> Vec<u8> {
    let mut content = noise(1, 700_000);
    content.extend(vec![0; 300_000]);
    content.extend(noise(2, 400_000));
    content.extend_from_within(100_000..500_000);
    content.extend(vec![0; 300_000]);
    content
}

#[test]
fn several_reads_are_under_way_at_once_and_the_bytes_are_right() {
    let memory = Arc::new(MemoryStorage::new());
    let repository = init(Arc::clone(&memory) as Arc<dyn Storage>).unwrap();
    let content = content();
    let (snapshot, _) = back_up(&repository, 9, &[("table", content.clone())], 60_000).unwrap();

    let storage = Arc::new(Distant {
        inner: memory,
        together: 0,
        under_way: Mutex::default(),
        changed: Condvar::new(),
    });
    let repository = open(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let reader = repository.reader().unwrap();
    let node = reader.find(&snapshot, "table").unwrap();
    let table = reader.content(&node).unwrap();
    let mut read = Vec::new();
    reader.open(&table).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == content);
    for (start, end) in [
        (0, 10),
        (650_000, 1_050_000),
        (1_399_999, 1_400_001),
        (1_000_000, 9_000_000),
    ] {
        let mut part = Vec::new();
        let mut file = reader.open_range(&table, start..end).unwrap();
        file.read_to_end(&mut part).unwrap();
        let (start, end) = (start as usize, content.len().min(end as usize));
        assert!(part == content[start..end], "{start}..{end}");
    }
    assert!(storage.under_way.lock().unwrap().1 <= AT_ONCE, "bounded");
}

#[test]
fn the_first_read_waits_for_company() {
    let memory = Arc::new(MemoryStorage::new());
    let repository = init(Arc::clone(&memory) as Arc<dyn Storage>).unwrap();
    let content = noise(3, 1 << 20);
    let (snapshot, _) = back_up(&repository, 9, &[("table", content.clone())], 60_000).unwrap();
    let reader = repository.reader().unwrap();
    let node = reader.find(&snapshot, "table").unwrap();
    let table = reader.content(&node).unwrap();

    let storage = Arc::new(Distant {
        inner: memory,
        together: AT_ONCE,
        under_way: Mutex::default(),
        changed: Condvar::new(),
    });
    let repository = open(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let mut read = Vec::new();
    let mut file = repository.reader().unwrap().open(&table).unwrap();
    file.read_to_end(&mut read).unwrap();
    assert!(read == content);
    assert_eq!(
        storage.under_way.lock().unwrap().1,
        AT_ONCE,
        "as many as may be, and no more"
    );
}

/// A month of backups has hundreds of snapshot and index files; asked for one by one they would take minutes.
#[test]
fn small_files_are_fetched_several_at_once() {
    let memory = Arc::new(MemoryStorage::new());
    let repository = init(Arc::clone(&memory) as Arc<dyn Storage>).unwrap();
    for hour in 0..10 {
        let content = noise(u64::from(hour), 1000);
        back_up(&repository, hour, &[("table", content)], 60_000).unwrap();
    }
    let (near, _) = repository.snapshots().unwrap();
    for together in [0, AT_ONCE] {
        let storage = Arc::new(Distant {
            inner: Arc::clone(&memory),
            together,
            under_way: Mutex::default(),
            changed: Condvar::new(),
        });
        let far = open(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
        let (snapshots, damaged) = far.snapshots().unwrap();
        assert_eq!((snapshots, damaged.len()), (near.clone(), 0));
        let reached = storage.under_way.lock().unwrap().1;
        assert!(reached <= AT_ONCE && reached >= together, "{reached}");
        assert_eq!(
            far.load_index().unwrap().len(),
            repository.load_index().unwrap().len()
        );
    }
}
