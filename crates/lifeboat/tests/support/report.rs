//! What a torture found, for `docs/reliability.md`.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::json;

/// One line of the report.
#[derive(Debug)]
pub struct Finding<'a> {
    /// What kind of fault.
    pub group: &'a str,
    /// What was done to what.
    pub what: &'a str,
    /// How often.
    pub n: usize,
    /// How often it went wrong.
    pub bad: usize,
    /// What `bad` counts.
    pub of: &'a str,
}

/// Adds a line to the file that `LIFEBOAT_TORTURE_REPORT` names; without one nobody asked.
pub fn tell(finding: &Finding<'_>) {
    let Some(path) = std::env::var_os("LIFEBOAT_TORTURE_REPORT") else {
        return;
    };
    let Finding {
        group,
        what,
        n,
        bad,
        of,
    } = finding;
    let line = json!({ "group": group, "what": what, "n": n, "bad": bad, "of": of });
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    // One write, so that tests that end at the same time do not mix their lines.
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}
