//! `lifeboat drill`.

use std::num::NonZeroUsize;

use clap::Args;

use super::{DatabaseArg, jobs};
use crate::app::App;
use crate::failure::Failure;

/// Flags of `drill`.
#[derive(Debug, Args)]
#[command(after_help = "\
A drill starts its own PostgreSQL in a temporary folder, restores, compares every table with the
backup, asks the checks of the configuration, and removes everything. Exit code 0 means proven, 3 not.")]
pub struct DrillArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(
        value_name = "ID|latest",
        default_value = "latest",
        hide_default_value = true
    )]
    pub id: String,
    /// Use a temporary database on this server in place of a scratch server.
    #[arg(long, value_name = "URL")]
    pub on: Option<String>,
    /// Load over this many connections (default: one per processor).
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(app: &App, args: &DrillArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
