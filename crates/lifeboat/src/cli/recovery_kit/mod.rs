//! `lifeboat recovery-kit`: the page that brings the data back, and its proof.

mod test;
pub mod write;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;

/// The kit, as text: what people print and `test` reads.
pub const TEXT: &str = "lifeboat-recovery-kit.txt";
/// The same, as a document that prints well.
pub const PAGE: &str = "lifeboat-recovery-kit.html";

/// Arguments of `recovery-kit`.
#[derive(Debug, Args)]
#[command(after_help = "\
The kit holds the passphrase. It belongs on paper or on a stick, where deeds and keys are
kept, and not only on the machine that it is for.")]
#[command(disable_help_subcommand = true)]
pub struct RecoveryKitArgs {
    #[command(subcommand)]
    pub command: RecoveryKitCommand,
}

/// What is done with the kit.
#[derive(Debug, Subcommand)]
pub enum RecoveryKitCommand {
    /// Write it anew: after the passphrase, the location or the databases changed.
    Write(write::WriteArgs),
    /// Prove it: bring the newest backups back with nothing but what stands in it.
    Test(test::TestArgs),
}

impl RecoveryKitArgs {
    /// Whether a kit is named, which is then all that counts.
    pub fn names_a_kit(&self) -> bool {
        matches!(&self.command, RecoveryKitCommand::Test(args) if args.file.is_some())
    }
}

/// Runs it.
pub fn run(app: &App, args: &RecoveryKitArgs) -> Result<Exit, Failure> {
    match &args.command {
        RecoveryKitCommand::Write(args) => write::run(app, args),
        RecoveryKitCommand::Test(args) => test::run(app, args),
    }
}

/// Where the kit is put when nobody says: beside the configuration file. Without one there is no such place.
pub fn default_folder(config_file: Option<&Path>) -> Option<PathBuf> {
    let folder = config_file?.parent()?;
    Some(if folder.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        folder.to_owned()
    })
}
