//! The index: which blob lies where ("Indexing" in restic's design document).
//!
//! In memory it is one sorted array of 48-byte entries, whatever the number of index files: a million blobs
//! take 48 MB, less than any hash map would, and it never grows after it was loaded.

mod queue;

use crate::id::{BlobId, IndexId, PackId};
use crate::pack::{BlobKind, PackedBlob};
use crate::seal::OVERHEAD_BYTES;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::io::Write;

pub(crate) use queue::IndexQueue;

/// An index file is written when it lists this many blobs: at some 190 bytes of JSON each it stays below
/// restic's aim of 8 MiB once compressed, and a crash loses the work of no more.
pub const BLOBS_PER_FILE: usize = 50_000;

#[derive(Deserialize)]
struct IndexJson {
    #[serde(default)]
    supersedes: Option<Vec<IndexId>>,
    #[serde(default)]
    packs: Option<Vec<PackJson>>,
}

#[derive(Deserialize)]
struct PackJson {
    id: PackId,
    #[serde(default)]
    blobs: Option<Vec<BlobJson>>,
}

#[derive(Deserialize)]
struct BlobJson {
    id: BlobId,
    #[serde(rename = "type")]
    kind: KindJson,
    offset: u32,
    length: u32,
    #[serde(default)]
    uncompressed_length: Option<u32>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum KindJson {
    Data,
    Tree,
}

/// Why the plaintext of an index file is not an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not the JSON of an index.
    #[error("not an index: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of another shape.
    #[error("not an index: not a JSON object")]
    NoObject,
    /// A blob with lengths that can't be.
    #[error("impossible length or offset of blob {}", .0.short())]
    Impossible(BlobId),
    /// More entries than the array counts.
    #[error("more blobs than can be counted")]
    TooMany,
}

/// The JSON of an index file that lists `packs`.
#[must_use]
pub fn write<'a>(packs: impl Iterator<Item = (&'a PackId, &'a [PackedBlob])>) -> Vec<u8> {
    let mut json = Vec::with_capacity(64 << 10);
    json.extend_from_slice(b"{\"packs\":[");
    for (p, (pack, blobs)) in packs.enumerate() {
        // Writing to a Vec can't fail.
        let _ = write!(
            json,
            "{}{{\"id\":\"{pack}\",\"blobs\":[",
            if p > 0 { "," } else { "" }
        );
        for (b, blob) in blobs.iter().enumerate() {
            let _ = write!(
                json,
                "{}{{\"id\":\"{}\",\"type\":\"{}\",\"offset\":{},\"length\":{}",
                if b > 0 { "," } else { "" },
                blob.id,
                blob.kind.as_str(),
                blob.offset,
                blob.length,
            );
            if let Some(length) = blob.uncompressed_length {
                let _ = write!(json, ",\"uncompressed_length\":{length}");
            }
            json.push(b'}');
        }
        json.extend_from_slice(b"]}");
    }
    json.extend_from_slice(b"]}");
    json
}

/// Highest bit of [`Entry::length`]: the blob is a tree. Lengths end at 2 GiB.
const TREE: u32 = 1 << 31;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    id: BlobId,
    pack: u32,
    offset: u32,
    length_and_kind: u32,
    /// 0: not compressed.
    uncompressed_length: u32,
}

const _: () = assert!(size_of::<Entry>() == 48);

impl Entry {
    const fn kind(&self) -> BlobKind {
        if self.length_and_kind & TREE == 0 {
            BlobKind::Data
        } else {
            BlobKind::Tree
        }
    }

    fn blob(&self) -> PackedBlob {
        PackedBlob {
            id: self.id,
            kind: self.kind(),
            offset: self.offset,
            length: self.length_and_kind & !TREE,
            uncompressed_length: (self.uncompressed_length > 0).then_some(self.uncompressed_length),
        }
    }

    fn order(&self) -> (BlobId, BlobKind, u32, u32) {
        (self.id, self.kind(), self.pack, self.offset)
    }
}

/// Where a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLocation {
    /// The pack.
    pub pack: PackId,
    /// The blob within it.
    pub blob: PackedBlob,
}

/// Everything the index files say.
pub struct Index {
    entries: Vec<Entry>,
    /// Where the entries begin whose identity begins with these 16 bits; one more at the end.
    starts: Vec<u32>,
    packs: Vec<PackId>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Index({} blobs in {} packs)",
            self.entries.len(),
            self.packs.len()
        )
    }
}

/// Collects index files into an [`Index`].
#[derive(Default)]
pub struct IndexBuilder {
    entries: Vec<Entry>,
    packs: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    /// Which entries came from which file: from where to where.
    files: Vec<(IndexId, usize)>,
    superseded: HashSet<IndexId>,
}

impl IndexBuilder {
    /// Adds the file named `id`, whose plaintext is `json`.
    ///
    /// # Errors
    /// When it is not an index; nothing of it was added.
    pub fn add(&mut self, id: IndexId, json: &[u8]) -> Result<(), IndexError> {
        // serde would take an array for the object's fields in order.
        if json.first() != Some(&b'{') {
            return Err(IndexError::NoObject);
        }
        let file: IndexJson = serde_json::from_slice(json)?;
        let start = self.entries.len();
        let blobs: usize = file
            .packs
            .iter()
            .flatten()
            .filter_map(|pack| pack.blobs.as_ref())
            .map(Vec::len)
            .sum();
        // The array grows by what is needed: doubling would cost as much again while a large index loads.
        self.entries
            .reserve_exact(blobs.max(self.entries.capacity() / 8));
        for pack in file.packs.into_iter().flatten() {
            let number = match self.numbers.get(&pack.id) {
                Some(&number) => number,
                None => {
                    let number =
                        u32::try_from(self.packs.len()).map_err(|_| IndexError::TooMany)?;
                    self.packs.push(pack.id);
                    self.numbers.insert(pack.id, number);
                    number
                }
            };
            for blob in pack.blobs.into_iter().flatten() {
                let sane = blob.length >= OVERHEAD_BYTES as u32
                    && blob.length < TREE
                    && blob.offset.checked_add(blob.length).is_some();
                if !sane {
                    self.entries.truncate(start);
                    return Err(IndexError::Impossible(blob.id));
                }
                let tree = if matches!(blob.kind, KindJson::Tree) {
                    TREE
                } else {
                    0
                };
                self.entries.push(Entry {
                    id: blob.id,
                    pack: number,
                    offset: blob.offset,
                    length_and_kind: blob.length | tree,
                    uncompressed_length: blob.uncompressed_length.unwrap_or(0),
                });
            }
        }
        self.files.push((id, start));
        self.superseded
            .extend(file.supersedes.into_iter().flatten());
        Ok(())
    }

    /// The packs of the file that was added last, by number, and how many blobs it lists of each.
    pub(crate) fn last_file(&self) -> Vec<(u32, u32)> {
        let start = self.files.last().map_or(0, |file| file.1);
        let mut packs: Vec<(u32, u32)> = Vec::new();
        for entry in self.entries.get(start..).unwrap_or_default() {
            match packs.last_mut() {
                Some((pack, blobs)) if *pack == entry.pack => *blobs += 1,
                _ => packs.push((entry.pack, 1)),
            }
        }
        packs
    }

    /// Every pack of the files that were added.
    pub(crate) fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// The files that others said to supersede.
    pub(crate) fn superseded(&self) -> &HashSet<IndexId> {
        &self.superseded
    }

    /// The index of all files that were added, without those that another one supersedes.
    ///
    /// # Errors
    /// With more than four thousand million blobs.
    pub fn build(mut self) -> Result<Index, IndexError> {
        if self
            .files
            .iter()
            .any(|(id, _)| self.superseded.contains(id))
        {
            let mut kept = Vec::with_capacity(self.entries.len());
            for (at, &(id, start)) in self.files.iter().enumerate() {
                let end = self
                    .files
                    .get(at + 1)
                    .map_or(self.entries.len(), |next| next.1);
                if !self.superseded.contains(&id) {
                    kept.extend_from_slice(&self.entries[start..end]);
                }
            }
            self.entries = kept;
        }
        drop(self.numbers);
        self.entries.sort_unstable_by_key(Entry::order);
        // The same pack may be listed in two files. A blob that lies in two packs keeps both its entries: for
        // a look-up the first serves, but whoever checks packs wants to see all of them.
        self.entries.dedup();
        self.entries.shrink_to_fit();
        let starts = starts(&self.entries).ok_or(IndexError::TooMany)?;
        Ok(Index {
            entries: self.entries,
            starts,
            packs: self.packs,
        })
    }
}

/// Where the entries of each prefix begin; `None` when there are more than can be counted.
fn starts(entries: &[Entry]) -> Option<Vec<u32>> {
    let mut starts = vec![0u32; (1 << 16) + 1];
    for entry in entries {
        let slot = &mut starts[prefix(&entry.id) + 1];
        *slot = slot.checked_add(1)?;
    }
    let mut sum = 0u32;
    for start in &mut starts {
        sum = sum.checked_add(*start)?;
        *start = sum;
    }
    Some(starts)
}

fn prefix(id: &BlobId) -> usize {
    let bytes = id.as_bytes();
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

impl Index {
    /// An index of nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            entries: Vec::new(),
            starts: vec![0; (1 << 16) + 1],
            packs: Vec::new(),
        }
    }

    /// All entries of a blob.
    fn find(&self, kind: BlobKind, id: &BlobId) -> &[Entry] {
        self.entries.get(self.span(kind, id)).unwrap_or_default()
    }

    /// Which entries, in the order of [`Index::iter`], are those of a blob; an empty range for an unknown one.
    pub(crate) fn span(&self, kind: BlobKind, id: &BlobId) -> std::ops::Range<usize> {
        let at = prefix(id);
        let (start, end) = (self.starts[at] as usize, self.starts[at + 1] as usize);
        let bucket = self.entries.get(start..end).unwrap_or_default();
        let wanted = (*id, kind);
        let first = bucket.partition_point(|entry| (entry.id, entry.kind()) < wanted);
        let count = bucket[first..]
            .iter()
            .take_while(|entry| (entry.id, entry.kind()) == wanted)
            .count();
        start + first..start + first + count
    }

    /// An entry by its place in [`Index::iter`].
    pub(crate) fn entry(&self, at: usize) -> Option<(u32, PackedBlob)> {
        self.entries.get(at).map(|entry| (entry.pack, entry.blob()))
    }

    /// Everywhere a blob lies: most often in one place.
    pub fn locations(
        &self,
        kind: BlobKind,
        id: &BlobId,
    ) -> impl Iterator<Item = BlobLocation> + '_ {
        self.find(kind, id).iter().filter_map(|entry| {
            Some(BlobLocation {
                pack: *self.packs.get(entry.pack as usize)?,
                blob: entry.blob(),
            })
        })
    }

    /// Where a blob lies; one place of it when there are several.
    #[must_use]
    pub fn get(&self, kind: BlobKind, id: &BlobId) -> Option<BlobLocation> {
        self.locations(kind, id).next()
    }

    /// Whether a blob is in some pack.
    #[must_use]
    pub fn contains(&self, kind: BlobKind, id: &BlobId) -> bool {
        !self.find(kind, id).is_empty()
    }

    /// The length of a blob's plaintext.
    #[must_use]
    pub fn plain_length(&self, kind: BlobKind, id: &BlobId) -> Option<u32> {
        self.find(kind, id)
            .first()
            .map(|entry| entry.blob().plain_length())
    }

    /// The same index without the packs whose numbers are in `lost`.
    #[must_use]
    pub(crate) fn without_packs(mut self, lost: &HashSet<u32>) -> Self {
        if !lost.is_empty() {
            self.entries.retain(|entry| !lost.contains(&entry.pack));
            self.starts = starts(&self.entries).unwrap_or(self.starts);
        }
        self
    }

    /// From now on a look-up finds a blob in one of the packs with the numbers in `lost` only when no other pack
    /// has it.
    pub(crate) fn prefer_others(&mut self, lost: &HashSet<u32>) {
        if !lost.is_empty() {
            self.entries.sort_unstable_by_key(|entry| {
                (
                    entry.id,
                    entry.kind(),
                    lost.contains(&entry.pack),
                    entry.order(),
                )
            });
        }
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is indexed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The packs, by the numbers that [`Index::iter`] gives; some may have no entries.
    #[must_use]
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// Every entry, sorted by identity, with its pack's number in [`Index::packs`]. A blob that lies in
    /// several packs comes several times.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, PackedBlob)> + '_ {
        self.entries.iter().map(|entry| (entry.pack, entry.blob()))
    }
}

#[cfg(test)]
mod tests;
