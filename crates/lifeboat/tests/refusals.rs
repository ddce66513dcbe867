//! Destroying anything takes an explicit word. Each refusal exits 4, says what to type, and has changed
//! nothing at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use lifeboat_testkit::{TestDatabase, TestServer};
use support::running::Run;
use support::sql::{assert_same, databases, fingerprint, psql};
use support::{Sandbox, app_database, data};

/// A backup, and a database that holds something else, which no refused command may change.
struct Bystander {
    source: TestDatabase<'static>,
    sandbox: Sandbox,
    target: TestDatabase<'static>,
}

impl Bystander {
    fn new(name: &str) -> Bystander {
        let source = app_database(name);
        let sandbox = Sandbox::initialised(&source.url());
        sandbox.backup();
        let target = app_database(&format!("{name}_target"));
        data::churn(&target);
        target.sql("CREATE TABLE only_here (id int); INSERT INTO only_here VALUES (7)");
        Bystander {
            source,
            sandbox,
            target,
        }
    }

    /// Runs what must be refused, and compares everything before and after.
    #[track_caller]
    fn refuses(&self, args: &[&str]) -> Run {
        let server = TestServer::shared();
        let prints = |_| {
            let source = fingerprint(server, self.source.name());
            (source, fingerprint(server, self.target.name()))
        };
        let ours = || -> Vec<_> {
            let names = databases(server).into_iter();
            // Other tests of this file make and drop databases of their own meanwhile.
            let stem = self.source.name().rsplit_once('_').unwrap().0.to_owned();
            names.filter(|name| name.starts_with(&stem)).collect()
        };
        let (before, names) = (prints(()), ours());
        let run = self.sandbox.run(args).fails(4);
        let after = prints(());
        assert_same(&before.0, &after.0);
        assert_same(&before.1, &after.1);
        assert_eq!(before, after);
        assert_eq!(names, ours());
        run
    }
}

#[test]
fn to_a_name_that_exists() {
    let bystander = Bystander::new("to_existing");
    for name in [
        bystander.target.name(),
        bystander.source.name(),
        "postgres",
        "template1",
    ] {
        bystander
            .refuses(&["restore", "latest", "--to", name])
            .says(name);
    }
}

#[test]
fn into_without_a_word() {
    let bystander = Bystander::new("into_plain");
    let url = bystander.target.url();
    let name = bystander.target.name();
    bystander
        .refuses(&["restore", "latest", "--into", &url, "--clean"])
        .says(&format!("--yes {name}"));
    bystander.refuses(&["restore", "latest", "--into", &url]);
}

#[test]
fn into_with_the_wrong_word() {
    let bystander = Bystander::new("into_wrong");
    let url = bystander.target.url();
    let name = bystander.target.name();
    let wrong = [
        bystander.source.name(),
        "yes",
        "",
        &name[..name.len() - 1],
        &name.to_uppercase(),
    ];
    for word in wrong {
        bystander.refuses(&[
            "restore", "latest", "--into", &url, "--clean", "--yes", word,
        ]);
    }
}

#[test]
fn into_a_filled_database_without_clean() {
    let bystander = Bystander::new("into_filled");
    let url = bystander.target.url();
    bystander
        .refuses(&[
            "restore",
            "latest",
            "--into",
            &url,
            "--yes",
            bystander.target.name(),
        ])
        .says("--clean");
}

#[test]
fn into_a_database_in_use() {
    let bystander = Bystander::new("into_used");
    let url = bystander.target.url();
    let name = bystander.target.name().to_owned();
    let session = support::running::Session::open(TestServer::shared(), &name);
    bystander
        .refuses(&[
            "restore", "latest", "--into", &url, "--clean", "--yes", &name,
        ])
        .says("connection");
    drop(session);
}

#[test]
fn into_an_empty_database_needs_no_clean() {
    let server = TestServer::shared();
    let source = app_database("into_empty");
    let sandbox = Sandbox::initialised(&source.url());
    let held = fingerprint(server, source.name());
    let id = sandbox.backup();
    let target = server.database("into_empty_target");
    sandbox
        .run([
            "restore",
            &id,
            "--into",
            &target.url(),
            "--yes",
            target.name(),
        ])
        .ok();
    assert_same(&held, &fingerprint(server, target.name()));
}

#[test]
fn into_clean_does_what_pg_restore_clean_does() {
    let bystander = Bystander::new("into_clean");
    let server = TestServer::shared();
    let held = fingerprint(server, bystander.source.name());
    let target = &bystander.target;
    // Something that the backup does not know, and something that it knows otherwise.
    target.sql(
        "CREATE SCHEMA kept; CREATE TABLE kept.mine AS SELECT 1 AS one;
         ALTER TABLE users ADD COLUMN later int; DROP VIEW meme_owners; DROP TABLE nothing_yet",
    );
    let url = target.url();
    let args = [
        "restore",
        "latest",
        "--into",
        &url,
        "--clean",
        "--yes",
        target.name(),
    ];
    bystander.sandbox.run(args).ok();

    assert_eq!(target.value("SELECT one FROM kept.mine"), "1");
    assert_eq!(target.value("SELECT id FROM only_here"), "7");
    target.sql("DROP SCHEMA kept CASCADE; DROP TABLE only_here");
    let after = fingerprint(server, target.name());
    assert_eq!(held.rows, after.rows);
    assert_eq!(held.sequences, after.sequences);
    assert_eq!(held.schema, after.schema);

    // Twice is as good as once, and a changed source is not what comes back.
    data::churn(&bystander.source);
    bystander.sandbox.run(args).ok();
    assert_eq!(held.rows, fingerprint(server, target.name()).rows);
}

#[test]
fn into_clean_over_the_source_itself() {
    // The disaster itself: the live database is wrong, and its own URL is the target.
    let bystander = Bystander::new("into_source");
    let server = TestServer::shared();
    let held = fingerprint(server, bystander.source.name());
    bystander
        .source
        .sql("DROP TABLE activations CASCADE; DELETE FROM memes");
    let url = bystander.source.url();
    let name = bystander.source.name().to_owned();
    bystander.refuses(&["restore", "latest", "--into", &url, "--clean"]);
    bystander
        .sandbox
        .run([
            "restore", "latest", "--into", &url, "--clean", "--yes", &name,
        ])
        .ok();
    let after = fingerprint(server, &name);
    assert_eq!(held.rows, after.rows);
    assert_eq!(held.schema, after.schema);
}

#[test]
fn both_targets_or_none_is_wrong_usage() {
    let bystander = Bystander::new("usage");
    let url = bystander.target.url();
    for args in [
        &["restore", "latest"][..],
        &["restore", "latest", "--to", "a_new_one", "--into", &url],
        &["restore", "--to", "a_new_one"],
        &[
            "restore",
            "latest",
            "--to",
            "a_new_one",
            "--schema-only",
            "--data-only",
        ],
        &["restore", "latest", "--to", "a_new_one", "--jobs", "0"],
    ] {
        let run = bystander.sandbox.run(args);
        assert_eq!(run.code, 2, "{run}");
    }
    assert!(!databases(TestServer::shared()).contains(&"a_new_one".to_owned()));
}

#[test]
fn a_role_that_may_not_create_databases() {
    let bystander = Bystander::new("may_not");
    let server = TestServer::shared();
    psql(server, "postgres", "CREATE ROLE may_not_create LOGIN");
    let url = server.url_as("may_not_create", "postgres");
    let run = bystander
        .sandbox
        .run(["restore", "latest", "--to", "may_not_new", "--server", &url]);
    assert!([1, 4].contains(&run.code), "{run}");
    assert!(run.stderr.contains("hint:"), "{run}");
    assert!(!databases(server).contains(&"may_not_new".to_owned()));
    psql(server, "postgres", "DROP ROLE may_not_create");
}
