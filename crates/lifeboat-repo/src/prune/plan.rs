//! Deciding: which packs go, which are copied from first. Pure.

use super::bits::Bits;
use super::survey::Survey;
use super::{PruneEstimate, PruneOptions};
use crate::pack::BlobKind;

/// So many small packs of a kind may be before they are put together. With one small pack an hour, each byte is
/// copied once or twice before it lies in a full one.
const MOST_SMALL_PACKS: usize = 32;

/// Room that copying leaves on the disk for others.
const SPARE_BYTES: u64 = 32 << 20;

/// What shall become of each pack, by its number.
#[derive(Debug)]
pub(super) struct Plan {
    /// One entry for each needed blob: the copy that stays, or is copied.
    pub(super) needed: Bits,
    /// Bytes of needed blobs in each pack.
    pub(super) needed_bytes: Vec<u64>,
    /// Packs that go, those in `repack` too.
    pub(super) gone: Vec<bool>,
    /// Packs whose needed blobs are copied before they go.
    pub(super) repack: Vec<u32>,
    repack_bytes: u64,
}

impl Plan {
    /// A plan to remove these packs, by their numbers, and to copy nothing.
    pub(super) fn removing(gone: Vec<bool>) -> Self {
        Self {
            needed: Bits::default(),
            needed_bytes: vec![0; gone.len()],
            gone,
            repack: Vec::new(),
            repack_bytes: 0,
        }
    }

    pub(super) fn make(survey: &Survey, options: &PruneOptions) -> Self {
        let (needed, needed_bytes) = choose_copies(survey);
        let mut plan = Self {
            needed,
            gone: needed_bytes.iter().map(|bytes| *bytes == 0).collect(),
            needed_bytes,
            repack: Vec::new(),
            repack_bytes: 0,
        };
        // A pack without entries is none of the index's; the sweep deals with it.
        for (pack, gone) in survey.packs.iter().zip(&mut plan.gone) {
            *gone &= pack.blobs > 0;
        }
        plan.choose_wasteful(survey, options);
        plan.choose_small(survey, options);
        plan.repack.sort_unstable();
        for &number in &plan.repack {
            plan.gone[number as usize] = true;
            plan.repack_bytes += plan.needed_bytes[number as usize];
        }
        plan
    }

    /// The packs with the largest part of unneeded bytes, until what is left of those is little enough.
    fn choose_wasteful(&mut self, survey: &Survey, options: &PruneOptions) {
        let mut unused = 0;
        let mut used = 0;
        let mut partly = Vec::new();
        for (number, pack) in (0u32..).zip(&survey.packs) {
            let needed = self.needed_bytes[number as usize];
            if pack.blobs == 0 || self.gone[number as usize] {
                continue;
            }
            let waste = payload(survey, number).saturating_sub(needed);
            used += needed;
            unused += waste;
            if waste > 0 {
                partly.push((number, waste, needed));
            }
        }
        // By the part that is waste, largest first; compared without division: a/b > c/d is a*d > c*b.
        partly.sort_by(|(a, waste_a, needed_a), (b, waste_b, needed_b)| {
            let left = u128::from(*waste_b) * u128::from(waste_a + needed_a);
            let right = u128::from(*waste_a) * u128::from(waste_b + needed_b);
            left.cmp(&right).then(a.cmp(b))
        });
        for (number, waste, _) in partly {
            if unused * 1000 <= options.max_unused_permille * (used + unused) {
                break;
            }
            unused -= waste;
            self.repack.push(number);
        }
    }

    /// Small packs, once there are many of a kind.
    fn choose_small(&mut self, survey: &Survey, options: &PruneOptions) {
        let kinds = kinds(survey);
        for wanted in [BlobKind::Data, BlobKind::Tree] {
            let small: Vec<u32> = (0u32..)
                .zip(&survey.packs)
                .filter(|(number, pack)| {
                    pack.is_whole()
                        && !self.gone[*number as usize]
                        && pack.expected_bytes < options.pack_size_bytes as u64 / 4
                        && kinds[*number as usize] == wanted
                })
                .map(|(number, _)| number)
                .collect();
            if small.len() > MOST_SMALL_PACKS {
                for number in small {
                    if !self.repack.contains(&number) {
                        self.repack.push(number);
                    }
                }
            }
        }
    }

    /// Whether copying would leave too little on a disk with this much room.
    pub(super) fn needs_more_than(&self, room: Option<u64>) -> bool {
        self.repack_bytes > 0
            && room
                .is_some_and(|room| room < self.repack_bytes + self.repack_bytes / 8 + SPARE_BYTES)
    }

    /// Keeps the packs that would have been copied from.
    pub(super) fn forget_repacking(&mut self) {
        for number in self.repack.drain(..) {
            self.gone[number as usize] = false;
        }
    }

    pub(super) fn repack_bytes(&self) -> u64 {
        self.repack_bytes
    }

    pub(super) fn estimate(&self, survey: &Survey) -> PruneEstimate {
        let gone = survey
            .packs
            .iter()
            .zip(&self.gone)
            .filter(|(_, gone)| **gone);
        let (mut packs, mut bytes) = (0, 0);
        for (pack, _) in gone {
            packs += 1;
            bytes += pack.file_bytes.unwrap_or(0);
        }
        PruneEstimate {
            packs,
            bytes: bytes.saturating_sub(self.repack_bytes),
        }
    }
}

/// The sealed bytes of all blobs that the index places in a pack.
fn payload(survey: &Survey, number: u32) -> u64 {
    let pack = &survey.packs[number as usize];
    // Header entries are some 40 bytes a blob: counted with it.
    pack.expected_bytes
        .saturating_sub(crate::pack::FIXED_BYTES as u64)
        .saturating_sub(u64::from(pack.blobs) * 41)
}

/// The kind of each pack's blobs. Old versions of restic mixed them; then that of the last one seen.
fn kinds(survey: &Survey) -> Vec<BlobKind> {
    let mut kinds = vec![BlobKind::Data; survey.packs.len()];
    for (number, blob) in survey.listing.index.iter() {
        kinds[number as usize] = blob.kind;
    }
    kinds
}

/// For each needed blob the copy that counts. Where there are several, the one in the pack that is needed most
/// without it, so that the others can go.
fn choose_copies(survey: &Survey) -> (Bits, Vec<u64>) {
    let index = &survey.listing.index;
    let mut needed = Bits::new(index.len());
    let mut needed_bytes = vec![0u64; survey.packs.len()];
    let mut several = Vec::new();
    let copies = |start: usize| {
        let first = index.entry(start).map(|(_, blob)| (blob.id, blob.kind));
        (start..)
            .map_while(move |at| index.entry(at).map(|(number, blob)| (at, number, blob)))
            .take_while(move |(_, _, blob)| Some((blob.id, blob.kind)) == first)
            .filter(|(_, number, _)| {
                survey
                    .packs
                    .get(*number as usize)
                    .is_some_and(|pack| pack.is_whole())
            })
    };
    for start in 0..index.len() {
        if !survey.used.get(start) {
            continue;
        }
        let mut found = copies(start);
        match (found.next(), found.next()) {
            (Some((at, number, blob)), None) => {
                needed.set(at);
                needed_bytes[number as usize] += u64::from(blob.length);
            }
            (Some(_), Some(_)) => several.push(start),
            // Then marking has failed.
            (None, _) => {}
        }
    }
    for start in several {
        let best = copies(start).max_by_key(|(_, number, _)| {
            (needed_bytes[*number as usize], std::cmp::Reverse(*number))
        });
        if let Some((at, number, blob)) = best {
            needed.set(at);
            needed_bytes[number as usize] += u64::from(blob.length);
        }
    }
    (needed, needed_bytes)
}
