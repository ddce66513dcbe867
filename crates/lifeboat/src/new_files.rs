//! Files that a command makes: private, never over another, and taken away again when it fails.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lifeboat_engine::private_file;

use crate::exit::Exit;
use crate::failure::Failure;

/// The files of one run. Dropped before [`Self::keep`], it removes what it made.
#[derive(Debug, Default)]
pub struct NewFiles {
    made: Vec<PathBuf>,
}

impl NewFiles {
    /// Makes a file of mode 0600 with this content, and its folder (0700) when missing. One that exists is
    /// left alone: a refusal.
    pub fn write(&mut self, path: &Path, content: &str) -> Result<(), Failure> {
        let failed = |error: &io::Error| {
            Failure::new(Exit::Failed, format!("cannot write {}", path.display())).cause(error)
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| failed(&error))?;
        }
        // Durable: a passphrase lost in a power cut an hour later would take every backup with it.
        match private_file::write(path, content) {
            Ok(()) => {
                self.made.push(path.to_owned());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// As [`Self::write`], over an older file, which keeps its content until the new one is durable.
    pub fn replace(&mut self, path: &Path, content: &str) -> Result<(), Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lifeboat-new");
        let beside = path.with_file_name(name);
        let failed = |error: io::Error| {
            Failure::new(Exit::Failed, format!("cannot write {}", path.display())).cause(error)
        };
        // Of a run that was killed.
        let _ = std::fs::remove_file(&beside);
        self.write(&beside, content)?;
        std::fs::rename(&beside, path).map_err(failed)?;
        self.made.retain(|made| *made != beside);
        Ok(())
    }

    /// All went well: the files stay.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The refusal to write over a file.
pub fn exists(path: &Path) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("{} exists, and nothing is written over it", path.display()),
    )
    .hint("use it as it is, or move it away first")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/secret");
        let mut files = NewFiles::default();
        files.write(&path, "a").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(files.write(&path, "b").unwrap_err().exit, Exit::Refused);
        files.keep();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a");

        let mut files = NewFiles::default();
        let other = folder.path().join("other");
        files.write(&other, "x").unwrap();
        assert!(files.write(&path, "b").is_err());
        drop(files);
        assert!(!other.exists());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a");
    }
}
