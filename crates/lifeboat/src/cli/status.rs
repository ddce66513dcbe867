//! `lifeboat status`.

use clap::Args;

use super::DatabaseArg;
use crate::app::App;
use crate::failure::Failure;

/// Flags of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 means that every promise holds, 3 that one does not.")]
pub struct StatusArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(app: &App, args: &StatusArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
