//! `check` against a real server: ready when it is, and each thing in the way named with a fix.

#![expect(clippy::expect_used, reason = "a failed setup is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use lifeboat_testkit::TestServer;
use serde_json::Value;

fn lifeboat(home: &Path, url: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = Command::cargo_bin("lifeboat")
        .expect("the program is built")
        .env_clear()
        .env("PATH", lifeboat_testkit::search_path())
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .env("DATABASE_URL", url)
        .env("LIFEBOAT_REPOSITORY", home.join("repository"))
        .env("LIFEBOAT_PASSWORD_FILE", home.join("passphrase"))
        .current_dir(home)
        .args(arguments)
        .arg("--json")
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap_or_default(),
        stderr,
    )
}

fn states(report: &Value) -> Vec<(&str, &str)> {
    let lines = report["lines"].as_array().expect("lines");
    lines
        .iter()
        .map(|line| {
            (
                line["subject"].as_str().unwrap_or_default(),
                line["state"].as_str().unwrap_or_default(),
            )
        })
        .collect()
}

#[test]
fn ready_means_exit_0_and_what_is_in_the_way_has_a_fix() {
    let server = TestServer::shared();
    let database = server.database("check");
    let home = tempfile::tempdir().expect("a folder");
    let passphrase = home.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse battery staple\n").expect("written");
    std::fs::set_permissions(&passphrase, PermissionsExt::from_mode(0o600)).expect("changed");

    let (code, report, stderr) = lifeboat(home.path(), &database.url(), &["check"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(
        states(&report)
            .into_iter()
            .find(|(subject, _)| *subject == "repository"),
        Some(("repository", "broken"))
    );

    let (code, _, stderr) = lifeboat(home.path(), &database.url(), &["init"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, report, stderr) = lifeboat(home.path(), &database.url(), &["check"]);
    assert_eq!(code, Some(0), "{report} {stderr}");
    assert_eq!(report["schema"], "lifeboat.check/1");
    assert_eq!(report["ready"], true);

    database.sql("CREATE ROLE check_reader LOGIN; CREATE TABLE secret (x int)");
    std::fs::set_permissions(&passphrase, PermissionsExt::from_mode(0o644)).expect("changed");
    let (code, report, _) = lifeboat(home.path(), &database.url_as("check_reader"), &["check"]);
    database.sql("DROP ROLE check_reader");
    assert_eq!(code, Some(1));
    let broken: Vec<&str> = states(&report)
        .into_iter()
        .filter(|(_, state)| *state == "broken")
        .map(|(subject, _)| subject)
        .collect();
    assert_eq!(broken, ["privileges", "passphrase"]);
    for line in report["lines"].as_array().expect("lines") {
        let has_fix = !line["fixes"].as_array().expect("a list").is_empty();
        assert_eq!(has_fix, line["state"] != "ready", "{line}");
    }

    // Looking leaves no lock behind.
    let locks = std::fs::read_dir(home.path().join("repository/locks"))
        .expect("the folder")
        .count();
    assert_eq!(locks, 0);
}
