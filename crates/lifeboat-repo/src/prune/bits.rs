//! A set of places in the index: one bit for each entry.

/// Which of `0..length` are in the set.
#[derive(Debug, Clone)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn new(length: usize) -> Self {
        Self(vec![0; length.div_ceil(64)])
    }

    pub(super) fn get(&self, at: usize) -> bool {
        self.0
            .get(at / 64)
            .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Puts `at` in; whether it was not in before.
    pub(super) fn set(&mut self, at: usize) -> bool {
        let bit = 1 << (at % 64);
        match self.0.get_mut(at / 64) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }
}
