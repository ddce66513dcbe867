//! The busy part of an import: several readers take entries of one archive off a queue, the largest first, each with
//! a thread of its own that stores what it decodes.
//!
//! Two threads for each, because the largest table of a dump is often most of it: while one decompresses and counts
//! rows, the other cuts, hashes and stores. Between them are a few batches, so memory depends on neither table nor
//! row.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lifeboat_pg::archive::{BlockSpan, Compression, DataStream, DumpId, EntryReader, TocEntry};
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::data_file::{DataRows, LargeObjectBytes};
use lifeboat_pg::migrations::{MIGRATION_TABLE_MAX_BYTES, is_migration_table};
use lifeboat_repo::RepositoryError;
use lifeboat_repo::chunker::ChunkSizes;
use lifeboat_repo::tree::FileContent;
use lifeboat_repo::writer::{Writer, WriterWorker};

use super::Refusal;
use super::contents::Table;
use super::refusal::FileError;
use super::survey::Survey;
use super::zone::RowZone;
use crate::event::{Event, Observer};

/// Decoded bytes are handed on in pieces of about this size.
const BATCH_BYTES: usize = 256 * 1024;
/// So many may be on their way from one thread to the other.
const BATCHES: usize = 4;
/// Progress is told in steps of at least this many bytes.
const PROGRESS_BYTES: u64 = 1 << 20;
/// How much pg_dump's compression usually saves. Only the sizes of chunks hang on it, so what counts is that it is
/// the same for every dump: then the next one is cut alike.
const USUAL_COMPRESSION: u64 = 5;

/// What the data of one entry became.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Rows and their hash; for large objects one "row" each.
    pub(super) census: RowCensus,
    /// Bytes, decompressed.
    pub(super) bytes: u64,
    /// The file of a table.
    pub(super) file: FileContent,
    /// The files of large objects by OID.
    pub(super) large_objects: BTreeMap<u32, FileContent>,
    /// The rows of what may be a migration table.
    pub(super) rows: Option<Vec<u8>>,
}

/// Everything that was read, and what its rows tell besides.
pub(super) struct LoadedDump {
    pub(super) entries: BTreeMap<DumpId, Loaded>,
    pub(super) zone: RowZone,
}

/// What the threads share.
struct Shared<'a> {
    survey: &'a Survey,
    tables: &'a BTreeMap<DumpId, Table>,
    queue: Mutex<VecDeque<(BlockSpan, &'a TocEntry)>>,
    done: Mutex<BTreeMap<DumpId, Loaded>>,
    zone: Mutex<RowZone>,
    failure: Mutex<Option<FileError>>,
    stop: AtomicBool,
    observer: &'a dyn Observer,
    chunk_sizes: ChunkSizes,
    total_bytes: u64,
}

/// Reads all data of the archive into the repository.
///
/// # Errors
/// The first failure of any thread; the others stop at their next batch.
pub(super) fn load(
    survey: &Survey,
    tables: &BTreeMap<DumpId, Table>,
    writer: &Writer,
    chunk_sizes: ChunkSizes,
    jobs: usize,
    observer: &dyn Observer,
) -> Result<LoadedDump, FileError> {
    let entries: BTreeMap<DumpId, &TocEntry> = survey
        .archive
        .data_entries()
        .map(|entry| (entry.dump_id, entry))
        .collect();
    let mut units: Vec<(BlockSpan, &TocEntry)> = survey
        .spans
        .iter()
        .filter_map(|span| Some((*span, *entries.get(&span.dump_id)?)))
        .collect();
    // What is begun last should be short.
    units.sort_by_key(|(span, _)| std::cmp::Reverse(span.end - span.start));
    let total_bytes = units.iter().map(|(span, _)| estimate(survey, *span)).sum();
    observer.event(&Event::TotalKnown {
        tables: units.len() as u64,
        bytes: total_bytes,
    });
    let threads = jobs.clamp(1, units.len().max(1));
    let shared = Shared {
        survey,
        tables,
        queue: Mutex::new(units.into()),
        done: Mutex::default(),
        zone: Mutex::default(),
        failure: Mutex::default(),
        stop: AtomicBool::new(false),
        observer,
        chunk_sizes,
        total_bytes,
    };
    let mut sinks = Vec::with_capacity(threads);
    for _ in 0..threads {
        sinks.push(writer.worker()?);
    }
    std::thread::scope(|scope| {
        for sink in sinks {
            let (pipe, outlet) = pipe();
            scope.spawn(|| shared.run(|| read(&shared, pipe)));
            scope.spawn(|| shared.run(|| store(sink, outlet)));
        }
    });
    if let Some(error) = lock(&shared.failure).take() {
        return Err(error);
    }
    Ok(LoadedDump {
        entries: shared
            .done
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
        zone: shared
            .zone
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// About how many bytes an entry holds, decompressed.
fn estimate(survey: &Survey, span: BlockSpan) -> u64 {
    let stored = span.end - span.start;
    match survey.archive.header.compression {
        Compression::None => stored,
        _ => stored.saturating_mul(USUAL_COMPRESSION),
    }
}

/// Why a thread stopped.
enum Stopped {
    /// For a reason of its own.
    For(FileError),
    /// Because another one did, and has said why.
    Elsewhere,
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::For(refusal.into())
    }
}

impl From<RepositoryError> for Stopped {
    fn from(error: RepositoryError) -> Self {
        Self::For(error.into())
    }
}

impl Shared<'_> {
    fn run(&self, work: impl FnOnce() -> Result<(), Stopped>) {
        match work() {
            Ok(()) => {}
            Err(stopped) => {
                // In this order: a thread that sees the flag must find the reason already there.
                if let Stopped::For(error) = stopped {
                    lock(&self.failure).get_or_insert(error);
                }
                self.stop.store(true, Ordering::Release);
            }
        }
    }
}

fn read(shared: &Shared<'_>, mut pipe: Pipe) -> Result<(), Stopped> {
    let mut reader: Option<EntryReader<Part<'_>>> = None;
    while !shared.stop.load(Ordering::Acquire) {
        let Some((span, entry)) = lock(&shared.queue).pop_front() else {
            break;
        };
        let source = Part {
            file: &shared.survey.file,
            at: span.start,
            end: span.end,
        };
        let reader = match &mut reader {
            Some(reader) => {
                reader
                    .move_to(source, entry, span.start)
                    .map_err(Refusal::from)?;
                reader
            }
            empty => {
                let header = &shared.survey.archive.header;
                let new = EntryReader::new(source, header, entry, span.start);
                empty.insert(new.map_err(Refusal::from)?)
            }
        };
        let table = shared.tables.get(&entry.dump_id);
        let name = table.map_or_else(
            || "large objects".to_owned(),
            |table| table.name.to_string(),
        );
        let bytes = estimate(shared.survey, span);
        shared.observer.event(&Event::TableStarted {
            table: name.clone(),
            bytes,
        });
        let unit = Unit {
            shared,
            name: &name,
        };
        // As a backup has it: each large object is a file of its own, and small.
        let file_bytes = table.map_or(0, |_| bytes);
        let sizes = shared.chunk_sizes.for_file(file_bytes, shared.total_bytes);
        let loaded = match table {
            Some(table) => unit.table(reader, table, sizes, &mut pipe)?,
            None => unit.large_objects(reader, sizes, &mut pipe)?,
        };
        shared.observer.event(&Event::TableFinished {
            table: name,
            rows: loaded.census.rows(),
            bytes: loaded.bytes,
        });
        lock(&shared.done).insert(entry.dump_id, loaded);
    }
    Ok(())
}

struct Unit<'a, 's> {
    shared: &'a Shared<'s>,
    name: &'a str,
}

impl Unit<'_, '_> {
    fn table(
        &self,
        reader: &mut EntryReader<Part<'_>>,
        table: &Table,
        sizes: ChunkSizes,
        pipe: &mut Pipe,
    ) -> Result<Loaded, Stopped> {
        let malformed = |source| Refusal::Rows {
            table: self.name.to_owned(),
            source,
        };
        let mut kept = is_migration_table(&table.name.name).then(Vec::new);
        let mut zone = RowZone::of_table(&self.shared.survey.archive, &table.name, &table.columns);
        let mut rows = DataRows::default();
        pipe.begin(sizes)?;
        let bytes = self.each_slice(&mut reader.rows().map_err(Refusal::from)?, |slice| {
            rows.push(slice, |row| zone.look_at(row))
                .map_err(malformed)?;
            if let Some(rows) = &mut kept
                && rows.len() <= MIGRATION_TABLE_MAX_BYTES
            {
                rows.extend_from_slice(slice);
            }
            pipe.push(slice)
        })?;
        let census = rows.finish().map_err(malformed)?;
        lock(&self.shared.zone).merge(zone);
        Ok(Loaded {
            census,
            bytes,
            file: pipe.end()?,
            large_objects: BTreeMap::new(),
            rows: kept,
        })
    }

    fn large_objects(
        &self,
        reader: &mut EntryReader<Part<'_>>,
        sizes: ChunkSizes,
        pipe: &mut Pipe,
    ) -> Result<Loaded, Stopped> {
        let mut loaded = Loaded::default();
        while let Some((oid, mut stream)) = reader.next_blob().map_err(Refusal::from)? {
            let mut object = LargeObjectBytes::default();
            let mut parts = Vec::new();
            pipe.begin(sizes)?;
            let mut in_part = 0;
            loaded.bytes += self.each_slice(&mut stream, |mut slice| {
                object.push(slice);
                // A backup cuts large objects anew at these places: what it stored is to be found again.
                while in_part + slice.len() >= super::LARGE_OBJECT_PART_BYTES {
                    let (head, rest) = slice.split_at(super::LARGE_OBJECT_PART_BYTES - in_part);
                    pipe.push(head)?;
                    parts.push(pipe.end()?);
                    pipe.begin(sizes)?;
                    (slice, in_part) = (rest, 0);
                }
                in_part += slice.len();
                pipe.push(slice)
            })?;
            parts.push(pipe.end()?);
            loaded.census += object.finish(oid);
            let content = FileContent::concat(parts);
            if loaded.large_objects.insert(oid, content).is_some() {
                return Err(Refusal::Twice { oid }.into());
            }
        }
        Ok(loaded)
    }

    /// Reads a stream to its end, and returns its length.
    fn each_slice(
        &self,
        stream: &mut DataStream<'_, Part<'_>>,
        mut take: impl FnMut(&[u8]) -> Result<(), Stopped>,
    ) -> Result<u64, Stopped> {
        let (mut total, mut untold) = (0, 0);
        let tell = |bytes| {
            self.shared.observer.event(&Event::TableProgress {
                table: self.name.to_owned(),
                bytes,
            });
        };
        while let Some(slice) = stream.next_slice().map_err(Refusal::from)? {
            total += slice.len() as u64;
            untold += slice.len() as u64;
            take(slice)?;
            if untold >= PROGRESS_BYTES {
                if self.shared.stop.load(Ordering::Acquire) {
                    return Err(Stopped::Elsewhere);
                }
                tell(untold);
                untold = 0;
            }
        }
        if untold > 0 {
            tell(untold);
        }
        Ok(total)
    }
}

/// One block of a file, read at its place: threads that share a file do not move each other about, and none reads
/// into what belongs to another.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let room = out.len().min(left);
        let count = self.file.read_at(&mut out[..room], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// What one thread tells the other.
enum Message {
    Begin(ChunkSizes),
    Bytes(Vec<u8>),
    End,
}

/// The reader's end.
struct Pipe {
    messages: SyncSender<Message>,
    files: Receiver<FileContent>,
    /// Batches that were stored: their memory is used again.
    empty: Receiver<Vec<u8>>,
    batch: Vec<u8>,
}

/// The storing thread's end.
struct Outlet {
    messages: Receiver<Message>,
    files: SyncSender<FileContent>,
    empty: std::sync::mpsc::Sender<Vec<u8>>,
}

fn pipe() -> (Pipe, Outlet) {
    let (to, messages) = sync_channel(BATCHES);
    let (files, from) = sync_channel(1);
    let (back, empty) = channel();
    let pipe = Pipe {
        messages: to,
        files: from,
        empty,
        batch: Vec::with_capacity(BATCH_BYTES),
    };
    let outlet = Outlet {
        messages,
        files,
        empty: back,
    };
    (pipe, outlet)
}

impl Pipe {
    fn send(&self, message: Message) -> Result<(), Stopped> {
        self.messages.send(message).map_err(|_| Stopped::Elsewhere)
    }

    fn begin(&mut self, sizes: ChunkSizes) -> Result<(), Stopped> {
        self.batch.clear();
        self.send(Message::Begin(sizes))
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while self.batch.len() + bytes.len() >= BATCH_BYTES {
            let (head, rest) = bytes.split_at(BATCH_BYTES - self.batch.len());
            self.batch.extend_from_slice(head);
            bytes = rest;
            self.flush()?;
        }
        self.batch.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        let next = match self.empty.try_recv() {
            Ok(mut batch) => {
                batch.clear();
                batch
            }
            Err(TryRecvError::Empty) => Vec::with_capacity(BATCH_BYTES),
            Err(TryRecvError::Disconnected) => return Err(Stopped::Elsewhere),
        };
        let batch = std::mem::replace(&mut self.batch, next);
        self.send(Message::Bytes(batch))
    }

    fn end(&mut self) -> Result<FileContent, Stopped> {
        if !self.batch.is_empty() {
            self.flush()?;
        }
        self.send(Message::End)?;
        self.files.recv().map_err(|_| Stopped::Elsewhere)
    }
}

fn store(mut sink: WriterWorker, outlet: Outlet) -> Result<(), Stopped> {
    // The reader's end goes away when it is done, and when it failed: then it has said why.
    while let Ok(message) = outlet.messages.recv() {
        let Message::Begin(sizes) = message else {
            continue;
        };
        let mut file = sink.file_with(sizes);
        loop {
            match outlet.messages.recv() {
                Ok(Message::Bytes(bytes)) => {
                    file.push(&bytes)?;
                    // A reader that is gone needs none.
                    let _ = outlet.empty.send(bytes);
                }
                Ok(Message::End) => break,
                Ok(Message::Begin(_)) | Err(_) => return Err(Stopped::Elsewhere),
            }
        }
        if outlet.files.send(file.finish()?).is_err() {
            return Err(Stopped::Elsewhere);
        }
    }
    sink.finish()?;
    Ok(())
}
