//! Objectives against reality: pure functions of the clock and of history.
//!
//! RPO now is the age of the newest complete backup, counted from its snapshot of the database and not
//! from when the copy ended: what was written since then would be lost. RTO is never estimated from
//! nothing: it is what the last good drill measured, scaled up when the database has grown since. Where
//! there is no history the answer is [`Verdict::Unknown`], which counts as not met.

use jiff::Timestamp;
use serde::Serialize;

use crate::config::TimeSpan;
use crate::journal::Drill;

/// Whether a promise holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Met,
    /// It does not.
    Missed,
    /// Nothing is known: there is no backup, or no drill, to tell from.
    Unknown,
}

/// A promise and what is true of it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Objective {
    /// What was promised, in seconds.
    pub target_seconds: u64,
    /// What is true now, in whole seconds rounded up; `None` when nothing is known.
    pub actual_seconds: Option<u64>,
    /// The comparison.
    pub verdict: Verdict,
}

impl Objective {
    fn new(target: TimeSpan, actual_seconds: Option<u64>) -> Self {
        Self {
            target_seconds: target.seconds(),
            actual_seconds,
            verdict: match actual_seconds {
                None => Verdict::Unknown,
                Some(actual) if actual <= target.seconds() => Verdict::Met,
                Some(_) => Verdict::Missed,
            },
        }
    }
}

/// Something that has to be done again and again, and when it was last done well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Routine {
    /// When it was last done well.
    pub last: Option<Timestamp>,
    /// How long that may be ago, in seconds.
    pub max_age_seconds: u64,
    /// Seconds past that, when it is overdue. `None`: in time, or never done (see `last`).
    pub overdue_seconds: Option<u64>,
}

impl Routine {
    /// Whether it must be done now: never done, or too long ago.
    pub fn is_overdue(&self) -> bool {
        self.last.is_none() || self.overdue_seconds.is_some()
    }
}

/// RPO now: the age of the newest complete backup's snapshot.
pub fn rpo_now(newest_snapshot: Option<Timestamp>, now: Timestamp, target: TimeSpan) -> Objective {
    Objective::new(target, newest_snapshot.map(|time| age_seconds(time, now)))
}

/// RTO: what a recovery would take, by the last drill that proved its backup. `database_bytes` is the
/// database's size now; when it has grown since the drill, the time grows in proportion.
pub fn rto_predicted(
    last_proven: Option<&Drill>,
    database_bytes: Option<u64>,
    target: TimeSpan,
) -> Objective {
    Objective::new(
        target,
        last_proven.and_then(|drill| predicted_seconds(drill, database_bytes)),
    )
}

/// RTO as a drill or a recovery measured it, in seconds rounded up.
pub fn rto_reached(seconds: f64, target: TimeSpan) -> Objective {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "measured seconds are positive and small"
    )]
    let whole = seconds.ceil() as u64;
    Objective::new(target, Some(whole))
}

fn predicted_seconds(drill: &Drill, database_bytes: Option<u64>) -> Option<u64> {
    let measured_ms = u128::from(drill.rto_ms?);
    let predicted_ms = match (drill.bytes, database_bytes) {
        (Some(then), Some(now)) if then > 0 && now > then => {
            measured_ms * u128::from(now) / u128::from(then)
        }
        // A smaller database may restore faster, but starting a server and reading the schema do not
        // shrink: promise nothing better than what was measured.
        _ => measured_ms,
    };
    u64::try_from(predicted_ms.div_ceil(1_000)).ok()
}

/// Whether a routine is overdue: a drill, or a verification.
pub fn routine(last: Option<Timestamp>, now: Timestamp, max_age: TimeSpan) -> Routine {
    Routine {
        last,
        max_age_seconds: max_age.seconds(),
        overdue_seconds: last
            .map(|time| age_seconds(time, now))
            .filter(|age| *age > max_age.seconds())
            .map(|age| age - max_age.seconds()),
    }
}

/// Age in seconds, rounded up, so that an age of 3600.2 s does not pass for an hour. A time in the future
/// (a clock was set back) has age 0.
pub fn age_seconds(time: Timestamp, now: Timestamp) -> u64 {
    let milliseconds = now.as_millisecond().saturating_sub(time.as_millisecond());
    u64::try_from(milliseconds).unwrap_or(0).div_ceil(1_000)
}

/// Seconds in the two largest units that matter: `42 s`, `7 min 5 s`, `3 h 20 min`, `12 d 4 h`.
pub fn human_seconds(seconds: u64) -> String {
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{large} {large_unit}")
        } else {
            format!("{large} {large_unit} {small} {small_unit}")
        }
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Verdict::{Met, Missed, Unknown};

    const HOUR: TimeSpan = TimeSpan::hours(1);

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    fn drill(rto_ms: Option<u64>, bytes: Option<u64>) -> Drill {
        Drill {
            backup: "a".into(),
            repository: "r".into(),
            database: "d".into(),
            started: at(0),
            finished: at(60_000),
            proven: true,
            error: None,
            rpo_ms: None,
            rto_ms,
            bytes,
            stages: Vec::new(),
        }
    }

    #[test]
    fn rpo_counts_from_the_snapshot() {
        for (snapshot_ms, now_ms, actual, verdict) in [
            (Some(0), 0, Some(0), Met),
            (Some(0), 3_599_001, Some(3_600), Met),
            (Some(0), 3_600_000, Some(3_600), Met),
            (Some(0), 3_600_001, Some(3_601), Missed),
            (Some(5_000), 0, Some(0), Met),
            (None, 0, None, Unknown),
        ] {
            let objective = rpo_now(snapshot_ms.map(at), at(now_ms), HOUR);
            assert_eq!(
                (objective.actual_seconds, objective.verdict),
                (actual, verdict),
                "{snapshot_ms:?} {now_ms}"
            );
        }
    }

    #[test]
    fn rto_comes_from_drills_and_grows_with_the_database() {
        const GB: u64 = 1_000_000_000;
        for (drill, bytes_now, actual, verdict) in [
            (None, Some(GB), None, Unknown),
            (Some(drill(None, Some(GB))), Some(GB), None, Unknown),
            (Some(drill(Some(90_500), None)), Some(GB), Some(91), Met),
            (
                Some(drill(Some(1_800_000), Some(GB))),
                Some(2 * GB),
                Some(3_600),
                Met,
            ),
            (
                Some(drill(Some(1_800_000), Some(GB))),
                Some(3 * GB),
                Some(5_400),
                Missed,
            ),
            (
                Some(drill(Some(1_800_000), Some(GB))),
                Some(GB / 2),
                Some(1_800),
                Met,
            ),
            (
                Some(drill(Some(1_800_000), Some(0))),
                Some(GB),
                Some(1_800),
                Met,
            ),
        ] {
            let objective = rto_predicted(drill.as_ref(), bytes_now, HOUR);
            assert_eq!(
                (objective.actual_seconds, objective.verdict),
                (actual, verdict),
                "{drill:?} {bytes_now:?}"
            );
        }
    }

    #[test]
    fn routines_fall_due() {
        for (last_ms, now_ms, overdue, must) in [
            (None, 0, None, true),
            (Some(0), 3_600_000, None, false),
            (Some(0), 3_660_000, Some(60), true),
            (Some(10_000), 0, None, false),
        ] {
            let routine = routine(last_ms.map(at), at(now_ms), HOUR);
            assert_eq!(
                (routine.overdue_seconds, routine.is_overdue()),
                (overdue, must),
                "{last_ms:?} {now_ms}"
            );
        }
    }
}
