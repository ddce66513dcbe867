//! `lifeboat demo`: the whole promise, kept once on a throw-away server, with nothing left behind.

mod story;

use clap::Args;

use crate::app::App;
use crate::failure::Failure;

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs it.
pub fn run(app: &App, _args: &DemoArgs) -> Result<(), Failure> {
    story::tell(app)
}
