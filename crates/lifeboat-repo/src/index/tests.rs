#![expect(clippy::unwrap_used)]
use super::*;

fn blob(seed: u32, kind: BlobKind) -> PackedBlob {
    PackedBlob {
        id: BlobId::of(&seed.to_le_bytes()),
        kind,
        offset: seed,
        length: 100 + seed,
        uncompressed_length: seed.is_multiple_of(2).then_some(500 + seed),
    }
}

fn file_id(text: &str) -> IndexId {
    IndexId::of(text.as_bytes())
}

#[test]
fn finds_what_was_written() {
    let pack = PackId::of(b"pack");
    let blobs: Vec<_> = (0..5000).map(|seed| blob(seed, BlobKind::Data)).collect();
    let json = write([(&pack, blobs.as_slice())].into_iter());
    let mut builder = IndexBuilder::default();
    builder.add(file_id("a"), &json).unwrap();
    // The same pack in a second file changes nothing.
    builder.add(file_id("b"), &json).unwrap();
    let index = builder.build().unwrap();
    assert_eq!(index.len(), 5000);
    for blob in blobs {
        assert_eq!(
            index.get(BlobKind::Data, &blob.id),
            Some(BlobLocation { pack, blob })
        );
        assert!(!index.contains(BlobKind::Tree, &blob.id));
    }
    assert_eq!(index.get(BlobKind::Data, &BlobId::of(b"other")), None);
    assert!(!Index::empty().contains(BlobKind::Data, &BlobId::of(b"other")));
}

#[test]
fn data_and_tree_of_one_content_are_two_blobs() {
    let (first, second) = (PackId::of(b"1"), PackId::of(b"2"));
    let (data, tree) = ([blob(7, BlobKind::Data)], [blob(7, BlobKind::Tree)]);
    let json = write([(&first, &data[..]), (&second, &tree[..])].into_iter());
    let mut builder = IndexBuilder::default();
    builder.add(file_id("a"), &json).unwrap();
    let index = builder.build().unwrap();
    assert_eq!(index.get(BlobKind::Data, &data[0].id).unwrap().pack, first);
    assert_eq!(index.get(BlobKind::Tree, &data[0].id).unwrap().pack, second);
}

#[test]
fn superseded_files_do_not_count() {
    let pack = PackId::of(b"1");
    let blobs = [blob(1, BlobKind::Data)];
    let old = write([(&pack, &blobs[..])].into_iter());
    let new = format!("{{\"supersedes\":[\"{}\"],\"packs\":[]}}", file_id("old"));
    for order in [["old", "new"], ["new", "old"]] {
        let mut builder = IndexBuilder::default();
        for name in order {
            let json = if name == "old" { &old } else { new.as_bytes() };
            builder.add(file_id(name), json).unwrap();
        }
        assert!(builder.build().unwrap().is_empty());
    }
}

#[test]
fn refuses_what_cannot_be() {
    let id = BlobId::of(b"");
    let pack = PackId::of(b"");
    let blob = |fields: &str| {
        format!(
            "{{\"packs\":[{{\"id\":\"{pack}\",\"blobs\":[{{\"id\":\"{id}\",\"type\":\"data\",{fields}}}]}}]}}"
        )
    };
    for bad in [
        blob("\"offset\":0,\"length\":31"),
        blob("\"offset\":4294967295,\"length\":40"),
        blob("\"offset\":0,\"length\":2147483648"),
        blob("\"offset\":-1,\"length\":40"),
        blob("\"offset\":0,\"length\":99999999999"),
        "[]".to_owned(),
        "{\"packs\":1}".to_owned(),
        "[".repeat(100_000),
    ] {
        let mut builder = IndexBuilder::default();
        builder.add(file_id("a"), bad.as_bytes()).unwrap_err();
        assert!(builder.build().unwrap().is_empty());
    }
    for good in ["{}", "{\"packs\":null,\"future\":{\"a\":[1]}}"] {
        IndexBuilder::default()
            .add(file_id("a"), good.as_bytes())
            .unwrap();
    }
}
