//! A small blocking client for PostgreSQL's protocol, version 3.
//!
//! It exists because a backup's hot loop wants the rows of a COPY as slices of the read buffer, with
//! nothing in between, and because everything here is threads. It owns sockets, TLS, logging in, simple
//! queries, COPY and cancelling; it refuses to know what the statements mean.
//!
//! Invariants: memory is bounded whatever the server sends; no wait is longer than a quarter of a second
//! without a look at the interrupt flag; a connection that failed is never used again.

mod auth;
mod cancel;
mod certificate;
mod channel;
mod connect;
mod connection;
mod copy;
mod error;
mod input;
mod rows;
mod socket;
mod tls;
mod verify;
mod watch;

pub use auth::AuthError;
pub use cancel::CancelHandle;
pub use connection::{ConnectOptions, Connection, quote_ident, quote_literal};
pub use copy::CopyIn;
pub use error::{CopyOutError, PgError, ServerError, SqlState};
pub use rows::{Row, Rows};
