//! The program as a process: streams, exit codes, the text of errors.

#![expect(clippy::expect_used, reason = "a failed setup is a failed test")]

use std::path::Path;

use assert_cmd::Command;

/// The program with an empty environment and its own home, so that nothing of this machine leaks in.
fn lifeboat(home: &Path) -> Command {
    let mut command = Command::cargo_bin("lifeboat").expect("the program is built");
    command
        .env_clear()
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .current_dir(home);
    command
}

/// Runs it and gives exit code, standard output and standard error, with the home's path replaced.
fn run(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = lifeboat(home)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("it runs");
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&home.display().to_string(), "HOME");
    format!(
        "$ lifeboat {}\n{}{}exit {}\n",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap_or(-1)
    )
}

#[test]
fn wrong_usage() {
    let home = tempfile::tempdir().expect("a folder");
    insta::assert_snapshot!(run(home.path(), &["backup", "--databse", "x"], &[]));
    insta::assert_snapshot!(run(home.path(), &["bakcup"], &[]));
    insta::assert_snapshot!(run(home.path(), &["restore", "latest"], &[]));
    insta::assert_snapshot!(run(home.path(), &["verify", "--max-age", "soon"], &[]));
    insta::assert_snapshot!(run(home.path(), &["backup", "--jobs", "0"], &[]));
}

#[test]
fn wrong_configuration() {
    let home = tempfile::tempdir().expect("a folder");
    let with = |text: &str| {
        std::fs::write(home.path().join("lifeboat.toml"), text).expect("written");
        run(home.path(), &["list"], &[])
    };
    insta::assert_snapshot!(with(
        "[repositroy]\npath = \"/srv/r\"\n\n[drill]\nmaxage = \"7d\"\n"
    ));
    insta::assert_snapshot!(with("[objectives]\nrpo = \"soon\"\n"));
    insta::assert_snapshot!(with("[repository]\nurl = \"rclone:remote:bucket\"\n"));
    insta::assert_snapshot!(with("[repository\n"));
    insta::assert_snapshot!(run(home.path(), &["list", "--config", "nowhere.toml"], &[]));
    insta::assert_snapshot!(run(
        home.path(),
        &["list", "--json", "--config", "nowhere.toml"],
        &[]
    ));
}

#[test]
fn help_goes_to_standard_output_and_a_closed_pipe_is_no_failure() {
    let home = tempfile::tempdir().expect("a folder");
    lifeboat(home.path())
        .arg("--help")
        .assert()
        .success()
        .stderr("");
    lifeboat(home.path())
        .arg("man")
        .assert()
        .success()
        .stderr("");
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            "\"$0\" completions bash | head -1 >/dev/null; \"$0\" man | true; \"$0\" --help | true",
        ])
        .arg(assert_cmd::cargo::cargo_bin!("lifeboat"))
        .output()
        .expect("sh runs");
    assert!(
        status.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
}
