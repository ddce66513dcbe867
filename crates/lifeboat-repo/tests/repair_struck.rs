//! Repairing while the storage fails: cut off at any step, or wrong at the first reading only.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifeboat_repo::Repository;
use lifeboat_repo::SnapshotId;
use lifeboat_repo::check::Problem;
use lifeboat_repo::repair::{Decision, RepairDone, RepairReport};
use lifeboat_repo::storage::{FileKind, Storage, StorageError, StorageErrorKind};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use support::check;
use support::repair::{clone_of, elsewhere, everything, readable, repair, ruin, three_hours};

/// Struck at every call, with each kind of failure: what could be read can be read, and the next run goes on.
#[test]
fn cut_off_at_any_step_nothing_is_worse_and_the_next_run_goes_on() {
    let pristine = three_hours();
    let good = readable(&pristine);
    let there = elsewhere(&pristine, true);
    let mut strikes = 0;
    for sources in [&[&there][..], &[]] {
        for (calls, failure, kind) in [
            (Calls::Changes, Failure::Refused, StorageErrorKind::NoSpace),
            (
                Calls::Changes,
                Failure::AnswerLost,
                StorageErrorKind::Unreachable,
            ),
            (Calls::Changes, Failure::Dead, StorageErrorKind::Other),
            (
                Calls::All,
                Failure::Refused,
                StorageErrorKind::PermissionDenied,
            ),
            (Calls::All, Failure::Refused, StorageErrorKind::Other),
            (Calls::All, Failure::Dead, StorageErrorKind::Unreachable),
        ] {
            let mut after = 0;
            loop {
                let memory = clone_of(&pristine);
                ruin(&memory);
                let faulty = FaultyStorage::new(Arc::clone(memory.storage()));
                let broken = support::open(Arc::new(faulty.clone())).unwrap();
                // What can be read of it without the index file that does not open.
                let before = unhindered(&memory);
                faulty.plan(Fault {
                    calls,
                    after,
                    failure,
                    kind,
                });
                let struck = repair(&broken, sources, &|plan| {
                    if plan.gives_up() {
                        Decision::MendAndGiveUp
                    } else {
                        Decision::Mend
                    }
                });
                let has_struck = faulty.has_struck();
                faulty.heal();
                let what = format!("{calls:?} {failure:?} {kind:?} {after} {}", sources.len());
                let now = unhindered(&memory);
                let worse = before
                    .iter()
                    .find(|(path, bytes)| now.get(*path) != Some(*bytes));
                assert!(
                    worse.is_none(),
                    "{what}: {:?} {struck:?}",
                    worse.map(|one| one.0)
                );
                let (_, done) =
                    match repair(&broken, sources, &|_| Decision::MendAndGiveUp).unwrap() {
                        RepairReport {
                            plan,
                            done: Some(done),
                        } => (plan, done),
                        RepairReport { plan, done: None } => {
                            assert!(plan.is_clean(), "{what}");
                            (plan, RepairDone::default())
                        }
                    };
                assert!(done.left.is_empty(), "{what}: {done:?}");
                if sources.is_empty() {
                    let complaints = check(&memory, true).findings;
                    let only_losses = complaints
                        .iter()
                        .all(|one| matches!(one.what, Problem::Incomplete { .. }));
                    assert!(only_losses, "{what}: {complaints:?}");
                    let now = readable(&memory);
                    assert!(
                        before
                            .iter()
                            .all(|(path, bytes)| now.get(path) == Some(bytes)),
                        "{what}"
                    );
                } else {
                    assert!(done.is_whole(), "{what}: {done:?}");
                    assert_eq!(check(&memory, true).findings, [], "{what}");
                    assert!(readable(&memory) == good, "{what}");
                }
                strikes += 1;
                if !has_struck {
                    break;
                }
                // Reads are many, and each is like the one before.
                after += if calls == Calls::All { 7 } else { 1 };
            }
        }
    }
    assert!(strikes > 100, "{strikes}");
}

/// What can be read once all that is damaged in the index is passed over: of a copy that has been repaired with
/// nothing given up.
fn unhindered(repository: &Repository) -> BTreeMap<(SnapshotId, String), Vec<u8>> {
    let copy = clone_of(repository);
    repair(&copy, &[], &|_| Decision::Mend).unwrap();
    readable(&copy)
}

/// A storage in which the first reading of each pack shows a flipped bit.
#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn Storage>,
    seen: std::sync::Mutex<BTreeSet<(String, u64)>>,
}

impl Storage for Flaky {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn list(&self, kind: FileKind) -> Result<Vec<lifeboat_repo::storage::FileEntry>, StorageError> {
        self.inner.list(kind)
    }
    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        self.inner.size(kind, name)
    }
    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        self.inner.read(kind, name)
    }
    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        let mut bytes = self.inner.read_range(kind, name, offset, length)?;
        let mut seen = self.seen.lock().unwrap();
        if kind == FileKind::Pack && offset == 0 && seen.insert((name.to_owned(), offset)) {
            bytes[length / 2] ^= 1;
        }
        Ok(bytes)
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
}

#[test]
fn what_is_right_when_read_again_is_left_alone() {
    let pristine = three_hours();
    let storage = Flaky {
        inner: Arc::clone(pristine.storage()),
        seen: std::sync::Mutex::default(),
    };
    let repository = support::open(Arc::new(storage)).unwrap();
    let before = everything(&pristine);
    let report = repair(&repository, &[], &|_| Decision::MendAndGiveUp).unwrap();
    assert!(
        report.plan.is_clean() && report.done.is_none(),
        "{report:?}"
    );
    assert!(!report.plan.misread.is_empty());
    assert!(everything(&pristine) == before);
}

/// A lock file that does not open holds everybody up, until it is older than any holder lets one get.
#[test]
fn a_lock_file_that_does_not_open_is_removed_once_it_is_nobodys() {
    let repository = three_hours();
    let name = "ab".repeat(32);
    repository
        .storage()
        .write(FileKind::Lock, &name, b"garbage")
        .unwrap();
    let Err(error) = repair(&repository, &[], &|_| Decision::Mend) else {
        panic!("a lock was passed over");
    };
    assert!(error.to_string().contains(&name), "{error}");
    assert!(repository.storage().size(FileKind::Lock, &name).is_ok());
}
