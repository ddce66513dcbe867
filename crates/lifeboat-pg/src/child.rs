//! PostgreSQL's own programs, run as children: their errors kept, their end certain.
//!
//! Invariant: a [`Running`] that is dropped has ended and was reaped, whatever happened to its owner.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How much of a child's words is kept: the beginning, where the cause usually is.
const STDERR_KEPT: usize = 1 << 20;
/// How often a wait looks at the interrupt flag.
const LOOK: Duration = Duration::from_millis(50);
/// How long a child may take to end when asked to. `pg_dump` uses it to cancel its statement.
const GRACE: Duration = Duration::from_secs(5);

/// A running program.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// What it wrote to stderr, once that is closed.
    words: Receiver<Vec<u8>>,
    ended: Option<ExitStatus>,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// Waiting for a program was given up.
#[derive(Debug)]
pub(crate) enum WaitError {
    Interrupted,
    Io(io::Error),
}

impl Running {
    /// Starts it, with stdout piped. Its stdin is piped too if `feed`, else empty.
    pub(crate) fn spawn(mut command: Command, feed: bool) -> io::Result<Running> {
        command
            .stdin(if feed { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C in the terminal is for us to handle, in our order.
            .process_group(0);
        let mut child = command.spawn()?;
        let (sender, words) = channel();
        if let Some(mut stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                let mut kept = Vec::new();
                let _ = Read::by_ref(&mut stderr)
                    .take(STDERR_KEPT as u64)
                    .read_to_end(&mut kept);
                // A full pipe would stop it: read the rest and forget it.
                let _ = io::copy(&mut stderr, &mut io::sink());
                let _ = sender.send(kept);
            });
        }
        Ok(Running {
            child,
            words,
            ended: None,
        })
    }

    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for its end. Its stdout must have been taken, or closed here: nobody else reads it.
    pub(crate) fn wait(mut self, interrupt: &AtomicBool) -> Result<Ended, WaitError> {
        drop(self.child.stdout.take());
        let words = receive(&self.words, interrupt)?.unwrap_or_default();
        let status = self.child.wait().map_err(WaitError::Io)?;
        self.ended = Some(status);
        Ok(Ended {
            status,
            stderr: String::from_utf8_lossy(&words).trim().to_owned(),
        })
    }

    /// Ends it now, in a way that lets it cancel what it runs on the server.
    pub(crate) fn terminate(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if asked.elapsed() > GRACE {
                let _ = self.child.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.ended = self.child.wait().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Receives what another thread is about to send, looking at `interrupt` meanwhile. `None` if that thread
/// ended without a word.
pub(crate) fn receive<T>(
    from: &Receiver<T>,
    interrupt: &AtomicBool,
) -> Result<Option<T>, WaitError> {
    loop {
        if interrupt.load(Ordering::Relaxed) {
            return Err(WaitError::Interrupted);
        }
        match from.recv_timeout(LOOK) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
