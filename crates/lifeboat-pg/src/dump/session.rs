//! The leader of a dump, and what it knows.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::archive::Archive;
use crate::conninfo::ConnInfo;
use crate::server::ServerFacts;
use crate::tools::{Tool, Tools};
use crate::wire::{ConnectOptions, Connection, PgError};

use super::entry::{DumpEntry, resolve, unknown_tables};
use super::error::DumpError;
use super::globals::{self, Globals};
use super::leader::{self, SnapshotInfo};
use super::plan::{self, DumpUnit};
use super::tables::Tables;
use super::worker::DumpWorker;
use super::{settings, toc};

/// The oldest server whose catalogs the queries here know.
const OLDEST_MAJOR: u32 = 13;
/// Attempts to get locks, snapshot and TOC together. A further one is needed when somebody queued for an
/// exclusive lock between the leader's locks and pg_dump's.
const ATTEMPTS: u32 = 8;

/// How to dump.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// How long to wait for the locks on the tables, all in all, in one attempt.
    pub lock_timeout: Duration,
    /// Raised by somebody else to give up.
    pub interrupt: Arc<AtomicBool>,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl Default for DumpOptions {
    fn default() -> DumpOptions {
        DumpOptions {
            lock_timeout: Duration::from_secs(60),
            interrupt: Arc::default(),
            application_name: "lifeboat".into(),
        }
    }
}

/// A dump under way: the transaction that holds locks and snapshot, and everything about the database
/// that is not rows. Dropped, it lets go of all of it.
#[derive(Debug)]
pub struct DumpSession {
    conninfo: ConnInfo,
    options: DumpOptions,
    leader: Arc<Mutex<Connection>>,
    facts: ServerFacts,
    snapshot: SnapshotInfo,
    archive: Archive,
    tables: Tables,
    entries: Vec<DumpEntry>,
    globals: Globals,
    roles: Vec<String>,
}

impl DumpSession {
    /// Connects, locks every table, takes the snapshot, and reads the table of contents in it.
    ///
    /// # Errors
    /// Anything that would make the dump less than whole; see [`DumpError`].
    pub fn open(
        conninfo: &ConnInfo,
        tools: &Tools,
        options: &DumpOptions,
    ) -> Result<DumpSession, DumpError> {
        let mut leader = connect(conninfo, options)?;
        let facts = ServerFacts::gather(&mut leader)?;
        if facts.version.major() < OLDEST_MAJOR {
            return Err(DumpError::ServerTooOld {
                version: facts.version.text.clone(),
            });
        }
        if tools.major() < facts.version.major() {
            return Err(DumpError::ToolTooOld {
                tool: tools
                    .version(Tool::PgDump)
                    .map_or_else(String::new, |version| version.text.clone()),
                server: facts.version.text.clone(),
            });
        }
        settings::apply(&mut leader, facts.version.major())?;

        // Not part of the snapshot, and a second of its own on a slow connection: beside the rest.
        let dumpall = || {
            let command = tools.command_for(Tool::PgDumpall, conninfo);
            globals::read(
                command,
                conninfo.database(),
                facts.role.sees_role_passwords,
                &options.interrupt,
            )
        };
        let (globals, held) = std::thread::scope(|scope| {
            let globals = scope.spawn(dumpall);
            let held = hold(&mut leader, conninfo, tools, &facts, options);
            let gone = || {
                Ok(Globals::Unavailable {
                    reason: "its thread failed".into(),
                })
            };
            (globals.join().unwrap_or_else(|_| gone()), held)
        });
        let Held {
            snapshot,
            tables,
            archive,
        } = held?;
        let globals = globals?;

        let rows = leader.query(BLOBS_AND_ROLES)?;
        let blob_bytes: u64 = rows.first().map_or(Ok(0), |row| row.parse("blob_bytes"))?;
        let roles = rows
            .iter()
            .filter_map(|row| row.get("role").map(str::to_owned))
            .collect();
        let entries = resolve(&archive, &tables, blob_bytes)?;
        Ok(DumpSession {
            conninfo: conninfo.clone(),
            options: options.clone(),
            leader: Arc::new(Mutex::new(leader)),
            facts,
            snapshot,
            archive,
            tables,
            entries,
            globals,
            roles,
        })
    }

    /// The server and database, as they were at the start.
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// The snapshot: its time is the backup's time.
    pub fn snapshot(&self) -> &SnapshotInfo {
        &self.snapshot
    }

    /// The table of contents, as pg_dump wrote it.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Every table that is locked, by OID, partitioned ones included.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The entries whose data is to be read.
    pub fn entries(&self) -> &[DumpEntry] {
        &self.entries
    }

    /// Roles and tablespaces.
    pub fn globals(&self) -> &Globals {
        &self.globals
    }

    /// The roles that own something in the database or are granted something, sorted by name.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Cuts the dump into units of work, the most work first.
    pub fn plan(&self, slice_blocks: u64) -> Vec<DumpUnit> {
        plan::plan(&self.entries, self.facts.version.major(), slice_blocks)
    }

    /// A further connection that sees exactly what the leader sees. Callable from any thread.
    ///
    /// # Errors
    /// When it cannot be had, or the leader's snapshot is gone.
    pub fn worker(&self) -> Result<DumpWorker, DumpError> {
        let mut connection = connect(&self.conninfo, &self.options)?;
        settings::apply(&mut connection, self.facts.version.major())?;
        let import = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT {}",
            crate::wire::quote_literal(&self.snapshot.id)
        );
        connection
            .execute(&import)
            .map_err(|error| match error.sqlstate() {
                // invalid_parameter_value, undefined_object: nobody exports such a snapshot any more.
                Some("22023" | "42704") => DumpError::SnapshotLost {
                    what: error.to_string(),
                },
                _ => error.into(),
            })?;
        Ok(DumpWorker {
            connection,
            leader: Arc::clone(&self.leader),
            encoding: self.facts.database.collation.encoding.clone(),
            locked: HashSet::new(),
            batch: Vec::new(),
        })
    }

    /// The leader's connection, for reading more in the same snapshot. A statement that fails ends the
    /// snapshot: use a savepoint where that is possible.
    pub fn leader(&self) -> MutexGuard<'_, Connection> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the dump. To be called when the last unit is read: that the leader's transaction is still
    /// there is what says that nobody could drop, truncate or rewrite a table in the meantime.
    ///
    /// # Errors
    /// [`DumpError::SnapshotLost`]: what was read is not a dump.
    pub fn finish(self) -> Result<(), DumpError> {
        let lost = |what: String| DumpError::SnapshotLost { what };
        let mut leader = self.leader();
        let rows =
            leader.query("SELECT pg_catalog.current_setting('transaction_isolation') AS isolation");
        match rows {
            Ok(rows)
                if leader.in_transaction()
                    && rows.value("isolation").ok() == Some("repeatable read") => {}
            Ok(_) => return Err(lost("another transaction is in its place".into())),
            Err(PgError::Interrupted) => return Err(DumpError::Interrupted),
            Err(error) => return Err(lost(error.to_string())),
        }
        leader
            .execute("COMMIT")
            .map(drop)
            .map_err(|error| lost(error.to_string()))
    }
}

struct Held {
    snapshot: SnapshotInfo,
    tables: Tables,
    archive: Archive,
}

/// Locks, snapshot and TOC, all three or none.
fn hold(
    leader: &mut Connection,
    conninfo: &ConnInfo,
    tools: &Tools,
    facts: &ServerFacts,
    options: &DumpOptions,
) -> Result<Held, DumpError> {
    let mut also = Vec::new();
    let mut attempt = 0;
    let started = Instant::now();
    loop {
        attempt += 1;
        let (snapshot, tables) = leader::take_snapshot(leader, options.lock_timeout, &also)?;
        let name = format!("{} toc {}", options.application_name, leader.backend_pid());
        let command = tools.command_for(Tool::PgDump, &conninfo.with_application_name(&name));
        let archive = toc::read(
            command,
            &snapshot.id,
            &facts.database.collation.encoding,
            &options.interrupt,
        );
        end_backend(leader, &name)?;
        match archive {
            Ok(archive) => {
                let unknown = unknown_tables(&archive, &tables);
                if unknown.is_empty() {
                    return Ok(Held {
                        snapshot,
                        tables,
                        archive,
                    });
                }
                // pg_dump counts something as a table to dump that our own list leaves out. It has to be
                // locked before the snapshot, like the others: once more, with it.
                if attempt == ATTEMPTS {
                    let what = format!("it lists tables that could not be locked: {unknown:?}");
                    return Err(DumpError::Toc { what });
                }
                also.extend(unknown);
            }
            Err(error @ DumpError::PgDump { .. }) => {
                // Those who wait wait for us. Letting go lets them through.
                let held = leader::holders(leader, &tables)?;
                match held.is_empty() {
                    true => return Err(error),
                    false if attempt == ATTEMPTS => {
                        return Err(DumpError::LockTimeout {
                            waited: started.elapsed(),
                            held,
                        });
                    }
                    false => {}
                }
            }
            Err(error) => return Err(error),
        }
        leader.execute("ROLLBACK")?;
    }
}

/// pg_dump was told to end, and cancels its statement then. Where it runs behind a prefix such as
/// `docker exec`, only the prefix was told; so its session is ended as well. A role may do that to its own.
fn end_backend(leader: &mut Connection, application_name: &str) -> Result<(), PgError> {
    let sql = format!(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
          WHERE application_name = {} AND pid <> pg_catalog.pg_backend_pid()",
        crate::wire::quote_literal(application_name)
    );
    leader::guarded(leader, &sql).map(drop)
}

pub(super) fn connect(conninfo: &ConnInfo, options: &DumpOptions) -> Result<Connection, PgError> {
    Connection::connect(
        conninfo,
        &ConnectOptions {
            application_name: Some(options.application_name.clone()),
            interrupt: Arc::clone(&options.interrupt),
            ..ConnectOptions::default()
        },
    )
}

/// Roles by what `pg_shdepend` says of this database: owners, and those that some privilege or policy names.
const BLOBS_AND_ROLES: &str = "
SELECT r.rolname AS role, pg_catalog.pg_table_size('pg_catalog.pg_largeobject') AS blob_bytes
  FROM pg_catalog.pg_database b
  LEFT JOIN LATERAL
       (SELECT a.rolname FROM pg_catalog.pg_roles a
         WHERE a.oid = b.datdba
            OR a.oid IN (SELECT d.refobjid FROM pg_catalog.pg_shdepend d
                          WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
                            AND (d.dbid = b.oid
                                 OR d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND d.objid = b.oid))
       ) r ON true
 WHERE b.datname = pg_catalog.current_database()
 ORDER BY r.rolname";
