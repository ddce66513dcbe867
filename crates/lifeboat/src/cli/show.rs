//! `lifeboat show`.

use clap::Args;
use lifeboat_engine::catalog::{Catalog, Selector};
use lifeboat_engine::objectives::age_seconds;
use serde_json::json;

use super::{DatabaseArg, RepositoryArg, list};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;
use crate::output::table::{self, Column};

/// Flags of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Runs it.
pub fn run(app: &App, args: &ShowArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let catalog = Catalog::new(&repository);
    let database = app.database_filter(args.database.name());
    let backup = catalog.select(&Selector::parse(&args.id), database.as_deref())?;
    let manifest = catalog.manifest(&backup)?;
    let proofs = app.journal()?.best_proofs(repository.id())?;
    let proof = backup.lookup(&proofs);
    app.out.object(
        "show",
        &json!({ "backup": list::item(app, &backup, proof), "manifest": manifest }),
    )?;

    let server = &manifest.server;
    let mut facts = vec![
        ("backup", backup.id.to_string()),
        (
            "database",
            match &manifest.imported {
                // A dump does not say where the server was.
                Some(_) => format!("{} ({})", backup.database, server.database),
                None => format!(
                    "{} ({} at {})",
                    backup.database, server.database, server.address
                ),
            },
        ),
        (
            "snapshot",
            format!(
                "{}, {} ago",
                human::time_exact(backup.time),
                human::age(age_seconds(backup.time, app.now()))
            ),
        ),
        match &manifest.imported {
            Some(from) => (
                "imported",
                format!(
                    "{} on {}, from {} ({}, {}, SHA-256 {})",
                    human::time(from.at),
                    backup.hostname,
                    from.file,
                    human::bytes(from.size_bytes),
                    match from.compression.as_str() {
                        "none" => "not compressed",
                        name => name,
                    },
                    from.sha256
                ),
            ),
            None => ("taken on", backup.hostname.clone()),
        },
        (
            "server",
            [
                format!("PostgreSQL {}", server.version),
                server.encoding.clone(),
                server.collate.clone(),
            ]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(", "),
        ),
        ("pg_dump", manifest.pg_dump_version.clone()),
        (
            "tables",
            format!(
                "{}, {}",
                human::plural(manifest.tables.len() as u64, "table"),
                human::plural(manifest.rows(), "row")
            ),
        ),
        ("size", human::bytes(manifest.data_bytes())),
    ];
    if let Some(bytes) = list::new_bytes(&backup) {
        facts.push(("new", format!("{} stored", human::bytes(bytes))));
    }
    if manifest.large_objects.size_bytes > 0 {
        facts.push((
            "large objects",
            human::bytes(manifest.large_objects.size_bytes),
        ));
    }
    if !manifest.extensions.is_empty() {
        let named: Vec<String> = manifest
            .extensions
            .iter()
            .map(|extension| format!("{} {}", extension.name, extension.version))
            .map(|text| text.trim_end().to_owned())
            .collect();
        facts.push(("extensions", named.join(", ")));
    }
    for history in &manifest.migrations {
        let current = history.current.as_deref().unwrap_or("none applied");
        let trouble = if history.has_trouble() {
            ", one failed or is half applied"
        } else {
            ""
        };
        facts.push((
            "migration",
            format!("{current} ({}){trouble}", history.framework),
        ));
    }
    facts.push((
        "proof",
        match proof {
            Some(proof) => format!(
                "{} {}, {}",
                proof.level.name(),
                human::time(proof.at),
                proof.how
            ),
            None => "taken, not verified yet".to_owned(),
        },
    ));
    if let Some(lost) = &backup.lost {
        facts.push(("damaged", format!("lost for good: {}", lost.join(", "))));
    }
    if backup.first_id() != backup.id {
        facts.push(("first ID", backup.first_id().to_string()));
    }
    if let Some(reason) = &backup.held {
        facts.push(("held", reason.clone()));
    }
    if let Some(zone) = &manifest.row_time_zone {
        facts.push(("written in", format!("the time zone {zone}")));
    }
    for warning in &manifest.warnings {
        facts.push(("warning", warning.clone()));
    }
    app.out.data(&table::pairs(&facts));
    let mut tables: Vec<_> = manifest.tables.iter().collect();
    tables.sort_by(|left, right| {
        right
            .size_bytes
            .cmp(&left.size_bytes)
            .then_with(|| left.name().cmp(&right.name()))
    });
    if !tables.is_empty() {
        app.out.data("");
        app.out.data(&table::draw(
            &[
                Column::Left("TABLE"),
                Column::Right("ROWS"),
                Column::Right("SIZE"),
            ],
            tables.into_iter().map(|table| {
                vec![
                    table.name(),
                    human::count(table.census.rows()),
                    human::bytes(table.size_bytes),
                ]
            }),
        ));
    }
    Ok(Exit::Done)
}
