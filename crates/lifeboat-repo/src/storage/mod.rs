//! Where a repository's files live: list, read, read a range, write durably, delete.
//!
//! A storage is dumb on purpose. It knows the kinds of files and their names, never their meaning, so that
//! another place to keep backups is one small implementation that passes the conformance suite.

mod append_only;
mod cached;
mod layout;
mod local;
mod memory;
pub mod remote;
mod temporary;

pub use append_only::AppendOnly;
pub use cached::Cached;
pub use local::LocalStorage;
pub use memory::MemoryStorage;

/// What a file of a repository is, which decides where it lies ("Repository Layout" in restic's design
/// document).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// The one file `config`.
    Config,
    /// `keys/`
    Key,
    /// `locks/`
    Lock,
    /// `snapshots/`
    Snapshot,
    /// `index/`
    Index,
    /// `data/xx/`, where `xx` are the first two digits of the name.
    Pack,
}

impl FileKind {
    /// The word people know it by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "key",
            Self::Lock => "lock",
            Self::Snapshot => "snapshot",
            Self::Index => "index",
            Self::Pack => "pack",
        }
    }
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A file as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// The file's name without its folder: 64 hexadecimal digits, or `config`.
    pub name: String,
    /// Its size as stored.
    pub size_bytes: u64,
    /// When it was stored, by the clock of the place it is in; `None` where the place does not tell. It need not be
    /// true: a repository that was copied was stored when it was copied.
    pub modified: Option<jiff::Timestamp>,
}

/// A place that keeps a repository's files.
///
/// The config file is named `"config"`.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// The place, for people; never holds a secret.
    fn location(&self) -> String;

    /// Every file of a kind, in no particular order. Temporary and foreign files are left out. A storage that
    /// was never created answers `NotFound`.
    ///
    /// # Errors
    /// When the listing could not be read whole.
    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError>;

    /// A file's size in bytes.
    ///
    /// # Errors
    /// `NotFound` without such a file.
    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError>;

    /// A file's whole content.
    ///
    /// # Errors
    /// `NotFound` without such a file.
    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError>;

    /// Exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// `NotFound` without such a file; an error, never fewer bytes, when the file is shorter.
    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError>;

    /// As [`Storage::read_range`], into a buffer whose memory is reused; what it held is dropped. After an
    /// error its content means nothing.
    ///
    /// # Errors
    /// As [`Storage::read_range`].
    fn read_range_into(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        *buffer = self.read_range(kind, name, offset, length)?;
        Ok(())
    }

    /// Writes a new file; it is whole and durable when this returns `Ok`.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a file of that name, which stays as it was. After any error no part of
    /// the file is visible under its name, unless the error came after it was put in place.
    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` without such a file.
    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError>;

    /// Makes what has to exist before the first write (folders, 0700).
    ///
    /// # Errors
    /// When that is not possible. What exists already is not an error.
    fn create(&self) -> Result<(), StorageError>;

    /// Bytes that can still be written, where the place knows.
    fn free_space_bytes(&self) -> Option<u64>;

    /// Whether files may be removed here. Where not, `delete` fails and nobody should ask.
    fn may_delete(&self) -> bool {
        true
    }

    /// How many reads to have under way at once for one stream: more than one where an answer takes long to come,
    /// however little was asked for.
    fn requests_at_once(&self) -> usize {
        1
    }

    /// Removes what interrupted writers left behind that is no file of the repository. Safe beside live
    /// writers. Returns how many were removed; a storage whose writes leave nothing behind has nothing to do.
    ///
    /// # Errors
    /// When the place could not be read, or a leftover could not be removed.
    fn sweep(&self) -> Result<usize, StorageError> {
        Ok(0)
    }
}

/// Whether a file of that kind can have that name: `config`, or 64 lower case hexadecimal digits.
#[must_use]
pub fn is_valid_name(kind: FileKind, name: &str) -> bool {
    match kind {
        FileKind::Config => name == "config",
        _ => {
            name.len() == 64
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        }
    }
}

/// What sort of failure a [`StorageError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// There is no such file, or no such place.
    NotFound,
    /// There is a file of that name already.
    AlreadyExists,
    /// The place refuses us.
    PermissionDenied,
    /// The place does not believe us that we are who we say we are.
    BadCredentials,
    /// What should hold the repository does not exist: the bucket.
    NoSuchPlace,
    /// The place is full, or a quota is reached.
    NoSpace,
    /// The file is shorter than what was asked of it.
    TooShort,
    /// The operation was interrupted; the same call may succeed.
    Interrupted,
    /// The place did not answer in time, or not at all.
    Unreachable,
    /// Anything else.
    Other,
}

/// A storage operation that failed: what was tried, on which file, where, and why.
#[derive(Debug, thiserror::Error)]
#[error("{action} {file} in {location}")]
pub struct StorageError {
    kind: StorageErrorKind,
    action: &'static str,
    file: String,
    location: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StorageError {
    /// A failure of `action` (`"read"`, `"write"`, `"sync"` …) on `file` (`"pack 73d0…"`, a path) at `location`.
    #[must_use]
    pub fn new(
        kind: StorageErrorKind,
        action: &'static str,
        file: impl Into<String>,
        location: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            action,
            file: file.into(),
            location: location.into(),
            source: source.into(),
        }
    }

    /// What sort of failure it is.
    #[must_use]
    pub const fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// The file it happened on, for people.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where it happened, as [`Storage::location`] says it.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Whether it says something about the file, such as that it is gone or can't be read, and not only about the
    /// place, or about us: then it would have been said of any file.
    #[must_use]
    pub const fn is_about_the_file(&self) -> bool {
        match self.kind {
            StorageErrorKind::NotFound
            | StorageErrorKind::AlreadyExists
            | StorageErrorKind::PermissionDenied
            | StorageErrorKind::TooShort
            | StorageErrorKind::Other => true,
            StorageErrorKind::BadCredentials
            | StorageErrorKind::NoSuchPlace
            | StorageErrorKind::NoSpace
            | StorageErrorKind::Interrupted
            | StorageErrorKind::Unreachable => false,
        }
    }

    /// Whether the same call would fail again without someone changing something.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        !matches!(
            self.kind,
            StorageErrorKind::Interrupted | StorageErrorKind::Unreachable
        )
    }
}
