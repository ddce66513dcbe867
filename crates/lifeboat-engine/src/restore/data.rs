//! The rows, loaded by several sessions at once.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_pg::archive::CopyTarget;
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::dump::TableName;
use lifeboat_pg::load::{
    DataSource, LoadError, LoadFailure, LoadOptions, Loader, ReadBack, TableSlice, data_bytes,
};
use lifeboat_repo::RepositoryError;
use lifeboat_repo::reader::FileReader;
use lifeboat_repo::tree::FileContent;

use super::compare::{TableComparison, compare_tables};
use super::plan::RestorePlan;
use super::ranges::{Piece, RangeQueue};
use super::sessions::{lock, run_threads};
use super::{RestoreError, RestoreRequest, What};
use crate::catalog::Catalog;
use crate::event::{Event, Observer};
use crate::manifest::TableRecord;

/// What one session loads before it looks for other work. Large, since cutting a table keeps its rows from
/// being frozen at once; small enough for two sessions to end together.
const RANGE_BYTES: u64 = 256 << 20;

/// Heap blocks read back in one go: 128 MiB.
const READ_BACK_BLOCKS: u64 = 16_384;

/// A table with everything needed to load it.
struct LoadTable<'p> {
    record: &'p TableRecord,
    name: String,
    relation: String,
    copy_sql: String,
    content: FileContent,
}

/// Loads the rows of the plan's tables; returns what was loaded of each, in the plan's order.
pub(super) fn load_tables(
    catalog: &Catalog<'_>,
    plan: &RestorePlan,
    request: &RestoreRequest,
    observer: &dyn Observer,
) -> Result<Vec<TableComparison>, RestoreError> {
    let tables: Vec<LoadTable<'_>> = plan
        .tables
        .iter()
        .map(|record| prepare(catalog, plan, record))
        .collect::<Result<_, _>>()?;
    observer.event(&Event::TotalKnown {
        tables: tables.len() as u64,
        bytes: tables.iter().map(|table| table.record.size_bytes).sum(),
    });
    let sizes: Vec<u64> = tables
        .iter()
        .map(|table| data_bytes(table.content.size_bytes))
        .collect();
    // With at least as many big tables as sessions, whole tables keep every session busy; otherwise they
    // have to share.
    let range_bytes = range_bytes(&sizes, request.jobs);
    let queue = RangeQueue::new(&sizes, range_bytes);
    let loaded: Mutex<Vec<RowCensus>> = Mutex::new(vec![RowCensus::EMPTY; tables.len()]);
    let reader = catalog.reader()?;
    let options = load_options(plan, request);

    run_threads(request, queue.len(), |stop| {
        let mut loader = Loader::open(&plan.target.conninfo, &options)?;
        while !stop.load(Ordering::Acquire) {
            let Some(piece) = queue.take() else { break };
            let Some(table) = tables.get(piece.table) else {
                break;
            };
            tell_start(observer, table, &piece);
            let slice = TableSlice {
                table: &table.name,
                relation: &table.relation,
                copy_sql: &table.copy_sql,
                file_bytes: table.content.size_bytes,
                fresh: request.what == What::Everything
                    && table.record.root.is_none()
                    && piece.bytes.start == 0
                    && piece.bytes.end >= data_bytes(table.content.size_bytes),
                range: piece.bytes.clone(),
            };
            let rows = loader
                .load_rows(
                    &slice,
                    |offset| {
                        reader
                            .open_range(&table.content, offset..table.content.size_bytes)
                            .map(Chunks)
                    },
                    |bytes| {
                        observer.event(&Event::TableProgress {
                            table: table.name.clone(),
                            bytes,
                        });
                    },
                )
                .map_err(RestoreError::from)?;
            if let Some(sum) = lock(&loaded).get_mut(piece.table) {
                *sum += rows.census;
            }
            if queue.done(&piece) {
                observer.event(&Event::TableFinished {
                    table: table.name.clone(),
                    rows: table.record.census.rows(),
                    bytes: table.record.size_bytes,
                });
            }
        }
        Ok(())
    })?;
    let loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(compare_tables(&plan.tables, loaded))
}

fn range_bytes(sizes: &[u64], jobs: usize) -> u64 {
    let total: u64 = sizes.iter().sum();
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let share = total / jobs.max(1) as u64;
    if largest <= share {
        u64::MAX
    } else {
        RANGE_BYTES
    }
}

fn prepare<'p>(
    catalog: &Catalog<'_>,
    plan: &RestorePlan,
    record: &'p TableRecord,
) -> Result<LoadTable<'p>, RestoreError> {
    let content = catalog.file(&plan.backup, &format!("dump/{}", record.file))?;
    let target: CopyTarget = plan
        .toc
        .entry(record.dump_id)
        .map(|entry| entry.copy_columns())
        .transpose()?
        .flatten()
        .ok_or_else(|| catalog_damage(plan, record))?;
    Ok(LoadTable {
        name: record.name(),
        relation: target.relation.clone(),
        copy_sql: target.copy_from(),
        record,
        content,
    })
}

fn catalog_damage(plan: &RestorePlan, record: &TableRecord) -> RestoreError {
    crate::catalog::CatalogError::Damaged {
        id: plan.backup.id,
        path: crate::manifest::TOC_PATH.to_owned(),
        what: format!("it does not say how to load {}", record.name()),
    }
    .into()
}

fn load_options(plan: &RestorePlan, request: &RestoreRequest) -> LoadOptions {
    LoadOptions {
        application_name: "lifeboat restore".to_owned(),
        encoding: plan.manifest.server.encoding.clone(),
        disable_triggers: request.what == What::DataOnly && plan.target.is_superuser,
        interrupt: Arc::clone(&request.interrupt),
    }
}

fn tell_start(observer: &dyn Observer, table: &LoadTable<'_>, piece: &Piece) {
    if piece.bytes.start == 0 {
        observer.event(&Event::TableStarted {
            table: table.name.clone(),
            bytes: table.record.size_bytes,
        });
    }
}

/// Loads every large object; returns the census of all.
pub(super) fn load_large_objects(
    catalog: &Catalog<'_>,
    plan: &RestorePlan,
    request: &RestoreRequest,
) -> Result<RowCensus, RestoreError> {
    let objects = list_large_objects(catalog, plan)?;
    let queue = Mutex::new(objects.iter());
    let census = Mutex::new(RowCensus::EMPTY);
    let reader = catalog.reader()?;
    let options = load_options(plan, request);
    run_threads(request, objects.len(), |stop| {
        let mut loader = Loader::open(&plan.target.conninfo, &options)?;
        while !stop.load(Ordering::Acquire) {
            let Some((oid, path)) = lock(&queue).next() else {
                break;
            };
            let content = catalog.file(&plan.backup, path)?;
            let loaded = loader.load_large_object(*oid, Chunks(reader.open(&content)?))?;
            *lock(&census) += loaded.census;
        }
        Ok(())
    })?;
    Ok(census.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// OID and path inside the backup of every large object.
fn list_large_objects(
    catalog: &Catalog<'_>,
    plan: &RestorePlan,
) -> Result<Vec<(u32, String)>, RestoreError> {
    let mut objects = Vec::new();
    for entry in plan.toc.data_entries().filter(|entry| entry.is("BLOBS")) {
        let Some(file) = plan.toc.data_file(entry) else {
            continue;
        };
        let list = catalog.small_file(&plan.backup, &format!("dump/{file}"), 1 << 30)?;
        let listed = lifeboat_pg::archive::read_blob_list(&mut list.as_slice())?;
        objects.extend(
            listed
                .into_iter()
                .map(|(oid, file)| (oid, format!("dump/{file}"))),
        );
    }
    Ok(objects)
}

/// Reads every restored table back and counts it. What a difference may come from besides goes into `notes`.
pub(super) fn read_back(
    plan: &RestorePlan,
    request: &RestoreRequest,
    notes: &mut Vec<String>,
) -> Result<(Vec<TableComparison>, Option<TableComparison>), RestoreError> {
    let encoding = &plan.manifest.server.encoding;
    let zone = plan.manifest.row_time_zone.as_deref();
    let open = || ReadBack::open(&plan.target.conninfo, encoding, zone, &request.interrupt);
    let mut planner = open()?;
    if let Some(zone) = zone.filter(|_| !planner.knows_the_zone()) {
        notes.push(format!(
            "the time zone {zone} that the dump was written in is unknown to this server: tables with timestamps compare as different"
        ));
    }
    let mut work = Vec::new();
    for (index, record) in plan.tables.iter().enumerate() {
        let name = table_name(record);
        for rows in planner.pieces(&name, READ_BACK_BLOCKS)? {
            work.push((index, rows));
        }
    }
    let queue = Mutex::new(work.iter());
    let found: Mutex<Vec<RowCensus>> = Mutex::new(vec![RowCensus::EMPTY; plan.tables.len()]);
    run_threads(request, work.len(), |stop| {
        let mut session = open()?;
        while !stop.load(Ordering::Acquire) {
            let Some((index, rows)) = lock(&queue).next() else {
                break;
            };
            let Some(record) = plan.tables.get(*index) else {
                break;
            };
            let census = session.count(&table_name(record), &record.columns, rows)?;
            if let Some(sum) = lock(&found).get_mut(*index) {
                *sum += census;
            }
        }
        Ok(())
    })?;
    let large_objects = if plan.large_objects {
        Some(TableComparison {
            table: "large objects".to_owned(),
            expected: plan.manifest.large_objects.census,
            found: Some(planner.count_large_objects()?),
        })
    } else {
        None
    };
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((compare_tables(&plan.tables, found), large_objects))
}

fn table_name(record: &TableRecord) -> TableName {
    TableName {
        schema: record.schema.clone(),
        name: record.table.clone(),
    }
}

/// A file of the repository, chunk by chunk.
struct Chunks(FileReader);

impl DataSource for Chunks {
    type Error = RepositoryError;

    fn next(&mut self) -> Result<Option<&[u8]>, RepositoryError> {
        self.0.next_chunk()
    }
}

impl From<LoadFailure<RepositoryError>> for RestoreError {
    fn from(failure: LoadFailure<RepositoryError>) -> Self {
        match failure {
            LoadFailure::Load(LoadError::Interrupted) => Self::Interrupted,
            LoadFailure::Load(error) => Self::Load(error),
            LoadFailure::Source(error) => Self::Repository(error),
        }
    }
}
