//! What can be restored of a backup that is not whole: the tables that are.

use std::collections::HashSet;

use lifeboat_repo::check::Finding;
use lifeboat_repo::pack::BlobKind;
use lifeboat_repo::storage::FileKind;
use lifeboat_repo::{BlobId, PackId};

use crate::catalog::{Backup, Catalog, CatalogError};
use crate::manifest::TableRecord;

/// Whether the rows of all these tables are there, although this is wrong with the backup.
pub(super) fn has_all_rows(
    catalog: &Catalog<'_>,
    backup: &Backup,
    tables: &[TableRecord],
    findings: &[Finding],
) -> Result<bool, CatalogError> {
    let packs = findings.iter().filter(|one| one.kind == FileKind::Pack);
    let bad: HashSet<PackId> = packs.filter_map(|one| one.name.parse().ok()).collect();
    let reader = catalog.reader()?;
    let is_there = |chunk: &BlobId| {
        let mut places = reader.index().locations(BlobKind::Data, chunk);
        places.any(|place| !bad.contains(&place.pack))
    };
    // A folder whose list of files can't be read has lost what was in it.
    let is_whole = |table: &TableRecord| {
        let node = reader.find(&backup.snapshot, &format!("dump/{}", table.file));
        node.is_ok_and(|node| node.content.iter().all(is_there))
    };
    Ok(tables.iter().all(is_whole))
}
