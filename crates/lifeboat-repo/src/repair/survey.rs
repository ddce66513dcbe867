//! What is damaged, and what of it is still good.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use super::examine::Examiner;
use super::view::View;
use super::{require_access, stop_if, unless_damaged};
use crate::check::{CheckReport, Finding, Problem};
use crate::copy::adopt;
use crate::error::RepositoryError;
use crate::id::{BlobId, IndexId, KeyId, PackId};
use crate::index::{self, BlobLocation, Index, IndexBuilder};
use crate::pack::{FIXED_BYTES, PackedBlob};
use crate::prune::survey::{names, pack_sizes};
use crate::repository::{Repository, read_bounded};
use crate::snapshot::Snapshot;
use crate::storage::FileKind;
use crate::unpacked;

/// A pack that is not what was once written.
#[derive(Debug, Clone, Default)]
pub(super) struct BadPack {
    /// What is, or was, in it: as the index has it, and where it opens its own header. By offset.
    pub(super) blobs: Vec<PackedBlob>,
    /// Those of them that are good.
    pub(super) good: Vec<PackedBlob>,
    /// Whether an index file lists it.
    pub(super) is_listed: bool,
    /// The length of its file, if there is one.
    pub(super) found_bytes: Option<u64>,
    /// The length that a file with what the index lists would have.
    pub(super) expected_bytes: u64,
}

/// The repository as the first phase found it.
pub(super) struct Survey<'a> {
    /// What can be read of it, as soon as what is `unlisted` is listed.
    pub(super) view: View<'a>,
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
    /// What was wrong at first sight only.
    pub(super) misread: Vec<Finding>,
    pub(super) bad_packs: BTreeMap<PackId, BadPack>,
    pub(super) bad_index: Vec<String>,
    /// Names of snapshot files that don't open.
    pub(super) bad_snapshots: Vec<String>,
    pub(super) snapshots: Vec<Snapshot>,
    /// Packs that no index file lists any more.
    pub(super) unlisted: Vec<(PackId, Vec<PackedBlob>)>,
}

impl<'a> Survey<'a> {
    /// Looks into everything that `check` found.
    pub(super) fn take(
        repository: &'a Repository,
        check: CheckReport,
        interrupt: &AtomicBool,
    ) -> Result<Self, RepositoryError> {
        let (mut misread, mut findings) = (Vec::new(), Vec::new());
        for finding in check.findings {
            // That we may not read a file says nothing about it. Taken for damage, a repository that belongs to
            // somebody else would be lost as a whole.
            if matches!(finding.what, Problem::Unreadable(_)) {
                require_access(repository, finding.kind, &finding.name)?;
            }
            match is_fine_now(repository, &finding)? {
                true => misread.push(finding),
                false => findings.push(finding),
            }
        }
        // Snapshots before the index, the index before packs: what others add meanwhile is then unknown at most.
        let (snapshots, _) = repository.snapshots()?;
        let of_kind = |kind: FileKind| {
            let findings = findings.iter();
            findings.filter(move |finding| finding.kind == kind)
        };
        let bad_index: Vec<String> = of_kind(FileKind::Index)
            .map(|one| one.name.clone())
            .collect();
        let is_incomplete = |finding: &&Finding| matches!(finding.what, Problem::Incomplete { .. });
        let bad_snapshots = of_kind(FileKind::Snapshot)
            .filter(|finding| !is_incomplete(finding))
            .map(|finding| finding.name.clone())
            .collect();
        let lacks_index =
            !bad_index.is_empty() || of_kind(FileKind::Snapshot).any(|one| is_incomplete(&one));
        let suspects: HashSet<PackId> = of_kind(FileKind::Pack)
            .filter_map(|finding| finding.name.parse().ok())
            .collect();

        let mut builder = read_index(repository, &bad_index, interrupt)?;
        let sizes = pack_sizes(repository)?;
        let mut unlisted = Vec::new();
        if lacks_index {
            let listed: HashSet<&PackId> = builder.packs().iter().collect();
            let wanted = |id: &PackId| !listed.contains(id) && !suspects.contains(id);
            unlisted = read_headers(repository, &sizes, wanted, interrupt)?;
        }
        list(&mut builder, &unlisted)?;
        let index = builder
            .build()
            .map_err(|error| RepositoryError::damaged(FileKind::Index, "", error))?;

        let mut bad_packs = gather(&suspects, &index, &sizes);
        let mut examiner = Examiner::new(repository, interrupt)?;
        let mut fine = HashSet::new();
        for (id, pack) in &mut bad_packs {
            if look_into(repository, &mut examiner, *id, pack)? {
                fine.insert(id.to_string());
            }
        }
        bad_packs.retain(|id, _| !fine.contains(&id.to_string()));
        let is_fine =
            |finding: &Finding| finding.kind == FileKind::Pack && fine.contains(&finding.name);
        let (fine, findings): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_fine);
        misread.extend(fine);
        Ok(Self {
            view: view(repository, index, &bad_packs),
            findings,
            misread,
            bad_packs,
            bad_index,
            bad_snapshots,
            snapshots,
            unlisted,
        })
    }

    /// All snapshots that can be read, also those that sources have.
    pub(super) fn and_found(&self, found: &[super::needs::FoundSnapshot]) -> Vec<Snapshot> {
        let mut all = self.snapshots.clone();
        // An interrupted repair may have brought one already.
        let new = found.iter().filter(|one| one.stand_in.is_none());
        all.extend(new.map(|one| Snapshot {
            id: one.damaged,
            ..one.snapshot.clone()
        }));
        all.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
        all
    }
}

/// Whether a small file is what it should be when it is read again. Packs are looked into.
fn is_fine_now(repository: &Repository, finding: &Finding) -> Result<bool, RepositoryError> {
    let name = finding.name.as_str();
    let is_fine = match finding.kind {
        FileKind::Snapshot if !matches!(finding.what, Problem::Incomplete { .. }) => {
            let json = unless_damaged(repository.load_file(FileKind::Snapshot, name))?;
            let id = name.parse().ok();
            json.zip(id)
                .is_some_and(|(json, id)| Snapshot::parse(id, &json).is_ok())
        }
        FileKind::Index => {
            let json = unless_damaged(repository.load_file(FileKind::Index, name))?;
            let id = name.parse().ok();
            json.zip(id)
                .is_some_and(|(json, id)| IndexBuilder::default().add(id, &json).is_ok())
        }
        FileKind::Key | FileKind::Lock => {
            let read = read_bounded(repository.storage().as_ref(), finding.kind, name);
            unless_damaged(read)?.is_some_and(|content| KeyId::of(&content).to_string() == name)
        }
        FileKind::Config => {
            let read = read_bounded(repository.storage().as_ref(), finding.kind, name);
            unless_damaged(read)?.is_some_and(|sealed| {
                unpacked::decode(FileKind::Config, sealed, repository.sealer()).is_ok()
            })
        }
        FileKind::Snapshot | FileKind::Pack => false,
    };
    Ok(is_fine)
}

/// The index files that can be read.
fn read_index(
    repository: &Repository,
    bad: &[String],
    interrupt: &AtomicBool,
) -> Result<IndexBuilder, RepositoryError> {
    let mut builder = IndexBuilder::default();
    for name in names(repository, FileKind::Index)? {
        stop_if(interrupt)?;
        if bad.contains(&name) {
            continue;
        }
        let json = repository.load_file(FileKind::Index, &name)?;
        let damaged = |what: &dyn ToString| {
            RepositoryError::damaged(FileKind::Index, &name, what.to_string())
        };
        let id = name.parse().map_err(|error| damaged(&error))?;
        builder.add(id, &json).map_err(|error| damaged(&error))?;
    }
    Ok(builder)
}

fn read_headers(
    repository: &Repository,
    sizes: &HashMap<String, u64>,
    wanted: impl Fn(&PackId) -> bool,
    interrupt: &AtomicBool,
) -> Result<Vec<(PackId, Vec<PackedBlob>)>, RepositoryError> {
    let mut found = Vec::new();
    let mut files: Vec<(&String, &u64)> = sizes.iter().collect();
    files.sort();
    for (name, size) in files {
        let Some(id) = name.parse().ok().filter(&wanted) else {
            continue;
        };
        stop_if(interrupt)?;
        if let Some(Some(blobs)) = unless_damaged(adopt::header(repository, name, *size))? {
            found.push((id, blobs));
        }
    }
    Ok(found)
}

/// Puts packs into an index as if a file listed them.
fn list(
    builder: &mut IndexBuilder,
    packs: &[(PackId, Vec<PackedBlob>)],
) -> Result<(), RepositoryError> {
    for some in packs.chunks(64) {
        let json = index::write(some.iter().map(|(id, blobs)| (id, blobs.as_slice())));
        builder
            .add(IndexId::of(&json), &json)
            .map_err(super::encode)?;
    }
    Ok(())
}

/// What the index says of these packs.
fn gather(
    suspects: &HashSet<PackId>,
    index: &Index,
    sizes: &HashMap<String, u64>,
) -> BTreeMap<PackId, BadPack> {
    let mut packs: BTreeMap<PackId, BadPack> = suspects
        .iter()
        .map(|id| {
            let pack = BadPack {
                found_bytes: sizes.get(&id.to_string()).copied(),
                expected_bytes: FIXED_BYTES as u64,
                ..BadPack::default()
            };
            (*id, pack)
        })
        .collect();
    for (number, blob) in index.iter() {
        let id = index.packs().get(number as usize);
        if let Some(pack) = id.and_then(|id| packs.get_mut(id)) {
            pack.is_listed = true;
            pack.expected_bytes += u64::from(blob.length) + blob.header_entry_bytes();
            pack.blobs.push(blob);
        }
    }
    packs
}

/// Finds the good blobs of a pack. Returns whether all is well with it: then only the first reading was not.
fn look_into(
    repository: &Repository,
    examiner: &mut Examiner<'_>,
    id: PackId,
    pack: &mut BadPack,
) -> Result<bool, RepositoryError> {
    pack.blobs.sort_unstable_by_key(|blob| blob.offset);
    let Some(size) = pack.found_bytes else {
        return Ok(false);
    };
    let name = id.to_string();
    let header = unless_damaged(adopt::header(repository, &name, size))?.flatten();
    let agrees = match &header {
        Some(header) => !pack.is_listed || *header == pack.blobs,
        None => false,
    };
    let known: HashSet<(BlobId, u32)> = pack.blobs.iter().map(|one| (one.id, one.offset)).collect();
    let header = header.into_iter().flatten();
    let others = header.filter(|one| !known.contains(&(one.id, one.offset)));
    pack.blobs.extend(others);
    pack.blobs.sort_unstable_by_key(|blob| blob.offset);
    let good = &mut pack.good;
    examiner.each_good(&name, &pack.blobs, &mut |blob, _, _| {
        good.push(*blob);
        Ok(())
    })?;
    // Every byte is in a blob or in the header, and each of these has its code.
    Ok(agrees && pack.good.len() == pack.blobs.len())
}

fn view<'a>(
    repository: &'a Repository,
    index: Index,
    bad_packs: &BTreeMap<PackId, BadPack>,
) -> View<'a> {
    let numbered = index.packs().iter().zip(0u32..);
    let bad: HashSet<u32> = numbered
        .filter(|(id, _)| bad_packs.contains_key(id))
        .map(|(_, number)| number)
        .collect();
    let mut view = View {
        repository,
        index,
        bad,
        kept: HashMap::new(),
    };
    for (id, pack) in bad_packs {
        for blob in &pack.good {
            if view.whole_place(blob.kind, &blob.id).is_none() {
                let place = BlobLocation {
                    pack: *id,
                    blob: *blob,
                };
                view.kept.entry((blob.kind, blob.id)).or_insert(place);
            }
        }
    }
    view
}
