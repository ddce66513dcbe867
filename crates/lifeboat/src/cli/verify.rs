//! `lifeboat verify`.

use std::path::PathBuf;

use clap::Args;
use lifeboat_engine::config::TimeSpan;

use super::DatabaseArg;
use crate::app::App;
use crate::failure::Failure;

/// Flags of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a BACKUP_… variable, --dump-dir or --file, the repository is checked.
The verdict is one line on standard output; the exit code is 0 (good) or 3.")]
pub struct VerifyArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID", default_value = "latest", hide_default_value = true)]
    pub id: String,
    /// Read, open and hash every stored byte it needs.
    #[arg(long)]
    pub read_data: bool,
    /// The oldest its snapshot of the database may be (default: 2h).
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<TimeSpan>,
    #[command(flatten)]
    pub database: DatabaseArg,
    /// Check a folder of pg_dump files instead: the newest match of --glob.
    #[arg(long, value_name = "DIR", help_heading = "Plain dumps", conflicts_with_all = ["id", "read_data"])]
    pub dump_dir: Option<PathBuf>,
    /// Which files of the folder are dumps, with `*` and `?` (default: *.dump).
    #[arg(long, value_name = "GLOB", help_heading = "Plain dumps", conflicts_with_all = ["id", "read_data"])]
    pub glob: Option<String>,
    /// Check this dump instead.
    #[arg(long, value_name = "FILE", help_heading = "Plain dumps", conflicts_with_all = ["id", "read_data", "dump_dir", "glob"])]
    pub file: Option<PathBuf>,
}

/// Runs it.
pub fn run(app: &App, args: &VerifyArgs) -> Result<(), Failure> {
    let _ = (app, args);
    Err(Failure::bug("this command is not part of this build"))
}
