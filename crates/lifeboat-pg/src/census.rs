//! The census of a table: how many rows it has, and one number that depends on every byte of every row
//! but not on their order.
//!
//! A backup counts what it reads, a restore counts what it writes, a drill counts what the restored
//! server gives back. Rows come back in another order (a parallel load, another heap), so the hashes of
//! the rows are added up, modulo 2^128. Addition, not exclusive or: two equal rows must not cancel out.
//! This finds damage and mistakes; it is no defence against somebody who makes rows up to collide.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use memchr::memchr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// "Lifeboat" in ASCII. Part of the format: manifests hold the sums, so it never changes.
pub(crate) const SEED: u64 = 0x4c69_6665_626f_6174;

/// Rows counted and hashed. A row's hash is XXH3 (128 bits, seeded with "Lifeboat") of the row as `COPY … TO STDOUT` in
/// text format writes it, without the newline.
///
/// Serialised as `{"rows": 3, "hash": "<32 hex digits>"}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowCensus {
    rows: u64,
    hash: RowHash,
}

/// The sum of all rows' hashes, modulo 2^128.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RowHash(u128);

impl RowCensus {
    /// No rows.
    pub const EMPTY: RowCensus = RowCensus {
        rows: 0,
        hash: RowHash(0),
    };

    /// How many rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Their hashes' sum.
    pub fn hash(&self) -> RowHash {
        self.hash
    }

    /// Counts one row, given without its newline.
    #[inline]
    pub fn add_row(&mut self, row: &[u8]) {
        self.rows += 1;
        self.hash.0 = self.hash.0.wrapping_add(xxh3_128_with_seed(row, SEED));
    }

    /// Counts one row by its hash, taken with [`SEED`].
    pub(crate) fn add_hash(&mut self, hash: u128) {
        self.rows += 1;
        self.hash.0 = self.hash.0.wrapping_add(hash);
    }

    /// Counts whole rows, each ended by its newline, as a data file of a dump holds them. In COPY's text
    /// format a newline byte is always the end of a row: inside values it is written as `\n`.
    #[inline]
    pub fn add_lines(&mut self, mut lines: &[u8]) {
        while let Some(end) = memchr(b'\n', lines) {
            self.add_row(&lines[..end]);
            lines = &lines[end + 1..];
        }
        debug_assert!(lines.is_empty(), "a row without its end");
    }
}

impl Add for RowCensus {
    type Output = RowCensus;
    fn add(mut self, other: RowCensus) -> RowCensus {
        self += other;
        self
    }
}

impl AddAssign for RowCensus {
    fn add_assign(&mut self, other: RowCensus) {
        self.rows += other.rows;
        self.hash.0 = self.hash.0.wrapping_add(other.hash.0);
    }
}

impl Sum for RowCensus {
    fn sum<I: Iterator<Item = RowCensus>>(parts: I) -> RowCensus {
        parts.fold(RowCensus::EMPTY, Add::add)
    }
}

impl fmt::Display for RowCensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {}", self.rows, self.hash)
    }
}

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowHash({self})")
    }
}

impl Serialize for RowHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RowHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(&text, 16) {
            Ok(value) if digits => Ok(RowHash(value)),
            _ => Err(de::Error::invalid_value(
                de::Unexpected::Str(&text),
                &"32 hex digits",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn of(rows: &[&[u8]]) -> RowCensus {
        let mut census = RowCensus::EMPTY;
        rows.iter().for_each(|row| census.add_row(row));
        census
    }

    #[test]
    fn the_hash_is_part_of_the_format() {
        // Stored in manifests: these values may never change. They come from xxHash's own implementation.
        assert_eq!(
            of(&[]).to_string(),
            "0 rows, 00000000000000000000000000000000"
        );
        assert_eq!(
            of(&[b""]).to_string(),
            "1 rows, 293a41e843db4a21e0b8dc0b317fe9cc"
        );
        assert_eq!(
            of(&[b"1\tfirst"]).to_string(),
            "1 rows, ca3e88b115065c1aaa342076f508048b"
        );
        assert_eq!(
            of(&[&[b'x'; 500], b"\\N"]).to_string(),
            "2 rows, a4a23b2363e8b4180f438228d977f0a7"
        );
    }

    #[test]
    fn equal_rows_do_not_cancel_out() {
        assert_ne!(of(&[b"a", b"a"]).hash(), of(&[]).hash());
        assert_ne!(of(&[b"a", b"a"]).hash(), of(&[b"b", b"b"]).hash());
        assert_ne!(of(&[b""]), of(&[]));
    }

    #[test]
    fn json_round_trip_and_refusals() {
        let census = of(&[b"1\tfirst", b"2\tsecond"]);
        let json = serde_json::to_string(&census).unwrap();
        assert!(json.starts_with("{\"rows\":2,\"hash\":\""), "{json}");
        assert_eq!(serde_json::from_str::<RowCensus>(&json).unwrap(), census);
        for hash in [
            "",
            "12",
            "+1111111111111111111111111111111",
            "g1111111111111111111111111111111",
        ] {
            let json = format!("{{\"rows\":2,\"hash\":\"{hash}\"}}");
            assert!(serde_json::from_str::<RowCensus>(&json).is_err(), "{hash}");
        }
    }

    proptest! {
        #[test]
        fn neither_order_nor_cut_matter(
            rows in proptest::collection::vec("[ -~]{0,40}", 0..30),
            cut in 0usize..30,
            seed in any::<u64>(),
        ) {
            let whole: RowCensus = of(&rows.iter().map(String::as_bytes).collect::<Vec<_>>());
            let mut shuffled = rows.clone();
            shuffled.sort_by_key(|row| xxhash_rust::xxh3::xxh3_64_with_seed(row.as_bytes(), seed));
            let (a, b) = shuffled.split_at(cut.min(rows.len()));
            let part = |rows: &[String]| {
                let mut census = RowCensus::EMPTY;
                census.add_lines(rows.iter().map(|row| format!("{row}\n")).collect::<String>().as_bytes());
                census
            };
            prop_assert_eq!([part(a), part(b)].into_iter().sum::<RowCensus>(), whole);
        }

        #[test]
        fn one_byte_matters(row in proptest::collection::vec(any::<u8>(), 1..400), at in 0usize..400, bit in 0u8..8) {
            let mut other = row.clone();
            let at = at % row.len();
            other[at] ^= 1 << bit;
            prop_assert_ne!(of(&[&row]).hash(), of(&[&other]).hash());
        }
    }
}
