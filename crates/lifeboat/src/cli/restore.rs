//! `lifeboat restore`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use lifeboat_engine::catalog::{Catalog, Selector};
use lifeboat_engine::journal::{Journal, Outcome, RunKind};
use lifeboat_engine::locking::Reading;
use lifeboat_engine::restore::{self, RestorePlan, RestoreReport, RestoreRequest, Target, What};
use lifeboat_engine::{history, objectives};
use serde_json::json;

use super::{DatabaseArg, RepositoryArg, RescueLockArg, jobs};
use crate::app::App;
use crate::confirm;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{human, table};

/// Flags of `restore`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("target").required(true).args(["to", "into"]),
    after_help = "\
Examples:
  lifeboat restore latest --to memalerts_restored
  lifeboat restore 4f1c09ab --into postgresql://db.example/memalerts --clean
  lifeboat restore latest --to memalerts_users --table public.users

Nothing that exists is touched without --into, --clean and the database's name."
)]
pub struct RestoreArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID|latest")]
    pub id: String,
    /// Restore into a new database of this name, beside the old one.
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Make the new database on this server, not on the source's.
    #[arg(long, value_name = "URL", conflicts_with = "into")]
    pub server: Option<String>,
    /// Restore into this existing database.
    #[arg(long, value_name = "URL")]
    pub into: Option<String>,
    /// Drop first what the backup holds, as pg_restore --clean --if-exists does.
    #[arg(long, requires = "into", conflicts_with = "data_only")]
    pub clean: bool,
    /// Confirm, by name, that this database may be changed.
    #[arg(long, value_name = "NAME", requires = "into")]
    pub yes: Option<String>,
    /// Restore only this table; may be given several times.
    #[arg(long = "table", value_name = "[SCHEMA.]TABLE")]
    pub tables: Vec<String>,
    /// Restore definitions, no rows.
    #[arg(long, conflicts_with = "data_only")]
    pub schema_only: bool,
    /// Restore rows into tables that exist.
    #[arg(long, requires = "into")]
    pub data_only: bool,
    /// Keep the owners and grants of the backup (default: all belongs to the role that restores).
    #[arg(long)]
    pub owner: bool,
    /// Load over this many connections (default: one per processor).
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: RescueLockArg,
}

/// Runs it.
pub fn run(app: &App, args: &RestoreArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let journal = app.journal()?;
    let _lock = app.lock_to_read(&repository, Reading::ToRescue, args.lock.patience())?;
    let catalog = Catalog::new(&repository);
    let request = request(app, args)?;
    let plan = restore::plan(&catalog, &request)?;
    show_plan(app, &plan, &journal, repository.id())?;
    if let Some(name) = plan.confirmation() {
        let what = if plan.target.clean {
            format!("This drops from {name} whatever the backup holds, and restores it")
        } else {
            format!("This restores into {name}, which exists")
        };
        confirm::by_name(app, &what, name, args.yes.as_deref())?;
    }
    let progress = Progress::new(&app.out);
    let result = history::recorded(
        &journal,
        RunKind::Restore,
        repository.id(),
        &plan.backup.database,
        |_| Outcome::of_failure(app.is_interrupted()),
        |report: &RestoreReport, end| {
            end.backup = Some(plan.backup.id.to_string());
            end.bytes_read = Some(report.bytes);
            if !report.is_good() {
                end.outcome = Outcome::Failed;
                end.error = report
                    .problems
                    .first()
                    .cloned()
                    .or_else(|| report.comparison.differences().into_iter().next());
            }
        },
        || restore::execute(&catalog, &plan, &request, plan.confirmation(), &progress),
    );
    drop(progress);
    finished(app, &plan, &result?)
}

fn request(app: &App, args: &RestoreArgs) -> Result<RestoreRequest, Failure> {
    let target = match (&args.to, &args.into) {
        (Some(name), _) => Target::New {
            server: match &args.server {
                Some(url) => app.url_argument("--server", url)?,
                None => {
                    app.source(args.database.name())
                        .map_err(|failure| {
                            failure.hint("or name another server with `--server URL`")
                        })?
                        .conninfo
                }
            },
            name: name.clone(),
        },
        (None, Some(url)) => Target::Existing {
            conninfo: app.url_argument("--into", url)?,
            clean: args.clean,
        },
        (None, None) => return Err(Failure::bug("a restore without a target")),
    };
    Ok(RestoreRequest {
        selector: Selector::parse(&args.id),
        database: app.database_filter(args.database.name()),
        target,
        tables: args.tables.clone(),
        what: match (args.schema_only, args.data_only) {
            (true, _) => What::SchemaOnly,
            (_, true) => What::DataOnly,
            _ => What::Everything,
        },
        jobs: app.jobs(args.jobs),
        keep_owner: args.owner,
        leave_out_subscriptions: false,
        read_back: false,
        tools: app.tools(),
        now: app.now(),
        interrupt: Arc::clone(&app.interrupt),
    })
}

/// What, from when, how old, how big, how long by the last drill: before anything is touched.
fn show_plan(
    app: &App,
    plan: &RestorePlan,
    journal: &Journal,
    repository: &str,
) -> Result<(), Failure> {
    let drill = journal.last_drill(repository, Some(&plan.backup.database), true)?;
    let predicted = objectives::rto_predicted(
        drill.as_ref(),
        Some(plan.bytes()),
        app.config.objectives.rto.value,
    )
    .actual_seconds;
    let target = &plan.target;
    app.out.event(
        "plan",
        &json!({
            "backup": plan.backup.id.to_string(),
            "snapshot_time": plan.backup.time,
            "database": target.database,
            "create": target.create,
            "clean": target.clean,
            "what": plan.what,
            "tables": plan.tables.len(),
            "rows": plan.rows(),
            "bytes": plan.bytes(),
            "predicted_seconds": predicted,
            "notes": plan.notes,
        }),
    );
    if app.out.is_json() {
        return Ok(());
    }
    let how = match (target.create, target.clean) {
        (true, _) => "a new database",
        (false, true) => "exists; what the backup holds is dropped from it first",
        (false, false) => "exists, and is empty",
    };
    let what = match plan.what {
        What::Everything => "",
        What::SchemaOnly => ", definitions only",
        What::DataOnly => ", rows only",
    };
    app.out.say(&table::pairs(&[
        (
            "backup",
            format!("{} of {}", plan.backup.id.short(), plan.backup.database),
        ),
        (
            "data from",
            format!(
                "{}, {} ago",
                human::time_exact(plan.backup.time),
                human::age(plan.age.as_secs().unsigned_abs())
            ),
        ),
        ("into", format!("{} ({how})", target.conninfo.display())),
        (
            "holds",
            format!(
                "{}, {}, {}{what}",
                human::plural(plan.tables.len() as u64, "table"),
                human::plural(plan.rows(), "row"),
                human::bytes(plan.bytes())
            ),
        ),
        (
            "takes",
            match predicted {
                Some(seconds) => format!(
                    "about {}, by the last drill",
                    human::duration(seconds as f64)
                ),
                None => "unknown: no drill yet".to_owned(),
            },
        ),
    ]));
    for note in &plan.notes {
        app.out.say(&format!("note: {note}"));
    }
    app.out.say("");
    Ok(())
}

fn finished(app: &App, plan: &RestorePlan, report: &RestoreReport) -> Result<Exit, Failure> {
    let differences = report.comparison.differences();
    app.out.object(
        "restore",
        &json!({
            "good": report.is_good(),
            "backup": plan.backup.id.to_string(),
            "database": report.database,
            "rows": report.rows,
            "bytes": report.bytes,
            "tables_compared": report.comparison.tables.len(),
            "differences": differences,
            "problems": report.problems,
            "notes": report.notes,
            "stages": report.stages,
            "seconds": report.seconds,
        }),
    )?;
    let tables = human::plural(report.comparison.tables.len() as u64, "table");
    app.out.report(&table::pairs(&[
        ("database", report.database.clone()),
        ("data from", human::time_exact(plan.backup.time)),
        (
            "loaded",
            format!(
                "{}, {}",
                human::plural(report.rows, "row"),
                human::bytes(report.bytes)
            ),
        ),
        (
            "compared",
            match differences.len() {
                0 => format!("{tables} as loaded, equal to the backup"),
                count => format!("{tables}, {count} differ"),
            },
        ),
        (
            "took",
            format!(
                "{}, {}",
                human::duration(report.seconds),
                human::rate(report.bytes, report.seconds)
            ),
        ),
    ]));
    for note in report
        .notes
        .iter()
        .filter(|note| !plan.notes.contains(note))
    {
        app.out.say(&format!("note: {note}"));
    }
    if report.is_good() {
        return Ok(Exit::Done);
    }
    for problem in report.problems.iter().chain(&differences) {
        app.out.warn(problem);
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "{} is restored, but not all of it is as the backup recorded",
            report.database
        ),
    )
    .hint("the lines above name what differs"))
}
