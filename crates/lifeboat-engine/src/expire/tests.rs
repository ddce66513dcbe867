//! The decision: the rules, and ten thousand histories in which none of them may be broken.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use lifeboat_repo::SnapshotId;

use super::*;

const TWO_HOURS: TimeSpan = TimeSpan::hours(2);

fn id(number: u64) -> SnapshotId {
    SnapshotId::of(&number.to_le_bytes())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

fn candidate(number: u64, time: Timestamp) -> Candidate {
    Candidate {
        id: id(number),
        database: "memalerts".to_owned(),
        time,
        evidence: Evidence::default(),
        is_proven: false,
        is_bad: false,
        held: None,
    }
}

fn within(text: &str) -> Policy {
    Policy {
        within: Some(text.parse().unwrap()),
        ..Policy::default()
    }
}

fn last(count: u32) -> Policy {
    Policy {
        last: count,
        ..Policy::default()
    }
}

/// Hourly backups back from `now`, the newest first; numbers count up from it.
fn hourly(count: u64, now: Timestamp) -> Vec<Candidate> {
    (0..count)
        .map(|n| candidate(n, now - SignedDuration::from_mins(20) - hours(n as i64)))
        .collect()
}

fn healthy(candidates: &[Candidate], policy: &Policy, now: Timestamp) -> Vec<Verdict> {
    decide(candidates, policy, &BTreeMap::new(), TWO_HOURS, now)
}

fn kept(verdicts: &[Verdict]) -> BTreeSet<SnapshotId> {
    verdicts
        .iter()
        .filter(|one| one.is_kept())
        .map(|one| one.candidate.id)
        .collect()
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<SnapshotId> {
    numbers.into_iter().map(id).collect()
}

#[test]
fn thirty_days_of_hourly_backups() {
    let now = at("2026-03-31T12:00:00Z");
    let all = hourly(24 * 40, now);
    let verdicts = healthy(&all, &within("30d"), now);
    // Thirty days before the newest, not before now; the one exactly that old is not within.
    assert_eq!(kept(&verdicts), ids(0..24 * 30));
    assert!(verdicts.iter().all(|one| !one.is_kept_against_the_policy()));
}

#[test]
fn the_newest_the_proven_the_good_and_the_held_stay() {
    let now = at("2026-03-31T12:00:00Z");
    let mut all = hourly(20, now);
    all[0].is_bad = true;
    all[2].is_bad = true;
    all[9].is_proven = true;
    all[12].is_proven = true;
    all[15].held = Some("evidence".to_owned());
    // The policy would keep one.
    let verdicts = healthy(&all, &last(1), now);
    assert_eq!(kept(&verdicts), ids([0, 1, 3, 4, 9, 15]));
    let why = |number: u64| {
        let verdict = verdicts.iter().find(|one| one.candidate.id == id(number));
        verdict.unwrap().rules.clone()
    };
    assert_eq!(why(0), [Rule::Newest]);
    assert_eq!(why(1), [Rule::LastGood]);
    assert_eq!(why(9), [Rule::NewestProven]);
    assert_eq!(why(15), [Rule::Held("evidence".to_owned())]);
}

/// What would have gone at the last backup goes, since it makes the room that is lacking. But nothing grows old.
#[test]
fn for_want_of_room_goes_what_had_its_time_before() {
    let newest = at("2026-03-31T12:00:00Z");
    let all = hourly(50, newest);
    let full = BTreeMap::from([(
        "memalerts".to_owned(),
        Health {
            failing: None,
            wants_room: true,
        },
    )]);
    for later in [1, 3, 4_000] {
        let now = newest + hours(later);
        let verdicts = decide(&all, &within("20h"), &full, TWO_HOURS, now);
        assert_eq!(kept(&verdicts).len(), 20, "{later} h later");
    }
}

#[test]
fn nothing_goes_while_backups_fail_or_are_overdue() {
    let now = at("2026-03-31T12:00:00Z");
    let all = hourly(50, now);
    let failing = BTreeMap::from([(
        "memalerts".to_owned(),
        Health {
            failing: Some("a table could not be locked".to_owned()),
            wants_room: false,
        },
    )]);
    let verdicts = decide(&all, &last(1), &failing, TWO_HOURS, now);
    assert_eq!(kept(&verdicts).len(), 50);
    assert!(verdicts[40].is_kept_against_the_policy());
    // Another database's failures are its own.
    let other = BTreeMap::from([("other".to_owned(), failing["memalerts"].clone())]);
    assert_eq!(
        kept(&decide(&all, &last(1), &other, TWO_HOURS, now)).len(),
        3
    );
    let later = now + hours(2);
    assert_eq!(kept(&healthy(&all, &last(1), later)).len(), 50);
    // A clock that is ten years ahead makes them all overdue; ten years behind, future.
    assert_eq!(
        kept(&healthy(&all, &last(1), now + hours(87_600))).len(),
        50
    );
    assert_eq!(
        kept(&healthy(&all, &last(1), now - hours(87_600))).len(),
        50
    );
}

#[test]
fn the_future_takes_nobodys_place() {
    let now = at("2026-03-31T12:00:00Z");
    let mut all = hourly(10, now);
    for n in 0..5 {
        all.push(candidate(100 + n, now + hours(24 + n as i64)));
    }
    let verdicts = healthy(&all, &last(5), now);
    assert_eq!(kept(&verdicts), ids((0..5).chain(100..105)));
    assert_eq!(verdicts[0].rules, [Rule::Future]);
}

#[test]
fn back_dated_ones_push_nobody_out() {
    let now = at("2026-03-31T12:00:00Z");
    let daily = Policy {
        daily: 7,
        ..Policy::default()
    };
    let mut all = hourly(24 * 9, now);
    for one in &mut all {
        one.evidence.stored = Some(one.time + SignedDuration::from_mins(1));
    }
    let before = kept(&healthy(&all, &daily, now));
    // Somebody with a stolen key adds one to each day but the last, later than the last true one of that day.
    for day in 3..9u64 {
        let mut fake = candidate(
            1000 + day,
            at(&format!("2026-03-{:02}T23:59:59Z", 31 - day)),
        );
        fake.evidence.stored = Some(now - SignedDuration::from_mins(5));
        all.push(fake);
    }
    let verdicts = healthy(&all, &daily, now);
    assert!(
        kept(&verdicts).is_superset(&before),
        "no true one goes for a false one"
    );
    let fake = verdicts
        .iter()
        .find(|one| one.candidate.id == id(1005))
        .unwrap();
    assert_eq!(fake.not_before, Some(now - SignedDuration::from_mins(5)));

    // A clock that was ten years behind for a while: by their parents they are new.
    let mut all = hourly(24 * 40, now);
    for n in 0..3 {
        let mut odd = candidate(5000 + n, now - hours(87_600) + hours(n as i64));
        odd.evidence.parent = Some(id(4));
        all.push(odd);
    }
    let verdicts = healthy(&all, &within("30d"), now);
    assert!(kept(&verdicts).is_superset(&ids(5000..5003)));
    // And they go when their time has come.
    let later = now + hours(24 * 31);
    all.extend((0..24 * 31).map(|n| {
        candidate(
            9000 + n,
            later - SignedDuration::from_mins(10) - hours(n as i64),
        )
    }));
    let verdicts = healthy(&all, &within("30d"), later);
    assert!(kept(&verdicts).is_disjoint(&ids(5000..5003)));
}

#[test]
fn databases_are_judged_by_themselves() {
    let now = at("2026-03-31T12:00:00Z");
    let mut all = hourly(10, now);
    for (n, mut one) in hourly(10, now).into_iter().enumerate() {
        one.id = id(100 + n as u64);
        one.database = "other".to_owned();
        all.push(one);
    }
    assert_eq!(
        kept(&healthy(&all, &last(4), now)),
        ids((0..4).chain(100..104))
    );
}

#[test]
fn within_counts_as_a_calendar_does() {
    for (text, from, expected) in [
        ("30d", "2026-03-31T12:00:00Z", "2026-03-01T12:00:00Z"),
        ("1m", "2026-03-31T12:00:00Z", "2026-03-03T12:00:00Z"),
        ("1m", "2028-03-31T12:00:00Z", "2028-03-02T12:00:00Z"),
        ("1y", "2028-02-29T00:00:00Z", "2027-03-01T00:00:00Z"),
        ("2y5m7d3h", "2026-03-31T01:00:00Z", "2023-10-23T22:00:00Z"),
        ("14m", "2026-01-15T00:00:00Z", "2024-11-15T00:00:00Z"),
        // Over a change to summer time somewhere: nothing in UTC.
        ("1d", "2026-03-29T12:00:00Z", "2026-03-28T12:00:00Z"),
    ] {
        let within: Within = text.parse().unwrap();
        assert_eq!(within.before(at(from)), at(expected), "{text}");
        assert_eq!(within.to_string(), text);
    }
    for wrong in [
        "",
        "30",
        "d",
        "-1d",
        "0d",
        "1w",
        "2d3d",
        "1.5d",
        "30 d",
        "99999999999d",
        "9999y",
    ] {
        assert!(wrong.parse::<Within>().is_err(), "{wrong:?}");
    }
}

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn policy(&mut self) -> Policy {
        loop {
            let mut count = |sides: u64| {
                if self.roll(3) == 0 {
                    self.roll(sides) as u32
                } else {
                    0
                }
            };
            let mut policy = Policy {
                last: count(6),
                hourly: count(30),
                daily: count(10),
                weekly: count(6),
                monthly: count(5),
                yearly: count(3),
                within: None,
            };
            if self.roll(2) == 0 {
                let texts = [
                    "1h", "7h", "1d", "3d", "30d", "1m", "1m2d", "1y", "2y5m7d3h",
                ];
                policy.within = texts[self.roll(texts.len() as u64) as usize].parse().ok();
            }
            if !policy.is_empty() {
                return policy;
            }
        }
    }
}

/// How many histories: `LIFEBOAT_TORTURE` times as many as usual.
fn histories() -> u64 {
    let times = std::env::var("LIFEBOAT_TORTURE")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    10_000 * times.unwrap_or(1).max(1)
}

/// A database's life under a clock that is set by whoever likes to.
struct Life {
    dice: Dice,
    /// True time, and what the clock is ahead of it.
    now: Timestamp,
    off: SignedDuration,
    next: u64,
    failing: bool,
    backups: Vec<Candidate>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        // Around leap days, turns of the year and changes to and from summer time.
        let starts = [
            "2024-02-26T03:17:00Z",
            "2026-03-27T22:40:00Z",
            "2026-10-23T01:05:00Z",
            "2027-12-28T12:00:00Z",
            "2028-02-27T23:30:00Z",
        ];
        let start = starts[dice.roll(starts.len() as u64) as usize];
        Self {
            dice,
            now: at(start),
            off: SignedDuration::ZERO,
            next: seed * 1_000,
            failing: false,
            backups: Vec::new(),
        }
    }

    fn clock(&self) -> Timestamp {
        self.now + self.off
    }

    fn step(&mut self) {
        self.now += match self.dice.roll(12) {
            // A gap of days; a step of one civil day in Berlin, which may be 23 or 25 hours.
            0 => hours(24 * (1 + self.dice.roll(6) as i64)),
            1 => {
                let here = self
                    .now
                    .to_zoned(TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC));
                here.tomorrow()
                    .unwrap()
                    .timestamp()
                    .duration_since(self.now)
            }
            2 => SignedDuration::from_mins(1 + self.dice.roll(50) as i64),
            _ => hours(1),
        };
        self.off = match self.dice.roll(40) {
            0 => hours(24),
            1 => hours(-24),
            2 => hours(-87_660),
            3..10 => SignedDuration::ZERO,
            _ => self.off,
        };
        self.failing = match self.dice.roll(10) {
            0 => true,
            1..4 => false,
            _ => self.failing,
        };
    }

    fn back_up(&mut self) {
        if self.failing || self.dice.roll(8) == 0 {
            return;
        }
        // No two at the same moment, even when a clock shows an hour twice.
        let odd = SignedDuration::from_nanos(self.next as i64 % 1_000);
        let mut one = candidate(self.next, self.clock() + odd);
        self.next += 1;
        one.is_proven = self.dice.roll(6) == 0;
        one.is_bad = self.dice.roll(9) == 0;
        one.held = (self.dice.roll(15) == 0).then(String::new);
        if self.dice.roll(2) == 0 {
            one.evidence.stored =
                Some(self.clock() + SignedDuration::from_mins(self.dice.roll(90) as i64));
        }
        if self.dice.roll(2) == 0 {
            let newest = self.backups.iter().max_by_key(|one| one.time);
            one.evidence.parent = newest.map(|one| one.id);
        }
        self.backups.push(one);
    }

    fn expire(&mut self, policy: &Policy) -> Vec<Candidate> {
        let now = self.clock();
        let mut health = BTreeMap::new();
        if self.failing {
            let failing = Some("so it is".to_owned());
            let wants_room = false;
            let failing = Health {
                failing,
                wants_room,
            };
            health.insert("memalerts".to_owned(), failing);
        }
        let verdicts = decide(&self.backups, policy, &health, TWO_HOURS, now);
        assert_eq!(verdicts.len(), self.backups.len());
        let gone = dropped(&verdicts);
        let (went, stayed) = self
            .backups
            .iter()
            .cloned()
            .partition(|one| gone.contains(&one.id));
        let before = std::mem::replace(&mut self.backups, stayed);
        self.no_rule_is_broken(&before, &went, policy, now);
        went
    }

    /// Told anew, in other words than the code's.
    fn no_rule_is_broken(
        &self,
        before: &[Candidate],
        went: &[Candidate],
        policy: &Policy,
        now: Timestamp,
    ) {
        if went.is_empty() {
            return;
        }
        assert!(!self.failing, "removed while backups fail");
        let past: Vec<&Candidate> = before.iter().filter(|one| one.time <= now).collect();
        let latest = past.iter().map(|one| one.time).max();
        // What is dated back may be newer than it says, never older.
        let taken = past.iter().map(|one| {
            let parent = one
                .evidence
                .parent
                .and_then(|parent| before.iter().find(|other| other.id == parent));
            let parent = parent.map(|parent| parent.time).filter(|time| *time <= now);
            one.time
                .max(parent.unwrap_or(one.time))
                .max(one.evidence.stored.unwrap_or(one.time).min(now))
        });
        assert!(
            taken
                .max()
                .is_some_and(|time| now.duration_since(time) <= hours(2)),
            "removed while backups are overdue"
        );
        for one in went {
            assert!(one.time <= now, "removed the future");
            assert!(one.held.is_none(), "removed what was held");
            assert_ne!(Some(one.time), latest, "removed the newest");
            let later = |other: &&&Candidate| other.time > one.time;
            let good = past
                .iter()
                .filter(later)
                .filter(|other| !other.is_bad)
                .count();
            assert!(
                one.is_bad || good >= 3,
                "removed one of the last three good ones"
            );
            if one.is_proven && !one.is_bad {
                let proven = past
                    .iter()
                    .filter(later)
                    .any(|other| other.is_proven && !other.is_bad);
                assert!(proven, "removed the newest proven one");
            }
            if let Some(within) = policy.within {
                let limit = within.before(latest.unwrap_or(now));
                assert!(one.time <= limit, "removed what was within {within}");
            }
        }
        let good = |all: &[Candidate]| {
            all.iter()
                .filter(|one| !one.is_bad && one.time <= now)
                .count()
        };
        assert!(good(&self.backups) >= good(before).min(3));
        assert!(!self.backups.is_empty());
    }
}

#[test]
fn no_rule_is_broken_in_ten_thousand_histories() {
    let (mut went, mut kept) = (0, 0);
    for seed in 0..histories() {
        let mut life = Life::new(seed);
        let policy = life.dice.policy();
        for _ in 0..40 {
            life.step();
            life.back_up();
            went += life.expire(&policy).len();
        }
        kept += life.backups.len();
    }
    // The rules are not kept by never removing anything.
    assert!(went > kept / 4, "{went} went, {kept} stayed");
}
