//! Advice on keys and recovery kits.

use std::io;

use lifeboat_engine::keys::RotateError;
use lifeboat_engine::recovery_kit::{ByHandError, KitError};

use super::Failure;
use crate::exit::Exit;

/// How to change a passphrase whose file cannot be replaced from here.
const IN_TWO_STEPS: &str = "`lifeboat key add --new-password-file FILE`, put the new passphrase where the old one comes from, then `lifeboat key remove ID` of the old key";

impl From<RotateError> for Failure {
    fn from(error: RotateError) -> Self {
        match error {
            RotateError::Repository(error) => error.into(),
            RotateError::Unchanged => {
                Self::of(Exit::Usage, &error).hint("nothing was changed; choose another passphrase")
            }
            RotateError::AlreadyAKey(_) => Self::of(Exit::Usage, &error)
                .hint("nothing was changed; each key has a passphrase of its own: choose another")
                .hint("or put this one into the passphrase file yourself, and remove the other key with `lifeboat key remove ID`"),
            RotateError::File { ref source, .. } => {
                let failure = Self::of(Exit::Failed, &error);
                let failure = match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        failure.hint("run as a user who may write in the passphrase file's folder: root, if need be; the file keeps its owner")
                    }
                    _ => failure,
                };
                failure.hint(format!("where the file is not to be replaced, in two steps: {IN_TWO_STEPS}"))
            }
            RotateError::NotProven { ref path, .. } => Self::of(Exit::Failed, &error).hint(format!(
                "the old passphrase is in {} again, and opens the repository",
                path.display()
            )),
            RotateError::Unfinished { is_new_in_place, path, source } => {
                let inner = Self::from(*source);
                let path = path.display();
                let which = if is_new_in_place { "new" } else { "old" };
                let also = if is_new_in_place {
                    "; so does the old passphrase, until the rotation is finished"
                } else {
                    ""
                };
                let mut failure = Self {
                    fact: format!("the rotation is not finished: {}", inner.fact),
                    ..inner
                };
                failure.hints.insert(0, format!("{path} holds the {which} passphrase, which opens the repository{also}"));
                failure.hints.insert(1, "run `lifeboat key rotate` again: it goes on where this stopped".to_owned());
                failure
            }
        }
    }
}

impl From<KitError> for Failure {
    fn from(error: KitError) -> Self {
        Self::of(Exit::BadData, &error)
            .hint("the text file is what is tested, as `lifeboat recovery-kit write` wrote it")
    }
}

impl From<ByHandError> for Failure {
    fn from(error: ByHandError) -> Self {
        match error {
            ByHandError::Tools(error) => error.into(),
            ByHandError::Instance(error) => error.into(),
            ByHandError::ConnInfo(error) => error.into(),
            ByHandError::Interrupted => Self::interrupted(),
            ByHandError::Io { .. } => Self::of(Exit::Failed, &error)
                .hint("`--scratch-dir DIR` names another folder with room for the databases"),
        }
    }
}
