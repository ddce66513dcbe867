//! How a repository's files lie, below its own folder ("Repository Layout" in restic's design document).

use super::FileKind;

/// Those kinds of files that have a folder.
pub(super) const IN_FOLDERS: [FileKind; 5] = [
    FileKind::Key,
    FileKind::Lock,
    FileKind::Snapshot,
    FileKind::Index,
    FileKind::Pack,
];

/// The folder of a kind of files; for packs the one that holds their folders. `None` is the repository's own.
pub(super) const fn folder(kind: FileKind) -> Option<&'static str> {
    match kind {
        FileKind::Config => None,
        FileKind::Key => Some("keys"),
        FileKind::Lock => Some("locks"),
        FileKind::Snapshot => Some("snapshots"),
        FileKind::Index => Some("index"),
        FileKind::Pack => Some("data"),
    }
}

/// The folders of packs, by the first two digits of their names.
pub(super) fn data_folders() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|prefix| format!("data/{prefix:02x}"))
}

/// Where a file of a valid name lies.
pub(super) fn path(kind: FileKind, name: &str) -> String {
    match folder(kind) {
        None => name.to_owned(),
        Some(folder) if kind == FileKind::Pack => format!("{folder}/{}/{name}", &name[..2]),
        Some(folder) => format!("{folder}/{name}"),
    }
}
