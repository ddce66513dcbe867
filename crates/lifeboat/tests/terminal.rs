//! What a person at a terminal sees, and what a pipe gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use lifeboat_testkit::TestServer;
use support::pty::Terminal;
use support::sql::Restored;
use support::{Running, Sandbox, app_database, data, mode, write_secret};

fn sandbox_with_backup(name: &str) -> (lifeboat_testkit::TestDatabase<'static>, Sandbox) {
    let database = app_database(name);
    data::fill_big(&database, "big", 30);
    let sandbox = Sandbox::initialised(&database.url());
    sandbox.backup();
    (database, sandbox)
}

#[test]
fn a_terminal_gets_progress_and_a_pipe_gets_data() {
    let (database, sandbox) = sandbox_with_backup("progress");
    data::churn(&database);
    let terminal = Terminal::open();
    let mut command = sandbox.command(["backup"]);
    command
        .env("TERM", "xterm-256color")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(terminal.stdio());
    let (running, shown) = terminal.start(command);
    let run = running.wait();
    let shown = shown.join().unwrap();
    assert_eq!(run.code, 0, "{run}\n{shown}");
    assert!(
        shown.contains('\x1b') || shown.contains('\r'),
        "nothing moves: {shown:?}"
    );
    assert!(shown.contains("big"), "no table is named: {shown:?}");
    assert!(!run.stdout.contains('\x1b'), "{run}");
    let newest = sandbox.restic_snapshots();
    let known = |one: &serde_json::Value| run.stdout.contains(&support::text(one, "id")[..8]);
    assert!(newest.iter().any(known), "the data is on stdout\n{run}");
}

#[test]
fn no_color_means_no_color() {
    let (_database, sandbox) = sandbox_with_backup("no_color");
    let colours = |shown: &str| {
        // Colours end in m; moving the cursor, which progress may do, does not.
        shown.split('\x1b').skip(1).any(|code| {
            let end = code.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
            code[end..].starts_with('m')
        })
    };
    let shown = |no_color: &str, args: &[&str]| {
        let terminal = Terminal::open();
        let mut command = sandbox.command(args);
        command
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", no_color)
            .stdin(Stdio::null())
            .stdout(terminal.stdio())
            .stderr(terminal.stdio());
        let (running, shown) = terminal.start(command);
        running.wait();
        shown.join().unwrap()
    };
    for args in [
        &["list"][..],
        &["status"],
        &["show", "zzzz"],
        &["check"],
        &["backup"],
        &["verify"],
    ] {
        let text = shown("1", args);
        assert!(!colours(&text), "{args:?}: {text:?}");
    }
    // An empty NO_COLOR is none, and an error is worth a colour.
    let text = shown("", &["show", "zzzz"]);
    assert!(colours(&text), "{text:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (_database, sandbox) = sandbox_with_backup("head");
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["show", "latest"],
        &["status"],
        &["backup"],
        &["--help"],
    ] {
        let mut command = sandbox.command(args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped());
        let run = Running::start_as_is(command).wait();
        assert!([0, 3].contains(&run.code), "{run}");
        assert!(
            !run.stderr.contains("panicked") && !run.stderr.contains("roken pipe"),
            "{run}"
        );
        assert!(!run.stderr.contains("error:"), "{run}");
    }
    let line = format!(
        "{} list | head -0; {0} show latest | head -1",
        support::lifeboat().display()
    );
    let mut command = sandbox.command([""; 0]);
    let mut shell = sandbox.tool("sh");
    shell.args(["-c", &line]);
    for (name, value) in command.env("NO_COLOR", "1").get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let run = sandbox.finish(shell);
    assert_eq!(
        (run.code, run.stderr.as_str(), run.stdout.lines().count()),
        (0, "", 1),
        "{run}"
    );
}

#[test]
fn json_is_one_object_and_events_are_lines() {
    let (_database, sandbox) = sandbox_with_backup("json");
    let target = Restored::reserve(TestServer::shared(), "json");
    for (args, kind) in [
        (&["backup"][..], "backup"),
        (&["list"], "list"),
        (&["show", "latest"], "show"),
        (&["verify"], "verify"),
        (&["status"], "status"),
        (&["restore", "latest", "--to", target.name()], "restore"),
        (&["drill"], "drill"),
        (&["check"], "check"),
    ] {
        let run = sandbox.run(args.iter().chain(&["--json"]));
        let object: serde_json::Value = serde_json::from_str(&run.stdout)
            .unwrap_or_else(|error| panic!("{error}: not one object\n{run}"));
        assert_eq!(object["schema"], format!("lifeboat.{kind}/1"), "{run}");
        for line in run.stderr.lines() {
            let event: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error}: not a JSON line: {line}\n{run}"));
            assert!(
                event["schema"]
                    .as_str()
                    .is_some_and(|schema| schema.starts_with("lifeboat.")),
                "{line}"
            );
        }
        if args == ["backup"] {
            assert!(
                run.stderr.contains("public.big"),
                "events name tables\n{run}"
            );
        }
    }
}

#[test]
fn init_at_a_terminal_asks_and_writes_everything_down() {
    let database = app_database("asks");
    let sandbox = Sandbox::new(&database.url());
    // An application's .env nearby.
    write_secret(
        &sandbox.work_dir().join(".env"),
        &format!(
            "# the app\nPORT=3000\nDATABASE_URL=\"{}\"\n",
            database.url()
        ),
    );
    let terminal = Terminal::open();
    let mut command = sandbox.tool(support::lifeboat());
    command
        .arg("init")
        .env("TERM", "xterm-256color")
        .stdin(terminal.stdio())
        .stdout(terminal.stdio())
        .stderr(terminal.stdio());
    // Return for the database it found, then two places that are the sandbox's and not the system's.
    let mut keyboard = terminal.keyboard();
    let (running, shown) = terminal.start(command);
    let config = sandbox.root().join("config/lifeboat/lifeboat.toml");
    let answers = format!(
        "\r{}\r{}\r",
        sandbox.repository().display(),
        config.display()
    );
    keyboard.write_all(answers.as_bytes()).unwrap();
    drop(keyboard);
    let run = running.wait();
    let shown = shown.join().unwrap();
    assert_eq!(run.code, 0, "{shown}");

    let written = support::files(sandbox.root());
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.lines().any(|line| line.starts_with('#')), "{text}");
    assert!(shown.contains(config.to_str().unwrap()), "{shown}");
    // It works from there, without any variable.
    let run = |args: &[&str]| {
        let mut command = sandbox.tool(support::lifeboat());
        command.arg("--config").arg(&config).args(args);
        sandbox.finish(command)
    };
    run(&["backup"]).ok();
    run(&["verify", "--read-data"]).ok();
    // The passphrase stands in one file, for its owner alone, and was shown to nobody in passing.
    let is_passphrase = |file: &&std::path::PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        name.contains("pass") && **file != sandbox.password_file()
    };
    let passphrase = written
        .iter()
        .find(is_passphrase)
        .expect("a passphrase file");
    assert_eq!(mode(passphrase), 0o600);
    let secret = fs::read_to_string(passphrase).unwrap();
    assert!(secret.trim().len() >= 20, "too short");
    assert!(!text.contains(secret.trim()), "in the config file");
    assert_eq!(mode(&config) & 0o077, 0);
}

#[test]
fn into_asks_for_the_name_at_a_terminal() {
    let (database, sandbox) = sandbox_with_backup("types");
    let server = TestServer::shared();
    let target = app_database("types_target");
    let url = target.url();
    for (typed, code) in [("no\r", 4), (database.name(), 4), (target.name(), 0)] {
        let terminal = Terminal::open();
        let mut command = sandbox.command(["restore", "latest", "--into", &url, "--clean"]);
        command
            .env("TERM", "xterm-256color")
            .stdin(terminal.stdio())
            .stdout(terminal.stdio())
            .stderr(terminal.stdio());
        let mut keyboard = terminal.keyboard();
        let (running, shown) = terminal.start(command);
        keyboard
            .write_all(format!("{}\r", typed.trim_end()).as_bytes())
            .unwrap();
        drop(keyboard);
        let run = running.wait();
        assert_eq!(run.code, code, "{typed:?}: {}", shown.join().unwrap());
        let big = support::sql::psql(
            server,
            target.name(),
            "SELECT to_regclass('big') IS NOT NULL",
        );
        assert_eq!(big.trim(), if code == 0 { "t" } else { "f" });
    }
}
