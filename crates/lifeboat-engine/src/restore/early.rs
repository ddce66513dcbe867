//! Indexes that need not wait for the last row of the last table.
//!
//! Rows are loaded by a few sessions, and the largest table keeps one of them busy when the others have nothing
//! left to load. These build the indexes of tables that are complete, by stock `pg_restore`, as they would be
//! built later. What else comes after the rows (foreign keys, attached indexes, triggers) still waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use lifeboat_pg::archive::{Archive, DumpId, Section, TocEntry};
use lifeboat_pg::load::RestoreMessages;

use super::What;
use super::passes::is_setting;
use super::plan::RestorePlan;
use super::sessions::lock;

/// The indexes that may be built while other tables are still loaded.
#[derive(Debug)]
pub(super) struct EarlyIndexes {
    post_data: Archive,
    /// The entries of each table that is worth it, by its place in the plan.
    tables: BTreeMap<usize, BTreeSet<DumpId>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Complete tables, with their bytes.
    ready: Vec<(u64, usize)>,
    built: BTreeSet<DumpId>,
    messages: RestoreMessages,
}

impl EarlyIndexes {
    /// What the plan has of them, for tables of at least `least_bytes`.
    pub(super) fn new(plan: &RestorePlan, least_bytes: u64) -> Self {
        let post_data = plan.toc.with_sections(&[Section::PostData]);
        let mut tables = BTreeMap::new();
        if plan.what == What::Everything {
            // By the numbers of the tables' own entries, on which the entries of their data depend.
            let large =
                plan.tables.iter().enumerate().filter(|(_, record)| {
                    record.size_bytes >= least_bytes && record.root.is_none()
                });
            let owners: BTreeMap<DumpId, usize> = large
                .filter_map(|(place, record)| Some((plan.toc.entry(record.dump_id)?, place)))
                .flat_map(|(data, place)| data.dependencies.iter().map(move |on| (*on, place)))
                .filter(|(on, _)| plan.toc.entry(*on).is_some_and(|entry| entry.is("TABLE")))
                .collect();
            for (entry, place) in post_data
                .entries
                .iter()
                .filter_map(|entry| Some((entry, owner(entry, &owners, &post_data)?)))
            {
                tables
                    .entry(place)
                    .or_insert_with(BTreeSet::new)
                    .insert(entry.dump_id);
            }
        }
        Self {
            post_data,
            tables,
            state: Mutex::default(),
        }
    }

    /// Says that a table's rows are all there.
    pub(super) fn ready(&self, place: usize, bytes: u64) {
        if self.tables.contains_key(&place) {
            lock(&self.state).ready.push((bytes, place));
        }
    }

    /// The indexes of the largest table that is complete and whose indexes nobody builds yet.
    pub(super) fn take(&self) -> Option<Archive> {
        let mut state = lock(&self.state);
        let largest = (0..state.ready.len()).max_by_key(|&at| state.ready.get(at))?;
        let (_, place) = state.ready.swap_remove(largest);
        let wanted = self.tables.get(&place)?;
        state.built.extend(wanted);
        drop(state);
        Some(
            self.post_data
                .filtered(|entry| wanted.contains(&entry.dump_id) || is_setting(entry)),
        )
    }

    /// What `pg_restore` had to say of some.
    pub(super) fn told(&self, messages: RestoreMessages) {
        let told = &mut lock(&self.state).messages;
        told.errors.extend(messages.errors);
        told.warnings.extend(messages.warnings);
    }

    /// What is still to be done after the rows, and what was said of what is done.
    pub(super) fn rest(self) -> (Archive, RestoreMessages) {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let rest = self
            .post_data
            .filtered(|entry| !state.built.contains(&entry.dump_id));
        (rest, state.messages)
    }
}

/// The table of an index, or of a constraint that is one; none when it waits for something else that comes after
/// the rows.
fn owner(entry: &TocEntry, owners: &BTreeMap<DumpId, usize>, post_data: &Archive) -> Option<usize> {
    if !entry.is("INDEX") && !entry.is("CONSTRAINT") {
        return None;
    }
    if entry
        .dependencies
        .iter()
        .any(|on| post_data.entry(*on).is_some())
    {
        return None;
    }
    entry
        .dependencies
        .iter()
        .find_map(|on| owners.get(on).copied())
}
