//! The archive's header: version, sizes, compression, when and from what it was made.
//!
//! Format: `ReadHead` and `WriteHead` in PostgreSQL's `pg_backup_archiver.c`.

use std::io::{Read, Write};

use super::error::{ArchiveError, Content};
use super::io::{Sink, Source};
use super::text::Text;

/// The first bytes of every archive.
pub(super) const MAGIC: &[u8; 5] = b"PGDMP";

/// Format codes, `ArchiveFormat` in `pg_backup.h`.
const FORMAT_CUSTOM: u8 = 1;
const FORMAT_TAR: u8 = 3;

/// The archive's format version, `K_VERS_*` in `pg_backup_archiver.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The second number: 12 (PostgreSQL 9.0) to 16 (17 and 18). The first is always 1.
    pub minor: u8,
    /// The third number, which has no meaning so far.
    pub revision: u8,
}

impl Version {
    const OLDEST_MINOR: u8 = 12;
    const NEWEST_MINOR: u8 = 16;

    /// Whether entries carry the table access method (PostgreSQL 12).
    #[must_use]
    pub fn has_table_am(self) -> bool {
        self.minor >= 14
    }

    /// Whether the header names a compression algorithm, not just a level (PostgreSQL 16).
    #[must_use]
    pub fn has_compression_algorithm(self) -> bool {
        self.minor >= 15
    }

    /// Whether entries carry the relation's kind, and large objects come in several groups with
    /// `BLOB METADATA` entries (PostgreSQL 17).
    #[must_use]
    pub fn has_blob_groups(self) -> bool {
        self.minor >= 16
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}-{}", self.minor, self.revision)
    }
}

/// How the TOC refers to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArchiveFormat {
    /// One file; the TOC holds offsets into it.
    Custom,
    /// `toc.dat` of a directory or tar dump; the TOC holds file names. PostgreSQL writes tar's
    /// code for both.
    Directory,
}

/// How the data blocks of a custom-format archive are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// A zlib stream per block. The level is only known before version 1.15; -1 is zlib's own
    /// default.
    Gzip {
        /// The level as the header says.
        level: Option<i32>,
    },
    /// An LZ4 frame per block.
    Lz4,
    /// A zstd frame per block.
    Zstd,
}

/// A broken-down local time, C's `struct tm`, of the machine that ran pg_dump. Its time zone is
/// not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LocalTime {
    /// Seconds, 0 to 60.
    pub second: i32,
    /// Minutes.
    pub minute: i32,
    /// Hours.
    pub hour: i32,
    /// Day of the month, from 1.
    pub day: i32,
    /// Month, from 0.
    pub month: i32,
    /// Years since 1900.
    pub year: i32,
    /// Summer time: positive yes, 0 no, negative unknown.
    pub is_dst: i32,
}

impl LocalTime {
    /// As a date and time without a zone; `None` if the fields make none.
    #[must_use]
    pub fn to_civil(self) -> Option<jiff::civil::DateTime> {
        jiff::civil::DateTime::new(
            i16::try_from(self.year.checked_add(1900)?).ok()?,
            i8::try_from(self.month.checked_add(1)?).ok()?,
            i8::try_from(self.day).ok()?,
            i8::try_from(self.hour).ok()?,
            i8::try_from(self.minute).ok()?,
            // C allows a leap second.
            i8::try_from(self.second.min(59)).ok()?,
            0,
        )
        .ok()
    }
}

/// An archive's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The format's version.
    pub version: Version,
    /// Bytes of an integer, without its sign byte: 4 everywhere today.
    pub int_size: u8,
    /// Bytes of a file offset: 8 everywhere today.
    pub off_size: u8,
    /// How the TOC refers to data.
    pub format: ArchiveFormat,
    /// How the data is compressed.
    pub compression: Compression,
    /// When pg_dump was started.
    pub created: LocalTime,
    /// The database that was dumped.
    pub database: Option<Text>,
    /// The server's version, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: Option<Text>,
    /// pg_dump's version.
    pub pg_dump_version: Option<Text>,
}

impl Header {
    /// The server's major version: 15 for `15.18 (Debian …)`, and 9 for 9.x.
    #[must_use]
    pub fn server_major(&self) -> Option<u32> {
        major(self.server_version.as_ref()?)
    }

    /// pg_dump's major version.
    #[must_use]
    pub fn pg_dump_major(&self) -> Option<u32> {
        major(self.pg_dump_version.as_ref()?)
    }

    pub(super) fn read<R: Read>(source: &mut Source<R>) -> Result<Self, ArchiveError> {
        check_magic(source)?;
        let (major, minor, revision) = (source.byte()?, source.byte()?, source.byte()?);
        if major != 1 || !(Version::OLDEST_MINOR..=Version::NEWEST_MINOR).contains(&minor) {
            return Err(ArchiveError::UnsupportedVersion { major, minor });
        }
        let version = Version { minor, revision };
        source.int_size = source.byte()?;
        source.off_size = source.byte()?;
        let (int_size, off_size) = (source.int_size, source.off_size);
        // 32 is pg_restore's own limit for integers; fewer than four bytes were never written.
        if !(4..=32).contains(&int_size) || !(4..=32).contains(&off_size) {
            let what = format!("integers of {int_size} and offsets of {off_size} bytes");
            return Err(source.damaged(what));
        }
        let format = match source.byte()? {
            FORMAT_CUSTOM => ArchiveFormat::Custom,
            FORMAT_TAR => ArchiveFormat::Directory,
            code => return Err(source.damaged(format!("the unknown format code {code}"))),
        };
        let compression = read_compression(source, version)?;
        let created = LocalTime {
            second: source.int()?,
            minute: source.int()?,
            hour: source.int()?,
            day: source.int()?,
            month: source.int()?,
            year: source.int()?,
            is_dst: source.int()?,
        };
        Ok(Self {
            version,
            int_size,
            off_size,
            format,
            compression,
            created,
            database: source.string()?,
            server_version: source.string()?,
            pg_dump_version: source.string()?,
        })
    }

    pub(super) fn write<W: Write>(&self, sink: &mut Sink<W>) -> Result<(), ArchiveError> {
        let format = match self.format {
            ArchiveFormat::Custom => FORMAT_CUSTOM,
            ArchiveFormat::Directory => FORMAT_TAR,
        };
        let version = self.version;
        sink.bytes(MAGIC)?;
        sink.bytes(&[
            1,
            version.minor,
            version.revision,
            self.int_size,
            self.off_size,
            format,
        ])?;
        if version.has_compression_algorithm() {
            let algorithm = match self.compression {
                Compression::None => 0,
                Compression::Gzip { .. } => 1,
                Compression::Lz4 => 2,
                Compression::Zstd => 3,
            };
            sink.bytes(&[algorithm])?;
        } else {
            sink.int(match self.compression {
                Compression::None => 0,
                Compression::Gzip { level } => level.unwrap_or(-1),
                Compression::Lz4 | Compression::Zstd => {
                    let what = format!("version {version} knows only gzip");
                    return Err(ArchiveError::Unwritable { what });
                }
            })?;
        }
        let created = self.created;
        for field in [
            created.second,
            created.minute,
            created.hour,
            created.day,
            created.month,
            created.year,
            created.is_dst,
        ] {
            sink.int(field)?;
        }
        for text in [&self.database, &self.server_version, &self.pg_dump_version] {
            sink.string(text.as_ref().map(Text::as_bytes))?;
        }
        Ok(())
    }
}

fn check_magic<R: Read>(source: &mut Source<R>) -> Result<(), ArchiveError> {
    let mut head = [0; Content::SNIFF_BYTES];
    let got = source.read_up_to(&mut head[..MAGIC.len()])?;
    if &head[..got] == MAGIC {
        return Ok(());
    }
    if got > 0 && MAGIC.starts_with(&head[..got]) {
        return Err(ArchiveError::Truncated {
            offset: got as u64,
            part: "the header".into(),
        });
    }
    // Not ours: only now read on, to be able to say what it is.
    let more = source.read_up_to(&mut head[got..])?;
    Err(ArchiveError::NotAnArchive {
        found: Content::sniff(&head[..got + more]),
    })
}

fn read_compression<R: Read>(
    source: &mut Source<R>,
    version: Version,
) -> Result<Compression, ArchiveError> {
    if version.has_compression_algorithm() {
        // `pg_compress_algorithm` in `common/compression.h`.
        return match source.byte()? {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip { level: None }),
            2 => Ok(Compression::Lz4),
            3 => Ok(Compression::Zstd),
            code => Err(source.damaged(format!("the unknown compression algorithm {code}"))),
        };
    }
    match source.int()? {
        0 => Ok(Compression::None),
        level @ -1..=9 => Ok(Compression::Gzip { level: Some(level) }),
        level => Err(source.damaged(format!("the impossible compression level {level}"))),
    }
}

fn major(version: &Text) -> Option<u32> {
    let text = version.as_str()?;
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}
