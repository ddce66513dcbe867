//! Taking the repository's lock, with patience.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_repo::check::{CheckOptions, CheckScope};
use lifeboat_repo::lock::{Clock, LockGuard, LockHolder, LockInfo, LockMode, Patience};
use lifeboat_repo::storage::{FileKind, StorageErrorKind};
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::event::{Event, Observer};

/// The lock, once others let go of theirs; whoever is waited for is told once. A prune holds the exclusive one for
/// seconds.
pub(crate) fn lock(
    repository: &Repository,
    mode: LockMode,
    (hostname, username): (&str, &str),
    most: Duration,
    interrupt: &Arc<AtomicBool>,
    observer: &dyn Observer,
) -> Result<LockGuard, RepositoryError> {
    let holder = LockHolder {
        hostname: hostname.to_owned(),
        username: username.to_owned(),
        pid: std::process::id(),
    };
    let tell = |by: &LockInfo| {
        observer.event(&Event::Warning {
            message: format!("the repository is locked by {by}: waiting"),
        });
    };
    let patience = Patience {
        most,
        interrupt,
        waits_for: &tell,
    };
    let clock: Clock = Arc::new(Timestamp::now);
    repository.lock_patiently(mode, &holder, &clock, patience)
}

/// After a backup whose lock was lost at the last moment: whether all that it needs is there. If not, and also when
/// that cannot be told, it is removed: a run that fails leaves no backup.
pub(crate) fn stands_after_all(
    repository: &Repository,
    id: SnapshotId,
    interrupt: &Arc<AtomicBool>,
) -> Result<bool, RepositoryError> {
    let name = id.to_string();
    let options = CheckOptions {
        interrupt: Arc::clone(interrupt),
        ..CheckOptions::default()
    };
    let check = repository
        .find_snapshot(&name)
        .and_then(|snapshot| repository.check(CheckScope::Snapshot(&snapshot), &options, &|_| ()));
    if check.as_ref().is_ok_and(|check| check.is_clean()) {
        return Ok(true);
    }
    match repository.storage().delete(FileKind::Snapshot, &name) {
        Err(error) if error.kind() != StorageErrorKind::NotFound => Err(error.into()),
        _ => check.map(|_| false),
    }
}
