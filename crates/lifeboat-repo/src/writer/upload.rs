//! From a full pack to a durable and indexed one.

use super::Shared;
use crate::error::RepositoryError;
use crate::id::PackId;
use crate::index;
use crate::pack::{PackBuilder, PackedBlob};
use crate::seal::Nonces;
use crate::storage::FileKind;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Full packs on their way to the uploaders, and empty buffers on their way back. Holds one pack at most: a
/// worker that comes with a second waits, which is what keeps memory bounded when the storage is slow.
#[derive(Default)]
pub(super) struct PackQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    packs: VecDeque<PackBuilder>,
    buffers: Vec<Vec<u8>>,
    closed: bool,
}

const MOST_QUEUED: usize = 1;
const MOST_RECYCLED: usize = 4;

impl PackQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a pack, once there is room; false when nobody takes packs any more.
    pub(super) fn push(&self, pack: PackBuilder) -> bool {
        let mut state = self.lock();
        while state.packs.len() >= MOST_QUEUED && !state.closed {
            state = self.wait(state);
        }
        if state.closed {
            return false;
        }
        state.packs.push_back(pack);
        self.changed.notify_all();
        true
    }

    /// The next pack; `None` when there will be no more.
    fn pop(&self) -> Option<PackBuilder> {
        let mut state = self.lock();
        loop {
            if let Some(pack) = state.packs.pop_front() {
                self.changed.notify_all();
                return Some(pack);
            }
            if state.closed {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Takes no more packs; those queued are still stored.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Takes no more packs, and drops those queued.
    pub(super) fn discard(&self) {
        let mut state = self.lock();
        state.packs.clear();
        state.buffers.clear();
        state.closed = true;
        self.changed.notify_all();
    }

    pub(super) fn recycle(&self, buffer: Vec<u8>) {
        let mut state = self.lock();
        if state.buffers.len() < MOST_RECYCLED && !state.closed {
            state.buffers.push(buffer);
        }
    }

    pub(super) fn recycled(&self) -> Option<Vec<u8>> {
        self.lock().buffers.pop()
    }
}

/// Packs that are durable but in no index file yet.
pub(super) struct IndexQueue {
    state: Mutex<Unindexed>,
    every: Duration,
}

#[derive(Default)]
struct Unindexed {
    packs: Vec<(PackId, Vec<PackedBlob>)>,
    blobs: usize,
    since: Option<Instant>,
}

impl IndexQueue {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            state: Mutex::default(),
            every,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unindexed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a durable pack, and writes an index file when it is time to.
    fn add(
        &self,
        id: PackId,
        blobs: Vec<PackedBlob>,
        shared: &Shared,
    ) -> Result<(), RepositoryError> {
        let due = {
            let mut state = self.lock();
            state.blobs += blobs.len();
            state.packs.push((id, blobs));
            let since = *state.since.get_or_insert_with(Instant::now);
            let is_due = state.blobs >= index::BLOBS_PER_FILE || since.elapsed() >= self.every;
            is_due.then(|| std::mem::take(&mut *state))
        };
        due.map_or(Ok(()), |due| self.write(due, shared))
    }

    /// Writes an index file of all that is in none.
    pub(super) fn flush(&self, shared: &Shared) -> Result<(), RepositoryError> {
        let rest = std::mem::take(&mut *self.lock());
        if rest.packs.is_empty() {
            Ok(())
        } else {
            self.write(rest, shared)
        }
    }

    fn write(&self, due: Unindexed, shared: &Shared) -> Result<(), RepositoryError> {
        let json = index::write(due.packs.iter().map(|(id, blobs)| (id, blobs.as_slice())));
        match shared.repository.store_file(FileKind::Index, &json) {
            Ok((_, size)) => {
                shared
                    .progress
                    .bytes_stored
                    .fetch_add(size, Ordering::Relaxed);
                shared.progress.index_files.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                // Back in the queue: when the writer is given up there is another attempt, under another name.
                let mut state = self.lock();
                state.blobs += due.blobs;
                state.packs.extend(due.packs);
                Err(error)
            }
        }
    }
}

/// Should an uploader panic, nobody may wait for it to take a pack.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(RepositoryError::Encode {
                what: "an uploader panicked".to_owned(),
            });
        }
    }
}

/// What an uploader thread does.
pub(super) fn run(shared: &Shared) {
    let _guard = Guard(shared);
    let mut nonces = Nonces::default();
    while let Some(pack) = shared.packs.pop() {
        if let Err(error) = upload(pack, shared, &mut nonces) {
            shared.fail(error);
        }
    }
}

fn upload(pack: PackBuilder, shared: &Shared, nonces: &mut Nonces) -> Result<(), RepositoryError> {
    let pack = pack
        .finish(shared.repository.sealer(), nonces)
        .map_err(|error| RepositoryError::Encode {
            what: error.to_string(),
        })?;
    shared
        .repository
        .storage()
        .write(FileKind::Pack, &pack.id.to_string(), &pack.bytes)?;
    shared
        .progress
        .bytes_stored
        .fetch_add(pack.bytes.len() as u64, Ordering::Relaxed);
    shared.progress.packs.fetch_add(1, Ordering::Relaxed);
    shared.packs.recycle(pack.bytes);
    shared.index.add(pack.id, pack.blobs, shared)
}
