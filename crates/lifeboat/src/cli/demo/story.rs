//! What the demo does, in order. Every step runs the code that the command of that name runs.

use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use lifeboat_engine::backup::{self, BackupReport, BackupRequest};
use lifeboat_engine::catalog::{Catalog, Selector};
use lifeboat_engine::config::TimeSpan;
use lifeboat_engine::drill::{self, DrillPlace, DrillReport, DrillRequest};
use lifeboat_engine::event::Silent;
use lifeboat_engine::journal::Journal;
use lifeboat_engine::restore::{self, RestoreReport, RestoreRequest, Target, What};
use lifeboat_engine::verify::{self, ReadData, VerifyRequest};
use lifeboat_pg::instance::{ScratchOptions, ScratchServer, sweep};
use lifeboat_pg::tools::{Tool, ToolFinder, Wanted};
use lifeboat_pg::{ConnInfo, Connection};
use lifeboat_repo::Repository;
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::storage::LocalStorage;
use secrecy::SecretString;
use serde_json::json;

use crate::app::{App, hostname};
use crate::failure::Failure;
use crate::output::{Tone, human};
use crate::passphrase;

/// The oldest PostgreSQL that Lifeboat works with.
const OLDEST_MAJOR: u32 = 13;
/// The database of the demo's application.
const DATABASE: &str = "memalerts";
/// Where it is restored to.
const RESTORED: &str = "memalerts_restored";

/// Everything the steps share.
struct Demo<'a> {
    app: &'a App,
    tools: ToolFinder,
    source: ConnInfo,
    repository: Repository,
}

/// Runs the demo from beginning to end.
pub(super) fn tell(app: &App) -> Result<(), Failure> {
    let started = Instant::now();
    let scratch_dir = app.scratch_dir();
    // What a demo that was killed has left.
    sweep(&scratch_dir).map_err(Failure::from)?;
    // The demo's server is here, whatever the configuration says of the real one.
    let tools = ToolFinder {
        prefix: Vec::new(),
        ..app.tools()
    };
    let found = tools.find(
        &[Tool::Initdb, Tool::Postgres, Tool::PgDump, Tool::PgRestore],
        Wanted::AtLeast(OLDEST_MAJOR),
    )?;
    let bin_dir = found
        .bin_dir()
        .map(std::path::Path::to_owned)
        .unwrap_or_default();
    step(
        app,
        1,
        &format!(
            "Starting a throw-away PostgreSQL {} and filling it",
            found.major()
        ),
    );
    let mut options = ScratchOptions::new(bin_dir, &scratch_dir);
    options.interrupt = Arc::clone(&app.interrupt);
    let server = ScratchServer::start(&options)?;
    let folder = tempfile::Builder::new()
        .prefix("lifeboat-demo-")
        .tempdir()
        .map_err(|error| {
            Failure::new(
                crate::exit::Exit::Failed,
                format!("cannot make a folder: {error}"),
            )
        })?;
    let demo = Demo {
        app,
        tools,
        source: app.conninfo(&SecretString::from(server.url(DATABASE)))?,
        repository: make_repository(app, folder.path())?,
    };
    let result = demo.run(started);
    let leftovers = server.stop();
    drop(folder);
    result?;
    leftovers?;
    demo.tell_end(started);
    Ok(())
}

fn step(app: &App, number: u32, text: &str) {
    app.out.say(&format!("\n{number}. {text}"));
}

fn make_repository(app: &App, folder: &std::path::Path) -> Result<Repository, Failure> {
    let password = SecretString::from(passphrase::generate()?);
    Ok(Repository::init(
        Arc::new(LocalStorage::new(folder.join("repository"))),
        &password,
        &InitOptions {
            chunk_sizes: ChunkSizes::for_database_size(0),
            scrypt: ScryptParams::default(),
            hostname: hostname(),
            username: app.username(),
            now: app.now(),
        },
    )?)
}

impl Demo<'_> {
    fn run(&self, started: Instant) -> Result<(), Failure> {
        let app = self.app;
        let mut admin = app.connect(&self.source.with_database("postgres"))?;
        admin.execute("CREATE DATABASE memalerts")?;
        let mut connection = app.connect(&self.source)?;
        connection.execute(include_str!("application.sql"))?;
        app.out
            .say("   users, memes, activations and _prisma_migrations: 225,003 rows");

        step(app, 2, "Taking a backup: lifeboat backup");
        let first = self.backup()?;
        self.tell_backup(&first);

        step(app, 3, "An hour of traffic, then another backup");
        self.traffic(&mut connection)?;
        let second = self.backup()?;
        self.tell_backup(&second);
        app.out.say(&format!(
            "   the second one cost {} on top of the first one's {}",
            human::bytes(second.new_bytes),
            human::bytes(first.new_bytes)
        ));

        let catalog = Catalog::new(&self.repository);
        step(
            app,
            4,
            "Is it fresh and readable? lifeboat verify --read-data",
        );
        self.verify()?;

        step(app, 5, "Does it restore? lifeboat drill");
        let drilled = self.drill(&catalog)?;

        step(app, 6, "Somebody drops a table: DROP TABLE activations");
        let before = count(&mut connection)?;
        connection.execute("DROP TABLE public.activations")?;
        let lost_since = app.now();

        step(
            app,
            7,
            "Recovery: lifeboat restore latest --to memalerts_restored",
        );
        let recovery = Instant::now();
        let restored = self.restore(&catalog)?;
        let rto = recovery.elapsed().as_secs_f64();
        let mut recovered = app.connect(&self.source.with_database(RESTORED))?;
        let after = count(&mut recovered)?;
        if before != after {
            return Err(Failure::new(
                crate::exit::Exit::BadData,
                format!("{before} activations were there before, {after} came back"),
            ));
        }
        app.out
            .say(&format!("   {} activations are back", human::count(after)));
        self.tell_result(&second, &drilled, &restored, lost_since, rto, started)
    }

    fn backup(&self) -> Result<BackupReport, Failure> {
        let request = BackupRequest {
            database: DATABASE.to_owned(),
            conninfo: self.source.clone(),
            tools: self.tools.clone(),
            jobs: self.app.jobs(None),
            compression_level: 1,
            slice_bytes: 128 << 20,
            lock_timeout: std::time::Duration::from_secs(30),
            lock_patience: std::time::Duration::ZERO,
            hostname: hostname(),
            username: self.app.username(),
            interrupt: Arc::clone(&self.app.interrupt),
        };
        Ok(backup::execute(&self.repository, &request, &Silent)?)
    }

    fn tell_backup(&self, report: &BackupReport) {
        self.app.out.say(&format!(
            "   backup {}: {} tables, {} rows, {} read, {} stored, {}",
            short(&report.id.to_string()),
            report.tables,
            human::count(report.rows),
            human::bytes(report.bytes_read),
            human::bytes(report.new_bytes),
            human::duration(report.seconds)
        ));
    }

    fn traffic(&self, connection: &mut Connection) -> Result<(), Failure> {
        connection.execute(
            "INSERT INTO public.activations (meme, by_user, at, payload) \
             SELECT 1 + n % 20000, 1 + n % 5000, now(), jsonb_build_object('volume', n % 100) \
             FROM generate_series(1, 2000) AS n",
        )?;
        connection.execute("UPDATE public.users SET joined = now() WHERE id % 500 = 0")?;
        Ok(())
    }

    fn verify(&self) -> Result<(), Failure> {
        let report = verify::execute(
            &self.repository,
            &Journal::in_memory()?,
            &VerifyRequest {
                selector: Selector::Latest,
                database: Some(DATABASE.to_owned()),
                max_age: Some(SignedDuration::from_hours(2)),
                read: ReadData::All,
                max_proof_age: SignedDuration::from_hours(30 * 24),
                jobs: self.app.jobs(None),
                now: self.app.now(),
                interrupt: Arc::clone(&self.app.interrupt),
            },
            &Silent,
        )?;
        if let Some(problem) = report.problems.first() {
            return Err(Failure::new(
                crate::exit::Exit::BadData,
                problem.to_string(),
            ));
        }
        self.app.out.say(&format!(
            "   yes: {} packs, {} read, every hash matches",
            report.packs_checked,
            human::bytes(report.bytes_read)
        ));
        Ok(())
    }

    fn drill(&self, catalog: &Catalog<'_>) -> Result<DrillReport, Failure> {
        let report = drill::execute(
            catalog,
            &DrillRequest {
                selector: Selector::Latest,
                database: Some(DATABASE.to_owned()),
                place: DrillPlace::Scratch {
                    parent_dir: self.app.scratch_dir(),
                },
                jobs: self.app.jobs(None),
                checks: Vec::new(),
                rpo: TimeSpan::hours(1),
                rto: TimeSpan::hours(1),
                tools: self.tools.clone(),
                now: self.app.now(),
                interrupt: Arc::clone(&self.app.interrupt),
            },
            &Silent,
        )?;
        if let Some(failure) = report.failures.first() {
            return Err(Failure::new(crate::exit::Exit::BadData, failure.clone()));
        }
        self.app.out.say(&format!(
            "   proven: restored into a {}, {} tables and {} rows equal, usable after {}",
            report.place,
            report.comparison.tables.len(),
            human::count(report.comparison.rows()),
            human::duration(report.rto_seconds)
        ));
        Ok(report)
    }

    fn restore(&self, catalog: &Catalog<'_>) -> Result<RestoreReport, Failure> {
        let request = RestoreRequest {
            selector: Selector::Latest,
            database: Some(DATABASE.to_owned()),
            target: Target::New {
                server: self.source.clone(),
                name: RESTORED.to_owned(),
            },
            tables: Vec::new(),
            what: What::Everything,
            jobs: self.app.jobs(None),
            keep_owner: false,
            leave_out_subscriptions: false,
            read_back: true,
            tools: self.tools.clone(),
            now: self.app.now(),
            interrupt: Arc::clone(&self.app.interrupt),
        };
        let plan = restore::plan(catalog, &request)?;
        let report = restore::execute(catalog, &plan, &request, None, &Silent)?;
        let mut wrong = report.problems.clone();
        wrong.extend(report.comparison.differences());
        match wrong.into_iter().next() {
            Some(problem) => Err(Failure::new(crate::exit::Exit::BadData, problem)),
            None => Ok(report),
        }
    }

    fn tell_result(
        &self,
        backup: &BackupReport,
        drilled: &DrillReport,
        restored: &RestoreReport,
        lost_since: Timestamp,
        rto: f64,
        started: Instant,
    ) -> Result<(), Failure> {
        let rpo = lost_since
            .duration_since(backup.snapshot_time)
            .as_secs_f64();
        let out = &self.app.out;
        out.data(&format!(
            "{}  RPO: {} of data lost (objective 1 h)   RTO: back after {} (objective 1 h)",
            out.paint(Tone::Good, "recovered"),
            human::duration(rpo),
            human::duration(rto)
        ));
        out.object(
            "demo",
            &json!({
                "rpo_seconds": rpo,
                "rto_seconds": rto,
                "drill_rto_seconds": drilled.rto_seconds,
                "rows_restored": restored.rows,
                "seconds": started.elapsed().as_secs_f64(),
            }),
        )
    }

    fn tell_end(&self, started: Instant) {
        self.app.out.say(&format!(
            "\nThe demo took {} and left nothing behind. Next, with your own database: `lifeboat init`",
            human::duration(started.elapsed().as_secs_f64())
        ));
    }
}

fn count(connection: &mut Connection) -> Result<u64, Failure> {
    let rows = connection.query("SELECT count(*) AS n FROM public.activations")?;
    Ok(rows.value("n")?.parse().unwrap_or(0))
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
