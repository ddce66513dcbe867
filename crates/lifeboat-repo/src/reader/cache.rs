//! Plaintext of blobs that were read lately.

use crate::id::BlobId;
use crate::pack::BlobKind;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Blobs = HashMap<(BlobKind, BlobId), Arc<[u8]>>;

/// Two generations: what is used moves to the young one, and when that has half of the memory the old one is
/// dropped. Close to "least recently used" without its lists.
pub(super) struct Cache {
    generations: Mutex<Generations>,
    half_bytes: usize,
}

#[derive(Default)]
struct Generations {
    young: Blobs,
    young_bytes: usize,
    old: Blobs,
}

impl Cache {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            generations: Mutex::default(),
            half_bytes: limit_bytes / 2,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, kind: BlobKind, id: &BlobId) -> Option<Arc<[u8]>> {
        let mut generations = self.lock();
        if let Some(plain) = generations.young.get(&(kind, *id)) {
            return Some(Arc::clone(plain));
        }
        let plain = generations.old.remove(&(kind, *id))?;
        generations.add(kind, *id, Arc::clone(&plain), self.half_bytes);
        Some(plain)
    }

    pub(super) fn insert(&self, kind: BlobKind, id: BlobId, plain: Arc<[u8]>) {
        // One that is too large would push out all others and then itself.
        if plain.len() <= self.half_bytes {
            self.lock().add(kind, id, plain, self.half_bytes);
        }
    }
}

impl Generations {
    fn add(&mut self, kind: BlobKind, id: BlobId, plain: Arc<[u8]>, half_bytes: usize) {
        if self.young_bytes + plain.len() > half_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        let length = plain.len();
        let replaced = self.young.insert((kind, id), plain);
        self.young_bytes += length - replaced.map_or(0, |replaced| replaced.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_and_stays_bounded() {
        let cache = Cache::new(1000);
        let id = |n: u32| BlobId::of(&n.to_le_bytes());
        for n in 0..500 {
            cache.insert(BlobKind::Data, id(n), vec![0; 100].into());
            assert!(
                cache.get(BlobKind::Data, &id(0)).is_some(),
                "used all the time, lost at {n}"
            );
        }
        assert!(cache.get(BlobKind::Data, &id(1)).is_none());
        assert!(cache.get(BlobKind::Tree, &id(0)).is_none());
        let generations = cache.lock();
        assert!(generations.young.len() + generations.old.len() <= 10);
        drop(generations);
        cache.insert(BlobKind::Data, id(1), vec![0; 501].into());
        assert!(cache.get(BlobKind::Data, &id(1)).is_none());
    }
}
