//! `lifeboat init`.

mod dotenv;
mod passphrase;

use clap::Args;

use crate::app::App;
use crate::failure::Failure;

/// Flags of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {}

/// Runs it.
pub fn run(_app: &App, _args: &InitArgs) -> Result<(), Failure> {
    Err(Failure::bug("not yet"))
}
