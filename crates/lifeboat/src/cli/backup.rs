//! `lifeboat backup`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use lifeboat_engine::backup::{self, BackupError, BackupReport, BackupRequest};
use lifeboat_engine::history;
use lifeboat_engine::journal::{Outcome, RunKind};
use lifeboat_repo::Repository;
use serde_json::{Value, json};

use super::{DatabaseArg, LockArg, copy, jobs};
use crate::app::{self, App};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{human, table};

/// Flags of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
    /// Read over this many connections (default: one more than processors, at most 8).
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Runs it.
pub fn run(app: &App, args: &BackupArgs) -> Result<Exit, Failure> {
    let source = app.source(args.database.name())?;
    let repository = app.open_to_add(&app.config.primary)?;
    let journal = app.journal()?;
    let settings = &app.config.backup;
    let request = BackupRequest {
        database: source.name.clone(),
        conninfo: source.conninfo,
        tools: app.tools(),
        jobs: app.backup_jobs(args.jobs.or(settings.jobs.value)),
        compression_level: settings.compression_level.value,
        slice_bytes: settings.slice_size.value.bytes(),
        lock_timeout: settings.lock_timeout.value.duration(),
        lock_patience: args.lock.patience(),
        hostname: app::hostname(),
        username: app.username(),
        interrupt: Arc::clone(&app.interrupt),
    };
    let progress = Progress::new(&app.out);
    let result = history::recorded(
        &journal,
        RunKind::Backup,
        repository.id(),
        &source.name,
        |error| match error {
            BackupError::Interrupted => Outcome::Interrupted,
            error if error.is_for_want_of_room() => Outcome::NoRoom,
            _ => Outcome::Failed,
        },
        |report: &BackupReport, end| {
            end.backup = Some(report.id.to_string());
            end.bytes_read = Some(report.bytes_read);
            end.bytes_stored = Some(report.new_bytes);
        },
        || backup::execute(&repository, &request, &progress),
    );
    drop(progress);
    let report = result?;
    // Said at once: whatever becomes of the copies, there is a backup.
    app.out.report(&drawn(&report));
    let (copies, failure) = copy::after_backup(app, &journal, &repository, &args.lock);
    app.out.object("backup", &item(&report, copies))?;
    match failure {
        None => Ok(Exit::Done),
        Some(failure) => Err(uncopied(&report, &repository, failure)),
    }
}

/// There is a backup, and it is not everywhere it should be.
fn uncopied(report: &BackupReport, repository: &Repository, failure: Failure) -> Failure {
    let fact = format!(
        "backup {} was taken and is whole in {}, but copying failed: {}",
        report.id.short(),
        repository.location(),
        failure.fact
    );
    let exit = match failure.exit {
        Exit::Interrupted => Exit::Interrupted,
        _ => Exit::Failed,
    };
    Failure {
        fact,
        exit,
        ..failure
    }
    .hint("`lifeboat copy` tries it again; no new backup is needed")
}

fn item(report: &BackupReport, copies: Vec<Value>) -> Value {
    json!({
        "backup": report.id.to_string(),
        "database": report.database,
        "snapshot_time": report.snapshot_time,
        "tables": report.tables,
        "rows": report.rows,
        "bytes_read": report.bytes_read,
        "new_bytes": report.new_bytes,
        "migration": report.migration,
        "warnings": report.warnings,
        "stages": report.stages,
        "seconds": report.seconds,
        "copies": copies,
    })
}

fn drawn(report: &BackupReport) -> String {
    let mut facts = vec![
        ("backup", report.id.to_string()),
        ("database", report.database.clone()),
        ("snapshot", human::time_exact(report.snapshot_time)),
        (
            "tables",
            format!(
                "{}, {}",
                human::plural(report.tables, "table"),
                human::plural(report.rows, "row")
            ),
        ),
        (
            "read",
            format!(
                "{}, {}",
                human::bytes(report.bytes_read),
                human::rate(report.bytes_read, report.seconds)
            ),
        ),
        ("new", format!("{} stored", human::bytes(report.new_bytes))),
    ];
    if let Some(migration) = &report.migration {
        facts.push(("migration", migration.clone()));
    }
    facts.push(("took", human::duration(report.seconds)));
    table::pairs(&facts)
}
