//! `lifeboat status`.

use clap::Args;
use lifeboat_engine::catalog::Catalog;
use lifeboat_engine::config::RepositorySettings;
use lifeboat_engine::objectives::age_seconds;
use lifeboat_engine::status::{
    self, DatabaseStatus, First, Other, Promises, RepositoryStatus, StatusReport,
};
use serde_json::json;

use super::drill::objective;
use super::{DatabaseArg, RepositoryArg};
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
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Runs it.
pub fn run(app: &App, args: &StatusArgs) -> Result<Exit, Failure> {
    let settings = app.config.repository(args.repository.name())?;
    let repository = app.open(settings)?;
    let journal = app.journal()?;
    let first = First {
        name: settings.name.clone(),
        off_host: settings.is_off_host(),
    };
    // One that was asked for by name is looked at alone.
    let others: Vec<Other> = match args.repository.name() {
        Some(_) => Vec::new(),
        None => app
            .config
            .others
            .iter()
            .map(|one| other(app, one))
            .collect(),
    };
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
    let mut report = status::status(
        &catalog,
        &first,
        &others,
        &journal,
        &configured,
        promises,
        app.now(),
    )?;
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

fn other(app: &App, settings: &RepositorySettings) -> Other {
    let location = settings.location.as_ref();
    Other {
        name: settings.name.clone(),
        location: location.map_or_else(String::new, |place| place.value.to_string()),
        off_host: settings.is_off_host(),
        repository: app.open(settings).map_err(|failure| failure.sentence()),
    }
}

fn drawn(app: &App, report: &StatusReport) -> String {
    let mut first = vec![(
        "repository",
        format!(
            "{}, {}",
            report.location,
            human::bytes(report.repository_bytes)
        ),
    )];
    let others: Vec<(String, String)> = report
        .repositories
        .iter()
        .skip(1)
        .map(|one| (format!("+ {}", one.name), copy_of(app, one)))
        .collect();
    first.extend(
        others
            .iter()
            .map(|(name, text)| (name.as_str(), text.clone())),
    );
    let mut parts = vec![table::pairs(&first)];
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

/// Another repository, and how far it is up to date.
fn copy_of(app: &App, one: &RepositoryStatus) -> String {
    let ago = |at| format!("{} ago", human::age(age_seconds(at, app.now())));
    let place = format!(
        "{}{}",
        one.location,
        if one.off_host { ", off-host" } else { "" }
    );
    let state = match (&one.error, &one.newest, one.newest_time) {
        (Some(error), _, _) => app.out.paint(Tone::Bad, error),
        (None, Some(id), Some(time)) => format!(
            "{}, the newest {} of {}",
            human::plural(one.backups, "backup"),
            id.get(..8).unwrap_or(id),
            ago(time)
        ),
        _ => "no backup yet".to_owned(),
    };
    match one.last_copy {
        Some(at) => format!("{place}: {state}; copied to {}", ago(at)),
        None => format!("{place}: {state}"),
    }
}

/// Where a database's newest backup is, when it could be in several places.
fn whereabouts(app: &App, database: &DatabaseStatus) -> Option<String> {
    if database.held.len() < 2 {
        return None;
    }
    let places = database.held.iter().map(|held| {
        let age = held.newest_time.map_or_else(
            || "none".to_owned(),
            |time| human::age(age_seconds(time, app.now())),
        );
        format!("{} {age}", held.repository)
    });
    Some(places.collect::<Vec<_>>().join(", "))
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
    let mut facts = vec![
        ("database", app.out.paint(Tone::Strong, &database.database)),
        (
            "backups",
            match database.damaged_backups {
                0 => human::count(database.backups),
                damaged => format!(
                    "{}, {} damaged and not counted on",
                    human::count(database.backups),
                    human::count(damaged)
                ),
            },
        ),
        ("newest", newest),
    ];
    facts.extend(whereabouts(app, database).map(|places| ("newest in", places)));
    let rpo = objective(&database.rpo);
    facts.push((
        "RPO now",
        match database.held.len() > 1 && database.held.iter().any(|held| held.off_host) {
            true => format!("{rpo}, from the newest off-host"),
            false => rpo,
        },
    ));
    facts.extend([
        ("RTO", objective(&database.rto)),
        ("last proven", proven),
        ("last drill", drill),
    ]);
    let mut text = table::pairs(&facts);
    for problem in &database.problems {
        text.push_str(&format!("\n{} {problem}", app.out.paint(Tone::Bad, "!")));
    }
    text
}
