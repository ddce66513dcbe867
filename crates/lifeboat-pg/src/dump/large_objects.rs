//! Reading large objects: many in one statement, since a database may have millions of small ones and a
//! round trip for each would take longer than their content.
//!
//! `COPY … (FORMAT binary)` carries bytes as bytes; in text they would be twice as many, in hex.

use xxhash_rust::xxh3::Xxh3;

use crate::census::RowCensus;
use crate::wire::{Connection, CopyOutError, PgError};

use super::error::{CopyFailure, DumpError};
use super::worker::UnitResult;

/// Bytes fetched by one `lo_get`. A multiple of the 2 KiB that a row of `pg_largeobject` holds.
const PIECE_BYTES: u64 = 256 * 1024;
/// `INV_READ` in PostgreSQL's `libpq/libpq-fs.h`.
const INV_READ: u32 = 0x0004_0000;

/// What the census counts for a large object: OID, size in bytes and XXH3 (128 bits, no seed) of the
/// content, separated by tabs.
pub fn row(oid: u32, size: u64, content_hash: u128) -> String {
    format!("{oid}\t{size}\t{content_hash:032x}")
}

pub(crate) fn read<E>(
    connection: &mut Connection,
    oids: &[u32],
    sink: impl FnMut(u32, &[u8], bool) -> Result<(), E>,
) -> Result<UnitResult, CopyFailure<E>> {
    if oids.is_empty() {
        return Ok(UnitResult::default());
    }
    let sizes = sizes(connection, oids)?;
    let mut expected = sizes.iter().copied();
    let mut reader = Reader {
        current: None,
        expected: &mut expected,
        sink,
        result: UnitResult::default(),
    };
    let values: Vec<String> = sizes
        .iter()
        .map(|(oid, size)| format!("({oid},{size})"))
        .collect();
    let sql = format!(
        "COPY (SELECT o.oid::pg_catalog.oid, p.n, pg_catalog.lo_get(o.oid::pg_catalog.oid, p.n * {PIECE_BYTES}, {PIECE_BYTES})
                 FROM (VALUES {}) AS o (oid, size),
                      LATERAL pg_catalog.generate_series(0::bigint, (greatest(o.size, 1) - 1) / {PIECE_BYTES}) AS p (n)
              ) TO STDOUT WITH (FORMAT binary)",
        values.join(",")
    );
    let mut framing = BinaryRows::default();
    let copied = connection.copy_out(&sql, |data: &[u8]| {
        framing.push(data, |fields| reader.piece(fields))
    });
    match copied {
        Ok(_) => reader.finish(),
        Err(CopyOutError::Sink(failure)) => Err(failure),
        Err(CopyOutError::Pg(error)) => Err(group_error(oids, error)),
    }
}

/// Sizes as this transaction sees them. `lo_lseek64` needs an open descriptor, hence the detour; there is
/// no function for it. OFFSET 0 keeps each step a step: open, seek to the end, close.
fn sizes<E>(connection: &mut Connection, oids: &[u32]) -> Result<Vec<(u32, u64)>, CopyFailure<E>> {
    let list: Vec<String> = oids.iter().map(u32::to_string).collect();
    let sql = format!(
        "SELECT b.oid, b.size, pg_catalog.lo_close(b.fd) AS closed
           FROM (SELECT a.oid, a.fd, pg_catalog.lo_lseek64(a.fd, 0, 2) AS size
                   FROM (SELECT u.oid, pg_catalog.lo_open(u.oid, {INV_READ}) AS fd
                           FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS u(oid) OFFSET 0) a OFFSET 0) b",
        list.join(",")
    );
    let rows = match connection.query(&sql) {
        Ok(rows) => rows,
        Err(error) => return Err(group_error(oids, error)),
    };
    let read: Result<Vec<(u32, u64)>, PgError> = rows
        .iter()
        .map(|row| Ok((row.parse("oid")?, row.parse("size")?)))
        .collect();
    let sizes = read.map_err(DumpError::from)?;
    if sizes.iter().map(|(oid, _)| oid).ne(oids) {
        return Err(wrong(
            0,
            "the server lists other objects than were asked for",
        ));
    }
    Ok(sizes)
}

/// Only a refusal is about the objects; a lost connection is not.
fn group_error<E>(oids: &[u32], error: PgError) -> CopyFailure<E> {
    let oid = if oids.len() == 1 { oids[0] } else { 0 };
    match error {
        PgError::Server(_) => DumpError::LargeObject {
            oid,
            what: error.to_string(),
        }
        .into(),
        _ => DumpError::from(error).into(),
    }
}

fn wrong<E>(oid: u32, what: &str) -> CopyFailure<E> {
    DumpError::LargeObject {
        oid,
        what: what.into(),
    }
    .into()
}

/// Puts pieces together to objects, and holds the server to what it announced.
struct Reader<'a, S> {
    current: Option<Current>,
    expected: &'a mut dyn Iterator<Item = (u32, u64)>,
    sink: S,
    result: UnitResult,
}

struct Current {
    oid: u32,
    size: u64,
    done: u64,
    next_piece: u64,
    hash: Xxh3,
}

impl<S> Reader<'_, S> {
    fn piece<E>(&mut self, fields: [&[u8]; 3]) -> Result<(), CopyFailure<E>>
    where
        S: FnMut(u32, &[u8], bool) -> Result<(), E>,
    {
        let (Ok(oid), Ok(piece)) = (fields[0].try_into(), fields[1].try_into()) else {
            return Err(wrong(0, "malformed piece"));
        };
        let (oid, piece, data) = (
            u32::from_be_bytes(oid),
            u64::from_be_bytes(piece),
            fields[2],
        );
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.expected.next() {
                Some((oid, size)) => Current {
                    oid,
                    size,
                    done: 0,
                    next_piece: 0,
                    hash: Xxh3::new(),
                },
                None => return Err(wrong(oid, "an object that was not asked for")),
            },
        };
        let length = (current.size - current.done).min(PIECE_BYTES);
        if (current.oid, current.next_piece, length) != (oid, piece, data.len() as u64) {
            return Err(wrong(current.oid, "its pieces came out of order or short"));
        }
        current.hash.update(data);
        current.done += length;
        current.next_piece += 1;
        self.result.bytes += length;
        let last = current.done == current.size;
        (self.sink)(oid, data, last).map_err(CopyFailure::Sink)?;
        if last {
            let mut census = RowCensus::EMPTY;
            census.add_row(row(oid, current.size, current.hash.digest128()).as_bytes());
            self.result.census += census;
        } else {
            self.current = Some(current);
        }
        Ok(())
    }

    fn finish<E>(self) -> Result<UnitResult, CopyFailure<E>> {
        let missing = self
            .current
            .map(|current| current.oid)
            .or_else(|| self.expected.next().map(|(oid, _)| oid));
        match missing {
            Some(oid) => Err(wrong(oid, "it did not come to its end")),
            None => Ok(self.result),
        }
    }
}

/// COPY's binary format, cut into rows of three fields; see "Binary Format" in PostgreSQL's manual, under
/// COPY. Messages usually hold one row each, but nothing here depends on it.
#[derive(Default)]
struct BinaryRows {
    held: Vec<u8>,
    begun: bool,
}

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the header's extension.
const HEADER_BYTES: usize = 19;

impl BinaryRows {
    fn push<E>(
        &mut self,
        data: &[u8],
        mut each: impl FnMut([&[u8]; 3]) -> Result<(), CopyFailure<E>>,
    ) -> Result<(), CopyFailure<E>> {
        self.held.extend_from_slice(data);
        let mut at = 0;
        if !self.begun {
            if self.held.len() < HEADER_BYTES {
                return Ok(());
            }
            if !self.held.starts_with(SIGNATURE) || self.held[11..HEADER_BYTES] != [0; 8] {
                return Err(wrong(0, "not COPY's binary format"));
            }
            self.begun = true;
            at = HEADER_BYTES;
        }
        loop {
            match take_row(&self.held[at..]) {
                Taken::Row(fields, length) => {
                    each(fields)?;
                    at += length;
                }
                Taken::More => break,
                Taken::End(length) => at += length,
                Taken::Bad => return Err(wrong(0, "not COPY's binary format")),
            }
        }
        self.held.drain(..at);
        Ok(())
    }
}

enum Taken<'a> {
    Row([&'a [u8]; 3], usize),
    More,
    End(usize),
    Bad,
}

fn take_row(bytes: &[u8]) -> Taken<'_> {
    let Some((count, _)) = bytes.split_first_chunk::<2>() else {
        return Taken::More;
    };
    match i16::from_be_bytes(*count) {
        -1 => return Taken::End(2),
        3 => {}
        _ => return Taken::Bad,
    }
    let mut fields: [&[u8]; 3] = [&[]; 3];
    let mut at = 2;
    for field in &mut fields {
        let Some(length) = bytes.get(at..at + 4) else {
            return Taken::More;
        };
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        let Ok(length) = usize::try_from(length) else {
            return Taken::Bad;
        };
        let Some(value) = bytes.get(at + 4..at + 4 + length) else {
            return Taken::More;
        };
        *field = value;
        at += 4 + length;
    }
    Taken::Row(fields, at)
}
