//! Checking: is everything there that the snapshots need, and is it what was once written?
//!
//! Two depths. The structure check reads the small files and every tree, and compares what they promise with
//! the sizes of the packs. With `read_data` every byte of every pack is read once, and everything that can be
//! verified about it is. A damaged file never ends the check: it becomes a [`Finding`] that names it and the
//! snapshots it belongs to, and the check goes on with what is left.
//!
//! The order is that of reading in general: snapshots, then index, then packs. What a backup that runs
//! meanwhile adds is then at most unknown, never seemingly missing. Whoever removes data is kept away by the
//! caller's shared lock.

mod files;
mod packs;
pub mod reading;
mod trees;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::RepositoryError;
use crate::id::{BlobId, PackId, SnapshotId};
use crate::index::Index;
use crate::lock::{LockError, LockGuard};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, StorageErrorKind};

use packs::Packs;
use reading::{Everything, Reading};
use trees::{Belongings, Walk, Walked};

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub enum CheckScope<'a> {
    /// What one snapshot needs: its trees, the packs that hold its blobs, the index and the keys.
    Snapshot(&'a Snapshot),
    /// Every file of the repository, also packs that no snapshot needs.
    Everything,
}

/// How it is checked.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Read, open and hash every pack, not just compare its size.
    pub read_data: bool,
    /// Threads that read packs; each holds one pack in memory.
    pub jobs: usize,
    /// A snapshot of the scope whose packs shall be listed in the report.
    pub packs_of: Option<SnapshotId>,
    /// Set to stop: the check then ends with [`RepositoryError::Interrupted`].
    pub interrupt: Arc<AtomicBool>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            read_data: false,
            jobs,
            packs_of: None,
            interrupt: Arc::default(),
        }
    }
}

/// How far reading packs has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckProgress {
    /// Packs read.
    pub packs_done: u64,
    /// Packs to read.
    pub packs_total: u64,
    /// Bytes of packs read.
    pub bytes_done: u64,
    /// Bytes of packs to read.
    pub bytes_total: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Snapshots whose trees were walked.
    pub snapshots_checked: u64,
    /// Packs whose size, or with `read_data` whose content, was compared with what is promised.
    pub packs_checked: u64,
    /// The packs that [`CheckOptions::packs_of`] needs.
    pub packs_of: HashSet<PackId>,
    /// With `read_data` blobs that were opened and hashed; without, blobs that the index places in the packs
    /// that were checked.
    pub blobs_checked: u64,
    /// Bytes of packs read with `read_data`.
    pub bytes_read: u64,
    /// What is wrong, sorted by kind and name; nothing when all is well.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FileKind,
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub what: Problem,
    /// The snapshots it belongs to, oldest first: for a pack those that need a blob that no undamaged pack holds,
    /// for an index file those that need what no other index file lists.
    pub snapshots: Vec<SnapshotId>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // There is one config, and its name says no more than its kind.
        if self.kind == FileKind::Config {
            return write!(f, "{}: {}", self.kind, self.what);
        }
        write!(f, "{} {}: {}", self.kind, self.name, self.what)
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It is not as long as the index implies.
    WrongSize {
        /// Bytes that the index implies.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// Its content is not what was once written, or makes no sense.
    Damaged(String),
    /// The storage could not read it.
    Unreadable(String),
    /// A snapshot that needs blobs which no index lists, although every index file could be read. So an index
    /// file is gone, or the blobs were never written.
    Incomplete {
        /// One of the blobs.
        example: BlobId,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::WrongSize { expected, found } => {
                write!(f, "{found} bytes long instead of {expected}")
            }
            Self::Damaged(what) => f.write_str(what),
            Self::Unreadable(what) => write!(f, "it cannot be read: {what}"),
            Self::Incomplete { example } => write!(
                f,
                "blobs it needs are in no index, such as {}",
                example.short()
            ),
        }
    }
}

/// What is wrong so far, by file. The first word on a file stays: what is found later about the same file
/// follows from it.
#[derive(Debug, Default)]
struct Findings(Mutex<BTreeMap<(FileKind, String), Problem>>);

impl Findings {
    fn add(&self, kind: FileKind, name: impl ToString, problem: Problem) {
        let mut findings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        findings.entry((kind, name.to_string())).or_insert(problem);
    }

    fn names(&self, kind: FileKind) -> Vec<String> {
        let findings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        findings
            .keys()
            .filter(|(found, _)| *found == kind)
            .map(|(_, name)| name.clone())
            .collect()
    }

    fn take(&self) -> BTreeMap<(FileKind, String), Problem> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a failure to read `name` means: a finding when it is about that file, else an error that ends the
    /// check, since a network that is down, or a login that has run out, says nothing about the files.
    fn add_error(
        &self,
        kind: FileKind,
        name: &str,
        error: RepositoryError,
    ) -> Result<(), RepositoryError> {
        let problem = match error {
            RepositoryError::Storage(error) if !error.is_about_the_file() => {
                return Err(error.into());
            }
            RepositoryError::Storage(error) if error.kind() == StorageErrorKind::NotFound => {
                Problem::Missing
            }
            RepositoryError::Storage(error) => Problem::Unreadable(with_sources(&error)),
            RepositoryError::Damaged { what, .. } => Problem::Damaged(what),
            other => return Err(other),
        };
        self.add(kind, name, problem);
        Ok(())
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// What every part of a check works with.
#[derive(Clone, Copy)]
struct Context<'a> {
    repository: &'a Repository,
    options: &'a CheckOptions,
    findings: &'a Findings,
}

impl Context<'_> {
    fn stop_if_interrupted(&self) -> Result<(), RepositoryError> {
        if self.options.interrupt.load(Ordering::Relaxed) {
            Err(RepositoryError::Interrupted)
        } else {
            Ok(())
        }
    }
}

impl Repository {
    /// Checks the repository, or what one snapshot needs of it. `progress` is called from several threads.
    ///
    /// # Errors
    /// `Interrupted`, and failures that say nothing about the files, such as a listing that fails. Whatever is
    /// wrong with a file is in the report instead.
    pub fn check(
        &self,
        scope: CheckScope<'_>,
        options: &CheckOptions,
        progress: &(dyn Fn(CheckProgress) + Sync),
    ) -> Result<CheckReport, RepositoryError> {
        self.check_reading(scope, options, &Everything, progress)
    }

    /// As [`Repository::check`], but with `read_data` it is `reading` who says which packs are read.
    ///
    /// # Errors
    /// As [`Repository::check`].
    pub fn check_reading(
        &self,
        scope: CheckScope<'_>,
        options: &CheckOptions,
        reading: &dyn Reading,
        progress: &(dyn Fn(CheckProgress) + Sync),
    ) -> Result<CheckReport, RepositoryError> {
        let findings = Findings::default();
        let context = Context {
            repository: self,
            options,
            findings: &findings,
        };

        let snapshots = files::snapshots(context, scope)?;
        let mut index = files::index(context)?;
        files::others(context, scope)?;
        let mut packs = Packs::list(context, &index)?;
        // A blob whose pack was lost and that was stored anew is there: only its old place is not.
        prefer_others(&mut index, |pack| packs.problem(*pack).is_some());

        let mut walk = Walk::new(context, &index, &packs)?;
        let mut packs_of = HashSet::new();
        // First, so that what it needs is all that was seen so far.
        if let Some(first) = snapshots
            .iter()
            .find(|one| Some(one.id) == options.packs_of)
        {
            walk.visit(first.tree)?;
            packs_of.clone_from(walk.packs_used());
        }
        for snapshot in &snapshots {
            walk.visit(snapshot.tree)?;
        }
        let Walked {
            packs_used,
            is_incomplete,
        } = walk.finish();
        if matches!(scope, CheckScope::Snapshot(_)) {
            packs.keep_only(&packs_used);
        }
        let mut report = packs.check_sizes(context);
        if options.read_data {
            packs.read(context, reading, progress, &mut report)?;
        }
        report.packs_of = packs_of;
        report.snapshots_checked = snapshots.len() as u64;
        let damaged: HashSet<String> = findings.names(FileKind::Pack).into_iter().collect();
        prefer_others(&mut index, |pack| damaged.contains(&pack.to_string()));
        let belongings = Belongings::new(context, &index, &packs, is_incomplete)?;
        report.findings = attribute(findings.take(), &snapshots, belongings)?;
        Ok(report)
    }
}

impl Repository {
    /// After a snapshot was written and `lock` was found lost: it stays if all that it needs is there, and is
    /// removed otherwise, also when that cannot be told. Returns whether it stays.
    ///
    /// Whoever took the lock for stale may have removed what the snapshot counts on, and a backup with a hole must
    /// not stand. They may also be about to remove it, not having seen the snapshot: so it is judged under a new
    /// lock, which excludes them, and is not there to stay without one.
    ///
    /// # Errors
    /// Why it could not be told, with the snapshot removed; or why it could not be removed.
    pub fn remove_unless_whole(
        &self,
        id: SnapshotId,
        lock: &LockGuard,
        interrupt: &Arc<AtomicBool>,
    ) -> Result<bool, RepositoryError> {
        let name = id.to_string();
        let reason = match self.is_whole(&name, lock, interrupt) {
            Ok(true) => return Ok(true),
            other => other,
        };
        if !self.storage().may_delete() {
            return Err(RepositoryError::Unremovable {
                snapshot: id,
                what: reason.err().map_or_else(
                    || "data it needs was removed while it was written".to_owned(),
                    |error| error.to_string(),
                ),
            });
        }
        match self.storage().delete(FileKind::Snapshot, &name) {
            Err(error) if error.kind() != StorageErrorKind::NotFound => Err(error.into()),
            _ => reason,
        }
    }

    fn is_whole(
        &self,
        name: &str,
        lost: &LockGuard,
        interrupt: &Arc<AtomicBool>,
    ) -> Result<bool, RepositoryError> {
        let lock = match lost.retake() {
            // That the lock was lost is what ends the work; who has one now comes after it.
            Err(LockError::Held(by)) => {
                lost.check()?;
                return Err(RepositoryError::Locked { by });
            }
            taken => taken?,
        };
        let options = CheckOptions {
            interrupt: Arc::clone(interrupt),
            ..CheckOptions::default()
        };
        let snapshot = self.load_snapshot(name)?;
        let check = self.check(CheckScope::Snapshot(&snapshot), &options, &|_| ())?;
        lock.verify()?;
        Ok(check.is_clean())
    }
}

fn prefer_others(index: &mut Index, is_bad: impl Fn(&PackId) -> bool) {
    let numbered = index.packs().iter().zip(0..);
    let bad: HashSet<u32> = numbered
        .filter(|(pack, _)| is_bad(pack))
        .map(|(_, number)| number)
        .collect();
    index.prefer_others(&bad);
}

/// Says of each finding which snapshots it belongs to.
fn attribute(
    findings: BTreeMap<(FileKind, String), Problem>,
    snapshots: &[Snapshot],
    mut belongings: Belongings<'_>,
) -> Result<Vec<Finding>, RepositoryError> {
    let mut by_pack: HashMap<String, Vec<SnapshotId>> = HashMap::new();
    let mut incomplete: Vec<(SnapshotId, BlobId)> = Vec::new();
    for snapshot in snapshots {
        let touched = belongings.of(snapshot.tree)?;
        for pack in &touched.damaged_packs {
            by_pack
                .entry(pack.to_string())
                .or_default()
                .push(snapshot.id);
        }
        incomplete.extend(touched.not_indexed.map(|example| (snapshot.id, example)));
    }
    let index_is_damaged = findings.keys().any(|(kind, _)| *kind == FileKind::Index);
    let mut attributed: Vec<Finding> = findings
        .into_iter()
        .map(|((kind, name), what)| {
            let snapshots = match kind {
                // Without them nothing can be opened.
                FileKind::Config | FileKind::Key => {
                    snapshots.iter().map(|snapshot| snapshot.id).collect()
                }
                FileKind::Lock => Vec::new(),
                FileKind::Snapshot => name.parse().into_iter().collect(),
                // Which of several damaged index files listed a blob can't be known: so each of them is named.
                FileKind::Index => incomplete.iter().map(|(id, _)| *id).collect(),
                FileKind::Pack => by_pack.remove(&name).unwrap_or_default(),
            };
            Finding {
                kind,
                name,
                what,
                snapshots,
            }
        })
        .collect();
    if !index_is_damaged {
        for (id, example) in incomplete {
            let (kind, name, what) = (
                FileKind::Snapshot,
                id.to_string(),
                Problem::Incomplete { example },
            );
            attributed.push(Finding {
                kind,
                name,
                what,
                snapshots: vec![id],
            });
        }
        attributed.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    }
    Ok(attributed)
}
