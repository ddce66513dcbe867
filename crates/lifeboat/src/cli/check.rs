//! `lifeboat check`.

use clap::Args;

use super::DatabaseArg;
use crate::app::App;
use crate::failure::Failure;

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(_app: &App, _args: &CheckArgs) -> Result<(), Failure> {
    Err(Failure::bug("not yet"))
}
