//! What the tests of connections share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests; each binary uses its own part"
)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lifeboat_pg::{ConnInfo, ConnectOptions, Connection, PgError};

pub fn no_env(_: &str) -> Option<String> {
    None
}

pub fn info(text: &str) -> ConnInfo {
    ConnInfo::parse(text, &no_env).expect("a good connection string")
}

pub fn connect(text: &str) -> Result<Connection, PgError> {
    Connection::connect(&info(text), &ConnectOptions::default())
}

pub fn connect_watched(text: &str) -> (Connection, Arc<AtomicBool>) {
    let interrupt = Arc::new(AtomicBool::new(false));
    let options = ConnectOptions {
        interrupt: interrupt.clone(),
        ..ConnectOptions::default()
    };
    (
        Connection::connect(&info(text), &options).expect("a connection"),
        interrupt,
    )
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "waited in vain until {what}"
        );
        std::thread::yield_now();
    }
}

/// A loopback address that nobody else is likely to use: tests need no port of their own then.
pub fn loopback() -> String {
    let mut bytes = [0_u8; 3];
    getrandom::fill(&mut bytes).expect("random bytes");
    format!(
        "127.{}.{}.{}",
        bytes[0].max(1),
        bytes[1],
        bytes[2].clamp(1, 254)
    )
}
