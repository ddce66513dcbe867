//! `lifeboat verify` for a folder of plain dumps.

use std::sync::Arc;

use lifeboat_engine::dump_folder::{
    self, DumpFolderError, DumpFolderReport, DumpFolderRequest, DumpSource,
};
use lifeboat_pg::dump_file::InspectError;
use serde_json::json;

use super::VerifyArgs;
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;

/// Checks one dump: flags win over the `BACKUP_…` variables, which win over the defaults.
pub fn run(app: &App, args: &VerifyArgs) -> Result<Exit, Failure> {
    let settings = &app.config.verify.dumps;
    let max_age = args
        .max_age
        .or_else(|| settings.max_age.as_ref().map(|setting| setting.value))
        .unwrap_or(app.config.verify.max_age.value);
    let newest = || DumpSource::Newest {
        folder: args
            .dump_dir
            .clone()
            .unwrap_or_else(|| settings.dir.value.clone()),
        pattern: args
            .glob
            .clone()
            .unwrap_or_else(|| settings.glob.value.clone()),
    };
    let source = match (&args.file, &args.dump_dir, &args.glob) {
        (Some(file), _, _) => DumpSource::File(file.clone()),
        (None, None, None) => settings
            .file
            .value
            .clone()
            .map_or_else(newest, DumpSource::File),
        // A folder or a pattern on the command line is not overruled by a file in the environment.
        _ => newest(),
    };
    let request = DumpFolderRequest {
        source,
        max_age: max_age.signed_duration(),
        now: app.now(),
        interrupt: Arc::clone(&app.interrupt),
    };
    match dump_folder::execute(&request) {
        Ok(report) => verdict(app, &report),
        Err(DumpFolderError::Inspect(InspectError::Interrupted)) => Err(Failure::interrupted()),
        Err(error) => {
            app.out.data(&format!("BAD: {error}"));
            let failure = Failure::of(Exit::BadData, &error);
            Err(match error {
                DumpFolderError::NoMatch { .. } => failure
                    .hint("`--dump-dir` and `--glob`, or BACKUP_DIR and BACKUP_GLOB, say where dumps are")
                    .hint("without any of them `lifeboat verify` checks the repository"),
                _ => failure,
            })
        }
    }
}

fn verdict(app: &App, report: &DumpFolderReport) -> Result<Exit, Failure> {
    let dump = &report.dump;
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    app.out.object(
        "verify-dump",
        &json!({
            "good": report.is_good(),
            "file": dump.path,
            "age_seconds": report.age.map(|age| age.as_secs()),
            "size_bytes": dump.size_bytes,
            "database": dump.database,
            "pg_dump_version": dump.pg_dump_version,
            "server_version": dump.server_version,
            "tables": dump.tables,
            "large_objects": dump.large_objects,
            "data_bytes": dump.data_bytes,
            "problems": problems,
        }),
    )?;
    let path = dump.path.display();
    if !problems.is_empty() {
        app.out
            .data(&format!("BAD: {path}: {}", problems.join("; ")));
        return Ok(Exit::BadData);
    }
    let age = report.age.map_or_else(
        || "age unknown".to_owned(),
        |age| format!("{} old", human::age(age.as_secs().unsigned_abs())),
    );
    app.out.report(&format!(
        "ok: {path}, {age}, {}, {} read to the last byte",
        human::plural(dump.tables, "table"),
        human::bytes(dump.size_bytes)
    ));
    Ok(Exit::Done)
}
