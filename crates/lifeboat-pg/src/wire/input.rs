//! The read buffer: frames the server's messages in place.
//!
//! Invariant: `start <= end <= bytes.len()`. Memory grows only with bytes that really arrived, never
//! with a length that a server merely claims.

use std::ops::Range;

use super::error::PgError;

/// Enough for many of the server's 8 KiB sends in one read; it still fits a core's second-level cache.
/// 1 MiB measured no better.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;

/// PostgreSQL never sends more: `MaxAllocSize` (src/include/utils/memutils.h) plus the framing.
const MAX_LONG_MESSAGE_BYTES: usize = 0x4000_0000;

/// libpq's limit for message types that have no business being long
/// (`VALID_LONG_MESSAGE_TYPE`, src/interfaces/libpq/fe-protocol3.c).
const MAX_SHORT_MESSAGE_BYTES: usize = 30_000;

/// An oversized buffer is given back after this many fills that did not need it. At once would be
/// wrong: a table of 2 MB rows would then pay for a new buffer with each row.
const FILLS_BEFORE_SHRINK: u32 = 64;

/// One framed message: its type, and where its body lies in the buffer.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub tag: u8,
    pub body: Range<usize>,
}

#[derive(Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    small_fills: u32,
}

impl Input {
    pub fn new() -> Input {
        Input {
            bytes: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            small_fills: 0,
        }
    }

    /// The bytes that have arrived and are not yet consumed.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    pub fn consume(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
    }

    /// Takes the next message off the buffer, if all of it is there.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, PgError> {
        let Some((tag, total)) = peek_frame(self.pending())? else {
            return Ok(None);
        };
        if self.end - self.start < total {
            return Ok(None);
        }
        let body = self.start + 5..self.start + total;
        self.start += total;
        Ok(Some(Frame { tag, body }))
    }

    /// Makes room and lends the free part for a read; `filled` must follow. Positions handed out
    /// before are void afterwards.
    pub fn space(&mut self) -> &mut [u8] {
        let pending = self.end - self.start;
        if pending == 0 {
            self.start = 0;
            self.end = 0;
        } else if self.start > 0 && self.bytes.len() - self.end < self.bytes.len() / 4 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = pending;
        }
        if self.bytes.len() > BUFFER_BYTES && pending < BUFFER_BYTES {
            self.small_fills += 1;
            if self.small_fills >= FILLS_BEFORE_SHRINK {
                let mut smaller = vec![0; BUFFER_BYTES];
                smaller[..pending].copy_from_slice(&self.bytes[self.start..self.end]);
                self.bytes = smaller;
                self.start = 0;
                self.end = pending;
                self.small_fills = 0;
            }
        } else {
            self.small_fills = 0;
        }
        if self.end == self.bytes.len() {
            // One message fills the buffer: double it.
            let wider = (self.bytes.len() * 2).min(MAX_LONG_MESSAGE_BYTES + BUFFER_BYTES);
            self.bytes.resize(wider, 0);
        }
        &mut self.bytes[self.end..]
    }

    pub fn filled(&mut self, length: usize) {
        self.end = (self.end + length).min(self.bytes.len());
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

/// Reads a message's type and whole length (type byte included) from its first five bytes.
#[inline]
pub(crate) fn peek_frame(bytes: &[u8]) -> Result<Option<(u8, usize)>, PgError> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let limit = match tag {
        b'd' | b'D' | b'T' | b'V' | b'E' | b'N' | b'A' => MAX_LONG_MESSAGE_BYTES,
        _ => MAX_SHORT_MESSAGE_BYTES,
    };
    if !(4..=limit).contains(&length) {
        return Err(PgError::protocol(format!(
            "message type 0x{tag:02x} claims a length of {length} bytes"
        )));
    }
    Ok(Some((tag, length + 1)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn feed(input: &mut Input, mut data: &[u8]) {
        while !data.is_empty() {
            let space = input.space();
            let n = space.len().min(data.len());
            space[..n].copy_from_slice(&data[..n]);
            input.filled(n);
            data = &data[n..];
        }
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn frames_come_out_whole_whatever_the_reads() {
        let mut input = Input::new();
        let bytes = [
            message(b'd', b"one"),
            message(b'd', b""),
            message(b'Z', b"I"),
        ]
        .concat();
        let mut seen = Vec::new();
        for byte in &bytes {
            feed(&mut input, &[*byte]);
            while let Some(frame) = input.next_frame().unwrap() {
                seen.push((frame.tag, input.slice(frame.body).to_vec()));
            }
        }
        assert_eq!(
            seen,
            [
                (b'd', b"one".to_vec()),
                (b'd', vec![]),
                (b'Z', b"I".to_vec())
            ]
        );
    }

    #[test]
    fn a_long_row_widens_the_buffer_and_short_ones_give_it_back() {
        let mut input = Input::new();
        feed(&mut input, &message(b'd', &vec![7; 5 * BUFFER_BYTES]));
        let frame = input.next_frame().unwrap().unwrap();
        assert_eq!(frame.body.len(), 5 * BUFFER_BYTES);
        assert!(input.capacity() > 5 * BUFFER_BYTES);
        for _ in 0..=FILLS_BEFORE_SHRINK {
            feed(&mut input, &message(b'd', b"short"));
            let frame = input.next_frame().unwrap().unwrap();
            assert_eq!(input.slice(frame.body), b"short");
        }
        assert_eq!(input.capacity(), BUFFER_BYTES);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for head in [
            *b"d\0\0\0\x03",
            *b"d\xff\xff\xff\xff",
            *b"Z\0\x01\0\0",
            *b"H\x7f\0\0\0",
        ] {
            let mut input = Input::new();
            feed(&mut input, &head);
            assert!(
                matches!(input.next_frame(), Err(PgError::Protocol(_))),
                "{head:?}"
            );
        }
    }
}
