//! Stock `pg_restore`, for everything that is not rows.
//!
//! It gets a table of contents of our making: what is not to be restored is not in it. So no list file and no
//! filter has to say it again, and the same works behind a prefix such as `docker exec`, where no file of
//! ours can be seen and the archive goes through stdin.

use std::fs;
use std::io::{Cursor, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::LoadError;
use crate::archive::{Archive, CustomWriter, WriteCompression};
use crate::child::{Running, WaitError};
use crate::conninfo::ConnInfo;
use crate::tools::{Tool, Tools};

/// One run of `pg_restore`.
#[derive(Debug, Clone)]
pub struct PgRestore {
    /// The target database.
    pub conninfo: ConnInfo,
    /// How many connections build indexes at once.
    pub jobs: usize,
    /// Whether objects get the owners they had.
    pub keep_owner: bool,
    /// Whether tablespaces are ignored, because the target has none of these names.
    pub no_tablespaces: bool,
    /// Drop every object first, if it exists.
    pub clean: bool,
    /// Settings of the sessions, such as `maintenance_work_mem`.
    pub settings: Vec<(String, String)>,
    /// Raised by somebody else to give up.
    pub interrupt: Arc<AtomicBool>,
}

/// What a run of `pg_restore` had to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreMessages {
    /// Statements that failed; `pg_restore` went on after each.
    pub errors: Vec<String>,
    /// Its warnings.
    pub warnings: Vec<String>,
}

impl PgRestore {
    /// Restores the definitions in `archive`.
    ///
    /// # Errors
    /// When it cannot run, or gives up. Statements that failed are in the result.
    pub fn run(&self, tools: &Tools, archive: &Archive) -> Result<RestoreMessages, LoadError> {
        if archive
            .entries
            .iter()
            .all(|entry| entry.defn.is_none() && entry.drop_stmt.is_none())
        {
            return Ok(RestoreMessages::default());
        }
        let connection = self.conninfo.with_settings(&self.settings);
        let mut command = tools.command_for(Tool::PgRestore, &connection);
        // Its words are parsed, so they must be in the language they are written in.
        command.env("LC_ALL", "C");
        self.add_flags(&mut command);
        if tools.is_elsewhere() {
            let mut bytes = Vec::new();
            CustomWriter::new(Cursor::new(&mut bytes), archive, WriteCompression::None)?
                .finish()?;
            return self.wait(command, Some(&bytes));
        }
        // Private to us (0700), and gone when dropped.
        let folder = tempfile::Builder::new()
            .prefix("lifeboat-restore-")
            .tempdir()
            .map_err(LoadError::Spawn)?;
        let mut toc = Vec::new();
        archive.write_directory_toc(&mut toc)?;
        fs::write(folder.path().join("toc.dat"), &toc).map_err(LoadError::Spawn)?;
        command.arg("--format=directory");
        if self.jobs > 1 {
            command.arg(format!("--jobs={}", self.jobs));
        }
        command.arg(folder.path());
        self.wait(command, None)
    }

    fn add_flags(&self, command: &mut Command) {
        // A name with "=" in it would be read as a connection string; quoted in one it is a name.
        let name = self
            .conninfo
            .database()
            .replace('\\', "\\\\")
            .replace('\'', "\\'");
        command.arg(format!("--dbname=dbname='{name}'"));
        command.arg("--no-password");
        if !self.keep_owner {
            command.arg("--no-owner");
        }
        if self.no_tablespaces {
            command.arg("--no-tablespaces");
        }
        if self.clean {
            command.args(["--clean", "--if-exists"]);
        }
    }

    fn wait(&self, command: Command, stdin: Option<&[u8]>) -> Result<RestoreMessages, LoadError> {
        let mut tool = Running::spawn(command, stdin.is_some()).map_err(LoadError::Spawn)?;
        if let (Some(mut pipe), Some(bytes)) = (tool.stdin(), stdin) {
            // A table of contents is small and read at once. If the tool ended early, its own words say why.
            let _ = pipe.write_all(bytes);
        }
        let ended = tool.wait(&self.interrupt).map_err(|error| match error {
            WaitError::Interrupted => LoadError::Interrupted,
            WaitError::Io(error) => LoadError::Spawn(error),
        })?;
        let (messages, ignored) = parse(&ended.stderr);
        if ended.status.success() || ignored {
            return Ok(messages);
        }
        Err(LoadError::PgRestore {
            status: ended.status.to_string(),
            words: ended.stderr,
        })
    }
}

/// The messages, and whether it says that it went on to the end in spite of errors.
fn parse(words: &str) -> (RestoreMessages, bool) {
    enum Last {
        None,
        Error,
        Warning,
    }
    let mut messages = RestoreMessages::default();
    let mut ignored = false;
    let mut last = Last::None;
    for line in words.lines() {
        if let Some(text) = line.strip_prefix("pg_restore: error: ") {
            messages.errors.push(text.to_owned());
            last = Last::Error;
        } else if line.starts_with("pg_restore: warning: errors ignored on restore: ") {
            ignored = true;
            last = Last::None;
        } else if let Some(text) = line.strip_prefix("pg_restore: warning: ") {
            messages.warnings.push(text.to_owned());
            last = Last::Warning;
        } else if line.starts_with("pg_restore: ") {
            // "from TOC entry …", "while PROCESSING TOC:": context of what follows.
            last = Last::None;
        } else {
            let of = match last {
                Last::None => None,
                Last::Error => messages.errors.last_mut(),
                Last::Warning => messages.warnings.last_mut(),
            };
            // The statement itself ("Command was: …") can be as long as a function.
            if let Some(statement) = line.strip_prefix("Command was: ") {
                // From 17 on pg_restore begins every session with a setting that older servers do not know;
                // it goes on without it, and so do we. Told by the statement: a server's words are in its
                // own language.
                if statement.starts_with("SET transaction_timeout = ")
                    && matches!(last, Last::Error)
                {
                    messages.errors.pop();
                }
                last = Last::None;
            } else if let Some(message) = of {
                message.push(' ');
                message.push_str(line.trim());
            }
        }
    }
    (messages, ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let words = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: from TOC entry 3; 2615 2200 SCHEMA public postgres\n\
            pg_restore: error: could not execute query: ERROR:  role \"app\" does not exist\n\
            Command was: ALTER TABLE public.a OWNER TO app;\n\n\
            pg_restore: error: could not execute query: ERROR:  must be owner\nDETAIL:  of x\n\
            Command was: COMMENT …\n\
            pg_restore: warning: errors ignored on restore: 2\n";
        let (messages, ignored) = parse(words);
        assert!(ignored);
        assert_eq!(
            messages.errors,
            [
                "could not execute query: ERROR:  role \"app\" does not exist",
                "could not execute query: ERROR:  must be owner DETAIL:  of x",
            ]
        );
        assert!(messages.warnings.is_empty());
        assert!(!parse("pg_restore: error: connection to server failed").1);
    }

    #[test]
    fn a_newer_pg_restore_than_the_server_is_no_error() {
        let words = "pg_restore: error: could not execute query: FEHLER:  unbekannter \
            Konfigurationsparameter »transaction_timeout«\n\
            Command was: SET transaction_timeout = 0;\n\
            pg_restore: error: could not execute query: ERROR:  role \"app\" does not exist\n\
            Command was: ALTER TABLE public.a OWNER TO app;\n\n\
            pg_restore: warning: errors ignored on restore: 2\n";
        let (messages, ignored) = parse(words);
        assert!(ignored);
        assert_eq!(messages.errors.len(), 1, "{:?}", messages.errors);
        assert!(messages.errors[0].contains("role \"app\""));
    }
}
