//! The backups that a repository holds, and what is inside one of them.
//!
//! A backup is a snapshot of the repository that carries the tag [`TAG`]. Snapshots that restic or others
//! put into the same repository are left alone and not listed. The catalog only reads; what it returns comes
//! from the repository alone, so it works on an empty machine.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use jiff::Timestamp;
use lifeboat_pg::archive::Archive;
use lifeboat_repo::reader::Reader;
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::tree::FileContent;
use lifeboat_repo::{BlobId, Repository, RepositoryError, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::manifest::{MANIFEST_MAX_BYTES, MANIFEST_PATH, Manifest, ManifestError, TOC_PATH};
use crate::verify::CLOCK_TOLERANCE;

/// The tag of every snapshot that is one of our backups.
pub const TAG: &str = "lifeboat";

/// What precedes a database's name in the tag that carries it.
pub const DATABASE_TAG: &str = "database=";

/// The tag of a backup that is held: `expire` never removes it. For stock restic: `forget --keep-tag hold`.
pub const HOLD_TAG: &str = "hold";

/// What precedes the reason in the tag that says why a backup is held.
pub const HOLD_REASON_TAG: &str = "hold-reason=";

/// The tag of a backup that has lost data, which `repair` has looked for everywhere.
pub const DAMAGED_TAG: &str = "damaged";

/// What precedes the name of something that a backup has lost, in the tag that says so.
pub const LOST_TAG: &str = "lost=";

/// What precedes the SHA-256 of the dump's file in the tag of a backup that was imported.
pub const IMPORTED_TAG: &str = "imported=";

/// The largest table of contents that is read; larger ones are refused as damaged.
const TOC_MAX_BYTES: u64 = 1 << 30;

/// A backup as listings show it.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its ID: that of its snapshot in the repository.
    pub id: SnapshotId,
    /// The name of the database in the configuration.
    pub database: String,
    /// The time of its database snapshot: the data is as of this moment.
    pub time: Timestamp,
    /// The host that took it.
    pub hostname: String,
    /// Why it is held, if it is; empty when nobody said why.
    pub held: Option<String>,
    /// What it has lost, by the words of the `repair` that said so; `None` for one that is not known to have lost
    /// anything.
    pub lost: Option<Vec<String>>,
    /// What it told about itself when it was written; absent when another tool rewrote the snapshot.
    pub summary: Option<BackupSummary>,
    /// The snapshot it is.
    pub snapshot: Snapshot,
}

impl Backup {
    /// The ID it had at first. A hold gives it another one; whatever is remembered of a backup is remembered under
    /// its first.
    #[must_use]
    pub fn first_id(&self) -> SnapshotId {
        self.snapshot.original.unwrap_or(self.id)
    }

    /// What is remembered of it, in a map by ID.
    #[must_use]
    pub fn lookup<'m, T>(&self, by_id: &'m BTreeMap<String, T>) -> Option<&'m T> {
        by_id
            .get(&self.first_id().to_string())
            .or_else(|| by_id.get(&self.id.to_string()))
    }
}

/// A backup's figures, carried in its snapshot file so that a listing needs to read nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// Tables with data.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of the dump.
    pub data_bytes: u64,
    /// `server_version_num`.
    pub server_version_num: u32,
    /// The newest applied schema migration, where a migration table was found.
    #[serde(default)]
    pub migration: Option<String>,
    /// Whether a migration had failed or was half applied.
    #[serde(default)]
    pub migration_trouble: bool,
    /// Seconds from the database snapshot to the last byte stored; of an import, those that it took.
    pub seconds: f64,
    /// The size in bytes of the dump that it was imported from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_bytes: Option<u64>,
}

/// Which backup an operator means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The newest one of the database.
    Latest,
    /// The one whose ID begins with this.
    Id(String),
}

impl Selector {
    /// `latest`, or the beginning of an ID.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text == "latest" {
            Self::Latest
        } else {
            Self::Id(text.to_owned())
        }
    }
}

/// Why the catalog could not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no backup at all, or none of this database.
    #[error("there is no backup{} in {location}", of_database(.database))]
    Empty {
        /// The database asked for, if one was.
        database: Option<String>,
        /// The repository.
        location: String,
    },
    /// The ID belongs to a snapshot that Lifeboat did not write.
    #[error("{id} is a snapshot of the repository, but not one of Lifeboat's backups")]
    NotABackup {
        /// The snapshot.
        id: SnapshotId,
    },
    /// A file that every backup has is missing, too large or not what it should be.
    #[error("{path} of backup {id} is damaged: {what}")]
    Damaged {
        /// The backup.
        id: SnapshotId,
        /// The file inside it.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The manifest is of a form that this version does not know.
    #[error("backup {id}: {source}")]
    Manifest {
        /// The backup.
        id: SnapshotId,
        /// Why.
        source: ManifestError,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

fn of_database(database: &Option<String>) -> String {
    database
        .as_ref()
        .map(|name| format!(" of {name}"))
        .unwrap_or_default()
}

/// Reads what a repository holds.
pub struct Catalog<'r> {
    repository: &'r Repository,
    reader: std::sync::OnceLock<Reader>,
}

impl<'r> Catalog<'r> {
    /// A catalog of this repository. Nothing is read yet.
    #[must_use]
    pub fn new(repository: &'r Repository) -> Self {
        Self {
            repository,
            reader: std::sync::OnceLock::new(),
        }
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &'r Repository {
        self.repository
    }

    /// All backups, oldest first, of one database or of all; and the snapshot files that could not be read.
    ///
    /// # Errors
    /// When the repository cannot be listed.
    pub fn backups(
        &self,
        database: Option<&str>,
    ) -> Result<(Vec<Backup>, Vec<RepositoryError>), CatalogError> {
        let (snapshots, damaged) = self.repository.snapshots()?;
        let (mut backups, _) = backups_of(snapshots);
        if let Some(database) = database {
            backups.retain(|backup| backup.database == database);
        }
        backups.sort_by_key(|backup| (backup.time, backup.id));
        Ok((backups, damaged))
    }

    /// The backup that is meant.
    ///
    /// # Errors
    /// [`CatalogError::Empty`] when there is none, [`CatalogError::NotABackup`] when the ID is another tool's
    /// snapshot, and the repository's own errors for unknown and ambiguous IDs.
    pub fn select(
        &self,
        selector: &Selector,
        database: Option<&str>,
    ) -> Result<Backup, CatalogError> {
        match selector {
            Selector::Latest => {
                let (mut backups, damaged) = self.backups(database)?;
                match backups.pop() {
                    Some(backup) => Ok(backup),
                    // With nothing readable left, the damage is the news, not the emptiness.
                    None => Err(damaged.into_iter().next().map_or_else(
                        || CatalogError::Empty {
                            database: database.map(str::to_owned),
                            location: self.repository.location(),
                        },
                        CatalogError::Repository,
                    )),
                }
            }
            Selector::Id(prefix) => {
                let snapshot = self.repository.find_snapshot(prefix)?;
                let id = snapshot.id;
                backup_of(snapshot).ok_or(CatalogError::NotABackup { id })
            }
        }
    }

    /// A reader of the repository's content, opened on first use and shared afterwards.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn reader(&self) -> Result<&Reader, CatalogError> {
        if let Some(reader) = self.reader.get() {
            return Ok(reader);
        }
        let reader = self.repository.reader()?;
        Ok(self.reader.get_or_init(|| reader))
    }

    /// What the backup recorded about itself.
    ///
    /// # Errors
    /// When the manifest is missing, damaged or of an unknown form.
    pub fn manifest(&self, backup: &Backup) -> Result<Manifest, CatalogError> {
        let json = self.small_file(backup, MANIFEST_PATH, MANIFEST_MAX_BYTES)?;
        Manifest::from_json(&json).map_err(|source| CatalogError::Manifest {
            id: backup.id,
            source,
        })
    }

    /// The dump's table of contents.
    ///
    /// # Errors
    /// When it is missing or cannot be parsed.
    pub fn toc(&self, backup: &Backup) -> Result<Archive, CatalogError> {
        let bytes = self.small_file(backup, TOC_PATH, TOC_MAX_BYTES)?;
        Archive::read_toc(&mut bytes.as_slice()).map_err(|error| CatalogError::Damaged {
            id: backup.id,
            path: TOC_PATH.to_owned(),
            what: error.to_string(),
        })
    }

    /// The content of one file of the backup, without reading it yet.
    ///
    /// # Errors
    /// When the backup has no such file.
    pub fn file(&self, backup: &Backup, path: &str) -> Result<FileContent, CatalogError> {
        let reader = self.reader()?;
        let node = reader.find(&backup.snapshot, path)?;
        Ok(reader.content(&node)?)
    }

    /// The whole of a file that must be small.
    ///
    /// # Errors
    /// When it is missing, longer than `max_bytes`, or cannot be read.
    pub fn small_file(
        &self,
        backup: &Backup,
        path: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, CatalogError> {
        let content = self.file(backup, path)?;
        let mut bytes = Vec::new();
        self.reader()?
            .open(&content)?
            .take(max_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.damaged(backup, path, &error.to_string()))?;
        if bytes.len() as u64 > max_bytes {
            return Err(self.damaged(backup, path, "it is longer than any such file can be"));
        }
        Ok(bytes)
    }

    fn damaged(&self, backup: &Backup, path: &str, what: &str) -> CatalogError {
        CatalogError::Damaged {
            id: backup.id,
            path: path.to_owned(),
            what: what.to_owned(),
        }
    }
}

/// The newest of some backups that count, and whether one is dated in the future.
#[derive(Debug, Clone, Copy)]
pub struct Newest<'b> {
    /// The newest that is not dated in the future, and not known to have lost data.
    pub backup: Option<&'b Backup>,
    /// The newest that is: a clock was wrong, or somebody wants to look alive. It counts for nothing.
    pub future: Option<&'b Backup>,
}

/// The newest of these backups.
pub fn newest<'b>(backups: impl IntoIterator<Item = &'b Backup>, now: Timestamp) -> Newest<'b> {
    let is_future = |one: &&Backup| one.time.duration_since(now) > CLOCK_TOLERANCE;
    let (future, past): (Vec<&Backup>, Vec<&Backup>) = backups.into_iter().partition(is_future);
    let newest = |of: Vec<&'b Backup>| of.into_iter().max_by_key(|one| (one.time, one.id));
    let whole = past.into_iter().filter(|one| one.lost.is_none());
    Newest {
        backup: newest(whole.collect()),
        future: newest(future),
    }
}

/// The snapshots that are backups; and those that were: a hold that was interrupted leaves the file it was about
/// to replace beside the new one, which shows the same.
pub(crate) fn backups_of(snapshots: Vec<Snapshot>) -> (Vec<Backup>, Vec<SnapshotId>) {
    let successors: HashMap<SnapshotId, BlobId> = snapshots
        .iter()
        .filter_map(|one| Some((one.original?, one.tree)))
        .collect();
    // One that was changed several times leaves a middle one: it has the same first as its successor, and is
    // told from it by nothing. So only the first itself is known to be replaced; of the others both stay.
    let is_replaced = |one: &Snapshot| successors.get(&one.id) == Some(&one.tree);
    let (replaced, current): (Vec<_>, Vec<_>) = snapshots.into_iter().partition(is_replaced);
    let replaced = replaced
        .into_iter()
        .filter_map(backup_of)
        .map(|one| one.id)
        .collect();
    (
        current.into_iter().filter_map(backup_of).collect(),
        replaced,
    )
}

/// The snapshot as a backup, when it is one.
fn backup_of(snapshot: Snapshot) -> Option<Backup> {
    if !snapshot.tags.iter().any(|tag| tag == TAG) {
        return None;
    }
    let database = snapshot
        .tags
        .iter()
        .find_map(|tag| tag.strip_prefix(DATABASE_TAG))?
        .to_owned();
    let summary = snapshot
        .extra
        .as_ref()
        .and_then(|extra| serde_json::from_value(extra.clone()).ok());
    let reason = || {
        let mut tags = snapshot.tags.iter();
        tags.find_map(|tag| tag.strip_prefix(HOLD_REASON_TAG))
    };
    let is_damaged = snapshot.tags.iter().any(|tag| tag == DAMAGED_TAG);
    let lost = || {
        let tags = snapshot.tags.iter();
        let lost = tags.filter_map(|tag| tag.strip_prefix(LOST_TAG));
        lost.map(str::to_owned).collect()
    };
    let is_held = snapshot.tags.iter().any(|tag| tag == HOLD_TAG);
    Some(Backup {
        lost: is_damaged.then(lost),
        held: is_held.then(|| reason().unwrap_or_default().to_owned()),
        id: snapshot.id,
        database,
        time: snapshot.time,
        hostname: snapshot.hostname.clone(),
        summary,
        snapshot,
    })
}
