//! When a dump was begun.
//!
//! An archive's header holds the local time of the machine that ran `pg_dump`, without its zone. Where a file still
//! has the time at which `pg_dump` wrote its last byte, the zone follows from the two: it is the one that puts the
//! header's time before that, and not long before. [`choose`] does that for many files at once, because files that
//! were copied without their times would each tell of another zone: one machine has one, or two with daylight
//! saving.

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use lifeboat_pg::archive::LocalTime;

/// A dump that took longer says nothing about its zone: the next zone to the west would fit as well.
const LONGEST_DUMP: SignedDuration = SignedDuration::from_hours(1);
/// A small dump takes no longer, unless it waits for a lock.
const SHORT_DUMP: SignedDuration = SignedDuration::from_mins(5);
/// No dump is slower than this, in bytes of its file per second: a large one may have taken hours on this machine,
/// a small one that seems to have was made in another zone. In doubt a dump is older, never newer than it is.
const SLOWEST_DUMP: u64 = 1_000_000;
/// The clocks of a file server and of the machine that wrote to it differ by so much.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// The offsets from UTC that are in use, in minutes: all whole hours, and these.
const ODD_OFFSETS: [i32; 12] = [
    -570, -210, -150, 210, 270, 330, 345, 390, 525, 570, 630, 765,
];

/// Where a dump's time zone comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneSource {
    /// It was given.
    Given,
    /// The time at which the file was last written to.
    Modified(Offset),
    /// Nothing tells: this machine's own.
    Machine,
}

/// When a dump was begun, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The moment.
    pub time: Timestamp,
    /// The header's time, as it stands there.
    pub local: DateTime,
    /// What gave it its zone.
    pub source: ZoneSource,
}

/// What is known of one dump's time.
#[derive(Debug, Clone, Copy)]
pub struct Clue {
    /// The header's time.
    pub created: LocalTime,
    /// When the file was last written to.
    pub modified: Option<Timestamp>,
    /// The file's size.
    pub size_bytes: u64,
}

impl Clue {
    /// How long a dump of this size may take when nothing is in its way.
    fn plausible(&self) -> SignedDuration {
        let seconds = i64::try_from(self.size_bytes / SLOWEST_DUMP).unwrap_or(i64::MAX);
        SHORT_DUMP.max(SignedDuration::from_secs(seconds))
    }

    /// How long it can have taken at the most.
    fn longest(&self) -> SignedDuration {
        LONGEST_DUMP.max(self.plausible())
    }

    /// Of a dump that this machine can only have made if it took hours: the zone of those beside it, if it fits.
    fn offset_of_others(
        &self,
        local: DateTime,
        machine: &TimeZone,
        offsets: &BTreeSet<i32>,
    ) -> Option<Offset> {
        let modified = self.modified?;
        let own = in_zone(self.created, local, machine)?;
        if could_end(own, modified, LONGEST_DUMP) || !could_end(own, modified, self.longest()) {
            return None;
        }
        // The westernmost: of those that fit the oldest time.
        offsets.iter().rev().find_map(|seconds| {
            let offset = Offset::from_seconds(*seconds).ok()?;
            let begun = offset.to_timestamp(local).ok()?;
            could_end(begun, modified, self.longest()).then_some(offset)
        })
    }
}

/// The offsets that were found, if one machine can have had them: one, or two with daylight saving, which it does not
/// have at the same time. None where the files say different things.
fn one_place(clues: &[Clue], found: &[Option<(DateTime, Option<Offset>)>]) -> BTreeSet<i32> {
    let spans: Vec<(i32, Timestamp, Timestamp)> = clues
        .iter()
        .zip(found)
        .filter_map(|(clue, found)| {
            let (local, offset) = (*found)?;
            let begun = offset?.to_timestamp(local).ok()?;
            Some((offset?.seconds(), begun, clue.modified?))
        })
        .collect();
    let offsets: BTreeSet<i32> = spans.iter().map(|(offset, ..)| *offset).collect();
    let overlap = |(one, from, to): &(i32, Timestamp, Timestamp)| {
        spans
            .iter()
            .any(|(other, begun, done)| one != other && from <= done && begun <= to)
    };
    match (offsets.first(), offsets.last()) {
        (Some(west), Some(east))
            if offsets.len() <= 2 && east - west <= 3600 && !spans.iter().any(overlap) =>
        {
            offsets
        }
        _ => BTreeSet::new(),
    }
}

/// The moment at which each dump was begun; `None` where the header's time is none.
///
/// `machine` is this machine's zone; with `given` it is that, whatever the files say.
#[must_use]
pub fn choose(clues: &[Clue], machine: &TimeZone, given: Option<&TimeZone>) -> Vec<Option<Begun>> {
    let found: Vec<Option<(DateTime, Option<Offset>)>> = clues
        .iter()
        .map(|clue| {
            let local = clue.created.to_civil()?;
            let own = in_zone(clue.created, local, machine)?;
            let offset = clue
                .modified
                .filter(|modified| given.is_none() && !could_end(own, *modified, clue.longest()))
                .and_then(|modified| offset_of(local, modified, clue.plausible()));
            Some((local, offset))
        })
        .collect();
    let offsets = one_place(clues, &found);
    clues
        .iter()
        .zip(found)
        .map(|(clue, found)| {
            let (local, offset) = found?;
            let offset = match offset {
                Some(offset) => offsets.contains(&offset.seconds()).then_some(offset),
                None if given.is_none() => clue.offset_of_others(local, machine, &offsets),
                None => None,
            };
            let (time, source) = match (given, offset) {
                (Some(zone), _) => (in_zone(clue.created, local, zone)?, ZoneSource::Given),
                (None, Some(offset)) => (
                    offset.to_timestamp(local).ok()?,
                    ZoneSource::Modified(offset),
                ),
                (None, None) => (in_zone(clue.created, local, machine)?, ZoneSource::Machine),
            };
            Some(Begun {
                time,
                local,
                source,
            })
        })
        .collect()
}

/// Whether a dump that was begun at this time can have been done at that.
fn could_end(begun: Timestamp, modified: Timestamp, longest: SignedDuration) -> bool {
    let took = modified.duration_since(begun);
    took >= -CLOCK_TOLERANCE && took < longest
}

/// The offset that puts the dump before its last write, and not longer before than it plausibly took: a whole hour, of
/// which there is one, else one of the odd ones. Where none is plausible, something was in the dump's way, and the
/// whole hour is as good as any other. In doubt it is the older.
fn offset_of(local: DateTime, modified: Timestamp, plausible: SignedDuration) -> Option<Offset> {
    let oldest = |minutes: &mut dyn Iterator<Item = i32>, longest: SignedDuration| {
        minutes
            .filter_map(|minutes| {
                let offset = Offset::from_seconds(minutes * 60).ok()?;
                let begun = offset.to_timestamp(local).ok()?;
                could_end(begun, modified, longest).then_some((begun, offset))
            })
            .min_by_key(|(begun, _)| *begun)
            .map(|(_, offset)| offset)
    };
    let hours = || (-12..=14).map(|hours| hours * 60);
    let plausible = plausible.min(LONGEST_DUMP);
    oldest(&mut hours(), plausible)
        .or_else(|| oldest(&mut ODD_OFFSETS.into_iter(), plausible))
        .or_else(|| oldest(&mut hours(), LONGEST_DUMP))
}

/// A local time in a zone. In the hour that comes twice a year, the header says which one it is.
fn in_zone(created: LocalTime, local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Fold { .. } if created.is_dst == 0 => ambiguous.later().ok(),
        _ => ambiguous.compatible().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn clue(local: &str, modified: Option<&str>) -> Clue {
        let local: DateTime = local.parse().unwrap();
        Clue {
            created: LocalTime {
                second: local.second().into(),
                minute: local.minute().into(),
                hour: local.hour().into(),
                day: local.day().into(),
                month: i32::from(local.month()) - 1,
                year: i32::from(local.year()) - 1900,
                is_dst: -1,
            },
            modified: modified.map(at),
            size_bytes: 1_000_000,
        }
    }

    fn one(clue: Clue, machine: &TimeZone) -> (String, ZoneSource) {
        let begun = choose(&[clue], machine, None)[0].unwrap();
        (begun.time.to_string(), begun.source)
    }

    fn hours(hours: i8) -> ZoneSource {
        ZoneSource::Modified(jiff::tz::offset(hours))
    }

    #[test]
    fn the_zone_follows_from_the_last_write() {
        let half_past = Offset::from_seconds(330 * 60).unwrap();
        for (local, modified, expected, source) in [
            // On this machine, or one beside it: however long the dump took, up to an hour.
            (
                "2026-03-01T10:00:00",
                "2026-03-01T10:00:07Z",
                "2026-03-01T10:00:00Z",
                ZoneSource::Machine,
            ),
            (
                "2026-03-01T10:00:00",
                "2026-03-01T10:59:00Z",
                "2026-03-01T10:00:00Z",
                ZoneSource::Machine,
            ),
            (
                "2026-03-01T10:00:10",
                "2026-03-01T10:00:00Z",
                "2026-03-01T10:00:10Z",
                ZoneSource::Machine,
            ),
            // Elsewhere.
            (
                "2026-03-01T12:00:00",
                "2026-03-01T10:20:00Z",
                "2026-03-01T10:00:00Z",
                hours(2),
            ),
            (
                "2026-03-01T05:00:00",
                "2026-03-01T10:00:30Z",
                "2026-03-01T10:00:00Z",
                hours(-5),
            ),
            (
                "2026-03-01T15:30:00",
                "2026-03-01T10:02:00Z",
                "2026-03-01T10:00:00Z",
                ZoneSource::Modified(half_past),
            ),
            (
                "2026-03-02T00:00:00",
                "2026-03-01T10:02:00Z",
                "2026-03-01T10:00:00Z",
                hours(14),
            ),
            // Copied later without its time, or dated before it was made.
            (
                "2026-03-01T10:00:00",
                "2026-04-01T10:02:00Z",
                "2026-03-01T10:00:00Z",
                ZoneSource::Machine,
            ),
            (
                "2026-03-03T10:00:00",
                "2026-03-01T10:02:00Z",
                "2026-03-03T10:00:00Z",
                ZoneSource::Machine,
            ),
        ] {
            let found = one(clue(local, Some(modified)), &TimeZone::UTC);
            assert_eq!(found, (expected.to_owned(), source), "{local} {modified}");
        }
        let found = one(
            clue("2026-03-01T10:00:00", None),
            &TimeZone::fixed(jiff::tz::offset(3)),
        );
        assert_eq!(
            found,
            ("2026-03-01T07:00:00Z".to_owned(), ZoneSource::Machine)
        );
    }

    #[test]
    fn a_large_dump_may_have_taken_hours() {
        let mut large = clue("2026-03-01T10:00:00", Some("2026-03-01T14:00:00Z"));
        assert_eq!(one(large, &TimeZone::UTC).1, hours(-4));
        large.size_bytes = 100_000_000_000;
        assert_eq!(one(large, &TimeZone::UTC).1, ZoneSource::Machine);
    }

    #[test]
    fn an_odd_zone_is_for_what_no_whole_hour_explains() {
        let twenty_minutes = |size_bytes| Clue {
            size_bytes,
            ..clue("2026-03-01T19:00:00", Some("2026-03-01T10:20:00Z"))
        };
        assert_eq!(
            one(twenty_minutes(2_000_000_000), &TimeZone::UTC),
            ("2026-03-01T10:00:00Z".to_owned(), hours(9))
        );
        let half_an_hour = Clue {
            size_bytes: 3_000_000_000,
            ..clue("2026-03-01T07:00:00", Some("2026-03-01T10:35:00Z"))
        };
        assert_eq!(
            one(half_an_hour, &TimeZone::UTC),
            ("2026-03-01T10:00:00Z".to_owned(), hours(-3))
        );
        // Nearly an hour, with a clock that could be a minute late: the older.
        let nearly = Clue {
            size_bytes: 4_000_000_000,
            ..clue("2026-03-01T12:00:00", Some("2026-03-01T10:59:30Z"))
        };
        assert_eq!(one(nearly, &TimeZone::UTC).1, hours(2));
    }

    #[test]
    fn a_large_dump_has_the_zone_of_those_beside_it() {
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        let clues = [
            Clue {
                size_bytes: 3_590_000_000,
                ..clue("2026-03-01T10:00:00", Some("2026-03-01T10:03:00Z"))
            },
            Clue {
                size_bytes: 3_910_000_000,
                ..clue("2026-03-01T11:00:00", Some("2026-03-01T11:03:00Z"))
            },
        ];
        let times: Vec<String> = choose(&clues, &berlin, None)
            .into_iter()
            .map(|begun| begun.unwrap().time.to_string())
            .collect();
        assert_eq!(times, ["2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"]);
        // Alone it can have taken an hour.
        assert_eq!(one(clues[1], &berlin).1, ZoneSource::Machine);
    }

    #[test]
    fn one_machine_has_one_zone() {
        // Copied at once, without their times: each would be of another zone.
        let copied: Vec<Clue> = ["T04:00:00", "T05:00:00", "T06:00:00", "T07:00:00"]
            .iter()
            .map(|time| clue(&format!("2026-03-01{time}"), Some("2026-03-01T09:30:00Z")))
            .collect();
        for begun in choose(&copied, &TimeZone::UTC, None) {
            assert_eq!(begun.unwrap().source, ZoneSource::Machine);
        }
        let two = &copied[2..];
        for begun in choose(two, &TimeZone::UTC, None) {
            assert_eq!(begun.unwrap().source, ZoneSource::Machine);
        }
        // Before and after the clocks went forward.
        let spring = [
            clue("2026-03-29T01:30:00", Some("2026-03-29T00:31:00Z")),
            clue("2026-03-29T03:30:00", Some("2026-03-29T01:31:00Z")),
        ];
        let times: Vec<String> = choose(&spring, &TimeZone::fixed(jiff::tz::offset(-8)), None)
            .into_iter()
            .map(|begun| begun.unwrap().time.to_string())
            .collect();
        assert_eq!(times, ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]);
    }

    #[test]
    fn a_given_zone_has_the_last_word() {
        let zone = TimeZone::fixed(jiff::tz::offset(9));
        let clues = [clue("2026-03-01T10:00:00", Some("2026-03-01T10:00:07Z"))];
        let begun = choose(&clues, &TimeZone::UTC, Some(&zone))[0].unwrap();
        assert_eq!(begun.time, at("2026-03-01T01:00:00Z"));
        assert_eq!(begun.source, ZoneSource::Given);
        let mut none = clues[0];
        none.created.month = 14;
        assert_eq!(choose(&[none], &TimeZone::UTC, None), [None]);
    }
}
