//! pg_dump's archives: the table of contents, the custom format, the directory format.
//!
//! This module owns the formats 1.12 to 1.16, that is PostgreSQL 9.0 to 18, and nothing else: it
//! runs no program and talks to no server. An archive that is read and written again is the same
//! byte for byte. Input is hostile until proven otherwise: no count or length is believed before
//! its bytes have come, and nothing here panics.
//!
//! Source of the formats: `pg_backup_archiver.c`, `pg_backup_custom.c`, `pg_backup_directory.c`
//! in PostgreSQL's `src/bin/pg_dump`.

mod check;
mod codec;
mod copy_stmt;
mod custom_reader;
mod custom_writer;
mod entry_reader;
mod error;
mod header;
mod input;
mod io;
mod layout;
mod lz4;
mod select;
mod text;
mod toc;

use std::io::{Read, Write};

pub use check::CheckSummary;
pub use copy_stmt::CopyTarget;
pub use custom_reader::{BlobStreams, Block, BlockSpan, CustomReader, DataStream};
pub use custom_writer::{BlobsWriter, CustomWriter, DataWriter, WriteCompression};
pub use entry_reader::EntryReader;
pub use error::{ArchiveError, Content};
pub use header::{ArchiveFormat, Compression, Header, LocalTime, Version};
pub use layout::{
    TABLE_DATA_END, blob_file, percent_encode, read_blob_list, safe_relative, write_blob_line,
};
pub(crate) use lz4::Lz4Reader;
pub use select::{DropRules, LeftOut, SelectError, TablePattern, TableSelection};
pub use text::Text;
pub use toc::{DataRef, DumpId, Section, TocEntry};

use io::{Sink, Source};

/// An archive's header and table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The header.
    pub header: Header,
    /// The entries, in the order in which they are to be restored.
    pub entries: Vec<TocEntry>,
}

impl Archive {
    /// Reads header and table of contents of a custom-format archive, or a whole `toc.dat`.
    ///
    /// Takes not one byte beyond the table of contents, so `input` can be a pipe from a running
    /// `pg_dump -Fc`. It reads field by field: give it something buffered.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`].
    pub fn read_toc(input: &mut impl Read) -> Result<Self, ArchiveError> {
        Self::read_from(&mut Source::new(input))
    }

    fn read_from<R: Read>(source: &mut Source<R>) -> Result<Self, ArchiveError> {
        let header = Header::read(source)?;
        let entries = toc::read_entries(source, header.version, header.format)?;
        Ok(Self { header, entries })
    }

    /// Writes header and table of contents in the archive's own format: for what pg_dump wrote,
    /// the same bytes again.
    ///
    /// # Errors
    /// [`ArchiveError::Write`]; [`ArchiveError::Unwritable`] if a field does not fit the format.
    pub fn write_toc(&self, out: &mut impl Write) -> Result<(), ArchiveError> {
        let header = &self.header;
        let mut sink = Sink::new(out, header.int_size, header.off_size);
        header.write(&mut sink)?;
        toc::write_entries(&mut sink, header, &self.entries, |entry| {
            Ok(entry.data.clone())
        })
    }

    /// Writes a `toc.dat` of the directory format for uncompressed data files.
    ///
    /// Each entry with data gets the file name that [`Archive::data_file`] gives it.
    ///
    /// # Errors
    /// [`ArchiveError::Write`]; [`ArchiveError::Unwritable`] if a field does not fit the format.
    pub fn write_directory_toc(&self, out: &mut impl Write) -> Result<(), ArchiveError> {
        let header = Header {
            format: ArchiveFormat::Directory,
            compression: Compression::None,
            ..self.header.clone()
        };
        let mut sink = Sink::new(out, header.int_size, header.off_size);
        header.write(&mut sink)?;
        toc::write_entries(&mut sink, &header, &self.entries, |entry| {
            Ok(self
                .data_file(entry)
                .map_or(DataRef::None, |file| DataRef::File(file.into())))
        })
    }

    /// The file, relative to `toc.dat`, that holds (or is to hold) an entry's data; `None` for
    /// an entry without data.
    ///
    /// For large objects before version 1.16 that is `blobs.toc`, since then `blobs_N.toc`: a
    /// list of large objects and their files (see [`write_blob_line`]). For a table it is
    /// `tables/SCHEMA/TABLE/data.dat`, unless the entry came from a directory dump, where it
    /// keeps its name.
    #[must_use]
    pub fn data_file(&self, entry: &TocEntry) -> Option<String> {
        layout::data_file(self.header.version, entry)
    }

    /// The entries with data: `TABLE DATA` and `BLOBS`, in the archive's order.
    pub fn data_entries(&self) -> impl Iterator<Item = &TocEntry> {
        self.entries.iter().filter(|entry| entry.has_data())
    }

    /// The entry with this number.
    #[must_use]
    pub fn entry(&self, dump_id: DumpId) -> Option<&TocEntry> {
        self.entries.iter().find(|entry| entry.dump_id == dump_id)
    }
}
