//! A dump that somebody else made: what it is, and whether it is whole.
//!
//! For folders of `pg_dump` and `pg_dumpall` output, in every format and compressed or not. A dump
//! is read to its last byte, never judged by its first: dumps that were cut short by a full disk, a
//! killed process or a lost connection look fine from the front. This module says what it found; how
//! old a dump may be, and which one of a folder counts, is for others.

mod directory;
mod plain;
mod stream;
mod tar;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::archive::{Archive, ArchiveError, Content, CustomReader, Header, Text};

use stream::Watch;

/// How a dump is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DumpFormat {
    /// `pg_dump -Fc`.
    Custom,
    /// `pg_dump -Fd`.
    Directory,
    /// `pg_dump -Ft`.
    Tar,
    /// `pg_dump` as SQL.
    Plain,
    /// `pg_dumpall`: SQL for a whole cluster.
    PlainCluster,
}

/// A dump, inspected.
#[derive(Debug)]
pub struct DumpFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is; `None` if that cannot be told.
    pub format: Option<DumpFormat>,
    /// With what the whole file was compressed after it was made: `gzip`, `zstd`, `lz4`. A custom-format
    /// dump's own compression does not count.
    pub compressed_with: Option<&'static str>,
    /// Bytes on disk: of the file, or of all files of the folder that belong to it.
    pub size_bytes: u64,
    /// When it was last written to.
    pub modified: Option<SystemTime>,
    /// `pg_dump`'s version, as it says.
    pub pg_dump_version: Option<String>,
    /// The server's version, as `pg_dump` says.
    pub server_version: Option<String>,
    /// The database that was dumped. Plain dumps only say with `--create`.
    pub database: Option<String>,
    /// When `pg_dump` was started: the dumping machine's local time, whose zone is not recorded. Plain dumps
    /// only say with `--verbose`.
    pub created: Option<jiff::civil::DateTime>,
    /// Tables with rows to load, empty ones too; for SQL with INSERT statements, tables that it creates.
    pub tables: u64,
    /// Large objects.
    pub large_objects: u64,
    /// Bytes of rows and large objects, decompressed; for a plain dump, of all its SQL.
    pub data_bytes: u64,
    /// The first thing that is wrong with it. `None`: it is complete.
    pub defect: Option<DumpDefect>,
}

/// What is wrong with a dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpDefect {
    /// No bytes at all.
    #[error("it is empty")]
    Empty,
    /// Something else than a dump.
    #[error("it is no dump but {}{}", found.describe(), first_line.as_ref().map(|line| format!(": {line}")).unwrap_or_default())]
    NotADump {
        /// What it looks like.
        found: Content,
        /// Of a text, its first line, shortened: error messages end up in dump files.
        first_line: Option<String>,
    },
    /// An archive, or a table of contents, with a defect.
    #[error(transparent)]
    Archive(ArchiveError),
    /// SQL that ends before the line with which `pg_dump` says that it is done.
    #[error("it was cut short: the end marker is missing")]
    NoEndMarker,
    /// SQL that ends among a table's rows.
    #[error("it was cut short inside the rows of {table}")]
    InsideRows {
        /// The table, as SQL names it.
        table: String,
    },
    /// More SQL after the end marker.
    #[error("something was written after the end marker")]
    AfterEndMarker,
    /// The compressed form is damaged or ends too early.
    #[error("its compressed data is damaged or cut short: {what}")]
    Compression {
        /// What the decoder says.
        what: String,
    },
    /// A folder without a table of contents.
    #[error("the folder has no toc.dat")]
    NoToc,
    /// A file of a directory or tar dump is not there.
    #[error("its file {name} is missing")]
    MissingFile {
        /// The file, relative to the dump.
        name: String,
    },
    /// A file of a directory or tar dump is damaged.
    #[error("its file {name} is damaged: {what}")]
    DamagedFile {
        /// The file, relative to the dump.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The tar file itself is damaged or ends too early.
    #[error("the tar file is damaged at byte {offset}: {what}")]
    Tar {
        /// Bytes from the start.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Why a dump was not inspected at all.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be opened.
    #[error("{} cannot be opened: {source}", path.display())]
    Open {
        /// The dump.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The caller wanted it to stop.
    #[error("interrupted")]
    Interrupted,
}

impl DumpFile {
    /// Whether it is a dump, and whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.defect.is_none()
    }

    fn take_header(&mut self, header: &Header) {
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.lossy().into_owned());
        self.pg_dump_version = text(&header.pg_dump_version);
        self.server_version = text(&header.server_version);
        self.database = text(&header.database);
        self.created = header.created.to_civil();
    }
}

/// Reads a dump (a file, or a folder of the directory format) to its end.
///
/// `progress` is called with the bytes read from disk so far. What is wrong with the dump is in its
/// [`DumpFile::defect`]. Memory is bounded by the table of contents and some buffers.
///
/// # Errors
/// [`InspectError::Open`] if there is nothing to read at `path`; [`InspectError::Interrupted`] soon after
/// `interrupt` is set.
pub fn inspect(
    path: &Path,
    interrupt: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<DumpFile, InspectError> {
    let open = |source| InspectError::Open {
        path: path.to_owned(),
        source,
    };
    let meta = fs::metadata(path).map_err(open)?;
    let mut dump = DumpFile {
        path: path.to_owned(),
        format: None,
        compressed_with: None,
        size_bytes: 0,
        modified: meta.modified().ok(),
        pg_dump_version: None,
        server_version: None,
        database: None,
        created: None,
        tables: 0,
        large_objects: 0,
        data_bytes: 0,
        defect: None,
    };
    let mut watch = Watch::new(interrupt, progress);
    let checked = if meta.is_dir() {
        directory::check(&mut dump, &mut watch)
    } else {
        dump.size_bytes = meta.len();
        let file = fs::File::open(path).map_err(open)?;
        check_file(&mut dump, file, &mut watch)
    };
    // Stopping early looks like damage from inside.
    if interrupt.load(Ordering::Relaxed) {
        return Err(InspectError::Interrupted);
    }
    dump.defect = checked.err();
    Ok(dump)
}

fn check_file(
    dump: &mut DumpFile,
    file: fs::File,
    watch: &mut Watch<'_>,
) -> Result<(), DumpDefect> {
    let interrupt = watch.interrupt();
    let mut opened = stream::open(watch.watched(file)).map_err(DumpDefect::from)?;
    dump.compressed_with = opened.compressed_with;
    match opened.content {
        Content::Empty => Err(DumpDefect::Empty),
        Content::Archive => {
            dump.format = Some(DumpFormat::Custom);
            let mut reader = CustomReader::new(opened.stream)?;
            dump.take_header(&reader.archive().header);
            let summary = reader.check_to_end(interrupt, &mut |_| {})?;
            dump.tables = summary.tables;
            dump.large_objects = summary.large_objects;
            dump.data_bytes = summary.data_bytes;
            Ok(())
        }
        Content::Tar => {
            dump.format = Some(DumpFormat::Tar);
            tar::check(dump, &mut opened.stream)
        }
        Content::PlainDump => {
            dump.format = Some(DumpFormat::Plain);
            plain::check(dump, &mut opened.stream)
        }
        Content::PlainClusterDump => {
            dump.format = Some(DumpFormat::PlainCluster);
            plain::check(dump, &mut opened.stream)
        }
        found => Err(DumpDefect::NotADump {
            found,
            first_line: first_line(found, &opened.head),
        }),
    }
}

fn first_line(found: Content, head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    (found == Content::OtherText).then(|| line.chars().take(120).collect())
}

/// The number of entries with rows.
fn count_tables(archive: &Archive) -> u64 {
    archive
        .data_entries()
        .filter(|entry| !entry.is("BLOBS"))
        .count() as u64
}

impl From<ArchiveError> for DumpDefect {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Read { source, .. } => source.into(),
            other => Self::Archive(other),
        }
    }
}

impl From<io::Error> for DumpDefect {
    fn from(error: io::Error) -> Self {
        // What comes from the system has a number; what has none comes from a decoder.
        if error.raw_os_error().is_some() {
            return Self::Unreadable(error);
        }
        Self::Compression {
            what: error.to_string(),
        }
    }
}
