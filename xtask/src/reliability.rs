//! What `make torture` found, as the page docs/reliability.md.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");

/// One line, as `tests/support/report.rs` writes it.
#[derive(Debug, Deserialize)]
struct Finding {
    group: String,
    what: String,
    n: u64,
    bad: u64,
    of: String,
}

/// Writes the page. What stands below `## Notes` in the old one is kept.
pub fn write(findings: &Path) -> Result<(), Box<dyn Error>> {
    let mut groups: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for line in fs::read_to_string(findings)?.lines() {
        let finding: Finding = serde_json::from_str(line)?;
        groups
            .entry(finding.group.clone())
            .or_default()
            .push(finding);
    }
    let mut page = "# Reliability\n\nWritten by `make torture`. Each line is a fault that was \
        brought about so many times (N), and how often what must not happen did.\n"
        .to_owned();
    for (group, mut lines) in groups {
        lines.sort_by(|a, b| a.what.cmp(&b.what));
        write!(
            page,
            "\n## {group}\n\n| what | N | went wrong | what that would be |\n|---|---|---|---|\n"
        )?;
        for line in lines {
            let Finding {
                what, n, bad, of, ..
            } = line;
            writeln!(page, "| {what} | {n} | {bad} | {of} |")?;
        }
    }
    let old = fs::read_to_string(PAGE).unwrap_or_default();
    page += old.find("\n## Notes\n").map_or("", |at| &old[at..]);
    fs::write(PAGE, page)?;
    Ok(())
}
