//! Proof that a custom-format archive is complete, by reading all of it.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Archive;
use super::custom_reader::{Block, CustomReader, DataStream};
use super::error::ArchiveError;
use super::toc::TocEntry;

/// What a complete archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckSummary {
    /// Entries with rows: tables, and partitions each by itself.
    pub tables: u64,
    /// Large objects.
    pub large_objects: u64,
    /// Decompressed bytes of all data.
    pub data_bytes: u64,
    /// The archive's own size in bytes.
    pub archive_bytes: u64,
}

impl<R: Read> CustomReader<R> {
    /// Reads the archive to its last byte and proves it complete: each entry with data has its
    /// block, at the place that the table of contents says, if it does; each chunk is there and
    /// each stream ends; compressed data decodes to its end; each large object of the table of
    /// contents has its content; and nothing is left over.
    ///
    /// `progress` is called with the archive's bytes read so far, some hundred times a second.
    /// Memory stays bounded by the table of contents and some buffers.
    ///
    /// # Errors
    /// Any but the writing kinds of [`ArchiveError`], for the first defect found;
    /// [`ArchiveError::Interrupted`] soon after `interrupt` is set.
    pub fn check_to_end(
        &mut self,
        interrupt: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<CheckSummary, ArchiveError> {
        let mut summary = CheckSummary::default();
        let mut blobs_found = Vec::new();
        let mut blobs_seen = false;
        let mut on_bytes = |offset| {
            progress(offset);
            if interrupt.load(Ordering::Relaxed) {
                Err(ArchiveError::Interrupted)
            } else {
                Ok(())
            }
        };
        while let Some(block) = self.next_block()? {
            match block {
                Block::Data(_, stream) => {
                    summary.data_bytes += drain(stream, &mut on_bytes)?;
                    summary.tables += 1;
                }
                Block::Blobs(mut blobs) => {
                    blobs_seen = true;
                    while let Some((oid, stream)) = blobs.next_blob()? {
                        summary.data_bytes += drain(stream, &mut on_bytes)?;
                        blobs_found.push(oid);
                    }
                }
            }
        }
        summary.large_objects = blobs_found.len() as u64;
        summary.archive_bytes = self.offset();
        if blobs_seen {
            self.archive().check_large_objects(blobs_found)?;
        }
        Ok(summary)
    }
}

/// Reads a stream to its end and returns its length.
fn drain<R: Read>(
    mut stream: DataStream<'_, R>,
    on_bytes: &mut dyn FnMut(u64) -> Result<(), ArchiveError>,
) -> Result<u64, ArchiveError> {
    /// How much may pass between two looks at the interrupt.
    const STRIDE_BYTES: u64 = 4 << 20;
    let mut total = 0;
    let mut told = 0;
    while let Some(bytes) = stream.next_slice()? {
        total += bytes.len() as u64;
        if total - told >= STRIDE_BYTES {
            told = total;
            on_bytes(stream.offset())?;
        }
    }
    on_bytes(stream.offset())?;
    Ok(total)
}

impl Archive {
    /// Every large object that the table of contents defines must be among those that had their content.
    ///
    /// To be asked only of archives that have any content: a schema-only or `--section=pre-data` dump
    /// defines large objects and leaves it at that.
    ///
    /// # Errors
    /// [`ArchiveError::MissingData`] for the first that is not.
    pub fn check_large_objects(&self, mut found: Vec<u32>) -> Result<(), ArchiveError> {
        found.sort_unstable();
        for entry in &self.entries {
            let missing = large_objects(entry).find(|oid| found.binary_search(oid).is_err());
            if let Some(oid) = missing {
                return Err(ArchiveError::MissingData {
                    dump_id: entry.dump_id,
                    description: format!("large object {oid}"),
                });
            }
        }
        Ok(())
    }
}

/// The large objects that an entry defines: one for `BLOB` (before 1.16), a list of OIDs, one per
/// line, for `BLOB METADATA`.
pub(super) fn large_objects(entry: &TocEntry) -> impl Iterator<Item = u32> {
    let text = match &entry.tag {
        Some(tag) if entry.is("BLOB") => Some(tag),
        _ if entry.is("BLOB METADATA") => entry.defn.as_ref(),
        _ => None,
    };
    let text = text.and_then(|text| text.as_str()).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|oid| oid.parse().ok())
}
