//! Numbers as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes in decimal units, three digits: `434 MB`, `1.28 GB`, `17 B`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1_000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_000.0;
    let mut unit = 0;
    // 999.5 would be shown as 1000: that is the next unit already.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Bytes per second.
pub fn rate(count: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "–".to_owned();
    }
    format!("{}/s", bytes((count as f64 / seconds) as u64))
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 table`, `2 tables`.
pub fn plural(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", count(number))
}

/// A measured time: `0.14 s`, `4.2 s`, `42 s`, `3m 12s`, `2h 05m`, `3d 4h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 0.995 {
        return format!("{seconds:.2} s");
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {:02}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// An age, coarse: `12 s`, `7 min`, `3 h`, `12 d`. Rounded down, as people count ages.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A moment, in UTC to the minute, as everywhere in Lifeboat: `2026-03-02 01:00Z`.
pub fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%d %H:%MZ")
        .to_string()
}

/// A moment to the second: `2026-03-02 01:00:27Z`.
pub fn time_exact(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%d %H:%M:%SZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (434_000_000, "434 MB"),
            (1_280_000_000, "1.28 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times() {
        for (seconds, text) in [
            (0.144, "0.14 s"),
            (0.996, "1.0 s"),
            (4.24, "4.2 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1m 00s"),
            (192.0, "3m 12s"),
            (7_500.0, "2h 05m"),
            (273_600.0, "3d 4h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        for (seconds, text) in [
            (12, "12 s"),
            (479, "7 min"),
            (11_100, "3 h 05 min"),
            (1_036_800, "12 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
        let at = "2026-03-02T01:00:27Z".parse().unwrap();
        assert_eq!(time(at), "2026-03-02 01:00Z");
        assert_eq!(time_exact(at), "2026-03-02 01:00:27Z");
    }

    #[test]
    fn counts() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234), "1,234");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "table"), "1 table");
        assert_eq!(plural(2_000, "table"), "2,000 tables");
        assert_eq!(rate(1_000, 0.0), "–");
        assert_eq!(rate(500_000_000, 2.0), "250 MB/s");
    }
}
