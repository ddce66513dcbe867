//! From a full pack to a durable and indexed one.

use super::Shared;
use crate::error::RepositoryError;
use crate::pack::PackBuilder;
use crate::seal::Nonces;
use crate::storage::FileKind;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
    let listed = shared.index.add(pack.id, pack.blobs, &shared.repository)?;
    shared.progress.note_index(listed);
    Ok(())
}
