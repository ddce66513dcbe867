//! What is tried again, for how long, and what a lost answer means; on a place that fails by a list.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::storage::MemoryStorage;

/// What the next change of a [`Scripted`] does.
#[derive(Debug, Clone)]
enum Fault {
    /// Nothing happens, and that may pass.
    Refused,
    /// It takes effect, but nobody hears of it.
    AnswerLost,
    /// Nothing happens, for good.
    Forbidden,
}

#[derive(Debug)]
struct Scripted {
    memory: MemoryStorage,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Scripted {
    fn next(&self) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.pop_front()
    }

    fn call<T>(&self, operation: impl FnOnce() -> Result<T, StorageError>) -> Result<T, Failed> {
        let lost = || Failed::for_now(StorageErrorKind::Unreachable, "the cable was cut");
        let done = |result: Result<T, StorageError>| {
            result.map_err(|error| Failed::for_good(error.kind(), "as memory says"))
        };
        match self.next() {
            None => done(operation()),
            Some(Fault::Refused) => Err(lost()),
            Some(Fault::AnswerLost) => done(operation()).and(Err(lost())),
            Some(Fault::Forbidden) => Err(Failed::for_good(
                StorageErrorKind::PermissionDenied,
                "not you",
            )),
        }
    }
}

impl Backend for Scripted {
    fn location(&self) -> String {
        "a list of faults".to_owned()
    }
    fn list(&self, kind: FileKind, _: &Arc<Patience>) -> Result<Vec<FileEntry>, Failed> {
        self.call(|| self.memory.list(kind))
    }
    fn size(&self, kind: FileKind, name: &str, _: &Arc<Patience>) -> Result<u64, Failed> {
        self.call(|| self.memory.size(kind, name))
    }
    fn read(&self, kind: FileKind, name: &str, _: &Arc<Patience>) -> Result<Vec<u8>, Failed> {
        self.call(|| self.memory.read(kind, name))
    }
    fn read_range(
        &self,
        (kind, name): (FileKind, &str),
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
        _: &Arc<Patience>,
    ) -> Result<(), Failed> {
        // What a cut connection leaves in the buffer.
        buffer.extend_from_slice(b"half");
        self.call(|| {
            buffer.clear();
            self.memory
                .read_range_into(kind, name, offset, length, buffer)
        })
    }
    fn put(
        &self,
        kind: FileKind,
        name: &str,
        content: &[u8],
        _: &Arc<Patience>,
    ) -> Result<(), Failed> {
        self.call(|| self.memory.write(kind, name, content))
    }
    fn delete(&self, kind: FileKind, name: &str, _: &Arc<Patience>) -> Result<(), Failed> {
        self.call(|| self.memory.delete(kind, name))
    }
    fn create(&self, _: &Arc<Patience>) -> Result<(), Failed> {
        self.call(|| self.memory.create())
    }
    fn free_space_bytes(&self, _: &Arc<Patience>) -> Option<u64> {
        None
    }
    fn sweep(&self, _: &Arc<Patience>) -> Result<usize, Failed> {
        Ok(0)
    }
}

struct Place {
    storage: RemoteStorage,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Place {
    fn new() -> Self {
        let faults = Arc::<Mutex<VecDeque<Fault>>>::default();
        let memory = MemoryStorage::new();
        memory.create().unwrap();
        let backend = Scripted {
            memory,
            faults: Arc::clone(&faults),
        };
        let options = RemoteOptions {
            first_contact: Duration::from_millis(40),
            give_up_after: Duration::from_secs(30),
            first_pause: Duration::from_millis(1),
            ..RemoteOptions::default()
        };
        Self {
            storage: RemoteStorage::new(Box::new(backend), options),
            faults,
        }
    }

    fn plan(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults.iter().cloned());
    }

    fn left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }
}

fn name() -> String {
    "5a".repeat(32)
}

fn causes(error: &StorageError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[test]
fn what_may_pass_is_tried_again() {
    let place = Place::new();
    place.plan(&[Fault::Refused, Fault::Refused, Fault::Refused]);
    place
        .storage
        .write(FileKind::Pack, &name(), b"sealed")
        .unwrap();
    place.plan(&[Fault::Refused]);
    assert_eq!(
        place.storage.read(FileKind::Pack, &name()).unwrap(),
        b"sealed"
    );
    place.plan(&[Fault::Refused, Fault::Refused]);
    let part = place.storage.read_range(FileKind::Pack, &name(), 1, 3);
    assert_eq!(part.unwrap(), b"eal", "nothing of the tries that failed");
}

#[test]
fn what_will_not_pass_is_told_at_once() {
    let place = Place::new();
    place.plan(&[Fault::Forbidden, Fault::Refused]);
    let error = place
        .storage
        .write(FileKind::Pack, &name(), b"x")
        .unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::PermissionDenied);
    assert_eq!(place.left(), 1, "one try");
}

#[test]
fn a_write_whose_answer_was_lost_has_succeeded() {
    let place = Place::new();
    place.plan(&[Fault::AnswerLost]);
    place
        .storage
        .write(FileKind::Pack, &name(), b"mine")
        .unwrap();
    assert_eq!(
        place.storage.read(FileKind::Pack, &name()).unwrap(),
        b"mine"
    );

    let error = place
        .storage
        .write(FileKind::Pack, &name(), b"mine")
        .unwrap_err();
    assert_eq!(
        error.kind(),
        StorageErrorKind::AlreadyExists,
        "it was there before"
    );
    // Somebody else's file, found on the second try, is not ours.
    place.plan(&[Fault::Refused]);
    let error = place
        .storage
        .write(FileKind::Pack, &name(), b"them")
        .unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::AlreadyExists);
    assert_eq!(
        place.storage.read(FileKind::Pack, &name()).unwrap(),
        b"mine"
    );
}

#[test]
fn a_delete_whose_answer_was_lost_has_succeeded() {
    let place = Place::new();
    place.storage.write(FileKind::Lock, &name(), b"x").unwrap();
    place.plan(&[Fault::AnswerLost]);
    place.storage.delete(FileKind::Lock, &name()).unwrap();
    let error = place.storage.delete(FileKind::Lock, &name()).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotFound);
}

#[test]
fn giving_up_says_the_last_cause() {
    let place = Place::new();
    place.plan(&vec![Fault::Refused; 1000]);
    let error = place.storage.list(FileKind::Pack).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unreachable);
    let causes = causes(&error);
    assert!(causes.contains("given up after "), "{causes}");
    assert!(causes.ends_with("the cable was cut"), "{causes}");
    assert!(
        place.left() > 900,
        "a place that never answered is given up soon"
    );
}

#[test]
fn an_interrupt_ends_the_waiting() {
    let place = Place::new();
    place.storage.list(FileKind::Pack).unwrap();
    place.plan(&vec![Fault::Refused; 100_000]);
    let interrupt = Arc::clone(&place.storage.options.interrupt);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Once it is in the middle of trying.
            while place.left() > 99_997 && start.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
            interrupt.store(true, Ordering::Relaxed);
        });
        let error = place.storage.list(FileKind::Pack).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Interrupted);
    });
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    // What has to be tidied up still can be.
    place.faults.lock().unwrap().clear();
    place.storage.write(FileKind::Index, &name(), b"x").unwrap();
    place.storage.delete(FileKind::Index, &name()).unwrap();
}
