//! `lifeboat import`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::tz::{Offset, TimeZone};
use lifeboat_engine::import::{
    self, DumpFacts, FileOutcome, FileReport, ImportPlan, ImportReport, ImportRequest, Refusal,
    Verdict, ZoneSource,
};
use serde_json::{Value, json};

use super::{LockArg, jobs};
use crate::app::{self, App};
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::output::progress::Progress;
use crate::output::table::{self, Column};
use crate::output::{Tone, human};

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Takes what `pg_dump -Fc` wrote, by PostgreSQL 9.0 to 18, compressed with gzip, lz4, zstd or not at all. \
    Each file becomes a backup with the dump's own date, the oldest first; what was imported before is \
    recognised by its content. A file that is damaged or of another kind is refused, and the others go on: \
    then the exit code is 1.\n\n\
    A dump holds the time at which it was begun, but not its time zone. That is found by the time at which \
    the file was last written to: the zone that puts the one shortly before the other. Where that does not \
    tell (the file was copied without its times), it is taken to be this machine's. --dry-run shows what \
    was found, --time-zone has the last word.\n\n\
    A dump does not hold roles. Where it was made without all rows or tables, the backup lacks them too."
)]
pub struct ImportArgs {
    /// Dumps in the custom format, or folders with such.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Which files of a folder.
    #[arg(long, value_name = "PATTERN", default_value = "*.dump")]
    pub glob: String,
    /// The name that the backups go by (default: the one configured for the dump's database, else its own).
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// The zone of the dumps' own times: Europe/Berlin, UTC, +05:30.
    #[arg(long, value_name = "ZONE", value_parser = time_zone, allow_hyphen_values = true)]
    pub time_zone: Option<TimeZone>,
    /// Read this many tables at once (default: one per processor).
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    /// Only show what would be done.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub lock: LockArg,
}

/// A name of the time zone database, or an offset.
fn time_zone(text: &str) -> Result<TimeZone, String> {
    let offset = || {
        let sign = match text.bytes().next()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, minutes) = text[1..].split_once(':').unwrap_or((&text[1..], "0"));
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let valid = (0..=14).contains(&hours) && (0..60).contains(&minutes);
        let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
        valid.then(|| TimeZone::fixed(offset))
    };
    offset()
        .or_else(|| TimeZone::get(text).ok())
        .ok_or_else(|| {
            "must be a zone such as Europe/Berlin or UTC, or an offset such as +02:00".to_owned()
        })
}

/// Runs it.
pub fn run(app: &App, args: &ImportArgs) -> Result<Exit, Failure> {
    let repository = app.open(&app.config.primary)?;
    let request = ImportRequest {
        files: args.files.clone(),
        pattern: args.glob.clone(),
        database: args.database.clone(),
        names: configured_names(app),
        time_zone: args.time_zone.clone(),
        machine_zone: TimeZone::system(),
        now: app.now(),
        jobs: app.jobs(args.jobs),
        compression_level: app.config.backup.compression_level.value,
        lock_patience: args.lock.patience(),
        hostname: app::hostname(),
        username: app.username(),
        interrupt: Arc::clone(&app.interrupt),
    };
    let plan = import::plan(&repository, &request)?;
    tell_dates(app, &plan);
    if args.dry_run {
        return dry_run(app, &plan);
    }
    let journal = app.journal()?;
    let progress = Progress::new(&app.out);
    let report = import::execute(&repository, &journal, plan, &request, &progress);
    drop(progress);
    finished(app, report)
}

/// By the database's own name, what the configuration calls it; databases of several servers may share one.
fn configured_names(app: &App) -> BTreeMap<String, Vec<String>> {
    let named = app
        .config
        .databases
        .iter()
        .filter_map(|one| one.name.as_deref());
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // One whose URL cannot be read is another command's concern.
    for source in named.filter_map(|name| app.source(Some(name)).ok()) {
        let own = source.conninfo.database().to_owned();
        names.entry(own).or_default().push(source.name);
    }
    names
}

fn facts(verdict: &Verdict) -> Option<&DumpFacts> {
    match verdict {
        Verdict::Import(facts) | Verdict::AlreadyThere(facts, _) => Some(facts),
        Verdict::Refused(_) => None,
    }
}

fn zone(source: ZoneSource) -> String {
    match source {
        ZoneSource::Given => "as given".to_owned(),
        ZoneSource::Modified(offset) => format!("UTC{offset}, by the file's time"),
        ZoneSource::Machine => "this machine's".to_owned(),
    }
}

/// Says it where the date hangs on the file's time in another zone than ours, and where a dump would be dated
/// otherwise than it was.
fn tell_dates(app: &App, plan: &ImportPlan) {
    let mut foreign: BTreeMap<String, u64> = BTreeMap::new();
    for facts in plan.files.iter().filter_map(|file| facts(&file.verdict)) {
        if let ZoneSource::Modified(_) = facts.begun.source {
            *foreign.entry(zone(facts.begun.source)).or_default() += 1;
        }
    }
    for (zone, dumps) in foreign {
        app.out.say(&format!(
            "the zone of {} is taken to be {zone}; `--time-zone` says otherwise",
            human::plural(dumps, "dump"),
        ));
    }
    for file in &plan.files {
        if let Verdict::AlreadyThere(facts, there) = &file.verdict
            && there.time != facts.begun.time
        {
            app.out.warn(&format!(
                "{} is there as backup {}, dated {}, and would be dated {} now; to have it so, `restic forget {}`, then import it again",
                file.path.display(),
                there.id.short(),
                there.time,
                facts.begun.time,
                there.id.short()
            ));
        }
    }
}

fn dry_run(app: &App, plan: &ImportPlan) -> Result<Exit, Failure> {
    let items: Vec<Value> = plan
        .files
        .iter()
        .map(|file| {
            let facts = facts(&file.verdict);
            let (action, backup, reason) = match &file.verdict {
                Verdict::Import(_) => ("import", None, None),
                Verdict::AlreadyThere(_, there) => {
                    ("already_there", Some(there.id.to_string()), None)
                }
                Verdict::Refused(refusal) => ("refuse", None, Some(refusal.to_string())),
            };
            json!({
                "file": file.path,
                "size_bytes": file.size_bytes,
                "action": action,
                "backup": backup,
                "reason": reason,
                "database": facts.map(|one| &one.header.database),
                "own_name": facts.map(|one| &one.header.own_name),
                "snapshot_time": facts.map(|one| one.begun.time),
                "local_time": facts.map(|one| one.begun.local.to_string()),
                "time_zone": facts.map(|one| zone(one.begun.source)),
                "server_version": facts.map(|one| &one.header.server_version),
                "pg_dump_version": facts.map(|one| &one.header.pg_dump_version),
                "tables": facts.map(|one| one.header.tables),
                "compression": facts.map(|one| one.header.compression),
            })
        })
        .collect();
    app.out
        .object("import", &json!({ "dry_run": true, "files": items }))?;
    let columns = [
        Column::Left("FILE"),
        Column::Right("SIZE"),
        Column::Left("DATABASE"),
        Column::Left("SNAPSHOT"),
        Column::Left("ZONE"),
        Column::Left("SERVER"),
        Column::Right("TABLES"),
        Column::Left("ACTION"),
    ];
    app.out.data(&table::draw(
        &columns,
        plan.files.iter().map(|file| {
            let action = match &file.verdict {
                Verdict::Import(_) => app.out.paint(Tone::Good, "import"),
                Verdict::AlreadyThere(_, there) => {
                    format!("already there: {}", there.id.short())
                }
                Verdict::Refused(refusal) => {
                    app.out.paint(Tone::Bad, &format!("refuse: {refusal}"))
                }
            };
            let of = |text: &dyn Fn(&DumpFacts) -> String| {
                facts(&file.verdict).map_or_else(|| "–".to_owned(), text)
            };
            let server = |one: &DumpFacts| {
                let version = one.header.server_version.split_whitespace().next();
                version.unwrap_or("?").to_owned()
            };
            vec![
                file.path.display().to_string(),
                human::bytes(file.size_bytes),
                of(&|one| one.header.database.clone()),
                of(&|one| human::time_exact(one.begun.time)),
                of(&|one| zone(one.begun.source)),
                of(&server),
                of(&|one| human::count(one.header.tables)),
                action,
            ]
        }),
    ));
    let imports = |file: &&import::PlannedFile| matches!(file.verdict, Verdict::Import(_));
    let count = plan.files.iter().filter(imports).count() as u64;
    let bytes = plan
        .files
        .iter()
        .filter(imports)
        .map(|one| one.size_bytes)
        .sum();
    app.out.data(&format!(
        "\n{} of {} would be imported; nothing was changed",
        human::plural(count, "dump"),
        human::bytes(bytes)
    ));
    let refused = plan.files.iter().filter_map(|file| match &file.verdict {
        Verdict::Refused(refusal) => Some((&file.path, refusal)),
        _ => None,
    });
    refusals(&refused.collect::<Vec<_>>(), plan.files.len())
}

fn finished(app: &App, report: ImportReport) -> Result<Exit, Failure> {
    let files: Vec<Value> = report.files.iter().map(item).collect();
    let imported = || {
        report.files.iter().filter_map(|file| match &file.outcome {
            FileOutcome::Imported(imported) => Some((file, imported)),
            _ => None,
        })
    };
    let (mut size, mut data, mut new) = (0, 0, 0);
    for (file, imported) in imported() {
        size += file.size_bytes;
        data += imported.data_bytes;
        new += imported.new_bytes;
    }
    let count = |wanted: fn(&FileOutcome) -> bool| {
        report
            .files
            .iter()
            .filter(|file| wanted(&file.outcome))
            .count() as u64
    };
    let there = count(|one| matches!(one, FileOutcome::AlreadyThere(_)));
    let left = count(|one| matches!(one, FileOutcome::NotReached));
    let refused: Vec<_> = report
        .files
        .iter()
        .filter_map(|file| match &file.outcome {
            FileOutcome::Refused(refusal) => Some((&file.path, refusal)),
            _ => None,
        })
        .collect();
    app.out.object(
        "import",
        &json!({
            "dry_run": false,
            "files": files,
            "imported": imported().count(),
            "already_there": there,
            "refused": refused.len(),
            "not_reached": left,
            "dump_bytes": size,
            "data_bytes": data,
            "new_bytes": new,
            "seconds": report.seconds,
        }),
    )?;
    // Once, not once for each of a month's dumps.
    let mut warnings: Vec<&String> = Vec::new();
    for warning in imported().flat_map(|(_, imported)| &imported.warnings) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    for warning in warnings {
        app.out.warn(warning);
    }
    let mut facts = vec![(
        "imported",
        format!(
            "{} of {}, {} of rows",
            human::plural(imported().count() as u64, "dump"),
            human::bytes(size),
            human::bytes(data)
        ),
    )];
    if there > 0 {
        facts.push(("already there", human::plural(there, "dump")));
    }
    if !refused.is_empty() {
        facts.push(("refused", human::plural(refused.len() as u64, "file")));
    }
    if left > 0 {
        facts.push(("not reached", human::plural(left, "dump")));
    }
    facts.push(("new", format!("{} stored", human::bytes(new))));
    facts.push(("took", human::duration(report.seconds)));
    app.out.report(&table::pairs(&facts));
    let total = report.files.len();
    match report.stopped {
        Some(error) => {
            let failure = Failure::from(error);
            let of = imported().count() as u64 + there;
            Err(if of > 0 {
                failure.hint(format!(
                    "{} of {total} are there; run it again, and it goes on with the rest",
                    human::plural(of, "dump")
                ))
            } else {
                failure
            })
        }
        None => refusals(&refused, total),
    }
}

/// A file and what came of it, as JSON shows it.
fn item(file: &FileReport) -> Value {
    let mut fields = json!({ "file": file.path, "size_bytes": file.size_bytes });
    let more = match &file.outcome {
        FileOutcome::Imported(one) => json!({
            "result": "imported",
            "backup": one.id.to_string(),
            "database": one.database,
            "snapshot_time": one.snapshot_time,
            "tables": one.tables,
            "rows": one.rows,
            "data_bytes": one.data_bytes,
            "new_bytes": one.new_bytes,
            "migration": one.migration,
            "warnings": one.warnings,
            "seconds": one.seconds,
        }),
        FileOutcome::AlreadyThere(id) => {
            json!({ "result": "already_there", "backup": id.to_string() })
        }
        FileOutcome::Refused(refusal) => {
            json!({ "result": "refused", "reason": refusal.to_string() })
        }
        FileOutcome::NotReached => json!({ "result": "not_reached" }),
    };
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    fields
}

/// The files that are not backups now, each with why, and what to do.
fn refusals(refused: &[(&PathBuf, &Refusal)], of: usize) -> Result<Exit, Failure> {
    let Some((path, refusal)) = refused.first() else {
        return Ok(Exit::Done);
    };
    let mut failure = match refused {
        [_] => Failure::new(Exit::Failed, format!("{}: {refusal}", path.display())),
        _ => Failure::new(
            Exit::Failed,
            format!("{} of {of} files were refused", refused.len()),
        ),
    };
    if refused.len() > 1 {
        for (path, refusal) in refused {
            failure = failure.cause(format!("{}: {refusal}", path.display()));
        }
    }
    for (_, refusal) in refused {
        let hint = failure::import::advice(refusal);
        if !failure.hints.iter().any(|other| other == hint) {
            failure = failure.hint(hint);
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn zones() {
        let at = "2026-07-01T12:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("UTC", 0),
            ("+05:30", 19_800),
            ("-3", -10_800),
            ("Europe/Berlin", 7_200),
        ] {
            let zone = time_zone(text).unwrap();
            assert_eq!(zone.to_offset(at).seconds(), seconds, "{text}");
        }
        for text in ["", "+", "+25", "Europe/Nowhere", "+1:99"] {
            assert!(time_zone(text).is_err(), "{text}");
        }
    }
}
