//! Custom-format archives: read to the end, written, damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod archive_support;

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::Stdio;

use archive_support::{check, fixture, fixtures, listing, plain_dump, run, sample, tool};
use lifeboat_pg::archive::{
    Archive, ArchiveError, Block, Compression, Content, CustomReader, CustomWriter, DataRef,
    EntryReader, WriteCompression,
};
use lifeboat_testkit::TestServer;

/// Writes an archive's copy, entry by entry, and returns it.
fn rewrite(archive: &[u8], compression: WriteCompression) -> Vec<u8> {
    let mut reader = CustomReader::new(archive).unwrap();
    let toc = reader.archive().clone();
    let mut writer = CustomWriter::new(Cursor::new(Vec::new()), &toc, compression).unwrap();
    while let Some(block) = reader.next_block().unwrap() {
        match block {
            Block::Data(dump_id, mut stream) => {
                writer.copy_data(dump_id, &mut stream).unwrap();
            }
            Block::Blobs(mut blobs) => {
                let mut out = writer.blobs(blobs.dump_id()).unwrap();
                while let Some((oid, mut stream)) = blobs.next_blob().unwrap() {
                    let mut blob = out.blob(oid).unwrap();
                    blob.copy(&mut stream).unwrap();
                    blob.finish().unwrap();
                }
                out.finish().unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

/// Every entry's data: number, OID (0 for rows), content.
fn contents(archive: &[u8]) -> Vec<(i32, u32, Vec<u8>)> {
    let mut reader = CustomReader::new(archive).unwrap();
    let mut found = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        match block {
            Block::Data(dump_id, mut stream) => {
                let mut content = Vec::new();
                stream.read_to_end(&mut content).unwrap();
                found.push((dump_id, 0, content));
            }
            Block::Blobs(mut blobs) => {
                let dump_id = blobs.dump_id();
                while let Some((oid, mut stream)) = blobs.next_blob().unwrap() {
                    let mut content = Vec::new();
                    while let Some(bytes) = stream.next_slice().unwrap() {
                        content.extend_from_slice(bytes);
                    }
                    found.push((dump_id, oid, content));
                }
            }
        }
    }
    found
}

#[test]
fn every_version_and_compression_is_read_to_its_end() {
    for (name, bytes) in fixtures() {
        let summary = check(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(summary.tables, 12, "{name}");
        assert_eq!(summary.large_objects, 4, "{name}");
        assert_eq!(summary.data_bytes, 13742, "{name}");
        assert_eq!(summary.archive_bytes, bytes.len() as u64, "{name}");
    }
}

#[test]
fn contents_are_what_was_stored() {
    for (name, bytes) in fixtures() {
        let contents = contents(&bytes);
        let blob = |wanted| {
            &contents
                .iter()
                .find(|(_, oid, _)| *oid == wanted)
                .unwrap()
                .2
        };
        assert_eq!(blob(900_001), b"first large object", "{name}");
        assert_eq!(*blob(900_002), b"\x00\xff\x0a".repeat(3000), "{name}");
        assert_eq!(blob(900_003), b"", "{name}");
        assert_eq!(blob(3_000_000_000), b"an OID beyond 2^31", "{name}");

        let archive = Archive::read_toc(&mut bytes.as_slice()).unwrap();
        let table = |tag: &str| {
            let entry = archive.data_entries().find(|entry| {
                entry.tag.as_ref().unwrap() == tag && entry.namespace.as_ref().unwrap() == "public"
            });
            let wanted = entry.unwrap().dump_id;
            &contents
                .iter()
                .find(|(dump_id, _, _)| *dump_id == wanted)
                .unwrap()
                .2
        };
        assert_eq!(table("users"), b"42\n\\.\n\n\n", "{name}");
        assert_eq!(table("bare"), b"\n\n\\.\n\n\n", "{name}");
        assert_eq!(table("empty"), b"\\.\n\n\n", "{name}");
    }
}

#[test]
fn a_copy_has_the_same_contents_and_knows_where_they_are() {
    for (name, bytes) in fixtures() {
        for compression in [WriteCompression::None, WriteCompression::Gzip(1)] {
            let copy = rewrite(&bytes, compression);
            check(&copy).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(contents(&copy), contents(&bytes), "{name}");

            let (before, after) = (
                Archive::read_toc(&mut bytes.as_slice()).unwrap(),
                Archive::read_toc(&mut copy.as_slice()).unwrap(),
            );
            assert_eq!(after.header.version, before.header.version);
            assert_eq!(
                after.header.compression == Compression::None,
                compression == WriteCompression::None
            );
            for (before, after) in before.entries.iter().zip(&after.entries) {
                assert_eq!(
                    matches!(after.data, DataRef::At(_)),
                    before.has_data(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn pg_dump_redirected_into_a_file_is_complete() {
    // Since 16, `pg_dump -Fc > file` leaves a second table of contents at the end.
    let bytes = fixture("pg16-z6-redirect");
    let mut reader = CustomReader::new(bytes.as_slice()).unwrap();
    while reader.next_block().unwrap().is_some() {}
    assert!(reader.toc_repeated());

    // But only exactly that may follow.
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(check(&longer), Err(ArchiveError::Damaged { .. })));
    assert!(matches!(
        check(&bytes[..bytes.len() - 1]),
        Err(ArchiveError::Damaged { .. })
    ));
}

#[test]
fn an_archive_cut_anywhere_is_incomplete() {
    for (name, bytes) in fixtures() {
        let whole = CustomReader::new(bytes.as_slice()).map(|mut reader| {
            while reader.next_block().unwrap().is_some() {}
            reader.toc_repeated()
        });
        let step = if cfg!(debug_assertions) { 37 } else { 1 };
        for end in (0..bytes.len())
            .step_by(step)
            .chain(bytes.len() - 20..bytes.len())
        {
            let result = check(&bytes[..end]);
            // Cut exactly before the repeated table of contents, it is whole.
            if let (Ok(summary), Ok(true)) = (&result, &whole) {
                assert_eq!(summary.archive_bytes, end as u64);
                continue;
            }
            match result.expect_err(name) {
                ArchiveError::Truncated { .. }
                | ArchiveError::MissingData { .. }
                | ArchiveError::NotAnArchive {
                    found: Content::Empty,
                } => {}
                ArchiveError::Damaged { what, .. } if what.contains("follow") => {}
                other => panic!("{name} cut at {end}: {other}"),
            }
        }
    }
}

#[test]
fn a_missing_block_and_a_doubled_one_are_named() {
    let bytes = rewrite(&fixture("pg15-z6"), WriteCompression::None);
    let archive = Archive::read_toc(&mut bytes.as_slice()).unwrap();
    let mut places: Vec<usize> = archive
        .data_entries()
        .map(|entry| match entry.data {
            DataRef::At(offset) => usize::try_from(offset).unwrap(),
            _ => panic!("no offset"),
        })
        .collect();
    places.push(bytes.len());

    let last = places[places.len() - 2];
    assert!(matches!(
        check(&bytes[..last]),
        Err(ArchiveError::MissingData { .. })
    ));

    let doubled = [&bytes[..], &bytes[last..]].concat();
    assert!(matches!(check(&doubled), Err(ArchiveError::Damaged { .. })));

    // The table of contents says where: a block elsewhere is not to be found by pg_restore -j.
    let (first, second) = (places[0], places[1]);
    let moved = [&bytes[..first], &bytes[second..], &bytes[first..second]].concat();
    assert!(matches!(check(&moved), Err(ArchiveError::Damaged { .. })));
}

#[test]
fn damaged_compressed_data_is_noticed() {
    let bytes = fixture("pg15-z6");
    let archive = Archive::read_toc(&mut bytes.as_slice()).unwrap();
    let DataRef::At(start) = archive.data_entries().next().unwrap().data else {
        panic!()
    };
    for at in usize::try_from(start).unwrap()..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        // A compressed stream's last byte may have bits that mean nothing.
        if check(&damaged).is_ok() {
            assert_eq!(contents(&damaged), contents(&bytes), "byte {at}");
        }
    }
}

#[test]
fn what_is_no_archive_is_named() {
    let tar = {
        let mut tar = vec![0; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        tar
    };
    let cases: [(&[u8], Content); 8] = [
        (b"", Content::Empty),
        (
            b"--\n-- PostgreSQL database dump\n--\n\nSET x;",
            Content::PlainDump,
        ),
        (
            b"--\n-- PostgreSQL database cluster dump\n--\n\n",
            Content::PlainClusterDump,
        ),
        (&tar, Content::Tar),
        (b"\x1f\x8b\x08", Content::Gzip),
        (b"\x28\xb5\x2f\xfd", Content::Zstd),
        (b"pg_dump: error: connection failed", Content::OtherText),
        (b"\x00\x01\x02", Content::Unknown),
    ];
    for (bytes, wanted) in cases {
        match check(bytes) {
            Err(ArchiveError::NotAnArchive { found }) => assert_eq!(found, wanted),
            other => panic!("{wanted:?}: {other:?}"),
        }
    }
    for (minor, supported) in [(11, false), (12, true), (16, true), (17, false)] {
        let error = check(&[b"PGDMP".as_slice(), &[1, minor, 0]].concat()).unwrap_err();
        assert_eq!(
            matches!(error, ArchiveError::UnsupportedVersion { .. }),
            !supported
        );
    }
}

#[test]
fn a_writer_refuses_to_leave_holes() {
    let toc = Archive::read_toc(&mut fixture("pg15-z6").as_slice()).unwrap();
    let writer =
        || CustomWriter::new(Cursor::new(Vec::new()), &toc, WriteCompression::None).unwrap();
    let table = toc
        .data_entries()
        .find(|entry| entry.is("TABLE DATA"))
        .unwrap()
        .dump_id;
    let blobs = toc
        .data_entries()
        .find(|entry| entry.is("BLOBS"))
        .unwrap()
        .dump_id;

    assert!(matches!(
        writer().finish(),
        Err(ArchiveError::MissingData { .. })
    ));

    let mut unfinished = writer();
    unfinished.data(table).unwrap().push(b"1\n").unwrap();
    assert!(matches!(
        unfinished.data(blobs).map(drop),
        Err(ArchiveError::Unwritable { .. })
    ));
    assert!(matches!(
        unfinished.finish(),
        Err(ArchiveError::Unwritable { .. })
    ));

    let mut twice = writer();
    twice.data(table).unwrap().finish().unwrap();
    assert!(matches!(
        twice.data(table).map(drop),
        Err(ArchiveError::Unwritable { .. })
    ));
    assert!(matches!(
        twice.data(blobs).map(drop),
        Err(ArchiveError::Unwritable { .. })
    ));

    let mut writer = writer();
    let mut list = writer.blobs(blobs).unwrap();
    list.blob(1).unwrap().push(b"half").unwrap();
    assert!(matches!(
        list.blob(2).map(drop),
        Err(ArchiveError::Unwritable { .. })
    ));
    assert!(matches!(
        list.finish(),
        Err(ArchiveError::Unwritable { .. })
    ));
}

#[test]
fn stock_pg_restore_takes_what_was_written() {
    let server = TestServer::shared();
    let database = sample(server);
    let folder = tempfile::tempdir().unwrap();
    let stock = folder.path().join("stock.dump");
    run(tool(server, "pg_dump", database.name())
        .args(["-Fc", "-Z6", "-f"])
        .arg(&stock));
    let bytes = fs::read(&stock).unwrap();

    for compression in [
        WriteCompression::None,
        WriteCompression::Gzip(1),
        WriteCompression::Gzip(9),
    ] {
        let ours = folder.path().join("ours.dump");
        fs::write(&ours, rewrite(&bytes, compression)).unwrap();
        assert_eq!(listing(server, &ours), listing(server, &stock));
        restore_and_compare(server, &database, &ours);
    }
}

/// Restores three ways: one connection, two connections, from a pipe.
fn restore_and_compare(
    server: &TestServer,
    database: &lifeboat_testkit::TestDatabase<'_>,
    archive: &Path,
) {
    let wanted = plain_dump(database);
    for jobs in ["1", "2"] {
        let restored = server.database("restored");
        run(tool(server, "pg_restore", restored.name())
            .args(["-e", "-j", jobs, "-d", restored.name()])
            .arg(archive));
        assert_eq!(plain_dump(&restored), wanted);
    }
    let restored = server.database("restored");
    let mut cat = std::process::Command::new("cat")
        .stdin(File::open(archive).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    run(tool(server, "pg_restore", restored.name())
        .args(["-e", "-d", restored.name()])
        .stdin(cat.stdout.take().unwrap()));
    assert!(cat.wait().unwrap().success());
    assert_eq!(plain_dump(&restored), wanted);
}

#[test]
fn entries_are_read_from_their_places() {
    for (name, bytes) in fixtures() {
        let expected = contents(&bytes);
        let mut reader = CustomReader::new(bytes.as_slice()).unwrap();
        let spans = reader.spans().unwrap();
        let archive = reader.archive();
        assert!(!spans.is_empty(), "{name}");
        // Backwards: no entry depends on the one before.
        let mut found = Vec::new();
        let mut entries: Option<EntryReader<&[u8]>> = None;
        for span in spans.iter().rev() {
            let entry = archive.entry(span.dump_id).unwrap();
            let place = usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap();
            let part = &bytes[place];
            let reader = match &mut entries {
                Some(reader) => {
                    reader.move_to(part, entry, span.start).unwrap();
                    reader
                }
                empty => empty
                    .insert(EntryReader::new(part, &archive.header, entry, span.start).unwrap()),
            };
            if entry.is("BLOBS") {
                while let Some((oid, mut stream)) = reader.next_blob().unwrap() {
                    let mut content = Vec::new();
                    stream.read_to_end(&mut content).unwrap();
                    found.push((span.dump_id, oid, content));
                }
            } else {
                let mut content = Vec::new();
                reader.rows().unwrap().read_to_end(&mut content).unwrap();
                found.push((span.dump_id, 0, content));
            }
        }
        let sorted = |mut list: Vec<(i32, u32, Vec<u8>)>| {
            list.sort();
            list
        };
        assert_eq!(sorted(found), sorted(expected), "{name}");

        // Anywhere else there is none.
        let entry = archive.entry(spans[0].dump_id).unwrap();
        let from = usize::try_from(spans[0].start).unwrap();
        for offset in [from - 1, from + 1, bytes.len()] {
            let part = &bytes[offset..];
            assert!(EntryReader::new(part, &archive.header, entry, 0).is_err());
        }
        // And a file that ends inside a block has no places.
        for cut in [1, 7, bytes.len() - from] {
            let mut reader = CustomReader::new(&bytes[..bytes.len() - cut]).unwrap();
            assert!(reader.spans().is_err(), "{name} without {cut}");
        }
    }
}
