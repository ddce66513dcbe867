//! What the index takes in memory and time, at a number of blobs of your choice:
//!
//! ```sh
//! cargo run --release -p lifeboat-repo --example index_memory -- 4000000
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for people who build this"
)]

use lifeboat_repo::index::{self, IndexBuilder};
use lifeboat_repo::pack::{BlobKind, PackedBlob};
use lifeboat_repo::{BlobId, IndexId, PackId};
use std::time::Instant;

fn main() {
    let wanted: u32 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |text| text.parse().unwrap());
    let before = resident_bytes();
    let mut builder = IndexBuilder::default();
    let mut spent = std::time::Duration::ZERO;
    for first in (0..wanted).step_by(index::BLOBS_PER_FILE) {
        let ids = first..(first + index::BLOBS_PER_FILE as u32).min(wanted);
        let blobs: Vec<PackedBlob> = ids.map(blob).collect();
        let packs: Vec<PackId> = blobs
            .chunks(1000)
            .map(|blobs| PackId::of(blobs[0].id.as_bytes()))
            .collect();
        let json = index::write(packs.iter().zip(blobs.chunks(1000)));
        drop(blobs);
        let started = Instant::now();
        builder.add(IndexId::of(&json), &json).unwrap();
        spent += started.elapsed();
    }
    let started = Instant::now();
    let index = builder.build().unwrap();
    spent += started.elapsed();
    let taken = resident_bytes().saturating_sub(before);
    println!(
        "{} blobs: {spent:.2?}, {} bytes each",
        index.len(),
        taken / index.len()
    );
    let started = Instant::now();
    let found = (0..wanted)
        .filter(|&n| index.contains(BlobKind::Data, &blob(n).id))
        .count();
    assert_eq!(found, wanted as usize);
    println!(
        "{:.0} ns for hashing and finding one",
        started.elapsed().as_nanos() as f64 / f64::from(wanted)
    );
}

fn blob(n: u32) -> PackedBlob {
    PackedBlob {
        id: BlobId::of(&n.to_le_bytes()),
        kind: BlobKind::Data,
        offset: n % 1000 * 4100,
        length: 4100,
        uncompressed_length: Some(16_000 + n % 5000),
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split_whitespace()
        .nth(1)
        .map_or(0, |pages| pages.parse::<usize>().unwrap() * 4096)
}
