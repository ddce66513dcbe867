//! What can be wrong with an archive, as facts.

use std::io;

/// What a file's first bytes say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Not one byte.
    Empty,
    /// A pg_dump archive in custom format, or the `toc.dat` of a directory or tar dump.
    Archive,
    /// SQL text with pg_dump's heading.
    PlainDump,
    /// SQL text with pg_dumpall's heading.
    PlainClusterDump,
    /// A tar file.
    Tar,
    /// A gzip file.
    Gzip,
    /// A zstd file.
    Zstd,
    /// An LZ4 frame.
    Lz4,
    /// Text, but not a dump that is recognised.
    OtherText,
    /// Anything else.
    Unknown,
}

impl Content {
    /// How many bytes [`Content::sniff`] wants to see to tell everything apart: a tar header.
    pub const SNIFF_BYTES: usize = 512;

    /// Classifies a file by its first bytes (up to [`Content::SNIFF_BYTES`]; fewer only if the
    /// file is shorter).
    ///
    /// The headings are those that `_discoverArchiveFormat` in `pg_backup_archiver.c` knows.
    #[must_use]
    pub fn sniff(head: &[u8]) -> Self {
        const TEXT_DUMP: &[u8] = b"--\n-- PostgreSQL database dump\n--\n";
        const TEXT_DUMPALL: &[u8] = b"--\n-- PostgreSQL database cluster dump\n--\n";
        if head.is_empty() {
            return Self::Empty;
        }
        if head.starts_with(super::header::MAGIC) {
            return Self::Archive;
        }
        if starts_with_dump_heading(head, TEXT_DUMP) {
            return Self::PlainDump;
        }
        if starts_with_dump_heading(head, TEXT_DUMPALL) {
            return Self::PlainClusterDump;
        }
        if head.get(257..262) == Some(b"ustar") {
            return Self::Tar;
        }
        if head.starts_with(&[0x1f, 0x8b]) {
            return Self::Gzip;
        }
        if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Self::Zstd;
        }
        if head.starts_with(&[0x04, 0x22, 0x4d, 0x18]) {
            return Self::Lz4;
        }
        let texty = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\n' | b'\r' | b'\t');
        if head.iter().all(texty) {
            return Self::OtherText;
        }
        Self::Unknown
    }

    /// The content in words, as the end of "this is …".
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Empty => "an empty file",
            Self::Archive => "a pg_dump archive",
            Self::PlainDump => "a plain SQL dump",
            Self::PlainClusterDump => "a plain SQL dump of a whole cluster (pg_dumpall)",
            Self::Tar => "a tar file",
            Self::Gzip => "a gzip file",
            Self::Zstd => "a zstd file",
            Self::Lz4 => "an LZ4 file",
            Self::OtherText => "a text file",
            Self::Unknown => "a file of an unknown format",
        }
    }
}

/// Windows' text mode turns pg_dump's line ends into CR LF: accept both.
fn starts_with_dump_heading(head: &[u8], heading: &[u8]) -> bool {
    let mut bytes = head.iter().filter(|byte| **byte != b'\r');
    heading.iter().all(|wanted| bytes.next() == Some(wanted))
}

/// Why an archive could not be read. Offsets count from the archive's first byte.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The magic bytes `PGDMP` are not there.
    #[error("not a pg_dump archive but {}", found.describe())]
    NotAnArchive {
        /// What it looks like.
        found: Content,
    },
    /// A version that this reader does not know.
    #[error("archive version {major}.{minor} is not supported (1.12 to 1.16 are)")]
    UnsupportedVersion {
        /// The first version number.
        major: u8,
        /// The second version number.
        minor: u8,
    },
    /// The input ended too early.
    #[error("the archive ends at byte {offset}, inside {part}")]
    Truncated {
        /// Where the input ended.
        offset: u64,
        /// What was being read.
        part: String,
    },
    /// The input says something that no pg_dump writes.
    #[error("the archive is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the offending field ended.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A TOC entry with data has no block in the file.
    #[error("the data of {description} (entry {dump_id}) is missing from the archive")]
    MissingData {
        /// The entry's dump ID.
        dump_id: i32,
        /// The entry's kind and name, for people.
        description: String,
    },
    /// The caller wanted it to stop.
    #[error("interrupted")]
    Interrupted,
    /// A name or a statement is not what pg_dump writes.
    #[error("{description} has a COPY statement that cannot be understood: {statement}")]
    CopyStatement {
        /// The entry's kind and name, for people.
        description: String,
        /// The statement, shortened.
        statement: String,
    },
    /// The archive cannot be written as asked for.
    #[error("the archive cannot be written: {what}")]
    Unwritable {
        /// Why not.
        what: String,
    },
    /// Reading failed.
    #[error("reading failed at byte {offset}: {source}")]
    Read {
        /// How far reading had come.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// Writing failed.
    #[error("writing failed at byte {offset}: {source}")]
    Write {
        /// How far writing had come.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
}
