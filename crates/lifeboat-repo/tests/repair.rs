//! Repairing: every file of a repository, damaged in every way, with and without another repository to take good
//! copies from. The real restic judges the result.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_repo::check::{CheckReport, Problem};
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::repair::{Decision, RepairDone};
use lifeboat_repo::storage::{AppendOnly, FileKind};
use lifeboat_repo::{RepositoryError, SnapshotId};
use lifeboat_testkit::remote::{S3Server, SshServer};
use support::remote::{s3, s3_at, sftp};
use support::repair::{
    PACK_BYTES, clone_of, damage, damages, elsewhere, everything, files, give_up, holder, hour,
    mend, prune, readable, repair, restic_is_content, ruin, three_hours,
};
use support::{back_up, check, clock};

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

/// What is known to be lost does not keep others from going; what is not known ends everything, as ever.
#[test]
fn a_prune_does_without_what_is_known_to_be_lost_and_no_more() {
    let pristine = three_hours();
    let all = files(&pristine);
    let mut lossy = 0;
    for pack in all.iter().filter(|file| file.0 == FileKind::Pack) {
        let broken = clone_of(&pristine);
        damage(&broken, pack, "middle");
        let (_, done) = give_up(&broken, &[]);
        let [first, ..] = done.losses.as_slice() else {
            continue;
        };
        lossy += 1;
        assert!(matches!(
            prune(&broken, &[]),
            Err(RepositoryError::MissingBlob { .. })
        ));
        let lock = broken
            .lock(LockMode::Exclusive, &holder(), clock())
            .unwrap();
        for loss in &done.losses {
            let mut tags = loss.snapshot.tags.clone();
            tags.push("damaged".to_owned());
            broken.retag(&loss.snapshot, tags, &lock).unwrap();
        }
        drop(lock);
        let before = readable(&broken);
        prune(&broken, &[]).unwrap();
        assert!(readable(&broken) == before, "{first:?}");
        // A pack that is missing is another matter: nobody has given it up.
        let there = files(&broken);
        let last = there.iter().rev().find(|file| file.0 == FileKind::Pack);
        damage(&broken, last.unwrap(), "gone");
        assert!(prune(&broken, &[]).is_err());
    }
    assert!(lossy > 3, "{lossy}");
}

/// A backup that is taken between the first look and the last counts on what the index says.
#[test]
fn a_backup_meanwhile_is_looked_after() {
    let pristine = three_hours();
    let there = elsewhere(&pristine, true);
    let all = files(&pristine);
    for pack in all.iter().filter(|file| file.0 == FileKind::Pack) {
        let broken = clone_of(&pristine);
        damage(&broken, pack, "middle");
        let report = repair(&broken, &[&there], &|_| {
            back_up(&broken, 4, &hour(3), PACK_BYTES).unwrap();
            Decision::Mend
        })
        .unwrap();
        let done = report.done.unwrap();
        assert!(done.is_whole(), "{pack:?} {done:?}");
        assert_eq!(check(&broken, true).findings, []);
    }
}

/// Damaged in a real bucket or behind a real sshd, with the good copies in the other one.
#[test]
fn on_other_machines() {
    let pristine = three_hours();
    let good = readable(&pristine);
    let server = S3Server::shared();
    let bucket = s3(&s3_at(&server.endpoint(), &server.bucket(), "repair"));
    let behind_ssh = sftp(SshServer::shared(), "repair");
    for storage in [&bucket, &behind_ssh] {
        support::copy(&**pristine.storage(), &**storage);
    }
    let here = support::open(bucket).unwrap();
    let there = support::open(behind_ssh).unwrap();
    for (broken, source) in [(&here, &there), (&there, &here)] {
        ruin(broken);
        let (plan, done) = mend(broken, &[source]);
        assert!(done.is_whole(), "{plan:?} {done:?}");
        assert!(readable(broken) == good);
        assert_eq!(check(broken, true).findings, []);
    }
}
