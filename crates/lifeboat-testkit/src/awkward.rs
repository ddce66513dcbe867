//! A deliberately awkward database, and what has to be the same after a round trip.
//!
//! The fixtures are plain SQL: `fixtures/awkward.sql` runs on every supported major, `awkward-14.sql` and its
//! siblings add what each later one brought, `awkward-many.sql` adds two thousand small tables.
//!
//! ```no_run
//! # use lifeboat_testkit::{TestServer, awkward};
//! let server = TestServer::shared();
//! let before = awkward::load(server);
//! let after = server.database("restored");
//! // … back up `before`, restore into `after` …
//! let differences = awkward::fingerprint(server, before.name())
//!     .differences(&awkward::fingerprint(server, after.name()));
//! assert!(differences.is_empty(), "{}", differences.join("\n"));
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::database::TestDatabase;
use crate::server::TestServer;
use crate::sql;

const EVERY_MAJOR: &str = include_str!("../fixtures/awkward.sql");
const MANY: &str = include_str!("../fixtures/awkward-many.sql");
const SINCE: [(u32, &str); 5] = [
    (14, include_str!("../fixtures/awkward-14.sql")),
    (15, include_str!("../fixtures/awkward-15.sql")),
    (16, include_str!("../fixtures/awkward-16.sql")),
    (17, include_str!("../fixtures/awkward-17.sql")),
    (18, include_str!("../fixtures/awkward-18.sql")),
];

/// A new database with everything in it that the server's major can have, but for the many small tables.
pub fn load(server: &TestServer) -> TestDatabase<'_> {
    let database = server.database_with("awkward", "TEMPLATE template0 ENCODING 'UTF8'");
    database.sql(EVERY_MAJOR);
    for (major, fixture) in SINCE {
        if server.major() >= major {
            database.sql(fixture);
        }
    }
    database
}

/// Adds a schema `many` with two thousand small tables, every fourth of them empty.
pub fn load_many(database: &TestDatabase<'_>) {
    database.sql(MANY);
}

/// What a round trip has to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Stock `pg_dump -s`, without the lines that differ from run to run or name a version.
    pub schema: String,
    /// By qualified name: number of rows and a sum of their hashes, whatever their order. Tables, populated
    /// materialized views; a partitioned table in place of its partitions where rows may move between them.
    pub rows: BTreeMap<String, String>,
    /// By qualified name: last value and whether it was called.
    pub sequences: BTreeMap<String, String>,
    /// By identifier: owner, privileges, comment, hash of the content.
    pub large_objects: BTreeMap<String, String>,
    /// What belongs to the database itself: comment, privileges, settings. Not compared by
    /// [`Fingerprint::differences`], since a restore into a database of the caller's leaves that one's alone.
    pub database: String,
}

impl Fingerprint {
    /// What differs, one line each, schema first; empty when nothing does.
    pub fn differences(&self, after: &Fingerprint) -> Vec<String> {
        let mut found = Vec::new();
        if self.schema != after.schema {
            let before: BTreeSet<&str> = self.schema.lines().collect();
            let now: BTreeSet<&str> = after.schema.lines().collect();
            found.extend(
                before
                    .difference(&now)
                    .map(|line| format!("schema - {line}")),
            );
            found.extend(
                now.difference(&before)
                    .map(|line| format!("schema + {line}")),
            );
            if found.is_empty() {
                found.push("schema: the same lines in another order".into());
            }
        }
        for (what, before, now) in [
            ("rows of", &self.rows, &after.rows),
            ("sequence", &self.sequences, &after.sequences),
            ("large object", &self.large_objects, &after.large_objects),
        ] {
            let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            found.extend(
                names
                    .into_iter()
                    .filter(|name| before.get(*name) != now.get(*name))
                    .map(|name| {
                        let side = |map: &BTreeMap<String, String>| {
                            map.get(name).map_or("missing".to_owned(), Clone::clone)
                        };
                        format!(
                            "{what} {name}: {} before, {} after",
                            side(before),
                            side(now)
                        )
                    }),
            );
        }
        found
    }
}

/// The fingerprint of a database, taken with stock pg_dump and psql.
pub fn fingerprint(server: &TestServer, database: &str) -> Fingerprint {
    Fingerprint {
        schema: schema(server, database),
        rows: keyed(&query(server, database, ROWS)),
        sequences: keyed(&query(server, database, SEQUENCES)),
        large_objects: keyed(&query(server, database, LARGE_OBJECTS)),
        database: query(server, database, DATABASE),
    }
}

fn schema(server: &TestServer, database: &str) -> String {
    let output = Command::new(server.bin_dir().join("pg_dump"))
        .arg("--schema-only")
        .envs(server.tool_env(database))
        .env("PGCLIENTENCODING", "UTF8")
        .output()
        .expect("pg_dump runs");
    assert!(
        output.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("UTF-8, as asked for")
        .lines()
        // A token made anew for each dump, and the versions of server and program.
        .filter(|line| {
            ![
                "\\restrict ",
                "\\unrestrict ",
                "-- Dumped from ",
                "-- Dumped by ",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

fn query(server: &TestServer, database: &str, statements: &str) -> String {
    let script = format!("{SESSION}{statements}");
    sql::run(server, database, &script).unwrap_or_else(|words| panic!("{words}\nin: {statements}"))
}

/// `name|value…` lines.
fn keyed(lines: &str) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for line in lines.lines() {
        let (name, value) = line.split_once('|').expect("a name and a value");
        map.insert(name.to_owned(), value.to_owned());
    }
    map
}

/// What a value looks like as text must not hang on the session or the database's own settings.
const SESSION: &str = "
SET search_path = pg_catalog; SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
SET extra_float_digits = 3; SET bytea_output = 'hex'; SET row_security = off; SET statement_timeout = 0;
";

// Names are written as JSON strings: one line each, whatever is in them. `|` is in none of the fixtures' names.
// Hashes of an enum come from OIDs, so a restore may put rows into other partitions: then the root counts.
const ROWS: &str = r#"
WITH hashed_by_enum AS (
    SELECT p.partrelid AS oid FROM pg_partitioned_table p
    WHERE p.partstrat = 'h' AND EXISTS (
        SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs) AND t.typtype = 'e')
)
SELECT format('SELECT %L, count(*), coalesce(sum((''x'' || left(md5("whole row"::text), 15))::bit(60)::bigint), 0) '
              'FROM %s %I.%I AS "whole row"',
              to_json(format('%I.%I', n.nspname, c.relname)),
              CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY' END, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND (c.relkind = 'r'
       AND NOT EXISTS (SELECT FROM pg_partition_ancestors(c.oid) AS up JOIN hashed_by_enum h ON h.oid = up.relid)
       OR c.relkind = 'm' AND c.relispopulated
       OR c.relkind = 'p' AND c.oid IN (SELECT oid FROM hashed_by_enum))
\gexec
"#;

const SEQUENCES: &str = r"
SELECT format('SELECT %L, last_value, is_called FROM %I.%I',
              to_json(format('%I.%I', n.nspname, c.relname)), n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND n.nspname !~ '^pg_'
\gexec
";

const LARGE_OBJECTS: &str = "
SELECT oid, pg_get_userbyid(lomowner), lomacl, to_json(obj_description(oid, 'pg_largeobject')), md5(lo_get(oid))
FROM pg_largeobject_metadata ORDER BY oid;
";

const DATABASE: &str = "
SELECT pg_get_userbyid(datdba), datacl, pg_encoding_to_char(encoding), datcollate, datctype,
       shobj_description(oid, 'pg_database')
FROM pg_database WHERE datname = current_database();
SELECT CASE WHEN setrole = 0 THEN 'every role' ELSE pg_get_userbyid(setrole) END, setconfig
FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
WHERE datname = current_database() ORDER BY 1;
";
