//! Removing, under the exclusive lock.

use std::collections::{HashMap, HashSet};

use super::bits::Bits;
use super::mark::{Delta, Marker};
use super::plan::Plan;
use super::survey::{self, Listing, Survey};
use super::{PruneEvent, PruneReport, PruneRequest, is_full, remove, remove_snapshot};
use crate::error::RepositoryError;
use crate::id::{IndexId, PackId, SnapshotId};
use crate::index;
use crate::lock::LockGuard;
use crate::pack::PackedBlob;
use crate::repository::Repository;
use crate::storage::FileKind;

/// So many index files with little in them may be before they are put together.
const MOST_SMALL_INDEXES: usize = 32;

/// How the sweep went.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Others removed files since the survey: nothing was done.
    pub(super) is_outdated: bool,
    /// There was no room for an index file, so packs that it would have freed are still there.
    pub(super) fell_short: bool,
}

/// Removes what `plan` says, as far as that is still right.
pub(super) fn sweep(
    repository: &Repository,
    survey: &mut Survey,
    plan: &mut Plan,
    request: &PruneRequest<'_>,
    lock: &LockGuard,
    report: &mut PruneReport,
) -> Result<Swept, RepositoryError> {
    let Some(now) = look_again(repository, survey, plan, request)? else {
        return Ok(Swept {
            is_outdated: true,
            fell_short: false,
        });
    };
    (request.observer)(PruneEvent::Removing {
        snapshots: now.drop.len() as u64,
        packs: (now.unindexed.len() + plan.gone.iter().filter(|gone| **gone).count()) as u64,
    });
    for id in &now.drop {
        remove_snapshot(repository, *id, request, lock, report)?;
    }
    let mut sweeper = Sweeper {
        repository,
        survey,
        plan,
        request,
        lock,
        report,
        sizes: &now.sizes,
        listed: vec![0; survey.packs.len()],
        by_pack: Vec::new(),
    };
    let fell_short = sweeper.run(&now.unindexed)?;
    sweeper.account(&now);
    Ok(Swept {
        is_outdated: false,
        fell_short,
    })
}

/// Takes packs out of the index, and then removes their files. `gone` tells which, by the numbers of `listing`;
/// `unlisted` are packs that no index file lists. Each index file is removed after its successor is durable, each
/// pack after the last index file that lists it. Returns whether there was too little room for that.
pub(crate) fn remove_packs(
    repository: &Repository,
    listing: Listing,
    gone: Vec<bool>,
    unlisted: Vec<PackId>,
    request: &PruneRequest<'_>,
    lock: &LockGuard,
    report: &mut PruneReport,
) -> Result<bool, RepositoryError> {
    let sizes = survey::pack_sizes(repository)?;
    let packs = listing.packs(&sizes);
    let survey = Survey {
        dropped: Vec::new(),
        marked: HashSet::new(),
        used: Bits::default(),
        packs,
        listing,
    };
    let plan = Plan::removing(gone);
    let mut sweeper = Sweeper {
        repository,
        survey: &survey,
        plan: &plan,
        request,
        lock,
        report,
        sizes: &sizes,
        listed: vec![0; survey.packs.len()],
        by_pack: Vec::new(),
    };
    sweeper.run(&unlisted)
}

/// What a second look showed.
struct Now {
    /// Snapshots that go.
    drop: Vec<SnapshotId>,
    /// Packs that no index file lists: nobody works on them while we hold the lock.
    unindexed: Vec<PackId>,
    sizes: HashMap<String, u64>,
    /// Bytes of packs that came since the survey.
    delta_bytes: u64,
}

/// Marks what is new, and takes off the plan what is needed after all. `None` when others have removed something
/// since, so that the survey is worth nothing.
fn look_again(
    repository: &Repository,
    survey: &mut Survey,
    plan: &mut Plan,
    request: &PruneRequest<'_>,
) -> Result<Option<Now>, RepositoryError> {
    let snapshots = survey::all_snapshots(repository)?;
    let chosen = (request.choose)(&snapshots);
    let drop: Vec<SnapshotId> = chosen
        .into_iter()
        .filter(|id| survey.dropped.contains(id))
        .collect();

    let names = survey::names(repository, FileKind::Index)?;
    let there: HashSet<&str> = names.iter().map(String::as_str).collect();
    let known = survey
        .listing
        .files
        .keys()
        .chain(&survey.listing.superseded);
    let known: HashSet<String> = known.map(ToString::to_string).collect();
    if !known.iter().all(|name| there.contains(name.as_str())) {
        return Ok(None);
    }
    let new: Vec<String> = names
        .iter()
        .filter(|name| !known.contains(*name))
        .cloned()
        .collect();
    let listing = Listing::read(repository, &new, &request.options.interrupt)?;
    if listing
        .supersedes
        .iter()
        .any(|id| known.contains(&id.to_string()))
    {
        return Ok(None);
    }
    let sizes = survey::pack_sizes(repository)?;
    let mut changed = false;
    for pack in &mut survey.packs {
        let size = sizes.get(&pack.id.to_string()).copied();
        changed |= pack.blobs > 0 && size != pack.file_bytes;
    }
    if changed {
        return Ok(None);
    }
    let packs = listing.packs(&sizes);
    let delta = Delta { listing, packs };

    let mut marker = Marker::new(
        repository,
        &survey.listing.index,
        &survey.packs,
        Some(&delta),
    )?;
    let stays = |id: &SnapshotId| !drop.contains(id);
    for snapshot in snapshots.iter().filter(|snapshot| stays(&snapshot.id)) {
        if !survey.marked.contains(&snapshot.id) {
            let is_damaged = request.options.is_known_damaged(snapshot);
            let marker = marker.tolerant(is_damaged);
            marker.mark(snapshot.tree, &mut survey.used, &request.options.interrupt)?;
        }
    }
    keep_what_is_needed(survey, plan, &delta)?;

    let indexed: HashSet<PackId> = survey
        .packs
        .iter()
        .chain(&delta.packs)
        .filter(|pack| pack.blobs > 0)
        .map(|pack| pack.id)
        .collect();
    let unindexed = sizes
        .keys()
        .filter_map(|name| name.parse().ok())
        .filter(|id| !indexed.contains(id))
        .collect();
    Ok(Some(Now {
        drop,
        unindexed,
        delta_bytes: delta.packs.iter().filter_map(|pack| pack.file_bytes).sum(),
        sizes,
    }))
}

/// The last word before anything is removed: every needed blob has a copy in a pack that stays. A pack with the
/// only copy stays, whatever the plan says.
fn keep_what_is_needed(
    survey: &Survey,
    plan: &mut Plan,
    delta: &Delta,
) -> Result<(), RepositoryError> {
    let index = &survey.listing.index;
    for start in 0..index.len() {
        if !survey.used.get(start) {
            continue;
        }
        let Some((_, wanted)) = index.entry(start) else {
            continue;
        };
        let mut spare = None;
        let mut stays = false;
        for at in index.span(wanted.kind, &wanted.id) {
            let Some((number, _)) = index.entry(at) else {
                continue;
            };
            if survey.packs[number as usize].is_whole() {
                stays |= !plan.gone[number as usize];
                spare = spare.or(Some(number));
            }
        }
        if stays || delta.find(wanted.kind, &wanted.id).is_some() {
            continue;
        }
        let spare = spare.ok_or(RepositoryError::MissingBlob {
            kind: wanted.kind,
            id: wanted.id,
        })?;
        plan.gone[spare as usize] = false;
    }
    Ok(())
}

struct Sweeper<'a> {
    repository: &'a Repository,
    survey: &'a Survey,
    plan: &'a Plan,
    request: &'a PruneRequest<'a>,
    lock: &'a LockGuard,
    report: &'a mut PruneReport,
    sizes: &'a HashMap<String, u64>,
    /// How many index files that are there list each pack.
    listed: Vec<u32>,
    /// The entries of packs that will be listed anew: pack, offset, place in the index.
    by_pack: Vec<(u32, u32, u32)>,
}

impl Sweeper<'_> {
    /// Removes what needs no writing first: on a full disk that makes the room for the rest. Whether there was too
    /// little room all the same.
    fn run(&mut self, unindexed: &[PackId]) -> Result<bool, RepositoryError> {
        for id in &self.survey.listing.superseded {
            self.remove_index(id)?;
        }
        for id in unindexed {
            self.remove_pack(*id)?;
        }
        for packs in self.survey.listing.files.values() {
            for (number, _) in packs {
                self.listed[*number as usize] += 1;
            }
        }
        let (empty, mut rewrite) = self.files();
        for id in empty {
            self.remove_index_and_packs(&id)?;
        }
        // Small ones first: they cost little room, and what they free is room for the next.
        rewrite.sort_by_key(|(id, blobs)| (*blobs, *id));
        self.gather(&rewrite);
        let mut written = vec![false; self.survey.packs.len()];
        let mut rest = rewrite.as_slice();
        while !rest.is_empty() {
            let mut sum = 0;
            let fits = |(_, blobs): &&(IndexId, usize)| {
                sum += blobs;
                sum <= index::BLOBS_PER_FILE
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (group, later) = rest.split_at(count);
            rest = later;
            match self.rewrite(group, &mut written) {
                Err(error) if is_full(&error) && group.len() > 1 => {
                    for one in group {
                        match self.rewrite(std::slice::from_ref(one), &mut written) {
                            Err(error) if is_full(&error) => return Ok(true),
                            other => other?,
                        }
                    }
                }
                Err(error) if is_full(&error) => return Ok(true),
                other => other?,
            }
        }
        Ok(false)
    }

    /// The index files that list nothing that stays; and those that list something that goes, or the same as
    /// another, or little, with the number of blobs that they still have to list.
    fn files(&self) -> (Vec<IndexId>, Vec<(IndexId, usize)>) {
        let (mut empty, mut rewrite, mut small) = (Vec::new(), Vec::new(), Vec::new());
        for (id, packs) in &self.survey.listing.files {
            let stays = |number: &u32| !self.plan.gone[*number as usize];
            let blobs: usize = packs
                .iter()
                .filter(|(number, _)| stays(number))
                .map(|(_, blobs)| *blobs as usize)
                .sum();
            let changes = packs
                .iter()
                .any(|(number, _)| !stays(number) || self.listed[*number as usize] > 1);
            if blobs == 0 {
                empty.push(*id);
            } else if changes {
                rewrite.push((*id, blobs));
            } else if blobs < index::BLOBS_PER_FILE / 4 {
                small.push((*id, blobs));
            }
        }
        if small.len() > MOST_SMALL_INDEXES {
            rewrite.append(&mut small);
        }
        (empty, rewrite)
    }

    /// Sorts the entries of the packs that these files list, for writing.
    fn gather(&mut self, files: &[(IndexId, usize)]) {
        let mut wanted = vec![false; self.survey.packs.len()];
        for (id, _) in files {
            for (number, _) in self.survey.listing.files.get(id).into_iter().flatten() {
                wanted[*number as usize] = !self.plan.gone[*number as usize];
            }
        }
        let entries = self.survey.listing.index.iter().zip(0u32..);
        self.by_pack = entries
            .filter(|((number, _), _)| wanted[*number as usize])
            .map(|((number, blob), at)| (number, blob.offset, at))
            .collect();
        self.by_pack.sort_unstable();
    }

    fn blobs(&self, number: u32) -> Vec<PackedBlob> {
        let start = self.by_pack.partition_point(|(pack, _, _)| *pack < number);
        self.by_pack[start..]
            .iter()
            .take_while(|(pack, _, _)| *pack == number)
            .filter_map(|(_, _, at)| self.survey.listing.index.entry(*at as usize))
            .map(|(_, blob)| blob)
            .collect()
    }

    /// Writes what these files still have to list as one file, then removes them, then the packs that no file
    /// lists any more.
    fn rewrite(
        &mut self,
        group: &[(IndexId, usize)],
        written: &mut [bool],
    ) -> Result<(), RepositoryError> {
        let mut packs: Vec<(PackId, Vec<PackedBlob>)> = Vec::new();
        let mut numbers = Vec::new();
        for (id, _) in group {
            for (number, _) in self.survey.listing.files.get(id).into_iter().flatten() {
                let at = *number as usize;
                if !self.plan.gone[at] && !written[at] && !numbers.contains(number) {
                    packs.push((self.survey.packs[at].id, self.blobs(*number)));
                    numbers.push(*number);
                }
            }
        }
        if !packs.is_empty() {
            super::stop_if_interrupted(self.request)?;
            self.lock.verify()?;
            let json = index::write(packs.iter().map(|(id, blobs)| (id, blobs.as_slice())));
            self.repository.store_file(FileKind::Index, &json)?;
            self.report.index_files_written += 1;
            for number in numbers {
                written[number as usize] = true;
            }
        }
        for (id, _) in group {
            self.remove_index_and_packs(id)?;
        }
        Ok(())
    }

    fn remove_index_and_packs(&mut self, id: &IndexId) -> Result<(), RepositoryError> {
        self.remove_index(id)?;
        for (number, _) in self.survey.listing.files.get(id).into_iter().flatten() {
            let listed = &mut self.listed[*number as usize];
            *listed = listed.saturating_sub(1);
            if *listed == 0 && self.plan.gone[*number as usize] {
                self.remove_pack(self.survey.packs[*number as usize].id)?;
            }
        }
        Ok(())
    }

    fn remove_index(&mut self, id: &IndexId) -> Result<(), RepositoryError> {
        remove(
            self.repository,
            FileKind::Index,
            &id.to_string(),
            self.request,
            self.lock,
        )?;
        self.report.index_files_removed += 1;
        Ok(())
    }

    fn remove_pack(&mut self, id: PackId) -> Result<(), RepositoryError> {
        let name = id.to_string();
        remove(
            self.repository,
            FileKind::Pack,
            &name,
            self.request,
            self.lock,
        )?;
        // One that the index knew and that was not there frees nothing.
        if let Some(bytes) = self.sizes.get(&name) {
            self.report.packs_removed += 1;
            self.report.bytes_removed += bytes;
        }
        Ok(())
    }

    /// Adds up what is left.
    fn account(&mut self, now: &Now) {
        let (mut left, mut unreferenced) = (now.delta_bytes, 0);
        for (number, pack) in self.survey.packs.iter().enumerate() {
            let Some(bytes) = pack.file_bytes.filter(|_| pack.blobs > 0) else {
                continue;
            };
            if self.plan.gone[number] {
                // Still there when an index file could not be written.
                if self.listed[number] > 0 {
                    left += bytes;
                    unreferenced += bytes;
                }
                continue;
            }
            left += bytes;
            let overhead = crate::pack::FIXED_BYTES as u64 + u64::from(pack.blobs) * 41;
            unreferenced += bytes.saturating_sub(overhead + self.plan.needed_bytes[number]);
        }
        self.report.bytes_left = left;
        self.report.bytes_unreferenced = unreferenced;
    }
}
