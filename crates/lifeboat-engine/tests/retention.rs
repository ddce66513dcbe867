//! The policy keeps what `restic forget` keeps. The real restic is asked about the same snapshots.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use lifeboat_engine::expire::Policy;
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::storage::{FileKind, LocalStorage};
use lifeboat_repo::tree::Directory;
use lifeboat_repo::writer::{SnapshotDraft, WriterOptions};
use lifeboat_repo::{Repository, SnapshotId};

const PASSWORD: &str = "correct horse battery staple";

struct Sample {
    folder: tempfile::TempDir,
    repository: Repository,
}

impl Sample {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(LocalStorage::new(folder.path().join("repo")));
        let options = InitOptions {
            chunk_sizes: ChunkSizes::with_average(16 << 10),
            scrypt: ScryptParams::cheap(),
            hostname: "here".to_owned(),
            username: "tester".to_owned(),
            now: Timestamp::now(),
        };
        let repository = Repository::init(storage, &PASSWORD.into(), &options).unwrap();
        Self { folder, repository }
    }

    fn fill(&self, times: &[Timestamp]) {
        for file in self.repository.storage().list(FileKind::Snapshot).unwrap() {
            self.repository
                .storage()
                .delete(FileKind::Snapshot, &file.name)
                .unwrap();
        }
        for time in times {
            let writer = self.repository.writer(WriterOptions::default()).unwrap();
            let draft = SnapshotDraft {
                time: *time,
                parent: None,
                hostname: "here".to_owned(),
                username: "tester".to_owned(),
                paths: vec!["/memalerts".to_owned()],
                tags: vec!["lifeboat".to_owned()],
                worked: None,
                extra: None,
            };
            writer.commit(&Directory::default(), draft).unwrap();
        }
    }

    fn restic_keeps(&self, flags: &[String]) -> BTreeSet<String> {
        let output = Command::new("restic")
            .args(["--no-cache", "--repo"])
            .arg(self.folder.path().join("repo"))
            .args(["forget", "--dry-run", "--json", "--no-lock"])
            .args(flags)
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{flags:?}: {words}");
        let text = String::from_utf8(output.stdout).unwrap();
        let groups: serde_json::Value = text
            .lines()
            .find_map(|line| serde_json::from_str(line).ok())
            .unwrap_or_else(|| panic!("{text}"));
        let keep = groups[0]["keep"].as_array().unwrap().iter();
        keep.map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn we_keep(&self, policy: &Policy, oldest: bool) -> BTreeSet<String> {
        let (mut snapshots, _) = self.repository.snapshots().unwrap();
        snapshots.reverse();
        let times: Vec<Timestamp> = snapshots.iter().map(|one| one.time).collect();
        let matches = policy.matches_as(&times, Timestamp::now(), oldest);
        let ids: Vec<SnapshotId> = snapshots.iter().map(|one| one.id).collect();
        let kept = ids
            .iter()
            .zip(matches)
            .filter(|(_, matches)| !matches.is_empty());
        kept.map(|(id, _)| id.to_string()).collect()
    }
}

/// From 0.16 on it keeps the oldest snapshot while a count is not used up.
fn restic_keeps_the_oldest() -> bool {
    let output = Command::new("restic").arg("version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(1).unwrap();
    let mut numbers = version
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (0, 16)
}

#[test]
fn keeps_what_restic_forget_keeps() {
    let sample = Sample::new();
    let oldest = restic_keeps_the_oldest();
    let mut state = 7u64;
    let mut roll = |sides: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let starts = [
        "2023-12-28T22:10:00Z",
        "2024-02-25T05:00:00Z",
        "2025-03-29T20:00:00Z",
        "2020-01-01T00:00:00Z",
    ];
    for start in starts {
        let mut time: Timestamp = start.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..60 {
            let minutes = match roll(6) {
                0 => 60 * 24 * (1 + roll(40)),
                1 => 7 + roll(50),
                2 => 60 * 23,
                _ => 60,
            };
            time += SignedDuration::from_mins(minutes as i64)
                + SignedDuration::from_nanos(roll(1_000_000_000) as i64);
            times.push(time);
        }
        // One in the future, which restic counts like any other, but not as the newest.
        if roll(2) == 0 {
            times.push(Timestamp::now() + SignedDuration::from_hours(30));
        }
        sample.fill(&times);
        for _ in 0..12 {
            let mut flags = Vec::new();
            let mut policy = Policy::default();
            let counts = [
                ("--keep-last", &mut policy.last),
                ("--keep-hourly", &mut policy.hourly),
                ("--keep-daily", &mut policy.daily),
                ("--keep-weekly", &mut policy.weekly),
                ("--keep-monthly", &mut policy.monthly),
                ("--keep-yearly", &mut policy.yearly),
            ];
            for (flag, target) in counts {
                if roll(3) == 0 {
                    *target = 1 + roll(12) as u32;
                    flags.extend([flag.to_owned(), target.to_string()]);
                }
            }
            if roll(2) == 0 || flags.is_empty() {
                let texts = ["3h", "1d", "30d", "1m", "1m1d", "4m", "1y", "1y2m3d4h"];
                let text = texts[roll(texts.len() as u64) as usize];
                policy.within = Some(text.parse().unwrap());
                flags.extend(["--keep-within".to_owned(), text.to_owned()]);
            }
            assert_eq!(
                sample.we_keep(&policy, oldest),
                sample.restic_keeps(&flags),
                "{start} {flags:?}"
            );
            // And never less than any restic does.
            assert!(
                sample
                    .we_keep(&policy, true)
                    .is_superset(&sample.we_keep(&policy, false))
            );
        }
    }
}
