//! The main job, end to end: from a `DATABASE_URL` to a backup that has been restored and proven, and the
//! way out of it with stock tools alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;

use lifeboat_testkit::{TestDatabase, TestServer};
use support::sql::{Restored, assert_same, databases, fingerprint, pg_restore, psql};
use support::{Sandbox, app_database, data, entries, mode, number, text};

/// Two backups of one database, with what it held at each.
struct TwoBackups {
    database: TestDatabase<'static>,
    sandbox: Sandbox,
    ids: [String; 2],
    held: [support::sql::Fingerprint; 2],
}

fn two_backups(name: &str) -> TwoBackups {
    let server = TestServer::shared();
    let database = app_database(name);
    let sandbox = Sandbox::initialised(&database.url());
    let before = fingerprint(server, database.name());
    let first = sandbox.backup();
    data::churn(&database);
    let after = fingerprint(server, database.name());
    let second = sandbox.backup();
    TwoBackups {
        database,
        sandbox,
        ids: [first, second],
        held: [before, after],
    }
}

#[test]
fn init_with_the_three_variables_asks_nothing_and_keeps_others_out() {
    let database = app_database("init");
    let sandbox = Sandbox::new(&database.url());
    let init = sandbox.run(["init"]).ok();
    assert!(!init.stderr.contains('?'), "a question?\n{init}");

    assert_eq!(mode(&sandbox.repository()), 0o700);
    for file in support::files(&sandbox.repository()) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    // A second init must not touch the first one's repository.
    let config = fs::read(sandbox.repository().join("config")).unwrap();
    let again = sandbox.run(["init"]);
    assert!(
        again.code == 0 || again.code == 1 || again.code == 4,
        "{again}"
    );
    assert_eq!(
        fs::read(sandbox.repository().join("config")).unwrap(),
        config
    );

    sandbox.run(["check"]).ok();
    assert!(sandbox.restic_is_content().is_empty());
    assert!(sandbox.listed().is_empty());
    // Nothing but the repository and the state folder was written.
    assert!(entries(&sandbox.work_dir()).is_empty());
    assert!(entries(&sandbox.root().join("home")).is_empty());
    sandbox.assert_nothing_left();
}

#[test]
fn a_backup_tells_what_it_did_and_lists_show_it() {
    let TwoBackups {
        database,
        sandbox,
        ids,
        ..
    } = two_backups("told");
    assert_ne!(ids[0], ids[1]);

    let third = sandbox.run(["backup", "--json"]).ok().json("backup");
    let rows: u64 = database
        .value(
            "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM memes) + (SELECT count(*) FROM activations)
                  + (SELECT count(*) FROM \"Odd \"\"Name\"\" ü\") + (SELECT count(*) FROM _prisma_migrations)",
        )
        .parse()
        .unwrap();
    assert_eq!(third["rows"], rows, "{third:#}");
    assert_eq!(third["tables"], 6, "{third:#}");
    for field in ["new_bytes", "seconds"] {
        assert!(number(&third, field) >= 0.0);
    }

    // Newest first or oldest first, but all three, with the same IDs that restic knows.
    let mut listed = sandbox.listed();
    let mut known: Vec<_> = sandbox
        .restic_is_content()
        .iter()
        .map(|one| text(one, "id"))
        .collect();
    listed.sort();
    known.sort();
    assert_eq!(listed, known);

    let shown = sandbox.run(["show", &ids[1], "--json"]).ok().json("show");
    assert!(
        shown.to_string().contains("20260103000000_later"),
        "the migration\n{shown:#}"
    );
    assert!(
        shown.to_string().contains("activations"),
        "the tables\n{shown:#}"
    );
    let short = &ids[1][..8];
    let words = sandbox.run(["show", short]).ok();
    assert!(words.stdout.contains(short), "{words}");
    let words = sandbox.run(["list"]).ok();
    for id in &ids {
        assert!(words.stdout.contains(&id[..8]), "{words}");
    }

    // A plain run, as cron makes it: data on stdout, and the ID is in it.
    let plain = sandbox.run(["backup"]).ok();
    let newest = sandbox.listed();
    assert!(
        newest.iter().any(|id| plain.stdout.contains(&id[..8])),
        "{plain}"
    );
    let quiet = sandbox.run(["-q", "backup"]).ok();
    assert!(
        quiet.stderr.is_empty() && quiet.stdout.is_empty(),
        "{quiet}"
    );
    sandbox.assert_nothing_left();
}

#[test]
fn verify_is_one_line_and_status_wants_a_proof() {
    let TwoBackups { sandbox, ids, .. } = two_backups("verify");
    for args in [
        &["verify"][..],
        &["verify", "--read-data"],
        &["verify", &ids[0]],
    ] {
        let run = sandbox.run(args).ok();
        assert_eq!(run.stdout.lines().count(), 1, "one line of verdict\n{run}");
    }
    sandbox.run(["verify", "--json"]).ok().json("verify");

    // Its age counts from the snapshot of the database, not from the end of the copy.
    let newest = sandbox
        .restic_snapshots()
        .iter()
        .map(|one| text(one, "time"))
        .max()
        .unwrap();
    let taken: jiff::Timestamp = newest.parse().unwrap();
    support::processes::wait_for("the backup to be older than a second", || {
        jiff::Timestamp::now().duration_since(taken).as_millis() > 1100
    });
    let stale = sandbox.run(["verify", "--max-age", "1s"]);
    assert_eq!(stale.code, 3, "{stale}");
    assert_eq!(
        stale.stdout.lines().count(),
        1,
        "one line of verdict\n{stale}"
    );

    // Taken but not proven: a promise not yet kept.
    let status = sandbox.run(["status", "--json"]);
    assert_eq!(status.code, 3, "{status}");
    status.json("status");

    let drill = sandbox.run(["drill", "--json"]).ok().json("drill");
    assert!(drill.to_string().contains(&ids[1]), "{drill:#}");
    sandbox.assert_nothing_left();

    let status = sandbox.run(["status"]).ok();
    assert!(!status.stdout.is_empty());
    let list = sandbox.run(["list"]).ok();
    let proven: Vec<_> = list
        .stdout
        .lines()
        .filter(|line| line.contains("proven"))
        .collect();
    assert_eq!(proven.len(), 1, "one of two is proven\n{list}");
    assert!(proven[0].contains(&ids[1][..8]), "{list}");
    sandbox.run(["drill", &ids[0]]).ok();
    let list = sandbox.run(["list", "--json"]).ok();
    assert_eq!(list.stdout.matches("\"proven\"").count(), 2, "{list}");
    sandbox.assert_nothing_left();
}

#[test]
fn restore_makes_a_database_beside_the_old_one_with_the_same_content() {
    let server = TestServer::shared();
    let TwoBackups {
        database,
        sandbox,
        ids,
        held,
    } = two_backups("beside");
    // Two empty environments: nothing that the restores need lies in the journal.
    fs::remove_dir_all(sandbox.state_dir()).unwrap();

    for (id, held) in [
        (ids[0].as_str(), &held[0]),
        ("latest", &held[1]),
        (&ids[1][..8], &held[1]),
    ] {
        let target = Restored::reserve(server, "beside");
        let run = sandbox.run(["restore", id, "--to", target.name()]).ok();
        assert_same(held, &fingerprint(server, target.name()));
        assert!(
            run.stderr.contains(target.name()),
            "the plan names the target\n{run}"
        );
    }
    // The database it came from is as it was.
    assert_same(&held[1], &fingerprint(server, database.name()));

    // As a user would go on: the restored sequence does not hand out a used number.
    let target = Restored::reserve(server, "beside");
    let run = sandbox
        .run([
            "restore",
            "latest",
            "--to",
            target.name(),
            "--jobs",
            "2",
            "--json",
        ])
        .ok();
    run.json("restore");
    let next = psql(
        server,
        target.name(),
        "INSERT INTO users (name) VALUES ('x') RETURNING id",
    );
    assert_eq!(next.trim(), "9051");
}

#[test]
fn restore_can_leave_parts_out() {
    let server = TestServer::shared();
    let TwoBackups { sandbox, held, .. } = two_backups("parts");

    let target = Restored::reserve(server, "schema_only");
    sandbox
        .run(["restore", "latest", "--to", target.name(), "--schema-only"])
        .ok();
    let after = fingerprint(server, target.name());
    assert_eq!(after.schema, held[1].schema);
    assert_eq!(
        psql(server, target.name(), "SELECT count(*) FROM users").trim(),
        "0"
    );

    let target = Restored::reserve(server, "one_table");
    sandbox
        .run([
            "restore",
            "latest",
            "--to",
            target.name(),
            "--table",
            "users",
            "--table",
            "public._prisma_migrations",
        ])
        .ok();
    let tables = psql(
        server,
        target.name(),
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
    );
    assert_eq!(tables, "_prisma_migrations\nusers\n");
    let after = fingerprint(server, target.name());
    assert_eq!(
        after.rows["\"public.users\""],
        held[1].rows["\"public.users\""]
    );

    // Onto a schema that is there already: the rows alone.
    let target = Restored::reserve(server, "data_only");
    sandbox
        .run(["restore", "latest", "--to", target.name(), "--schema-only"])
        .ok();
    let url = server.url(target.name());
    let run = sandbox.run([
        "restore",
        "latest",
        "--into",
        &url,
        "--data-only",
        "--yes",
        target.name(),
    ]);
    run.ok();
    assert_same(&held[1], &fingerprint(server, target.name()));
}

#[test]
fn owners_come_back_when_asked_for() {
    let server = TestServer::shared();
    psql(server, "postgres", "CREATE ROLE some_owner NOLOGIN");
    let database = app_database("owners");
    database.sql("ALTER TABLE memes OWNER TO some_owner; GRANT SELECT ON users TO some_owner");
    let held = fingerprint(server, database.name());
    let sandbox = Sandbox::initialised(&database.url());
    sandbox.backup();
    let owner = |target: &Restored<'_>| {
        let sql = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'memes'";
        psql(server, target.name(), sql).trim().to_owned()
    };

    let target = Restored::reserve(server, "owned");
    sandbox
        .run(["restore", "latest", "--to", target.name(), "--owner"])
        .ok();
    assert_eq!(owner(&target), "some_owner");
    assert_same(&held, &fingerprint(server, target.name()));
    let plain = Restored::reserve(server, "not_owned");
    sandbox
        .run(["restore", "latest", "--to", plain.name()])
        .ok();
    assert_eq!(owner(&plain), server.scratch().user());
    assert_eq!(held.rows, fingerprint(server, plain.name()).rows);

    drop((target, plain, database));
    // Gone: rows are worth more than their owner's name, and pg_restore too goes on without it.
    psql(server, "postgres", "DROP ROLE some_owner");
    let target = Restored::reserve(server, "orphaned");
    sandbox
        .run(["restore", "latest", "--to", target.name()])
        .ok();
    assert_eq!(held.rows, fingerprint(server, target.name()).rows);
    sandbox.run(["drill"]).ok();
}

#[test]
fn a_drill_on_a_server_makes_and_removes_its_own_database() {
    let server = TestServer::shared();
    let TwoBackups {
        database, sandbox, ..
    } = two_backups("drill_on");
    let before = databases(server);
    let run = sandbox
        .run(["drill", "--on", &database.url(), "--json"])
        .ok();
    run.json("drill");
    let ours = |names: Vec<String>| -> Vec<_> {
        names
            .into_iter()
            .filter(|name| name.starts_with("lifeboat_drill_"))
            .collect()
    };
    assert_eq!(ours(databases(server)), ours(before));
    sandbox.assert_nothing_left();
}

#[test]
fn a_drill_asks_the_questions_of_the_configuration() {
    let TwoBackups { sandbox, .. } = two_backups("questions");
    let config = |expect: &str| {
        format!(
            "[[drill.check]]\nname = \"people\"\nsql = \"select count(*) from users\"\nexpect = {expect}\n"
        )
    };
    let path = sandbox.root().join("lifeboat.toml");
    let path_text = path.to_str().unwrap();
    fs::write(&path, config("550")).unwrap();
    sandbox.run(["--config", path_text, "drill"]).ok();
    fs::write(&path, config("551")).unwrap();
    let run = sandbox.run(["--config", path_text, "drill"]);
    assert_eq!(run.code, 3, "{run}");
    assert!(
        (run.stdout + &run.stderr).contains("people"),
        "it names the check"
    );
    sandbox.assert_nothing_left();
}

#[test]
fn an_export_is_what_stock_pg_restore_reads() {
    let server = TestServer::shared();
    let TwoBackups {
        sandbox, ids, held, ..
    } = two_backups("export");
    let file = sandbox.root().join("out.dump");
    sandbox
        .run(["export", &ids[0], "-o", file.to_str().unwrap()])
        .ok();
    assert_eq!(mode(&file) & 0o077, 0, "a dump is nobody else's to read");

    for jobs in [&[][..], &["-j2"]] {
        let target = server.database("exported");
        pg_restore(server, target.name(), jobs, &file);
        assert_same(&held[0], &fingerprint(server, target.name()));
    }
    // And the folder check calls it good.
    sandbox
        .run(["verify", "--file", file.to_str().unwrap()])
        .ok();

    // An existing file is somebody's.
    let before = fs::read(&file).unwrap();
    let run = sandbox.run(["export", &ids[1], "-o", file.to_str().unwrap()]);
    assert_ne!(run.code, 0, "{run}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn without_lifeboat_restic_and_pg_restore_are_enough() {
    let server = TestServer::shared();
    let TwoBackups {
        sandbox, ids, held, ..
    } = two_backups("way_out");
    sandbox.restic_is_content();
    for (id, held) in ids.iter().zip(&held) {
        let folder = sandbox.root().join(format!("out-{id}"));
        let run = sandbox.restic(&["restore", id, "--target", folder.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{run}");
        let toc = support::files(&folder);
        let toc = toc
            .iter()
            .find(|file| file.ends_with("toc.dat"))
            .expect("toc.dat");
        for jobs in [&[][..], &["-j2"]] {
            let target = server.database("way_out");
            pg_restore(server, target.name(), jobs, toc.parent().unwrap());
            assert_same(held, &fingerprint(server, target.name()));
        }
    }
}

#[test]
fn the_journal_is_convenience() {
    let server = TestServer::shared();
    let TwoBackups {
        database: _database,
        sandbox,
        ids,
        held,
    } = two_backups("journal");
    sandbox.run(["drill"]).ok();
    // Lost, then in a place where nothing can be written: every command still works.
    fs::remove_dir_all(sandbox.state_dir()).unwrap();
    fs::write(sandbox.state_dir(), "in the way").unwrap();
    assert_eq!(sandbox.listed().len(), 2);
    sandbox.run(["show", &ids[0]]).ok();
    sandbox.run(["verify"]).ok();
    sandbox.run(["verify", "--read-data"]).ok();
    let target = Restored::reserve(server, "journal");
    sandbox
        .run(["restore", &ids[1], "--to", target.name()])
        .ok();
    assert_same(&held[1], &fingerprint(server, target.name()));
    let file = sandbox.root().join("out.dump");
    sandbox
        .run(["export", "latest", "-o", file.to_str().unwrap()])
        .ok();
    sandbox.run(["drill"]).ok();
    let status = sandbox.run(["status"]);
    assert!([0, 3].contains(&status.code), "{status}");
    sandbox.run(["backup"]).ok();
    sandbox.assert_nothing_left();
}

#[test]
fn another_machine_needs_the_repository_and_the_passphrase_only() {
    let server = TestServer::shared();
    let TwoBackups {
        sandbox, ids, held, ..
    } = two_backups("elsewhere");
    // No DATABASE_URL at all: where to restore is said by --server.
    let target = Restored::reserve(server, "elsewhere");
    let url = server.url("postgres");
    let args = ["restore", &ids[0], "--to", target.name(), "--server", &url];
    sandbox.run_without("DATABASE_URL", &args).ok();
    assert_same(&held[0], &fingerprint(server, target.name()));
    for args in [&["list"][..], &["show", "latest"], &["verify"], &["drill"]] {
        sandbox.run_without("DATABASE_URL", args).ok();
    }
}
