//! Durations and sizes as people write them: `"30d"`, `"1h30m"`, `"1GiB"`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in whole seconds, never zero.
///
/// Text form: one or more numbers with a unit (`s`, `m`, `h`, `d`, `w`), largest first or not, such as
/// `90s`, `2h`, `1h30m`, `30d`. A number without a unit is refused, since nobody can tell what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan {
    seconds: u64,
}

/// A text that is not a [`TimeSpan`]. Holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as \"90s\", \"2h\" or \"30d\"")]
pub struct TimeSpanError(String);

const TIME_UNITS: [(&str, u64); 5] = [
    ("w", 7 * 86_400),
    ("d", 86_400),
    ("h", 3_600),
    ("m", 60),
    ("s", 1),
];

impl TimeSpan {
    /// A span of this many seconds; `None` for zero.
    pub const fn from_seconds(seconds: u64) -> Option<Self> {
        if seconds == 0 {
            None
        } else {
            Some(Self { seconds })
        }
    }

    /// Whole hours. For constants; zero becomes one second, so that the type's promise holds.
    pub const fn hours(hours: u64) -> Self {
        match Self::from_seconds(hours * 3_600) {
            Some(span) => span,
            None => Self { seconds: 1 },
        }
    }

    /// Whole minutes. For constants; zero becomes one second, so that the type's promise holds.
    pub const fn minutes(minutes: u64) -> Self {
        match Self::from_seconds(minutes * 60) {
            Some(span) => span,
            None => Self { seconds: 1 },
        }
    }

    /// The same to count with between two times; 292 billion years are enough for anybody.
    pub fn signed_duration(self) -> SignedDuration {
        SignedDuration::from_secs(i64::try_from(self.seconds).unwrap_or(i64::MAX))
    }

    /// Its length in seconds.
    pub const fn seconds(self) -> u64 {
        self.seconds
    }

    /// The same as the standard library's duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl FromStr for TimeSpan {
    type Err = TimeSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || TimeSpanError(text.to_owned());
        let mut rest = text.trim();
        let mut seconds: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let after = after.trim_start();
            let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, after) = after.split_at(letters);
            let factor = match unit {
                "s" | "sec" | "second" | "seconds" => 1,
                "m" | "min" | "minute" | "minutes" => 60,
                "h" | "hour" | "hours" => 3_600,
                "d" | "day" | "days" => 86_400,
                "w" | "week" | "weeks" => 7 * 86_400,
                _ => return Err(wrong()),
            };
            seconds = number
                .checked_mul(factor)
                .and_then(|part| seconds.checked_add(part))
                .ok_or_else(wrong)?;
            rest = after.trim_start();
        }
        // A century: anything longer is a slip of the finger, and would overflow clocks further on.
        if seconds > 100 * 366 * 86_400 {
            return Err(wrong());
        }
        Self::from_seconds(seconds).ok_or_else(wrong)
    }
}

impl fmt::Display for TimeSpan {
    /// The shortest form that parses back: `1h30m`, `30d`, `2w` is written `14d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.seconds;
        for (unit, factor) in &TIME_UNITS[1..] {
            let count = left / factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                left %= factor;
            }
        }
        Ok(())
    }
}

/// A size in bytes, never zero. Text form: a number and a unit, `KiB`, `MiB`, `GiB`, `TiB` (powers of
/// 1024) or `kB`, `MB`, `GB`, `TB` (powers of 1000), or `B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize {
    bytes: u64,
}

/// A text that is not a [`ByteSize`]. Holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size such as \"64MiB\" or \"1GiB\"")]
pub struct ByteSizeError(String);

impl ByteSize {
    /// Whole mebibytes. For constants; zero becomes one byte, so that the type's promise holds.
    pub const fn mebibytes(count: u64) -> Self {
        Self {
            bytes: if count == 0 { 1 } else { count << 20 },
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ByteSizeError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor: u64 = match unit.trim() {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        match number.checked_mul(factor) {
            Some(bytes) if bytes > 0 => Ok(Self { bytes }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that divides it: `1GiB`, `1500kB`, `7B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 8] = [
            ("TiB", 1 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("TB", 1_000_000_000_000),
            ("GB", 1_000_000_000),
            ("MB", 1_000_000),
            ("KiB", 1 << 10),
            ("kB", 1_000),
        ];
        for (unit, factor) in UNITS {
            if self.bytes.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.bytes / factor);
            }
        }
        write!(f, "{}B", self.bytes)
    }
}

/// Both types are text in TOML and in JSON, so their serde and schema are the same but for the name.
macro_rules! text_type {
    ($type:ty, $name:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $name, "examples": [$example]})
            }
        }
    };
}

text_type!(TimeSpan, "duration", "2h");
text_type!(ByteSize, "size", "64MiB");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, seconds, back) in [
            ("90s", 90, "1m30s"),
            ("2h", 7_200, "2h"),
            ("30d", 30 * 86_400, "30d"),
            ("1h30m", 5_400, "1h30m"),
            ("1h 30 min", 5_400, "1h30m"),
            ("2w", 14 * 86_400, "14d"),
            (" 5 minutes ", 300, "5m"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.seconds(), seconds, "{text}");
            assert_eq!(span.to_string(), back);
            assert_eq!(back.parse::<TimeSpan>().unwrap(), span);
        }
    }

    #[test]
    fn durations_refused() {
        for text in [
            "",
            "2",
            "h",
            "0s",
            "-1h",
            "1.5h",
            "2 fortnights",
            "99999999999999999999h",
            "9000000d",
        ] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_write() {
        for (text, bytes, back) in [
            ("1GiB", 1 << 30, "1GiB"),
            ("64 MiB", 64 << 20, "64MiB"),
            ("1500kB", 1_500_000, "1500kB"),
            ("2GB", 2_000_000_000, "2GB"),
            ("7B", 7, "7B"),
            ("1536MiB", 1536 << 20, "1536MiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), back);
        }
        for text in [
            "",
            "1",
            "1G",
            "GiB",
            "0MiB",
            "-1MiB",
            "1.5GiB",
            "99999999999TiB",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
