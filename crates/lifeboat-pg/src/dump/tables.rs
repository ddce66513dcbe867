//! Which tables there are to dump, and what the plan needs to know of each.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::{Connection, PgError, Row, quote_ident};

/// A table's name, not quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its own name.
    pub name: String,
}

impl TableName {
    /// `"schema"."name"`, for SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }
}

/// For people: `schema.name`.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// `pg_class.relkind`, as far as tables with rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// `r`: an ordinary table, a partition, or a child by inheritance.
    Ordinary,
    /// `p`: holds no rows itself.
    Partitioned,
}

/// One table as the snapshot sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// `pg_class.oid`: names change, this does not.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// Its kind.
    pub kind: TableKind,
    /// Whether its access method is `heap`, whose ctids follow the order of the file.
    pub heap: bool,
    /// The columns that a dump holds, in order, not quoted: neither dropped nor generated ones.
    pub columns: Vec<String>,
    /// Blocks of the main fork.
    pub blocks: u64,
    /// Bytes with TOAST, without indexes: `pg_table_size`.
    pub table_bytes: u64,
    /// Bytes with TOAST and indexes: `pg_total_relation_size`.
    pub total_bytes: u64,
    /// For a configuration table of an extension: the condition on the rows that are the user's own, as
    /// given to `pg_extension_config_dump`. The rest comes with the extension.
    pub condition: Option<String>,
    /// Whether we may read it.
    pub readable: bool,
    /// Whether row security would hide rows from us, which makes reading an error in a dump.
    pub hidden_rows: bool,
}

/// Tables by OID.
pub type Tables = BTreeMap<u32, TableFacts>;

/// What pg_dump would dump: ordinary and partitioned tables, neither temporary nor the system's, nor an
/// extension's unless registered as its configuration (`getTables`, `selectDumpableTable` and
/// `processExtensionTables` in `pg_dump.c`). `also` adds tables that a former attempt missed.
pub(super) fn list(connection: &mut Connection, also: &[u32]) -> Result<Tables, PgError> {
    let also: Vec<String> = also.iter().map(u32::to_string).collect();
    let sql = LIST.replace("$also", &also.join(","));
    let rows = connection.query(&sql)?;
    rows.iter()
        .map(|row| read(&row).map(|table| (table.oid, table)))
        .collect()
}

/// Functions of a table that was dropped meanwhile give NULL: such a table counts as unreadable here.
/// `unnest` of two arrays is syntax, known by its bare name only.
const LIST: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind, coalesce(a.amname = 'heap', false) AS heap, s.condition,
       (SELECT coalesce(pg_catalog.array_to_json(pg_catalog.array_agg(t.attname ORDER BY t.attnum)), '[]')
          FROM pg_catalog.pg_attribute t
         WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped AND t.attgenerated = '') AS columns,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE')
         AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable,
       pg_catalog.row_security_active(c.oid) AS hidden_rows
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
  LEFT JOIN pg_catalog.pg_depend d
    ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
   AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
  LEFT JOIN LATERAL
       (SELECT e.config, e.condition
          FROM pg_catalog.pg_extension x,
               unnest(x.extconfig, x.extcondition) AS e(config, condition)
         WHERE x.oid = d.refobjid AND e.config = c.oid) s ON true
 WHERE (c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
        AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
        AND (d.refobjid IS NULL OR s.config IS NOT NULL)
        OR c.oid = ANY ('{$also}'::pg_catalog.oid[]))
 ORDER BY c.oid";

const SIZES: &str = "
SELECT c.oid, pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint AS blocks,
       pg_catalog.pg_table_size(c.oid) AS table_bytes, pg_catalog.pg_total_relation_size(c.oid) AS total_bytes
  FROM pg_catalog.pg_class c
 WHERE c.relkind = 'r' AND c.oid = ANY ('{$oids}'::pg_catalog.oid[])";

/// Looks up the sizes of tables that are locked already. Not part of [`list`]: to look, the server locks
/// each table itself, and would wait there for whoever has it, without limit.
pub(super) fn measure(connection: &mut Connection, tables: &mut Tables) -> Result<(), PgError> {
    let oids: Vec<String> = tables.keys().map(u32::to_string).collect();
    let rows = connection.query(&SIZES.replace("$oids", &oids.join(",")))?;
    for row in rows.iter() {
        if let Some(table) = tables.get_mut(&row.parse("oid")?) {
            table.blocks = row.parse("blocks")?;
            table.table_bytes = row.parse("table_bytes")?;
            table.total_bytes = row.parse("total_bytes")?;
        }
    }
    Ok(())
}

fn read(row: &Row<'_>) -> Result<TableFacts, PgError> {
    let columns = serde_json::from_str(row.value("columns")?).map_err(|_| PgError::Column {
        column: "columns".into(),
    })?;
    Ok(TableFacts {
        oid: row.parse("oid")?,
        name: TableName {
            schema: row.value("nspname")?.into(),
            name: row.value("relname")?.into(),
        },
        kind: if row.value("relkind")? == "p" {
            TableKind::Partitioned
        } else {
            TableKind::Ordinary
        },
        heap: row.bool("heap")?,
        columns,
        blocks: 0,
        table_bytes: 0,
        total_bytes: 0,
        condition: row
            .get("condition")
            .filter(|text| !text.is_empty())
            .map(str::to_owned),
        readable: row.get("readable") == Some("t"),
        hidden_rows: row.get("hidden_rows") == Some("t"),
    })
}
