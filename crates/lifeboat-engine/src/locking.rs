//! Taking the repository's lock, with patience.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_repo::lock::{Clock, LockGuard, LockHolder, LockInfo, LockMode, Patience};
use lifeboat_repo::{Repository, RepositoryError};

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
