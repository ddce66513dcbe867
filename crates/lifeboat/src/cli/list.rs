//! `lifeboat list`.

use clap::Args;

use super::DatabaseArg;
use crate::app::App;
use crate::failure::Failure;

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(app: &App, args: &ListArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
