//! Through a whole life of a backup, neither the database's password nor the repository's passphrase is
//! written anywhere but where its owner put it. That nothing is printed is looked at on every run, by the
//! sandbox.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;

use lifeboat_testkit::TestServer;
use support::sql::{Restored, psql};
use support::{PASSPHRASE, Sandbox, app_database, files, mode, set_mode};

const PASSWORD: &str = "gEheimnis%2Fvoll";
const PASSWORD_PLAIN: &str = "gEheimnis/voll";

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes
        .windows(secret.len())
        .any(|window| window == secret.as_bytes())
}

#[test]
fn a_whole_cycle_keeps_its_secrets() {
    let server = TestServer::shared();
    let database = app_database("secrets");
    psql(
        server,
        "postgres",
        &format!("CREATE ROLE keeper SUPERUSER LOGIN PASSWORD '{PASSWORD_PLAIN}'"),
    );
    let url = database.url_as(&format!("keeper:{PASSWORD}"));
    let mut sandbox = Sandbox::new(&url);
    sandbox
        .secrets
        .extend([PASSWORD.to_owned(), PASSWORD_PLAIN.to_owned()]);

    let on = server.url_as(&format!("keeper:{PASSWORD}"), "postgres");
    let target = Restored::reserve(server, "secrets");
    let into = server.database("secrets_into");
    let into_url = into.url_as(&format!("keeper:{PASSWORD}"));
    for args in [
        &["-v", "init"][..],
        &["-v", "check"],
        &["-v", "check", "--json"],
        &["-v", "backup"],
        &["-v", "backup", "--json"],
        &["-v", "list"],
        &["-v", "list", "--json"],
        &["-v", "show", "latest"],
        &["-v", "show", "latest", "--json"],
        &["-v", "verify", "--read-data"],
        &["-v", "restore", "latest", "--to", target.name()],
        &[
            "-v",
            "restore",
            "latest",
            "--into",
            &into_url,
            "--yes",
            into.name(),
        ],
        &["-v", "drill"],
        &["-v", "drill", "--on", &on, "--json"],
        &["-v", "export", "latest", "-o", "out.dump"],
        &["-v", "status"],
        &["-v", "status", "--json"],
    ] {
        sandbox.run(args).ok();
    }
    // The failures talk of URLs too.
    let closed = format!("postgresql://keeper:{PASSWORD}@127.0.0.1:1/x");
    for args in [
        &[
            "-v", "restore", "latest", "--into", &into_url, "--clean", "--yes", "wrong",
        ][..],
        &[
            "-v", "restore", "latest", "--to", "never", "--server", &closed,
        ],
        &["-v", "drill", "--on", &closed],
        &[
            "-v",
            "restore",
            "latest",
            "--into",
            &format!("{into_url}&bogus=1"),
            "--yes",
            into.name(),
        ],
    ] {
        let run = sandbox.run(args);
        assert_ne!(run.code, 0, "{run}");
    }

    // Kept for whoever investigates, in the right hands only.
    for file in files(&sandbox.state_dir()) {
        assert_eq!(mode(&file) & 0o077, 0, "{}", file.display());
    }
    for file in files(sandbox.root()) {
        if file == sandbox.password_file() {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        let name = file.to_string_lossy();
        for secret in [PASSWORD, PASSWORD_PLAIN, PASSPHRASE] {
            assert!(!contains(&bytes, secret), "a secret in {name}");
            assert!(!name.contains(secret), "a secret in the name {name}");
        }
    }
    // Nor in what is inside the repository, for whoever may read that.
    for file in ["lifeboat.json", "globals.sql"] {
        let dump = sandbox.restic(&["dump", "latest", &format!("/{file}")]);
        assert_eq!(dump.code, 0, "{dump}");
        assert!(!dump.stdout.is_empty(), "{dump}");
    }
    sandbox.restic(&["cat", "snapshot", "latest"]);
    sandbox.assert_nothing_left();
    drop((target, into));
    psql(server, "postgres", "DROP ROLE keeper");
}

#[test]
fn a_passphrase_that_others_can_read_is_told() {
    let (_database, sandbox, _) = Sandbox::with_backup("readable");
    let kept = sandbox.run(["verify"]).ok();
    assert!(!kept.stderr.contains("warning:"), "{kept}");
    set_mode(&sandbox.password_file(), 0o644);
    for command in ["verify", "backup"] {
        sandbox
            .run([command])
            .ok()
            .says("others can read the passphrase")
            .says("chmod 600");
    }
}
