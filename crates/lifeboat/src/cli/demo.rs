//! `lifeboat demo`.

use clap::Args;

use crate::app::App;
use crate::failure::Failure;

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs it.
pub fn run(app: &App, args: &DemoArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
