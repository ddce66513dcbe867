//! The reverse of a dump: rows and large objects back into a database, and everything else through stock
//! `pg_restore`.
//!
//! The room owns what it takes to make a server hold again what a dump says: loading byte ranges of a
//! table's data file side by side, large objects, running `pg_restore` for definitions, and reading back what
//! arrived. It refuses to know where the bytes come from, and never creates or drops a database.
//!
//! Invariants: rows count as loaded only when the server has acknowledged them; a row is loaded by exactly
//! one of the ranges of its file; no dump is ever fed to psql, which would run what a hostile dump tells it to.

mod error;
mod large_objects;
mod pg_restore;
mod read_back;
mod rows;

pub use error::LoadError;
pub use pg_restore::{PgRestore, RestoreMessages};
pub use read_back::ReadBack;
pub use rows::{DataSource, LoadFailure, LoadedRows, TableSlice, data_bytes};

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::conninfo::ConnInfo;
use crate::wire::{ConnectOptions, Connection, PgError, quote_literal};

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// The encoding of the dump's rows, as PostgreSQL calls it.
    pub encoding: String,
    /// Whether triggers and foreign keys are switched off while rows are loaded. Takes a superuser; needed only
    /// where tables exist before their rows (`--data-only`).
    pub disable_triggers: bool,
    /// Raised by somebody else to give up.
    pub interrupt: Arc<AtomicBool>,
}

/// A session that loads. One per thread.
#[derive(Debug)]
pub struct Loader {
    connection: Connection,
}

impl Loader {
    /// Connects and sets the session up for loading.
    ///
    /// # Errors
    /// The server's, when it cannot be reached or refuses a setting.
    pub fn open(conninfo: &ConnInfo, options: &LoadOptions) -> Result<Self, PgError> {
        let mut connection = Connection::connect(
            conninfo,
            &ConnectOptions {
                application_name: Some(options.application_name.clone()),
                interrupt: Arc::clone(&options.interrupt),
                ..ConnectOptions::default()
            },
        )?;
        connection.execute(SETTINGS)?;
        connection.execute(&format!(
            "SET client_encoding = {}",
            quote_literal(&options.encoding)
        ))?;
        if options.disable_triggers {
            connection.execute("SET session_replication_role = replica")?;
        }
        Ok(Self { connection })
    }
}

/// What stands between a row and its table is switched off, as `pg_restore` does it
/// (`_doSetFixedOutputState` in `pg_backup_archiver.c`). A commit need not wait for the disk: what a crash
/// would cost is a restore that has not been reported as done.
const SETTINGS: &str = "
SET synchronous_commit = off;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET default_transaction_read_only = off;
SET check_function_bodies = off;
SET xmloption = content;
SET row_security = off;
SET datestyle = 'ISO, MDY';
SET intervalstyle = 'postgres';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);";
