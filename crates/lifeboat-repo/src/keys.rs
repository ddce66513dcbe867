//! The keys of a repository: files that each hold the one master key, each under a password of its own.
//!
//! A key that is added is read back from the storage and has to open the config before it counts. Removing one takes
//! the exclusive lock, and the key in use stays whatever is asked, so a repository never ends up without one. None of
//! this changes the master key: whoever has a password and a copy of its key file has the repository for good.

use crate::config::Config;
use crate::error::RepositoryError;
use crate::id::KeyId;
use crate::key::{self, KeyError, KeyOrigin, ScryptParams};
use crate::lock::LockGuard;
use crate::repository::{CONFIG, Repository, read_bounded, read_listed};
use crate::seal::Sealer;
use crate::storage::{FileKind, Storage, StorageErrorKind};
use crate::unpacked;
use secrecy::SecretString;
use std::sync::Arc;

/// A key file, as far as it can be read without its password.
#[derive(Debug, Clone)]
pub struct KeyInfo {
    /// The file's name: the key's identity, in hex.
    pub name: String,
    /// Whether it is the one that opened this repository.
    pub is_in_use: bool,
    /// Who made it, and when; or what is wrong with the file.
    pub origin: Result<KeyOrigin, String>,
}

impl KeyInfo {
    /// The beginning of its name, as people are shown it.
    #[must_use]
    pub fn short(&self) -> &str {
        self.name.get(..8).unwrap_or(&self.name)
    }
}

impl Repository {
    /// As [`Repository::open`], with `None` when no key opens with `password`.
    ///
    /// # Errors
    /// When that could not be found out.
    pub fn try_open(
        storage: Arc<dyn Storage>,
        password: &SecretString,
    ) -> Result<Option<Self>, RepositoryError> {
        match Self::open(storage, password) {
            Ok(repository) => Ok(Some(repository)),
            Err(error) if error.means_no_key() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every key there is, the oldest first; damaged ones come last.
    ///
    /// # Errors
    /// What the storage says.
    pub fn keys(&self) -> Result<Vec<KeyInfo>, RepositoryError> {
        let mut keys = Vec::new();
        for file in self.storage().list(FileKind::Key)? {
            let (is_in_use, origin) = match read_listed(
                self.storage().as_ref(),
                FileKind::Key,
                &file.name,
                file.size_bytes,
            ) {
                Ok(content) => (
                    KeyId::of(&content) == self.key_id(),
                    key::origin(&content).map_err(|error| error.to_string()),
                ),
                Err(RepositoryError::Damaged { what, .. }) => (false, Err(what)),
                // Removed since the listing: then it is no key any more.
                Err(RepositoryError::Storage(error))
                    if error.kind() == StorageErrorKind::NotFound =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            keys.push(KeyInfo {
                name: file.name,
                is_in_use,
                origin,
            });
        }
        keys.sort_by_key(|key| {
            let created = key.origin.as_ref().map(|origin| origin.created);
            (created.is_err(), created.ok(), key.name.clone())
        });
        Ok(keys)
    }

    /// The key whose identity is, or begins with, `prefix`.
    ///
    /// # Errors
    /// `KeyNotFound`, or what the storage says.
    pub fn find_key(&self, prefix: &str) -> Result<KeyInfo, RepositoryError> {
        let wanted = prefix.trim().to_ascii_lowercase();
        let mut keys = self.keys()?;
        keys.retain(|key| !wanted.is_empty() && key.name.starts_with(&wanted));
        match (keys.pop(), keys.len()) {
            (Some(key), 0) => Ok(key),
            (found, others) => Err(RepositoryError::KeyNotFound {
                prefix: prefix.to_owned(),
                count: others + usize::from(found.is_some()),
            }),
        }
    }

    /// Adds a key under `password`, and proves it: [`Repository::prove_key`]. One that does not prove is taken away
    /// again.
    ///
    /// # Errors
    /// What the storage says, or what the proof lacked.
    pub fn add_key(
        &self,
        password: &SecretString,
        params: ScryptParams,
        origin: &KeyOrigin,
    ) -> Result<KeyId, RepositoryError> {
        let content = key::write(self.master(), password, params, origin).map_err(|error| {
            RepositoryError::Encode {
                what: error.to_string(),
            }
        })?;
        let id = KeyId::of(&content);
        self.storage()
            .write(FileKind::Key, &id.to_string(), &content)?;
        if let Err(error) = self.prove_key(id, password) {
            if self.storage().may_delete() {
                let _ = self.storage().delete(FileKind::Key, &id.to_string());
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Opens the repository once more with this one key and `password`, everything read anew from the storage.
    ///
    /// # Errors
    /// `DamagedKey` or `DamagedConfig` with what is not as it should be, or what the storage says.
    pub fn prove_key(&self, id: KeyId, password: &SecretString) -> Result<(), RepositoryError> {
        let name = id.to_string();
        let storage = self.storage().as_ref();
        let damaged = |what: String| RepositoryError::DamagedKey {
            name: name.clone(),
            what,
        };
        let content = match read_bounded(storage, FileKind::Key, &name) {
            Err(RepositoryError::Damaged { what, .. }) => return Err(damaged(what)),
            content => content?,
        };
        if KeyId::of(&content) != id {
            return Err(damaged("its content does not match its name".to_owned()));
        }
        let master =
            key::open(&content, password).map_err(|error: KeyError| damaged(error.to_string()))?;
        let sealed = read_bounded(storage, FileKind::Config, CONFIG)?;
        let unopened = |what: String| RepositoryError::DamagedConfig {
            location: storage.location(),
            what,
            may_be_the_key: true,
        };
        let json = unpacked::decode(FileKind::Config, sealed, &Sealer::new(&master))
            .map_err(|error| unopened(error.to_string()))?;
        let config: Config =
            serde_json::from_slice(&json).map_err(|error| unopened(error.to_string()))?;
        if config.id != self.id() {
            return Err(damaged("it opens another repository".to_owned()));
        }
        Ok(())
    }

    /// Removes a key by its file's name. `lock` is exclusive.
    ///
    /// # Errors
    /// `KeyInUse` and `LastKey`, in which case nothing was removed; a lost lock, or what the storage says.
    pub fn remove_key(&self, name: &str, lock: &LockGuard) -> Result<(), RepositoryError> {
        self.require_removal()?;
        let keys = self.keys()?;
        let refused = |name: &str| match keys.len() {
            1 => RepositoryError::LastKey {
                name: name.to_owned(),
            },
            _ => RepositoryError::KeyInUse {
                name: name.to_owned(),
            },
        };
        if keys.iter().any(|key| key.is_in_use && key.name == name) {
            return Err(refused(name));
        }
        // Whoever removed ours meanwhile counts on one that stays, and this may be it.
        if !keys.iter().any(|key| key.is_in_use) {
            return Err(RepositoryError::WrongPassword {
                location: self.location(),
            });
        }
        lock.verify()?;
        match self.storage().delete(FileKind::Key, name) {
            Err(error) if error.kind() != StorageErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::lock::{LockHolder, LockMode};
    use crate::repository::{ChunkSizes, InitOptions};
    use crate::storage::MemoryStorage;
    use jiff::Timestamp;

    fn repository(storage: &Arc<MemoryStorage>) -> Repository {
        let options = InitOptions {
            chunk_sizes: ChunkSizes::with_average(16 << 10),
            scrypt: ScryptParams::cheap(),
            hostname: "db1".into(),
            username: "postgres".into(),
            now: Timestamp::UNIX_EPOCH,
        };
        Repository::init(Arc::clone(storage) as _, &"first".into(), &options).unwrap()
    }

    fn add(repository: &Repository, password: &str, second: i64) -> KeyId {
        let origin = KeyOrigin {
            hostname: "db2".into(),
            username: "ann".into(),
            created: Timestamp::from_second(second).unwrap(),
        };
        repository
            .add_key(&password.into(), ScryptParams::cheap(), &origin)
            .unwrap()
    }

    fn exclusive(repository: &Repository) -> LockGuard {
        let holder = LockHolder {
            hostname: "db1".into(),
            username: "postgres".into(),
            pid: std::process::id(),
        };
        repository
            .lock(LockMode::Exclusive, &holder, Arc::new(Timestamp::now))
            .unwrap()
    }

    #[test]
    fn each_password_opens_the_same_repository_until_its_key_is_removed() {
        let storage = Arc::new(MemoryStorage::default());
        let first = repository(&storage);
        let second = add(&first, "second", 20);
        let third = add(&first, "third", 10);
        let listed: Vec<String> = first.keys().unwrap().into_iter().map(|k| k.name).collect();
        assert_eq!(
            listed,
            [
                first.key_id().to_string(),
                third.to_string(),
                second.to_string()
            ]
        );
        for (password, id) in [
            ("first", first.key_id()),
            ("second", second),
            ("third", third),
        ] {
            let opened = Repository::open(Arc::clone(&storage) as _, &password.into()).unwrap();
            assert_eq!((opened.id(), opened.key_id()), (first.id(), id));
            let in_use: Vec<bool> = opened.keys().unwrap().iter().map(|k| k.is_in_use).collect();
            assert_eq!(in_use.iter().filter(|yes| **yes).count(), 1);
        }
        let lock = exclusive(&first);
        first.remove_key(&second.to_string(), &lock).unwrap();
        assert!(matches!(
            Repository::open(Arc::clone(&storage) as _, &"second".into()),
            Err(RepositoryError::WrongPassword { .. })
        ));
        Repository::open(Arc::clone(&storage) as _, &"third".into()).unwrap();
    }

    #[test]
    fn the_key_in_use_and_the_last_one_stay() {
        let storage = Arc::new(MemoryStorage::default());
        let first = repository(&storage);
        let lock = exclusive(&first);
        let own = first.key_id().to_string();
        assert!(matches!(
            first.remove_key(&own, &lock),
            Err(RepositoryError::LastKey { .. })
        ));
        let second = add(&first, "second", 20).to_string();
        assert!(matches!(
            first.remove_key(&own, &lock),
            Err(RepositoryError::KeyInUse { .. })
        ));
        // Ours was removed by somebody who relies on the other one.
        storage.delete(FileKind::Key, &own).unwrap();
        assert!(matches!(
            first.remove_key(&second, &lock),
            Err(RepositoryError::WrongPassword { .. })
        ));
        Repository::open(Arc::clone(&storage) as _, &"second".into()).unwrap();
    }

    #[test]
    fn a_key_that_does_not_prove_is_told() {
        let storage = Arc::new(MemoryStorage::default());
        let first = repository(&storage);
        let second = add(&first, "second", 20);
        first.prove_key(second, &"second".into()).unwrap();
        assert!(matches!(
            first.prove_key(second, &"wrong".into()),
            Err(RepositoryError::DamagedKey { .. })
        ));
        let name = second.to_string();
        let mut content = storage.read(FileKind::Key, &name).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        storage.delete(FileKind::Key, &name).unwrap();
        storage.write(FileKind::Key, &name, &content).unwrap();
        assert!(matches!(
            first.prove_key(second, &"second".into()),
            Err(RepositoryError::DamagedKey { .. })
        ));
        assert_eq!(first.find_key(&name[..8]).unwrap().name, name);
        for prefix in ["", "zz"] {
            assert!(matches!(
                first.find_key(prefix),
                Err(RepositoryError::KeyNotFound { count: 0, .. })
            ));
        }
    }
}
