//! Choosing entries of a table of contents: pure functions from an archive to a smaller one.
//!
//! The order of entries is kept, and dependencies on what is gone are left dangling, which
//! `pg_restore` allows for (`fix_dependencies` in `pg_backup_archiver.c`).

mod pattern;
mod roles;
mod tables;

use std::collections::BTreeSet;

pub use pattern::TablePattern;
pub use tables::{LeftOut, SelectError, TableSelection};

use super::Archive;
use super::toc::{Section, TocEntry};

/// What to leave out of a restore; see [`Archive::without`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DropRules {
    /// Comments on extensions, which only the extension's owner may set.
    pub extension_comments: bool,
    /// Publications and what belongs to them.
    pub publications: bool,
    /// Subscriptions and what belongs to them.
    pub subscriptions: bool,
    /// Grants to, from and by these roles, which the target server does not have. Names as they
    /// are, not quoted.
    pub missing_roles: BTreeSet<String>,
}

impl Archive {
    /// The entries that `keep` wants.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&TocEntry) -> bool) -> Self {
        let entries = self
            .entries
            .iter()
            .filter(|entry| keep(entry))
            .cloned()
            .collect();
        Self {
            header: self.header.clone(),
            entries,
        }
    }

    /// The section that each entry is restored with, in the archive's order.
    ///
    /// An entry without a section of its own goes with the one before it, as in `pg_restore`
    /// (`ProcessArchiveRestoreOptions`).
    pub fn effective_sections(&self) -> impl Iterator<Item = Section> {
        let mut current = Section::PreData;
        self.entries.iter().map(move |entry| {
            if entry.section != Section::None {
                current = entry.section;
            }
            current
        })
    }

    /// The entries that are restored with these sections, and the session's settings
    /// (`ENCODING`, …), which every restore needs.
    #[must_use]
    pub fn with_sections(&self, sections: &[Section]) -> Self {
        let mut effective = self.effective_sections();
        self.filtered(|entry| {
            let section = effective.next();
            is_setting(entry) || section.is_some_and(|section| sections.contains(&section))
        })
    }

    /// Definitions without contents: what `pg_dump --schema-only` would have listed.
    #[must_use]
    pub fn schema_only(&self) -> Self {
        self.filtered(|entry| {
            !is_contents(entry)
                && !entry.is("MATERIALIZED VIEW DATA")
                && !entry.is("STATISTICS DATA")
        })
    }

    /// Contents without definitions: rows, sequence values, large objects, and the refreshing of
    /// materialized views.
    #[must_use]
    pub fn data_only(&self) -> Self {
        self.filtered(|entry| {
            is_setting(entry) || is_contents(entry) || entry.is("MATERIALIZED VIEW DATA")
        })
    }

    /// The archive without what the rules name. Also returns what was left out, in words.
    ///
    /// Of an entry with several grants, only those that mention a missing role are dropped.
    #[must_use]
    pub fn without(&self, rules: &DropRules) -> (Self, Vec<String>) {
        let mut kept = Vec::with_capacity(self.entries.len());
        let mut dropped = Vec::new();
        for entry in &self.entries {
            if rules.drops(entry) {
                dropped.push(entry.describe());
                continue;
            }
            if rules.missing_roles.is_empty() || !is_acl(entry) {
                kept.push(entry.clone());
                continue;
            }
            let (rest, lost) = roles::without_roles(entry, &rules.missing_roles);
            dropped.extend(lost);
            kept.extend(rest);
        }
        (
            Self {
                header: self.header.clone(),
                entries: kept,
            },
            dropped,
        )
    }

    /// The roles that a restore with owners and grants needs: owners, and who grants mention.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in &self.entries {
            if let Some(owner) = entry.owner.as_ref().filter(|owner| !owner.is_empty()) {
                found.insert(owner.lossy().into_owned());
            }
            if is_acl(entry) {
                found.extend(roles::mentioned(entry));
            }
        }
        found
    }
}

impl DropRules {
    fn drops(&self, entry: &TocEntry) -> bool {
        let about = |kind: &str| {
            (entry.is("COMMENT") || entry.is("SECURITY LABEL")) && tag_starts_with(entry, kind)
        };
        (self.extension_comments && entry.is("COMMENT") && tag_starts_with(entry, "EXTENSION "))
            || (self.publications
                && (entry.desc.starts_with("PUBLICATION") || about("PUBLICATION ")))
            || (self.subscriptions
                && (entry.desc.starts_with("SUBSCRIPTION") || about("SUBSCRIPTION ")))
    }
}

fn tag_starts_with(entry: &TocEntry, start: &str) -> bool {
    entry.tag.as_ref().is_some_and(|tag| tag.starts_with(start))
}

/// Settings of the restoring session.
fn is_setting(entry: &TocEntry) -> bool {
    ["ENCODING", "STDSTRINGS", "SEARCHPATH"]
        .iter()
        .any(|desc| entry.is(desc))
}

fn is_acl(entry: &TocEntry) -> bool {
    entry.is("ACL") || entry.is("DEFAULT ACL")
}

/// Contents in the sense of `_tocEntryRequired` in `pg_backup_archiver.c`: rows, sequence values,
/// and all about large objects.
fn is_contents(entry: &TocEntry) -> bool {
    let on_blobs = || {
        (is_acl(entry) || entry.is("COMMENT") || entry.is("SECURITY LABEL"))
            && tag_starts_with(entry, "LARGE OBJECT")
    };
    entry.has_data()
        || ["SEQUENCE SET", "BLOB", "BLOB METADATA"]
            .iter()
            .any(|desc| entry.is(desc))
        || on_blobs()
}
