//! What is to be done with each file, by its first pages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use super::clock::{self, Begun};
use super::survey::{self, Identity};
use super::{
    DumpFacts, DumpHeader, ImportError, ImportPlan, ImportRequest, PlannedFile, Refusal, There,
    Verdict, contents,
};
use crate::catalog::{self, Backup, IMPORTED_TAG};
use crate::dump_folder;

/// No archive of a version that is read here can be older: PostgreSQL 9.0 was not begun yet.
const OLDEST: i64 = 1_230_768_000;

/// A backup that was imported before.
pub(super) struct Known {
    pub(super) database: String,
    pub(super) sha256: String,
    /// The size of its file; unknown when another tool rewrote the snapshot.
    pub(super) size_bytes: Option<u64>,
    pub(super) id: SnapshotId,
    pub(super) time: Timestamp,
}

impl Known {
    pub(super) fn of(backup: &Backup) -> Option<Self> {
        let mut tags = backup.snapshot.tags.iter();
        let sha256 = tags.find_map(|tag| tag.strip_prefix(IMPORTED_TAG))?;
        Some(Self {
            database: backup.database.clone(),
            sha256: sha256.to_owned(),
            size_bytes: backup.summary.as_ref().and_then(|one| one.imported_bytes),
            id: backup.id,
            time: backup.time,
        })
    }
}

/// Every backup there is.
pub(super) fn backups(repository: &Repository) -> Result<Vec<Backup>, RepositoryError> {
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
    one_database(&opened, request)?;
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

/// Dumps of several databases under one name would be one history that never was.
fn one_database(opened: &[Opened], request: &ImportRequest) -> Result<(), ImportError> {
    let found = opened.iter().filter_map(|one| one.found.as_ref().ok());
    let names: BTreeSet<&str> = found.map(|found| found.header.own_name.as_str()).collect();
    if request.database.is_none() || names.len() < 2 {
        return Ok(());
    }
    let names: Vec<&str> = names.into_iter().collect();
    Err(ImportError::SeveralDatabases {
        names: names.join(", "),
    })
}

pub(super) fn interrupted(flag: &AtomicBool) -> Result<(), ImportError> {
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
        let mut found = dump_folder::matching(path, pattern).map_err(|source| {
            let folder = path.clone();
            ImportError::Folder { folder, source }
        })?;
        if found.is_empty() {
            return Err(ImportError::NoMatch {
                folder: path.clone(),
                pattern: pattern.to_owned(),
            });
        }
        found.sort();
        files.append(&mut found);
    }
    let mut seen = BTreeSet::new();
    files.retain(|path| seen.insert(path.clone()));
    Ok(files)
}

struct Opened {
    path: PathBuf,
    size_bytes: u64,
    found: Result<Found, Refusal>,
}

struct Found {
    header: DumpHeader,
    clue: clock::Clue,
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
    let own_name = text(&header.database);
    let configured = request.names.get(&own_name).map_or(&[][..], Vec::as_slice);
    let database = match (&request.database, configured) {
        (Some(name), _) | (None, [name]) => name.clone(),
        (None, []) if own_name.is_empty() => return Err(Refusal::NoDatabase),
        (None, []) => own_name.clone(),
        (None, names) => {
            return Err(Refusal::Ambiguous {
                database: own_name,
                names: names.join(", "),
            });
        }
    };
    let modified = meta.modified().ok();
    Ok(Found {
        header: DumpHeader {
            database,
            own_name,
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
    let facts = DumpFacts {
        header: found.header,
        begun,
    };
    // Only a file of the same size can be the same; only then is it worth reading.
    let size = found.clue.size_bytes;
    let same = |one: &&Known| {
        one.database == facts.header.database && one.size_bytes.is_none_or(|bytes| bytes == size)
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
        Some(one) => Verdict::AlreadyThere(
            facts,
            There {
                id: one.id,
                time: one.time,
            },
        ),
        None => Verdict::Import(facts),
    })
}
