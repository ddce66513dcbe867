//! The units of a dump: what one worker reads in one go. A pure choice.

use crate::archive::DumpId;
use crate::wire::quote_ident;

use super::entry::{DumpEntry, EntryKind};
use super::tables::{TableFacts, TableName};

/// Objects in one unit of large objects: enough to make a round trip worth it, few enough to share.
const LARGE_OBJECTS_PER_UNIT: usize = 500;

/// One piece of work for one worker. The units of one entry, in the order of `part`, make up its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpUnit {
    /// The TOC entry that the data belongs to.
    pub dump_id: DumpId,
    /// Which piece of the entry this is, from 0.
    pub part: u32,
    /// How many pieces the entry has.
    pub parts: u32,
    /// What to read.
    pub work: UnitWork,
    /// About how many bytes it takes on the server's disk; for order and progress only.
    pub estimated_bytes: u64,
}

impl DumpUnit {
    /// Whether this is the entry's last piece, after which the data file ends.
    pub fn is_last(&self) -> bool {
        self.part + 1 == self.parts
    }

    /// For people: `public.memes`, `public.memes 2/7`, `large objects 1/3`.
    pub fn describe(&self) -> String {
        let what = match &self.work {
            UnitWork::Table { table, .. } => table.to_string(),
            UnitWork::LargeObjects { .. } => "large objects".to_owned(),
        };
        if self.parts == 1 {
            what
        } else {
            format!("{what} {}/{}", self.part + 1, self.parts)
        }
    }
}

/// What a unit reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitWork {
    /// A table's rows: all of them, or those of a range of blocks.
    Table {
        /// Its OID.
        oid: u32,
        /// Its name.
        table: TableName,
        /// Columns in the order of the data, not quoted.
        columns: Vec<String>,
        /// Which rows.
        rows: RowRange,
    },
    /// Large objects, by OID, ascending.
    LargeObjects {
        /// Which ones.
        oids: Vec<u32>,
    },
}

/// Which rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowRange {
    /// All.
    All,
    /// Those that an extension's condition (SQL, beginning with `WHERE`) calls the user's own.
    Where(String),
    /// Those in blocks from `first` up to, not including, `end`; without `end` up to the last.
    Blocks {
        /// The first block.
        first: u64,
        /// The block after the last.
        end: Option<u64>,
    },
}

/// How a table is read: also the way to read a restored one back.
///
/// The data comes in the encoding named, whatever the session's is; `None` leaves it to the session.
pub fn copy_to_sql(
    table: &TableName,
    columns: &[String],
    rows: &RowRange,
    encoding: Option<&str>,
) -> String {
    let list = columns
        .iter()
        .map(|column| quote_ident(column))
        .collect::<Vec<_>>()
        .join(", ");
    let relation = table.sql();
    let options = encoding
        .map(|name| format!(" WITH (ENCODING {})", crate::wire::quote_literal(name)))
        .unwrap_or_default();
    let source = match rows {
        // "()" is no column list: for a table without columns it is left out.
        RowRange::All if columns.is_empty() => relation,
        RowRange::All => format!("{relation} ({list})"),
        RowRange::Where(condition) => {
            let list = if columns.is_empty() { "*" } else { &list };
            format!("(SELECT {list} FROM {relation} {condition})")
        }
        RowRange::Blocks { first, end } => {
            let end = end
                .map(|end| format!(" AND ctid < '({end},0)'"))
                .unwrap_or_default();
            format!("(SELECT {list} FROM ONLY {relation} WHERE ctid >= '({first},0)'{end})")
        }
    };
    format!("COPY {source} TO STDOUT{options}")
}

/// Cuts the entries into units, the most work first: what is begun last should be short.
///
/// Large heap tables are cut every `slice_blocks` blocks, at the same blocks in every run, so that a part
/// of the table in which nothing changed gives the same bytes again. Not before PostgreSQL 14, where a
/// range of ctids is found by reading the whole table, and not by other access methods.
pub(super) fn plan(entries: &[DumpEntry], server_major: u32, slice_blocks: u64) -> Vec<DumpUnit> {
    let mut units = Vec::new();
    for entry in entries {
        match &entry.kind {
            EntryKind::Table { table, .. } => units.extend(table_units(
                entry.dump_id,
                table,
                server_major,
                slice_blocks,
            )),
            EntryKind::LargeObjects { oids, bytes } => {
                units.extend(blob_units(entry.dump_id, oids, *bytes))
            }
        }
    }
    // Stable: the units of one table stay in order.
    units.sort_by_key(|unit| std::cmp::Reverse(unit.estimated_bytes));
    units
}

fn table_units(
    dump_id: DumpId,
    table: &TableFacts,
    server_major: u32,
    slice_blocks: u64,
) -> Vec<DumpUnit> {
    let slice_blocks = slice_blocks.max(1);
    let cut = server_major >= 14
        && table.heap
        && table.condition.is_none()
        && !table.columns.is_empty()
        && table.blocks > slice_blocks;
    let parts = if cut {
        table.blocks.div_ceil(slice_blocks)
    } else {
        1
    };
    let rows = |part: u64| match &table.condition {
        Some(condition) => RowRange::Where(condition.clone()),
        None if !cut => RowRange::All,
        // The last one is open: rows may have been added after the size was looked up.
        None => RowRange::Blocks {
            first: part * slice_blocks,
            end: (part + 1 < parts).then_some((part + 1) * slice_blocks),
        },
    };
    (0..parts)
        .map(|part| DumpUnit {
            dump_id,
            part: part as u32,
            parts: parts as u32,
            work: UnitWork::Table {
                oid: table.oid,
                table: table.name.clone(),
                columns: table.columns.clone(),
                rows: rows(part),
            },
            estimated_bytes: if cut {
                let blocks = slice_blocks.min(table.blocks - part * slice_blocks);
                (u128::from(table.table_bytes) * u128::from(blocks) / u128::from(table.blocks))
                    as u64
            } else {
                table.table_bytes
            },
        })
        .collect()
}

fn blob_units(dump_id: DumpId, oids: &[u32], bytes: u64) -> Vec<DumpUnit> {
    let parts = oids.len().div_ceil(LARGE_OBJECTS_PER_UNIT) as u32;
    oids.chunks(LARGE_OBJECTS_PER_UNIT)
        .zip(0..)
        .map(|(chunk, part)| DumpUnit {
            dump_id,
            part,
            parts,
            work: UnitWork::LargeObjects {
                oids: chunk.to_vec(),
            },
            estimated_bytes: (u128::from(bytes) * chunk.len() as u128 / oids.len() as u128) as u64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::tables::TableKind;

    fn table(oid: u32, blocks: u64) -> DumpEntry {
        DumpEntry {
            dump_id: oid as i32,
            kind: EntryKind::Table {
                root: None,
                table: TableFacts {
                    oid,
                    name: TableName {
                        schema: "public".into(),
                        name: format!("t{oid}"),
                    },
                    kind: TableKind::Ordinary,
                    heap: true,
                    columns: vec!["a".into(), "B c".into()],
                    blocks,
                    table_bytes: blocks * 8192,
                    total_bytes: blocks * 10_000,
                    condition: None,
                    readable: true,
                    hidden_rows: false,
                },
            },
        }
    }

    fn ranges(units: &[DumpUnit]) -> Vec<String> {
        units
            .iter()
            .map(|unit| match &unit.work {
                UnitWork::Table {
                    rows: RowRange::Blocks { first, end },
                    ..
                } => {
                    format!(
                        "{} {first}..{}",
                        unit.describe(),
                        end.map_or(String::new(), |end| end.to_string())
                    )
                }
                _ => unit.describe(),
            })
            .collect()
    }

    #[test]
    fn big_tables_first_and_cut_at_fixed_blocks() {
        let entries = [table(1, 3), table(2, 250), table(3, 100)];
        let units = plan(&entries, 15, 100);
        assert_eq!(
            ranges(&units),
            [
                "public.t2 1/3 0..100",
                "public.t2 2/3 100..200",
                "public.t3",
                "public.t2 3/3 200..",
                "public.t1"
            ]
        );
        assert_eq!(
            units
                .iter()
                .filter(|unit| unit.dump_id == 2)
                .map(|unit| unit.estimated_bytes)
                .sum::<u64>(),
            250 * 8192
        );
        let last: Vec<bool> = units.iter().map(DumpUnit::is_last).collect();
        assert_eq!(last, [false, false, true, true, true]);
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        let mut columnar = table(1, 250);
        let mut bare = table(2, 250);
        let mut config = table(3, 250);
        for (entry, change) in [
            (
                &mut columnar,
                (|t: &mut TableFacts| t.heap = false) as fn(&mut TableFacts),
            ),
            (&mut bare, |t| t.columns.clear()),
            (&mut config, |t| t.condition = Some("WHERE a > 3".into())),
        ] {
            let EntryKind::Table { table, .. } = &mut entry.kind else {
                unreachable!()
            };
            change(table);
        }
        assert_eq!(plan(&[columnar, bare, config], 15, 100).len(), 3);
        assert_eq!(
            plan(&[table(4, 250)], 13, 100).len(),
            1,
            "no ctid ranges before 14"
        );
        assert_eq!(
            plan(&[table(5, 2)], 15, 0).len(),
            2,
            "a slice has at least a block"
        );
    }

    #[test]
    fn statements() {
        let table = TableName {
            schema: "Odd".into(),
            name: "a\"b".into(),
        };
        let columns = vec!["x".to_owned(), "Y z".to_owned()];
        let sql = |columns: &[String], rows: RowRange, encoding| {
            copy_to_sql(&table, columns, &rows, encoding)
        };
        assert_eq!(
            sql(&columns, RowRange::All, None),
            r#"COPY "Odd"."a""b" ("x", "Y z") TO STDOUT"#
        );
        assert_eq!(
            sql(&[], RowRange::All, Some("LATIN1")),
            r#"COPY "Odd"."a""b" TO STDOUT WITH (ENCODING 'LATIN1')"#
        );
        assert_eq!(
            sql(
                &columns,
                RowRange::Blocks {
                    first: 5,
                    end: Some(9)
                },
                None
            ),
            r#"COPY (SELECT "x", "Y z" FROM ONLY "Odd"."a""b" WHERE ctid >= '(5,0)' AND ctid < '(9,0)') TO STDOUT"#
        );
        assert_eq!(
            sql(&columns, RowRange::Where("WHERE x > 1".into()), None),
            r#"COPY (SELECT "x", "Y z" FROM "Odd"."a""b" WHERE x > 1) TO STDOUT"#
        );
    }

    #[test]
    fn large_objects_in_groups() {
        let entry = DumpEntry {
            dump_id: 9,
            kind: EntryKind::LargeObjects {
                oids: (1..=1001).collect(),
                bytes: 1001,
            },
        };
        let units = plan(&[entry], 15, 100);
        assert_eq!(
            units.iter().map(DumpUnit::describe).collect::<Vec<_>>(),
            [
                "large objects 1/3",
                "large objects 2/3",
                "large objects 3/3"
            ]
        );
        assert!(matches!(&units[2].work, UnitWork::LargeObjects { oids } if oids == &[1001]));
    }
}
