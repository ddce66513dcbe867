//! Pruning removes what no snapshot needs and nothing else, wherever it is cut off and whoever works beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod beside_others;
mod cut_off;
mod damaged;
mod removing;
#[path = "../support/mod.rs"]
mod support;
