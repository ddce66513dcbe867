//! What belongs to the cluster, not to the database: roles, memberships, tablespaces.

use std::io::Read;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use crate::child::{Running, WaitError, receive};

use super::error::DumpError;

/// What `pg_dumpall --globals-only` had to say.
#[derive(Clone, PartialEq, Eq)]
pub enum Globals {
    /// SQL with the roles' password hashes: a secret.
    Whole {
        /// The script.
        sql: Vec<u8>,
    },
    /// SQL without them: reading password hashes takes a superuser.
    WithoutPasswords {
        /// The script.
        sql: Vec<u8>,
    },
    /// Not to be had, as with some managed services. The database itself can be dumped all the same.
    Unavailable {
        /// pg_dumpall's words.
        reason: String,
    },
}

impl Globals {
    /// The script, if there is one.
    pub fn sql(&self) -> Option<&[u8]> {
        match self {
            Globals::Whole { sql } | Globals::WithoutPasswords { sql } => Some(sql),
            Globals::Unavailable { .. } => None,
        }
    }
}

impl std::fmt::Debug for Globals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Globals::Whole { sql } => write!(f, "Whole({} bytes)", sql.len()),
            Globals::WithoutPasswords { sql } => write!(f, "WithoutPasswords({} bytes)", sql.len()),
            Globals::Unavailable { reason } => write!(f, "Unavailable({reason})"),
        }
    }
}

/// Runs `pg_dumpall` (a command with its connection in the environment).
pub(super) fn read(
    mut pg_dumpall: Command,
    database: &str,
    superuser: bool,
    interrupt: &AtomicBool,
) -> Result<Globals, DumpError> {
    pg_dumpall
        .args(["--globals-only", "--no-password"])
        .arg(format!("--database={database}"));
    if !superuser {
        pg_dumpall.arg("--no-role-passwords");
    }
    let unavailable = |reason: String| Ok(Globals::Unavailable { reason });
    let mut tool = match Running::spawn(pg_dumpall, false) {
        Ok(tool) => tool,
        Err(error) => return unavailable(format!("cannot run pg_dumpall: {error}")),
    };
    let (sender, output) = channel();
    if let Some(mut stdout) = tool.stdout() {
        std::thread::spawn(move || {
            let mut sql = Vec::new();
            let read = stdout.read_to_end(&mut sql);
            let _ = sender.send(read.map(|_| sql));
        });
    }
    let sql = match receive(&output, interrupt) {
        Ok(Some(Ok(sql))) => sql,
        Ok(Some(Err(error))) => return unavailable(error.to_string()),
        Ok(None) => return unavailable("no output".into()),
        Err(WaitError::Interrupted) => return Err(DumpError::Interrupted),
        Err(WaitError::Io(error)) => return unavailable(error.to_string()),
    };
    match tool.wait(interrupt) {
        Ok(ended) if !ended.status.success() => {
            unavailable(format!("{} ({})", ended.stderr, ended.status))
        }
        Ok(_) if superuser => Ok(Globals::Whole { sql }),
        Ok(_) => Ok(Globals::WithoutPasswords { sql }),
        Err(WaitError::Interrupted) => Err(DumpError::Interrupted),
        Err(WaitError::Io(error)) => unavailable(error.to_string()),
    }
}
