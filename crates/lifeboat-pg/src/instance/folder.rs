//! The private folder of one scratch server.
//!
//! The marker is a file that its maker keeps locked. The lock, not the number inside, says whether the
//! maker lives: the kernel lets go of it however the process ended, it cannot be confused by a reused
//! process id, and it works between containers that share a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::InstanceError;
use super::os_user::OsUser;

pub(super) const PREFIX: &str = "lifeboat-scratch-";
pub(super) const MARKER: &str = "lifeboat-scratch.json";
/// Marks a socket folder as ours. Another name than [`MARKER`]: such a folder has no life of its own, it goes
/// with the folder that names it.
pub(super) const SOCKET_MARKER: &str = "lifeboat-socket";
const LOG_TAIL_BYTES: u64 = 4096;
/// `sun_path` holds 108 bytes on Linux, 104 on macOS and the BSDs, with a NUL at the end.
const SOCKET_PATH_MAX: usize = 103;

/// What the marker says. `version` first: a reader of another version leaves the folder alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) version: u32,
    /// For people only.
    pub(super) pid: u32,
    /// A second private folder, when the first one's path is too long for a socket.
    pub(super) socket_dir: Option<PathBuf>,
}

/// A private folder (0700) for what must not outlive its maker: gone when dropped, and with the next
/// [`sweep`](super::sweep()) of its parent where the maker was killed.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    /// Locked as long as this is open.
    _marker: File,
}

impl PrivateFolder {
    /// Makes one in this folder.
    ///
    /// # Errors
    /// [`InstanceError::Folder`].
    pub fn create(parent: &Path) -> Result<Self, InstanceError> {
        let path = make_private(parent)?;
        let cleanup = RemoveOnDrop(Some(path.clone()));
        let marker = write_marker(
            &path,
            &Marker {
                version: 1,
                pid: std::process::id(),
                socket_dir: None,
            },
        )?;
        cleanup.disarm();
        Ok(Self {
            path,
            _marker: marker,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Nobody is left to tell; what cannot be removed now is the next sweep's.
        let _ = remove_all(&self.path);
    }
}

/// The folder of a server, with its marker locked. Removes itself when dropped.
#[derive(Debug)]
pub(super) struct ScratchFolder {
    path: PathBuf,
    socket_dir: PathBuf,
    /// Locked as long as this is open.
    _marker: File,
    removed: bool,
}

impl ScratchFolder {
    pub(super) fn create(
        parent: &Path,
        owner: &OsUser,
        port: u16,
    ) -> Result<ScratchFolder, InstanceError> {
        owner.require_passage(parent)?;
        let parent = parent
            .canonicalize()
            .map_err(InstanceError::folder(parent))?;
        let path = make_private(&parent)?;
        let cleanup = RemoveOnDrop(Some(path.clone()));
        let inside = path.join("socket");
        let socket_name = format!(".s.PGSQL.{port}.lock");
        let elsewhere = inside.join(socket_name).as_os_str().len() > SOCKET_PATH_MAX;
        let (socket_dir, socket_cleanup) = if elsewhere {
            let short = make_private(Path::new("/tmp"))?;
            (short.clone(), RemoveOnDrop(Some(short)))
        } else {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&inside)
                .map_err(InstanceError::folder(&inside))?;
            (inside, RemoveOnDrop(None))
        };
        if elsewhere {
            let path = socket_dir.join(SOCKET_MARKER);
            File::create_new(&path).map_err(InstanceError::folder(&path))?;
        }
        let content = Marker {
            version: 1,
            pid: std::process::id(),
            socket_dir: elsewhere.then(|| socket_dir.clone()),
        };
        let marker = write_marker(&path, &content)?;
        owner.own(&path)?;
        owner.own(&socket_dir)?;
        cleanup.disarm();
        socket_cleanup.disarm();
        Ok(ScratchFolder {
            path,
            socket_dir,
            _marker: marker,
            removed: false,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.path.join("server.log")
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&self.log_path())
    }

    pub(super) fn remove(&mut self) -> Result<(), InstanceError> {
        self.removed = true;
        for path in [&self.socket_dir, &self.path] {
            remove_all(path)?;
        }
        Ok(())
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if !self.removed {
            // Nobody is left to tell; what cannot be removed now is the next sweep's.
            let _ = self.remove();
        }
    }
}

struct RemoveOnDrop(Option<PathBuf>);

impl RemoveOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn make_private(parent: &Path) -> Result<PathBuf, InstanceError> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map(tempfile::TempDir::keep)
        .map_err(InstanceError::folder(parent))
}

/// Locks the marker under another name first, so that there is no moment at which a sweep could find it
/// unlocked and take its maker for dead.
fn write_marker(folder: &Path, content: &Marker) -> Result<File, InstanceError> {
    let path = folder.join(MARKER);
    let early = folder.join(format!("{MARKER}.new"));
    let write = || -> std::io::Result<File> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&early)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        fs::rename(&early, &path)?;
        Ok(file)
    };
    write().map_err(InstanceError::folder(&path))
}

pub(super) fn remove_all(path: &Path) -> Result<(), InstanceError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(InstanceError::Folder {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

pub(super) fn append(path: &Path, text: &str) -> Result<(), InstanceError> {
    let write = || {
        OpenOptions::new()
            .append(true)
            .open(path)?
            .write_all(text.as_bytes())
    };
    write().map_err(InstanceError::folder(path))
}

/// Copies a data directory, giving each file to `owner`. `fs::copy` shares blocks where the file system can.
pub(super) fn copy_tree(from: &Path, to: &Path, owner: &OsUser) -> Result<(), InstanceError> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(to)
        .map_err(InstanceError::folder(to))?;
    owner.own(to)?;
    for entry in fs::read_dir(from).map_err(InstanceError::folder(from))? {
        let entry = entry.map_err(InstanceError::folder(from))?;
        let target = to.join(entry.file_name());
        if entry
            .file_type()
            .map_err(InstanceError::folder(entry.path()))?
            .is_dir()
        {
            copy_tree(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target).map_err(InstanceError::folder(entry.path()))?;
            owner.own(&target)?;
        }
    }
    Ok(())
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default())
        .trim()
        .to_owned()
}
