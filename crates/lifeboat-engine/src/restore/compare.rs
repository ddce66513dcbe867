//! What arrived against what the backup recorded.

use std::collections::BTreeMap;

use lifeboat_pg::census::RowCensus;
use serde::Serialize;

use crate::manifest::TableRecord;

/// How the restored rows were counted and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// As they were sent, with the server's own count of what it took.
    Loaded,
    /// Read back from the restored tables.
    ReadBack,
}

/// A comparison of all restored tables with the backup's census.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// How it was made.
    pub depth: Depth,
    /// One entry per table with rows to restore.
    pub tables: Vec<TableComparison>,
    /// Large objects, where the backup has any and they were to be restored.
    pub large_objects: Option<TableComparison>,
}

/// One table.
#[derive(Debug, Clone, Serialize)]
pub struct TableComparison {
    /// `schema.table`.
    pub table: String,
    /// What the backup recorded.
    pub expected: RowCensus,
    /// What was found; absent when the table could not be read.
    pub found: Option<RowCensus>,
}

impl TableComparison {
    /// Whether rows and content are equal.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.found.as_ref() == Some(&self.expected)
    }

    /// What differs, in one sentence.
    #[must_use]
    pub fn difference(&self) -> Option<String> {
        match &self.found {
            None => Some(format!("{} could not be read", self.table)),
            Some(found) if found.rows() != self.expected.rows() => Some(format!(
                "{} has {} rows; the backup recorded {}",
                self.table,
                found.rows(),
                self.expected.rows()
            )),
            Some(found) if *found != self.expected => Some(format!(
                "{} has the right number of rows, but other content than the backup recorded",
                self.table
            )),
            Some(_) => None,
        }
    }
}

impl Comparison {
    /// Whether everything is equal.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.all().all(TableComparison::matches)
    }

    /// Rows that were found, in all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables
            .iter()
            .filter_map(|table| table.found.as_ref())
            .map(RowCensus::rows)
            .sum()
    }

    /// Every difference, one sentence each.
    #[must_use]
    pub fn differences(&self) -> Vec<String> {
        self.all().filter_map(TableComparison::difference).collect()
    }

    fn all(&self) -> impl Iterator<Item = &TableComparison> {
        self.tables.iter().chain(&self.large_objects)
    }
}

/// Sets what was found of each table beside its record; partitions that are loaded through their root count
/// together.
pub(super) fn compare_tables(
    records: &[TableRecord],
    found: Vec<RowCensus>,
) -> Vec<TableComparison> {
    let mut comparisons = Vec::with_capacity(records.len());
    let mut by_root: BTreeMap<String, (RowCensus, RowCensus)> = BTreeMap::new();
    for (record, found) in records.iter().zip(found) {
        if let Some(root) = &record.root {
            let sums = by_root.entry(root.to_string()).or_default();
            sums.0 += record.census;
            sums.1 += found;
        } else {
            comparisons.push(TableComparison {
                table: record.name(),
                expected: record.census,
                found: Some(found),
            });
        }
    }
    comparisons.extend(
        by_root
            .into_iter()
            .map(|(root, (expected, found))| TableComparison {
                table: format!("{root} (all partitions)"),
                expected,
                found: Some(found),
            }),
    );
    comparisons
}
