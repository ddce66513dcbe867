//! Removing what is damaged, under the exclusive lock, once its good copies are durable and listed.

use std::collections::{HashMap, HashSet};

use super::mend::Mended;
use super::needs::Needs;
use super::survey::{BadPack, Survey};
use super::view::View;
use super::{RepairDone, RepairEvent, RepairRequest, losses, wait_for};
use crate::check::{Finding, Problem};
use crate::error::RepositoryError;
use crate::id::PackId;
use crate::index::Index;
use crate::lock::{LockGuard, LockMode};
use crate::pack::PackedBlob;
use crate::prune::survey::{Listing, PackFacts, names, pack_sizes};
use crate::prune::{self, PruneOptions, PruneReport, PruneRequest};
use crate::snapshot::Snapshot;
use crate::storage::FileKind;

/// What the second phase goes by.
pub(super) struct Removing<'a> {
    pub(super) survey: &'a Survey<'a>,
    pub(super) needs: &'a Needs,
    pub(super) mended: &'a Mended,
    /// Whether data goes that the first phase looked for in vain. What a source then did not have after all is
    /// never given up: nobody was asked.
    pub(super) gives_up: bool,
}

impl Removing<'_> {
    /// Removes what may go, and says what is left.
    pub(super) fn run(
        &self,
        request: &RepairRequest<'_>,
        done: &mut RepairDone,
    ) -> Result<(), RepositoryError> {
        let survey = self.survey;
        // Of a prune nothing is used but its sweep, which asks for no more than this.
        let sweep = PruneRequest {
            options: PruneOptions {
                interrupt: std::sync::Arc::clone(&request.options.interrupt),
                ..PruneOptions::default()
            },
            holder: request.holder.clone(),
            clock: std::sync::Arc::clone(&request.clock),
            choose: &|_: &[Snapshot]| Vec::new(),
            observer: &|_| (),
        };
        let mut bad_packs = survey.bad_packs.keys();
        let has_bad = bad_packs.any(|id| !self.mended.brought.contains(id))
            || !survey.bad_index.is_empty()
            || !survey.bad_snapshots.is_empty();
        if !has_bad || !survey.view.repository.storage().may_delete() {
            let restored = self.mended.snapshots.iter();
            done.snapshots_restored
                .extend(restored.map(|one| (one.damaged, one.stand_in)));
            return self.conclude(&sweep, done);
        }
        let lock = wait_for(survey.view.repository, request, LockMode::Exclusive)?;
        (request.observer)(RepairEvent::Removing);
        self.packs(&sweep, &lock, done)?;
        self.index_files(&sweep, &lock, done)?;
        self.snapshots(&sweep, &lock, done)?;
        self.conclude(&sweep, done)
    }

    fn packs(
        &self,
        sweep: &PruneRequest<'_>,
        lock: &LockGuard,
        done: &mut RepairDone,
    ) -> Result<(), RepositoryError> {
        let (mut view, mut listing, _) = self.look(sweep)?;
        let goes = |id: &PackId, pack: &BadPack| {
            !self.mended.brought.contains(id) && self.may_go(&view, pack)
        };
        let bad_packs = self.survey.bad_packs.iter();
        let gone: HashSet<PackId> = bad_packs
            .filter(|(id, pack)| goes(id, pack))
            .map(|(id, _)| *id)
            .collect();
        listing.index = std::mem::replace(&mut view.index, Index::empty());
        let packs = listing.index.packs();
        let listed: HashSet<&PackId> = packs.iter().collect();
        let unlisted = gone.iter().filter(|id| !listed.contains(id));
        let unlisted: Vec<PackId> = unlisted.copied().collect();
        let by_number = packs.iter().map(|id| gone.contains(id)).collect();
        let mut report = PruneReport::default();
        done.short_of_room = prune::sweep::remove_packs(
            self.survey.view.repository,
            listing,
            by_number,
            unlisted,
            sweep,
            lock,
            &mut report,
        )?;
        done.packs_removed = report.packs_removed;
        Ok(())
    }

    /// Whether nothing in a damaged pack would be missed.
    fn may_go(&self, view: &View<'_>, pack: &BadPack) -> bool {
        let is_elsewhere = |blob: &PackedBlob| view.whole_place(blob.kind, &blob.id).is_some();
        // Others may have removed again what was taken out of it; the next run takes it out once more.
        let keeps_all = pack.good.iter().all(is_elsewhere);
        let is_missed = |blob: &PackedBlob| {
            let wanted = (blob.kind, blob.id);
            let is_given_up = self.gives_up && self.needs.lost.contains(&wanted);
            self.needs.wanted.contains(&wanted) && !is_given_up && !is_elsewhere(blob)
        };
        keeps_all && !pack.blobs.iter().any(is_missed)
    }

    /// What they listed is listed by others now, as far as any pack's header tells.
    fn index_files(
        &self,
        sweep: &PruneRequest<'_>,
        lock: &LockGuard,
        done: &mut RepairDone,
    ) -> Result<(), RepositoryError> {
        let repository = self.survey.view.repository;
        for name in &self.survey.bad_index {
            prune::remove(repository, FileKind::Index, name, sweep, lock)?;
            done.index_files_removed += 1;
        }
        Ok(())
    }

    fn snapshots(
        &self,
        sweep: &PruneRequest<'_>,
        lock: &LockGuard,
        done: &mut RepairDone,
    ) -> Result<(), RepositoryError> {
        let repository = self.survey.view.repository;
        let remove = |name: &str| prune::remove(repository, FileKind::Snapshot, name, sweep, lock);
        for restored in &self.mended.snapshots {
            let name = restored.damaged.to_string();
            remove(&name)?;
            let mut now = restored.stand_in;
            if let Some(content) = &restored.content {
                let storage = repository.storage();
                storage.write(FileKind::Snapshot, &name, content)?;
                now = restored.damaged;
                remove(&restored.stand_in.to_string())?;
            }
            done.snapshots_restored.push((restored.damaged, now));
        }
        if self.gives_up {
            for name in &self.needs.snapshots_lost {
                remove(name)?;
                done.snapshots_removed.push(name.clone());
            }
        }
        Ok(())
    }

    /// The index as it is now, without the files that can't be read, and what packs are as it says. The listing's
    /// own index is in the view.
    fn look(
        &self,
        sweep: &PruneRequest<'_>,
    ) -> Result<(View<'_>, Listing, HashMap<String, u64>), RepositoryError> {
        let Self { survey, mended, .. } = self;
        let repository = survey.view.repository;
        let mut names = names(repository, FileKind::Index)?;
        names.retain(|name| !survey.bad_index.contains(name));
        let mut listing = Listing::read(repository, &names, &sweep.options.interrupt)?;
        let sizes = pack_sizes(repository)?;
        let is_bad = |pack: &PackFacts| {
            let is_damaged = survey.bad_packs.contains_key(&pack.id);
            !pack.is_whole() || (is_damaged && !mended.brought.contains(&pack.id))
        };
        let packs = listing.packs(&sizes);
        let numbered = packs.iter().zip(0u32..);
        let bad = numbered
            .filter(|(pack, _)| is_bad(pack))
            .map(|(_, number)| number)
            .collect();
        let view = View {
            repository,
            index: std::mem::replace(&mut listing.index, Index::empty()),
            bad,
            kept: HashMap::new(),
        };
        Ok((view, listing, sizes))
    }

    /// Says what is left damaged, and what snapshots lack.
    fn conclude(
        &self,
        sweep: &PruneRequest<'_>,
        done: &mut RepairDone,
    ) -> Result<(), RepositoryError> {
        let repository = self.survey.view.repository;
        let (snapshots, _) = repository.snapshots()?;
        let (view, _, sizes) = self.look(sweep)?;
        let mut has_entries = vec![false; view.index.packs().len()];
        for (number, _) in view.index.iter() {
            has_entries[number as usize] = true;
        }
        let packs = view.index.packs().iter().zip(&has_entries);
        let listed: HashSet<String> = packs
            .filter(|(_, has_entries)| **has_entries)
            .map(|(id, _)| id.to_string())
            .collect();
        let is_left = |finding: &Finding| {
            let name = finding.name.as_str();
            let is_there = || repository.storage().size(finding.kind, name).is_ok();
            match (finding.kind, &finding.what) {
                // What it lacks is told below.
                (FileKind::Snapshot, Problem::Incomplete { .. }) => false,
                (FileKind::Pack, _) => {
                    let is_brought = name
                        .parse()
                        .is_ok_and(|id| self.mended.brought.contains(&id));
                    !is_brought && (sizes.contains_key(name) || listed.contains(name))
                }
                (FileKind::Snapshot, _) => {
                    let mut restored = done.snapshots_restored.iter();
                    let is_back = restored.any(|(_, now)| now.to_string() == name);
                    !is_back && is_there()
                }
                (FileKind::Index | FileKind::Lock, _) => is_there(),
                // Nothing here mends these.
                (FileKind::Config | FileKind::Key, _) => true,
            }
        };
        let left = self.survey.findings.iter().filter(|one| is_left(one));
        done.left = left.cloned().collect();
        done.losses = losses::find(&view, &snapshots, &[], &sweep.options.interrupt)?;
        Ok(())
    }
}
