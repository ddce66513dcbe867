//! Reading the secrets that the configuration points at. They go from here to the engine, and nowhere else.

use std::fmt::Display;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lifeboat_engine::config::{PasswordSource, Setting, UrlSource};
use secrecy::{ExposeSecret, SecretString};

use crate::exit::Exit;
use crate::failure::Failure;

/// The database's connection string. Empty for libpq's own variables.
pub fn database_url(source: &Setting<UrlSource>) -> Result<SecretString, Failure> {
    match &source.value {
        UrlSource::Literal(text) => Ok(text.clone()),
        UrlSource::File(path) => file("the connection string", path),
        UrlSource::LibpqEnvironment => Ok(SecretString::default()),
    }
}

/// The repository's password.
pub fn password(source: &Setting<PasswordSource>) -> Result<SecretString, Failure> {
    let password = match &source.value {
        PasswordSource::Literal(text) => text.clone(),
        PasswordSource::File(path) => file("the passphrase", path)?,
        PasswordSource::Command(words) => command(words)?,
    };
    not_empty(password, &source.origin)
}

/// A passphrase that is not in use yet, from the file that a flag names.
pub fn new_password(path: &Path) -> Result<SecretString, Failure> {
    not_empty(file("the new passphrase", path)?, &path.display())
}

fn not_empty(password: SecretString, origin: &dyn Display) -> Result<SecretString, Failure> {
    if password.expose_secret().is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("the passphrase is empty ({origin})"),
        ));
    }
    Ok(password)
}

/// A file's permission bits. `None` when it cannot be read at all, which is told by whoever needs its content.
pub fn mode(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

fn file(what: &str, path: &Path) -> Result<SecretString, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let failure = Failure::new(
            Exit::Usage,
            format!("cannot read {what} from {}", path.display()),
        )
        .cause(&error);
        match error.kind() {
            io::ErrorKind::NotFound => {
                failure.hint("`lifeboat init` makes it, or name the right file")
            }
            io::ErrorKind::PermissionDenied => failure.hint("run as the user that owns it"),
            _ => failure,
        }
    })?;
    one_line(what, &path.display().to_string(), &text)
}

/// Trimmed as restic trims a password file, so that the same file opens the repository with both.
fn one_line(what: &str, origin: &str, text: &str) -> Result<SecretString, Failure> {
    let trimmed = text.trim();
    if trimmed.lines().count() > 1 {
        return Err(Failure::new(
            Exit::Usage,
            format!("{what} must be one line, but {origin} has several"),
        ));
    }
    Ok(trimmed.to_owned().into())
}

fn command(words: &[String]) -> Result<SecretString, Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::bug("an empty password command"));
    };
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Usage,
            format!("the password command `{program}` gave no password"),
        )
        .cause(why)
        .hint("run it by hand: it must print the passphrase and end with 0")
    };
    // Its standard error stays ours, so that it can say for itself what it needs.
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&output.status));
    }
    let text =
        String::from_utf8(output.stdout).map_err(|_| failed(&"what it printed is not UTF-8"))?;
    one_line(
        "the passphrase",
        &format!("the output of `{program}`"),
        &text,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use lifeboat_engine::config::Origin;

    fn get(source: PasswordSource) -> Result<String, String> {
        password(&Setting::new(source, Origin::Default))
            .map(|secret| secret.expose_secret().to_owned())
            .map_err(|failure| failure.render(false))
    }

    #[test]
    fn passwords_come_from_files_and_commands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        std::fs::write(&path, " correct horse \r\n").unwrap();
        assert_eq!(
            get(PasswordSource::File(path.clone())).unwrap(),
            "correct horse"
        );
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert!(
            get(PasswordSource::File(path.clone()))
                .unwrap_err()
                .contains("has several")
        );
        std::fs::write(&path, "\n").unwrap();
        assert!(
            get(PasswordSource::File(path))
                .unwrap_err()
                .contains("is empty")
        );
        assert!(
            get(PasswordSource::File("/nowhere".into()))
                .unwrap_err()
                .contains("hint:  `lifeboat init`")
        );

        let words = |words: &[&str]| {
            PasswordSource::Command(words.iter().map(|word| (*word).to_owned()).collect())
        };
        // Not a shell: `$HOME` and `;` arrive as they are.
        assert_eq!(get(words(&["echo", "$HOME; x"])).unwrap(), "$HOME; x");
        assert!(
            get(words(&["false"]))
                .unwrap_err()
                .contains("exit status: 1")
        );
        assert!(
            get(words(&["/nowhere/pass"]))
                .unwrap_err()
                .contains("gave no password")
        );
    }
}
