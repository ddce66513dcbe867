//! `lifeboat export`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use lifeboat_engine::catalog::{Catalog, Selector};
use lifeboat_engine::export::{self, ExportError, ExportReport, ExportRequest};
use lifeboat_engine::history;
use lifeboat_engine::journal::{Outcome, RunKind};
use lifeboat_engine::locking::Reading;

use super::{DatabaseArg, RepositoryArg, RescueLockArg};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;
use crate::output::progress::Progress;

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The backup: its ID, the beginning of it, or `latest`.
    #[arg(value_name = "ID")]
    pub id: String,
    /// The file to write. It must not exist.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: RescueLockArg,
}

/// gzip's fastest level: half the size of none, a third of the time of pg_dump's default.
const GZIP_LEVEL: u32 = 1;

/// Runs it.
pub fn run(app: &App, args: &ExportArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let journal = app.journal()?;
    let _lock = app.lock_to_read(&repository, Reading::ToRescue, args.lock.patience())?;
    let catalog = Catalog::new(&repository);
    let database = app.database_filter(args.database.name());
    let backup = catalog.select(&Selector::parse(&args.id), database.as_deref())?;
    let request = ExportRequest {
        output: args.output.clone(),
        gzip_level: Some(GZIP_LEVEL),
        interrupt: Arc::clone(&app.interrupt),
    };
    let progress = Progress::new(&app.out);
    let result = history::recorded(
        &journal,
        RunKind::Export,
        repository.id(),
        &backup.database,
        |error| Outcome::of_failure(matches!(error, ExportError::Interrupted)),
        |report: &ExportReport, end| {
            end.backup = Some(report.backup.clone());
            end.bytes_stored = Some(report.bytes);
        },
        || export::execute(&catalog, &backup, &request, &progress),
    );
    drop(progress);
    let report = result?;
    app.out.object("export", &report)?;
    app.out.report(&format!(
        "{}: {}, {}, in {}",
        report.output.display(),
        human::plural(report.tables, "table"),
        human::bytes(report.bytes),
        human::duration(report.seconds)
    ));
    Ok(Exit::Done)
}
