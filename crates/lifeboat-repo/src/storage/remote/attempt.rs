//! One try of an operation: how long it may take, and how it failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::storage::StorageErrorKind;

/// How often a wait looks whether it shall go on.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// What an operation that changes something may still take after somebody asked to stop: enough to remove a
/// lock, or to list in an index what was stored, and short enough not to be asked a second time.
const GRACE: Duration = Duration::from_secs(5);

/// What is repeated of a stranger's words at once.
pub(super) const MOST_OF_A_LINE: usize = 300;

/// A cause may be put together of several of them.
const MOST_OF_A_CAUSE: usize = 4 * MOST_OF_A_LINE;

/// A stranger's words, fit for one line of a terminal: no control characters, and at most so many letters.
pub(super) fn printable(text: &str, most: usize) -> String {
    let text: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(most)
        .collect();
    text.trim().to_owned()
}

/// Why one try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) kind: StorageErrorKind,
    /// Whether the same may succeed a little later.
    pub(super) may_pass: bool,
    /// In one sentence, for people; never a secret.
    pub(super) cause: String,
}

impl Failed {
    /// What another try would not change.
    pub(super) fn for_good(kind: StorageErrorKind, cause: impl AsRef<str>) -> Self {
        Self::new((kind, false), cause)
    }

    /// What another try may change.
    pub(super) fn for_now(kind: StorageErrorKind, cause: impl AsRef<str>) -> Self {
        Self::new((kind, true), cause)
    }

    /// Any cause may hold words of a stranger: a server, or a library that repeats what it was sent.
    pub(super) fn new((kind, may_pass): (StorageErrorKind, bool), cause: impl AsRef<str>) -> Self {
        Self {
            kind,
            may_pass,
            cause: printable(cause.as_ref(), MOST_OF_A_CAUSE),
        }
    }

    pub(super) fn interrupted() -> Self {
        Self::for_good(StorageErrorKind::Interrupted, "interrupted")
    }

    pub(super) fn not_found() -> Self {
        Self::for_good(StorageErrorKind::NotFound, "there is no such file")
    }

    pub(super) fn no_repository() -> Self {
        Self::for_good(StorageErrorKind::NotFound, "there is no repository")
    }

    pub(super) fn already_exists() -> Self {
        Self::for_good(StorageErrorKind::AlreadyExists, "it exists already")
    }

    pub(super) fn too_short(size: u64, length: usize, offset: u64) -> Self {
        Self::for_good(
            StorageErrorKind::TooShort,
            format!("{size} bytes long, wanted {length} from {offset}"),
        )
    }
}

/// How long one try may take: as long as bytes move, and until somebody asks to stop.
#[derive(Debug)]
pub(super) struct Patience {
    interrupt: Arc<AtomicBool>,
    stall: Duration,
    /// Whether the operation changes something, and so gets a moment more when somebody asks to stop.
    is_change: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progressed: Instant,
    interrupted: Option<Instant>,
}

impl Patience {
    pub(super) fn new(interrupt: Arc<AtomicBool>, stall: Duration, is_change: bool) -> Self {
        Self {
            interrupt,
            stall,
            is_change,
            state: Mutex::new(State {
                progressed: Instant::now(),
                interrupted: None,
            }),
        }
    }

    /// Something moved.
    pub(super) fn progressed(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .progressed = Instant::now();
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// To be asked every [`TICK`] of a wait.
    pub(super) fn check(&self) -> Result<(), Failed> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if self.is_interrupted() {
            let since = *state.interrupted.get_or_insert(now);
            if !self.is_change || now.duration_since(since) >= GRACE {
                return Err(Failed::interrupted());
            }
        }
        if now.duration_since(state.progressed) >= self.stall {
            return Err(Failed::for_now(
                StorageErrorKind::Unreachable,
                format!("no answer within {} s", self.stall.as_secs_f32().round()),
            ));
        }
        Ok(())
    }

    /// Waits, unless the wait is cut off.
    pub(super) fn wait(&self, time: Duration) -> Result<(), Failed> {
        let until = Instant::now() + time;
        loop {
            self.progressed();
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_when_nothing_moves_or_somebody_asks() {
        let interrupt = Arc::new(AtomicBool::new(false));
        let patience = |is_change, stall| Patience::new(Arc::clone(&interrupt), stall, is_change);
        let hour = Duration::from_secs(3600);
        assert_eq!(patience(false, hour).check(), Ok(()));
        let stalled = patience(false, Duration::ZERO).check();
        assert!(stalled.is_err_and(|failed| failed.may_pass));

        interrupt.store(true, Ordering::Relaxed);
        assert_eq!(patience(false, hour).check(), Err(Failed::interrupted()));
        assert_eq!(
            patience(true, hour).check(),
            Ok(()),
            "a change gets a moment more"
        );
        assert_eq!(patience(false, hour).wait(hour), Err(Failed::interrupted()));
    }
}
