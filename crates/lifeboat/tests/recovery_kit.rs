//! The recovery kit: written, read, and done to the letter. Its commands are typed into a real shell, against a real
//! server, with nothing of the sandbox in reach.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifeboat_testkit::remote::{S3Server, SshServer};
use lifeboat_testkit::{TestDatabase, TestServer, search_path};
use rustix::process::Signal;
use support::processes::{naming, wait_for, with_marker};
use support::s3::{s3_location, with_s3};
use support::sql::{Restored, assert_same, fingerprint, psql};
use support::{PASSPHRASE, Run, Running, Sandbox, app_database, entries, lifeboat, mode, text};

const TEXT: &str = "lifeboat-recovery-kit.txt";
const PAGE: &str = "lifeboat-recovery-kit.html";

/// A sandbox with a configuration file, a repository, its kit and one backup.
fn with_kit(name: &str) -> (TestDatabase<'static>, Sandbox, PathBuf) {
    let database = app_database(name);
    let sandbox = Sandbox::new(&database.url());
    let folder = sandbox.root().join("etc");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lifeboat.toml"), "[objectives]\nrpo = \"1h\"\n").unwrap();
    let run = configured(&sandbox, &["init", "--json"]).ok();
    let kit = folder.join(TEXT);
    assert_eq!(
        text(&run.json("init"), "recovery_kit"),
        kit.to_str().unwrap()
    );
    configured(&sandbox, &["backup"]).ok();
    (database, sandbox, kit)
}

fn configured(sandbox: &Sandbox, args: &[&str]) -> Run {
    let config = sandbox.root().join("etc/lifeboat.toml");
    let mut words = vec!["--config", config.to_str().unwrap()];
    words.extend(args);
    sandbox.run(words)
}

/// The test as on a bare machine: no variable but the path, unless `change` adds some.
fn tested(sandbox: &Sandbox, kit: &Path, change: impl FnOnce(&mut Command)) -> Run {
    let mut command = sandbox.tool(lifeboat());
    command.args(["recovery-kit", "test", "--json", kit.to_str().unwrap()]);
    change(&mut command);
    sandbox.finish(command)
}

/// Another kit, changed as an editor would.
fn edited(sandbox: &Sandbox, kit: &Path, from: &str, to: &str) -> PathBuf {
    let text = fs::read_to_string(kit).unwrap();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    let path = sandbox.root().join("edited.txt");
    fs::write(&path, text.replace(from, to)).unwrap();
    path
}

#[test]
fn a_kit_brings_the_data_back_with_and_without_us() {
    let (_database, sandbox, kit) = with_kit("kit");
    for name in [TEXT, PAGE] {
        assert_eq!(mode(&kit.with_file_name(name)), 0o600);
        let content = fs::read_to_string(kit.with_file_name(name)).unwrap();
        assert_eq!(content.matches(PASSPHRASE).count(), 1, "{name}");
    }
    let checked = configured(&sandbox, &["check"]);
    assert!(checked.stdout.contains("never tested"), "{checked}");

    let run = tested(&sandbox, &kit, |_| {}).ok();
    let proof = run.json("recovery-kit");
    assert_eq!(proof["proven"], true);
    let with = &proof["with_lifeboat"][0];
    assert_eq!(with["proven"], true);
    let without = &proof["without_lifeboat"];
    let tables = without["tables"].as_array().unwrap();
    assert!(tables.len() > 5, "{without:#}");
    assert!(
        tables.iter().all(|one| one["found"] == one["expected"]),
        "{without:#}"
    );
    assert_eq!(without["rows"], with["rows"]);
    sandbox.assert_nothing_left();
    assert!(entries(&sandbox.work_dir()).is_empty());

    let checked = configured(&sandbox, &["check"]);
    assert!(checked.stdout.contains(", tested "), "{checked}");
    let words = configured(&sandbox, &["recovery-kit", "test"]).ok();
    assert!(
        words.stdout.contains("PROVEN") && words.stdout.contains("without"),
        "{words}"
    );
}

#[test]
fn what_a_killed_test_leaves_goes_with_the_next() {
    let (_database, sandbox, kit) = with_kit("kit_killed");
    let mut command = sandbox.tool(lifeboat());
    command.args(["recovery-kit", "test", kit.to_str().unwrap()]);
    let running = Running::start(command);
    let has_passphrase = || {
        support::files(&sandbox.tmp_dir())
            .iter()
            .any(|file| file.ends_with("lifeboat-recovery/passphrase"))
    };
    wait_for("part B to hold the passphrase", has_passphrase);
    running.signal(Signal::KILL);
    let killed = running.wait();
    assert_ne!(killed.code, 0, "{killed}");
    // At once what it was given; the rest of the folder with the next drill.
    wait_for("its programs to end", || {
        with_marker(sandbox.marker()).is_empty() && naming(&sandbox.tmp_dir()).is_empty()
    });
    assert!(!has_passphrase());
    assert!(!entries(&sandbox.tmp_dir()).is_empty());
    configured(&sandbox, &["drill"]).ok();
    sandbox.assert_nothing_left();
}

/// What part A prints, typed into a shell as a helper would.
#[test]
fn part_a_is_right_to_the_letter() {
    let (database, sandbox, kit) = with_kit("part_a");
    let server = TestServer::shared();
    let target = Restored::reserve(server, "part_a");
    let text = fs::read_to_string(&kit).unwrap();
    let (_, part) = text.split_once("\nA. With Lifeboat\n").unwrap();
    let (part, _) = part.split_once("\nB. Without Lifeboat\n").unwrap();
    let lines = part
        .lines()
        .filter_map(|line| line.strip_prefix("        "));
    let script: String = lines.map(|line| format!("{line}\n")).collect();
    // The server of the tests has a database of that name already: the only word that is changed.
    let script = script.replace(
        &format!("--to {}", database.name()),
        &format!("--to {}", target.name()),
    );
    let home = tempfile::tempdir().unwrap();
    let mut path = lifeboat().parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(search_path());
    let file = home.path().join("script");
    fs::write(&file, &script).unwrap();
    let mut command = Command::new("sh");
    command
        .arg("-eu")
        .arg(&file)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .envs(server.tool_env("postgres"))
        .current_dir(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{PASSPHRASE}").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}\n{said}");
    assert_same(
        &fingerprint(server, database.name()),
        &fingerprint(server, target.name()),
    );
    assert_eq!(
        psql(server, target.name(), "SELECT count(*) FROM users").trim(),
        "500"
    );
    drop(sandbox);
}

#[test]
fn a_kit_that_brings_nothing_back_is_found_out() {
    let (_database, sandbox, kit) = with_kit("stale");
    // A command that is wrong, or a list of rows that the database does not have.
    let wrong = edited(&sandbox, &kit, "--tag database=", "--tag databse=");
    let run = tested(&sandbox, &wrong, |_| {})
        .code_is(3)
        .says("restic restore");
    let proof = run.json("recovery-kit");
    assert_eq!(
        (&proof["proven"], &proof["with_lifeboat"][0]["proven"]),
        (&false.into(), &true.into())
    );
    let analyze = fs::read_to_string(&kit).unwrap();
    let analyze = analyze
        .lines()
        .find(|line| line.ends_with("-c ANALYZE"))
        .unwrap()
        .trim()
        .to_owned();
    let lossy = analyze.replace("ANALYZE", "'DELETE FROM activations WHERE id = 1'");
    let wrong = edited(&sandbox, &kit, &analyze, &lossy);
    let run = tested(&sandbox, &wrong, |_| {})
        .code_is(3)
        .says("public.activations");
    assert!(
        run.stderr.contains("19999") && run.stderr.contains("20000"),
        "{run}"
    );

    let other = edited(&sandbox, &kit, PASSPHRASE, "another passphrase");
    tested(&sandbox, &other, |_| {}).code_is(3).says("stale");
    let moved = edited(
        &sandbox,
        &kit,
        sandbox.repository().to_str().unwrap(),
        "/nowhere/at/all",
    );
    tested(&sandbox, &moved, |_| {})
        .code_is(3)
        .says("/nowhere/at/all");
    let id = "Repository ID:         ";
    let elsewhere = edited(&sandbox, &kit, id, &format!("{id}0"));
    tested(&sandbox, &elsewhere, |_| {})
        .code_is(3)
        .says("another repository");
    let cut = edited(&sandbox, &kit, "  Passphrase:", "  Pass phrase:");
    tested(&sandbox, &cut, |_| {}).code_is(3).says("Passphrase");
    let none = sandbox.password_file();
    tested(&sandbox, &none, |_| {})
        .code_is(3)
        .says("no recovery kit");
    tested(&sandbox, Path::new("/nowhere"), |_| {}).code_is(2);

    // Rotated: the kit is stale, and everybody says so.
    configured(&sandbox, &["key", "rotate"])
        .ok()
        .says("recovery kit is out of date");
    tested(&sandbox, &kit, |_| {}).code_is(3).says("stale");
    let checked = configured(&sandbox, &["check"]);
    assert!(checked.stdout.contains("which is gone"), "{checked}");
    configured(&sandbox, &["recovery-kit", "write"])
        .fails(4)
        .says("exists");
    assert!(
        fs::read_to_string(&kit).unwrap().contains(PASSPHRASE),
        "written over"
    );
    configured(&sandbox, &["recovery-kit", "write", "--replace"]).ok();
    assert_eq!(mode(&kit), 0o600);
    assert_eq!(entries(kit.parent().unwrap()).len(), 3);
    tested(&sandbox, &kit, |_| {}).ok();
    sandbox.assert_nothing_left();
}

#[test]
fn a_kit_without_a_backup_is_not_proven() {
    let database = app_database("no_backup");
    let sandbox = Sandbox::initialised(&database.url());
    let folder = sandbox.root().join("stick");
    sandbox
        .run(["recovery-kit", "write", "-o", folder.to_str().unwrap()])
        .ok();
    tested(&sandbox, &folder.join(TEXT), |_| {})
        .code_is(3)
        .says("no backup of");
}

#[test]
fn init_leaves_no_secret_where_nobody_asked_for_it() {
    let url = TestServer::shared().url("postgres");
    let sandbox = Sandbox::new(&url);
    let run = sandbox.run(["init"]).ok();
    assert!(run.stdout.contains("recovery-kit write -o DIR"), "{run}");
    assert!(entries(&sandbox.work_dir()).is_empty());
    sandbox
        .run(["recovery-kit", "write"])
        .fails(2)
        .says("-o DIR");
    let checked = sandbox.run(["check"]);
    assert!(
        checked.stdout.contains("none was written here"),
        "{checked}"
    );

    // Asked for: also of a repository that is there already, but never over another kit, and then nothing is made.
    let stick = sandbox.root().join("stick");
    let words = ["init", "--recovery-kit", stick.to_str().unwrap()];
    sandbox.run(words).ok();
    assert_eq!(entries(&stick).len(), 2);
    let other = Sandbox::new(&url);
    other.run(words).fails(4).says("exists");
    assert!(!other.repository().exists());
}

#[test]
fn a_kit_of_a_bucket_asks_for_the_access_key() {
    let location = s3_location(S3Server::shared());
    let change = with_s3(&location);
    let database = app_database("kit_s3");
    let mut sandbox = Sandbox::new(&database.url());
    sandbox.secrets.push(S3Server::SECRET_ACCESS_KEY.to_owned());
    let stick = sandbox.root().join("stick");
    let stick_text = stick.to_str().unwrap();
    sandbox
        .run_with(["init", "--recovery-kit", stick_text], &change)
        .ok();
    sandbox.run_with(["backup"], &change).ok();
    let kit = stick.join(TEXT);
    let content = fs::read_to_string(&kit).unwrap();
    assert!(
        !content.contains(S3Server::SECRET_ACCESS_KEY)
            && !content.contains(S3Server::ACCESS_KEY_ID)
    );

    tested(&sandbox, &kit, |_| {})
        .code_is(2)
        .says("AWS_ACCESS_KEY_ID");
    let keys = |command: &mut Command| {
        command
            .env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY);
    };
    let proof = tested(&sandbox, &kit, keys).ok().json("recovery-kit");
    assert_eq!(proof["proven"], true);
    assert!(
        proof["without_lifeboat"]["rows"].as_u64().unwrap() > 20_000,
        "{proof:#}"
    );
    tested(&sandbox, &kit, |command| {
        keys(command);
        command.env("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2");
    })
    .code_is(1)
    .says("SignatureDoesNotMatch");

    // With the access key in it, it needs nothing else.
    let words = [
        "recovery-kit",
        "write",
        "--replace",
        "--with-credentials",
        "-o",
        stick_text,
    ];
    sandbox.run_with(words, &change).ok();
    tested(&sandbox, &kit, |_| {}).ok();
    sandbox.assert_nothing_left();
}

#[test]
fn a_kit_of_a_repository_behind_ssh_tells_how_it_is_reached() {
    let server = SshServer::shared();
    let database = app_database("kit_ssh");
    let sandbox = Sandbox::new(&database.url());
    let folder = sandbox.root().join("etc");
    fs::create_dir(&folder).unwrap();
    let settings = format!(
        "[repository]\nurl = \"{}\"\nssh_command = [\"ssh\", \"-F\", \"{}\"]\n",
        server.location("kit"),
        server.ssh_config().display()
    );
    fs::write(folder.join("lifeboat.toml"), settings).unwrap();
    let run = |args: &[&str]| {
        let config = folder.join("lifeboat.toml");
        sandbox.run_with(args, |command| {
            command
                .env_remove("LIFEBOAT_REPOSITORY")
                .env("LIFEBOAT_CONFIG", config);
        })
    };
    run(&["init"]).ok();
    run(&["backup"]).ok();
    let kit = folder.join(TEXT);
    let proof = tested(&sandbox, &kit, |_| {}).ok().json("recovery-kit");
    assert!(
        proof["without_lifeboat"]["rows"].as_u64().unwrap() > 20_000,
        "{proof:#}"
    );
    run(&["key", "rotate"]).ok();
    tested(&sandbox, &kit, |_| {}).code_is(3).says("stale");
    run(&["recovery-kit", "write", "--replace"]).ok();
    tested(&sandbox, &kit, |_| {}).ok();
    sandbox.assert_nothing_left();
}
