//! Archives nobody wrote: generated ones survive a round trip, mutated ones do no harm.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod archive_support;
mod counting;

use std::time::{Duration, Instant};

use archive_support::{check, fixtures};
use counting::peak_bytes;
use lifeboat_pg::archive::{
    Archive, ArchiveError, ArchiveFormat, Compression, CopyTarget, DataRef, Header, LocalTime,
    Section, Text, TocEntry, Version,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        "[a-z_]{0,12}".prop_map(Text::from),
        vec(any::<u8>(), 0..40).prop_map(Text::from),
        "[a-zé\" .\n]{0,300}".prop_map(Text::from),
    ]
}

fn optional() -> impl Strategy<Value = Option<Text>> {
    proptest::option::of(text())
}

fn header() -> impl Strategy<Value = Header> {
    let fields = (-1..70, 0..60, 0..24, 1..32, 0..12, -2000..3000, -1..2);
    let created = fields.prop_map(
        |(second, minute, hour, day, month, year, is_dst)| LocalTime {
            second,
            minute,
            hour,
            day,
            month,
            year,
            is_dst,
        },
    );
    let sizes = (4u8..=32, 4u8..=32);
    (
        12u8..=16,
        any::<u8>(),
        sizes,
        any::<bool>(),
        0..4,
        -1..10,
        created,
        [optional(), optional(), optional()],
    )
        .prop_map(
            |(minor, revision, (int_size, off_size), custom, algorithm, level, created, names)| {
                let version = Version { minor, revision };
                let compression = match (version.has_compression_algorithm(), algorithm, level) {
                    (true, 0, _) | (false, _, 0) => Compression::None,
                    (true, 1, _) => Compression::Gzip { level: None },
                    (true, 2, _) => Compression::Lz4,
                    (true, _, _) => Compression::Zstd,
                    (false, _, level) => Compression::Gzip { level: Some(level) },
                };
                let format = if custom {
                    ArchiveFormat::Custom
                } else {
                    ArchiveFormat::Directory
                };
                let [database, server_version, pg_dump_version] = names;
                Header {
                    version,
                    int_size,
                    off_size,
                    format,
                    compression,
                    created,
                    database,
                    server_version,
                    pg_dump_version,
                }
            },
        )
}

fn entry(header: &Header) -> impl Strategy<Value = TocEntry> + use<> {
    let version = header.version;
    let data = if header.format == ArchiveFormat::Custom {
        prop_oneof![
            Just(DataRef::None),
            Just(DataRef::Unplaced),
            // What fits the smallest offsets.
            (0..u64::from(u32::MAX)).prop_map(DataRef::At),
        ]
        .boxed()
    } else {
        prop_oneof![
            Just(DataRef::None),
            "[a-z/.]{1,30}".prop_map(|file| DataRef::File(file.into()))
        ]
        .boxed()
    };
    let section = prop_oneof![
        Just(Section::None),
        Just(Section::PreData),
        Just(Section::Data),
        Just(Section::PostData),
    ];
    let numbers = (
        any::<bool>(),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
        0..128,
    );
    let texts = [
        optional(),
        optional(),
        optional(),
        optional(),
        optional(),
        optional(),
        optional(),
        optional(),
    ];
    (
        numbers,
        texts,
        text(),
        section,
        vec(any::<i32>(), 0..5),
        data,
    )
        .prop_map(
            move |(
                (had_dumper, catalog_oid, oid, with_oids, relkind),
                texts,
                desc,
                section,
                dependencies,
                data,
            )| {
                let [
                    tag,
                    defn,
                    drop_stmt,
                    copy_stmt,
                    namespace,
                    tablespace,
                    table_am,
                    owner,
                ] = texts;
                TocEntry {
                    dump_id: 0,
                    had_dumper,
                    catalog_oid,
                    oid,
                    tag,
                    desc,
                    section,
                    defn,
                    drop_stmt,
                    copy_stmt,
                    namespace,
                    tablespace,
                    table_am: table_am.filter(|_| version.has_table_am()),
                    relkind: if version.has_blob_groups() {
                        relkind
                    } else {
                        0
                    },
                    owner,
                    with_oids,
                    dependencies,
                    data,
                }
            },
        )
}

fn archive() -> impl Strategy<Value = Archive> {
    header().prop_flat_map(|header| {
        let entries = vec(entry(&header), 0..6);
        (Just(header), entries).prop_map(|(header, mut entries)| {
            for (number, entry) in (1..).zip(&mut entries) {
                entry.dump_id = number * 7;
            }
            Archive { header, entries }
        })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_and_nothing_beyond(
        archive in archive(),
        rest in vec(any::<u8>(), 0..9),
    ) {
        let mut bytes = Vec::new();
        archive.write_toc(&mut bytes).unwrap();
        bytes.extend_from_slice(&rest);
        let mut input = bytes.as_slice();
        prop_assert_eq!(Archive::read_toc(&mut input).unwrap(), archive);
        prop_assert_eq!(input, rest);
    }

    #[test]
    fn a_toc_cut_anywhere_is_truncated(archive in archive(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        archive.write_toc(&mut bytes).unwrap();
        bytes.truncate(cut.index(bytes.len()));
        let error = Archive::read_toc(&mut bytes.as_slice()).unwrap_err();
        let expected = match error {
            ArchiveError::Truncated { offset, .. } => offset == bytes.len() as u64,
            ArchiveError::NotAnArchive { .. } => bytes.is_empty(),
            _ => false,
        };
        prop_assert!(expected, "{}", error);
    }

    #[test]
    fn a_toc_becomes_a_directorys(archive in archive()) {
        let mut bytes = Vec::new();
        archive.write_directory_toc(&mut bytes).unwrap();
        let directory = Archive::read_toc(&mut bytes.as_slice()).unwrap();
        prop_assert_eq!(directory.header.format, ArchiveFormat::Directory);
        for (before, after) in archive.entries.iter().zip(&directory.entries) {
            prop_assert_eq!(directory.data_file(after), archive.data_file(before));
            prop_assert_eq!(after.has_data(), before.has_data());
        }
    }

    #[test]
    fn any_text_as_a_copy_statement_does_no_harm(statement in "(COPY |[a-z]|[\"(),. ;]|FROM stdin|é){0,20}") {
        if let Some(target) = CopyTarget::parse(&statement) {
            let again = CopyTarget::parse(&format!("{};", target.copy_from().replace("STDIN", "stdin")));
            prop_assert_eq!(again, Some(target));
        }
    }
}

#[test]
fn what_pg_dump_wrote_is_written_again_byte_for_byte() {
    for (name, bytes) in fixtures() {
        let mut input = bytes.as_slice();
        let archive = Archive::read_toc(&mut input).unwrap();
        let mut again = Vec::new();
        archive.write_toc(&mut again).unwrap();
        assert!(again == bytes[..bytes.len() - input.len()], "{name}");
    }
}

/// A small generator with a period of 2^64: the same mutations on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((value ^ (value >> 31)) % limit as u64).unwrap()
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        let length = 1 + random.below(40);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 3, 0x7f, 0x80, 0xff][random.below(6)],
            2 => bytes.truncate(at.max(1)),
            3 => {
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + length).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            // A large number where a length might be.
            _ => {
                let number: [u8; 5] = [
                    0,
                    0xff,
                    0xff,
                    0xff,
                    [0x0f, 0x3f, 0x7f, 0xff][random.below(4)],
                ];
                let end = (at + number.len()).min(bytes.len());
                bytes.splice(at..end, number);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// Mutates the fixtures for a while. `read` must return without a panic and within `limit` bytes of memory.
fn fuzz(limit: usize, mut read: impl FnMut(&[u8])) {
    let fixtures = fixtures();
    let mut random = Random(20_260_301);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for _ in 0..50 {
            let mut bytes = fixtures[random.below(fixtures.len())].1.clone();
            mutate(&mut random, &mut bytes);
            let peak = peak_bytes(|| read(&bytes));
            assert!(
                peak < limit,
                "{peak} bytes of memory for an archive of {}",
                bytes.len()
            );
        }
    }
}

#[test]
fn a_mutated_toc_does_no_harm() {
    fuzz(1 << 20, |bytes| {
        if let Ok(archive) = Archive::read_toc(&mut &*bytes) {
            for entry in &archive.entries {
                let _ = entry.copy_columns();
            }
            let mut again = Vec::new();
            archive.write_toc(&mut again).unwrap();
            assert_eq!(Archive::read_toc(&mut again.as_slice()).unwrap(), archive);
        }
    });
}

#[test]
fn a_mutated_archive_does_no_harm() {
    // Buffers for input and decoding, and zstd's window where a header is turned into one of its.
    fuzz(16 << 20, |bytes| {
        let _ = check(bytes);
    });
}
