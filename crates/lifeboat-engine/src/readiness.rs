//! What `check` asks before anything is at stake: would a backup be able to read everything?
//!
//! A backup finds the same out by itself, and refuses; this room exists so that it can be known at noon and
//! not at three in the morning. Facts only.

use lifeboat_pg::{Connection, PgError};

/// What the role may not read, by name (`schema.name`). A backup fails on each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// Tables without the right to SELECT, or in a schema without USAGE.
    pub tables: Vec<String>,
    /// Sequences without the right to SELECT.
    pub sequences: Vec<String>,
    /// Tables whose row security hides rows from the role.
    pub row_security: Vec<String>,
    /// How many large objects the role neither owns nor was granted.
    pub large_objects: u64,
}

impl Unreadable {
    /// Whether the role can read everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Asks the server, for the database of this connection and the role of this session.
    ///
    /// # Errors
    /// The connection's.
    pub fn gather(connection: &mut Connection) -> Result<Self, PgError> {
        let mut found = Self::default();
        for row in connection.query(RELATIONS)?.iter() {
            let name = format!("{}.{}", row.value("schema")?, row.value("name")?);
            match (row.bool("readable")?, row.bool("is_sequence")?) {
                (false, true) => found.sequences.push(name),
                (false, false) => found.tables.push(name),
                (true, _) if row.bool("hidden")? => found.row_security.push(name),
                (true, _) => {}
            }
        }
        let rows = connection.query(LARGE_OBJECTS)?;
        if let Some(row) = rows.first() {
            found.large_objects = row.parse("count")?;
        }
        Ok(found)
    }
}

/// Relations with data that `pg_dump` would dump: no temporary ones, none of the system's, none that only
/// an extension owns (`selectDumpableTable` in `pg_dump.c`).
const RELATIONS: &str = "
SELECT n.nspname AS schema, c.relname AS name, c.relkind = 'S' AS is_sequence,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       AND CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                          ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END AS readable,
       c.relkind <> 'S' AND pg_catalog.row_security_active(c.oid) AS hidden
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
 ORDER BY 1, 2";

/// Large objects that are neither the role's nor granted to it or to everybody.
const LARGE_OBJECTS: &str = "
SELECT pg_catalog.count(*) AS count
  FROM pg_catalog.pg_largeobject_metadata m
 WHERE NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) a
                    WHERE a.privilege_type = 'SELECT'
                      AND CASE a.grantee WHEN 0 THEN true ELSE pg_catalog.pg_has_role(a.grantee, 'USAGE') END)
   AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)";
