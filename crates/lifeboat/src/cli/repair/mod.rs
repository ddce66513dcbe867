//! `lifeboat repair`.

mod words;

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use lifeboat_engine::config::{RepositoryLocation, RepositorySettings, Setting};
use lifeboat_engine::event::{Event, Observer};
use lifeboat_engine::history;
use lifeboat_engine::journal::{Outcome, RunKind};
use lifeboat_engine::repair::{
    self, Decision, RepairError, RepairPlan, RepairReport, RepairRequest, Source,
};
use lifeboat_repo::storage::FileKind;

use super::{LockArg, RepositoryArg};
use crate::app::{self, App};
use crate::confirm;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{Output, human};
use crate::prompt;

/// Flags of `repair`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads everything, then replaces what is damaged: by what is still good of it, and by good copies \
out of the other configured repositories, whatever their keys. Good copies are durable before anything damaged is \
removed, and backups may go on until then.\n\n\
What nobody has is lost. It is named, backup by backup and table by table, and nothing of it is removed unless \
--yes NAME says so, NAME being the repository's. Then the next backup stores again what the database still has of \
it, which makes older backups whole as well. No backup is removed of which anything is left: one that has lost \
something is marked as damaged, and the rest of it can be restored.\n\n\
Exit code 0 means that all is whole, 3 that something is lost (with --dry-run: that anything is damaged), 4 that \
something would have to be given up and nobody confirmed that; all else was mended."
)]
pub struct RepairArgs {
    /// Take good copies from this repository: a configured name, or a location with the same passphrase. May be
    /// given several times (default: every other configured repository).
    #[arg(long, value_name = "NAME|URL")]
    pub from: Vec<String>,
    /// Ask no other repository.
    #[arg(long, conflicts_with = "from")]
    pub alone: bool,
    /// Only show what is damaged, and what would be done.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Do not read again what the journal remembers as read, and good, within `verify.max_proof_age`.
    #[arg(long)]
    pub trust_journal: bool,
    /// Give up what is lost in the repository of this name, without asking.
    #[arg(long, value_name = "NAME")]
    pub yes: Option<String>,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Runs it.
pub fn run(app: &App, args: &RepairArgs) -> Result<Exit, Failure> {
    let settings = app.config.repository(args.repository.name())?;
    let repository = app.open(settings)?;
    let sources = sources(app, args, settings)?;
    let journal = app.journal()?;
    let request = RepairRequest {
        trust_journal: args.trust_journal,
        max_proof_age: app.config.verify.max_proof_age.value.signed_duration(),
        jobs: app.jobs(None),
        hostname: app::hostname(),
        username: app.username(),
        patience: args.lock.patience(),
        now: app.now(),
        interrupt: Arc::clone(&app.interrupt),
    };
    let screen = Screen::new(&app.out);
    let refusal = RefCell::new(None);
    let decide = |plan: &RepairPlan| {
        let (decision, refused) = screen.away(|| {
            words::show(app, plan, args.dry_run);
            ask(app, args, settings, plan)
        });
        *refusal.borrow_mut() = refused;
        decision
    };
    let work = || repair::execute(&repository, &journal, &sources, &request, &decide, &screen);
    let result = if args.dry_run {
        work()
    } else {
        history::recorded(
            &journal,
            RunKind::Repair,
            repository.id(),
            "",
            |error| Outcome::of_failure(matches!(error, RepairError::Interrupted)),
            |report: &RepairReport, end| {
                end.bytes_read = Some(report.plan.found.bytes_read);
                end.bytes_stored = report.repaired.as_ref().map(|one| one.done.bytes_written);
                if let Some(what) = words::trouble(report) {
                    end.outcome = Outcome::Failed;
                    end.error = Some(what);
                }
            },
            work,
        )
    };
    drop(screen);
    let report = result?;
    let object = words::object(settings, &repository.location(), &report, args.dry_run);
    app.out.object("repair", &object)?;
    words::finish(app, &report, &repository.location());
    conclude(args, &report, refusal.into_inner())
}

/// The repositories that are asked. One that was named has to be there; of the others it is enough to be told.
fn sources(
    app: &App,
    args: &RepairArgs,
    repaired: &RepositorySettings,
) -> Result<Vec<Source>, Failure> {
    if args.alone {
        return Ok(Vec::new());
    }
    if args.from.is_empty() {
        let others = app.config.repositories();
        let others = others.filter(|one| one.name != repaired.name);
        let open = |settings: &RepositorySettings| Source {
            name: settings.name.clone(),
            repository: app.open(settings).map_err(|failure| in_one_line(&failure)),
        };
        return Ok(others.map(open).collect());
    }
    let named = args.from.iter().map(|name| {
        let settings = named(app, name, repaired)?;
        Ok(Source {
            name: name.clone(),
            repository: Ok(app.open(&settings)?),
        })
    });
    named.collect()
}

/// A configured repository, or a location that is none, with the passphrase of the one that is repaired.
fn named(
    app: &App,
    name: &str,
    repaired: &RepositorySettings,
) -> Result<RepositorySettings, Failure> {
    let is_location = name.contains(['/', ':']);
    match app.config.repository(Some(name)) {
        Ok(settings) => Ok(settings.clone()),
        Err(_) if is_location => {
            let location = RepositoryLocation::parse(name).map_err(|error| {
                Failure::new(Exit::Usage, format!("--from {name}: {error}"))
                    .hint("name a configured repository, a folder, `s3:…` or `sftp:…`")
            })?;
            Ok(RepositorySettings {
                name: name.to_owned(),
                location: Some(Setting::default(location)),
                ..repaired.clone()
            })
        }
        Err(error) => Err(error.into()),
    }
}

fn in_one_line(failure: &Failure) -> String {
    let causes = failure.causes.iter().map(|cause| format!(": {cause}"));
    format!("{}{}", failure.fact, causes.collect::<String>())
}

/// What is done about a plan; and if that is less than all, why.
fn ask(
    app: &App,
    args: &RepairArgs,
    settings: &RepositorySettings,
    plan: &RepairPlan,
) -> (Decision, Option<Failure>) {
    if args.dry_run {
        return (Decision::Nothing, None);
    }
    if !plan.found.may_remove {
        return (Decision::Mend, None);
    }
    if !plan.found.gives_up() {
        return (Decision::Mend, None);
    }
    let lost = (plan.losses.len() + plan.backups_lost.len()) as u64;
    let lack = match lost {
        1 => "1 backup has lost data".to_owned(),
        count => format!("{count} backups have lost data"),
    };
    if let Some((name, why)) = plan.unusable.first() {
        let failure = Failure::new(
            Exit::Refused,
            format!("{lack}, and {name} could not be asked for it: nothing was given up, all else was mended"),
        )
        .cause(why)
        .hint(format!("run it again when {name} can be used"))
        .hint("or say whom to ask with `--from NAME`, or nobody with `--alone`");
        return (Decision::Mend, Some(failure));
    }
    if args.yes.is_none() && (!prompt::is_possible() || app.out.is_json()) {
        let failure = Failure::new(
            Exit::Refused,
            format!("{lack}, and nobody confirmed to give it up; all else was mended"),
        )
        .hint(format!(
            "`lifeboat repair --yes {}` removes the damaged files: the next backup then stores again what the database still has",
            settings.name
        ))
        .hint("a repository that may have good copies can be named with `--from`");
        return (Decision::Mend, Some(failure));
    }
    let what = format!(
        "{lack}; the damaged files would be removed from {}",
        settings.name
    );
    match confirm::by_name(app, &what, &settings.name, args.yes.as_deref()) {
        Ok(()) => (Decision::MendAndGiveUp, None),
        Err(failure) => (Decision::Nothing, Some(failure)),
    }
}

/// How the command ends.
fn conclude(
    args: &RepairArgs,
    report: &RepairReport,
    refusal: Option<Failure>,
) -> Result<Exit, Failure> {
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let plan = &report.plan;
    if plan.found.is_clean() {
        return Ok(Exit::Done);
    }
    let Some(repaired) = &report.repaired else {
        return if args.dry_run {
            Ok(Exit::BadData)
        } else {
            Ok(Exit::Done)
        };
    };
    let Some(what) = words::trouble(report) else {
        return Ok(Exit::Done);
    };
    if !plan.found.may_remove && !repaired.done.left.is_empty() {
        let failure = Failure::new(
            Exit::Refused,
            "damaged files can't be removed here: the repository is append-only",
        )
        .hint("good copies of what could be found are beside them, so that backups can be restored")
        .hint("run `lifeboat repair` on another machine, with a credential that may delete and without `append_only`");
        return Err(failure);
    }
    let mut failure = Failure::new(Exit::BadData, what);
    if !repaired.losses.is_empty() {
        failure = failure
            .hint("`lifeboat backup` now: it stores again what the database still has, and `lifeboat repair` then says what is whole")
            .hint("`lifeboat restore ID --to NAME --table SCHEMA.TABLE` brings back tables that are not lost");
    }
    let left = |kind: FileKind| repaired.done.left.iter().any(|one| one.kind == kind);
    if left(FileKind::Key) {
        failure = failure.hint("a key is mended by `lifeboat key add` with its passphrase, then `lifeboat key remove ID` of the damaged one");
    }
    if left(FileKind::Config) {
        failure = failure.hint("put back the file `config` from a copy of the repository");
    }
    if left(FileKind::Pack) || left(FileKind::Snapshot) {
        failure = failure.hint("what another repository seemed to have was damaged there: `lifeboat repair` once more says what is lost");
    }
    Err(failure)
}

/// The progress, which makes room while a question is asked.
struct Screen {
    out: Output,
    progress: Mutex<Option<Progress>>,
}

impl Screen {
    fn new(out: &Output) -> Self {
        Self {
            out: out.clone(),
            progress: Mutex::new(Some(Progress::new(out))),
        }
    }

    fn away<T>(&self, work: impl FnOnce() -> T) -> T {
        let slot = || self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        drop(slot().take());
        let result = work();
        *slot() = Some(Progress::new(&self.out));
        result
    }
}

impl Observer for Screen {
    fn event(&self, event: &Event) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = progress.as_ref() {
            progress.event(event);
        }
    }
}

/// So many of something that `one` names.
fn plural(count: usize, one: &str) -> String {
    human::plural(count as u64, one)
}
