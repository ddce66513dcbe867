//! The judge of what was restored: stock psql and pg_dump, mostly through the testkit's fingerprint.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use lifeboat_testkit::awkward::{Fingerprint, fingerprint};
use lifeboat_testkit::{TestServer, installed};

/// A database that somebody else makes and this value drops.
#[derive(Debug)]
pub struct Restored<'a> {
    server: &'a TestServer,
    name: String,
}

impl<'a> Restored<'a> {
    /// A name that no database has yet.
    pub fn reserve(server: &'a TestServer, name: &str) -> Restored<'a> {
        let name = format!("{name}_{}", hex::encode(getrandom_bytes()));
        Restored { server, name }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the database is there by now.
    pub fn exists(&self) -> bool {
        databases(self.server).contains(&self.name)
    }
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
        let _ = try_psql(self.server, "postgres", &drop);
    }
}

fn getrandom_bytes() -> [u8; 4] {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}

/// A program of the server's version, else of any.
pub fn tool(server: &TestServer, name: &str) -> PathBuf {
    let own = server.bin_dir().join(name);
    std::iter::once(own)
        .chain(installed().iter().rev().map(|one| one.bin_dir.join(name)))
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

/// Runs SQL through psql as the superuser. Rows as lines, columns separated by `|`.
#[track_caller]
pub fn psql(server: &TestServer, database: &str, sql: &str) -> String {
    match try_psql(server, database, sql) {
        Ok(rows) => rows,
        Err(words) => panic!("{words}\nin: {sql}"),
    }
}

/// As [`psql`], with the first failure returned.
pub fn try_psql(server: &TestServer, database: &str, sql: &str) -> Result<String, String> {
    let mut child = Command::new(tool(server, "psql"))
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .envs(server.tool_env(database))
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql");
    let mut stdin = child.stdin.take().expect("a pipe");
    let sql = sql.to_owned();
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(sql.as_bytes());
    });
    let output = child.wait_with_output().expect("psql");
    let _ = feeder.join();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Stock `pg_restore` of an archive into a database, ended by its first error.
#[track_caller]
pub fn pg_restore(server: &TestServer, database: &str, options: &[&str], archive: &Path) {
    let output = Command::new(tool(server, "pg_restore"))
        .args(["--exit-on-error", "-d", database])
        .args(options)
        .arg(archive)
        .envs(server.tool_env(database))
        .output()
        .expect("pg_restore");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
}

/// The server's databases.
pub fn databases(server: &TestServer) -> Vec<String> {
    let names = psql(
        server,
        "postgres",
        "SELECT datname FROM pg_database ORDER BY 1",
    );
    names.lines().map(str::to_owned).collect()
}

/// Asserts that nothing of schema, rows, sequences and large objects differs.
#[track_caller]
pub fn assert_same(before: &Fingerprint, after: &Fingerprint) {
    let differences = before.differences(after);
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences[..differences.len().min(40)].join("\n")
    );
}
