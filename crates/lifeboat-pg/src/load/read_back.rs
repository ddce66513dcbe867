//! Reading a restored database back, to see that it holds what the dump held.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::LoadError;
use crate::census::RowCensus;
use crate::conninfo::ConnInfo;
use crate::dump::{CopyFailure, RowRange, TableName, copy_to_sql, read_large_objects, settings};
use crate::wire::{ConnectOptions, Connection, CopyOutError, PgError, SqlState, quote_literal};

/// A session that reads restored tables the way a dump reads them. One per thread.
#[derive(Debug)]
pub struct ReadBack {
    connection: Connection,
    encoding: String,
    server_major: u32,
    knows_the_zone: bool,
}

impl ReadBack {
    /// Connects. `encoding` is the one that the dump's rows were in, and `time_zone` the one their timestamps were
    /// written in, where that was not UTC.
    ///
    /// # Errors
    /// The server's, when it cannot be reached.
    pub fn open(
        conninfo: &ConnInfo,
        encoding: &str,
        time_zone: Option<&str>,
        interrupt: &Arc<AtomicBool>,
    ) -> Result<Self, LoadError> {
        let mut connection = Connection::connect(
            conninfo,
            &ConnectOptions {
                application_name: Some("lifeboat compare".to_owned()),
                interrupt: Arc::clone(interrupt),
                ..ConnectOptions::default()
            },
        )?;
        let rows = connection
            .query("SELECT pg_catalog.current_setting('server_version_num') AS version")?;
        let version: u32 = rows.value("version")?.parse().unwrap_or(0);
        let server_major = version / 10_000;
        settings::apply(&mut connection, server_major)?;
        let mut knows_the_zone = true;
        if let Some(zone) = time_zone {
            match connection.execute(&format!("SET timezone = {}", quote_literal(zone))) {
                Ok(_) => {}
                // A server that does not know the zone can still be compared, but for its timestamps.
                Err(error) if error.sqlstate() == Some(SqlState::INVALID_PARAMETER_VALUE) => {
                    knows_the_zone = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self {
            connection,
            encoding: encoding.to_owned(),
            server_major,
            knows_the_zone,
        })
    }

    /// Whether the server knows the time zone that was asked for. Where not, rows with timestamps read differently
    /// from how they were written, with nothing wrong with them.
    #[must_use]
    pub const fn knows_the_zone(&self) -> bool {
        self.knows_the_zone
    }

    /// Pieces of a table that can be read side by side; one for a table that cannot be cut.
    ///
    /// # Errors
    /// The server's, when there is no such table.
    pub fn pieces(
        &mut self,
        table: &TableName,
        piece_blocks: u64,
    ) -> Result<Vec<RowRange>, LoadError> {
        // Before 14 a range of ctids is found by reading the whole table.
        if self.server_major < 14 {
            return Ok(vec![RowRange::All]);
        }
        let rows = self.connection.query(&format!(
            "SELECT pg_catalog.pg_relation_size(c.oid) \
                    / pg_catalog.current_setting('block_size')::bigint AS blocks \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam \
             WHERE c.oid = {}::pg_catalog.regclass AND c.relkind = 'r' AND a.amname = 'heap'",
            quote_literal(&table.sql())
        ))?;
        let blocks: u64 = rows.first().map_or(Ok(0), |row| row.parse("blocks"))?;
        let piece_blocks = piece_blocks.max(1);
        if blocks <= piece_blocks {
            return Ok(vec![RowRange::All]);
        }
        let count = blocks.div_ceil(piece_blocks);
        Ok((0..count)
            .map(|piece| RowRange::Blocks {
                first: piece * piece_blocks,
                end: (piece + 1 < count).then_some((piece + 1) * piece_blocks),
            })
            .collect())
    }

    /// Counts and hashes rows of a table.
    ///
    /// # Errors
    /// The server's.
    pub fn count(
        &mut self,
        table: &TableName,
        columns: &[String],
        rows: &RowRange,
    ) -> Result<RowCensus, LoadError> {
        let sql = copy_to_sql(table, columns, rows, Some(&self.encoding));
        let mut census = RowCensus::EMPTY;
        let copied =
            self.connection
                .copy_out(&sql, |row: &[u8]| -> Result<(), std::convert::Infallible> {
                    census.add_row(row.strip_suffix(b"\n").unwrap_or(row));
                    Ok(())
                });
        match copied {
            Ok(_) => Ok(census),
            Err(CopyOutError::Pg(PgError::Interrupted)) => Err(LoadError::Interrupted),
            Err(CopyOutError::Pg(source)) => Err(LoadError::Table {
                table: table.to_string(),
                source,
            }),
            Err(CopyOutError::Sink(never)) => match never {},
        }
    }

    /// Counts and hashes all large objects of the database.
    ///
    /// # Errors
    /// The server's.
    pub fn count_large_objects(&mut self) -> Result<RowCensus, LoadError> {
        let rows = self
            .connection
            .query("SELECT oid FROM pg_catalog.pg_largeobject_metadata")?;
        let oids: BTreeSet<u32> = rows
            .iter()
            .map(|row| row.parse("oid"))
            .collect::<Result<_, _>>()?;
        let oids: Vec<u32> = oids.into_iter().collect();
        let mut census = RowCensus::EMPTY;
        self.connection
            .execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
        for group in oids.chunks(500) {
            let read = read_large_objects(&mut self.connection, group, |_, _, _| {
                Ok::<(), std::convert::Infallible>(())
            });
            match read {
                Ok(result) => census += result.census,
                Err(CopyFailure::Dump(error)) => return Err(error.into()),
                Err(CopyFailure::Sink(never)) => match never {},
            }
        }
        self.connection.execute("COMMIT")?;
        Ok(census)
    }
}
