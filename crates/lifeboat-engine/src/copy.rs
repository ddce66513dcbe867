//! Bringing another repository up to date with the backups it lacks.
//!
//! What is copied is decided here, a pure function of what both hold and of the policy; how it moves is
//! `lifeboat-repo`'s. Only Lifeboat's own backups are copied, and of those none that the next `expire` would
//! remove from the destination. The newest comes first: it is what a disaster in the midst of it would ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifeboat_repo::copy::{CopyOptions, CopyProgress, CopyRequest as RepoRequest, Uncopied};
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::catalog::{self, Backup};
use crate::config::TimeSpan;
use crate::event::{Event, Observer, Stage, Stages};
use crate::expire::{Candidate, Evidence, Policy, decide};
use crate::locking;

/// What to copy, and how.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// What `expire` would keep: nothing else is brought.
    pub policy: Policy,
    /// The present.
    pub now: Timestamp,
    /// This host, for the locks.
    pub hostname: String,
    /// The user, for the locks.
    pub username: String,
    /// How long to wait for others that work on the repositories.
    pub patience: Duration,
    /// Set to stop. What is there by then is found again.
    pub interrupt: Arc<AtomicBool>,
}

/// A backup, as far as copying tells about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRef {
    /// Its ID in the source.
    pub id: SnapshotId,
    /// Its database.
    pub database: String,
    /// Its snapshot's time.
    pub time: Timestamp,
}

impl BackupRef {
    fn new(backup: &Backup) -> Self {
        Self {
            id: backup.id,
            database: backup.database.clone(),
            time: backup.time,
        }
    }
}

/// A backup that is whole in the destination now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// As the source has it.
    pub backup: BackupRef,
    /// Its ID in the destination: the same, where the keys are shared.
    pub id_there: SnapshotId,
}

/// A backup that was not copied because something that it needs is damaged in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The backup.
    pub backup: BackupRef,
    /// What is damaged.
    pub what: String,
}

/// What a copy did, or of a dry run, would do.
#[derive(Debug, Clone, Default)]
pub struct CopyReport {
    /// Whether packs can move as they are.
    pub shared_keys: bool,
    /// Backups that are whole in the destination now; of a dry run, those that would be. The newest first.
    pub copied: Vec<Copied>,
    /// Backups that could not be copied.
    pub damaged: Vec<Damaged>,
    /// Packs of the source that are damaged, whether or not that cost a backup.
    pub damaged_packs: Vec<String>,
    /// Snapshot files, of either repository, that cannot be read.
    pub unreadable: Vec<String>,
    /// Backups of the source that were there already.
    pub present: u64,
    /// Backups that were left out, since the policy would remove them at once.
    pub expired: u64,
    /// Packs that moved or were put together; of a dry run, packs that something is wanted of.
    pub packs: u64,
    /// Of these, packs that moved as they are.
    pub packs_moved: u64,
    /// Packs that an earlier run had brought, and that were taken over.
    pub packs_adopted: u64,
    /// Bytes written; of a dry run, about what would be.
    pub bytes: u64,
    /// The newest backup that is in the destination now.
    pub newest: Option<BackupRef>,
    /// Seconds from the beginning to the end.
    pub seconds: f64,
}

impl CopyReport {
    /// Whether all that should be in the destination is.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.damaged.is_empty() && self.damaged_packs.is_empty() && self.unreadable.is_empty()
    }
}

/// Why a copy did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Both are the same repository.
    #[error("{location} is the repository that would be copied from")]
    Same {
        /// Where it is.
        location: String,
    },
    /// The policy keeps nothing: that is nobody's wish.
    #[error("the policy keeps nothing")]
    EmptyPolicy,
    /// One of the two failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Says what would be copied, and writes nothing.
///
/// # Errors
/// [`CopyError`].
pub fn plan(
    source: &Repository,
    destination: &Repository,
    request: &CopyRequest,
) -> Result<CopyReport, CopyError> {
    let started = Instant::now();
    let mut chosen = Chosen::gather(source, destination, request)?;
    let estimate = source.copy_estimate(destination, &chosen.snapshots, &request.interrupt)?;
    let mut report = std::mem::take(&mut chosen.report);
    let lost: BTreeSet<SnapshotId> = estimate.damaged.iter().map(|one| one.id).collect();
    report.copied = chosen
        .snapshots
        .iter()
        .filter(|one| !lost.contains(&one.id))
        .filter_map(|one| chosen.copied(one.id, one.id))
        .collect();
    report.damaged = chosen.damaged(&estimate.damaged);
    report.packs = estimate.packs;
    report.bytes = estimate.bytes;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Copies to `destination` what it lacks.
///
/// # Errors
/// [`CopyError`]; backups that were copied by then are whole, and the next run goes on from there.
pub fn execute(
    source: &Repository,
    destination: &Repository,
    request: &CopyRequest,
    observer: &dyn Observer,
) -> Result<CopyReport, CopyError> {
    match copy(source, destination, request, observer) {
        // Whatever broke first when the operator pressed Ctrl-C, the reason is the operator.
        Err(_) if request.interrupt.load(Ordering::Relaxed) => Err(CopyError::Interrupted),
        other => other,
    }
}

fn copy(
    source: &Repository,
    destination: &Repository,
    request: &CopyRequest,
    observer: &dyn Observer,
) -> Result<CopyReport, CopyError> {
    let started = Instant::now();
    let mut stages = Stages::new(observer);
    let lock = |repository| {
        locking::lock(
            repository,
            LockMode::Shared,
            (&request.hostname, &request.username),
            request.patience,
            &request.interrupt,
            observer,
        )
    };
    let source_lock = lock(source)?;
    let destination_lock = lock(destination)?;
    // Both locks first: what is looked at stays as long as they hold.
    let mut chosen = Chosen::gather(source, destination, request)?;
    let done = stages.run(Stage::Copy, || {
        let progress = |now: CopyProgress| {
            observer.event(&Event::CopyProgress {
                packs_done: now.packs_done,
                packs_total: now.packs_total,
                bytes_done: now.bytes_done,
                bytes_total: now.bytes_total,
            });
        };
        source.copy_to(
            destination,
            &RepoRequest {
                options: CopyOptions {
                    interrupt: Arc::clone(&request.interrupt),
                    ..CopyOptions::default()
                },
                snapshots: &chosen.snapshots,
                source_lock: &source_lock,
                destination_lock: &destination_lock,
                progress: &progress,
            },
        )
    })?;
    let mut report = std::mem::take(&mut chosen.report);
    report.copied = done
        .copied
        .iter()
        .filter_map(|(id, there)| chosen.copied(*id, *there))
        .collect();
    report.damaged = chosen.damaged(&done.damaged);
    report.damaged_packs = done
        .damaged_packs
        .iter()
        .map(|(pack, what)| format!("pack {pack}: {what}"))
        .collect();
    let newest = report.copied.iter().map(|one| &one.backup).cloned();
    report.newest = newest
        .chain(report.newest.take())
        .max_by_key(|one| one.time);
    report.packs = done.packs_moved + done.packs_written;
    report.packs_moved = done.packs_moved;
    report.packs_adopted = done.packs_adopted;
    report.bytes = done.bytes_written;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// What is copied, the newest first, and what is known before.
struct Chosen {
    snapshots: Vec<Snapshot>,
    backups: HashMap<SnapshotId, BackupRef>,
    report: CopyReport,
}

impl Chosen {
    fn gather(
        source: &Repository,
        destination: &Repository,
        request: &CopyRequest,
    ) -> Result<Self, CopyError> {
        if source.id() == destination.id() {
            let location = destination.location();
            return Err(CopyError::Same { location });
        }
        if request.policy.is_empty() {
            return Err(CopyError::EmptyPolicy);
        }
        let (there, damaged_there) = destination.snapshots()?;
        let (here, damaged_here) = source.snapshots()?;
        let shared_keys = source.shares_keys_with(destination);
        let (mut here, _) = catalog::backups_of(here);
        // One that is known to have lost something can't be copied, and that is no news.
        here.retain(|backup| backup.lost.is_none());
        let (there, _) = catalog::backups_of(there);
        let count = here.len();
        let mut lacking = lacking(here, &there, shared_keys);
        let present = count - lacking.len();
        let kept = kept(&lacking, &there, &request.policy, request.now);
        let before = lacking.len();
        lacking.retain(|backup| kept.contains(&backup.id));
        let expired = before - lacking.len();
        lacking.sort_by_key(|backup| (std::cmp::Reverse(backup.time), backup.id));
        let unreadable = damaged_here.iter().chain(&damaged_there);
        let past = there.iter().filter(|one| one.time <= request.now);
        Ok(Self {
            report: CopyReport {
                shared_keys,
                unreadable: unreadable.map(ToString::to_string).collect(),
                present: present as u64,
                expired: expired as u64,
                newest: past.max_by_key(|one| one.time).map(BackupRef::new),
                ..CopyReport::default()
            },
            backups: lacking
                .iter()
                .map(|backup| (backup.id, BackupRef::new(backup)))
                .collect(),
            snapshots: lacking.into_iter().map(|backup| backup.snapshot).collect(),
        })
    }

    fn copied(&self, id: SnapshotId, id_there: SnapshotId) -> Option<Copied> {
        let backup = self.backups.get(&id)?.clone();
        Some(Copied { backup, id_there })
    }

    fn damaged(&self, uncopied: &[Uncopied]) -> Vec<Damaged> {
        let known = uncopied.iter().filter_map(|one| {
            let backup = self.backups.get(&one.id)?.clone();
            let what = one.what.clone();
            Some(Damaged { backup, what })
        });
        known.collect()
    }
}

/// The backups of `here` that are not `there`.
///
/// A hold gives a backup another ID. One that was held here since it was copied is brought again where its
/// snapshot file can be: there it takes the place of the one without a hold. One that was changed over there is
/// there, however it was changed.
fn lacking(here: Vec<Backup>, there: &[Backup], shared_keys: bool) -> Vec<Backup> {
    let mut by_first: HashMap<SnapshotId, Vec<&Backup>> = HashMap::new();
    for backup in there {
        by_first.entry(backup.first_id()).or_default().push(backup);
    }
    let is_lacking = |backup: &Backup| {
        let Some(same) = by_first.get(&backup.first_id()) else {
            return true;
        };
        let first = backup.first_id();
        shared_keys && backup.id != first && same.iter().all(|one| one.id == first)
    };
    here.into_iter().filter(is_lacking).collect()
}

/// Which of `lacking` the next `expire` would leave in the destination.
fn kept(
    lacking: &[Backup],
    there: &[Backup],
    policy: &Policy,
    now: Timestamp,
) -> BTreeSet<SnapshotId> {
    let candidate = |backup: &Backup| Candidate {
        id: backup.id,
        database: backup.database.clone(),
        time: backup.time,
        evidence: Evidence {
            first_id: Some(backup.first_id()),
            parent: backup.snapshot.parent,
            stored: None,
        },
        is_proven: false,
        is_bad: false,
        held: backup.held.clone(),
    };
    let again: BTreeSet<SnapshotId> = lacking.iter().map(Backup::first_id).collect();
    let others = there.iter().filter(|one| !again.contains(&one.first_id()));
    let candidates: Vec<Candidate> = lacking.iter().chain(others).map(candidate).collect();
    // That backups are late keeps old ones from being removed; it is no reason to bring them.
    let never = TimeSpan::hours(24 * 365 * 100);
    let verdicts = decide(&candidates, policy, &BTreeMap::new(), never, now);
    let asked: BTreeSet<SnapshotId> = lacking.iter().map(|one| one.id).collect();
    verdicts
        .iter()
        .filter(|verdict| verdict.is_kept())
        .map(|verdict| verdict.candidate.id)
        .filter(|id| asked.contains(id))
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;
    use lifeboat_repo::BlobId;

    fn backup(name: &str, original: Option<&str>, time: &str, held: bool) -> Backup {
        let id = SnapshotId::of(name.as_bytes());
        let json = serde_json::json!({ "time": time, "tree": BlobId::of(b"") }).to_string();
        let mut snapshot = Snapshot::parse(id, json.as_bytes()).unwrap();
        snapshot.original = original.map(|name| SnapshotId::of(name.as_bytes()));
        Backup {
            id,
            database: "app".to_owned(),
            time: snapshot.time,
            hostname: String::new(),
            held: held.then(String::new),
            lost: None,
            summary: None,
            snapshot,
        }
    }

    fn plain(name: &str, time: &str) -> Backup {
        backup(name, None, time, false)
    }

    #[test]
    fn what_is_there_by_any_of_its_names_is_not_copied() {
        let time = "2026-03-01T00:00:00Z";
        let first = || plain("a", time);
        let held = || backup("a-held", Some("a"), time, true);
        let other = || backup("a-copied", Some("a"), time, false);
        for (here, there, shared, is_lacking) in [
            (first(), vec![], true, true),
            (first(), vec![first()], true, false),
            // Held here since: the hold travels, where the file can.
            (held(), vec![first()], true, true),
            (held(), vec![held()], true, false),
            (held(), vec![other()], false, false),
            // Changed there: that is somebody's wish.
            (first(), vec![held()], true, false),
            (held(), vec![other()], true, false),
            // A copy with other keys says which one it was.
            (first(), vec![other()], false, false),
        ] {
            let found = lacking(vec![here.clone()], &there, shared);
            assert_eq!(!found.is_empty(), is_lacking, "{here:?} {there:?} {shared}");
        }
    }

    #[test]
    fn what_would_expire_at_once_is_not_brought() {
        let now = "2026-03-31T12:00:00Z".parse().unwrap();
        let policy = Policy {
            within: Some("10d".parse().unwrap()),
            ..Policy::default()
        };
        let day = |day: u32| {
            plain(
                &format!("day {day}"),
                &format!("2026-03-{day:02}T00:00:00Z"),
            )
        };
        let here: Vec<Backup> = (1..=31).map(day).collect();
        let kept_of = |here: &[Backup], there: &[Backup]| kept(here, there, &policy, now).len();
        // Less than ten days older than the 31st.
        assert_eq!(kept_of(&here, &[]), 10);
        // What is there counts: the policy looks back from its newest.
        assert_eq!(kept_of(&here[..25], &here[25..]), 4);
        // The last three good ones stay whatever the policy says.
        assert_eq!(kept_of(&here[..5], &[]), 5);
        let old = [day(1), day(2), day(3), day(4)];
        assert_eq!(kept_of(&old, &[day(30)]), 2);
        // And what is held.
        let held = backup("held", None, "2026-03-01T00:00:00Z", true);
        assert_eq!(kept_of(&[held], &here[1..]), 1);
    }
}
