//! Files being written, before they get their name.
//!
//! A writer holds a file lock on its temporary file for as long as it lives, which the system drops with the
//! process however that ends. So an abandoned file can be told from a live one without trusting process
//! numbers, which mean nothing across containers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

// restic passes over names that are not 64 hexadecimal digits, so a leftover never disturbs it either.
const PREFIX: &str = ".lifeboat-";
const SUFFIX: &str = ".tmp";

/// A file under a temporary name, removed when dropped unless it was kept.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl TemporaryFile {
    /// Makes an empty file, 0600, in `folder`, which has to be the folder of its final name: a rename across
    /// folders would need two syncs, and across file systems is a copy.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        loop {
            let nonce = getrandom::u64().map_err(io::Error::other)?;
            let path = folder.join(format!("{PREFIX}{nonce:016x}{SUFFIX}"));
            let file = match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
            {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            // Where locks are not supported the sweep can't get one either, and leaves the file alone.
            let _ = file.try_lock();
            let made = Self {
                file,
                path,
                kept: false,
            };
            // A sweep may have come between making and locking it; then it has no name any more.
            if made.file.metadata()?.nlink() > 0 {
                return Ok(made);
            }
        }
    }

    pub(super) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file has its final name now: nothing is left to remove.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.kept {
            // On failure the sweep takes it later.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the temporary files in `folder` whose writer is gone and that were last written at least
/// `untouched` ago. Returns how many. A folder that does not exist holds none.
pub(super) fn sweep(folder: &Path, untouched: Duration) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(PREFIX)
            && name.ends_with(SUFFIX)
            && remove_if_abandoned(&path, untouched)?
        {
            removed += 1;
        }
    }
    Ok(removed)
}

fn remove_if_abandoned(path: &Path, untouched: Duration) -> io::Result<bool> {
    let file = match File::open(path) {
        // Renamed or removed by its writer meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    if file.try_lock().is_err() {
        return Ok(false);
    }
    // A time in the future is a clock that was set back: wait for it.
    let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
    if age < untouched {
        return Ok(false);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::io::Write;

    #[test]
    fn is_private_and_gone_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut temporary = TemporaryFile::create(folder.path()).unwrap();
        temporary.file().write_all(b"half").unwrap();
        assert_eq!(
            fs::metadata(temporary.path()).unwrap().mode() & 0o777,
            0o600
        );
        drop(temporary);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn sweep_spares_the_living_the_young_and_the_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let living = TemporaryFile::create(folder.path()).unwrap();
        let dead = folder.path().join(format!("{PREFIX}0{SUFFIX}"));
        fs::write(&dead, b"half a pack").unwrap();
        fs::write(folder.path().join("foreign.tmp"), b"").unwrap();

        assert_eq!(sweep(folder.path(), Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(sweep(folder.path(), Duration::ZERO).unwrap(), 1);
        assert!(!dead.exists());
        assert!(living.path().exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(
            sweep(&folder.path().join("missing"), Duration::ZERO).unwrap(),
            0
        );
    }
}
