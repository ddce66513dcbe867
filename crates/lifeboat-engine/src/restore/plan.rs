//! Deciding about a restore: which backup, onto what, and whether that is safe. Nothing is changed here.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use lifeboat_pg::archive::{Archive, DropRules, TablePattern};
use lifeboat_pg::conninfo::ConnInfo;
use lifeboat_pg::wire::{ConnectOptions, Connection, PgError, SqlState, quote_ident};

use super::damaged::has_all_rows;
use super::{RestoreError, RestoreRequest, Target, What, target};
use crate::catalog::{Backup, Catalog};
use crate::manifest::{Manifest, TableRecord};

/// What a restore will do. Printable, and the only thing that [`execute`](super::execute) takes.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The backup.
    pub backup: Backup,
    /// Its manifest.
    pub manifest: Manifest,
    /// How old its data is.
    pub age: SignedDuration,
    /// Where to.
    pub target: PlannedTarget,
    /// What is restored of it.
    pub what: What,
    /// The tables whose rows are loaded.
    pub tables: Vec<TableRecord>,
    /// Whether large objects are loaded.
    pub large_objects: bool,
    /// Whether tablespaces are ignored, because the target lacks some of them.
    pub no_tablespaces: bool,
    /// What the operator should know before saying yes.
    pub notes: Vec<String>,
    /// The part of the table of contents that is restored.
    pub(crate) toc: Archive,
}

/// The database that will be restored into.
#[derive(Debug, Clone)]
pub struct PlannedTarget {
    /// A connection to the target database. For a new one it does not exist yet.
    pub conninfo: ConnInfo,
    /// Its name.
    pub database: String,
    /// Whether it is created by the restore.
    pub create: bool,
    /// Whether the objects of the backup are dropped from it first.
    pub clean: bool,
    /// The server's `server_version_num`.
    pub server_version_num: u32,
    /// Whether we are superuser there.
    pub is_superuser: bool,
}

impl RestorePlan {
    /// The name that the operator must type before anything is touched, when something that exists is.
    #[must_use]
    pub fn confirmation(&self) -> Option<&str> {
        (!self.target.create).then_some(self.target.database.as_str())
    }

    /// Rows that will be loaded.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.census.rows()).sum()
    }

    /// Bytes that will be loaded.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables
            .iter()
            .map(|table| table.size_bytes)
            .sum::<u64>()
            + if self.large_objects {
                self.manifest.large_objects.size_bytes
            } else {
                0
            }
    }
}

/// Decides, with the target server's facts, what a restore will do.
///
/// # Errors
/// When the backup cannot be found or read, and every refusal: see [`RestoreError`].
pub fn plan(catalog: &Catalog<'_>, request: &RestoreRequest) -> Result<RestorePlan, RestoreError> {
    let backup = catalog.select(&request.selector, request.database.as_deref())?;
    let manifest = catalog.manifest(&backup)?;
    let toc = catalog.toc(&backup)?;
    // Nothing is touched, not even a question asked, for a backup with a hole in it.
    let check = catalog.repository().check(
        lifeboat_repo::check::CheckScope::Snapshot(&backup.snapshot),
        &request.check_options(),
        &|_| {},
    )?;
    let findings = check.findings;
    let refuse = || match findings.first() {
        Some(finding) => Err(RestoreError::BackupDamaged {
            id: backup.id,
            finding: Box::new(finding.clone()),
        }),
        None => Ok(()),
    };
    let drops = matches!(request.target, Target::Existing { clean: true, .. });
    if request.tables.is_empty() || drops {
        refuse()?;
    }

    let mut notes = Vec::new();
    let (target, server) = plan_target(request, &manifest, &toc, &mut notes)?;
    let (toc, tables) = plan_content(request, &manifest, toc, &server, &mut notes)?;
    if !findings.is_empty() {
        // Tables that were asked for by name may be the ones that are left.
        if !has_all_rows(catalog, &backup, &tables, &findings)? {
            refuse()?;
        }
        notes.push("the backup is damaged, but the tables that were chosen are whole".to_owned());
    }
    Ok(RestorePlan {
        age: request.now.duration_since(backup.time),
        large_objects: request.what != What::SchemaOnly
            && request.tables.is_empty()
            && manifest.large_objects.census.rows() > 0,
        backup,
        manifest,
        target,
        what: request.what,
        tables,
        no_tablespaces: server.no_tablespaces,
        notes,
        toc,
    })
}

/// What the target server told.
struct TargetServer {
    roles: BTreeSet<String>,
    is_superuser: bool,
    no_tablespaces: bool,
}

fn plan_target(
    request: &RestoreRequest,
    manifest: &Manifest,
    toc: &Archive,
    notes: &mut Vec<String>,
) -> Result<(PlannedTarget, TargetServer), RestoreError> {
    let options = request.connect_options();
    let (conninfo, database, create, clean, mut connection) = match &request.target {
        Target::New { server, name } => {
            check_name(name)?;
            let mut connection = connect_to_any(server, &options)?;
            if target::exists(&mut connection, name)? {
                return Err(RestoreError::TargetExists {
                    name: name.clone(),
                    server: server.address(),
                });
            }
            let conninfo = server.with_database(name);
            (conninfo, name.clone(), true, false, connection)
        }
        Target::Existing { conninfo, clean } => {
            let mut connection = Connection::connect(conninfo, &options).map_err(|error| {
                if error.sqlstate() == Some(SqlState::UNKNOWN_DATABASE) {
                    RestoreError::TargetMissing {
                        name: conninfo.database().to_owned(),
                        server: conninfo.address(),
                    }
                } else {
                    error.into()
                }
            })?;
            // What the server calls the database, not what the connection string says: a pooler or a service
            // file may lead elsewhere.
            let rows = connection.query("SELECT pg_catalog.current_database() AS name")?;
            let database = target::first(&rows, "name").unwrap_or_default().to_owned();
            refuse_unsafe(request, &mut connection, &database, *clean)?;
            (conninfo.clone(), database, false, *clean, connection)
        }
    };
    let rows = connection.query(
        "SELECT pg_catalog.current_setting('server_version_num') AS version, \
                pg_catalog.pg_is_in_recovery() AS standby, \
                r.rolsuper, (r.rolsuper OR r.rolcreatedb) AS may_create, r.rolname \
         FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
    )?;
    let is = |column: &str| target::first(&rows, column) == Some("t");
    if is("standby") {
        return Err(RestoreError::Standby {
            server: conninfo.address(),
        });
    }
    if create && !is("may_create") {
        return Err(RestoreError::MayNotCreate {
            role: target::first(&rows, "rolname")
                .unwrap_or_default()
                .to_owned(),
        });
    }
    let server_version_num: u32 = target::first(&rows, "version")
        .and_then(|version| version.parse().ok())
        .unwrap_or(0);
    if server_version_num / 10_000 < manifest.server_major() {
        notes.push(format!(
            "the target runs PostgreSQL {}, older than the {} that the backup came from: some objects may not restore",
            server_version_num / 10_000,
            manifest.server_major()
        ));
    }
    let missing = missing_extensions(&mut connection, manifest)?;
    if !missing.is_empty() {
        notes.push(format!(
            "the target has no files for the extension{} {}: install them first, or what needs them is lost",
            super::plural(missing.len()),
            missing.join(", ")
        ));
    }
    let server = TargetServer {
        roles: connection
            .query("SELECT rolname FROM pg_catalog.pg_roles")?
            .iter()
            .filter_map(|row| row.get("rolname").map(str::to_owned))
            .collect(),
        is_superuser: is("rolsuper"),
        no_tablespaces: lacks_tablespaces(&mut connection, toc)?,
    };
    let target = PlannedTarget {
        conninfo,
        database,
        create,
        clean,
        server_version_num,
        is_superuser: server.is_superuser,
    };
    Ok((target, server))
}

/// Connects to the database of the connection string or, when it is gone, to one that every server has.
///
/// The day a database was dropped by accident is a day on which `DATABASE_URL` no longer works.
pub(super) fn connect_to_any(
    server: &ConnInfo,
    options: &ConnectOptions,
) -> Result<Connection, PgError> {
    let first = match Connection::connect(server, options) {
        Err(error) if error.sqlstate() == Some(SqlState::UNKNOWN_DATABASE) => error,
        other => return other,
    };
    for database in ["postgres", "template1"] {
        if let Ok(connection) = Connection::connect(&server.with_database(database), options) {
            return Ok(connection);
        }
    }
    Err(first)
}

/// PostgreSQL cuts longer names without an error (`NAMEDATALEN` - 1 bytes), and would then create another
/// database than the one that was asked for.
fn check_name(name: &str) -> Result<(), RestoreError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > 63 {
        "it is longer than 63 bytes"
    } else if name.contains('\0') {
        "it holds a zero byte"
    } else if name.contains(['\n', '\r']) {
        "it holds a line break"
    } else {
        return Ok(());
    };
    Err(RestoreError::BadName {
        name: name.to_owned(),
        why,
    })
}

/// Everything that speaks against restoring into a database that exists.
pub(super) fn refuse_unsafe(
    request: &RestoreRequest,
    connection: &mut Connection,
    database: &str,
    clean: bool,
) -> Result<(), RestoreError> {
    let connections = target::live_connections(connection)?;
    if !connections.is_empty() {
        return Err(RestoreError::LiveConnections {
            name: database.to_owned(),
            connections,
        });
    }
    if !clean && request.what != What::DataOnly {
        let tables = target::user_tables(connection)?;
        if tables > 0 {
            return Err(RestoreError::TargetNotEmpty {
                name: database.to_owned(),
                tables,
            });
        }
    }
    Ok(())
}

/// Whether the backup names a tablespace that the target does not have.
fn lacks_tablespaces(connection: &mut Connection, toc: &Archive) -> Result<bool, PgError> {
    let rows = connection.query("SELECT spcname FROM pg_catalog.pg_tablespace")?;
    let known: BTreeSet<&str> = rows.iter().filter_map(|row| row.get("spcname")).collect();
    Ok(toc
        .entries
        .iter()
        .filter_map(|entry| entry.tablespace.as_ref())
        .any(|name| !name.is_empty() && !known.contains(name.lossy().as_ref())))
}

fn missing_extensions(
    connection: &mut Connection,
    manifest: &Manifest,
) -> Result<Vec<String>, PgError> {
    if manifest.extensions.is_empty() {
        return Ok(Vec::new());
    }
    let available: BTreeSet<String> = connection
        .query("SELECT name FROM pg_catalog.pg_available_extensions")?
        .iter()
        .filter_map(|row| row.get("name").map(str::to_owned))
        .collect();
    Ok(manifest
        .extensions
        .iter()
        .filter(|extension| !available.contains(&extension.name))
        .map(|extension| extension.name.clone())
        .collect())
}

/// The part of the table of contents that is restored, and the tables whose rows are loaded.
fn plan_content(
    request: &RestoreRequest,
    manifest: &Manifest,
    toc: Archive,
    server: &TargetServer,
    notes: &mut Vec<String>,
) -> Result<(Archive, Vec<TableRecord>), RestoreError> {
    let mut toc = toc;
    if !request.tables.is_empty() {
        let patterns: Vec<TablePattern> = request
            .tables
            .iter()
            .map(|typed| TablePattern::new(typed))
            .collect();
        let selection = toc.select_tables(&patterns)?;
        notes.extend(selection.left_out.iter().map(|left| {
            format!(
                "{} is left out: it needs {}",
                left.entry,
                left.needs.join(", ")
            )
        }));
        toc = selection.archive;
    }
    let missing_roles: BTreeSet<String> = toc
        .roles()
        .into_iter()
        .filter(|role| !server.roles.contains(role) && role != "PUBLIC")
        .collect();
    if !missing_roles.is_empty() {
        let names = missing_roles.iter().cloned().collect::<Vec<_>>().join(", ");
        notes.push(if request.keep_owner {
            format!("the target has no role {names}: what it owned or was granted will be missing")
        } else {
            format!("the target has no role {names}: grants to it are left out")
        });
    }
    let (toc, _dropped) = toc.without(&DropRules {
        // Only the extension's owner may comment on it; a comment is not worth a failed restore.
        extension_comments: !server.is_superuser,
        missing_roles,
        subscriptions: request.leave_out_subscriptions,
        ..DropRules::default()
    });
    let toc = match request.what {
        What::Everything => toc,
        What::SchemaOnly => toc.schema_only(),
        What::DataOnly => toc.data_only(),
    };
    let loaded: BTreeSet<i32> = toc.data_entries().map(|entry| entry.dump_id).collect();
    let tables = manifest
        .tables
        .iter()
        .filter(|table| loaded.contains(&table.dump_id))
        .cloned()
        .collect();
    Ok((toc, tables))
}

/// The database's own settings (`ALTER DATABASE … SET`), as statements for a database of another name.
///
/// `pg_dump` writes them into `DATABASE PROPERTIES` entries, one statement a line (`dumpDatabaseConfig` in
/// `pg_dump.c`), with the old name.
pub(super) fn database_settings(toc: &Archive, old: &str, new: &str) -> Vec<String> {
    let heads = [
        format!("ALTER DATABASE {old} "),
        format!("ALTER DATABASE {} ", quote_ident(old)),
    ];
    toc.entries
        .iter()
        .filter(|entry| entry.is("DATABASE PROPERTIES"))
        .filter_map(|entry| entry.defn.as_ref().and_then(|defn| defn.as_str()))
        .flat_map(str::lines)
        .filter_map(|line| {
            let rest = heads
                .iter()
                .find_map(|head| line.strip_prefix(head.as_str()))?;
            // Other properties (connection limits, `IS_TEMPLATE`) would keep the operator out of it.
            rest.starts_with("SET ")
                .then(|| format!("ALTER DATABASE {} {rest}", quote_ident(new)))
        })
        .collect()
}
