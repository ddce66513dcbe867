//! The command line: one file for each command, with its flags and what it does.

mod backup;
mod check;
pub mod completions;
mod copy;
mod demo;
mod drill;
mod expire;
mod export;
mod hold;
mod import;
mod init;
mod key;
mod list;
mod recovery_kit;
mod repair;
mod restore;
mod show;
mod status;
mod verify;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use lifeboat_engine::config::TimeSpan;

use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Verbosity;

/// Backup and disaster recovery for PostgreSQL that proves it works.
#[derive(Debug, Parser)]
#[command(
    name = "lifeboat",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = after_help(),
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Read this configuration file.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Print one JSON object; progress becomes JSON lines on standard error.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more.
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    pub verbose: bool,
}

impl GlobalArgs {
    /// The flags as a level.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// The commands, in the order a newcomer needs them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the repository, the configuration file and the recovery kit.
    Init(init::InitArgs),
    /// Say line by line what is ready, and how to mend what is not.
    Check(check::CheckArgs),
    /// Take a backup now.
    Backup(backup::BackupArgs),
    /// List the backups: age, size, new bytes, migration, proof.
    List(list::ListArgs),
    /// Show one backup, whole.
    Show(show::ShowArgs),
    /// Check that the newest backup, or ID, is fresh and readable; or a plain dump.
    Verify(verify::VerifyArgs),
    /// Restore a backup, by default into a new database beside the old one.
    Restore(restore::RestoreArgs),
    /// Prove a backup: restore it into a scratch server, compare, measure, remove.
    Drill(drill::DrillArgs),
    /// Write a backup as a custom-format file for pg_restore.
    Export(export::ExportArgs),
    /// Bring dumps of pg_dump -Fc into the repository, with their own dates.
    Import(import::ImportArgs),
    /// Apply the retention policy, then remove the data that no backup needs.
    Expire(expire::ExpireArgs),
    /// Bring every other repository up to date with the backups it lacks.
    Copy(copy::CopyArgs),
    /// Mend what is damaged with good copies from elsewhere; name what is lost.
    Repair(repair::RepairArgs),
    /// Keep a backup from expiring.
    Hold(hold::HoldArgs),
    /// Let a held backup expire again.
    Unhold(hold::UnholdArgs),
    /// List, add, remove or rotate the passphrases that open the repository.
    Key(key::KeyArgs),
    /// Write the recovery kit anew, or prove it by doing what it says.
    RecoveryKit(recovery_kit::RecoveryKitArgs),
    /// Hold the objectives against reality.
    Status(status::StatusArgs),
    /// See all of it on a throwaway server, in two minutes.
    Demo(demo::DemoArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual page.
    #[command(hide = true)]
    Man,
}

impl Command {
    /// Runs it. What it says about the data is in the exit, what kept it from saying anything in the failure.
    pub fn run(&self, app: &App) -> Result<Exit, Failure> {
        match self {
            Self::Init(args) => init::run(app, args).map(|()| Exit::Done),
            Self::Check(args) => check::run(app, args).map(|()| Exit::Done),
            Self::Backup(args) => backup::run(app, args),
            Self::List(args) => list::run(app, args),
            Self::Show(args) => show::run(app, args),
            Self::Verify(args) => verify::run(app, args),
            Self::Restore(args) => restore::run(app, args),
            Self::Drill(args) => drill::run(app, args),
            Self::Export(args) => export::run(app, args),
            Self::Import(args) => import::run(app, args),
            Self::Expire(args) => expire::run(app, args),
            Self::Copy(args) => copy::run(app, args),
            Self::Repair(args) => repair::run(app, args),
            Self::Hold(args) => hold::run(app, args),
            Self::Unhold(args) => hold::run_unhold(app, args),
            Self::Key(args) => key::run(app, args),
            Self::RecoveryKit(args) => recovery_kit::run(app, args),
            Self::Status(args) => status::run(app, args),
            Self::Demo(args) => demo::run(app, args).map(|()| Exit::Done),
            Self::Completions(args) => completions::run(args).map(|()| Exit::Done),
            Self::Man => completions::man().map(|()| Exit::Done),
        }
    }

    /// What it wants of the configuration file.
    pub fn config_use(&self) -> ConfigUse {
        match self {
            Self::Init(_) => ConfigUse::MayBeMissing,
            // A kit that is named is tried with what it says, and nothing else.
            Self::RecoveryKit(args) if args.names_a_kit() => ConfigUse::Ignored,
            Self::Demo(_) | Self::Completions(_) | Self::Man => ConfigUse::Ignored,
            _ => ConfigUse::Needed,
        }
    }
}

/// What a command wants of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigUse {
    /// One that is named must be there.
    Needed,
    /// One that is named may be about to be written.
    MayBeMissing,
    /// It works beside a broken one.
    Ignored,
}

/// Chooses one of several configured databases.
#[derive(Debug, Clone, Default, Args)]
pub struct DatabaseArg {
    /// The database, when several are configured.
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
}

impl DatabaseArg {
    /// The name, if one was given.
    pub fn name(&self) -> Option<&str> {
        self.database.as_deref()
    }
}

/// Chooses one of several configured repositories.
#[derive(Debug, Clone, Default, Args)]
pub struct RepositoryArg {
    /// The repository, when several are configured (default: the first one).
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
}

impl RepositoryArg {
    /// The name, if one was given.
    pub fn name(&self) -> Option<&str> {
        self.repository.as_deref()
    }
}

/// Waits for others that work on the repository.
#[derive(Debug, Clone, Args)]
pub struct LockArg {
    /// Wait this long for others that work on the repository before giving up with exit code 11.
    #[arg(long, value_name = "TIME", default_value = "2m")]
    pub retry_lock: TimeSpan,
}

impl LockArg {
    /// How long to wait.
    pub fn patience(&self) -> Duration {
        self.retry_lock.duration()
    }
}

/// As [`LockArg`], for those who need the data now.
#[derive(Debug, Clone, Args)]
pub struct RescueLockArg {
    /// Wait this long for whoever removes data from the repository, then go on beside it.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub retry_lock: TimeSpan,
}

impl RescueLockArg {
    /// How long to wait.
    pub fn patience(&self) -> Duration {
        self.retry_lock.duration()
    }
}

/// `--jobs`: 1 to 64.
pub fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(jobs) if jobs.get() <= 64 => Ok(jobs),
        _ => Err("must be a number from 1 to 64".to_owned()),
    }
}

/// The whole definition, for the manual, the completions and the tests.
pub fn command() -> clap::Command {
    Cli::command()
}

fn after_help() -> String {
    format!(
        "Configuration: --config, else $LIFEBOAT_CONFIG, ./lifeboat.toml, ~/.config/lifeboat/lifeboat.toml,\n\
         /etc/lifeboat/lifeboat.toml. With DATABASE_URL, LIFEBOAT_REPOSITORY and LIFEBOAT_PASSWORD_FILE set,\n\
         no file is needed.\n\n{}",
        Exit::help()
    )
}
