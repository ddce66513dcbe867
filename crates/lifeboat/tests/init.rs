//! `init` and what it makes, with a real server and, where it is installed, the real restic.

#![expect(clippy::expect_used, reason = "a failed setup is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use lifeboat_testkit::TestServer;

fn init(home: &Path, url: &str, arguments: &[&str]) -> Output {
    Command::cargo_bin("lifeboat")
        .expect("the program is built")
        .env_clear()
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .env("DATABASE_URL", url)
        .env("LIFEBOAT_REPOSITORY", home.join("repository"))
        .env("LIFEBOAT_PASSWORD_FILE", home.join("passphrase"))
        .current_dir(home)
        .arg("init")
        .args(arguments)
        .output()
        .expect("it runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn three_variables_ask_nothing_and_a_second_run_changes_nothing() {
    let server = TestServer::shared();
    let database = server.database("init");
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(
        home.path().join("passphrase"),
        "correct horse battery staple\n",
    )
    .expect("written");

    let first = init(home.path(), &database.url(), &["--json"]);
    assert!(first.status.success(), "{}", stderr(&first));
    let made: serde_json::Value = serde_json::from_slice(&first.stdout).expect("one object");
    assert_eq!(made["schema"], "lifeboat.init/1");
    assert_eq!(made["created"], true);
    let config = home.path().join("repository/config");
    assert_eq!(
        std::fs::metadata(&config)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let before = std::fs::read(&config).expect("readable");

    let second = init(home.path(), &database.url(), &["--json"]);
    let again: serde_json::Value = serde_json::from_slice(&second.stdout).expect("one object");
    assert_eq!(again["created"], false);
    assert_eq!(again["repository_id"], made["repository_id"]);
    assert_eq!(std::fs::read(&config).expect("readable"), before);

    std::fs::write(home.path().join("passphrase"), "another\n").expect("written");
    let wrong = init(home.path(), &database.url(), &[]);
    assert_eq!(wrong.status.code(), Some(12), "{}", stderr(&wrong));
    assert_eq!(std::fs::read(&config).expect("readable"), before);
}

#[test]
fn a_database_that_cannot_be_asked_leaves_no_repository() {
    let server = TestServer::shared();
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(
        home.path().join("passphrase"),
        "correct horse battery staple\n",
    )
    .expect("written");
    let output = init(home.path(), &server.url("no_such_database"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("(3D000)"), "{}", stderr(&output));
    assert!(!home.path().join("repository").exists());
}

#[test]
fn a_missing_passphrase_file_is_not_made_up() {
    let home = tempfile::tempdir().expect("a folder");
    let output = init(home.path(), "postgresql:///x", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("cannot read the passphrase"),
        "{}",
        stderr(&output)
    );
    assert!(!home.path().join("passphrase").exists());
}
