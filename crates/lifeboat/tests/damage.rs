//! One flipped byte in any file of a repository, a file cut short, a file gone: `verify --read-data` says which
//! file it is and which backups it belongs to, and no restore takes it for good.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_testkit::TestServer;
use support::report::{Finding, tell};
use support::running::Run;
use support::sql::{Fingerprint, Restored, assert_same, databases, fingerprint};
use support::strace::some_of;
use support::{Sandbox, app_database, data, files};

/// Two backups, and which files each of them brought.
struct Repository {
    sandbox: Sandbox,
    ids: [String; 2],
    /// Files that the second backup wrote.
    later: BTreeSet<PathBuf>,
    /// Everything.
    files: Vec<PathBuf>,
    /// What the second one holds.
    held: Fingerprint,
    name: String,
    _database: lifeboat_testkit::TestDatabase<'static>,
}

fn repository(name: &str) -> Repository {
    let database = app_database(name);
    let sandbox = Sandbox::initialised(&database.url());
    let first = sandbox.backup();
    let early: BTreeSet<_> = files(&sandbox.repository()).into_iter().collect();
    data::churn(&database);
    let second = sandbox.backup();
    let all = files(&sandbox.repository());
    let later = all
        .iter()
        .filter(|file| !early.contains(*file))
        .cloned()
        .collect();
    sandbox.run(["verify", "--read-data"]).ok();
    Repository {
        sandbox,
        ids: [first, second],
        later,
        files: all,
        held: fingerprint(TestServer::shared(), database.name()),
        name: database.name().to_owned(),
        _database: database,
    }
}

/// What sort of file it is: the folder below the repository, or the file's own name.
fn sort(sandbox: &Sandbox, file: &Path) -> String {
    let below = file.strip_prefix(sandbox.repository()).unwrap();
    below.iter().next().unwrap().to_str().unwrap().to_owned()
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

impl Repository {
    /// Changes a file, runs the whole check, puts the file back, checks that all is well again.
    fn with(&self, file: &Path, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> Run {
        let good = fs::read(file).unwrap();
        match change(good.clone()) {
            Some(bad) => fs::write(file, bad).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
        let run = self.sandbox.run(["verify", "--read-data"]);
        fs::write(file, good).unwrap();
        support::set_mode(file, 0o600);
        run
    }

    /// Holds what was said against which file it was.
    #[track_caller]
    fn assert_named(&self, file: &Path, run: &Run, what: &str) {
        let said = format!("{}{}", run.stdout, run.stderr);
        let sort = sort(&self.sandbox, file);
        assert_ne!(run.code, 0, "{what}\n{run}");
        assert!(
            said.contains(&name(file)[..8.min(name(file).len())]),
            "{what}: not named\n{run}"
        );
        let says = |id: &str| said.contains(&id[..8]);
        match sort.as_str() {
            // Without these nothing opens, and no backup is any less concerned than another.
            "config" | "keys" => {}
            "snapshots" => assert_eq!(run.code, 3, "{what}\n{run}"),
            "index" | "data" => {
                assert_eq!(run.code, 3, "{what}\n{run}");
                if self.later.contains(file) {
                    assert!(
                        says(&self.ids[1]),
                        "{what}: the second backup is affected\n{run}"
                    );
                    if sort == "data" {
                        assert!(!says(&self.ids[0]), "{what}: the first is not\n{run}");
                    }
                } else {
                    assert!(
                        says(&self.ids[0]),
                        "{what}: the first backup is affected\n{run}"
                    );
                }
            }
            other => panic!("an unexpected file {other} in the repository"),
        }
    }
}

#[test]
fn a_flipped_byte_in_any_file() {
    let repository = repository("flip");
    let mut flips = 0;
    for file in &repository.files {
        let length = fs::metadata(file).unwrap().len() as usize;
        assert!(length > 0);
        let places = [
            0,
            1,
            31,
            length / 3,
            length / 2,
            length - 17.min(length),
            length - 5.min(length),
            length - 1,
        ];
        for at in places
            .into_iter()
            .filter(|at| *at < length)
            .collect::<BTreeSet<_>>()
        {
            let run = repository.with(file, |mut bytes| {
                bytes[at] ^= 1 << (at % 8);
                Some(bytes)
            });
            let what = format!("{}, byte {at} of {length}", file.display());
            repository.assert_named(file, &run, &what);
            flips += 1;
        }
    }
    repository.sandbox.run(["verify", "--read-data"]).ok();
    tell(&Finding {
        group: "Damage",
        what: "a flipped bit, in every file of a repository with two backups",
        n: flips,
        bad: 0,
        of: "not found by `lifeboat verify --read-data`, or the file or the backups not named",
    });
}

#[test]
fn a_file_cut_short_or_grown() {
    let repository = repository("cut");
    for file in &repository.files {
        for keep in [0.0, 0.5, 1.0] {
            let run = repository.with(file, |mut bytes| {
                let length = bytes.len();
                match keep {
                    1.0 => bytes.push(0),
                    part => bytes.truncate((length as f64 * part) as usize),
                }
                Some(bytes)
            });
            let what = format!("{}, {keep} of it", file.display());
            repository.assert_named(file, &run, &what);
        }
    }
    repository.sandbox.run(["verify", "--read-data"]).ok();
    tell(&Finding {
        group: "Damage",
        what: "every file empty, cut in half, or one byte longer",
        n: repository.files.len() * 3,
        bad: 0,
        of: "not found by `lifeboat verify --read-data`, or the file or the backups not named",
    });
}

#[test]
fn a_file_that_is_gone() {
    let repository = repository("gone");
    for file in &repository.files {
        let run = repository.with(file, |_| None);
        let what = format!("{} is gone", file.display());
        match sort(&repository.sandbox, file).as_str() {
            "config" => drop(run.fails(10)),
            // Nobody can know that there was one more backup.
            "snapshots" => {}
            // Its name is known to nobody any more, but what it told is missed.
            "index" => assert_eq!(run.code, 3, "{what}\n{run}"),
            "keys" => assert_ne!(run.code, 0, "{what}\n{run}"),
            _ => repository.assert_named(file, &run, &what),
        }
    }
    repository.sandbox.run(["verify", "--read-data"]).ok();
    let count = |of: &str| {
        let files = repository.files.iter();
        files
            .filter(|file| sort(&repository.sandbox, file) == of)
            .count()
    };
    let snapshots = count("snapshots");
    tell(&Finding {
        group: "Damage",
        what: "every pack, index, key and the config deleted",
        n: repository.files.len() - snapshots,
        bad: 0,
        of: "not found by `lifeboat verify --read-data`, or a pack or the backups not named",
    });
    tell(&Finding {
        group: "Damage",
        what: "every snapshot file deleted",
        n: snapshots,
        bad: snapshots,
        of: "not found by `lifeboat verify --read-data`: nothing else in a repository tells that there was one; without the newest the age tells",
    });
}

/// Two files of a class change places: each is whole, and under the wrong name.
#[test]
fn two_files_that_were_swapped() {
    let repository = repository("swap");
    let sandbox = &repository.sandbox;
    let other = sandbox.root().join("other-passphrase");
    let other = other.to_str().unwrap();
    sandbox.run(["key", "add", "--generate", other]).ok();
    let mut swaps = 0;
    for class in ["data", "index", "snapshots", "keys"] {
        let all = files(&sandbox.repository().join(class));
        let pairs: Vec<_> = (0..all.len())
            .flat_map(|first| (first + 1..all.len()).map(move |second| (first, second)))
            .collect();
        assert!(!pairs.is_empty(), "{class}");
        for number in some_of(pairs.len(), 2) {
            let (first, second) = pairs[number - 1];
            let both = [&all[first], &all[second]];
            let swap = || {
                let aside = sandbox.root().join("aside");
                fs::rename(both[0], &aside).unwrap();
                fs::rename(both[1], both[0]).unwrap();
                fs::rename(&aside, both[1]).unwrap();
            };
            swap();
            let run = sandbox.run(["verify", "--all"]);
            swap();
            let said = format!("{}{}", run.stdout, run.stderr);
            assert_ne!(run.code, 0, "{both:?}\n{run}");
            for file in both {
                assert!(said.contains(&name(file)[..8]), "{}\n{run}", file.display());
                let affected = &repository.ids[usize::from(repository.later.contains(file))];
                assert!(
                    !["data", "index"].contains(&class) || said.contains(&affected[..8]),
                    "{affected} is affected by {}\n{run}",
                    file.display()
                );
            }
            swaps += 1;
        }
    }
    sandbox.run(["verify", "--all"]).ok();
    tell(&Finding {
        group: "Damage",
        what: "every two packs, indexes, snapshots and keys swapped",
        n: swaps,
        bad: 0,
        of: "not found by `lifeboat verify --all`, or a file or the backups not named",
    });
}

#[test]
fn a_missing_or_short_pack_is_seen_without_reading_data() {
    let repository = repository("quick");
    for file in &repository.files {
        if sort(&repository.sandbox, file) != "data" || !repository.later.contains(file) {
            continue;
        }
        let good = fs::read(file).unwrap();
        for bad in [None, Some(&good[..good.len() - 1])] {
            match bad {
                Some(bad) => fs::write(file, bad).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
            let run = repository.sandbox.run(["verify"]);
            assert_eq!(run.code, 3, "{run}");
            repository.assert_named(file, &run, "seen by the quick check");
            fs::write(file, &good).unwrap();
        }
    }
}

#[test]
fn a_damaged_backup_is_not_restored_over_anything() {
    let repository = repository("restore");
    let server = TestServer::shared();
    let sandbox = &repository.sandbox;
    let victim = app_database("victim");
    victim.sql("CREATE TABLE precious AS SELECT 42 AS answer");
    let before = fingerprint(server, victim.name());
    let url = victim.url();
    let packs = || {
        repository
            .files
            .iter()
            .filter(|file| sort(sandbox, file) == "data")
    };

    for file in packs() {
        let good = fs::read(file).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x10;
        for bad in [None, Some(&good[..good.len() / 2]), Some(&flipped[..])] {
            match bad {
                Some(bad) => fs::write(file, bad).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
            let args = [
                "restore",
                "latest",
                "--into",
                &url,
                "--clean",
                "--yes",
                victim.name(),
            ];
            let into = sandbox.run(args);
            let target = Restored::reserve(server, "damaged");
            let to = sandbox.run(["restore", "latest", "--to", target.name()]);
            let drill = sandbox.run(["drill"]);
            let status = sandbox.run(["status"]);
            let export = sandbox.run(["export", "latest", "-o", "out.dump"]);
            let exported = sandbox.work_dir().join("out.dump");
            fs::write(file, &good).unwrap();

            // Where something would be dropped, a pack with any damage is too much, wherever in it that is.
            assert_ne!(into.code, 0, "{into}");
            assert_same(&before, &fingerprint(server, victim.name()));
            // Elsewhere a byte that only the older backup needs may be any byte.
            if to.code == 0 {
                assert!(!repository.later.contains(file), "{to}");
                assert_same(&repository.held, &fingerprint(server, target.name()));
                assert_eq!((drill.code, export.code), (0, 0), "{drill}\n{export}");
                let _ = fs::remove_file(exported);
                into.fails(3);
                continue;
            }
            assert!(
                !target.exists() || to.stderr.contains(target.name()),
                "{to}"
            );
            assert_eq!(drill.code, 3, "{drill}");
            assert_eq!(status.code, 3, "{status}");
            assert!(status.stdout.contains("did not prove"), "{drill}\n{status}");
            assert_ne!(export.code, 0, "{export}");
            assert!(!exported.exists(), "half an export was left\n{export}");
            for run in [into, to, drill, export] {
                let code = run.code;
                run.fails(code);
            }
        }
    }
    assert!(databases(server).contains(&repository.name));
    sandbox.assert_nothing_left();
    sandbox.run(["drill"]).ok();
}
