//! Reading a file, or a part of one: pieces, many of them under way at once.

use std::time::Duration;

use super::session::{Session, no_sizes};
use super::wire::{Open, PIECE_BYTES, Packet, Reply, code};
use crate::storage::StorageErrorKind;
use crate::storage::remote::LARGEST_UNCHECKED_RANGE;
use crate::storage::remote::attempt::Failed;

/// No file of a repository is longer: a pack's offsets end there.
const LARGEST_FILE_BYTES: u64 = 1 << 32;

/// How much of a file is wanted.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// So many bytes.
    Bytes(usize),
    /// All there is.
    All,
}

impl Session<'_> {
    /// Appends a part of a file to `buffer`, which is empty.
    pub(super) fn read(
        &mut self,
        path: &str,
        offset: u64,
        wanted: Wanted,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Failed> {
        let handle = self.ask(&Packet::open(path, Open::Read))?.handle()?;
        let result = self.read_open(&handle, offset, wanted, buffer);
        if !self.connection.is_broken {
            self.connection.tell(&Packet::close(&handle));
        }
        result
    }

    pub(super) fn read_open(
        &mut self,
        handle: &[u8],
        offset: u64,
        wanted: Wanted,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Failed> {
        // Servers take larger ones for negative.
        let is_offset = |offset: u64| i64::try_from(offset).is_ok();
        // What is small is asked for together with the size: one trip there and back.
        let (length, mut ask_size) = match wanted {
            Wanted::Bytes(length)
                if (1..=LARGEST_UNCHECKED_RANGE).contains(&length) && is_offset(offset) =>
            {
                (length, true)
            }
            wanted => {
                let size = self.ask(&Packet::handle_status(handle))?.attributes()?.size;
                let size = size.ok_or_else(no_sizes)?;
                let length = match wanted {
                    Wanted::Bytes(length) => length,
                    Wanted::All if size <= LARGEST_FILE_BYTES => {
                        usize::try_from(size).unwrap_or(usize::MAX)
                    }
                    Wanted::All => {
                        let cause = format!("{size} bytes are too many for a file");
                        return Err(Failed::for_good(StorageErrorKind::Other, cause));
                    }
                };
                is_within(offset, length, size)?;
                (length, false)
            }
        };
        // Memory grows as data arrives: a size is what a server says.
        let mut done = 0;
        while done < length {
            let part = LARGEST_UNCHECKED_RANGE.min(length - done);
            buffer.resize(done + part, 0);
            let range = (offset.saturating_add(done as u64), &mut buffer[done..]);
            self.read_block(handle, range, (offset, length), ask_size)?;
            ask_size = false;
            done += part;
        }
        Ok(())
    }

    /// Fills `block` with what begins at `start`: a part of a `whole`, which has an offset and a length, and which
    /// the file is asked to have.
    pub(super) fn read_block(
        &mut self,
        handle: &[u8],
        (start, block): (u64, &mut [u8]),
        (offset, length): (u64, usize),
        mut ask_size: bool,
    ) -> Result<(), Failed> {
        let size_packet = Packet::handle_status(handle);
        // Pieces that came short are asked for again, from where they ended.
        let mut wanted: Vec<(usize, usize)> = (0..block.len())
            .step_by(PIECE_BYTES)
            .map(|at| (at, PIECE_BYTES.min(block.len() - at)))
            .collect();
        while !wanted.is_empty() {
            let pieces = std::mem::take(&mut wanted);
            let packets =
                ask_size
                    .then(|| size_packet.clone())
                    .into_iter()
                    .chain(pieces.iter().map(|(at, count)| {
                        Packet::read(handle, start.saturating_add(*at as u64), *count)
                    }));
            let skip = usize::from(ask_size);
            let mut size = None;
            let mut past_the_end = false;
            let throttle = self.throttle;
            let patience = self.patience;
            let mut owed = Duration::ZERO;
            self.connection.ask_all(packets, patience, |place, reply| {
                if place < skip {
                    size = reply.attributes()?.size;
                    return Ok(());
                }
                let (at, count) = pieces[place - skip];
                match reply {
                    Reply::Data(bytes) if !bytes.is_empty() && bytes.len() <= count => {
                        block[at..at + bytes.len()].copy_from_slice(&bytes);
                        if bytes.len() < count {
                            wanted.push((at + bytes.len(), count - bytes.len()));
                        }
                        if let Some(throttle) = throttle {
                            owed = throttle.pay(bytes.len());
                        }
                    }
                    Reply::Status(code::EOF, _) => past_the_end = true,
                    other => return Err(other.failed()),
                }
                Ok(())
            })?;
            if past_the_end {
                let size = match size {
                    Some(size) => size,
                    None => self.ask(&size_packet)?.attributes()?.size.unwrap_or(0),
                };
                return Err(Failed::too_short(size, length, offset));
            }
            if let Some(size) = size {
                is_within(offset, length, size)?;
            }
            patience.wait(owed)?;
            ask_size = false;
        }
        Ok(())
    }
}

fn is_within(offset: u64, length: usize, size: u64) -> Result<(), Failed> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Failed::too_short(size, length, offset)),
    }
}
