//! `lifeboat verify`.

mod dumps;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::SignedDuration;
use lifeboat_engine::catalog::Selector;
use lifeboat_engine::config::TimeSpan;
use lifeboat_engine::history;
use lifeboat_engine::journal::{Outcome, Proof, ProofLevel, RunKind};
use lifeboat_engine::verify::{self, Problem, VerifyReport, VerifyRequest};
use lifeboat_repo::SnapshotId;
use serde_json::json;

use super::DatabaseArg;
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;
use crate::output::progress::Progress;

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
pub fn run(app: &App, args: &VerifyArgs) -> Result<Exit, Failure> {
    let dumps = &app.config.verify.dumps;
    if args.dump_dir.is_some() || args.glob.is_some() || args.file.is_some() {
        return dumps::run(app, args);
    }
    // A variable selects the folder too, unless something that only a repository has was asked for.
    if dumps.is_selected() && args.id == "latest" && !args.read_data {
        return dumps::run(app, args);
    }
    repository(app, args)
}

fn repository(app: &App, args: &VerifyArgs) -> Result<Exit, Failure> {
    let repository = app.repository()?;
    let journal = app.journal()?;
    let selector = Selector::parse(&args.id);
    let configured = app.config.verify.max_age.value;
    let max_age = match (args.max_age, &selector) {
        (Some(span), _) => Some(span),
        // An old backup that is asked for by its ID is allowed to be old.
        (None, Selector::Id(_)) => None,
        (None, Selector::Latest) => Some(configured),
    };
    let request = VerifyRequest {
        selector,
        database: app.database_filter(args.database.name()),
        max_age: max_age.map(|span| {
            SignedDuration::from_secs(i64::try_from(span.seconds()).unwrap_or(i64::MAX))
        }),
        read_data: args.read_data,
        jobs: app.jobs(None),
        now: app.now(),
        interrupt: Arc::clone(&app.interrupt),
    };
    let database = request.database.clone().unwrap_or_default();
    let progress = Progress::new(&app.out);
    let result = history::recorded(
        &journal,
        RunKind::Verify,
        repository.id(),
        &database,
        |_| app.is_interrupted(),
        |report: &VerifyReport, end| {
            end.backup = Some(report.backup.id.to_string());
            end.bytes_read = Some(report.bytes_read);
            if let Some(problem) = report.problems.first() {
                end.outcome = Outcome::Failed;
                end.error = Some(problem.to_string());
            }
        },
        || verify::execute(&repository, &request, &progress),
    );
    drop(progress);
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            let failure = Failure::from(error);
            if failure.exit == Exit::BadData {
                app.out.data(&format!("BAD: {}", failure.fact));
            }
            return Err(failure);
        }
    };
    if report.content_is_good() {
        let level = if report.read_data {
            ProofLevel::Verified
        } else {
            ProofLevel::Complete
        };
        journal.record_proof(&Proof {
            backup: report.backup.first_id().to_string(),
            repository: repository.id().to_owned(),
            database: report.backup.database.clone(),
            level,
            at: app.now(),
            how: if report.read_data { "verify --read-data" } else { "verify" }.to_owned(),
            details: json!({ "packs": report.packs_checked, "blobs": report.blobs_checked, "bytes": report.bytes_read }),
        })?;
    }
    verdict(app, &report)
}

fn verdict(app: &App, report: &VerifyReport) -> Result<Exit, Failure> {
    let problems: Vec<String> = report.problems.iter().map(words).collect();
    let affected: BTreeSet<String> = report
        .problems
        .iter()
        .flat_map(affected)
        .map(ToString::to_string)
        .collect();
    app.out.object(
        "verify",
        &json!({
            "good": report.is_good(),
            "backup": report.backup.id.to_string(),
            "database": report.backup.database,
            "snapshot_time": report.backup.time,
            "age_seconds": report.age.as_secs(),
            "read_data": report.read_data,
            "packs_checked": report.packs_checked,
            "blobs_checked": report.blobs_checked,
            "bytes_read": report.bytes_read,
            "problems": problems,
            "affected_backups": affected,
            "seconds": report.seconds,
        }),
    )?;
    let what = format!("{} {}", report.backup.database, report.backup.id.short());
    let Some(first) = problems.first() else {
        let age = human::age(report.age.as_secs().unsigned_abs());
        let depth = if report.read_data {
            format!("all {} read and hashed", human::bytes(report.bytes_read))
        } else {
            format!(
                "complete in {}",
                human::plural(report.packs_checked, "pack")
            )
        };
        app.out.report(&format!("ok: {what}, {age} old, {depth}"));
        return Ok(Exit::Done);
    };
    let more = match problems.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    app.out.data(&format!("BAD: {what}: {first}{more}"));
    for problem in problems.iter().skip(1) {
        app.out.warn(problem);
    }
    Ok(Exit::BadData)
}

/// The backups that a problem spoils.
fn affected(problem: &Problem) -> &[SnapshotId] {
    match problem {
        Problem::Repository { backups, .. } => backups,
        _ => &[],
    }
}

/// What is wrong, and whose backup it is that is spoilt: the newest is not always the one.
fn words(problem: &Problem) -> String {
    let backups = affected(problem);
    if backups.is_empty() {
        return problem.to_string();
    }
    let ids: Vec<String> = backups.iter().map(SnapshotId::short).collect();
    format!("{problem}, needed by {}", ids.join(", "))
}
