//! What a dump's table of contents tells of the backup that it becomes.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_pg::archive::{Archive, Compression, DumpId, TocEntry};
use lifeboat_pg::dump::TableName;

use super::Refusal;
use crate::manifest::{ExtensionRecord, ServerRecord};

/// A `TABLE DATA` entry, understood.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: TableName,
    pub(super) columns: Vec<String>,
    /// The partitioned table that the rows are loaded into, where that is not the table itself.
    pub(super) root: Option<TableName>,
}

/// Every table of the dump with rows to load, or why they cannot be loaded from a backup.
pub(super) fn tables(archive: &Archive) -> Result<BTreeMap<DumpId, Table>, Refusal> {
    let has = |desc: &str| archive.entries.iter().any(|entry| entry.is(desc));
    let has_rows = archive.data_entries().any(|entry| entry.is("TABLE DATA"));
    if has("TABLE") && !has_rows {
        return Err(Refusal::SchemaOnly);
    }
    if has_rows && !has("TABLE") && !has("EXTENSION") {
        return Err(Refusal::DataOnly);
    }
    let data = archive.data_entries().filter(|entry| !entry.is("BLOBS"));
    data.map(|entry| Ok((entry.dump_id, table(entry)?)))
        .collect()
}

fn table(entry: &TocEntry) -> Result<Table, Refusal> {
    let unreadable = |why| Refusal::Entry {
        entry: entry.describe(),
        why,
    };
    if !entry.is("TABLE DATA") {
        return Err(unreadable("it is of a kind that is not known"));
    }
    let names = (entry.namespace.as_ref(), entry.tag.as_ref());
    let (Some(schema), Some(name)) = names else {
        return Err(unreadable("it has no name"));
    };
    let (Some(schema), Some(name)) = (schema.as_str(), name.as_str()) else {
        return Err(unreadable("its name is not UTF-8"));
    };
    let target = entry
        .copy_columns()
        .map_err(|_| unreadable("its COPY statement cannot be understood"))?
        .ok_or_else(|| unreadable("it was dumped as INSERT statements"))?;
    // The OIDs would be a column that no table has any more.
    let statement = entry.copy_stmt.as_ref().and_then(|text| text.as_str());
    if statement.is_some_and(|text| text.contains(" WITH OIDS ")) {
        return Err(unreadable("it was dumped with OIDs"));
    }
    let name = TableName {
        schema: schema.to_owned(),
        name: name.to_owned(),
    };
    let columns = target.column_names();
    let root = target.schema.map(|schema| TableName {
        schema,
        name: target.table,
    });
    Ok(Table {
        root: root.filter(|root| *root != name),
        name,
        columns,
    })
}

/// What the operator should know about a dump that is complete and still holds less than a backup.
pub(super) fn warnings(archive: &Archive, tables: &BTreeMap<DumpId, Table>) -> Vec<String> {
    const NAMED: usize = 5;
    let mut warnings =
        vec!["roles are not in this backup: a dump of one database does not hold them".to_owned()];
    let filled: BTreeSet<(&[u8], &[u8])> = tables
        .values()
        .map(|table| (table.name.schema.as_bytes(), table.name.name.as_bytes()))
        .collect();
    let own = archive.entries.iter().filter(|entry| entry.is("TABLE"));
    let empty: Vec<String> = own
        .filter(|entry| !is_partitioned(entry))
        .filter(|entry| {
            let names = entry.namespace.as_ref().zip(entry.tag.as_ref());
            names.is_some_and(|(schema, name)| {
                !filled.contains(&(schema.as_bytes(), name.as_bytes()))
            })
        })
        .map(|entry| entry.describe().replacen("TABLE ", "", 1))
        .collect();
    if !empty.is_empty() {
        let (first, more) = empty.split_at(NAMED.min(empty.len()));
        let rest = match more.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        warnings.push(format!(
            "the dump was made without the rows of {}{rest}",
            first.join(", ")
        ));
    }
    warnings
}

fn is_partitioned(entry: &TocEntry) -> bool {
    let defn = entry.defn.as_ref().map(|defn| defn.lossy());
    defn.is_some_and(|defn| defn.contains("\nPARTITION BY "))
}

/// The server and database that the dump came from, as far as it says.
pub(super) fn server(archive: &Archive) -> ServerRecord {
    let header = &archive.header;
    let version = header
        .server_version
        .as_ref()
        .map(|version| version.lossy().into_owned())
        .unwrap_or_default();
    let database = archive.entries.iter().find(|entry| entry.is("DATABASE"));
    let definition = database
        .and_then(|entry| entry.defn.as_ref())
        .map(|defn| defn.lossy().into_owned())
        .unwrap_or_default();
    let setting = |name: &str| database_setting(&definition, name);
    let both = || setting("LOCALE");
    let provider = setting("LOCALE_PROVIDER").filter(|provider| provider != "libc");
    ServerRecord {
        version_num: version_num(&version),
        version,
        database: header
            .database
            .as_ref()
            .map(|name| name.lossy().into_owned())
            .unwrap_or_default(),
        address: String::new(),
        owner: database
            .and_then(|entry| entry.owner.as_ref())
            .map(|owner| owner.lossy().into_owned())
            .unwrap_or_default(),
        // The rows' encoding, which is the database's unless pg_dump was told otherwise.
        encoding: client_encoding(archive)
            .or_else(|| setting("ENCODING"))
            .unwrap_or_else(|| "UTF8".to_owned()),
        collate: setting("LC_COLLATE").or_else(both).unwrap_or_default(),
        ctype: setting("LC_CTYPE").or_else(both).unwrap_or_default(),
        locale: provider
            .as_ref()
            .and_then(|_| setting("ICU_LOCALE").or_else(|| setting("BUILTIN_LOCALE"))),
        locale_provider: provider,
        size_bytes: None,
    }
}

/// The extensions that the dump makes. It does not say in which version.
pub(super) fn extensions(archive: &Archive) -> Vec<ExtensionRecord> {
    let own = archive.entries.iter().filter(|entry| entry.is("EXTENSION"));
    own.filter_map(|entry| entry.tag.as_ref())
        .map(|name| ExtensionRecord {
            name: name.lossy().into_owned(),
            version: String::new(),
        })
        .collect()
}

/// `SET client_encoding = 'UTF8';`: what the `ENCODING` entry says.
fn client_encoding(archive: &Archive) -> Option<String> {
    let entry = archive.entries.iter().find(|entry| entry.is("ENCODING"))?;
    let statement = entry.defn.as_ref()?.as_str()?;
    let (_, quoted) = statement.split_once('\'')?;
    let (name, _) = quoted.split_once('\'')?;
    Some(name.to_owned())
}

/// A setting of `CREATE DATABASE … WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE = 'C';`
/// (`dumpDatabase` in `pg_dump.c`), not quoted.
fn database_setting(definition: &str, name: &str) -> Option<String> {
    // The database's own name comes before, and may hold anything.
    let (_, settings) = definition.rsplit_once(" WITH TEMPLATE = ")?;
    let (_, value) = settings.split_once(&format!(" {name} = "))?;
    match value.strip_prefix('\'') {
        Some(quoted) => {
            let mut text = String::new();
            let mut letters = quoted.chars().peekable();
            while let Some(letter) = letters.next() {
                if letter == '\'' && letters.next_if_eq(&'\'').is_none() {
                    break;
                }
                text.push(letter);
            }
            Some(text)
        }
        None => value
            .split([' ', ';', '\n'])
            .next()
            .filter(|word| !word.is_empty())
            .map(str::to_owned),
    }
}

/// `server_version_num` of `15.18 (Debian 15.18-0+deb12u1)`, `9.6.24`, `18beta1`; 0 for what is none.
fn version_num(version: &str) -> u32 {
    let word = version.split_whitespace().next().unwrap_or_default();
    let mut parts = word.split('.').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..digits].parse::<u32>().unwrap_or(0)
    });
    let (first, second, third) = (parts.next(), parts.next(), parts.next());
    let (first, second) = (first.unwrap_or(0).min(9_999), second.unwrap_or(0).min(99));
    if first >= 10 {
        first * 10_000 + second
    } else {
        first * 10_000 + second * 100 + third.unwrap_or(0).min(99)
    }
}

/// How the data is compressed, for people.
#[must_use]
pub(super) fn compression_name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip { .. } => "gzip",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", 150_018),
            ("9.6.24", 90_624),
            ("10.23", 100_023),
            ("18beta1", 180_000),
            ("17.2 - Percona Distribution", 170_002),
            ("", 0),
            ("devel", 0),
        ] {
            assert_eq!(version_num(text), number, "{text}");
        }
    }

    #[test]
    fn settings_of_a_database() {
        let plain = "CREATE DATABASE \"a WITH TEMPLATE = x\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'en_US.UTF-8' ICU_LOCALE = 'it''s';\n";
        let setting = |name| database_setting(plain, name);
        assert_eq!(setting("ENCODING").as_deref(), Some("UTF8"));
        assert_eq!(setting("LOCALE").as_deref(), Some("en_US.UTF-8"));
        assert_eq!(setting("LOCALE_PROVIDER").as_deref(), Some("icu"));
        assert_eq!(setting("ICU_LOCALE").as_deref(), Some("it's"));
        assert_eq!(setting("LC_COLLATE"), None);
        assert_eq!(database_setting("", "ENCODING"), None);
    }
}
