//! Taking the repository's lock, with patience.
//!
//! Readers take the shared one too: a prune that replaces packs while they are read would make a good backup look
//! damaged, or end a restore half way. But a lock is a file to write, and reading has to be possible where nothing
//! can be written, and on the day when the machine that held the exclusive lock has just burned.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_repo::lock::{Clock, LockGuard, LockHolder, LockInfo, LockMode, Patience};
use lifeboat_repo::storage::StorageErrorKind;
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

/// What is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A verdict, which would be wrong while data is being moved.
    ToJudge,
    /// The data itself: if need be beside whoever moves it.
    ToRescue,
}

/// A shared lock, to be held from before the index is read until the last byte is. `None` where none can be had and
/// reading goes on all the same, which is told as a warning.
///
/// # Errors
/// `Locked` for a verdict; `Interrupted`; what the storage says when it can't be reached at all.
pub fn to_read(
    repository: &Repository,
    reading: Reading,
    who: (&str, &str),
    most: Duration,
    interrupt: &Arc<AtomicBool>,
    observer: &dyn Observer,
) -> Result<Option<LockGuard>, RepositoryError> {
    let error = match lock(repository, LockMode::Shared, who, most, interrupt, observer) {
        Ok(guard) => return Ok(Some(guard)),
        Err(error) => error,
    };
    let goes_on = match &error {
        RepositoryError::Locked { .. } => reading == Reading::ToRescue,
        // A lock file that nobody can read.
        RepositoryError::Lock(_) => true,
        RepositoryError::Storage(error) => matches!(
            error.kind(),
            StorageErrorKind::PermissionDenied
                | StorageErrorKind::NoSpace
                | StorageErrorKind::Other
        ),
        _ => false,
    };
    if !goes_on {
        return Err(error);
    }
    observer.event(&Event::Warning {
        message: format!("reading without a lock: {error}"),
    });
    Ok(None)
}
