//! The small files: each is hashed against its name, opened and parsed.

use sha2::{Digest, Sha256};

use super::{CheckScope, Context, Problem};
use crate::error::RepositoryError;
use crate::index::{Index, IndexBuilder};
use crate::repository::{CONFIG, read_bounded, read_listed};
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, StorageErrorKind};
use crate::unpacked;

/// The snapshots in the scope that can be read, oldest first.
pub(super) fn snapshots(
    context: Context<'_>,
    scope: CheckScope<'_>,
) -> Result<Vec<Snapshot>, RepositoryError> {
    if let CheckScope::Snapshot(snapshot) = scope {
        let name = snapshot.id.to_string();
        if let Err(error) = context.repository.load_file(FileKind::Snapshot, &name) {
            context
                .findings
                .add_error(FileKind::Snapshot, &name, error)?;
        }
        // Its content is known to the caller, whatever became of the file.
        return Ok(vec![snapshot.clone()]);
    }
    let mut snapshots = Vec::new();
    for file in context.repository.storage().list(FileKind::Snapshot)? {
        let json = match context.repository.load_file(FileKind::Snapshot, &file.name) {
            Err(error) => {
                add_unless_gone(context, FileKind::Snapshot, &file.name, error)?;
                continue;
            }
            Ok(json) => json,
        };
        // A listed name is an identity, so that only the content can be at fault.
        let parsed = file.name.parse().ok().map(|id| Snapshot::parse(id, &json));
        match parsed {
            Some(Ok(snapshot)) => snapshots.push(snapshot),
            Some(Err(error)) => {
                context.findings.add(
                    FileKind::Snapshot,
                    &file.name,
                    Problem::Damaged(error.to_string()),
                );
            }
            None => {}
        }
    }
    snapshots.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
    Ok(snapshots)
}

/// What the index files that can be read say.
pub(super) fn index(context: Context<'_>) -> Result<Index, RepositoryError> {
    let mut builder = IndexBuilder::default();
    for file in context.repository.storage().list(FileKind::Index)? {
        context.stop_if_interrupted()?;
        let json = match context.repository.load_file(FileKind::Index, &file.name) {
            Err(error) => {
                add_unless_gone(context, FileKind::Index, &file.name, error)?;
                continue;
            }
            Ok(json) => json,
        };
        let added = file.name.parse().map(|id| builder.add(id, &json));
        if let Ok(Err(error)) = added {
            context.findings.add(
                FileKind::Index,
                &file.name,
                Problem::Damaged(error.to_string()),
            );
        }
    }
    builder
        .build()
        .map_err(|error| RepositoryError::damaged(FileKind::Index, "", error))
}

/// The config, the keys, and when everything is checked the locks.
pub(super) fn others(context: Context<'_>, scope: CheckScope<'_>) -> Result<(), RepositoryError> {
    config(context)?;
    named_by_content(context, FileKind::Key)?;
    if matches!(scope, CheckScope::Everything) {
        named_by_content(context, FileKind::Lock)?;
    }
    Ok(())
}

/// The config has no hash for a name, but it has an authentication code. It opened when the repository did,
/// which may have been a while ago.
fn config(context: Context<'_>) -> Result<(), RepositoryError> {
    let storage = context.repository.storage().as_ref();
    let result = read_bounded(storage, FileKind::Config, CONFIG).and_then(|sealed| {
        unpacked::decode(FileKind::Config, sealed, context.repository.sealer())
            .map_err(|error| RepositoryError::damaged(FileKind::Config, CONFIG, error))
    });
    result
        .map(|_| ())
        .or_else(|error| context.findings.add_error(FileKind::Config, CONFIG, error))
}

fn named_by_content(context: Context<'_>, kind: FileKind) -> Result<(), RepositoryError> {
    let storage = context.repository.storage().as_ref();
    for file in storage.list(kind)? {
        match read_listed(storage, kind, &file.name, file.size_bytes) {
            Err(error) => add_unless_gone(context, kind, &file.name, error)?,
            Ok(content) if hex::encode(Sha256::digest(&content)) == file.name => {}
            Ok(_) => {
                let what = "its content does not match its name".to_owned();
                context
                    .findings
                    .add(kind, &file.name, Problem::Damaged(what));
            }
        }
    }
    Ok(())
}

/// A file that was listed and is gone when read was removed by someone who may: a lock was released, or an
/// index file superseded.
fn add_unless_gone(
    context: Context<'_>,
    kind: FileKind,
    name: &str,
    error: RepositoryError,
) -> Result<(), RepositoryError> {
    match error {
        RepositoryError::Storage(error) if error.kind() == StorageErrorKind::NotFound => Ok(()),
        error => context.findings.add_error(kind, name, error),
    }
}
