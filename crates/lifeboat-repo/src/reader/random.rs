//! Files at any offset.

use super::Reader;
use crate::error::RepositoryError;
use crate::id::BlobId;
use crate::pack::BlobKind;
use crate::tree::FileContent;

/// A file whose chunks' places are known, for reading at many offsets from many threads.
#[derive(Debug, Clone)]
pub struct RandomFile {
    reader: Reader,
    chunks: Vec<BlobId>,
    /// Where each chunk ends in the file.
    ends: Vec<u64>,
}

impl RandomFile {
    pub(super) fn new(reader: Reader, content: &FileContent) -> Result<Self, RepositoryError> {
        let mut end = 0;
        let mut ends = Vec::with_capacity(content.chunks.len());
        for id in &content.chunks {
            end += reader.plain_length(id)?;
            ends.push(end);
        }
        Ok(Self {
            reader,
            chunks: content.chunks.clone(),
            ends,
        })
    }

    /// The file's length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Reads at `offset`: as many bytes as `buffer` has room for, fewer only at the end of the file.
    ///
    /// # Errors
    /// As [`Reader::blob`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, RepositoryError> {
        let mut at = self.ends.partition_point(|&end| end <= offset);
        let mut done = 0;
        while let Some(id) = self.chunks.get(at).filter(|_| done < buffer.len()) {
            let begin = if at == 0 { 0 } else { self.ends[at - 1] };
            let plain = self.reader.blob(BlobKind::Data, id)?;
            // Within one chunk, so within usize.
            let skip = (offset + done as u64 - begin) as usize;
            let part = plain.get(skip..).unwrap_or_default();
            let count = part.len().min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&part[..count]);
            done += count;
            at += 1;
        }
        Ok(done)
    }
}
