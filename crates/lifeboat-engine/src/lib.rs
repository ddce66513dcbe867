//! Lifeboat's operations: no terminal, no environment, no exit.
//!
//! Each operation takes facts and returns data: a plan that can be printed, a report that a face turns into
//! words or JSON. While it runs it tells an [`event::Observer`]. The repository is the truth about backups, the
//! [`journal`] only what this host remembers of them.

pub mod backup;
pub mod catalog;
pub mod config;
pub mod copy;
pub mod drill;
pub mod dump_folder;
pub mod event;
pub mod expire;
pub mod export;
pub mod history;
pub mod hold;
pub mod import;
pub mod journal;
pub mod keys;
pub mod locking;
pub mod manifest;
pub mod objectives;
pub mod private_file;
pub mod readiness;
pub mod recovery_kit;
pub mod repair;
pub mod restore;
pub mod status;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lifeboat_pg::conninfo::ConnInfo;
use lifeboat_pg::wire::{ConnectOptions, Connection, PgError};

/// The server's major version: which tools are needed is known only when it is.
fn server_major(conninfo: &ConnInfo, interrupt: &Arc<AtomicBool>) -> Result<u32, PgError> {
    let mut connection = Connection::connect(
        conninfo,
        &ConnectOptions {
            application_name: Some("lifeboat".to_owned()),
            interrupt: Arc::clone(interrupt),
            ..ConnectOptions::default()
        },
    )?;
    let rows =
        connection.query("SELECT pg_catalog.current_setting('server_version_num') AS version")?;
    let version: u32 = rows.value("version")?.parse().unwrap_or(0);
    Ok(version / 10_000)
}
