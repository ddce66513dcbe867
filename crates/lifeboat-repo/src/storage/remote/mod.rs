//! A repository on another machine: S3 through OpenDAL, SFTP through `ssh`.
//!
//! Two layers. A `Backend` tries an operation once and says how that failed; [`RemoteStorage`] turns it into
//! what [`Storage`] promises: what may pass is tried again, with growing pauses and not for ever, what will not
//! pass is told at once, and a write whose answer was lost is known for what it is. Nothing else in the
//! repository knows that there is a network.

mod attempt;
pub mod location;
mod s3;
mod sftp;
mod throttle;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{FileEntry, FileKind, Storage, StorageError, StorageErrorKind, is_valid_name};
use attempt::{Failed, Patience};
pub use location::{LocationError, RemoteLocation, S3Location, SftpLocation};
pub use s3::S3Access;
pub use sftp::SshCommand;
use throttle::Throttle;

/// How a remote storage behaves. The defaults are meant for real networks.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Once set, waits end: reads at once, what changes something within seconds, and nothing is tried again.
    pub interrupt: Arc<AtomicBool>,
    /// For how long to try a place that has never answered this process: rather an address that is wrong than
    /// a network that is down.
    pub first_contact: Duration,
    /// For how long to try one operation on a place that has answered before.
    pub give_up_after: Duration,
    /// The longest that nothing moves before a try counts as failed.
    pub stall_timeout: Duration,
    /// The first pause between two tries; each is up to twice the one before, and none above ten seconds.
    pub first_pause: Duration,
    /// What all transfers together may take.
    pub bytes_per_second: Option<u64>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            interrupt: Arc::default(),
            first_contact: Duration::from_secs(20),
            give_up_after: Duration::from_secs(5 * 60),
            stall_timeout: Duration::from_secs(60),
            first_pause: Duration::from_millis(250),
            bytes_per_second: None,
        }
    }
}

/// Reads under way for one stream. With spans of up to 4 MiB, 16 MiB for each of them: at 100 ms from here to there
/// and back, that is 160 MiB/s.
const REQUESTS_AT_ONCE: usize = 4;

/// A range this long is not asked for before the file is known to have it: a length may come from a damaged
/// index.
const LARGEST_UNCHECKED_RANGE: usize = 32 << 20;

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One try of each operation. File names were checked; `NotFound`, `AlreadyExists` and `TooShort` are as
/// [`Storage`] defines them.
trait Backend: Send + Sync + std::fmt::Debug {
    fn location(&self) -> String;
    fn list(&self, kind: FileKind, patience: &Arc<Patience>) -> Result<Vec<FileEntry>, Failed>;
    fn size(&self, kind: FileKind, name: &str, patience: &Arc<Patience>) -> Result<u64, Failed>;
    fn read(&self, kind: FileKind, name: &str, patience: &Arc<Patience>)
    -> Result<Vec<u8>, Failed>;
    /// Appends exactly `length` bytes to `buffer`, which is empty; on failure it holds whatever.
    fn read_range(
        &self,
        file: (FileKind, &str),
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
        patience: &Arc<Patience>,
    ) -> Result<(), Failed>;
    /// Puts a whole file in place, if there is none of that name.
    fn put(
        &self,
        kind: FileKind,
        name: &str,
        content: &[u8],
        patience: &Arc<Patience>,
    ) -> Result<(), Failed>;
    fn delete(&self, kind: FileKind, name: &str, patience: &Arc<Patience>) -> Result<(), Failed>;
    fn create(&self, patience: &Arc<Patience>) -> Result<(), Failed>;
    fn free_space_bytes(&self, patience: &Arc<Patience>) -> Option<u64>;
    fn sweep(&self, patience: &Arc<Patience>) -> Result<usize, Failed>;
}

/// A repository's files on another machine.
#[derive(Debug)]
pub struct RemoteStorage {
    backend: Box<dyn Backend>,
    options: RemoteOptions,
    /// Whether the place has ever answered.
    contacted: AtomicBool,
}

impl RemoteStorage {
    /// A storage in a bucket. Connects to nothing yet.
    ///
    /// # Errors
    /// When the location or the access can't be used.
    pub fn s3(
        location: &S3Location,
        access: &S3Access,
        options: RemoteOptions,
    ) -> Result<Self, StorageError> {
        let throttle = throttle(&options);
        let backend = s3::S3Backend::new(location, access, throttle)
            .map_err(|failed| unusable(location.to_string(), failed))?;
        Ok(Self::new(Box::new(backend), options))
    }

    /// A storage in a folder behind `ssh`. Connects to nothing yet.
    #[must_use]
    pub fn sftp(location: &SftpLocation, ssh: SshCommand, options: RemoteOptions) -> Self {
        let throttle = throttle(&options);
        let backend = sftp::SftpBackend::new(location.clone(), ssh, throttle);
        Self::new(Box::new(backend), options)
    }

    fn new(backend: Box<dyn Backend>, options: RemoteOptions) -> Self {
        Self {
            backend,
            options,
            contacted: AtomicBool::new(false),
        }
    }

    fn patience(&self, is_change: bool) -> Arc<Patience> {
        let Self { options, .. } = self;
        Arc::new(Patience::new(
            Arc::clone(&options.interrupt),
            options.stall_timeout,
            is_change,
        ))
    }

    fn error(&self, action: &'static str, file: String, failed: Failed) -> StorageError {
        let Failed { kind, cause, .. } = failed;
        StorageError::new(kind, action, file, self.location(), cause)
    }

    /// Tries until it succeeds, fails for good, or has been tried for long enough. `attempt` is told whether
    /// there was an earlier try, which may have taken effect.
    fn try_long_enough<T>(
        &self,
        is_change: bool,
        mut attempt: impl FnMut(bool, &Arc<Patience>) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let start = Instant::now();
        let patience = self.patience(is_change);
        let mut tries: u32 = 0;
        let mut pause = self.options.first_pause;
        loop {
            patience.progressed();
            tries += 1;
            let failed = match attempt(tries > 1, &patience) {
                Err(failed) => failed,
                done => {
                    self.contacted.store(true, Ordering::Relaxed);
                    return done;
                }
            };
            if !failed.may_pass {
                // Whoever says no has answered; an interrupt says nothing about the place.
                if failed.kind != StorageErrorKind::Interrupted {
                    self.contacted.store(true, Ordering::Relaxed);
                }
                return Err(failed);
            }
            let limit = if self.contacted.load(Ordering::Relaxed) {
                self.options.give_up_after
            } else {
                self.options.first_contact
            };
            let taken = start.elapsed();
            if patience.is_interrupted() {
                return Err(Failed::interrupted());
            }
            if taken + pause >= limit {
                let cause = format!(
                    "given up after {tries} tries in {:.0} s: {}",
                    taken.as_secs_f32(),
                    failed.cause
                );
                return Err(Failed { cause, ..failed });
            }
            self.wait_between_tries(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Half of the pause to all of it: those who failed together shall not come back together.
    fn wait_between_tries(&self, pause: Duration) -> Result<(), Failed> {
        let random = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
        self.patience(false).wait(pause.mul_f64(0.5 + random / 2.0))
    }

    fn on_file<T>(
        &self,
        action: &'static str,
        (kind, name): (FileKind, &str),
        is_change: bool,
        attempt: impl FnMut(bool, &Arc<Patience>) -> Result<T, Failed>,
    ) -> Result<T, StorageError> {
        let described = || match kind {
            FileKind::Config => "the config file".to_owned(),
            _ => format!("{kind} {name}"),
        };
        if !is_valid_name(kind, name) {
            let reason = "no file of a repository has such a name";
            let failed = Failed::for_good(StorageErrorKind::Other, reason);
            return Err(self.error(action, format!("{kind} {name:?}"), failed));
        }
        self.try_long_enough(is_change, attempt)
            .map_err(|failed| self.error(action, described(), failed))
    }

    /// Whether the file is there with this content: then a write whose answer was lost has succeeded.
    fn holds(
        &self,
        kind: FileKind,
        name: &str,
        content: &[u8],
        patience: &Arc<Patience>,
    ) -> Result<bool, Failed> {
        if self.backend.size(kind, name, patience)? != content.len() as u64 {
            return Ok(false);
        }
        Ok(self.backend.read(kind, name, patience)? == content)
    }
}

fn throttle(options: &RemoteOptions) -> Option<Arc<Throttle>> {
    options
        .bytes_per_second
        .map(|limit| Arc::new(Throttle::new(limit)))
}

fn unusable(location: String, failed: Failed) -> StorageError {
    StorageError::new(
        failed.kind,
        "reach",
        "the repository",
        location,
        failed.cause,
    )
}

impl Storage for RemoteStorage {
    fn location(&self) -> String {
        self.backend.location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError> {
        self.try_long_enough(false, |_, patience| self.backend.list(kind, patience))
            .map_err(|failed| self.error("list", format!("{kind} files"), failed))
    }

    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        self.on_file("read", (kind, name), false, |_, patience| {
            self.backend.size(kind, name, patience)
        })
    }

    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        self.on_file("read", (kind, name), false, |_, patience| {
            self.backend.read(kind, name, patience)
        })
    }

    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        let mut content = Vec::new();
        self.read_range_into(kind, name, offset, length, &mut content)?;
        Ok(content)
    }

    fn read_range_into(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.on_file("read", (kind, name), false, |_, patience| {
            buffer.clear();
            self.backend
                .read_range((kind, name), offset, length, buffer, patience)
        })
    }

    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        self.on_file("write", (kind, name), true, |is_retry, patience| {
            match self.backend.put(kind, name, content, patience) {
                // The first try may have succeeded, and only its answer was lost.
                Err(failed) if is_retry && failed.kind == StorageErrorKind::AlreadyExists => {
                    if self.holds(kind, name, content, patience)? {
                        Ok(())
                    } else {
                        Err(failed)
                    }
                }
                put => put,
            }
        })
    }

    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        self.on_file(
            "delete",
            (kind, name),
            true,
            |is_retry, patience| match self.backend.delete(kind, name, patience) {
                Err(failed) if is_retry && failed.kind == StorageErrorKind::NotFound => Ok(()),
                deleted => deleted,
            },
        )
    }

    fn create(&self) -> Result<(), StorageError> {
        self.try_long_enough(true, |_, patience| self.backend.create(patience))
            .map_err(|failed| self.error("create", "the repository".to_owned(), failed))
    }

    fn free_space_bytes(&self) -> Option<u64> {
        self.backend.free_space_bytes(&self.patience(false))
    }

    fn requests_at_once(&self) -> usize {
        REQUESTS_AT_ONCE
    }

    fn sweep(&self) -> Result<usize, StorageError> {
        self.try_long_enough(true, |_, patience| self.backend.sweep(patience))
            .map_err(|failed| self.error("sweep", "the repository".to_owned(), failed))
    }
}

#[cfg(test)]
mod tests;
