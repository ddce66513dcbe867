//! The recovery kit: one page that brings the data back on a bare machine, and the proof that it does.
//!
//! The page is made once, as blocks, and shown twice: as text and as a printable document. It is read back from the
//! text that people read, by the labels that they see, and the commands that are tried are the ones that are printed:
//! there is no second copy for machines that could be right while the page is wrong.

mod by_hand;
mod html;
mod page;
mod receipt;
mod text;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::config::RepositoryLocation;

pub use by_hand::{ByHandError, ByHandReport, ByHandRequest, TableCount, run as run_by_hand};
pub use receipt::{Receipt, ReceiptError};
pub use text::{KitError, ReadKit, read};

/// What a kit tells.
#[derive(Debug, Clone)]
pub struct Kit {
    /// When it was written.
    pub written: Timestamp,
    /// By which Lifeboat.
    pub lifeboat_version: String,
    /// On which machine.
    pub hostname: String,
    /// Where the repository is.
    pub location: RepositoryLocation,
    /// Its identity.
    pub repository_id: String,
    /// The beginning of the identity of the key that the passphrase opens.
    pub key: String,
    /// What opens it.
    pub passphrase: SecretString,
    /// S3: the region.
    pub region: Option<String>,
    /// S3: whether the bucket stands in the path, where that was configured.
    pub path_style: Option<bool>,
    /// SFTP: the `ssh` to run and its first arguments, where that was configured.
    pub ssh_command: Vec<String>,
    /// What has to be known besides, to reach the repository: environment variables of the tools.
    pub credentials: Vec<Credential>,
    /// The databases that are backed up into it.
    pub databases: Vec<KitDatabase>,
}

/// A variable that the storage's tools want.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name, such as `AWS_ACCESS_KEY_ID`.
    pub name: String,
    /// Its value, in a kit that was asked to hold it.
    pub value: Option<SecretString>,
}

/// A database in a kit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KitDatabase {
    /// The name that its backups go by.
    pub name: String,
    /// The server's version, as it calls it; `None` when nobody could say.
    pub server_version: Option<String>,
}

impl KitDatabase {
    /// The server's major version.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        let version = self.server_version.as_deref()?;
        let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// The database to make on the new server: the old name, unless every server has one of that name.
    #[must_use]
    pub fn target(&self) -> String {
        if self.is_everywhere() {
            format!("{}_restored", self.name)
        } else {
            self.name.clone()
        }
    }

    fn is_everywhere(&self) -> bool {
        matches!(self.name.as_str(), "postgres" | "template0" | "template1")
    }
}

impl Kit {
    /// The kit as text, for people and for [`read`].
    #[must_use]
    pub fn text(&self) -> String {
        text::render(&page::page(self))
    }

    /// The kit as a document that prints well, without anything from elsewhere.
    #[must_use]
    pub fn html(&self) -> String {
        html::render(&page::page(self))
    }

    /// The newest major version of its servers: programs of that version restore all of them.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        self.databases.iter().filter_map(KitDatabase::major).max()
    }

    /// The folder that the commands restore a database's files into: its name without what a shell or a file system
    /// might take for something else.
    #[must_use]
    pub fn folder(&self, database: &str) -> String {
        let plain = |name: &str| -> String {
            let keep = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let name: String = name
                .chars()
                .map(|c| if keep(c) { c } else { '_' })
                .collect();
            format!("backup-{name}")
        };
        let mut names = self.databases.iter().map(|one| one.name.as_str());
        let position = names.position(|name| name == database).unwrap_or(0);
        let before = self.databases.iter().take(position);
        let same = before
            .filter(|one| plain(&one.name) == plain(database))
            .count();
        match same {
            0 => plain(database),
            others => format!("{}-{}", plain(database), others + 1),
        }
    }
}

#[cfg(test)]
mod tests;
