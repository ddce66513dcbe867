//! The policy: which backups are kept, by restic's rules and for restic's reasons.
//!
//! Pure, and without any of the safety rules: [`super::decide`] lays those over it. Hours, days, weeks (ISO 8601)
//! and months are counted in UTC, which is how Lifeboat writes the times of its snapshots.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

/// How much is kept. restic's `--keep-…`, word for word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest so many.
    pub last: u32,
    /// For the last so many hours that have one, the newest of each.
    pub hourly: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for weeks, Monday to Sunday.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// The same for years.
    pub yearly: u32,
    /// All that are at most so much older than the newest.
    pub within: Option<Within>,
}

impl Policy {
    /// Whether it keeps nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ];
        let mut parts: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        parts.extend(self.within.map(|within| format!("all within {within}")));
        if parts.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&parts.join(", "))
    }
}

/// A length of time as a calendar counts it: restic's `2y5m7d3h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Within {
    /// Years.
    pub years: u16,
    /// Months.
    pub months: u16,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

/// A text that is not a [`Within`]. Holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as \"30d\" or \"2y5m7d3h\" (years, months, days, hours)")]
pub struct WithinError(String);

impl FromStr for Within {
    type Err = WithinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || WithinError(text.to_owned());
        let mut found = Self::default();
        let mut seen = BTreeSet::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let unit = after.chars().next().ok_or_else(wrong)?;
            // A century, as for every other duration: beyond it is a slip of the finger.
            let number = number.parse::<u32>().map_err(|_| wrong())?;
            let most = match unit {
                'y' => 100,
                'm' => 1_200,
                'd' => 36_600,
                'h' => 878_400,
                _ => return Err(wrong()),
            };
            if number > most || !seen.insert(unit) {
                return Err(wrong());
            }
            match unit {
                'y' => found.years = u16::try_from(number).map_err(|_| wrong())?,
                'm' => found.months = u16::try_from(number).map_err(|_| wrong())?,
                'd' => found.days = number,
                _ => found.hours = number,
            }
            rest = &after[unit.len_utf8()..];
        }
        if found == Self::default() {
            return Err(wrong());
        }
        Ok(found)
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (u32::from(self.years), 'y'),
            (u32::from(self.months), 'm'),
            (self.days, 'd'),
            (self.hours, 'h'),
        ];
        for (number, unit) in parts {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Within {
    /// The moment this long before `time`; everything after it is within.
    ///
    /// Years, months and days are taken off the date as Go does it, which is what restic is written in: the 31st
    /// of March less a month is the 31st of February, which is the 3rd of March.
    #[must_use]
    pub fn before(self, time: Timestamp) -> Timestamp {
        let at = time.to_zoned(TimeZone::UTC).datetime();
        let months = i32::from(at.year()) * 12 + i32::from(at.month())
            - 1
            - i32::from(self.years) * 12
            - i32::from(self.months);
        let earliest = Timestamp::MIN;
        let first = i16::try_from(months.div_euclid(12))
            .ok()
            .zip(i8::try_from(months.rem_euclid(12) + 1).ok())
            .and_then(|(year, month)| Date::new(year, month, 1).ok());
        let days = i64::from(at.day()) - 1 - i64::from(self.days);
        let date = first.and_then(|first| first.checked_add(Span::new().try_days(days).ok()?).ok());
        date.and_then(|date| date.to_datetime(at.time()).to_zoned(TimeZone::UTC).ok())
            .and_then(|day| {
                let hours = SignedDuration::from_hours(i64::from(self.hours));
                day.timestamp().checked_sub(hours).ok()
            })
            .unwrap_or(earliest)
    }
}

/// What a policy keeps a backup for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Among the last.
    Last,
    /// The newest of an hour.
    Hourly,
    /// The newest of a day.
    Daily,
    /// The newest of a week.
    Weekly,
    /// The newest of a month.
    Monthly,
    /// The newest of a year.
    Yearly,
    /// Not much older than the newest.
    Within(Within),
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Hourly => f.write_str("hourly"),
            Self::Daily => f.write_str("daily"),
            Self::Weekly => f.write_str("weekly"),
            Self::Monthly => f.write_str("monthly"),
            Self::Yearly => f.write_str("yearly"),
            Self::Within(within) => write!(f, "within {within}"),
        }
    }
}

impl Policy {
    /// For each of `times` why it is kept; for nothing: it is not. `times` come newest first.
    ///
    /// `Within` counts from the newest that is not in the future, as restic does: with backups at a standstill,
    /// the clock alone removes none. While a count is not used up, the oldest is kept for it too, as restic does
    /// from 0.16 on: the history then reaches as far back as it can.
    #[must_use]
    pub fn matches(&self, times: &[Timestamp], now: Timestamp) -> Vec<Vec<Match>> {
        self.matches_as(times, now, true)
    }

    /// As [`Policy::matches`]; without `keeps_oldest` as restic did before 0.16.
    #[must_use]
    pub fn matches_as(
        &self,
        times: &[Timestamp],
        now: Timestamp,
        keeps_oldest: bool,
    ) -> Vec<Vec<Match>> {
        let newest = times.iter().filter(|time| **time < now).max().copied();
        // Without any the limit is the beginning of time, as in restic.
        let limit = self.within.map(|within| {
            (
                within,
                newest.map_or(Timestamp::MIN, |newest| within.before(newest)),
            )
        });
        let mut buckets = [
            Bucket::new(self.last, Match::Last),
            Bucket::new(self.hourly, Match::Hourly),
            Bucket::new(self.daily, Match::Daily),
            Bucket::new(self.weekly, Match::Weekly),
            Bucket::new(self.monthly, Match::Monthly),
            Bucket::new(self.yearly, Match::Yearly),
        ];
        times
            .iter()
            .enumerate()
            .map(|(number, time)| {
                let mut matches = Vec::new();
                if let Some((within, limit)) = limit
                    && *time > limit
                {
                    matches.push(Match::Within(within));
                }
                for bucket in &mut buckets {
                    matches.extend(bucket.take(
                        number,
                        *time,
                        keeps_oldest && number + 1 == times.len(),
                    ));
                }
                matches
            })
            .collect()
    }
}

/// So many periods of a length may still have one.
struct Bucket {
    left: u32,
    last: Option<i64>,
    what: Match,
}

impl Bucket {
    const fn new(left: u32, what: Match) -> Self {
        Self {
            left,
            last: None,
            what,
        }
    }

    fn take(&mut self, number: usize, time: Timestamp, anyway: bool) -> Option<Match> {
        if self.left == 0 {
            return None;
        }
        let period = self.period(number, time);
        if self.last == Some(period) && !anyway {
            return None;
        }
        self.last = Some(period);
        self.left -= 1;
        Some(self.what)
    }

    /// A number that is the same for all moments of one period.
    fn period(&self, number: usize, time: Timestamp) -> i64 {
        let at = time.to_zoned(TimeZone::UTC).datetime();
        let (year, month, day) = (
            i64::from(at.year()),
            i64::from(at.month()),
            i64::from(at.day()),
        );
        match self.what {
            Match::Hourly => ((year * 100 + month) * 100 + day) * 100 + i64::from(at.hour()),
            Match::Daily => (year * 100 + month) * 100 + day,
            Match::Weekly => {
                let week = at.date().iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }
            Match::Monthly => year * 100 + month,
            Match::Yearly => year,
            Match::Last | Match::Within(_) => i64::try_from(number).unwrap_or(i64::MAX),
        }
    }
}
