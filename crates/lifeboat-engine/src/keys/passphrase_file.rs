//! The file that holds a passphrase, and the two that stand beside it while it is changed.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::rotate::{RotateError, file_error};
use crate::private_file;

/// The new passphrase, before it is put in place.
const STAGED: &str = "lifeboat-new";
/// The old one, until its key is gone.
const PREVIOUS: &str = "lifeboat-old";

/// The files of an unfinished rotation beside this passphrase file.
#[must_use]
pub fn leftovers(password_file: &Path) -> Vec<PathBuf> {
    let path = fs::canonicalize(password_file).unwrap_or_else(|_| password_file.to_owned());
    let mut found = vec![beside(&path, STAGED), beside(&path, PREVIOUS)];
    found.retain(|path| path.symlink_metadata().is_ok());
    found
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// The file and its neighbours.
#[derive(Debug)]
pub(super) struct PassphraseFile {
    path: PathBuf,
    owner: (u32, u32),
    mode: u32,
}

impl PassphraseFile {
    /// The file itself, where the configured name is a link to it: a rename would replace the link.
    pub(super) fn at(path: &Path) -> Result<Self, RotateError> {
        let failed = |error| file_error("replace", path)(error);
        let path = fs::canonicalize(path).map_err(failed)?;
        let found = fs::metadata(&path).map_err(file_error("replace", &path))?;
        if !found.is_file() {
            let error = io::Error::other("it is no regular file");
            return Err(file_error("replace", &path)(error));
        }
        Ok(Self {
            owner: (found.uid(), found.gid()),
            mode: found.permissions().mode() & 0o777,
            path,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn was_wider(&self) -> Option<u32> {
        Some(self.mode).filter(|mode| mode & 0o077 != 0)
    }

    pub(super) fn read(&self) -> Result<SecretString, RotateError> {
        read(&self.path)
    }

    pub(super) fn staged(&self) -> Result<SecretString, RotateError> {
        read(&beside(&self.path, STAGED))
    }

    pub(super) fn read_staged(&self) -> Result<Option<SecretString>, RotateError> {
        read_if_there(&beside(&self.path, STAGED))
    }

    pub(super) fn read_previous(&self) -> Result<Option<SecretString>, RotateError> {
        read_if_there(&beside(&self.path, PREVIOUS))
    }

    pub(super) fn write_staged(&self, passphrase: &SecretString) -> Result<(), RotateError> {
        self.write(&beside(&self.path, STAGED), passphrase)
    }

    pub(super) fn keep_previous(&self, passphrase: &SecretString) -> Result<(), RotateError> {
        let path = beside(&self.path, PREVIOUS);
        remove(&path)?;
        self.write(&path, passphrase)
    }

    fn write(&self, path: &Path, passphrase: &SecretString) -> Result<(), RotateError> {
        let line = format!("{}\n", passphrase.expose_secret());
        private_file::write_for(path, &line, Some(self.owner)).map_err(file_error("write", path))
    }

    /// The new passphrase takes the file's place, in one step.
    pub(super) fn exchange(&self) -> Result<(), RotateError> {
        self.rename(&beside(&self.path, STAGED))
    }

    /// The old one takes its place again.
    pub(super) fn put_back(&self) -> Result<(), RotateError> {
        self.rename(&beside(&self.path, PREVIOUS))
    }

    fn rename(&self, from: &Path) -> Result<(), RotateError> {
        fs::rename(from, &self.path)
            .and_then(|()| private_file::sync_folder_of(&self.path))
            .map_err(file_error("replace", &self.path))
    }

    pub(super) fn remove_staged(&self) -> Result<(), RotateError> {
        remove(&beside(&self.path, STAGED))
    }

    pub(super) fn remove_previous(&self) -> Result<(), RotateError> {
        remove(&beside(&self.path, PREVIOUS))
    }
}

/// Trimmed, as restic and the rest of Lifeboat read such a file.
fn read(path: &Path) -> Result<SecretString, RotateError> {
    let text = fs::read_to_string(path).map_err(file_error("read", path))?;
    Ok(text.trim().to_owned().into())
}

fn read_if_there(path: &Path) -> Result<Option<SecretString>, RotateError> {
    match read(path) {
        Err(RotateError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        // Half written, as a power cut may leave it: no passphrase.
        Err(RotateError::File { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
            Ok(Some(SecretString::default()))
        }
        other => other.map(Some),
    }
}

fn remove(path: &Path) -> Result<(), RotateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other
            .and_then(|()| private_file::sync_folder_of(path))
            .map_err(file_error("remove", path)),
    }
}
