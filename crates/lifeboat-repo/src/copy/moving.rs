//! Moving packs, several at once.

use super::output::Output;
use super::plan::{Plan, Task, is_damage};
use super::{CopyProgress, CopyRequest, encode, stop_if};
use crate::crew;
use crate::error::RepositoryError;
use crate::id::{BlobId, PackId};
use crate::pack::{self, BlobKind, BlobOpener, PackedBlob};
use crate::prune::bits::Bits;
use crate::prune::mark::Marker;
use crate::prune::repack::window;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::storage::FileKind;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the threads share.
pub(super) struct Moving<'a> {
    source: &'a Repository,
    plan: &'a Plan,
    output: &'a Output<'a>,
    request: &'a CopyRequest<'a>,
    shares_keys: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    progress: CopyProgress,
    damaged_packs: BTreeMap<PackId, String>,
    /// Blobs that no pack holds undamaged, with a pack that should.
    lost: HashMap<(BlobKind, BlobId), PackId>,
}

impl<'a> Moving<'a> {
    pub(super) fn new(
        source: &'a Repository,
        plan: &'a Plan,
        output: &'a Output<'a>,
        request: &'a CopyRequest<'a>,
    ) -> Self {
        let progress = CopyProgress {
            packs_total: plan.tasks.len() as u64,
            bytes_total: plan.bytes(),
            ..CopyProgress::default()
        };
        (request.progress)(progress);
        Self {
            source,
            plan,
            output,
            request,
            shares_keys: source.shares_keys_with(output.destination),
            state: Mutex::new(State {
                progress,
                ..State::default()
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn damaged_packs(&self) -> Vec<(PackId, String)> {
        let state = self.state();
        let packs = state.damaged_packs.iter();
        packs.map(|(id, what)| (*id, what.clone())).collect()
    }

    /// Moves these packs; the first error ends it.
    pub(super) fn run(&mut self, tasks: &[Task]) -> Result<(), RepositoryError> {
        let hands = || {
            Ok(Hands {
                opener: BlobOpener::new(self.source.sealer().clone()).map_err(encode)?,
                fetched: Vec::new(),
                scratch: Vec::new(),
            })
        };
        let jobs = self.request.options.jobs;
        crew::for_each("copy", jobs, tasks, hands, |hands, task| {
            self.carry(task, hands)
        })
    }

    fn carry(&self, task: &Task, hands: &mut Hands) -> Result<(), RepositoryError> {
        stop_if(&self.request.options.interrupt)?;
        // Whoever took one of these for stale may be removing what we read, or what we count on.
        self.request.source_lock.check()?;
        self.request.destination_lock.check()?;
        if !(task.is_whole && self.move_whole(task)?) {
            self.move_blobs(task, hands)?;
        }
        let now = {
            let mut state = self.state();
            state.progress.packs_done += 1;
            state.progress.bytes_done += task.bytes;
            state.progress
        };
        (self.request.progress)(now);
        Ok(())
    }

    /// Moves a pack as it is; false when it is not what it should be.
    fn move_whole(&self, task: &Task) -> Result<bool, RepositoryError> {
        let Some(facts) = self.plan.packs.get(task.pack as usize) else {
            return Ok(false);
        };
        let name = facts.id.to_string();
        let bytes = match self.source.storage().read(FileKind::Pack, &name) {
            Ok(bytes) => bytes,
            Err(error) => return self.found_damaged(facts.id, error.into()).map(|()| false),
        };
        let what = if PackId::of(&bytes) == facts.id {
            // As written once; that the index says the same of it is another thing.
            match pack::blobs_of(&bytes, self.source.sealer()) {
                Ok(blobs) if blobs == self.plan.blobs(task) => {
                    self.output.store_whole(facts.id, &bytes, blobs)?;
                    return Ok(true);
                }
                Ok(_) => "the index lists other blobs than its header".to_owned(),
                Err(error) => format!("its header is damaged: {error}"),
            }
        } else {
            "its content does not match its name".to_owned()
        };
        self.found_damaged(
            facts.id,
            RepositoryError::damaged(FileKind::Pack, name, what),
        )?;
        Ok(false)
    }

    /// Moves the wanted blobs of a pack, each proven by its hash.
    fn move_blobs(&self, task: &Task, hands: &mut Hands) -> Result<(), RepositoryError> {
        let Some(facts) = self.plan.packs.get(task.pack as usize) else {
            return Ok(());
        };
        let name = facts.id.to_string();
        let blobs = self.plan.blobs(task);
        let mut rest = blobs.as_slice();
        while let Some(first) = rest.first().map(|blob| blob.offset) {
            stop_if(&self.request.options.interrupt)?;
            let window = window(rest, first);
            let (now, later) = rest.split_at(window.blobs);
            rest = later;
            let read = self.source.storage().read_range_into(
                FileKind::Pack,
                &name,
                first.into(),
                window.bytes,
                &mut hands.fetched,
            );
            if let Err(error) = read {
                self.found_damaged(facts.id, error.into())?;
                hands.fetched.clear();
            }
            for blob in now {
                let start = (blob.offset - first) as usize;
                let end = start + blob.length as usize;
                let sealed = hands.fetched.get(start..end).unwrap_or_default();
                if hands.opener.prove(blob, sealed, &mut hands.scratch) {
                    self.put(blob, sealed, &hands.scratch)?;
                    continue;
                }
                let what = format!("blob {} does not open to its hash", blob.id.short());
                let error = RepositoryError::damaged(FileKind::Pack, &name, what);
                self.found_damaged(facts.id, error)?;
                if !self.move_from_elsewhere(blob, facts.id, hands)? {
                    let mut state = self.state();
                    state.lost.insert((blob.kind, blob.id), facts.id);
                }
            }
        }
        Ok(())
    }

    /// Appends a proven blob: as it is sealed, or where the keys differ what was inside, sealed anew.
    fn put(&self, blob: &PackedBlob, sealed: &[u8], opened: &[u8]) -> Result<(), RepositoryError> {
        self.output.append(blob.kind, |pack, sealer, nonces| {
            if self.shares_keys {
                pack.add_sealed(blob, sealed)
            } else {
                pack.add_payload(blob, pack::payload(opened), sealer, nonces)
            }
        })
    }

    /// Looks for a blob in the other packs that should hold it.
    fn move_from_elsewhere(
        &self,
        blob: &PackedBlob,
        not_here: PackId,
        hands: &mut Hands,
    ) -> Result<bool, RepositoryError> {
        for place in self.plan.index.locations(blob.kind, &blob.id) {
            if place.pack == not_here {
                continue;
            }
            let read = self.source.storage().read_range(
                FileKind::Pack,
                &place.pack.to_string(),
                place.blob.offset.into(),
                place.blob.length as usize,
            );
            match read {
                Ok(sealed) => {
                    if hands.opener.prove(&place.blob, &sealed, &mut hands.scratch) {
                        self.put(&place.blob, &sealed, &hands.scratch)?;
                        return Ok(true);
                    }
                }
                Err(error) => self.found_damaged(place.pack, error.into())?,
            }
        }
        Ok(false)
    }

    /// Remembers damage; what is no damage ends everything. The first word on a pack stays.
    fn found_damaged(&self, pack: PackId, error: RepositoryError) -> Result<(), RepositoryError> {
        if !is_damage(&error) {
            return Err(error);
        }
        let what = match error {
            RepositoryError::Damaged { what, .. } => what,
            other => other.to_string(),
        };
        self.state().damaged_packs.entry(pack).or_insert(what);
        Ok(())
    }

    /// What a snapshot needs that is lost, in words; `None` when nothing is.
    pub(super) fn what_is_lost(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Option<String>, RepositoryError> {
        let lost: Vec<((BlobKind, BlobId), PackId)> =
            self.state().lost.iter().map(|(k, v)| (*k, *v)).collect();
        if lost.is_empty() {
            return Ok(None);
        }
        let Plan { index, packs, .. } = self.plan;
        let mut needed = Bits::new(index.len());
        Marker::new(self.source, index, packs, None)?.mark(
            snapshot.tree,
            &mut needed,
            &self.request.options.interrupt,
        )?;
        let found = lost.into_iter().find(|((kind, id), _)| {
            let first = index.span(*kind, id).start;
            index.contains(*kind, id) && needed.get(first)
        });
        Ok(found.map(|(_, pack)| {
            let state = self.state();
            let what = state.damaged_packs.get(&pack);
            let what = what.map_or("it cannot be read", String::as_str);
            format!("pack {pack} is damaged: {what}")
        }))
    }
}

/// What one thread works with, kept from one pack to the next.
struct Hands {
    opener: BlobOpener,
    fetched: Vec<u8>,
    scratch: Vec<u8>,
}
