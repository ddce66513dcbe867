//! Development only: real PostgreSQL servers for tests, and what every storage has to pass.
//!
//! ```no_run
//! let server = lifeboat_testkit::TestServer::shared();        // one per test process
//! let database = server.database("census");                   // its own, dropped at the end
//! database.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
//! assert_eq!(database.value("SELECT count(*) FROM t"), "1");
//! ```
//!
//! A test that stops, restarts or kills its server takes one of its own: [`TestServer::start`]. Where no
//! PostgreSQL is installed, tests fail: a suite that skips what it is about is green for the wrong reason.
#![allow(
    clippy::expect_used,
    reason = "a test that cannot have its server has nothing better to do than say so and stop"
)]

pub mod awkward;
mod database;
pub mod faulty_storage;
mod installed;
pub mod remote;
mod server;
mod sql;
pub mod storage_conformance;

pub use database::TestDatabase;
pub use installed::{Installed, installed, newest, of_major, search_path};
pub use lifeboat_pg::instance::StopMode;
pub use server::TestServer;
