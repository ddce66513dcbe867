//! `lifeboat show`.

use clap::Args;

use super::DatabaseArg;
use crate::app::App;
use crate::failure::Failure;

/// Flags of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(app: &App, args: &ShowArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
