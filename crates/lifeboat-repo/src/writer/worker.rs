//! A worker: the hot path from pushed bytes to sealed blobs.

use super::{Shared, encode};
use crate::chunker::{ChunkSizes, Cutter};
use crate::error::RepositoryError;
use crate::id::BlobId;
use crate::pack::{BlobKind, PackBuilder};
use crate::seal::Nonces;
use crate::tree::FileContent;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Takes files, one after the other, on one thread.
///
/// When it is finished or dropped, its open pack goes to the next worker or to the commit.
pub struct WriterWorker {
    shared: Arc<Shared>,
    compressor: zstd::bulk::Compressor<'static>,
    nonces: Nonces,
    /// `None` only while nothing was stored since the last full pack.
    pack: Option<PackBuilder>,
    /// What was pushed and is not cut yet. Grows to at most its capacity.
    buffer: Vec<u8>,
}

impl std::fmt::Debug for WriterWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterWorker")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// What is gathered beyond one chunk of the largest size before cutting begins: enough that moving the rest to
/// the buffer's front costs little, little enough to stay in a core's own cache.
const GATHER_BYTES: usize = 256 << 10;

impl WriterWorker {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, RepositoryError> {
        let compressor = shared.compressor(shared.options.compression_level)?;
        let largest = shared.cutter.sizes().max as usize;
        let buffer = Vec::with_capacity(largest + largest.max(GATHER_BYTES));
        shared.workers.fetch_add(1, Ordering::AcqRel);
        let pack = shared.take_partial();
        Ok(Self {
            shared,
            compressor,
            nonces: Nonces::default(),
            pack,
            buffer,
        })
    }

    /// Begins a file. One that was begun before and not finished is forgotten.
    pub fn file(&mut self) -> FileWriter<'_> {
        self.buffer.clear();
        FileWriter {
            worker: self,
            cutter: None,
            content: FileContent::default(),
        }
    }

    /// As [`file`](Self::file), with chunks of these sizes rather than the repository's own. To find unchanged
    /// bytes again, a file has to be cut with the same sizes each time.
    pub fn file_with(&mut self, sizes: ChunkSizes) -> FileWriter<'_> {
        let own = &self.shared.cutter;
        let cutter = (sizes != own.sizes()).then(|| own.with_sizes(sizes));
        self.buffer.clear();
        let largest = sizes.max as usize;
        self.buffer.reserve(largest + largest.max(GATHER_BYTES));
        FileWriter {
            cutter,
            ..self.file()
        }
    }

    /// Hands its open pack on. Dropping it does the same; this also says whether all is well.
    ///
    /// # Errors
    /// When the writer has failed.
    pub fn finish(self) -> Result<(), RepositoryError> {
        self.shared.check()
    }

    /// Cuts what can be cut, or with `last` everything, and stores the chunks.
    fn drain(
        &mut self,
        cutter: Option<&Cutter>,
        content: &mut FileContent,
        last: bool,
    ) -> Result<(), RepositoryError> {
        self.shared.check()?;
        let shared = Arc::clone(&self.shared);
        let cutter = cutter.unwrap_or(&shared.cutter);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut start = 0;
        let mut result = Ok(());
        while let Some(length) = cutter.cut(&buffer[start..], last) {
            let chunk = &buffer[start..start + length];
            start += length;
            result = self.store(chunk, content);
            if result.is_err() {
                break;
            }
        }
        let rest = buffer.len() - start;
        buffer.copy_within(start.., 0);
        buffer.truncate(rest);
        self.buffer = buffer;
        // A blob that was promised to other workers may not be stored now: nothing can be committed.
        result.map_err(|error| self.shared.fail(error))
    }

    fn store(&mut self, chunk: &[u8], content: &mut FileContent) -> Result<(), RepositoryError> {
        let shared = &self.shared;
        let id = BlobId::of(chunk);
        content.chunks.push(id);
        content.size_bytes += chunk.len() as u64;
        shared
            .progress
            .bytes_read
            .fetch_add(chunk.len() as u64, Ordering::Relaxed);
        shared.progress.blobs_read.fetch_add(1, Ordering::Relaxed);
        if shared.base.contains(BlobKind::Data, &id) || !shared.known.insert(id) {
            return Ok(());
        }
        let pack = self
            .pack
            .get_or_insert_with(|| shared.new_pack(BlobKind::Data));
        let sealed = pack
            .add(
                id,
                chunk,
                &mut self.compressor,
                shared.repository.sealer(),
                &mut self.nonces,
            )
            .map_err(encode)?;
        shared.progress.data.add(chunk.len(), sealed);
        if pack.is_full(shared.options.pack_size_bytes) {
            self.pack
                .take()
                .map_or(Ok(()), |pack| shared.submit(pack))?;
        }
        Ok(())
    }
}

impl Drop for WriterWorker {
    fn drop(&mut self) {
        if let Some(pack) = self.pack.take() {
            let partial = self.shared.partial.lock();
            partial
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(pack);
        }
        self.shared.workers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes the content of one file.
#[derive(Debug)]
pub struct FileWriter<'w> {
    worker: &'w mut WriterWorker,
    /// `None` for the repository's own.
    cutter: Option<Cutter>,
    content: FileContent,
}

impl FileWriter<'_> {
    /// Appends bytes, as few or as many as there are.
    ///
    /// # Errors
    /// `Interrupted`, or what ended the writer, on this thread or another.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        let buffer = &mut self.worker.buffer;
        if bytes.len() < buffer.capacity() - buffer.len() {
            buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.push_slowly(bytes)
    }

    #[cold]
    fn push_slowly(&mut self, mut bytes: &[u8]) -> Result<(), RepositoryError> {
        loop {
            let buffer = &mut self.worker.buffer;
            let room = buffer.capacity() - buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            buffer.extend_from_slice(now);
            bytes = later;
            if bytes.is_empty() {
                return Ok(());
            }
            self.worker
                .drain(self.cutter.as_ref(), &mut self.content, false)?;
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`FileWriter::push`].
    pub fn finish(mut self) -> Result<FileContent, RepositoryError> {
        self.worker
            .drain(self.cutter.as_ref(), &mut self.content, true)?;
        Ok(self.content)
    }
}
