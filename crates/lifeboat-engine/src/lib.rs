//! Lifeboat's operations: no terminal, no environment, no exit.

pub mod config;
pub mod journal;
pub mod objectives;
