//! Repairing: every file of a repository, damaged in every way, with and without another repository to take good
//! copies from, and cut off at every step. The real restic judges the result.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_repo::check::reading::Everything;
use lifeboat_repo::check::{CheckReport, Problem};
use lifeboat_repo::copy::{CopyOptions, CopyRequest};
use lifeboat_repo::lock::{LockGuard, LockHolder, LockMode};
use lifeboat_repo::prune::{PruneOptions, PruneRequest};
use lifeboat_repo::repair::{
    Decision, RepairDone, RepairOptions, RepairPlan, RepairReport, RepairRequest, Source,
};
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{
    AppendOnly, FileKind, MemoryStorage, Storage, StorageError, StorageErrorKind,
};
use lifeboat_repo::tree::NodeKind;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};
use lifeboat_testkit::faulty_storage::{Calls, Failure, Fault, FaultyStorage};
use support::{
    PASSWORD, back_up, check, clock, ended_process, hand_to_restic, init, noise, rows, this_process,
};

const PACK_BYTES: usize = 40_000;

/// Three hours of a small database: a table that never changes, one that is new each hour, one that grows.
fn hour(number: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut grown = noise(7, 60_000);
    grown.extend(noise(u64::from(number), 20_000));
    vec![
        ("dump/toc.dat", rows(1, 300)),
        ("dump/tables/users/data", noise(2, 100_000)),
        (
            "dump/tables/events/data",
            noise(100 + u64::from(number), 50_000),
        ),
        ("dump/tables/memes/data", grown),
    ]
}

fn three_hours() -> Repository {
    let repository = init(Arc::new(MemoryStorage::new())).unwrap();
    for number in 1..=3 {
        back_up(&repository, number, &hour(number), PACK_BYTES).unwrap();
    }
    repository
}

fn clone_of(repository: &Repository) -> Repository {
    let copy = MemoryStorage::new();
    support::copy(&**repository.storage(), &copy);
    support::open(Arc::new(copy)).unwrap()
}

/// Whose lock nobody honours once it has let go, whatever happened.
fn holder() -> LockHolder {
    LockHolder {
        pid: ended_process(),
        ..this_process()
    }
}

fn shared_lock(repository: &Repository) -> LockGuard {
    repository
        .lock(LockMode::Shared, &holder(), clock())
        .unwrap()
}

/// All of a repository's snapshots in another one, with the same master key or with one of its own.
fn elsewhere(repository: &Repository, keys_are_shared: bool) -> Repository {
    let storage = Arc::new(MemoryStorage::new());
    let there = if keys_are_shared {
        let options = InitOptions {
            chunk_sizes: ChunkSizes::with_average(4 << 10),
            scrypt: ScryptParams::cheap(),
            hostname: "there".to_owned(),
            username: "tester".to_owned(),
            now: "2026-03-01T09:00:00Z".parse().unwrap(),
        };
        Repository::init_with_keys_of(repository, storage, &PASSWORD.into(), &options).unwrap()
    } else {
        init(storage).unwrap()
    };
    let (snapshots, _) = repository.snapshots().unwrap();
    let (here, to) = (shared_lock(repository), shared_lock(&there));
    repository
        .copy_to(
            &there,
            &CopyRequest {
                options: CopyOptions {
                    pack_size_bytes: PACK_BYTES * 2,
                    ..CopyOptions::default()
                },
                snapshots: &snapshots,
                source_lock: &here,
                destination_lock: &to,
                progress: &|_| (),
            },
        )
        .unwrap();
    there
}

fn repair(
    repository: &Repository,
    sources: &[&Repository],
    decide: &dyn Fn(&RepairPlan) -> Decision,
) -> Result<RepairReport, RepositoryError> {
    let locks: Vec<LockGuard> = sources.iter().map(|source| shared_lock(source)).collect();
    let sources: Vec<Source<'_>> = sources
        .iter()
        .zip(&locks)
        .map(|(repository, lock)| Source { repository, lock })
        .collect();
    repository.repair(&RepairRequest {
        options: RepairOptions {
            jobs: 2,
            pack_size_bytes: PACK_BYTES,
            patience: Duration::ZERO,
            interrupt: Arc::default(),
        },
        holder: holder(),
        clock: clock(),
        sources: &sources,
        reading: &Everything,
        decide,
        observer: &|_| (),
    })
}

fn mend(repository: &Repository, sources: &[&Repository]) -> (RepairPlan, RepairDone) {
    let report = repair(repository, sources, &|_| Decision::Mend).unwrap();
    (report.plan, report.done.unwrap())
}

fn give_up(repository: &Repository, sources: &[&Repository]) -> (RepairPlan, RepairDone) {
    let report = repair(repository, sources, &|_| Decision::MendAndGiveUp).unwrap();
    (report.plan, report.done.unwrap())
}

/// The content of every file of every snapshot that can be read; `None` for one that cannot. A repository whose
/// index does not load has nothing that can be read.
fn readable(repository: &Repository) -> BTreeMap<(SnapshotId, String), Vec<u8>> {
    let mut found = BTreeMap::new();
    let (snapshots, _) = repository.snapshots().unwrap();
    let Ok(reader) = repository.reader() else {
        return found;
    };
    for snapshot in snapshots {
        let first = snapshot.original.unwrap_or(snapshot.id);
        let mut waiting = vec![(String::new(), snapshot.tree)];
        while let Some((folder, tree)) = waiting.pop() {
            let Ok(tree) = reader.tree(tree) else {
                continue;
            };
            for node in tree.nodes {
                let path = format!("{folder}/{}", node.name);
                if node.kind == NodeKind::File
                    && let Ok(content) = reader.content(&node)
                    && let mut bytes = Vec::new()
                    && reader
                        .open(&content)
                        .unwrap()
                        .read_to_end(&mut bytes)
                        .is_ok()
                {
                    found.insert((first, path), bytes);
                } else if let Some(tree) = node.subtree {
                    waiting.push((path, tree));
                }
            }
        }
    }
    found
}

fn files(repository: &Repository) -> Vec<(FileKind, String)> {
    let mut all = Vec::new();
    for kind in [FileKind::Snapshot, FileKind::Index, FileKind::Pack] {
        let listed = repository.storage().list(kind).unwrap();
        all.extend(listed.into_iter().map(|file| (kind, file.name)));
    }
    all.sort();
    all
}

fn everything(repository: &Repository) -> BTreeMap<(FileKind, String), Vec<u8>> {
    let storage = repository.storage();
    let files = files(repository).into_iter();
    files
        .map(|(kind, name)| {
            let content = storage.read(kind, &name).unwrap();
            ((kind, name), content)
        })
        .collect()
}

/// Writes a file anew with a changed content, or removes it.
fn change(
    repository: &Repository,
    (kind, name): &(FileKind, String),
    change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
) {
    let storage = repository.storage();
    let content = storage.read(*kind, name).unwrap();
    storage.delete(*kind, name).unwrap();
    if let Some(content) = change(content) {
        storage.write(*kind, name, &content).unwrap();
    }
}

const DAMAGES: [&str; 7] = ["first", "middle", "last", "cut", "empty", "longer", "gone"];

/// Three of them for each file, and all of them where the whole torture is asked for.
fn damages(number: usize) -> impl Iterator<Item = &'static str> {
    let all = std::env::var_os("LIFEBOAT_TORTURE").is_some();
    let numbered = DAMAGES.into_iter().enumerate();
    numbered
        .filter(move |(turn, _)| all || (number * 3 + DAMAGES.len() - turn) % DAMAGES.len() < 3)
        .map(|(_, how)| how)
}

fn damage(repository: &Repository, file: &(FileKind, String), how: &str) {
    change(repository, file, |mut bytes| {
        let length = bytes.len();
        match how {
            "first" => bytes[3] ^= 1,
            "middle" => bytes[length / 2] ^= 8,
            "last" => bytes[length - 2] ^= 32,
            "cut" => bytes.truncate(length * 2 / 3),
            "empty" => bytes.clear(),
            "longer" => bytes.extend([0; 20]),
            _ => return None,
        }
        Some(bytes)
    });
}

fn restic_is_content(repository: &Repository) {
    let storage = MemoryStorage::new();
    support::copy(&**repository.storage(), &storage);
    hand_to_restic(&storage).check_is_clean();
}

#[test]
fn every_damage_of_every_file_is_mended_from_another_repository() {
    let pristine = three_hours();
    let good = readable(&pristine);
    assert_eq!(good.len(), 12);
    let (snapshots, _) = pristine.snapshots().unwrap();
    for keys_are_shared in [true, false] {
        let there = elsewhere(&pristine, keys_are_shared);
        let before = everything(&there);
        for (number, file) in files(&pristine).iter().enumerate() {
            for (turn, how) in damages(number).enumerate() {
                // That there was one more snapshot nobody knows.
                if file.0 == FileKind::Snapshot && how == "gone" {
                    continue;
                }
                let what = format!("{file:?} {how} {keys_are_shared}");
                let broken = clone_of(&pristine);
                damage(&broken, file, how);
                let (plan, done) = mend(&broken, &[&there]);
                assert!(!plan.gives_up(), "{what}: {plan:?}");
                assert!(done.is_whole(), "{what}: {plan:?} {done:?}");
                assert_eq!(check(&broken, true).findings, [], "{what}");
                assert!(readable(&broken) == good, "{what}");
                let (now, _) = broken.snapshots().unwrap();
                if keys_are_shared {
                    assert_eq!(now, snapshots, "{what}");
                }
                // The second run finds nothing to do.
                let again = repair(&broken, &[&there], &|_| Decision::MendAndGiveUp).unwrap();
                assert!(again.plan.is_clean() && again.done.is_none(), "{what}");
                if (number + turn) % 5 == 0 {
                    restic_is_content(&broken);
                }
            }
        }
        assert!(everything(&there) == before, "the source was changed");
    }
}

/// The paths that a repair says are lost, and those that in fact can't be read.
fn lost(done: &RepairDone) -> BTreeSet<(SnapshotId, String)> {
    let losses = done.losses.iter().flat_map(|loss| {
        let paths = loss.paths.iter();
        paths.map(|path| (loss.snapshot.id, format!("/{}", path.path)))
    });
    losses.collect()
}

fn is_below(path: &str, folder: &str) -> bool {
    folder == "/"
        || path == folder
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
}

#[test]
fn without_another_repository_what_is_lost_is_named_and_the_rest_stays() {
    let pristine = three_hours();
    let good = readable(&pristine);
    let (mut mended, mut gave_up, mut came_back) = (0, 0, 0);
    for (number, file) in files(&pristine).into_iter().enumerate() {
        for how in damages(number) {
            let what = format!("{file:?} {how}");
            let broken = clone_of(&pristine);
            damage(&broken, &file, how);
            let before = readable(&broken);
            let is_lost_snapshot = file.0 == FileKind::Snapshot;
            if is_lost_snapshot && how == "gone" {
                continue;
            }

            // A dry run changes nothing.
            let untouched = everything(&broken);
            let report = repair(&broken, &[], &|_| Decision::Nothing).unwrap();
            assert!(report.done.is_none() && !report.plan.is_clean(), "{what}");
            assert!(everything(&broken) == untouched, "{what}");

            // Without a word nothing is given up.
            let (plan, done) = mend(&broken, &[]);
            let after = readable(&broken);
            assert!(
                before
                    .iter()
                    .all(|(path, bytes)| after.get(path) == Some(bytes)),
                "{what}"
            );
            let is_mendable = plan.losses.is_empty() && plan.snapshots_lost.is_empty();
            assert_eq!(done.is_whole(), is_mendable, "{what}: {plan:?} {done:?}");
            if done.is_whole() {
                assert!(after == good, "{what}");
                assert_eq!(check(&broken, true).findings, [], "{what}");
                mended += 1;
                continue;
            }
            assert!(
                !done.left.is_empty() || done.losses.len() == plan.losses.len(),
                "{what}"
            );
            if file.0 == FileKind::Pack && how != "gone" {
                let there = broken.storage().size(file.0, &file.1);
                assert!(there.is_ok(), "{what}: given up without a word");
            }

            // With one it goes, and all that is lost is named, and nothing that is not.
            let (plan, done) = give_up(&broken, &[]);
            assert!(done.left.is_empty(), "{what}: {done:?}");
            let after = readable(&broken);
            assert!(
                before
                    .iter()
                    .all(|(path, bytes)| after.get(path) == Some(bytes)),
                "{what}"
            );
            let named = lost(&done);
            assert_eq!(plan.losses, done.losses, "{what}");
            let (snapshots, damaged) = broken.snapshots().unwrap();
            assert!(damaged.is_empty(), "{what}");
            for (id, path) in good.keys() {
                if snapshots.iter().all(|snapshot| snapshot.id != *id) {
                    assert!(is_lost_snapshot, "{what}: a backup is gone");
                    continue;
                }
                let is_named = named
                    .iter()
                    .any(|(of, folder)| of == id && is_below(path, folder));
                assert_eq!(
                    is_named,
                    !after.contains_key(&(*id, path.clone())),
                    "{what}: {path} {named:?}"
                );
            }
            let complaints = check(&broken, true).findings;
            let only_losses = complaints
                .iter()
                .all(|one| matches!(one.what, Problem::Incomplete { .. }));
            assert!(only_losses, "{what}: {complaints:?}");
            assert_eq!(complaints.len(), done.losses.len(), "{what}");
            gave_up += 1;

            // The database still has what it had in the third hour.
            back_up(&broken, 4, &hour(3), PACK_BYTES).unwrap();
            let now = readable(&broken);
            let third = pristine.snapshots().unwrap().0[2].id;
            for ((id, path), bytes) in &good {
                if *id == third && !is_lost_snapshot {
                    let is_back = now.get(&(*id, path.clone())) == Some(bytes);
                    assert!(is_back, "{what}: {path} is not whole again");
                }
            }
            if check(&broken, true).is_clean() {
                restic_is_content(&broken);
                came_back += 1;
            }
        }
    }
    // Where a pack's header alone is damaged, or an index file, nothing is lost.
    assert!(
        mended > 10 && gave_up > 20 && came_back > 5,
        "{mended} {gave_up} {came_back}"
    );
}

/// Damage of every sort at once, by the numbers of the files of each sort.
fn ruin(repository: &Repository) {
    let all = files(repository);
    let of = |kind: FileKind| all.iter().filter(move |file| file.0 == kind);
    damage(repository, of(FileKind::Snapshot).nth(1).unwrap(), "middle");
    damage(repository, of(FileKind::Index).next().unwrap(), "cut");
    let packs: Vec<_> = of(FileKind::Pack).collect();
    assert!(packs.len() > 8, "{}", packs.len());
    for (at, pack) in packs.iter().enumerate() {
        match at % 4 {
            0 => damage(repository, pack, "gone"),
            1 => damage(repository, pack, "middle"),
            2 => damage(repository, pack, "last"),
            _ => {}
        }
    }
}

#[test]
fn ruins_are_rebuilt() {
    let pristine = three_hours();
    let good = readable(&pristine);
    for keys_are_shared in [true, false] {
        let there = elsewhere(&pristine, keys_are_shared);
        let broken = clone_of(&pristine);
        ruin(&broken);
        let (plan, done) = mend(&broken, &[&there]);
        assert!(done.is_whole(), "{plan:?} {done:?}");
        assert!(readable(&broken) == good);
        restic_is_content(&broken);
        assert!(
            done.blobs_kept > 0 && done.blobs_brought[&0] > 0,
            "{done:?}"
        );
        assert_eq!(done.packs_brought > 0, keys_are_shared, "{done:?}");
    }
}

#[test]
fn what_is_damaged_in_both_is_lost_and_all_else_is_not() {
    let pristine = three_hours();
    let here = clone_of(&pristine);
    let there = elsewhere(&pristine, true);
    let all = files(&here);
    let packs: Vec<_> = all.iter().filter(|file| file.0 == FileKind::Pack).collect();
    // Of these packs the one has what the other lacks, but for one that neither has.
    damage(&here, packs[0], "gone");
    damage(&here, packs[1], "gone");
    damage(&there, packs[1], "middle");
    damage(&there, packs[2], "gone");
    let (plan, done) = mend(&here, &[&there]);
    assert!(!plan.gives_up(), "the other says that it has all: {plan:?}");
    assert_eq!(done.packs_brought, 1, "{done:?}");
    // Found out on the way: nobody was asked, so nothing is given up.
    assert_eq!(done.left.len(), 1, "{done:?}");
    assert_eq!(done.left[0].name, packs[1].1);
    assert!(!done.losses.is_empty());
    let (_, again) = mend(&there, &[&here]);
    assert!(
        !again.left.iter().any(|one| one.name == packs[2].1),
        "{again:?}"
    );
}

/// Struck at every call, with each kind of failure: what could be read can be read, and the next run goes on.
#[test]
fn cut_off_at_any_step_nothing_is_worse_and_the_next_run_goes_on() {
    let pristine = three_hours();
    let good = readable(&pristine);
    let there = elsewhere(&pristine, true);
    let mut strikes = 0;
    for sources in [&[&there][..], &[]] {
        for (calls, failure, kind) in [
            (Calls::Changes, Failure::Refused, StorageErrorKind::NoSpace),
            (
                Calls::Changes,
                Failure::AnswerLost,
                StorageErrorKind::Unreachable,
            ),
            (Calls::Changes, Failure::Dead, StorageErrorKind::Other),
            (
                Calls::All,
                Failure::Refused,
                StorageErrorKind::PermissionDenied,
            ),
            (Calls::All, Failure::Refused, StorageErrorKind::Other),
            (Calls::All, Failure::Dead, StorageErrorKind::Unreachable),
        ] {
            let mut after = 0;
            loop {
                let memory = clone_of(&pristine);
                ruin(&memory);
                let faulty = FaultyStorage::new(Arc::clone(memory.storage()));
                let broken = support::open(Arc::new(faulty.clone())).unwrap();
                // What can be read of it without the index file that does not open.
                let before = unhindered(&memory);
                faulty.plan(Fault {
                    calls,
                    after,
                    failure,
                    kind,
                });
                let struck = repair(&broken, sources, &|plan| {
                    if plan.gives_up() {
                        Decision::MendAndGiveUp
                    } else {
                        Decision::Mend
                    }
                });
                let has_struck = faulty.has_struck();
                faulty.heal();
                let what = format!("{calls:?} {failure:?} {kind:?} {after} {}", sources.len());
                let now = unhindered(&memory);
                let worse = before
                    .iter()
                    .find(|(path, bytes)| now.get(*path) != Some(*bytes));
                assert!(
                    worse.is_none(),
                    "{what}: {:?} {struck:?}",
                    worse.map(|one| one.0)
                );
                let (_, done) =
                    match repair(&broken, sources, &|_| Decision::MendAndGiveUp).unwrap() {
                        RepairReport {
                            plan,
                            done: Some(done),
                        } => (plan, done),
                        RepairReport { plan, done: None } => {
                            assert!(plan.is_clean(), "{what}");
                            (plan, RepairDone::default())
                        }
                    };
                assert!(done.left.is_empty(), "{what}: {done:?}");
                if sources.is_empty() {
                    let complaints = check(&memory, true).findings;
                    let only_losses = complaints
                        .iter()
                        .all(|one| matches!(one.what, Problem::Incomplete { .. }));
                    assert!(only_losses, "{what}: {complaints:?}");
                    let now = readable(&memory);
                    assert!(
                        before
                            .iter()
                            .all(|(path, bytes)| now.get(path) == Some(bytes)),
                        "{what}"
                    );
                } else {
                    assert!(done.is_whole(), "{what}: {done:?}");
                    assert_eq!(check(&memory, true).findings, [], "{what}");
                    assert!(readable(&memory) == good, "{what}");
                }
                strikes += 1;
                if !has_struck {
                    break;
                }
                // Reads are many, and each is like the one before.
                after += if calls == Calls::All { 7 } else { 1 };
            }
        }
    }
    assert!(strikes > 100, "{strikes}");
}

/// What can be read once all that is damaged in the index is passed over: of a copy that has been repaired with
/// nothing given up.
fn unhindered(repository: &Repository) -> BTreeMap<(SnapshotId, String), Vec<u8>> {
    let copy = clone_of(repository);
    repair(&copy, &[], &|_| Decision::Mend).unwrap();
    readable(&copy)
}

#[test]
fn nothing_is_removed_where_nothing_may_be() {
    let pristine = three_hours();
    let good = readable(&pristine);
    let there = elsewhere(&pristine, true);
    let memory = clone_of(&pristine);
    let packs: Vec<_> = files(&memory);
    for (at, file) in packs.iter().enumerate() {
        if file.0 == FileKind::Pack && at % 2 == 0 {
            damage(&memory, file, if at % 4 == 0 { "middle" } else { "gone" });
        }
    }
    let before = everything(&memory);
    let broken = support::open(Arc::new(AppendOnly::new(Arc::clone(memory.storage())))).unwrap();
    let (plan, done) = give_up(&broken, &[&there]);
    assert!(
        !plan.may_remove && done.losses.is_empty(),
        "{plan:?} {done:?}"
    );
    assert!(!done.left.is_empty() && done.packs_removed == 0, "{done:?}");
    let now = everything(&memory);
    assert!(
        before
            .iter()
            .all(|(file, bytes)| now.get(file) == Some(bytes))
    );
    // All can be restored, and the one who may remove needs nothing from elsewhere.
    assert!(readable(&memory) == good);
    let (_, done) = mend(&memory, &[]);
    assert!(done.is_whole(), "{done:?}");
    restic_is_content(&memory);
}

/// A storage in which the first reading of each pack shows a flipped bit.
#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn Storage>,
    seen: std::sync::Mutex<BTreeSet<(String, u64)>>,
}

impl Storage for Flaky {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn list(&self, kind: FileKind) -> Result<Vec<lifeboat_repo::storage::FileEntry>, StorageError> {
        self.inner.list(kind)
    }
    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        self.inner.size(kind, name)
    }
    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        self.inner.read(kind, name)
    }
    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        let mut bytes = self.inner.read_range(kind, name, offset, length)?;
        let mut seen = self.seen.lock().unwrap();
        if kind == FileKind::Pack && offset == 0 && seen.insert((name.to_owned(), offset)) {
            bytes[length / 2] ^= 1;
        }
        Ok(bytes)
    }
    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        self.inner.write(kind, name, content)
    }
    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        self.inner.delete(kind, name)
    }
    fn create(&self) -> Result<(), StorageError> {
        self.inner.create()
    }
    fn free_space_bytes(&self) -> Option<u64> {
        None
    }
}

#[test]
fn what_is_right_when_read_again_is_left_alone() {
    let pristine = three_hours();
    let storage = Flaky {
        inner: Arc::clone(pristine.storage()),
        seen: std::sync::Mutex::default(),
    };
    let repository = support::open(Arc::new(storage)).unwrap();
    let before = everything(&pristine);
    let report = repair(&repository, &[], &|_| Decision::MendAndGiveUp).unwrap();
    assert!(
        report.plan.is_clean() && report.done.is_none(),
        "{report:?}"
    );
    assert!(!report.plan.misread.is_empty());
    assert!(everything(&pristine) == before);
}

fn prune(repository: &Repository, gone: &[SnapshotId]) -> Result<(), RepositoryError> {
    repository
        .prune(&PruneRequest {
            options: PruneOptions {
                pack_size_bytes: PACK_BYTES,
                ..PruneOptions::default()
            },
            holder: holder(),
            clock: clock(),
            choose: &|_: &[Snapshot]| gone.to_vec(),
            observer: &|_| (),
        })
        .map(drop)
}

#[test]
fn others_who_prune_and_back_up_in_between_lose_nothing() {
    let pristine = three_hours();
    let broken = clone_of(&pristine);
    let there = elsewhere(&pristine, true);
    ruin(&broken);
    let (_, done) = mend(&broken, &[&there]);
    assert!(done.is_whole());
    let first = broken.snapshots().unwrap().0[0].id;
    prune(&broken, &[first]).unwrap();
    back_up(&broken, 5, &hour(5), PACK_BYTES).unwrap();
    assert_eq!(check(&broken, true).findings, []);
    restic_is_content(&broken);
}

#[test]
fn a_source_that_cannot_be_used_is_said() {
    let pristine = three_hours();
    let there = elsewhere(&pristine, true);
    let index = files(&there)
        .into_iter()
        .find(|file| file.0 == FileKind::Index);
    damage(&there, &index.unwrap(), "middle");
    let broken = clone_of(&pristine);
    let all = files(&broken);
    let packs = all.iter().filter(|file| file.0 == FileKind::Pack);
    for pack in packs.take(4) {
        damage(&broken, pack, "gone");
    }
    let other = elsewhere(&pristine, false);
    let report = repair(&broken, &[&there], &|_| Decision::Nothing).unwrap();
    assert!(report.plan.unusable[&0].contains("damaged"), "{report:?}");
    assert!(report.plan.gives_up());
    let (plan, done) = mend(&broken, &[&there, &other]);
    assert_eq!(plan.unusable.len(), 1);
    assert!(
        done.is_whole() && done.blobs_brought.contains_key(&1),
        "{done:?}"
    );
    let CheckReport { findings, .. } = check(&broken, true);
    assert_eq!(findings, []);
}

/// A lock file that does not open holds everybody up, until it is older than any holder lets one get.
#[test]
fn a_lock_file_that_does_not_open_is_removed_once_it_is_nobodys() {
    let repository = three_hours();
    let name = "ab".repeat(32);
    repository
        .storage()
        .write(FileKind::Lock, &name, b"garbage")
        .unwrap();
    let Err(error) = repair(&repository, &[], &|_| Decision::Mend) else {
        panic!("a lock was passed over");
    };
    assert!(error.to_string().contains(&name), "{error}");
    assert!(repository.storage().size(FileKind::Lock, &name).is_ok());
}
