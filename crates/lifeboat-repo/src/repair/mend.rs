//! Writing anew what is good: from damaged packs, and from other repositories. Only adds.

use std::collections::HashSet;

use super::examine::Examiner;
use super::needs::{FoundSnapshot, Needs};
use super::survey::Survey;
use super::{OpenSource, RepairDone, RepairRequest, Wanted, stop_if, unless_damaged};
use crate::copy::output::Output;
use crate::copy::{CopyOptions, CopyReport, with_original};
use crate::error::RepositoryError;
use crate::id::{PackId, SnapshotId};
use crate::index::BlobLocation;
use crate::lock::LockGuard;
use crate::pack::{self, BlobKind, PackedBlob};
use crate::repository::{Repository, read_bounded};
use crate::storage::{FileKind, StorageErrorKind};

/// A snapshot that can be read again.
pub(super) struct RestoredSnapshot {
    /// The file that does not open.
    pub(super) damaged: SnapshotId,
    /// The file that was written beside it.
    pub(super) stand_in: SnapshotId,
    /// What the damaged file should be.
    pub(super) content: Option<Vec<u8>>,
}

/// What is there now beside what is damaged.
pub(super) struct Mended {
    /// Packs that are there again as they were.
    pub(super) brought: HashSet<PackId>,
    pub(super) snapshots: Vec<RestoredSnapshot>,
}

/// Writes packs, then the index that lists them, then snapshots.
pub(super) fn mend(
    survey: &Survey<'_>,
    needs: &Needs,
    sources: &[OpenSource<'_>],
    request: &RepairRequest<'_>,
    lock: &LockGuard,
    done: &mut RepairDone,
) -> Result<Mended, RepositoryError> {
    let repository = survey.view.repository;
    let output = Output::new(
        repository,
        &CopyOptions {
            pack_size_bytes: request.options.pack_size_bytes,
            interrupt: std::sync::Arc::clone(&request.options.interrupt),
            ..CopyOptions::default()
        },
    );
    let mut mender = Mender {
        survey,
        sources,
        request,
        lock,
        output: &output,
        done,
        mended: Mended {
            brought: HashSet::new(),
            snapshots: Vec::new(),
        },
        wanted: needs.wanted.clone(),
    };
    let result = mender.run(needs);
    let mended = mender.mended;
    if result.is_err() {
        // What is durable gets indexed, so that the next run finds it. Should that fail too, the first error is the
        // one to know.
        let _ = output.flush_index();
    }
    result?;
    let mut written = CopyReport::default();
    output.account(&mut written);
    done.packs_written = written.packs_written;
    done.bytes_written += written.bytes_written;
    Ok(mended)
}

struct Mender<'a> {
    survey: &'a Survey<'a>,
    sources: &'a [OpenSource<'a>],
    request: &'a RepairRequest<'a>,
    lock: &'a LockGuard,
    output: &'a Output<'a>,
    done: &'a mut RepairDone,
    mended: Mended,
    /// What is needed and was not found yet.
    wanted: HashSet<Wanted>,
}

impl Mender<'_> {
    fn run(&mut self, needs: &Needs) -> Result<(), RepositoryError> {
        for (id, blobs) in &self.survey.unlisted {
            self.output.list(*id, blobs.clone())?;
            self.done.packs_listed += 1;
        }
        for (id, source) in &needs.brought {
            if let Some(source) = self.sources.get(*source) {
                self.bring_whole(*id, source)?;
            }
        }
        self.keep()?;
        for source in self.sources {
            self.fetch(source)?;
        }
        self.output.flush(self.lock)?;
        for found in &needs.snapshots {
            self.restore_snapshot(found)?;
        }
        Ok(())
    }

    /// Brings a pack that is missing. The index lists it already.
    fn bring_whole(&mut self, id: PackId, source: &OpenSource<'_>) -> Result<(), RepositoryError> {
        stop_if(&self.request.options.interrupt)?;
        self.lock.check()?;
        source.lock.check()?;
        let Some(pack) = self.survey.bad_packs.get(&id) else {
            return Ok(());
        };
        let name = id.to_string();
        let read = source.repository.storage().read(FileKind::Pack, &name);
        let Some(bytes) = unless_damaged(read.map_err(RepositoryError::from))? else {
            return Ok(());
        };
        let repository = self.survey.view.repository;
        let is_it = PackId::of(&bytes) == id
            && pack::blobs_of(&bytes, repository.sealer()).is_ok_and(|blobs| blobs == pack.blobs);
        if !is_it {
            return Ok(());
        }
        match repository.storage().write(FileKind::Pack, &name, &bytes) {
            Err(error) if error.kind() != StorageErrorKind::AlreadyExists => {
                return Err(error.into());
            }
            _ => {}
        }
        self.mended.brought.insert(id);
        self.done.packs_brought += 1;
        self.done.bytes_written += bytes.len() as u64;
        for blob in &pack.blobs {
            self.wanted.remove(&(blob.kind, blob.id));
        }
        Ok(())
    }

    /// Takes what is good out of damaged packs.
    fn keep(&mut self) -> Result<(), RepositoryError> {
        let survey = self.survey;
        let mut examiner = Examiner::new(survey.view.repository, &self.request.options.interrupt)?;
        for (id, pack) in &survey.bad_packs {
            self.lock.check()?;
            let is_kept = |blob: &&PackedBlob| {
                let place = survey.view.kept.get(&(blob.kind, blob.id));
                place.is_some_and(|place| place.pack == *id && place.blob == **blob)
            };
            let blobs: Vec<PackedBlob> = pack.good.iter().filter(is_kept).copied().collect();
            let (output, kept) = (self.output, &mut self.done.blobs_kept);
            examiner.each_good(&id.to_string(), &blobs, &mut |blob, sealed, _| {
                *kept += 1;
                output.append(blob.kind, |pack, _, _| pack.add_sealed(blob, sealed))
            })?;
        }
        Ok(())
    }

    /// Takes what is still looked for out of a source.
    fn fetch(&mut self, source: &OpenSource<'_>) -> Result<(), RepositoryError> {
        let index = source.reader.index();
        let mut examiner = Examiner::new(source.repository, &self.request.options.interrupt)?;
        // In its first place, and where that is damaged in its second, and so on.
        for rank in 0.. {
            let place = |(kind, id): &Wanted| index.locations(*kind, id).nth(rank);
            let mut places: Vec<BlobLocation> = self.wanted.iter().filter_map(place).collect();
            if places.is_empty() {
                break;
            }
            places.sort_unstable_by_key(|place| (place.pack, place.blob.offset));
            for of_pack in places.chunk_by(|left, right| left.pack == right.pack) {
                self.lock.check()?;
                source.lock.check()?;
                let blobs: Vec<PackedBlob> = of_pack.iter().map(|place| place.blob).collect();
                let (output, wanted) = (self.output, &mut self.wanted);
                let brought = self.done.blobs_brought.entry(source.number).or_default();
                let pack = of_pack[0].pack.to_string();
                examiner.each_good(&pack, &blobs, &mut |blob, sealed, opened| {
                    *brought += 1;
                    wanted.remove(&(blob.kind, blob.id));
                    append(output, source, blob, sealed, opened)
                })?;
            }
        }
        self.done.blobs_brought.retain(|_, count| *count > 0);
        Ok(())
    }

    /// Writes a snapshot beside its file that does not open: until this one is durable nothing is removed, and from
    /// then on the backup is listed again.
    fn restore_snapshot(&mut self, found: &FoundSnapshot) -> Result<(), RepositoryError> {
        stop_if(&self.request.options.interrupt)?;
        self.lock.verify()?;
        let (damaged, repository) = (found.damaged, self.survey.view.repository);
        let Some(source) = self.sources.get(found.source) else {
            return Ok(());
        };
        let name = found.snapshot.id.to_string();
        let json = unless_damaged(source.repository.load_file(FileKind::Snapshot, &name))?;
        let Some(json) = json else {
            return Ok(());
        };
        let stand_in = match found.stand_in {
            Some(there) => there,
            None => {
                let json = with_original(&json, &found.snapshot)?;
                let (hash, size) = repository.store_file(FileKind::Snapshot, &json)?;
                self.done.bytes_written += size;
                SnapshotId::from_bytes(hash)
            }
        };
        let is_same = source.shares_keys && found.snapshot.id == damaged;
        self.mended.snapshots.push(RestoredSnapshot {
            damaged,
            stand_in,
            content: if is_same {
                snapshot_file(source.repository, damaged)?
            } else {
                None
            },
        });
        Ok(())
    }
}

/// The content of a snapshot file, if that is what its name says.
fn snapshot_file(
    repository: &Repository,
    id: SnapshotId,
) -> Result<Option<Vec<u8>>, RepositoryError> {
    let name = id.to_string();
    let read = read_bounded(repository.storage().as_ref(), FileKind::Snapshot, &name);
    Ok(unless_damaged(read)?.filter(|content| SnapshotId::of(content) == id))
}

/// Appends a blob of a source: as it is sealed where the keys are ours, else what was inside, sealed anew.
fn append(
    output: &Output<'_>,
    source: &OpenSource<'_>,
    blob: &PackedBlob,
    sealed: &[u8],
    opened: &[u8],
) -> Result<(), RepositoryError> {
    let shares_keys = source.shares_keys;
    let kind: BlobKind = blob.kind;
    output.append(kind, |pack, sealer, nonces| {
        if shares_keys {
            pack.add_sealed(blob, sealed)
        } else {
            pack.add_payload(blob, pack::payload(opened), sealer, nonces)
        }
    })
}
