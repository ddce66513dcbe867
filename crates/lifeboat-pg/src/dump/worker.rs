//! One connection that reads units of a dump inside the leader's snapshot.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::archive::TABLE_DATA_END;
use crate::census::RowCensus;
use crate::wire::{Connection, CopyOutError, PgError, SqlState};

use super::error::{CopyFailure, DumpError};
use super::large_objects;
use super::plan::{DumpUnit, UnitWork, copy_to_sql};
use super::tables::TableName;

/// Rows are handed on in pieces of about this size: small enough to stay in the processor's cache, large
/// enough that the taker's work per call does not count.
const BATCH_BYTES: usize = 128 * 1024;

/// What a unit turned out to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnitResult {
    /// For a table its rows. For large objects one row each, see [`large_objects::row`]
    /// (`oid`, size and content hash).
    pub census: RowCensus,
    /// Bytes handed to the sink.
    pub bytes: u64,
}

/// A connection inside the snapshot. One per thread.
#[derive(Debug)]
pub struct DumpWorker {
    pub(super) connection: Connection,
    pub(super) leader: Arc<Mutex<Connection>>,
    pub(super) encoding: String,
    /// Tables that this connection has locked itself.
    pub(super) locked: HashSet<u32>,
    pub(super) batch: Vec<u8>,
}

impl DumpWorker {
    /// Reads a table's unit: rows in COPY's text format, each with its newline, in whole batches. After
    /// the rows of an entry's last unit comes what ends a data file, `\.` and three newlines as pg_dump
    /// writes it; it belongs to no row.
    ///
    /// A unit of large objects is read with [`DumpWorker::large_objects`]; here it is an error.
    ///
    /// # Errors
    /// Whatever keeps the unit from being whole, with the table's name.
    pub fn copy_out<E>(
        &mut self,
        unit: &DumpUnit,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<UnitResult, CopyFailure<E>> {
        let UnitWork::Table {
            oid,
            table,
            columns,
            rows,
        } = &unit.work
        else {
            return Err(DumpError::LargeObject {
                oid: 0,
                what: "not a table's unit".into(),
            }
            .into());
        };
        let sql = copy_to_sql(table, columns, rows, Some(&self.encoding));
        self.batch.clear();
        let mut result = if self.lock(*oid, table)? {
            copy(
                &mut self.connection,
                &sql,
                table,
                &mut self.batch,
                &mut sink,
            )?
        } else {
            // Somebody waits for a lock that excludes ours, and we would wait behind him while he waits
            // for the leader: for ever. The leader holds the table since before the snapshot, so it reads.
            let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
            copy(&mut leader, &sql, table, &mut self.batch, &mut sink)?
        };
        if unit.is_last() {
            sink(TABLE_DATA_END).map_err(CopyFailure::Sink)?;
            result.bytes += TABLE_DATA_END.len() as u64;
        }
        Ok(result)
    }

    /// Reads large objects, in the order given. `sink` gets each object's OID and its content in pieces;
    /// the last argument is true with an object's last piece. An empty object is one empty piece.
    ///
    /// # Errors
    /// Whatever keeps an object from being whole.
    pub fn large_objects<E>(
        &mut self,
        oids: &[u32],
        sink: impl FnMut(u32, &[u8], bool) -> Result<(), E>,
    ) -> Result<UnitResult, CopyFailure<E>> {
        large_objects::read(&mut self.connection, oids, sink)
    }

    /// Reads one large object.
    ///
    /// # Errors
    /// As [`DumpWorker::large_objects`].
    pub fn large_object<E>(
        &mut self,
        oid: u32,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<UnitResult, CopyFailure<E>> {
        self.large_objects(&[oid], |_, piece, _| sink(piece))
    }

    /// Locks a table for this connection. False if that cannot be had at once.
    fn lock(&mut self, oid: u32, table: &TableName) -> Result<bool, DumpError> {
        if self.locked.contains(&oid) {
            return Ok(true);
        }
        // In a subtransaction, since a refused lock ends the transaction it happens in.
        let sql = format!(
            "SAVEPOINT lifeboat; LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT; RELEASE SAVEPOINT lifeboat",
            table.sql()
        );
        match self.connection.execute(&sql) {
            Ok(_) => {
                self.locked.insert(oid);
                Ok(true)
            }
            Err(error) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => {
                self.connection
                    .execute("ROLLBACK TO SAVEPOINT lifeboat; RELEASE SAVEPOINT lifeboat")?;
                Ok(false)
            }
            Err(error) => Err(table_error(table, error)),
        }
    }
}

/// `lock_not_available`.
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";

fn copy<E>(
    connection: &mut Connection,
    sql: &str,
    table: &TableName,
    batch: &mut Vec<u8>,
    sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<UnitResult, CopyFailure<E>> {
    let mut result = UnitResult::default();
    let copied = connection.copy_out(sql, |row: &[u8]| {
        result
            .census
            .add_row(row.strip_suffix(b"\n").unwrap_or(row));
        result.bytes += row.len() as u64;
        if batch.len() + row.len() > BATCH_BYTES {
            sink(batch)?;
            batch.clear();
            if row.len() >= BATCH_BYTES {
                return sink(row);
            }
        }
        batch.extend_from_slice(row);
        Ok(())
    });
    let stated = match copied {
        Ok(stated) => stated,
        Err(CopyOutError::Sink(error)) => return Err(CopyFailure::Sink(error)),
        Err(CopyOutError::Pg(error)) => return Err(table_error(table, error).into()),
    };
    if !batch.is_empty() {
        sink(batch).map_err(CopyFailure::Sink)?;
        batch.clear();
    }
    let received = result.census.rows();
    if stated != received {
        return Err(DumpError::RowCount {
            table: table.clone(),
            stated,
            received,
        }
        .into());
    }
    Ok(result)
}

pub(super) fn table_error(table: &TableName, source: PgError) -> DumpError {
    let table = table.clone();
    match source.sqlstate() {
        // undefined_table, undefined_column, undefined_object, invalid_schema_name, wrong_object_type
        Some(SqlState::UNDEFINED_TABLE | "42703" | "42704" | "3F000" | "42809") => {
            DumpError::Vanished { table, source }
        }
        Some(SqlState::INSUFFICIENT_PRIVILEGE) => DumpError::Unreadable {
            tables: vec![table],
        },
        _ if matches!(source, PgError::Interrupted) => DumpError::Interrupted,
        _ => DumpError::Table { table, source },
    }
}
