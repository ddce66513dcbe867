//! Copying between repositories: what moves, what does not, and what becomes of it when something is damaged or
//! cut off. The real restic judges the result.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
mod moving;
mod places;
#[path = "../support/mod.rs"]
mod support;
mod together;
