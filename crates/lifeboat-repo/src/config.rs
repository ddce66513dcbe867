//! The config file: a repository's identity, and what it was made to be.

use crate::chunker::{ChunkSizes, DEFAULT_AVERAGE};
use crate::seal::SealError;
use serde::{Deserialize, Serialize};

/// The version of the format that we write.
pub(crate) const VERSION: u32 = 2;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) version: u32,
    pub(crate) id: String,
    #[serde(with = "hex_number")]
    pub(crate) chunker_polynomial: u64,
    /// Ours: the average that was chosen when the repository was made. restic passes over fields that it does
    /// not know.
    #[serde(
        rename = "lifeboat_chunk_average_bytes",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) chunk_average: Option<u32>,
}

impl Config {
    pub(crate) fn random(sizes: ChunkSizes) -> Result<Self, SealError> {
        let mut id = [0; 32];
        getrandom::fill(&mut id).map_err(SealError::Random)?;
        Ok(Self {
            version: VERSION,
            id: hex::encode(id),
            chunker_polynomial: random_polynomial()?,
            chunk_average: Some(sizes.avg),
        })
    }

    /// The config of a repository that cuts streams as `other` does, and is another one.
    pub(crate) fn like(other: &Self) -> Result<Self, SealError> {
        Ok(Self {
            id: Self::random(other.chunk_sizes())?.id,
            ..other.clone()
        })
    }

    pub(crate) fn chunk_sizes(&self) -> ChunkSizes {
        ChunkSizes::with_average(self.chunk_average.unwrap_or(DEFAULT_AVERAGE))
    }
}

mod hex_number {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

/// The degree that restic wants of the polynomial.
const DEGREE: u32 = 53;

/// A random irreducible polynomial of degree 53 over GF(2), one bit per coefficient. restic refuses a
/// repository whose polynomial is reducible, whether it is used or not.
fn random_polynomial() -> Result<u64, SealError> {
    loop {
        let random = getrandom::u64().map_err(SealError::Random)?;
        let candidate = (random & ((1 << DEGREE) - 1)) | (1 << DEGREE) | 1;
        // About one in 27 odd ones is irreducible.
        if is_irreducible(candidate) {
            return Ok(candidate);
        }
    }
}

/// Ben-Or's test: irreducible if and only if it shares no factor with `x^(2^i) - x` for any `i` up to half its
/// degree.
fn is_irreducible(polynomial: u64) -> bool {
    let degree = 63 - polynomial.leading_zeros();
    let mut power = 0b10;
    for _ in 0..degree / 2 {
        power = multiply_modulo(power, power, polynomial, degree);
        if common_factor(polynomial, power ^ 0b10) != 1 {
            return false;
        }
    }
    true
}

fn multiply_modulo(a: u64, b: u64, modulus: u64, degree: u32) -> u64 {
    let mut product = 0;
    for bit in (0..degree).rev() {
        product <<= 1;
        if product >> degree & 1 == 1 {
            product ^= modulus;
        }
        if b >> bit & 1 == 1 {
            product ^= a;
        }
    }
    product
}

fn common_factor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        // The remainder of a divided by b.
        while a.leading_zeros() <= b.leading_zeros() && a != 0 {
            a ^= b << (b.leading_zeros() - a.leading_zeros());
        }
        (a, b) = (b, a);
    }
    a
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tells_irreducible_polynomials() {
        // x^2+x+1, x^3+x+1, AES's x^8+x^4+x^3+x+1, and the one in restic's design document.
        for irreducible in [0b111, 0b1011, 0x11b, 0x25_b468_838d_cb75] {
            assert!(is_irreducible(irreducible), "{irreducible:x}");
        }
        // x^2+1 = (x+1)^2, x^4+x^2+1 = (x^2+x+1)^2, x^8+1, that document's with a bit changed.
        for reducible in [0b101, 0b10101, 0x101, 0x25_b468_838d_cb74] {
            assert!(!is_irreducible(reducible), "{reducible:x}");
        }
        let count = (1u64 << 8..1 << 9).filter(|&p| is_irreducible(p)).count();
        assert_eq!(count, 30, "irreducible polynomials of degree 8");
    }

    #[test]
    fn reads_the_config_of_the_design_document() {
        let json = r#"{"version":2,"id":"5956","chunker_polynomial":"25b468838dcb75"}"#;
        let config: Config = serde_json::from_str(json).unwrap();
        assert_eq!(config.chunker_polynomial, 0x25_b468_838d_cb75);
        assert_eq!(config.chunk_sizes().avg, DEFAULT_AVERAGE);
        assert_eq!(serde_json::to_string(&config).unwrap(), json);
    }

    #[test]
    fn keeps_the_chunk_average() {
        let config = Config::random(ChunkSizes::with_average(32 << 10)).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert!(
            json.contains("\"lifeboat_chunk_average_bytes\":32768"),
            "{json}"
        );
        let read: Config = serde_json::from_str(&json).unwrap();
        assert_eq!(read.chunk_sizes(), ChunkSizes::with_average(32 << 10));
        assert_eq!(63 - read.chunker_polynomial.leading_zeros(), DEGREE);
    }
}
