//! The data of a dump's entries as it streams by: rows to their end mark, large objects to their size.
//!
//! A data file of a table is its rows in COPY's text format and then `\.` and three newlines, as `pg_dump` writes
//! them. Somebody else's dump has to be taken at its bytes: what is counted here is what a backup would have
//! counted while it read the table, and a file without its end is not a table.

use memchr::memchr;
use xxhash_rust::xxh3::Xxh3;

use crate::census::{RowCensus, SEED};
use crate::dump::large_object_row;

/// Counts the rows of a table's data as its bytes come, in pieces of any size. A row may be larger than memory
/// has room for: no row is kept.
#[derive(Default)]
pub struct DataRows {
    census: RowCensus,
    /// A row whose end has not come yet.
    open: Option<OpenRow>,
    /// After the end mark: how many newlines came.
    ended: Option<u8>,
}

struct OpenRow {
    hash: Box<Xxh3>,
    length: u64,
    start: [u8; 2],
}

/// Why the data of a table is not what `pg_dump` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataRowsError {
    /// It ends before the end mark, or within it.
    #[error("the end of the rows is missing")]
    NoEnd,
    /// It goes on after the end mark.
    #[error("something follows the end of the rows")]
    AfterEnd,
}

/// The line that ends the rows.
const END_MARK: &[u8] = b"\\.";
/// What follows it.
const NEWLINES_AFTER: u8 = 2;

impl DataRows {
    /// Takes the next bytes. `seen` is shown rows, without their newlines: those that lie whole in `bytes`, which are
    /// all but a few.
    ///
    /// # Errors
    /// [`DataRowsError::AfterEnd`].
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut seen: impl FnMut(&[u8]),
    ) -> Result<(), DataRowsError> {
        while self.ended.is_none() {
            let Some(end) = memchr(b'\n', bytes) else {
                if !bytes.is_empty() {
                    self.open.get_or_insert_with(OpenRow::new).push(bytes);
                }
                return Ok(());
            };
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if let Some(mut row) = self.open.take() {
                row.push(line);
                if row.is_end_mark() {
                    self.ended = Some(0);
                } else {
                    self.census.add_hash(row.hash.digest128());
                }
            } else if line == END_MARK {
                self.ended = Some(0);
            } else {
                self.census.add_row(line);
                seen(line);
            }
        }
        self.push_end(bytes)
    }

    fn push_end(&mut self, bytes: &[u8]) -> Result<(), DataRowsError> {
        let newlines = self.ended.unwrap_or(0);
        let left = usize::from(NEWLINES_AFTER - newlines);
        if bytes.len() > left || bytes.iter().any(|byte| *byte != b'\n') {
            return Err(DataRowsError::AfterEnd);
        }
        self.ended = Some(newlines + u8::try_from(bytes.len()).unwrap_or(NEWLINES_AFTER));
        Ok(())
    }

    /// The rows, once all bytes have come.
    ///
    /// # Errors
    /// [`DataRowsError::NoEnd`].
    pub fn finish(self) -> Result<RowCensus, DataRowsError> {
        if self.ended == Some(NEWLINES_AFTER) {
            Ok(self.census)
        } else {
            Err(DataRowsError::NoEnd)
        }
    }
}

impl OpenRow {
    fn new() -> Self {
        Self {
            hash: Box::new(Xxh3::with_seed(SEED)),
            length: 0,
            start: [0; 2],
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        for (at, byte) in (self.length..2).zip(bytes) {
            self.start[usize::from(at == 1)] = *byte;
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
    }

    fn is_end_mark(&self) -> bool {
        self.length == 2 && self.start == END_MARK
    }
}

/// Counts one large object as its bytes come.
#[derive(Default)]
pub struct LargeObjectBytes {
    hash: Xxh3,
    size: u64,
}

impl LargeObjectBytes {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Its size in bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its census: one row, as a backup counts it.
    #[must_use]
    pub fn finish(self, oid: u32) -> RowCensus {
        let mut census = RowCensus::EMPTY;
        let row = large_object_row(oid, self.size, self.hash.digest128());
        census.add_row(row.as_bytes());
        census
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn counted(data: &[u8], piece: usize) -> Result<RowCensus, DataRowsError> {
        let mut rows = DataRows::default();
        for piece in data.chunks(piece) {
            rows.push(piece, |_| {})?;
        }
        rows.finish()
    }

    #[test]
    fn rows_are_the_same_however_they_come() {
        let mut expected = RowCensus::EMPTY;
        for row in [&b"1\ttext"[..], b"", b"\\\\.", b"\\N\t\\.", b"."] {
            expected.add_row(row);
        }
        let data = b"1\ttext\n\n\\\\.\n\\N\t\\.\n.\n\\.\n\n\n";
        for piece in 1..=data.len() {
            assert_eq!(counted(data, piece), Ok(expected), "{piece}");
            assert_eq!(counted(b"\\.\n\n\n", piece), Ok(RowCensus::EMPTY));
        }
    }

    #[test]
    fn an_end_that_is_not_one() {
        for piece in 1..5 {
            for data in [&b""[..], b"1\n", b"1\n\\.", b"1\n\\.\n", b"1\n\\.\n\n"] {
                assert_eq!(counted(data, piece), Err(DataRowsError::NoEnd), "{data:?}");
            }
            for data in [&b"\\.\n\n\n\n"[..], b"\\.\n\n\nx", b"\\.\n1\n"] {
                assert_eq!(
                    counted(data, piece),
                    Err(DataRowsError::AfterEnd),
                    "{data:?}"
                );
            }
        }
    }

    #[test]
    fn whole_rows_are_shown() {
        let mut shown = Vec::new();
        let mut rows = DataRows::default();
        rows.push(b"a\nb\nc", |row| shown.push(row.to_vec()))
            .unwrap();
        rows.push(b"c\nd\n\\.\n\n\n", |row| shown.push(row.to_vec()))
            .unwrap();
        assert_eq!(shown, [b"a", b"b", b"d"]);
        assert_eq!(rows.finish().unwrap().rows(), 4);
    }
}
