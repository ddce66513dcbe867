//! Encrypted, deduplicated storage in restic's repository format, version 2.
//!
//! This room owns everything between a stream of bytes and files in a [`storage::Storage`]: chunking,
//! hashing, compression, sealing, packs, the index, trees, snapshots, locks, reading back and checking.
//! It knows nothing of PostgreSQL, prints nothing, and reads neither the environment nor the configuration.
//!
//! The door is [`Repository`]: open or make one, then take a [`writer::Writer`] or a [`reader::Reader`]
//! from it.
//!
//! Two invariants hold everywhere. Write order is law: packs, then index, then snapshot, each durable before
//! the next, so that a crash leaves unreferenced files but never a snapshot with holes. And nothing read from
//! a repository is trusted before its MAC and its hash were checked, nor is memory taken on its word.

pub mod check;
pub mod chunker;
mod config;
pub mod copy;
mod crew;
mod error;
pub mod id;
pub mod index;
pub mod key;
pub mod keys;
pub mod lock;
pub mod pack;
pub mod prune;
pub mod reader;
pub mod repair;
pub mod repository;
mod retag;
pub mod seal;
pub mod snapshot;
pub mod storage;
pub mod tree;
mod unpacked;
pub mod writer;

pub use id::{BlobId, IndexId, KeyId, PackId, SnapshotId};
pub use repository::{Repository, RepositoryError};
