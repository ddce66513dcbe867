//! What was measured, as the page docs/benchmarks.md.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::measure::{Measured, median};

/// One contender's runs in one part.
#[derive(Debug, Clone)]
pub struct Row {
    name: String,
    seconds: Vec<f64>,
    processor_seconds: Vec<f64>,
    bytes: Vec<f64>,
    peak: u64,
    peak_tree: u64,
}

impl Row {
    pub fn new(name: String) -> Row {
        Row {
            name,
            seconds: Vec::new(),
            processor_seconds: Vec::new(),
            bytes: Vec::new(),
            peak: 0,
            peak_tree: 0,
        }
    }

    pub fn add(&mut self, measured: &Measured, bytes: u64) {
        self.seconds.push(measured.seconds);
        self.processor_seconds.push(measured.processor_seconds);
        self.bytes.push(bytes as f64);
        self.peak = self.peak.max(measured.peak_bytes);
        self.peak_tree = self.peak_tree.max(measured.peak_tree_bytes);
    }

    /// Seconds of all runs: the median, with the fastest and the slowest.
    pub fn span(&self) -> String {
        let mid = median(&self.seconds);
        let low = self.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        format!("{mid:.1} ({low:.1}–{:.1})", self.longest())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The median of the runs' processor seconds.
    pub fn processor_seconds(&self) -> f64 {
        median(&self.processor_seconds)
    }

    /// The median of the runs' seconds.
    pub fn seconds(&self) -> f64 {
        median(&self.seconds)
    }

    fn longest(&self) -> f64 {
        self.seconds.iter().copied().fold(0.0, f64::max)
    }

    /// The highest peak of the command's own process, in bytes.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// The median of the runs' bytes.
    pub fn bytes(&self) -> f64 {
        median(&self.bytes)
    }

    /// The newest run, for people who wait.
    pub fn last(&self) -> String {
        format!(
            "{}: {:.1} s, {} MB",
            self.name,
            self.seconds.last().copied().unwrap_or(f64::NAN),
            megabytes(self.bytes.last().copied().unwrap_or(0.0)),
        )
    }
}

#[derive(Debug)]
pub struct Report {
    scale: f64,
    runs: u32,
    jobs: u32,
    database_bytes: u64,
    postgres: String,
    pub dump: Vec<Row>,
    pub churn: Vec<Row>,
    pub restore: Vec<Row>,
    pub check: Vec<Row>,
}

impl Report {
    pub fn new(scale: f64, runs: u32, jobs: u32, database_bytes: u64, postgres: &str) -> Report {
        Report {
            scale,
            runs,
            jobs,
            database_bytes,
            postgres: postgres.to_owned(),
            dump: Vec::new(),
            churn: Vec::new(),
            restore: Vec::new(),
            check: Vec::new(),
        }
    }

    pub fn markdown(&self) -> String {
        let mut page = String::new();
        let _ = write!(
            page,
            "# Benchmarks\n\n\
             Written by `cargo xtask bench --scale {} --runs {} --write`. The commands of each table took turns in \
             one run on one machine; only the ratios carry over to another. Medians, with the fastest and the \
             slowest run in parentheses. Memory is the highest `VmHWM` of the command's own process, polled every \
             10 ms; with everything it started, summed, in parentheses.\n\n\
             | | |\n|---|---|\n\
             | machine | {} |\n| PostgreSQL | {}, shared_buffers 1 GB, fsync on |\n| restic | {} |\n\
             | database | {} MB: pgbench accounts, activations with jsonb, memes with arrays and a GIN index, users |\n\
             | parallel jobs | {} |\n",
            self.scale,
            self.runs,
            machine(),
            self.postgres,
            first_line(Command::new("restic").arg("version")),
            megabytes(self.database_bytes as f64),
            self.jobs,
        );
        self.goals(&mut page);
        let parts = [
            (
                "A dump of everything",
                "bytes stored",
                &self.dump,
                "Every destination is empty before.",
            ),
            (
                "One more hour",
                "new bytes stored",
                &self.churn,
                "10,000 activations and 3,000 memes inserted, 1,500 random users and 0.05 % of the memes updated \
                 (times the scale), then a dump into the same destination. All metadata is counted.",
            ),
            (
                "Restore into a new database",
                "size of the database",
                &self.restore,
                "Lifeboat also gathers planner statistics, counts and hashes every row it restores, and compares the sums \
                 with the backup's; pg_restore does none of this.",
            ),
            (
                "Reading and checking every byte",
                "repository",
                &self.check,
                "Both check the same repository.",
            ),
        ];
        for (title, bytes, rows, words) in parts {
            if !rows.is_empty() {
                table(&mut page, title, bytes, rows, words);
            }
        }
        page
    }
    /// What was promised beside what was measured, also where it falls short.
    fn goals(&self, page: &mut String) {
        let Some(ours) = self
            .dump
            .first()
            .filter(|row| row.name.starts_with("lifeboat"))
        else {
            return;
        };
        let _ = write!(page, "\n## Goals\n\n| goal | measured | |\n|---|---|---|\n");
        let mut line = |goal: &str, measured: String, reached: bool| {
            let verdict = if reached { "reached" } else { "**missed**" };
            let _ = writeln!(page, "| {goal} | {measured} | {verdict} |");
        };
        let times = |ours: &[Row], peer: &str| {
            let peer = ours.iter().find(|row| row.name.starts_with(peer))?;
            Some(median(&peer.seconds) / median(&ours.first()?.seconds))
        };
        for (goal, rows, peer, least) in [
            (
                "backup 3× as fast as `pg_dump -Fc`",
                &self.dump,
                "pg_dump -Fc",
                3.0,
            ),
            (
                "backup 1.5× as fast as `pg_dump -Fd`",
                &self.dump,
                "pg_dump -Fd",
                1.5,
            ),
            (
                "restore 1.2× as fast as `pg_restore`",
                &self.restore,
                "pg_restore",
                1.2,
            ),
            (
                "check faster than `restic check --read-data`",
                &self.check,
                "restic",
                1.0,
            ),
        ] {
            if let Some(times) = times(rows, peer) {
                line(goal, format!("{times:.2}×"), times >= least);
            }
        }
        if let Some(hour) = self.churn.first() {
            let added = median(&hour.bytes);
            line(
                "one more hour adds at most 15 MB (times the scale)",
                format!("{} MB", megabytes(added)),
                added <= 15e6 * self.scale,
            );
        }
        let peak = [&self.dump, &self.churn, &self.restore, &self.check]
            .into_iter()
            .filter_map(|rows| rows.first())
            .map(|row| row.peak)
            .fold(ours.peak, u64::max);
        line(
            "never more than 300 MB of memory",
            format!("{} MB", peak / 1_000_000),
            peak < 300_000_000,
        );
    }
}

fn table(page: &mut String, title: &str, bytes: &str, rows: &[Row], words: &str) {
    let _ = write!(
        page,
        "\n## {title}\n{words}\n\n| command | seconds | against the first | {bytes} | peak memory |\n|---|---|---|---|---|\n"
    );
    let first = median(&rows[0].seconds);
    for row in rows {
        let _ = writeln!(
            page,
            "| {} | {} | {:.2}× | {} MB | {} MB ({}) |",
            row.name,
            row.span(),
            median(&row.seconds) / first,
            megabytes(median(&row.bytes)),
            row.peak / 1_000_000,
            row.peak_tree / 1_000_000,
        );
    }
}

/// Whole megabytes, with a digit behind the point where it matters.
pub fn megabytes(bytes: f64) -> String {
    let megabytes = bytes / 1e6;
    if megabytes < 100.0 {
        format!("{megabytes:.1}")
    } else {
        format!("{megabytes:.0}")
    }
}

/// Processors, memory and system.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_once(':')
                    .map(|(_, value)| value.trim().to_owned())
            })
            .unwrap_or_else(|| "unknown".into())
    };
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib.div_ceil(1024 * 1024));
    let system = read("/etc/os-release")
        .lines()
        .find_map(|line| {
            line.strip_prefix("PRETTY_NAME=")
                .map(|name| name.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| "unknown".into());
    format!(
        "{cpus} × {}, {memory} GiB, {system}",
        field(&read("/proc/cpuinfo"), "model name")
    )
}

/// The first line that a program prints.
pub fn first_line(command: &mut Command) -> String {
    command
        .output()
        .ok()
        .and_then(|output| {
            Some(
                String::from_utf8(output.stdout)
                    .ok()?
                    .lines()
                    .next()?
                    .to_owned(),
            )
        })
        .unwrap_or_else(|| "not installed".into())
}
