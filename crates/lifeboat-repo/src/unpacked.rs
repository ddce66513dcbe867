//! Files that are not packs: one sealed JSON document each ("Unpacked Data Format" in restic's design
//! document).
//!
//! Inside the seal, version 2 puts a byte 2 and then zstd; a document that begins with a brace or a bracket is
//! plain, as in version 1 and in the config of either version.

use crate::seal::{SealError, Sealer};
use crate::storage::FileKind;
use std::io::Read;

/// Why a file's content is not what a repository holds.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It does not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// It opens, but not to a document in an encoding that we know.
    #[error("unknown encoding")]
    Encoding,
    /// zstd refuses it.
    #[error("compression: {0}")]
    Compression(std::io::Error),
    /// More than is believed of such a file.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// What would be believed.
        limit: u64,
    },
}

/// The most that is believed of a file's plaintext, in bytes. The file as stored can't be longer either.
pub(crate) const fn most_plain_bytes(kind: FileKind) -> u64 {
    match kind {
        FileKind::Config | FileKind::Key | FileKind::Lock => 1 << 20,
        FileKind::Snapshot => 16 << 20,
        // restic aims for less than 8 MiB stored, and has written larger ones.
        FileKind::Index => 512 << 20,
        // A pack's offsets end at 4 GiB; restic's largest is 128 MiB.
        FileKind::Pack => 1 << 32,
    }
}

/// Seals a document as version 2 does: compressed, but for the config.
pub(crate) fn encode(kind: FileKind, json: &[u8], sealer: &Sealer) -> Result<Vec<u8>, UnpackError> {
    if kind == FileKind::Config {
        return Ok(sealer.seal(json)?);
    }
    let compressed = zstd::bulk::compress(json, 3).map_err(UnpackError::Compression)?;
    let mut plaintext = Vec::with_capacity(compressed.len() + 1);
    plaintext.push(2);
    plaintext.extend_from_slice(&compressed);
    Ok(sealer.seal(&plaintext)?)
}

/// The document in a sealed file.
pub(crate) fn decode(
    kind: FileKind,
    sealed: Vec<u8>,
    sealer: &Sealer,
) -> Result<Vec<u8>, UnpackError> {
    let plaintext = sealer.open(sealed)?;
    match plaintext.split_first() {
        Some((b'{' | b'[', _)) => Ok(plaintext),
        Some((2, compressed)) => decompress(compressed, most_plain_bytes(kind)),
        _ => Err(UnpackError::Encoding),
    }
}

/// Decompresses as it comes: what the frame says about its length is not believed beforehand.
fn decompress(compressed: &[u8], limit: u64) -> Result<Vec<u8>, UnpackError> {
    let mut plaintext = Vec::new();
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(compressed).map_err(UnpackError::Compression)?;
    // restic's encoder picks its window by its level, at most 8 MiB.
    decoder
        .window_log_max(27)
        .map_err(UnpackError::Compression)?;
    decoder
        .take(limit + 1)
        .read_to_end(&mut plaintext)
        .map_err(UnpackError::Compression)?;
    if plaintext.len() as u64 > limit {
        return Err(UnpackError::TooLong { limit });
    }
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;
    use crate::seal::MasterKey;

    #[test]
    fn round_trips_every_kind() {
        let sealer = Sealer::new(&MasterKey::random().unwrap());
        for kind in [
            FileKind::Config,
            FileKind::Lock,
            FileKind::Snapshot,
            FileKind::Index,
        ] {
            let json = b"{\"a\":[1,2,3]}";
            let sealed = encode(kind, json, &sealer).unwrap();
            assert_eq!(decode(kind, sealed, &sealer).unwrap(), json);
        }
    }

    #[test]
    fn reads_plain_documents_and_refuses_others() {
        let sealer = Sealer::new(&MasterKey::random().unwrap());
        let open =
            |plaintext: &[u8]| decode(FileKind::Snapshot, sealer.seal(plaintext).unwrap(), &sealer);
        assert_eq!(open(b"[1]").unwrap(), b"[1]");
        assert!(matches!(open(b""), Err(UnpackError::Encoding)));
        assert!(matches!(open(b"\x03abc"), Err(UnpackError::Encoding)));
        assert!(matches!(open(b"\x02abc"), Err(UnpackError::Compression(_))));
        assert!(matches!(
            decode(FileKind::Index, vec![1; 50], &sealer),
            Err(UnpackError::Sealed(_))
        ));
    }

    /// 32 MiB of zeros in a few bytes.
    #[test]
    fn a_bomb_stops_at_the_limit() {
        let sealer = Sealer::new(&MasterKey::random().unwrap());
        let mut plaintext = vec![2];
        plaintext.extend(zstd::bulk::compress(&vec![0; 32 << 20], 3).unwrap());
        let sealed = sealer.seal(&plaintext).unwrap();
        assert!(matches!(
            decode(FileKind::Snapshot, sealed, &sealer),
            Err(UnpackError::TooLong { .. })
        ));
    }
}
