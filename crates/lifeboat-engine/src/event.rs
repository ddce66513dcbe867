//! What an operation tells while it runs.
//!
//! Operations never print. They hand [`Event`]s to an [`Observer`], from any of their threads, and the
//! faces (terminal, JSON lines, later the daemon and the web page) turn them into what their users see. An
//! observer must be quick: it is called between two reads of a socket.

use serde::Serialize;

/// Something that happened inside an operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A stage began. Stages do not overlap, except where one says so.
    StageStarted {
        /// Which one.
        stage: Stage,
    },
    /// A stage ended well.
    StageFinished {
        /// Which one.
        stage: Stage,
        /// How long it took.
        seconds: f64,
    },
    /// How much the stage that moves data will move.
    TotalKnown {
        /// Tables with data.
        tables: u64,
        /// Bytes expected. An estimate for backups (from the tables' sizes on disk), exact elsewhere.
        bytes: u64,
    },
    /// Work on a table began.
    TableStarted {
        /// `schema.table`.
        table: String,
        /// Bytes expected for it, with the meaning of [`Event::TotalKnown`].
        bytes: u64,
    },
    /// Data of a table moved since the last such event.
    TableProgress {
        /// `schema.table`.
        table: String,
        /// Bytes moved since then.
        bytes: u64,
    },
    /// A table is complete.
    TableFinished {
        /// `schema.table`.
        table: String,
        /// Its rows.
        rows: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// Files or bytes of a repository were read by a check.
    CheckProgress {
        /// Packs done so far.
        packs_done: u64,
        /// Packs in all.
        packs_total: u64,
        /// Bytes read so far.
        bytes: u64,
    },
    /// Packs moved from one repository to another.
    CopyProgress {
        /// Packs done so far.
        packs_done: u64,
        /// Packs in all.
        packs_total: u64,
        /// Bytes done so far.
        bytes_done: u64,
        /// Bytes in all, about.
        bytes_total: u64,
    },
    /// Work on one file of several began.
    FileStarted {
        /// The file.
        file: String,
        /// Which one, from 1.
        number: u64,
        /// Of how many.
        files: u64,
        /// Its size.
        bytes: u64,
    },
    /// One file of several is done.
    FileFinished {
        /// The file.
        file: String,
        /// Which one, from 1.
        number: u64,
        /// Of how many.
        files: u64,
        /// What came of it.
        result: FileResult,
    },
    /// Something that does not stop the operation but that the operator should know.
    Warning {
        /// One sentence.
        message: String,
    },
}

/// What came of one file of an import.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum FileResult {
    /// It is a backup now.
    Imported {
        /// The backup's ID.
        backup: String,
        /// When the dump was begun.
        snapshot_time: jiff::Timestamp,
        /// Its rows and large objects, decompressed.
        data_bytes: u64,
        /// Bytes added to the repository.
        new_bytes: u64,
    },
    /// It was one before.
    AlreadyThere {
        /// The backup's ID.
        backup: String,
    },
    /// It is not imported.
    Refused {
        /// Why not.
        reason: String,
    },
    /// The import ended before it did.
    Stopped,
}

/// The stages of the operations, as they appear in events, drills and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Connecting, taking locks and the snapshot, reading the table of contents.
    Snapshot,
    /// Reading the tables and storing them.
    Dump,
    /// Making the backup durable: last packs, index, snapshot file.
    Commit,
    /// Choosing the backup and checking that the target can take it.
    Preflight,
    /// Starting the scratch server.
    Scratch,
    /// Creating the target database.
    Create,
    /// Dropping what the backup will create anew (`--clean`).
    Clean,
    /// Types, functions, tables: everything before the rows.
    PreData,
    /// The rows.
    Data,
    /// Sequence values and large objects.
    Rest,
    /// Indexes, constraints, triggers, materialized views.
    PostData,
    /// Statistics for the planner.
    Analyze,
    /// Comparing what was restored with what the backup recorded.
    Compare,
    /// The SQL checks of the configuration.
    Checks,
    /// Reading the repository.
    Check,
    /// Writing a file.
    Export,
    /// Reading which data the backups that stay need.
    Mark,
    /// Copying data that is still needed out of packs that are mostly not.
    Repack,
    /// Removing backups, and data that none needs.
    Remove,
    /// Looking into damaged files, and for good copies of what was in them.
    Examine,
    /// Writing good copies of what is damaged.
    Mend,
    /// Removing damaged files.
    Discard,
    /// Moving packs from one repository to another.
    Copy,
    /// Taking down what was only needed for a while.
    CleanUp,
}

impl Stage {
    /// Its name in events and in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Dump => "dump",
            Self::Commit => "commit",
            Self::Preflight => "preflight",
            Self::Scratch => "scratch",
            Self::Create => "create",
            Self::Clean => "clean",
            Self::PreData => "pre_data",
            Self::Data => "data",
            Self::Rest => "rest",
            Self::PostData => "post_data",
            Self::Analyze => "analyze",
            Self::Compare => "compare",
            Self::Checks => "checks",
            Self::Check => "check",
            Self::Export => "export",
            Self::Mark => "mark",
            Self::Repack => "repack",
            Self::Remove => "remove",
            Self::Examine => "examine",
            Self::Mend => "mend",
            Self::Discard => "discard",
            Self::Copy => "copy",
            Self::CleanUp => "clean_up",
        }
    }

    /// What it does, in the operator's words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Snapshot => "opening a snapshot of the database",
            Self::Dump => "reading tables",
            Self::Commit => "making the backup durable",
            Self::Preflight => "checking the backup and the target",
            Self::Scratch => "starting a scratch server",
            Self::Create => "creating the database",
            Self::Clean => "dropping what will be restored",
            Self::PreData => "creating types, functions and tables",
            Self::Data => "loading rows",
            Self::Rest => "setting sequences and large objects",
            Self::PostData => "building indexes, constraints and triggers",
            Self::Analyze => "gathering planner statistics",
            Self::Compare => "comparing rows and content",
            Self::Checks => "running the SQL checks",
            Self::Check => "checking the repository",
            Self::Export => "writing the archive",
            Self::Mark => "reading what the backups that stay need",
            Self::Repack => "putting together data that is still needed",
            Self::Remove => "removing what no backup needs",
            Self::Examine => "looking into what is damaged",
            Self::Mend => "writing good copies",
            Self::Discard => "removing what is damaged",
            Self::Copy => "copying packs",
            Self::CleanUp => "cleaning up",
        }
    }
}

/// Receives the events of one operation.
pub trait Observer: Sync {
    /// Called from any thread of the operation; must not block.
    fn event(&self, event: &Event);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event) {}
}

/// A stage and the seconds it took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StageTime {
    /// Which stage.
    pub stage: Stage,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Times the stages of an operation and tells the observer about them.
pub(crate) struct Stages<'a> {
    observer: &'a dyn Observer,
    times: Vec<StageTime>,
}

impl<'a> Stages<'a> {
    pub(crate) fn new(observer: &'a dyn Observer) -> Self {
        Self {
            observer,
            times: Vec::new(),
        }
    }

    /// Runs one stage; its time counts only when it ends well.
    pub(crate) fn run<T, E>(
        &mut self,
        stage: Stage,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.observer.event(&Event::StageStarted { stage });
        let started = std::time::Instant::now();
        let value = work()?;
        let seconds = started.elapsed().as_secs_f64();
        self.times.push(StageTime { stage, seconds });
        self.observer
            .event(&Event::StageFinished { stage, seconds });
        Ok(value)
    }

    pub(crate) fn into_times(self) -> Vec<StageTime> {
        self.times
    }
}
