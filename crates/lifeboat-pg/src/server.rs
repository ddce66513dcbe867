//! What a server is and holds, as far as a backup or a restore must know in advance.
//!
//! Facts only: nothing here judges. Works for any role that may connect; what a role may not see is
//! `None`, never an error.

use jiff::Timestamp;

use crate::wire::{Connection, PgError, Row, quote_literal};

/// A server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// `server_version_num`: 150018 for 15.18.
    pub number: u32,
    /// `server_version`, with whatever a distribution added: `15.18 (Debian 15.18-0+deb12u1)`.
    pub text: String,
}

impl ServerVersion {
    /// The major version: 15. Before 10 the first two numbers made a major; those give 9.
    pub fn major(&self) -> u32 {
        self.number / 10_000
    }

    /// The minor version: 18 of 15.18.
    pub fn minor(&self) -> u32 {
        if self.major() >= 10 {
            self.number % 10_000
        } else {
            self.number % 100
        }
    }
}

impl std::fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text.split_whitespace().next().unwrap_or(&self.text))
    }
}

/// Who sorts the database's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocaleProvider {
    /// The C library, whose order changes with the operating system.
    Libc,
    /// ICU.
    Icu,
    /// PostgreSQL itself (17 and newer).
    Builtin,
}

/// How the database sorts and classifies text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collation {
    /// `UTF8`, `SQL_ASCII`, …
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Always `Libc` before 15.
    pub provider: LocaleProvider,
    /// The ICU or built-in locale, where such a provider is used.
    pub locale: Option<String>,
    /// The library's version when the database was made.
    pub recorded_version: Option<String>,
    /// The library's version now; when it differs, indexes on text may be out of order.
    pub actual_version: Option<String>,
}

/// One installed extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The schema of its objects.
    pub schema: String,
}

/// The one we are logged in as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFacts {
    /// `session_user`.
    pub name: String,
    /// May do anything.
    pub is_superuser: bool,
    /// May make databases.
    pub can_create_databases: bool,
    /// May make roles.
    pub can_create_roles: bool,
    /// Is not subject to row-level security.
    pub bypasses_rls: bool,
    /// Belongs to `pg_read_all_data`, which lets a backup read every table (14 and newer).
    pub reads_all_data: bool,
    /// May read `pg_authid`, as a complete `pg_dumpall --globals-only` needs.
    pub sees_role_passwords: bool,
}

/// The database that we are connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// Its object id, which tells it from a later one of the same name.
    pub oid: u32,
    /// The role it belongs to.
    pub owner: String,
    /// Whether that is, or includes, our role.
    pub is_ours: bool,
    /// `pg_database_size`; `None` without the right to ask.
    pub size_bytes: Option<u64>,
    /// How it sorts.
    pub collation: Collation,
    /// How many sessions it takes at once; `None` is without limit.
    pub connection_limit: Option<u32>,
    /// What is installed in it, by name.
    pub extensions: Vec<Extension>,
}

/// Everything about a server that is gathered before a plan is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version.
    pub version: ServerVersion,
    /// Identifies the cluster for its whole life; `None` where the role may not ask.
    pub system_identifier: Option<u64>,
    /// Whether it is a standby: it can be read, and exports snapshots, but takes no writes.
    pub in_recovery: bool,
    /// Whether sessions are read-only by default.
    pub is_read_only: bool,
    /// Its clock, at the start of the gathering.
    pub server_time: Timestamp,
    /// Since when it runs.
    pub started_at: Option<Timestamp>,
    /// The one we are.
    pub role: RoleFacts,
    /// Where we are.
    pub database: DatabaseFacts,
    /// `max_connections` less the reserved ones, and how many sessions there are now.
    pub connections: Connections,
    /// Settings that matter to a backup or a restore, those that the server has.
    pub settings: Vec<(String, String)>,
}

/// How full the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// `max_connections`.
    pub limit: u32,
    /// Kept for superusers.
    pub reserved: u32,
    /// Client sessions at this moment, ours included.
    pub in_use: u32,
}

impl Connections {
    /// How many more an ordinary role could open.
    pub fn free(&self) -> u32 {
        self.limit
            .saturating_sub(self.reserved)
            .saturating_sub(self.in_use)
    }
}

/// Settings that are gathered.
const SETTINGS: [&str; 16] = [
    "archive_mode",
    "autovacuum",
    "block_size",
    "data_checksums",
    "data_directory",
    "default_table_access_method",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "maintenance_work_mem",
    "max_wal_size",
    "max_worker_processes",
    "server_encoding",
    "shared_buffers",
    "statement_timeout",
    "transaction_timeout",
    "wal_level",
];

impl ServerFacts {
    /// Asks the server. A handful of catalog queries; nothing is locked or changed.
    ///
    /// # Errors
    /// The connection's, or [`PgError::Column`] from something that only resembles PostgreSQL.
    pub fn gather(connection: &mut Connection) -> Result<ServerFacts, PgError> {
        let number = connection.query("SHOW server_version_num")?;
        let number: u32 = number
            .first()
            .ok_or_else(missing)?
            .parse("server_version_num")?;
        let basics = connection.query(BASICS)?;
        let basics = basics.first().ok_or_else(missing)?;
        Ok(ServerFacts {
            version: ServerVersion {
                number,
                text: basics.value("version")?.to_owned(),
            },
            system_identifier: system_identifier(connection)?,
            in_recovery: basics.bool("in_recovery")?,
            is_read_only: basics.value("read_only")? == "on",
            server_time: timestamp(&basics, "now")?,
            started_at: basics.get("started").and_then(|text| parse_time(text).ok()),
            role: role(connection)?,
            database: database(connection, number)?,
            connections: Connections {
                limit: basics.parse("max_connections")?,
                reserved: basics.parse("reserved")?,
                in_use: basics.parse("in_use")?,
            },
            settings: settings(connection)?,
        })
    }

    /// One of the gathered settings.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

const BASICS: &str = "SELECT pg_catalog.current_setting('server_version') AS version, \
     pg_catalog.pg_is_in_recovery() AS in_recovery, \
     pg_catalog.current_setting('default_transaction_read_only') AS read_only, \
     extract(epoch FROM pg_catalog.clock_timestamp())::numeric AS now, \
     extract(epoch FROM pg_catalog.pg_postmaster_start_time())::numeric AS started, \
     pg_catalog.current_setting('max_connections') AS max_connections, \
     pg_catalog.current_setting('superuser_reserved_connections')::int \
       + coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0) AS reserved, \
     (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity \
       WHERE backend_type = 'client backend') AS in_use";

fn role(connection: &mut Connection) -> Result<RoleFacts, PgError> {
    // The name is looked up, not assumed: pg_read_all_data is new in 14.
    let rows = connection.query(
        "SELECT r.rolname, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolbypassrls, \
         coalesce((SELECT pg_catalog.pg_has_role(r.oid, a.oid, 'USAGE') \
           FROM pg_catalog.pg_roles a WHERE a.rolname = 'pg_read_all_data'), false) AS reads_all, \
         pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS sees_passwords \
         FROM pg_catalog.pg_roles r WHERE r.rolname = session_user",
    )?;
    let row = rows.first().ok_or_else(missing)?;
    Ok(RoleFacts {
        name: row.value("rolname")?.to_owned(),
        is_superuser: row.bool("rolsuper")?,
        can_create_databases: row.bool("rolcreatedb")?,
        can_create_roles: row.bool("rolcreaterole")?,
        bypasses_rls: row.bool("rolbypassrls")?,
        reads_all_data: row.bool("reads_all")?,
        sees_role_passwords: row.bool("sees_passwords")?,
    })
}

fn database(connection: &mut Connection, version: u32) -> Result<DatabaseFacts, PgError> {
    // Column names by version: src/include/catalog/pg_database.h of each.
    let (provider, locale) = match version {
        170_000.. => ("datlocprovider", "datlocale"),
        150_000.. => ("datlocprovider", "daticulocale"),
        _ => ("'c'", "NULL::text"),
    };
    let (recorded, actual) = match version {
        150_000.. => (
            "datcollversion",
            "pg_catalog.pg_database_collation_actual_version(oid)",
        ),
        _ => ("NULL::text", "NULL::text"),
    };
    let rows = connection.query(&format!(
        "SELECT datname, oid, pg_catalog.pg_get_userbyid(datdba) AS owner, \
         pg_catalog.pg_has_role(datdba, 'USAGE') AS ours, datconnlimit, \
         pg_catalog.pg_encoding_to_char(encoding) AS encoding, datcollate, datctype, \
         {provider} AS provider, {locale} AS locale, {recorded} AS recorded, {actual} AS actual, \
         CASE WHEN pg_catalog.has_database_privilege(oid, 'CONNECT') \
           THEN pg_catalog.pg_database_size(oid) END AS size \
         FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
    ))?;
    let row = rows.first().ok_or_else(missing)?;
    let text = |column: &str| row.value(column).map(str::to_owned);
    let optional = |column: &str| row.get(column).map(str::to_owned);
    let collation = Collation {
        encoding: text("encoding")?,
        collate: text("datcollate")?,
        ctype: text("datctype")?,
        provider: match row.value("provider")? {
            "i" => LocaleProvider::Icu,
            "b" => LocaleProvider::Builtin,
            _ => LocaleProvider::Libc,
        },
        locale: optional("locale"),
        recorded_version: optional("recorded"),
        actual_version: optional("actual"),
    };
    let limit: i64 = row.parse("datconnlimit")?;
    let facts = DatabaseFacts {
        name: text("datname")?,
        oid: row.parse("oid")?,
        owner: text("owner")?,
        is_ours: row.bool("ours")?,
        size_bytes: row.get("size").and_then(|size| size.parse().ok()),
        collation,
        connection_limit: u32::try_from(limit).ok(),
        extensions: Vec::new(),
    };
    Ok(DatabaseFacts {
        extensions: extensions(connection)?,
        ..facts
    })
}

fn extensions(connection: &mut Connection) -> Result<Vec<Extension>, PgError> {
    let rows = connection.query(
        "SELECT e.extname, e.extversion, n.nspname FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY e.extname",
    )?;
    let extension = |row: Row<'_>| {
        Ok(Extension {
            name: row.value("extname")?.to_owned(),
            version: row.value("extversion")?.to_owned(),
            schema: row.value("nspname")?.to_owned(),
        })
    };
    rows.iter().map(extension).collect()
}

/// Asking without the right would fail, and inside a transaction that would spoil it: so the right is
/// looked up first.
fn system_identifier(connection: &mut Connection) -> Result<Option<u64>, PgError> {
    let allowed = connection.query(
        "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') AS may",
    )?;
    if allowed.value("may")? != "t" {
        return Ok(None);
    }
    let rows =
        connection.query("SELECT system_identifier AS id FROM pg_catalog.pg_control_system()")?;
    // Stored unsigned, shown as a signed bigint.
    let signed: Option<i64> = rows.value("id")?.parse().ok();
    Ok(signed.map(i64::cast_unsigned))
}

fn settings(connection: &mut Connection) -> Result<Vec<(String, String)>, PgError> {
    let names: Vec<String> = SETTINGS.iter().map(|name| quote_literal(name)).collect();
    // Through the view, which hides from a role what it may not read; asking directly would fail.
    let rows = connection.query(&format!(
        "SELECT name, pg_catalog.current_setting(name, true) AS value \
         FROM pg_catalog.pg_settings WHERE name IN ({}) ORDER BY name",
        names.join(", ")
    ))?;
    let pair = |row: Row<'_>| Some((row.get("name")?.to_owned(), row.get("value")?.to_owned()));
    Ok(rows.iter().filter_map(pair).collect())
}

fn missing() -> PgError {
    PgError::protocol("an empty answer to a catalog query")
}

fn timestamp(row: &Row<'_>, column: &str) -> Result<Timestamp, PgError> {
    parse_time(row.value(column)?).map_err(|()| PgError::Column {
        column: column.to_owned(),
    })
}

/// Seconds since 1970 with a fraction, as `extract(epoch …)` gives them.
fn parse_time(text: &str) -> Result<Timestamp, ()> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds: i64 = seconds.parse().map_err(|_| ())?;
    let micros: i64 = format!("{fraction:0<6.6}").parse().map_err(|_| ())?;
    Timestamp::from_microsecond(seconds * 1_000_000 + micros).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{ServerVersion, parse_time};

    #[test]
    fn versions_come_apart() {
        let version = ServerVersion {
            number: 150_018,
            text: "15.18 (Debian 15.18-0+deb12u1)".into(),
        };
        assert_eq!(
            (
                version.major(),
                version.minor(),
                version.to_string().as_str()
            ),
            (15, 18, "15.18")
        );
        let version = ServerVersion {
            number: 90_624,
            text: "9.6.24".into(),
        };
        assert_eq!((version.major(), version.minor()), (9, 24));
    }

    #[test]
    fn times_keep_their_microseconds() {
        for (text, wanted) in [
            ("1700000000.5", "2023-11-14T22:13:20.5Z"),
            ("1700000000.000001", "2023-11-14T22:13:20.000001Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
        ] {
            assert_eq!(
                parse_time(text).map(|time| time.to_string()).as_deref(),
                Ok(wanted)
            );
        }
        assert_eq!(parse_time("soon"), Err(()));
    }
}
