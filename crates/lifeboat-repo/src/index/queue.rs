//! Packs on their way into the index.

use super::BLOBS_PER_FILE;
use crate::error::RepositoryError;
use crate::id::PackId;
use crate::pack::PackedBlob;
use crate::repository::Repository;
use crate::storage::FileKind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Packs that are durable but in no index file yet.
pub(crate) struct IndexQueue {
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
    /// An empty one, which writes an index file at least this often while packs come.
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            state: Mutex::default(),
            every,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unindexed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a durable pack, and writes an index file when it is time to. Returns the size of that file.
    pub(crate) fn add(
        &self,
        id: PackId,
        blobs: Vec<PackedBlob>,
        repository: &Repository,
    ) -> Result<Option<u64>, RepositoryError> {
        let due = {
            let mut state = self.lock();
            state.blobs += blobs.len();
            state.packs.push((id, blobs));
            let since = *state.since.get_or_insert_with(Instant::now);
            let is_due = state.blobs >= BLOBS_PER_FILE || since.elapsed() >= self.every;
            is_due.then(|| std::mem::take(&mut *state))
        };
        due.map(|due| self.write(due, repository)).transpose()
    }

    /// Writes an index file of all that is in none; returns its size.
    pub(crate) fn flush(&self, repository: &Repository) -> Result<Option<u64>, RepositoryError> {
        let rest = std::mem::take(&mut *self.lock());
        if rest.packs.is_empty() {
            Ok(None)
        } else {
            self.write(rest, repository).map(Some)
        }
    }

    fn write(&self, due: Unindexed, repository: &Repository) -> Result<u64, RepositoryError> {
        let json = super::write(due.packs.iter().map(|(id, blobs)| (id, blobs.as_slice())));
        match repository.store_file(FileKind::Index, &json) {
            Ok((_, size)) => Ok(size),
            Err(error) => {
                // Back in the queue: when the work is given up there is another attempt, under another name.
                let mut state = self.lock();
                state.blobs += due.blobs;
                state.packs.extend(due.packs);
                Err(error)
            }
        }
    }
}
