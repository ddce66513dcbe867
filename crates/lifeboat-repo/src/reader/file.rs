//! Files as streams.

use super::ahead::Fetch;
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
    /// Spans that were asked for before they are wanted, in the file's order.
    ahead: VecDeque<Ahead>,
    /// How many of them there may be. Each takes [`SPAN_BYTES`] of memory at most.
    most_ahead: usize,
    /// The first of `chunks` that is in no span yet.
    planned: usize,
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

/// A span that was asked for.
struct Ahead {
    /// The place of its first blob among the file's chunks.
    at: usize,
    span: Span,
    /// Where the span ends in the pack.
    end: u32,
    fetch: Fetch,
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
            // One is read when it is wanted, by whoever wants it.
            most_ahead: reader.requests_at_once().saturating_sub(1),
            reader,
            chunks,
            next: 0,
            opened: None,
            span: Span::default(),
            ahead: VecDeque::new(),
            planned: 0,
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
        let at = self.next - 1;
        // What was passed over (a run of equal chunks) is not wanted any more.
        while self.ahead.front().is_some_and(|ahead| ahead.at < at) {
            self.ahead.pop_front();
        }
        self.span = Span::default();
        let fetched = match self.ahead.pop_front() {
            Some(ahead) if ahead.at == at => {
                self.ask_ahead();
                let Ahead {
                    span, end, fetch, ..
                } = ahead;
                match fetch.wait() {
                    Some(bytes) => Some((span, bytes?)),
                    None => Some(self.read_now(span, end)?),
                }
            }
            _ => None,
        };
        let (mut span, bytes) = match fetched {
            Some(fetched) => fetched,
            None => {
                self.ahead.clear();
                let (span, end, next) = self.plan(at, id)?;
                self.planned = next;
                self.ask_ahead();
                self.read_now(span, end)?
            }
        };
        span.bytes = bytes;
        self.span = span;
        Ok(())
    }

    fn read_now(&self, span: Span, end: u32) -> Result<(Span, Vec<u8>), RepositoryError> {
        let bytes = match &span.pack {
            Some(pack) => self.reader.read_pack(pack, span.start.into()..end.into())?,
            None => Vec::new(),
        };
        Ok((span, bytes))
    }

    /// The blobs that are best fetched together, from the file's chunk number `at` on: as a span without its
    /// bytes, where it ends in the pack, and the number of the first chunk behind it.
    fn plan(&self, at: usize, id: &BlobId) -> Result<(Span, u32, usize), RepositoryError> {
        let first = self.reader.locate(BlobKind::Data, id)?;
        let start = first.blob.offset;
        let mut end = start.saturating_add(first.blob.length);
        let mut blobs = VecDeque::from([first.blob]);
        let mut next = at + 1;
        let index = self.reader.index();
        for id in &self.chunks[next..] {
            let place = index
                .locations(BlobKind::Data, id)
                .find(|place| place.pack == first.pack);
            let Some(blob) = place.map(|place| place.blob) else {
                break;
            };
            let blob_end = blob.offset.saturating_add(blob.length);
            let is_near = blob.offset >= end && blob.offset - end <= GAP_BYTES;
            if !is_near || u64::from(blob_end - start) > SPAN_BYTES {
                break;
            }
            blobs.push_back(blob);
            end = blob_end;
            next += 1;
        }
        let span = Span {
            pack: Some(first.pack),
            start,
            bytes: Vec::new(),
            blobs,
        };
        Ok((span, end, next))
    }

    /// Asks for spans until as many are under way as may be. Whatever can't be asked for is met again, and told,
    /// when it is wanted.
    fn ask_ahead(&mut self) {
        while self.ahead.len() < self.most_ahead {
            let at = self.planned;
            let Some(id) = self.chunks.get(at).copied() else {
                return;
            };
            if at > 0 && self.chunks[at - 1] == id {
                // A run of equal chunks is opened once.
                self.planned += 1;
                continue;
            }
            let Ok((span, end, next)) = self.plan(at, &id) else {
                return;
            };
            let Some(fetch) = span
                .pack
                .and_then(|pack| self.reader.fetch_ahead(pack, span.start.into()..end.into()))
            else {
                return;
            };
            self.planned = next;
            self.ahead.push_back(Ahead {
                at,
                span,
                end,
                fetch,
            });
        }
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
