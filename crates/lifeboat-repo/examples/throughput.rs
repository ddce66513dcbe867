//! Measures the path from bytes to a repository and back, on one file or folder of your own:
//!
//! ```sh
//! cargo run --release -p lifeboat-repo --example throughput -- DUMP.sql /tmp/repository [WORKERS] [AVERAGE_KIB]
//! ```
//!
//! The repository is made when it is not there; its password is `throughput`. Run it twice to see what a second
//! backup of the same bytes costs.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for people who build this"
)]

use jiff::Timestamp;
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::storage::{LocalStorage, Storage};
use lifeboat_repo::tree::{Directory, FileContent};
use lifeboat_repo::writer::{SnapshotDraft, WriterOptions};
use lifeboat_repo::{Repository, RepositoryError};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default| {
        arguments
            .get(at)
            .map_or(default, |text| text.parse().unwrap())
    };
    let (source, place) = (&arguments[1], &arguments[2]);
    let (workers, average) = (number(3, 1), number(4, 16));

    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(place));
    let password = "throughput".into();
    let repository =
        Repository::open(Arc::clone(&storage), &password).or_else(|error| match error {
            RepositoryError::NotFound { .. } => {
                let options = InitOptions {
                    chunk_sizes: ChunkSizes::with_average(average << 10),
                    scrypt: ScryptParams::default(),
                    hostname: "example".to_owned(),
                    username: "example".to_owned(),
                    now: Timestamp::now(),
                };
                Repository::init(Arc::clone(&storage), &password, &options)
            }
            error => Err(error),
        });
    let repository = repository.unwrap();

    // Read beforehand: what is measured is the repository, not this file's disk.
    let bytes = std::fs::read(source).unwrap();
    let (began, started) = (Timestamp::now(), (Instant::now(), cpu_seconds()));
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let parts: Vec<FileContent> = std::thread::scope(|scope| {
        let slices = bytes.chunks(bytes.len().div_ceil(workers as usize).max(1));
        let threads: Vec<_> = slices
            .map(|slice| {
                let mut worker = writer.worker().unwrap();
                scope.spawn(move || {
                    let mut file = worker.file();
                    // In pieces of a row's size, as they come from COPY.
                    slice.chunks(200).for_each(|row| file.push(row).unwrap());
                    file.finish().unwrap()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let content = FileContent::concat(parts);
    let mut root = Directory::default();
    root.insert("dump/data.dat", content.clone()).unwrap();
    root.insert("dump/empty", FileContent::default()).unwrap();
    let draft = SnapshotDraft {
        parent: None,
        time: began,
        hostname: "example".to_owned(),
        username: "example".to_owned(),
        paths: vec!["/dump".to_owned()],
        tags: vec!["throughput".to_owned()],
        worked: Some((began, Timestamp::now())),
        extra: None,
    };
    let (snapshot, stats) = writer.commit(&root, draft).unwrap();
    report("written", bytes.len(), started);
    println!("{}\n{stats:#?}", snapshot.id);

    let started = (Instant::now(), cpu_seconds());
    let reader = repository.reader().unwrap();
    let node = reader.find(&snapshot, "dump/data.dat").unwrap();
    let content = reader.content(&node).unwrap();
    let slice = content.size_bytes.div_ceil(workers.into()).max(1);
    std::thread::scope(|scope| {
        for start in (0..content.size_bytes).step_by(slice as usize) {
            let mut file = reader.open_range(&content, start..start + slice).unwrap();
            let mut expected = &bytes[start as usize..];
            scope.spawn(move || {
                while let Some(chunk) = file.next_chunk().unwrap() {
                    assert!(
                        expected.starts_with(chunk),
                        "read back other bytes than were written"
                    );
                    expected = &expected[chunk.len()..];
                }
            });
        }
    });
    report("read", bytes.len(), started);
    let random = reader.random(&content).unwrap();
    let (started, count, mut page) = (Instant::now(), 10_000u64, [0; 8192]);
    for n in 0..count {
        // A walk that visits pages in no order.
        let offset = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % content.size_bytes;
        let read = random.read_at(offset, &mut page).unwrap();
        assert_eq!(page[..read], bytes[offset as usize..][..read]);
    }
    println!(
        "random pages: {:.0} µs each",
        started.elapsed().as_secs_f64() * 1e6 / count as f64
    );
}

/// Wall and processor time since a beginning: on a busy machine only the second says something.
fn report(what: &str, bytes: usize, since: (Instant, f64)) {
    let (wall, cpu) = (since.0.elapsed().as_secs_f64(), cpu_seconds() - since.1);
    let rate = |seconds: f64| bytes as f64 / seconds.max(0.01) / 1e6;
    println!(
        "{what}: {:.0} MB/s ({wall:.2} s), {:.0} MB/s for each core it used ({cpu:.2} s)",
        rate(wall),
        rate(cpu)
    );
}

/// Processor time of all threads so far; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}
