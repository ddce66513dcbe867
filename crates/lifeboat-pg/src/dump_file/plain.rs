//! Plain SQL dumps.
//!
//! `pg_dump` writes as its last words that it is done, and `pg_dumpall` likewise: without them, the
//! dump was cut short. Format: `RestoreArchive` in PostgreSQL's `pg_backup_archiver.c`, `main` in
//! `pg_dumpall.c`.

use std::io::Read;

use memchr::memchr;

use super::stream::each_piece;
use super::{DumpDefect, DumpFile, DumpFormat};

/// How much of a line is looked at. Rows may be longer by far.
const LINE_BYTES: usize = 4096;

pub(super) fn check(dump: &mut DumpFile, stream: &mut dyn Read) -> Result<(), DumpDefect> {
    let mut scan = Scan {
        end_marker: match dump.format {
            Some(DumpFormat::PlainCluster) => b"-- PostgreSQL database cluster dump complete",
            _ => b"-- PostgreSQL database dump complete",
        },
        dump,
        line: Vec::new(),
        rows_of: None,
        created_tables: 0,
        ending: Ending::NotYet,
    };
    each_piece(stream, |piece| scan.feed(piece))?;
    scan.finish()
}

struct Scan<'a> {
    dump: &'a mut DumpFile,
    end_marker: &'static [u8],
    /// The beginning of a line that is not complete yet.
    line: Vec<u8>,
    /// The table whose rows are being read.
    rows_of: Option<String>,
    created_tables: u64,
    ending: Ending,
}

#[derive(PartialEq)]
enum Ending {
    NotYet,
    Marked,
    /// Marked, and then more followed.
    Overrun,
}

impl Scan<'_> {
    fn feed(&mut self, piece: &[u8]) {
        self.dump.data_bytes += piece.len() as u64;
        let mut rest = piece;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, tail) = rest.split_at(end);
            if self.line.is_empty() {
                self.end_line(&line[..line.len().min(LINE_BYTES)]);
            } else {
                self.keep(line);
                let line = std::mem::take(&mut self.line);
                self.end_line(&line);
                self.line = line;
                self.line.clear();
            }
            rest = &tail[1..];
        }
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.rows_of.is_some() {
            if line == b"\\." {
                self.rows_of = None;
            }
            return;
        }
        if line == self.end_marker {
            self.ending = Ending::Marked;
            return;
        }
        if line.is_empty() || line == b"--" || line.starts_with(b"\\unrestrict ") {
            return;
        }
        if self.ending == Ending::Marked {
            self.ending = Ending::Overrun;
        }
        if let Some(rows) = line.strip_prefix(b"COPY ") {
            if rows.ends_with(b" FROM stdin;") {
                self.dump.tables += 1;
                let table = rows.split(|byte| *byte == b'(').next().unwrap_or_default();
                let table = String::from_utf8_lossy(table);
                let table = table.trim().trim_end_matches("FROM stdin;").trim();
                self.rows_of = Some(table.chars().take(140).collect());
            }
        } else if line.starts_with(b"CREATE TABLE ") || line.starts_with(b"CREATE UNLOGGED TABLE ")
        {
            self.created_tables += 1;
        } else if line.starts_with(b"SELECT pg_catalog.lo_open(") {
            self.dump.large_objects += 1;
        } else if let Some(comment) = line.strip_prefix(b"-- ") {
            self.comment(&String::from_utf8_lossy(comment));
        }
    }

    fn comment(&mut self, comment: &str) {
        let dump = &mut self.dump;
        if let Some(version) = comment.strip_prefix("Dumped from database version ") {
            dump.server_version.get_or_insert_with(|| version.into());
        } else if let Some(version) = comment.strip_prefix("Dumped by pg_dump version ") {
            dump.pg_dump_version.get_or_insert_with(|| version.into());
        } else if let Some(time) = comment.strip_prefix("Started on ") {
            let time = time.get(..19).and_then(|time| time.parse().ok());
            dump.created = dump.created.or(time);
        } else if let Some(entry) = comment.strip_prefix("Name: ")
            && let Some((name, _)) = entry.split_once("; Type: DATABASE;")
        {
            dump.database.get_or_insert_with(|| name.into());
        }
    }

    fn finish(mut self) -> Result<(), DumpDefect> {
        let line = std::mem::take(&mut self.line);
        self.end_line(&line);
        if self.dump.tables == 0 {
            self.dump.tables = self.created_tables;
        }
        if let Some(table) = self.rows_of {
            return Err(DumpDefect::InsideRows { table });
        }
        match self.ending {
            Ending::NotYet => Err(DumpDefect::NoEndMarker),
            Ending::Marked => Ok(()),
            Ending::Overrun => Err(DumpDefect::AfterEndMarker),
        }
    }
}
