//! `lifeboat recovery-kit test`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use lifeboat_engine::catalog::{Catalog, CatalogError, Selector};
use lifeboat_engine::config::{Config, Sources};
use lifeboat_engine::drill::{self, DrillError, DrillPlace, DrillReport, DrillRequest};
use lifeboat_engine::locking::Reading;
use lifeboat_engine::recovery_kit::{self, ByHandReport, ByHandRequest, Kit, ReadKit, Receipt};
use lifeboat_engine::restore::RestoreError;
use lifeboat_pg::tools::{Tool, ToolFinder, Wanted};
use lifeboat_repo::Repository;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{TEXT, write};
use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{Tone, human, table};
use crate::prompt;

/// How long to wait for whoever removes data from the repository.
const LOCK_PATIENCE: Duration = Duration::from_secs(2 * 60);

/// Flags of `recovery-kit test`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing but the kit's text is used: no configuration, no environment, no history. With what it
says, the newest backup of each of its databases is restored into a scratch server and
compared. Where restic and PostgreSQL's programs are installed, the commands of part B are
then typed as they are printed, in an empty home, against another scratch server, and the rows
are counted. What the kit lists under `Needed to reach it` is taken from environment variables
of those names, or asked for.

Exit code 0 means that the kit brings the data back, 3 that it does not.")]
pub struct TestArgs {
    /// The kit's text (default: the one beside the configuration file).
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Start the scratch servers in this folder; it needs room for the database (default: the temporary folder).
    #[arg(long, value_name = "DIR")]
    pub scratch_dir: Option<PathBuf>,
}

/// Runs it.
pub fn run(app: &App, args: &TestArgs) -> Result<Exit, Failure> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => super::default_folder(app.config.file.as_deref())
            .map(|folder| folder.join(TEXT))
            .ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    "there is no configuration file that a recovery kit could stand beside",
                )
                .hint("name the kit: `lifeboat recovery-kit test FILE`")
            })?,
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read the recovery kit {}", path.display()))
            .cause(&error)
            .hint("name the kit: `lifeboat recovery-kit test FILE`; `lifeboat recovery-kit write` writes one")
    })?;
    let kit = recovery_kit::read(&text)?;
    let credentials = credentials(app, &kit.kit)?;
    let bare = bare(app, &kit.kit, &credentials)?;
    let trial = Trial {
        app,
        bare: &bare,
        kit: &kit,
        credentials,
        scratch_dir: args.scratch_dir.clone().unwrap_or_else(std::env::temp_dir),
    };
    trial.run(&path)
}

/// What the kit says is needed: from the kit, the environment, or the operator.
fn credentials(app: &App, kit: &Kit) -> Result<Vec<SecretString>, Failure> {
    let mut found = Vec::new();
    for credential in &kit.credentials {
        let name = &credential.name;
        let given = app.environment.get(name).filter(|value| !value.is_empty());
        found.push(match (&credential.value, given) {
            (Some(value), _) => value.clone(),
            (None, Some(value)) => value.as_str().into(),
            (None, None) if prompt::is_possible() && !app.out.is_json() => prompt::secret(app, name)?,
            (None, None) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("the kit says that {name} is needed to reach the repository, and it is not set"),
                )
                .hint(format!("set {name} in the environment; whoever recovers has to know it too")));
            }
        });
    }
    Ok(found)
}

/// The program as it would be on a bare machine: what the kit says, and nothing else.
fn bare(app: &App, kit: &Kit, credentials: &[SecretString]) -> Result<App, Failure> {
    let mut environment = BTreeMap::from([
        ("LIFEBOAT_REPOSITORY".to_owned(), kit.location.to_string()),
        (
            "LIFEBOAT_PASSWORD".to_owned(),
            kit.passphrase.expose_secret().to_owned(),
        ),
    ]);
    environment.extend(
        kit.region
            .clone()
            .map(|region| ("AWS_REGION".to_owned(), region)),
    );
    for (credential, value) in kit.credentials.iter().zip(credentials) {
        environment.insert(credential.name.clone(), value.expose_secret().to_owned());
    }
    let mut config = Config::resolve(&Sources {
        file: None,
        environment: &environment,
        is_root: rustix::process::geteuid().is_root(),
    })?;
    config.primary.remote.path_style.value = kit.path_style;
    if !kit.ssh_command.is_empty() {
        config
            .primary
            .remote
            .ssh_command
            .value
            .clone_from(&kit.ssh_command);
    }
    Ok(App {
        config,
        environment,
        out: app.out.clone(),
        interrupt: Arc::clone(&app.interrupt),
        config_flag: None,
    })
}

struct Trial<'a> {
    /// The program as it was started: for what is not about the kit.
    app: &'a App,
    bare: &'a App,
    kit: &'a ReadKit,
    credentials: Vec<SecretString>,
    scratch_dir: PathBuf,
}

impl Trial<'_> {
    fn run(&self, path: &Path) -> Result<Exit, Failure> {
        let repository = self.open()?;
        let mut failures = Vec::new();
        let mut drills = Vec::new();
        for database in &self.kit.kit.databases {
            match self.drill(&repository, &database.name)? {
                Ok(report) => {
                    failures.extend(
                        report
                            .failures
                            .iter()
                            .map(|one| format!("{}: {one}", database.name)),
                    );
                    drills.push(report);
                }
                Err(failure) => failures.push(failure),
            }
        }
        let by_hand = if failures.is_empty() {
            self.by_hand(&drills)?
        } else {
            Err("not tried, since part A failed".to_owned())
        };
        if let Ok(report) = &by_hand {
            failures.extend(report.failures.iter().cloned());
        }
        self.finished(path, &drills, &by_hand, &failures)
    }

    fn stale(&self, fact: String) -> Failure {
        Failure::new(Exit::BadData, fact)
            .hint("this kit brings nothing back: `lifeboat recovery-kit write` writes a new one, on the machine that takes the backups")
    }

    fn open(&self) -> Result<Repository, Failure> {
        let kit = &self.kit.kit;
        let repository =
            self.bare
                .open(&self.bare.config.primary)
                .map_err(|failure| {
                    match failure.exit {
                Exit::WrongPassword => self.stale(format!(
                    "the recovery kit is stale: its passphrase (key {}) does not open {} any more",
                    kit.key, kit.location
                )),
                Exit::NoRepository => self.stale(format!(
                    "the recovery kit is stale or the repository lost: {}",
                    failure.fact
                )),
                _ => failure,
            }
                })?;
        if repository.id() != kit.repository_id {
            return Err(self.stale(format!(
                "the recovery kit is of another repository: {} is {} now, and was {}",
                kit.location,
                repository.id(),
                kit.repository_id
            )));
        }
        Ok(repository)
    }

    /// Part A, through the same code as a drill.
    fn drill(
        &self,
        repository: &Repository,
        database: &str,
    ) -> Result<Result<DrillReport, String>, Failure> {
        let objectives = &self.bare.config.objectives;
        let request = DrillRequest {
            selector: Selector::Latest,
            database: Some(database.to_owned()),
            place: DrillPlace::Scratch {
                parent_dir: self.scratch_dir.clone(),
            },
            jobs: self.bare.jobs(None),
            checks: Vec::new(),
            rpo: objectives.rpo.value,
            rto: objectives.rto.value,
            tools: self.bare.tools(),
            now: self.app.now(),
            interrupt: Arc::clone(&self.app.interrupt),
        };
        self.app
            .out
            .say(&format!("Part A, with Lifeboat: {database}"));
        let _lock = self
            .bare
            .lock_to_read(repository, Reading::ToJudge, LOCK_PATIENCE)?;
        let progress = Progress::new(&self.app.out);
        let result = drill::execute(&Catalog::new(repository), &request, &progress);
        drop(progress);
        match result {
            Ok(report) => Ok(Ok(report)),
            Err(DrillError::Restore(RestoreError::Catalog(error @ CatalogError::Empty { .. }))) => {
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Part B, to the letter; or why not.
    fn by_hand(&self, drills: &[DrillReport]) -> Result<Result<ByHandReport, String>, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !is_on(&path, "restic") {
            return Ok(Err("not tried: restic is not installed here".to_owned()));
        }
        let from_drills = drills.iter().filter_map(|report| {
            let digits = report.backup.summary.as_ref()?.server_version_num / 10_000;
            Some(digits)
        });
        let Some(major) = self.kit.kit.major().or_else(|| from_drills.max()) else {
            return Ok(Err(
                "not tried: nobody knows which version of PostgreSQL is needed".to_owned(),
            ));
        };
        let tools: ToolFinder = self.bare.tools();
        if let Err(error) = tools.find(&[Tool::PgRestore, Tool::Psql], Wanted::Exactly(major)) {
            return Ok(Err(format!("not tried: {error}")));
        }
        let request = ByHandRequest {
            kit: self.kit,
            major,
            credentials: self.credentials.clone(),
            parent_dir: self.scratch_dir.clone(),
            path,
            tools,
            interrupt: Arc::clone(&self.app.interrupt),
        };
        self.app
            .out
            .say("Part B, without Lifeboat: the commands as they are printed");
        let progress = Progress::new(&self.app.out);
        let result = recovery_kit::run_by_hand(&request, &progress);
        drop(progress);
        Ok(Ok(result?))
    }

    fn finished(
        &self,
        path: &Path,
        drills: &[DrillReport],
        by_hand: &Result<ByHandReport, String>,
        failures: &[String],
    ) -> Result<Exit, Failure> {
        let (app, kit) = (self.app, &self.kit.kit);
        let proven = failures.is_empty();
        let with: Vec<_> = drills
            .iter()
            .map(|report| {
                json!({
                    "database": report.backup.database,
                    "backup": report.backup.id.to_string(),
                    "snapshot_time": report.backup.time,
                    "proven": report.proven,
                    "tables": report.comparison.tables.len(),
                    "rows": report.rows,
                    "seconds": report.seconds,
                })
            })
            .collect();
        app.out.object(
            "recovery-kit",
            &json!({
                "proven": proven,
                "kit": path,
                "written": kit.written,
                "key": kit.key,
                "repository": kit.location.to_string(),
                "with_lifeboat": with,
                "without_lifeboat": by_hand.as_ref().ok(),
                "without_lifeboat_not_tried": by_hand.as_ref().err(),
                "failures": failures,
            }),
        )?;
        if proven {
            self.remember(by_hand.is_ok());
        }
        let mut facts = vec![
            (
                "kit",
                format!("{}, written {}", path.display(), human::time(kit.written)),
            ),
            ("repository", kit.location.to_string()),
        ];
        for report in drills {
            facts.push((
                "A, with",
                format!(
                    "{} of {}, data from {}: {}, {} compared, {}",
                    report.backup.id.short(),
                    report.backup.database,
                    human::time_exact(report.backup.time),
                    human::plural(report.comparison.tables.len() as u64, "table"),
                    human::plural(report.rows, "row"),
                    human::duration(report.seconds)
                ),
            ));
        }
        facts.push((
            "B, without",
            match by_hand {
                Ok(report) => format!(
                    "{} typed: {}, {} counted, {}",
                    human::plural(report.commands as u64, "command"),
                    human::plural(report.tables.len() as u64, "table"),
                    human::plural(report.rows, "row"),
                    human::duration(report.seconds)
                ),
                Err(why) => why.clone(),
            },
        ));
        let facts = table::pairs(&facts);
        if proven {
            app.out.report(&facts);
        } else {
            app.out.data(&facts);
        }
        for failure in failures {
            app.out.warn(failure);
        }
        match (proven, by_hand) {
            (true, Ok(_)) => app.out.report(&app.out.paint(Tone::Good, "PROVEN: this kit brings the data back, with and without Lifeboat")),
            (true, Err(_)) => app.out.report(&app.out.paint(Tone::Good, "PROVEN: this kit brings the data back, with Lifeboat; the way without was not tried")),
            (false, _) => app.out.data(&app.out.paint(Tone::Bad, "NOT PROVEN: do not rely on this kit")),
        }
        Ok(if proven { Exit::Done } else { Exit::BadData })
    }

    /// For `check`, where this machine wrote the kit.
    fn remember(&self, without: bool) {
        let kit = &self.kit.kit;
        if let Some(folder) = &self.app.config.state_dir.value
            && let Ok(Some(receipt)) = Receipt::read(folder, &kit.repository_id)
            && receipt.is_of(kit)
        {
            write::remember(self.app, &receipt.tested_at(self.app.now(), without));
        }
    }
}

fn is_on(path: &OsString, program: &str) -> bool {
    std::env::split_paths(path).any(|folder| folder.join(program).is_file())
}
