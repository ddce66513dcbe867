//! Lifeboat's command line.
//!
//! This room reads arguments, environment and configuration, hands the engine what it needs, and turns
//! what comes back into words, tables, JSON and exit codes. It knows nothing of storage formats or
//! PostgreSQL's protocol. Its invariants: data on standard output and words on standard error; no secret in
//! either; every failure is a fact, its hints and one of [`Exit`]'s codes.
mod app;
mod cli;
mod confirm;
mod exit;
mod failure;
mod new_files;
mod output;
mod passphrase;
mod prompt;
pub mod reference;
mod remote;
mod secrets;
mod signals;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

pub use exit::Exit;
pub use failure::Failure;

use crate::app::App;
use crate::cli::Cli;
use crate::output::{Output, OutputOptions};

/// Runs the program with these arguments, the first of them its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data and a success; the rest is wrong usage. A closed pipe is neither.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
                _ => Exit::Usage,
            }
            .into();
        }
    };
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let out = Output::new(OutputOptions::detect(
        cli.global.json,
        cli.global.verbosity(),
        &environment,
    ));
    match command(&cli, environment, &out) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let failure = failure.with_any_hint();
            out.failure(&failure);
            failure.exit.into()
        }
    }
}

fn command(
    cli: &Cli,
    environment: BTreeMap<String, String>,
    out: &Output,
) -> Result<Exit, Failure> {
    let interrupt = signals::interrupt_flag().map_err(Failure::bug)?;
    let app = App::new(
        &cli.global,
        environment,
        out.clone(),
        interrupt,
        cli.command.config_use(),
    )?;
    cli.command.run(&app)
}
