//! A repository in a folder of this machine, or of whatever is mounted there.
//!
//! Invariant: a file that has its final name is whole and was synced under that name before anyone was told
//! so. Everything else in the folders is a temporary file, which no listing shows and which
//! [`Storage::sweep`] removes once its writer is gone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::layout;
use super::temporary::{self, TemporaryFile};
use super::{FileEntry, FileKind, Storage, StorageError, StorageErrorKind, is_valid_name};

/// How long a temporary file has to lie untouched before [`Storage::sweep`] takes it for abandoned. The file
/// lock says whether its writer lives; this covers file systems on which another machine's lock can't be
/// seen.
const ABANDONED_AFTER: Duration = Duration::from_secs(15 * 60);

/// A repository's files in a local folder, laid out as restic does. Folders are 0700, files 0600.
#[derive(Debug, Clone)]
pub struct LocalStorage {
    root: PathBuf,
}

impl LocalStorage {
    /// The storage in the folder `path`. Touches nothing: the folder need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { root: path.into() }
    }

    /// The repository's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The folder of a kind of files; for packs the one that holds their folders.
    fn kind_folder(&self, kind: FileKind) -> PathBuf {
        layout::folder(kind).map_or_else(|| self.root.clone(), |folder| self.root.join(folder))
    }

    fn data_folders(&self) -> impl Iterator<Item = PathBuf> {
        layout::data_folders().map(|folder| self.root.join(folder))
    }

    fn file_path(
        &self,
        action: &'static str,
        kind: FileKind,
        name: &str,
    ) -> Result<PathBuf, StorageError> {
        if is_valid_name(kind, name) {
            return Ok(self.root.join(layout::path(kind, name)));
        }
        // Also what keeps a name that came out of a file from walking out of the repository.
        Err(StorageError::new(
            StorageErrorKind::Other,
            action,
            format!("{kind} {name:?}"),
            self.location(),
            "no file of a repository has such a name",
        ))
    }

    fn error(
        &self,
        action: &'static str,
        file: impl Into<String>,
        error: io::Error,
    ) -> StorageError {
        StorageError::new(error_kind(&error), action, file, self.location(), error)
    }

    /// `NotFound` unless the repository's own folder is there. A backup disk that is not mounted must read as
    /// "no repository", never as an empty one, and must never be written below its mount point.
    fn require_root(&self, action: &'static str) -> Result<(), StorageError> {
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(self.error(action, "the folder", Errno::NOTDIR.into())),
            Err(error) => Err(self.error(action, "the folder", error)),
        }
    }

    fn list_folder(
        &self,
        kind: FileKind,
        folder: &Path,
        found: &mut Vec<FileEntry>,
    ) -> Result<(), StorageError> {
        let failed = |error| self.error("list", folder.display().to_string(), error);
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // Copying tools and object stores drop empty folders, so a missing one holds nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !is_valid_name(kind, &name) {
                continue;
            }
            // A pack that lies under another's prefix would never be found by its name.
            if kind == FileKind::Pack && !folder.ends_with(&name[..2]) {
                continue;
            }
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => found.push(FileEntry {
                    name,
                    size_bytes: metadata.len(),
                    modified: metadata
                        .modified()
                        .ok()
                        .and_then(|time| jiff::Timestamp::try_from(time).ok()),
                }),
                Ok(_) => {}
                // Deleted since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Every folder that may hold files, whether it exists or not.
    fn all_folders(&self) -> impl Iterator<Item = PathBuf> {
        let kinds = [FileKind::Config].into_iter().chain(layout::IN_FOLDERS);
        let flat = kinds.filter(|kind| *kind != FileKind::Pack);
        flat.map(|kind| self.kind_folder(kind))
            .chain(self.data_folders())
    }

    /// Makes a folder whose parent exists, and makes its name durable. One that exists is left as it is.
    fn make_folder(&self, folder: &Path) -> Result<(), StorageError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => sync_folder(folder.parent().unwrap_or(&self.root)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| self.error("create", folder.display().to_string(), error))
    }

    fn open(&self, kind: FileKind, name: &str) -> Result<(File, u64), StorageError> {
        let path = self.file_path("read", kind, name)?;
        let open = || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        open().map_err(|error| self.error("read", describe(kind, name), error))
    }
}

impl Storage for LocalStorage {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError> {
        self.require_root("list")?;
        let mut found = Vec::new();
        if kind == FileKind::Pack {
            for folder in self.data_folders() {
                self.list_folder(kind, &folder, &mut found)?;
            }
        } else {
            self.list_folder(kind, &self.kind_folder(kind), &mut found)?;
        }
        Ok(found)
    }

    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        let path = self.file_path("read", kind, name)?;
        let metadata =
            fs::metadata(path).map_err(|error| self.error("read", describe(kind, name), error))?;
        Ok(metadata.len())
    }

    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        let (mut file, size) = self.open(kind, name)?;
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.read_to_end(&mut content)
            .map_err(|error| self.error("read", describe(kind, name), error))?;
        Ok(content)
    }

    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        let mut content = Vec::new();
        self.read_range_into(kind, name, offset, length, &mut content)?;
        Ok(content)
    }

    fn read_range_into(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let (mut file, size) = self.open(kind, name)?;
        // Before any memory is taken: offset and length may come from a damaged index.
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > size)
        {
            let reason = format!("{size} bytes long, wanted {length} from {offset}");
            let error_kind = StorageErrorKind::TooShort;
            return Err(StorageError::new(
                error_kind,
                "read",
                describe(kind, name),
                self.location(),
                reason,
            ));
        }
        // Not cleared first: then every byte of a reused buffer would be zeroed only to be read over.
        buffer.resize(length, 0);
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(buffer))
            .map_err(|error| self.error("read", describe(kind, name), error))
    }

    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        let path = self.file_path("write", kind, name)?;
        let folder = folder_of(&path);
        let failed = |action| move |error| self.error(action, describe(kind, name), error);

        self.require_root("write")?;
        if fs::symlink_metadata(&path).is_ok() {
            return Err(failed("write")(io::ErrorKind::AlreadyExists.into()));
        }
        let mut temporary = match TemporaryFile::create(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if kind == FileKind::Pack {
                    self.make_folder(&self.kind_folder(kind))?;
                }
                self.make_folder(folder)?;
                TemporaryFile::create(folder)
            }
            made => made,
        }
        .map_err(failed("write"))?;

        temporary
            .file()
            .write_all(content)
            .map_err(failed("write"))?;
        // A sync that failed may have dropped the dirty pages and will claim success when asked again. So the
        // file is abandoned (dropping it unlinks it), never synced a second time.
        temporary.file().sync_all().map_err(failed("sync"))?;
        rename_new(temporary.path(), &path).map_err(failed("rename"))?;
        temporary.keep();
        // Without this the file can come back under its temporary name after a power cut.
        sync_folder(folder).map_err(|error| {
            // Nobody was told the file exists, and whether it survives is unknown: better that it does not.
            let _ = fs::remove_file(&path);
            failed("sync")(error)
        })
    }

    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        let path = self.file_path("delete", kind, name)?;
        fs::remove_file(&path)
            .and_then(|()| sync_folder(folder_of(&path)))
            .map_err(|error| self.error("delete", describe(kind, name), error))
    }

    fn create(&self) -> Result<(), StorageError> {
        // From the topmost missing folder down, each synced into its parent before the next.
        let missing: Vec<&Path> = self
            .root
            .ancestors()
            .take_while(|folder| is_missing(folder))
            .collect();
        for folder in missing.into_iter().rev() {
            self.make_folder(folder)?;
        }
        for kind in layout::IN_FOLDERS {
            self.make_folder(&self.kind_folder(kind))?;
        }
        let data = self.kind_folder(FileKind::Pack);
        // These 256 share one sync: each on its own would take seconds on a slow disk, and a missing one is
        // made again when it is written to.
        let failed = |error| self.error("create", data.display().to_string(), error);
        for folder in self.data_folders() {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        sync_folder(&data).map_err(failed)
    }

    fn free_space_bytes(&self) -> Option<u64> {
        // Before `init` the folder does not exist yet: its nearest ancestor is on the same file system.
        let existing = self.root.ancestors().find(|folder| !is_missing(folder))?;
        let existing = if existing.as_os_str().is_empty() {
            Path::new(".")
        } else {
            existing
        };
        let facts = rustix::fs::statvfs(existing).ok()?;
        // What an ordinary user may use, not what is kept back for root.
        facts.f_bavail.checked_mul(facts.f_frsize)
    }

    fn sweep(&self) -> Result<usize, StorageError> {
        self.require_root("sweep")?;
        let mut removed = 0;
        for folder in self.all_folders() {
            removed += temporary::sweep(&folder, ABANDONED_AFTER)
                .map_err(|error| self.error("sweep", folder.display().to_string(), error))?;
        }
        Ok(removed)
    }
}

/// The folder that something is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn is_missing(folder: &Path) -> bool {
    // The empty path is what ends the ancestors of a relative one, and means the working directory.
    !folder.as_os_str().is_empty()
        && fs::metadata(folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn describe(kind: FileKind, name: &str) -> String {
    if kind == FileKind::Config {
        "the config file".to_owned()
    } else {
        format!("{kind} {name}")
    }
}

fn error_kind(error: &io::Error) -> StorageErrorKind {
    use io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => StorageErrorKind::NotFound,
        Io::AlreadyExists => StorageErrorKind::AlreadyExists,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => StorageErrorKind::PermissionDenied,
        Io::StorageFull | Io::QuotaExceeded => StorageErrorKind::NoSpace,
        Io::UnexpectedEof => StorageErrorKind::TooShort,
        Io::Interrupted => StorageErrorKind::Interrupted,
        Io::TimedOut
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::StaleNetworkFileHandle => StorageErrorKind::Unreachable,
        _ => StorageErrorKind::Other,
    }
}

/// Renames without ever replacing, in one step where the file system can.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // What file systems without that flag answer. Two writers of one name at the same instant could then
        // both succeed, but files are named by their content, so they bring the same bytes.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if fs::symlink_metadata(to).is_err() => {
            fs::rename(from, to)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        renamed => Ok(renamed?),
    }
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    match File::open(folder)?.sync_all() {
        // Some network and FUSE file systems can't sync a folder, and order names by other means.
        // PostgreSQL passes over the same answers (`fsync_fname_ext` in src/backend/storage/file/fd.c).
        Err(error)
            if [Errno::INVAL, Errno::BADF, Errno::NOTSUP]
                .iter()
                .any(|e| error.raw_os_error() == Some(e.raw_os_error())) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_map_to_kinds() {
        let kind = |errno: Errno| error_kind(&errno.into());
        assert_eq!(kind(Errno::NOSPC), StorageErrorKind::NoSpace);
        assert_eq!(kind(Errno::DQUOT), StorageErrorKind::NoSpace);
        assert_eq!(kind(Errno::ACCESS), StorageErrorKind::PermissionDenied);
        assert_eq!(kind(Errno::PERM), StorageErrorKind::PermissionDenied);
        assert_eq!(kind(Errno::ROFS), StorageErrorKind::PermissionDenied);
        assert_eq!(kind(Errno::STALE), StorageErrorKind::Unreachable);
        assert_eq!(kind(Errno::IO), StorageErrorKind::Other);
    }
}
