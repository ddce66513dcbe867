//! Locks that are held: kept fresh by a thread, and removed when dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Clock, LockError, LockHolder, LockInfo, LockMode, Locks, times};
use crate::storage::{FileKind, StorageErrorKind};

/// What does not change while a lock is held.
pub(super) struct Own {
    pub(super) locks: Locks,
    pub(super) mode: LockMode,
    pub(super) holder: LockHolder,
    pub(super) clock: Clock,
}

struct State {
    name: String,
    time: Timestamp,
    /// The same moment by a clock that nobody sets.
    since: Instant,
    lost: Option<&'static str>,
    /// Files of this lock that were replaced and could not be removed, and their times.
    left: Vec<(Timestamp, String)>,
}

/// A lock whose file was written.
pub(super) struct Held {
    own: Own,
    state: Mutex<State>,
}

impl Held {
    pub(super) fn new(own: Own, name: String, time: Timestamp) -> Self {
        let state = State {
            name,
            time,
            since: Instant::now(),
            lost: None,
            left: Vec::new(),
        };
        Self {
            own,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), LockError> {
        let state = self.state();
        // By two clocks: the wall's can be set back, and the other one stands still while the machine sleeps.
        let too_old = (self.own.clock)().duration_since(state.time) > times::LOST_AFTER
            || state.since.elapsed() > times::LOST_AFTER.unsigned_abs();
        let what = state
            .lost
            .or_else(|| too_old.then_some("it could not be refreshed in time"));
        what.map_or(Ok(()), |what| {
            Err(LockError::Lost {
                name: state.name.clone(),
                what,
            })
        })
    }

    /// Whether the lock file is there, too.
    fn verify(&self) -> Result<(), LockError> {
        loop {
            self.check()?;
            let name = self.state().name.clone();
            match self.own.locks.storage.size(FileKind::Lock, &name) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() != StorageErrorKind::NotFound => {
                    return Err(error.into());
                }
                // Replaced by a fresh one between the two lines above.
                Err(_) if self.state().name != name => {}
                Err(_) => return self.lose(&name),
            }
        }
    }

    fn lose(&self, name: &str) -> Result<(), LockError> {
        let what = "someone removed it";
        self.state().lost = Some(what);
        Err(LockError::Lost {
            name: name.to_owned(),
            what,
        })
    }

    /// Replaces the lock file by one with the present time.
    ///
    /// The old one has to be there before and after the new one is written. Someone who took it for stale (this
    /// machine slept) may have been granted an exclusive lock since, and the new file would hide that.
    pub(super) fn refresh(&self) -> Result<(), LockError> {
        let Own {
            locks,
            mode,
            holder,
            clock,
        } = &self.own;
        let old = self.state().name.clone();
        let is_there = || match locks.storage.size(FileKind::Lock, &old) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        if !is_there()? {
            return self.lose(&old);
        }
        let (time, since) = (clock(), Instant::now());
        let new = locks.write(*mode, holder, time)?;
        match is_there() {
            Ok(true) => {}
            Ok(false) => {
                locks.withdraw(holder, vec![new]);
                return self.lose(&old);
            }
            Err(error) => {
                locks.withdraw(holder, vec![new]);
                return Err(error.into());
            }
        }
        {
            let mut state = self.state();
            let replaced = std::mem::replace(&mut state.time, time);
            state.name = new;
            state.since = since;
            if !locks.storage.may_delete() {
                // What is stale by any clock needs no release, and a lock may be held for weeks.
                let matters = |at: Timestamp| time.duration_since(at) <= times::ANCIENT_AFTER;
                state.left.retain(|(at, _)| matters(*at));
                state.left.push((replaced, old));
                return Ok(());
            }
        }
        // When this fails the old file stays until it is stale, which keeps others out longer than needed but
        // harms nobody.
        locks.storage.delete(FileKind::Lock, &old)?;
        Ok(())
    }

    pub(super) fn remove(&self) {
        let mut state = self.state();
        let left = std::mem::take(&mut state.left);
        let mut names: Vec<String> = left.into_iter().map(|(_, name)| name).collect();
        names.push(state.name.clone());
        self.own.locks.withdraw(&self.own.holder, names);
    }
}

impl Locks {
    /// Takes locks back: their files go, or are said to count for nothing.
    fn withdraw(&self, holder: &LockHolder, names: Vec<String>) {
        if self.storage.may_delete() {
            for name in names {
                // When this fails the lock stays until it is stale: at once for this machine, soon for others.
                let _ = self.storage.delete(FileKind::Lock, &name);
            }
        } else {
            // As above.
            let _ = self.release(holder, names);
        }
    }
}

/// A lock that is held; dropping it removes the file.
///
/// On the same machine `restic unlock` sends SIGHUP to the process that a lock names, to see whether it lives,
/// and ignores that signal itself. A program that holds a lock has to do the same, or is ended by it.
pub struct LockGuard {
    pub(super) held: Arc<Held>,
    /// Dropping it stops the thread.
    stop: Option<mpsc::Sender<()>>,
    refresher: Option<JoinHandle<()>>,
}

impl LockGuard {
    pub(super) fn refreshing(held: Arc<Held>, every: Duration) -> Result<Self, LockError> {
        let (stop, stopped) = mpsc::channel();
        // Made first, so that an error below removes the lock file again.
        let mut guard = Self {
            held,
            stop: Some(stop),
            refresher: None,
        };
        let held = Arc::clone(&guard.held);
        let refresh = move || {
            while stopped.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Nobody to tell here: `check` tells the holder when it matters, and the next round tries again.
                if let Err(LockError::Lost { .. }) = held.refresh() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("lock".to_owned())
            .spawn(refresh);
        guard.refresher = Some(thread.map_err(LockError::Thread)?);
        Ok(guard)
    }

    /// The lock as others see it now.
    #[must_use]
    pub fn info(&self) -> LockInfo {
        let state = self.held.state();
        let Own { mode, holder, .. } = &self.held.own;
        LockInfo {
            name: state.name.clone(),
            mode: *mode,
            holder: holder.clone(),
            time: state.time,
        }
    }

    /// Whether the lock still holds. To be asked before what must not happen without it, such as writing a
    /// snapshot.
    ///
    /// # Errors
    /// [`LockError::Lost`] once it was removed by someone, or was not refreshed in time.
    pub fn check(&self) -> Result<(), LockError> {
        self.held.check()
    }

    /// As [`LockGuard::check`], and asks the storage whether the lock file is there. To be asked before each
    /// removal: a process that was stopped and woke after its lock was taken over must not go on.
    ///
    /// # Errors
    /// [`LockError::Lost`], or what the storage says.
    pub fn verify(&self) -> Result<(), LockError> {
        self.held.verify()
    }

    /// A new shared lock for the same holder, by the same clock: for one who lost this lock and has still to look at
    /// what became of its work. No exclusive lock is granted to anyone while it is held, so what is there stays.
    ///
    /// # Errors
    /// As [`crate::Repository::lock`]; `Held` by the one for whose sake this lock was removed, for instance.
    pub(crate) fn retake(&self) -> Result<Self, LockError> {
        let Own {
            locks,
            holder,
            clock,
            ..
        } = &self.held.own;
        locks.acquire(LockMode::Shared, holder, Arc::clone(clock))
    }
}

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LockGuard").field(&self.info()).finish()
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.refresher.take() {
            // It can't panic on anything but a bug, and then there is still a file to remove.
            let _ = thread.join();
        }
        self.held.remove();
    }
}
