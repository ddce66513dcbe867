//! Writing a file: under a temporary name, synced, renamed, and then its folder.

use super::folders::{TEMPORARY_PREFIX, TEMPORARY_SUFFIX, folder_of};
use super::session::Session;
use super::wire::{FSYNC, Open, PIECE_BYTES, Packet, Reply, code};
use crate::storage::remote::attempt::Failed;
use crate::storage::{FileKind, StorageErrorKind};

impl Session<'_> {
    pub(super) fn put(&mut self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), Failed> {
        let path = self.file(kind, name);
        if self.exists(&path)? {
            return Err(self.already_exists(folder_of(&path)));
        }
        let temporary = self.write_temporary(content)?;
        let put = self.put_in_place(&temporary, kind, &path);
        if put.is_err() {
            self.discard(&temporary);
        }
        put
    }

    pub(super) fn put_in_place(
        &mut self,
        temporary: &str,
        kind: FileKind,
        path: &str,
    ) -> Result<(), Failed> {
        let folder = folder_of(path);
        let mut status = self.ask(&Packet::rename(temporary, path))?;
        if matches!(status, Reply::Status(code::NO_SUCH_FILE, _)) {
            // Copying tools drop empty folders.
            if kind == FileKind::Pack {
                let data = self.folder(kind);
                self.make_folder(&data)?;
            }
            self.make_folder(folder)?;
            status = self.ask(&Packet::rename(temporary, path))?;
        }
        if let Err(failed) = status.ok() {
            // SFTP has no word for "exists already" either.
            return Err(if self.exists(path)? {
                self.already_exists(folder)
            } else {
                failed
            });
        }
        self.sync_folder(folder)
    }

    /// That a file exists, once its name is durable: it may be ours, of a try whose connection was lost after the
    /// file was put in place and before its folder was synced, and is then as good as written.
    pub(super) fn already_exists(&mut self, folder: &str) -> Failed {
        self.sync_folder(folder)
            .err()
            .unwrap_or_else(Failed::already_exists)
    }

    /// Writes a new file under a temporary name, synced if the server can; returns that name.
    pub(super) fn write_temporary(&mut self, content: &[u8]) -> Result<String, Failed> {
        let nonce = getrandom::u64()
            .map_err(|error| Failed::for_good(StorageErrorKind::Other, error.to_string()))?;
        let path = self.at(&format!("{TEMPORARY_PREFIX}{nonce:016x}{TEMPORARY_SUFFIX}"));
        let handle = match self.ask(&Packet::open(&path, Open::New))?.handle() {
            Ok(handle) => handle,
            Err(failed) => {
                self.require_root()?;
                return Err(failed);
            }
        };
        let written = self.fill(&handle, content);
        if self.connection.is_broken {
            // Nothing more can be asked for here; a sweep finds it one day.
            return written.map(|()| path);
        }
        let closed = self.ask(&Packet::close(&handle)).and_then(Reply::ok);
        if let Err(failed) = written.and(closed) {
            self.discard(&path);
            return Err(self.is_full(content.len()).unwrap_or(failed));
        }
        Ok(path)
    }

    pub(super) fn fill(&mut self, handle: &[u8], content: &[u8]) -> Result<(), Failed> {
        // In batches only for the sake of the limit: without one, the whole file is a batch.
        let batch = if self.throttle.is_some() {
            PIECE_BYTES * 8
        } else {
            usize::MAX
        };
        let mut at = 0;
        for part in content.chunks(batch.min(content.len().max(1))) {
            self.pay(part.len())?;
            let pieces = part.chunks(PIECE_BYTES).enumerate().map(|(number, piece)| {
                Packet::write(handle, (at + number * PIECE_BYTES) as u64, piece)
            });
            let mut refused = None;
            self.connection.ask_all(pieces, self.patience, |_, reply| {
                // All answers are waited for, so that the connection stays of use.
                if let Err(failed) = reply.ok() {
                    refused = refused.take().or(Some(failed));
                }
                Ok(())
            })?;
            if let Some(failed) = refused {
                return Err(failed);
            }
            at += part.len();
        }
        if self.connection.has_extension(FSYNC) {
            self.ask(&Packet::fsync(handle))?.ok()?;
        }
        Ok(())
    }
}
