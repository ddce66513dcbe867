//! Changing the passphrase that a machine uses: a new key, the file that holds the passphrase, the old key, in an
//! order that survives being cut anywhere.
//!
//! Invariant: at every moment the passphrase file, as it is, opens the repository. The new passphrase is durable
//! beside the file before a key exists for it, the key is proven before the file is replaced, the file is replaced by
//! one rename, and the old key goes only after the repository was opened through the replaced file. What an
//! interrupted rotation left tells the next one how far it came; that one finishes it.
//!
//! A rotation does not change the master key. It keeps out who learns an old passphrase later; it does not keep out
//! who has one together with a copy of its key file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_repo::lock::{LockGuard, LockMode};
use lifeboat_repo::storage::Storage;
use lifeboat_repo::{KeyId, Repository, RepositoryError};
use secrecy::{ExposeSecret, SecretString};

use super::KeyHolder;
use super::passphrase_file::PassphraseFile;
use crate::event::Observer;

/// What to rotate, and to what.
pub struct RotateRequest {
    /// The repository's files.
    pub storage: Arc<dyn Storage>,
    /// The file that holds the passphrase, and will hold the new one.
    pub password_file: PathBuf,
    /// The new passphrase.
    pub new: SecretString,
    /// Whether somebody chose it: then finishing an interrupted rotation to another one is not enough.
    pub is_chosen: bool,
    /// Who rotates.
    pub holder: KeyHolder,
}

/// A rotation that was finished.
#[derive(Debug)]
pub struct Rotated {
    /// The key of the passphrase that the file holds now.
    pub key: KeyId,
    /// The keys that were removed, by name.
    pub removed: Vec<String>,
    /// Whether an interrupted rotation was finished, and its passphrase taken.
    pub resumed: bool,
    /// The file, links followed.
    pub password_file: PathBuf,
    /// The permission bits that it had, when they were wider than the 0600 that it has now.
    pub was_wider: Option<u32>,
}

/// Why a rotation was not begun, or not finished.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The new passphrase is the one in use.
    #[error("the new passphrase is the one in use")]
    Unchanged,
    /// The new passphrase is that of another key.
    #[error("the new passphrase opens the repository already, with key {}", .0.short())]
    AlreadyAKey(KeyId),
    /// A file cannot be read or written as it has to be.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The repository does not open through the file that was put in place; the old one is back.
    #[error("the new passphrase was put into {}, but the repository did not open with it", path.display())]
    NotProven {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<RepositoryError>,
    },
    /// It stopped half way. The passphrase file opens the repository all the same.
    #[error("the rotation is not finished: {source}")]
    Unfinished {
        /// Whether the file holds the new passphrase.
        is_new_in_place: bool,
        /// The file.
        path: PathBuf,
        /// Why it stopped.
        source: Box<RotateError>,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Replaces the passphrase in the file by a new one, and the key that it opens.
///
/// # Errors
/// [`RotateError`]. Whatever it is, the file opens the repository.
pub fn rotate(request: &RotateRequest, observer: &dyn Observer) -> Result<Rotated, RotateError> {
    let file = PassphraseFile::at(&request.password_file)?;
    let open =
        |passphrase: &SecretString| Repository::open(Arc::clone(&request.storage), passphrase);
    let known = file.read()?;
    let before = open(&known)?;
    let lock = request
        .holder
        .lock(&before, LockMode::Exclusive, observer)?;
    // Read anew under the lock: another rotation may have been faster.
    let current = file.read()?;
    let still_there = before.keys()?.iter().any(|key| key.is_in_use);
    let repository = if still_there && same(&current, &known) {
        before
    } else {
        open(&current)?
    };
    let mut rotation = Rotation {
        request,
        file,
        lock,
        repository,
        current,
        removed: Vec::new(),
    };
    let finished = rotation.finish_retirement()?;
    if finished && (!request.is_chosen || same(&rotation.current, &request.new)) {
        return Ok(rotation.done(true));
    }
    if request.is_chosen && same(&rotation.current, &request.new) {
        return Err(RotateError::Unchanged);
    }
    let resumed = rotation.replace()?;
    Ok(rotation.done(finished || resumed))
}

/// A rotation under its lock.
struct Rotation<'a> {
    request: &'a RotateRequest,
    file: PassphraseFile,
    lock: LockGuard,
    /// Opened with `current`.
    repository: Repository,
    /// What the file holds.
    current: SecretString,
    removed: Vec<String>,
}

impl Rotation<'_> {
    /// The repository as this passphrase opens it, if it does.
    fn open(&self, passphrase: &SecretString) -> Result<Option<Repository>, RepositoryError> {
        Repository::try_open(Arc::clone(&self.request.storage), passphrase)
    }

    /// What an interrupted rotation left after it had put the new passphrase in place: the old one beside it, and
    /// maybe its key. Returns whether there was such a thing.
    fn finish_retirement(&mut self) -> Result<bool, RotateError> {
        // The exchange is what takes the new one away from beside the file. Until then `replace` goes on.
        if self.file.read_staged()?.is_some() {
            return Ok(false);
        }
        let Some(previous) = self.file.read_previous()? else {
            return Ok(false);
        };
        let is_after_exchange = !same(&previous, &self.current);
        if is_after_exchange {
            self.remove_keys_of(&previous)?;
        }
        self.file.remove_previous()?;
        Ok(is_after_exchange)
    }

    /// The rotation itself. Returns whether it went on with a passphrase that an interrupted one had made.
    fn replace(&mut self) -> Result<bool, RotateError> {
        let (new, key, resumed) = self.new_key()?;
        self.file
            .keep_previous(&self.current)
            .and_then(|()| Ok(self.lock.verify().map_err(RepositoryError::from)?))
            .and_then(|()| self.file.exchange())
            .map_err(|error| self.unfinished(false, error))?;
        self.prove(&new, key)?;
        let previous = std::mem::replace(&mut self.current, new);
        self.remove_keys_of(&previous)
            .and_then(|()| self.file.remove_previous())
            .map_err(|error| self.unfinished(true, error))?;
        Ok(resumed)
    }

    /// A passphrase that is durable beside the file, and its key, proven.
    fn new_key(&mut self) -> Result<(SecretString, KeyId, bool), RotateError> {
        let request = self.request;
        if let Some(staged) = self.file.read_staged()? {
            // Only a whole one has a key: it is written after the passphrase is durable.
            let key = self.open(&staged)?.map(|opened| opened.key_id());
            let wanted = !request.is_chosen || same(&staged, &request.new);
            match key.filter(|key| *key != self.repository.key_id()) {
                Some(key) if wanted => {
                    self.repository.prove_key(key, &staged)?;
                    return Ok((staged, key, true));
                }
                Some(_) => self.remove_keys_of(&staged)?,
                None => {}
            }
            self.file.remove_staged()?;
        }
        if request.is_chosen
            && let Some(opened) = self.open(&request.new)?
        {
            return Err(RotateError::AlreadyAKey(opened.key_id()));
        }
        self.file.write_staged(&request.new)?;
        // Read back: what counts is what the file will give, not what was meant.
        let new = self.file.staged()?;
        let holder = &request.holder;
        match self
            .repository
            .add_key(&new, holder.scrypt, &holder.origin())
        {
            Ok(key) => Ok((new, key, false)),
            // The passphrase stays beside the file: its key may have been written all the same.
            Err(error) => Err(self.unfinished(false, error.into())),
        }
    }

    /// Opens the repository through the file that was put in place.
    fn prove(&mut self, new: &SecretString, key: KeyId) -> Result<(), RotateError> {
        let proven = self.file.read().and_then(|found| {
            let opened = Repository::open(Arc::clone(&self.request.storage), &found)?;
            // restic and we take the first key that opens: another one with the same passphrase, perhaps.
            if opened.key_id() != key {
                opened.prove_key(key, new)?;
            }
            Ok(opened)
        });
        match proven {
            Ok(opened) => {
                self.repository = opened;
                Ok(())
            }
            Err(RotateError::Repository(source)) if source.means_no_key() => {
                self.file.put_back()?;
                // It opens nothing, so nobody misses it.
                let _ = self.repository.remove_key(&key.to_string(), &self.lock);
                Err(RotateError::NotProven {
                    path: self.file.path().to_owned(),
                    source: Box::new(source),
                })
            }
            // Not disproven, only not reached. The key was proven before the exchange.
            Err(error) => Err(self.unfinished(true, error)),
        }
    }

    fn remove_keys_of(&mut self, passphrase: &SecretString) -> Result<(), RotateError> {
        // One more than there are, so that a storage that forgets to remove is found out.
        for _ in 0..=self.repository.keys()?.len() {
            let Some(opened) = self.open(passphrase)? else {
                return Ok(());
            };
            for key in opened.keys()?.iter().filter(|key| key.is_in_use) {
                self.repository.remove_key(&key.name, &self.lock)?;
                self.removed.push(key.name.clone());
            }
        }
        Err(RepositoryError::Contended.into())
    }

    fn unfinished(&self, is_new_in_place: bool, error: RotateError) -> RotateError {
        RotateError::Unfinished {
            is_new_in_place,
            path: self.file.path().to_owned(),
            source: Box::new(error),
        }
    }

    fn done(self, resumed: bool) -> Rotated {
        Rotated {
            key: self.repository.key_id(),
            removed: self.removed,
            resumed,
            password_file: self.file.path().to_owned(),
            was_wider: self.file.was_wider(),
        }
    }
}

fn same(left: &SecretString, right: &SecretString) -> bool {
    left.expose_secret() == right.expose_secret()
}

pub(super) fn file_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> RotateError {
    let path = path.to_owned();
    move |source| RotateError::File {
        action,
        path,
        source,
    }
}
