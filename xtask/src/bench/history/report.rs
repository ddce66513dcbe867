//! The month, as a section of docs/benchmarks.md.

use std::fmt::Write as _;
use std::process::Command;

use super::{Copies, History, Kept, Place};
use crate::bench::measure::{Measured, median};
use crate::bench::report::{first_line, machine, megabytes};
use crate::bench::wire::Traffic;

/// Hours at each end of the month whose backups are compared.
const DAY: usize = 24;

impl History {
    pub(super) fn markdown(&self) -> String {
        let mut page = String::new();
        let (scale, hours, more) = (self.scale, self.hours, self.more);
        let _ = write!(
            page,
            "Written by `cargo xtask bench history --scale {scale} --hours {hours} --more {more} --write` in {:.0} \
             minutes. {hours} times: the churn of an hour as above (times the scale), a backup by Lifeboat, and dumps of \
             the same state for the peers. Then {more} times more, and in each of these hours the backup is copied and \
             the oldest one expires. The hours are not waited for, so \"thirty days\" is said as `--keep-last {hours}` to \
             everybody; nothing else is simulated. restic is given each hour's dump under one name, as a snapshot of \
             its own, in one repository; in it, compression is on. At the end `restic check --read-data` has to find \
             nothing wrong with Lifeboat's repository. Seconds are medians; of processors, they are what the command's own \
             process spent, which hardly depends on what else the machine does.\n\n\
             | | |\n|---|---|\n\
             | machine | {} |\n| PostgreSQL | {}, autovacuum looks every second |\n| restic | {} |\n\
             | database | {} MB at first, {} MB at the end |\n",
            self.minutes,
            machine(),
            self.postgres,
            first_line(Command::new("restic").arg("version")),
            megabytes(self.database_bytes.0 as f64),
            megabytes(self.database_bytes.1 as f64),
        );
        self.goals(&mut page);
        self.sizes(&mut page);
        self.expired(&mut page);
        self.copied(&mut page);
        self.backups(&mut page);
        page
    }

    /// The bytes of the dumps that would be kept.
    fn kept_dumps(&self) -> u64 {
        let gone = self.dumps.len().saturating_sub(self.hours as usize);
        self.dumps[gone..].iter().sum()
    }

    fn goals(&self, page: &mut String) {
        let ours = self.steady.lifeboat as f64;
        let mut lines = vec![
            (
                format!(
                    "{} backups 30× smaller than as many `pg_dump -Fc` files",
                    self.hours
                ),
                format!("{:.1}×", self.kept_dumps() as f64 / ours),
                self.kept_dumps() as f64 >= 30.0 * ours,
            ),
            (
                "2.5× smaller than restic keeps the same dumps".to_owned(),
                format!("{:.1}×", self.steady.best_restic() as f64 / ours),
                self.steady.best_restic() as f64 >= 2.5 * ours,
            ),
        ];
        if let Some(expire) = self.expiries.first() {
            lines.push((
                "one hour's worth expires in seconds".to_owned(),
                format!("{} s", expire.span()),
                expire.seconds() < 10.0,
            ));
        }
        for copies in &self.copies {
            let more = copies.more_than_new();
            lines.push((
                format!(
                    "a copy to {} moves at most 5 % more than what is new",
                    copies.name
                ),
                format!("{more:+.1} %"),
                more <= 5.0,
            ));
        }
        let _ = write!(page, "\n| goal | measured | |\n|---|---|---|\n");
        for (goal, measured, reached) in lines {
            let verdict = if reached { "reached" } else { "**missed**" };
            let _ = writeln!(page, "| {goal} | {measured} | {verdict} |");
        }
    }

    fn sizes(&self, page: &mut String) {
        let _ = write!(
            page,
            "\n### What a month takes\n\"Full\" is after {} hours, when nothing had expired; \"steady\" is {} hours later, when \
             as many had expired and were pruned.\n\n\
             | kept | full | steady | against the first |\n|---|---|---|---|\n",
            self.hours, self.more
        );
        let files = self.dumps.iter().take(self.hours as usize).sum();
        let (full, steady) = (self.full, self.steady);
        for (name, full, now) in [
            ("Lifeboat's repository", full.lifeboat, steady.lifeboat),
            (
                "restic's, of `pg_dump -Fc -Z0 \\| restic backup --stdin`",
                full.restic_plain,
                steady.restic_plain,
            ),
            (
                "restic's, of the `pg_dump -Fc` files",
                full.restic_files,
                steady.restic_files,
            ),
            (
                "the `pg_dump -Fc` files themselves",
                files,
                self.kept_dumps(),
            ),
        ] {
            let _ = writeln!(
                page,
                "| {name} | {} MB | {} MB | {:.1}× |",
                megabytes(full as f64),
                megabytes(now as f64),
                now as f64 / steady.lifeboat as f64
            );
        }
    }

    fn expired(&self, page: &mut String) {
        let _ = write!(
            page,
            "\n### One hour's worth expires\nOf {} backups the oldest goes, and what only it needed is removed; {} times in turns. The first of these is told \
             apart: nothing had been pruned for a month, and it also puts small files together.\n\n\
             | command | seconds | of processors | peak memory | repository then | the first, seconds | peak memory |\n\
             |---|---|---|---|---|---|---|\n",
            self.hours + 1,
            self.more
        );
        for (row, first) in self.expiries.iter().zip(&self.first_expiries) {
            let _ = writeln!(
                page,
                "| {} | {} | {:.1} | {} MB | {} MB | {:.1} | {} MB |",
                row.name(),
                row.span(),
                row.processor_seconds(),
                row.peak() / 1_000_000,
                megabytes(row.bytes()),
                first.seconds(),
                first.peak() / 1_000_000
            );
        }
    }

    fn copied(&self, page: &mut String) {
        let _ = write!(
            page,
            "\n### One hour's worth is copied\nBytes of an hour, on average over {} hours. \"New\" is what the hour's backup added to \
             the primary. \"Sent\" is what a folder grew by, or what went to the server over a wire that counts: \
             requests, signatures and all. \"Received\" is what came back over that wire, mostly listings and \
             what is new in the destination's index: read to know what it lacks.\n\n\
             | to | seconds | of processors | new | sent | more than new | received | peak memory | all {} at first |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            self.more, self.hours
        );
        for copies in &self.copies {
            let seconds: Vec<f64> = copies.hourly.iter().map(|one| one.0.seconds).collect();
            let processors = copies.hourly.iter().map(|one| one.0.processor_seconds);
            let processors: Vec<f64> = processors.collect();
            let peak = copies.hourly.iter().map(|one| one.0.peak_bytes).max();
            let received = match copies.place {
                Place::Folder(_) => "–".to_owned(),
                Place::Wire(_) => kilobytes(copies.mean(|(_, _, moved)| moved.received)),
            };
            let first = copies
                .first
                .as_ref()
                .map_or_else(String::new, |(took, moved)| {
                    format!("{:.1} s, {} MB", took.seconds, megabytes(moved.sent as f64))
                });
            let _ = writeln!(
                page,
                "| {} | {:.1} | {:.1} | {} | {} | {:+.1} % | {received} | {} MB | {first} |",
                copies.name,
                median(&seconds),
                median(&processors),
                kilobytes(copies.mean(|(_, new, _)| *new)),
                kilobytes(copies.mean(|(_, _, moved)| moved.sent)),
                copies.more_than_new(),
                peak.unwrap_or(0) / 1_000_000,
            );
        }
    }

    fn backups(&self, page: &mut String) {
        let day = DAY.min(self.backups.len() / 2);
        let _ = write!(
            page,
            "\n### A backup, early and late\nMedians of {day} hours.\n\n\
             | hours | seconds | of processors | new bytes | peak memory |\n|---|---|---|---|---|\n"
        );
        // The first backup stores everything.
        let early = 1..1 + day;
        let late = self.backups.len() - day..self.backups.len();
        for range in [early, late] {
            let name = format!("{} to {}", range.start + 1, range.end);
            let backups = &self.backups[range];
            let seconds: Vec<f64> = backups.iter().map(|one| one.0.seconds).collect();
            let processors: Vec<f64> = backups.iter().map(|one| one.0.processor_seconds).collect();
            let new: Vec<f64> = backups.iter().map(|one| one.1 as f64).collect();
            let peak = backups.iter().map(|one| one.0.peak_bytes).max();
            let _ = writeln!(
                page,
                "| {name} | {:.2} | {:.2} | {} | {} MB |",
                median(&seconds),
                median(&processors),
                kilobytes(median(&new)),
                peak.unwrap_or(0) / 1_000_000
            );
        }
    }
}

impl Kept {
    /// The smaller of restic's two.
    fn best_restic(&self) -> u64 {
        self.restic_plain.min(self.restic_files)
    }
}

impl Copies {
    fn mean(&self, of: impl Fn(&(Measured, u64, Traffic)) -> u64) -> f64 {
        self.hourly.iter().map(of).sum::<u64>() as f64 / self.hourly.len() as f64
    }

    /// What was sent over what was new, in percent.
    fn more_than_new(&self) -> f64 {
        let new = self.mean(|(_, new, _)| *new);
        (self.mean(|(_, _, moved)| moved.sent) / new - 1.0) * 100.0
    }
}

fn kilobytes(bytes: f64) -> String {
    format!("{:.1} kB", bytes / 1e3)
}
