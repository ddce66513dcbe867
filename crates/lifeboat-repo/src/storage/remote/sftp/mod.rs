//! A folder on another machine, through `ssh`.
//!
//! A file is written under a temporary name in the repository's own folder, synced where the server can
//! (OpenSSH's can), and renamed, which in SFTP never replaces. Then its folder is synced. restic looks for no
//! files in the repository's own folder but `config`, so a leftover disturbs nobody.

mod connection;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Backend;
use super::attempt::{Failed, Patience};
use super::location::SftpLocation;
use super::throttle::Throttle;
use crate::storage::{FileEntry, FileKind, StorageErrorKind, is_valid_name};
use connection::Connection;
pub use connection::SshCommand;
use wire::{Attributes, FSYNC, Open, PIECE_BYTES, Packet, Reply, STATVFS, code};

const TEMPORARY_PREFIX: &str = ".lifeboat-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// How long a temporary file has to lie untouched before it counts as abandoned. Its writer can't be asked, and
/// the server's clock may be wrong by hours.
const ABANDONED_AFTER: Duration = Duration::from_secs(48 * 3600);

/// Folders that are read at once; a server has to keep a file open for each.
const FOLDERS_AT_ONCE: usize = 64;

/// A range this long is not asked for before the file is known to have it: a length may come from a damaged
/// index.
const LARGEST_UNCHECKED_RANGE: usize = 32 << 20;

/// No file of a repository is longer: a pack's offsets end there.
const LARGEST_FILE_BYTES: u64 = 1 << 32;

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

/// How much of a file is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// So many bytes.
    Bytes(usize),
    /// All there is.
    All,
}

fn no_sizes() -> Failed {
    Failed::for_good(StorageErrorKind::Other, "the server tells no sizes")
}

fn is_within(offset: u64, length: usize, size: u64) -> Result<(), Failed> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Failed::too_short(size, length, offset)),
    }
}

/// A connection, and what an operation needs besides.
struct Session<'a> {
    root: &'a str,
    throttle: Option<&'a Throttle>,
    connection: Connection,
    patience: &'a Arc<Patience>,
}

impl Session<'_> {
    fn at(&self, path: &str) -> String {
        if self.root.ends_with('/') {
            format!("{}{path}", self.root)
        } else {
            format!("{}/{path}", self.root)
        }
    }

    fn file(&self, kind: FileKind, name: &str) -> String {
        match kind {
            FileKind::Config => self.at(name),
            FileKind::Pack => self.at(&format!("data/{}/{name}", &name[..2])),
            other => self.at(&format!("{}/{name}", folder(other))),
        }
    }

    fn ask(&mut self, packet: &Packet) -> Result<Reply, Failed> {
        self.connection.ask(packet, self.patience)
    }

    fn status(&mut self, path: &str) -> Result<Attributes, Failed> {
        self.ask(&Packet::status(path))?.attributes()
    }

    fn exists(&mut self, path: &str) -> Result<bool, Failed> {
        match self.status(path) {
            Ok(_) => Ok(true),
            Err(failed) if failed.kind == StorageErrorKind::NotFound => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// `NotFound` unless the repository's own folder is there.
    fn require_root(&mut self) -> Result<(), Failed> {
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

    fn size(&mut self, path: &str) -> Result<u64, Failed> {
        self.status(path)?.size.ok_or_else(no_sizes)
    }

    fn pay(&self, bytes: usize) -> Result<(), Failed> {
        match self.throttle {
            Some(throttle) => self.patience.wait(throttle.pay(bytes)),
            None => Ok(()),
        }
    }

    /// Appends a part of a file to `buffer`, which is empty.
    fn read(
        &mut self,
        path: &str,
        offset: u64,
        wanted: Wanted,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Failed> {
        let handle = self.ask(&Packet::open(path, Open::Read))?.handle()?;
        let result = self.read_open(&handle, offset, wanted, buffer);
        if !self.connection.is_broken {
            self.connection.tell(&Packet::close(&handle));
        }
        result
    }

    fn read_open(
        &mut self,
        handle: &[u8],
        offset: u64,
        wanted: Wanted,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Failed> {
        // Servers take larger ones for negative.
        let is_offset = |offset: u64| i64::try_from(offset).is_ok();
        // What is small is asked for together with the size: one trip there and back.
        let (length, mut ask_size) = match wanted {
            Wanted::Bytes(length)
                if (1..=LARGEST_UNCHECKED_RANGE).contains(&length) && is_offset(offset) =>
            {
                (length, true)
            }
            wanted => {
                let size = self.ask(&Packet::handle_status(handle))?.attributes()?.size;
                let size = size.ok_or_else(no_sizes)?;
                let length = match wanted {
                    Wanted::Bytes(length) => length,
                    Wanted::All if size <= LARGEST_FILE_BYTES => {
                        usize::try_from(size).unwrap_or(usize::MAX)
                    }
                    Wanted::All => {
                        let cause = format!("{size} bytes are too many for a file");
                        return Err(Failed::for_good(StorageErrorKind::Other, cause));
                    }
                };
                is_within(offset, length, size)?;
                (length, false)
            }
        };
        // Memory grows as data arrives: a size is what a server says.
        let mut done = 0;
        while done < length {
            let part = LARGEST_UNCHECKED_RANGE.min(length - done);
            buffer.resize(done + part, 0);
            let range = (offset.saturating_add(done as u64), &mut buffer[done..]);
            self.read_block(handle, range, (offset, length), ask_size)?;
            ask_size = false;
            done += part;
        }
        Ok(())
    }

    /// Fills `block` with what begins at `start`: a part of a `whole`, which has an offset and a length, and which
    /// the file is asked to have.
    fn read_block(
        &mut self,
        handle: &[u8],
        (start, block): (u64, &mut [u8]),
        (offset, length): (u64, usize),
        mut ask_size: bool,
    ) -> Result<(), Failed> {
        let size_packet = Packet::handle_status(handle);
        // Pieces that came short are asked for again, from where they ended.
        let mut wanted: Vec<(usize, usize)> = (0..block.len())
            .step_by(PIECE_BYTES)
            .map(|at| (at, PIECE_BYTES.min(block.len() - at)))
            .collect();
        while !wanted.is_empty() {
            let pieces = std::mem::take(&mut wanted);
            let packets =
                ask_size
                    .then(|| size_packet.clone())
                    .into_iter()
                    .chain(pieces.iter().map(|(at, count)| {
                        Packet::read(handle, start.saturating_add(*at as u64), *count)
                    }));
            let skip = usize::from(ask_size);
            let mut size = None;
            let mut past_the_end = false;
            let throttle = self.throttle;
            let patience = self.patience;
            let mut owed = Duration::ZERO;
            self.connection.ask_all(packets, patience, |place, reply| {
                if place < skip {
                    size = reply.attributes()?.size;
                    return Ok(());
                }
                let (at, count) = pieces[place - skip];
                match reply {
                    Reply::Data(bytes) if !bytes.is_empty() && bytes.len() <= count => {
                        block[at..at + bytes.len()].copy_from_slice(&bytes);
                        if bytes.len() < count {
                            wanted.push((at + bytes.len(), count - bytes.len()));
                        }
                        if let Some(throttle) = throttle {
                            owed = throttle.pay(bytes.len());
                        }
                    }
                    Reply::Status(code::EOF, _) => past_the_end = true,
                    other => return Err(other.failed()),
                }
                Ok(())
            })?;
            if past_the_end {
                let size = match size {
                    Some(size) => size,
                    None => self.ask(&size_packet)?.attributes()?.size.unwrap_or(0),
                };
                return Err(Failed::too_short(size, length, offset));
            }
            if let Some(size) = size {
                is_within(offset, length, size)?;
            }
            patience.wait(owed)?;
            ask_size = false;
        }
        Ok(())
    }

    /// Writes a new file under a temporary name, synced if the server can; returns that name.
    fn write_temporary(&mut self, content: &[u8]) -> Result<String, Failed> {
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

    fn fill(&mut self, handle: &[u8], content: &[u8]) -> Result<(), Failed> {
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

    /// The failure that a full disk is, if it is full: SFTP itself has no word for it.
    fn is_full(&mut self, wanted: usize) -> Option<Failed> {
        let free = self.free_bytes()?;
        (free < wanted as u64).then(|| {
            let cause = format!("{free} bytes are free there, {wanted} are needed");
            Failed::for_good(StorageErrorKind::NoSpace, cause)
        })
    }

    fn free_bytes(&mut self) -> Option<u64> {
        if !self.connection.has_extension(STATVFS) {
            return None;
        }
        let root = self.root.to_owned();
        match self.ask(&Packet::free_space(&root)).ok()? {
            Reply::Extended(reply) => wire::free_bytes(&reply),
            _ => None,
        }
    }

    fn discard(&mut self, path: &str) {
        if !self.connection.is_broken {
            self.connection.tell(&Packet::remove(path));
        }
    }

    /// Makes the names in a folder durable, where the server can. OpenSSH's opens folders for reading, and syncs
    /// whatever is open; another's refusal changes nothing about what was written.
    fn sync_folder(&mut self, path: &str) -> Result<(), Failed> {
        if !self.connection.has_extension(FSYNC) {
            return Ok(());
        }
        if let Reply::Handle(handle) = self.ask(&Packet::open(path, Open::Read))? {
            self.ask(&Packet::fsync(&handle))?;
            self.connection.tell(&Packet::close(&handle));
        }
        Ok(())
    }

    /// Makes a folder whose parent exists, and makes its name durable. One that exists is left as it is.
    fn make_folder(&mut self, path: &str) -> Result<(), Failed> {
        match self.ask(&Packet::make_folder(path))?.ok() {
            Ok(()) => self.sync_folder(folder_of(path)),
            Err(failed) => match self.status(path) {
                Ok(found) if found.is_folder() => Ok(()),
                _ => Err(failed),
            },
        }
    }

    fn put(&mut self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), Failed> {
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

    fn put_in_place(&mut self, temporary: &str, kind: FileKind, path: &str) -> Result<(), Failed> {
        let folder = folder_of(path);
        let mut status = self.ask(&Packet::rename(temporary, path))?;
        if matches!(status, Reply::Status(code::NO_SUCH_FILE, _)) {
            // Copying tools drop empty folders.
            if kind == FileKind::Pack {
                let data = self.at("data");
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
    fn already_exists(&mut self, folder: &str) -> Failed {
        self.sync_folder(folder)
            .err()
            .unwrap_or_else(Failed::already_exists)
    }

    /// What is in several folders; one that is missing holds nothing. `found` is told the folder's number.
    fn read_folders(
        &mut self,
        folders: &[String],
        mut found: impl FnMut(usize, String, Attributes),
    ) -> Result<(), Failed> {
        for (group, folders) in folders.chunks(FOLDERS_AT_ONCE).enumerate() {
            let mut open: Vec<(usize, Vec<u8>)> = Vec::new();
            let packets = folders.iter().map(|folder| Packet::open_folder(folder));
            self.connection
                .ask_all(packets, self.patience, |place, reply| {
                    match reply {
                        Reply::Handle(handle) => {
                            open.push((group * FOLDERS_AT_ONCE + place, handle))
                        }
                        Reply::Status(code::NO_SUCH_FILE, _) => {}
                        other => return Err(other.failed()),
                    }
                    Ok(())
                })?;
            let mut unread: Vec<usize> = (0..open.len()).collect();
            while !unread.is_empty() {
                let packets = unread.iter().map(|at| Packet::read_folder(&open[*at].1));
                let mut left = Vec::new();
                self.connection
                    .ask_all(packets, self.patience, |place, reply| {
                        let at = unread[place];
                        match reply {
                            Reply::Names(names) => {
                                for (name, attributes) in names {
                                    found(open[at].0, name, attributes);
                                }
                                left.push(at);
                            }
                            Reply::Status(code::EOF, _) => {}
                            other => return Err(other.failed()),
                        }
                        Ok(())
                    })?;
                unread = left;
            }
            for (_, handle) in open {
                self.connection.tell(&Packet::close(&handle));
            }
        }
        Ok(())
    }

    fn list(&mut self, kind: FileKind) -> Result<Vec<FileEntry>, Failed> {
        self.require_root()?;
        let folders: Vec<String> = match kind {
            FileKind::Config => vec![self.root.to_owned()],
            FileKind::Pack => data_folders().map(|folder| self.at(&folder)).collect(),
            other => vec![self.at(folder(other))],
        };
        let mut entries = Vec::new();
        let mut without_size = Vec::new();
        self.read_folders(&folders, |number, name, attributes| {
            // A pack that lies under another's prefix would never be found by its name.
            let is_right = is_valid_name(kind, &name)
                && attributes.is_file()
                && (kind != FileKind::Pack || name.starts_with(&format!("{number:02x}")));
            if is_right && attributes.size.is_some() {
                entries.push(entry(name, attributes));
            } else if is_right {
                without_size.push(name);
            }
        })?;
        for name in without_size {
            let path = self.file(kind, &name);
            let attributes = Attributes {
                size: Some(self.size(&path)?),
                ..Attributes::default()
            };
            entries.push(entry(name, attributes));
        }
        Ok(entries)
    }

    fn create(&mut self) -> Result<(), Failed> {
        let root = self.root.to_owned();
        // From the topmost folder down; those that exist are left as they are.
        for (end, _) in root.match_indices('/').filter(|(end, _)| *end > 0) {
            if !self.exists(&root[..end])? {
                self.make_folder(&root[..end])?;
            }
        }
        self.make_folder(&root)?;
        let flat = [
            FileKind::Key,
            FileKind::Lock,
            FileKind::Snapshot,
            FileKind::Index,
            FileKind::Pack,
        ];
        for kind in flat {
            let path = self.at(folder(kind));
            self.make_folder(&path)?;
        }
        let folders: Vec<Packet> = data_folders()
            .map(|folder| Packet::make_folder(&self.at(&folder)))
            .collect();
        // One that exists is a failure to the server; one that is missing is made when it is written to.
        self.connection
            .ask_all(folders, self.patience, |_, _| Ok(()))?;
        let data = self.at("data");
        self.sync_folder(&data)?;
        self.sync_folder(&root)
    }

    fn sweep(&mut self) -> Result<usize, Failed> {
        self.require_root()?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut abandoned = Vec::new();
        let root = self.root.to_owned();
        self.read_folders(&[root], |_, name, attributes| {
            let modified = Duration::from_secs(attributes.modified.unwrap_or(u32::MAX).into());
            if name.starts_with(TEMPORARY_PREFIX)
                && name.ends_with(TEMPORARY_SUFFIX)
                && modified + ABANDONED_AFTER < now
            {
                abandoned.push(name);
            }
        })?;
        let mut removed = 0;
        for name in abandoned {
            let path = self.at(&name);
            removed += usize::from(self.ask(&Packet::remove(&path))?.ok().is_ok());
        }
        Ok(removed)
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

/// The folder that something is in.
fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
    }
}

/// The folder of a kind of files ("Repository Layout" in restic's design document).
const fn folder(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Config => ".",
        FileKind::Key => "keys",
        FileKind::Lock => "locks",
        FileKind::Snapshot => "snapshots",
        FileKind::Index => "index",
        FileKind::Pack => "data",
    }
}

/// A listed file whose size is known.
fn entry(name: String, attributes: Attributes) -> FileEntry {
    FileEntry {
        name,
        size_bytes: attributes.size.unwrap_or(0),
        modified: attributes
            .modified
            .and_then(|seconds| jiff::Timestamp::from_second(seconds.into()).ok()),
    }
}

fn data_folders() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|prefix| format!("data/{prefix:02x}"))
}
