//! `lifeboat restore`.

use std::num::NonZeroUsize;

use clap::{ArgGroup, Args};

use super::{DatabaseArg, jobs};
use crate::app::App;
use crate::failure::Failure;

/// Flags of `restore`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("target").required(true).args(["to", "into"]),
    after_help = "\
Examples:
  lifeboat restore latest --to memalerts_restored
  lifeboat restore 4f1c09ab --into postgresql://db.example/memalerts --clean
  lifeboat restore latest --to memalerts_users --table public.users

Nothing that exists is touched without --into, --clean and the database's name."
)]
pub struct RestoreArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID|latest")]
    pub id: String,
    /// Restore into a new database of this name, beside the old one.
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Make the new database on this server, not on the source's.
    #[arg(long, value_name = "URL", conflicts_with = "into")]
    pub server: Option<String>,
    /// Restore into this existing database.
    #[arg(long, value_name = "URL")]
    pub into: Option<String>,
    /// Drop first what the backup holds, as pg_restore --clean --if-exists does.
    #[arg(long, requires = "into", conflicts_with = "data_only")]
    pub clean: bool,
    /// Confirm, by name, that this database may be changed.
    #[arg(long, value_name = "NAME", requires = "into")]
    pub yes: Option<String>,
    /// Restore only this table; may be given several times.
    #[arg(long = "table", value_name = "[SCHEMA.]TABLE")]
    pub tables: Vec<String>,
    /// Restore definitions, no rows.
    #[arg(long, conflicts_with = "data_only")]
    pub schema_only: bool,
    /// Restore rows into tables that exist.
    #[arg(long, requires = "into")]
    pub data_only: bool,
    /// Keep the owners and grants of the backup (default: all belongs to the role that restores).
    #[arg(long)]
    pub owner: bool,
    /// Load over this many connections (default: one per processor).
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(app: &App, args: &RestoreArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
