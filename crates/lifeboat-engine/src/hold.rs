//! Holding backups: what is held never expires.
//!
//! A hold is two tags on the snapshot, `hold` and `hold-reason=…`, so that it is where the backup is, on every
//! machine, and stock restic shows and honours it (`restic forget --keep-tag hold`). Tags are part of a snapshot's
//! file, which is named by its content: so a hold gives the backup another ID. The first one is kept in the
//! file's `original`, as restic does, and finds the backup ever after.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lifeboat_repo::lock::LockMode;
use lifeboat_repo::{Repository, RepositoryError};

use crate::catalog::{Backup, Catalog, CatalogError, HOLD_REASON_TAG, HOLD_TAG, Selector};
use crate::event::Observer;
use crate::locking;

/// Who changes a hold.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    /// The backup.
    pub selector: Selector,
    /// Of which database, for `latest`.
    pub database: Option<String>,
    /// Why it is held; `None` lets it go.
    pub reason: Option<String>,
    /// This host, for the lock.
    pub hostname: String,
    /// The user, for the lock.
    pub username: String,
    /// How long to wait for others that work on the repository.
    pub patience: Duration,
    /// Set to stop waiting.
    pub interrupt: Arc<AtomicBool>,
}

/// Why a hold was not changed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It has to be said why.
    #[error("a hold needs a reason")]
    NoReason,
    /// There is no hold to take away.
    #[error("backup {} is not held", .0.id.short())]
    NotHeld(Box<Backup>),
    /// There is no such backup.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Holds a backup, or lets it go. Returns it as it is then, under its new ID.
///
/// # Errors
/// [`HoldError`]. An interruption leaves the backup as it was, or with the hold changed.
pub fn execute(
    repository: &Repository,
    request: &HoldRequest,
    observer: &dyn Observer,
) -> Result<Backup, HoldError> {
    // A comma separates tags on restic's command line.
    let reason = request.reason.as_ref().map(|reason| {
        let words: Vec<&str> = reason.split_whitespace().collect();
        words.join(" ").replace(',', ";")
    });
    if reason.as_ref().is_some_and(String::is_empty) {
        return Err(HoldError::NoReason);
    }
    let lock = locking::lock(
        repository,
        LockMode::Exclusive,
        (&request.hostname, &request.username),
        request.patience,
        &request.interrupt,
        observer,
    )?;
    let catalog = Catalog::new(repository);
    let backup = catalog.select(&request.selector, request.database.as_deref())?;
    if reason.is_none() && backup.held.is_none() {
        return Err(HoldError::NotHeld(Box::new(backup)));
    }
    if reason == backup.held {
        return Ok(backup);
    }
    let is_ours = |tag: &String| tag == HOLD_TAG || tag.starts_with(HOLD_REASON_TAG);
    let mut tags = backup.snapshot.tags.clone();
    tags.retain(|tag| !is_ours(tag));
    if let Some(reason) = &reason {
        tags.push(HOLD_TAG.to_owned());
        tags.push(format!("{HOLD_REASON_TAG}{reason}"));
    }
    let snapshot = repository.retag(&backup.snapshot, tags, &lock)?;
    Ok(Backup {
        id: snapshot.id,
        held: reason,
        snapshot,
        ..backup
    })
}
