//! `lifeboat hold` and `lifeboat unhold`.

use std::sync::Arc;

use clap::Args;
use lifeboat_engine::catalog::{Backup, Catalog, Selector};
use lifeboat_engine::hold::{self, HoldRequest};
use serde_json::json;

use super::{DatabaseArg, LockArg, RepositoryArg};
use crate::app::{self, App};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;
use crate::output::progress::Progress;
use crate::output::table::{self, Column};

/// Flags of `hold`.
#[derive(Debug, Args)]
#[command(
    after_help = "A hold is kept in the repository, as tags of the backup's snapshot, so every machine honours it.\n\
    The backup gets another ID by it; the one it had still finds it."
)]
pub struct HoldArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID", required_unless_present = "list")]
    pub id: Option<String>,
    /// Why it must not expire.
    #[arg(long, value_name = "TEXT", required_unless_present = "list")]
    pub reason: Option<String>,
    /// List the backups that are held, and why.
    #[arg(long, conflicts_with_all = ["id", "reason"])]
    pub list: bool,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Flags of `unhold`.
#[derive(Debug, Args)]
pub struct UnholdArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Runs `hold`.
pub fn run(app: &App, args: &HoldArgs) -> Result<Exit, Failure> {
    match (&args.id, &args.reason) {
        (Some(id), Some(reason)) => change(
            app,
            id,
            Some(reason.clone()),
            (&args.database, &args.repository),
            &args.lock,
            "hold",
        ),
        _ => list(app, args),
    }
}

/// Runs `unhold`.
pub fn run_unhold(app: &App, args: &UnholdArgs) -> Result<Exit, Failure> {
    let which = (&args.database, &args.repository);
    change(app, &args.id, None, which, &args.lock, "unhold")
}

fn change(
    app: &App,
    id: &str,
    reason: Option<String>,
    (database, repository): (&DatabaseArg, &RepositoryArg),
    lock: &LockArg,
    schema: &str,
) -> Result<Exit, Failure> {
    let repository = app.repository(repository)?;
    let request = HoldRequest {
        selector: Selector::parse(id),
        database: app.database_filter(database.name()),
        reason,
        hostname: app::hostname(),
        username: app.username(),
        patience: lock.patience(),
        interrupt: Arc::clone(&app.interrupt),
    };
    let progress = Progress::new(&app.out);
    let result = hold::execute(&repository, &request, &progress);
    drop(progress);
    let backup = result?;
    app.out.object(schema, &item(&backup))?;
    let mut facts = vec![
        ("backup", backup.id.to_string()),
        ("first ID", backup.first_id().to_string()),
        ("database", backup.database.clone()),
        ("snapshot", human::time_exact(backup.time)),
    ];
    facts.push((
        "held",
        backup
            .held
            .clone()
            .unwrap_or_else(|| "no longer".to_owned()),
    ));
    app.out.report(&table::pairs(&facts));
    Ok(Exit::Done)
}

fn item(backup: &Backup) -> serde_json::Value {
    json!({
        "backup": backup.id.to_string(),
        "first_id": backup.first_id().to_string(),
        "database": backup.database,
        "snapshot_time": backup.time,
        "held": backup.held,
    })
}

fn list(app: &App, args: &HoldArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let (mut backups, damaged) = Catalog::new(&repository).backups(args.database.name())?;
    for error in &damaged {
        app.out.warn(&error.to_string());
    }
    backups.retain(|backup| backup.held.is_some());
    let items: Vec<_> = backups.iter().map(item).collect();
    app.out.object("hold", &json!({ "backups": items }))?;
    if backups.is_empty() {
        app.out.say("No backup is held.");
        return Ok(Exit::Done);
    }
    app.out.data(&table::draw(
        &[
            Column::Left("BACKUP"),
            Column::Left("DATABASE"),
            Column::Left("SNAPSHOT"),
            Column::Left("REASON"),
        ],
        backups.iter().map(|backup| {
            vec![
                backup.id.short(),
                backup.database.clone(),
                human::time(backup.time),
                backup.held.clone().unwrap_or_default(),
            ]
        }),
    ));
    Ok(Exit::Done)
}
