#![expect(clippy::unwrap_used)]
use super::*;
use crate::storage::{MemoryStorage, Storage};
use crate::writer::WriterOptions;
use crate::writer::tests::{directory, draft, repository, rows, store};
use proptest::prelude::*;
use std::io::Read;

/// A repository with `files`, in packs of 64 KiB.
fn stored(files: &[(&str, &[u8])]) -> (Repository, Snapshot) {
    let repository = repository();
    let snapshot = add(&repository, files);
    (repository, snapshot)
}

fn add(repository: &Repository, files: &[(&str, &[u8])]) -> Snapshot {
    let options = WriterOptions {
        pack_size_bytes: 64 << 10,
        ..WriterOptions::default()
    };
    let writer = repository.writer(options).unwrap();
    let contents: Vec<_> = files
        .iter()
        .map(|(path, bytes)| (*path, store(&writer, bytes)))
        .collect();
    let contents: Vec<_> = contents
        .iter()
        .map(|(path, content)| (*path, content))
        .collect();
    writer.commit(&directory(&contents), draft()).unwrap().0
}

fn content(reader: &Reader, snapshot: &Snapshot, path: &str) -> FileContent {
    let node = reader.find(snapshot, path).unwrap();
    let content = reader.content(&node).unwrap();
    assert_eq!(content.size_bytes, node.size);
    content
}

#[test]
fn reads_back_what_was_written() {
    let bytes = rows(0, 50_000);
    let (repository, snapshot) = stored(&[
        ("dump/a/data.dat", &bytes),
        ("dump/empty", b""),
        ("small", b"x"),
    ]);
    let reader = repository.reader().unwrap();
    for (path, expected) in [
        ("dump/a/data.dat", &bytes[..]),
        ("dump/empty", b""),
        ("small", b"x"),
    ] {
        let mut file = reader.open(&content(&reader, &snapshot, path)).unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = file.next_chunk().unwrap() {
            assert!(!chunk.is_empty());
            read.extend_from_slice(chunk);
        }
        assert!(read == expected, "{path}");
        assert!(file.next_chunk().unwrap().is_none());
    }
}

#[test]
fn finds_and_walks() {
    let (repository, snapshot) = stored(&[
        ("dump/b/data.dat", b"1"),
        ("dump/toc.dat", b"2"),
        ("zz", b"3"),
    ]);
    let reader = repository.reader().unwrap();
    let mut paths = Vec::new();
    let walked: Result<(), RepositoryError> = reader.walk(&snapshot, |path, node| {
        paths.push(format!(
            "{path}{}",
            if node.kind == NodeKind::Dir { "/" } else { "" }
        ));
        Ok(())
    });
    walked.unwrap();
    assert_eq!(
        paths,
        ["dump/", "dump/b/", "dump/b/data.dat", "dump/toc.dat", "zz"]
    );
    assert_eq!(
        reader.find(&snapshot, "/dump/b").unwrap().kind,
        NodeKind::Dir
    );
    for missing in ["", "nope", "dump/nope", "zz/deeper"] {
        let error = reader.find(&snapshot, missing).unwrap_err();
        assert!(
            matches!(error, RepositoryError::NoSuchFile { .. }),
            "{missing}: {error}"
        );
    }
}

#[test]
fn a_repeated_chunk_is_stored_and_read_once() {
    let mut bytes = vec![0; 1 << 20];
    bytes.extend_from_slice(b"end");
    let (repository, snapshot) = stored(&[("zeros", &bytes)]);
    let reader = repository.reader().unwrap();
    let mut read = Vec::new();
    reader
        .open(&content(&reader, &snapshot, "zeros"))
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert!(read == bytes);
    assert!(reader.index().len() <= 4);
}

#[test]
fn every_flipped_byte_of_a_pack_is_noticed() {
    let storage = Arc::new(MemoryStorage::new());
    let bytes = rows(0, 300);
    let (repository, snapshot) = stored(&[("a", &bytes)]);
    for kind in [
        FileKind::Config,
        FileKind::Key,
        FileKind::Index,
        FileKind::Snapshot,
        FileKind::Pack,
    ] {
        for file in repository.storage().list(kind).unwrap() {
            storage.overwrite(
                kind,
                &file.name,
                &repository.storage().read(kind, &file.name).unwrap(),
            );
        }
    }
    let copy = Repository::open(storage.clone(), &crate::writer::tests::password()).unwrap();
    let whole = copy.reader().unwrap();
    let place = whole
        .locate(BlobKind::Data, &content(&whole, &snapshot, "a").chunks[0])
        .unwrap();
    let name = place.pack.to_string();
    let pack = storage.read(FileKind::Pack, &name).unwrap();
    for at in (place.blob.offset..place.blob.offset + place.blob.length).step_by(97) {
        let mut changed = pack.clone();
        changed[at as usize] ^= 0x10;
        storage.overwrite(FileKind::Pack, &name, &changed);
        let reader = copy.reader().unwrap();
        let mut file = reader.open(&content(&reader, &snapshot, "a")).unwrap();
        let error = file.next_chunk().unwrap_err();
        assert!(
            matches!(&error, RepositoryError::Damaged { kind: FileKind::Pack, name: n, .. } if *n == name),
            "{error}"
        );
    }
}

/// The pack of the first backup is lost; the second one stored its blobs again, while the old index still says
/// that they are in the lost pack.
#[test]
fn another_copy_serves_when_a_pack_is_lost() {
    let bytes = rows(0, 3000);
    let (repository, first) = stored(&[("a", &bytes)]);
    let reader = repository.reader().unwrap();
    let place = reader
        .locate(BlobKind::Data, &content(&reader, &first, "a").chunks[0])
        .unwrap();
    repository
        .storage()
        .delete(FileKind::Pack, &place.pack.to_string())
        .unwrap();
    let mut file = reader.open(&content(&reader, &first, "a")).unwrap();
    let error = file.next_chunk().unwrap_err();
    assert!(matches!(error, RepositoryError::Storage(_)), "{error}");
    add(&repository, &[("a", &bytes)]);
    let reader = repository.reader().unwrap();
    let mut read = Vec::new();
    reader
        .open(&content(&reader, &first, "a"))
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert!(read == bytes);
    let mut some = [0; 100];
    assert_eq!(
        reader
            .read_at(&content(&reader, &first, "a"), 5, &mut some)
            .unwrap(),
        100
    );
    assert_eq!(some, bytes[5..105]);
}

#[test]
fn a_chunk_that_no_index_lists_is_named() {
    let (repository, _) = stored(&[("a", b"abc")]);
    let reader = repository.reader().unwrap();
    let stranger = FileContent {
        chunks: vec![BlobId::of(b"stranger")],
        size_bytes: 8,
    };
    let error = reader.open(&stranger).unwrap().next_chunk().unwrap_err();
    assert!(matches!(
        error,
        RepositoryError::MissingBlob {
            kind: BlobKind::Data,
            ..
        }
    ));
    assert!(matches!(
        reader.open_range(&stranger, 0..1),
        Err(RepositoryError::MissingBlob { .. })
    ));
    assert!(matches!(
        reader.read_at(&stranger, 0, &mut [0]),
        Err(RepositoryError::MissingBlob { .. })
    ));
    assert_eq!(
        reader
            .open(&FileContent::default())
            .unwrap()
            .next_chunk()
            .unwrap(),
        None
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn any_part_is_what_was_written_there(
        parts in prop::collection::vec((0u32..20_000, 0u32..6000), 1..4),
        ranges in prop::collection::vec((0u64..1_000_000, 0u64..300_000), 20),
    ) {
        let bytes: Vec<u8> = parts.iter().flat_map(|(from, count)| rows(*from, from + count)).collect();
        let (repository, snapshot) = stored(&[("a", &bytes)]);
        let reader = repository.reader().unwrap();
        let content = content(&reader, &snapshot, "a");
        let random = reader.random(&content).unwrap();
        prop_assert_eq!(random.size_bytes(), bytes.len() as u64);
        for (start, length) in ranges {
            let length_of_file = bytes.len() as u64;
            let expected = &bytes[start.min(length_of_file) as usize..(start + length).min(length_of_file) as usize];
            let mut read = Vec::new();
            reader.open_range(&content, start..start + length).unwrap().read_to_end(&mut read).unwrap();
            prop_assert!(read == expected);
            let mut buffer = vec![0; length as usize];
            let count = random.read_at(start, &mut buffer).unwrap();
            prop_assert!(buffer[..count] == *expected);
        }
    }
}
