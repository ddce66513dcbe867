//! Locks where something fails.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use lifeboat_repo::lock::{LockHolder, LockMode};
use lifeboat_repo::storage::{AppendOnly, FileKind, MemoryStorage, Storage, StorageErrorKind};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use support::{clock, init, open, this_process};

/// Whoever tidies up may be cut off anywhere: a lock that was released never comes into force again.
#[test]
fn what_was_released_stays_released_wherever_tidying_ends() {
    let pristine = MemoryStorage::new();
    init(Arc::new(pristine.clone())).unwrap();
    let elsewhere = LockHolder {
        hostname: "elsewhere".to_owned(),
        ..this_process()
    };
    let appending = open(Arc::new(AppendOnly::new(Arc::new(pristine.clone())))).unwrap();
    // Several, since their names, and so the order in which they are looked at, are random.
    for _ in 0..6 {
        drop(
            appending
                .lock(LockMode::Shared, &elsewhere, clock())
                .unwrap(),
        );
    }
    assert_eq!(pristine.list(FileKind::Lock).unwrap().len(), 12);
    for failure in [Failure::Dead, Failure::Refused] {
        for after in 0..12 {
            let storage = MemoryStorage::new();
            support::copy(&pristine, &storage);
            let faulty = FaultyStorage::new(Arc::new(storage.clone()));
            let repository = open(Arc::new(faulty.clone())).unwrap();
            faulty.plan(Fault {
                calls: Calls::Changes,
                after,
                failure,
                kind: StorageErrorKind::Other,
            });
            let cut = repository.lock(LockMode::Exclusive, &this_process(), clock());
            faulty.heal();
            drop(cut);
            let lock = repository.lock(LockMode::Exclusive, &this_process(), clock());
            drop(lock.unwrap_or_else(|error| panic!("{failure:?} after {after}: {error}")));
        }
    }
}
