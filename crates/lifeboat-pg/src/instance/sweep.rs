//! Removing what a run that crashed left behind.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::InstanceError;
use super::folder::{MARKER, Marker, PREFIX, SOCKET_MARKER, remove_all};
use super::process::pid;

/// How long an orphaned server may take to stop before it is killed outright.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Folders of dead runs, now gone.
    pub removed: Vec<PathBuf>,
    /// Servers of dead runs that were still running, by process id, now stopped.
    pub stopped: Vec<u32>,
    /// Folders of dead runs that could not be removed, with the reason.
    pub failed: Vec<(PathBuf, String)>,
}

/// Removes from `parent_dir` the scratch servers whose makers are gone.
///
/// Never touches a folder whose maker lives (its marker is locked), one without our marker, or one whose
/// marker belongs to another OS user: in a shared `/tmp` anybody may plant a folder with our name.
///
/// # Errors
/// Only when `parent_dir` itself cannot be read; a single folder's trouble is in the report.
pub fn sweep(parent_dir: &Path) -> Result<SweepReport, InstanceError> {
    let mut report = SweepReport::default();
    let entries = match fs::read_dir(parent_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(report),
        Err(source) => {
            return Err(InstanceError::Folder {
                path: parent_dir.to_owned(),
                source,
            });
        }
    };
    for entry in entries.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder
            || !entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PREFIX.as_bytes())
        {
            continue;
        }
        let path = entry.path();
        match sweep_one(&path, &mut report) {
            Ok(true) => report.removed.push(path),
            Ok(false) => {}
            Err(error) => report.failed.push((path, error.to_string())),
        }
    }
    Ok(report)
}

fn sweep_one(folder: &Path, report: &mut SweepReport) -> Result<bool, InstanceError> {
    let marker_path = folder.join(MARKER);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let Ok(file) = options.open(&marker_path) else {
        return Ok(false);
    };
    let meta = file
        .metadata()
        .map_err(InstanceError::folder(&marker_path))?;
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let content = fs::read(&marker_path).map_err(InstanceError::folder(&marker_path))?;
    let Ok(marker) = serde_json::from_slice::<Marker>(&content) else {
        return Ok(false);
    };
    if marker.version != 1 {
        return Ok(false);
    }
    if let Some(server) = running_server(&folder.join("data")) {
        stop(server);
        report
            .stopped
            .push(server.as_raw_nonzero().get().unsigned_abs());
    }
    if let Some(socket_dir) = &marker.socket_dir {
        let ours = socket_dir
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        let marked = fs::symlink_metadata(socket_dir.join(SOCKET_MARKER))
            .is_ok_and(|found| found.uid() == meta.uid());
        if ours && marked {
            remove_all(socket_dir)?;
        }
    }
    remove_all(folder)?;
    Ok(true)
}

/// The server that runs on this data directory, if one does. A postmaster's working directory is its data
/// directory, which tells it from a stranger that inherited its process id.
fn running_server(data_dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let raw: u32 = text.lines().next()?.trim().parse().ok()?;
    let server = pid(raw)?;
    test_kill_process(server).ok()?;
    let ours = match fs::read_link(format!("/proc/{raw}/cwd")) {
        Ok(cwd) => data_dir.canonicalize().is_ok_and(|wanted| wanted == cwd),
        Err(_) => {
            let output = Command::new("ps")
                .args(["-o", "args=", "-p", &raw.to_string()])
                .output()
                .ok()?;
            String::from_utf8_lossy(&output.stdout).contains(&*data_dir.to_string_lossy())
        }
    };
    ours.then_some(server)
}

fn stop(server: Pid) {
    let _ = kill_process(server, Signal::QUIT);
    let started = Instant::now();
    while test_kill_process(server).is_ok() {
        if started.elapsed() > STOP_TIMEOUT {
            let _ = kill_process(server, Signal::KILL);
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
