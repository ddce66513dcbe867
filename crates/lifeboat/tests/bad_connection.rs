//! Wrong ways to a database, and wrong tools to read it with: one line of fact, a hint, the right exit code,
//! and the repository none the worse. That the words hold no password is looked at on every run, by the
//! sandbox.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use lifeboat_testkit::{TestDatabase, TestServer};
use support::running::Run;
use support::sql::psql;
use support::{Sandbox, set_mode, write_secret};

const PASSWORD: &str = "s3cret-Kennwort-0815";

/// A sandbox with one good backup, that knows the password which must never be printed.
fn sandbox_with_backup(name: &str) -> (TestDatabase<'static>, Sandbox, String) {
    let (database, mut sandbox, id) = Sandbox::with_backup(name);
    sandbox.secrets.push(PASSWORD.to_owned());
    (database, sandbox, id)
}

/// Runs a backup that must fail, and asserts that the repository is none the worse.
#[track_caller]
fn backup_fails(sandbox: &Sandbox, url: &str, code: i32) -> Run {
    let run = sandbox
        .run_with(["backup"], |command| {
            command.env("DATABASE_URL", url);
        })
        .fails(code);
    assert_eq!(
        sandbox.restic_snapshots().len(),
        1,
        "something was listed\n{run}"
    );
    run
}

fn socket_dir() -> String {
    TestServer::shared()
        .scratch()
        .socket_dir()
        .display()
        .to_string()
}

/// A port on which nobody listens: it was free a moment ago.
fn dead_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_database_url_that_leads_nowhere() {
    let (_database, sandbox, _) = sandbox_with_backup("nowhere");
    let socket = socket_dir();
    let user = TestServer::shared().scratch().user();

    let dead = format!(
        "postgresql://{user}:{PASSWORD}@127.0.0.1:{}/app",
        dead_port()
    );
    backup_fails(&sandbox, &dead, 1).says("127.0.0.1");
    let unknown = format!("postgresql://{user}:{PASSWORD}@no-such-host.invalid/app");
    backup_fails(&sandbox, &unknown, 1).says("no-such-host.invalid");
    let no_socket = format!("postgresql://{user}:{PASSWORD}@/app?host=/nonexistent");
    backup_fails(&sandbox, &no_socket, 1).says("/nonexistent");
    let database = format!("postgresql://{user}:{PASSWORD}@/no_such_database?host={socket}");
    backup_fails(&sandbox, &database, 1).says("no_such_database");
    let role = format!("postgresql://no_such_role:{PASSWORD}@/postgres?host={socket}");
    backup_fails(&sandbox, &role, 1).says("no_such_role");
}

#[test]
fn a_database_url_that_is_none() {
    let (_database, sandbox, _) = sandbox_with_backup("malformed");
    for url in [
        format!("mysql://app:{PASSWORD}@localhost/app"),
        format!("https://app:{PASSWORD}@localhost/app"),
        format!("postgresql://app:{PASSWORD}@localhost:port/app"),
        format!("postgresql://app:{PASSWORD}@localhost:99999/app"),
        format!("postgresql://app:{PASSWORD}@localhost/app?sslmode=sometimes"),
        format!("postgresql://app:{PASSWORD}%zz@localhost/app"),
        format!("postgresql://app:{PASSWORD}@[::1/app"),
        format!("host=localhost password='{PASSWORD}"),
        format!("app:{PASSWORD}@localhost/app"),
    ] {
        let run = sandbox.run_with(["backup"], |command| {
            command.env("DATABASE_URL", &url);
        });
        assert!(run.code == 2 || run.code == 1, "{url}\n{run}");
        let code = run.code;
        run.fails(code);
        assert_eq!(sandbox.restic_snapshots().len(), 1);
    }
}

#[test]
fn a_password_that_is_wrong_or_missing() {
    let (database, sandbox, _) = sandbox_with_backup("password");
    let server = TestServer::shared();
    let role = "knocking";
    psql(
        server,
        "postgres",
        &format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"),
    );
    // Everybody is trusted there; this one has to know its password.
    let hba = server.scratch().data_dir().join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local all {role} scram-sha-256\n{rules}")).unwrap();
    psql(server, "postgres", "SELECT pg_reload_conf()");
    support::processes::wait_for("the server to ask for passwords", || {
        psql(
            server,
            "postgres",
            "SELECT count(*) FROM pg_hba_file_rules WHERE 'knocking' = ANY (user_name)",
        )
        .trim()
            == "1"
    });

    let socket = socket_dir();
    let wrong = format!(
        "postgresql://{role}:{PASSWORD}wrong@/{}?host={socket}",
        database.name()
    );
    support::processes::wait_for("the rule to be in force", || {
        sandbox
            .run_with(["backup"], |command| {
                command.env("DATABASE_URL", &wrong);
            })
            .code
            != 0
    });
    backup_fails(&sandbox, &wrong, 1).says(role);
    let missing = format!("postgresql://{role}@/{}?host={socket}", database.name());
    backup_fails(&sandbox, &missing, 1).says("password");

    // The right one, from the URL, from PGPASSWORD and from .pgpass.
    psql(
        server,
        database.name(),
        &format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}"
        ),
    );
    let right = format!(
        "postgresql://{role}:{PASSWORD}@/{}?host={socket}",
        database.name()
    );
    let run = |url: &str, name: &str, value: &str| {
        sandbox.run_with(["check"], |command| {
            command.env("DATABASE_URL", url).env(name, value);
        })
    };
    let reached = |run: Run| assert!(!run.stderr.contains("password"), "{run}");
    reached(run(&right, "UNUSED", ""));
    reached(run(&missing, "PGPASSWORD", PASSWORD));
    let pgpass = sandbox.root().join("home/.pgpass");
    write_secret(&pgpass, &format!("*:*:*:{role}:{PASSWORD}\n"));
    reached(run(&missing, "UNUSED", ""));
}

#[test]
fn no_secret_on_any_command_line() {
    let (database, mut sandbox, _) = sandbox_with_backup("argv");
    let server = TestServer::shared();
    psql(
        server,
        "postgres",
        &format!("CREATE ROLE traced SUPERUSER LOGIN PASSWORD '{PASSWORD}'"),
    );
    let url = format!(
        "postgresql://traced:{PASSWORD}@/{}?host={}",
        database.name(),
        socket_dir()
    );
    sandbox.set_url(&url);
    let target = support::sql::Restored::reserve(server, "argv");
    let on = server.url_as(&format!("traced:{PASSWORD}"), "postgres");
    for args in [
        &["check"][..],
        &["backup"],
        &["verify"],
        &["restore", "latest", "--to", target.name()],
        &["drill"],
    ] {
        let argv = trace(&sandbox, args);
        assert!(argv.contains("lifeboat"), "nothing was traced: {argv}");
        for secret in [PASSWORD, support::PASSPHRASE] {
            assert!(
                !argv.contains(secret),
                "a secret on a command line of {args:?}\n{argv}"
            );
        }
    }
    // Given in a flag it is on our own command line, by the user's hand; on nobody else's.
    let argv = trace(&sandbox, &["drill", "--on", &on]);
    let others = argv
        .lines()
        .filter(|line| line.contains(PASSWORD) && !line.contains("\"--on\""));
    assert_eq!(others.count(), 0, "{argv}");
    drop(target);
    psql(server, "postgres", "DROP ROLE traced");
}

/// Runs a command that must succeed, and returns the arguments of every program that it started.
fn trace(sandbox: &Sandbox, args: &[&str]) -> String {
    let log = sandbox.root().join("execve.log");
    let inner = sandbox.command(args);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-e", "trace=execve", "-s", "100000", "-o"])
        .arg(&log)
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear()
        .current_dir(sandbox.work_dir());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    sandbox.finish(command).ok();
    fs::read_to_string(log).unwrap()
}

#[test]
fn a_config_file_with_a_password_that_others_may_read() {
    let (database, sandbox, _) = sandbox_with_backup("open_config");
    let path = sandbox.work_dir().join("lifeboat.toml");
    let url = database.url().replacen('@', &format!(":{PASSWORD}@"), 1);
    fs::write(&path, format!("database_url = \"{url}\"\n")).unwrap();
    set_mode(&path, 0o644);
    let run = sandbox.run_without("DATABASE_URL", &["check"]);
    assert!(
        run.stderr.contains("lifeboat.toml") || run.stdout.contains("lifeboat.toml"),
        "{run}"
    );
    set_mode(&path, 0o600);
    sandbox.run_without("DATABASE_URL", &["backup"]).ok();
}

#[test]
fn no_database_is_named() {
    let (_database, sandbox, _) = sandbox_with_backup("unnamed");
    sandbox
        .run_without("DATABASE_URL", &["backup"])
        .fails(2)
        .says("DATABASE_URL");
    sandbox
        .run(["backup", "--database", "somebody_elses"])
        .fails(2);
}

#[test]
fn tools_that_are_missing_or_too_old() {
    let (_database, sandbox, _) = sandbox_with_backup("tools");
    let server = TestServer::shared();
    let bin = sandbox.root().join("old-bin");
    fs::create_dir(&bin).unwrap();
    for (tool, version) in [
        ("pg_dump", "9.6.24"),
        ("pg_restore", "9.6.24"),
        ("pg_dumpall", "9.6.24"),
    ] {
        let script = format!("#!/bin/sh\necho '{tool} (PostgreSQL) {version}'\n");
        fs::write(bin.join(tool), script).unwrap();
        set_mode(&bin.join(tool), 0o755);
    }
    let config = |bin: &Path| {
        let path = sandbox.root().join("tools.toml");
        fs::write(&path, format!("[tools]\nbin_dir = \"{}\"\n", bin.display())).unwrap();
        path.to_str().unwrap().to_owned()
    };

    let old = config(&bin);
    let run = sandbox
        .run(["--config", &old, "backup"])
        .fails(1)
        .says("9.6");
    assert!(
        run.stderr.contains(&server.major().to_string()),
        "it says what is needed\n{run}"
    );
    let run = sandbox.run(["--config", &old, "check"]);
    assert_ne!(run.code, 0, "{run}");

    let empty = sandbox.root().join("empty-bin");
    fs::create_dir(&empty).unwrap();
    let none = config(&empty);
    sandbox
        .run(["--config", &none, "backup"])
        .fails(1)
        .says("pg_dump");
    sandbox.run(["--config", &none, "drill"]);
    let run = sandbox.run(["--config", &none, "drill"]);
    assert!([1, 3].contains(&run.code), "{run}");
    assert!(run.stderr.contains("hint:"), "{run}");
    assert_eq!(sandbox.restic_snapshots().len(), 1);
    sandbox.assert_nothing_left();

    // One that dies half way, as a version mismatch once did for weeks.
    let real = support::sql::tool(server, "pg_dump");
    fs::write(
        empty.join("pg_dump"),
        format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec {0} --version\n{0} \"$@\" | head -c 700\nexit 1\n",
            real.display()
        ),
    )
    .unwrap();
    set_mode(&empty.join("pg_dump"), 0o755);
    let run = sandbox.run(["--config", &none, "backup"]);
    assert_eq!(run.code, 1, "{run}");
    assert_eq!(sandbox.restic_snapshots().len(), 1);
}
