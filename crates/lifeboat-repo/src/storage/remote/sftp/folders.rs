//! Folders: what is in them, what has to be there before the first write, and what the dead left behind.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::session::Session;
use super::wire::{Attributes, FSYNC, Open, Packet, Reply, code};
use crate::storage::remote::attempt::Failed;
use crate::storage::{FileEntry, FileKind, is_valid_name, layout};

pub(super) const TEMPORARY_PREFIX: &str = ".lifeboat-";
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// How long a temporary file has to lie untouched before it counts as abandoned. Its writer can't be asked, and
/// the server's clock may be wrong by hours.
const ABANDONED_AFTER: Duration = Duration::from_secs(48 * 3600);

/// Folders that are read at once; a server has to keep a file open for each.
const FOLDERS_AT_ONCE: usize = 64;

impl Session<'_> {
    /// The folder of a kind of files; for packs the one that holds their folders.
    pub(super) fn folder(&self, kind: FileKind) -> String {
        layout::folder(kind).map_or_else(|| self.root.to_owned(), |folder| self.at(folder))
    }

    pub(super) fn list(&mut self, kind: FileKind) -> Result<Vec<FileEntry>, Failed> {
        self.require_root()?;
        let folders: Vec<String> = match kind {
            FileKind::Pack => layout::data_folders()
                .map(|folder| self.at(&folder))
                .collect(),
            other => vec![self.folder(other)],
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

    /// What is in several folders; one that is missing holds nothing. `found` is told the folder's number.
    pub(super) fn read_folders(
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

    pub(super) fn create(&mut self) -> Result<(), Failed> {
        let root = self.root.to_owned();
        // From the topmost folder down; those that exist are left as they are.
        for (end, _) in root.match_indices('/').filter(|(end, _)| *end > 0) {
            if !self.exists(&root[..end])? {
                self.make_folder(&root[..end])?;
            }
        }
        self.make_folder(&root)?;
        for kind in layout::IN_FOLDERS {
            let path = self.folder(kind);
            self.make_folder(&path)?;
        }
        let folders: Vec<Packet> = layout::data_folders()
            .map(|folder| Packet::make_folder(&self.at(&folder)))
            .collect();
        // One that exists is a failure to the server; one that is missing is made when it is written to.
        self.connection
            .ask_all(folders, self.patience, |_, _| Ok(()))?;
        let data = self.folder(FileKind::Pack);
        self.sync_folder(&data)?;
        self.sync_folder(&root)
    }

    /// Makes a folder whose parent exists, and makes its name durable. One that exists is left as it is.
    pub(super) fn make_folder(&mut self, path: &str) -> Result<(), Failed> {
        match self.ask(&Packet::make_folder(path))?.ok() {
            Ok(()) => self.sync_folder(folder_of(path)),
            Err(failed) => match self.status(path) {
                Ok(found) if found.is_folder() => Ok(()),
                _ => Err(failed),
            },
        }
    }

    /// Makes the names in a folder durable, where the server can. OpenSSH's opens folders for reading, and syncs
    /// whatever is open; another's refusal changes nothing about what was written.
    pub(super) fn sync_folder(&mut self, path: &str) -> Result<(), Failed> {
        if !self.connection.has_extension(FSYNC) {
            return Ok(());
        }
        if let Reply::Handle(handle) = self.ask(&Packet::open(path, Open::Read))? {
            self.ask(&Packet::fsync(&handle))?;
            self.connection.tell(&Packet::close(&handle));
        }
        Ok(())
    }

    pub(super) fn sweep(&mut self) -> Result<usize, Failed> {
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

/// The folder that something is in.
pub(super) fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
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
