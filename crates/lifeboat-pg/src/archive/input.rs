//! The bytes of a custom-format archive, through one large buffer.
//!
//! Format of data: `_PrintData` and `_CustomReadFunc` in PostgreSQL's `pg_backup_custom.c`. A
//! stream (a table's rows, or one large object) is a run of chunks, each an integer length and so
//! many bytes; a length of zero ends it. Without compression pg_dump makes a chunk of every row,
//! so chunks are handed out from the buffer, not one read each.

use std::io::{ErrorKind, Read};

use super::error::ArchiveError;
use super::io::decode_int;

const BUFFER_BYTES: usize = 512 * 1024;

pub(super) struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Offset in the archive of `buffer[start]`.
    offset: u64,
    int_size: u8,
    /// Where the current stream is.
    stream: Stream,
    pub(super) part: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// Outside a stream, or after its end.
    Ended,
    /// Inside one; so many bytes of the current chunk are still to come.
    Inside(u64),
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
            int_size: 4,
            stream: Stream::Ended,
            part: "the header".into(),
        }
    }

    /// Says that the source stands at this offset of the archive, not at its beginning.
    pub(super) fn restart_at(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Goes on with another source, which stands at this offset of the archive. The buffer stays.
    pub(super) fn restart(&mut self, inner: R, offset: u64) {
        self.inner = inner;
        self.offset = offset;
        (self.start, self.end) = (0, 0);
        self.stream = Stream::Ended;
    }

    pub(super) fn set_int_size(&mut self, int_size: u8) {
        self.int_size = int_size;
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> ArchiveError {
        ArchiveError::Damaged {
            offset: self.offset,
            what: what.into(),
        }
    }

    pub(super) fn truncated(&self) -> ArchiveError {
        let offset = self.offset + (self.end - self.start) as u64;
        ArchiveError::Truncated {
            offset,
            part: self.part.clone(),
        }
    }

    /// What is buffered; reads more if that is nothing. Empty at the end of the input.
    fn buffered(&mut self) -> Result<&[u8], ArchiveError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn read_more(&mut self) -> Result<usize, ArchiveError> {
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset + (self.end - self.start) as u64;
                    return Err(ArchiveError::Read { offset, source });
                }
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// The next byte without taking it; `None` at the end of the input.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, ArchiveError> {
        Ok(self.buffered()?.first().copied())
    }

    pub(super) fn byte(&mut self) -> Result<Option<u8>, ArchiveError> {
        let byte = self.peek()?;
        self.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    pub(super) fn int(&mut self) -> Result<i32, ArchiveError> {
        let size = usize::from(self.int_size) + 1;
        while self.end - self.start < size {
            if self.buffer.len() - self.start < size {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.read_more()? == 0 {
                return Err(self.truncated());
            }
        }
        let field = &self.buffer[self.start..self.start + size];
        // The one layout that exists in practice, without the general loop.
        let value = match *field {
            [0, a, b, c, d] => i32::try_from(u32::from_le_bytes([a, b, c, d])).ok(),
            _ => decode_int(field),
        };
        self.consume(size);
        value.ok_or_else(|| self.damaged("an integer field holds no integer"))
    }

    /// Begins a stream here.
    pub(super) fn begin_stream(&mut self) {
        self.stream = Stream::Inside(0);
    }

    /// Whether a stream was begun and not read to its end.
    pub(super) fn in_stream(&self) -> bool {
        self.stream != Stream::Ended
    }

    /// The next bytes of the stream, at least one; nothing at its end. What was looked at must be
    /// taken with [`Input::advance`].
    pub(super) fn stream_bytes(&mut self) -> Result<&[u8], ArchiveError> {
        let left = match self.stream {
            Stream::Ended => return Ok(&[]),
            Stream::Inside(0) => {
                let length = self.int()?;
                let Ok(length) = u64::try_from(length) else {
                    return Err(self.damaged(format!("a chunk of {length} bytes")));
                };
                if length == 0 {
                    self.stream = Stream::Ended;
                    return Ok(&[]);
                }
                self.stream = Stream::Inside(length);
                length
            }
            Stream::Inside(left) => left,
        };
        if self.buffered()?.is_empty() {
            return Err(self.truncated());
        }
        let buffered = &self.buffer[self.start..self.end];
        let count = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffered.len());
        Ok(&buffered[..count])
    }

    /// Takes bytes that [`Input::stream_bytes`] has shown.
    pub(super) fn advance(&mut self, count: usize) {
        if let Stream::Inside(left) = &mut self.stream {
            *left -= count as u64;
            self.consume(count);
        }
    }
}

/// For what is not a stream: header and table of contents.
impl<R: Read> Read for Input<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let buffered = match self.buffered() {
            Ok(buffered) => buffered,
            Err(ArchiveError::Read { source, .. }) => return Err(source),
            Err(other) => return Err(std::io::Error::other(other)),
        };
        let count = buffered.len().min(out.len());
        out[..count].copy_from_slice(&buffered[..count]);
        self.consume(count);
        Ok(count)
    }
}
