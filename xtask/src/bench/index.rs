//! `cargo xtask bench index`: what the index of a large repository costs whoever opens it.
//!
//! The index is made up and lists packs that are not there; that takes none of the terabyte that it speaks of. Then
//! Lifeboat and restic each take a backup of next to nothing into that repository: both load the whole index for
//! it, and read no old pack. How long the same takes with an empty index is told beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_repo::index;
use lifeboat_repo::key;
use lifeboat_repo::pack::{BlobKind, PackedBlob};
use lifeboat_repo::seal::Sealer;
use lifeboat_repo::{BlobId, IndexId, PackId};
use secrecy::SecretString;

use super::contenders::{Bench, Dumper, size_bytes};
use super::measure;
use super::report::{Row, first_line, machine, megabytes};
use super::server::Server;
use super::{build_lifeboat, page, print, say, settle, work_folder};

/// Load a made-up index with as many chunks as a terabyte has.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many chunks, separated by commas: 953674 are one terabyte of 1 MiB each.
    #[arg(long, value_delimiter = ',', default_values_t = [953_674, 10_000_000])]
    chunks: Vec<u64>,
    /// How often each command runs.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Where the server and the repositories go: each index takes some 50 bytes a chunk.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Write the result to docs/benchmarks.md, not only to standard output.
    #[arg(long)]
    write: bool,
}

/// A pack is closed at this size.
const PACK_BYTES: u32 = 16 << 20;
/// What a chunk of a terabyte takes once compressed: as much of its size as the dataset's chunks do.
const STORED_PER_CHUNK: u32 = 200 << 10;

/// One size of the index.
struct Measurement {
    chunks: u64,
    index_bytes: u64,
    lifeboat: Row,
    restic: Row,
}

/// Runs it.
///
/// # Errors
/// A sentence for the person who typed the command.
pub fn run(args: &Args) -> Result<(), String> {
    if args.runs == 0 || args.chunks.iter().any(|chunks| *chunks > 100_000_000) {
        return Err("--runs starts at 1, --chunks ends at 100 million".into());
    }
    let server = Server::start(&args.dir, None)?;
    server.sql("postgres", "CREATE DATABASE bench")?;
    server.sql("bench", "CREATE TABLE small AS SELECT 1 AS one")?;
    let lifeboat = build_lifeboat()?;
    let mut measurements = Vec::new();
    for chunks in [0].iter().chain(&args.chunks) {
        let work = work_folder(&args.dir)?;
        let bench = Bench {
            server: &server,
            dir: work.path(),
            lifeboat: Some(lifeboat.clone()),
            jobs: 2,
        };
        measurements.push(measure(&bench, *chunks, args.runs)?);
    }
    let text = markdown(args, &measurements, &server.version);
    print(&format!("## {}\n{text}", page::INDEX));
    if args.write {
        page::write(|old| page::with_section(old, page::INDEX, &text))?;
    }
    Ok(())
}

fn measure(bench: &Bench<'_>, chunks: u64, runs: u32) -> Result<Measurement, String> {
    Dumper::Lifeboat.prepare(bench)?;
    let repository = Dumper::Lifeboat.destination(bench);
    say(&format!("making an index of {chunks} chunks"));
    make(&repository, &bench.password_file(), chunks)?;
    let file = bench.dir.join("small");
    fs::write(&file, "next to nothing").map_err(|error| error.to_string())?;
    let mut measurement = Measurement {
        chunks,
        index_bytes: size_bytes(&repository.join("index")),
        lifeboat: Row::new("lifeboat backup".into()),
        restic: Row::new("restic backup".into()),
    };
    for run in 0..runs {
        for turn in 0..2 {
            settle(bench)?;
            let ours = (run + turn) % 2 == 0;
            let (mut command, row) = if ours {
                (Dumper::Lifeboat.command(bench)?, &mut measurement.lifeboat)
            } else {
                let mut command = bench.restic(&repository);
                // Its cache would keep a second copy of the index on the same disk.
                command.args(["-q", "--no-cache", "backup"]).arg(&file);
                (command, &mut measurement.restic)
            };
            let measured = measure::run(&mut command)?;
            row.add(&measured, 0);
            say(&format!(
                "{}: {:.1} s, {} MB",
                row.name(),
                measured.seconds,
                measured.peak_bytes / 1_000_000
            ));
        }
    }
    Ok(measurement)
}

/// Puts index files that list so many chunks into a repository, as its writer would have: sealed, compressed, at
/// most [`index::BLOBS_PER_FILE`] in each.
fn make(repository: &Path, password: &Path, chunks: u64) -> Result<(), String> {
    let sealer = &sealer(repository, password)?;
    let files = chunks.div_ceil(index::BLOBS_PER_FILE as u64);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    for file in (thread..files).step_by(threads as usize) {
                        let first = file * index::BLOBS_PER_FILE as u64;
                        let last = chunks.min(first + index::BLOBS_PER_FILE as u64);
                        write_file(repository, sealer, first..last)?;
                    }
                    Ok::<_, String>(())
                })
            })
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| "a thread panicked".to_owned())??;
        }
        Ok(())
    })
}

fn write_file(
    repository: &Path,
    sealer: &Sealer,
    chunks: std::ops::Range<u64>,
) -> Result<(), String> {
    let mut packs: Vec<(PackId, Vec<PackedBlob>)> = Vec::new();
    let mut offset = PACK_BYTES;
    for chunk in chunks {
        // A hash of its number: any other chance would not be the same the next time.
        let id = BlobId::of(&chunk.to_le_bytes());
        if offset >= PACK_BYTES {
            packs.push((PackId::of(id.as_bytes()), Vec::new()));
            offset = 0;
        }
        let spread = u32::from_le_bytes([id.as_bytes()[0], id.as_bytes()[1], 0, 0]) * 3;
        let blob = PackedBlob {
            id,
            kind: BlobKind::Data,
            offset,
            length: STORED_PER_CHUNK / 2 + spread,
            uncompressed_length: Some(STORED_PER_CHUNK * 4 + spread),
        };
        offset += blob.length;
        if let Some((_, blobs)) = packs.last_mut() {
            blobs.push(blob);
        }
    }
    let json = index::write(packs.iter().map(|(id, blobs)| (id, blobs.as_slice())));
    let mut plaintext = vec![2];
    plaintext.extend(zstd::bulk::compress(&json, 3).map_err(|error| error.to_string())?);
    let content = sealer.seal(&plaintext).map_err(|error| error.to_string())?;
    let path = repository
        .join("index")
        .join(IndexId::of(&content).to_string());
    fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn sealer(repository: &Path, password: &Path) -> Result<Sealer, String> {
    let text = |error: std::io::Error| error.to_string();
    let password = fs::read_to_string(password).map_err(text)?;
    let password = SecretString::from(password.trim_end());
    let file = fs::read_dir(repository.join("keys"))
        .map_err(text)?
        .next()
        .ok_or("the repository has no key")?
        .map_err(text)?;
    let content = fs::read(file.path()).map_err(text)?;
    let master = key::open(&content, &password).map_err(|error| error.to_string())?;
    Ok(Sealer::new(&master))
}

fn markdown(args: &Args, measurements: &[Measurement], postgres: &str) -> String {
    let mut page = String::new();
    let chunks: Vec<String> = args.chunks.iter().map(ToString::to_string).collect();
    let _ = write!(
        page,
        "Written by `cargo xtask bench index --chunks {} --runs {} --write`. A repository with a made-up index of so many chunks \
         ({} are one terabyte of 1 MiB each, the average that `init` chooses for such a database), and a backup of next \
         to nothing into it: both programs load the whole index for that. The first line is the same backup into an \
         empty repository. restic without its cache.\n\n\
         | | |\n|---|---|\n| machine | {} |\n| PostgreSQL | {postgres} |\n| restic | {} |\n\n\
         | chunks | index files | lifeboat backup, seconds | of processors | peak memory | restic backup, seconds \
         | of processors | peak memory |\n|---|---|---|---|---|---|---|---|\n",
        chunks.join(","),
        args.runs,
        grouped(953_674),
        machine(),
        first_line(Command::new("restic").arg("version")),
    );
    for one in measurements {
        let _ = writeln!(
            page,
            "| {} | {} MB | {} | {:.1} | {} MB | {} | {:.1} | {} MB |",
            grouped(one.chunks),
            megabytes(one.index_bytes as f64),
            one.lifeboat.span(),
            one.lifeboat.processor_seconds(),
            one.lifeboat.peak() / 1_000_000,
            one.restic.span(),
            one.restic.processor_seconds(),
            one.restic.peak() / 1_000_000
        );
    }
    page
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
