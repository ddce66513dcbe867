//! Every command on a real server: what it prints where, and how it ends.

#![expect(clippy::expect_used, reason = "a failed setup is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use lifeboat_testkit::TestServer;
use serde_json::Value;

struct Home {
    folder: tempfile::TempDir,
    url: String,
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new(url: String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let passphrase = folder.path().join("passphrase");
        std::fs::write(&passphrase, "correct horse battery staple\n").expect("written");
        std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600))
            .expect("a mode");
        Self { folder, url }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &Path)]) -> Ran {
        let output = Command::cargo_bin("lifeboat")
            .expect("the program is built")
            .env_clear()
            .env("PATH", lifeboat_testkit::search_path())
            .env("HOME", self.folder.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("DATABASE_URL", &self.url)
            .env("LIFEBOAT_REPOSITORY", self.path("repository"))
            .env("LIFEBOAT_PASSWORD_FILE", self.path("passphrase"))
            .envs(environment.iter().copied())
            .current_dir(self.folder.path())
            .args(arguments)
            .output()
            .expect("it runs");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// With `--json`: the one object, after checking that every line of standard error is one too.
    fn json(&self, arguments: &[&str], code: i32) -> Value {
        let ran = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(
            ran.code,
            Some(code),
            "{arguments:?}: {} {}",
            ran.stdout,
            ran.stderr
        );
        for line in ran.stderr.lines() {
            let event: Value = serde_json::from_str(line).expect(line);
            assert!(
                event["schema"]
                    .as_str()
                    .is_some_and(|schema| schema.starts_with("lifeboat.")),
                "{line}"
            );
        }
        serde_json::from_str(&ran.stdout).expect("one object")
    }
}

#[test]
fn a_backup_from_the_cradle_to_the_grave() {
    let server = TestServer::shared();
    let database = server.database("commands");
    database.sql("CREATE TABLE users AS SELECT g AS id, 'user ' || g AS name FROM generate_series(1, 1000) g");
    let home = Home::new(database.url());

    let ran = home.run(&["backup"]);
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert_eq!(home.run(&["init"]).code, Some(0));
    assert_eq!(home.run(&["verify"]).code, Some(3));

    let backup = home.json(&["backup"], 0);
    assert_eq!(backup["schema"], "lifeboat.backup/1");
    assert_eq!(backup["rows"], 1000);
    let id = backup["backup"].as_str().expect("an ID").to_owned();
    assert_eq!(home.json(&["verify", "--read-data"], 0)["good"], true);
    assert_eq!(
        home.json(&["verify", "--max-age", "1d", &id], 0)["backup"],
        id
    );
    assert_eq!(home.json(&["status"], 3)["good"], false);

    let list = home.json(&["list"], 0);
    assert_eq!(list["backups"][0]["backup"], id);
    assert_eq!(list["backups"][0]["proof"]["level"], "verified");
    let ran = home.run(&["list"]);
    assert!(
        ran.stdout.lines().count() == 2 && ran.stdout.contains("verified"),
        "{}",
        ran.stdout
    );
    assert!(
        home.run(&["show", &id[..8]])
            .stdout
            .contains("public.users  1,000")
    );

    let copy = format!("{}_copy", database.name());
    let restored = home.json(&["restore", "latest", "--to", &copy], 0);
    assert_eq!(restored["good"], true);
    let again = home.run(&["restore", "latest", "--to", &copy]);
    let into = home.run(&["restore", "latest", "--into", &server.url(&copy), "--clean"]);
    let wrong = home.run(&[
        "restore",
        "latest",
        "--into",
        &server.url(&copy),
        "--clean",
        "--yes",
        "postgres",
    ]);
    database.sql(&format!("DROP DATABASE \"{copy}\""));
    for ran in [&again, &into, &wrong] {
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert!(
        into.stderr.contains(&format!("--yes {copy}")),
        "{}",
        into.stderr
    );

    let drill = home.json(&["drill"], 0);
    assert_eq!(drill["proven"], true);
    assert_eq!(home.json(&["status"], 0)["good"], true);
    assert!(home.run(&["list"]).stdout.contains("proven"));

    let dump = home.path("out.dump");
    let dump = dump.to_str().expect("UTF-8");
    assert_eq!(home.run(&["export", "latest", "-o", dump]).code, Some(0));
    assert_eq!(home.run(&["export", "latest", "-o", dump]).code, Some(4));
    let ran = home.run(&["verify", "--file", dump]);
    assert_eq!(ran.code, Some(0), "{} {}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.starts_with("ok: ") && ran.stdout.lines().count() == 1,
        "{}",
        ran.stdout
    );
    let ran = home.run_with(&["verify"], &[("BACKUP_DIR", home.folder.path())]);
    assert!(
        ran.code == Some(0) && ran.stdout.contains("out.dump"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
    let ran = home.run(&[
        "verify",
        "--dump-dir",
        home.path("repository").to_str().expect("UTF-8"),
    ]);
    assert_eq!(ran.code, Some(3), "{}", ran.stdout);

    std::fs::write(home.path("passphrase"), "another\n").expect("written");
    assert_eq!(home.run(&["list"]).code, Some(12));
    let ran = home.run(&["show", "zzz"]);
    assert!(!ran.stderr.contains("another"), "{}", ran.stderr);
}
