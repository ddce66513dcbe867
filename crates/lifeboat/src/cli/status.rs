//! `lifeboat status`.

use clap::Args;
use lifeboat_engine::catalog::Catalog;
use lifeboat_engine::objectives::age_seconds;
use lifeboat_engine::status::{self, DatabaseStatus, Promises, StatusReport};
use serde_json::json;

use super::DatabaseArg;
use super::drill::objective;
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Tone, human, table};

/// Flags of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 means that every promise holds, 3 that one does not.")]
pub struct StatusArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
}

/// Runs it.
pub fn run(app: &App, args: &StatusArgs) -> Result<Exit, Failure> {
    let repository = app.repository()?;
    let journal = app.journal()?;
    let catalog = Catalog::new(&repository);
    let promises = Promises {
        rpo: app.config.objectives.rpo.value,
        rto: app.config.objectives.rto.value,
        drill_max_age: app.config.drill.max_age.value,
    };
    let mut configured: Vec<String> = app
        .config
        .databases
        .iter()
        .filter_map(|database| database.name.clone())
        .collect();
    if let (true, Some(only)) = (configured.is_empty(), app.database_filter(None)) {
        configured.push(only);
    }
    let mut report = status::status(&catalog, &journal, &configured, promises, app.now())?;
    if let Some(name) = args.database.name() {
        report
            .databases
            .retain(|database| database.database == name);
    }
    let good = report.is_good();
    app.out
        .object("status", &json!({ "good": good, "status": report }))?;
    app.out.data(&drawn(app, &report));
    Ok(if good { Exit::Done } else { Exit::BadData })
}

fn drawn(app: &App, report: &StatusReport) -> String {
    let mut parts = vec![table::pairs(&[(
        "repository",
        format!(
            "{}, {}",
            report.location,
            human::bytes(report.repository_bytes)
        ),
    )])];
    for damaged in &report.damaged {
        parts.push(format!(
            "{} {damaged}",
            app.out.paint(Tone::Bad, "damaged:")
        ));
    }
    if report.databases.is_empty() {
        parts.push("No database, and no backup of one.".to_owned());
    }
    parts.extend(report.databases.iter().map(|database| one(app, database)));
    parts.join("\n\n")
}

fn one(app: &App, database: &DatabaseStatus) -> String {
    let ago = |at| format!("{} ago", human::age(age_seconds(at, app.now())));
    let newest = match (&database.newest, database.newest_time) {
        (Some(id), Some(time)) => format!(
            "{}, {}, {}",
            id.get(..8).unwrap_or(id),
            ago(time),
            database.newest_proof.map_or("taken", |level| level.name())
        ),
        _ => "none".to_owned(),
    };
    let proven = match &database.last_proven {
        Some(proven) => format!(
            "{}, {}",
            proven.backup.get(..8).unwrap_or(&proven.backup),
            ago(proven.at)
        ),
        None => "never".to_owned(),
    };
    let drill = match (database.drill.last, database.drill.overdue_seconds) {
        (None, _) => "never: overdue".to_owned(),
        (Some(at), None) => ago(at),
        (Some(at), Some(seconds)) => format!("{}: overdue by {}", ago(at), human::age(seconds)),
    };
    let mut text = table::pairs(&[
        ("database", app.out.paint(Tone::Strong, &database.database)),
        ("backups", human::count(database.backups)),
        ("newest", newest),
        ("RPO now", objective(&database.rpo)),
        ("RTO", objective(&database.rto)),
        ("last proven", proven),
        ("last drill", drill),
    ]);
    for problem in &database.problems {
        text.push_str(&format!("\n{} {problem}", app.out.paint(Tone::Bad, "!")));
    }
    text
}
