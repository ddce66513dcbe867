//! Where a drill happens: a scratch server of its own, or a temporary database on a server that runs.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use lifeboat_pg::conninfo::ConnInfo;
use lifeboat_pg::instance::{self, ScratchOptions, ScratchServer};
use lifeboat_pg::tools::{Tool, ToolError, ToolFinder, Wanted};
use lifeboat_pg::wire::{ConnectOptions, Connection, PgError, quote_ident, quote_literal};

use super::{DrillError, DrillPlace, DrillRequest};
use crate::manifest::Manifest;

/// What the names of the temporary databases begin with. The rest is the UTC time of their creation and
/// a random number.
pub const DATABASE_PREFIX: &str = "lifeboat_drill_";

/// The place, ready to be restored into. Dropped, it is removed as well as can be.
pub(super) struct Place {
    kind: Kind,
    database: String,
    server_version: String,
    tools: ToolFinder,
    swept: Vec<String>,
}

enum Kind {
    Scratch {
        // Stops and removes itself when dropped.
        server: Box<ScratchServer>,
        conninfo: ConnInfo,
    },
    Server {
        conninfo: ConnInfo,
        // Its application name is the database's name: that is how other drills see that this one lives.
        _guard: Box<Connection>,
        removed: bool,
    },
}

impl Place {
    /// Sweeps what crashed drills left, and starts or connects to the server.
    pub(super) fn prepare(request: &DrillRequest, manifest: &Manifest) -> Result<Self, DrillError> {
        match &request.place {
            DrillPlace::Scratch { parent_dir } => {
                let report = instance::sweep(parent_dir)?;
                let swept = report
                    .removed
                    .iter()
                    .map(|path| format!("scratch server {}", path.display()))
                    .collect();
                // A scratch server runs here, whatever the tools for the real one are reached through.
                let mut tools = request.tools.clone();
                if !tools.prefix.is_empty() {
                    tools.prefix.clear();
                    tools.bin_dir = None;
                }
                let bin_dir = server_programs(&tools, manifest.server_major())?;
                let mut options = ScratchOptions::new(bin_dir, parent_dir);
                options.interrupt = Arc::clone(&request.interrupt);
                options.settings = throw_away_settings();
                let server = ScratchServer::start(&options)?;
                let conninfo = ConnInfo::parse(&server.url("postgres"), &|_: &str| None)?;
                let mut connection = Connection::connect(&conninfo, &connect_options(request))?;
                create_roles(&mut connection, manifest)?;
                let server_version = version(&mut connection)?;
                Ok(Self {
                    kind: Kind::Scratch {
                        server: Box::new(server),
                        conninfo,
                    },
                    // The name it had: checks and functions may ask for it.
                    database: scratch_name(&manifest.server.database),
                    server_version,
                    tools,
                    swept,
                })
            }
            DrillPlace::Server(conninfo) => {
                let database = temporary_name(request.now);
                let mut guard = Connection::connect(
                    conninfo,
                    &ConnectOptions {
                        application_name: Some(database.clone()),
                        ..connect_options(request)
                    },
                )?;
                let swept = sweep_databases(&mut guard)?;
                let server_version = version(&mut guard)?;
                Ok(Self {
                    kind: Kind::Server {
                        conninfo: ConnInfo::clone(conninfo),
                        _guard: Box::new(guard),
                        removed: false,
                    },
                    database,
                    server_version,
                    tools: request.tools.clone(),
                    swept,
                })
            }
        }
    }

    /// A connection string for the server.
    pub(super) fn server(&self) -> &ConnInfo {
        match &self.kind {
            Kind::Scratch { conninfo, .. } | Kind::Server { conninfo, .. } => conninfo,
        }
    }

    /// The database to create.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(super) fn is_scratch(&self) -> bool {
        matches!(self.kind, Kind::Scratch { .. })
    }

    pub(super) fn tools(&self) -> &ToolFinder {
        &self.tools
    }

    pub(super) fn server_version(&self) -> &str {
        &self.server_version
    }

    pub(super) fn swept(&self) -> &[String] {
        &self.swept
    }

    /// For people and for the journal.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Scratch { .. } => format!("scratch server {}", self.server_version),
            Kind::Server { conninfo, .. } => format!(
                "temporary database on {}, PostgreSQL {}",
                conninfo.address(),
                self.server_version
            ),
        }
    }

    /// Takes the place down, and says when that fails.
    pub(super) fn remove(mut self) -> Result<(), DrillError> {
        match &mut self.kind {
            Kind::Scratch { server, .. } => server.halt(instance::StopMode::Immediate),
            Kind::Server {
                conninfo, removed, ..
            } => {
                drop_database(conninfo, &self.database)?;
                *removed = true;
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Kind::Server {
            conninfo,
            removed: false,
            ..
        } = &self.kind
        {
            // Whoever drops a place half way already reports why. If this fails too, the next drill
            // sweeps the database away.
            let _ = drop_database(conninfo, &self.database);
        }
    }
}

/// The folder of `initdb` and `postgres` of this major.
fn server_programs(tools: &ToolFinder, major: u32) -> Result<PathBuf, ToolError> {
    let found = tools.find(&[Tool::Initdb, Tool::Postgres], Wanted::Exactly(major))?;
    // Without a prefix every installation is a folder.
    Ok(found.bin_dir().map(PathBuf::from).unwrap_or_default())
}

/// Nothing on a scratch server has to survive, so nothing waits for a disk; the rest is room for building indexes.
pub(crate) fn throw_away_settings() -> Vec<(String, String)> {
    [
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        ("max_wal_size", "8GB"),
        ("checkpoint_timeout", "1h"),
        ("shared_buffers", "256MB"),
        ("maintenance_work_mem", "256MB"),
        ("autovacuum", "off"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// The roles that the dump mentions, without any rights of their own.
fn create_roles(connection: &mut Connection, manifest: &Manifest) -> Result<(), PgError> {
    let existing = connection.query("SELECT rolname FROM pg_catalog.pg_roles")?;
    let existing: Vec<&str> = existing.iter().filter_map(|row| row.at(0)).collect();
    for role in &manifest.roles {
        if !existing.contains(&role.as_str()) && !role.starts_with("pg_") {
            connection.execute(&format!("CREATE ROLE {} NOLOGIN", quote_ident(role)))?;
        }
    }
    Ok(())
}

fn connect_options(request: &DrillRequest) -> ConnectOptions {
    ConnectOptions {
        application_name: Some("lifeboat drill".to_owned()),
        interrupt: Arc::clone(&request.interrupt),
        ..ConnectOptions::default()
    }
}

fn version(connection: &mut Connection) -> Result<String, PgError> {
    let rows =
        connection.query("SELECT pg_catalog.current_setting('server_version') AS version")?;
    Ok(rows.value("version")?.to_owned())
}

/// The database's own name, unless it is one that every server has.
fn scratch_name(name: &str) -> String {
    match name {
        "postgres" | "template0" | "template1" => format!("{DATABASE_PREFIX}{name}"),
        _ => name.to_owned(),
    }
}

fn temporary_name(now: Timestamp) -> String {
    let mut random = [0_u8; 4];
    // Without randomness the time alone has to tell two drills apart; creating the database says so if not.
    let _ = getrandom::fill(&mut random);
    format!(
        "{DATABASE_PREFIX}{}_{}",
        now.strftime("%Y%m%d%H%M%S"),
        hex::encode(random)
    )
}

/// Drops the temporary databases of drills that no longer live.
///
/// A living drill keeps a session whose application name is its database's, visible from every database of the
/// server. Only names that follow our own pattern to the letter count, and only databases that this role owns.
fn sweep_databases(connection: &mut Connection) -> Result<Vec<String>, PgError> {
    let pattern = format!("^{DATABASE_PREFIX}[0-9]{{14}}_[0-9a-f]{{8}}$");
    let rows = connection.query(&format!(
        "SELECT d.datname FROM pg_catalog.pg_database d \
         WHERE d.datname ~ {} AND pg_catalog.pg_has_role(d.datdba, 'MEMBER') \
           AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_activity a \
                           WHERE a.application_name = d.datname)",
        quote_literal(&pattern)
    ))?;
    let abandoned: Vec<String> = rows
        .iter()
        .filter_map(|row| row.get("datname").map(str::to_owned))
        .collect();
    for name in &abandoned {
        connection.execute(&format!("DROP DATABASE IF EXISTS {}", quote_ident(name)))?;
    }
    Ok(abandoned)
}

fn drop_database(server: &ConnInfo, name: &str) -> Result<(), PgError> {
    // A connection of its own, which no interrupt stops: cleaning up is what an interrupt asks for.
    let mut connection = Connection::connect(server, &ConnectOptions::default())?;
    connection.execute(&format!(
        "DROP DATABASE IF EXISTS {} WITH (FORCE)",
        quote_ident(name)
    ))?;
    Ok(())
}
