//! What a server tells about a database that is about to be restored into.

use std::fmt;

use lifeboat_pg::wire::{Connection, PgError, quote_literal};

/// A session in a database that should have none.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LiveConnection {
    /// Its server process.
    pub pid: i32,
    /// Its user.
    pub user: String,
    /// Its `application_name`, which may be empty.
    pub application: String,
}

impl fmt::Display for LiveConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.application.is_empty() {
            write!(f, "{} (pid {})", self.user, self.pid)
        } else {
            write!(
                f,
                "{} as {} (pid {})",
                self.application, self.user, self.pid
            )
        }
    }
}

/// Whether a database of this name exists.
pub(super) fn exists(connection: &mut Connection, name: &str) -> Result<bool, PgError> {
    let sql = format!(
        "SELECT 1 FROM pg_catalog.pg_database WHERE datname = {}",
        quote_literal(name)
    );
    Ok(!connection.query(&sql)?.is_empty())
}

/// The client sessions in the connection's database, without our own.
pub(super) fn live_connections(
    connection: &mut Connection,
) -> Result<Vec<LiveConnection>, PgError> {
    let rows = connection.query(
        "SELECT pid, coalesce(usename, '') AS usename, coalesce(application_name, '') AS application \
         FROM pg_catalog.pg_stat_activity \
         WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() \
           AND backend_type = 'client backend' ORDER BY pid",
    )?;
    Ok(rows
        .iter()
        .map(|row| LiveConnection {
            pid: row.get("pid").and_then(|pid| pid.parse().ok()).unwrap_or(0),
            user: row.get("usename").unwrap_or_default().to_owned(),
            application: row.get("application").unwrap_or_default().to_owned(),
        })
        .collect())
}

/// How many tables, views and sequences of users the connection's database holds.
///
/// What belongs to an extension does not count: `CREATE EXTENSION` in `template1` must not make every new
/// database look used.
pub(super) fn user_tables(connection: &mut Connection) -> Result<u64, PgError> {
    let rows = connection.query(
        "SELECT count(*) AS n FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
           AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
           AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
                           WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                             AND d.objid = c.oid AND d.deptype = 'e')",
    )?;
    Ok(first(&rows, "n").and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// One column of the first row.
pub(super) fn first<'r>(rows: &'r lifeboat_pg::wire::Rows, column: &str) -> Option<&'r str> {
    rows.iter().next().and_then(|row| row.get(column))
}
