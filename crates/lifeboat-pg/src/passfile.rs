//! `.pgpass` (PostgreSQL's manual, "The Password File"; `passwordFromFile` in
//! src/interfaces/libpq/fe-connect.c).
//!
//! Lines are `host:port:database:user:password`; `*` matches anything in the first four, `\` keeps the
//! next character from meaning anything. The first line that fits wins.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::SecretString;

use crate::conninfo::ConnInfoWarning;

/// The usable lines of a password file.
pub(crate) struct PassFile {
    lines: Vec<Line>,
}

struct Line {
    /// `None` is `*`.
    keys: [Option<String>; 4],
    password: SecretString,
}

impl fmt::Debug for PassFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassFile({} lines)", self.lines.len())
    }
}

impl PassFile {
    /// Reads the file if it is there and private enough; libpq ignores all others, and so do we, but
    /// a file passed over for its permissions is reported.
    pub fn read(path: &Path) -> Result<Option<PassFile>, ConnInfoWarning> {
        let Ok(facts) = fs::metadata(path) else {
            return Ok(None);
        };
        if !facts.is_file() {
            return Err(ConnInfoWarning::PassFileNotPlain {
                path: path.to_owned(),
            });
        }
        let mode = facts.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(ConnInfoWarning::PassFileTooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let bytes: io::Result<Vec<u8>> = fs::read(path);
        Ok(bytes
            .ok()
            .map(|bytes| PassFile::parse(&String::from_utf8_lossy(&bytes))))
    }

    fn parse(text: &str) -> PassFile {
        // libpq skips comments and whatever has too few fields.
        let lines = text
            .lines()
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(parse_line)
            .collect();
        PassFile { lines }
    }

    /// The password of the first line that fits.
    pub fn find(&self, host: &str, port: u16, database: &str, user: &str) -> Option<SecretString> {
        let port = port.to_string();
        let wanted = [host, port.as_str(), database, user];
        self.lines
            .iter()
            .find(|line| {
                line.keys
                    .iter()
                    .zip(wanted)
                    .all(|(key, value)| key.as_deref().is_none_or(|key| key == value))
            })
            .map(|line| line.password.clone())
    }
}

fn parse_line(line: &str) -> Option<Line> {
    let mut rest = line;
    let mut keys: [Option<String>; 4] = [const { None }; 4];
    for key in &mut keys {
        let (field, after) = split_field(rest)?;
        *key = (field != "*").then(|| unescape(field));
        rest = after;
    }
    // Whatever follows the fourth colon is the password; libpq stops at an unescaped colon.
    let password = split_field(rest).map_or(rest, |(field, _)| field);
    Some(Line {
        keys,
        password: unescape(password).into(),
    })
}

/// The text before the first colon that no `\` protects, and the text after it.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((&text[..index], &text[index + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\\' {
            plain.extend(characters.next());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use secrecy::ExposeSecret as _;

    fn find(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        let found = PassFile::parse(text).find(host, port, database, user);
        found.map(|password| password.expose_secret().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        let file = "# a comment\n\
                    db:5432:app:alice:first\n\
                    db:*:*:alice:second\n\
                    *:*:*:*:last\n";
        assert_eq!(find(file, "db", 5432, "app", "alice").unwrap(), "first");
        assert_eq!(find(file, "db", 5433, "app", "alice").unwrap(), "second");
        assert_eq!(find(file, "db", 5432, "app", "bob").unwrap(), "last");
    }

    #[test]
    fn escapes_keep_colons_and_backslashes() {
        let file = r"fe80\:\:1:5432:a\\b:u:p\:w\\d";
        assert_eq!(find(file, "fe80::1", 5432, r"a\b", "u").unwrap(), r"p:w\d");
    }

    #[test]
    fn lines_with_too_few_fields_and_windows_line_ends_do_no_harm() {
        let file = "db:5432:app\r\n\r\ndb:5432:app:alice:secret\r\n";
        assert_eq!(find(file, "db", 5432, "app", "alice").unwrap(), "secret");
        assert_eq!(find(file, "other", 5432, "app", "alice"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_reported_and_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let warning = PassFile::read(&path).unwrap_err();
        assert_eq!(
            warning,
            ConnInfoWarning::PassFileTooOpen {
                path: path.clone(),
                mode: 0o640
            }
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(PassFile::read(&path).unwrap().is_some());
        assert!(
            PassFile::read(&folder.path().join("absent"))
                .unwrap()
                .is_none()
        );
        assert!(PassFile::read(folder.path()).is_err());
    }
}
