//! A folder on another machine, through `ssh`.
//!
//! A file is written under a temporary name in the repository's own folder, synced where the server can
//! (OpenSSH's can), and renamed, which in SFTP never replaces. Then its folder is synced. restic looks for no
//! files in the repository's own folder but `config`, so a leftover disturbs nobody.

mod connection;
mod folders;
mod read;
mod session;
mod wire;
mod write;

use std::sync::{Arc, Mutex, PoisonError};

use super::Backend;
use super::attempt::{Failed, Patience};
use super::location::SftpLocation;
use super::throttle::Throttle;
use crate::storage::{FileEntry, FileKind};
use connection::Connection;
pub use connection::SshCommand;
use folders::folder_of;
use read::Wanted;
use session::Session;
use wire::Packet;

/// Connections that are kept for the next operation.
const MOST_IDLE: usize = 8;

#[derive(Debug)]
pub(super) struct SftpBackend {
    location: SftpLocation,
    ssh: SshCommand,
    throttle: Option<Arc<Throttle>>,
    idle: Mutex<Vec<Connection>>,
}

impl SftpBackend {
    pub(super) fn new(
        location: SftpLocation,
        ssh: SshCommand,
        throttle: Option<Arc<Throttle>>,
    ) -> Self {
        Self {
            location,
            ssh,
            throttle,
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation on a connection of its own, which is kept unless something is wrong with it.
    fn with<T>(
        &self,
        patience: &Arc<Patience>,
        operation: impl FnOnce(&mut Session<'_>) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.ssh, &self.location, patience)?,
        };
        let mut session = Session {
            root: &self.location.path,
            throttle: self.throttle.as_deref(),
            connection,
            patience,
        };
        let result = operation(&mut session);
        let connection = session.connection;
        if connection.is_broken {
            // The others are as old, and go the same way: a server that was restarted must not cost a try each.
            self.idle().clear();
        } else {
            let mut idle = self.idle();
            if idle.len() < MOST_IDLE {
                idle.push(connection);
            }
        }
        result
    }
}

impl Backend for SftpBackend {
    fn location(&self) -> String {
        self.location.to_string()
    }

    fn list(&self, kind: FileKind, patience: &Arc<Patience>) -> Result<Vec<FileEntry>, Failed> {
        self.with(patience, |session| session.list(kind))
    }

    fn size(&self, kind: FileKind, name: &str, patience: &Arc<Patience>) -> Result<u64, Failed> {
        self.with(patience, |session| {
            let path = session.file(kind, name);
            session.size(&path)
        })
    }

    fn read(
        &self,
        kind: FileKind,
        name: &str,
        patience: &Arc<Patience>,
    ) -> Result<Vec<u8>, Failed> {
        let mut content = Vec::new();
        self.with(patience, |session| {
            let path = session.file(kind, name);
            session.read(&path, 0, Wanted::All, &mut content)
        })?;
        Ok(content)
    }

    fn read_range(
        &self,
        (kind, name): (FileKind, &str),
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
        patience: &Arc<Patience>,
    ) -> Result<(), Failed> {
        self.with(patience, |session| {
            let path = session.file(kind, name);
            session.read(&path, offset, Wanted::Bytes(length), buffer)
        })
    }

    fn put(
        &self,
        kind: FileKind,
        name: &str,
        content: &[u8],
        patience: &Arc<Patience>,
    ) -> Result<(), Failed> {
        self.with(patience, |session| session.put(kind, name, content))
    }

    fn delete(&self, kind: FileKind, name: &str, patience: &Arc<Patience>) -> Result<(), Failed> {
        self.with(patience, |session| {
            let path = session.file(kind, name);
            session.ask(&Packet::remove(&path))?.ok()?;
            session.sync_folder(folder_of(&path))
        })
    }

    fn create(&self, patience: &Arc<Patience>) -> Result<(), Failed> {
        self.with(patience, |session| session.create())
    }

    fn free_space_bytes(&self, patience: &Arc<Patience>) -> Option<u64> {
        self.with(patience, |session| Ok(session.free_bytes()))
            .ok()?
    }

    fn sweep(&self, patience: &Arc<Patience>) -> Result<usize, Failed> {
        self.with(patience, |session| session.sweep())
    }
}
