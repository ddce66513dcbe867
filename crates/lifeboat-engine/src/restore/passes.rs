//! What comes after the rows, in an order that is safe with several sessions.
//!
//! Parallel `pg_restore` attaches the indexes of partitions in several sessions at once. A partitioned index
//! becomes valid when its last part is attached, and with more than one level of partitions two sessions can
//! each miss the other's part: the index then stays invalid for ever, and a foreign key to the table fails with
//! "there is no unique constraint matching given keys". So indexes are built by many sessions, attached by one,
//! and what may need them comes afterwards.

use std::collections::BTreeSet;

use lifeboat_pg::archive::{Archive, DumpId, TocEntry};

/// Kinds that `pg_restore` itself keeps for the end (`_tocEntryRestorePass` in `pg_backup_archiver.c`), and must
/// still come last when it runs more than once; and foreign keys, which need valid indexes.
const LAST: [&str; 3] = ["FK CONSTRAINT", "EVENT TRIGGER", "MATERIALIZED VIEW DATA"];

const ATTACH: &str = "INDEX ATTACH";

/// Cuts the entries of the post-data section into runs of `pg_restore`, each with its number of sessions.
pub(super) fn passes(post_data: &Archive, jobs: usize) -> Vec<(Archive, usize)> {
    let attaches = post_data.entries.iter().any(|entry| entry.is(ATTACH));
    if jobs < 2 || !attaches {
        return vec![(post_data.clone(), jobs)];
    }
    let late = late(post_data.entries.iter().map(|entry| {
        let begins = entry.is(ATTACH) || LAST.iter().any(|kind| entry.is(kind));
        (entry.dump_id, begins, entry.dependencies.as_slice())
    }));
    vec![
        (
            post_data.filtered(|entry| !late.contains(&entry.dump_id)),
            jobs,
        ),
        (
            post_data.filtered(|entry| entry.is(ATTACH) || is_setting(entry)),
            1,
        ),
        (
            post_data.filtered(|entry| {
                late.contains(&entry.dump_id) && !entry.is(ATTACH) || is_setting(entry)
            }),
            jobs,
        ),
    ]
}

/// What every run needs to know of the archive's text: its encoding and the like.
fn is_setting(entry: &TocEntry) -> bool {
    ["ENCODING", "STDSTRINGS", "SEARCHPATH"]
        .iter()
        .any(|kind| entry.is(kind))
}

/// Those that must wait: the ones that say so, and whatever depends on one that waits.
fn late<'a>(
    entries: impl Iterator<Item = (DumpId, bool, &'a [DumpId])> + Clone,
) -> BTreeSet<DumpId> {
    let mut late: BTreeSet<DumpId> = entries
        .clone()
        .filter(|(_, begins, _)| *begins)
        .map(|(id, ..)| id)
        .collect();
    loop {
        let before = late.len();
        for (id, _, dependencies) in entries.clone() {
            if dependencies.iter().any(|on| late.contains(on)) {
                late.insert(id);
            }
        }
        if late.len() == before {
            return late;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_something_late_is_late_itself() {
        let entries: [(DumpId, bool, &[DumpId]); 5] = [
            (1, false, &[]),
            (2, false, &[4]),
            (3, true, &[1]),
            (4, false, &[3]),
            (5, false, &[1]),
        ];
        let late: Vec<DumpId> = late(entries.iter().copied()).into_iter().collect();
        assert_eq!(late, [2, 3, 4]);
    }
}
