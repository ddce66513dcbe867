#![expect(clippy::unwrap_used)]
use super::*;
use crate::seal::MasterKey;
use proptest::prelude::*;

fn sealer() -> Sealer {
    Sealer::new(&MasterKey::from_bytes(&std::array::from_fn(|i| {
        i as u8 + 1
    })))
}

fn build(kind: BlobKind, plaintexts: &[Vec<u8>]) -> PackBuilder {
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let mut pack = PackBuilder::new(kind, vec![0xee; 10]);
    for plaintext in plaintexts {
        pack.add(
            BlobId::of(plaintext),
            plaintext,
            &mut compressor,
            &sealer(),
            &mut Nonces::default(),
        )
        .unwrap();
    }
    pack
}

fn finish(pack: PackBuilder) -> FinishedPack {
    pack.finish(&sealer(), &mut Nonces::default()).unwrap()
}

fn parse(bytes: &[u8]) -> Result<Vec<PackedBlob>, PackError> {
    let (rest, field) = bytes.split_last_chunk::<LENGTH_FIELD_BYTES>().unwrap();
    let length = header_length(*field, bytes.len() as u64)?;
    parse_header(
        &mut rest[rest.len() - length..].to_vec(),
        bytes.len() as u64,
        &sealer(),
    )
}

fn open_all(pack: &FinishedPack) -> Vec<Vec<u8>> {
    let mut opener = BlobOpener::new(sealer()).unwrap();
    let mut open = |blob: &PackedBlob| {
        let mut sealed = pack.bytes[blob.offset as usize..][..blob.length as usize].to_vec();
        opener.open(blob, &mut sealed).unwrap().to_vec()
    };
    pack.blobs.iter().map(&mut open).collect()
}

/// Noise does not compress, text does, and nothing is nothing.
fn any_plaintext() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000),
        (1usize..5000).prop_map(|length| b"row\t".repeat(length)),
    ]
}

/// A header with `entries`, in a file whose blobs have `blob_bytes`.
fn parse_entries(entries: &[u8], blob_bytes: u64) -> Result<Vec<PackedBlob>, PackError> {
    let mut sealed = sealer().seal(entries).unwrap();
    let size = blob_bytes + sealed.len() as u64 + LENGTH_FIELD_BYTES as u64;
    parse_header(&mut sealed, size, &sealer())
}

fn entry(kind: u8, lengths: &[u32]) -> Vec<u8> {
    let mut entry = vec![kind];
    lengths
        .iter()
        .for_each(|length| entry.extend_from_slice(&length.to_le_bytes()));
    entry.extend_from_slice(&[7; 32]);
    entry
}

#[test]
fn the_header_is_as_the_format_says() {
    let blobs = parse_entries(&[entry(0, &[40]), entry(2, &[50, 300])].concat(), 90).unwrap();
    let id = BlobId::from_bytes([7; 32]);
    let first = PackedBlob {
        id,
        kind: BlobKind::Data,
        offset: 0,
        length: 40,
        uncompressed_length: None,
    };
    assert_eq!(
        blobs,
        [
            first,
            PackedBlob {
                offset: 40,
                length: 50,
                uncompressed_length: Some(300),
                ..first
            }
        ]
    );
    assert_eq!((first.plain_length(), blobs[1].plain_length()), (8, 300));
    assert_eq!(
        (first.header_entry_bytes(), blobs[1].header_entry_bytes()),
        (37, 41)
    );
    let trees = parse_entries(&[entry(1, &[40]), entry(3, &[50, 300])].concat(), 90).unwrap();
    assert!(trees.iter().all(|blob| blob.kind == BlobKind::Tree));
}

#[test]
fn refuses_headers_that_contradict_the_file() {
    for (bad, blob_bytes) in [
        (entry(4, &[40]), 40),
        (entry(0, &[31]), 31),
        (entry(0, &[40]), 41),
        (entry(0, &[40]), 39),
        (entry(2, &[40, 0]), 40),
        (entry(0, &[40])[..36].to_vec(), 40),
        (entry(2, &[40, 50])[..40].to_vec(), 40),
        ([entry(0, &[u32::MAX]), entry(0, &[u32::MAX])].concat(), 40),
    ] {
        parse_entries(&bad, blob_bytes).unwrap_err();
    }
    for (length, size) in [
        (0u32, 1000),
        (32, 1000),
        (68, 1000),
        (69, 72),
        (u32::MAX, 1000),
        ((16 << 20) + 1, 1 << 40),
    ] {
        header_length(length.to_le_bytes(), size).unwrap_err();
    }
    assert_eq!(header_length(69u32.to_le_bytes(), 73).unwrap(), 69);
}

#[test]
fn a_blob_that_is_not_as_promised_is_refused() {
    let pack = finish(build(BlobKind::Data, &[b"abc".repeat(100)]));
    let mut opener = BlobOpener::new(sealer()).unwrap();
    let mut open = |change: &dyn Fn(&mut PackedBlob)| {
        let mut blob = pack.blobs[0];
        let mut sealed = pack.bytes[..blob.length as usize].to_vec();
        change(&mut blob);
        opener.open(&blob, &mut sealed).map(<[u8]>::len)
    };
    assert_eq!(open(&|_| ()).unwrap(), 300);
    assert!(matches!(
        open(&|blob| blob.length += 1),
        Err(PackError::WrongLength(_))
    ));
    assert!(matches!(
        open(&|blob| blob.uncompressed_length = Some(301)),
        Err(PackError::WrongLength(_))
    ));
    assert!(matches!(
        open(&|blob| blob.id = BlobId::of(b"")),
        Err(PackError::WrongContent(_))
    ));
    assert!(matches!(
        open(&|blob| blob.uncompressed_length = None),
        Err(PackError::WrongContent(_))
    ));
    // Not even tried: it would take 4 GiB.
    assert!(matches!(
        open(&|blob| blob.uncompressed_length = Some(u32::MAX)),
        Err(PackError::Malformed(_))
    ));
    assert!(open(&|blob| blob.uncompressed_length = Some(1)).is_err());
}

proptest! {
    #[test]
    fn parsing_undoes_writing(
        plaintexts in prop::collection::vec(any_plaintext(), 1..10),
        more in prop::collection::vec(any_plaintext(), 0..5),
        tree in any::<bool>(),
    ) {
        // Trees are never empty.
        let kind = if tree && plaintexts.iter().chain(&more).all(|plain| !plain.is_empty()) { BlobKind::Tree } else { BlobKind::Data };
        let mut builder = build(kind, &plaintexts);
        builder.absorb(build(kind, &more)).unwrap();
        let at_most = builder.size_bytes();
        let pack = finish(builder);
        prop_assert!(pack.bytes.len() <= at_most);
        prop_assert_eq!(PackId::of(&pack.bytes), pack.id);
        prop_assert_eq!(parse(&pack.bytes).unwrap(), pack.blobs.clone());
        prop_assert_eq!(open_all(&pack), [plaintexts, more].concat());
        let implied: u64 = pack.blobs.iter().map(|blob| u64::from(blob.length) + blob.header_entry_bytes()).sum();
        prop_assert_eq!(implied + FIXED_BYTES as u64, pack.bytes.len() as u64);
    }

    #[test]
    fn any_header_is_understood_or_refused(entries in prop::collection::vec(any::<u8>(), 0..400), blob_bytes in 0u64..1000) {
        let _ = parse_entries(&entries, blob_bytes);
    }
}
