//! LZ4 frames, decoded strictly.
//!
//! Written here, over `lz4_flex`'s block decoder, because its frame decoder takes a frame without
//! an end mark for a whole one, and a truncated dump must not pass. Format: the LZ4 frame
//! description (version 1.6), as far as liblz4 writes it: no dictionary.

use std::io::{self, BufRead, Read};

use lz4_flex::block::decompress_into_with_dict;
use xxhash_rust::xxh32::{Xxh32, xxh32};

const MAGIC: u32 = 0x184D_2204;
const WINDOW_BYTES: usize = 64 * 1024;

/// A decoder for one frame, fed piece by piece.
pub(super) struct Lz4Frame {
    state: State,
    /// The field or block that is being collected.
    pending: Vec<u8>,
    flags: u8,
    max_block_bytes: usize,
    content_size: Option<u64>,
    produced: u64,
    hash: Xxh32,
    /// What earlier blocks ended with, for blocks that refer to it.
    window: Vec<u8>,
    /// Bytes of the block that is being collected, as it is stored.
    stored_len: usize,
    block: Vec<u8>,
    /// Bytes of the decoded block in `block`.
    block_len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Magic, flags, block descriptor.
    Prefix,
    /// The rest of the header: optional sizes, then the checksum.
    Header,
    BlockSize,
    Block {
        compressed: bool,
    },
    ContentChecksum,
    Done,
}

/// What [`Lz4Frame::feed`] did.
pub(super) struct Fed {
    pub(super) consumed: usize,
    /// A block is ready in [`Lz4Frame::block`].
    pub(super) block: bool,
}

const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUM: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const RESERVED: u8 = 1 << 1;
const DICTIONARY: u8 = 1;

impl Lz4Frame {
    pub(super) fn new() -> Self {
        Self {
            state: State::Prefix,
            pending: Vec::new(),
            flags: 0,
            max_block_bytes: 0,
            content_size: None,
            produced: 0,
            hash: Xxh32::new(0),
            window: Vec::new(),
            stored_len: 0,
            block: Vec::new(),
            block_len: 0,
        }
    }

    /// Makes it ready for another frame and keeps its memory.
    pub(super) fn reset(&mut self) {
        self.state = State::Prefix;
        self.pending.clear();
        self.produced = 0;
        self.hash = Xxh32::new(0);
        self.window.clear();
        self.block_len = 0;
    }

    /// Whether the frame's end was reached and its checks passed.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The block that the last [`Lz4Frame::feed`] completed.
    pub(super) fn block(&self) -> &[u8] {
        &self.block[..self.block_len]
    }

    /// Takes input up to the end of the next field or block.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<Fed, String> {
        let mut consumed = 0;
        while self.state != State::Done {
            let missing = self.wanted() - self.pending.len();
            let piece = &input[consumed..input.len().min(consumed + missing)];
            self.pending.extend_from_slice(piece);
            consumed += piece.len();
            if piece.len() < missing {
                break;
            }
            let field = std::mem::take(&mut self.pending);
            let block = self.advance(&field)?;
            self.pending = field;
            self.pending.clear();
            if block {
                return Ok(Fed {
                    consumed,
                    block: true,
                });
            }
        }
        Ok(Fed {
            consumed,
            block: false,
        })
    }

    /// How many bytes the current field has.
    fn wanted(&self) -> usize {
        match self.state {
            State::Prefix => 6,
            State::Header if self.flags & CONTENT_SIZE != 0 => 9,
            State::Header => 1,
            State::BlockSize | State::ContentChecksum => 4,
            State::Block { .. } if self.flags & BLOCK_CHECKSUM != 0 => self.stored_len + 4,
            State::Block { .. } => self.stored_len,
            State::Done => 0,
        }
    }

    fn advance(&mut self, field: &[u8]) -> Result<bool, String> {
        match self.state {
            State::Prefix => self.prefix(field)?,
            State::Header => self.header(field)?,
            State::BlockSize => self.block_size(field)?,
            State::Block { compressed } => {
                self.decode_block(field, compressed)?;
                return Ok(true);
            }
            State::ContentChecksum => {
                if read_u32(field) != self.hash.digest() {
                    return Err("the LZ4 frame's checksum does not match".into());
                }
                self.state = State::Done;
            }
            State::Done => {}
        }
        Ok(false)
    }

    fn prefix(&mut self, field: &[u8]) -> Result<(), String> {
        let (flags, descriptor) = (field[4], field[5]);
        if read_u32(field) != MAGIC {
            return Err("no LZ4 frame".into());
        }
        if flags & VERSION_MASK != VERSION || flags & (RESERVED | DICTIONARY) != 0 {
            return Err("an LZ4 frame of an unknown kind".into());
        }
        self.max_block_bytes = match descriptor {
            0x40 => 64 * 1024,
            0x50 => 256 * 1024,
            0x60 => 1024 * 1024,
            0x70 => 4 * 1024 * 1024,
            _ => return Err("an LZ4 frame with an unknown block size".into()),
        };
        self.flags = flags;
        // Remembered for the header's checksum, which covers these two bytes as well.
        self.window.clear();
        self.window.extend_from_slice(&[flags, descriptor]);
        self.state = State::Header;
        Ok(())
    }

    fn header(&mut self, field: &[u8]) -> Result<(), String> {
        let (sizes, checksum) = field.split_at(field.len() - 1);
        self.window.extend_from_slice(sizes);
        let expected = (xxh32(&self.window, 0) >> 8) as u8;
        self.window.clear();
        if checksum != [expected] {
            return Err("the LZ4 frame header's checksum does not match".into());
        }
        self.content_size = <[u8; 8]>::try_from(sizes).ok().map(u64::from_le_bytes);
        self.state = State::BlockSize;
        Ok(())
    }

    fn block_size(&mut self, field: &[u8]) -> Result<(), String> {
        const UNCOMPRESSED: u32 = 1 << 31;
        let size = read_u32(field);
        if size == 0 {
            if self.content_size.is_some_and(|size| size != self.produced) {
                return Err("the LZ4 frame's content has the wrong size".into());
            }
            let checksum = self.flags & CONTENT_CHECKSUM != 0;
            self.state = if checksum {
                State::ContentChecksum
            } else {
                State::Done
            };
            return Ok(());
        }
        let length = usize::try_from(size & !UNCOMPRESSED).unwrap_or(usize::MAX);
        if length > self.max_block_bytes {
            return Err("an LZ4 block is larger than its frame allows".into());
        }
        self.stored_len = length;
        self.state = State::Block {
            compressed: size & UNCOMPRESSED == 0,
        };
        Ok(())
    }

    fn decode_block(&mut self, field: &[u8], compressed: bool) -> Result<(), String> {
        let (data, checksum) = field.split_at(self.stored_len);
        if !checksum.is_empty() && read_u32(checksum) != xxh32(data, 0) {
            return Err("an LZ4 block's checksum does not match".into());
        }
        if self.block.len() < self.max_block_bytes {
            self.block.resize(self.max_block_bytes, 0);
        }
        self.block_len = if compressed {
            decompress_into_with_dict(data, &mut self.block[..self.max_block_bytes], &self.window)
                .map_err(|error| format!("an LZ4 block cannot be decoded: {error}"))?
        } else {
            self.block[..data.len()].copy_from_slice(data);
            data.len()
        };
        self.produced += self.block_len as u64;
        let block = &self.block[..self.block_len];
        if self.flags & CONTENT_CHECKSUM != 0 {
            self.hash.update(block);
        }
        if self.flags & INDEPENDENT == 0 {
            let kept = WINDOW_BYTES
                .saturating_sub(block.len())
                .min(self.window.len());
            self.window.drain(..self.window.len() - kept);
            self.window
                .extend_from_slice(&block[block.len().saturating_sub(WINDOW_BYTES)..]);
        }
        self.state = State::BlockSize;
        Ok(())
    }
}

/// A file of LZ4 frames as a stream.
pub(crate) struct Lz4Reader<R> {
    inner: R,
    frame: Lz4Frame,
    /// What of the current block was read.
    read: usize,
    in_frame: bool,
}

impl<R: BufRead> Lz4Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            frame: Lz4Frame::new(),
            read: 0,
            in_frame: false,
        }
    }
}

impl<R: BufRead> Read for Lz4Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        // Between frames and inside headers there is no block.
        while !self.in_frame || self.read == self.frame.block().len() {
            let input = self.inner.fill_buf()?;
            if input.is_empty() && !self.in_frame {
                return Ok(0);
            }
            if input.is_empty() {
                let what = "the LZ4 frame ends too early";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            if !self.in_frame {
                self.frame.reset();
            }
            let fed = self.frame.feed(input);
            let fed = fed.map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))?;
            self.inner.consume(fed.consumed);
            self.in_frame = !self.frame.is_done();
            self.read = if fed.block {
                0
            } else {
                self.frame.block().len()
            };
        }
        let block = &self.frame.block()[self.read..];
        let count = block.len().min(out.len());
        out[..count].copy_from_slice(&block[..count]);
        self.read += count;
        Ok(count)
    }
}

fn read_u32(field: &[u8]) -> u32 {
    field
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::Lz4Frame;

    fn encode(content: &[u8], info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Feeds `frame` in pieces; the content if the frame is whole.
    fn decode(frame: &[u8], piece: usize) -> Result<Option<Vec<u8>>, String> {
        let mut decoder = Lz4Frame::new();
        let mut content = Vec::new();
        for piece in frame.chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() && !decoder.is_done() {
                let fed = decoder.feed(rest)?;
                rest = &rest[fed.consumed..];
                if fed.block {
                    content.extend_from_slice(decoder.block());
                }
            }
        }
        Ok(decoder.is_done().then_some(content))
    }

    fn content() -> Vec<u8> {
        let words =
            (0..20_000u32).map(|i| format!("{}\t{}\n", i % 977, i.wrapping_mul(2_654_435_761)));
        words.collect::<String>().into_bytes()
    }

    #[test]
    fn every_kind_of_frame_is_decoded_in_pieces_of_any_size() {
        let content = content();
        for mode in [BlockMode::Linked, BlockMode::Independent] {
            for size in [BlockSize::Max64KB, BlockSize::Max4MB] {
                for sums in [false, true] {
                    let info = FrameInfo::new()
                        .block_mode(mode)
                        .block_size(size)
                        .block_checksums(sums)
                        .content_checksum(sums);
                    let frame = encode(&content, info);
                    for piece in [1, 4096, usize::MAX] {
                        assert_eq!(decode(&frame, piece).unwrap().as_ref(), Some(&content));
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_not_whole() {
        let content = &content()[..3000];
        let frame = encode(content, FrameInfo::new());
        assert_eq!(
            decode(&frame, usize::MAX).unwrap().as_deref(),
            Some(content)
        );
        for end in 0..frame.len() {
            assert_eq!(decode(&frame[..end], usize::MAX), Ok(None), "{end}");
        }
    }
}
