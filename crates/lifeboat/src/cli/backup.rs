//! `lifeboat backup`.

use std::num::NonZeroUsize;

use clap::Args;

use super::{DatabaseArg, jobs};
use crate::app::App;
use crate::failure::Failure;

/// Flags of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
    /// Read over this many connections (default: one per processor).
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
}

/// Runs it.
pub fn run(app: &App, args: &BackupArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
