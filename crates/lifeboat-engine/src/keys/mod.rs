//! The keys of a repository: adding one, removing one, and changing the passphrase that a machine uses.
//!
//! Locks are taken as restic's `key` takes them: a shared one to add, the exclusive one to remove and to rotate.

mod passphrase_file;
mod rotate;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_repo::key::{KeyOrigin, ScryptParams};
use lifeboat_repo::keys::KeyInfo;
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::{KeyId, Repository, RepositoryError};
use secrecy::SecretString;

use crate::event::Observer;
use crate::locking;

pub use passphrase_file::leftovers;
pub use rotate::{RotateError, RotateRequest, Rotated, rotate};

/// Who changes the keys.
#[derive(Debug, Clone)]
pub struct KeyHolder {
    /// This host, for the key and the lock.
    pub hostname: String,
    /// The user, for the key and the lock.
    pub username: String,
    /// The time, for the key.
    pub now: Timestamp,
    /// The cost of trying a new passphrase.
    pub scrypt: ScryptParams,
    /// How long to wait for others that work on the repository.
    pub patience: Duration,
    /// Set to stop waiting.
    pub interrupt: Arc<AtomicBool>,
}

impl KeyHolder {
    fn origin(&self) -> KeyOrigin {
        KeyOrigin {
            hostname: self.hostname.clone(),
            username: self.username.clone(),
            created: self.now,
        }
    }

    fn lock(
        &self,
        repository: &Repository,
        mode: LockMode,
        observer: &dyn Observer,
    ) -> Result<lifeboat_repo::lock::LockGuard, RepositoryError> {
        locking::lock(
            repository,
            mode,
            (&self.hostname, &self.username),
            self.patience,
            &self.interrupt,
            observer,
        )
    }
}

/// What became of a passphrase that should open the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It has a key now, which was read back and opens the repository.
    New(KeyId),
    /// It had one already.
    Already(KeyId),
}

/// Makes a further passphrase open the repository.
///
/// # Errors
/// What the repository says. A key that does not open it is removed again.
pub fn add(
    repository: &Repository,
    passphrase: &SecretString,
    holder: &KeyHolder,
    observer: &dyn Observer,
) -> Result<Added, RepositoryError> {
    let _lock = holder.lock(repository, LockMode::Shared, observer)?;
    let storage = Arc::clone(repository.storage());
    if let Some(opened) = Repository::try_open(storage, passphrase)? {
        return Ok(Added::Already(opened.key_id()));
    }
    let key = repository.add_key(passphrase, holder.scrypt, &holder.origin())?;
    Ok(Added::New(key))
}

/// Removes a key; its passphrase opens the repository no more.
///
/// # Errors
/// `KeyInUse`, `LastKey`, or what the repository says.
pub fn remove(
    repository: &Repository,
    key: &KeyInfo,
    holder: &KeyHolder,
    observer: &dyn Observer,
) -> Result<(), RepositoryError> {
    let lock = holder.lock(repository, LockMode::Exclusive, observer)?;
    repository.remove_key(&key.name, &lock)
}
