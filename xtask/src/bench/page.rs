//! docs/benchmarks.md: several measurements write it, each its own part, and people write the notes.

use std::fs;

/// The headings of what is written apart from the start of the page, in the order of the page.
pub const HISTORY: &str = "A month of hourly backups";
pub const INDEX: &str = "One terabyte of chunks";
const NOTES: &str = "Notes";

/// Writes the page as `change` makes it out of what it was.
///
/// # Errors
/// When it can't be written.
pub fn write(change: impl FnOnce(&str) -> String) -> Result<(), String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");
    let old = fs::read_to_string(path).unwrap_or_default();
    fs::write(path, change(&old)).map_err(|error| format!("{path}: {error}"))
}

/// The page with another start: everything up to the first section that is written apart.
pub fn with_start(page: &str, start: &str) -> String {
    let rest = [HISTORY, INDEX, NOTES]
        .iter()
        .filter_map(|title| find(page, title))
        .min();
    let rest = rest.map_or("", |at| &page[at..]);
    join(&[start, rest])
}

/// The page with `text` as its section `title`, in the place of the one that was there or before what follows it.
pub fn with_section(page: &str, title: &str, text: &str) -> String {
    let order = [HISTORY, INDEX, NOTES];
    let own = order.iter().position(|one| *one == title).unwrap_or(0);
    let at = find(page, title);
    let next = order[own + 1..]
        .iter()
        .filter_map(|title| find(page, title))
        .min()
        .unwrap_or(page.len());
    let section = format!("## {title}\n{text}");
    join(&[&page[..at.unwrap_or(next)], &section, &page[next..]])
}

fn find(page: &str, title: &str) -> Option<usize> {
    page.find(&format!("\n## {title}\n")).map(|at| at + 1)
}

/// Parts with one empty line between them.
fn join(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(|part| part.trim_matches('\n'))
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("\n\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_leaves_the_others_alone() {
        let page = with_start("", "# Benchmarks\nstart");
        let page = format!("{page}\n## Notes\nby hand\n");
        let page = with_section(&page, INDEX, "one");
        let page = with_section(&page, HISTORY, "month\n\n### Within\nmore");
        let whole = "# Benchmarks\nstart\n\n## A month of hourly backups\nmonth\n\n### Within\nmore\n\n\
                     ## One terabyte of chunks\none\n\n## Notes\nby hand\n";
        assert_eq!(page, whole);
        assert_eq!(with_section(&page, INDEX, "one"), whole);
        assert_eq!(
            with_start(&with_section(&page, HISTORY, "new"), "# New"),
            "# New\n\n## A month of hourly backups\nnew\n\n## One terabyte of chunks\none\n\n## Notes\nby hand\n"
        );
    }
}
