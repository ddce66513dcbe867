//! Making backups of the files of a plan, one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use lifeboat_pg::archive::DumpId;
use lifeboat_pg::migrations::{MigrationHistory, from_copied_rows};
use lifeboat_repo::lock::{LockGuard, LockMode};
use lifeboat_repo::tree::Directory;
use lifeboat_repo::writer::{SnapshotDraft, Writer, WriterOptions};
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use super::contents::{self, Table};
use super::load::{self, LoadedDump};
use super::plan::{self, Known};
use super::refusal::FileError;
use super::survey::Survey;
use super::zone::{self, RowsTold};
use super::{
    DumpFacts, FileOutcome, FileReport, ImportError, ImportPlan, ImportReport, ImportRequest,
    Imported, Refusal, Verdict,
};
use crate::backup::contents::{data_file, insert, insert_large_objects, store};
use crate::catalog::{BackupSummary, DATABASE_TAG, IMPORTED_TAG, TAG};
use crate::event::{Event, FileResult, Observer};
use crate::history;
use crate::journal::{Journal, Outcome, RunKind};
use crate::locking;
use crate::manifest::{
    ImportedFrom, LargeObjectsRecord, MANIFEST_PATH, MANIFEST_SCHEMA, Manifest, TOC_PATH,
    TableRecord,
};

/// Imports the files of a plan. Each that succeeds is noted in the journal: that is how `expire` knows later that
/// a backup was rightly stored long after its own date.
pub fn execute(
    repository: &Repository,
    journal: &Journal,
    plan: ImportPlan,
    request: &ImportRequest,
    observer: &dyn Observer,
) -> ImportReport {
    let started = Instant::now();
    let mut report = ImportReport {
        files: Vec::with_capacity(plan.files.len()),
        stopped: None,
        seconds: 0.0,
    };
    let is_import = |verdict: &Verdict| matches!(verdict, Verdict::Import(_));
    let files = plan
        .files
        .iter()
        .filter(|one| is_import(&one.verdict))
        .count() as u64;
    let mut import = None;
    if files > 0 {
        match Import::begin(repository, request, observer) {
            Ok(begun) => import = Some(begun),
            Err(error) => report.stopped = Some(error),
        }
    }
    let mut number = 0;
    for planned in plan.files {
        let path = planned.path;
        let outcome = match (planned.verdict, &mut import) {
            (Verdict::Refused(refusal), _) => FileOutcome::Refused(refusal),
            (Verdict::AlreadyThere(_, there), _) => FileOutcome::AlreadyThere(there.id),
            (Verdict::Import(facts), Some(import)) if report.stopped.is_none() => {
                number += 1;
                observer.event(&Event::FileStarted {
                    file: path.display().to_string(),
                    number,
                    files,
                    bytes: planned.size_bytes,
                });
                let outcome = import.recorded(journal, &path, &facts, planned.size_bytes);
                let (outcome, stopped) = match outcome {
                    Ok(outcome) => (outcome, None),
                    Err(error) => (FileOutcome::NotReached, Some(error)),
                };
                observer.event(&Event::FileFinished {
                    file: path.display().to_string(),
                    number,
                    files,
                    result: FileResult::of(&outcome),
                });
                report.stopped = stopped;
                outcome
            }
            (Verdict::Import(_), _) => FileOutcome::NotReached,
        };
        report.files.push(FileReport {
            path,
            size_bytes: planned.size_bytes,
            outcome,
        });
    }
    report.seconds = started.elapsed().as_secs_f64();
    report
}

/// An import under way, with the one lock for all its files.
struct Import<'a> {
    repository: &'a Repository,
    request: &'a ImportRequest,
    observer: &'a dyn Observer,
    lock: LockGuard,
    known: Vec<Known>,
    /// Every backup there is: the database, the time, the ID it had at first.
    backups: Vec<(String, Timestamp, SnapshotId)>,
}

/// What came of one file that nothing was wrong with.
enum One {
    Imported(Box<Imported>),
    AlreadyThere(SnapshotId),
}

impl<'a> Import<'a> {
    fn begin(
        repository: &'a Repository,
        request: &'a ImportRequest,
        observer: &'a dyn Observer,
    ) -> Result<Self, ImportError> {
        let lock = locking::lock(
            repository,
            LockMode::Shared,
            (&request.hostname, &request.username),
            request.lock_patience,
            &request.interrupt,
            observer,
        )
        .map_err(|error| ImportError::from(FileError::from(error)))?;
        let there = plan::backups(repository)?;
        Ok(Self {
            repository,
            request,
            observer,
            lock,
            known: there.iter().filter_map(Known::of).collect(),
            backups: there
                .iter()
                .map(|one| (one.database.clone(), one.time, one.first_id()))
                .collect(),
        })
    }

    fn recorded(
        &mut self,
        journal: &Journal,
        path: &Path,
        facts: &DumpFacts,
        size_bytes: u64,
    ) -> Result<FileOutcome, ImportError> {
        let result = history::recorded(
            journal,
            RunKind::Import,
            self.repository.id(),
            &facts.header.database,
            |error| Outcome::of_failure(matches!(error, FileError::Interrupted)),
            |one: &One, end| {
                if let One::Imported(imported) = one {
                    end.backup = Some(imported.id.to_string());
                    end.bytes_stored = Some(imported.new_bytes);
                }
                end.bytes_read = Some(size_bytes);
            },
            || self.file(path, facts, size_bytes),
        );
        match result {
            Ok(One::Imported(imported)) => Ok(FileOutcome::Imported(imported)),
            Ok(One::AlreadyThere(id)) => Ok(FileOutcome::AlreadyThere(id)),
            // Whatever broke first when the operator pressed Ctrl-C, the reason is the operator.
            Err(_) if plan::interrupted(&self.request.interrupt).is_err() => {
                Err(ImportError::Interrupted)
            }
            Err(FileError::Refused(refusal)) => Ok(FileOutcome::Refused(refusal)),
            Err(error) => Err(error.into()),
        }
    }

    fn file(&mut self, path: &Path, facts: &DumpFacts, size_bytes: u64) -> Result<One, FileError> {
        let (begun, started) = (Timestamp::now(), Instant::now());
        let interrupt = &self.request.interrupt;
        let survey = Survey::take(path, facts.header.identity, interrupt)?;
        let same =
            |one: &&Known| one.database == facts.header.database && one.sha256 == survey.sha256;
        if let Some(one) = self.known.iter().find(same) {
            return Ok(One::AlreadyThere(one.id));
        }
        let tables = contents::tables(&survey.archive)?;
        let writer = self.repository.writer(WriterOptions {
            compression_level: self.request.compression_level,
            interrupt: Arc::clone(interrupt),
            ..WriterOptions::default()
        })?;
        let loaded = match self.load(&survey, &tables, &writer) {
            Ok(loaded) => loaded,
            Err(error) => {
                // The packs that were finished are good: with an index, the next file, or the next run, finds them.
                // Once the lock is lost they may be gone.
                if self.lock.check().is_ok() {
                    let _ = writer.abandon();
                }
                return Err(error);
            }
        };
        let from = ImportedFrom {
            // As it is found later, from wherever somebody looks.
            file: path
                .canonicalize()
                .unwrap_or_else(|_| path.to_owned())
                .display()
                .to_string(),
            size_bytes,
            sha256: survey.sha256.clone(),
            compression: facts.header.compression.to_owned(),
            at: begun,
        };
        let (root, manifest) = self.assemble(&survey, facts, from, &tables, loaded, &writer)?;
        // A lock that somebody took for stale and removed no longer protects our packs from a prune.
        self.lock.verify().map_err(RepositoryError::from)?;
        let mut imported = self.commit(writer, &root, &manifest, size_bytes, (begun, started))?;
        // See the backup: a prune may have come between the two.
        if self.lock.verify().is_err()
            && !self
                .repository
                .remove_unless_whole(imported.id, &self.lock, interrupt)?
        {
            return Err(FileError::Inconsistent(
                "data was removed from the repository while the dump was imported".to_owned(),
            ));
        }
        self.known.push(Known {
            database: facts.header.database.clone(),
            sha256: survey.sha256,
            size_bytes: Some(size_bytes),
            id: imported.id,
            time: imported.snapshot_time,
        });
        self.backups.push((
            facts.header.database.clone(),
            imported.snapshot_time,
            imported.id,
        ));
        imported.seconds = started.elapsed().as_secs_f64();
        Ok(One::Imported(Box::new(imported)))
    }

    fn load(
        &self,
        survey: &Survey,
        tables: &BTreeMap<DumpId, Table>,
        writer: &Writer,
    ) -> Result<LoadedDump, FileError> {
        let loaded = load::load(
            survey,
            tables,
            writer,
            self.repository.chunk_sizes(),
            self.request.jobs,
            self.observer,
        )?;
        let mut has_blobs = false;
        let mut found = Vec::new();
        for entry in survey
            .archive
            .data_entries()
            .filter(|entry| entry.is("BLOBS"))
        {
            has_blobs = true;
            let objects = loaded.entries.get(&entry.dump_id);
            found.extend(objects.iter().flat_map(|one| one.large_objects.keys()));
        }
        if has_blobs {
            survey
                .archive
                .check_large_objects(found)
                .map_err(Refusal::from)?;
        }
        survey.is_unchanged()?;
        Ok(loaded)
    }

    /// Puts the dump and the manifest into one folder.
    fn assemble(
        &self,
        survey: &Survey,
        facts: &DumpFacts,
        from: ImportedFrom,
        tables: &BTreeMap<DumpId, Table>,
        mut loaded: LoadedDump,
        writer: &Writer,
    ) -> Result<(Directory, Manifest), FileError> {
        let archive = &survey.archive;
        let mut root = Directory::default();
        let mut worker = writer.worker()?;
        let mut manifest = self.describe(survey, facts, from);
        manifest.warnings = contents::warnings(archive, tables);
        for entry in archive.data_entries() {
            let file = data_file(archive, entry.dump_id)?;
            let one = loaded.entries.remove(&entry.dump_id).ok_or_else(|| {
                FileError::Inconsistent(format!("{} was never read", entry.describe()))
            })?;
            let Some(table) = tables.get(&entry.dump_id) else {
                manifest.large_objects.census += one.census;
                manifest.large_objects.size_bytes += one.bytes;
                let list = insert_large_objects(&mut root, one.large_objects)?;
                let list = store(&mut worker, &list)?;
                insert(&mut root, &format!("dump/{file}"), list)?;
                continue;
            };
            if let Some(rows) = &one.rows {
                note_migrations(&mut manifest, table, rows);
            }
            manifest.tables.push(TableRecord {
                schema: table.name.schema.clone(),
                table: table.name.name.clone(),
                dump_id: entry.dump_id,
                columns: table.columns.clone(),
                census: one.census,
                size_bytes: one.file.size_bytes,
                file: file.clone(),
                root: table.root.clone(),
            });
            insert(&mut root, &format!("dump/{file}"), one.file)?;
        }
        let setting = zone::database_setting(archive);
        let likely = [setting.as_deref(), self.request.machine_zone.iana_name()];
        match loaded.zone.find(likely.into_iter().flatten()) {
            RowsTold::Utc => {}
            RowsTold::Zone(name) => manifest.row_time_zone = Some(name),
            RowsTold::Unknown => manifest.warnings.push(
                "the dump's timestamps are written in a zone that cannot be told: a drill may find them different"
                    .to_owned(),
            ),
        }
        let mut toc = Vec::new();
        archive
            .write_directory_toc(&mut toc)
            .map_err(|error| FileError::Inconsistent(error.to_string()))?;
        insert(&mut root, TOC_PATH, store(&mut worker, &toc)?)?;
        let json = manifest
            .to_json()
            .map_err(|error| FileError::Inconsistent(error.to_string()))?;
        insert(&mut root, MANIFEST_PATH, store(&mut worker, &json)?)?;
        worker.finish()?;
        Ok((root, manifest))
    }

    /// The manifest without what only the data can tell. What a dump does not know is left out.
    fn describe(&self, survey: &Survey, facts: &DumpFacts, from: ImportedFrom) -> Manifest {
        let archive = &survey.archive;
        Manifest {
            schema: MANIFEST_SCHEMA.to_owned(),
            lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
            database: facts.header.database.clone(),
            snapshot_time: facts.begun.time,
            server_time: None,
            lsn: None,
            read_finished: None,
            server: contents::server(archive),
            pg_dump_version: facts.header.pg_dump_version.clone(),
            tables: Vec::new(),
            large_objects: LargeObjectsRecord::default(),
            roles: archive.roles().into_iter().collect(),
            extensions: contents::extensions(archive),
            migrations: Vec::new(),
            warnings: Vec::new(),
            row_time_zone: None,
            imported: Some(from),
        }
    }

    /// Makes the backup exist.
    fn commit(
        &self,
        writer: Writer,
        root: &Directory,
        manifest: &Manifest,
        size_bytes: u64,
        (begun, started): (Timestamp, Instant),
    ) -> Result<Imported, FileError> {
        let histories = &manifest.migrations;
        let sha256 = manifest.imported.as_ref().map(|from| from.sha256.as_str());
        let summary = BackupSummary {
            tables: manifest.tables.len() as u64,
            rows: manifest.rows(),
            data_bytes: manifest.data_bytes(),
            server_version_num: manifest.server.version_num,
            migration: histories.iter().find_map(|history| history.current.clone()),
            migration_trouble: histories.iter().any(MigrationHistory::has_trouble),
            seconds: started.elapsed().as_secs_f64(),
            imported_bytes: Some(size_bytes),
        };
        // The one before it in the history of the database: not the newest, which is from later.
        let earlier = self.backups.iter().filter(|(database, time, _)| {
            *database == manifest.database && *time <= manifest.snapshot_time
        });
        let parent = earlier.max_by_key(|(_, time, _)| *time);
        let (snapshot, stats) = writer.commit(
            root,
            SnapshotDraft {
                parent: parent.map(|(_, _, id)| *id),
                time: manifest.snapshot_time,
                hostname: self.request.hostname.clone(),
                username: self.request.username.clone(),
                paths: vec![format!("/{}", manifest.database)],
                tags: vec![
                    TAG.to_owned(),
                    format!("{DATABASE_TAG}{}", manifest.database),
                    format!("{IMPORTED_TAG}{}", sha256.unwrap_or_default()),
                ],
                worked: Some((begun, Timestamp::now())),
                extra: serde_json::to_value(&summary).ok(),
            },
        )?;
        Ok(Imported {
            id: snapshot.id,
            database: manifest.database.clone(),
            snapshot_time: snapshot.time,
            tables: summary.tables,
            rows: summary.rows,
            data_bytes: summary.data_bytes,
            new_bytes: stats.bytes_stored_new,
            migration: summary.migration,
            warnings: manifest.warnings.clone(),
            seconds: 0.0,
        })
    }
}

/// What a migration table says, or that it cannot be told.
fn note_migrations(manifest: &mut Manifest, table: &Table, rows: &[u8]) {
    match from_copied_rows(table.name.clone(), &table.columns, rows) {
        Some(history) => manifest.migrations.push(history),
        None => manifest.warnings.push(format!(
            "what {} says of migrations is not known: it cannot be read out of a dump",
            table.name
        )),
    }
}

impl FileResult {
    fn of(outcome: &FileOutcome) -> Self {
        match outcome {
            FileOutcome::Imported(imported) => Self::Imported {
                backup: imported.id.to_string(),
                snapshot_time: imported.snapshot_time,
                data_bytes: imported.data_bytes,
                new_bytes: imported.new_bytes,
            },
            FileOutcome::AlreadyThere(id) => Self::AlreadyThere {
                backup: id.to_string(),
            },
            FileOutcome::Refused(refusal) => Self::Refused {
                reason: refusal.to_string(),
            },
            FileOutcome::NotReached => Self::Stopped,
        }
    }
}
