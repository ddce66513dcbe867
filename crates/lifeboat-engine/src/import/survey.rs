//! The first reading of a file: whether it is a whole archive, where its data is, and what its hash is.
//!
//! Nothing is decompressed, so this goes about as fast as the file can be read. It comes before anything is stored:
//! a file that was cut short must not fill the repository first. With the places known, a dump that `pg_dump`
//! wrote into a pipe, which does not tell them, is read by several threads like any other.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_pg::archive::{Archive, BlockSpan, Content, CustomReader};
use sha2::{Digest, Sha256};

use super::Refusal;
use super::refusal::FileError;

/// A file that was read to its end.
pub(super) struct Survey {
    pub(super) file: File,
    pub(super) archive: Archive,
    pub(super) spans: Vec<BlockSpan>,
    /// The SHA-256 of the whole file, in hex.
    pub(super) sha256: String,
    identity: Identity,
}

/// What changes when somebody writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl Survey {
    /// Reads the file, and holds it to what it was when it was planned.
    pub(super) fn take(
        path: &Path,
        planned: Identity,
        interrupt: &Arc<AtomicBool>,
    ) -> Result<Self, FileError> {
        let file = open(path)?;
        let identity = Identity::of(&file.metadata().map_err(Refusal::Unreadable)?);
        if identity != planned {
            return Err(Refusal::Changed.into());
        }
        let mut hash = Sha256::new();
        let surveyed = {
            let watched = Hashed {
                inner: &file,
                hash: &mut hash,
                interrupt,
            };
            CustomReader::new(watched)
                .and_then(|mut reader| Ok((reader.spans()?, reader.archive().clone())))
        };
        if interrupt.load(Ordering::Relaxed) {
            return Err(FileError::Interrupted);
        }
        let (spans, archive) = surveyed.map_err(Refusal::from)?;
        Ok(Self {
            file,
            archive,
            spans,
            sha256: hex::encode(hash.finalize()),
            identity,
        })
    }

    /// Fails when somebody has written to the file since.
    pub(super) fn is_unchanged(&self) -> Result<(), Refusal> {
        let now = self.file.metadata().map_err(Refusal::Unreadable)?;
        if Identity::of(&now) == self.identity {
            Ok(())
        } else {
            Err(Refusal::Changed)
        }
    }
}

/// Opens a dump. What is no file is told apart here: a named pipe would wait for ever.
pub(super) fn open(path: &Path) -> Result<File, Refusal> {
    let meta = std::fs::metadata(path).map_err(Refusal::Unreadable)?;
    if meta.is_dir() {
        return Err(if path.join("toc.dat").exists() {
            Refusal::DirectoryFormat
        } else {
            Refusal::Folder
        });
    }
    if !meta.is_file() {
        return Err(Refusal::NoFile);
    }
    File::open(path).map_err(Refusal::Unreadable)
}

/// The table of contents of a dump, without its data.
pub(super) fn table_of_contents(file: &File) -> Result<Archive, Refusal> {
    let mut input = io::BufReader::with_capacity(64 * 1024, file);
    let mut head = Vec::with_capacity(Content::SNIFF_BYTES);
    (&mut input)
        .take(Content::SNIFF_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(Refusal::Unreadable)?;
    match Content::sniff(&head) {
        Content::Archive => {}
        found => return Err(Refusal::NotCustom { found }),
    }
    let mut whole = io::Cursor::new(head).chain(input);
    let archive = Archive::read_toc(&mut whole)?;
    if archive.header.format != lifeboat_pg::archive::ArchiveFormat::Custom {
        return Err(Refusal::DirectoryFormat);
    }
    Ok(archive)
}

/// The SHA-256 of a file, in hex.
pub(super) fn sha256(file: &File, interrupt: &Arc<AtomicBool>) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut source = Hashed {
        inner: file,
        hash: &mut hash,
        interrupt,
    };
    while source.read(&mut buffer)? > 0 {}
    Ok(hex::encode(hash.finalize()))
}

/// A file that is hashed while it is read.
struct Hashed<'a> {
    inner: &'a File,
    hash: &'a mut Sha256,
    interrupt: &'a AtomicBool,
}

impl Read for Hashed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.load(Ordering::Relaxed) {
            // Not the kind `Interrupted`, which means "try again".
            return Err(io::Error::other("interrupted"));
        }
        loop {
            match self.inner.read(out) {
                Ok(count) => {
                    self.hash.update(&out[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
