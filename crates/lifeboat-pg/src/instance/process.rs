//! The programs of a scratch server: started, waited for, ended.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::folder::ScratchFolder;
use super::os_user::OsUser;
use super::{InstanceError, ScratchOptions, StopMode};

pub(super) const SUPERUSER: &str = "postgres";
/// How long a server may take to stop before it is killed outright.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(4);

/// Variables that would bend what `initdb` and `postgres` do.
const BENDING: &[&str] = &[
    "PGDATA",
    "PGOPTIONS",
    "PGTZ",
    "PGCLIENTENCODING",
    "PGDATESTYLE",
    "PGHOST",
    "PGPORT",
];

fn program(path: &Path, owner: &OsUser) -> Command {
    let mut command = Command::new(path);
    for name in BENDING {
        command.env_remove(name);
    }
    // A group of its own: Ctrl-C in the terminal is for us to handle, in our order.
    command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .process_group(0)
        .stdin(Stdio::null());
    owner.apply(&mut command);
    command
}

pub(super) fn initdb(
    options: &ScratchOptions,
    data_dir: &Path,
    owner: &OsUser,
) -> Result<(), InstanceError> {
    let path = options.bin_dir.join("initdb");
    let output = program(&path, owner)
        .arg("--pgdata")
        .arg(data_dir)
        .args(["--username", SUPERUSER, "--auth", "trust", "--no-sync"])
        .args(["--encoding", &options.encoding, "--locale", &options.locale])
        // Not where we were started: the server's user may not be able to see that place.
        .current_dir(data_dir.parent().unwrap_or(Path::new("/")))
        .output()
        .map_err(|source| InstanceError::Spawn {
            path: path.clone(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stderr, output.stdout].concat();
    Err(InstanceError::Initdb {
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&words).trim().to_owned(),
    })
}

pub(super) fn spawn_postgres(
    bin_dir: &Path,
    folder: &ScratchFolder,
    owner: &OsUser,
) -> Result<Child, InstanceError> {
    let path = bin_dir.join("postgres");
    let log_path = folder.log_path();
    let open = || {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log_path)
    };
    let log = open().map_err(InstanceError::folder(&log_path))?;
    let log2 = log.try_clone().map_err(InstanceError::folder(&log_path))?;
    program(&path, owner)
        .arg("-D")
        .arg(folder.data_dir())
        .current_dir(folder.path())
        .stdout(log)
        .stderr(log2)
        .spawn()
        .map_err(|source| InstanceError::Spawn { path, source })
}

/// A shell that waits for our end of a pipe to close, which the kernel does however we end, and then stops
/// the server and removes its data. It runs as the server's user, so it can harm nothing else. The
/// process id is checked against `postmaster.pid` first, since ids are reused.
const WATCHDOG: &str = r#"
read -r _
if [ "$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)" = "$2" ]; then
  kill -QUIT "$2" 2>/dev/null
  n=0
  while kill -0 "$2" 2>/dev/null && [ "$n" -lt 200 ]; do sleep 0.1; n=$((n+1)); done
  kill -0 "$2" 2>/dev/null && kill -KILL "$2"
fi
if [ -f "$1/lifeboat-scratch.json" ]; then
  rm -rf -- "$1/data" "$1/socket" "$1/server.log"
  # The marker last, and only if the folder can go too: a folder without one would never be swept.
  [ -w "${1%/*}" ] && rm -rf -- "$1"
fi
[ -f "$3/lifeboat-socket" ] && rm -rf -- "$3"
exit 0
"#;

pub(super) fn spawn_watchdog(
    folder: &ScratchFolder,
    postmaster: u32,
    owner: &OsUser,
) -> Result<Child, InstanceError> {
    let path = Path::new("/bin/sh");
    program(path, owner)
        .args(["-c", WATCHDOG, "lifeboat-watchdog"])
        .arg(folder.path())
        .arg(postmaster.to_string())
        .arg(folder.socket_dir())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| InstanceError::Spawn {
            path: path.to_owned(),
            source,
        })
}

/// Waits as `pg_ctl -w` does: the eighth line of `postmaster.pid` is the server's own word for its state.
pub(super) fn wait_ready(
    child: &mut Child,
    folder: &ScratchFolder,
    options: &ScratchOptions,
) -> Result<(), InstanceError> {
    let pid_file = folder.data_dir().join("postmaster.pid");
    let started = Instant::now();
    loop {
        options.check_interrupt()?;
        let text = fs::read_to_string(&pid_file).unwrap_or_default();
        let mut lines = text.lines();
        let ours = lines.next().and_then(|line| line.trim().parse().ok()) == Some(child.id());
        if ours && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(InstanceError::Start {
                status: status.to_string(),
                log: folder.log_tail(),
            });
        }
        if started.elapsed() > options.start_timeout {
            return Err(InstanceError::StartTimeout {
                seconds: options.start_timeout.as_secs(),
                log: folder.log_tail(),
            });
        }
        std::thread::sleep(POLL);
    }
}

pub(super) fn stop(child: &mut Child, mode: StopMode) {
    let signal = match mode {
        StopMode::Fast => Signal::INT,
        StopMode::Immediate => Signal::QUIT,
    };
    if let (Ok(None), Some(pid)) = (child.try_wait(), pid(child.id())) {
        let _ = kill_process(pid, signal);
    }
    let started = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if started.elapsed() > STOP_TIMEOUT {
            end(child);
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// Kills and reaps.
pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

pub(super) fn pid(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}
