//! SQL for the set-up of tests, through stock psql: what a test makes must not depend on what it tests.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::installed::installed;
use crate::server::TestServer;

/// Runs `sql` and returns its rows, unaligned.
pub(crate) fn run(server: &TestServer, database: &str, sql: &str) -> Result<String, String> {
    let own = server.bin_dir().join("psql");
    // Some packages of PostgreSQL hold the server's programs only; any psql will do.
    let psql = std::iter::once(own)
        .chain(installed().iter().rev().map(|one| one.bin_dir.join("psql")))
        .find(|path| path.is_file())
        .unwrap_or_else(|| "psql".into());
    let mut child = Command::new(psql)
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .envs(server.tool_env(database))
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("psql: {error}"))?;
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let sql = sql.to_owned();
    // On a thread: a psql whose output pipe is full stops reading its input.
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(sql.as_bytes());
    });
    let output = child
        .wait_with_output()
        .map_err(|error| format!("psql: {error}"))?;
    let _ = feeder.join();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
