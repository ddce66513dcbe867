//! What the snapshots need of that which is damaged, and who has it.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicBool;

use super::survey::{BadPack, Survey};
use super::view::{Trees, found_in};
use super::{OpenSource, PackPlan, RepairPlan, Wanted, stop_if};
use crate::error::RepositoryError;
use crate::id::{BlobId, PackId, SnapshotId};
use crate::pack::BlobKind;
use crate::snapshot::Snapshot;
use crate::storage::{FileKind, StorageErrorKind};

/// A longer pack is not taken into memory whole: its blobs are brought one by one.
const MOST_WHOLE_BYTES: u64 = 64 << 20;

/// A snapshot whose file does not open here and that a source has.
#[derive(Debug, Clone)]
pub(super) struct FoundSnapshot {
    /// The file that does not open.
    pub(super) damaged: SnapshotId,
    /// Which of the open sources has it.
    pub(super) source: usize,
    /// As it is there.
    pub(super) snapshot: Snapshot,
    /// What an interrupted repair wrote in its place.
    pub(super) stand_in: Option<SnapshotId>,
}

/// What is needed and can't be read here.
pub(super) struct Needs {
    pub(super) wanted: HashSet<Wanted>,
    /// What of it no source lists.
    pub(super) lost: HashSet<Wanted>,
    pub(super) snapshots: Vec<FoundSnapshot>,
    pub(super) snapshots_lost: Vec<String>,
    /// Missing packs that one of the open sources has as they were.
    pub(super) brought: BTreeMap<PackId, usize>,
}

impl Needs {
    pub(super) fn find(
        survey: &Survey<'_>,
        sources: &[OpenSource<'_>],
        interrupt: &AtomicBool,
    ) -> Result<Self, RepositoryError> {
        let mut needs = Self {
            wanted: HashSet::new(),
            lost: HashSet::new(),
            snapshots: Vec::new(),
            snapshots_lost: Vec::new(),
            brought: BTreeMap::new(),
        };
        if survey.findings.is_empty() {
            return Ok(needs);
        }
        for name in &survey.bad_snapshots {
            match name
                .parse()
                .ok()
                .and_then(|id| find_snapshot(id, survey, sources))
            {
                Some(found) => needs.snapshots.push(found),
                None => needs.snapshots_lost.push(name.clone()),
            }
        }
        let found = needs.snapshots.iter().map(|found| found.snapshot.tree);
        let roots = survey.snapshots.iter().map(|snapshot| snapshot.tree);
        let roots: Vec<BlobId> = roots.chain(found).collect();
        needs.walk(survey, sources, roots, interrupt)?;
        let is_lost = |(kind, id): &&Wanted| found_in(sources, *kind, id).is_none();
        needs.lost = needs.wanted.iter().filter(is_lost).copied().collect();
        for (id, pack) in &survey.bad_packs {
            if let Some(source) = needs.who_has(*id, pack, sources)? {
                needs.brought.insert(*id, source);
            }
        }
        Ok(needs)
    }

    fn walk(
        &mut self,
        survey: &Survey<'_>,
        sources: &[OpenSource<'_>],
        mut waiting: Vec<BlobId>,
        interrupt: &AtomicBool,
    ) -> Result<(), RepositoryError> {
        let view = &survey.view;
        let mut trees = Trees::new(view, sources)?;
        let mut seen = HashSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            stop_if(interrupt)?;
            if !view.has(BlobKind::Tree, &id) {
                self.wanted.insert((BlobKind::Tree, id));
            }
            for node in trees.load(&id)?.into_iter().flat_map(|tree| tree.nodes) {
                let missing = node
                    .content
                    .iter()
                    .filter(|id| !view.has(BlobKind::Data, id));
                self.wanted.extend(missing.map(|id| (BlobKind::Data, *id)));
                waiting.extend(node.subtree);
            }
        }
        Ok(())
    }

    /// Which source has a pack that is missing here, as it was.
    fn who_has(
        &self,
        id: PackId,
        pack: &BadPack,
        sources: &[OpenSource<'_>],
    ) -> Result<Option<usize>, RepositoryError> {
        let is_wanted =
            |blob: &crate::pack::PackedBlob| self.wanted.contains(&(blob.kind, blob.id));
        // Under the name of a file that is there nothing can be brought without removing that first.
        if pack.found_bytes.is_some()
            || pack.expected_bytes > MOST_WHOLE_BYTES
            || !pack.blobs.iter().any(is_wanted)
        {
            return Ok(None);
        }
        for (at, source) in sources
            .iter()
            .enumerate()
            .filter(|(_, one)| one.shares_keys)
        {
            let storage = source.repository.storage();
            match storage.size(FileKind::Pack, &id.to_string()) {
                Ok(size) if size == pack.expected_bytes => return Ok(Some(at)),
                Ok(_) => {}
                Err(error) if error.kind() == StorageErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// The plan as far as it follows from this.
    pub(super) fn plan(&self, survey: &Survey<'_>, sources: &[OpenSource<'_>]) -> RepairPlan {
        let mut plan = RepairPlan {
            findings: survey.findings.clone(),
            misread: survey.misread.clone(),
            packs_to_list: survey.unlisted.len() as u64,
            snapshots_lost: self.snapshots_lost.clone(),
            ..RepairPlan::default()
        };
        let number = |at: usize| sources.get(at).map_or(0, |source| source.number);
        plan.snapshots_found = self
            .snapshots
            .iter()
            .map(|found| (found.damaged, number(found.source)))
            .collect();
        let mut in_packs = HashSet::new();
        for (id, pack) in &survey.bad_packs {
            let mut line = PackPlan {
                id: *id,
                blobs: pack.blobs.len() as u64,
                here: 0,
                elsewhere: BTreeMap::new(),
                is_brought_whole: false,
                lost: 0,
            };
            if let Some(source) = self.brought.get(id) {
                line.is_brought_whole = true;
                line.elsewhere.insert(number(*source), line.blobs);
            }
            for blob in &pack.blobs {
                let wanted = (blob.kind, blob.id);
                in_packs.insert(wanted);
                if line.is_brought_whole {
                    continue;
                }
                if survey.view.has(blob.kind, &blob.id) {
                    line.here += 1;
                } else if self.wanted.contains(&wanted) {
                    match found_in(sources, blob.kind, &blob.id) {
                        Some(source) => *line.elsewhere.entry(source).or_default() += 1,
                        None => line.lost += 1,
                    }
                }
            }
            plan.packs.push(line);
        }
        for (kind, id) in self.wanted.difference(&in_packs) {
            if let Some(source) = found_in(sources, *kind, id) {
                *plan.unlisted_found.entry(source).or_default() += 1;
            }
        }
        plan
    }
}

/// The snapshot whose file does not open, as a source has it: under the same name, or as what it became or was
/// copied to.
fn find_snapshot(
    damaged: SnapshotId,
    survey: &Survey<'_>,
    sources: &[OpenSource<'_>],
) -> Option<FoundSnapshot> {
    let find = |is_it: &dyn Fn(&Snapshot) -> bool| {
        let mut numbered = sources.iter().enumerate();
        numbered.find_map(|(at, source)| {
            let found = source.snapshots.iter().find(|snapshot| is_it(snapshot))?;
            Some((at, found.clone()))
        })
    };
    let (source, snapshot) =
        find(&|one| one.id == damaged).or_else(|| find(&|one| one.original == Some(damaged)))?;
    let first = snapshot.original.unwrap_or(snapshot.id);
    let mut ours = survey.snapshots.iter();
    let stand_in = ours.find(|one| one.original == Some(first) && one.tree == snapshot.tree);
    Some(FoundSnapshot {
        damaged,
        source,
        stand_in: stand_in.map(|one| one.id),
        snapshot,
    })
}
