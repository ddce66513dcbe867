//! What a database says about its own schema migrations.
//!
//! Each framework keeps a table of what it has applied. Read in the snapshot of a backup, it says which
//! release of the application the backup belongs to, so that a recovery can tell which migrations are
//! still to come. The room owns the shapes of those tables; it refuses to know the migrations themselves.
//! Invariant: a table that only looks like one, or that cannot be read, never fails or spoils the
//! transaction that it is read in.

mod copied;
mod frameworks;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dump::TableName;
use crate::wire::{Connection, PgError, Row, quote_ident};

pub use copied::{MIGRATION_TABLE_MAX_BYTES, from_copied_rows, is_migration_table};
use frameworks::{KNOWN, Known};

/// Rows read from one table at most, the newest: nobody has more migrations, and a stranger's table of the
/// same shape could have millions of rows.
const ENTRIES_AT_MOST: usize = 10_000;

/// Who keeps the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is a product's name")]
pub enum Framework {
    Prisma,
    Rails,
    Django,
    Flyway,
    Liquibase,
    Alembic,
    Sqlx,
    Diesel,
    Knex,
    TypeOrm,
    Drizzle,
    GolangMigrate,
    Goose,
    /// One that a later version of Lifeboat knew.
    #[serde(other)]
    Other,
}

/// The product's own spelling.
impl fmt::Display for Framework {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Framework::Prisma => "Prisma",
            Framework::Rails => "Rails",
            Framework::Django => "Django",
            Framework::Flyway => "Flyway",
            Framework::Liquibase => "Liquibase",
            Framework::Alembic => "Alembic",
            Framework::Sqlx => "SQLx",
            Framework::Diesel => "Diesel",
            Framework::Knex => "Knex",
            Framework::TypeOrm => "TypeORM",
            Framework::Drizzle => "Drizzle",
            Framework::GolangMigrate => "golang-migrate",
            Framework::Goose => "goose",
            Framework::Other => "another framework",
        })
    }
}

/// What became of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationState {
    /// It ran to its end.
    Applied,
    /// It ran and failed; the framework refuses to go on until somebody decides.
    Failed,
    /// It failed or was undone, and was marked so.
    RolledBack,
    /// It had begun and not ended at the moment of the snapshot: it was running, or died.
    InProgress,
    /// The framework marks the version as half applied.
    Dirty,
}

/// One line of a migration table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationEntry {
    /// What the framework tells migrations apart by: a name or a version.
    pub id: String,
    /// A description, where there is one beside the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The checksum of its source, as the framework writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// When it was applied; begun, if it did not end. Times without a zone are taken for UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<Timestamp>,
    /// What became of it.
    pub state: MigrationState,
}

/// What one migration table says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationHistory {
    /// Who keeps it.
    pub framework: Framework,
    /// The table.
    pub table: TableName,
    /// The newest migration that is applied, by its id; several heads are joined by commas. `None` when
    /// none is.
    pub current: Option<String>,
    /// Whether the framework's own lock was held: a migration was running, or died with it.
    #[serde(default)]
    pub locked: bool,
    /// Why the table could not be read, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Its lines, in the order in which they were applied.
    pub entries: Vec<MigrationEntry>,
}

impl MigrationHistory {
    /// Whether a migration failed or was half applied at the moment of the snapshot: a restore gives back
    /// a schema between two releases.
    #[must_use]
    pub fn has_trouble(&self) -> bool {
        self.locked || self.troubled().next().is_some()
    }

    /// The migrations that failed, or are half applied, or were running.
    pub fn troubled(&self) -> impl Iterator<Item = &MigrationEntry> {
        self.entries.iter().filter(|entry| match entry.state {
            MigrationState::Applied | MigrationState::RolledBack => false,
            MigrationState::Failed | MigrationState::InProgress | MigrationState::Dirty => true,
        })
    }

    /// The ids that count as applied, in order: those not undone later.
    pub fn applied(&self) -> Vec<&str> {
        let mut applied: Vec<&str> = Vec::new();
        for entry in &self.entries {
            match entry.state {
                MigrationState::Applied => applied.push(&entry.id),
                MigrationState::RolledBack => applied.retain(|id| *id != entry.id),
                _ => {}
            }
        }
        applied
    }
}

/// Reads every migration table of the database, in the connection's transaction if it has one: then it
/// must not be a failed one, and stays as it is, whatever happens here.
///
/// # Errors
/// The connection's. That one table cannot be read is told in its history.
pub fn read_migrations(connection: &mut Connection) -> Result<Vec<MigrationHistory>, PgError> {
    if connection.in_transaction() {
        return read_all(connection);
    }
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
    let histories = read_all(connection);
    if !connection.is_closed() {
        connection.execute("ROLLBACK")?;
    }
    histories
}

fn read_all(connection: &mut Connection) -> Result<Vec<MigrationHistory>, PgError> {
    let mut histories = Vec::new();
    for candidate in candidates(connection)? {
        let Some(known) = KNOWN
            .iter()
            .find(|known| known.fits(&candidate.table.name, &candidate.columns))
        else {
            continue;
        };
        histories.push(read_one(connection, known, candidate.table)?);
    }
    Ok(histories)
}

struct Candidate {
    table: TableName,
    columns: Vec<String>,
}

fn candidates(connection: &mut Connection) -> Result<Vec<Candidate>, PgError> {
    let mut names: Vec<String> = KNOWN
        .iter()
        .flat_map(|known| known.tables)
        .map(|name| crate::wire::quote_literal(name))
        .collect();
    names.sort();
    names.dedup();
    let rows = connection.query(&format!(
        "SELECT n.nspname, c.relname,
                (SELECT pg_catalog.array_to_json(pg_catalog.array_agg(a.attname::text ORDER BY a.attname::text))
                   FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.relname IN ({})
            AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
          ORDER BY n.nspname <> 'public', n.nspname, c.relname",
        names.join(", ")
    ))?;
    rows.iter()
        .map(|row| {
            let columns = row.get("columns").unwrap_or("[]");
            Ok(Candidate {
                table: TableName {
                    schema: row.value("nspname")?.into(),
                    name: row.value("relname")?.into(),
                },
                columns: serde_json::from_str(columns).map_err(|_| PgError::Column {
                    column: "columns".into(),
                })?,
            })
        })
        .collect()
}

fn read_one(
    connection: &mut Connection,
    known: &Known,
    table: TableName,
) -> Result<MigrationHistory, PgError> {
    let mut history = MigrationHistory {
        framework: known.framework,
        current: None,
        locked: false,
        unreadable: None,
        entries: Vec::new(),
        table,
    };
    match guarded(
        connection,
        &known.sql(&history.table.sql(), ENTRIES_AT_MOST),
        entry,
    )? {
        Ok(entries) => history.entries = entries,
        Err(error) => history.unreadable = Some(error.to_string()),
    }
    history.entries.reverse();
    if let Some((lock_table, held)) = known.lock {
        let name = lock_table.unwrap_or(&history.table.name);
        let name = if lock_table.is_none() {
            format!("{name}_lock")
        } else {
            name.to_owned()
        };
        let lock = format!(
            "{}.{}",
            quote_ident(&history.table.schema),
            quote_ident(&name)
        );
        // Without the lock's table there is no lock to hold.
        let sql = format!("SELECT 1 AS held FROM {lock} WHERE {held} LIMIT 1");
        history.locked = guarded(connection, &sql, |_| Ok(()))?.is_ok_and(|rows| !rows.is_empty());
    }
    history.current = newest_applied(&history);
    Ok(history)
}

/// The newest migration that is applied, by its id; of Alembic, which keeps nothing else, all heads.
fn newest_applied(history: &MigrationHistory) -> Option<String> {
    let applied = history.applied();
    if history.framework == Framework::Alembic {
        (!applied.is_empty()).then(|| applied.join(", "))
    } else {
        applied.last().map(|id| (*id).to_owned())
    }
}

fn entry(row: Row<'_>) -> Result<MigrationEntry, PgError> {
    let state = match row.value("state")? {
        "applied" => MigrationState::Applied,
        "failed" => MigrationState::Failed,
        "rolled-back" => MigrationState::RolledBack,
        "in-progress" => MigrationState::InProgress,
        _ => MigrationState::Dirty,
    };
    let text = |column: &str| row.get(column).map(str::to_owned);
    let micros = row.get("at").and_then(|at| at.parse().ok());
    Ok(MigrationEntry {
        id: text("id").unwrap_or_default(),
        name: text("name"),
        checksum: text("checksum"),
        applied_at: micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
        state,
    })
}

/// Runs a query that may be refused without ending the transaction it is in. Outer error: the connection's.
fn guarded<T>(
    connection: &mut Connection,
    sql: &str,
    each: impl Fn(Row<'_>) -> Result<T, PgError>,
) -> Result<Result<Vec<T>, PgError>, PgError> {
    connection.execute("SAVEPOINT lifeboat_migrations")?;
    let result = connection.query(sql);
    if connection.is_closed() {
        return result.map(|_| Ok(Vec::new()));
    }
    connection.execute(
        "ROLLBACK TO SAVEPOINT lifeboat_migrations; RELEASE SAVEPOINT lifeboat_migrations",
    )?;
    Ok(result.and_then(|rows| rows.iter().map(&each).collect()))
}
