//! Everything only PostgreSQL knows: connections, dumps, archives, census, scratch servers.
//!
//! This crate knows nothing of repositories. It prints nothing, reads no environment, and never exits.

pub mod archive;
pub mod census;
mod child;
pub mod conninfo;
pub mod data_file;
pub mod dump;
pub mod dump_file;
pub mod instance;
pub mod load;
pub mod lsn;
pub mod migrations;
mod passfile;
pub mod server;
mod service;
pub mod tools;
pub mod wire;

pub use conninfo::{ConnInfo, ConnInfoError, Env};
pub use server::ServerFacts;
pub use tools::{Tool, ToolError, ToolFinder, Tools, Wanted};
pub use wire::{
    CancelHandle, ConnectOptions, Connection, CopyIn, CopyOutError, PgError, Row, Rows,
    ServerError, SqlState, quote_ident, quote_literal,
};
