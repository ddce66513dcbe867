//! From a path in a backup to what an operator knows it by.

use std::fmt;

use lifeboat_repo::repair::LostPath;

use crate::manifest::{GLOBALS_PATH, MANIFEST_PATH, Manifest, TOC_PATH};

/// A part of a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All of it.
    Everything,
    /// The list of what is in the dump: without it nothing can be restored.
    TableOfContents,
    /// What the backup recorded about itself. Stock restic and pg_restore do without it.
    Manifest,
    /// A table's rows: `schema.table`.
    Table(String),
    /// The rows of all tables.
    AllTables,
    /// The rows of all tables of a schema.
    Schema(String),
    /// A large object.
    LargeObject(String),
    /// Large objects, or all of them.
    LargeObjects,
    /// Roles and what else belongs to the whole server.
    Globals,
    /// Something else, by its path.
    Other(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::TableOfContents => f.write_str("the table of contents"),
            Self::Manifest => f.write_str("the manifest"),
            Self::Table(name) => f.write_str(name),
            Self::AllTables => f.write_str("all tables"),
            Self::Schema(name) => write!(f, "all tables of {name}"),
            Self::LargeObject(oid) => write!(f, "large object {oid}"),
            Self::LargeObjects => f.write_str("large objects"),
            Self::Globals => f.write_str("globals.sql"),
            Self::Other(path) => f.write_str(path),
        }
    }
}

/// A part that is lost, whole or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPart {
    /// What it is.
    pub part: Part,
    /// Its file in the backup, or the folder that it was in.
    pub path: String,
    /// Of a file whose chunks are known: how many are lost.
    pub chunks_lost: Option<u64>,
    /// How many it has.
    pub chunks: u64,
}

/// The parts that these paths are. Where a folder's list of files is lost, the manifest, if it can be read, knows
/// what was in it.
pub(super) fn of_paths(paths: &[LostPath], manifest: Option<&Manifest>) -> Vec<LostPart> {
    let mut parts = Vec::new();
    for lost in paths {
        let mut add = |part: Part, path: &str| {
            parts.push(LostPart {
                part,
                path: path.to_owned(),
                chunks_lost: lost.chunks_lost,
                chunks: lost.chunks,
            });
        };
        let tables = manifest.iter().flat_map(|manifest| &manifest.tables);
        let mut known = false;
        for table in tables {
            let path = format!("dump/{}", table.file);
            if is_within(&path, &lost.path) {
                add(Part::Table(table.name()), &path);
                known = true;
            }
        }
        match lost.path.as_str() {
            "" => add(Part::Everything, ""),
            "dump" => {
                add(Part::TableOfContents, TOC_PATH);
                if !known {
                    add(Part::AllTables, "dump/tables");
                }
                add(Part::LargeObjects, "dump/blobs");
            }
            path if !known => add(by_path(path), path),
            _ => {}
        }
    }
    parts
}

fn is_within(path: &str, folder: &str) -> bool {
    path == folder
        || folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// By the layout that docs/repository.md describes.
fn by_path(path: &str) -> Part {
    let steps: Vec<&str> = path.split('/').collect();
    match steps.as_slice() {
        _ if path == MANIFEST_PATH => Part::Manifest,
        _ if path == TOC_PATH => Part::TableOfContents,
        _ if path == GLOBALS_PATH => Part::Globals,
        ["dump", "tables"] => Part::AllTables,
        ["dump", "tables", schema] => Part::Schema(decode(schema)),
        ["dump", "tables", schema, table, ..] => {
            Part::Table(format!("{}.{}", decode(schema), decode(table)))
        }
        ["dump", "blobs", _, file] => match file.strip_suffix(".dat") {
            Some(oid) => Part::LargeObject(oid.to_owned()),
            None => Part::Other(path.to_owned()),
        },
        ["dump", "blobs"] | ["dump", "blobs", _] => Part::LargeObjects,
        ["dump", list] if list.starts_with("blobs") => Part::LargeObjects,
        _ => Part::Other(path.to_owned()),
    }
}

/// Undoes `percent_encode` of `lifeboat-pg`.
fn decode(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_as_what_they_hold() {
        for (path, words) in [
            ("dump/tables/public/memes/data.dat", "public.memes"),
            ("dump/tables/public/memes", "public.memes"),
            (
                "dump/tables/public/Odd%20%22x%22%C3%BC/data.dat",
                "public.Odd \"x\"ü",
            ),
            ("dump/tables/100%25/a%2", "100%.a%2"),
            ("dump/tables/app", "all tables of app"),
            ("dump/tables", "all tables"),
            ("dump/blobs/4/16385.dat", "large object 16385"),
            ("dump/blobs/4", "large objects"),
            ("dump/blobs.toc", "large objects"),
            ("dump/blobs_7.toc", "large objects"),
            ("dump/toc.dat", "the table of contents"),
            ("lifeboat.json", "the manifest"),
            ("globals.sql", "globals.sql"),
            ("etc/passwd", "etc/passwd"),
        ] {
            assert_eq!(by_path(path).to_string(), words, "{path}");
        }
        let folder = |path: &str| LostPath {
            path: path.to_owned(),
            chunks_lost: None,
            chunks: 0,
        };
        let words = |path: &str| {
            let parts = of_paths(&[folder(path)], None);
            let words = parts.iter().map(|one| one.part.to_string());
            words.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(words(""), "everything");
        assert_eq!(
            words("dump"),
            "the table of contents, all tables, large objects"
        );
    }
}
