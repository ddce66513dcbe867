//! `lifeboat check`: line by line, what is ready and how to mend what is not.

mod line;
mod repository;
mod server;

use clap::Args;
use serde::Serialize;

use super::{DatabaseArg, RepositoryArg};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use line::{Line, State};

/// Flags of `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 means that a backup can be taken now, 1 that something is in the way.")]
pub struct CheckArgs {
    #[command(flatten)]
    pub database: DatabaseArg,
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// All lines, for `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ready: bool,
    lines: &'a [Line],
}

/// Runs it.
pub fn run(app: &App, args: &CheckArgs) -> Result<(), Failure> {
    let mut lines = Lines {
        app,
        lines: Vec::new(),
    };
    lines.add(configuration(app));
    let databases: Vec<Option<String>> =
        match (&args.database.database, app.config.databases.as_slice()) {
            (Some(name), _) => vec![Some(name.clone())],
            (None, []) => vec![None],
            (None, all) => all.iter().map(|database| database.name.clone()).collect(),
        };
    let mut needed_bytes = 0;
    for name in &databases {
        needed_bytes += server::check(app, name.as_deref(), &mut lines)?;
    }
    let settings = app.config.repository(args.repository.name())?;
    repository::check(app, settings, needed_bytes, &mut lines)?;

    let Lines { lines, .. } = lines;
    let broken = lines
        .iter()
        .filter(|line| line.state == State::Broken)
        .count();
    app.out.object(
        "check",
        &Report {
            ready: broken == 0,
            lines: &lines,
        },
    )?;
    match broken {
        0 => {
            app.out.say("\nReady.");
            Ok(())
        }
        _ => Err(Failure::new(
            Exit::Failed,
            format!("{broken} of {} checks failed", lines.len()),
        )),
    }
}

/// The lines so far; each is shown as soon as it is known, since some take a while.
struct Lines<'a> {
    app: &'a App,
    lines: Vec<Line>,
}

impl Lines<'_> {
    fn add(&mut self, line: Line) {
        self.app.out.data(&line.render(&self.app.out));
        self.lines.push(line);
    }

    /// A line that is broken because of a failure, with that failure's first hint as the fix. An interrupt
    /// ends the check.
    fn add_failure(&mut self, subject: &'static str, failure: Failure) -> Result<(), Failure> {
        if failure.exit == Exit::Interrupted {
            return Err(failure);
        }
        let mut fact = failure.fact;
        for cause in &failure.causes {
            fact = format!("{fact}: {cause}");
        }
        let fixes = failure.hints;
        self.add(Line {
            subject,
            state: State::Broken,
            fact,
            fixes,
        });
        Ok(())
    }
}

fn configuration(app: &App) -> Line {
    match &app.config.file {
        Some(path) => Line::ready("configuration", path.display().to_string()),
        None => Line::ready("configuration", "from the environment"),
    }
}
