//! `lifeboat export`.

use std::path::PathBuf;

use clap::Args;

use super::DatabaseArg;
use crate::app::App;
use crate::failure::Failure;

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID")]
    pub id: String,
    /// The file to write. It must not exist.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(app: &App, args: &ExportArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
