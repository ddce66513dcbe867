//! The words that the journal stores: kinds of runs, how they end, how much a proof shows.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

/// An enum that is stored as its lower-case name: in SQLite and in JSON.
macro_rules! stored_as_name {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The name it is stored and shown under.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.name()))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_str()? {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(FromSqlError::InvalidType),
                }
            }
        }
    };
}

stored_as_name! {
    /// What a run did.
    RunKind {
        /// `lifeboat backup`.
        Backup = "backup",
        /// `lifeboat verify`.
        Verify = "verify",
        /// `lifeboat restore`.
        Restore = "restore",
        /// `lifeboat drill`.
        Drill = "drill",
        /// `lifeboat export`.
        Export = "export",
        /// `lifeboat expire`.
        Expire = "expire",
        /// `lifeboat copy`, or a backup that copies; the repository is the one that is brought up to date.
        Copy = "copy",
        /// `lifeboat repair`.
        Repair = "repair",
        /// `lifeboat import`, of one file.
        Import = "import",
    }
}

stored_as_name! {
    /// How a run ended.
    Outcome {
        /// It did what it was for.
        Succeeded = "succeeded",
        /// It did not.
        Failed = "failed",
        /// It did not, because there was no room for it in the repository.
        NoRoom = "no_room",
        /// Somebody stopped it.
        Interrupted = "interrupted",
        /// Its process is gone without a word: a crash, a kill, a power cut.
        Vanished = "vanished",
    }
}

impl Outcome {
    /// Of a run that failed, or was stopped.
    #[must_use]
    pub const fn of_failure(was_interrupted: bool) -> Self {
        if was_interrupted {
            Self::Interrupted
        } else {
            Self::Failed
        }
    }
}

/// How much is known about a backup beyond that it was taken. Ordered: more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofLevel {
    /// Every blob it needs is indexed, in a pack of the right size. No stored byte was read.
    Complete,
    /// Every stored byte was read, opened, and matched its hash.
    Verified,
    /// It was restored into a real PostgreSQL and its content compared.
    Proven,
}

impl ProofLevel {
    /// The word it is shown under.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Verified => "verified",
            Self::Proven => "proven",
        }
    }
}

impl ToSql for ProofLevel {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // A number, so that the best proof of a backup is a plain maximum.
        Ok(ToSqlOutput::from(match self {
            Self::Complete => 1_i64,
            Self::Verified => 2,
            Self::Proven => 3,
        }))
    }
}

impl FromSql for ProofLevel {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            1 => Ok(Self::Complete),
            2 => Ok(Self::Verified),
            3 => Ok(Self::Proven),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}
