//! Key files: the repository's master key, sealed with a key that scrypt derives from a password ("Keys,
//! Encryption and MAC" in restic's design document).
//!
//! A key file is the one kind of file that is not sealed as a whole: it is JSON, since its parameters must be
//! readable before there is a key.

use crate::seal::{MasterKey, SealError, Sealer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// How costly it is to try a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScryptParams {
    /// Base-2 logarithm of scrypt's `N`; memory is `128 * r * 2^log_n` bytes.
    pub log_n: u8,
    /// Block size.
    pub r: u32,
    /// Repetitions.
    pub p: u32,
}

impl Default for ScryptParams {
    /// 32 MiB and some 300 ms: what restic's own calibration arrives at on a server of today.
    fn default() -> Self {
        Self {
            log_n: 15,
            r: 8,
            p: 5,
        }
    }
}

impl ScryptParams {
    /// Parameters that protect nothing, for tests that open hundreds of repositories.
    #[must_use]
    pub const fn cheap() -> Self {
        Self {
            log_n: 4,
            r: 8,
            p: 1,
        }
    }
}

/// A key file's parameters may not ask for more memory: the file is not authenticated before it was spent.
const MOST_SCRYPT_MEMORY_BYTES: u64 = 512 << 20;
/// Nor for more work than this many blocks (some 20 seconds).
const MOST_SCRYPT_WORK: u64 = 1 << 26;
const SALT_BYTES: usize = 64;

/// Why a key file gave no master key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is whole, but this is not its password.
    #[error("the password does not open this key")]
    WrongPassword,
    /// Not a key file, or one whose parts make no sense.
    #[error("not a valid key file: {what}")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(SealError),
}

fn damaged(what: impl ToString) -> KeyError {
    KeyError::Damaged {
        what: what.to_string(),
    }
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    created: Timestamp,
    #[serde(default)]
    username: String,
    #[serde(default)]
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

#[derive(Serialize, Deserialize)]
struct MasterKeyJson {
    mac: MacJson,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    k: String,
    r: String,
}

impl Drop for MasterKeyJson {
    fn drop(&mut self) {
        self.mac.k.zeroize();
        self.mac.r.zeroize();
        self.encrypt.zeroize();
    }
}

/// Who made a key, and when: kept in clear in its file.
#[derive(Debug, Clone)]
pub struct KeyOrigin {
    /// The machine.
    pub hostname: String,
    /// The user.
    pub username: String,
    /// The time.
    pub created: Timestamp,
}

/// The content of a new key file that holds `master` under `password`.
///
/// # Errors
/// `Random`; `Damaged` when `params` are not ones that [`open`] would accept.
pub fn write(
    master: &MasterKey,
    password: &SecretString,
    params: ScryptParams,
    origin: &KeyOrigin,
) -> Result<Vec<u8>, KeyError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| KeyError::Random(SealError::Random(error)))?;
    let n = 1u64
        .checked_shl(params.log_n.into())
        .ok_or_else(|| damaged("scrypt's N is too large"))?;
    let user = derive(password, n, params.r, params.p, &salt)?;
    let json = MasterKeyJson {
        mac: MacJson {
            k: STANDARD.encode(master.mac_k),
            r: STANDARD.encode(master.mac_r),
        },
        encrypt: STANDARD.encode(master.encrypt),
    };
    let plaintext = Zeroizing::new(serde_json::to_vec(&json).map_err(damaged)?);
    let sealed = Sealer::new(&user)
        .seal(&plaintext)
        .map_err(KeyError::Random)?;
    let file = KeyFile {
        created: origin.created,
        username: origin.username.clone(),
        hostname: origin.hostname.clone(),
        kdf: "scrypt".to_owned(),
        n,
        r: params.r,
        p: params.p,
        salt: STANDARD.encode(salt),
        data: STANDARD.encode(sealed),
    };
    serde_json::to_vec(&file).map_err(damaged)
}

/// Who made the key in a key file's `content`: not authenticated, since it stands beside the seal.
///
/// # Errors
/// `Damaged`.
pub fn origin(content: &[u8]) -> Result<KeyOrigin, KeyError> {
    let file: KeyFile = serde_json::from_slice(content).map_err(damaged)?;
    Ok(KeyOrigin {
        hostname: file.hostname,
        username: file.username,
        created: file.created,
    })
}

/// The master key in a key file's `content`.
///
/// # Errors
/// `WrongPassword`, or `Damaged`.
pub fn open(content: &[u8], password: &SecretString) -> Result<MasterKey, KeyError> {
    let file: KeyFile = serde_json::from_slice(content).map_err(damaged)?;
    if file.kdf != "scrypt" {
        return Err(damaged(format_args!(
            "its key derivation is {:?}, not scrypt",
            file.kdf
        )));
    }
    let salt = STANDARD.decode(&file.salt).map_err(damaged)?;
    let mut sealed = Zeroizing::new(STANDARD.decode(&file.data).map_err(damaged)?);
    let user = derive(password, file.n, file.r, file.p, &salt)?;
    let plaintext = match Sealer::new(&user).open_in_place(&mut sealed) {
        Ok(plaintext) => plaintext,
        Err(SealError::Unauthentic) => return Err(KeyError::WrongPassword),
        Err(error) => return Err(damaged(error)),
    };
    let json: MasterKeyJson = serde_json::from_slice(plaintext).map_err(damaged)?;
    let master = MasterKey {
        encrypt: decode(&json.encrypt)?,
        mac_k: decode(&json.mac.k)?,
        mac_r: decode(&json.mac.r)?,
    };
    if master.is_valid() {
        Ok(master)
    } else {
        Err(damaged("its master key is empty"))
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(damaged)?);
    bytes
        .as_slice()
        .try_into()
        .map_err(|_| damaged("a part of its master key has the wrong length"))
}

fn derive(
    password: &SecretString,
    n: u64,
    r: u32,
    p: u32,
    salt: &[u8],
) -> Result<MasterKey, KeyError> {
    let memory = u64::from(r).saturating_mul(n).saturating_mul(128);
    let work = n.saturating_mul(r.into()).saturating_mul(p.into());
    if !n.is_power_of_two() || n < 2 || memory > MOST_SCRYPT_MEMORY_BYTES || work > MOST_SCRYPT_WORK
    {
        return Err(damaged(format_args!(
            "scrypt parameters N={n}, r={r}, p={p} are out of bounds"
        )));
    }
    // A power of two below 2^64 has at most 63 trailing zeros.
    let log_n = u8::try_from(n.trailing_zeros()).map_err(damaged)?;
    let params = scrypt::Params::new(log_n, r, p).map_err(damaged)?;
    let mut derived = Zeroizing::new([0; 64]);
    scrypt::scrypt(
        password.expose_secret().as_bytes(),
        salt,
        &params,
        derived.as_mut_slice(),
    )
    .map_err(damaged)?;
    Ok(MasterKey::from_bytes(&derived))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;

    fn origin() -> KeyOrigin {
        KeyOrigin {
            hostname: "db1".into(),
            username: "postgres".into(),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn file(password: &str) -> (MasterKey, serde_json::Value) {
        let master = MasterKey::random().unwrap();
        let content = write(&master, &password.into(), ScryptParams::cheap(), &origin()).unwrap();
        (master, serde_json::from_slice(&content).unwrap())
    }

    fn reopen(file: &serde_json::Value, password: &str) -> Result<MasterKey, KeyError> {
        open(&serde_json::to_vec(file).unwrap(), &password.into())
    }

    #[test]
    fn opens_with_its_password_only() {
        let (master, file) = file("correct horse");
        let opened = reopen(&file, "correct horse").unwrap();
        assert_eq!(
            (opened.encrypt, opened.mac_k, opened.mac_r),
            (master.encrypt, master.mac_k, master.mac_r)
        );
        assert!(matches!(
            reopen(&file, "wrong"),
            Err(KeyError::WrongPassword)
        ));
        assert!(matches!(reopen(&file, ""), Err(KeyError::WrongPassword)));
    }

    #[test]
    fn refuses_parameters_that_would_exhaust_us() {
        let (_, file) = file("x");
        for (field, value) in [
            ("N", u64::MAX),
            ("N", 1 << 62),
            ("N", 3),
            ("N", 0),
            ("r", 1 << 31),
            ("p", 1 << 31),
            ("r", 0),
        ] {
            let mut file = file.clone();
            file[field] = value.into();
            assert!(
                matches!(reopen(&file, "x"), Err(KeyError::Damaged { .. })),
                "{field} = {value}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_key_file() {
        let (_, whole) = file("x");
        for (field, value) in [
            ("kdf", "argon2"),
            ("data", "AAAA"),
            ("data", "!"),
            ("salt", "!"),
            ("created", "?"),
        ] {
            let mut file = whole.clone();
            file[field] = value.into();
            assert!(
                matches!(reopen(&file, "x"), Err(KeyError::Damaged { .. })),
                "{field} = {value}"
            );
        }
        for content in ["", "{}", "[]", "null", "\u{0}"] {
            assert!(matches!(
                open(content.as_bytes(), &"x".into()),
                Err(KeyError::Damaged { .. })
            ));
        }
    }
}
