//! Reads single entries of a custom-format archive, wherever they are in the file.
//!
//! What [`CustomReader`](super::CustomReader) proves by reading everything in order is not looked at again here:
//! the caller knows from [`CustomReader::spans`](super::CustomReader::spans) where an entry is.

use std::io::Read;

use super::codec::Codec;
use super::custom_reader::{BLOCK_BLOBS, BLOCK_DATA, DataStream};
use super::error::ArchiveError;
use super::header::Header;
use super::input::Input;
use super::toc::TocEntry;

/// A reader for one entry after the other, with one buffer and one decoder for all of them.
pub struct EntryReader<R> {
    input: Input<R>,
    codec: Codec,
    is_blobs: bool,
}

impl<R: Read> EntryReader<R> {
    /// Stands at an entry's block: `input` gives the archive's bytes from `offset` on.
    ///
    /// # Errors
    /// [`ArchiveError`] when no block of this entry begins there.
    pub fn new(
        input: R,
        header: &Header,
        entry: &TocEntry,
        offset: u64,
    ) -> Result<Self, ArchiveError> {
        let mut reader = Self {
            input: Input::new(input),
            codec: Codec::new(header.compression)?,
            is_blobs: false,
        };
        reader.input.set_int_size(header.int_size);
        reader.input.restart_at(offset);
        reader.enter(entry)?;
        Ok(reader)
    }

    /// Stands at another entry's block of the same archive.
    ///
    /// # Errors
    /// As [`EntryReader::new`].
    pub fn move_to(&mut self, input: R, entry: &TocEntry, offset: u64) -> Result<(), ArchiveError> {
        self.input.restart(input, offset);
        self.enter(entry)
    }

    fn enter(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        let name = entry.describe();
        self.input.part = format!("the data of {name}");
        self.is_blobs = entry.is("BLOBS");
        let expected = if self.is_blobs {
            BLOCK_BLOBS
        } else {
            BLOCK_DATA
        };
        let found = self.input.byte()?;
        if found.is_none() {
            return Err(self.input.truncated());
        }
        if found != Some(expected) || self.input.int()? != entry.dump_id {
            return Err(self
                .input
                .damaged(format!("this is not where the data of {name} begins")));
        }
        Ok(())
    }

    /// The entry's rows. To be asked once, and of an entry with rows.
    ///
    /// # Errors
    /// When the decoder has no memory.
    pub fn rows(&mut self) -> Result<DataStream<'_, R>, ArchiveError> {
        self.codec.reset()?;
        self.input.begin_stream();
        Ok(DataStream {
            input: &mut self.input,
            codec: &mut self.codec,
        })
    }

    /// The next of the entry's large objects, each of which has to be read to its end; `None` after the last, and
    /// for an entry with rows.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`].
    pub fn next_blob(&mut self) -> Result<Option<(u32, DataStream<'_, R>)>, ArchiveError> {
        if !self.is_blobs {
            return Ok(None);
        }
        // OIDs are unsigned, but pg_dump writes them as if they had a sign.
        let oid = self.input.int()?.cast_unsigned();
        if oid == 0 {
            self.is_blobs = false;
            return Ok(None);
        }
        Ok(Some((oid, self.rows()?)))
    }
}
