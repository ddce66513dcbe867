//! The TOC's entries with data, matched with what the server says about them.

use std::collections::HashMap;

use crate::archive::{Archive, DumpId, TocEntry};

use super::error::DumpError;
use super::tables::{TableFacts, TableKind, TableName, Tables};

/// A TOC entry whose data is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpEntry {
    /// The entry's number.
    pub dump_id: DumpId,
    /// What its data is.
    pub kind: EntryKind,
}

/// What an entry's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// `TABLE DATA`: the rows of a table.
    Table {
        /// The table that they are read from.
        table: TableFacts,
        /// The partitioned table that they are loaded into, where that is not the table itself: partitions
        /// by the hash of an enum, whose hashes are not the same in the next database. Their rows may land
        /// in sibling partitions, so only the censuses of all entries with the same root, added up, can be
        /// compared.
        root: Option<TableName>,
    },
    /// `BLOBS`: large objects.
    LargeObjects {
        /// Ascending.
        oids: Vec<u32>,
        /// About how many bytes they take.
        bytes: u64,
    },
}

/// Tables that the TOC wants to have dumped and that `tables` does not know. Normally none.
pub(super) fn unknown_tables(archive: &Archive, tables: &Tables) -> Vec<u32> {
    let wanted = archive
        .data_entries()
        .filter(|entry| entry.is("TABLE DATA"))
        .map(|entry| entry.oid);
    wanted.filter(|oid| !tables.contains_key(oid)).collect()
}

/// Matches every entry with data to its source. An entry that nobody could fill would be a table restored
/// empty, so anything that does not fit is an error.
pub(super) fn resolve(
    archive: &Archive,
    tables: &Tables,
    blob_bytes: u64,
) -> Result<Vec<DumpEntry>, DumpError> {
    let blobs_total = blob_lists(archive)
        .values()
        .map(Vec::len)
        .sum::<usize>()
        .max(1) as u128;
    archive
        .data_entries()
        .map(|entry| {
            let kind = if entry.is("TABLE DATA") {
                table_of(entry, tables)?
            } else if entry.is("BLOBS") {
                let oids = blobs_of(archive, entry);
                let bytes = (u128::from(blob_bytes) * oids.len() as u128 / blobs_total) as u64;
                EntryKind::LargeObjects { oids, bytes }
            } else {
                return Err(DumpError::Toc {
                    what: format!("cannot read the data of {}", entry.describe()),
                });
            };
            Ok(DumpEntry {
                dump_id: entry.dump_id,
                kind,
            })
        })
        .collect()
}

fn table_of(entry: &TocEntry, tables: &Tables) -> Result<EntryKind, DumpError> {
    let unfit = |why: &str| DumpError::Toc {
        what: format!("{}: {why}", entry.describe()),
    };
    let table = tables
        .get(&entry.oid)
        .ok_or_else(|| unfit("the server knows no such table"))?;
    if table.kind != TableKind::Ordinary {
        return Err(unfit("not a table with rows of its own"));
    }
    // pg_dump and we must agree on the columns, or the restore would put values into the wrong ones. In
    // another encoding than UTF-8 the statement may not be readable here; then the catalog has the word.
    if let Ok(Some(target)) = entry.copy_columns() {
        if target.column_names() != table.columns {
            return Err(unfit("its columns are not those that the server lists"));
        }
        let into = target.schema.map(|schema| TableName {
            schema,
            name: target.table,
        });
        let root = into.filter(|into| *into != table.name);
        return Ok(EntryKind::Table {
            table: table.clone(),
            root,
        });
    }
    Ok(EntryKind::Table {
        table: table.clone(),
        root: None,
    })
}

/// The OIDs that each entry defining large objects makes. Up to PostgreSQL 16 there is one `BLOB` per
/// object; from 17 on a `BLOB METADATA` for a group, whose definition lists the OIDs line by line
/// (`dumpLO` in `pg_dump.c`).
fn blob_lists(archive: &Archive) -> HashMap<DumpId, Vec<u32>> {
    let mut lists = HashMap::new();
    for entry in &archive.entries {
        if entry.is("BLOB") {
            lists.insert(entry.dump_id, vec![entry.oid]);
        } else if entry.is("BLOB METADATA") {
            let text = entry
                .defn
                .as_ref()
                .map(|defn| defn.lossy())
                .unwrap_or_default();
            lists.insert(
                entry.dump_id,
                text.lines()
                    .filter_map(|line| line.trim().parse().ok())
                    .collect(),
            );
        }
    }
    lists
}

fn blobs_of(archive: &Archive, entry: &TocEntry) -> Vec<u32> {
    let lists = blob_lists(archive);
    let grouped: Vec<u32> = entry
        .dependencies
        .iter()
        .filter_map(|id| lists.get(id))
        .flatten()
        .copied()
        .collect();
    // The single BLOBS entry of the old layout depends on nothing.
    let mut oids = if grouped.is_empty() {
        lists.into_values().flatten().collect()
    } else {
        grouped
    };
    oids.sort_unstable();
    oids
}
