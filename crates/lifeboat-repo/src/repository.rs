//! The door: open or make a repository, see its snapshots, take a writer or a reader.

mod choose;
mod files;

pub use crate::chunker::ChunkSizes;
use crate::config::{Config, VERSION};
pub use crate::error::RepositoryError;
use crate::id::{KeyId, SnapshotId};
pub use crate::key::ScryptParams;
use crate::key::{self, KeyError, KeyOrigin};
use crate::seal::{MasterKey, Sealer};
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, Storage, StorageErrorKind};
use crate::unpacked;
use choose::choose;
pub(crate) use files::{read_bounded, read_listed};
use jiff::Timestamp;
use secrecy::SecretString;
use std::sync::Arc;

/// The name of the one config file.
pub(crate) const CONFIG: &str = "config";

/// What a new repository shall be.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Kept for the repository's life.
    pub chunk_sizes: ChunkSizes,
    /// The cost of trying a password.
    pub scrypt: ScryptParams,
    /// This machine, for the key file.
    pub hostname: String,
    /// This user, for the key file.
    pub username: String,
    /// The time, for the key file.
    pub now: Timestamp,
}

/// An open repository. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    storage: Arc<dyn Storage>,
    /// Kept for the keys that are added later, and for repositories that share it.
    master: MasterKey,
    sealer: Sealer,
    config: Config,
    key: KeyId,
}

impl Repository {
    /// Makes a repository. The config is written last: without it there is no repository, so an init that was
    /// interrupted can simply be run again.
    ///
    /// # Errors
    /// `AlreadyExists` where there is one, or data that belonged to one; otherwise what the storage says.
    pub fn init(
        storage: Arc<dyn Storage>,
        password: &SecretString,
        options: &InitOptions,
    ) -> Result<Self, RepositoryError> {
        let config = Config::random(options.chunk_sizes)?;
        Self::make(storage, password, options, MasterKey::random()?, config)
    }

    /// As [`Repository::init`], but with the master key of `primary` under a key file and a password of its own,
    /// and cutting streams as `primary` does: what is sealed in one can be read in the other, so packs can be
    /// moved as they are. It has an identity of its own. The chunk sizes in `options` are not used.
    ///
    /// # Errors
    /// As [`Repository::init`].
    pub fn init_with_keys_of(
        primary: &Self,
        storage: Arc<dyn Storage>,
        password: &SecretString,
        options: &InitOptions,
    ) -> Result<Self, RepositoryError> {
        let config = Config::like(&primary.inner.config)?;
        let master = primary.inner.master.clone();
        Self::make(storage, password, options, master, config)
    }

    fn make(
        storage: Arc<dyn Storage>,
        password: &SecretString,
        options: &InitOptions,
        master: MasterKey,
        config: Config,
    ) -> Result<Self, RepositoryError> {
        storage.create()?;
        let already = || RepositoryError::AlreadyExists {
            location: storage.location(),
        };
        match storage.size(FileKind::Config, CONFIG) {
            Ok(_) => return Err(already()),
            Err(error) if error.kind() == StorageErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        for kind in [FileKind::Snapshot, FileKind::Index, FileKind::Pack] {
            if !storage.list(kind)?.is_empty() {
                return Err(already());
            }
        }
        // An interrupted init leaves keys without a config.
        let left = storage.list(FileKind::Key)?;
        let origin = KeyOrigin {
            hostname: options.hostname.clone(),
            username: options.username.clone(),
            created: options.now,
        };
        let encode = |error: &dyn ToString| RepositoryError::Encode {
            what: error.to_string(),
        };
        let key = key::write(&master, password, options.scrypt, &origin)
            .map_err(|error| encode(&error))?;
        let key_id = KeyId::of(&key);
        storage.write(FileKind::Key, &key_id.to_string(), &key)?;
        let json = serde_json::to_vec(&config).map_err(|error| encode(&error))?;
        let sealer = Sealer::new(&master);
        let sealed =
            unpacked::encode(FileKind::Config, &json, &sealer).map_err(|error| encode(&error))?;
        if let Err(error) = storage.write(FileKind::Config, CONFIG, &sealed) {
            if error.kind() != StorageErrorKind::AlreadyExists {
                // The key stays: the error may have come after the config was put in place.
                return Err(error.into());
            }
            // Someone else was faster; our key opens nothing.
            if storage.read(FileKind::Config, CONFIG)? != sealed {
                try_delete(storage.as_ref(), &key_id.to_string());
            }
            return Err(already());
        }
        // Only now is it certain which key is the repository's own. Others open nothing, but restic stops at the
        // first that its password fits; if they can't be removed, we at least don't mind them.
        for left in left {
            try_delete(storage.as_ref(), &left.name);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                storage,
                master,
                sealer,
                config,
                key: key_id,
            }),
        })
    }

    /// To be asked before the first step of what ends with removing something.
    pub(crate) fn require_removal(&self) -> Result<(), RepositoryError> {
        if self.storage().may_delete() {
            return Ok(());
        }
        Err(RepositoryError::AppendOnly {
            location: self.location(),
        })
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// `NotFound`, `NoKey`, `WrongPassword`, `DamagedKey`, `DamagedConfig`, `UnsupportedVersion`, or what the
    /// storage says.
    pub fn open(
        storage: Arc<dyn Storage>,
        password: &SecretString,
    ) -> Result<Self, RepositoryError> {
        let location = storage.location();
        let not_found = |error: crate::storage::StorageError| match error.kind() {
            StorageErrorKind::NotFound => RepositoryError::NotFound {
                location: location.clone(),
            },
            _ => error.into(),
        };
        storage.size(FileKind::Config, CONFIG).map_err(not_found)?;
        let damaged = |what: &dyn ToString| RepositoryError::DamagedConfig {
            location: location.clone(),
            what: what.to_string(),
            may_be_the_key: false,
        };
        let sealed = match read_bounded(storage.as_ref(), FileKind::Config, CONFIG) {
            Err(RepositoryError::Damaged { what, .. }) => return Err(damaged(&what)),
            sealed => sealed?,
        };
        // The config is what tells the repository's own key from one that an interrupted init left.
        let mut unopened = None;
        let unlock = |master: MasterKey| {
            let sealer = Sealer::new(&master);
            match unpacked::decode(FileKind::Config, sealed.clone(), &sealer) {
                Ok(json) => Some((master, sealer, json)),
                Err(error) => {
                    unopened = Some(RepositoryError::DamagedConfig {
                        location: location.clone(),
                        what: error.to_string(),
                        may_be_the_key: true,
                    });
                    None
                }
            }
        };
        let found = find_key(storage.as_ref(), password, unlock);
        let (master, sealer, json, key) = match (found, unopened) {
            (Ok(((master, sealer, json), key)), _) => (master, sealer, json, key),
            (Err(_), Some(unopened)) => return Err(unopened),
            (Err(error), None) => return Err(error),
        };
        let config: Config = serde_json::from_slice(&json).map_err(|error| damaged(&error))?;
        if config.version != VERSION {
            return Err(RepositoryError::UnsupportedVersion {
                location,
                found: config.version,
            });
        }
        Ok(Self {
            inner: Arc::new(Inner {
                storage,
                master,
                sealer,
                config,
                key,
            }),
        })
    }

    /// Its identity: 64 hexadecimal digits that no other repository has.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.config.id
    }

    /// How it cuts streams.
    #[must_use]
    pub fn chunk_sizes(&self) -> ChunkSizes {
        self.inner.config.chunk_sizes()
    }

    /// Where it is, for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.inner.storage.location()
    }

    /// Where its files are.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.inner.storage
    }

    /// The key file that the password opened.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.inner.key
    }

    /// Whether what is sealed in one of the two can be opened with the key of the other.
    #[must_use]
    pub fn shares_keys_with(&self, other: &Self) -> bool {
        self.inner.master.is(&other.inner.master)
    }

    pub(crate) fn master(&self) -> &MasterKey {
        &self.inner.master
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.inner.sealer
    }

    pub(crate) fn polynomial(&self) -> u64 {
        self.inner.config.chunker_polynomial
    }

    /// What all its files take, in bytes.
    ///
    /// # Errors
    /// When the storage can't list them.
    pub fn size_bytes(&self) -> Result<u64, RepositoryError> {
        use FileKind::{Config, Index, Key, Lock, Pack, Snapshot};
        let mut sum = 0;
        for kind in [Config, Key, Lock, Snapshot, Index, Pack] {
            sum += self
                .storage()
                .list(kind)?
                .iter()
                .map(|file| file.size_bytes)
                .sum::<u64>();
        }
        Ok(sum)
    }

    /// The snapshot whose identity is, or begins with, `prefix`; else the one whose first identity does, which it
    /// had before its tags were changed: the newest of them, should a change have been cut off or come twice.
    ///
    /// # Errors
    /// `UnknownId` with the nearest one, `AmbiguousId`, or `Damaged`.
    pub fn find_snapshot(&self, prefix: &str) -> Result<Snapshot, RepositoryError> {
        let files = self.storage().list(FileKind::Snapshot)?;
        let ids: Vec<SnapshotId> = files
            .iter()
            .filter_map(|file| file.name.parse().ok())
            .collect();
        let unknown = match choose(prefix, &ids) {
            Ok(id) => return self.load_snapshot(&id.to_string()),
            Err(error @ RepositoryError::UnknownId { .. }) => error,
            Err(error) => return Err(error),
        };
        let (snapshots, _) = self.snapshots()?;
        let mut first: Vec<SnapshotId> = snapshots.iter().filter_map(|one| one.original).collect();
        first.sort();
        first.dedup();
        match choose(prefix, &first) {
            Ok(id) => {
                let found = snapshots.into_iter().rfind(|one| one.original == Some(id));
                found.ok_or(unknown)
            }
            Err(error @ RepositoryError::AmbiguousId { .. }) => Err(error),
            Err(_) => Err(unknown),
        }
    }
}

/// Removes a key file that opens nothing, where that is possible.
fn try_delete(storage: &dyn Storage, key: &str) {
    if storage.may_delete() {
        let _ = storage.delete(FileKind::Key, key);
    }
}

/// The first key that opens with `password` and that `unlock` makes something of.
fn find_key<T>(
    storage: &dyn Storage,
    password: &SecretString,
    mut unlock: impl FnMut(MasterKey) -> Option<T>,
) -> Result<(T, KeyId), RepositoryError> {
    let mut files = storage.list(FileKind::Key)?;
    files.sort();
    let mut damaged = None;
    let none = files.is_empty();
    for file in files {
        let content = match read_listed(storage, FileKind::Key, &file.name, file.size_bytes) {
            Ok(content) => content,
            Err(RepositoryError::Damaged { what, .. }) => {
                damaged = Some(RepositoryError::DamagedKey {
                    name: file.name,
                    what,
                });
                continue;
            }
            Err(error) => return Err(error),
        };
        let id = KeyId::of(&content);
        match key::open(&content, password) {
            // Opened is opened, also when a byte that does not matter was changed: this may be the day on which
            // nothing else is left. `check` tells of the change.
            Ok(master) => {
                if let Some(unlocked) = unlock(master) {
                    return Ok((unlocked, id));
                }
            }
            Err(KeyError::WrongPassword) if id.to_string() == file.name => {}
            Err(KeyError::WrongPassword) => {
                let what = "its content does not match its name".to_owned();
                damaged = Some(RepositoryError::DamagedKey {
                    name: file.name,
                    what,
                });
            }
            Err(error) => {
                damaged = Some(RepositoryError::DamagedKey {
                    name: file.name,
                    what: error.to_string(),
                });
            }
        }
    }
    let location = storage.location();
    Err(match damaged {
        Some(damaged) => damaged,
        None if none => RepositoryError::NoKey { location },
        None => RepositoryError::WrongPassword { location },
    })
}
