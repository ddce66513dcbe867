//! What the tests of dumping and loading share: a dump written to a folder as `pg_restore -Fd` wants it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests; each binary uses its own part"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lifeboat_pg::archive::{self, DumpId};
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::dump::{CopyFailure, DumpError, DumpOptions, DumpSession, DumpUnit, UnitWork};
use lifeboat_pg::tools::{Tool, ToolFinder, Tools, Wanted};
use lifeboat_pg::{ConnInfo, ConnectOptions, Connection};
use lifeboat_testkit::{TestDatabase, TestServer};

pub fn info(url: &str) -> ConnInfo {
    ConnInfo::parse(url, &|_: &str| None::<String>).unwrap()
}

pub fn connect(url: &str) -> Connection {
    Connection::connect(&info(url), &ConnectOptions::default()).unwrap()
}

pub fn tools(server: &TestServer) -> Tools {
    let mut finder = ToolFinder::new(None);
    finder.bin_dir = Some(server.bin_dir().to_owned());
    finder
        .find(
            &[Tool::PgDump, Tool::PgDumpall, Tool::PgRestore],
            Wanted::AtLeast(server.major()),
        )
        .unwrap()
}

pub fn open(database: &TestDatabase<'_>) -> Result<DumpSession, DumpError> {
    open_as(database, &database.url(), &DumpOptions::default())
}

pub fn open_as(
    database: &TestDatabase<'_>,
    url: &str,
    options: &DumpOptions,
) -> Result<DumpSession, DumpError> {
    DumpSession::open(&info(url), &tools(database.server()), options)
}

/// What was read, by TOC entry.
pub type Censuses = BTreeMap<DumpId, RowCensus>;

/// Reads every unit, with `jobs` workers, into memory or nowhere.
pub fn read_all(
    session: &DumpSession,
    slice_blocks: u64,
    jobs: usize,
) -> Result<Censuses, DumpError> {
    let units = Mutex::new(session.plan(slice_blocks).into_iter());
    let censuses = Mutex::new(Censuses::new());
    std::thread::scope(|scope| {
        let work = || -> Result<(), DumpError> {
            let mut worker = session.worker()?;
            loop {
                let Some(unit) = units.lock().unwrap().next() else {
                    return Ok(());
                };
                let result = match &unit.work {
                    UnitWork::Table { .. } => worker.copy_out(&unit, |_| Ok::<(), Infallible>(())),
                    UnitWork::LargeObjects { oids } => {
                        worker.large_objects(oids, |_, _, _| Ok::<(), Infallible>(()))
                    }
                };
                let result = result.map_err(|failure| match failure {
                    CopyFailure::Dump(error) => error,
                    CopyFailure::Sink(never) => match never {},
                })?;
                *censuses.lock().unwrap().entry(unit.dump_id).or_default() += result.census;
            }
        };
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap())
    })?;
    Ok(censuses.into_inner().unwrap())
}

/// Writes a directory-format dump.
pub fn write_folder(session: &DumpSession, slice_blocks: u64, folder: &Path) -> Censuses {
    let mut toc = BufWriter::new(File::create_new(folder.join("toc.dat")).unwrap());
    session.archive().write_directory_toc(&mut toc).unwrap();
    toc.flush().unwrap();
    let mut units = session.plan(slice_blocks);
    // A file is written front to back here; an engine stores the parts in any order.
    units.sort_by_key(|unit| (unit.dump_id, unit.part));
    let mut worker = session.worker().unwrap();
    let mut censuses = Censuses::new();
    for unit in &units {
        let entry = session.archive().entry(unit.dump_id).unwrap();
        let path = folder.join(session.archive().data_file(entry).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        *censuses.entry(unit.dump_id).or_default() += match &unit.work {
            UnitWork::Table { .. } => {
                worker
                    .copy_out(unit, |bytes| file.write_all(bytes))
                    .unwrap()
                    .census
            }
            UnitWork::LargeObjects { oids } => write_blobs(&mut worker, oids, folder, &mut file),
        };
    }
    censuses
}

fn write_blobs(
    worker: &mut lifeboat_pg::dump::DumpWorker,
    oids: &[u32],
    folder: &Path,
    list: &mut File,
) -> RowCensus {
    let mut content = Vec::new();
    let result = worker.large_objects(oids, |oid, piece, last| {
        content.extend_from_slice(piece);
        if last {
            fs::write(folder.join(archive::blob_file(oid)), &content).unwrap();
            archive::write_blob_line(list, oid, &archive::blob_file(oid)).unwrap();
            content.clear();
        }
        Ok::<(), Infallible>(())
    });
    result.unwrap().census
}

/// Restores a folder with stock pg_restore.
pub fn pg_restore(server: &TestServer, folder: &Path, into: &str, options: &[&str]) {
    let output = Command::new(server.bin_dir().join("pg_restore"))
        .args(["--format=directory", "--exit-on-error", "--dbname", into])
        .args(options)
        .arg(folder)
        .envs(server.tool_env(into))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub fn table_units(session: &DumpSession, slice_blocks: u64) -> Vec<DumpUnit> {
    session
        .plan(slice_blocks)
        .into_iter()
        .filter(|unit| matches!(unit.work, UnitWork::Table { .. }))
        .collect()
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "waited in vain until {what}"
        );
        std::thread::yield_now();
    }
}
