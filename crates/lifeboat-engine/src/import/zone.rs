//! The time zone that a dump's rows are written in.
//!
//! `pg_dump` leaves `TimeZone` as the server has it, and does not say how. A `timestamptz` is a moment, and restores
//! as such wherever it came from; but whoever reads the restored rows back, to compare them byte by byte with what
//! was dumped, has to ask for them in the same zone. The rows tell: each such value has its offset. Which zone has
//! these offsets at these moments is a search in the time zone database.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_pg::archive::Archive;
use lifeboat_pg::dump::TableName;

/// All rows are looked at up to here, then some.
const ROWS_LOOKED_AT: u64 = 4096;
/// Every so many.
const THEN_EVERY: u64 = 64;
/// Hours that are remembered: decades of them.
const HOURS_AT_MOST: usize = 200_000;

/// What some rows tell of their zone.
#[derive(Debug, Default)]
pub(super) struct RowZone {
    /// Which values of a row are of the type `timestamptz`.
    columns: Vec<usize>,
    rows: u64,
    /// The offset from UTC, in seconds, of a moment in each hour. Zones change on the hour, in UTC, or nearly so.
    offsets: BTreeMap<i64, (i64, i32)>,
}

/// What all rows together say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowsTold {
    /// UTC; or there is no value that depends on a zone.
    Utc,
    /// This zone, or one that is the same at the moments seen.
    Zone(String),
    /// Offsets that no zone has.
    Unknown,
}

impl RowZone {
    /// Ready to look at a table's rows, with the types as its definition in the archive has them.
    pub(super) fn of_table(archive: &Archive, table: &TableName, columns: &[String]) -> Self {
        let is = |text: &Option<lifeboat_pg::archive::Text>, name: &str| {
            text.as_ref().is_some_and(|text| *text == *name)
        };
        let entry = archive.entries.iter().find(|entry| {
            entry.is("TABLE") && is(&entry.tag, &table.name) && is(&entry.namespace, &table.schema)
        });
        let definition = entry
            .and_then(|entry| entry.defn.as_ref())
            .map(|defn| defn.lossy())
            .unwrap_or_default();
        Self {
            columns: timestamp_columns(&definition, columns),
            ..Self::default()
        }
    }

    /// Takes a row of COPY's text format.
    #[inline]
    pub(super) fn look_at(&mut self, row: &[u8]) {
        if self.columns.is_empty() {
            return;
        }
        self.rows += 1;
        if self.rows > ROWS_LOOKED_AT && !self.rows.is_multiple_of(THEN_EVERY) {
            return;
        }
        for (at, value) in row.split(|byte| *byte == b'\t').enumerate() {
            if self.columns.contains(&at)
                && let Some((time, offset)) = parse(value)
                && self.offsets.len() < HOURS_AT_MOST
            {
                let second = time.as_second();
                self.offsets
                    .entry(second.div_euclid(3600))
                    .or_insert((second, offset));
            }
        }
    }

    /// Adds what another table's rows told.
    pub(super) fn merge(&mut self, other: Self) {
        for (hour, told) in other.offsets {
            if self.offsets.len() < HOURS_AT_MOST {
                self.offsets.entry(hour).or_insert(told);
            }
        }
    }

    /// The zone. `likely` ones are tried first.
    pub(super) fn find<'a>(&self, likely: impl IntoIterator<Item = &'a str>) -> RowsTold {
        if self.offsets.values().all(|(_, offset)| *offset == 0) {
            return RowsTold::Utc;
        }
        let fits = |name: &str| {
            TimeZone::get(name).is_ok_and(|zone| {
                self.offsets.values().all(|(second, offset)| {
                    Timestamp::from_second(*second)
                        .is_ok_and(|time| zone.to_offset(time).seconds() == *offset)
                })
            })
        };
        let likely = likely.into_iter().map(str::to_owned);
        let known = jiff::tz::db().available().map(|name| name.to_string());
        // The server's database may lack what is only an alias or a curiosity of this machine's.
        let known = known.filter(|name| name.contains('/') && !name.starts_with("posix"));
        likely
            .chain(known)
            .find(|name| fits(name))
            .map_or(RowsTold::Unknown, RowsTold::Zone)
    }
}

/// The zone that the database itself is set to, if the dump says so: `ALTER DATABASE … SET "TimeZone" TO '…'`.
pub(super) fn database_setting(archive: &Archive) -> Option<String> {
    let settings = archive
        .entries
        .iter()
        .filter(|entry| entry.is("DATABASE PROPERTIES"));
    settings
        .filter_map(|entry| entry.defn.as_ref()?.as_str())
        .flat_map(str::lines)
        .filter(|line| line.starts_with("ALTER DATABASE "))
        .find_map(|line| {
            let (_, value) = line.split_once(" SET \"TimeZone\" TO '")?;
            Some(value.split_once('\'')?.0.to_owned())
        })
}

/// Which of the columns have the type `timestamp with time zone`, by the lines of `CREATE TABLE` (`dumpTableSchema`
/// in `pg_dump.c`).
fn timestamp_columns(definition: &str, columns: &[String]) -> Vec<usize> {
    let is_moment = |name: &str| {
        definition.lines().any(|line| {
            let rest = line.strip_prefix("    ").and_then(|line| {
                let quoted = format!("\"{}\"", name.replace('"', "\"\""));
                line.strip_prefix(name)
                    .or_else(|| line.strip_prefix(&quoted))
            });
            let Some(kind) = rest.and_then(|rest| rest.strip_prefix(" timestamp")) else {
                return false;
            };
            let kind = kind.trim_start_matches(|letter: char| "()0123456789".contains(letter));
            kind.strip_prefix(" with time zone")
                .is_some_and(|rest| !rest.starts_with('['))
        })
    };
    if !definition.contains(" with time zone") {
        return Vec::new();
    }
    let own = columns.iter().enumerate();
    own.filter(|(_, name)| is_moment(name))
        .map(|(at, _)| at)
        .collect()
}

/// A moment and its offset in seconds: `2026-01-01 00:00:00.123+02`, `…-03:30`. Neither `infinity` nor BC.
fn parse(value: &[u8]) -> Option<(Timestamp, i32)> {
    let text = std::str::from_utf8(value).ok()?;
    let sign = text.rfind(['+', '-']).filter(|at| *at >= 19)?;
    let mut seconds = 0;
    for (part, unit) in text[sign + 1..].split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<i32>().ok()? * unit;
    }
    let offset = if text.as_bytes()[sign] == b'-' {
        -seconds
    } else {
        seconds
    };
    Some((text.parse().ok()?, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rows: &[&str], likely: &[&str]) -> RowsTold {
        let mut zone = RowZone {
            columns: vec![1],
            ..RowZone::default()
        };
        for row in rows {
            zone.look_at(row.as_bytes());
        }
        let mut all = RowZone::default();
        all.merge(zone);
        all.find(likely.iter().copied())
    }

    #[test]
    fn offsets_tell_the_zone() {
        let berlin = ["1\t2026-01-01 00:00:00+01", "2\t2026-07-01 00:00:00.5+02"];
        assert_eq!(
            told(&berlin, &["Asia/Tokyo", "Europe/Berlin"]),
            RowsTold::Zone("Europe/Berlin".into())
        );
        assert!(matches!(told(&berlin, &[]), RowsTold::Zone(_)));
        let utc = ["1\t2026-01-01 00:00:00+00", "2\t\\N", "3\tinfinity"];
        assert_eq!(told(&utc, &["Europe/Berlin"]), RowsTold::Utc);
        assert_eq!(told(&["1\ttext+02"], &[]), RowsTold::Utc);
        let nowhere = ["1\t2026-01-01 00:00:00+01:07"];
        assert_eq!(told(&nowhere, &[]), RowsTold::Unknown);
        let india = ["1\t2026-01-01 05:30:00+05:30"];
        assert_eq!(
            told(&india, &["Asia/Kolkata"]),
            RowsTold::Zone("Asia/Kolkata".into())
        );
    }

    #[test]
    fn types_of_columns() {
        let definition = "CREATE TABLE public.t (\n    id bigint NOT NULL,\n    \"At\" timestamp with time zone DEFAULT now(),\n    \
            plain timestamp without time zone,\n    exact timestamp(3) with time zone NOT NULL,\n    many timestamp with time zone[]\n);\n";
        let columns = ["id", "At", "plain", "exact", "many"].map(str::to_owned);
        assert_eq!(timestamp_columns(definition, &columns), [1, 3]);
    }
}
