//! What the archive tests share: the sample database and the stock tools.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use flate2::read::GzDecoder;
use lifeboat_pg::archive::{ArchiveError, Block, CheckSummary, Compression, CustomReader, DataRef};
use lifeboat_testkit::{TestDatabase, TestServer};
use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};

/// A database filled from `archives/sample.sql`.
pub fn sample(server: &TestServer) -> TestDatabase<'_> {
    let database = server.database("sample");
    database.sql(include_str!("../archives/sample.sql"));
    database
}

/// A stock tool, connected to this database.
pub fn tool(server: &TestServer, name: &str, database: &str) -> Command {
    let mut command = Command::new(server.bin_dir().join(name));
    command
        .envs(server.tool_env(database))
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

/// Runs a command that must succeed and returns what it printed.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    output.stdout
}

/// The entries that `pg_restore -l` lists, without its heading.
pub fn listing(server: &TestServer, archive: &Path) -> String {
    let output = run(tool(server, "pg_restore", "postgres")
        .arg("-l")
        .arg(archive));
    let lines = String::from_utf8(output).unwrap();
    lines
        .lines()
        .filter(|line| !line.starts_with(';'))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The whole database as pg_dump writes it, to compare two of them.
pub fn plain_dump(database: &TestDatabase<'_>) -> String {
    let server = database.server();
    let text = run(&mut tool(server, "pg_dump", database.name()));
    // \restrict's argument is random.
    let text = String::from_utf8(text).unwrap();
    let kept = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    kept.map(|line| format!("{line}\n")).collect()
}

/// Archives that pg_dump 15, 16 and 18 made of `archives/sample.sql`, kept so that every version of
/// the format is tested wherever the tests run. And the same with the compressions that those were built
/// without.
pub fn fixtures() -> Vec<(&'static str, Vec<u8>)> {
    let real = ["pg15-z6", "pg16-z6-redirect", "pg18-z0"].map(|name| (name, fixture(name)));
    let mut all = Vec::from(real);
    all.push((
        "lz4",
        recompress(&fixture("pg16-z6-redirect"), Compression::Lz4),
    ));
    all.push(("zstd", recompress(&fixture("pg18-z0"), Compression::Zstd)));
    all
}

/// One of them.
pub fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives");
    let file = File::open(folder.join(format!("{name}.dump.gz"))).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Reads an archive to its end.
pub fn check(archive: &[u8]) -> Result<CheckSummary, ArchiveError> {
    CustomReader::new(archive)?.check_to_end(&AtomicBool::new(false), &mut |_| {})
}

/// An archive of version 1.15 or newer as `pg_dump -Z lz4` or `-Z zstd` would have written it into a pipe.
pub fn recompress(archive: &[u8], compression: Compression) -> Vec<u8> {
    let mut reader = CustomReader::new(archive).unwrap();
    let mut toc = reader.archive().clone();
    toc.header.compression = compression;
    for entry in toc.entries.iter_mut().filter(|entry| entry.has_data()) {
        entry.data = DataRef::Unplaced;
    }
    let mut out = Vec::new();
    toc.write_toc(&mut out).unwrap();
    while let Some(block) = reader.next_block().unwrap() {
        match block {
            Block::Data(dump_id, mut stream) => {
                out.push(1);
                push_int(&mut out, dump_id.cast_unsigned());
                push_stream(&mut out, &mut stream, compression);
            }
            Block::Blobs(mut blobs) => {
                out.push(3);
                push_int(&mut out, blobs.dump_id().cast_unsigned());
                while let Some((oid, mut stream)) = blobs.next_blob().unwrap() {
                    push_int(&mut out, oid);
                    push_stream(&mut out, &mut stream, compression);
                }
                push_int(&mut out, 0);
            }
        }
    }
    out
}

fn push_stream(out: &mut Vec<u8>, stream: &mut impl Read, compression: Compression) {
    let mut content = Vec::new();
    stream.read_to_end(&mut content).unwrap();
    let packed = match compression {
        Compression::Lz4 => {
            let info = FrameInfo::new()
                .block_mode(BlockMode::Linked)
                .content_checksum(true);
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(content.as_slice(), 3).unwrap(),
        other => panic!("{other:?}"),
    };
    for chunk in packed.chunks(1000) {
        push_int(out, u32::try_from(chunk.len()).unwrap());
        out.extend_from_slice(chunk);
    }
    push_int(out, 0);
}

/// An integer as pg_dump writes it: OIDs too, as if they had a sign.
fn push_int(out: &mut Vec<u8>, value: u32) {
    let value = value.cast_signed();
    out.push(u8::from(value < 0));
    out.extend_from_slice(&value.unsigned_abs().to_le_bytes());
}
