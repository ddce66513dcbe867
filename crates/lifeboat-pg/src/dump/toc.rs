//! The table of contents, from stock pg_dump.
//!
//! All knowledge of how to write an object's DDL stays with pg_dump. In the custom format it writes its
//! whole table of contents before the first byte of data, so it is read from a pipe up to there, and then
//! pg_dump is ended: the data is read by our own connections.

use std::io::BufReader;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use crate::archive::{Archive, ArchiveError};
use crate::child::{Running, WaitError, receive};

use super::error::DumpError;

/// What pg_dump waits for a table's lock. The leader holds all of them already, so it gets them at once,
/// unless somebody queues for an exclusive one; and he waits for the leader, so waiting longer is no use.
const LOCK_WAIT_MS: u32 = 1000;

/// Runs `pg_dump` (a command with its connection in the environment) up to the end of its TOC. Returns the
/// TOC and what it wrote to stderr so far, which may be warnings.
pub(super) fn read(
    mut pg_dump: Command,
    snapshot: &str,
    encoding: &str,
    interrupt: &AtomicBool,
) -> Result<Archive, DumpError> {
    pg_dump
        .args(["--format=custom", "--compress=0", "--no-password"])
        .arg(format!("--snapshot={snapshot}"))
        // Else PGCLIENTENCODING or a setting of the role would decide.
        .arg(format!("--encoding={encoding}"))
        .arg(format!("--lock-wait-timeout={LOCK_WAIT_MS}"));
    let mut tool = Running::spawn(pg_dump, false).map_err(|source| DumpError::Spawn {
        tool: "pg_dump",
        source,
    })?;
    let (sender, result) = channel();
    let reader = tool.stdout().map(|stdout| {
        std::thread::spawn(move || {
            let mut input = BufReader::with_capacity(64 * 1024, stdout);
            let _ = sender.send(Archive::read_toc(&mut input));
            // Its pipe stays open until it was told to end: a write into a closed pipe would make it
            // complain first.
            input
        })
    });
    let toc = match receive(&result, interrupt) {
        Ok(Some(toc)) => toc,
        Ok(None) => {
            return Err(DumpError::Toc {
                what: "it could not be read".into(),
            });
        }
        Err(WaitError::Interrupted) => {
            tool.terminate();
            return Err(DumpError::Interrupted);
        }
        Err(WaitError::Io(source)) => {
            return Err(DumpError::Spawn {
                tool: "pg_dump",
                source,
            });
        }
    };
    let outcome = match toc {
        Ok(archive) => {
            tool.terminate();
            Ok(archive)
        }
        Err(error) => Err(failure(tool, error, interrupt)),
    };
    if let Some(reader) = reader {
        drop(reader.join());
    }
    outcome
}

/// A TOC that breaks off is the consequence; how pg_dump ended is the cause.
fn failure(tool: Running, error: ArchiveError, interrupt: &AtomicBool) -> DumpError {
    match tool.wait(interrupt) {
        Ok(ended) if !ended.status.success() => DumpError::PgDump {
            status: ended.status.to_string(),
            words: ended.stderr,
        },
        Ok(ended) => DumpError::Archive {
            source: error,
            words: ended.stderr,
        },
        Err(WaitError::Interrupted) => DumpError::Interrupted,
        Err(WaitError::Io(source)) => DumpError::Spawn {
            tool: "pg_dump",
            source,
        },
    }
}
