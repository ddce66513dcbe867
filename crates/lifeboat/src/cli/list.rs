//! `lifeboat list`.

use clap::Args;
use lifeboat_engine::catalog::{Backup, Catalog};
use lifeboat_engine::journal::{Proof, ProofLevel};
use lifeboat_engine::objectives::age_seconds;
use serde_json::{Value, json};

use super::{DatabaseArg, RepositoryArg};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Tone;
use crate::output::human;
use crate::output::table::{self, Column};

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Runs it.
pub fn run(app: &App, args: &ListArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let catalog = Catalog::new(&repository);
    // Not the only configured database's, as elsewhere: a list that hides backups would be a surprise.
    let (backups, damaged) = catalog.backups(args.database.name())?;
    let proofs = app.journal()?.best_proofs(repository.id())?;
    for error in &damaged {
        app.out.warn(&error.to_string());
    }
    let rows: Vec<(&Backup, Option<&Proof>)> = backups
        .iter()
        .map(|backup| (backup, backup.lookup(&proofs)))
        .collect();
    let items: Vec<Value> = rows
        .iter()
        .map(|(backup, proof)| item(app, backup, *proof))
        .collect();
    app.out.object(
        "list",
        &json!({
            "repository": repository.location(),
            "backups": items,
            "damaged": damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    )?;
    if rows.is_empty() {
        app.out.say("No backups yet: `lifeboat backup` takes one.");
    } else {
        app.out.data(&drawn(app, &rows));
    }
    Ok(Exit::Done)
}

/// A backup, as JSON shows it.
pub fn item(app: &App, backup: &Backup, proof: Option<&Proof>) -> Value {
    let summary = backup.summary.as_ref();
    json!({
        "backup": backup.id.to_string(),
        "database": backup.database,
        "snapshot_time": backup.time,
        "age_seconds": age_seconds(backup.time, app.now()),
        "hostname": backup.hostname,
        "data_bytes": summary.map(|summary| summary.data_bytes),
        "new_bytes": new_bytes(backup),
        "tables": summary.map(|summary| summary.tables),
        "rows": summary.map(|summary| summary.rows),
        "server_version_num": summary.map(|summary| summary.server_version_num),
        "migration": summary.and_then(|summary| summary.migration.clone()),
        "migration_trouble": summary.map(|summary| summary.migration_trouble),
        "held": backup.held,
        "damaged": backup.lost.is_some(),
        "lost": backup.lost,
        "imported": summary.is_some_and(|summary| summary.imported_bytes.is_some()),
        "first_id": backup.first_id().to_string(),
        "proof": proof.map(|proof| json!({ "level": proof.level, "at": proof.at, "how": proof.how })),
    })
}

/// What the backup added to the repository: as the writer counted it at the end, in the snapshot file.
pub fn new_bytes(backup: &Backup) -> Option<u64> {
    backup
        .snapshot
        .summary
        .as_ref()
        .map(|summary| summary.data_added_packed)
}

/// The word for what is known of a backup.
pub fn proof_word(proof: Option<&Proof>) -> &'static str {
    proof.map_or("taken", |proof| proof.level.name())
}

fn drawn(app: &App, rows: &[(&Backup, Option<&Proof>)]) -> String {
    let columns = [
        Column::Left("BACKUP"),
        Column::Left("DATABASE"),
        Column::Left("SNAPSHOT"),
        Column::Right("AGE"),
        Column::Right("SIZE"),
        Column::Right("NEW"),
        Column::Left("MIGRATION"),
        Column::Left("PROOF"),
    ];
    table::draw(
        &columns,
        rows.iter().map(|(backup, proof)| {
            let summary = backup.summary.as_ref();
            let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), human::bytes);
            let migration = summary
                .and_then(|summary| summary.migration.as_deref())
                .unwrap_or("–");
            let trouble = summary.is_some_and(|summary| summary.migration_trouble);
            let proof = match proof {
                Some(proof) if proof.level >= ProofLevel::Verified => {
                    format!("{} {}", proof.level.name(), human::time(proof.at))
                }
                proof => proof_word(*proof).to_owned(),
            };
            // What was proven before something was lost counts for nothing.
            let proof = match &backup.lost {
                Some(_) => app.out.paint(Tone::Bad, "damaged"),
                None => proof,
            };
            let proof = if backup.held.is_some() {
                format!("{proof}, held")
            } else {
                proof
            };
            vec![
                backup.id.short().to_string(),
                backup.database.clone(),
                human::time(backup.time),
                human::age(age_seconds(backup.time, app.now())),
                size(summary.map(|summary| summary.data_bytes)),
                size(new_bytes(backup)),
                format!("{migration}{}", if trouble { " (!)" } else { "" }),
                proof,
            ]
        }),
    )
}
