//! What comes after the rows, in an order that is safe with several sessions.
//!
//! Parallel `pg_restore` attaches the indexes of partitions in several sessions at once. A partitioned index
//! becomes valid when its last part is attached, and with more than one level of partitions two sessions can
//! each miss the other's part: the index then stays invalid for ever, and a foreign key to the table fails with
//! "there is no unique constraint matching given keys". So indexes are built by many sessions, attached by one,
//! and what may need them comes afterwards.
//!
//! And it keeps two sessions off the same table by the table entries that an entry depends on
//! (`identify_locking_dependencies` in `pg_backup_archiver.c`). Without table entries in the archive two sessions that
//! add foreign keys wait for each other, and a key is lost to the deadlock. So the tables are there, with nothing to
//! run. What locks a parent locks its partitions too, which `pg_dump` does not write down and we do.

use std::collections::{BTreeSet, HashMap, HashSet};

use lifeboat_pg::archive::{Archive, DumpId, Section, TocEntry};

/// Kinds that `pg_restore` itself keeps for the end (`_tocEntryRestorePass` in `pg_backup_archiver.c`), and must
/// still come last when it runs more than once; and foreign keys, which need valid indexes.
const LAST: [&str; 3] = ["FK CONSTRAINT", "EVENT TRIGGER", "MATERIALIZED VIEW DATA"];

const ATTACH: &str = "INDEX ATTACH";

/// Kinds that lock their own table alone: an index of partitions is made with `ON ONLY`.
const OF_ONE_TABLE: [&str; 3] = ["INDEX", "CONSTRAINT", ATTACH];

/// Cuts the entries of the post-data section of `toc` into runs of `pg_restore`, each with its number of sessions.
pub(super) fn passes(toc: &Archive, jobs: usize) -> Vec<(Archive, usize)> {
    let post_data = toc.with_sections(&[Section::PostData]);
    if jobs < 2 {
        return vec![(post_data, jobs)];
    }
    let tables = Tables::new(toc);
    if !post_data.entries.iter().any(|entry| entry.is(ATTACH)) {
        return vec![(tables.guard(post_data), jobs)];
    }
    let late = late(post_data.entries.iter().map(|entry| {
        let begins = entry.is(ATTACH) || LAST.iter().any(|kind| entry.is(kind));
        (entry.dump_id, begins, entry.dependencies.as_slice())
    }));
    vec![
        (
            tables.guard(post_data.filtered(|entry| !late.contains(&entry.dump_id))),
            jobs,
        ),
        (
            post_data.filtered(|entry| entry.is(ATTACH) || is_setting(entry)),
            1,
        ),
        (
            tables.guard(post_data.filtered(|entry| {
                late.contains(&entry.dump_id) && !entry.is(ATTACH) || is_setting(entry)
            })),
            jobs,
        ),
    ]
}

/// What parallel `pg_restore` has to know of the tables to keep sessions out of each other's way.
struct Tables {
    /// The tables' entries, with nothing in them to run.
    hollow: Vec<TocEntry>,
    /// Each table's partitions, or the tables that inherit from it.
    children: HashMap<DumpId, Vec<DumpId>>,
}

impl Tables {
    fn new(toc: &Archive) -> Self {
        let tables = || toc.entries.iter().filter(|entry| entry.is("TABLE"));
        let ids: HashSet<DumpId> = tables().map(|table| table.dump_id).collect();
        let mut children: HashMap<DumpId, Vec<DumpId>> = HashMap::new();
        let mut of = |parent: DumpId, child: DumpId| {
            if parent != child && ids.contains(&parent) {
                children.entry(parent).or_default().push(child);
            }
        };
        for table in tables() {
            for parent in &table.dependencies {
                of(*parent, table.dump_id);
            }
        }
        // Which of the two is the parent is not told. A lock too many costs little.
        for attach in toc.entries.iter().filter(|entry| entry.is("TABLE ATTACH")) {
            for one in &attach.dependencies {
                for other in attach.dependencies.iter().filter(|id| ids.contains(id)) {
                    of(*one, *other);
                }
            }
        }
        let hollow = tables()
            .map(|table| TocEntry {
                defn: None,
                drop_stmt: None,
                dependencies: Vec::new(),
                ..table.clone()
            })
            .collect();
        Self { hollow, children }
    }

    /// The same entries, with the tables before them, and each depending on all the tables that it locks.
    fn guard(&self, mut archive: Archive) -> Archive {
        for entry in &mut archive.entries {
            if !OF_ONE_TABLE.iter().any(|kind| entry.is(kind)) {
                self.add_family(&mut entry.dependencies);
            }
        }
        // Settings stand first in an archive, and are read before anything is restored.
        archive.entries.splice(0..0, self.hollow.iter().cloned());
        archive
    }

    fn add_family(&self, dependencies: &mut Vec<DumpId>) {
        let mut seen: HashSet<DumpId> = dependencies.iter().copied().collect();
        let mut next = 0;
        while let Some(table) = dependencies.get(next).copied() {
            for child in self.children.get(&table).into_iter().flatten() {
                if seen.insert(*child) {
                    dependencies.push(*child);
                }
            }
            next += 1;
        }
    }
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

    #[test]
    fn who_locks_a_parent_locks_its_partitions_and_theirs() {
        let tables = Tables {
            hollow: Vec::new(),
            children: HashMap::from([(1, vec![2, 3]), (3, vec![4, 1])]),
        };
        let mut dependencies = vec![9, 1];
        tables.add_family(&mut dependencies);
        assert_eq!(dependencies, [9, 1, 2, 3, 4]);
    }
}
