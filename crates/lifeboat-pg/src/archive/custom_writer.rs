//! Writes a custom-format archive that stock `pg_restore` reads, with and without `-j`.
//!
//! Format: PostgreSQL's `pg_backup_custom.c`. The table of contents is written twice: first
//! without offsets, to take its place, and when all data is written once more over itself, with
//! them. Without offsets `pg_restore -j` has to search.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use flate2::{Compress, FlushCompress, Status};

use super::Archive;
use super::custom_reader::{BLOCK_BLOBS, BLOCK_DATA};
use super::error::ArchiveError;
use super::header::{ArchiveFormat, Compression, Header};
use super::io::{Sink, encode_int};
use super::toc::{DataRef, DumpId, write_entries};

/// Bytes of a chunk. `pg_restore` takes a chunk into memory whole and sends it on in one piece.
const CHUNK_BYTES: usize = 128 * 1024;
const BUFFER_BYTES: usize = 512 * 1024;

/// How the data of an archive that is written gets compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCompression {
    /// Not at all.
    None,
    /// With gzip, which every `pg_restore` reads, at level 1 (fast) to 9 (small).
    Gzip(u32),
}

/// A custom-format archive that is being written.
pub struct CustomWriter<W: Write + Seek> {
    archive: Archive,
    out: Counted<BufWriter<W>>,
    toc_offset: u64,
    toc_bytes: u64,
    deflate: Option<Compress>,
    buffer: Vec<u8>,
    /// Each entry with data: its block's offset, once it is written.
    blocks: HashMap<DumpId, Option<u64>>,
    /// A block that was begun and not finished.
    open: Option<DumpId>,
    /// A stream that was begun and not finished.
    in_stream: bool,
    /// Writing has failed: what is there is not an archive any more.
    failed: bool,
}

/// Takes the data of one table or one large object.
///
/// Must be finished: dropping it leaves the archive unusable, and [`CustomWriter::finish`] says so.
pub struct DataWriter<'a, W: Write + Seek> {
    writer: &'a mut CustomWriter<W>,
    is_blob: bool,
}

/// Takes the large objects of one `BLOBS` entry. Must be finished as well.
pub struct BlobsWriter<'a, W: Write + Seek> {
    writer: &'a mut CustomWriter<W>,
}

impl<W: Write + Seek> CustomWriter<W> {
    /// Writes the header and the table of contents to `out`, which must be empty.
    ///
    /// The archive keeps the version it came with: an export of what pg_dump 15 listed is read by
    /// `pg_restore` 15. Output is buffered here.
    ///
    /// # Errors
    /// [`ArchiveError::Write`]; [`ArchiveError::Unwritable`] for a compression level that gzip
    /// does not have.
    pub fn new(
        out: W,
        archive: &Archive,
        compression: WriteCompression,
    ) -> Result<Self, ArchiveError> {
        let (compression, deflate) = match compression {
            WriteCompression::None => (Compression::None, None),
            WriteCompression::Gzip(level @ 1..=9) => {
                let deflate = Compress::new(flate2::Compression::new(level), true);
                (
                    Compression::Gzip {
                        level: i32::try_from(level).ok(),
                    },
                    Some(deflate),
                )
            }
            WriteCompression::Gzip(level) => {
                let what = format!("gzip has no compression level {level}");
                return Err(ArchiveError::Unwritable { what });
            }
        };
        let header = Header {
            format: ArchiveFormat::Custom,
            compression,
            ..archive.header.clone()
        };
        let blocks = archive
            .data_entries()
            .map(|entry| (entry.dump_id, None))
            .collect();
        let mut writer = Self {
            archive: Archive {
                header,
                entries: archive.entries.clone(),
            },
            out: Counted {
                inner: BufWriter::with_capacity(BUFFER_BYTES, out),
                offset: 0,
            },
            toc_offset: 0,
            toc_bytes: 0,
            deflate,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            blocks,
            open: None,
            in_stream: false,
            failed: false,
        };
        let header = &writer.archive.header;
        header.write(&mut Sink::new(
            &mut writer.out,
            header.int_size,
            header.off_size,
        ))?;
        writer.toc_offset = writer.out.offset;
        writer.write_toc()?;
        writer.toc_bytes = writer.out.offset - writer.toc_offset;
        Ok(writer)
    }

    /// Begins the data of a `TABLE DATA` entry (or any other entry with data that is no `BLOBS`).
    ///
    /// Entries are best written in the archive's order, which `pg_restore` reads fastest.
    /// The data of a table ends with [`TABLE_DATA_END`](super::TABLE_DATA_END).
    ///
    /// # Errors
    /// [`ArchiveError::Unwritable`] if the entry has no data, has it already, or another entry's
    /// data is not finished; [`ArchiveError::Write`].
    pub fn data(&mut self, dump_id: DumpId) -> Result<DataWriter<'_, W>, ArchiveError> {
        self.begin(dump_id, BLOCK_DATA)?;
        self.in_stream = true;
        Ok(DataWriter {
            writer: self,
            is_blob: false,
        })
    }

    /// Writes an entry's data from a reader. Returns its length in bytes.
    ///
    /// # Errors
    /// As [`CustomWriter::data`], and [`ArchiveError::Read`] if reading fails.
    pub fn copy_data(
        &mut self,
        dump_id: DumpId,
        from: &mut impl Read,
    ) -> Result<u64, ArchiveError> {
        let mut data = self.data(dump_id)?;
        let count = data.copy(from)?;
        data.finish()?;
        Ok(count)
    }

    /// Begins the large objects of a `BLOBS` entry.
    ///
    /// # Errors
    /// As [`CustomWriter::data`].
    pub fn blobs(&mut self, dump_id: DumpId) -> Result<BlobsWriter<'_, W>, ArchiveError> {
        self.begin(dump_id, BLOCK_BLOBS)?;
        Ok(BlobsWriter { writer: self })
    }

    /// Fills in the offsets, flushes, and gives the output back, at its end. Making it durable is
    /// the caller's.
    ///
    /// # Errors
    /// [`ArchiveError::MissingData`] if an entry's data was not written,
    /// [`ArchiveError::Unwritable`] if one was not finished; [`ArchiveError::Write`].
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.check_closed()?;
        self.check_stream_closed()?;
        for entry in self.archive.data_entries() {
            if !matches!(self.blocks.get(&entry.dump_id), Some(Some(_))) {
                let description = entry.describe();
                return Err(ArchiveError::MissingData {
                    dump_id: entry.dump_id,
                    description,
                });
            }
        }
        let end = self.out.offset;
        self.seek(self.toc_offset)?;
        self.write_toc()?;
        if self.out.offset != self.toc_offset + self.toc_bytes {
            let what = "the table of contents has changed its size".to_owned();
            return Err(ArchiveError::Unwritable { what });
        }
        self.seek(end)?;
        let offset = self.out.offset;
        let out = self.out.inner.into_inner();
        out.map_err(|error| ArchiveError::Write {
            offset,
            source: error.into_error(),
        })
    }

    fn seek(&mut self, offset: u64) -> Result<(), ArchiveError> {
        let seek = self.out.inner.seek(SeekFrom::Start(offset));
        seek.map_err(|source| ArchiveError::Write {
            offset: self.out.offset,
            source,
        })?;
        self.out.offset = offset;
        Ok(())
    }

    fn write_toc(&mut self) -> Result<(), ArchiveError> {
        let header = &self.archive.header;
        let mut sink = Sink::new(&mut self.out, header.int_size, header.off_size);
        write_entries(&mut sink, header, &self.archive.entries, |entry| {
            Ok(match self.blocks.get(&entry.dump_id) {
                None => DataRef::None,
                Some(None) => DataRef::Unplaced,
                Some(Some(offset)) => DataRef::At(*offset),
            })
        })
    }

    fn check_closed(&self) -> Result<(), ArchiveError> {
        match self.open {
            None => Ok(()),
            Some(dump_id) => {
                let what = format!("the data of entry {dump_id} was not finished");
                Err(ArchiveError::Unwritable { what })
            }
        }
    }

    fn check_stream_closed(&self) -> Result<(), ArchiveError> {
        let what = match (self.failed, self.in_stream) {
            (false, false) => return Ok(()),
            (true, _) => "writing has failed before",
            (false, true) => "a table's or a large object's data was not finished",
        };
        Err(ArchiveError::Unwritable { what: what.into() })
    }

    fn begin(&mut self, dump_id: DumpId, block_type: u8) -> Result<(), ArchiveError> {
        self.check_closed()?;
        let entry = self.archive.entry(dump_id);
        let fits = entry.is_some_and(|entry| entry.is("BLOBS") == (block_type == BLOCK_BLOBS));
        let offset = self.out.offset;
        match self.blocks.get_mut(&dump_id) {
            Some(block @ None) if fits => *block = Some(offset),
            _ => {
                let what = format!("entry {dump_id} does not take this data, or has it already");
                return Err(ArchiveError::Unwritable { what });
            }
        }
        self.open = Some(dump_id);
        self.write(&[block_type])?;
        self.write_int(dump_id)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let offset = self.out.offset;
        let written = self.out.write_all(bytes);
        self.failed |= written.is_err();
        written.map_err(|source| ArchiveError::Write { offset, source })
    }

    fn write_int(&mut self, value: i32) -> Result<(), ArchiveError> {
        let mut field = [0; 33];
        let size = encode_int(value, self.archive.header.int_size, &mut field);
        let size = size.ok_or_else(|| ArchiveError::Unwritable {
            what: format!("{value} does not fit"),
        })?;
        self.write(&field[..size])
    }

    fn write_chunk(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        // A chunk of no bytes would end the stream.
        if bytes.is_empty() {
            return Ok(());
        }
        let length = i32::try_from(bytes.len()).map_err(|_| ArchiveError::Unwritable {
            what: "a chunk is too long".into(),
        })?;
        self.write_int(length)?;
        self.write(bytes)
    }

    fn flush_buffer(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write_chunk(&buffer);
        buffer.clear();
        self.buffer = buffer;
        written
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if self.deflate.is_some() {
            return self.compress(bytes, FlushCompress::None);
        }
        let mut rest = bytes;
        if !self.buffer.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(CHUNK_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(head);
            rest = tail;
            if self.buffer.len() == CHUNK_BYTES {
                self.flush_buffer()?;
            }
        }
        let mut chunks = rest.chunks_exact(CHUNK_BYTES);
        for chunk in &mut chunks {
            self.write_chunk(chunk)?;
        }
        self.buffer.extend_from_slice(chunks.remainder());
        Ok(())
    }

    fn compress(&mut self, bytes: &[u8], flush: FlushCompress) -> Result<(), ArchiveError> {
        let mut rest = bytes;
        loop {
            let Some(deflate) = &mut self.deflate else {
                return Ok(());
            };
            let before = deflate.total_in();
            let status = deflate
                .compress_vec(rest, &mut self.buffer, flush)
                .map_err(|error| ArchiveError::Unwritable {
                    what: format!("gzip failed: {error}"),
                })?;
            let consumed = usize::try_from(deflate.total_in() - before).unwrap_or(0);
            rest = rest.get(consumed..).unwrap_or_default();
            if self.buffer.len() == self.buffer.capacity() {
                self.flush_buffer()?;
            } else if status == Status::StreamEnd
                || (flush == FlushCompress::None && rest.is_empty())
            {
                return Ok(());
            }
        }
    }

    /// Ends a stream: what is buffered, then the terminator.
    fn end_stream(&mut self) -> Result<(), ArchiveError> {
        self.compress(&[], FlushCompress::Finish)?;
        if let Some(deflate) = &mut self.deflate {
            deflate.reset();
        }
        self.flush_buffer()?;
        self.write_int(0)
    }
}

impl<W: Write + Seek> DataWriter<'_, W> {
    /// Adds data.
    ///
    /// # Errors
    /// [`ArchiveError::Write`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.writer.push(bytes)
    }

    /// Adds all that a reader gives. Returns how many bytes that were.
    ///
    /// # Errors
    /// [`ArchiveError::Read`] (the offset counts from the reader's start), [`ArchiveError::Write`].
    pub fn copy(&mut self, from: &mut impl Read) -> Result<u64, ArchiveError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut total = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => {
                    self.push(&buffer[..count])?;
                    total += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ArchiveError::Read {
                        offset: total,
                        source,
                    });
                }
            }
        }
    }

    /// Ends the data.
    ///
    /// # Errors
    /// [`ArchiveError::Write`].
    pub fn finish(self) -> Result<(), ArchiveError> {
        self.writer.end_stream()?;
        self.writer.in_stream = false;
        if !self.is_blob {
            self.writer.open = None;
        }
        Ok(())
    }
}

impl<W: Write + Seek> Write for DataWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.push(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(ArchiveError::Write { source, .. }) => Err(source),
            Err(other) => Err(io::Error::other(other)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + Seek> BlobsWriter<'_, W> {
    /// Begins a large object. The one before must be finished.
    ///
    /// # Errors
    /// [`ArchiveError::Unwritable`] for OID 0, which means the end; [`ArchiveError::Write`].
    pub fn blob(&mut self, oid: u32) -> Result<DataWriter<'_, W>, ArchiveError> {
        if oid == 0 {
            let what = "a large object cannot have the OID 0".to_owned();
            return Err(ArchiveError::Unwritable { what });
        }
        self.writer.check_stream_closed()?;
        self.writer.write_int(oid.cast_signed())?;
        self.writer.in_stream = true;
        Ok(DataWriter {
            writer: self.writer,
            is_blob: true,
        })
    }

    /// Ends the large objects.
    ///
    /// # Errors
    /// [`ArchiveError::Unwritable`] if one was not finished; [`ArchiveError::Write`].
    pub fn finish(self) -> Result<(), ArchiveError> {
        self.writer.check_stream_closed()?;
        self.writer.write_int(0)?;
        self.writer.open = None;
        Ok(())
    }
}

/// Knows how far it has come, which asking the output for its position would flush.
struct Counted<W> {
    inner: W,
    offset: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.offset += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
