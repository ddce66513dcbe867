//! `lifeboat copy`, and the copying that follows a backup.

use std::sync::Arc;

use clap::Args;
use lifeboat_engine::config::RepositorySettings;
use lifeboat_engine::copy::{self, BackupRef, CopyError, CopyReport, CopyRequest};
use lifeboat_engine::history;
use lifeboat_engine::journal::{Journal, Outcome, RunKind};
use lifeboat_repo::Repository;
use serde_json::{Value, json};

use super::{LockArg, RepositoryArg};
use crate::app::{self, App};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;
use crate::output::progress::Progress;

/// Flags of `copy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Copies from the first configured repository to all others, or to the one that --to names. Backups\n\
    that the retention policy would remove at once are left out.\n\n\
    Exit code 1 means that a repository could not be brought up to date, 3 that backups are damaged in\n\
    the repository that is copied from; whatever else could be copied was."
)]
pub struct CopyArgs {
    /// Only this repository.
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Copy from this repository (default: the first one).
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Only show what would be copied.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub lock: LockArg,
}

/// What became of one destination.
struct Attempt<'a> {
    settings: &'a RepositorySettings,
    result: Result<CopyReport, Failure>,
}

/// Runs it.
pub fn run(app: &App, args: &CopyArgs) -> Result<Exit, Failure> {
    let from = app.config.repository(args.from.as_deref())?;
    let destinations: Vec<&RepositorySettings> = match args.to.as_deref() {
        Some(name) => vec![app.config.repository(Some(name))?],
        None => {
            let all = app.config.repositories();
            all.filter(|one| one.name != from.name).collect()
        }
    };
    if destinations.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "no repository is configured to copy to",
        )
        .hint("add a `[[repository]]` with a `name` to the configuration, then `lifeboat init --repository NAME`")
        .hint("docs/off-host.md has an example"));
    }
    if let Some(same) = destinations.iter().find(|one| one.name == from.name) {
        let fact = format!("{} is the repository that would be copied from", same.name);
        return Err(Failure::new(Exit::Usage, fact).hint("choose another with `--to NAME`"));
    }
    let which = RepositoryArg {
        repository: args.from.clone(),
    };
    let source = app.repository(&which)?;
    let journal = app.journal()?;
    let mut attempts = Vec::new();
    for settings in destinations {
        let attempt = Attempt {
            settings,
            result: one(app, &journal, &source, settings, args),
        };
        let is_interrupted = app.is_interrupted();
        tell(app, &attempt, args.dry_run);
        attempts.push(attempt);
        if is_interrupted {
            break;
        }
    }
    app.out.object(
        "copy",
        &json!({
            "source": { "name": from.name, "location": source.location() },
            "dry_run": args.dry_run,
            "destinations": attempts.iter().map(item).collect::<Vec<_>>(),
        }),
    )?;
    conclude(app, &attempts)
}

/// Copies a new backup to the repositories that are to have it at once. Returns what `--json` says of each, and the
/// first failure there was.
pub fn after_backup(
    app: &App,
    journal: &Journal,
    source: &Repository,
    lock: &LockArg,
) -> (Vec<Value>, Option<Failure>) {
    let args = CopyArgs {
        to: None,
        from: None,
        dry_run: false,
        lock: lock.clone(),
    };
    let mut attempts = Vec::new();
    let wanted = app.config.others.iter();
    for settings in wanted.filter(|one| one.after_backup.value) {
        let result = one(app, journal, source, settings, &args);
        let attempt = Attempt { settings, result };
        tell(app, &attempt, false);
        attempts.push(attempt);
        if app.is_interrupted() {
            break;
        }
    }
    let items = attempts.iter().map(item).collect();
    (items, conclude(app, &attempts).err())
}

fn one(
    app: &App,
    journal: &Journal,
    source: &Repository,
    settings: &RepositorySettings,
    args: &CopyArgs,
) -> Result<CopyReport, Failure> {
    let destination = app.open_to_add(settings)?;
    let request = CopyRequest {
        policy: app.config.retention.value.clone(),
        now: app.now(),
        hostname: app::hostname(),
        username: app.username(),
        patience: args.lock.patience(),
        interrupt: Arc::clone(&app.interrupt),
    };
    if args.dry_run {
        return Ok(copy::plan(source, &destination, &request)?);
    }
    app.out
        .say(&format!("To {}: {}", settings.name, destination.location()));
    let progress = Progress::new(&app.out);
    let result = history::recorded(
        journal,
        RunKind::Copy,
        destination.id(),
        "",
        |error| Outcome::of_failure(matches!(error, CopyError::Interrupted)),
        |report: &CopyReport, end| {
            end.backup = report.newest.as_ref().map(|newest| newest.id.to_string());
            end.bytes_stored = Some(report.bytes);
            if let Some(first) = report.damaged.first() {
                end.outcome = Outcome::Failed;
                end.error = Some(first.what.clone());
            }
        },
        || copy::execute(source, &destination, &request, &progress),
    );
    drop(progress);
    Ok(result?)
}

/// A line about a destination, and one for whatever is wrong.
fn tell(app: &App, attempt: &Attempt<'_>, dry_run: bool) {
    let name = &attempt.settings.name;
    let report = match &attempt.result {
        Ok(report) => report,
        // Whoever interrupted it knows.
        Err(failure) if failure.exit == Exit::Interrupted => return,
        // Told where it happened, and at the end once more as the command's own failure.
        Err(failure) => return app.out.warn(&format!("{name}: {}", failure.sentence())),
    };
    for damaged in &report.damaged {
        app.out.warn(&format!(
            "{name}: backup {} of {}, {}, was not copied: {}",
            damaged.backup.id.short(),
            damaged.backup.database,
            human::time(damaged.backup.time),
            damaged.what
        ));
    }
    for pack in &report.damaged_packs {
        app.out.warn(&format!("damaged in the source: {pack}"));
    }
    for file in &report.unreadable {
        app.out.warn(&format!("{name}: {file}"));
    }
    if !report.shared_keys {
        app.out.detail(&format!(
            "{name} has keys of its own: each chunk is opened and sealed anew"
        ));
    }
    app.out.report(&line(name, report, dry_run));
}

fn line(name: &str, report: &CopyReport, dry_run: bool) -> String {
    let count = report.copied.len() as u64;
    let is_there = count == 0 && report.is_good();
    let mut text = if is_there {
        format!(
            "{name}: up to date, {}",
            human::plural(report.present, "backup")
        )
    } else if dry_run {
        format!(
            "{name}: {} would be copied, {} of {}",
            human::plural(count, "backup"),
            human::bytes(report.bytes),
            human::plural(report.packs, "pack"),
        )
    } else {
        format!(
            "{name}: {} copied, {}, {} moved in {}",
            human::plural(count, "backup"),
            human::plural(report.packs, "pack"),
            human::bytes(report.bytes),
            human::duration(report.seconds),
        )
    };
    if report.packs_adopted > 0 {
        text.push_str(&format!(
            "; {} of an earlier run taken over",
            human::plural(report.packs_adopted, "pack")
        ));
    }
    if report.expired > 0 {
        text.push_str(&format!(
            "; {} left out, which the policy would remove",
            human::plural(report.expired, "backup")
        ));
    }
    text
}

/// A destination, as JSON shows it.
fn item(attempt: &Attempt<'_>) -> Value {
    let settings = attempt.settings;
    let location = settings
        .location
        .as_ref()
        .map(|place| place.value.to_string());
    let head = json!({ "name": settings.name, "location": location });
    let body = match &attempt.result {
        Err(failure) => json!({ "done": false, "failure": failure }),
        Ok(report) => json!({
            "done": report.is_good(),
            "shared_keys": report.shared_keys,
            "copied": report.copied.iter().map(|one| {
                let mut item = reference(&one.backup);
                item["id_there"] = one.id_there.to_string().into();
                item
            }).collect::<Vec<_>>(),
            "damaged": report.damaged.iter().map(|one| {
                let mut item = reference(&one.backup);
                item["what"] = one.what.clone().into();
                item
            }).collect::<Vec<_>>(),
            "damaged_packs": report.damaged_packs,
            "unreadable": report.unreadable,
            "present": report.present,
            "left_out": report.expired,
            "packs": report.packs,
            "packs_moved_whole": report.packs_moved,
            "packs_taken_over": report.packs_adopted,
            "bytes": report.bytes,
            "newest": report.newest.as_ref().map(reference),
            "seconds": report.seconds,
        }),
    };
    match (head, body) {
        (Value::Object(mut head), Value::Object(body)) => {
            head.extend(body);
            Value::Object(head)
        }
        (head, _) => head,
    }
}

fn reference(backup: &BackupRef) -> Value {
    json!({
        "backup": backup.id.to_string(),
        "database": backup.database,
        "snapshot_time": backup.time,
    })
}

/// How the command ends: with the first destination that failed, else with damage, else well.
fn conclude(app: &App, attempts: &[Attempt<'_>]) -> Result<Exit, Failure> {
    if app.is_interrupted() {
        return Err(Failure::interrupted());
    }
    let failed: Vec<(&str, &Failure)> = attempts
        .iter()
        .filter_map(|one| Some((one.settings.name.as_str(), one.result.as_ref().err()?)))
        .collect();
    let Some((_, first)) = failed.first() else {
        let is_good = |one: &Attempt<'_>| one.result.as_ref().is_ok_and(CopyReport::is_good);
        return match attempts.iter().all(is_good) {
            true => Ok(Exit::Done),
            false => Err(damage(attempts)),
        };
    };
    let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
    let mut failure = Failure {
        fact: format!(
            "{} of {} could not be brought up to date: {}",
            names.len(),
            match attempts.len() {
                1 => "1 repository".to_owned(),
                count => format!("{count} repositories"),
            },
            names.join(", ")
        ),
        causes: Vec::new(),
        hints: first.hints.clone(),
        // A destination's own code (no repository, locked, wrong passphrase) only where it is the only one.
        exit: if attempts.len() == 1 {
            first.exit
        } else {
            Exit::Failed
        },
    };
    failure = failure.cause(&first.fact);
    for cause in &first.causes {
        failure = failure.cause(cause);
    }
    Err(failure)
}

/// What was found damaged in the source.
fn damage(attempts: &[Attempt<'_>]) -> Failure {
    let reports = || attempts.iter().filter_map(|one| one.result.as_ref().ok());
    let lost = reports()
        .map(|report| report.damaged.len())
        .max()
        .unwrap_or(0);
    let fact = match lost {
        0 => "damaged files were found; all backups could be copied nevertheless".to_owned(),
        count => format!(
            "{} damaged and could not be copied; all others were",
            match count {
                1 => "1 backup is".to_owned(),
                _ => format!("{count} backups are"),
            }
        ),
    };
    Failure::new(Exit::BadData, fact)
        .hint("`lifeboat repair` mends it with good copies from other repositories, and names what is lost")
}
