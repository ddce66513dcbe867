//! Files as streams.

use super::{Reader, damaged_pack};
use crate::error::RepositoryError;
use crate::id::{BlobId, PackId};
use crate::pack::{BlobKind, BlobOpener, PackedBlob};
use std::collections::VecDeque;

/// The most that is fetched at once. More would only cost memory: at this size a request's latency is small
/// beside its transfer, on disks and on object stores alike.
const SPAN_BYTES: u64 = 4 << 20;
/// Bytes between two wanted blobs that are rather fetched and dropped than skipped with a second request.
const GAP_BYTES: u32 = 64 << 10;

/// Reads a file, or a part of it, in order. Also a [`std::io::Read`]; [`FileReader::next_chunk`] copies less.
pub struct FileReader {
    reader: Reader,
    chunks: Vec<BlobId>,
    /// The first of `chunks` that was not opened yet.
    next: usize,
    opener: BlobOpener,
    /// What `opener` holds.
    opened: Option<BlobId>,
    span: Span,
    /// Bytes to leave out before the first that is wanted.
    skip: u64,
    /// Bytes still wanted.
    remaining: u64,
    /// For `Read`: how much of the present chunk was taken, and where what is wanted of it ends.
    taken: (usize, usize),
}

/// Sealed blobs that were fetched together.
#[derive(Default)]
struct Span {
    pack: Option<PackId>,
    start: u32,
    bytes: Vec<u8>,
    blobs: VecDeque<PackedBlob>,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader")
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

impl FileReader {
    pub(super) fn new(
        reader: Reader,
        chunks: Vec<BlobId>,
        skip: u64,
        remaining: u64,
    ) -> Result<Self, RepositoryError> {
        Ok(Self {
            opener: reader.opener()?,
            reader,
            chunks,
            next: 0,
            opened: None,
            span: Span::default(),
            skip,
            remaining,
            taken: (0, 0),
        })
    }

    /// The next piece, never empty; `None` at the end.
    ///
    /// # Errors
    /// `MissingBlob`, `Damaged` with the pack, or what the storage says. The reader is of no use then.
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>, RepositoryError> {
        let (start, end) = self.advance()?;
        self.taken = (end, end);
        Ok((start < end).then(|| &self.opener.plain()[start..end]))
    }

    /// Opens chunks until there is one with bytes that are wanted; says which of its bytes.
    fn advance(&mut self) -> Result<(usize, usize), RepositoryError> {
        while self.remaining > 0 {
            let Some(&id) = self.chunks.get(self.next) else {
                break;
            };
            self.next += 1;
            // A run of equal chunks, such as the zeros of a sparse file, is opened once.
            if self.opened != Some(id) {
                self.opened = None;
                self.open(&id)?;
                self.opened = Some(id);
            }
            let length = self.opener.plain().len();
            let start = usize::try_from(self.skip).map_or(length, |skip| skip.min(length));
            self.skip -= start as u64;
            let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX);
            let end = start.saturating_add(wanted).min(length);
            if start < end {
                self.remaining -= (end - start) as u64;
                return Ok((start, end));
            }
        }
        Ok((0, 0))
    }

    fn open(&mut self, id: &BlobId) -> Result<(), RepositoryError> {
        if self.span.blobs.front().is_none_or(|blob| blob.id != *id) {
            let pack = self.reader.locate(BlobKind::Data, id)?.pack;
            if let Err(error) = self.fetch(id) {
                return self.open_elsewhere(id, &pack, error);
            }
        }
        let Span {
            pack: Some(pack),
            start,
            bytes,
            blobs,
        } = &mut self.span
        else {
            return Err(RepositoryError::MissingBlob {
                kind: BlobKind::Data,
                id: *id,
            });
        };
        let Some(blob) = blobs.pop_front() else {
            return Err(RepositoryError::MissingBlob {
                kind: BlobKind::Data,
                id: *id,
            });
        };
        let at = (blob.offset - *start) as usize;
        let sealed = bytes
            .get_mut(at..at + blob.length as usize)
            .unwrap_or_default();
        if let Err(error) = self.opener.open(&blob, sealed) {
            let pack = *pack;
            return self.open_elsewhere(id, &pack, damaged_pack(&pack, error));
        }
        Ok(())
    }

    /// Tries the packs beside `pack`; if there is no good one, `error` is what went wrong.
    fn open_elsewhere(
        &mut self,
        id: &BlobId,
        pack: &PackId,
        error: RepositoryError,
    ) -> Result<(), RepositoryError> {
        self.reader
            .load(BlobKind::Data, id, Some(pack), &mut self.opener)
            .map_err(|_| error)
    }

    /// Fetches the chunk `id`, and with it those that follow in the file and in its pack alike.
    fn fetch(&mut self, id: &BlobId) -> Result<(), RepositoryError> {
        let first = self.reader.locate(BlobKind::Data, id)?;
        let start = first.blob.offset;
        let mut end = start.saturating_add(first.blob.length);
        self.span.blobs.clear();
        self.span.blobs.push_back(first.blob);
        let index = self.reader.index();
        for id in &self.chunks[self.next..] {
            let next = index
                .locations(BlobKind::Data, id)
                .find(|place| place.pack == first.pack);
            let Some(blob) = next.map(|next| next.blob) else {
                break;
            };
            let next_end = blob.offset.saturating_add(blob.length);
            let is_near = blob.offset >= end && blob.offset - end <= GAP_BYTES;
            if !is_near || u64::from(next_end - start) > SPAN_BYTES {
                break;
            }
            self.span.blobs.push_back(blob);
            end = next_end;
        }
        self.span.pack = Some(first.pack);
        self.span.start = start;
        match self.reader.read_pack(&first.pack, start.into()..end.into()) {
            Ok(bytes) => self.span.bytes = bytes,
            Err(error) => {
                self.span.blobs.clear();
                return Err(error);
            }
        }
        Ok(())
    }
}

impl std::io::Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.taken.0 == self.taken.1 {
            self.taken = self.advance().map_err(std::io::Error::other)?;
        }
        let (start, end) = self.taken;
        let count = buffer.len().min(end - start);
        buffer[..count].copy_from_slice(&self.opener.plain()[start..start + count]);
        self.taken.0 += count;
        Ok(count)
    }
}
