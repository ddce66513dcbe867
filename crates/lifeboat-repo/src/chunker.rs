//! Content-defined chunks: where a stream is cut depends on the bytes near the cut, so an insertion moves few
//! boundaries and what was stored before is found again.
//!
//! FastCDC (2020) with a gear table of the repository's own. The table comes from the `chunker_polynomial` in
//! the sealed config, so that the sizes of chunks do not betray known content to someone who sees only the
//! packs; that is also what the polynomial is for in restic. restic itself need not cut the same way: to it a
//! file is a list of blobs.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use sha2::{Digest, Sha256};

/// How large chunks are, in bytes. All three are even, as the cutter wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk is smaller, except the last of a stream.
    pub min: u32,
    /// What boundaries aim for; a power of two.
    pub avg: u32,
    /// No chunk is larger.
    pub max: u32,
}

/// The smallest average that [`ChunkSizes::with_average`] gives.
pub const SMALLEST_AVERAGE: u32 = 4 << 10;
/// The largest average that [`ChunkSizes::with_average`] gives.
pub const LARGEST_AVERAGE: u32 = 2 << 20;
/// The average where the config names none, as in a repository that restic made: restic's own 1 MiB would
/// store ten times more for an hour of churn.
pub const DEFAULT_AVERAGE: u32 = 64 << 10;

impl ChunkSizes {
    /// Sizes around `avg` bytes, which is rounded up to a power of two between 4 KiB and 2 MiB.
    #[must_use]
    pub fn with_average(avg: u32) -> Self {
        let avg = avg
            .clamp(SMALLEST_AVERAGE, LARGEST_AVERAGE)
            .next_power_of_two();
        Self {
            min: avg / 4,
            avg,
            max: avg * 4,
        }
    }

    /// Sizes for a database of `size_bytes`.
    ///
    /// Small chunks find more unchanged bytes, but each costs some 34 bytes in every tree that lists it and
    /// memory in the index: the average grows so that a whole database stays below a million chunks or two.
    #[must_use]
    pub fn for_database_size(size_bytes: u64) -> Self {
        const GB: u64 = 1_000_000_000;
        let avg = match size_bytes / GB {
            0..4 => 16 << 10,
            4..10 => 32 << 10,
            10..40 => 64 << 10,
            40..100 => 128 << 10,
            100..250 => 256 << 10,
            250..600 => 512 << 10,
            600..2000 => 1 << 20,
            _ => 2 << 20,
        };
        Self::with_average(avg)
    }

    /// The sizes for one file of `file_bytes`, in a snapshot of `snapshot_bytes`, in a repository that was made
    /// for these sizes.
    ///
    /// A file that changes costs its list of chunks and, for each change, a chunk. In a small file the list is
    /// cheap: below 2¹⁵ chunks of the repository's own average the chunks are half as large.
    ///
    /// Databases outgrow what their repository was made for, and every chunk costs memory: 67 bytes while its
    /// tree is written, some hundred in all. So the average is taken four times as large, and again, until the
    /// file has no more than 2¹⁸ chunks and the snapshot no more than 3·2¹⁹. The steps are wide because a file's
    /// first backup after one stores all of it again.
    #[must_use]
    pub fn for_file(self, file_bytes: u64, snapshot_bytes: u64) -> Self {
        const SMALL_FILE_CHUNKS: u64 = 1 << 15;
        const FILE_CHUNKS: u64 = 1 << 18;
        const SNAPSHOT_CHUNKS: u64 = 3 << 19;
        let mut sizes = self;
        while sizes.avg < LARGEST_AVERAGE
            && (file_bytes / u64::from(sizes.avg) > FILE_CHUNKS
                || snapshot_bytes / u64::from(sizes.avg) > SNAPSHOT_CHUNKS)
        {
            sizes = Self::with_average(sizes.avg.saturating_mul(4));
        }
        if file_bytes / u64::from(sizes.avg) < SMALL_FILE_CHUNKS {
            sizes = Self::with_average(sizes.avg / 2);
        }
        sizes
    }
}

/// How closely chunks keep to their average. A changed row costs the chunk it is in, and it is in a large one more
/// often than in a small one: chunks of like size cost less. With the next level cuts find each other less
/// well after a change, which costs more than it gains. An hour of the benchmark's churn stores 18.3, 16.9 and
/// 18.2 MB with the levels 1, 2 and 3.
const LEVEL: Normalization = Normalization::Level2;

/// Finds boundaries; made once per repository, shared by all workers.
#[derive(Clone)]
pub struct Cutter {
    sizes: ChunkSizes,
    mask_strict: u64,
    mask_relaxed: u64,
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
}

impl std::fmt::Debug for Cutter {
    // The gear table is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cutter")
            .field("sizes", &self.sizes)
            .finish_non_exhaustive()
    }
}

impl Cutter {
    /// A cutter for chunks of `sizes`, with the gear table that belongs to `polynomial`.
    ///
    /// The table is part of the format: a change would make every repository store everything again.
    #[must_use]
    pub fn new(sizes: ChunkSizes, polynomial: u64) -> Self {
        let mut gear = Box::new([0; 256]);
        for (byte, value) in (0u8..=255).zip(gear.iter_mut()) {
            let hash = Sha256::new()
                .chain_update(b"lifeboat gear table 1")
                .chain_update(polynomial.to_le_bytes())
                .chain_update([byte])
                .finalize();
            let mut first = [0; 8];
            first.copy_from_slice(&hash[..8]);
            *value = u64::from_le_bytes(first);
        }
        let gear_shifted = Box::new(gear.map(|value| value << 1));
        let (mask_strict, mask_relaxed) = select_masks(sizes.avg as usize, LEVEL);
        Self {
            sizes,
            mask_strict,
            mask_relaxed,
            gear,
            gear_shifted,
        }
    }

    /// The same boundaries' gear, for chunks of other sizes.
    #[must_use]
    pub fn with_sizes(&self, sizes: ChunkSizes) -> Self {
        let (mask_strict, mask_relaxed) = select_masks(sizes.avg as usize, LEVEL);
        Self {
            sizes,
            mask_strict,
            mask_relaxed,
            ..self.clone()
        }
    }

    /// The sizes it cuts to.
    #[must_use]
    pub const fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// The length of the first chunk of `data`; `None` when `data` may not hold the whole chunk yet.
    ///
    /// `last` says that the stream ends with `data`. Empty data has no chunk.
    #[must_use]
    pub fn cut(&self, data: &[u8], last: bool) -> Option<usize> {
        if data.is_empty() || (!last && data.len() < self.sizes.max as usize) {
            return None;
        }
        let (_, length) = cut_gear(
            data,
            self.sizes.min as usize,
            self.sizes.avg as usize,
            self.sizes.max as usize,
            self.mask_strict,
            self.mask_relaxed,
            self.mask_strict << 1,
            self.mask_relaxed << 1,
            self.gear.as_slice(),
            self.gear_shifted.as_slice(),
        );
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;
    use proptest::prelude::*;

    fn lengths(cutter: &Cutter, data: &[u8]) -> Vec<usize> {
        let (mut rest, mut lengths) = (data, Vec::new());
        while let Some(length) = cutter.cut(rest, true) {
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }

    /// Bytes that look random and are the same everywhere.
    fn noise(length: usize) -> Vec<u8> {
        (0..length.div_ceil(32) as u64)
            .flat_map(|block| *BlobId::of(&block.to_le_bytes()).as_bytes())
            .take(length)
            .collect()
    }

    /// If this fails, the next backup into every existing repository would store everything again.
    #[test]
    fn boundaries_stay_where_they_are() {
        let cutter = Cutter::new(ChunkSizes::with_average(16 << 10), 0x25_b468_838d_cb75);
        assert_eq!(
            lengths(&cutter, &noise(200_000)),
            [
                27733, 16800, 28882, 26420, 12222, 25314, 18384, 17102, 16429, 10714
            ]
        );
        let zeros = vec![0; 150_000];
        assert_eq!(lengths(&cutter, &zeros), [65_536, 65_536, 18_928]);
        let cutter = Cutter::new(ChunkSizes::with_average(64 << 10), 0x3f_0000_0000_0001);
        assert_eq!(
            lengths(&cutter, &noise(500_000)),
            [65926, 72447, 85880, 66492, 66544, 70223, 55286, 17202]
        );
    }

    #[test]
    fn a_files_chunks_follow_its_size() {
        const GB: u64 = 1 << 30;
        let small = ChunkSizes::with_average(16 << 10);
        let average = |file, snapshot| small.for_file(file, snapshot).avg >> 10;
        assert_eq!(average(0, GB), 8);
        assert_eq!(average(GB / 2 - 1, 24 * GB), 8);
        assert_eq!(average(GB / 2, 24 * GB), 16);
        assert_eq!(average(4 * GB, 24 * GB), 16);
        assert_eq!(average(5 * GB, 24 * GB), 64);
        assert_eq!(average(17 * GB, 24 * GB), 256);
        assert_eq!(average(1000 * GB, 2000 * GB), 2048);
        // Many small tables count too.
        assert_eq!(average(GB, 25 * GB), 32);
        assert_eq!(average(0, 300 * GB), 128);
        let large = ChunkSizes::with_average(1 << 20);
        assert_eq!(large.for_file(40 * GB, 100 * GB), large);
        assert_eq!(large.for_file(u64::MAX, u64::MAX).avg, LARGEST_AVERAGE);
        let least = ChunkSizes::with_average(SMALLEST_AVERAGE);
        assert_eq!(least.for_file(0, 0), least);
    }

    #[test]
    fn other_sizes_keep_the_gear() {
        let cutter = Cutter::new(ChunkSizes::with_average(4 << 10), 77);
        let sizes = ChunkSizes::with_average(64 << 10);
        let data = noise(1_000_000);
        assert_eq!(
            lengths(&cutter.with_sizes(sizes), &data),
            lengths(&Cutter::new(sizes, 77), &data)
        );
    }

    #[test]
    fn an_insertion_moves_few_boundaries() {
        let cutter = Cutter::new(ChunkSizes::with_average(4 << 10), 77);
        let before = noise(1_000_000);
        let mut after = before.clone();
        after.splice(500_000..500_000, *b"inserted");
        let blobs = |data: &[u8]| {
            let mut start = 0;
            let ids = lengths(&cutter, data).into_iter().map(|length| {
                start += length;
                BlobId::of(&data[start - length..start])
            });
            ids.collect::<std::collections::BTreeSet<_>>()
        };
        let fresh = blobs(&after).difference(&blobs(&before)).count();
        assert!(fresh <= 4, "{fresh} chunks changed");
    }

    #[test]
    fn another_polynomial_cuts_elsewhere() {
        let sizes = ChunkSizes::with_average(4 << 10);
        let data = noise(100_000);
        assert_ne!(
            lengths(&Cutter::new(sizes, 1), &data),
            lengths(&Cutter::new(sizes, 2), &data)
        );
    }

    #[test]
    fn sizes_follow_the_database() {
        let average = |gb: u64| ChunkSizes::for_database_size(gb * 1_000_000_000).avg >> 10;
        assert_eq!(
            [0, 1, 3, 5, 10, 30, 100, 300, 1000, 50_000].map(average),
            [16, 16, 16, 32, 64, 64, 256, 512, 1024, 2048]
        );
        assert_eq!(ChunkSizes::with_average(0).avg, SMALLEST_AVERAGE);
        assert_eq!(ChunkSizes::with_average(u32::MAX).avg, LARGEST_AVERAGE);
        assert_eq!(ChunkSizes::with_average(5000).avg, 8192);
    }

    proptest! {
        #[test]
        fn chunks_cover_the_stream_within_their_sizes(
            data in prop::collection::vec(any::<u8>(), 0..200_000),
            polynomial in any::<u64>(),
        ) {
            let sizes = ChunkSizes::with_average(4 << 10);
            let lengths = lengths(&Cutter::new(sizes, polynomial), &data);
            prop_assert_eq!(lengths.iter().sum::<usize>(), data.len());
            prop_assert!(lengths.iter().all(|&length| length > 0 && length <= sizes.max as usize));
            if let Some((_, all_but_last)) = lengths.split_last() {
                prop_assert!(all_but_last.iter().all(|&length| length >= sizes.min as usize));
            }
        }
    }
}
