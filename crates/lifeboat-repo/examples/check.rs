//! Measures a check of a repository of your own, every byte of it:
//!
//! ```sh
//! RESTIC_PASSWORD=… cargo run --release -p lifeboat-repo --example check -- /path/to/repository [JOBS]
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for people who build this"
)]

use lifeboat_repo::Repository;
use lifeboat_repo::check::{CheckOptions, CheckScope};
use lifeboat_repo::storage::LocalStorage;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let password = std::env::var("RESTIC_PASSWORD").unwrap();
    let storage = Arc::new(LocalStorage::new(&arguments[1]));
    let mut options = CheckOptions::default();
    if let Some(jobs) = arguments.get(2) {
        options.jobs = jobs.parse().unwrap();
    }
    let started = Instant::now();
    let repository = Repository::open(storage, &password.into()).unwrap();
    println!("opened: {:.2} s", started.elapsed().as_secs_f64());
    for read_data in [false, true] {
        let started = Instant::now();
        let options = CheckOptions {
            read_data,
            ..options.clone()
        };
        let report = repository
            .check(CheckScope::Everything, &options, &|_| ())
            .unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let rate = report.bytes_read as f64 / seconds / 1e6;
        println!("read_data {read_data}: {seconds:.2} s, {rate:.0} MB/s, {report:?}");
    }
}
