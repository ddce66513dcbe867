//! Which packs a check reads.
//!
//! Reading a terabyte every night to find that nothing changed is not what most can afford. Who calls the check
//! may remember what was read before, and choose.

use std::collections::HashSet;

use jiff::Timestamp;

use crate::id::PackId;

/// A pack that is there with the size that the index implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackFile {
    /// Its ID, which is the hash of its content.
    pub id: PackId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was stored, where the storage tells.
    pub modified: Option<Timestamp>,
}

/// Chooses which packs are read, and is told which of them are good.
pub trait Reading: Sync {
    /// Those of `packs`, which are sorted by ID, that shall be read.
    fn choose(&self, packs: &[PackFile]) -> HashSet<PackId>;

    /// Every byte of a pack was read, and it is what was once written. Called from several threads, as each is done:
    /// what a check that is interrupted has read so far is read.
    fn found_good(&self, pack: &PackFile);
}

/// Reads every pack and remembers none.
#[derive(Debug, Clone, Copy)]
pub struct Everything;

impl Reading for Everything {
    fn choose(&self, packs: &[PackFile]) -> HashSet<PackId> {
        packs.iter().map(|pack| pack.id).collect()
    }

    fn found_good(&self, _: &PackFile) {}
}
