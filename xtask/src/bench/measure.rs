//! One measured run of one command: wall clock, peak memory, processor time.
//!
//! Memory is the kernel's own high-water mark (`VmHWM` in `/proc/PID/status`), read every 10 ms until the
//! process ends: only growth within the very last interval can be missed. `wait4` would tell exactly, but
//! not apart for a process and its children, and a pipe of two programs is one contender here.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);
/// Looking for new children means reading all of /proc, so it is done less often.
const INTERVALS_PER_SEARCH: u32 = 5;

/// What one run took.
#[derive(Debug, Clone)]
pub struct Measured {
    pub seconds: f64,
    /// Of processors, spent by the command's own process and the children that it waited for.
    pub processor_seconds: f64,
    /// The command's own process.
    pub peak_bytes: u64,
    /// The sum over it and every process it started: an upper bound, since they peak at different times.
    pub peak_tree_bytes: u64,
}

/// Runs the command to its end.
///
/// # Errors
/// It could not be started, or ended with another status than 0: with what it wrote to standard error.
pub fn run(command: &mut Command) -> Result<Measured, String> {
    let name = format!("{command:?}");
    let errors = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let reopened = errors.reopen().map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(reopened)
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    let root = child.id();
    let mut peaks = BTreeMap::from([(root, 0)]);
    let mut processor_seconds = 0.0;
    let mut tick = 0;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        if tick % INTERVALS_PER_SEARCH == 0 {
            for pid in descendants(root) {
                peaks.entry(pid).or_insert(0);
            }
        }
        for (pid, peak) in &mut peaks {
            *peak = (*peak).max(high_water_bytes(*pid));
        }
        processor_seconds = processor_seconds_of(root).unwrap_or(processor_seconds);
        tick += 1;
        std::thread::sleep(INTERVAL);
    };
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        let words = fs::read_to_string(errors.path()).unwrap_or_default();
        return Err(format!("{name}: {status}\n{}", words.trim_end()));
    }
    Ok(Measured {
        seconds,
        processor_seconds,
        peak_bytes: peaks.get(&root).copied().unwrap_or(0),
        peak_tree_bytes: peaks.values().sum(),
    })
}

fn high_water_bytes(pid: u32) -> u64 {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return 0;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Of the process and of the children it waited for ("/proc/pid/stat" in proc(5)). Less than the last interval is
/// missed.
fn processor_seconds_of(pid: u32) -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may hold anything; utime, stime, cutime and cstime are the fields 12
    // to 15 after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}

fn descendants(root: u32) -> Vec<u32> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // The command's name is in parentheses and may hold anything; the parent is the second field after.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if let Some(parent) = parent {
            parents.insert(pid, parent);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let of = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| **parent == of)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}
