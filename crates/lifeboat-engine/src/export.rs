//! Writing a backup as one custom-format file, as `pg_dump -Fc` would have written it.
//!
//! The file is for those who want to leave, or to hand a dump to somebody without Lifeboat. It is written beside
//! its final name, private to the user, and gets that name only when it is complete and durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use lifeboat_pg::archive::{
    Archive, ArchiveError, CustomWriter, DataWriter, WriteCompression, read_blob_list,
};
use lifeboat_repo::tree::FileContent;
use lifeboat_repo::{RepositoryError, SnapshotId};
use serde::Serialize;

use crate::catalog::{Backup, Catalog, CatalogError};
use crate::event::{Event, Observer, Stage, Stages};

/// The longest list of large objects that is read.
const BLOB_LIST_MAX_BYTES: u64 = 1 << 30;

/// What to export, and where to.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The file, which must not exist yet.
    pub output: PathBuf,
    /// gzip's level from 1 to 9, or no compression.
    pub gzip_level: Option<u32>,
    /// Set to stop.
    pub interrupt: Arc<AtomicBool>,
}

/// An export that was written.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    /// The backup's ID.
    pub backup: String,
    /// The file.
    pub output: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Tables in it.
    pub tables: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file of that name exists; it was not touched.
    #[error("{} exists already; it was not touched", .0.display())]
    Exists(PathBuf),
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in the backup and what its table of contents says do not fit together.
    #[error("backup {id} is damaged: {what}")]
    Damaged {
        /// The backup.
        id: SnapshotId,
        /// One line of fact.
        what: String,
    },
    /// The archive could not be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The backup could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Writes a backup to a file.
///
/// # Errors
/// [`ExportError`]; the file does not exist then, and no temporary one is left.
pub fn execute(
    catalog: &Catalog<'_>,
    backup: &Backup,
    request: &ExportRequest,
    observer: &dyn Observer,
) -> Result<ExportReport, ExportError> {
    let started = Instant::now();
    let path = &request.output;
    let io_error = |source| ExportError::Io {
        path: path.clone(),
        source,
    };
    // `symlink_metadata`: a link to nowhere is in the way as well.
    if path.symlink_metadata().is_ok() {
        return Err(ExportError::Exists(path.clone()));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let toc = catalog.toc(backup)?;
    let temporary = tempfile::Builder::new()
        .prefix(".lifeboat-export-")
        .make_in(folder, |path| {
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })
        .map_err(io_error)?;
    let mut stages = Stages::new(observer);
    let tables = stages.run(Stage::Export, || {
        let mut export = Export {
            catalog,
            backup,
            toc: &toc,
            request,
            observer,
        };
        export.write(temporary.as_file())
    })?;
    temporary.as_file().sync_all().map_err(io_error)?;
    let bytes = temporary.as_file().metadata().map_err(io_error)?.len();
    // Not `persist`: that would replace a file which came into being meanwhile.
    temporary
        .persist_noclobber(path)
        .map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists(path.clone()),
            _ => io_error(error.error),
        })?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error)?;
    Ok(ExportReport {
        backup: backup.id.to_string(),
        output: path.clone(),
        bytes,
        tables,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Export<'a> {
    catalog: &'a Catalog<'a>,
    backup: &'a Backup,
    toc: &'a Archive,
    request: &'a ExportRequest,
    observer: &'a dyn Observer,
}

impl Export<'_> {
    fn write(&mut self, out: &File) -> Result<u64, ExportError> {
        let compression = match self.request.gzip_level {
            Some(level) => WriteCompression::Gzip(level),
            None => WriteCompression::None,
        };
        let files: Vec<_> = self
            .toc
            .data_entries()
            .map(|entry| (entry, self.toc.data_file(entry)))
            .collect();
        let mut writer = CustomWriter::new(out, self.toc, compression)?;
        let mut tables = 0;
        for (entry, file) in files {
            let file =
                file.ok_or_else(|| self.damaged(format!("{} has no file", entry.describe())))?;
            let name = format!("dump/{file}");
            if entry.is("BLOBS") {
                let list = self
                    .catalog
                    .small_file(self.backup, &name, BLOB_LIST_MAX_BYTES)?;
                let mut blobs = writer.blobs(entry.dump_id)?;
                for (oid, file) in read_blob_list(&mut list.as_slice())? {
                    let content = self.catalog.file(self.backup, &format!("dump/{file}"))?;
                    let data = blobs.blob(oid)?;
                    self.copy(&content, data, None)?;
                }
                blobs.finish()?;
            } else {
                let content = self.catalog.file(self.backup, &name)?;
                let table = entry.describe();
                self.observer.event(&Event::TableStarted {
                    table: table.clone(),
                    bytes: content.size_bytes,
                });
                self.copy(&content, writer.data(entry.dump_id)?, Some(&table))?;
                tables += 1;
            }
        }
        writer.finish()?;
        Ok(tables)
    }

    fn copy(
        &self,
        content: &FileContent,
        mut data: DataWriter<'_, &File>,
        table: Option<&str>,
    ) -> Result<(), ExportError> {
        let mut reader = self.catalog.reader()?.open(content)?;
        while let Some(chunk) = reader.next_chunk()? {
            if self.request.interrupt.load(Ordering::Relaxed) {
                return Err(ExportError::Interrupted);
            }
            data.push(chunk)?;
            if let Some(table) = table {
                self.observer.event(&Event::TableProgress {
                    table: table.to_owned(),
                    bytes: chunk.len() as u64,
                });
            }
        }
        Ok(data.finish()?)
    }

    fn damaged(&self, what: String) -> ExportError {
        ExportError::Damaged {
            id: self.backup.id,
            what,
        }
    }
}
