//! The blobs that this run has stored, or is about to.

use crate::id::BlobId;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A set that many workers add to. It is cut in shards by the identity's last byte, so that two workers seldom
/// want the same one at the same moment.
pub(super) struct Known {
    shards: [Mutex<HashSet<BlobId, BuildHasherDefault<FirstBytes>>>; 64],
}

impl Default for Known {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Known {
    fn shard(
        &self,
        id: &BlobId,
    ) -> MutexGuard<'_, HashSet<BlobId, BuildHasherDefault<FirstBytes>>> {
        let shard = &self.shards[usize::from(id.as_bytes()[31]) % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a blob; true for the one caller that has to store it.
    pub(super) fn insert(&self, id: BlobId) -> bool {
        self.shard(&id).insert(id)
    }

    pub(super) fn contains(&self, id: &BlobId) -> bool {
        self.shard(id).contains(id)
    }
}

/// A SHA-256 needs no more hashing. Nobody can choose identities that collide here without also being able to
/// choose SHA-256 prefixes; the worst they would gain is a slow set.
#[derive(Default)]
pub(super) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    // The length of the array, which is the same for all.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_is_told_to_store() {
        let known = Known::default();
        let ids: Vec<BlobId> = (0..2000u32).map(|n| BlobId::of(&n.to_le_bytes())).collect();
        let told = std::thread::scope(|scope| {
            let count = || ids.iter().filter(|id| known.insert(**id)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .sum::<usize>()
        });
        assert_eq!(told, ids.len());
        assert!(ids.iter().all(|id| known.contains(id)));
        assert!(!known.contains(&BlobId::of(b"other")));
    }
}
