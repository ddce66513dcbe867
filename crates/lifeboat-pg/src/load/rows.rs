//! Rows from a data file into a table, a byte range at a time.
//!
//! In COPY's text format a newline byte is always the end of a row: inside values it is written as `\n`. So a
//! file can be cut anywhere, and each range takes the rows that begin in it.

use std::ops::Range;

use memchr::{memchr, memrchr};

use super::{LoadError, Loader};
use crate::archive::TABLE_DATA_END;
use crate::census::RowCensus;
use crate::wire::PgError;

/// The bytes of a data file, from some offset on, in pieces of any size.
pub trait DataSource {
    /// What reading them can end with.
    type Error;

    /// The next bytes; `None` at the end of the file.
    ///
    /// # Errors
    /// When they cannot be read.
    fn next(&mut self) -> Result<Option<&[u8]>, Self::Error>;
}

/// What one range held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadedRows {
    /// The rows, as they were sent and as the server counted them.
    pub census: RowCensus,
    /// Their bytes.
    pub bytes: u64,
}

/// The rows that begin in a range of a table's data file.
#[derive(Debug, Clone)]
pub struct TableSlice<'a> {
    /// `schema.table`, for errors.
    pub table: &'a str,
    /// The table as SQL.
    pub relation: &'a str,
    /// The `COPY … FROM STDIN` that takes its rows.
    pub copy_sql: &'a str,
    /// The length of its data file.
    pub file_bytes: u64,
    /// The range, within the first [`data_bytes`] of the file.
    pub range: Range<u64>,
    /// Whether the table is known to be empty and nobody else's, and this is its only slice: it is then
    /// truncated and loaded in one transaction, which lets the server freeze the rows at once, so that no later
    /// scan has to write every page again for its hint bits.
    pub fresh: bool,
}

/// Loading failed on the server's side, or where the bytes come from.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure<E> {
    /// The server's side, or the file is malformed.
    #[error(transparent)]
    Load(LoadError),
    /// The source's error.
    #[error("{0}")]
    Source(E),
}

impl<E> From<LoadError> for LoadFailure<E> {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

/// How many bytes of a data file of this size are rows: the rest is what ends it.
#[must_use]
pub fn data_bytes(file_bytes: u64) -> u64 {
    file_bytes.saturating_sub(TABLE_DATA_END.len() as u64)
}

impl Loader {
    /// Loads one slice. `open` opens the table's data file at an offset; `progress` is told about bytes loaded.
    /// The last slice of a file also checks that the file ends as it should.
    ///
    /// # Errors
    /// The server's, the source's, or that the file is malformed. Of this slice nothing is loaded then.
    pub fn load_rows<S: DataSource>(
        &mut self,
        slice: &TableSlice<'_>,
        open: impl FnOnce(u64) -> Result<S, S::Error>,
        mut progress: impl FnMut(u64),
    ) -> Result<LoadedRows, LoadFailure<S::Error>> {
        let data_bytes = data_bytes(slice.file_bytes);
        let range = &slice.range;
        let table = slice.table;
        // One byte early: whether a row begins at the start of the range is said by the byte before it.
        let from = range.start.saturating_sub(1);
        let mut source = open(from).map_err(LoadFailure::Source)?;
        let mut rows = Rows::new(range, data_bytes);
        let failed = |source| LoadError::Table {
            table: table.to_owned(),
            source,
        };
        let on_server = |error| match error {
            PgError::Interrupted => LoadError::Interrupted,
            other => failed(other),
        };
        let malformed = |what| LoadError::Malformed {
            table: table.to_owned(),
            what,
        };

        if data_bytes == 0 {
            rows.read_tail(&mut source)?.map_err(malformed)?;
            return Ok(LoadedRows::default());
        }
        let connection = &mut self.connection;
        if slice.fresh {
            connection
                .execute(&format!("BEGIN; TRUNCATE ONLY {}", slice.relation))
                .map_err(on_server)?;
        }
        let sql = if slice.fresh {
            format!("{} WITH (FREEZE)", slice.copy_sql)
        } else {
            slice.copy_sql.to_owned()
        };
        let mut copy = connection.copy_in(&sql).map_err(on_server)?;
        let mut told = 0;
        while !rows.complete {
            let Some(bytes) = source.next().map_err(LoadFailure::Source)? else {
                return Err(malformed("it ends in the middle").into());
            };
            copy.write(rows.take(bytes)).map_err(on_server)?;
            progress(rows.loaded.bytes - told);
            told = rows.loaded.bytes;
        }
        if range.end >= data_bytes {
            rows.read_tail(&mut source)?.map_err(malformed)?;
        }
        let taken = copy.finish().map_err(on_server)?;
        let sent = rows.loaded.census.rows();
        if taken != sent {
            return Err(LoadError::RowCount {
                table: table.to_owned(),
                sent,
                taken,
            }
            .into());
        }
        if slice.fresh {
            connection.execute("COMMIT").map_err(on_server)?;
        }
        Ok(rows.loaded)
    }
}

/// Picks the rows of one range out of the bytes that go by.
struct Rows {
    /// The offset in the file of the next byte.
    at: u64,
    end: u64,
    data_bytes: u64,
    /// Still looking for the first row that begins in the range.
    skipping: bool,
    /// The last row of the range has gone by.
    complete: bool,
    /// The beginning of a row whose end is in a later piece.
    carry: Vec<u8>,
    /// What followed the last row so far; compared with what ends a data file.
    tail: Vec<u8>,
    loaded: LoadedRows,
}

impl Rows {
    fn new(range: &Range<u64>, data_bytes: u64) -> Self {
        Self {
            at: range.start.saturating_sub(1),
            end: range.end.min(data_bytes),
            data_bytes,
            skipping: range.start > 0,
            complete: false,
            carry: Vec::new(),
            tail: Vec::new(),
            loaded: LoadedRows::default(),
        }
    }

    /// The part of the next bytes that is rows of this range.
    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut start = 0;
        if self.skipping {
            match memchr(b'\n', bytes) {
                Some(newline) => {
                    start = newline + 1;
                    self.skipping = false;
                    // A row that is longer than the range may leave it without a row of its own.
                    if self.at + start as u64 >= self.end {
                        self.complete = true;
                    }
                }
                None => start = bytes.len(),
            }
        }
        let mut stop = bytes.len();
        if self.complete {
            stop = start;
        } else if self.at + bytes.len() as u64 >= self.end {
            // The last row is the one that holds the range's last byte.
            let last = usize::try_from(self.end - 1 - self.at.min(self.end - 1)).unwrap_or(0);
            let from = last.max(start);
            if let Some(newline) = memchr(b'\n', &bytes[from.min(bytes.len())..]) {
                stop = from + newline + 1;
                self.complete = true;
            }
        }
        if self.complete {
            self.tail.extend_from_slice(&bytes[stop..]);
        }
        self.at += bytes.len() as u64;
        let rows = &bytes[start..stop];
        self.count(rows);
        rows
    }

    fn count(&mut self, rows: &[u8]) {
        self.loaded.bytes += rows.len() as u64;
        let mut whole = rows;
        if !self.carry.is_empty() {
            let Some(newline) = memchr(b'\n', rows) else {
                self.carry.extend_from_slice(rows);
                return;
            };
            self.carry.extend_from_slice(&rows[..newline]);
            self.loaded.census.add_row(&self.carry);
            self.carry.clear();
            whole = &rows[newline + 1..];
        }
        match memrchr(b'\n', whole) {
            Some(newline) => {
                self.loaded.census.add_lines(&whole[..=newline]);
                self.carry.extend_from_slice(&whole[newline + 1..]);
            }
            None => self.carry.extend_from_slice(whole),
        }
    }

    /// Reads the file to its end and compares what follows the rows. Outer error: the source's.
    fn read_tail<S: DataSource>(
        &mut self,
        source: &mut S,
    ) -> Result<Result<(), &'static str>, LoadFailure<S::Error>> {
        if self.data_bytes > 0 && !self.carry.is_empty() {
            return Ok(Err("its last row has no end"));
        }
        while let Some(bytes) = source.next().map_err(LoadFailure::Source)? {
            self.tail.extend_from_slice(bytes);
            if self.tail.len() > TABLE_DATA_END.len() {
                return Ok(Err("something follows its last row"));
            }
        }
        Ok(if self.tail == TABLE_DATA_END {
            Ok(())
        } else {
            Err("it does not end as a data file does")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces<'a> {
        bytes: &'a [u8],
        size: usize,
    }

    impl Pieces<'_> {
        fn all(&mut self, rows: &mut Rows) -> Vec<u8> {
            let mut sent = Vec::new();
            while !rows.complete && !self.bytes.is_empty() {
                let (now, later) = self.bytes.split_at(self.size.min(self.bytes.len()));
                self.bytes = later;
                sent.extend_from_slice(rows.take(now));
            }
            sent
        }
    }

    fn cut(file: &[u8], range: Range<u64>, piece: usize) -> (Vec<u8>, LoadedRows) {
        let data = data_bytes(file.len() as u64);
        let mut rows = Rows::new(&range, data);
        let from = usize::try_from(range.start.saturating_sub(1)).unwrap_or(0);
        let mut source = Pieces {
            bytes: &file[from..],
            size: piece,
        };
        let sent = source.all(&mut rows);
        assert!(rows.complete, "{range:?} in pieces of {piece}");
        (sent, rows.loaded)
    }

    #[test]
    fn every_row_belongs_to_one_range_however_the_file_is_cut() {
        let mut file = b"1\ta\n\n22\tbb\nthree\tccccccccccccccccccccccccc\n4\n".to_vec();
        file.extend_from_slice(TABLE_DATA_END);
        let data = data_bytes(file.len() as u64);
        let mut whole = RowCensus::EMPTY;
        whole.add_lines(&file[..usize::try_from(data).unwrap_or(0)]);
        for size in 1..=data {
            for piece in 1..file.len() {
                let mut sent = Vec::new();
                let mut census = RowCensus::EMPTY;
                let mut start = 0;
                while start < data {
                    let end = (start + size).min(data);
                    let (bytes, loaded) = cut(&file, start..end, piece);
                    sent.extend(bytes);
                    census += loaded.census;
                    start = end;
                }
                assert_eq!(sent, file[..usize::try_from(data).unwrap_or(0)]);
                assert_eq!(census, whole, "ranges of {size}, pieces of {piece}");
            }
        }
    }
}
