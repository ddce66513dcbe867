//! Identities: the SHA-256 of what they name.
//!
//! A blob's identity is the hash of its plaintext; that of a pack, an index, a snapshot or a key file is the
//! hash of the file as stored, and is also the file's name ("Repository Format" in restic's design document).
//! Each has its own type, so that a pack can't be asked for by the name of a blob.

use sha2::{Digest, Sha256};

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// An identity is 64 hexadecimal digits; this text has another length.
    #[error("an identity has 64 hexadecimal digits, this has {found} characters")]
    Length {
        /// Length of the text in bytes.
        found: usize,
    },
    /// A character that is not a hexadecimal digit.
    #[error("an identity has 64 hexadecimal digits, this has other characters")]
    NotHex,
}

fn parse(text: &str) -> Result<[u8; 32], ParseIdError> {
    if text.len() != 64 {
        return Err(ParseIdError::Length { found: text.len() });
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError::NotHex)?;
    Ok(bytes)
}

fn write_hex(bytes: &[u8], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let mut digits = [0; 64];
    let digits = &mut digits[..bytes.len() * 2];
    // Neither step can fail: the buffer fits, and hexadecimal digits are UTF-8.
    hex::encode_to_slice(bytes, digits).map_err(|_| std::fmt::Error)?;
    f.pad(std::str::from_utf8(digits).map_err(|_| std::fmt::Error)?)
}

struct IdVisitor;

impl serde::de::Visitor<'_> for IdVisitor {
    type Value = [u8; 32];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("64 hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<[u8; 32], E> {
        parse(text).map_err(E::custom)
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The identity with these 32 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The identity of `content`: its SHA-256.
            #[must_use]
            pub fn of(content: &[u8]) -> Self {
                Self(Sha256::digest(content).into())
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hexadecimal digits, as people are shown it.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(IdVisitor).map(Self)
            }
        }
    };
}

id_type! {
    /// A chunk of a file, or a tree: the hash of its plaintext.
    BlobId
}
id_type! {
    /// A pack file: the hash of the file as stored.
    PackId
}
id_type! {
    /// A snapshot file: the hash of the file as stored.
    SnapshotId
}
id_type! {
    /// An index file: the hash of the file as stored.
    IndexId
}
id_type! {
    /// A key file: the hash of the file as stored.
    KeyId
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn displays_parses_and_serializes_as_hex() {
        let id = BlobId::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(id.to_string(), hex);
        assert_eq!(id.short(), "ba7816bf");
        assert_eq!(hex.parse::<BlobId>().unwrap(), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{hex}\""));
        assert_eq!(
            serde_json::from_str::<BlobId>(&format!("\"{hex}\"")).unwrap(),
            id
        );
    }

    #[test]
    fn refuses_what_is_no_identity() {
        assert_eq!(
            "ab".parse::<PackId>(),
            Err(ParseIdError::Length { found: 2 })
        );
        assert_eq!("é".repeat(32).parse::<PackId>(), Err(ParseIdError::NotHex));
        assert_eq!("g".repeat(64).parse::<PackId>(), Err(ParseIdError::NotHex));
    }
}
