//! Taking a backup: a consistent snapshot of one database, into the repository.
//!
//! The leader's session holds the locks and the snapshot; workers read tables, or ranges of big ones, through
//! it and push the rows straight into the repository's writer. Nothing is queued between the socket and
//! the pack, so memory does not depend on the size of a table.
//!
//! The invariant: a backup either exists whole or not at all. The snapshot file is written last, after the
//! leader has shown that its transaction, and with it the locks and the snapshot, lived to the end. Whatever
//! fails before leaves packs that nothing refers to, and the next run finds the repository as if nothing had
//! been tried.

pub(crate) mod contents;
mod dump;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_pg::archive::ArchiveError;
use lifeboat_pg::conninfo::ConnInfo;
use lifeboat_pg::dump::{DumpError, DumpOptions, DumpSession, Globals};
use lifeboat_pg::migrations::{MigrationHistory, read_migrations};
use lifeboat_pg::tools::{Tool, ToolError, ToolFinder, Tools, Wanted};
use lifeboat_pg::wire::PgError;
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::storage::StorageErrorKind;
use lifeboat_repo::writer::{SnapshotDraft, Writer, WriterOptions};
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::catalog::{BackupSummary, DATABASE_TAG, TAG};
use crate::event::{Event, Observer, Stage, StageTime, Stages};
use crate::locking;
use crate::manifest::Manifest;

pub(crate) use dump::LARGE_OBJECT_PART_BYTES;

/// PostgreSQL's usual page size. Servers built with another one only get other slices.
const BLOCK_BYTES: u64 = 8192;

/// What to back up, and how.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The name that the backup is listed by: the configuration's, or the database's own.
    pub database: String,
    /// The database.
    pub conninfo: ConnInfo,
    /// How `pg_dump` and `pg_dumpall` are found.
    pub tools: ToolFinder,
    /// How many sessions read tables at once.
    pub jobs: usize,
    /// zstd's level.
    pub compression_level: i32,
    /// How much of a big table's heap one worker reads at a time, in bytes. Changing it moves the borders
    /// between slices, which costs some deduplication once.
    pub slice_bytes: u64,
    /// How long to wait for the tables' locks.
    pub lock_timeout: Duration,
    /// How long to wait while somebody removes data from the repository.
    pub lock_patience: Duration,
    /// This host, recorded in the backup.
    pub hostname: String,
    /// The user who takes the backup, recorded in it.
    pub username: String,
    /// Set to stop.
    pub interrupt: Arc<AtomicBool>,
}

/// A backup that exists: its snapshot file is durable.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// Its ID.
    pub id: SnapshotId,
    /// The database's name in listings.
    pub database: String,
    /// The time of its database snapshot.
    pub snapshot_time: Timestamp,
    /// Tables with data.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes read from the server: rows and large objects.
    pub bytes_read: u64,
    /// Bytes added to the repository, metadata included.
    pub new_bytes: u64,
    /// The newest applied migration.
    pub migration: Option<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// The stages and their times.
    pub stages: Vec<StageTime>,
    /// Seconds from the beginning to the end.
    pub seconds: f64,
}

/// Why there is no new backup. In every case nothing was added to the list of backups, and the next run needs
/// no clean-up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The server could not be reached.
    #[error(transparent)]
    Connect(PgError),
    /// The tools could not be found or are too old.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// The database could not be read or locked.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The table of contents could not be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What was read and what should have been read do not fit together.
    #[error("{0}")]
    Inconsistent(String),
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
}

impl BackupError {
    /// Whether the repository had no room for it.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::Repository(RepositoryError::Storage(error)) if error.kind() == StorageErrorKind::NoSpace)
    }
}

/// Takes a backup.
///
/// # Errors
/// [`BackupError`]; there is no backup then, and nothing to clean up.
pub fn execute(
    repository: &Repository,
    request: &BackupRequest,
    observer: &dyn Observer,
) -> Result<BackupReport, BackupError> {
    match take(repository, request, observer) {
        // Whatever broke first when the operator pressed Ctrl-C, the reason is the operator.
        Err(_) if request.interrupt.load(Ordering::Relaxed) => Err(BackupError::Interrupted),
        other => other,
    }
}

fn take(
    repository: &Repository,
    request: &BackupRequest,
    observer: &dyn Observer,
) -> Result<BackupReport, BackupError> {
    let started = Instant::now();
    let lock = locking::lock(
        repository,
        LockMode::Shared,
        (&request.hostname, &request.username),
        request.lock_patience,
        &request.interrupt,
        observer,
    )?;
    let parent = newest(repository, &request.database)?;
    let mut stages = Stages::new(observer);
    let session = stages.run(Stage::Snapshot, || open(request))?;
    let mut warnings = warnings(session.globals());
    // A migration table that cannot be understood is no reason to have no backup.
    let migrations = read_migrations(&mut session.leader()).unwrap_or_else(|error| {
        warnings.push(format!("the migration tables could not be read: {error}"));
        Vec::new()
    });
    for message in &warnings {
        observer.event(&Event::Warning {
            message: message.clone(),
        });
    }

    let writer = repository.writer(WriterOptions {
        compression_level: request.compression_level,
        interrupt: Arc::clone(&request.interrupt),
        ..WriterOptions::default()
    })?;
    let units = session.plan(request.slice_bytes / BLOCK_BYTES);
    let dumped = stages.run(Stage::Dump, || {
        let chunk_sizes = repository.chunk_sizes();
        dump::dump(
            &session,
            units,
            &writer,
            chunk_sizes,
            request.jobs,
            observer,
        )
    });
    let dumped = match dumped {
        Ok(dumped) => dumped,
        Err(error) => {
            // The packs that were finished are good: with an index, the next run finds them and does not store
            // them again. That this may fail too (the disk is full) changes nothing. Once the lock is lost they may be
            // gone, and an index that names them would be damage.
            if lock.check().is_ok() {
                let _ = writer.abandon();
            }
            return Err(error);
        }
    };
    let mut report = stages.run(Stage::Commit, || {
        let (root, manifest) =
            contents::assemble(request, &session, &writer, dumped, migrations, &warnings)?;
        // Only now is it known that the locks and the snapshot held to the last row.
        session.finish()?;
        // A lock that somebody took for stale and removed no longer protects our packs from a prune.
        lock.verify().map_err(RepositoryError::from)?;
        let report = commit(writer, request, &root, manifest, warnings, parent, started)?;
        // Nobody may have taken the lock for stale between the two: then a prune may have removed what this backup
        // counts on, and a backup with a hole must not stand.
        if lock.verify().is_err()
            && !repository.remove_unless_whole(report.id, &lock, &request.interrupt)?
        {
            return Err(BackupError::Inconsistent(
                "data was removed from the repository while the backup was made".to_owned(),
            ));
        }
        Ok::<_, BackupError>(report)
    })?;
    report.stages = stages.into_times();
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The newest backup there is of this database: the one this one comes after, whatever the clocks say.
fn newest(repository: &Repository, database: &str) -> Result<Option<SnapshotId>, BackupError> {
    // A snapshot that cannot be read is in no new backup's way.
    let (snapshots, _) = repository.snapshots()?;
    let (backups, _) = crate::catalog::backups_of(snapshots);
    let own = backups.into_iter().filter(|one| one.database == database);
    Ok(own.max_by_key(|one| one.time).map(|one| one.first_id()))
}

/// Finds the tools for the server's version and opens the dump.
fn open(request: &BackupRequest) -> Result<DumpSession, BackupError> {
    let tools = tools_for(request)?;
    let options = DumpOptions {
        lock_timeout: request.lock_timeout,
        interrupt: Arc::clone(&request.interrupt),
        application_name: "lifeboat backup".to_owned(),
    };
    Ok(DumpSession::open(&request.conninfo, &tools, &options)?)
}

fn tools_for(request: &BackupRequest) -> Result<Tools, BackupError> {
    let major =
        crate::server_major(&request.conninfo, &request.interrupt).map_err(BackupError::Connect)?;
    Ok(request
        .tools
        .find(&[Tool::PgDump, Tool::PgDumpall], Wanted::AtLeast(major))?)
}

fn warnings(globals: &Globals) -> Vec<String> {
    match globals {
        Globals::Whole { .. } => Vec::new(),
        Globals::WithoutPasswords { .. } => vec![
            "roles are backed up without their passwords: reading those takes a superuser"
                .to_owned(),
        ],
        Globals::Unavailable { reason } => {
            vec![format!("roles are not in this backup: {reason}")]
        }
    }
}

/// Makes the backup exist.
fn commit(
    writer: Writer,
    request: &BackupRequest,
    root: &lifeboat_repo::tree::Directory,
    manifest: Manifest,
    warnings: Vec<String>,
    parent: Option<SnapshotId>,
    started: Instant,
) -> Result<BackupReport, BackupError> {
    let newest = manifest
        .migrations
        .iter()
        .find_map(|history| history.current.clone());
    let summary = BackupSummary {
        tables: manifest.tables.len() as u64,
        rows: manifest.rows(),
        data_bytes: manifest.data_bytes(),
        server_version_num: manifest.server.version_num,
        migration: newest.clone(),
        migration_trouble: manifest
            .migrations
            .iter()
            .any(MigrationHistory::has_trouble),
        seconds: started.elapsed().as_secs_f64(),
        imported_bytes: None,
    };
    let (snapshot, stats) = writer.commit(
        root,
        SnapshotDraft {
            parent,
            time: manifest.snapshot_time,
            hostname: request.hostname.clone(),
            username: request.username.clone(),
            paths: vec![format!("/{}", request.database)],
            tags: vec![
                TAG.to_owned(),
                format!("{DATABASE_TAG}{}", request.database),
            ],
            worked: Some((manifest.snapshot_time, Timestamp::now())),
            extra: serde_json::to_value(&summary).ok(),
        },
    )?;
    Ok(BackupReport {
        id: snapshot.id,
        database: request.database.clone(),
        snapshot_time: snapshot.time,
        tables: summary.tables,
        rows: summary.rows,
        bytes_read: summary.data_bytes,
        new_bytes: stats.bytes_stored_new,
        migration: newest,
        warnings,
        stages: Vec::new(),
        seconds: 0.0,
    })
}
