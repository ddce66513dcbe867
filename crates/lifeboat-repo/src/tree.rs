//! Trees: the entries of one folder ("Trees and Data" in restic's design document).
//!
//! What is written is byte for byte what restic's own encoder would write for the same nodes, down to the
//! escaping of names and the newline at the end: `restic rewrite` and `restic repair` encode trees anew and
//! refuse to touch one that does not come out the same.

use crate::id::BlobId;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::io::Write;

/// What is known of a file before it is in a tree: its chunks in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileContent {
    /// The chunks; none for an empty file.
    pub chunks: Vec<BlobId>,
    /// The sum of their lengths.
    pub size_bytes: u64,
}

impl FileContent {
    /// One file made of several parts, in order: the slices of one table.
    #[must_use]
    pub fn concat(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().unwrap_or_default();
        for part in parts {
            whole.chunks.extend_from_slice(&part.chunks);
            whole.size_bytes += part.size_bytes;
        }
        whole
    }
}

/// A folder that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory(pub BTreeMap<String, Entry>);

/// What a folder holds under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File(FileContent),
    /// A folder.
    Directory(Directory),
}

/// A path that can't be in a tree, or not twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, `.`, `..`, or with a slash or a NUL: restic could not restore it.
    #[error("{0:?} is not a file name")]
    Invalid(String),
    /// There is something else at this place already.
    #[error("{0:?} is there already")]
    Taken(String),
}

impl Directory {
    /// Puts a file at `path` (parts separated by `/`), with the folders on the way.
    ///
    /// # Errors
    /// When a part is not a name, or the place is taken.
    pub fn insert(&mut self, path: &str, file: FileContent) -> Result<(), NameError> {
        let (folder, name) = match path.rsplit_once('/') {
            Some((folders, name)) => (self.folder(folders)?, name),
            None => (self, path),
        };
        check_name(name)?;
        match folder.0.entry(name.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => {
                Err(NameError::Taken(path.to_owned()))
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Entry::File(file));
                Ok(())
            }
        }
    }

    fn folder(&mut self, path: &str) -> Result<&mut Self, NameError> {
        let mut folder = self;
        for name in path.split('/') {
            check_name(name)?;
            let entry = folder
                .0
                .entry(name.to_owned())
                .or_insert_with(|| Entry::Directory(Self::default()));
            folder = match entry {
                Entry::Directory(next) => next,
                Entry::File(_) => return Err(NameError::Taken(path.to_owned())),
            };
        }
        Ok(folder)
    }
}

/// Refuses names that a file system would.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(NameError::Invalid(name.to_owned()));
    }
    Ok(())
}

/// What is stored under one name of a folder that is about to be written.
pub(crate) enum Stored<'a> {
    File(&'a FileContent),
    Directory(BlobId),
}

/// Writes one tree. Nodes have to come sorted by name.
pub(crate) struct TreeWriter {
    json: Vec<u8>,
    empty: bool,
}

impl TreeWriter {
    pub(crate) fn new() -> Self {
        Self {
            json: b"{\"nodes\":[".to_vec(),
            empty: true,
        }
    }

    /// Adds a node. Its metadata is the same for every node and every run (no owner, no inode, the epoch as its
    /// times), so that the tree of an unchanged table is the same blob each hour.
    pub(crate) fn add(&mut self, name: &str, stored: &Stored<'_>) {
        if !std::mem::replace(&mut self.empty, false) {
            self.json.push(b',');
        }
        self.json.extend_from_slice(b"{\"name\":");
        write_name(name, &mut self.json);
        // The mode is Go's: the highest bit marks a folder.
        let (kind, mode) = match stored {
            Stored::File(_) => ("file", 0o600),
            Stored::Directory(_) => ("dir", (1u32 << 31) | 0o700),
        };
        const TIME: &str = "1970-01-01T00:00:00Z";
        // Writing to a Vec can't fail.
        let _ = write!(
            self.json,
            ",\"type\":\"{kind}\",\"mode\":{mode},\"mtime\":\"{TIME}\",\"atime\":\"{TIME}\",\"ctime\":\"{TIME}\",\
             \"uid\":0,\"gid\":0"
        );
        match stored {
            Stored::Directory(tree) => {
                let _ = write!(self.json, ",\"content\":null,\"subtree\":\"{tree}\"}}");
            }
            Stored::File(file) => {
                if file.size_bytes > 0 {
                    let _ = write!(self.json, ",\"size\":{}", file.size_bytes);
                }
                self.json.extend_from_slice(b",\"content\":[");
                self.json.reserve(file.chunks.len() * 67);
                for (at, chunk) in file.chunks.iter().enumerate() {
                    let _ = write!(self.json, "{}\"{chunk}\"", if at > 0 { "," } else { "" });
                }
                self.json.extend_from_slice(b"]}");
            }
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.json.extend_from_slice(b"]}\n");
        self.json
    }
}

/// A name as restic puts it into JSON: quoted as in Go's source, the quotes cut off, then a JSON string as Go's
/// encoder writes it, which also escapes what HTML would mind.
fn write_name(name: &str, json: &mut Vec<u8>) {
    json.push(b'"');
    for c in name.chars() {
        let escape = match c {
            '\x07' => "\\\\a",
            '\x08' => "\\\\b",
            '\x0c' => "\\\\f",
            '\n' => "\\\\n",
            '\r' => "\\\\r",
            '\t' => "\\\\t",
            '\x0b' => "\\\\v",
            '\\' => "\\\\\\\\",
            '"' => "\\\\\\\"",
            '<' => "\\u003c",
            '>' => "\\u003e",
            '&' => "\\u0026",
            _ => "",
        };
        // Writing to a Vec can't fail.
        let _ = match u32::from(c) {
            _ if !escape.is_empty() => write!(json, "{escape}"),
            code @ (0..0x20 | 0x7f) => write!(json, "\\\\x{code:02x}"),
            code @ 0x80..0x10000 if !is_printable(c) => write!(json, "\\\\u{code:04x}"),
            code @ 0x10000.. if !is_printable(c) => write!(json, "\\\\U{code:08x}"),
            _ => write!(json, "{c}"),
        };
    }
    json.push(b'"');
}

/// Whether Go prints a character beyond ASCII as it is. Rust's own notion is the same but for combining marks,
/// which it escapes only where they begin a string.
fn is_printable(c: char) -> bool {
    let text: String = ['a', c].iter().collect();
    text.escape_debug().nth(1) == Some(c)
}

/// A folder as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tree {
    /// Its entries, sorted by name.
    #[serde(deserialize_with = "null_is_empty")]
    pub nodes: Vec<Node>,
}

/// An entry of a folder. restic keeps more about files than is of use here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Its name. Bytes that are not UTF-8, which only restic writes, are replaced.
    #[serde(deserialize_with = "unquote")]
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: NodeKind,
    /// Its length in bytes.
    #[serde(default)]
    pub size: u64,
    /// Its chunks, for a file.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub content: Vec<BlobId>,
    /// Its tree, for a folder.
    #[serde(default)]
    pub subtree: Option<BlobId>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A file.
    File,
    /// A folder.
    Dir,
    /// A link, a device, a pipe, a socket: nothing that Lifeboat writes.
    #[serde(other)]
    Other,
}

impl Node {
    /// The content of a file.
    #[must_use]
    pub fn file_content(&self) -> FileContent {
        FileContent {
            chunks: self.content.clone(),
            size_bytes: self.size,
        }
    }
}

impl Tree {
    /// Reads the plaintext of a tree.
    ///
    /// # Errors
    /// When it is not a tree.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The entry of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn unquote<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let quoted = String::deserialize(deserializer)?;
    if !quoted.contains('\\') {
        return Ok(quoted);
    }
    unquote_go(&quoted).ok_or_else(|| serde::de::Error::custom("a name with an unknown escape"))
}

/// Undoes the escapes of a Go string.
fn unquote_go(quoted: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        let (digits, radix) = match escape {
            b'a' => (0, 7),
            b'b' => (0, 8),
            b'f' => (0, 12),
            b'n' => (0, 10),
            b'r' => (0, 13),
            b't' => (0, 9),
            b'v' => (0, 11),
            b'\\' | b'"' | b'\'' => (0, u32::from(escape)),
            b'x' => (2, 16),
            b'u' => (4, 16),
            b'U' => (8, 16),
            b'0'..=b'7' => (2, 8),
            _ => return None,
        };
        if digits == 0 {
            bytes.push(u8::try_from(radix).ok()?);
            continue;
        }
        let text = rest.get(..digits)?;
        rest = rest.get(digits..)?;
        let mut code = u32::from_str_radix(text, radix).ok()?;
        if radix == 8 {
            code += u32::from(escape - b'0') * 64;
        }
        if digits == 2 {
            bytes.push(u8::try_from(code).ok()?);
        } else {
            bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
