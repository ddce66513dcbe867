//! One database through every operation, on a real server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lifeboat_engine::backup::{self, BackupRequest};
use lifeboat_engine::catalog::{Catalog, Selector};
use lifeboat_engine::config::TimeSpan;
use lifeboat_engine::drill::{self, DrillPlace, DrillRequest};
use lifeboat_engine::event::Silent;
use lifeboat_engine::export::{self, ExportRequest};
use lifeboat_engine::journal::Journal;
use lifeboat_engine::restore::{self, RestoreError, RestoreRequest, Target, What};
use lifeboat_engine::verify::{self, ReadData, VerifyRequest};
use lifeboat_pg::ConnInfo;
use lifeboat_pg::tools::ToolFinder;
use lifeboat_repo::Repository;
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::storage::MemoryStorage;
use lifeboat_testkit::{TestDatabase, TestServer, awkward, search_path};
use secrecy::SecretString;

struct Site {
    repository: Repository,
    conninfo: ConnInfo,
    tools: ToolFinder,
}

impl Site {
    fn new(database: &TestDatabase<'_>) -> Self {
        let repository = Repository::init(
            Arc::new(MemoryStorage::new()),
            &SecretString::from("secret"),
            &InitOptions {
                chunk_sizes: ChunkSizes::for_database_size(0),
                scrypt: ScryptParams::cheap(),
                hostname: "host".into(),
                username: "user".into(),
                now: Timestamp::now(),
            },
        )
        .unwrap();
        Self {
            repository,
            conninfo: ConnInfo::parse(&database.url(), &|_: &str| None).unwrap(),
            tools: ToolFinder::new(Some(search_path())),
        }
    }

    fn backup(&self) -> backup::BackupReport {
        let request = BackupRequest {
            lock_patience: Duration::ZERO,
            database: "app".into(),
            conninfo: self.conninfo.clone(),
            tools: self.tools.clone(),
            jobs: 3,
            compression_level: 1,
            slice_bytes: 1 << 20,
            lock_timeout: Duration::from_secs(10),
            hostname: "host".into(),
            username: "user".into(),
            interrupt: Arc::default(),
        };
        backup::execute(&self.repository, &request, &Silent).unwrap()
    }

    fn restore_request(&self, name: &str) -> RestoreRequest {
        RestoreRequest {
            selector: Selector::Latest,
            database: Some("app".into()),
            target: Target::New {
                server: self.conninfo.clone(),
                name: name.into(),
            },
            tables: Vec::new(),
            what: What::Everything,
            jobs: 3,
            keep_owner: true,
            leave_out_subscriptions: false,
            read_back: true,
            tools: self.tools.clone(),
            now: Timestamp::now(),
            interrupt: Arc::default(),
        }
    }
}

#[test]
fn an_awkward_database_comes_back_as_it_was() {
    let server = TestServer::shared();
    let database = awkward::load(server);
    let before = awkward::fingerprint(server, database.name());
    let site = Site::new(&database);
    let taken = site.backup();
    assert!(taken.rows > 0 && taken.new_bytes > 0);

    let catalog = Catalog::new(&site.repository);
    let verified = verify::execute(
        &site.repository,
        &Journal::in_memory().unwrap(),
        &VerifyRequest {
            selector: Selector::Latest,
            database: None,
            max_age: Some(SignedDuration::from_hours(1)),
            read: ReadData::All,
            max_proof_age: SignedDuration::from_hours(30 * 24),
            jobs: 2,
            now: Timestamp::now(),
            interrupt: Arc::default(),
        },
        &Silent,
    )
    .unwrap();
    assert!(verified.is_good(), "{:?}", verified.problems);

    // A database whose name is not taken: made, and dropped, as any test database.
    let name = format!("{}_back", database.name());
    let request = site.restore_request(&name);
    let plan = restore::plan(&catalog, &request).unwrap();
    let restored = restore::execute(&catalog, &plan, &request, None, &Silent).unwrap();
    let after = awkward::fingerprint(server, &name);
    let taken_name = restore::plan(&catalog, &request);
    database.sql("SELECT 1");
    let _ = server
        .database("admin")
        .try_sql(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
    assert!(
        restored.is_good(),
        "{:?} {:?}",
        restored.problems,
        restored.comparison.differences()
    );
    let differences = before.differences(&after);
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(matches!(taken_name, Err(RestoreError::TargetExists { .. })));
}

#[test]
fn a_drill_proves_and_an_export_is_read_by_pg_restore() {
    let server = TestServer::shared();
    let database = server.database("drill");
    database.sql(
        "CREATE TABLE public.a (id int PRIMARY KEY, t text); \
         INSERT INTO public.a SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) n; \
         CREATE TABLE public.empty (x int);",
    );
    // Restored even as a disabled one, it would keep the temporary database from being dropped.
    database.sql(
        "CREATE SUBSCRIPTION feed CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)",
    );
    let site = Site::new(&database);
    let first = site.backup();
    database.sql("UPDATE public.a SET t = 'changed' WHERE id = 77");
    let second = site.backup();
    assert!(
        second.new_bytes < first.new_bytes / 4,
        "{second:?} {first:?}"
    );

    let catalog = Catalog::new(&site.repository);
    let (backups, damaged) = catalog.backups(Some("app")).unwrap();
    assert_eq!((backups.len(), damaged.len()), (2, 0));
    assert_eq!(backups[1].summary.as_ref().unwrap().rows, 20_000);

    let place = |place| DrillRequest {
        selector: Selector::Latest,
        database: None,
        place,
        jobs: 2,
        checks: Vec::new(),
        rpo: TimeSpan::hours(1),
        rto: TimeSpan::hours(1),
        tools: site.tools.clone(),
        now: Timestamp::now(),
        interrupt: Arc::default(),
    };
    for request in [
        place(DrillPlace::Scratch {
            parent_dir: "/tmp".into(),
        }),
        place(DrillPlace::Server(Box::new(site.conninfo.clone()))),
    ] {
        let report = drill::execute(&catalog, &request, &Silent).unwrap();
        assert!(report.proven, "{:?}", report.failures);
        assert!(report.comparison.tables.iter().all(|table| table.matches()));
        assert!(report.rto_seconds > 0.0);
    }
    let left =
        database.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'lifeboat_drill_%'");
    assert_eq!(left, "0");

    database.sql("ALTER SUBSCRIPTION feed SET (slot_name = NONE); DROP SUBSCRIPTION feed");

    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("a.dump");
    let request = ExportRequest {
        output: output.clone(),
        gzip_level: Some(1),
        interrupt: Arc::default(),
    };
    export::execute(&catalog, &backups[1], &request, &Silent).unwrap();
    let tool = lifeboat_testkit::newest().bin_dir.join("pg_restore");
    let listed = std::process::Command::new(tool)
        .arg("-l")
        .arg(&output)
        .output()
        .unwrap();
    assert!(listed.status.success());
    assert!(String::from_utf8_lossy(&listed.stdout).contains("TABLE DATA public a"));
    let again = export::execute(&catalog, &backups[1], &request, &Silent);
    assert!(matches!(again, Err(export::ExportError::Exists(_))));
}

/// Pairs of tables that refer to each other, one of them in partitions, with triggers on all: whatever two sessions
/// could wait for each other about. A pair's keys stand side by side in the archive, which sorts them by name.
fn entangled(database: &TestDatabase<'_>) {
    let mut sql = String::from(
        "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';",
    );
    for pair in 0..4 {
        let (one, other) = (format!("one_{pair}"), format!("other_{pair}"));
        sql += &format!(
            "CREATE TABLE public.{one} (id int PRIMARY KEY, a int, b int, c int);
             CREATE TABLE public.{other} (LIKE public.{one} INCLUDING ALL) PARTITION BY HASH (id);"
        );
        for part in 0..3 {
            sql += &format!(
                "CREATE TABLE public.{other}_{part} PARTITION OF public.{other}
                     FOR VALUES WITH (MODULUS 3, REMAINDER {part});"
            );
        }
        for table in [&one, &other] {
            sql += &format!(
                "INSERT INTO public.{table} SELECT n, n, n, n FROM generate_series(0, 19999) n;"
            );
        }
        for column in ["a", "b", "c"] {
            for (from, to) in [(&one, &other), (&other, &one)] {
                sql += &format!(
                    "ALTER TABLE public.{from} ADD CONSTRAINT key_{pair}_{column}_{from}
                         FOREIGN KEY ({column}) REFERENCES public.{to};
                     CREATE TRIGGER {column} BEFORE INSERT ON public.{from}
                         FOR EACH ROW EXECUTE FUNCTION public.nothing();
                     CREATE INDEX ON public.{from} ({column});"
                );
            }
        }
    }
    database.sql(&sql);
}

#[test]
fn many_sessions_that_lock_the_same_tables_lose_no_constraint() {
    let server = TestServer::shared();
    let database = server.database("entangled");
    entangled(&database);
    let site = Site::new(&database);
    site.backup();
    let catalog = Catalog::new(&site.repository);
    for round in 0..3 {
        let name = format!("{}_back{round}", database.name());
        let request = RestoreRequest {
            jobs: 8,
            ..site.restore_request(&name)
        };
        let plan = restore::plan(&catalog, &request).unwrap();
        let restored = restore::execute(&catalog, &plan, &request, None, &Silent).unwrap();
        server
            .database("admin")
            .sql(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
        assert_eq!(restored.problems, Vec::<String>::new(), "round {round}");
    }
}
