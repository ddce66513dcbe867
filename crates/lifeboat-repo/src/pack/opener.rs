//! From a sealed blob to its plaintext.

use super::{PackError, PackedBlob};
use crate::id::BlobId;
use crate::seal::Sealer;

/// Opens, decompresses and proves blobs; keeps its zstd context and buffer from one to the next.
pub struct BlobOpener {
    sealer: Sealer,
    decompressor: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
}

impl std::fmt::Debug for BlobOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobOpener(..)")
    }
}

impl BlobOpener {
    /// An opener for blobs sealed with `sealer`'s key.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn new(sealer: Sealer) -> Result<Self, PackError> {
        let decompressor = zstd::bulk::Decompressor::new().map_err(PackError::Compression)?;
        Ok(Self {
            sealer,
            decompressor,
            plain: Vec::new(),
        })
    }

    /// The plaintext of the blob that was opened last; of no use after one that failed to open.
    #[must_use]
    pub(crate) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Gives memory back that only an unusually large blob needed.
    pub(crate) fn shrink(&mut self) {
        const KEPT_BYTES: usize = 8 << 20;
        if self.plain.capacity() > KEPT_BYTES {
            self.plain = Vec::new();
        }
    }

    /// The plaintext of `blob`, whose sealed bytes are `sealed` (and are opened where they lie). Its hash was
    /// checked; it is valid until the next call.
    ///
    /// # Errors
    /// When anything about it is not as promised. Memory is taken for at most
    /// `BlobKind::most_plain_bytes`, and only after the code was checked.
    pub fn open(&mut self, blob: &PackedBlob, sealed: &mut [u8]) -> Result<&[u8], PackError> {
        if sealed.len() != blob.length as usize {
            return Err(PackError::WrongLength(blob.id));
        }
        let opened = self
            .sealer
            .open_in_place(sealed)
            .map_err(|source| PackError::Sealed {
                part: "blob",
                source,
            })?;
        self.plain.clear();
        match blob.uncompressed_length {
            None => self.plain.extend_from_slice(opened),
            Some(length) if length > blob.kind.most_plain_bytes() => {
                return Err(PackError::Malformed("the blob is too large"));
            }
            Some(length) => {
                self.plain.reserve(length as usize);
                self.decompressor
                    .decompress_to_buffer(opened, &mut self.plain)
                    .map_err(PackError::Compression)?;
                if self.plain.len() != length as usize {
                    return Err(PackError::WrongLength(blob.id));
                }
            }
        }
        if BlobId::of(&self.plain) != blob.id {
            return Err(PackError::WrongContent(blob.id));
        }
        Ok(&self.plain)
    }

    /// Whether `sealed` opens to what `blob` promises. It is opened in `scratch`, where it stays.
    pub(crate) fn prove(
        &mut self,
        blob: &PackedBlob,
        sealed: &[u8],
        scratch: &mut Vec<u8>,
    ) -> bool {
        scratch.clear();
        scratch.extend_from_slice(sealed);
        self.open(blob, scratch).is_ok()
    }
}
