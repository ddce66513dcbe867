//! What a backup says about itself: `lifeboat.json`, stored beside the dump it describes.
//!
//! The manifest is written by the backup that read the data, inside the same snapshot of the
//! repository, so it can never disagree with a later journal or another host. It holds everything that a
//! restore, a drill or a listing wants to know without a server at hand: how many rows each table had, an
//! order-independent hash of them, the migrations, the locale, the roles.
//!
//! Unknown fields are ignored and new fields are optional, so that older and newer Lifeboats read each
//! other's backups; `schema` changes only when a reader of the old form would be misled.

use jiff::Timestamp;
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::dump::TableName;
use lifeboat_pg::migrations::MigrationHistory;
use serde::{Deserialize, Serialize};

/// The value of [`Manifest::schema`] that this version writes, and the only one it reads.
pub const MANIFEST_SCHEMA: &str = "lifeboat.manifest/1";

/// The path of the manifest inside a backup.
pub const MANIFEST_PATH: &str = "lifeboat.json";

/// The path of the dump's table of contents inside a backup; its folder opens with `pg_restore`.
pub const TOC_PATH: &str = "dump/toc.dat";

/// The path of the roles and other server-wide objects inside a backup.
pub const GLOBALS_PATH: &str = "globals.sql";

/// The largest manifest that is read; larger ones are refused as damaged.
///
/// A table's record is some 200 bytes, so this leaves room for half a million tables.
pub const MANIFEST_MAX_BYTES: u64 = 128 << 20;

/// Everything that a backup records about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_SCHEMA`].
    pub schema: String,
    /// The version of Lifeboat that took the backup.
    pub lifeboat_version: String,
    /// The name that the configuration gives the database; backups are listed and expired by it.
    pub database: String,
    /// The moment the database snapshot was opened, by the clock of the host that took the backup, read
    /// just before: what the backup holds is never older than this.
    pub snapshot_time: Timestamp,
    /// The server's own clock at that moment, for finding out later that the two disagreed.
    #[serde(default)]
    pub server_time: Option<Timestamp>,
    /// The WAL position of the snapshot, where the server would tell (`pg_current_wal_lsn`).
    #[serde(default)]
    pub lsn: Option<String>,
    /// When the last row had been read; absent where nobody knows, as of an imported dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_finished: Option<Timestamp>,
    /// The server that the data came from.
    pub server: ServerRecord,
    /// The version of `pg_dump` that wrote the table of contents, as it prints it.
    pub pg_dump_version: String,
    /// Every table whose rows are in the backup, in the order of the table of contents.
    pub tables: Vec<TableRecord>,
    /// Large objects, all together.
    #[serde(default)]
    pub large_objects: LargeObjectsRecord,
    /// Roles that own objects of the dump or are granted something in it.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Installed extensions with their versions.
    #[serde(default)]
    pub extensions: Vec<ExtensionRecord>,
    /// The state of every schema migration table that was found.
    #[serde(default)]
    pub migrations: Vec<MigrationHistory>,
    /// What the operator should know about this backup although it succeeded: globals without
    /// passwords, for one.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The time zone that the rows' timestamps are written in; absent for UTC, as backups have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_time_zone: Option<String>,
    /// The dump that this was imported from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<ImportedFrom>,
}

/// The file that a backup was imported from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedFrom {
    /// Its path, whole.
    pub file: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of its content, in hex.
    pub sha256: String,
    /// How its data was compressed: `none`, `gzip`, `lz4` or `zstd`.
    pub compression: String,
    /// When it was imported.
    pub at: Timestamp,
}

/// The server and database that a backup was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// `server_version_num`: 150018 for 15.18.
    pub version_num: u32,
    /// `server_version`, as the server prints it.
    pub version: String,
    /// The database's real name on that server.
    pub database: String,
    /// `host:port` or the socket's folder; never a user or password. Absent (empty) for an imported dump.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The database's owner. This and the next two are absent (empty) where an imported dump does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// The database's encoding, `UTF8` for example.
    pub encoding: String,
    /// `LC_COLLATE`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub collate: String,
    /// `LC_CTYPE`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ctype: String,
    /// Who sorts text: `libc`, `icu` or `builtin`; absent means libc.
    #[serde(default)]
    pub locale_provider: Option<String>,
    /// The ICU or built-in locale, where such a provider is used.
    #[serde(default)]
    pub locale: Option<String>,
    /// `pg_database_size` at the time of the backup, in bytes; absent where the role may not ask.
    pub size_bytes: Option<u64>,
}

/// One table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// The schema's name, unquoted.
    pub schema: String,
    /// The table's name, unquoted.
    pub table: String,
    /// The ID of the table's `TABLE DATA` entry in the table of contents.
    pub dump_id: i32,
    /// The columns that were copied, in order, unquoted; none for a table without columns.
    pub columns: Vec<String>,
    /// How many rows, and their order-independent hash.
    pub census: RowCensus,
    /// The length of the table's file in the dump, in bytes.
    pub size_bytes: u64,
    /// The table's file, relative to `dump/`.
    pub file: String,
    /// The partitioned table that the rows are loaded into, where that is not the table itself. They may then
    /// land in sibling partitions, so only all tables of one root together can be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<TableName>,
}

impl TableRecord {
    /// `schema.table`, for people.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// The large objects of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjectsRecord {
    /// How many, and an order-independent hash over OID and content.
    pub census: RowCensus,
    /// Their content, in bytes.
    pub size_bytes: u64,
}

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionRecord {
    /// Its name.
    pub name: String,
    /// Its installed version; absent (empty) for an imported dump, which does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// Why a manifest could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or fields are missing.
    #[error("the manifest cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a version whose manifests mean something else.
    #[error("the manifest is of the form {found:?}; this version reads {MANIFEST_SCHEMA:?}")]
    UnknownSchema {
        /// What the manifest calls its form.
        found: String,
    },
}

impl Manifest {
    /// Reads a manifest from its JSON form.
    ///
    /// # Errors
    /// When it is not JSON, lacks fields, or is of an unknown [`schema`](Self::schema).
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Form {
            schema: String,
        }
        // The form is looked at first: a later form may lack the fields of this one.
        let form: Form = serde_json::from_slice(json)?;
        if form.schema != MANIFEST_SCHEMA {
            return Err(ManifestError::UnknownSchema { found: form.schema });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The JSON form, readable by people.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.census.rows()).sum()
    }

    /// Bytes of all tables and large objects, as the dump holds them.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.tables
            .iter()
            .map(|table| table.size_bytes)
            .sum::<u64>()
            + self.large_objects.size_bytes
    }

    /// The server's major version, 15 for 15.18.
    #[must_use]
    pub fn server_major(&self) -> u32 {
        self.server.version_num / 10_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_another_form_is_refused_by_name() {
        let error = Manifest::from_json(br#"{"schema":"lifeboat.manifest/9"}"#);
        assert!(
            matches!(error, Err(ManifestError::UnknownSchema { found }) if found == "lifeboat.manifest/9")
        );
    }
}
