//! Snapshots: the roots of everything that is kept ("Snapshots" in restic's design document).

use crate::id::{BlobId, SnapshotId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A snapshot file. Fields that restic does not always write are empty or `None` then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The file's name; not in its content.
    #[serde(skip, default = "no_id")]
    pub id: SnapshotId,
    /// The moment that the snapshot shows. restic writes it with the offset of its machine, we in UTC.
    pub time: Timestamp,
    /// The snapshot it was made on the base of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// The root tree.
    pub tree: BlobId,
    /// What was backed up, as absolute paths.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub paths: Vec<String>,
    /// The machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The user's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// The user's group's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Patterns that restic was told to leave out.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub excludes: Vec<String>,
    /// Words attached to it.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub tags: Vec<String>,
    /// The first of the files that differ from this one only in such words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<SnapshotId>,
    /// What wrote it, such as `restic 0.18.0` or `lifeboat 0.1.0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
    /// What it took to make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<SnapshotSummary>,
    /// What the application has to say of it. restic neither reads nor writes such a field, and drops it when
    /// it rewrites a snapshot.
    #[serde(default, rename = "lifeboat", skip_serializing_if = "Option::is_none")]
    pub extra: Option<serde_json::Value>,
}

/// What it took to make a snapshot; restic writes it from 0.17 on. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSummary {
    /// When the work began.
    pub backup_start: Timestamp,
    /// When the work ended.
    pub backup_end: Timestamp,
    /// Files that the parent did not have.
    #[serde(default)]
    pub files_new: u64,
    /// Files that are not as in the parent.
    #[serde(default)]
    pub files_changed: u64,
    /// Files as in the parent.
    #[serde(default)]
    pub files_unmodified: u64,
    /// Folders that the parent did not have.
    #[serde(default)]
    pub dirs_new: u64,
    /// Folders that are not as in the parent.
    #[serde(default)]
    pub dirs_changed: u64,
    /// Folders as in the parent.
    #[serde(default)]
    pub dirs_unmodified: u64,
    /// New chunks.
    #[serde(default)]
    pub data_blobs: u64,
    /// New trees.
    #[serde(default)]
    pub tree_blobs: u64,
    /// Plaintext of all new blobs.
    #[serde(default)]
    pub data_added: u64,
    /// All new blobs as stored.
    #[serde(default)]
    pub data_added_packed: u64,
    /// Files in the snapshot.
    #[serde(default)]
    pub total_files_processed: u64,
    /// Their content.
    #[serde(default)]
    pub total_bytes_processed: u64,
}

const fn no_id() -> SnapshotId {
    SnapshotId::from_bytes([0; 32])
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Snapshot {
    /// Reads the plaintext of the snapshot file named `id`.
    ///
    /// # Errors
    /// When it is not a snapshot.
    pub fn parse(id: SnapshotId, json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut snapshot: Self = serde_json::from_slice(json)?;
        snapshot.id = id;
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;

    const OF_RESTIC: &str = r#"{"time":"2026-03-01T18:10:50.895208559+01:00","tree":"2da81727b6585232894cfbb8f8bdab8d1eccd3d8f7c92bc934d62e62e618ffdf","paths":["/tmp/testdata"],"hostname":"kasimir","username":"fd0","uid":1000,"gid":100,"tags":["NL"],"future":[1]}"#;

    #[test]
    fn reads_what_restic_wrote() {
        let id = SnapshotId::of(b"x");
        let snapshot = Snapshot::parse(id, OF_RESTIC.as_bytes()).unwrap();
        assert_eq!(snapshot.id, id);
        assert_eq!(
            snapshot.time,
            "2026-03-01T17:10:50.895208559Z".parse().unwrap()
        );
        assert_eq!(
            (snapshot.uid, snapshot.tags.as_slice()),
            (1000, &["NL".to_owned()][..])
        );
        assert_eq!(snapshot.program_version, "");
        Snapshot::parse(id, OF_RESTIC.replace(r#"["NL"]"#, "null").as_bytes()).unwrap();
    }

    #[test]
    fn writes_the_time_in_utc_with_nanoseconds() {
        let mut snapshot = Snapshot::parse(SnapshotId::of(b"x"), OF_RESTIC.as_bytes()).unwrap();
        snapshot.uid = 0;
        let json = serde_json::to_string(&snapshot).unwrap();
        assert!(
            json.starts_with(r#"{"time":"2026-03-01T17:10:50.895208559Z","tree":"2da8"#),
            "{json}"
        );
        assert!(
            !json.contains("uid") && !json.contains("summary") && !json.contains("\"id\""),
            "{json}"
        );
        assert_eq!(
            Snapshot::parse(snapshot.id, json.as_bytes()).unwrap(),
            snapshot
        );
    }
}
