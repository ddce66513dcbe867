//! A set of places in the index: one bit for each entry.

/// Which of `0..length` are in the set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(length: usize) -> Self {
        Self(vec![0; length.div_ceil(64)])
    }

    pub(crate) fn get(&self, at: usize) -> bool {
        self.0
            .get(at / 64)
            .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Puts `at` in; whether it was not in before.
    pub(crate) fn set(&mut self, at: usize) -> bool {
        let bit = 1 << (at % 64);
        match self.0.get_mut(at / 64) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    /// The places that are in this set and not in `before`, which is as long, from the first to the last.
    pub(crate) fn added_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let words = self.0.iter().zip(&before.0).enumerate();
        words.flat_map(|(word, (now, before))| {
            let mut new = now & !before;
            std::iter::from_fn(move || {
                let bit = new.trailing_zeros() as usize;
                (new != 0).then(|| {
                    new &= new - 1;
                    word * 64 + bit
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_added() {
        let mut before = Bits::new(200);
        for at in [0, 63, 130] {
            before.set(at);
        }
        let mut now = before.clone();
        for at in [1, 63, 64, 127, 199] {
            now.set(at);
        }
        let added: Vec<usize> = now.added_since(&before).collect();
        assert_eq!(added, [1, 64, 127, 199]);
        assert_eq!(before.added_since(&now).count(), 0);
    }
}
