//! Locks: who works on the repository, as restic tells it ("Locks" in its design document).
//!
//! A lock is a sealed file in `locks/`. Many shared locks may exist at once (backups, checks, restores), or
//! one exclusive lock and nothing else (whatever removes data). A holder refreshes its lock every five
//! minutes; one that is older than thirty, or whose process is gone from this machine, is stale: it holds
//! nobody up, and the next one to lock removes it. So an interrupted run needs no clean-up.
//!
//! Who may not delete cannot remove its lock either. It says in a second file that the first counts for nothing any
//! more (`LockFile::released`), and both are removed by the next one that may. restic knows no such thing: for it
//! the lock is in force until it is stale, and the second file is stale from the beginning.
//!
//! Invariant: while a [`LockGuard`] passes [`LockGuard::check`], no lock that excludes it was granted by
//! anyone who keeps these rules. The order that makes it so: look, write one's own lock, look again.

mod guard;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::RepositoryError;
use crate::repository::Repository;
use crate::seal::Sealer;
use crate::storage::{FileEntry, FileKind, Storage, StorageError, StorageErrorKind};
use crate::unpacked;

pub use guard::LockGuard;
use guard::{Held, Own};

/// Tells the time. An argument so that tests need not wait, and so that this room does not look.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a lock keeps others from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Others may read and add, none may remove.
    Shared,
    /// Nobody else may work on the repository.
    Exclusive,
}

impl LockMode {
    const fn excludes(self, other: Self) -> bool {
        matches!((self, other), (Self::Exclusive, _) | (_, Self::Exclusive))
    }
}

/// Who asks for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// This machine's name; locks of processes on it are checked for being alive.
    pub hostname: String,
    /// The user's name, for people.
    pub username: String,
    /// This process.
    pub pid: u32,
}

/// A lock as its file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    /// The file's name in `locks/`.
    pub name: String,
    /// What it keeps others from.
    pub mode: LockMode,
    /// Who holds it.
    pub holder: LockHolder,
    /// When it was taken or last refreshed.
    pub time: Timestamp,
}

impl LockInfo {
    fn is_stale(&self, observer: &LockHolder, now: Timestamp) -> bool {
        let too_old = now.duration_since(self.time) > times::STALE_AFTER;
        let same_host =
            !self.holder.hostname.is_empty() && self.holder.hostname == observer.hostname;
        too_old || (same_host && !may_be_alive(self.holder.pid))
    }
}

impl std::fmt::Display for LockInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LockHolder {
            hostname,
            username,
            pid,
        } = &self.holder;
        write!(
            f,
            "process {pid} of {username} on {hostname}, {}",
            self.time
        )
    }
}

/// How long to wait for the locks of others.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// At most this long; zero does not wait.
    pub most: Duration,
    /// Set to stop waiting.
    pub interrupt: &'a AtomicBool,
    /// Told once, when waiting begins: whose lock it is.
    pub waits_for: &'a (dyn Fn(&LockInfo) + Sync),
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

/// How long one who waits for a lock pauses before looking again: at first, and at last.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a lock was not granted, or does not hold any more.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone else has a lock that excludes this one.
    #[error("the repository is locked by {0}")]
    Held(Box<LockInfo>),
    /// A lock file that can't be read, so nobody knows what it excludes.
    #[error("lock {name} cannot be read: {what}")]
    Unreadable {
        /// The file's name in `locks/`.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The own lock is gone or too old: someone removed it, or it could not be refreshed in time.
    #[error("the lock {name} is lost: {what}")]
    Lost {
        /// The file's name in `locks/`.
        name: String,
        /// How it was lost.
        what: &'static str,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The lock could not be put into the form the format asks for.
    #[error("the lock could not be encoded: {what}")]
    Encode {
        /// Why.
        what: String,
    },
    /// The thread that refreshes the lock could not be started.
    #[error("no thread to refresh the lock: {0}")]
    Thread(#[source] std::io::Error),
}

mod times {
    use jiff::SignedDuration;

    /// restic's `StaleLockTimeout`.
    pub(super) const STALE_AFTER: SignedDuration = SignedDuration::from_mins(30);
    /// A holder stops trusting its lock well before others stop honouring it: after restic's
    /// `refreshabilityTimeout`, which leaves one and a half refresh intervals to stop in.
    pub(super) const LOST_AFTER: SignedDuration =
        SignedDuration::from_millis((30 * 60 - 450) * 1000);
    /// When a lock file is past being looked at, by the clock of the place it is in: a holder replaces its file
    /// every five minutes, and clocks differ.
    pub(super) const ANCIENT_AFTER: SignedDuration = SignedDuration::from_hours(25);
    /// restic's refresh interval.
    pub(super) const REFRESH_EVERY: std::time::Duration = std::time::Duration::from_secs(5 * 60);
}

/// A lock file holds a few names and a number; more than this is none.
const LARGEST_LOCK_BYTES: u64 = 64 << 10;

/// The JSON document of a lock file.
#[derive(Debug, Serialize, Deserialize)]
struct LockFile {
    time: Timestamp,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: u32,
    /// Ours: names of lock files whose holder is done with them and could not remove them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    released: Vec<String>,
}

/// A lock file as it was read.
struct Loaded {
    info: LockInfo,
    released: Vec<String>,
}

impl Repository {
    /// Takes a lock, which lives as long as the guard. Removes stale locks on the way, and what else interrupted
    /// writers left behind ([`Storage::sweep`]).
    ///
    /// # Errors
    /// `Locked` by one that excludes it, `Lock` when one can't be read, or what the storage says.
    pub fn lock(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        clock: Clock,
    ) -> Result<LockGuard, RepositoryError> {
        Ok(self.locks().acquire(mode, holder, clock)?)
    }

    /// As [`Repository::lock`], but waits while someone else has a lock that excludes it.
    ///
    /// Whoever waits has no lock file, so it holds nobody up. The pauses differ at random: two who stepped back
    /// from each other do not meet again at every try.
    ///
    /// # Errors
    /// `Locked` when it was in vain, `Interrupted`, and those of [`Repository::lock`].
    pub fn lock_patiently(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        clock: &Clock,
        patience: Patience<'_>,
    ) -> Result<LockGuard, RepositoryError> {
        let since = Instant::now();
        let mut pause = SHORTEST_PAUSE;
        let mut told = false;
        loop {
            let by = match self.lock(mode, holder, Arc::clone(clock)) {
                Err(RepositoryError::Locked { by }) if since.elapsed() < patience.most => by,
                other => return other,
            };
            if !std::mem::replace(&mut told, true) {
                (patience.waits_for)(&by);
            }
            let jitter = getrandom::u32().unwrap_or(0) % 1000;
            let until = Instant::now() + pause / 2 + pause * jitter / 1000;
            while Instant::now() < until {
                if patience.interrupt.load(Ordering::Relaxed) {
                    return Err(RepositoryError::Interrupted);
                }
                std::thread::sleep(
                    SHORTEST_PAUSE.min(until.saturating_duration_since(Instant::now())),
                );
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Every lock there is, the stale ones too but not those that were released; and for each lock file that can't be
    /// read, why.
    ///
    /// # Errors
    /// When the storage can't list them.
    pub fn list_locks(&self) -> Result<Vec<Result<LockInfo, LockError>>, LockError> {
        self.locks().list()
    }

    /// Removes lock files that can't be read and that nobody holds any more: a holder replaces its file every five
    /// minutes, so one that was stored half an hour ago, by the clock of the place it is in, is nobody's. Returns
    /// their names.
    ///
    /// # Errors
    /// When the storage can't list them, or not remove one.
    pub(crate) fn remove_unreadable_locks(
        &self,
        now: Timestamp,
    ) -> Result<Vec<String>, RepositoryError> {
        let mut removed = Vec::new();
        if !self.storage().may_delete() {
            return Ok(removed);
        }
        let locks = self.locks();
        for file in self.storage().list(FileKind::Lock)? {
            let is_old = file
                .modified
                .is_some_and(|at| now.duration_since(at) > times::STALE_AFTER);
            if is_old && matches!(locks.load(&file), Err(LockError::Unreadable { .. })) {
                match self.storage().delete(FileKind::Lock, &file.name) {
                    Err(error) if error.kind() != StorageErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => removed.push(file.name),
                }
            }
        }
        Ok(removed)
    }

    /// Asks whether a lock could be had now, without taking one.
    ///
    /// # Errors
    /// As [`Repository::lock`].
    pub(crate) fn could_lock(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        now: Timestamp,
    ) -> Result<(), LockError> {
        self.locks().refuse_if_excluded(mode, holder, now, None)
    }

    fn locks(&self) -> Locks {
        Locks {
            storage: Arc::clone(self.storage()),
            sealer: self.sealer().clone(),
        }
    }
}

/// The part of a repository that locks are made with.
#[derive(Debug, Clone)]
struct Locks {
    storage: Arc<dyn Storage>,
    sealer: Sealer,
}

impl Locks {
    fn acquire(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        clock: Clock,
    ) -> Result<LockGuard, LockError> {
        self.acquire_refreshing(mode, holder, clock, times::REFRESH_EVERY)
    }

    fn acquire_refreshing(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        clock: Clock,
        refresh_every: Duration,
    ) -> Result<LockGuard, LockError> {
        self.refuse_if_excluded(mode, holder, clock(), None)?;
        let time = clock();
        let name = self.write(mode, holder, time)?;
        let own = Own {
            locks: self.clone(),
            mode,
            holder: holder.clone(),
            clock,
        };
        let held = Arc::new(Held::new(own, name.clone(), time));
        // Two who did not see each other before writing see each other now, as long as the storage lists what
        // it has acknowledged. Then both step back: one of them may be restic, which does the same.
        if let Err(error) = self.refuse_if_excluded(mode, holder, time, Some(&name)) {
            held.remove();
            return Err(error);
        }
        // The lock was what an interrupted run may have left; half-written files are the other thing. A place
        // where they can't be removed is still a place where backups can be taken.
        let _ = self.storage.sweep();
        LockGuard::refreshing(held, refresh_every)
    }

    fn list(&self) -> Result<Vec<Result<LockInfo, LockError>>, LockError> {
        let files = self.storage.list(FileKind::Lock)?;
        let mut loaded: Vec<Result<Loaded, LockError>> = files
            .iter()
            .filter_map(|file| self.load(file).transpose())
            .collect();
        let released: HashSet<String> = loaded
            .iter()
            .flatten()
            .flat_map(|loaded| loaded.released.iter().cloned())
            .collect();
        // What releases others is no lock either.
        let is_lock = |one: &Loaded| one.released.is_empty() && !released.contains(&one.info.name);
        loaded.retain(|one| one.as_ref().map_or(true, is_lock));
        let infos = loaded.into_iter().map(|one| one.map(|one| one.info));
        Ok(infos.collect())
    }

    /// The locks that may matter, and the names of those that were released.
    fn look(&self, now: Timestamp) -> Result<(Vec<Loaded>, HashSet<String>), LockError> {
        let may_delete = self.storage.may_delete();
        // Files that nobody here may remove pile up until somebody else does. What was stored long before any lock
        // in force was last refreshed need not be read, and read again by every backup.
        let is_ancient = |file: &FileEntry| {
            !may_delete
                && file
                    .modified
                    .is_some_and(|at| now.duration_since(at) > times::ANCIENT_AFTER)
        };
        let mut locks = Vec::new();
        let mut released = HashSet::new();
        let files = self.storage.list(FileKind::Lock)?;
        for file in files.iter().filter(|file| !is_ancient(file)) {
            if let Some(loaded) = self.load(file)? {
                released.extend(loaded.released.iter().cloned());
                locks.push(loaded);
            }
        }
        Ok((locks, released))
    }

    fn refuse_if_excluded(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        now: Timestamp,
        own: Option<&str>,
    ) -> Result<(), LockError> {
        let (mut locks, released) = self.look(now)?;
        locks.retain(|lock| own != Some(lock.info.name.as_str()));
        // What was released goes before the files that say so: once those are gone, whatever is left of it is in
        // force again.
        let mut are_gone = true;
        for lock in &locks {
            if released.contains(&lock.info.name) {
                are_gone &= self.try_delete(&lock.info.name);
            }
        }
        for Loaded { info, released: of } in locks {
            if released.contains(&info.name) {
                continue;
            }
            if info.is_stale(holder, now) {
                // Removed for the sake of restic, which stops at a stale lock until someone runs its `unlock`.
                // If that fails it still is stale, and does not hold us up.
                if are_gone || of.is_empty() {
                    self.try_delete(&info.name);
                }
            } else if mode.excludes(info.mode) {
                return Err(LockError::Held(Box::new(info)));
            }
        }
        Ok(())
    }

    /// Removes a lock file if that is possible; whether it is gone.
    fn try_delete(&self, name: &str) -> bool {
        self.storage.may_delete()
            && match self.storage.delete(FileKind::Lock, name) {
                Ok(()) => true,
                Err(error) => error.kind() == StorageErrorKind::NotFound,
            }
    }

    /// `None` when there is nothing to honour: the lock is gone, or never was whole.
    fn load(&self, file: &FileEntry) -> Result<Option<Loaded>, LockError> {
        // Some storages leave an empty file when an upload is cut off; restic passes over them as well.
        if file.size_bytes == 0 {
            return Ok(None);
        }
        let unreadable = |what: String| LockError::Unreadable {
            name: file.name.clone(),
            what,
        };
        if file.size_bytes > LARGEST_LOCK_BYTES {
            return Err(unreadable(format!(
                "{} bytes are too many for a lock",
                file.size_bytes
            )));
        }
        let sealed = match self.storage.read(FileKind::Lock, &file.name) {
            Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(None),
            sealed => sealed?,
        };
        let json = unpacked::decode(FileKind::Lock, sealed, &self.sealer);
        let json = json.map_err(|error| unreadable(error.to_string()))?;
        let lock: LockFile =
            serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        let LockFile {
            time,
            exclusive,
            hostname,
            username,
            pid,
            released,
        } = lock;
        let info = LockInfo {
            name: file.name.clone(),
            mode: if exclusive {
                LockMode::Exclusive
            } else {
                LockMode::Shared
            },
            holder: LockHolder {
                hostname,
                username,
                pid,
            },
            time,
        };
        Ok(Some(Loaded { info, released }))
    }

    /// Writes a lock file and returns its name.
    fn write(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        time: Timestamp,
    ) -> Result<String, LockError> {
        self.store(mode, holder, time, Vec::new())
    }

    /// Says that locks count for nothing any more, where they can't be removed.
    fn release(&self, holder: &LockHolder, names: Vec<String>) -> Result<(), LockError> {
        // Stale at once, for restic too.
        self.store(LockMode::Shared, holder, Timestamp::UNIX_EPOCH, names)?;
        Ok(())
    }

    fn store(
        &self,
        mode: LockMode,
        holder: &LockHolder,
        time: Timestamp,
        released: Vec<String>,
    ) -> Result<String, LockError> {
        let LockHolder {
            hostname,
            username,
            pid,
        } = holder.clone();
        let exclusive = mode == LockMode::Exclusive;
        let document = LockFile {
            time,
            exclusive,
            hostname,
            username,
            pid,
            released,
        };
        let encode = |error: &dyn ToString| LockError::Encode {
            what: error.to_string(),
        };
        let json = serde_json::to_vec(&document).map_err(|error| encode(&error))?;
        let sealed = unpacked::encode(FileKind::Lock, &json, &self.sealer)
            .map_err(|error| encode(&error))?;
        let name = hex::encode(Sha256::digest(&sealed));
        self.storage
            .write(FileKind::Lock, &name, &sealed)
            .inspect_err(|_| {
                // The error may have come after the file was put in place.
                let _ = self.try_delete(&name);
            })?;
        Ok(name)
    }
}

/// Whether a process may exist on this machine. Without certainty it does.
fn may_be_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests;
