//! Directory dumps: every file that the table of contents names is there and can be read.
//!
//! Format: PostgreSQL's `pg_backup_directory.c`. Each file may be compressed by itself, and then has
//! `.gz`, `.lz4` or `.zst` after its name.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::stream::{Codec, Tail, Watch, each_piece};
use super::{DumpDefect, DumpFile, DumpFormat, count_tables};
use crate::archive::{Archive, ArchiveError, TABLE_DATA_END, read_blob_list, safe_relative};

const TOC: &str = "toc.dat";

pub(super) fn check(dump: &mut DumpFile, watch: &mut Watch<'_>) -> Result<(), DumpDefect> {
    let folder = dump.path.clone();
    let (toc, codec) = match open(&folder, TOC, &mut dump.size_bytes) {
        Err(DumpDefect::MissingFile { .. }) => return Err(DumpDefect::NoToc),
        toc => toc?,
    };
    dump.format = Some(DumpFormat::Directory);
    dump.modified = toc.metadata().and_then(|meta| meta.modified()).ok();
    let toc = codec
        .decode(watch.watched(toc))
        .map_err(|error| damaged(TOC, &error))?;
    let mut toc = BufReader::new(toc);
    let archive = Archive::read_toc(&mut toc).map_err(|error| in_file(TOC, &error))?;
    if toc.read(&mut [0]).map_err(|error| damaged(TOC, &error))? != 0 {
        let what = "more bytes follow the table of contents".into();
        return Err(DumpDefect::DamagedFile {
            name: TOC.into(),
            what,
        });
    }
    drop(toc);
    dump.take_header(&archive.header);
    dump.tables = count_tables(&archive);
    for entry in archive.data_entries() {
        let Some(name) = archive.data_file(entry) else {
            continue;
        };
        if !entry.is("BLOBS") {
            let rows = entry
                .copy_stmt
                .as_ref()
                .is_some_and(|statement| !statement.is_empty());
            dump.data_bytes += read_file(&folder, &name, rows, &mut dump.size_bytes, watch)?;
            continue;
        }
        let (list, codec) = open(&folder, &name, &mut dump.size_bytes)?;
        let list = codec
            .decode(watch.watched(list))
            .map_err(|error| damaged(&name, &error))?;
        let blobs =
            read_blob_list(&mut BufReader::new(list)).map_err(|error| in_file(&name, &error))?;
        for (_, blob) in blobs {
            dump.large_objects += 1;
            dump.data_bytes += read_file(&folder, &blob, false, &mut dump.size_bytes, watch)?;
        }
    }
    Ok(())
}

/// Opens a file of the dump under its name or with a compression's suffix.
fn open(folder: &Path, name: &str, size_bytes: &mut u64) -> Result<(File, Codec), DumpDefect> {
    if !safe_relative(name) {
        let what = "its name leads out of the dump".into();
        return Err(DumpDefect::DamagedFile {
            name: name.into(),
            what,
        });
    }
    for (suffix, codec) in Codec::SUFFIXES {
        match File::open(folder.join(format!("{name}{suffix}"))) {
            Ok(file) => {
                *size_bytes += file.metadata().map_or(0, |meta| meta.len());
                return Ok((file, codec));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DumpDefect::Unreadable(error)),
        }
    }
    Err(DumpDefect::MissingFile { name: name.into() })
}

/// Reads a file to its end and returns its length, decompressed.
fn read_file(
    folder: &Path,
    name: &str,
    is_rows: bool,
    size_bytes: &mut u64,
    watch: &mut Watch<'_>,
) -> Result<u64, DumpDefect> {
    let (file, codec) = open(folder, name, size_bytes)?;
    let mut total = 0;
    let mut tail = Tail::default();
    codec
        .decode(watch.watched(file))
        .and_then(|mut stream| {
            each_piece(&mut stream, |piece| {
                total += piece.len() as u64;
                tail.push(piece);
            })
        })
        .map_err(|error| damaged(name, &error))?;
    check_rows(name, is_rows, &tail)?;
    Ok(total)
}

/// The rows of a table end as `pg_dump` ends them; a file that was cut short does not.
pub(super) fn check_rows(name: &str, is_rows: bool, tail: &Tail) -> Result<(), DumpDefect> {
    if is_rows && !tail.ends_with(TABLE_DATA_END) {
        let what = "it was cut short: the end of the rows is missing".into();
        return Err(DumpDefect::DamagedFile {
            name: name.into(),
            what,
        });
    }
    Ok(())
}

pub(super) fn damaged(name: &str, error: &io::Error) -> DumpDefect {
    DumpDefect::DamagedFile {
        name: name.into(),
        what: error.to_string(),
    }
}

pub(super) fn in_file(name: &str, error: &ArchiveError) -> DumpDefect {
    DumpDefect::DamagedFile {
        name: name.into(),
        what: error.to_string(),
    }
}
