//! Bringing dumps that `pg_dump -Fc` wrote into the repository, as the backups that they would have been.
//!
//! [`plan`] opens each file as far as its table of contents and says what it is: which database, of when, and what
//! speaks against it. [`execute`] imports, the oldest first. A file is read twice: once as it is, to its last byte
//! (`survey`), so that one that was cut short or was imported before costs nothing; then its data, by several
//! threads, into the same tree of the same chunks as a backup of the same rows (`load`).
//!
//! The invariant is that of a backup: each file becomes one backup whole or none at all, and the snapshot that makes
//! it one is written last. A file that is refused is no reason not to import the others; a repository that fails is.

mod clock;
mod contents;
mod execute;
mod load;
mod plan;
mod refusal;
mod survey;
mod zone;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_repo::SnapshotId;

use survey::Identity;

pub use clock::{Begun, ZoneSource};
pub use execute::execute;
pub use plan::plan;
pub use refusal::{ImportError, Refusal};

/// How much of a large object is one part of its file: as in a backup.
const LARGE_OBJECT_PART_BYTES: usize = crate::backup::LARGE_OBJECT_PART_BYTES;

/// What to import, and how.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// Dumps, and folders of dumps.
    pub files: Vec<PathBuf>,
    /// Which files of a folder: `*` and `?` as in a shell.
    pub pattern: String,
    /// The name that the backups go by; else the database's own.
    pub database: Option<String>,
    /// By a database's own name, those that its backups may go by.
    pub names: BTreeMap<String, Vec<String>>,
    /// The zone of the dumps' own times, if it was given.
    pub time_zone: Option<TimeZone>,
    /// This machine's zone.
    pub machine_zone: TimeZone,
    /// The present: no dump is from later.
    pub now: Timestamp,
    /// How many tables are read at once; each takes two threads.
    pub jobs: usize,
    /// zstd's level.
    pub compression_level: i32,
    /// How long to wait while somebody removes data from the repository.
    pub lock_patience: Duration,
    /// This host, recorded in the backups.
    pub hostname: String,
    /// The user, recorded in the backups.
    pub username: String,
    /// Set to stop. What was imported by then stays.
    pub interrupt: Arc<AtomicBool>,
}

/// What is to be done, file by file.
#[derive(Debug)]
pub struct ImportPlan {
    /// The oldest dump first; those that are refused come last.
    pub files: Vec<PlannedFile>,
}

/// One file of a plan.
#[derive(Debug)]
pub struct PlannedFile {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Its size in bytes; 0 where that cannot be told.
    pub size_bytes: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a file.
#[derive(Debug)]
pub enum Verdict {
    /// It is imported, if its data turns out to be whole.
    Import(DumpFacts),
    /// It was imported before, as this backup.
    AlreadyThere(DumpFacts, There),
    /// It is not.
    Refused(Refusal),
}

/// A backup that was imported before.
#[derive(Debug, Clone, Copy)]
pub struct There {
    /// Its ID.
    pub id: SnapshotId,
    /// The date it was given.
    pub time: Timestamp,
}

/// What a dump says of itself.
#[derive(Debug, Clone)]
pub struct DumpFacts {
    /// What its header says.
    pub header: DumpHeader,
    /// When it was begun.
    pub begun: Begun,
}

/// What stands at the beginning of a dump. Its time has no zone there, and so is not among it.
#[derive(Debug, Clone)]
pub struct DumpHeader {
    /// The name that its backup will go by.
    pub database: String,
    /// The database's own name.
    pub own_name: String,
    /// The server's version, as it says.
    pub server_version: String,
    /// The version of `pg_dump`, as it says.
    pub pg_dump_version: String,
    /// Tables with rows to load.
    pub tables: u64,
    /// How its data is compressed: `none`, `gzip`, `lz4`, `zstd`.
    pub compression: &'static str,
    identity: Identity,
}

/// What came of an import.
#[derive(Debug)]
pub struct ImportReport {
    /// Each file of the plan, in its order.
    pub files: Vec<FileReport>,
    /// Why it did not come to its end, if so: nothing about a file, but the repository's or the operator's doing.
    pub stopped: Option<ImportError>,
    /// Seconds it took.
    pub seconds: f64,
}

/// What came of a file.
#[derive(Debug)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What came of it.
    pub outcome: FileOutcome,
}

/// What came of a file.
#[derive(Debug)]
pub enum FileOutcome {
    /// There is a backup of it now.
    Imported(Box<Imported>),
    /// There was one before.
    AlreadyThere(SnapshotId),
    /// It is not imported.
    Refused(Refusal),
    /// The import was stopped before.
    NotReached,
}

/// A backup that was imported: its snapshot file is durable.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Its ID.
    pub id: SnapshotId,
    /// The database's name in listings.
    pub database: String,
    /// When the dump was begun.
    pub snapshot_time: Timestamp,
    /// Tables with data.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of rows and large objects, decompressed.
    pub data_bytes: u64,
    /// Bytes added to the repository, metadata included.
    pub new_bytes: u64,
    /// The newest applied migration.
    pub migration: Option<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Seconds it took.
    pub seconds: f64,
}
