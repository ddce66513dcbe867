use std::io;
use std::path::PathBuf;

/// Why a scratch server could not be had.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A program of the server is not where it should be.
    #[error("there is no {}", path.display())]
    ToolMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// PostgreSQL refuses to run as root, and the user to run it as does not exist.
    #[error("PostgreSQL does not run as root, and there is no OS user {}", wanted.join(" or "))]
    NoSuchUser {
        /// The names looked for.
        wanted: Vec<String>,
    },
    /// The server's OS user cannot reach the folder that the server would live in.
    #[error("OS user {user} cannot pass through {}", path.display())]
    Unreachable {
        /// The first folder on the way that lacks the permission.
        path: PathBuf,
        /// Who would need it.
        user: String,
    },
    /// A file or folder of the server could not be made, read or removed.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("cannot run {}: {source}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}): {output}")]
    Initdb {
        /// Its exit status in words.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// `postgres` ended before it accepted connections.
    #[error("the server ended while starting ({status}): {log}")]
    Start {
        /// Its exit status in words.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// `postgres` did not accept connections in time.
    #[error("the server did not accept connections within {seconds} s: {log}")]
    StartTimeout {
        /// How long it was given.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// The caller asked to give up.
    #[error("interrupted")]
    Interrupted,
}

impl InstanceError {
    pub(super) fn folder(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> InstanceError {
        let path = path.into();
        move |source| InstanceError::Folder { path, source }
    }
}
