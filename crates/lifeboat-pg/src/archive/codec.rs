//! Decompression of a custom-format archive's streams.
//!
//! Formats: `compress_gzip.c` (a zlib stream), `compress_lz4.c` (an LZ4 frame), `compress_zstd.c`
//! (a zstd frame) in PostgreSQL's `src/bin/pg_dump`: one per table and per large object. A stream
//! is whole only if its compressed form says so, and nothing follows it.

use std::io::Read;
use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

use super::error::ArchiveError;
use super::header::Compression;
use super::input::Input;
use super::lz4::Lz4Frame;

const OUT_BYTES: usize = 256 * 1024;

/// A decoder that is used for one stream after the other.
pub(super) struct Codec {
    kind: Kind,
    out: Vec<u8>,
    /// The compressed form has said that it ends here.
    ended: bool,
    /// What is decoded and not handed out yet.
    ready: Range<usize>,
    /// Uncompressed bytes that were handed out of the input and are still to be taken from it.
    shown: usize,
}

enum Kind {
    Plain,
    Gzip(Box<Decompress>),
    Lz4(Box<Lz4Frame>),
    Zstd(Box<zstd::stream::raw::Decoder<'static>>),
}

impl Codec {
    pub(super) fn new(compression: Compression) -> Result<Self, ArchiveError> {
        let kind = match compression {
            Compression::None => Kind::Plain,
            Compression::Gzip { .. } => Kind::Gzip(Box::new(Decompress::new(true))),
            Compression::Lz4 => Kind::Lz4(Box::new(Lz4Frame::new())),
            Compression::Zstd => {
                let decoder = zstd::stream::raw::Decoder::new();
                Kind::Zstd(Box::new(
                    decoder.map_err(|source| ArchiveError::Read { offset: 0, source })?,
                ))
            }
        };
        let out = match kind {
            Kind::Gzip(_) | Kind::Zstd(_) => vec![0; OUT_BYTES],
            Kind::Plain | Kind::Lz4(_) => Vec::new(),
        };
        Ok(Self {
            kind,
            out,
            ended: false,
            ready: 0..0,
            shown: 0,
        })
    }

    /// Makes it ready for the next stream.
    pub(super) fn reset(&mut self) -> Result<(), ArchiveError> {
        self.ended = false;
        self.ready = 0..0;
        self.shown = 0;
        match &mut self.kind {
            Kind::Plain => {}
            Kind::Gzip(inflate) => inflate.reset(true),
            Kind::Lz4(frame) => frame.reset(),
            Kind::Zstd(decoder) => {
                decoder
                    .reinit()
                    .map_err(|source| ArchiveError::Read { offset: 0, source })?;
            }
        }
        Ok(())
    }

    /// The next bytes of the stream, as many as are at hand; nothing once it has ended and was
    /// found whole.
    pub(super) fn next<'a, R: Read>(
        &'a mut self,
        input: &'a mut Input<R>,
    ) -> Result<&'a [u8], ArchiveError> {
        if let Kind::Plain = self.kind {
            input.advance(self.shown);
            let bytes = input.stream_bytes()?;
            self.shown = bytes.len();
            return Ok(bytes);
        }
        self.fill(input)?;
        let ready = std::mem::take(&mut self.ready);
        Ok(&self.decoded()[ready])
    }

    /// As [`Codec::next`], into a buffer of the caller's. Returns how many bytes that were.
    pub(super) fn read<R: Read>(
        &mut self,
        input: &mut Input<R>,
        out: &mut [u8],
    ) -> Result<usize, ArchiveError> {
        if let Kind::Plain = self.kind {
            input.advance(std::mem::take(&mut self.shown));
            let bytes = input.stream_bytes()?;
            let count = bytes.len().min(out.len());
            out[..count].copy_from_slice(&bytes[..count]);
            input.advance(count);
            return Ok(count);
        }
        self.fill(input)?;
        let bytes = &self.decoded()[self.ready.clone()];
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.ready.start += count;
        Ok(count)
    }

    fn decoded(&self) -> &[u8] {
        match &self.kind {
            Kind::Lz4(frame) => frame.block(),
            _ => &self.out,
        }
    }

    /// Decodes until bytes are ready, or the stream's end was reached and checked.
    fn fill<R: Read>(&mut self, input: &mut Input<R>) -> Result<(), ArchiveError> {
        if !self.ready.is_empty() {
            return Ok(());
        }
        let in_blocks = matches!(self.kind, Kind::Lz4(_));
        let mut produced = 0;
        while !self.ended && (in_blocks && produced == 0 || produced < self.out.len()) {
            let bytes = input.stream_bytes()?;
            let at_end = bytes.is_empty();
            let out = self.out.get_mut(produced..).unwrap_or_default();
            let step = self
                .kind
                .step(bytes, out)
                .map_err(|what| input.damaged(what))?;
            input.advance(step.consumed);
            produced += step.produced;
            self.ended = step.ended;
            if !step.ended && step.consumed == 0 && step.produced == 0 {
                let what = if at_end {
                    "compressed data ends too early"
                } else {
                    "compressed data leads nowhere"
                };
                return Err(input.damaged(what));
            }
        }
        if self.ended && !input.stream_bytes()?.is_empty() {
            return Err(input.damaged("compressed data is followed by more data"));
        }
        self.ready = 0..produced;
        Ok(())
    }
}

struct Step {
    consumed: usize,
    produced: usize,
    ended: bool,
}

impl Kind {
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, String> {
        match self {
            Self::Plain => Ok(Step {
                consumed: 0,
                produced: 0,
                ended: true,
            }),
            Self::Gzip(inflate) => {
                let (total_in, total_out) = (inflate.total_in(), inflate.total_out());
                let status = inflate
                    .decompress(input, out, FlushDecompress::None)
                    .map_err(|error| format!("compressed data cannot be decoded: {error}"))?;
                Ok(Step {
                    consumed: usize::try_from(inflate.total_in() - total_in).unwrap_or(0),
                    produced: usize::try_from(inflate.total_out() - total_out).unwrap_or(0),
                    ended: status == Status::StreamEnd,
                })
            }
            Self::Lz4(frame) => {
                let fed = frame.feed(input)?;
                let produced = if fed.block { frame.block().len() } else { 0 };
                Ok(Step {
                    consumed: fed.consumed,
                    produced,
                    ended: frame.is_done(),
                })
            }
            Self::Zstd(decoder) => {
                let mut input = InBuffer::around(input);
                let mut output = OutBuffer::around(out);
                let hint = decoder
                    .run(&mut input, &mut output)
                    .map_err(|error| format!("compressed data cannot be decoded: {error}"))?;
                Ok(Step {
                    consumed: input.pos(),
                    produced: output.pos(),
                    ended: hint == 0,
                })
            }
        }
    }
}
