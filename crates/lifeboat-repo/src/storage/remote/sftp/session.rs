//! A connection, and what every operation does with it.

use std::sync::Arc;

use super::connection::Connection;
use super::wire::{self, Attributes, Packet, Reply, STATVFS};
use crate::storage::remote::attempt::{Failed, Patience};
use crate::storage::remote::throttle::{self, Throttle};
use crate::storage::{FileKind, StorageErrorKind, layout};

/// A connection, and what an operation needs besides.
pub(super) struct Session<'a> {
    pub(super) root: &'a str,
    pub(super) throttle: Option<&'a Throttle>,
    pub(super) connection: Connection,
    pub(super) patience: &'a Arc<Patience>,
}

impl Session<'_> {
    pub(super) fn at(&self, path: &str) -> String {
        if self.root.ends_with('/') {
            format!("{}{path}", self.root)
        } else {
            format!("{}/{path}", self.root)
        }
    }

    pub(super) fn file(&self, kind: FileKind, name: &str) -> String {
        self.at(&layout::path(kind, name))
    }

    pub(super) fn ask(&mut self, packet: &Packet) -> Result<Reply, Failed> {
        self.connection.ask(packet, self.patience)
    }

    pub(super) fn status(&mut self, path: &str) -> Result<Attributes, Failed> {
        self.ask(&Packet::status(path))?.attributes()
    }

    pub(super) fn exists(&mut self, path: &str) -> Result<bool, Failed> {
        match self.status(path) {
            Ok(_) => Ok(true),
            Err(failed) if failed.kind == StorageErrorKind::NotFound => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// `NotFound` unless the repository's own folder is there.
    pub(super) fn require_root(&mut self) -> Result<(), Failed> {
        let root = self.root.to_owned();
        match self.status(&root) {
            Ok(found) if found.is_folder() => Ok(()),
            Ok(_) => Err(Failed::for_good(
                StorageErrorKind::Other,
                "it is not a folder",
            )),
            Err(failed) if failed.kind == StorageErrorKind::NotFound => {
                Err(Failed::no_repository())
            }
            Err(failed) => Err(failed),
        }
    }

    pub(super) fn size(&mut self, path: &str) -> Result<u64, Failed> {
        self.status(path)?.size.ok_or_else(no_sizes)
    }

    pub(super) fn pay(&self, bytes: usize) -> Result<(), Failed> {
        throttle::pay(self.throttle, bytes, self.patience)
    }

    pub(super) fn free_bytes(&mut self) -> Option<u64> {
        if !self.connection.has_extension(STATVFS) {
            return None;
        }
        let root = self.root.to_owned();
        match self.ask(&Packet::free_space(&root)).ok()? {
            Reply::Extended(reply) => wire::free_bytes(&reply),
            _ => None,
        }
    }

    /// The failure that a full disk is, if it is full: SFTP itself has no word for it.
    pub(super) fn is_full(&mut self, wanted: usize) -> Option<Failed> {
        let free = self.free_bytes()?;
        (free < wanted as u64).then(|| {
            let cause = format!("{free} bytes are free there, {wanted} are needed");
            Failed::for_good(StorageErrorKind::NoSpace, cause)
        })
    }

    pub(super) fn discard(&mut self, path: &str) {
        if !self.connection.is_broken {
            self.connection.tell(&Packet::remove(path));
        }
    }
}

pub(super) fn no_sizes() -> Failed {
    Failed::for_good(StorageErrorKind::Other, "the server tells no sizes")
}
