//! The settings under which rows are read.
//!
//! Text that two servers print for the same value must be the same text, or a restored table would not
//! match its census: so everything that bends a type's output is pinned, beyond what pg_dump itself pins
//! (`setup_connection` in `pg_dump.c`).

use crate::wire::{Connection, PgError};

/// Applies them to a session, outside a transaction.
pub(crate) fn apply(connection: &mut Connection, server_major: u32) -> Result<(), PgError> {
    let mut sql = String::from(SETTINGS);
    if server_major >= 14 {
        sql.push_str("SET idle_session_timeout = 0;");
    }
    if server_major >= 17 {
        sql.push_str("SET transaction_timeout = 0;");
    }
    connection.execute(&sql).map(drop)
}

const SETTINGS: &str = "
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET datestyle = 'ISO, MDY';
SET intervalstyle = 'postgres';
SET timezone = 'UTC';
SET bytea_output = 'hex';
SET xmlbinary = 'base64';
SET extra_float_digits = 3;
SET synchronize_seqscans = off;
SET row_security = off;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SET enable_tidscan = on;
SELECT pg_catalog.set_config('search_path', '', false);
SELECT pg_catalog.set_config(name, 'view, foreign-table', false)
  FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind';";
