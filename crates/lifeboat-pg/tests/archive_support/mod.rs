//! What the archive tests share: the sample database and the stock tools.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use flate2::read::GzDecoder;
use lifeboat_pg::archive::{ArchiveError, CheckSummary, CustomReader};
use lifeboat_testkit::{TestDatabase, TestServer};

/// A database filled from `archives/sample.sql`.
pub fn sample(server: &TestServer) -> TestDatabase<'_> {
    let database = server.database("sample");
    database.sql(include_str!("../archives/sample.sql"));
    database
}

/// A stock tool, connected to this database.
pub fn tool(server: &TestServer, name: &str, database: &str) -> Command {
    let mut command = Command::new(server.bin_dir().join(name));
    command
        .envs(server.tool_env(database))
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

/// Runs a command that must succeed and returns what it printed.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    output.stdout
}

/// The entries that `pg_restore -l` lists, without its heading.
pub fn listing(server: &TestServer, archive: &Path) -> String {
    let output = run(tool(server, "pg_restore", "postgres")
        .arg("-l")
        .arg(archive));
    let lines = String::from_utf8(output).unwrap();
    lines
        .lines()
        .filter(|line| !line.starts_with(';'))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The whole database as pg_dump writes it, to compare two of them.
pub fn plain_dump(database: &TestDatabase<'_>) -> String {
    let server = database.server();
    let text = run(&mut tool(server, "pg_dump", database.name()));
    // \restrict's argument is random.
    let text = String::from_utf8(text).unwrap();
    let kept = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    kept.map(|line| format!("{line}\n")).collect()
}

/// Archives that pg_dump 15 to 18 made of `archives/sample.sql`, kept so that every version of the
/// format and every compression is tested wherever the tests run.
pub fn fixtures() -> Vec<(&'static str, Vec<u8>)> {
    [
        "pg15-z6",
        "pg16-z6-redirect",
        "pg17-lz4",
        "pg17-zstd",
        "pg18-z0",
    ]
    .map(|name| (name, fixture(name)))
    .into()
}

/// One of them.
pub fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives");
    let file = File::open(folder.join(format!("{name}.dump.gz"))).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Reads an archive to its end.
pub fn check(archive: &[u8]) -> Result<CheckSummary, ArchiveError> {
    CustomReader::new(archive)?.check_to_end(&AtomicBool::new(false), &mut |_| {})
}
