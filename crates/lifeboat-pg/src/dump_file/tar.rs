//! Tar dumps: the files of a directory dump, one after the other, the table of contents first.
//!
//! Formats: PostgreSQL's `pg_backup_tar.c`; POSIX ustar with GNU's base-256 sizes (`tarCreateHeader` in
//! `src/port/tar.c`).

use std::collections::HashMap;
use std::io::{self, BufReader, Read};

use super::directory::{check_rows, damaged, in_file};
use super::stream::{Tail, each_piece};
use super::{DumpDefect, DumpFile, count_tables};
use crate::archive::{Archive, DataRef, TocEntry, read_blob_list};

const BLOCK_BYTES: usize = 512;

pub(super) fn check(dump: &mut DumpFile, stream: &mut dyn Read) -> Result<(), DumpDefect> {
    let mut tar = Tar { stream, offset: 0 };
    match tar.next_member()? {
        Some((name, size)) if name == "toc.dat" => check_members(dump, &mut tar, size),
        _ => Err(DumpDefect::MissingFile {
            name: "toc.dat".into(),
        }),
    }
}

fn check_members(dump: &mut DumpFile, tar: &mut Tar<'_>, size: u64) -> Result<(), DumpDefect> {
    let archive = tar.member(size, |member| {
        Archive::read_toc(&mut BufReader::new(member)).map_err(|error| in_file("toc.dat", &error))
    })?;
    dump.take_header(&archive.header);
    dump.tables = count_tables(&archive);
    // Each file that must come, and whether it holds rows; lists of large objects name more.
    let mut wanted: HashMap<String, Kind> = HashMap::new();
    for entry in archive.data_entries() {
        let rows = entry
            .copy_stmt
            .as_ref()
            .is_some_and(|statement| !statement.is_empty());
        let kind = match (entry.is("BLOBS"), rows) {
            (true, _) => Kind::List,
            (false, true) => Kind::Rows,
            (false, false) => Kind::Other,
        };
        // The table of contents gives lists of large objects a name that no file bears.
        let standard = TocEntry {
            data: DataRef::Unplaced,
            ..entry.clone()
        };
        let entry = if kind == Kind::List { &standard } else { entry };
        if let Some(name) = archive.data_file(entry) {
            wanted.insert(name, kind);
        }
    }
    let mut blobs_seen: Vec<(String, u64)> = Vec::new();
    let mut blobs_wanted: Vec<String> = Vec::new();
    while let Some((name, size)) = tar.next_member()? {
        match wanted.remove(&name) {
            Some(Kind::List) => {
                let list = tar.member(size, |member| {
                    read_blob_list(&mut BufReader::new(member))
                        .map_err(|error| in_file(&name, &error))
                })?;
                blobs_wanted.extend(list.into_iter().map(|(_, file)| file));
            }
            kind => {
                let mut tail = Tail::default();
                tar.member(size, |member| {
                    each_piece(member, |piece| tail.push(piece))
                        .map_err(|error| damaged(&name, &error))
                })?;
                check_rows(&name, kind == Some(Kind::Rows), &tail)?;
                if kind.is_some() {
                    dump.data_bytes += size;
                } else {
                    // A large object, whose list comes before or after it; or restore.sql.
                    blobs_seen.push((name, size));
                }
            }
        }
    }
    // What pads the file to a tape's block means nothing, but a compressed file is only whole at its end.
    each_piece(tar.stream, |_| {})?;
    if let Some(name) = wanted.into_keys().min() {
        return Err(DumpDefect::MissingFile { name });
    }
    blobs_seen.sort();
    for blob in blobs_wanted {
        let Ok(found) = blobs_seen.binary_search_by(|(name, _)| name.cmp(&blob)) else {
            return Err(DumpDefect::MissingFile { name: blob });
        };
        dump.large_objects += 1;
        dump.data_bytes += blobs_seen.get(found).map_or(0, |(_, size)| *size);
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Kind {
    Rows,
    List,
    Other,
}

struct Tar<'a> {
    stream: &'a mut dyn Read,
    offset: u64,
}

impl Tar<'_> {
    /// The next file's name and size; `None` at the end of the tar file.
    fn next_member(&mut self) -> Result<Option<(String, u64)>, DumpDefect> {
        let mut header = [0; BLOCK_BYTES];
        self.exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let checksum = octal(&header[148..156]);
        let sum = header.iter().enumerate().map(|(at, byte)| match at {
            148..156 => u64::from(b' '),
            _ => u64::from(*byte),
        });
        if checksum != Some(sum.sum()) {
            return Err(self.damaged("a file's header has the wrong checksum"));
        }
        let name = header[..100]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let size = match header[124] & 0x80 {
            0 => octal(&header[124..136]),
            _ => header[128..136]
                .first_chunk()
                .map(|bytes| u64::from_be_bytes(*bytes)),
        };
        match size {
            Some(size) if size <= i64::MAX as u64 => {
                Ok(Some((String::from_utf8_lossy(name).into_owned(), size)))
            }
            _ => Err(self.damaged("a file's header has no size")),
        }
    }

    /// Lets `read` read a file's content, then skips what it left and the padding.
    fn member<T>(
        &mut self,
        size: u64,
        read: impl FnOnce(&mut dyn Read) -> Result<T, DumpDefect>,
    ) -> Result<T, DumpDefect> {
        let mut member = (&mut *self.stream).take(size);
        let result = read(&mut member);
        // The decoder's or the reader's own words first, unless the file has simply ended.
        let skipped = each_piece(&mut member, |_| {});
        let missing = member.limit();
        self.offset += size - missing;
        if missing > 0 && skipped.is_ok() {
            return Err(self.damaged("it ends inside a file"));
        }
        let result = result?;
        skipped?;
        let padding = (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
        let mut block = [0; BLOCK_BYTES];
        self.exact(&mut block[..usize::try_from(padding).unwrap_or(0)])?;
        Ok(result)
    }

    fn exact(&mut self, block: &mut [u8]) -> Result<(), DumpDefect> {
        match self.stream.read_exact(block) {
            Ok(()) => {
                self.offset += block.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it ends without its end marker"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn damaged(&self, what: &'static str) -> DumpDefect {
        DumpDefect::Tar {
            offset: self.offset,
            what,
        }
    }
}

/// A tar header's number: octal digits, padded with spaces or NULs.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}
