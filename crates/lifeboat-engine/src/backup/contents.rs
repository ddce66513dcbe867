//! What a backup consists of: the folder that is stored, and the manifest that describes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_pg::archive::{self, Archive, DumpId};
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::dump::{DumpSession, EntryKind};
use lifeboat_pg::migrations::MigrationHistory;
use lifeboat_pg::server::LocaleProvider;
use lifeboat_repo::tree::{Directory, FileContent, NameError};
use lifeboat_repo::writer::{Writer, WriterWorker};

use super::dump::DumpedEntry;
use super::{BackupError, BackupRequest};
use crate::manifest::{
    ExtensionRecord, GLOBALS_PATH, LargeObjectsRecord, MANIFEST_PATH, MANIFEST_SCHEMA, Manifest,
    ServerRecord, TOC_PATH, TableRecord,
};

/// Large objects are stored in folders of this many OIDs each, so that one new object does not cost a new
/// listing of all the others.
const OIDS_PER_FOLDER: u32 = 4096;

/// Puts the dump, the globals and the manifest into one folder.
pub(super) fn assemble(
    request: &BackupRequest,
    session: &DumpSession,
    writer: &Writer,
    mut dumped: BTreeMap<DumpId, DumpedEntry>,
    migrations: Vec<MigrationHistory>,
    warnings: &[String],
) -> Result<(Directory, Manifest), BackupError> {
    let archive = session.archive();
    let mut root = Directory::default();
    let mut worker = writer.worker()?;
    let mut tables = Vec::new();
    let mut large_objects = LargeObjectsRecord::default();
    for entry in session.entries() {
        let file = data_file(archive, entry.dump_id)?;
        match &entry.kind {
            EntryKind::Table { table, root: into } => {
                let dumped = dumped.remove(&entry.dump_id).ok_or_else(|| {
                    BackupError::Inconsistent(format!("{} was never read", table.name))
                })?;
                tables.push(TableRecord {
                    schema: table.name.schema.clone(),
                    table: table.name.name.clone(),
                    dump_id: entry.dump_id,
                    columns: table.columns.clone(),
                    census: dumped.census,
                    size_bytes: dumped.file.size_bytes,
                    file: file.clone(),
                    root: into.clone(),
                });
                insert(&mut root, &format!("dump/{file}"), dumped.file)?;
            }
            EntryKind::LargeObjects { oids, .. } => {
                // No unit, and so no result, where the entry lists no object.
                let dumped = dumped.remove(&entry.dump_id).unwrap_or_default();
                if dumped.large_objects.len() != oids.len() {
                    return Err(BackupError::Inconsistent(format!(
                        "{} of {} large objects were read",
                        dumped.large_objects.len(),
                        oids.len()
                    )));
                }
                large_objects.census += dumped.census;
                large_objects.size_bytes += dumped.bytes;
                let list = insert_large_objects(&mut root, dumped.large_objects)?;
                insert(
                    &mut root,
                    &format!("dump/{file}"),
                    store(&mut worker, &list)?,
                )?;
            }
        }
    }

    let mut toc = Vec::new();
    archive.write_directory_toc(&mut toc)?;
    insert(&mut root, TOC_PATH, store(&mut worker, &toc)?)?;
    if let Some(sql) = session.globals().sql() {
        insert(&mut root, GLOBALS_PATH, store(&mut worker, sql)?)?;
    }
    let manifest = Manifest {
        tables,
        large_objects,
        migrations,
        warnings: warnings.to_vec(),
        ..describe(request, session)
    };
    let json = manifest
        .to_json()
        .map_err(|error| BackupError::Inconsistent(error.to_string()))?;
    insert(&mut root, MANIFEST_PATH, store(&mut worker, &json)?)?;
    worker.finish()?;
    Ok((root, manifest))
}

pub(crate) fn data_file(archive: &Archive, dump_id: DumpId) -> Result<String, BackupError> {
    archive
        .entry(dump_id)
        .and_then(|entry| archive.data_file(entry))
        .ok_or_else(|| {
            BackupError::Inconsistent(format!("entry {dump_id} has no place in the dump's folder"))
        })
}

pub(crate) fn insert(
    root: &mut Directory,
    path: &str,
    content: FileContent,
) -> Result<(), BackupError> {
    root.insert(path, content)
        .map_err(|error: NameError| BackupError::Inconsistent(error.to_string()))
}

pub(crate) fn store(worker: &mut WriterWorker, bytes: &[u8]) -> Result<FileContent, BackupError> {
    let mut file = worker.file();
    file.push(bytes)?;
    Ok(file.finish()?)
}

/// Puts large objects into the folder and returns the list of them that `pg_restore` reads.
pub(crate) fn insert_large_objects(
    root: &mut Directory,
    objects: BTreeMap<u32, FileContent>,
) -> Result<Vec<u8>, BackupError> {
    let mut list = Vec::new();
    for (oid, content) in objects {
        let file = format!("blobs/{}/{oid}.dat", oid / OIDS_PER_FOLDER);
        archive::write_blob_line(&mut list, oid, &file)
            .map_err(|error| BackupError::Inconsistent(error.to_string()))?;
        insert(root, &format!("dump/{file}"), content)?;
    }
    Ok(list)
}

/// The manifest without what only the dump itself could tell.
fn describe(request: &BackupRequest, session: &DumpSession) -> Manifest {
    let facts = session.facts();
    let database = &facts.database;
    let collation = &database.collation;
    let snapshot = session.snapshot();
    Manifest {
        schema: MANIFEST_SCHEMA.to_owned(),
        lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
        database: request.database.clone(),
        snapshot_time: snapshot.client_time,
        server_time: Some(snapshot.server_time),
        lsn: snapshot.lsn.map(|lsn| lsn.to_string()),
        read_finished: Some(Timestamp::now()),
        server: ServerRecord {
            version_num: facts.version.number,
            version: facts.version.text.clone(),
            database: database.name.clone(),
            address: request.conninfo.address(),
            owner: database.owner.clone(),
            encoding: collation.encoding.clone(),
            collate: collation.collate.clone(),
            ctype: collation.ctype.clone(),
            locale_provider: match collation.provider {
                LocaleProvider::Libc => None,
                LocaleProvider::Icu => Some("icu".to_owned()),
                LocaleProvider::Builtin => Some("builtin".to_owned()),
            },
            locale: collation.locale.clone(),
            size_bytes: database.size_bytes,
        },
        pg_dump_version: session
            .archive()
            .header
            .pg_dump_version
            .as_ref()
            .map(|version| version.lossy().into_owned())
            .unwrap_or_default(),
        tables: Vec::new(),
        large_objects: LargeObjectsRecord {
            census: RowCensus::EMPTY,
            size_bytes: 0,
        },
        roles: session.roles().to_vec(),
        extensions: database
            .extensions
            .iter()
            .map(|extension| ExtensionRecord {
                name: extension.name.clone(),
                version: extension.version.clone(),
            })
            .collect(),
        migrations: Vec::new(),
        warnings: Vec::new(),
        row_time_zone: None,
        imported: None,
    }
}
