//! Where the directory format keeps data, and its list of large objects.
//!
//! Format: PostgreSQL's `pg_backup_directory.c`. `pg_restore` puts the dump's folder before each
//! name and opens what that gives, so a name may hold folders of its own.

use std::io::{BufRead, Write};
use std::path::{Component, Path};

use super::error::ArchiveError;
use super::header::Version;
use super::toc::{DataRef, TocEntry};

/// What ends the rows of every `TABLE DATA` entry that is loaded with COPY.
///
/// `pg_dump` writes it as part of the data (`dumpTableData_copy` in `pg_dump.c`). Loading straight
/// into a server works without it, but the SQL script that `pg_restore -f` makes would not end
/// its COPY: data that is to be read by `pg_restore` needs it after the last row.
pub const TABLE_DATA_END: &[u8] = b"\\.\n\n\n";

/// The file, relative to `toc.dat`, that holds (or is to hold) an entry's data; `None` for an
/// entry without data.
///
/// An entry that came from a directory dump keeps the name it has there. Others get
/// `tables/SCHEMA/TABLE/data.dat`, so that every table has a folder of its own, with every byte
/// outside `A-Z a-z 0-9 _ -` as `%` and two hex digits; large objects' lists get the name that
/// `pg_restore` insists on.
#[must_use]
pub fn data_file(version: Version, entry: &TocEntry) -> Option<String> {
    match &entry.data {
        DataRef::None => return None,
        DataRef::File(name) if !entry.is("BLOBS") || version.has_blob_groups() => {
            return Some(name.lossy().into_owned());
        }
        _ => {}
    }
    if entry.is("BLOBS") {
        // Before 1.16 there is one such entry, and pg_restore opens this name whatever the TOC says.
        return Some(if version.has_blob_groups() {
            format!("blobs_{}.toc", entry.dump_id)
        } else {
            "blobs.toc".into()
        });
    }
    match (&entry.namespace, &entry.tag) {
        (Some(schema), Some(table)) if entry.is("TABLE DATA") => Some(format!(
            "tables/{}/{}/data.dat",
            percent_encode(schema.as_bytes()),
            percent_encode(table.as_bytes())
        )),
        _ => Some(format!("{}.dat", entry.dump_id)),
    }
}

/// The file, relative to `toc.dat`, for one large object.
#[must_use]
pub fn blob_file(oid: u32) -> String {
    format!("blob_{oid}.dat")
}

/// Writes one line of a `blobs.toc` or `blobs_N.toc`: a large object and its file.
///
/// # Errors
/// [`ArchiveError::Unwritable`] for a file name with white space, which `pg_restore` would cut;
/// [`ArchiveError::Write`].
pub fn write_blob_line(out: &mut impl Write, oid: u32, file: &str) -> Result<(), ArchiveError> {
    if file.is_empty() || file.contains(char::is_whitespace) {
        let what = format!("a large object's file name has white space: {file:?}");
        return Err(ArchiveError::Unwritable { what });
    }
    writeln!(out, "{oid} {file}").map_err(|source| ArchiveError::Write { offset: 0, source })
}

/// Reads a `blobs.toc` or `blobs_N.toc`: each large object with its file, in the file's order.
///
/// # Errors
/// [`ArchiveError::Damaged`] for a line that is not an OID and a name (the offset is the line's
/// number), [`ArchiveError::Read`].
pub fn read_blob_list(input: &mut impl BufRead) -> Result<Vec<(u32, String)>, ArchiveError> {
    let mut blobs = Vec::new();
    let mut line = Vec::new();
    let mut line_number = 0;
    loop {
        line_number += 1;
        line.clear();
        // A line holds a path: cut hostile ones where pg_restore does (MAXPGPATH).
        let mut limited = std::io::Read::take(&mut *input, 1024);
        let read = limited
            .read_until(b'\n', &mut line)
            .map_err(|source| ArchiveError::Read {
                offset: line_number,
                source,
            })?;
        if read == 0 {
            return Ok(blobs);
        }
        let blob = std::str::from_utf8(&line).ok().and_then(|line| {
            let (oid, file) = line.strip_suffix('\n')?.split_once(' ')?;
            let oid = oid.parse().ok().filter(|oid| *oid != 0)?;
            (!file.is_empty() && !file.contains(char::is_whitespace)).then(|| (oid, file.into()))
        });
        blobs.push(blob.ok_or_else(|| {
            let what = format!("line {line_number} of the list of large objects is malformed");
            ArchiveError::Damaged {
                offset: line_number,
                what,
            }
        })?);
    }
}

/// Whether a file name from a TOC stays inside the dump's folder.
#[must_use]
pub fn safe_relative(name: &str) -> bool {
    let mut components = Path::new(name).components().peekable();
    components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}

/// Keeps `A-Z a-z 0-9 _ -` and writes every other byte as `%XX`, so that any name is one plain
/// path component, and no two names become the same.
#[must_use]
pub fn percent_encode(name: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            encoded.push(char::from(*byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}
