//! Large objects' content back into objects that `pg_restore` has made.

use std::fmt::Write as _;

use xxhash_rust::xxh3::Xxh3;

use super::rows::{DataSource, LoadFailure, LoadedRows};
use super::{LoadError, Loader};
use crate::dump::large_object_row;
use crate::wire::PgError;

/// Content sent with one statement. As hex it takes twice as much.
const PIECE_BYTES: usize = 512 * 1024;

impl Loader {
    /// Writes the content of one large object, which must exist and be empty. The census counts it as the dump
    /// does, one row per object.
    ///
    /// # Errors
    /// The server's or the source's.
    pub fn load_large_object<S: DataSource>(
        &mut self,
        oid: u32,
        mut source: S,
    ) -> Result<LoadedRows, LoadFailure<S::Error>> {
        let mut hash = Xxh3::new();
        let mut loaded = LoadedRows::default();
        while let Some(bytes) = source.next().map_err(LoadFailure::Source)? {
            hash.update(bytes);
            for piece in bytes.chunks(PIECE_BYTES) {
                self.put(oid, loaded.bytes, piece)?;
                loaded.bytes += piece.len() as u64;
            }
        }
        let row = large_object_row(oid, loaded.bytes, hash.digest128());
        loaded.census.add_row(row.as_bytes());
        Ok(loaded)
    }

    fn put(&mut self, oid: u32, offset: u64, piece: &[u8]) -> Result<(), LoadError> {
        let mut sql = String::with_capacity(piece.len() * 2 + 80);
        let _ = write!(sql, "SELECT pg_catalog.lo_put({oid}, {offset}, '\\x");
        sql.push_str(&hex::encode(piece));
        sql.push_str("')");
        self.connection
            .query(&sql)
            .map(drop)
            .map_err(|source| match source {
                PgError::Interrupted => LoadError::Interrupted,
                source => LoadError::LargeObject { oid, source },
            })
    }
}
