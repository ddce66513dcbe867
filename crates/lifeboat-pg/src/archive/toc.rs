//! The table of contents: one entry for everything that pg_dump dumps.
//!
//! Format: `ReadToc` and `WriteToc` in PostgreSQL's `pg_backup_archiver.c`.

use std::collections::HashSet;
use std::io::{Read, Write};

use super::error::ArchiveError;
use super::header::{ArchiveFormat, Header, Version};
use super::io::{OFFSET_NO_DATA, OFFSET_NOT_SET, OFFSET_SET, Sink, Source};
use super::text::Text;

/// An entry's number within its archive; always positive.
pub type DumpId = i32;

/// When an entry is restored, `teSection` in `pg_backup.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// With the entries before it (comments, ACLs, `ENCODING`, …).
    None,
    /// Definitions that data needs.
    PreData,
    /// Rows, large objects, sequence values.
    Data,
    /// Indexes, triggers, foreign keys and whatever else is quicker or safer after the data.
    PostData,
}

/// Where an entry's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataRef {
    /// It has none.
    None,
    /// In a custom-format archive, but the TOC does not say where: pg_dump wrote into a pipe.
    Unplaced,
    /// In a custom-format archive, this many bytes from its start.
    At(u64),
    /// In a file of a directory-format dump, relative to `toc.dat`. Not trusted: see
    /// [`safe_relative`](super::layout::safe_relative).
    File(Text),
}

/// One entry of the table of contents. Names are pg_dump's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// The entry's number, unique in its archive.
    pub dump_id: DumpId,
    /// Whether pg_dump had data to write for it.
    pub had_dumper: bool,
    /// The system catalog that the object was in (`tableoid`), or 0.
    pub catalog_oid: u32,
    /// The object's OID in that catalog, or 0.
    pub oid: u32,
    /// The object's name, sometimes with its table's name before it.
    pub tag: Option<Text>,
    /// The kind of object: `TABLE`, `TABLE DATA`, `FK CONSTRAINT`, …
    pub desc: Text,
    /// When it is restored.
    pub section: Section,
    /// The SQL that makes it.
    pub defn: Option<Text>,
    /// The SQL that removes it.
    pub drop_stmt: Option<Text>,
    /// For `TABLE DATA`, the `COPY … FROM stdin;` that loads it.
    pub copy_stmt: Option<Text>,
    /// The schema it is in.
    pub namespace: Option<Text>,
    /// Its tablespace; an empty name is the database's default.
    pub tablespace: Option<Text>,
    /// Its table access method (since 1.14).
    pub table_am: Option<Text>,
    /// `pg_class.relkind` as a number (since 1.16), 0 for what is no relation.
    pub relkind: i32,
    /// The role that owns it.
    pub owner: Option<Text>,
    /// Whether the table has an OID column, which PostgreSQL 12 did away with.
    pub with_oids: bool,
    /// The entries that must exist before it. May name entries that are not in the archive.
    pub dependencies: Vec<DumpId>,
    /// Where its data is.
    pub data: DataRef,
}

impl TocEntry {
    /// Whether the entry is of this kind (`TABLE`, `TABLE DATA`, …).
    #[must_use]
    pub fn is(&self, desc: &str) -> bool {
        self.desc == desc
    }

    /// Whether the archive holds data for this entry: rows or large objects.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.data != DataRef::None
    }

    /// Kind and name for people, such as `TABLE DATA public.memes`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.desc.to_string();
        if let Some(tag) = self.tag.as_ref().filter(|tag| !tag.is_empty()) {
            text.push(' ');
            if let Some(schema) = self.namespace.as_ref().filter(|schema| !schema.is_empty()) {
                text.push_str(&schema.lossy());
                text.push('.');
            }
            text.push_str(&tag.lossy());
        }
        text
    }

    fn read<R: Read>(
        source: &mut Source<R>,
        version: Version,
        format: ArchiveFormat,
    ) -> Result<Self, ArchiveError> {
        let dump_id = source.int()?;
        if dump_id <= 0 {
            return Err(source.damaged(format!("entry number {dump_id} is out of range")));
        }
        let had_dumper = source.int()? != 0;
        let catalog_oid = source.number("a catalog's OID")?;
        let oid = source.number("an object's OID")?;
        let tag = source.string()?;
        let desc = source.string()?;
        let desc = desc.ok_or_else(|| source.damaged(format!("entry {dump_id} has no kind")))?;
        let section = match source.int()? {
            1 => Section::None,
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            code => {
                let what = format!("entry {dump_id} is in the unknown section {code}");
                return Err(source.damaged(what));
            }
        };
        Ok(Self {
            dump_id,
            had_dumper,
            catalog_oid,
            oid,
            tag,
            desc,
            section,
            defn: source.string()?,
            drop_stmt: source.string()?,
            copy_stmt: source.string()?,
            namespace: source.string()?,
            tablespace: source.string()?,
            table_am: if version.has_table_am() {
                source.string()?
            } else {
                None
            },
            relkind: if version.has_blob_groups() {
                source.int()?
            } else {
                0
            },
            owner: source.string()?,
            with_oids: read_with_oids(source)?,
            dependencies: read_dependencies(source)?,
            data: read_data_ref(source, format)?,
        })
    }

    fn write<W: Write>(
        &self,
        sink: &mut Sink<W>,
        version: Version,
        format: ArchiveFormat,
        data: &DataRef,
    ) -> Result<(), ArchiveError> {
        fn text(text: &Option<Text>) -> Option<&[u8]> {
            text.as_ref().map(Text::as_bytes)
        }
        sink.int(self.dump_id)?;
        sink.int(i32::from(self.had_dumper))?;
        sink.string(Some(self.catalog_oid.to_string().as_bytes()))?;
        sink.string(Some(self.oid.to_string().as_bytes()))?;
        sink.string(text(&self.tag))?;
        sink.string(Some(self.desc.as_bytes()))?;
        sink.int(match self.section {
            Section::None => 1,
            Section::PreData => 2,
            Section::Data => 3,
            Section::PostData => 4,
        })?;
        sink.string(text(&self.defn))?;
        sink.string(text(&self.drop_stmt))?;
        sink.string(text(&self.copy_stmt))?;
        sink.string(text(&self.namespace))?;
        sink.string(text(&self.tablespace))?;
        if version.has_table_am() {
            sink.string(text(&self.table_am))?;
        }
        if version.has_blob_groups() {
            sink.int(self.relkind)?;
        }
        sink.string(text(&self.owner))?;
        sink.string(Some(if self.with_oids { b"true" } else { b"false" }))?;
        for dependency in &self.dependencies {
            sink.string(Some(dependency.to_string().as_bytes()))?;
        }
        sink.string(None)?;
        match (format, data) {
            // The directory format marks "no data" with an empty file name.
            (ArchiveFormat::Directory, DataRef::None) => sink.string(Some(b"")),
            (ArchiveFormat::Directory, DataRef::File(name)) => sink.string(Some(name.as_bytes())),
            (ArchiveFormat::Custom, DataRef::None) => sink.file_offset(OFFSET_NO_DATA, 0),
            (ArchiveFormat::Custom, DataRef::Unplaced) => sink.file_offset(OFFSET_NOT_SET, 0),
            (ArchiveFormat::Custom, DataRef::At(offset)) => sink.file_offset(OFFSET_SET, *offset),
            (ArchiveFormat::Directory, _) | (ArchiveFormat::Custom, DataRef::File(_)) => {
                let what = format!("the data of {} is of another format", self.describe());
                Err(ArchiveError::Unwritable { what })
            }
        }
    }
}

pub(super) fn read_entries<R: Read>(
    source: &mut Source<R>,
    version: Version,
    format: ArchiveFormat,
) -> Result<Vec<TocEntry>, ArchiveError> {
    source.enter("the table of contents");
    let count = source.int()?;
    let count = usize::try_from(count)
        .map_err(|_| source.damaged(format!("a table of contents of {count} entries")))?;
    // The count is a claim: memory is only taken for entries that really come.
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for _ in 0..count {
        let entry = TocEntry::read(source, version, format)?;
        if !seen.insert(entry.dump_id) {
            return Err(source.damaged(format!("two entries have the number {}", entry.dump_id)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Writes the entry count and the entries; `data` says where each entry's data is.
pub(super) fn write_entries<W: Write>(
    sink: &mut Sink<W>,
    header: &Header,
    entries: &[TocEntry],
    mut data: impl FnMut(&TocEntry) -> Result<DataRef, ArchiveError>,
) -> Result<(), ArchiveError> {
    let count = i32::try_from(entries.len()).map_err(|_| ArchiveError::Unwritable {
        what: "too many entries".into(),
    })?;
    sink.int(count)?;
    for entry in entries {
        entry.write(sink, header.version, header.format, &data(entry)?)?;
    }
    Ok(())
}

fn read_with_oids<R: Read>(source: &mut Source<R>) -> Result<bool, ArchiveError> {
    match source.string()? {
        Some(text) if text == "true" => Ok(true),
        Some(text) if text == "false" => Ok(false),
        _ => Err(source.damaged("neither \"true\" nor \"false\" for WITH OIDS")),
    }
}

fn read_dependencies<R: Read>(source: &mut Source<R>) -> Result<Vec<DumpId>, ArchiveError> {
    let mut dependencies = Vec::new();
    while let Some(text) = source.string()? {
        dependencies.push(source.parse_number(Some(&text), "a dependency")?);
    }
    Ok(dependencies)
}

fn read_data_ref<R: Read>(
    source: &mut Source<R>,
    format: ArchiveFormat,
) -> Result<DataRef, ArchiveError> {
    if format == ArchiveFormat::Directory {
        return match source.string()? {
            None => Err(source.damaged("an entry has no file name field")),
            Some(name) if name.is_empty() => Ok(DataRef::None),
            Some(name) => Ok(DataRef::File(name)),
        };
    }
    Ok(match source.file_offset()? {
        (OFFSET_NO_DATA, _) => DataRef::None,
        (OFFSET_SET, offset) => DataRef::At(offset),
        _ => DataRef::Unplaced,
    })
}
