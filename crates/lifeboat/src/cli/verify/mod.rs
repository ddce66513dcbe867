//! `lifeboat verify`.

mod dumps;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use lifeboat_engine::catalog::Selector;
use lifeboat_engine::config::TimeSpan;
use lifeboat_engine::history;
use lifeboat_engine::journal::{Outcome, Proof, ProofLevel, RunKind};
use lifeboat_engine::locking::Reading;
use lifeboat_engine::verify::{
    self, Coverage, Problem, ReadData, Share, VerifyReport, VerifyRequest,
};
use lifeboat_repo::SnapshotId;
use serde_json::json;

use super::{DatabaseArg, LockArg, RepositoryArg};
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
    /// Read, open and hash the stored bytes of the whole repository: those that are new, and those that were not
    /// read for --max-proof-age. The journal remembers what was read, when and where.
    #[arg(long, help_heading = "Reading")]
    pub read_data: bool,
    /// Read everything again, whatever was read before.
    #[arg(long, help_heading = "Reading", conflicts_with = "subset")]
    pub all: bool,
    /// Read a share, such as 1/30 or 5%: what was never read first, then what was read longest ago.
    #[arg(long, value_name = "SHARE", help_heading = "Reading")]
    pub subset: Option<Share>,
    /// How long what was read counts as read (default: 30d).
    #[arg(long, value_name = "TIME", help_heading = "Reading")]
    pub max_proof_age: Option<TimeSpan>,
    /// The oldest its snapshot of the database may be (default: 2h).
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<TimeSpan>,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
    /// Check a folder of pg_dump files instead: the newest match of --glob.
    #[arg(long, value_name = "DIR", help_heading = "Plain dumps", conflicts_with_all = ["id", "read_data", "all", "subset", "max_proof_age"])]
    pub dump_dir: Option<PathBuf>,
    /// Which files of the folder are dumps, with `*` and `?` (default: *.dump).
    #[arg(long, value_name = "GLOB", help_heading = "Plain dumps", conflicts_with_all = ["id", "read_data", "all", "subset", "max_proof_age"])]
    pub glob: Option<String>,
    /// Check this dump instead.
    #[arg(long, value_name = "FILE", help_heading = "Plain dumps", conflicts_with_all = ["id", "read_data", "all", "subset", "max_proof_age", "dump_dir", "glob"])]
    pub file: Option<PathBuf>,
}

impl VerifyArgs {
    fn read(&self) -> ReadData {
        match self.subset {
            Some(share) => ReadData::Subset(share),
            None if self.all => ReadData::All,
            None if self.read_data || self.max_proof_age.is_some() => ReadData::Due,
            None => ReadData::Nothing,
        }
    }
}

/// Runs it.
pub fn run(app: &App, args: &VerifyArgs) -> Result<Exit, Failure> {
    let dumps = &app.config.verify.dumps;
    if args.dump_dir.is_some() || args.glob.is_some() || args.file.is_some() {
        return dumps::run(app, args);
    }
    // A variable selects the folder too, unless something that only a repository has was asked for.
    if dumps.is_selected()
        && args.id == "latest"
        && args.read() == ReadData::Nothing
        && args.repository.name().is_none()
    {
        return dumps::run(app, args);
    }
    repository(app, args)
}

fn repository(app: &App, args: &VerifyArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let journal = app.journal()?;
    let _lock = app.lock_to_read(&repository, Reading::ToJudge, args.lock.patience())?;
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
        max_age: max_age.map(TimeSpan::signed_duration),
        read: args.read(),
        max_proof_age: args
            .max_proof_age
            .unwrap_or(app.config.verify.max_proof_age.value)
            .signed_duration(),
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
        |_| Outcome::of_failure(app.is_interrupted()),
        |report: &VerifyReport, end| {
            end.backup = Some(report.backup.id.to_string());
            end.bytes_read = Some(report.bytes_read);
            if let Some(problem) = report.problems.first() {
                end.outcome = Outcome::Failed;
                end.error = Some(problem.to_string());
            }
        },
        || verify::execute(&repository, &journal, &request, &progress),
    );
    drop(progress);
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            let failure = Failure::from(error);
            if failure.exit == Exit::BadData {
                app.out.data(&format!("BAD: {}", failure.fact));
                // Where no backup is readable, the first of them was told; the others are as lost.
                let (_, damaged) = repository.snapshots().unwrap_or_default();
                let damaged = damaged.iter().map(ToString::to_string);
                for other in damaged.filter(|other| *other != failure.fact) {
                    app.out.warn(&other);
                }
            }
            return Err(failure);
        }
    };
    if report.content_is_good() {
        let level = if report.is_read {
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
            how: if report.is_read {
                "verify --read-data"
            } else {
                "verify"
            }
            .to_owned(),
            details: json!({
                "packs": report.packs_checked,
                "blobs": report.blobs_checked,
                "bytes": report.bytes_read,
                "oldest_reading": report.coverage.as_ref().and_then(|coverage| coverage.oldest),
            }),
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
            "read_data": report.coverage.is_some(),
            "coverage": report.coverage.as_ref().map(coverage_json),
            "backup_is_read": report.is_read,
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
        let depth = match &report.coverage {
            Some(coverage) => covered(coverage, app.now()),
            None => format!(
                "complete in {}",
                human::plural(report.packs_checked, "pack")
            ),
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
    let is_damage =
        |problem: &Problem| !matches!(problem, Problem::Stale { .. } | Problem::Future { .. });
    if report.problems.iter().any(is_damage) {
        app.out.say("hint:  `lifeboat repair` mends what is damaged with good copies from other repositories, and names what is lost");
    }
    Ok(Exit::BadData)
}

fn coverage_json(coverage: &Coverage) -> serde_json::Value {
    json!({
        "packs": coverage.packs,
        "bytes": coverage.bytes,
        "packs_read_now": coverage.packs_now,
        "bytes_read_now": coverage.bytes_now,
        "packs_read_earlier": coverage.packs_earlier,
        "bytes_read_earlier": coverage.bytes_earlier,
        "bytes_unread": coverage.bytes_unread(),
        "oldest_reading": coverage.oldest,
        "max_proof_age_seconds": coverage.max_proof_age.as_secs(),
    })
}

/// What was read and what was not, so that nobody takes a share for the whole.
fn covered(coverage: &Coverage, now: Timestamp) -> String {
    let age = |seconds: i64| human::age(seconds.unsigned_abs());
    let within = age(coverage.max_proof_age.as_secs());
    if coverage.is_whole() && coverage.packs_earlier == 0 {
        return format!("all {} read and hashed", human::bytes(coverage.bytes_now));
    }
    let mut words = format!("{} read and hashed now", human::bytes(coverage.bytes_now));
    if let Some(oldest) = coverage.oldest {
        words += &format!(
            ", {} earlier (the oldest {} ago)",
            human::bytes(coverage.bytes_earlier),
            age(now.duration_since(oldest).as_secs())
        );
    }
    if coverage.is_whole() {
        return format!("{words}: all {}", human::bytes(coverage.bytes));
    }
    let percent = coverage.bytes_unread() as f64 / coverage.bytes.max(1) as f64 * 100.0;
    format!(
        "{words}; {} of {} ({percent:.0} %) not read within {within}",
        human::bytes(coverage.bytes_unread()),
        human::bytes(coverage.bytes),
    )
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
