//! The deliberately awkward database, round: schema, rows, sequences and large objects are the same after as
//! before, by every way out of a backup.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use lifeboat_testkit::{TestServer, awkward};
use support::sql::{Restored, assert_same, fingerprint, pg_restore, psql};
use support::{Sandbox, data};

#[test]
fn the_awkward_database_comes_back_as_it_was() {
    let server = TestServer::shared();
    let database = awkward::load(server);
    let before = fingerprint(server, database.name());
    let sandbox = Sandbox::initialised(&database.url());
    let id = sandbox.backup();
    sandbox.restic_is_content();
    // The backup has only looked.
    assert_same(&before, &fingerprint(server, database.name()));

    let target = Restored::reserve(server, "awkward_to");
    sandbox
        .run(["restore", &id, "--to", target.name(), "--owner"])
        .ok();
    assert_same(&before, &fingerprint(server, target.name()));

    // Over itself, after somebody has been at it.
    database.sql("DROP SCHEMA \"select\" CASCADE; TRUNCATE every_type CASCADE");
    let url = database.url();
    let name = database.name().to_owned();
    sandbox
        .run([
            "restore", &id, "--into", &url, "--clean", "--owner", "--yes", &name,
        ])
        .ok();
    assert_eq!(before.rows, fingerprint(server, &name).rows);
    assert_eq!(before.sequences, fingerprint(server, &name).sequences);

    sandbox.run(["drill"]).ok();
    sandbox.assert_nothing_left();

    let file = sandbox.root().join("awkward.dump");
    sandbox
        .run(["export", &id, "-o", file.to_str().unwrap()])
        .ok();
    for jobs in [&[][..], &["-j2"]] {
        let exported = server.database_with("awkward_export", "TEMPLATE template0 ENCODING 'UTF8'");
        pg_restore(server, exported.name(), jobs, &file);
        assert_same(&before, &fingerprint(server, exported.name()));
    }
}

#[test]
fn what_restic_restores_of_it_is_what_pg_restore_reads() {
    let server = TestServer::shared();
    let database = awkward::load(server);
    let before = fingerprint(server, database.name());
    let sandbox = Sandbox::initialised(&database.url());
    sandbox.backup();
    let folder = sandbox.root().join("out");
    let run = sandbox.restic(&["restore", "latest", "--target", folder.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run}");
    // No name of a table led out of the folder.
    let stray = support::files(sandbox.root()).into_iter().filter(|file| {
        file.to_string_lossy().contains("escaped") && !file.starts_with(folder.join("dump/tables"))
    });
    assert_eq!(stray.count(), 0);
    let target = server.database_with("awkward_restic", "TEMPLATE template0 ENCODING 'UTF8'");
    pg_restore(server, target.name(), &["-Fd", "-j2"], &folder.join("dump"));
    assert_same(&before, &fingerprint(server, target.name()));
}

#[test]
fn two_thousand_small_tables() {
    let server = TestServer::shared();
    let database = server.database("many");
    awkward::load_many(&database);
    let before = fingerprint(server, database.name());
    let sandbox = Sandbox::initialised(&database.url());
    let backup = sandbox.run(["backup", "--json"]).ok().json("backup");
    assert_eq!(backup["tables"], 2000, "{backup:#}");
    let target = Restored::reserve(server, "many_to");
    sandbox
        .run(["restore", "latest", "--to", target.name()])
        .ok();
    assert_same(&before, &fingerprint(server, target.name()));
    sandbox.run(["drill"]).ok();
    sandbox.assert_nothing_left();

    // One row in one of them: the other 1,999 cost nothing.
    database.sql("INSERT INTO many.\"table 7\" VALUES (100, 100)");
    let again = sandbox.run(["backup", "--json"]).ok().json("backup");
    let new = again["new_bytes"].as_u64().unwrap();
    assert!(new < 1_000_000, "{new} new bytes\n{again:#}");
    sandbox.restic_is_content();
}

#[test]
fn an_owner_without_superuser_rights() {
    let server = TestServer::shared();
    psql(server, "postgres", "CREATE ROLE plain_owner LOGIN CREATEDB");
    let database = server.database_with(
        "plain",
        "OWNER plain_owner TEMPLATE template0 ENCODING 'UTF8'",
    );
    // Before 15 everybody may create in public; since then the owner of the database may.
    let own = format!(
        "SET SESSION AUTHORIZATION plain_owner;\n{}\n{OWNED}",
        data::APP
    );
    database.sql(&own);
    let before = fingerprint(server, database.name());
    let sandbox = Sandbox::initialised(&database.url_as("plain_owner"));
    let check = sandbox.run(["check"]);
    assert_eq!(check.code, 0, "{check}");
    sandbox.backup();
    let target = Restored::reserve(server, "plain_to");
    sandbox
        .run(["restore", "latest", "--to", target.name()])
        .ok();
    assert_same(&before, &fingerprint(server, target.name()));
    let owner = format!(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{}'",
        target.name()
    );
    assert_eq!(psql(server, "postgres", &owner).trim(), "plain_owner");

    database.sql("DROP TABLE activations CASCADE");
    let url = database.url_as("plain_owner");
    sandbox
        .run([
            "restore",
            "latest",
            "--into",
            &url,
            "--clean",
            "--yes",
            database.name(),
        ])
        .ok();
    assert_eq!(before.rows, fingerprint(server, database.name()).rows);

    sandbox.run(["drill"]).ok();
    sandbox.run(["drill", "--on", &url]).ok();
    sandbox.assert_nothing_left();
    drop((target, database));
    psql(server, "postgres", "DROP ROLE plain_owner");
}

/// What an owner may make without being a superuser, beyond the small application.
const OWNED: &str = r#"
CREATE SCHEMA "Mine ""too""";
CREATE EXTENSION citext SCHEMA "Mine ""too""";
CREATE EXTENSION pg_trgm;
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE parts (id int, mood mood, n positive, g int GENERATED ALWAYS AS (id * 2) STORED) PARTITION BY LIST (mood);
CREATE TABLE parts_sad PARTITION OF parts FOR VALUES IN ('sad');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT g, CASE WHEN g % 2 = 0 THEN 'sad' END::mood, g FROM generate_series(1, 100) AS g;
CREATE TABLE "Mine ""too""".people (name "Mine ""too""".citext PRIMARY KEY, note text);
INSERT INTO "Mine ""too""".people VALUES ('Ann', E'\\.'), ('Bob', NULL);
ALTER TABLE "Mine ""too""".people ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_them ON "Mine ""too""".people USING (name <> 'Bob');
CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS one;
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE STATISTICS together ON id, mood FROM parts;
GRANT SELECT ON parts TO PUBLIC;
COMMENT ON DOMAIN positive IS 'a domain';
"#;
