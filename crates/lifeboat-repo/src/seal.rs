//! Sealing: AES-256 in counter mode with a Poly1305-AES code, as restic defines it ("Keys, Encryption and
//! MAC" in its design document).
//!
//! A sealed message is `nonce || ciphertext || code`, 16 bytes each around the ciphertext. The code is
//! computed over the ciphertext and checked before anything is decrypted, so nothing that was tampered with
//! leaves this room.
//!
//! The primitives are used directly, not through the `aes256ctr_poly1305aes` crate: that one counts in 64
//! bits where restic counts in 128, and expands both AES keys anew for every message.

use aes::cipher::{
    Array, BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper,
};
use aes::{Aes128, Aes256};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use poly1305::Poly1305;
use zeroize::Zeroize;

/// Length of the nonce that begins a sealed message.
pub const NONCE_BYTES: usize = 16;
/// Length of the authentication code that ends a sealed message.
pub const MAC_BYTES: usize = 16;
/// What sealing adds to a message.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + MAC_BYTES;

/// Why a sealed message could not be opened, or a message not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than an empty sealed message.
    #[error("{length} bytes are too short for a sealed message")]
    TooShort {
        /// The message's length in bytes.
        length: usize,
    },
    /// The code does not match: another key, or changed bytes.
    #[error("the authentication code does not match")]
    Unauthentic,
    /// The operating system gave no random bytes for a nonce.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

/// The three keys that open a repository.
///
/// Derived from a password by scrypt it opens a key file; taken from a key file it opens everything else.
#[derive(Clone)]
pub struct MasterKey {
    /// AES-256 key of the counter mode.
    pub(crate) encrypt: [u8; 32],
    /// AES-128 key that turns a nonce into Poly1305's addend.
    pub(crate) mac_k: [u8; 16],
    /// Poly1305's multiplier; 22 of its bits are always zero.
    pub(crate) mac_r: [u8; 16],
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.mac_k.zeroize();
        self.mac_r.zeroize();
    }
}

impl MasterKey {
    /// Splits 64 derived bytes as restic does: 32 for AES-256, then 16 and 16 for Poly1305-AES.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut encrypt, mut mac_k, mut mac_r) = ([0; 32], [0; 16], [0; 16]);
        encrypt.copy_from_slice(&bytes[..32]);
        mac_k.copy_from_slice(&bytes[32..48]);
        mac_r.copy_from_slice(&bytes[48..]);
        Self {
            encrypt,
            mac_k,
            mac_r: clamp(mac_r),
        }
    }

    /// A new key from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails.
    pub fn random() -> Result<Self, SealError> {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(SealError::Random)?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// Whether it is the same key. Both are ours, so how long the comparison takes tells nobody anything.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.encrypt, self.mac_k, self.mac_r) == (other.encrypt, other.mac_k, other.mac_r)
    }

    /// Whether no part is all zero, which restic takes for "no key" and refuses.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.encrypt != [0; 32] && self.mac_k != [0; 16] && self.mac_r != [0; 16]
    }
}

/// Clears the bits that Poly1305 wants clear. Poly1305 does it anyway, but restic stores its keys so.
fn clamp(mut r: [u8; 16]) -> [u8; 16] {
    for i in [3, 7, 11, 15] {
        r[i] &= 0x0f;
    }
    for i in [4, 8, 12] {
        r[i] &= 0xfc;
    }
    r
}

/// Seals and opens with one key; the key schedules are expanded once.
#[derive(Clone)]
pub struct Sealer {
    encrypt: Aes256,
    mac_k: Aes128,
    mac_r: [u8; 16],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        // The two schedules clear themselves.
        self.mac_r.zeroize();
    }
}

impl Sealer {
    /// Expands `key`.
    #[must_use]
    pub fn new(key: &MasterKey) -> Self {
        Self {
            encrypt: Aes256::new(&key.encrypt.into()),
            mac_k: Aes128::new(&key.mac_k.into()),
            mac_r: key.mac_r,
        }
    }

    fn code(&self, nonce: &[u8; NONCE_BYTES], ciphertext: &[u8]) -> [u8; MAC_BYTES] {
        let mut addend = Array::from(*nonce);
        self.mac_k.encrypt_block(&mut addend);
        let mut key = [0; 32];
        key[..16].copy_from_slice(&self.mac_r);
        key[16..].copy_from_slice(&addend);
        let code = Poly1305::new(&key.into()).compute_unpadded(ciphertext);
        key.zeroize();
        code.into()
    }

    fn apply_keystream(&self, nonce: &[u8; NONCE_BYTES], data: &mut [u8]) {
        let core = CtrCore::<&Aes256, Ctr128BE>::inner_iv_init(&self.encrypt, &(*nonce).into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
    }

    /// Seals `buffer[start + 16..]` where it lies: the 16 bytes at `start`, which the caller left free, become
    /// the nonce, and the code is appended.
    ///
    /// # Panics
    /// When `buffer` is shorter than `start + 16`.
    pub fn seal_in_place(&self, buffer: &mut Vec<u8>, start: usize, nonce: [u8; NONCE_BYTES]) {
        buffer[start..start + NONCE_BYTES].copy_from_slice(&nonce);
        let data = &mut buffer[start + NONCE_BYTES..];
        self.apply_keystream(&nonce, data);
        let code = self.code(&nonce, data);
        buffer.extend_from_slice(&code);
    }

    /// A sealed copy of `plaintext`.
    ///
    /// # Errors
    /// When there are no random bytes for a nonce.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut buffer = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        buffer.extend_from_slice(&[0; NONCE_BYTES]);
        buffer.extend_from_slice(plaintext);
        self.seal_in_place(&mut buffer, 0, Nonces::default().draw()?);
        Ok(buffer)
    }

    /// Opens a sealed message where it lies and returns the part that is the plaintext.
    ///
    /// # Errors
    /// `TooShort`, or `Unauthentic`; then nothing was decrypted.
    pub fn open_in_place<'a>(&self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], SealError> {
        let length = sealed.len();
        let too_short = SealError::TooShort { length };
        let (nonce, rest) = sealed
            .split_first_chunk_mut::<NONCE_BYTES>()
            .ok_or(too_short)?;
        let (ciphertext, code) = rest.split_last_chunk_mut::<MAC_BYTES>().ok_or(too_short)?;
        let expected = self.code(nonce, ciphertext);
        // Compared without an early exit: the time must not tell how much of a forged code was right.
        let difference = expected
            .iter()
            .zip(code.iter())
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if difference != 0 {
            return Err(SealError::Unauthentic);
        }
        self.apply_keystream(nonce, ciphertext);
        Ok(ciphertext)
    }

    /// The plaintext of a sealed message.
    ///
    /// # Errors
    /// As [`Sealer::open_in_place`].
    pub fn open(&self, mut sealed: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let length = self.open_in_place(&mut sealed)?.len();
        sealed.copy_within(NONCE_BYTES..NONCE_BYTES + length, 0);
        sealed.truncate(length);
        Ok(sealed)
    }
}

/// Random nonces, drawn from the operating system many at a time: one system call per blob would show in a
/// profile of 16 KiB chunks.
pub struct Nonces {
    drawn: [u8; NONCE_BYTES * 64],
    used: usize,
}

impl Default for Nonces {
    fn default() -> Self {
        Self {
            drawn: [0; NONCE_BYTES * 64],
            used: NONCE_BYTES * 64,
        }
    }
}

impl Nonces {
    /// The next nonce; no other call will ever return the same.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn draw(&mut self) -> Result<[u8; NONCE_BYTES], SealError> {
        if self.used == self.drawn.len() {
            getrandom::fill(&mut self.drawn).map_err(SealError::Random)?;
            self.used = 0;
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.drawn[self.used..self.used + NONCE_BYTES]);
        self.used += NONCE_BYTES;
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn sealer() -> Sealer {
        Sealer::new(&MasterKey::from_bytes(&std::array::from_fn(|i| {
            i as u8 + 1
        })))
    }

    /// The first test vector of "The Poly1305-AES message-authentication code", appendix B.
    #[test]
    fn poly1305_aes_matches_its_paper() {
        let key = MasterKey {
            encrypt: [1; 32],
            mac_k: hex("ec074c835580741701425b623235add6"),
            mac_r: hex("851fc40c3467ac0be05cc20404f3f700"),
        };
        let code =
            Sealer::new(&key).code(&hex("fb447350c4e868c52ac3275cf9d4327e"), &hex::<2>("f3f6"));
        assert_eq!(code, hex("f4c633c3044fc145f84f335cb81953de"));
    }

    /// Test vector F.5.5 of NIST SP 800-38A.
    #[test]
    fn counter_mode_matches_nist() {
        let mut key = MasterKey::from_bytes(&[0; 64]);
        key.encrypt = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let mut block: [u8; 16] = hex("6bc1bee22e409f96e93d7e117393172a");
        Sealer::new(&key).apply_keystream(&hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), &mut block);
        assert_eq!(block, hex("601ec313775789a5b7a7f504bbf3d228"));
    }

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        ::hex::decode(text).unwrap().try_into().unwrap()
    }

    /// restic counts in 128 bits: the carry leaves the low 64.
    #[test]
    fn the_counter_carries_over_64_bits() {
        let (mut near, mut next) = ([0; 32], [0; 16]);
        sealer().apply_keystream(&hex("0000000000000000ffffffffffffffff"), &mut near);
        sealer().apply_keystream(&hex("00000000000000010000000000000000"), &mut next);
        assert_eq!(near[16..], next);
    }

    #[test]
    fn masks_the_multiplier() {
        let key = MasterKey::from_bytes(&[0xff; 64]);
        assert_eq!(key.mac_r, hex("ffffff0ffcffff0ffcffff0ffcffff0f"));
        assert!(!MasterKey::from_bytes(&[0; 64]).is_valid());
    }

    #[test]
    fn refuses_short_messages() {
        for length in 0..OVERHEAD_BYTES {
            let error = sealer().open(vec![0; length]).unwrap_err();
            assert_eq!(error, SealError::TooShort { length });
        }
    }

    #[test]
    fn nonces_differ() {
        let mut nonces = Nonces::default();
        let drawn: std::collections::BTreeSet<_> =
            (0..1000).map(|_| nonces.draw().unwrap()).collect();
        assert_eq!(drawn.len(), 1000);
    }

    proptest! {
        #[test]
        fn open_undoes_seal(plaintext in prop::collection::vec(any::<u8>(), 0..3000)) {
            let sealed = sealer().seal(&plaintext).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
            prop_assert_eq!(sealer().open(sealed).unwrap(), plaintext);
        }

        #[test]
        fn any_changed_bit_is_noticed(
            plaintext in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut sealed = sealer().seal(&plaintext).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(sealer().open(sealed), Err(SealError::Unauthentic));
        }
    }
}
