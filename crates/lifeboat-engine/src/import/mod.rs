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
mod survey;
mod zone;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_pg::archive::{ArchiveError, Content};
use lifeboat_pg::data_file::DataRowsError;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::backup::BackupError;
use crate::catalog::{self, Backup, IMPORTED_TAG};
use survey::Identity;

pub use clock::{Begun, ZoneSource};
pub use execute::execute;

/// How much of a large object is one part of its file: as in a backup.
const LARGE_OBJECT_PART_BYTES: usize = crate::backup::LARGE_OBJECT_PART_BYTES;

/// No archive of a version that is read here can be older: PostgreSQL 9.0 was not begun yet.
const OLDEST: i64 = 1_230_768_000;

/// What to import, and how.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// Dumps, and folders of dumps.
    pub files: Vec<PathBuf>,
    /// Which files of a folder: `*` and `?` as in a shell.
    pub pattern: String,
    /// The name that the backups go by; else the database's own.
    pub database: Option<String>,
    /// By a database's own name, the one that its backups go by.
    pub names: BTreeMap<String, String>,
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
    AlreadyThere(DumpFacts, SnapshotId),
    /// It is not.
    Refused(Refusal),
}

/// What a dump says of itself.
#[derive(Debug, Clone)]
pub struct DumpFacts {
    /// The name that its backup will go by.
    pub database: String,
    /// When it was begun.
    pub begun: Begun,
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

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// A device, a pipe, a socket.
    #[error("it is no file")]
    NoFile,
    /// A folder without a dump that matches.
    #[error("it is a folder")]
    Folder,
    /// A dump of the directory format, or the table of contents of one.
    #[error("it is a dump in the directory format (pg_dump -Fd), not in the custom format")]
    DirectoryFormat,
    /// Not an archive.
    #[error("it is {}, not a dump in the custom format (pg_dump -Fc)", found.describe())]
    NotCustom {
        /// What it looks like.
        found: Content,
    },
    /// An archive with a defect, or of a version that is not known.
    #[error(transparent)]
    Damaged(ArchiveError),
    /// No rows at all, for tables that it makes.
    #[error("it holds no rows (pg_dump --schema-only)")]
    SchemaOnly,
    /// Rows without the tables for them.
    #[error("it holds rows without their tables (pg_dump --data-only)")]
    DataOnly,
    /// Data that a restore could not load.
    #[error("{entry} cannot be taken over: {why}")]
    Entry {
        /// Kind and name.
        entry: String,
        /// Why not.
        why: &'static str,
    },
    /// A table's rows are not whole.
    #[error("the rows of {table} are damaged: {source}")]
    Rows {
        /// The table.
        table: String,
        /// What is wrong.
        source: DataRowsError,
    },
    /// A large object comes twice.
    #[error("the large object {oid} is in it twice")]
    Twice {
        /// Its OID.
        oid: u32,
    },
    /// Its header names no database.
    #[error("it does not name its database")]
    NoDatabase,
    /// The time in its header is none.
    #[error("the time in its header is no time")]
    NoTime,
    /// It claims to be from the future.
    #[error("it is dated {time}, in the future")]
    Future {
        /// When it says it was begun.
        time: Timestamp,
    },
    /// It claims to be older than any such dump can be.
    #[error("it is dated {time}, before there were such dumps")]
    TooOld {
        /// When it says it was begun.
        time: Timestamp,
    },
    /// Somebody writes to it.
    #[error("it was changed while it was read")]
    Changed,
}

/// Why nothing more is imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// What was read and what is to be stored do not fit together.
    #[error("{0}")]
    Inconsistent(String),
    /// No file of a folder matches.
    #[error("no file in {} matches {pattern}", folder.display())]
    NoMatch {
        /// The folder.
        folder: PathBuf,
        /// The pattern.
        pattern: String,
    },
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Why one file was not imported: for its own sake, or for everybody's.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("{0}")]
    Inconsistent(String),
    #[error("interrupted")]
    Interrupted,
}

impl From<BackupError> for FileError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Repository(error) => error.into(),
            BackupError::Interrupted => Self::Interrupted,
            other => Self::Inconsistent(other.to_string()),
        }
    }
}

/// A backup that was imported before.
struct Known {
    database: String,
    sha256: String,
    /// The size of its file; unknown when another tool rewrote the snapshot.
    size_bytes: Option<u64>,
    id: SnapshotId,
}

impl Known {
    fn of(backup: &Backup) -> Option<Self> {
        let mut tags = backup.snapshot.tags.iter();
        let sha256 = tags.find_map(|tag| tag.strip_prefix(IMPORTED_TAG))?;
        Some(Self {
            database: backup.database.clone(),
            sha256: sha256.to_owned(),
            size_bytes: backup.summary.as_ref().and_then(|one| one.imported_bytes),
            id: backup.id,
        })
    }
}

/// Every backup there is.
fn backups(repository: &Repository) -> Result<Vec<Backup>, RepositoryError> {
    // A snapshot that cannot be read is in no import's way.
    let (snapshots, _) = repository.snapshots()?;
    Ok(catalog::backups_of(snapshots).0)
}

/// Opens every file and says what it is. Changes nothing.
///
/// # Errors
/// [`ImportError`]; what is wrong with a file is in its [`Verdict`].
pub fn plan(repository: &Repository, request: &ImportRequest) -> Result<ImportPlan, ImportError> {
    let known: Vec<Known> = backups(repository)?.iter().filter_map(Known::of).collect();
    let mut opened = Vec::new();
    for path in expand(&request.files, &request.pattern)? {
        interrupted(&request.interrupt)?;
        opened.push(open(path, request));
    }
    let clues: Vec<clock::Clue> = opened
        .iter()
        .filter_map(|one| Some(one.found.as_ref().ok()?.clue))
        .collect();
    let times = clock::choose(&clues, &request.machine_zone, request.time_zone.as_ref());
    let mut times = times.into_iter();
    let mut files = Vec::with_capacity(opened.len());
    for one in opened {
        let verdict = match one.found {
            Err(refusal) => Verdict::Refused(refusal),
            Ok(found) => {
                let begun = times.next().flatten();
                judge(&one.path, found, begun, request, &known)?
            }
        };
        files.push(PlannedFile {
            path: one.path,
            size_bytes: one.size_bytes,
            verdict,
        });
    }
    files.sort_by_key(|file| match &file.verdict {
        Verdict::Import(facts) | Verdict::AlreadyThere(facts, _) => (false, facts.begun.time),
        Verdict::Refused(_) => (true, Timestamp::MIN),
    });
    Ok(ImportPlan { files })
}

fn interrupted(flag: &AtomicBool) -> Result<(), ImportError> {
    if flag.load(Ordering::Relaxed) {
        return Err(ImportError::Interrupted);
    }
    Ok(())
}

/// The files, with folders replaced by what is in them.
fn expand(given: &[PathBuf], pattern: &str) -> Result<Vec<PathBuf>, ImportError> {
    let mut files = Vec::new();
    for path in given {
        // A dump in the directory format is a folder, too: it is refused as what it is.
        if !path.is_dir() || path.join("toc.dat").exists() {
            files.push(path.clone());
            continue;
        }
        let mut found: Vec<PathBuf> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                crate::dump_folder::matches(pattern.as_bytes(), name.as_bytes())
            })
            .map(|entry| entry.path())
            .collect();
        if found.is_empty() {
            return Err(ImportError::NoMatch {
                folder: path.clone(),
                pattern: pattern.to_owned(),
            });
        }
        found.sort();
        files.append(&mut found);
    }
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|path| seen.insert(path.clone()));
    Ok(files)
}

struct Opened {
    path: PathBuf,
    size_bytes: u64,
    found: Result<Found, Refusal>,
}

struct Found {
    facts: DumpHeader,
    clue: clock::Clue,
}

/// [`DumpFacts`] before its time is known.
struct DumpHeader {
    database: String,
    server_version: String,
    pg_dump_version: String,
    tables: u64,
    compression: &'static str,
    identity: Identity,
}

fn open(path: PathBuf, request: &ImportRequest) -> Opened {
    let mut size_bytes = 0;
    let found = look(&path, request, &mut size_bytes);
    Opened {
        path,
        size_bytes,
        found,
    }
}

fn look(path: &Path, request: &ImportRequest, size_bytes: &mut u64) -> Result<Found, Refusal> {
    let file = survey::open(path)?;
    let meta = file.metadata().map_err(Refusal::Unreadable)?;
    *size_bytes = meta.len();
    let archive = survey::table_of_contents(&file)?;
    let tables = contents::tables(&archive)?;
    let header = &archive.header;
    let text = |text: &Option<lifeboat_pg::archive::Text>| {
        text.as_ref()
            .map(|text| text.lossy().into_owned())
            .unwrap_or_default()
    };
    let own = text(&header.database);
    let database = match (&request.database, request.names.get(&own)) {
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) if own.is_empty() => return Err(Refusal::NoDatabase),
        (None, None) => own,
    };
    let modified = meta.modified().ok();
    Ok(Found {
        facts: DumpHeader {
            database,
            server_version: text(&header.server_version),
            pg_dump_version: text(&header.pg_dump_version),
            tables: tables.len() as u64,
            compression: contents::compression_name(header.compression),
            identity: Identity::of(&meta),
        },
        clue: clock::Clue {
            created: header.created,
            modified: modified.and_then(|time| Timestamp::try_from(time).ok()),
            size_bytes: meta.len(),
        },
    })
}

fn judge(
    path: &Path,
    found: Found,
    begun: Option<Begun>,
    request: &ImportRequest,
    known: &[Known],
) -> Result<Verdict, ImportError> {
    let Some(begun) = begun else {
        return Ok(Verdict::Refused(Refusal::NoTime));
    };
    let time = begun.time;
    if time > request.now {
        return Ok(Verdict::Refused(Refusal::Future { time }));
    }
    if time.as_second() < OLDEST {
        return Ok(Verdict::Refused(Refusal::TooOld { time }));
    }
    let header = found.facts;
    let facts = DumpFacts {
        database: header.database,
        begun,
        server_version: header.server_version,
        pg_dump_version: header.pg_dump_version,
        tables: header.tables,
        compression: header.compression,
        identity: header.identity,
    };
    // Only a file of the same size can be the same; only then is it worth reading.
    let size = found.clue.size_bytes;
    let same = |one: &&Known| {
        one.database == facts.database && one.size_bytes.is_none_or(|bytes| bytes == size)
    };
    let candidates: Vec<&Known> = known.iter().filter(same).collect();
    if candidates.is_empty() {
        return Ok(Verdict::Import(facts));
    }
    let hashed = survey::open(path)
        .and_then(|file| survey::sha256(&file, &request.interrupt).map_err(Refusal::Unreadable));
    interrupted(&request.interrupt)?;
    let sha256 = match hashed {
        Ok(sha256) => sha256,
        Err(refusal) => return Ok(Verdict::Refused(refusal)),
    };
    let there = candidates.into_iter().find(|one| one.sha256 == sha256);
    Ok(match there {
        Some(one) => Verdict::AlreadyThere(facts, one.id),
        None => Verdict::Import(facts),
    })
}
