//! The packs: their sizes against the index, and with `read_data` every byte of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::reading::{PackFile, Reading};
use super::{CheckProgress, CheckReport, Context, Problem};
use crate::crew;
use crate::error::RepositoryError;
use crate::id::{BlobId, PackId};
use crate::index::Index;
use crate::pack::{self, BlobOpener, FIXED_BYTES, LENGTH_FIELD_BYTES, PackError, PackedBlob};
use crate::seal::OVERHEAD_BYTES;
use crate::storage::{FileKind, StorageErrorKind};

/// What one read fetches, unless a blob is longer: large enough that opening files does not show, small enough
/// that memory stays bounded with packs of any size.
const WINDOW_BYTES: usize = 8 << 20;
/// What is fetched from a pack's end in the hope that the whole header is in it.
const TAIL_BYTES: u64 = 32 << 10;

/// What the index says about a pack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Promise {
    /// Length of a file with these blobs and their header.
    size_bytes: u64,
    blobs: u64,
    /// Stands for all entries in whatever order: an index of millions of blobs need not be grouped by pack to
    /// be compared with the headers.
    digest: u128,
}

impl Promise {
    fn add(&mut self, blob: &PackedBlob) {
        if self.blobs == 0 {
            self.size_bytes = FIXED_BYTES as u64;
        }
        self.size_bytes += u64::from(blob.length) + blob.header_entry_bytes();
        self.blobs += 1;
        // Identities are as good as random, so a sum of them with the rest mixed in by an odd factor changes
        // with any entry. Nobody has to be kept from forging it: index and headers are authenticated.
        let mut half = [0; 16];
        half.copy_from_slice(&blob.id.as_bytes()[..16]);
        let fields = (u128::from(blob.offset) << 64)
            | (u128::from(blob.length) << 32)
            | u128::from(blob.uncompressed_length.unwrap_or(0));
        let kind = u128::from(blob.kind == pack::BlobKind::Tree) << 127;
        let entry = u128::from_le_bytes(half)
            ^ fields.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            ^ kind;
        self.digest = self.digest.wrapping_add(entry);
    }
}

#[derive(Debug, Clone, Copy)]
struct Pack {
    id: PackId,
    /// `None` for one that no index lists: an interrupted backup left it, and nothing needs it.
    promise: Option<Promise>,
    /// `None` when there is no such file.
    found_bytes: Option<u64>,
    modified: Option<Timestamp>,
}

impl Pack {
    fn file(&self) -> PackFile {
        PackFile {
            id: self.id,
            size_bytes: self.found_bytes.unwrap_or(0),
            modified: self.modified,
        }
    }

    fn problem(&self) -> Option<Problem> {
        match (self.promise, self.found_bytes) {
            (_, None) => Some(Problem::Missing),
            (
                Some(Promise {
                    size_bytes: expected,
                    ..
                }),
                Some(found),
            ) if expected != found => Some(Problem::WrongSize { expected, found }),
            _ => None,
        }
    }
}

/// The packs to be checked.
pub(super) struct Packs(HashMap<PackId, Pack>);

impl Packs {
    /// All packs that the index or the storage know.
    pub(super) fn list(context: Context<'_>, index: &Index) -> Result<Self, RepositoryError> {
        let mut promises = vec![Promise::default(); index.packs().len()];
        for (number, blob) in index.iter() {
            if let Some(promise) = promises.get_mut(number as usize) {
                promise.add(&blob);
            }
        }
        // A pack without an entry was listed by a superseded index file only.
        let promised = index
            .packs()
            .iter()
            .zip(promises)
            .filter(|(_, promise)| promise.blobs > 0);
        let mut packs: HashMap<PackId, Pack> = promised
            .map(|(id, promise)| {
                (
                    *id,
                    Pack {
                        id: *id,
                        promise: Some(promise),
                        found_bytes: None,
                        modified: None,
                    },
                )
            })
            .collect();
        for file in context.repository.storage().list(FileKind::Pack)? {
            let Ok(id) = file.name.parse() else { continue };
            let unknown = Pack {
                id,
                promise: None,
                found_bytes: None,
                modified: None,
            };
            let pack = packs.entry(id).or_insert(unknown);
            pack.found_bytes = Some(file.size_bytes);
            pack.modified = file.modified;
        }
        Ok(Self(packs))
    }

    pub(super) fn keep_only(&mut self, used: &HashSet<PackId>) {
        self.0.retain(|id, _| used.contains(id));
    }

    /// What is wrong with a pack as far as its size tells.
    pub(super) fn problem(&self, id: PackId) -> Option<Problem> {
        self.0
            .get(&id)
            .map_or(Some(Problem::Missing), Pack::problem)
    }

    /// Compares every size with what the index implies.
    pub(super) fn check_sizes(&self, context: Context<'_>) -> CheckReport {
        let mut report = CheckReport::default();
        for pack in self.0.values() {
            match (pack.problem(), pack.promise) {
                (Some(problem), _) => context.findings.add(FileKind::Pack, pack.id, problem),
                (None, Some(promise)) if !context.options.read_data => {
                    report.packs_checked += 1;
                    report.blobs_checked += promise.blobs;
                }
                _ => {}
            }
        }
        report
    }

    /// Reads the packs that are chosen, of those whose size is right.
    pub(super) fn read(
        &self,
        context: Context<'_>,
        reading: &dyn Reading,
        progress: &(dyn Fn(CheckProgress) + Sync),
        report: &mut CheckReport,
    ) -> Result<(), RepositoryError> {
        let mut packs: Vec<&Pack> = self
            .0
            .values()
            .filter(|pack| pack.problem().is_none())
            .collect();
        // In the order of their folders, for the sake of disks that have to seek.
        packs.sort_unstable_by_key(|pack| pack.id);
        let files: Vec<PackFile> = packs.iter().map(|pack| pack.file()).collect();
        let chosen = reading.choose(&files);
        packs.retain(|pack| chosen.contains(&pack.id));
        let total = CheckProgress {
            packs_total: packs.len() as u64,
            bytes_total: packs.iter().filter_map(|pack| pack.found_bytes).sum(),
            ..CheckProgress::default()
        };
        progress(total);
        let sum = Mutex::new((total, std::mem::take(report)));
        let jobs = context.options.jobs;
        let hands = || PackReader::new(context);
        let result = crew::for_each("check", jobs, &packs, hands, |reader, pack| {
            let (blobs, is_good) = reader.check(pack)?;
            if is_good {
                reading.found_good(&pack.file());
            }
            let now = {
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                let (now, report) = &mut *sum;
                let bytes = pack.found_bytes.unwrap_or(0);
                now.packs_done += 1;
                now.bytes_done += bytes;
                report.packs_checked += 1;
                report.blobs_checked += blobs;
                report.bytes_read += bytes;
                *now
            };
            progress(now);
            Ok(())
        });
        *report = sum.into_inner().unwrap_or_else(PoisonError::into_inner).1;
        result
    }
}

/// An opener for the repository's blobs.
pub(super) fn opener(context: Context<'_>) -> Result<BlobOpener, RepositoryError> {
    let opener = BlobOpener::new(context.repository.sealer().clone());
    opener.map_err(|error| RepositoryError::Encode {
        what: error.to_string(),
    })
}

pub(super) fn describe_blob(id: &BlobId, error: &PackError) -> String {
    match error {
        // These two name the blob themselves.
        PackError::WrongContent(_) | PackError::WrongLength(_) => error.to_string(),
        PackError::Sealed { source, .. } => format!("blob {}: {source}", id.short()),
        other => format!("blob {}: {other}", id.short()),
    }
}

/// Why a pack was not read to its end.
enum Stop {
    Problem(Problem),
    Error(RepositoryError),
}

impl From<RepositoryError> for Stop {
    fn from(error: RepositoryError) -> Self {
        Self::Error(error)
    }
}

fn damaged(what: impl ToString) -> Stop {
    Stop::Problem(Problem::Damaged(what.to_string()))
}

/// Reads packs; keeps its buffers from one to the next.
struct PackReader<'a> {
    context: Context<'a>,
    opener: BlobOpener,
    window: Vec<u8>,
    tail: Vec<u8>,
    header: Vec<u8>,
}

impl<'a> PackReader<'a> {
    fn new(context: Context<'a>) -> Result<Self, RepositoryError> {
        let (window, tail, header) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            context,
            opener: opener(context)?,
            window,
            tail,
            header,
        })
    }

    /// Reads a pack and adds a finding if anything is wrong with it. Returns how many of its blobs are good, and
    /// whether all of it is.
    fn check(&mut self, pack: &Pack) -> Result<(u64, bool), RepositoryError> {
        let mut good = 0;
        let name = pack.id.to_string();
        match self.read(pack, &name, &mut good) {
            Ok(()) => return Ok((good, true)),
            Err(Stop::Problem(problem)) => {
                self.context.findings.add(FileKind::Pack, &name, problem)
            }
            // One that no index lists may go at any time, since nothing needs it.
            Err(Stop::Error(RepositoryError::Storage(error)))
                if error.kind() == StorageErrorKind::NotFound && pack.promise.is_none() => {}
            Err(Stop::Error(error)) => {
                self.context
                    .findings
                    .add_error(FileKind::Pack, &name, error)?
            }
        }
        Ok((good, false))
    }

    fn read(&mut self, pack: &Pack, name: &str, good: &mut u64) -> Result<(), Stop> {
        let pack_bytes = pack.found_bytes.unwrap_or(0);
        let blobs = self.read_header(name, pack_bytes)?;
        let mut promise = Promise::default();
        blobs.iter().for_each(|blob| promise.add(blob));

        let mut hash = Sha256::new();
        let mut bad: Option<(String, u64)> = None;
        let mut rest = blobs.as_slice();
        while !rest.is_empty() {
            self.context.stop_if_interrupted()?;
            let (batch, length) = next_window(rest)?;
            rest = &rest[batch.len()..];
            self.fetch(name, batch[0].offset.into(), length)?;
            let mut sealed = self.window.as_mut_slice();
            for blob in batch {
                // The window is as long as the sum of these lengths.
                let Some((this, next)) =
                    std::mem::take(&mut sealed).split_at_mut_checked(blob.length as usize)
                else {
                    return Err(damaged("the blobs do not fill the file"));
                };
                sealed = next;
                // Hashed before it is opened, which happens where it lies, and while it is about to be in the
                // processor's cache anyway.
                hash.update(&*this);
                match self.opener.open(blob, this) {
                    Ok(_) => *good += 1,
                    Err(error) => {
                        let (_, more) =
                            bad.get_or_insert_with(|| (describe_blob(&blob.id, &error), 0));
                        *more += 1;
                    }
                }
            }
        }
        hash.update(&self.tail);
        let hash = PackId::from_bytes(hash.finalize().into());
        match bad {
            Some((first, 1)) => Err(damaged(first)),
            Some((first, count)) => Err(damaged(format_args!("{first}, and {} more", count - 1))),
            None if hash != pack.id => Err(damaged("its content does not match its name")),
            None if pack.promise.is_some_and(|promised| promised != promise) => {
                Err(damaged("the index lists other blobs than its header"))
            }
            None => Ok(()),
        }
    }

    /// Reads the header; `tail` is then everything behind the blobs, as stored.
    fn read_header(&mut self, name: &str, pack_bytes: u64) -> Result<Vec<PackedBlob>, Stop> {
        self.read_tail(name, pack_bytes, TAIL_BYTES.min(pack_bytes))?;
        let Some(field) = self.tail.last_chunk::<LENGTH_FIELD_BYTES>() else {
            return Err(damaged("it is too short for a pack"));
        };
        let header_bytes = pack::header_length(*field, pack_bytes).map_err(damaged)?;
        let tail_bytes = header_bytes + LENGTH_FIELD_BYTES;
        match self.tail.len().checked_sub(tail_bytes) {
            Some(surplus) => drop(self.tail.drain(..surplus)),
            None => self.read_tail(name, pack_bytes, tail_bytes as u64)?,
        }
        // Parsing opens it where it lies, and the hash needs it as it is stored.
        self.header.clear();
        self.header.extend_from_slice(&self.tail[..header_bytes]);
        let parsed = pack::parse_header(
            &mut self.header,
            pack_bytes,
            self.context.repository.sealer(),
        );
        parsed.map_err(|error| damaged(format_args!("its header is damaged: {error}")))
    }

    fn read_tail(&mut self, name: &str, pack_bytes: u64, length: u64) -> Result<(), Stop> {
        let storage = self.context.repository.storage();
        let from = pack_bytes - length;
        let read =
            storage.read_range_into(FileKind::Pack, name, from, length as usize, &mut self.tail);
        read.map_err(|error| RepositoryError::from(error).into())
    }

    fn fetch(&mut self, name: &str, offset: u64, length: usize) -> Result<(), Stop> {
        let storage = self.context.repository.storage();
        let fetched =
            storage.read_range_into(FileKind::Pack, name, offset, length, &mut self.window);
        fetched.map_err(|error| RepositoryError::from(error).into())
    }
}

/// The blobs that are fetched together, at least one, and their length.
fn next_window(blobs: &[PackedBlob]) -> Result<(&[PackedBlob], usize), Stop> {
    let mut length = 0;
    let mut count = 0;
    for blob in blobs {
        let more = length + blob.length as usize;
        if count > 0 && more > WINDOW_BYTES {
            break;
        }
        // Not even incompressible bytes grow by more than this when compressed and sealed.
        if u64::from(blob.length)
            > u64::from(blob.kind.most_plain_bytes()) * 2 + OVERHEAD_BYTES as u64
        {
            return Err(damaged(format_args!(
                "blob {} is too large",
                blob.id.short()
            )));
        }
        (length, count) = (more, count + 1);
    }
    Ok((&blobs[..count], length))
}
