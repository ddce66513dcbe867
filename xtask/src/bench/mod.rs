//! `cargo xtask bench`: Lifeboat beside the programs it replaces, on one dataset, on one machine, in turns.
//!
//! Absolute times drift on any machine that does something else as well. So contenders take turns, each
//! starts where another one did the run before, and what counts is the ratio of medians.

mod contenders;
mod dataset;
mod history;
mod index;
mod measure;
mod page;
mod report;
mod server;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use contenders::{Bench, Dumper, done, remove, size_bytes};
use dataset::Sizes;
use report::{Report, Row};
use server::Server;

/// Compare Lifeboat with pg_dump, restic and pg_restore.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Size of the dataset; 1 is a database of 3.7 GB.
    #[arg(long, default_value_t = 0.1)]
    scale: f64,
    /// How often each command runs; medians are compared.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Parallel jobs of pg_dump -Fd and of every restore.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Where the server, the dumps and the repositories go: needs some four times the dataset's size.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Keep the generated data directory here and start from it the next time.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Only these parts, separated by commas: dump, churn, restore, check.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leave Lifeboat out: the peers alone.
    #[arg(long)]
    peers_only: bool,
    /// Write the result to docs/benchmarks.md, not only to standard output.
    #[arg(long)]
    write: bool,
}

/// What is measured apart from the rest, since it takes long or needs other data.
#[derive(Debug, clap::Subcommand)]
enum Part {
    History(history::Args),
    Index(index::Args),
}

/// Runs it.
///
/// # Errors
/// A sentence for the person who typed the command.
pub fn run(args: &Args) -> Result<(), String> {
    match &args.part {
        Some(Part::History(args)) => history::run(args),
        Some(Part::Index(args)) => index::run(args),
        None => side_by_side(args),
    }
}

fn side_by_side(args: &Args) -> Result<(), String> {
    if args.runs == 0 || !(0.0001..=100.0).contains(&args.scale) {
        return Err("--runs starts at 1, --scale lies between 0.0001 and 100".into());
    }
    let wants = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);
    let work = work_folder(&args.dir)?;
    let server = dataset_server(&args.dir, args.scale, args.dataset.as_deref())?;
    let facts = server.sql("bench", "SELECT pg_database_size(current_database())")?;
    let database_bytes = facts.parse().unwrap_or(0);
    let bench = Bench {
        server: &server,
        dir: work.path(),
        lifeboat: if args.peers_only {
            None
        } else {
            Some(build_lifeboat()?)
        },
        jobs: args.jobs,
    };
    let mut report = Report::new(
        args.scale,
        args.runs,
        args.jobs,
        database_bytes,
        &server.version,
    );

    // The later parts work on what the dump leaves behind, so it happens at least once.
    let runs = if wants("dump") { args.runs } else { 1 };
    report.dump = dump(&bench, runs)?;
    if wants("churn") {
        report.churn = churn(&bench, args)?;
    }
    if wants("restore") {
        report.restore = restore(&bench, args.runs)?;
    }
    if wants("check") {
        report.check = check(&bench, args.runs)?;
    }

    let text = report.markdown();
    print(&text);
    if args.write {
        page::write(|old| page::with_start(old, &text))?;
    }
    Ok(())
}

/// A folder for everything that is made, with the passphrase of every repository in it.
fn work_folder(parent: &Path) -> Result<tempfile::TempDir, String> {
    let work = tempfile::Builder::new()
        .prefix("lifeboat-bench-")
        .tempdir_in(parent)
        .map_err(|error| format!("{}: {error}", parent.display()))?;
    fs::write(work.path().join("password"), "bench\n").map_err(|error| error.to_string())?;
    Ok(work)
}

/// A server with the dataset: made anew, or what was kept in `kept` the last time; there it is kept the first time.
fn dataset_server(parent: &Path, scale: f64, kept: Option<&Path>) -> Result<Server, String> {
    if let Some(kept) = kept.filter(|place| place.exists()) {
        say(&format!("starting from {}", kept.display()));
        return Server::start(parent, Some(kept));
    }
    let mut server = Server::start(parent, None)?;
    say(&format!("generating the dataset at scale {scale}"));
    server.sql("postgres", "CREATE DATABASE bench")?;
    server.sql("bench", &dataset::create(Sizes::at(scale)))?;
    if let Some(place) = kept {
        server.keep(place)?;
    }
    Ok(server)
}

/// Each dumps into an empty destination.
fn dump(bench: &Bench<'_>, runs: u32) -> Result<Vec<Row>, String> {
    let dumpers = present(bench);
    let mut rows: Vec<Row> = dumpers
        .iter()
        .map(|one| Row::new(one.name(bench.jobs)))
        .collect();
    for run in 0..runs as usize {
        for turn in 0..dumpers.len() {
            let which = (turn + run) % dumpers.len();
            let dumper = dumpers[which];
            dumper.prepare(bench)?;
            settle(bench)?;
            let measured = measure::run(&mut dumper.command(bench)?)?;
            let stored = size_bytes(&dumper.destination(bench));
            rows[which].add(&measured, stored);
            say(&format!("run {}: {}", run + 1, rows[which].last()));
        }
    }
    Ok(rows)
}

/// An hour passes, then each dumps again into what it has. What counts is what that adds.
fn churn(bench: &Bench<'_>, args: &Args) -> Result<Vec<Row>, String> {
    let dumpers: Vec<Dumper> = present(bench)
        .into_iter()
        .filter(|one| !matches!(one, Dumper::PgDumpDirectory | Dumper::PgBackRest))
        .collect();
    let mut rows: Vec<Row> = dumpers
        .iter()
        .map(|one| Row::new(one.name(bench.jobs)))
        .collect();
    for hour in 1..=args.runs {
        let sizes = Sizes::at(args.scale);
        bench
            .server
            .sql("bench", &dataset::churn(sizes, args.scale, hour))?;
        for turn in 0..dumpers.len() {
            let which = (turn + hour as usize) % dumpers.len();
            let dumper = dumpers[which];
            let destination = dumper.destination(bench);
            // A dump file is written anew each hour: all of it is what that hour adds.
            if dumper == Dumper::PgDumpCustom {
                remove(&destination)?;
            }
            let before = size_bytes(&destination);
            settle(bench)?;
            let measured = measure::run(&mut dumper.command(bench)?)?;
            rows[which].add(&measured, size_bytes(&destination).saturating_sub(before));
            say(&format!("hour {hour}: {}", rows[which].last()));
        }
    }
    Ok(rows)
}

/// Each restores into a database of its own, which then goes.
fn restore(bench: &Bench<'_>, runs: u32) -> Result<Vec<Row>, String> {
    let mut rows = vec![Row::new(format!(
        "pg_restore -j{} of the -Fc file",
        bench.jobs
    ))];
    if bench.lifeboat.is_some() {
        rows.insert(0, Row::new("lifeboat restore, census compared".into()));
    }
    for run in 0..runs as usize {
        for turn in 0..rows.len() {
            let which = (turn + run) % rows.len();
            let ours = which == 0 && rows.len() == 2;
            let mut command = if ours {
                bench.lifeboat_restore("bench_restored")?
            } else {
                bench
                    .server
                    .sql("postgres", "CREATE DATABASE bench_restored")?;
                bench.pg_restore("bench_restored")
            };
            settle(bench)?;
            let measured = measure::run(&mut command)?;
            let size = bench
                .server
                .sql("postgres", "SELECT pg_database_size('bench_restored')")?;
            rows[which].add(&measured, size.parse().unwrap_or(0));
            bench
                .server
                .sql("postgres", "DROP DATABASE bench_restored")?;
            say(&format!("run {}: {}", run + 1, rows[which].last()));
        }
    }
    Ok(rows)
}

/// Both read every byte of the same repository: Lifeboat's if it was made, else restic's own.
fn check(bench: &Bench<'_>, runs: u32) -> Result<Vec<Row>, String> {
    let ours = bench.lifeboat.is_some();
    let dumper = if ours {
        Dumper::Lifeboat
    } else {
        Dumper::PgDumpIntoRestic
    };
    let repository = dumper.destination(bench);
    let bytes = size_bytes(&repository);
    let mut rows = vec![Row::new("restic check --read-data".into())];
    if ours {
        rows.insert(0, Row::new("lifeboat verify --all".into()));
    }
    for run in 0..runs as usize {
        for turn in 0..rows.len() {
            let which = (turn + run) % rows.len();
            let mut command = if ours && which == 0 {
                let mut command = bench.lifeboat("bench")?;
                command.args(["--json", "verify", "--all"]);
                command
            } else {
                let mut command = bench.restic(&repository);
                command.args(["-q", "check", "--read-data"]);
                command
            };
            let measured = measure::run(&mut command)?;
            rows[which].add(&measured, bytes);
            say(&format!("run {}: {}", run + 1, rows[which].last()));
        }
    }
    Ok(rows)
}

fn present(bench: &Bench<'_>) -> Vec<Dumper> {
    Dumper::ALL
        .into_iter()
        .filter(|one| match one {
            Dumper::Lifeboat => bench.lifeboat.is_some(),
            Dumper::PgBackRest => done(Command::new("pgbackrest").arg("version")).is_ok(),
            _ => true,
        })
        .collect()
}

/// Whatever the run before left for the kernel or the server to write is written before the clock starts.
fn settle(bench: &Bench<'_>) -> Result<(), String> {
    bench.server.sql("postgres", "CHECKPOINT")?;
    done(&mut Command::new("sync"))
}

/// Builds the release program. It lands beside this one, wherever cargo was told to build.
fn build_lifeboat() -> Result<PathBuf, String> {
    done(Command::new(env!("CARGO")).args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "lifeboat",
    ]))?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = own.with_file_name("lifeboat");
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{} is not there", program.display()))
    }
}

fn say(words: &str) {
    crate::say(&format!("bench: {words}"));
}

#[expect(
    clippy::print_stdout,
    reason = "the page is this program's output, to be redirected"
)]
fn print(text: &str) {
    println!("{text}");
}
