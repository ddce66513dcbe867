//! Everything only PostgreSQL knows: connections, dumps, archives, census, scratch servers.
//!
//! This crate knows nothing of repositories. It prints nothing, reads no environment, and never exits.

pub mod archive;
pub mod census;
pub mod instance;
