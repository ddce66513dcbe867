#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn at(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn start(kind: RunKind, seconds: i64) -> RunStart {
    RunStart {
        kind,
        database: "memalerts".into(),
        repository: "r1".into(),
        started: at(seconds),
    }
}

fn proof(backup: &str, level: ProofLevel, seconds: i64) -> Proof {
    Proof {
        backup: backup.into(),
        repository: "r1".into(),
        database: "memalerts".into(),
        level,
        at: at(seconds),
        how: "test".into(),
        details: serde_json::json!({"tables": 3}),
    }
}

#[test]
fn a_run_is_remembered_across_openings_in_private_files() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("deep/state");
    let journal = Journal::open(Some(&state)).unwrap();
    assert!(journal.fallback().is_none());
    let id = journal.begin(&start(RunKind::Backup, 0)).unwrap();
    assert_eq!(journal.runs(10).unwrap()[0].outcome, None);
    let end = RunEnd {
        backup: Some("abc".into()),
        bytes_read: Some(u64::MAX),
        bytes_stored: Some(7),
        ..RunEnd::new(Outcome::Succeeded, at(5))
    };
    journal.finish(id, &end).unwrap();
    for entry in std::fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
    }
    assert_eq!(
        std::fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
    drop(journal);

    let journal = Journal::open(Some(&state)).unwrap();
    let run = journal
        .last_run(
            RunKind::Backup,
            Some("r1"),
            Some("memalerts"),
            Some(Outcome::Succeeded),
        )
        .unwrap()
        .unwrap();
    assert_eq!(run.backup.as_deref(), Some("abc"));
    assert_eq!(run.bytes_stored, Some(7));
    assert_eq!(run.finished, Some(at(5)));
    assert!(
        journal
            .last_run(RunKind::Backup, Some("r1"), None, Some(Outcome::Failed))
            .unwrap()
            .is_none()
    );
    assert!(
        journal
            .last_run(RunKind::Backup, Some("r2"), None, None)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_run_whose_process_is_gone_is_closed_by_the_next() {
    let journal = Journal::in_memory().unwrap();
    journal.begin(&start(RunKind::Backup, 0)).unwrap();
    // A process that has certainly ended: one of ours, already waited for.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    journal
        .connection()
        .execute("UPDATE run SET pid = ?1", [pid])
        .unwrap();
    journal.begin(&start(RunKind::Backup, 60)).unwrap();
    let runs = journal.runs(10).unwrap();
    assert_eq!(runs[0].outcome, None);
    assert_eq!(runs[1].outcome, Some(Outcome::Vanished));
}

#[test]
fn the_best_proof_of_each_backup_wins() {
    let journal = Journal::in_memory().unwrap();
    for proof in [
        proof("a", ProofLevel::Proven, 10),
        proof("a", ProofLevel::Verified, 20),
        proof("b", ProofLevel::Verified, 30),
        proof("b", ProofLevel::Verified, 40),
        proof("c", ProofLevel::Complete, 50),
    ] {
        journal.record_proof(&proof).unwrap();
    }
    let best = journal.best_proofs("r1").unwrap();
    assert_eq!(best["a"], proof("a", ProofLevel::Proven, 10));
    assert_eq!(best["b"].at, at(40));
    assert_eq!(best["c"].level, ProofLevel::Complete);
    assert!(journal.best_proofs("r2").unwrap().is_empty());
    let last = |level| {
        journal
            .last_proof("r1", Some("memalerts"), level)
            .unwrap()
            .map(|proof| proof.at)
    };
    assert_eq!(last(ProofLevel::Complete), Some(at(50)));
    assert_eq!(last(ProofLevel::Verified), Some(at(40)));
    assert_eq!(last(ProofLevel::Proven), Some(at(10)));
}

#[test]
fn drills_keep_their_stages() {
    let journal = Journal::in_memory().unwrap();
    let stage = |name: &str, ms| Stage {
        name: name.to_owned(),
        ms,
    };
    let good = Drill {
        backup: "a".into(),
        repository: "r1".into(),
        database: "memalerts".into(),
        started: at(0),
        finished: at(90),
        proven: true,
        error: None,
        rpo_ms: Some(60_000),
        rto_ms: Some(80_000),
        bytes: Some(1 << 30),
        stages: vec![
            stage("schema", 900),
            stage("load", 70_000),
            stage("indexes", 9_100),
        ],
    };
    let bad = Drill {
        started: at(100),
        finished: at(110),
        proven: false,
        error: Some("table users differs".into()),
        rto_ms: None,
        stages: vec![stage("schema", 1_000)],
        ..good.clone()
    };
    journal.record_drill(&good).unwrap();
    journal.record_drill(&bad).unwrap();
    assert_eq!(journal.last_drill("r1", None, false).unwrap(), Some(bad));
    assert_eq!(
        journal.last_drill("r1", Some("memalerts"), true).unwrap(),
        Some(good)
    );
    assert_eq!(
        journal.last_drill("r1", Some("billing"), false).unwrap(),
        None
    );
}

#[test]
fn an_unusable_folder_means_memory_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    // Not a folder: works as a barrier for root too, unlike a mode.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let journal = Journal::open(Some(&file.join("state"))).unwrap();
    assert!(
        matches!(journal.fallback(), Some(JournalError::Io { .. })),
        "{:?}",
        journal.fallback()
    );
    journal.begin(&start(RunKind::Verify, 0)).unwrap();

    assert!(matches!(
        Journal::open(None).unwrap().fallback(),
        Some(JournalError::NoFolder)
    ));

    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(
        broken.join(FILE_NAME),
        "not a database, but long enough to look like one".repeat(50),
    )
    .unwrap();
    let journal = Journal::open(Some(&broken)).unwrap();
    assert!(
        matches!(journal.fallback(), Some(JournalError::Sqlite(_))),
        "{:?}",
        journal.fallback()
    );
}

#[test]
fn a_newer_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(Journal::open(Some(folder.path())).unwrap());
    let path = folder.path().join(FILE_NAME);
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", schema::KNOWN + 1)
        .unwrap();
    let journal = Journal::open(Some(folder.path())).unwrap();
    assert!(
        matches!(journal.fallback(), Some(JournalError::TooNew { .. })),
        "{:?}",
        journal.fallback()
    );
}

#[test]
fn many_openers_at_once_all_get_their_runs_in() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let folder = folder.path();
            scope.spawn(move || {
                let journal = Journal::open(Some(folder)).unwrap();
                assert!(journal.fallback().is_none(), "{:?}", journal.fallback());
                for run in 0..10 {
                    let id = journal
                        .begin(&start(RunKind::Backup, worker * 100 + run))
                        .unwrap();
                    journal
                        .finish(id, &RunEnd::new(Outcome::Failed, at(1_000)))
                        .unwrap();
                }
            });
        }
    });
    let journal = Journal::open(Some(folder.path())).unwrap();
    assert_eq!(journal.runs(1_000).unwrap().len(), 80);
}
