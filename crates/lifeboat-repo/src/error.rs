//! What can be wrong with a repository, as facts.

use crate::id::{BlobId, SnapshotId};
use crate::lock::{LockError, LockInfo};
use crate::pack::BlobKind;
use crate::seal::SealError;
use crate::storage::{FileKind, StorageError};
use crate::tree::NameError;

/// Why an operation on a repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is no repository.
    #[error("no repository at {location}")]
    NotFound {
        /// Where it was looked for.
        location: String,
    },
    /// There is one already, or what is left of one.
    #[error("there is a repository at {location} already")]
    AlreadyExists {
        /// Where.
        location: String,
    },
    /// None of its keys opens with this password.
    #[error("the password does not open the repository at {location}")]
    WrongPassword {
        /// Where the repository is.
        location: String,
    },
    /// A repository without any key can't be opened by anyone.
    #[error("the repository at {location} has no key")]
    NoKey {
        /// Where the repository is.
        location: String,
    },
    /// The password opened no key, and this one is not what was once written.
    #[error("key {name} is damaged: {what}")]
    DamagedKey {
        /// The file's name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The config does not open, or makes no sense.
    #[error("the config of the repository at {location} is damaged: {what}")]
    DamagedConfig {
        /// Where the repository is.
        location: String,
        /// What is wrong with it.
        what: String,
        /// Whether that may be the key's fault: what an interrupted `init` left is a key that a password opens, and
        /// that opens no config.
        may_be_the_key: bool,
    },
    /// A repository in another version of restic's format than 2.
    #[error("the repository at {location} has version {found} of the format, not 2")]
    UnsupportedVersion {
        /// Where the repository is.
        location: String,
        /// Its version.
        found: u32,
    },
    /// A file is not what was once written.
    #[error("{kind} {name} is damaged: {what}")]
    Damaged {
        /// What it is.
        kind: FileKind,
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A blob that something refers to is in no index.
    #[error("{} blob {} is missing", .kind.as_str(), .id.short())]
    MissingBlob {
        /// What it is.
        kind: BlobKind,
        /// Its hash.
        id: BlobId,
    },
    /// Several snapshots begin so.
    #[error("{prefix:?} is the beginning of {} identities", .matches.len())]
    AmbiguousId {
        /// What was asked for.
        prefix: String,
        /// All that match.
        matches: Vec<SnapshotId>,
    },
    /// No snapshot begins so.
    #[error("no snapshot {prefix:?}")]
    UnknownId {
        /// What was asked for.
        prefix: String,
        /// The one that is spelled most like it, if any is.
        nearest: Option<SnapshotId>,
    },
    /// No key begins so, or several do.
    #[error("{prefix:?} is the beginning of {count} keys")]
    KeyNotFound {
        /// What was asked for.
        prefix: String,
        /// How many begin so.
        count: usize,
    },
    /// The key that opened the repository would be removed.
    #[error("key {} is the one in use", short(.name))]
    KeyInUse {
        /// Its file's name.
        name: String,
    },
    /// Without it nobody could open the repository.
    #[error("key {} is the only one", short(.name))]
    LastKey {
        /// Its file's name.
        name: String,
    },
    /// There is nothing, or something else, at this path of a snapshot.
    #[error("no file {path:?} in snapshot {}", .snapshot.short())]
    NoSuchFile {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The path.
        path: String,
    },
    /// A name that can't be stored.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something had to be removed where nothing may be.
    #[error("nothing may be removed from the repository at {location}: it is append-only here")]
    AppendOnly {
        /// Where the repository is.
        location: String,
    },
    /// A snapshot that may not be whole, where nothing may be removed.
    #[error("snapshot {} can't be counted on, nor removed from an append-only repository: {what}", .snapshot.short())]
    Unremovable {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why it can't be counted on.
        what: String,
    },
    /// The caller asked for it, through its interrupt flag.
    #[error("interrupted")]
    Interrupted,
    /// The writer failed before, and takes nothing more.
    #[error("writing was given up: {0}")]
    Poisoned(std::sync::Arc<RepositoryError>),
    /// A commit while workers still hold blobs that no pack has yet.
    #[error("{count} workers have not finished")]
    WorkersUnfinished {
        /// How many.
        count: usize,
    },
    /// Someone has a lock that excludes what was asked for.
    #[error("the repository is locked by {by}")]
    Locked {
        /// Whose lock it is.
        by: Box<LockInfo>,
    },
    /// No lock could be had, or one did not hold.
    #[error(transparent)]
    Lock(LockError),
    /// Others removed files at the same time, again and again.
    #[error("others keep removing files from the repository at the same time")]
    Contended,
    /// Something could not be put into the form the format asks for.
    #[error("could not be encoded: {what}")]
    Encode {
        /// What, and why.
        what: String,
    },
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn short(name: &str) -> &str {
    name.get(..8).unwrap_or(name)
}

impl From<LockError> for RepositoryError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(by) => Self::Locked { by },
            LockError::Storage(error) => Self::Storage(error),
            error => Self::Lock(error),
        }
    }
}

impl RepositoryError {
    /// What went wrong first: of an error that a writer repeats, the one it repeats.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Poisoned(first) => first.root(),
            other => other,
        }
    }

    /// Whether this says that a password opens no key of the repository, as far as its keys are undamaged, and not
    /// that it could not be tried.
    #[must_use]
    pub fn means_no_key(&self) -> bool {
        matches!(
            self,
            Self::WrongPassword { .. }
                | Self::DamagedKey { .. }
                | Self::DamagedConfig {
                    may_be_the_key: true,
                    ..
                }
                | Self::NoKey { .. }
        )
    }

    pub(crate) fn damaged(kind: FileKind, name: impl Into<String>, what: impl ToString) -> Self {
        Self::Damaged {
            kind,
            name: name.into(),
            what: what.to_string(),
        }
    }
}
