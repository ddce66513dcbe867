//! `lifeboat expire`.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use lifeboat_engine::config::Origin;
use lifeboat_engine::expire::{
    self, ExpireError, ExpireReport, ExpireRequest, Policy, Rule, Verdict, Within,
};
use lifeboat_engine::history;
use lifeboat_engine::journal::{Outcome, RunKind};
use lifeboat_engine::objectives::{age_seconds, human_seconds};
use lifeboat_repo::prune::{PruneEstimate, PruneReport};
use serde_json::{Value, json};

use super::{DatabaseArg, LockArg, RepositoryArg};
use crate::app::{self, App};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::table::{self, Column};
use crate::output::{Tone, human};

/// Flags of `expire`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without any --keep flag the policy is that of [retention] in the configuration, by default\n\
    --keep-within 30d. The flags mean what they mean for `restic forget`; each database is judged by itself,\n\
    in UTC.\n\n\
    Whatever the policy says, these stay: the newest backup, the newest proven one, the last three good ones\n\
    of a database, held ones, ones dated in the future, and all of a database whose backups fail or are\n\
    overdue (older than `verify.max_age`)."
)]
pub struct ExpireArgs {
    /// Keep the newest N.
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one.
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keep the newest of each of the last N days that have one.
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks that have one.
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one.
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Keep the newest of each of the last N years that have one.
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Keep all that are at most so much older than the newest: 30d, 2y5m7d3h (years, months, days, hours).
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<Within>,
    /// Only show what would be done.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Remove backups from the list, but leave their data for a later run.
    #[arg(long)]
    pub no_prune: bool,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

impl ExpireArgs {
    fn policy(&self, app: &App) -> Policy {
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        if counts.iter().all(Option::is_none) && self.keep_within.is_none() {
            return app.config.retention.value.clone();
        }
        // Also `--keep-last 0`, which keeps nothing and is then refused: whoever typed it did not mean the default.
        let [last, hourly, daily, weekly, monthly, yearly] = counts.map(|count| count.unwrap_or(0));
        Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within: self.keep_within,
        }
    }
}

/// Runs it.
pub fn run(app: &App, args: &ExpireArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let journal = app.journal()?;
    let request = ExpireRequest {
        policy: args.policy(app),
        database: args.database.name().map(str::to_owned),
        prune: !args.no_prune,
        max_unused_permille: app.config.max_unused_permille.value,
        overdue_after: app.config.verify.max_age.value,
        patience: args.lock.patience(),
        hostname: app::hostname(),
        username: app.username(),
        now: app.now(),
        interrupt: Arc::clone(&app.interrupt),
    };
    let started = std::time::Instant::now();
    let report = if args.dry_run {
        expire::plan(&repository, &journal, &request)?
    } else {
        let progress = Progress::new(&app.out);
        let database = request.database.clone().unwrap_or_default();
        let result = history::recorded(
            &journal,
            RunKind::Expire,
            repository.id(),
            &database,
            |_: &ExpireError| Outcome::of_failure(app.is_interrupted()),
            |report: &ExpireReport, end| {
                end.bytes_stored = report.done.as_ref().map(|done| done.bytes_written);
            },
            || expire::execute(&repository, &journal, &request, &progress),
        );
        drop(progress);
        match result {
            Err(_) if app.is_interrupted() => return Err(Failure::interrupted()),
            result => result?,
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    app.out.object(
        "expire",
        &json!({
            "repository": repository.location(),
            "dry_run": args.dry_run,
            "policy": request.policy.to_string(),
            "backups": report.verdicts.iter().map(item).collect::<Vec<_>>(),
            "removed": report.done.iter().flat_map(|done| &done.snapshots_removed)
                .map(ToString::to_string).collect::<Vec<_>>(),
            "estimate": report.estimate.map(estimate),
            "pruned": report.done.as_ref().filter(|_| request.prune).map(pruned),
            "seconds": seconds,
        }),
    )?;
    explain(app, &report, &request);
    finish(app, &report, args, seconds);
    Ok(Exit::Done)
}

/// A backup and what becomes of it, as JSON shows it.
fn item(verdict: &Verdict) -> Value {
    let candidate = &verdict.candidate;
    json!({
        "backup": candidate.id.to_string(),
        "database": candidate.database,
        "snapshot_time": candidate.time,
        "action": if verdict.is_kept() { "keep" } else { "drop" },
        "policy": verdict.matches.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "rules": verdict.rules.iter().map(Rule::name).collect::<Vec<_>>(),
        "held": candidate.held,
        "not_before": verdict.not_before,
    })
}

fn estimate(estimate: PruneEstimate) -> Value {
    json!({ "packs": estimate.packs, "bytes": estimate.bytes })
}

fn pruned(done: &PruneReport) -> Value {
    json!({
        "packs_removed": done.packs_removed,
        "bytes_removed": done.bytes_removed,
        "packs_written": done.packs_written,
        "bytes_written": done.bytes_written,
        "index_files_removed": done.index_files_removed,
        "index_files_written": done.index_files_written,
        "bytes_left": done.bytes_left,
        "bytes_unreferenced": done.bytes_unreferenced,
        "short_of_room": done.short_of_room,
    })
}

/// Every backup with what becomes of it and why, and every rule that the policy ran into.
fn explain(app: &App, report: &ExpireReport, request: &ExpireRequest) {
    let origin = match &app.config.retention.origin {
        _ if request.policy != app.config.retention.value => "flags".to_owned(),
        Origin::Default => "the default".to_owned(),
        origin => origin.to_string(),
    };
    app.out
        .say(&format!("policy: keep {} ({origin})", request.policy));
    for database in databases(report) {
        let own = || {
            report
                .verdicts
                .iter()
                .filter(|one| one.candidate.database == *database)
        };
        let rules: Vec<&Rule> = own().flat_map(|one| &one.rules).collect();
        let failing = rules.iter().find_map(|rule| match rule {
            Rule::Failing(reason) => Some(reason),
            _ => None,
        });
        if let Some(reason) = failing {
            app.out.warn(&format!(
                "nothing of {database} is removed while its backups fail; the last run: {reason}"
            ));
        }
        if report.for_room.contains(database) {
            app.out.say(&format!(
                "backups of {database} fail for want of room: what the policy drops goes, to make some"
            ));
        }
        let overdue = rules.iter().find_map(|rule| match rule {
            Rule::Overdue(seconds) => Some(*seconds),
            _ => None,
        });
        if let Some(age) = overdue {
            let age = match age {
                0 => "dated in the future".to_owned(),
                age => format!("{} old", human_seconds(age)),
            };
            app.out.warn(&format!(
                "nothing of {database} is removed while its backups are overdue: the newest is {age}, {} are allowed",
                human_seconds(request.overdue_after.seconds())
            ));
        }
        let future = own()
            .filter(|one| one.rules.contains(&Rule::Future))
            .count();
        if future > 0 {
            app.out.warn(&format!(
                "{} of {database} dated in the future: a clock is or was wrong",
                human::plural(future as u64, "backup")
            ));
        }
        let back = own().filter(|one| one.not_before.is_some()).count();
        if back > 0 {
            app.out.warn(&format!(
                "{} of {database} dated before the backups that came before: a clock was wrong, or somebody dated back; no other backup goes for them",
                human::plural(back as u64, "backup")
            ));
        }
    }
    if report.verdicts.is_empty() {
        return;
    }
    let drawn = drawn(app, &report.verdicts);
    if report.done.is_some() {
        app.out.report(&drawn);
    } else {
        app.out.data(&drawn);
    }
}

fn databases(report: &ExpireReport) -> BTreeSet<&String> {
    report
        .verdicts
        .iter()
        .map(|one| &one.candidate.database)
        .collect()
}

fn drawn(app: &App, verdicts: &[Verdict]) -> String {
    let columns = [
        Column::Left("BACKUP"),
        Column::Left("DATABASE"),
        Column::Left("SNAPSHOT"),
        Column::Right("AGE"),
        Column::Left("ACTION"),
        Column::Left("WHY"),
    ];
    table::draw(
        &columns,
        verdicts.iter().map(|verdict| {
            let candidate = &verdict.candidate;
            let (tone, action) = if verdict.is_kept() {
                (Tone::Good, "keep")
            } else {
                (Tone::Warn, "drop")
            };
            vec![
                candidate.id.short(),
                candidate.database.clone(),
                human::time(candidate.time),
                human::age(age_seconds(candidate.time, app.now())),
                app.out.paint(tone, action),
                why(verdict),
            ]
        }),
    )
}

fn why(verdict: &Verdict) -> String {
    let mut reasons: Vec<String> = verdict.matches.iter().map(ToString::to_string).collect();
    reasons.extend(verdict.rules.iter().map(ToString::to_string));
    let mut why = match (reasons.is_empty(), verdict.is_kept_against_the_policy()) {
        (true, _) => "the policy does not keep it".to_owned(),
        (_, true) => format!("not by the policy, but {}", reasons.join(", ")),
        _ => reasons.join(", "),
    };
    if let Some(time) = verdict.not_before {
        why.push_str(&format!("; taken after {}", human::time(time)));
    }
    why
}

fn finish(app: &App, report: &ExpireReport, args: &ExpireArgs, seconds: f64) {
    let dropped = report.verdicts.iter().filter(|one| !one.is_kept()).count() as u64;
    let kept = report.verdicts.len() as u64 - dropped;
    if args.dry_run {
        let freed = report.estimate.map_or_else(String::new, |estimate| {
            format!(", {} would be free", human::bytes(estimate.bytes))
        });
        app.out.data(&format!(
            "\n{} would go, {kept} stay{freed}; nothing was changed",
            human::plural(dropped, "backup")
        ));
        return;
    }
    let Some(done) = &report.done else { return };
    let mut facts = vec![(
        "removed",
        format!(
            "{}, {kept} stay",
            human::plural(done.snapshots_removed.len() as u64, "backup")
        ),
    )];
    if !args.no_prune {
        facts.push((
            "freed",
            format!(
                "{} in {}; {} written anew",
                human::bytes(done.bytes_removed),
                human::plural(done.packs_removed, "pack"),
                human::bytes(done.bytes_written)
            ),
        ));
        facts.push((
            "left",
            format!(
                "{}, {} of it unreferenced",
                human::bytes(done.bytes_left),
                human::bytes(done.bytes_unreferenced)
            ),
        ));
    }
    facts.push(("took", human::duration(seconds)));
    app.out.report(&format!("\n{}", table::pairs(&facts)));
    if done.short_of_room {
        app.out.warn("the disk was too full to put data together: what could be freed without that was; the next run does the rest");
    }
}
