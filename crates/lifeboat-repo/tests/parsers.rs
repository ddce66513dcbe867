//! Every parser of what comes out of a repository, fed with mutations of real input for a few seconds: none may
//! panic, and none may take memory on the input's word.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "counting what is allocated takes an allocator")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use lifeboat_repo::IndexId;
use lifeboat_repo::id::{BlobId, PackId, SnapshotId};
use lifeboat_repo::index::{self, IndexBuilder};
use lifeboat_repo::pack::{self, BlobKind, BlobOpener, PackBuilder, PackedBlob};
use lifeboat_repo::seal::{MasterKey, Nonces, Sealer};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::MemoryStorage;
use lifeboat_repo::tree::Tree;
use support::{back_up, init, noise, rows};

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread has allocated. A test runs on one thread, so others do not disturb it.
struct Counting;

fn count(grown: usize, shrunk: usize) {
    // While a thread ends its counters are gone, and nobody asks any more.
    let _ = NOW.try_with(|now| {
        now.set(now.get().saturating_add(grown).saturating_sub(shrunk));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was allocated at once while `work` ran, beyond what was before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

const WORDS: [&[u8]; 22] = [
    b"4294967295",
    b"4294967296",
    b"-1",
    b"0",
    b"1e999",
    b"99999999999999999999",
    b"\"",
    b"\\",
    b"\\u0000",
    b"null",
    b"true",
    b"[[[[[[[[",
    b"{\"a\":",
    b"}",
    b"]",
    b",",
    b"\xff\xfe",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x02",
    b"\\\\x",
    b"\\\\U0010ffff",
];

/// One to four changes of the kinds that damage and malice make.
fn mutate(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            3 => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
            4 => {
                let end = (at + random.below(200)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            _ => {
                let end = (at + random.below(200)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

/// Feeds `parse` with mutations of `input`. Memory may be a multiple of the input's length, not of its words.
fn torture(rounds: u64, input: &[u8], mut parse: impl FnMut(&[u8])) {
    parse(input);
    for seed in 0..rounds {
        let bytes = mutate(input, &mut Random(seed));
        let peak = peak_of(|| parse(&bytes));
        let limit = bytes.len() * 16 + (256 << 10);
        assert!(
            peak <= limit,
            "seed {seed}: {peak} bytes allocated for {} of input",
            bytes.len()
        );
    }
}

fn blobs() -> Vec<PackedBlob> {
    (0..40u32)
        .map(|number| PackedBlob {
            id: BlobId::of(&number.to_le_bytes()),
            kind: if number % 7 == 0 {
                BlobKind::Tree
            } else {
                BlobKind::Data
            },
            offset: number * 100,
            length: 100,
            uncompressed_length: (number % 3 == 0).then_some(300),
        })
        .collect()
}

#[test]
fn index_parser_survives() {
    let (pack, blobs) = (PackId::of(b"pack"), blobs());
    let json = index::write([(&pack, blobs.as_slice())].into_iter());
    // A table of 2^16 offsets belongs to every index, whatever is in it.
    let fixed = peak_of(|| drop(IndexBuilder::default().build()));
    assert!(fixed < 1 << 20);
    torture(20_000, &json, |json| {
        let mut builder = IndexBuilder::default();
        let _ = builder.add(IndexId::of(json), json);
    });
    torture(500, &json, |json| {
        let mut builder = IndexBuilder::default();
        if builder.add(IndexId::of(json), json).is_ok() {
            // Not counted: that table.
            let before = PEAK.get();
            let index = builder.build().unwrap();
            for (pack, blob) in index.iter() {
                assert!(index.packs().get(pack as usize).is_some());
                assert!(index.contains(blob.kind, &blob.id));
            }
            PEAK.set(before);
        }
    });
}

/// What restic and we really write, out of a small repository.
fn real_trees_and_snapshot() -> (Vec<Vec<u8>>, Vec<u8>) {
    let repository = init(Arc::new(MemoryStorage::new())).unwrap();
    let files = [
        ("dump/toc.dat", rows(1, 2000)),
        ("dump/\u{1f6df} \"x\\\n", noise(2, 5000)),
        ("empty", Vec::new()),
    ];
    let (snapshot, _) = back_up(&repository, 1, &files, 1 << 20).unwrap();
    let node = r#"{"nodes":[{"name":"a\\x01\\u2028","type":"symlink","mode":134218239,"linktarget":"b","content":null,
        "inode":5,"links":1,"mtime":"2026-03-01T09:00:00.5+01:00","uid":1,"gid":1},
        {"name":"d","type":"dir","subtree":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"name":"f","type":"file","size":3,"content":["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]}]}"#;
    (
        vec![node.as_bytes().to_vec()],
        serde_json::to_vec(&snapshot).unwrap(),
    )
}

#[test]
fn tree_parser_survives() {
    for json in real_trees_and_snapshot().0 {
        torture(20_000, &json, |json| {
            let _ = Tree::parse(json);
        });
    }
}

#[test]
fn snapshot_parser_survives() {
    let (_, json) = real_trees_and_snapshot();
    torture(20_000, &json, |json| {
        let _ = Snapshot::parse(SnapshotId::of(b""), json);
    });
}

#[test]
fn pack_header_parser_survives() {
    let sealer = Sealer::new(&MasterKey::random().unwrap());
    let mut plain = Vec::new();
    for blob in blobs() {
        plain.push(
            u8::from(blob.kind == BlobKind::Tree)
                | u8::from(blob.uncompressed_length.is_some()) << 1,
        );
        plain.extend_from_slice(&blob.length.to_le_bytes());
        plain.extend(
            blob.uncompressed_length
                .iter()
                .flat_map(|length| length.to_le_bytes()),
        );
        plain.extend_from_slice(blob.id.as_bytes());
    }
    let blobs_end = blobs()
        .iter()
        .map(|blob| u64::from(blob.length))
        .sum::<u64>();
    let whole = blobs_end + plain.len() as u64 + pack::FIXED_BYTES as u64;
    let mut sealed = sealer.seal(&plain).unwrap();
    assert_eq!(
        pack::parse_header(&mut sealed, whole, &sealer).unwrap(),
        blobs()
    );

    let (mut accepted, mut random) = (0, Random(1));
    torture(20_000, &plain, |plain| {
        let mut sealed = sealer.seal(plain).unwrap();
        let pack_bytes = blobs_end + plain.len() as u64 + pack::FIXED_BYTES as u64;
        if let Ok(blobs) = pack::parse_header(&mut sealed, pack_bytes, &sealer) {
            accepted += 1;
            let end = blobs
                .last()
                .map_or(0, |blob| u64::from(blob.offset) + u64::from(blob.length));
            assert_eq!(
                end + plain.len() as u64 + pack::FIXED_BYTES as u64,
                pack_bytes
            );
        }
        // What was tampered with does not even get to the parser.
        let mut tampered = sealed;
        let at = random.below(tampered.len());
        tampered[at] ^= 1;
        assert!(pack::parse_header(&mut tampered, pack_bytes, &sealer).is_err());
    });
    assert!(accepted > 100, "some mutations only change an identity");
    for field in 0..100_000u32 {
        let field = field.wrapping_mul(0x9e37_79b9).to_le_bytes();
        if let Ok(length) = pack::header_length(field, 1 << 20) {
            assert!(length <= 1 << 20);
        }
    }
}

#[test]
fn blob_opener_survives() {
    let sealer = Sealer::new(&MasterKey::random().unwrap());
    let mut opener = BlobOpener::new(sealer.clone()).unwrap();
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let text = rows(1, 300);
    let id = BlobId::of(&text);
    let mut builder = PackBuilder::new(BlobKind::Data, Vec::new());
    builder
        .add(id, &text, &mut compressor, &sealer, &mut Nonces::default())
        .unwrap();
    let finished = builder.finish(&sealer, &mut Nonces::default()).unwrap();
    let blob = finished.blobs[0];
    let mut sealed = finished.bytes[..blob.length as usize].to_vec();
    let compressed = sealer.open_in_place(&mut sealed).unwrap().to_vec();
    let mut random = Random(5);
    // Authentic, but not what was once compressed: what a bug or someone with the key could leave.
    torture(5_000, &compressed, |compressed| {
        let mut sealed = sealer.seal(compressed).unwrap();
        let promised = [blob.uncompressed_length, None, Some(1), Some(60_000)][random.below(4)];
        let claim = PackedBlob {
            length: sealed.len() as u32,
            uncompressed_length: promised,
            ..blob
        };
        if let Ok(plain) = opener.open(&claim, &mut sealed) {
            assert_eq!(BlobId::of(plain), id);
        }
    });
    // A promise beyond what is believed takes no memory at all.
    let claim = PackedBlob {
        uncompressed_length: Some(u32::MAX),
        ..blob
    };
    let mut sealed = finished.bytes[..blob.length as usize].to_vec();
    let peak = peak_of(|| assert!(opener.open(&claim, &mut sealed).is_err()));
    assert!(peak < 4096, "{peak}");
}
