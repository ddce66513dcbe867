//! Schema migrations that a database records about itself.

use serde::{Deserialize, Serialize};

use crate::wire::{Connection, PgError};

/// The state of one migration table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationHistory {
    /// The framework that keeps the table.
    pub framework: String,
    /// The newest applied migration.
    pub current: Option<String>,
}

impl MigrationHistory {
    /// Whether a migration failed or was half applied.
    #[must_use]
    pub fn has_trouble(&self) -> bool {
        false
    }
}

/// Reads every migration table that is known, in the connection's transaction.
///
/// # Errors
/// The server's.
pub fn read_migrations(_connection: &mut Connection) -> Result<Vec<MigrationHistory>, PgError> {
    Ok(Vec::new())
}
