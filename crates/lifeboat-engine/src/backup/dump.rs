//! The busy part of a backup: several threads, each with its own session and its own share of the repository's
//! writer, take units of the dump off one queue until none is left or one of them fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lifeboat_pg::archive::DumpId;
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::dump::{
    CopyFailure, DumpError, DumpSession, DumpUnit, DumpWorker, UnitResult, UnitWork,
};
use lifeboat_repo::RepositoryError;
use lifeboat_repo::chunker::ChunkSizes;
use lifeboat_repo::tree::FileContent;
use lifeboat_repo::writer::{Writer, WriterWorker};

use super::BackupError;
use crate::event::{Event, Observer};

/// Progress is told in steps of at least this many bytes, so that telling it costs nothing.
const PROGRESS_BYTES: u64 = 1 << 20;

/// What the data of one entry of the table of contents became.
#[derive(Debug, Default)]
pub(super) struct DumpedEntry {
    /// Rows and their hash; for large objects one "row" each.
    pub census: RowCensus,
    /// Bytes read.
    pub bytes: u64,
    /// The file of a table, in its slices' order.
    pub file: FileContent,
    /// The files of large objects by OID.
    pub large_objects: BTreeMap<u32, FileContent>,
}

/// The finished units of one entry.
struct Parts {
    name: String,
    missing: u32,
    bytes_expected: u64,
    results: BTreeMap<u32, UnitResult>,
    files: BTreeMap<u32, FileContent>,
    large_objects: BTreeMap<u32, FileContent>,
}

/// What the threads share.
struct Shared<'a> {
    queue: Mutex<VecDeque<DumpUnit>>,
    entries: Mutex<BTreeMap<DumpId, Parts>>,
    failure: Mutex<Option<BackupError>>,
    stop: AtomicBool,
    observer: &'a dyn Observer,
    /// The repository's.
    chunk_sizes: ChunkSizes,
    /// Expected of all entries together.
    total_bytes: u64,
}

/// Reads all units into the repository.
///
/// # Errors
/// The first failure of any thread; the others stop at their next batch of rows.
pub(super) fn dump(
    session: &DumpSession,
    units: Vec<DumpUnit>,
    writer: &Writer,
    chunk_sizes: ChunkSizes,
    jobs: usize,
    observer: &dyn Observer,
) -> Result<BTreeMap<DumpId, DumpedEntry>, BackupError> {
    let entries = expected_entries(&units);
    let total_bytes = entries.values().map(|entry| entry.bytes_expected).sum();
    observer.event(&Event::TotalKnown {
        tables: entries.len() as u64,
        bytes: total_bytes,
    });
    let threads = jobs.clamp(1, units.len().max(1));
    let shared = Shared {
        queue: Mutex::new(units.into()),
        entries: Mutex::new(entries),
        failure: Mutex::new(None),
        stop: AtomicBool::new(false),
        observer,
        chunk_sizes,
        total_bytes,
    };
    // All sessions are opened before the first row is read: a server that is out of connections is to fail
    // the backup in its first second, not in the middle.
    let mut workers = Vec::with_capacity(threads);
    for _ in 0..threads {
        workers.push((session.worker()?, writer.worker()?));
    }
    std::thread::scope(|scope| {
        for (source, sink) in workers {
            scope.spawn(|| {
                if let Err(error) = work(&shared, source, sink) {
                    // In this order: a thread that sees the flag must find the reason already there.
                    lock(&shared.failure).get_or_insert(error);
                    shared.stop.store(true, Ordering::Release);
                }
            });
        }
    });
    if let Some(error) = lock(&shared.failure).take() {
        return Err(error);
    }
    let entries = shared
        .entries
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    entries
        .into_iter()
        .map(|(dump_id, parts)| parts.join().map(|entry| (dump_id, entry)))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn expected_entries(units: &[DumpUnit]) -> BTreeMap<DumpId, Parts> {
    let mut entries: BTreeMap<DumpId, Parts> = BTreeMap::new();
    for unit in units {
        let entry = entries.entry(unit.dump_id).or_insert_with(|| Parts {
            name: match &unit.work {
                UnitWork::Table { table, .. } => table.to_string(),
                UnitWork::LargeObjects { .. } => "large objects".to_owned(),
            },
            missing: unit.parts,
            bytes_expected: 0,
            results: BTreeMap::new(),
            files: BTreeMap::new(),
            large_objects: BTreeMap::new(),
        });
        entry.bytes_expected += unit.estimated_bytes;
    }
    entries
}

impl Parts {
    fn join(self) -> Result<DumpedEntry, BackupError> {
        if self.missing > 0 {
            return Err(BackupError::Inconsistent(format!(
                "{} parts of {} were never read",
                self.missing, self.name
            )));
        }
        Ok(DumpedEntry {
            census: self.results.values().map(|result| result.census).sum(),
            bytes: self.results.values().map(|result| result.bytes).sum(),
            file: FileContent::concat(self.files.into_values()),
            large_objects: self.large_objects,
        })
    }
}

fn work(
    shared: &Shared<'_>,
    mut source: DumpWorker,
    mut sink: WriterWorker,
) -> Result<(), BackupError> {
    while !shared.stop.load(Ordering::Acquire) {
        let Some(unit) = lock(&shared.queue).pop_front() else {
            break;
        };
        let (name, started) = begin(shared, &unit);
        if let Some(bytes) = started {
            shared.observer.event(&Event::TableStarted {
                table: name.clone(),
                bytes,
            });
        }
        match &unit.work {
            UnitWork::Table { .. } => read_table(shared, &unit, &name, &mut source, &mut sink)?,
            UnitWork::LargeObjects { oids } => {
                read_large_objects(shared, &unit, oids, &name, &mut source, &mut sink)?;
            }
        }
    }
    sink.finish()?;
    Ok(())
}

impl Shared<'_> {
    /// How this unit's bytes are cut. The same for all slices of a table, which become one file; each large
    /// object is a file of its own.
    fn chunk_sizes(&self, unit: &DumpUnit) -> ChunkSizes {
        let file_bytes = match unit.work {
            UnitWork::Table { .. } => lock(&self.entries)
                .get(&unit.dump_id)
                .map_or(0, |entry| entry.bytes_expected),
            UnitWork::LargeObjects { .. } => 0,
        };
        self.chunk_sizes.for_file(file_bytes, self.total_bytes)
    }
}

/// The entry's name and, when this is the first of its units to begin, the bytes expected of it.
fn begin(shared: &Shared<'_>, unit: &DumpUnit) -> (String, Option<u64>) {
    let entries = lock(&shared.entries);
    entries
        .get(&unit.dump_id)
        .map(|entry| {
            (
                entry.name.clone(),
                (unit.part == 0).then_some(entry.bytes_expected),
            )
        })
        .unwrap_or_default()
}

fn read_table(
    shared: &Shared<'_>,
    unit: &DumpUnit,
    name: &str,
    source: &mut DumpWorker,
    sink: &mut WriterWorker,
) -> Result<(), BackupError> {
    let mut file = sink.file_with(shared.chunk_sizes(unit));
    let mut progress = Progress::new(shared, name);
    let result = source
        .copy_out(unit, |rows| {
            progress.add(rows.len())?;
            file.push(rows).map_err(SinkError::Repository)
        })
        .map_err(BackupError::from)?;
    progress.finish();
    let file = file.finish()?;
    finish(shared, unit, result, Some(file), BTreeMap::new());
    Ok(())
}

fn read_large_objects(
    shared: &Shared<'_>,
    unit: &DumpUnit,
    oids: &[u32],
    name: &str,
    source: &mut DumpWorker,
    sink: &mut WriterWorker,
) -> Result<(), BackupError> {
    let chunk_sizes = shared.chunk_sizes(unit);
    let mut progress = Progress::new(shared, name);
    let mut files = BTreeMap::new();
    // An object's pieces come one after the other, but the file that takes them cannot be kept open between
    // two calls: pieces are gathered up to this size and objects beyond it become several parts of one file.
    let mut gathered: Vec<u8> = Vec::new();
    let mut parts: Vec<FileContent> = Vec::new();
    let result = source
        .large_objects(oids, |oid, piece, last| {
            progress.add(piece.len())?;
            gathered.extend_from_slice(piece);
            if last || gathered.len() >= LARGE_OBJECT_PART_BYTES {
                let mut file = sink.file_with(chunk_sizes);
                file.push(&gathered).map_err(SinkError::Repository)?;
                gathered.clear();
                parts.push(file.finish().map_err(SinkError::Repository)?);
            }
            if last {
                files.insert(oid, FileContent::concat(std::mem::take(&mut parts)));
            }
            Ok::<_, SinkError>(())
        })
        .map_err(BackupError::from)?;
    progress.finish();
    finish(shared, unit, result, None, files);
    Ok(())
}

/// How much of a large object is gathered before it is stored.
pub(crate) const LARGE_OBJECT_PART_BYTES: usize = 8 << 20;

fn finish(
    shared: &Shared<'_>,
    unit: &DumpUnit,
    result: UnitResult,
    file: Option<FileContent>,
    large_objects: BTreeMap<u32, FileContent>,
) {
    let mut entries = lock(&shared.entries);
    let Some(entry) = entries.get_mut(&unit.dump_id) else {
        return;
    };
    entry.results.insert(unit.part, result);
    if let Some(file) = file {
        entry.files.insert(unit.part, file);
    }
    entry.large_objects.extend(large_objects);
    entry.missing -= 1;
    if entry.missing == 0 {
        let event = Event::TableFinished {
            table: entry.name.clone(),
            rows: entry.results.values().map(|part| part.census.rows()).sum(),
            bytes: entry.results.values().map(|part| part.bytes).sum(),
        };
        drop(entries);
        shared.observer.event(&event);
    }
}

/// Counts bytes and tells the observer about them now and then.
struct Progress<'a> {
    shared: &'a Shared<'a>,
    table: &'a str,
    untold: u64,
}

impl<'a> Progress<'a> {
    fn new(shared: &'a Shared<'a>, table: &'a str) -> Self {
        Self {
            shared,
            table,
            untold: 0,
        }
    }

    /// Also the place at which a thread notices that another one failed.
    #[inline]
    fn add(&mut self, bytes: usize) -> Result<(), SinkError> {
        self.untold += bytes as u64;
        if self.untold >= PROGRESS_BYTES {
            if self.shared.stop.load(Ordering::Acquire) {
                return Err(SinkError::Stopped);
            }
            self.tell();
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.shared.observer.event(&Event::TableProgress {
            table: self.table.to_owned(),
            bytes: std::mem::take(&mut self.untold),
        });
    }

    fn finish(mut self) {
        if self.untold > 0 {
            self.tell();
        }
    }
}

/// Why the repository's side took no more bytes.
#[derive(Debug, thiserror::Error)]
enum SinkError {
    #[error(transparent)]
    Repository(RepositoryError),
    /// Another thread has failed, and has said why.
    #[error("stopped")]
    Stopped,
}

impl From<CopyFailure<SinkError>> for BackupError {
    fn from(failure: CopyFailure<SinkError>) -> Self {
        match failure {
            CopyFailure::Dump(DumpError::Interrupted) => Self::Interrupted,
            CopyFailure::Dump(error) => Self::Dump(error),
            CopyFailure::Sink(SinkError::Repository(error)) => Self::Repository(error),
            // Never the first failure, so never the one that is told.
            CopyFailure::Sink(SinkError::Stopped) => Self::Interrupted,
        }
    }
}
