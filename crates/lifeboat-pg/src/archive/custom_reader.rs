//! Reads a custom-format archive from its first byte to its last, without seeking.
//!
//! [`CustomReader::spans`] tells where each entry's data is; with that, several
//! [`EntryReader`](super::EntryReader)s can read one file side by side.
//!
//! Format: PostgreSQL's `pg_backup_custom.c`. After the table of contents comes one block for each
//! entry with data: a type byte, the entry's number, then for rows one stream, for large objects
//! an OID and a stream each, ended by OID zero.

use std::collections::HashMap;
use std::io::{self, Read};

use super::Archive;
use super::codec::Codec;
use super::error::ArchiveError;
use super::header::ArchiveFormat;
use super::input::Input;
use super::io::Source;
use super::toc::{DataRef, DumpId, TocEntry, read_entries};

/// Block types, `BLK_*` in `pg_backup_archiver.h`.
pub(super) const BLOCK_DATA: u8 = 1;
pub(super) const BLOCK_BLOBS: u8 = 3;

/// A custom-format archive that is being read.
pub struct CustomReader<R> {
    archive: Archive,
    input: Input<R>,
    codec: Codec,
    /// Each entry with data: its place in the table of contents, and its block's offset once seen.
    blocks: HashMap<DumpId, (usize, Option<u64>)>,
    unseen: usize,
    in_blobs: bool,
    toc_repeated: bool,
    finished: bool,
}

/// One entry's data.
pub enum Block<'a, R> {
    /// Rows, or whatever else the entry dumps.
    Data(DumpId, DataStream<'a, R>),
    /// Large objects.
    Blobs(BlobStreams<'a, R>),
}

/// The large objects of one `BLOBS` entry.
pub struct BlobStreams<'a, R> {
    dump_id: DumpId,
    reader: &'a mut CustomReader<R>,
}

/// The decompressed bytes of a table or of a large object.
///
/// Its end is only reported when the stream was found whole: all its chunks there, and its
/// compressed form complete.
pub struct DataStream<'a, R> {
    pub(super) input: &'a mut Input<R>,
    pub(super) codec: &'a mut Codec,
}

/// Where one entry's data is in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSpan {
    /// The entry's number.
    pub dump_id: DumpId,
    /// Its block's first byte.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
}

impl<R: Read> CustomReader<R> {
    /// Reads the header and the table of contents.
    ///
    /// The input is buffered here and needs no buffer of its own.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`]. A `toc.dat` is [`ArchiveError::Damaged`]
    /// here: it holds no data.
    pub fn new(input: R) -> Result<Self, ArchiveError> {
        let mut input = Input::new(input);
        let archive = Archive::read_toc(&mut input)?;
        input.set_int_size(archive.header.int_size);
        if archive.header.format != ArchiveFormat::Custom {
            return Err(input.damaged("the table of contents of a directory dump, without data"));
        }
        let codec = Codec::new(archive.header.compression)?;
        let with_data = archive
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.has_data());
        let blocks: HashMap<_, _> = with_data
            .map(|(place, entry)| (entry.dump_id, (place, None)))
            .collect();
        Ok(Self {
            unseen: blocks.len(),
            archive,
            input,
            codec,
            blocks,
            in_blobs: false,
            toc_repeated: false,
            finished: false,
        })
    }

    /// The header and the table of contents.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// How many bytes of the archive were read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Whether the table of contents stands at the end a second time.
    ///
    /// pg_dump writes it again to fill in where the data is, and when its output was redirected
    /// with `>` (16 and newer) or `>>`, the file was opened for appending, and there it lands.
    /// Such an archive is sound; `pg_restore` searches the blocks in it.
    #[must_use]
    pub fn toc_repeated(&self) -> bool {
        self.toc_repeated
    }

    /// The next block, or `None` at the end of a complete archive: every entry with data has had
    /// its block, and nothing is left over.
    ///
    /// What the caller has not read of the last block is skipped without being decompressed.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`]. After one, the reader is of no more use.
    pub fn next_block(&mut self) -> Result<Option<Block<'_, R>>, ArchiveError> {
        self.skip_rest()?;
        if self.finished {
            return Ok(None);
        }
        let offset = self.input.offset();
        if self.unseen == 0 {
            self.check_nothing_follows()?;
            self.finished = true;
            return Ok(None);
        }
        self.input.part = "the data".into();
        let Some(block_type) = self.input.byte()? else {
            return Err(self.first_missing());
        };
        if !matches!(block_type, BLOCK_DATA | BLOCK_BLOBS) {
            return Err(self
                .input
                .damaged(format!("a data block of the unknown type {block_type}")));
        }
        let dump_id = self.input.int()?;
        let is_blobs = self.enter(dump_id, block_type, offset)?;
        if is_blobs {
            self.in_blobs = true;
            return Ok(Some(Block::Blobs(BlobStreams {
                dump_id,
                reader: self,
            })));
        }
        Ok(Some(Block::Data(dump_id, self.stream()?)))
    }

    /// Goes through the archive to its last byte without decompressing anything: where each entry's data is, in
    /// the order of the file.
    ///
    /// Proves that no block is missing and every chunk is there; what the chunks hold is not looked at.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`].
    pub fn spans(&mut self) -> Result<Vec<BlockSpan>, ArchiveError> {
        let mut spans: Vec<BlockSpan> = Vec::new();
        loop {
            self.skip_rest()?;
            let end = self.input.offset();
            if let Some(last) = spans.last_mut() {
                last.end = end;
            }
            let dump_id = match self.next_block()? {
                None => return Ok(spans),
                Some(Block::Data(dump_id, _)) => dump_id,
                Some(Block::Blobs(blobs)) => blobs.dump_id(),
            };
            spans.push(BlockSpan {
                dump_id,
                start: end,
                end,
            });
        }
    }

    /// Checks a block's heading against the table of contents. True for large objects.
    fn enter(
        &mut self,
        dump_id: DumpId,
        block_type: u8,
        offset: u64,
    ) -> Result<bool, ArchiveError> {
        let Some((place, seen)) = self.blocks.get_mut(&dump_id) else {
            let what = format!("a data block for {dump_id}, which is no entry with data");
            return Err(self.input.damaged(what));
        };
        let first = seen.replace(offset).is_none();
        let Some(entry) = self.archive.entries.get(*place) else {
            return Err(self.input.damaged("an entry that is not there"));
        };
        let name = entry.describe();
        let is_blobs = entry.is("BLOBS");
        self.input.part = format!("the data of {name}");
        if !first {
            return Err(self
                .input
                .damaged(format!("a second data block for {name}")));
        }
        if is_blobs != (block_type == BLOCK_BLOBS) {
            let what = format!("a data block of type {block_type} for {name}");
            return Err(self.input.damaged(what));
        }
        if let DataRef::At(promised) = entry.data
            && promised != offset
        {
            let what = format!(
                "the data of {name} begins at byte {offset}, not at {promised} as the table of \
                 contents says"
            );
            return Err(self.input.damaged(what));
        }
        self.unseen -= 1;
        Ok(is_blobs)
    }

    fn stream(&mut self) -> Result<DataStream<'_, R>, ArchiveError> {
        self.codec.reset()?;
        self.input.begin_stream();
        Ok(DataStream {
            input: &mut self.input,
            codec: &mut self.codec,
        })
    }

    fn skip_rest(&mut self) -> Result<(), ArchiveError> {
        self.skip_stream()?;
        while self.in_blobs {
            let mut blobs = BlobStreams {
                dump_id: 0,
                reader: self,
            };
            blobs.next_blob()?;
            self.skip_stream()?;
        }
        Ok(())
    }

    fn skip_stream(&mut self) -> Result<(), ArchiveError> {
        while self.input.in_stream() {
            let count = self.input.stream_bytes()?.len();
            self.input.advance(count);
        }
        Ok(())
    }

    fn first_missing(&self) -> ArchiveError {
        let unseen = |entry: &&TocEntry| matches!(self.blocks.get(&entry.dump_id), Some((_, None)));
        match self.archive.entries.iter().find(unseen) {
            Some(entry) => ArchiveError::MissingData {
                dump_id: entry.dump_id,
                description: entry.describe(),
            },
            None => self.input.truncated(),
        }
    }

    /// After the last block comes the end, or the table of contents again.
    fn check_nothing_follows(&mut self) -> Result<(), ArchiveError> {
        let offset = self.input.offset();
        if self.input.peek()?.is_none() {
            return Ok(());
        }
        let header = &self.archive.header;
        let mut source = Source::new(&mut self.input);
        (source.int_size, source.off_size) = (header.int_size, header.off_size);
        let copy = read_entries(&mut source, header.version, header.format);
        let same = |(copy, entry): (&TocEntry, &TocEntry)| {
            let data = match self.blocks.get(&entry.dump_id) {
                Some((_, Some(offset))) => DataRef::At(*offset),
                _ => entry.data.clone(),
            };
            *copy
                == TocEntry {
                    data,
                    ..entry.clone()
                }
        };
        let repeated = copy.is_ok_and(|copy| {
            copy.len() == self.archive.entries.len()
                && copy.iter().zip(&self.archive.entries).all(same)
        });
        if repeated && self.input.peek()?.is_none() {
            self.toc_repeated = true;
            return Ok(());
        }
        Err(ArchiveError::Damaged {
            offset,
            what: "more bytes follow the last data block".into(),
        })
    }
}

impl<R: Read> BlobStreams<'_, R> {
    /// The number of the `BLOBS` entry.
    #[must_use]
    pub fn dump_id(&self) -> DumpId {
        self.dump_id
    }

    /// The next large object: its OID and its content.
    ///
    /// What the caller has not read of the last one is skipped without being decompressed.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`].
    pub fn next_blob(&mut self) -> Result<Option<(u32, DataStream<'_, R>)>, ArchiveError> {
        self.reader.skip_stream()?;
        if !self.reader.in_blobs {
            return Ok(None);
        }
        // OIDs are unsigned, but pg_dump writes them as if they had a sign.
        let oid = self.reader.input.int()?.cast_unsigned();
        if oid == 0 {
            self.reader.in_blobs = false;
            return Ok(None);
        }
        Ok(Some((oid, self.reader.stream()?)))
    }
}

impl<R: Read> DataStream<'_, R> {
    /// The next bytes, as many as are at hand; `None` at the end, if the stream was whole.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`].
    pub fn next_slice(&mut self) -> Result<Option<&[u8]>, ArchiveError> {
        let bytes = self.codec.next(self.input)?;
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// How many bytes of the archive were read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }
}

/// Errors are [`ArchiveError`]s inside [`io::Error::other`], except those of reading, which are
/// passed on as they came.
impl<R: Read> Read for DataStream<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.codec
            .read(self.input, out)
            .map_err(|error| match error {
                ArchiveError::Read { source, .. } => source,
                other => io::Error::other(other),
            })
    }
}
