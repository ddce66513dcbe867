//! Advice on files that `import` does not take.

use std::io::ErrorKind;

use lifeboat_engine::import::{ImportError, Refusal};
use lifeboat_pg::archive::{ArchiveError, Content};

use super::Failure;
use crate::exit::Exit;

/// What to do about a file that was refused.
pub fn advice(refusal: &Refusal) -> &'static str {
    const RESTORE: &str = "restore it into a database of its own and back that up: `psql` or `pg_restore`, then `lifeboat backup`";
    match refusal {
        Refusal::Unreadable(error) if error.kind() == ErrorKind::NotFound => {
            "is the path right? `lifeboat import FOLDER` takes every *.dump of a folder"
        }
        Refusal::Unreadable(_) => "run as a user who may read it",
        Refusal::NoFile => "save the dump to a file first",
        Refusal::Folder => "`--glob PATTERN` says which files of a folder are dumps",
        Refusal::DirectoryFormat
        | Refusal::Entry { .. }
        | Refusal::NotCustom {
            found:
                Content::PlainDump | Content::PlainClusterDump | Content::Tar | Content::OtherText,
        } => RESTORE,
        Refusal::NotCustom {
            found: Content::Gzip | Content::Zstd | Content::Lz4,
        } => {
            "decompress it first, with `gunzip`, `zstd -d` or `lz4 -d`; if that gives SQL, restore it and back that up"
        }
        Refusal::NotCustom { .. } => {
            "`lifeboat verify --file FILE` says what it is; only what `pg_dump -Fc` wrote can be imported"
        }
        Refusal::Damaged(ArchiveError::UnsupportedVersion { .. }) => {
            "it is from a newer pg_dump than this Lifeboat knows: upgrade Lifeboat"
        }
        Refusal::Damaged(_) | Refusal::Rows { .. } | Refusal::Twice { .. } => {
            "fetch another copy of the file if there is one; a dump that was cut short cannot be completed"
        }
        Refusal::SchemaOnly | Refusal::DataOnly => {
            "it is no backup of a whole database; keep it as the file that it is"
        }
        Refusal::Ambiguous { .. } => {
            "`--database NAME` says which of them; import the dumps of each by itself"
        }
        Refusal::NoDatabase => "`--database NAME` says which one it is of",
        Refusal::NoTime | Refusal::TooOld { .. } => {
            "nothing else in the dump tells when it was made"
        }
        Refusal::Future { .. } => {
            "`--time-zone` says in which zone it was made; else its clock, or this machine's, is wrong"
        }
        Refusal::Changed => "wait until pg_dump is done with it, then run this again",
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Repository(error) => error.into(),
            ImportError::Interrupted => Self::interrupted(),
            ImportError::Folder { .. } => {
                Self::of(Exit::Failed, &error).hint("run as a user who may read it")
            }
            ImportError::NoMatch { .. } => Self::of(Exit::Failed, &error)
                .hint("`--glob PATTERN` says which files of a folder are dumps"),
            ImportError::SeveralDatabases { .. } => Self::of(Exit::Usage, &error)
                .hint("import the dumps of each by itself: `--glob`, or the files by name"),
            ImportError::Inconsistent(_) => {
                Self::of(Exit::Failed, &error).hint("run it again; if it stays, please report it")
            }
        }
    }
}
