//! Restoring a backup: into a new database beside the old one, or over an existing one when its name was
//! typed.
//!
//! The order is PostgreSQL's own: everything before the rows with stock `pg_restore`, the rows with our
//! parallel load, sequence values and large objects, everything after the rows with stock `pg_restore` again,
//! statistics, and a comparison of what arrived with what the backup recorded.
//!
//! Invariants: a database that existed before is touched only when the plan says so *and* its name was
//! given to [`execute`]; nothing is touched before the backup was found to be whole, and nothing dropped before every
//! byte of it was read; a restore that stops half way
//! says which database it leaves behind ([`RestoreError::Incomplete`]).

mod analyze;
mod compare;
mod damaged;
mod data;
mod execute;
mod passes;
mod plan;
mod ranges;
mod sessions;
mod target;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use lifeboat_pg::archive::SelectError;
use lifeboat_pg::conninfo::ConnInfo;
use lifeboat_pg::tools::ToolFinder;
use lifeboat_pg::wire::PgError;
use lifeboat_repo::check::{CheckOptions, Finding};
use lifeboat_repo::{RepositoryError, SnapshotId};

pub use compare::{Comparison, TableComparison};
pub use execute::{RestoreReport, execute};
pub use plan::{PlannedTarget, RestorePlan, plan};
pub use target::LiveConnection;

use crate::catalog::{CatalogError, Selector};
use crate::event::Stage;

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Which backup.
    pub selector: Selector,
    /// Of which database, when the selector is `latest`.
    pub database: Option<String>,
    /// Where to.
    pub target: Target,
    /// Only these tables (patterns as in `pg_restore --table`), with what they need; all when empty.
    pub tables: Vec<String>,
    /// Definitions, rows or both.
    pub what: What,
    /// How many sessions load rows and build indexes.
    pub jobs: usize,
    /// Whether objects get the owners they had; otherwise whoever restores owns them.
    pub keep_owner: bool,
    /// Whether subscriptions are left out. A database with one, even a disabled one, cannot be dropped, and
    /// dropping the subscription reaches for its publisher: nothing for a database that is to go away again.
    pub leave_out_subscriptions: bool,
    /// Whether every restored table is read back and compared, not only counted while it is loaded.
    pub read_back: bool,
    /// How `pg_restore` is found.
    pub tools: ToolFinder,
    /// The present.
    pub now: Timestamp,
    /// Set to stop.
    pub interrupt: Arc<AtomicBool>,
}

impl RestoreRequest {
    fn check_options(&self) -> CheckOptions {
        CheckOptions {
            read_data: false,
            jobs: self.jobs,
            interrupt: Arc::clone(&self.interrupt),
            ..CheckOptions::default()
        }
    }
}

/// Where a restore goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A new database, which must not exist yet.
    New {
        /// Any database of the server that we may connect to; its name is replaced.
        server: ConnInfo,
        /// The new database's name.
        name: String,
    },
    /// An existing database.
    Existing {
        /// The database.
        conninfo: ConnInfo,
        /// Whether the objects of the backup are dropped from it first, as with
        /// `pg_restore --clean --if-exists`. Without it the database must be empty.
        clean: bool,
    },
}

/// Which part of a backup is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Definitions and rows.
    #[default]
    Everything,
    /// Definitions only.
    SchemaOnly,
    /// Rows, large objects and sequence values only: the tables exist already.
    DataOnly,
}

/// Why a restore was refused, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The new database's name is taken.
    #[error("a database named {name} exists already on {server}; it was not touched")]
    TargetExists {
        /// The name.
        name: String,
        /// The server.
        server: String,
    },
    /// The database to restore into does not exist.
    #[error("there is no database named {name} on {server}")]
    TargetMissing {
        /// The name.
        name: String,
        /// The server.
        server: String,
    },
    /// The name cannot be a new database's.
    #[error("{name:?} cannot be the name of a database: {why}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// The database holds tables, and dropping them was not asked for.
    #[error("{name} is not empty: it holds {tables} tables")]
    TargetNotEmpty {
        /// The database.
        name: String,
        /// How many user tables.
        tables: u64,
    },
    /// Somebody is connected to the database that would be overwritten.
    #[error("{} live connection{} to {name}: {}", connections.len(), plural(connections.len()), list_connections(.connections))]
    LiveConnections {
        /// The database.
        name: String,
        /// Who is connected.
        connections: Vec<LiveConnection>,
    },
    /// An existing database is to be overwritten and nobody typed its name.
    #[error("restoring into {name} needs its name as confirmation")]
    NotConfirmed {
        /// The database.
        name: String,
    },
    /// The name that was typed is another one.
    #[error("the confirmation says {typed:?}, but the database is {name:?}")]
    WrongConfirmation {
        /// What was typed.
        typed: String,
        /// The database.
        name: String,
    },
    /// The role may not create databases.
    #[error("role {role} may not create databases")]
    MayNotCreate {
        /// The role.
        role: String,
    },
    /// The server is a replica and takes no writes.
    #[error("{server} is a standby and cannot be restored into")]
    Standby {
        /// The server.
        server: String,
    },
    /// Something that the backup needs is damaged or missing; nothing was touched.
    #[error("backup {id} is not whole: {finding}")]
    BackupDamaged {
        /// The backup.
        id: SnapshotId,
        /// The first thing that is wrong.
        finding: Box<Finding>,
    },
    /// No table of the backup matches what was asked for.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The restore stopped half way.
    #[error("the restore stopped while {}: {source}", stage.describe())]
    Incomplete {
        /// What it was doing.
        stage: Stage,
        /// The database that is left half restored.
        database: String,
        /// Whether the restore had created it, so that dropping it loses nothing.
        created: bool,
        /// Why.
        source: Box<RestoreError>,
    },
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
    /// The backup could not be found or read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The server failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The stock tools could not be found.
    #[error(transparent)]
    Tools(#[from] lifeboat_pg::tools::ToolError),
    /// Loading failed.
    #[error(transparent)]
    Load(#[from] lifeboat_pg::load::LoadError),
    /// The table of contents could not be used.
    #[error(transparent)]
    Archive(#[from] lifeboat_pg::archive::ArchiveError),
}

impl RestoreError {
    /// Whether this is a refusal for safety: nothing was touched, and the operator must change their mind
    /// or the situation first.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::TargetExists { .. }
                | Self::TargetNotEmpty { .. }
                | Self::LiveConnections { .. }
                | Self::NotConfirmed { .. }
                | Self::WrongConfirmation { .. }
        )
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn list_connections(connections: &[LiveConnection]) -> String {
    let mut names: Vec<String> = connections
        .iter()
        .take(5)
        .map(ToString::to_string)
        .collect();
    if connections.len() > 5 {
        names.push(format!("and {} more", connections.len() - 5));
    }
    names.join(", ")
}
