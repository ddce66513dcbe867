//! Retention: which backups go, and why each of the others stays.
//!
//! [`decide`] is pure. It lays the policy over the backups of each database, and over the policy the rules that
//! hold whatever the policy says: [`Rule`] has them all. [`execute()`] makes it so: the decision is made once to
//! show and to plan, and once more under the repository's exclusive lock with what there is then; only what both
//! name goes.

mod evidence;
mod execute;
pub mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lifeboat_repo::SnapshotId;

use crate::config::TimeSpan;
use crate::objectives;

pub use evidence::Evidence;
pub use execute::{ExpireError, ExpireReport, ExpireRequest, execute, plan};
pub use policy::{Match, Policy, Within, WithinError};

/// So many of a database's newest good backups are never removed.
pub const LAST_GOOD: usize = 3;

/// A backup, as far as retention cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its ID.
    pub id: SnapshotId,
    /// The database.
    pub database: String,
    /// The time of its snapshot, as it says itself.
    pub time: Timestamp,
    /// What else tells when it was taken.
    pub evidence: Evidence,
    /// Whether it was proven by a restore.
    pub is_proven: bool,
    /// Whether it is known to be bad: its last drill failed.
    pub is_bad: bool,
    /// Why it is held, if it is.
    pub held: Option<String>,
}

/// How a database's backups are doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Why the last backup run failed, when none has succeeded since.
    pub failing: Option<String>,
    /// They fail for want of room in the repository, and for nothing else. What the policy drops goes all the same,
    /// since that is what makes room. It counts from the newest backup, so that nothing grows old while none succeeds.
    pub wants_room: bool,
}

/// Why a backup stays whatever the policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// It is the newest.
    Newest,
    /// It is the newest that was proven.
    NewestProven,
    /// It is one of the last three good ones.
    LastGood,
    /// Backups of its database fail: until one succeeds, what there is may be all there will be.
    Failing(String),
    /// The newest backup of its database is older than it may be, in seconds.
    Overdue(u64),
    /// It is dated in the future: nobody knows how old it is.
    Future,
    /// Somebody holds it.
    Held(String),
}

impl Rule {
    /// Its name, for scripts.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::NewestProven => "newest_proven",
            Self::LastGood => "last_good",
            Self::Failing(_) => "failing",
            Self::Overdue(_) => "overdue",
            Self::Future => "future",
            Self::Held(_) => "held",
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newest => f.write_str("the newest"),
            Self::NewestProven => f.write_str("the newest proven"),
            Self::LastGood => write!(f, "one of the last {LAST_GOOD} good ones"),
            Self::Failing(_) => f.write_str("backups are failing"),
            Self::Overdue(_) => f.write_str("backups are overdue"),
            Self::Future => f.write_str("dated in the future"),
            Self::Held(reason) if reason.is_empty() => f.write_str("held"),
            Self::Held(reason) => write!(f, "held: {reason}"),
        }
    }
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The backup.
    pub candidate: Candidate,
    /// What the policy keeps it for; nothing when it would go.
    pub matches: Vec<Match>,
    /// What keeps it whatever the policy says.
    pub rules: Vec<Rule>,
    /// When it was taken at the earliest, where that is later than it says: its clock was wrong, or it was dated
    /// back. It then counts as of this moment, and pushes no other backup out.
    pub not_before: Option<Timestamp>,
}

impl Verdict {
    /// Whether it stays.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !self.matches.is_empty() || !self.rules.is_empty()
    }

    /// Whether only a rule keeps it.
    #[must_use]
    pub fn is_kept_against_the_policy(&self) -> bool {
        self.matches.is_empty() && !self.rules.is_empty()
    }
}

/// Decides about all `candidates`, each database by itself. `health` is by database; one that is not in it is
/// doing well as far as is known. `overdue_after` is how old a database's newest backup may be.
///
/// The verdicts come by database, newest first.
#[must_use]
pub fn decide(
    candidates: &[Candidate],
    policy: &Policy,
    health: &BTreeMap<String, Health>,
    overdue_after: TimeSpan,
    now: Timestamp,
) -> Vec<Verdict> {
    let mut by_database: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let own = by_database.entry(&candidate.database).or_default();
        own.push(candidate);
    }
    let mut verdicts = Vec::with_capacity(candidates.len());
    for (database, own) in by_database {
        let health = health.get(database).cloned().unwrap_or_default();
        verdicts.extend(one_database(own, policy, &health, overdue_after, now));
    }
    verdicts
}

fn one_database(
    mut own: Vec<&Candidate>,
    policy: &Policy,
    health: &Health,
    overdue_after: TimeSpan,
    now: Timestamp,
) -> Vec<Verdict> {
    own.sort_by_key(|one| (std::cmp::Reverse(one.time), one.id));
    let not_before = evidence::not_before(&own, now);
    let mut verdicts: Vec<Verdict> = own
        .iter()
        .zip(not_before)
        .map(|(one, not_before)| Verdict {
            candidate: (*one).clone(),
            matches: Vec::new(),
            rules: Vec::new(),
            not_before,
        })
        .collect();
    apply_policy(&mut verdicts, policy, now);
    apply_rules(&mut verdicts, health, overdue_after, now);
    verdicts
}

/// What is dated in the future, or before its time, takes no place from others. What is dated before its time is
/// asked about alone, as if it were the only such one, with the moment it was taken at the earliest.
fn apply_policy(verdicts: &mut [Verdict], policy: &Policy, now: Timestamp) {
    let counts = |verdict: &Verdict| verdict.candidate.time <= now && verdict.not_before.is_none();
    let times: Vec<Timestamp> = verdicts
        .iter()
        .filter(|verdict| counts(verdict))
        .map(|verdict| verdict.candidate.time)
        .collect();
    // The policy's own notion of the future excludes the present moment.
    let just_after = now
        .checked_add(jiff::SignedDuration::from_nanos(1))
        .unwrap_or(now);
    let mut matches = policy.matches(&times, just_after).into_iter();
    for verdict in verdicts.iter_mut() {
        if counts(verdict) {
            verdict.matches = matches.next().unwrap_or_default();
        } else if let Some(taken) = verdict.not_before {
            let at = times.partition_point(|time| *time > taken);
            let mut with_it = times.clone();
            with_it.insert(at, taken);
            verdict.matches = policy.matches(&with_it, just_after).swap_remove(at);
        }
    }
}

fn apply_rules(verdicts: &mut [Verdict], health: &Health, overdue_after: TimeSpan, now: Timestamp) {
    // Both orders count: by the time a backup claims, and by when it was taken at the earliest.
    let claimed = |verdict: &Verdict| verdict.candidate.time;
    let taken = |verdict: &Verdict| verdict.not_before.unwrap_or(verdict.candidate.time);
    let is_past = |verdict: &Verdict| verdict.candidate.time <= now;
    let mut keep: Vec<(usize, Rule)> = Vec::new();
    let orders: [&dyn Fn(&Verdict) -> Timestamp; 2] = [&claimed, &taken];
    for order in orders {
        let mut newest_first: Vec<usize> = (0..verdicts.len())
            .filter(|at| is_past(&verdicts[*at]))
            .collect();
        newest_first.sort_by_key(|at| (std::cmp::Reverse(order(&verdicts[*at])), *at));
        let of = |at: &usize| &verdicts[*at].candidate;
        let good = || newest_first.iter().filter(|at| !of(at).is_bad);
        keep.extend(newest_first.first().map(|at| (*at, Rule::Newest)));
        let proven = newest_first
            .iter()
            .find(|at| of(at).is_proven && !of(at).is_bad);
        keep.extend(proven.map(|at| (*at, Rule::NewestProven)));
        keep.extend(good().take(LAST_GOOD).map(|at| (*at, Rule::LastGood)));
    }
    let newest = verdicts.iter().filter(|one| is_past(one)).map(taken).max();
    let overdue = newest
        .map(|newest| objectives::age_seconds(newest, now))
        .filter(|age| *age > overdue_after.seconds());
    for (at, verdict) in verdicts.iter_mut().enumerate() {
        if verdict.candidate.time > now {
            verdict.rules.push(Rule::Future);
        }
        if let Some(reason) = &verdict.candidate.held {
            verdict.rules.push(Rule::Held(reason.clone()));
        }
        for (_, rule) in keep.iter().filter(|(which, _)| *which == at) {
            if !verdict.rules.contains(rule) {
                verdict.rules.push(rule.clone());
            }
        }
        if let Some(reason) = &health.failing {
            verdict.rules.push(Rule::Failing(reason.clone()));
        }
        match (overdue, newest) {
            (Some(_), _) if health.wants_room => {}
            (Some(age), _) => verdict.rules.push(Rule::Overdue(age)),
            // All of them in the future: none can be called recent.
            (None, None) => verdict.rules.push(Rule::Overdue(0)),
            (None, Some(_)) => {}
        }
    }
}

/// The IDs that go, of these verdicts.
#[must_use]
pub fn dropped(verdicts: &[Verdict]) -> BTreeSet<SnapshotId> {
    verdicts
        .iter()
        .filter(|verdict| !verdict.is_kept())
        .map(|verdict| verdict.candidate.id)
        .collect()
}
