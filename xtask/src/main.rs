//! Tasks around the project: documents that are made from the program's own definitions, and benchmarks.

mod bench;
mod documents;
mod reliability;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tasks around the project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Bench(bench::Args),
    /// Write the manual pages to docs/man.
    Man,
    /// Write the completion scripts to docs/completions.
    Completions,
    /// Write docs/configuration.md.
    ConfigReference,
    /// Write docs/reliability.md from what `make torture` found.
    Reliability {
        /// The findings, a JSON object a line.
        findings: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bench(args) => bench::run(&args).map_err(Into::into),
        Task::Man => documents::man(),
        Task::Completions => documents::completions(),
        Task::ConfigReference => documents::config_reference(),
        Task::Reliability { findings } => reliability::write(&findings),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a tool for developers, with no output layer of its own"
)]
fn say(text: &str) {
    eprintln!("{text}");
}
