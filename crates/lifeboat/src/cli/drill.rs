//! `lifeboat drill`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use lifeboat_engine::catalog::{Catalog, Selector};
use lifeboat_engine::drill::{self, DrillPlace, DrillReport, DrillRequest};
use lifeboat_engine::history;
use lifeboat_engine::journal::{Outcome, RunKind};
use lifeboat_engine::locking::Reading;
use lifeboat_engine::objectives::{Objective, Verdict};
use serde_json::json;

use super::{DatabaseArg, LockArg, RepositoryArg, jobs};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{Tone, human, table};

/// Flags of `drill`.
#[derive(Debug, Args)]
#[command(after_help = "\
A drill starts its own PostgreSQL in a temporary folder, restores, compares every table with the
backup, asks the checks of the configuration, and removes everything. Exit code 0 means proven, 3 not.")]
pub struct DrillArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(
        value_name = "ID|latest",
        default_value = "latest",
        hide_default_value = true
    )]
    pub id: String,
    /// Use a temporary database on this server in place of a scratch server.
    #[arg(long, value_name = "URL")]
    pub on: Option<String>,
    /// Load over this many connections (default: one per processor).
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Runs it.
pub fn run(app: &App, args: &DrillArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let journal = app.journal()?;
    let _lock = app.lock_to_read(&repository, Reading::ToJudge, args.lock.patience())?;
    let catalog = Catalog::new(&repository);
    let started = app.now();
    let settings = &app.config.drill;
    let request = DrillRequest {
        selector: Selector::parse(&args.id),
        database: app.database_filter(args.database.name()),
        place: match &args.on {
            Some(url) => DrillPlace::Server(Box::new(app.url_argument("--on", url)?)),
            None => DrillPlace::Scratch {
                parent_dir: app.scratch_dir(),
            },
        },
        jobs: app.jobs(args.jobs.or(settings.jobs.value)),
        checks: settings.checks.clone(),
        rpo: app.config.objectives.rpo.value,
        rto: app.config.objectives.rto.value,
        tools: app.tools(),
        now: started,
        interrupt: Arc::clone(&app.interrupt),
    };
    let database = request.database.clone().unwrap_or_default();
    let progress = Progress::new(&app.out);
    let result = history::recorded(
        &journal,
        RunKind::Drill,
        repository.id(),
        &database,
        |_| Outcome::of_failure(app.is_interrupted()),
        |report: &DrillReport, end| {
            end.backup = Some(report.backup.id.to_string());
            end.bytes_read = Some(report.bytes);
            if !report.proven {
                end.outcome = Outcome::Failed;
                end.error = report.failures.first().cloned();
            }
        },
        || drill::execute(&catalog, &request, &progress),
    );
    drop(progress);
    if let Err(error) = &result {
        drill::remember_failure(&journal, repository.id(), &catalog, &request, error)?;
    }
    let report = result?;
    drill::remember(&journal, repository.id(), &report, started)?;
    finished(app, &report)
}

fn finished(app: &App, report: &DrillReport) -> Result<Exit, Failure> {
    app.out.object(
        "drill",
        &json!({
            "proven": report.proven,
            "backup": report.backup.id.to_string(),
            "database": report.backup.database,
            "snapshot_time": report.backup.time,
            "failures": report.failures,
            "place": report.place,
            "server_version": report.server_version,
            "tables_compared": report.comparison.tables.len(),
            "rows": report.rows,
            "bytes": report.bytes,
            "checks": report.checks,
            "rpo": report.rpo,
            "rto": report.rto,
            "stages": report.stages,
            "swept": report.swept,
            "seconds": report.seconds,
        }),
    )?;
    let passed = report.checks.iter().filter(|check| check.passed).count();
    let mut facts = vec![
        (
            "backup",
            format!(
                "{} of {}, data from {}",
                report.backup.id.short(),
                report.backup.database,
                human::time_exact(report.backup.time)
            ),
        ),
        ("restored", format!("on {}", report.place)),
        (
            "compared",
            format!(
                "{}, {}, {}",
                human::plural(report.comparison.tables.len() as u64, "table"),
                human::plural(report.rows, "row"),
                human::bytes(report.bytes)
            ),
        ),
    ];
    if !report.checks.is_empty() {
        facts.push((
            "checks",
            format!("{passed} of {} passed", report.checks.len()),
        ));
    }
    facts.push(("RPO", objective(&report.rpo)));
    facts.push(("RTO", objective(&report.rto)));
    let stages: Vec<String> = report
        .stages
        .iter()
        .map(|time| format!("{} {}", time.stage.name(), human::duration(time.seconds)))
        .collect();
    facts.push(("stages", stages.join(", ")));
    facts.push(("took", human::duration(report.seconds)));
    let facts = table::pairs(&facts);
    if report.proven {
        app.out.report(&facts);
    } else {
        app.out.data(&facts);
    }
    for failure in &report.failures {
        app.out.warn(failure);
    }
    if report.proven {
        app.out.report(&app.out.paint(Tone::Good, "PROVEN"));
        Ok(Exit::Done)
    } else {
        app.out.data(&app.out.paint(Tone::Bad, "NOT PROVEN"));
        Ok(Exit::BadData)
    }
}

/// `12m 03s, objective 1h: met`.
pub fn objective(objective: &Objective) -> String {
    let target = human::duration(objective.target_seconds as f64);
    let actual = objective.actual_seconds.map_or_else(
        || "unknown".to_owned(),
        |seconds| human::duration(seconds as f64),
    );
    let verdict = match objective.verdict {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::Unknown => "unknown",
    };
    format!("{actual}, objective {target}: {verdict}")
}
