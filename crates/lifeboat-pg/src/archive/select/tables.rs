//! Some tables out of an archive, with all that they need and all that is theirs.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::Archive;
use super::super::text::Text;
use super::super::toc::{DumpId, TocEntry};
use super::pattern::{TablePattern, distance};
use super::{is_contents, is_setting};

/// A reduced archive, and what became of the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSelection {
    /// The selected tables, with all that they need and all that is theirs.
    pub archive: Archive,
    /// The relations that were asked for, partitions included, as `schema.name`.
    pub selected: Vec<String>,
    /// Relations that the selected ones cannot exist without (a parent to inherit from, what a
    /// view reads), as `schema.name`. They come with their rows only for a view.
    pub required: Vec<String>,
    /// Numbers of the entries that are not the selected tables' own: schemas, types, functions,
    /// … that they need. A database that has them already can do without.
    pub shared: BTreeSet<DumpId>,
    /// What belongs to the selected tables, but needs others that are not.
    pub left_out: Vec<LeftOut>,
}

/// Something of a selected table that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Kind and name, such as `FK CONSTRAINT app.memes memes_author_fkey`.
    pub entry: String,
    /// The relations that it needs and that are not selected, as `schema.name`.
    pub needs: Vec<String>,
}

/// Why tables could not be selected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectError {
    /// No relation has such a name.
    #[error("the backup holds no table {name}")]
    UnknownTable {
        /// The name or pattern as it was typed.
        name: String,
        /// The nearest names, best first; perhaps none.
        nearest: Vec<String>,
    },
}

/// Kinds that have rows or definitions that others refer to by name. Sequences are not among
/// them: they follow the tables that use them.
fn is_table(entry: &TocEntry) -> bool {
    ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW"]
        .iter()
        .any(|desc| entry.is(desc))
}

fn is_view(entry: &TocEntry) -> bool {
    entry.is("VIEW") || entry.is("MATERIALIZED VIEW")
}

/// Kinds that belong to the relation they depend on.
fn is_part(entry: &TocEntry) -> bool {
    const PARTS: [&str; 17] = [
        "TABLE DATA",
        "TABLE ATTACH",
        "MATERIALIZED VIEW DATA",
        "SEQUENCE",
        "DEFAULT",
        "CONSTRAINT",
        "CHECK CONSTRAINT",
        "FK CONSTRAINT",
        "INDEX",
        "INDEX ATTACH",
        "STATISTICS",
        "TRIGGER",
        "RULE",
        "POLICY",
        "ROW SECURITY",
        "PUBLICATION TABLE",
        "SUBSCRIPTION TABLE",
    ];
    PARTS.iter().any(|desc| entry.is(desc))
}

/// Kinds that go wherever the object that they are about goes.
fn is_attribute(entry: &TocEntry) -> bool {
    const ATTRIBUTES: [&str; 6] = [
        "COMMENT",
        "ACL",
        "SECURITY LABEL",
        "SEQUENCE SET",
        "SEQUENCE OWNED BY",
        "STATISTICS DATA",
    ];
    ATTRIBUTES.iter().any(|desc| entry.is(desc))
}

fn qualified(entry: &TocEntry) -> String {
    let name = entry.tag.as_ref().map(Text::lossy).unwrap_or_default();
    match entry.namespace.as_ref().filter(|schema| !schema.is_empty()) {
        Some(schema) => format!("{schema}.{name}"),
        None => name.into_owned(),
    }
}

impl Archive {
    /// The tables, views and sequences that the patterns name, with all that they need (schemas,
    /// types, functions, sequences, extensions) and all that is theirs (rows, defaults, sequence
    /// values, indexes, constraints, triggers, policies, comments, grants).
    ///
    /// A partitioned table brings its partitions; a partition alone becomes a table of its own.
    /// What ties a selected table to one that is not (a foreign key, a trigger or rule that needs
    /// it, the attachment to a parent) is left out and reported. Publications are not touched.
    ///
    /// # Errors
    /// [`SelectError::UnknownTable`] for the first pattern that fits nothing.
    pub fn select_tables(&self, patterns: &[TablePattern]) -> Result<TableSelection, SelectError> {
        let mut choice = Choice::new(self);
        for pattern in patterns {
            for entry in find(self, pattern)? {
                choice.select(entry);
            }
        }
        choice.gather();
        Ok(choice.finish())
    }
}

/// The relations that a pattern names; never none.
fn find<'a>(
    archive: &'a Archive,
    pattern: &TablePattern,
) -> Result<Vec<&'a TocEntry>, SelectError> {
    let defined: HashSet<DumpId> = archive.entries.iter().map(|entry| entry.dump_id).collect();
    let candidates: Vec<(String, String, &TocEntry)> = archive
        .entries
        .iter()
        .filter(|entry| {
            // In a data-only archive, the rows stand for the table.
            let stands_alone = || !entry.dependencies.iter().any(|id| defined.contains(id));
            is_table(entry) || entry.is("SEQUENCE") || (entry.is("TABLE DATA") && stands_alone())
        })
        .map(|entry| {
            let text = |text: &Option<Text>| {
                text.as_ref()
                    .map(|text| text.lossy().into_owned())
                    .unwrap_or_default()
            };
            (text(&entry.namespace), text(&entry.tag), entry)
        })
        .collect();
    let fitting = |fits: &dyn Fn(&str, &str) -> bool| -> Vec<&TocEntry> {
        let fitting = candidates
            .iter()
            .filter(|(schema, name, _)| fits(schema, name));
        fitting.map(|(_, _, entry)| *entry).collect()
    };
    let mut found = fitting(&|schema, name| pattern.is_exactly(schema, name));
    if found.is_empty() {
        found = fitting(&|schema, name| pattern.matches(schema, name));
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let typed = pattern.typed().to_lowercase();
    let mut near: Vec<(usize, String)> = candidates
        .iter()
        .filter(|(_, _, entry)| !entry.is("SEQUENCE"))
        .map(|(schema, name, entry)| {
            let whole = distance(&typed, &format!("{schema}.{name}").to_lowercase());
            (
                whole.min(distance(&typed, &name.to_lowercase())),
                qualified(entry),
            )
        })
        .filter(|(distance, _)| *distance <= 2.max(typed.chars().count() / 3))
        .collect();
    near.sort();
    let nearest = near.into_iter().take(3).map(|(_, name)| name).collect();
    Err(SelectError::UnknownTable {
        name: pattern.typed().to_owned(),
        nearest,
    })
}

/// A selection in the making.
struct Choice<'a> {
    archive: &'a Archive,
    by_id: HashMap<DumpId, &'a TocEntry>,
    /// Each partition with its parent, by `TABLE ATTACH` entries.
    parents: HashMap<DumpId, DumpId>,
    /// The same the other way round.
    partitions: HashMap<DumpId, Vec<DumpId>>,
    /// Relations that were asked for.
    selected: HashSet<DumpId>,
    /// Relations that others need, and whether with their rows.
    required: HashMap<DumpId, bool>,
    /// All entries chosen so far.
    chosen: HashSet<DumpId>,
    /// Chosen entries that are not the selected relations and their parts.
    shared: BTreeSet<DumpId>,
    left_out: Vec<LeftOut>,
}

impl<'a> Choice<'a> {
    fn new(archive: &'a Archive) -> Self {
        let by_id: HashMap<DumpId, &TocEntry> = archive
            .entries
            .iter()
            .map(|entry| (entry.dump_id, entry))
            .collect();
        let parents: HashMap<DumpId, DumpId> = archive
            .entries
            .iter()
            .filter(|entry| entry.is("TABLE ATTACH"))
            .filter_map(|attach| {
                // It depends on both; the child is the one whose name it bears.
                let (child, parent): (Vec<DumpId>, Vec<DumpId>) =
                    attach.dependencies.iter().partition(|id| {
                        by_id.get(id).is_some_and(|entry| {
                            entry.tag == attach.tag && entry.namespace == attach.namespace
                        })
                    });
                Some((*child.first()?, *parent.first()?))
            })
            .collect();
        let mut partitions: HashMap<DumpId, Vec<DumpId>> = HashMap::new();
        for (child, parent) in &parents {
            partitions.entry(*parent).or_default().push(*child);
        }
        Self {
            archive,
            by_id,
            parents,
            partitions,
            selected: HashSet::new(),
            required: HashMap::new(),
            chosen: HashSet::new(),
            shared: BTreeSet::new(),
            left_out: Vec::new(),
        }
    }

    /// Adds a relation that was asked for, its partitions, and all that they need.
    fn select(&mut self, entry: &'a TocEntry) {
        let mut open = vec![entry];
        while let Some(entry) = open.pop() {
            if self.selected.insert(entry.dump_id) {
                self.chosen.insert(entry.dump_id);
                self.shared.remove(&entry.dump_id);
                self.need_dependencies(entry, is_view(entry));
                open.extend(self.partitions(entry.dump_id));
            }
        }
    }

    /// Adds what an entry cannot exist without, and what that cannot, and so on.
    fn need_dependencies(&mut self, entry: &'a TocEntry, with_rows: bool) {
        // A list, not recursion: a chain of dependencies may be as long as the archive.
        let mut open = self.dependencies(entry, with_rows);
        while let Some((entry, with_rows)) = open.pop() {
            if !self.enter(entry, with_rows) {
                continue;
            }
            open.extend(self.dependencies(entry, with_rows || is_view(entry)));
            if with_rows {
                // The rows of a partitioned table are its partitions'.
                let partitions = self.partitions(entry.dump_id);
                open.extend(partitions.into_iter().map(|entry| (entry, true)));
            }
        }
    }

    /// What an entry depends on in earnest.
    fn dependencies(&self, entry: &TocEntry, with_rows: bool) -> Vec<(&'a TocEntry, bool)> {
        let needed = entry
            .dependencies
            .iter()
            .filter_map(|id| self.by_id.get(id).copied());
        needed
            .filter(|needed| {
                // A partition is made as a table of its own and attached later; a sequence is made
                // before it is given to a column (but for identity columns, which make their own).
                let soft = self.parents.get(&entry.dump_id) == Some(&needed.dump_id)
                    || (entry.is("SEQUENCE") && is_table(needed));
                // What is a relation's own comes with its relation, or not at all: a partition's
                // index is made without the index that it is attached to later.
                let own = is_part(needed) && !needed.is("SEQUENCE");
                !soft && !own && !is_contents(needed)
            })
            .map(|needed| (needed, with_rows))
            .collect()
    }

    /// Chooses an entry that others need. False if that was done before.
    fn enter(&mut self, entry: &TocEntry, with_rows: bool) -> bool {
        let id = entry.dump_id;
        if is_table(entry) && !self.selected.contains(&id) {
            if self
                .required
                .get(&id)
                .is_some_and(|rows| *rows || !with_rows)
            {
                return false;
            }
            self.required.insert(id, with_rows);
        } else if self.chosen.contains(&id) {
            return false;
        }
        if self.chosen.insert(id) {
            self.shared.insert(id);
        }
        true
    }

    fn partitions(&self, parent: DumpId) -> Vec<&'a TocEntry> {
        let partitions = self.partitions.get(&parent).into_iter().flatten();
        partitions
            .filter_map(|id| self.by_id.get(id).copied())
            .collect()
    }

    fn has_relation(&self, id: DumpId) -> bool {
        self.selected.contains(&id) || self.required.contains_key(&id)
    }

    /// Adds what belongs to the chosen relations and objects, until nothing more comes.
    fn gather(&mut self) {
        loop {
            let before = self.chosen.len();
            for entry in &self.archive.entries {
                if self.chosen.contains(&entry.dump_id) {
                    continue;
                }
                if is_part(entry) && self.takes_part(entry) {
                    self.chosen.insert(entry.dump_id);
                    if !self.is_own(entry) {
                        self.shared.insert(entry.dump_id);
                    }
                    self.need_dependencies(entry, false);
                }
            }
            if self.chosen.len() == before {
                break;
            }
        }
        self.gather_attributes();
        self.report_left_out();
    }

    /// Whether a part's relations are all there.
    fn takes_part(&self, entry: &TocEntry) -> bool {
        if entry.is("PUBLICATION TABLE") || entry.is("SUBSCRIPTION TABLE") {
            return false;
        }
        let mut relations = self.relations_of(entry).peekable();
        if relations.peek().is_none() || !relations.all(|id| self.has_relation(id)) {
            return false;
        }
        // Rows come with what was asked for, and with what a view reads.
        let with_rows = |id: DumpId| {
            self.selected.contains(&id) || self.required.get(&id).copied().unwrap_or_default()
        };
        !is_contents(entry) || self.relations_of(entry).all(with_rows)
    }

    /// The relations that an entry refers to.
    fn relations_of(&self, entry: &TocEntry) -> impl Iterator<Item = DumpId> {
        let relations = entry.dependencies.iter().copied();
        relations.filter(|id| self.by_id.get(id).is_some_and(|entry| is_table(entry)))
    }

    fn is_own(&self, entry: &TocEntry) -> bool {
        self.relations_of(entry)
            .any(|id| self.selected.contains(&id))
    }

    /// Comments, grants, sequence values, …: wherever their object is.
    fn gather_attributes(&mut self) {
        for entry in &self.archive.entries {
            if !is_attribute(entry) {
                continue;
            }
            let object = entry.dependencies.iter().find(|id| {
                // A column's grants depend on the table's grants as well: they are not the object.
                self.chosen.contains(id) && self.by_id.get(id).is_some_and(|entry| !entry.is("ACL"))
            });
            let Some(object) = object.and_then(|id| self.by_id.get(id).copied()) else {
                continue;
            };
            // A sequence whose table is not there belongs to nobody.
            if entry.is("SEQUENCE OWNED BY")
                && !self.relations_of(object).all(|id| self.has_relation(id))
            {
                continue;
            }
            self.chosen.insert(entry.dump_id);
            if self.shared.contains(&object.dump_id) {
                self.shared.insert(entry.dump_id);
            }
        }
    }

    /// What is a selected relation's own and was not chosen, for want of another.
    fn report_left_out(&mut self) {
        for entry in &self.archive.entries {
            let reported = is_part(entry)
                && !is_contents(entry)
                && !["INDEX ATTACH", "PUBLICATION TABLE", "SUBSCRIPTION TABLE"]
                    .iter()
                    .any(|desc| entry.is(desc));
            if !reported || self.chosen.contains(&entry.dump_id) || !self.owns(entry) {
                continue;
            }
            let missing = self
                .relations_of(entry)
                .filter(|id| !self.has_relation(*id));
            let needs: BTreeSet<String> = missing
                .filter_map(|id| self.by_id.get(&id).map(|entry| qualified(entry)))
                .collect();
            if !needs.is_empty() {
                let needs = needs.into_iter().collect();
                self.left_out.push(LeftOut {
                    entry: entry.describe(),
                    needs,
                });
            }
        }
    }

    /// Whether the selection holds the relation that the entry's name says it belongs to.
    fn owns(&self, entry: &TocEntry) -> bool {
        let tag = entry.tag.as_ref().map(Text::lossy).unwrap_or_default();
        self.relations_of(entry)
            .filter(|id| self.selected.contains(id))
            .any(|id| {
                let Some(relation) = self.by_id.get(&id) else {
                    return false;
                };
                let name = relation.tag.as_ref().map(Text::lossy).unwrap_or_default();
                // "table constraint", "table trigger"; for TABLE ATTACH the table alone.
                tag.strip_prefix(&*name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
    }

    fn finish(self) -> TableSelection {
        let Self {
            archive,
            selected,
            required,
            chosen,
            shared,
            left_out,
            ..
        } = self;
        let names = |wanted: &dyn Fn(&DumpId) -> bool| {
            let entries = archive
                .entries
                .iter()
                .filter(|entry| wanted(&entry.dump_id));
            entries.map(qualified).collect()
        };
        TableSelection {
            selected: names(&|id| selected.contains(id)),
            required: names(&|id| required.contains_key(id) && !selected.contains(id)),
            archive: archive.filtered(|entry| is_setting(entry) || chosen.contains(&entry.dump_id)),
            shared,
            left_out,
        }
    }
}
