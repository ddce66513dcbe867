//! Fetching what will be wanted next, from storages where a request takes long to be answered, however little it
//! asks for.
//!
//! The threads belong to a [`super::Reader`] and are shared by all its files. They hold nothing but the storage,
//! and end when the reader is gone.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::error::RepositoryError;
use crate::id::PackId;
use crate::storage::{FileKind, Storage};

/// The most threads, and so the most requests under way, of a reader.
const MOST_THREADS: usize = 16;

/// A part of a pack that was asked for.
pub(super) struct Fetch {
    answer: Receiver<Result<Vec<u8>, RepositoryError>>,
    /// Dropped with this, so that what nobody waits for any more is not fetched.
    _wanted: Arc<()>,
}

impl Fetch {
    /// Waits for it. `None` when the thread that was to fetch it is gone.
    pub(super) fn wait(self) -> Option<Result<Vec<u8>, RepositoryError>> {
        self.answer.recv().ok()
    }
}

struct Job {
    pack: PackId,
    range: Range<u64>,
    answer: Sender<Result<Vec<u8>, RepositoryError>>,
    wanted: Weak<()>,
}

/// The threads, started when the first file needs them.
#[derive(Default)]
pub(super) struct Fetchers {
    jobs: OnceLock<Sender<Job>>,
}

impl Fetchers {
    /// Asks for a part of a pack. `None` where there can be no threads: then it has to be read when it is wanted.
    pub(super) fn fetch(
        &self,
        storage: &Arc<dyn Storage>,
        pack: PackId,
        range: Range<u64>,
    ) -> Option<Fetch> {
        let jobs = self.jobs.get_or_init(|| start(storage));
        let (answer, receiver) = channel();
        let wanted = Arc::new(());
        let job = Job {
            pack,
            range,
            answer,
            wanted: Arc::downgrade(&wanted),
        };
        jobs.send(job).ok()?;
        Some(Fetch {
            answer: receiver,
            _wanted: wanted,
        })
    }
}

fn start(storage: &Arc<dyn Storage>) -> Sender<Job> {
    let (sender, jobs) = channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..MOST_THREADS {
        let (jobs, storage) = (Arc::clone(&jobs), Arc::clone(storage));
        let run = move || {
            loop {
                // Held while waiting: whoever has it takes the next job, the others wait for it in turn.
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = next else {
                    return;
                };
                if job.wanted.upgrade().is_some() {
                    // Nobody to tell when the one who asked went away meanwhile.
                    let _ = job.answer.send(read(&*storage, &job));
                }
            }
        };
        // With fewer threads, or none, it is only slower: without any, nobody holds `jobs`, and sending fails.
        let _ = std::thread::Builder::new()
            .name("fetch".to_owned())
            .spawn(run);
    }
    sender
}

fn read(storage: &dyn Storage, job: &Job) -> Result<Vec<u8>, RepositoryError> {
    let length = usize::try_from(job.range.end - job.range.start)
        .map_err(|error| super::damaged_pack(&job.pack, error))?;
    Ok(storage.read_range(
        FileKind::Pack,
        &job.pack.to_string(),
        job.range.start,
        length,
    )?)
}
