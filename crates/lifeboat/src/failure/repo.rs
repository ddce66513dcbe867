//! Advice on repositories and their storage, by variant.

use lifeboat_repo::RepositoryError;
use lifeboat_repo::lock::LockError;
use lifeboat_repo::storage::remote::{RemoteLocation, S3Location, SftpLocation};
use lifeboat_repo::storage::{StorageError, StorageErrorKind};

use super::Failure;
use crate::exit::Exit;

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        // The root: that a writer gave up later, because of it, is no news.
        let mut failure = Self::of(exit(&error), error.root());
        // Users see backups; a restic snapshot is the repository's word for them.
        match error.root() {
            RepositoryError::UnknownId { prefix, .. } => {
                failure.fact = format!("there is no backup whose ID begins with {prefix:?}");
            }
            RepositoryError::AmbiguousId { prefix, matches } => {
                failure.fact = format!(
                    "{} backups have an ID that begins with {prefix:?}",
                    matches.len()
                );
            }
            RepositoryError::KeyNotFound { prefix, count: 0 } => {
                failure.fact = format!("there is no key whose ID begins with {prefix:?}");
            }
            RepositoryError::KeyNotFound { prefix, count } => {
                failure.fact = format!("{count} keys have an ID that begins with {prefix:?}");
            }
            _ => {}
        }
        advise(failure, &error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::from(RepositoryError::from(error))
    }
}

/// How a command ends that failed for this reason.
pub fn exit(error: &RepositoryError) -> Exit {
    match error.root() {
        RepositoryError::NotFound { .. } => Exit::NoRepository,
        RepositoryError::WrongPassword { .. } => Exit::WrongPassword,
        RepositoryError::Locked { .. } => Exit::Locked,
        RepositoryError::AppendOnly { .. } => Exit::Refused,
        RepositoryError::Interrupted => Exit::Interrupted,
        RepositoryError::Storage(error) if error.kind() == StorageErrorKind::Interrupted => {
            Exit::Interrupted
        }
        RepositoryError::Storage(error) if error.kind() == StorageErrorKind::NoSuchPlace => {
            Exit::NoRepository
        }
        RepositoryError::AmbiguousId { .. }
        | RepositoryError::UnknownId { .. }
        | RepositoryError::KeyNotFound { .. } => Exit::Usage,
        RepositoryError::KeyInUse { .. } | RepositoryError::LastKey { .. } => Exit::Refused,
        RepositoryError::NoKey { .. }
        | RepositoryError::DamagedKey { .. }
        | RepositoryError::DamagedConfig { .. }
        | RepositoryError::Damaged { .. }
        | RepositoryError::MissingBlob { .. } => Exit::BadData,
        _ => Exit::Failed,
    }
}

/// Adds what helps against `error` to a failure that it caused.
pub fn advise(failure: Failure, error: &RepositoryError) -> Failure {
    match error.root() {
        RepositoryError::NotFound { .. } => {
            failure.hint("run `lifeboat init` to make it, or correct LIFEBOAT_REPOSITORY, `repository.path` or `repository.url`")
        }
        RepositoryError::AlreadyExists { .. } => {
            failure.hint("nothing was changed; use it with its own passphrase, or choose an empty folder")
        }
        RepositoryError::WrongPassword { .. } => failure.hint(
            "is this the passphrase that `lifeboat init` made for this repository? see LIFEBOAT_PASSWORD_FILE or `repository.password_file`",
        ),
        RepositoryError::Locked { by } => failure
            .hint(format!("wait for process {} on {} to end; a lock that nobody refreshes counts for nothing after 30 minutes", by.holder.pid, by.holder.hostname))
            .hint("`restic unlock` removes the locks of processes that are gone"),
        RepositoryError::AppendOnly { .. } => failure
            .hint("run this on another machine, with a credential that may delete and without `append_only`"),
        RepositoryError::Lock(LockError::Unreadable { .. }) => failure
            .hint("a lock that can't be read is honoured until it is half an hour old; then `lifeboat repair` removes it")
            .hint("`restic unlock --remove-all` removes all locks: only when nobody works on the repository"),
        RepositoryError::Contended => failure.hint("run it again when no other `expire` or `restic prune` runs"),
        RepositoryError::NoKey { .. } | RepositoryError::DamagedKey { .. } => failure
            .hint("put back `keys/` from a copy of the repository: without a key nobody can read it"),
        RepositoryError::DamagedConfig { .. } => {
            failure.hint("put back the file `config` from a copy of the repository")
        }
        RepositoryError::Damaged { .. } | RepositoryError::MissingBlob { .. } => failure
            .hint("`lifeboat repair --dry-run` says what is damaged, and `lifeboat repair` mends it with good copies from other repositories")
            .hint("take a new backup at once if there is no other repository"),
        RepositoryError::UnsupportedVersion { .. } => {
            failure.hint("`restic migrate upgrade_repo_v2` brings a repository of version 1 to version 2")
        }
        RepositoryError::AmbiguousId { .. } => failure.hint("give more of the ID: `lifeboat list` shows them"),
        RepositoryError::UnknownId { nearest: Some(nearest), .. } => {
            failure.hint(format!("did you mean {}?", nearest.short()))
        }
        RepositoryError::UnknownId { .. } => failure.hint("`lifeboat list` shows the backups"),
        RepositoryError::KeyNotFound { .. } => failure.hint("`lifeboat key list` shows the keys"),
        RepositoryError::KeyInUse { .. } => failure
            .hint("`lifeboat key rotate` replaces it by a new one")
            .hint("or open the repository with another passphrase, and remove this key then"),
        RepositoryError::LastKey { .. } => failure
            .hint("without it nobody could read the backups; `lifeboat key rotate` replaces it by a new one"),
        RepositoryError::Storage(error) => advise_storage(failure, error),
        _ => failure,
    }
}

fn advise_storage(failure: Failure, error: &StorageError) -> Failure {
    match RemoteLocation::parse(error.location()) {
        Ok(RemoteLocation::S3(location)) => return advise_s3(failure, error.kind(), &location),
        Ok(RemoteLocation::Sftp(location)) => return advise_sftp(failure, error.kind(), &location),
        _ => {}
    }
    match error.kind() {
        StorageErrorKind::PermissionDenied => failure.hint(
            "run as the user that owns the repository; its folders are 0700 and its files 0600",
        ),
        StorageErrorKind::NoSpace => failure
            .hint("make room, then run it again: what was stored so far is kept and found again"),
        StorageErrorKind::Unreachable => {
            failure.hint("is the file system mounted, and the network there?")
        }
        StorageErrorKind::Other => failure.hint(
            "`dmesg` and the file system's own check may know more; nothing was listed as a backup",
        ),
        _ => failure,
    }
}

fn advise_s3(failure: Failure, kind: StorageErrorKind, location: &S3Location) -> Failure {
    match kind {
        StorageErrorKind::BadCredentials => failure
            .hint("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the file that `repository.credentials_file` names")
            .hint("a wrong `repository.region`, or a clock that is wrong by minutes, is refused the same way"),
        StorageErrorKind::NoSuchPlace => failure.hint(format!(
            "make the bucket `{}` at {}, or correct the name; a bucket in another region needs `repository.region`",
            location.bucket,
            location.host()
        )),
        StorageErrorKind::PermissionDenied => failure.hint(format!(
            "the access key may not do this in the bucket `{}`: docs/off-host.md says what it has to be allowed",
            location.bucket
        )),
        StorageErrorKind::NoSpace => {
            failure.hint("make room, then run it again: what was stored so far is kept and found again")
        }
        StorageErrorKind::Unreachable => failure.hint(format!(
            "does `{}` answer from this machine? what was stored so far is kept and found again",
            location.endpoint
        )),
        StorageErrorKind::Other => failure.hint(
            "docs/off-host.md lists the servers this was tried with, and what each is asked for",
        ),
        _ => failure,
    }
}

fn advise_sftp(failure: Failure, kind: StorageErrorKind, location: &SftpLocation) -> Failure {
    let user = location
        .user
        .as_ref()
        .map_or(String::new(), |user| format!("{user}@"));
    let port = location
        .port
        .map_or(String::new(), |port| format!("-p {port} "));
    let ssh = format!("ssh {port}{user}{}", location.host);
    match kind {
        StorageErrorKind::BadCredentials => failure.hint(format!(
            "`{ssh}` has to get in without a question, as this user: give it a key, and accept the host's key once"
        )),
        StorageErrorKind::PermissionDenied => failure
            .hint(format!("the folder {} has to belong to that user there", location.path)),
        StorageErrorKind::NoSpace => failure
            .hint("make room there, then run it again: what was stored so far is kept and found again"),
        StorageErrorKind::Unreachable => failure.hint(format!(
            "does `{}` get through from this machine? what was stored so far is kept and found again",
            ssh.replacen("ssh", "sftp", 1).replace("-p", "-P")
        )),
        _ => failure,
    }
}
