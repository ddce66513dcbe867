//! Finding `DATABASE_URL` in a `.env` file nearby. The file is read as data: nothing in it is run or
//! expanded.

use std::path::{Path, PathBuf};

/// How far up from the current folder a `.env` counts as nearby: an application's root, not the disk's.
const LEVELS: usize = 4;

/// The value of a variable in the nearest `.env` that has it, and the file.
pub fn find(start: &Path, name: &str) -> Option<(String, PathBuf)> {
    start.ancestors().take(LEVELS).find_map(|folder| {
        let path = folder.join(".env");
        let text = std::fs::read_to_string(&path).ok()?;
        Some((value(&text, name)?, path))
    })
}

/// The value of a variable in the text of a `.env` file; the last one wins, as in a shell. `None` too when
/// the value needs what only a shell or a framework could do: expansion, or several lines.
fn value(text: &str, name: &str) -> Option<String> {
    let mut found = None;
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        if let Some((key, rest)) = line.split_once('=')
            && key.trim_end() == name
        {
            found = unquoted(rest.trim());
        }
    }
    found.filter(|value| !value.is_empty())
}

fn unquoted(text: &str) -> Option<String> {
    let mut letters = text.chars();
    match letters.next() {
        Some('\'') => {
            let (value, after) = letters.as_str().split_once('\'')?;
            ends(after).then(|| value.to_owned())
        }
        Some('"') => {
            let mut value = String::new();
            loop {
                match letters.next()? {
                    '"' => break,
                    '$' => return None,
                    '\\' => match letters.next()? {
                        'n' => value.push('\n'),
                        other @ ('"' | '\\' | '$') => value.push(other),
                        other => value.extend(['\\', other]),
                    },
                    other => value.push(other),
                }
            }
            ends(letters.as_str()).then_some(value)
        }
        _ => {
            // A `#` begins a comment only after a blank: it may stand in a URL.
            let end = text
                .find(" #")
                .or_else(|| text.find("\t#"))
                .unwrap_or(text.len());
            let value = text[..end].trim_end();
            (!value.contains("${") && !value.contains("$(")).then(|| value.to_owned())
        }
    }
}

fn ends(after: &str) -> bool {
    let after = after.trim_start();
    after.is_empty() || after.starts_with('#')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values() {
        for (text, expected) in [
            ("DATABASE_URL=postgresql:///a", Some("postgresql:///a")),
            (
                "export DATABASE_URL = 'postgresql:///a b$c' # x",
                Some("postgresql:///a b$c"),
            ),
            (
                "DATABASE_URL=\"postgresql://u:p\\\"w@h/d?schema=public\"",
                Some("postgresql://u:p\"w@h/d?schema=public"),
            ),
            (
                "DATABASE_URL=postgresql:///a#b # comment",
                Some("postgresql:///a#b"),
            ),
            (
                "DATABASE_URL=postgresql:///a\nDATABASE_URL=postgresql:///b",
                Some("postgresql:///b"),
            ),
            ("#DATABASE_URL=postgresql:///a", None),
            ("MY_DATABASE_URL=postgresql:///a", None),
            ("DATABASE_URL=", None),
            ("DATABASE_URL=\"postgresql://${USER}@h/d\"", None),
            ("DATABASE_URL=postgresql://$(id -un)@h/d", None),
            ("DATABASE_URL=\"open", None),
            ("DATABASE_URL='a' b", None),
        ] {
            assert_eq!(value(text, "DATABASE_URL").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_nearest_file_that_has_it_wins() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(
            folder.path().join(".env"),
            "DATABASE_URL=postgresql:///outer\n",
        )
        .unwrap();
        std::fs::write(deep.join(".env"), "OTHER=1\n").unwrap();
        let (value, path) = find(&deep, "DATABASE_URL").unwrap();
        assert_eq!(value, "postgresql:///outer");
        assert_eq!(path, folder.path().join(".env"));
    }
}
