//! What was found and done, as people and scripts read it.

use std::collections::BTreeMap;

use lifeboat_engine::config::RepositorySettings;
use lifeboat_engine::repair::{BackupLoss, LostBackup, LostPart, RepairPlan, RepairReport};
use lifeboat_repo::check::{Finding, Problem};
use lifeboat_repo::repair::{PackPlan, RepairDone};
use lifeboat_repo::storage::FileKind;
use serde_json::{Value, json};

use super::plural;
use crate::app::App;
use crate::output::table::{self, Column};
use crate::output::{Tone, human};

/// Shows the plan: each damaged file with what becomes of it, and what is lost.
pub fn show(app: &App, plan: &RepairPlan, dry_run: bool) {
    for (name, why) in &plan.unusable {
        app.out
            .warn(&format!("{name} cannot be asked for good copies: {why}"));
    }
    let packs: BTreeMap<String, &PackPlan> = plan
        .found
        .packs
        .iter()
        .map(|pack| (pack.id.to_string(), pack))
        .collect();
    let columns = [
        Column::Left("DAMAGED"),
        Column::Left("WHAT"),
        Column::Left("REMEDY"),
    ];
    let rows = plan.found.findings.iter().map(|finding| {
        let name = finding.name.get(..8).unwrap_or(&finding.name);
        let (tone, remedy) = remedy(plan, finding, packs.get(&finding.name).copied());
        vec![
            format!("{} {name}", finding.kind),
            finding.what.to_string(),
            app.out.paint(tone, &remedy),
        ]
    });
    let mut text = table::draw(&columns, rows);
    let lost = lost(&plan.losses, &plan.backups_lost);
    if !lost.is_empty() {
        text = format!("{text}\n\n{lost}");
    }
    if dry_run {
        app.out.data(&text);
    } else {
        app.out.report(&text);
    }
}

/// What becomes of a damaged file.
fn remedy(plan: &RepairPlan, finding: &Finding, pack: Option<&PackPlan>) -> (Tone, String) {
    let source = |at: &usize| plan.sources.get(*at).map_or("?", String::as_str);
    match finding.kind {
        FileKind::Pack => pack.map_or(
            (Tone::Good, "removed: nothing needs it".to_owned()),
            |pack| of_pack(pack, &source),
        ),
        FileKind::Index => (
            Tone::Good,
            match plan.found.packs_to_list {
                0 => "removed: other index files list all packs".to_owned(),
                count => format!(
                    "written anew, from the headers of {}",
                    human::plural(count, "pack")
                ),
            },
        ),
        FileKind::Snapshot if matches!(finding.what, Problem::Incomplete { .. }) => {
            let is_lost = plan
                .losses
                .iter()
                .any(|loss| loss.id.to_string() == finding.name);
            match (
                is_lost,
                plan.found.packs_to_list,
                plan.found.unlisted_found.keys().next(),
            ) {
                (true, ..) => (Tone::Bad, "lost: nobody has them".to_owned()),
                (_, _, Some(at)) => (Tone::Good, format!("from {}", source(at))),
                _ => (
                    Tone::Good,
                    "found in packs that are listed again".to_owned(),
                ),
            }
        }
        FileKind::Snapshot => {
            let id = finding.name.parse().ok();
            match id.and_then(|id| plan.found.snapshots_found.get(&id)) {
                Some(at) => (Tone::Good, format!("from {}", source(at))),
                None => (Tone::Bad, "lost: nobody has it".to_owned()),
            }
        }
        FileKind::Lock => (Tone::Warn, "left: it may still be somebody's".to_owned()),
        FileKind::Key => (Tone::Warn, "left: its passphrase is needed".to_owned()),
        FileKind::Config => (Tone::Warn, "left: put it back from a copy".to_owned()),
    }
}

fn of_pack<'a>(pack: &PackPlan, source: &dyn Fn(&usize) -> &'a str) -> (Tone, String) {
    if pack.is_brought_whole {
        let from = pack.elsewhere.keys().next().map_or("?", source);
        return (Tone::Good, format!("as it was, from {from}"));
    }
    let of = human::plural(pack.blobs, "chunk");
    let mut parts = Vec::new();
    if pack.here > 0 {
        parts.push(format!("{} good here", human::count(pack.here)));
    }
    for (at, count) in &pack.elsewhere {
        parts.push(format!("{} from {}", human::count(*count), source(at)));
    }
    if pack.lost > 0 {
        parts.push(format!("{} lost", human::count(pack.lost)));
    }
    let told = pack.here + pack.elsewhere.values().sum::<u64>() + pack.lost;
    if pack.blobs > told {
        parts.push(format!("{} not needed", human::count(pack.blobs - told)));
    }
    if parts.is_empty() {
        return (Tone::Good, "removed: nothing needs it".to_owned());
    }
    let tone = if pack.lost > 0 { Tone::Bad } else { Tone::Good };
    (tone, format!("{of}: {}", parts.join(", ")))
}

/// What backups have lost. Neighbours that have lost the same share a line: a table that never changes is the same
/// bytes in every backup.
fn lost(losses: &[BackupLoss], backups_lost: &[LostBackup]) -> String {
    let mut groups: Vec<(&BackupLoss, &BackupLoss, usize, String)> = Vec::new();
    let mut sorted: Vec<&BackupLoss> = losses.iter().collect();
    sorted.sort_by_key(|loss| (&loss.database, loss.time, loss.id));
    for loss in sorted {
        let what = in_words(&loss.parts);
        match groups.last_mut() {
            Some((first, last, count, same))
                if first.database == loss.database && *same == what =>
            {
                *last = loss;
                *count += 1;
            }
            _ => groups.push((loss, loss, 1, what)),
        }
    }
    let between = |first: String, last: String, count: usize| match count {
        1 => first,
        _ => format!("{first} … {last}"),
    };
    let mut rows: Vec<Vec<String>> = groups
        .into_iter()
        .map(|(first, last, count, what)| {
            vec![
                between(first.id.short(), last.id.short(), count),
                count.to_string(),
                first.database.clone().unwrap_or_else(|| "–".to_owned()),
                between(human::time(first.time), human::time(last.time), count),
                what,
            ]
        })
        .collect();
    rows.extend(backups_lost.iter().map(|lost| {
        let (database, time) = match &lost.known {
            Some((database, time)) => (database.clone(), human::time(*time)),
            None => ("?".to_owned(), "?".to_owned()),
        };
        let id = lost.id.get(..8).unwrap_or(&lost.id).to_owned();
        vec![id, "1".to_owned(), database, time, "everything".to_owned()]
    }));
    if rows.is_empty() {
        return String::new();
    }
    let columns = [
        Column::Left("BACKUP"),
        Column::Right("COUNT"),
        Column::Left("DATABASE"),
        Column::Left("SNAPSHOT"),
        Column::Left("LOST"),
    ];
    table::draw(&columns, rows)
}

fn in_words(parts: &[LostPart]) -> String {
    let words = parts.iter().map(|lost| match lost.chunks_lost {
        Some(count) if lost.chunks > count => {
            format!("{} ({count} of {} chunks)", lost.part, lost.chunks)
        }
        _ => lost.part.to_string(),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What is not well after all, in one sentence; `None` when all is, or when nothing was to be done.
pub fn trouble(report: &RepairReport) -> Option<String> {
    let repaired = report.repaired.as_ref()?;
    let done = &repaired.done;
    if done.is_whole() {
        return None;
    }
    let mut parts = Vec::new();
    match repaired.losses.len() {
        0 => {}
        1 => parts.push("1 backup has lost data".to_owned()),
        count => parts.push(format!("{count} backups have lost data")),
    }
    match done.snapshots_removed.len() {
        0 => {}
        1 => parts.push("1 backup is lost".to_owned()),
        count => parts.push(format!("{count} backups are lost")),
    }
    if !done.left.is_empty() {
        parts.push(format!("{} left", plural(done.left.len(), "damaged file")));
    }
    Some(parts.join(", "))
}

/// Shows what was done.
pub fn finish(app: &App, report: &RepairReport, location: &str) {
    let found = &report.plan.found;
    for finding in &found.misread {
        app.out.warn(&format!(
            "{finding}; when it was read again it was right: look at this machine's memory, disk and cables"
        ));
    }
    for name in &found.locks_removed {
        let name = name.get(..8).unwrap_or(name);
        app.out.warn(&format!(
            "lock {name} could not be read and was nobody's any more: it was removed"
        ));
    }
    for id in &report.whole_again {
        app.out
            .report(&format!("backup {} is whole again", id.short()));
    }
    if let Some(why) = &report.unmarked {
        app.out
            .warn(&format!("the backups could not be marked: {why}"));
    }
    if found.is_clean() {
        app.out.report(&format!(
            "ok: nothing is damaged in {location}, {} read in {}",
            human::bytes(found.bytes_read),
            human::duration(report.seconds)
        ));
        return;
    }
    let Some(repaired) = &report.repaired else {
        return;
    };
    let mut text = format!("\n{}", table::pairs(&facts(report, &repaired.done)));
    let now = lost(&repaired.losses, &[]);
    // What was lost before was shown with the plan.
    if repaired.losses.len() != report.plan.losses.len() && !now.is_empty() {
        text = format!("{text}\n\n{now}");
    }
    app.out.report(&text);
    for finding in &repaired.done.left {
        app.out.warn(&format!("still there: {finding}"));
    }
    if repaired.done.short_of_room {
        app.out
            .warn("the disk was too full to write the index anew: make room, then run it again");
    }
    if repaired.done.is_whole() {
        app.out
            .report(&app.out.paint(Tone::Good, "all backups are whole"));
    }
}

fn facts(report: &RepairReport, done: &RepairDone) -> Vec<(&'static str, String)> {
    let mut chunks = Vec::new();
    if done.blobs_kept > 0 {
        chunks.push(format!(
            "{} out of damaged packs",
            human::count(done.blobs_kept)
        ));
    }
    for (at, count) in &done.blobs_brought {
        let name = report.plan.sources.get(*at).map_or("?", String::as_str);
        chunks.push(format!("{} from {name}", human::count(*count)));
    }
    let mut facts = Vec::new();
    if done.packs_brought > 0 {
        facts.push((
            "brought",
            format!("{}, whole", human::plural(done.packs_brought, "pack")),
        ));
    }
    if !chunks.is_empty() {
        facts.push(("chunks", chunks.join(", ")));
    }
    if done.packs_listed > 0 {
        facts.push((
            "listed",
            format!(
                "{} that no index listed",
                human::plural(done.packs_listed, "pack")
            ),
        ));
    }
    if !done.snapshots_restored.is_empty() {
        facts.push((
            "backups",
            format!("{} listed again", done.snapshots_restored.len()),
        ));
    }
    let removed = [
        (done.packs_removed, "damaged pack"),
        (done.index_files_removed, "damaged index file"),
        (
            done.snapshots_removed.len() as u64,
            "backup that nothing is left of",
        ),
    ];
    let removed: Vec<String> = removed
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| match (count, what) {
            (1, _) => format!("1 {what}"),
            (_, "backup that nothing is left of") => {
                format!("{count} backups that nothing is left of")
            }
            _ => human::plural(count, what),
        })
        .collect();
    if !removed.is_empty() {
        facts.push(("removed", removed.join(", ")));
    }
    facts.push(("written", human::bytes(done.bytes_written)));
    facts.push(("took", human::duration(report.seconds)));
    facts
}

/// The object of `--json`.
pub fn object(
    settings: &RepositorySettings,
    location: &str,
    report: &RepairReport,
    dry_run: bool,
) -> Value {
    let plan = &report.plan;
    let repaired = report.repaired.as_ref();
    let losses = repaired.map_or(&plan.losses, |one| &one.losses);
    let is_good = plan.found.is_clean() || repaired.is_some_and(|one| one.done.is_whole());
    json!({
        "name": settings.name,
        "repository": location,
        "dry_run": dry_run,
        "good": is_good,
        "bytes_read": plan.found.bytes_read,
        "damaged": plan.found.findings.iter().map(|one| item(plan, one)).collect::<Vec<_>>(),
        "misread": plan.found.misread.iter().map(file).collect::<Vec<_>>(),
        "sources": plan.sources,
        "unusable": plan.unusable.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect::<Vec<_>>(),
        "lost": losses.iter().map(loss).collect::<Vec<_>>(),
        "lost_backups": plan.backups_lost.iter().map(|one| json!({
            "backup": one.id,
            "database": one.known.as_ref().map(|known| &known.0),
            "taken": one.known.as_ref().map(|known| known.1),
        })).collect::<Vec<_>>(),
        "whole_again": report.whole_again.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "done": repaired.map(|one| done(plan, &one.done)),
        "seconds": report.seconds,
    })
}

fn file(finding: &Finding) -> Value {
    json!({
        "kind": finding.kind.as_str(),
        "name": finding.name,
        "what": finding.what.to_string(),
        "backups": finding.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn item(plan: &RepairPlan, finding: &Finding) -> Value {
    let pack = plan
        .found
        .packs
        .iter()
        .find(|pack| finding.kind == FileKind::Pack && pack.id.to_string() == finding.name);
    let mut item = file(finding);
    item["remedy"] = remedy(plan, finding, pack).1.into();
    if let Some(pack) = pack {
        item["chunks"] = pack.blobs.into();
        item["chunks_here"] = pack.here.into();
        item["chunks_elsewhere"] = by_name(plan, &pack.elsewhere);
        item["chunks_lost"] = pack.lost.into();
    }
    item
}

fn by_name(plan: &RepairPlan, counts: &BTreeMap<usize, u64>) -> Value {
    let named = counts.iter().filter_map(|(at, count)| {
        let name = plan.sources.get(*at)?;
        Some((name.clone(), Value::from(*count)))
    });
    Value::Object(named.collect())
}

fn loss(loss: &BackupLoss) -> Value {
    json!({
        "backup": loss.id.to_string(),
        "first_id": loss.first_id.to_string(),
        "database": loss.database,
        "snapshot_time": loss.time,
        "parts": loss.parts.iter().map(|part| json!({
            "name": part.part.to_string(),
            "path": part.path,
            "chunks_lost": part.chunks_lost,
            "chunks": part.chunks,
        })).collect::<Vec<_>>(),
    })
}

fn done(plan: &RepairPlan, done: &RepairDone) -> Value {
    json!({
        "packs_brought": done.packs_brought,
        "packs_written": done.packs_written,
        "packs_listed": done.packs_listed,
        "packs_removed": done.packs_removed,
        "index_files_removed": done.index_files_removed,
        "chunks_kept": done.blobs_kept,
        "chunks_brought": by_name(plan, &done.blobs_brought),
        "backups_restored": done.snapshots_restored.iter().map(|(was, now)| json!({
            "damaged": was.to_string(), "backup": now.to_string(),
        })).collect::<Vec<_>>(),
        "backups_removed": done.snapshots_removed,
        "left": done.left.iter().map(file).collect::<Vec<_>>(),
        "bytes_written": done.bytes_written,
        "short_of_room": done.short_of_room,
    })
}
