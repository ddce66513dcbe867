//! Which processes are there, and waiting for things to happen.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Pid;

const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until a condition holds; panics when it never does.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The processes whose environment holds `NAME=value`.
pub fn with_marker(marker: &str) -> Vec<Pid> {
    find(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|word| word == marker.as_bytes())
    })
}

/// The processes that name a path on their command line, as a server names its data directory.
pub fn naming(path: &Path) -> Vec<Pid> {
    let path = path.to_string_lossy().into_owned();
    find(|process| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(&path)
    })
}

fn find(matches: impl Fn(&Path) -> bool) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let pid = Pid::from_raw(number)?;
            // A zombie is no longer anything but its parent's business.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            (state != 'Z' && matches(&entry.path())).then_some(pid)
        })
        .collect()
}
