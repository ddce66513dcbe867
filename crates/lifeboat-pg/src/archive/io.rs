//! The archive's primitive fields: bytes, sized integers, strings, file offsets.
//!
//! Formats: `ReadInt`, `ReadStr`, `ReadOffset` and their `Write` twins in PostgreSQL's
//! `pg_backup_archiver.c`. Input is never trusted: no length is allocated before its bytes came.

use std::io::{ErrorKind, Read, Write};

use super::error::ArchiveError;
use super::text::Text;

/// No string of a TOC is longer: PostgreSQL itself cannot hold a longer value.
const MAX_STRING_BYTES: usize = 1 << 30;

/// How much a string's buffer grows at a time, so that a hostile length costs nothing.
const STRING_STEP_BYTES: usize = 64 * 1024;

/// Offset states, `K_OFFSET_*` in `pg_backup_archiver.h`.
pub(super) const OFFSET_NOT_SET: u8 = 1;
pub(super) const OFFSET_SET: u8 = 2;
pub(super) const OFFSET_NO_DATA: u8 = 3;

/// Reads fields one after the other and knows where it is. Takes not one byte too many, so that
/// the caller may go on with what follows.
pub(super) struct Source<R> {
    inner: R,
    offset: u64,
    pub(super) int_size: u8,
    pub(super) off_size: u8,
    part: &'static str,
}

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            offset: 0,
            int_size: 4,
            off_size: 8,
            part: "the header",
        }
    }

    /// Names what is being read, for errors.
    pub(super) fn enter(&mut self, part: &'static str) {
        self.part = part;
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> ArchiveError {
        ArchiveError::Damaged {
            offset: self.offset,
            what: what.into(),
        }
    }

    /// Fills `buffer` as far as the input goes and returns how far that was.
    pub(super) fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ArchiveError::Read {
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
        Ok(filled)
    }

    pub(super) fn exact(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        let wanted = buffer.len();
        if self.read_up_to(buffer)? < wanted {
            return Err(ArchiveError::Truncated {
                offset: self.offset,
                part: self.part.into(),
            });
        }
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Result<u8, ArchiveError> {
        let mut byte = [0];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    pub(super) fn int(&mut self) -> Result<i32, ArchiveError> {
        let mut field = [0; 33];
        let size = usize::from(self.int_size) + 1;
        let field = &mut field[..size];
        self.exact(field)?;
        decode_int(field).ok_or_else(|| self.damaged("an integer field holds no integer"))
    }

    pub(super) fn string(&mut self) -> Result<Option<Text>, ArchiveError> {
        let length = match self.int()? {
            -1 => return Ok(None),
            length => usize::try_from(length)
                .ok()
                .filter(|length| *length <= MAX_STRING_BYTES),
        };
        let length = length.ok_or_else(|| self.damaged("a string's length is out of range"))?;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            // Doubling, so that copying stays linear; never more than was already really read.
            let step = (length - start).min(STRING_STEP_BYTES.max(start));
            bytes.resize(start + step, 0);
            self.exact(&mut bytes[start..])?;
        }
        Ok(Some(Text::from(bytes)))
    }

    /// A number that is stored as decimal text "for historical reasons".
    pub(super) fn number<N: std::str::FromStr>(&mut self, what: &str) -> Result<N, ArchiveError> {
        let text = self.string()?;
        self.parse_number(text.as_ref(), what)
    }

    pub(super) fn parse_number<N: std::str::FromStr>(
        &self,
        text: Option<&Text>,
        what: &str,
    ) -> Result<N, ArchiveError> {
        text.and_then(|text| text.as_str()?.parse().ok())
            .ok_or_else(|| self.damaged(format!("{what} is not a number")))
    }

    /// An offset's state (one of `OFFSET_*`) and value.
    pub(super) fn file_offset(&mut self) -> Result<(u8, u64), ArchiveError> {
        let state = self.byte()?;
        if !matches!(state, OFFSET_NOT_SET | OFFSET_SET | OFFSET_NO_DATA) {
            return Err(self.damaged(format!("a data offset has the unknown state {state}")));
        }
        let mut field = [0; 32];
        let field = &mut field[..usize::from(self.off_size)];
        self.exact(field)?;
        let value = decode_unsigned(field).filter(|value| *value <= i64::MAX as u64);
        let value = value.ok_or_else(|| self.damaged("a data offset is out of range"))?;
        Ok((state, value))
    }
}

/// Decodes a sign byte and a little-endian magnitude. `None` for what `WriteInt` never writes.
pub(super) fn decode_int(field: &[u8]) -> Option<i32> {
    let (sign, magnitude) = field.split_first()?;
    let magnitude = i64::try_from(decode_unsigned(magnitude)?).ok()?;
    match (sign, magnitude) {
        (0, magnitude) => i32::try_from(magnitude).ok(),
        (1, 0) => None,
        (1, magnitude) => i32::try_from(-magnitude).ok(),
        _ => None,
    }
}

fn decode_unsigned(field: &[u8]) -> Option<u64> {
    let (low, high) = field.split_at(field.len().min(8));
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut bytes = [0; 8];
    bytes[..low.len()].copy_from_slice(low);
    Some(u64::from_le_bytes(bytes))
}

/// Writes fields one after the other.
pub(super) struct Sink<W> {
    inner: W,
    offset: u64,
    int_size: u8,
    off_size: u8,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(inner: W, int_size: u8, off_size: u8) -> Self {
        Self {
            inner,
            offset: 0,
            int_size,
            off_size,
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.inner
            .write_all(bytes)
            .map_err(|source| ArchiveError::Write {
                offset: self.offset,
                source,
            })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn int(&mut self, value: i32) -> Result<(), ArchiveError> {
        let mut field = [0; 33];
        let size = encode_int(value, self.int_size, &mut field).ok_or_else(|| {
            let what = format!("{value} does not fit in {} bytes", self.int_size);
            ArchiveError::Unwritable { what }
        })?;
        self.bytes(&field[..size])
    }

    pub(super) fn string(&mut self, text: Option<&[u8]>) -> Result<(), ArchiveError> {
        let Some(text) = text else {
            return self.int(-1);
        };
        let length = i32::try_from(text.len()).map_err(|_| ArchiveError::Unwritable {
            what: "a string is too long".into(),
        })?;
        self.int(length)?;
        self.bytes(text)
    }

    pub(super) fn file_offset(&mut self, state: u8, value: u64) -> Result<(), ArchiveError> {
        let mut field = [0; 33];
        let size = usize::from(self.off_size);
        let low = size.min(8);
        let bytes = value.to_le_bytes();
        if bytes[low..].iter().any(|byte| *byte != 0) {
            let what = format!("the offset {value} does not fit in {size} bytes");
            return Err(ArchiveError::Unwritable { what });
        }
        field[0] = state;
        field[1..=low].copy_from_slice(&bytes[..low]);
        self.bytes(&field[..=size])
    }
}

/// Encodes as `WriteInt` does and returns the field's size, or `None` if the value does not fit.
pub(super) fn encode_int(value: i32, int_size: u8, field: &mut [u8; 33]) -> Option<usize> {
    let size = usize::from(int_size);
    let magnitude = value.unsigned_abs().to_le_bytes();
    let low = size.min(magnitude.len());
    if magnitude[low..].iter().any(|byte| *byte != 0) {
        return None;
    }
    field[0] = u8::from(value < 0);
    field[1..=low].copy_from_slice(&magnitude[..low]);
    field[low + 1..].fill(0);
    Some(size + 1)
}
