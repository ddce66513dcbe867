//! Packs: many sealed blobs in one file, with a sealed header at its end that says what they are ("Pack
//! Format" in restic's design document).
//!
//! ```text
//! blob 1 | … | blob n | sealed header | length of the sealed header, 4 bytes, little endian
//! ```

mod opener;

pub use opener::BlobOpener;

use crate::id::{BlobId, PackId};
use crate::seal::{MAC_BYTES, NONCE_BYTES, Nonces, OVERHEAD_BYTES, SealError, Sealer};

/// What a blob is. A pack holds one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// A chunk of a file.
    Data,
    /// The list of a folder's entries.
    Tree,
}

impl BlobKind {
    /// Its name in an index file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }

    /// The largest plaintext that is believed. restic's chunks end at 8 MiB, ours too; a tree lists every
    /// chunk of its files, at 67 bytes each.
    #[must_use]
    pub const fn most_plain_bytes(self) -> u32 {
        match self {
            Self::Data => 64 << 20,
            Self::Tree => 512 << 20,
        }
    }
}

/// One blob of a pack, as header and index describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlob {
    /// Hash of the plaintext.
    pub id: BlobId,
    /// What it is.
    pub kind: BlobKind,
    /// Where the sealed blob begins in the pack.
    pub offset: u32,
    /// Length of the sealed blob.
    pub length: u32,
    /// Length of the plaintext where it was compressed; never 0.
    pub uncompressed_length: Option<u32>,
}

impl PackedBlob {
    /// Length of the plaintext in bytes.
    #[must_use]
    pub fn plain_length(&self) -> u32 {
        self.uncompressed_length
            .unwrap_or(self.length.saturating_sub(OVERHEAD_BYTES as u32))
    }

    /// What its entry takes in the pack's header.
    #[must_use]
    pub const fn header_entry_bytes(&self) -> u64 {
        if self.uncompressed_length.is_some() {
            ENTRY_BYTES as u64
        } else {
            PLAIN_ENTRY_BYTES as u64
        }
    }
}

const PLAIN_ENTRY_BYTES: usize = 1 + 4 + 32;
const ENTRY_BYTES: usize = PLAIN_ENTRY_BYTES + 4;
/// The field at the end of a pack that gives the length of its sealed header.
pub const LENGTH_FIELD_BYTES: usize = 4;
/// What a pack holds beside its blobs and their header entries.
pub const FIXED_BYTES: usize = OVERHEAD_BYTES + LENGTH_FIELD_BYTES;
/// restic refuses a longer header.
const MOST_HEADER_BYTES: u64 = 16 << 20;
/// A pack is full with this many blobs, whatever its size, to stay far from that.
const MOST_BLOBS: usize = 100_000;

/// Why a pack could not be written or understood.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Too short, or a header that contradicts the file.
    #[error("{0}")]
    Malformed(&'static str),
    /// Header or blob do not open.
    #[error("{part}: {source}")]
    Sealed {
        /// `header`, or `blob`.
        part: &'static str,
        /// Why.
        source: SealError,
    },
    /// zstd failed.
    #[error("compression: {0}")]
    Compression(std::io::Error),
    /// A blob opened, but it is not what its identity says.
    #[error("the content of blob {} does not match its hash", .0.short())]
    WrongContent(BlobId),
    /// A blob's length is not the one that header or index give.
    #[error("blob {} does not have the length that was promised", .0.short())]
    WrongLength(BlobId),
}

/// A pack while it grows. Everything in `bytes` is sealed already.
#[derive(Debug)]
pub struct PackBuilder {
    kind: BlobKind,
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

/// A pack ready to be stored.
#[derive(Debug)]
pub struct FinishedPack {
    /// Its name.
    pub id: PackId,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its blobs.
    pub blobs: Vec<PackedBlob>,
}

impl PackBuilder {
    /// An empty pack that grows in `buffer`, whose content is dropped and whose memory is used again.
    #[must_use]
    pub fn new(kind: BlobKind, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            kind,
            bytes: buffer,
            blobs: Vec::new(),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// What the file would be long if it were finished now.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.blobs.len() * ENTRY_BYTES + FIXED_BYTES
    }

    /// Whether no further blob should be added for a pack of about `target_bytes`.
    #[must_use]
    pub fn is_full(&self, target_bytes: usize) -> bool {
        self.size_bytes() >= target_bytes || self.blobs.len() >= MOST_BLOBS
    }

    /// Compresses, seals and appends a blob; returns the bytes it took. Compression happens straight into the
    /// pack and sealing where it then lies: the plaintext is read once and no byte is moved.
    ///
    /// # Errors
    /// When zstd fails, there are no random bytes, or pack or blob would pass what the format can say. The
    /// pack is then as before.
    pub fn add(
        &mut self,
        id: BlobId,
        plaintext: &[u8],
        compressor: &mut zstd::bulk::Compressor<'_>,
        sealer: &Sealer,
        nonces: &mut Nonces,
    ) -> Result<u32, PackError> {
        let start = self.bytes.len();
        let result = self.append(start, plaintext, compressor, sealer, nonces);
        let uncompressed_length = match result {
            Ok(length) => length,
            Err(error) => {
                self.bytes.truncate(start);
                return Err(error);
            }
        };
        let too_large = |_| PackError::Malformed("the pack would pass 4 GiB");
        let length = u32::try_from(self.bytes.len() - start).map_err(too_large)?;
        let offset = u32::try_from(start).map_err(too_large)?;
        self.blobs.push(PackedBlob {
            id,
            kind: self.kind,
            offset,
            length,
            uncompressed_length,
        });
        Ok(length)
    }

    fn append(
        &mut self,
        start: usize,
        plaintext: &[u8],
        compressor: &mut zstd::bulk::Compressor<'_>,
        sealer: &Sealer,
        nonces: &mut Nonces,
    ) -> Result<Option<u32>, PackError> {
        let plain_length = u32::try_from(plaintext.len())
            .ok()
            .filter(|&length| length <= self.kind.most_plain_bytes())
            .ok_or(PackError::Malformed("the blob is too large"))?;
        let nonce = nonces.draw().map_err(|source| PackError::Sealed {
            part: "blob",
            source,
        })?;
        self.bytes
            .reserve(zstd::zstd_safe::compress_bound(plaintext.len()) + OVERHEAD_BYTES);
        self.bytes.resize(start + NONCE_BYTES, 0);
        let mut target = std::io::Cursor::new(std::mem::take(&mut self.bytes));
        target.set_position((start + NONCE_BYTES) as u64);
        let compressed = compressor.compress_to_buffer(plaintext, &mut target);
        self.bytes = target.into_inner();
        let compressed = compressed.map_err(PackError::Compression)?;
        let mut uncompressed_length = Some(plain_length);
        // Bytes that do not compress are kept plain, which restic reads as well; so is the empty blob, since
        // an uncompressed length of 0 means "not compressed". Trees are always compressed in version 2.
        if compressed >= plaintext.len() && self.kind == BlobKind::Data {
            self.bytes.truncate(start + NONCE_BYTES);
            self.bytes.extend_from_slice(plaintext);
            uncompressed_length = None;
        }
        sealer.seal_in_place(&mut self.bytes, start, nonce);
        Ok(uncompressed_length)
    }

    /// Appends a blob that was sealed before, with the same key, as it lies in another pack.
    ///
    /// # Errors
    /// When it has not the promised length, or the pack would pass 4 GiB. The pack is then as before.
    pub fn add_sealed(&mut self, blob: &PackedBlob, sealed: &[u8]) -> Result<(), PackError> {
        if sealed.len() != blob.length as usize {
            return Err(PackError::WrongLength(blob.id));
        }
        let offset = u32::try_from(self.bytes.len()).ok();
        let offset = offset.filter(|offset| offset.checked_add(blob.length).is_some());
        let offset = offset.ok_or(PackError::Malformed("the pack would pass 4 GiB"))?;
        self.bytes.extend_from_slice(sealed);
        self.blobs.push(PackedBlob {
            offset,
            kind: self.kind,
            ..*blob
        });
        Ok(())
    }

    /// Appends a blob that was sealed with another key: `payload` is what was inside, compressed or not as `blob`
    /// says, and is sealed anew.
    ///
    /// # Errors
    /// When it has not the promised length, there are no random bytes, or the pack would pass 4 GiB. The pack is
    /// then as before.
    pub fn add_payload(
        &mut self,
        blob: &PackedBlob,
        payload: &[u8],
        sealer: &Sealer,
        nonces: &mut Nonces,
    ) -> Result<(), PackError> {
        if payload.len() + OVERHEAD_BYTES != blob.length as usize {
            return Err(PackError::WrongLength(blob.id));
        }
        let start = self.bytes.len();
        let offset = u32::try_from(start).ok();
        let offset = offset.filter(|offset| offset.checked_add(blob.length).is_some());
        let offset = offset.ok_or(PackError::Malformed("the pack would pass 4 GiB"))?;
        let nonce = nonces.draw().map_err(|source| PackError::Sealed {
            part: "blob",
            source,
        })?;
        self.bytes.resize(start + NONCE_BYTES, 0);
        self.bytes.extend_from_slice(payload);
        sealer.seal_in_place(&mut self.bytes, start, nonce);
        self.blobs.push(PackedBlob {
            offset,
            kind: self.kind,
            ..*blob
        });
        Ok(())
    }

    /// Takes over all blobs of `other`, which are sealed each on its own and don't mind where they lie. Gives
    /// back its buffer.
    ///
    /// # Errors
    /// When together they would pass 4 GiB; then neither was changed, but `other` is lost.
    pub fn absorb(&mut self, other: Self) -> Result<Vec<u8>, PackError> {
        let shift = u32::try_from(self.bytes.len()).ok();
        let shift = shift.filter(|shift| {
            u32::try_from(other.bytes.len()).is_ok_and(|more| shift.checked_add(more).is_some())
        });
        let shift = shift.ok_or(PackError::Malformed("the pack would pass 4 GiB"))?;
        self.bytes.extend_from_slice(&other.bytes);
        self.blobs.extend(other.blobs.iter().map(|blob| PackedBlob {
            offset: blob.offset + shift,
            ..*blob
        }));
        Ok(other.bytes)
    }

    /// Appends the header.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn finish(
        mut self,
        sealer: &Sealer,
        nonces: &mut Nonces,
    ) -> Result<FinishedPack, PackError> {
        let start = self.bytes.len();
        let nonce = nonces.draw().map_err(|source| PackError::Sealed {
            part: "header",
            source,
        })?;
        self.bytes
            .reserve_exact(self.blobs.len() * ENTRY_BYTES + FIXED_BYTES);
        self.bytes.extend_from_slice(&nonce);
        for blob in &self.blobs {
            let kind = u8::from(blob.kind == BlobKind::Tree);
            let compressed = u8::from(blob.uncompressed_length.is_some()) << 1;
            self.bytes.push(kind | compressed);
            self.bytes.extend_from_slice(&blob.length.to_le_bytes());
            if let Some(length) = blob.uncompressed_length {
                self.bytes.extend_from_slice(&length.to_le_bytes());
            }
            self.bytes.extend_from_slice(blob.id.as_bytes());
        }
        sealer.seal_in_place(&mut self.bytes, start, nonce);
        // At most 100,000 entries of 41 bytes.
        let length = (self.bytes.len() - start) as u32;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        Ok(FinishedPack {
            id: PackId::of(&self.bytes),
            bytes: self.bytes,
            blobs: self.blobs,
        })
    }
}

/// The length of the sealed header, from a pack's last four bytes.
///
/// # Errors
/// When it can't be the length of a header in a pack of `pack_bytes`.
pub fn header_length(field: [u8; LENGTH_FIELD_BYTES], pack_bytes: u64) -> Result<usize, PackError> {
    let length = u32::from_le_bytes(field);
    if u64::from(length) + LENGTH_FIELD_BYTES as u64 > pack_bytes {
        return Err(PackError::Malformed("the header is longer than the file"));
    }
    if u64::from(length) > MOST_HEADER_BYTES
        || (length as usize) < OVERHEAD_BYTES + PLAIN_ENTRY_BYTES
    {
        return Err(PackError::Malformed("the header's length is impossible"));
    }
    Ok(length as usize)
}

/// What is inside a sealed blob that was opened where it lies: compressed bytes, or plain ones.
pub(crate) fn payload(opened: &[u8]) -> &[u8] {
    let end = opened.len().saturating_sub(MAC_BYTES);
    opened.get(NONCE_BYTES..end).unwrap_or_default()
}

/// The blobs of a pack whose whole content is at hand, in their order in the file.
///
/// # Errors
/// When its header does not open, or does not describe it to the last byte.
pub fn blobs_of(pack: &[u8], sealer: &Sealer) -> Result<Vec<PackedBlob>, PackError> {
    let too_short = PackError::Malformed("it is too short for a pack");
    let (rest, field) = pack
        .split_last_chunk::<LENGTH_FIELD_BYTES>()
        .ok_or(too_short)?;
    let length = header_length(*field, pack.len() as u64)?;
    let mut header = rest[rest.len() - length..].to_vec();
    parse_header(&mut header, pack.len() as u64, sealer)
}

/// The blobs that a pack's sealed header lists, in their order in the file.
///
/// # Errors
/// When it does not open, or does not describe a pack of `pack_bytes` to the last byte.
pub fn parse_header(
    sealed: &mut [u8],
    pack_bytes: u64,
    sealer: &Sealer,
) -> Result<Vec<PackedBlob>, PackError> {
    let sealed_length = sealed.len() as u64;
    let mut rest: &[u8] = sealer
        .open_in_place(sealed)
        .map_err(|source| PackError::Sealed {
            part: "header",
            source,
        })?;
    let mut blobs = Vec::with_capacity(rest.len() / PLAIN_ENTRY_BYTES);
    let mut offset = 0u32;
    while !rest.is_empty() {
        let (kind, compressed) = match rest[0] {
            0 => (BlobKind::Data, false),
            1 => (BlobKind::Tree, false),
            2 => (BlobKind::Data, true),
            3 => (BlobKind::Tree, true),
            _ => {
                return Err(PackError::Malformed(
                    "the header names an unknown type of blob",
                ));
            }
        };
        let (entry, tail) = rest
            .split_at_checked(if compressed {
                ENTRY_BYTES
            } else {
                PLAIN_ENTRY_BYTES
            })
            .ok_or(PackError::Malformed("the header ends within an entry"))?;
        rest = tail;
        let number = |at: usize| {
            u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
        };
        let mut id = [0; 32];
        id.copy_from_slice(&entry[entry.len() - 32..]);
        let blob = PackedBlob {
            id: BlobId::from_bytes(id),
            kind,
            offset,
            length: number(1),
            uncompressed_length: compressed.then(|| number(5)),
        };
        if (blob.length as usize) < OVERHEAD_BYTES || blob.uncompressed_length == Some(0) {
            return Err(PackError::Malformed(
                "the header gives an impossible length",
            ));
        }
        offset = offset
            .checked_add(blob.length)
            .ok_or(PackError::Malformed("the blobs are longer than the file"))?;
        blobs.push(blob);
    }
    if u64::from(offset) + sealed_length + LENGTH_FIELD_BYTES as u64 != pack_bytes {
        return Err(PackError::Malformed("the blobs do not fill the file"));
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests;
