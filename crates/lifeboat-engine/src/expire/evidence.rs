//! What tells when a backup was taken, besides what it says of itself.
//!
//! A clock that was set back, or someone with a stolen key, can give a backup a time long before it was taken.
//! Such backups must not push others out. Two things tell, where they are there: the backup that was the newest
//! when this one was begun (its parent), and the moment its file was stored by the storage's clock. Neither says
//! when it was taken, but both say when it was not taken yet.
//!
//! What cannot be told: a back-dated backup without a parent, in a storage that tells no times or whose clock was
//! as wrong; and one that is dated back by less than the tolerances.

use jiff::{SignedDuration, Timestamp};
use lifeboat_repo::SnapshotId;

use super::Candidate;

/// Two hosts that take turns may disagree about the time this much.
const PARENT_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);
/// A backup's file is stored when it is done: the order of files is the order of snapshots only so far.
const STORED_TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// What besides a backup's own word tells when it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The IDs it goes or went by: its own is not among them.
    pub first_id: Option<SnapshotId>,
    /// The newest backup of the database when this one was begun.
    pub parent: Option<SnapshotId>,
    /// When its file was stored. `None` where that says nothing: the storage does not tell, the file was
    /// written anew later (a hold, a copy), or this machine has imported it.
    pub stored: Option<Timestamp>,
}

/// For each backup of one database when it was taken at the earliest, where that is later than it says.
pub(super) fn not_before(own: &[&Candidate], now: Timestamp) -> Vec<Option<Timestamp>> {
    // The latest time among files stored up to a moment: what is stored later should not be earlier.
    let mut stored: Vec<(Timestamp, Timestamp)> = own
        .iter()
        .filter(|one| one.time <= now)
        .filter_map(|one| Some((one.evidence.stored?, one.time)))
        .collect();
    stored.sort_unstable();
    let mut latest: Option<Timestamp> = None;
    for (_, time) in &mut stored {
        latest = latest.max(Some(*time));
        *time = latest.unwrap_or(*time);
    }
    own.iter()
        .map(|one| {
            if one.time > now {
                return None;
            }
            let by_parent = one.evidence.parent.and_then(|parent| {
                let is_it = |other: &&&Candidate| {
                    other.id == parent || other.evidence.first_id == Some(parent)
                };
                let parent = own.iter().find(is_it)?;
                (parent.time <= now && is_after(parent.time, one.time, PARENT_TOLERANCE))
                    .then_some(parent.time)
            });
            let by_file = one.evidence.stored.and_then(|at| {
                let limit = at.checked_sub(STORED_TOLERANCE).ok()?;
                let earlier = stored.partition_point(|(stored, _)| *stored < limit);
                let (_, latest) = stored.get(earlier.checked_sub(1)?)?;
                is_after(*latest, one.time, STORED_TOLERANCE).then(|| at.min(now))
            });
            by_parent.max(by_file)
        })
        .collect()
}

fn is_after(time: Timestamp, than: Timestamp, tolerance: SignedDuration) -> bool {
    time.duration_since(than) > tolerance
}
