//! Files as streams: watched, sniffed, and decompressed where they are compressed as a whole.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::archive::{Content, Lz4Reader};

const BUFFER_BYTES: usize = 256 * 1024;

/// Looks after interrupt and progress while files are read.
pub(super) struct Watch<'a> {
    interrupt: &'a AtomicBool,
    progress: &'a mut dyn FnMut(u64),
    total: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(interrupt: &'a AtomicBool, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self {
            interrupt,
            progress,
            total: 0,
        }
    }

    pub(super) fn interrupt(&self) -> &'a AtomicBool {
        self.interrupt
    }

    pub(super) fn watched<'w, R: Read + 'w>(&'w mut self, inner: R) -> Box<dyn Read + 'w> {
        Box::new(Watched {
            inner,
            interrupt: self.interrupt,
            progress: &mut *self.progress,
            total: &mut self.total,
        })
    }
}

struct Watched<'w, R> {
    inner: R,
    interrupt: &'w AtomicBool,
    progress: &'w mut dyn FnMut(u64),
    total: &'w mut u64,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.load(Ordering::Relaxed) {
            // Not the kind `Interrupted`, which means "try again".
            return Err(io::Error::other("interrupted"));
        }
        let count = self.inner.read(out)?;
        *self.total += count as u64;
        (self.progress)(*self.total);
        Ok(count)
    }
}

/// A stream whose beginning was looked at.
pub(super) struct Opened<'a> {
    /// What it holds, after decompression.
    pub(super) content: Content,
    pub(super) compressed_with: Option<&'static str>,
    /// Its first bytes, decompressed.
    pub(super) head: Vec<u8>,
    /// All of it, from the first byte.
    pub(super) stream: Box<dyn Read + 'a>,
}

/// What a whole file may be compressed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Lz4,
    Zstd,
}

impl Codec {
    /// The suffixes that `pg_dump` gives the files of a directory, and the one for none.
    pub(super) const SUFFIXES: [(&str, Self); 4] = [
        ("", Self::None),
        (".gz", Self::Gzip),
        (".lz4", Self::Lz4),
        (".zst", Self::Zstd),
    ];

    fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Lz4 => Some("lz4"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The stream, decompressed. All of these decoders take a stream that ends too early for damaged.
    pub(super) fn decode<'a>(self, stream: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        if self == Self::None {
            return Ok(stream);
        }
        let mut buffered = BufReader::with_capacity(BUFFER_BYTES, stream);
        // For an empty large object, pg_dump makes a file of no bytes at all with LZ4 and zstd.
        if self != Self::Gzip && buffered.fill_buf()?.is_empty() {
            return Ok(Box::new(io::empty()));
        }
        Ok(match self {
            Self::None => Box::new(buffered),
            Self::Gzip => Box::new(MultiGzDecoder::new(buffered)),
            Self::Lz4 => Box::new(Lz4Reader::new(buffered)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?),
        })
    }
}

/// Looks at a stream's first bytes, decompresses it if they say so, and looks again.
pub(super) fn open<'a>(stream: Box<dyn Read + 'a>) -> io::Result<Opened<'a>> {
    let (head, stream) = peek(stream)?;
    let content = Content::sniff(&head);
    let codec = match content {
        Content::Gzip => Codec::Gzip,
        Content::Zstd => Codec::Zstd,
        Content::Lz4 => Codec::Lz4,
        _ => {
            return Ok(Opened {
                content,
                compressed_with: None,
                head,
                stream,
            });
        }
    };
    let (head, stream) = peek(codec.decode(stream)?)?;
    let content = match Content::sniff(&head) {
        // Compressed twice: nothing that is worth more than being named.
        Content::Gzip | Content::Zstd | Content::Lz4 => Content::Unknown,
        content => content,
    };
    Ok(Opened {
        content,
        compressed_with: codec.name(),
        head,
        stream,
    })
}

fn peek<'a>(mut stream: Box<dyn Read + 'a>) -> io::Result<(Vec<u8>, Box<dyn Read + 'a>)> {
    let mut head = Vec::with_capacity(Content::SNIFF_BYTES);
    (&mut stream)
        .take(Content::SNIFF_BYTES as u64)
        .read_to_end(&mut head)?;
    let whole = Cursor::new(head.clone()).chain(stream);
    Ok((head, Box::new(whole)))
}

/// Reads to the end and gives each piece to `piece`.
pub(super) fn each_piece(stream: &mut dyn Read, mut piece: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => piece(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The last bytes of a stream, to see whether a table's rows have their end.
#[derive(Default)]
pub(super) struct Tail {
    last: Vec<u8>,
}

impl Tail {
    const KEPT_BYTES: usize = 8;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let tail = &bytes[bytes.len().saturating_sub(Self::KEPT_BYTES)..];
        self.last.extend_from_slice(tail);
        let surplus = self.last.len().saturating_sub(Self::KEPT_BYTES);
        self.last.drain(..surplus);
    }

    pub(super) fn ends_with(&self, end: &[u8]) -> bool {
        self.last.ends_with(end)
    }
}
