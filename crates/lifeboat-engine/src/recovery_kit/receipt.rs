//! What this machine remembers of the kit it wrote: that there is one, for which key, and when it was last tried.
//!
//! The kit itself belongs elsewhere, so its absence here says nothing. A receipt holds no secret, is one small file in
//! the state folder for each repository, and is convenience like the rest of that folder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Kit;

const SCHEMA: &str = "lifeboat.recovery-kit-receipt/1";

/// That a kit was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    schema: String,
    /// The repository's identity.
    pub repository_id: String,
    /// When it was written.
    pub written: Timestamp,
    /// The beginning of the identity of the key that its passphrase opens.
    pub key: String,
    /// Where it was written to; the operator may have taken it away since.
    pub path: PathBuf,
    /// When `recovery-kit test` last proved it.
    pub tested: Option<Timestamp>,
    /// Whether its way without Lifeboat was tried then.
    #[serde(default)]
    pub tested_without: bool,
}

/// Why a receipt was not kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}", path.display())]
pub struct ReceiptError {
    path: PathBuf,
    source: io::Error,
}

impl Receipt {
    /// For a kit that was just written.
    #[must_use]
    pub fn of(kit: &Kit, path: &Path) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            repository_id: kit.repository_id.clone(),
            written: kit.written,
            key: kit.key.clone(),
            path: path.to_owned(),
            tested: None,
            tested_without: false,
        }
    }

    /// The same, of a kit that was proven then; `without` Lifeboat too, or only with it.
    #[must_use]
    pub fn tested_at(self, at: Timestamp, without: bool) -> Self {
        Self {
            tested: Some(at),
            tested_without: without,
            ..self
        }
    }

    /// Whether this is about that kit.
    #[must_use]
    pub fn is_of(&self, kit: &Kit) -> bool {
        // The kit tells its time to the second.
        self.repository_id == kit.repository_id
            && self.written.as_second() == kit.written.as_second()
    }

    /// Reads the one for this repository, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(state_dir: &Path, repository_id: &str) -> Result<Option<Self>, ReceiptError> {
        let path = place(state_dir, repository_id);
        let failed = |source| ReceiptError {
            path: path.clone(),
            source,
        };
        match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
            Ok(json) => match serde_json::from_slice::<Self>(&json) {
                Ok(receipt) if receipt.schema == SCHEMA => Ok(Some(receipt)),
                // Of another form, or half written: as if there were none.
                _ => Ok(None),
            },
        }
    }

    /// Writes it, over an older one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state_dir: &Path) -> Result<(), ReceiptError> {
        let path = place(state_dir, &self.repository_id);
        let folder = path.parent().unwrap_or(state_dir);
        std::fs::create_dir_all(folder)
            .and_then(|()| tempfile::NamedTempFile::new_in(folder))
            .and_then(|mut file| {
                file.write_all(&serde_json::to_vec_pretty(self)?)?;
                file.persist(&path)?;
                Ok(())
            })
            .map_err(|source| ReceiptError { path, source })
    }
}

fn place(state_dir: &Path, repository_id: &str) -> PathBuf {
    state_dir
        .join("recovery-kits")
        .join(format!("{repository_id}.json"))
}
