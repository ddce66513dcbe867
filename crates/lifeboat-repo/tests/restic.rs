//! The real restic is the judge: of what we write, and as the author of what we read.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lifeboat_repo::lock::{LockGuard, LockHolder, LockMode};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::FileKind;
use lifeboat_repo::tree::{Node, NodeKind};
use lifeboat_repo::{Repository, RepositoryError};
use support::{
    Restic, back_up, check, clock, ended_process, hostname, init, noise, open, read_folder, rows,
    this_process,
};

const NAMES: [&str; 7] = [
    "plain",
    "with space",
    "ünïcödé ☂",
    "quote\"s",
    "back\\slash",
    "new\nline",
    "<&>",
];

fn backups() -> [Vec<(String, Vec<u8>)>; 2] {
    let tables = |seed: u64| {
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("dump/toc.dat".to_owned(), rows(seed, 100)),
            (
                "dump/tables/public/memes/data.dat".to_owned(),
                noise(7, 300_000),
            ),
            (
                "dump/tables/public/users/data.dat".to_owned(),
                rows(seed, 20_000),
            ),
            ("dump/tables/public/empty/data.dat".to_owned(), Vec::new()),
            ("lifeboat.json".to_owned(), b"{}".to_vec()),
        ];
        files.extend(NAMES.map(|name| (format!("dump/{name}"), name.as_bytes().to_vec())));
        files
    };
    [tables(1), tables(2)]
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, Vec<u8>)> {
    files
        .iter()
        .map(|(path, content)| (path.as_str(), content.clone()))
        .collect()
}

/// A repository of ours with two snapshots, in a folder.
fn ours() -> (Restic, Repository) {
    let restic = Restic::new();
    let repository = init(restic.storage()).unwrap();
    for (hour, files) in (1..).zip(backups()) {
        back_up(&repository, hour, &borrowed(&files), 100_000).unwrap();
    }
    (restic, repository)
}

#[test]
fn restic_checks_our_repository_clean() {
    let (restic, repository) = ours();
    restic.check_is_clean();
    assert_eq!(check(&repository, true).findings, []);
    assert!(
        repository
            .storage()
            .list(FileKind::Lock)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn restic_lists_and_restores_our_snapshots() {
    let (restic, repository) = ours();
    let (snapshots, _) = repository.snapshots().unwrap();
    let listed: serde_json::Value =
        serde_json::from_slice(&restic.run(&["snapshots", "--json"])).unwrap();
    for (snapshot, (listed, files)) in snapshots
        .iter()
        .zip(listed.as_array().unwrap().iter().zip(backups()))
    {
        let id = snapshot.id.to_string();
        assert_eq!(listed["id"], id.as_str());
        assert_eq!(listed["hostname"], hostname().as_str());
        assert_eq!(listed["tags"][0], "lifeboat");
        assert_eq!(
            listed["time"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .unwrap(),
            snapshot.time
        );

        let target = restic.path(&id);
        restic.run(&["restore", &id, "--target", target.to_str().unwrap()]);
        let mut expected = files.clone();
        expected.sort();
        assert!(read_folder(&target) == expected, "restored files differ");

        for (path, content) in files {
            assert!(
                restic.run(&["dump", &id, &format!("/{path}")]) == content,
                "{path}"
            );
        }
        let listing = restic.text(&["ls", &id]);
        assert!(
            listing.contains("/dump/tables/public/users/data.dat\n"),
            "{listing}"
        );
    }
}

#[test]
fn restic_can_work_on_in_our_repository() {
    let (restic, repository) = ours();
    let source = restic.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("big"), noise(11, 3_000_000)).unwrap();
    fs::write(source.join("text"), rows(12, 30_000)).unwrap();
    restic.run(&["backup", source.to_str().unwrap()]);
    assert_eq!(repository.snapshots().unwrap().0.len(), 3);
    assert_eq!(check(&repository, true).findings, []);

    // Its prune rewrites packs and index files.
    restic.run(&[
        "forget",
        "--keep-last",
        "1",
        "--group-by",
        "",
        "--prune",
        "--max-unused",
        "0",
    ]);
    assert_eq!(repository.snapshots().unwrap().0.len(), 1);
    assert_eq!(check(&repository, true).findings, []);
    let [files, _] = backups();
    back_up(&repository, 3, &borrowed(&files), 100_000).unwrap();
    restic.check_is_clean();
    restic.run(&["rebuild-index"]);
    assert_eq!(check(&repository, true).findings, []);
}

/// Every file of a snapshot with its path, sorted.
fn read_snapshot(repository: &Repository, snapshot: &Snapshot) -> Vec<(String, Vec<u8>)> {
    let reader = repository.reader().unwrap();
    let mut files = Vec::new();
    let mut visit = |path: &str, node: &Node| -> Result<(), RepositoryError> {
        if node.kind == NodeKind::File {
            let mut content = Vec::new();
            let mut file = reader.open(&reader.content(node)?)?;
            file.read_to_end(&mut content).unwrap();
            files.push((path.to_owned(), content));
        }
        Ok(())
    };
    reader.walk(snapshot, &mut visit).unwrap();
    files.sort();
    files
}

#[test]
fn we_read_what_restic_wrote() {
    for compression in ["off", "auto", "max"] {
        let restic = Restic::new();
        restic.run(&["init", "--repository-version", "2"]);
        let source = restic.path("source");
        fs::create_dir_all(source.join("deep/er")).unwrap();
        fs::write(source.join("deep/er/big"), noise(21, 3_000_000)).unwrap();
        fs::write(source.join("deep/text"), rows(22, 100_000)).unwrap();
        fs::write(source.join("empty"), b"").unwrap();
        for name in NAMES {
            fs::write(source.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", source.join("link")).unwrap();
        let backup = [
            "backup",
            "--compression",
            compression,
            "--tag",
            "a,b",
            source.to_str().unwrap(),
        ];
        restic.run(&backup);
        fs::write(source.join("deep/text"), rows(23, 100_000)).unwrap();
        restic.run(&backup);

        let repository = open(restic.storage()).unwrap();
        let (snapshots, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty());
        assert_eq!(snapshots.len(), 2);
        assert_eq!(snapshots[0].tags, ["a", "b"]);
        assert_eq!(snapshots[0].hostname, hostname());
        for read_data in [false, true] {
            let report = check(&repository, read_data);
            assert_eq!(report.findings, [], "compression {compression}");
            assert_eq!(
                report.blobs_checked,
                repository.load_index().unwrap().len() as u64
            );
        }
        let expected = read_folder(&source);
        let read = read_snapshot(&repository, &snapshots[1]);
        let prefix = format!("{}/", source.to_str().unwrap().trim_start_matches('/'));
        let read: Vec<_> = read
            .into_iter()
            .map(|(path, content)| (path.strip_prefix(&prefix).unwrap().to_owned(), content))
            .collect();
        assert!(read == expected, "read other content than restic stored");
        // And we add to it what restic then reads.
        let [files, _] = backups();
        back_up(&repository, 1, &borrowed(&files), 100_000).unwrap();
        restic.check_is_clean();
    }
}

#[test]
fn version_1_is_refused() {
    let restic = Restic::new();
    restic.run(&["init", "--repository-version", "1"]);
    match open(restic.storage()) {
        Err(RepositoryError::UnsupportedVersion { found: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// restic's `unlock` asks whether a lock's holder lives by sending it SIGHUP.
fn ignore_hangup() {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, std::sync::Arc::default()).unwrap();
}

fn lock(repository: &Repository, mode: LockMode) -> Result<LockGuard, RepositoryError> {
    repository.lock(mode, &this_process(), clock())
}

#[test]
fn restic_honours_our_locks() {
    let (restic, repository) = ours();
    let refused = |arguments: &[&str]| {
        let output = restic.try_run(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        !output.status.success()
            && words.contains("already locked")
            && words.contains(&std::process::id().to_string())
    };
    let exclusive = lock(&repository, LockMode::Exclusive).unwrap();
    assert!(refused(&["snapshots"]));
    assert!(refused(&["prune"]));
    // Its holder is alive, and restic can tell.
    ignore_hangup();
    restic.run(&["unlock"]);
    exclusive.check().unwrap();
    assert!(refused(&["snapshots"]));
    drop(exclusive);

    let shared = lock(&repository, LockMode::Shared).unwrap();
    restic.run(&["snapshots"]);
    assert!(refused(&["prune"]));
    drop(shared);
    restic.run(&["prune"]);
    assert!(
        repository
            .storage()
            .list(FileKind::Lock)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn restic_removes_our_stale_lock() {
    let (restic, repository) = ours();
    let holder = LockHolder {
        pid: ended_process(),
        ..this_process()
    };
    // Forgotten, as by a process that was killed.
    std::mem::forget(
        repository
            .lock(LockMode::Exclusive, &holder, clock())
            .unwrap(),
    );
    assert!(!restic.try_run(&["snapshots"]).status.success());
    restic.run(&["unlock"]);
    restic.run(&["snapshots"]);
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn we_honour_the_locks_of_restic() {
    let (restic, repository) = ours();
    // It holds a shared lock for as long as its input does not end.
    let mut backup = restic.command(&["backup", "--stdin"]);
    backup.stdin(Stdio::piped()).stdout(Stdio::null());
    let backup = KillOnDrop(backup.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while repository
        .storage()
        .list(FileKind::Lock)
        .unwrap()
        .is_empty()
    {
        assert!(Instant::now() < deadline, "restic took no lock");
        std::thread::yield_now();
    }

    let found = repository
        .list_locks()
        .unwrap()
        .remove(0)
        .expect("a lock that we can read");
    assert_eq!(
        (found.holder.pid, found.holder.hostname.as_str()),
        (backup.0.id(), hostname().as_str())
    );
    assert_eq!(found.mode, LockMode::Shared);
    match lock(&repository, LockMode::Exclusive) {
        Err(RepositoryError::Locked { by }) => assert_eq!(*by, found),
        other => panic!("{other:?}"),
    }
    drop(lock(&repository, LockMode::Shared).unwrap());
    assert_eq!(
        repository.list_locks().unwrap().len(),
        1,
        "a live lock stays"
    );

    drop(backup);
    drop(lock(&repository, LockMode::Exclusive).unwrap());
    assert_eq!(
        repository.list_locks().unwrap().len(),
        0,
        "that of the dead one is gone"
    );
}
