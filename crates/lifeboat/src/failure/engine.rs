//! Advice on the operations: what a backup, a restore, a drill or an export says when it fails.

use lifeboat_engine::backup::BackupError;
use lifeboat_engine::catalog::CatalogError;
use lifeboat_engine::copy::CopyError;
use lifeboat_engine::drill::DrillError;
use lifeboat_engine::event::Stage;
use lifeboat_engine::expire::ExpireError;
use lifeboat_engine::export::ExportError;
use lifeboat_engine::hold::HoldError;
use lifeboat_engine::journal::JournalError;
use lifeboat_engine::repair::RepairError;
use lifeboat_engine::restore::RestoreError;
use lifeboat_engine::status::StatusError;
use lifeboat_engine::verify::VerifyError;
use lifeboat_pg::archive::{ArchiveError, SelectError};
use lifeboat_pg::dump::DumpError;
use lifeboat_pg::instance::InstanceError;
use lifeboat_pg::load::LoadError;

use super::{Failure, pg};
use crate::exit::Exit;

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Repository(error) => error.into(),
            CatalogError::Empty { .. } => Self::of(Exit::Failed, &error)
                .hint("`lifeboat backup` takes one")
                .hint("`lifeboat list` shows what the repository holds"),
            CatalogError::NotABackup { .. } => {
                Self::of(Exit::Usage, &error).hint("`lifeboat list` shows the backups; restic restores the others")
            }
            CatalogError::Damaged { .. } => Self::of(Exit::BadData, &error)
                .hint("`lifeboat repair` mends it with good copies from other repositories, and names what is lost")
                .hint("`lifeboat list` shows the other backups"),
            CatalogError::Manifest { .. } => {
                Self::of(Exit::BadData, &error).hint("it may be from a newer Lifeboat: upgrade this one")
            }
        }
    }
}

impl From<DumpError> for Failure {
    fn from(error: DumpError) -> Self {
        let failure = Self::of(Exit::Failed, &error);
        match &error {
            DumpError::Pg(source) | DumpError::Vanished { source, .. } | DumpError::Table { source, .. } => {
                pg::advise(failure, source)
            }
            DumpError::Unreadable { .. } | DumpError::RowSecurity { .. } => {
                failure.hint("`lifeboat check` names what is missing, and the GRANT that gives it")
            }
            DumpError::ServerTooOld { .. } => failure.hint("upgrade the server, or use its own pg_dump"),
            DumpError::ToolTooOld { .. } | DumpError::Spawn { .. } => {
                failure.hint("`lifeboat check` says which pg_dump is found, and what to install")
            }
            DumpError::LockTimeout { .. } => failure
                .hint("let that session end, or end it with `select pg_terminate_backend(PID)`")
                .hint("`backup.lock_timeout` allows more time"),
            DumpError::TablesKeepChanging { .. } => {
                failure.hint("run it when no job makes and drops tables all the time")
            }
            DumpError::SnapshotLost { .. } => {
                failure.hint("idle_in_transaction_session_timeout or transaction_timeout may end long transactions of this role")
            }
            DumpError::Interrupted => Self::interrupted(),
            _ => failure,
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Connect(error) => error.into(),
            BackupError::Tools(error) => error.into(),
            BackupError::Dump(error) => error.into(),
            BackupError::Repository(error) => error.into(),
            BackupError::Archive(error) => error.into(),
            BackupError::Interrupted => Self::interrupted(),
            BackupError::Inconsistent(_) => {
                Self::of(Exit::Failed, &error).hint("run it again; if it stays, please report it")
            }
        }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Repository(error) => error.into(),
            CopyError::Interrupted => Self::interrupted(),
            CopyError::Same { .. } => Self::of(Exit::Usage, &error).hint(
                "two names stand for one repository: give one of them another `path` or `url`",
            ),
            CopyError::EmptyPolicy => Self::of(Exit::Usage, &error)
                .hint("set at least one `keep_…` under [retention], or none for 30 days"),
        }
    }
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Repository(error) => error.into(),
            RepairError::Catalog(error) => error.into(),
            RepairError::Interrupted => Self::interrupted(),
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        Self::of(Exit::Failed, &error)
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Catalog(error @ CatalogError::Empty { .. }) => Self {
                exit: Exit::BadData,
                ..Self::from(error)
            },
            VerifyError::Catalog(error) => error.into(),
            VerifyError::Repository(error) => error.into(),
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::of(Exit::Failed, &error)
            .hint("the journal is only history: move it away and a new one is made")
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        match error {
            StatusError::Catalog(error) => error.into(),
            StatusError::Repository(error) => error.into(),
            StatusError::Journal(error) => error.into(),
        }
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let failure = Self::of(Exit::Usage, &error);
        match &error {
            SelectError::UnknownTable { nearest, .. } if !nearest.is_empty() => {
                failure.hint(format!("did you mean {}?", nearest.join(" or ")))
            }
            _ => failure.hint("`lifeboat show ID` lists its tables"),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        if let LoadError::Interrupted = error {
            return Self::interrupted();
        }
        let failure = Self::of(Exit::Failed, &error);
        match &error {
            LoadError::Table { source, .. }
            | LoadError::LargeObject { source, .. }
            | LoadError::Pg(source) => pg::advise(failure, source),
            _ => failure,
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Select(error) => error.into(),
            RestoreError::Catalog(error) => error.into(),
            RestoreError::Repository(error) => error.into(),
            RestoreError::Pg(error) => error.into(),
            RestoreError::Tools(error) => error.into(),
            RestoreError::Load(error) => error.into(),
            RestoreError::Archive(error) => error.into(),
            RestoreError::Interrupted => Self::interrupted(),
            RestoreError::Incomplete {
                stage,
                database,
                created,
                source,
            } => incomplete(stage, &database, created, *source),
            error => refusal(&error),
        }
    }
}

/// A restore that stopped half way: why, what is left, and how it goes away.
fn incomplete(stage: Stage, database: &str, created: bool, source: RestoreError) -> Failure {
    let quoted = lifeboat_pg::quote_ident(database);
    let left = if created {
        format!(
            "the new database {database} is left half restored; `DROP DATABASE {quoted}` removes it"
        )
    } else {
        format!(
            "{database} is left half restored; restore into it again with `--clean`, or use a new database with `--to`"
        )
    };
    let mut failure = stopped(stage, source);
    failure.hints.insert(0, left);
    failure
}

/// Why a restore stopped half way.
fn stopped(stage: Stage, source: RestoreError) -> Failure {
    let doing = stage.describe();
    let fact = if matches!(source, RestoreError::Interrupted) {
        format!("interrupted while {doing}")
    } else {
        format!("the restore stopped while {doing}: {source}")
    };
    let inner = Failure::from(source);
    Failure {
        causes: inner.causes,
        hints: inner.hints,
        ..Failure::new(inner.exit, fact)
    }
}

fn refusal(error: &RestoreError) -> Failure {
    let exit = match error {
        error if error.is_refusal() => Exit::Refused,
        RestoreError::BadName { .. } => Exit::Usage,
        RestoreError::BackupDamaged { .. } => Exit::BadData,
        _ => Exit::Failed,
    };
    let failure = Failure::of(exit, error);
    match error {
        RestoreError::TargetExists { name, .. } => failure
            .hint(format!("choose another name, such as `--to {name}_2`"))
            .hint("or restore over it with `--into URL --clean`"),
        RestoreError::TargetMissing { name, .. } => {
            failure.hint(format!("make it anew with `--to {name}`, or correct the URL"))
        }
        RestoreError::TargetNotEmpty { .. } => {
            failure.hint("add `--clean` to drop what the backup holds from it first, or restore beside it with `--to NAME`")
        }
        RestoreError::LiveConnections { .. } => failure
            .hint("stop the application that uses it, then run this again")
            .hint("or restore beside it with `--to NAME`, and switch over"),
        RestoreError::NotConfirmed { name } | RestoreError::WrongConfirmation { name, .. } => {
            failure.hint(format!("add `--yes {name}` if that is what you want; nothing was changed"))
        }
        RestoreError::MayNotCreate { role } => failure
            .hint(format!("`ALTER ROLE {} CREATEDB`, as a superuser", lifeboat_pg::quote_ident(role)))
            .hint("or make an empty database and restore into it with `--into URL`"),
        RestoreError::Standby { .. } => failure.hint("use the primary, or another server with `--server URL`"),
        RestoreError::BackupDamaged { .. } => failure
            .hint("`lifeboat repair` mends it with good copies from other repositories, and names what is lost")
            .hint("`lifeboat show ID` tells what a backup has lost for good; `--table SCHEMA.TABLE` restores the rest")
            .hint("`lifeboat list` shows the other backups"),
        _ => failure,
    }
}

impl From<InstanceError> for Failure {
    fn from(error: InstanceError) -> Self {
        if let InstanceError::Interrupted = error {
            return Self::interrupted();
        }
        Self::of(Exit::Failed, &error)
            .hint("`drill.scratch_dir` says where scratch servers are started; `drill --on URL` uses a server that runs")
    }
}

impl From<DrillError> for Failure {
    fn from(error: DrillError) -> Self {
        let blames_backup = error.blames_backup();
        let failure: Self = match error {
            // A drill takes away what it made, so nothing is left to be said of it.
            DrillError::Restore(RestoreError::Incomplete { stage, source, .. }) => {
                stopped(stage, *source)
                    .hint("`lifeboat verify --read-data` tells whether the backup is damaged")
            }
            DrillError::Restore(error) => error.into(),
            DrillError::Instance(error) => error.into(),
            DrillError::ConnInfo(error) => error.into(),
            DrillError::Pg(error) => error.into(),
            DrillError::Tools(error) => error.into(),
        };
        match failure.exit {
            // Not the backup's doing, whatever came of it.
            Exit::Interrupted | Exit::Usage => failure,
            _ if blames_backup => Self {
                exit: Exit::BadData,
                ..failure
            },
            _ => failure,
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Archive(error) => error.into(),
            ExportError::Catalog(error) => error.into(),
            ExportError::Repository(error) => error.into(),
            ExportError::Interrupted => Self::interrupted(),
            ExportError::Exists(_) => {
                Self::of(Exit::Refused, &error).hint("choose another name, or move it away")
            }
            ExportError::Damaged { .. } => Self::of(Exit::BadData, &error)
                .hint("`lifeboat repair` mends it with good copies from other repositories, and names what is lost"),
            ExportError::Io { .. } => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<ExpireError> for Failure {
    fn from(error: ExpireError) -> Self {
        match error {
            ExpireError::Repository(error) => {
                let mut failure: Self = error.into();
                if failure.exit == Exit::BadData {
                    failure.hints.insert(
                        0,
                        "nothing is removed from a repository in which something is missing or damaged"
                            .to_owned(),
                    );
                }
                failure
            }
            ExpireError::Journal(error) => error.into(),
            ExpireError::EmptyPolicy => Self::of(Exit::Usage, &error)
                .hint("say what to keep, such as `--keep-within 30d` or `keep_within = \"30d\"` under `[retention]`"),
            ExpireError::NoSuchDatabase { .. } => {
                Self::of(Exit::Usage, &error).hint("`lifeboat list` shows which databases have backups")
            }
        }
    }
}

impl From<HoldError> for Failure {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Catalog(error) => error.into(),
            HoldError::Repository(error) => error.into(),
            HoldError::NoReason => Self::of(Exit::Usage, &error)
                .hint("`--reason \"before the migration to 2.0\"`: whoever finds it in a year will want to know"),
            HoldError::NotHeld(_) => {
                Self::of(Exit::Usage, &error).hint("`lifeboat hold --list` shows those that are")
            }
        }
    }
}
