//! Retention end to end: what goes and what stays, holds, and an expire that is stopped in every way there is.
//!
//! `LIFEBOAT_TORTURE=N` strikes at every call instead of at some of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_testkit::{TestDatabase, TestServer};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::midst::{locks, next_run_succeeds};
use support::processes::{self, wait_for};
use support::report::{Finding, tell};
use support::running::Session;
use support::small_disk::SmallDisk;
use support::strace::some_of;
use support::{Running, Sandbox, app_database, data, entries, files, lifeboat, number, text};

/// A sandbox with so many backups, something new in each.
fn with_backups(name: &str, count: usize) -> (TestDatabase<'static>, Sandbox, Vec<String>) {
    let database = app_database(name);
    let sandbox = Sandbox::initialised(&database.url());
    let ids = (0..count)
        .map(|seed| {
            data::churn_a_little(&database, seed);
            sandbox.backup()
        })
        .collect();
    (database, sandbox, ids)
}

fn expire(sandbox: &Sandbox, args: &[&str]) -> Value {
    let mut words = vec!["expire", "--json"];
    words.extend(args);
    sandbox.run(words).ok().json("expire")
}

fn actions(expired: &Value, action: &str) -> Vec<String> {
    let backups = expired["backups"].as_array().unwrap().iter();
    backups
        .filter(|backup| backup["action"] == action)
        .map(|backup| text(backup, "backup"))
        .collect()
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

#[test]
fn what_goes_and_what_stays() {
    let (database, sandbox, ids) = with_backups("expire", 6);
    sandbox.run(["drill", &ids[1]]).ok();

    let dry = expire(&sandbox, &["--keep-last", "1", "--dry-run"]);
    assert_eq!(
        sorted(&actions(&dry, "drop")),
        sorted(&[ids[0].clone(), ids[2].clone()])
    );
    assert_eq!(dry["dry_run"], true);
    assert!(number(&dry["estimate"], "bytes") > 0.0, "{dry:#}");
    assert_eq!(sandbox.listed().len(), 6);
    let table = sandbox.run(["expire", "--keep-last", "1", "-n"]).ok();
    for word in [
        "last",
        "the newest",
        "the newest proven",
        "one of the last 3 good ones",
        "the policy does not keep it",
        "2 backups would go, 4 stay",
    ] {
        assert!(table.stdout.contains(word), "{word:?}\n{table}");
    }

    let done = expire(&sandbox, &["--keep-last", "1"]);
    assert_eq!(sorted(&[ids[0].clone(), ids[2].clone()]), {
        let removed = done["removed"].as_array().unwrap().iter();
        sorted(
            &removed
                .map(|id| id.as_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
        )
    });
    assert!(number(&done["pruned"], "bytes_removed") > 0.0, "{done:#}");
    let (left, unreferenced) = (
        number(&done["pruned"], "bytes_left"),
        number(&done["pruned"], "bytes_unreferenced"),
    );
    assert!(unreferenced <= 0.05 * left, "{done:#}");
    assert_eq!(
        sandbox.listed(),
        [1, 3, 4, 5].map(|n: usize| ids[n].clone())
    );
    assert_eq!(sandbox.restic_is_content().len(), 4);
    sandbox.run(["verify", "--read-data"]).ok();
    // The proven one can still be proven, the oldest that is left restored.
    sandbox.run(["drill", &ids[1]]).ok();
    drop(database);
}

#[test]
fn the_policy_comes_from_flags_or_else_from_the_configuration() {
    let (_database, sandbox, _) = with_backups("policy", 1);
    let policy = |args: &[&str]| text(&expire(&sandbox, args), "policy");
    assert_eq!(policy(&["-n"]), "all within 30d");
    assert_eq!(
        policy(&["-n", "--keep-daily", "7", "--keep-within", "2y5m7d3h"]),
        "7 daily, all within 2y5m7d3h"
    );
    let config = sandbox.root().join("lifeboat.toml");
    fs::write(&config, "[retention]\nkeep_hourly = 48\nkeep_daily = 30\n").unwrap();
    let config = config.to_str().unwrap();
    assert_eq!(policy(&["-n", "--config", config]), "48 hourly, 30 daily");
    assert_eq!(
        policy(&["-n", "--config", config, "--keep-last", "3"]),
        "3 last"
    );

    fs::write(
        sandbox.root().join("empty.toml"),
        "[retention]\nkeep_last = 0\n",
    )
    .unwrap();
    let empty = sandbox.root().join("empty.toml");
    sandbox
        .run(["expire", "--config", empty.to_str().unwrap()])
        .fails(2)
        .says("keeps nothing");
    sandbox.run(["expire", "--keep-within", "30"]).code_is(2);
    sandbox
        .run(["expire", "--database", "nobody"])
        .fails(2)
        .says("nobody");
    assert_eq!(sandbox.listed().len(), 1);
}

#[test]
fn nothing_goes_while_backups_fail_or_are_overdue() {
    let (database, sandbox, _) = with_backups("failing", 5);
    let server = TestServer::shared();
    let config = sandbox.root().join("impatient.toml");
    fs::write(&config, "[backup]\nlock_timeout = \"1s\"\n").unwrap();
    let lock = "LOCK TABLE memes IN ACCESS EXCLUSIVE MODE";
    let migration = Session::holding(server, database.name(), lock);
    sandbox
        .run(["--config", config.to_str().unwrap(), "backup"])
        .fails(1);
    drop(migration);
    let run = sandbox
        .run(["expire", "--keep-last", "1"])
        .ok()
        .says("while its backups fail");
    assert!(run.stdout.contains("backups are failing"), "{run}");
    assert_eq!(sandbox.listed().len(), 5);

    // One that succeeds lets the policy have its way.
    sandbox.backup();
    assert_eq!(
        actions(&expire(&sandbox, &["--keep-last", "1"]), "drop").len(),
        3
    );
    assert_eq!(sandbox.listed().len(), 3);

    let strict = sandbox.root().join("strict.toml");
    fs::write(&strict, "[verify]\nmax_age = \"1s\"\n").unwrap();
    wait_for("the newest to be older than a second", || {
        let list = sandbox.run(["list", "--json"]).ok().json("list");
        let backups = list["backups"].as_array().unwrap();
        backups.iter().all(|one| number(one, "age_seconds") > 2.0)
    });
    sandbox
        .run([
            "--config",
            strict.to_str().unwrap(),
            "expire",
            "--keep-last",
            "1",
        ])
        .ok()
        .says("overdue");
    assert_eq!(sandbox.listed().len(), 3);
}

#[test]
fn held_backups() {
    let (_database, sandbox, ids) = with_backups("held", 5);
    sandbox.run(["drill", &ids[0]]).ok();
    sandbox.run(["hold", &ids[0]]).code_is(2);
    sandbox.run(["hold", &ids[0], "--reason", "  "]).fails(2);
    let held = sandbox
        .run(["hold", &ids[0], "--reason", "before 2.0, by Ann", "--json"])
        .ok()
        .json("hold");
    let new = text(&held, "backup");
    assert_ne!(new, ids[0]);
    assert_eq!(text(&held, "first_id"), ids[0]);
    // The ID it had finds it, with its proof.
    let show = sandbox.run(["show", &ids[0], "--json"]).ok().json("show");
    assert_eq!(text(&show["backup"], "backup"), new);
    assert_eq!(show["backup"]["proof"]["level"], "proven");
    let list = sandbox.run(["hold", "--list"]).ok();
    assert!(list.stdout.contains("before 2.0; by Ann"), "{list}");
    // Another machine, which has no journal, honours it: the tag is in the repository.
    let elsewhere = sandbox.copied();
    expire(&elsewhere, &["--keep-last", "1"]);
    assert_eq!(elsewhere.listed().len(), 4);
    assert_eq!(elsewhere.listed()[0], new);
    let restic = elsewhere.restic(&["forget", "--keep-tag", "hold", "--dry-run", "--json"]);
    assert!(restic.code == 0 && restic.stdout.contains(&new), "{restic}");
    assert_eq!(elsewhere.restic_is_content().len(), 4);
    elsewhere.run(["verify", "--read-data"]).ok();

    let free = sandbox
        .run(["unhold", &ids[0], "--json"])
        .ok()
        .json("unhold");
    assert_eq!(free["held"], Value::Null);
    sandbox.run(["unhold", &ids[0]]).fails(2).says("not held");
    // It is the only proven one, which is reason enough to stay.
    let kept = expire(&sandbox, &["--keep-last", "1"]);
    assert_eq!(actions(&kept, "drop"), [ids[1].clone()]);
    sandbox.run(["drill", &ids[4]]).ok();
    assert_eq!(
        actions(&expire(&sandbox, &["--keep-last", "1"]), "drop").len(),
        1
    );
    assert_eq!(sandbox.listed().len(), 3);
    assert_eq!(sandbox.restic_is_content().len(), 3);
}

/// The run that is struck.
const EXPIRE: [&str; 3] = ["expire", "--keep-last", "1"];

/// Strikes at each of these calls in turn, with the short version at some: nothing is lost, restic finds nothing
/// wrong, the next run needs no clean-up.
fn struck(name: &str, calls: &str, action: &str) {
    let (_database, sandbox, ids) = with_backups(name, 6);
    let copy = sandbox.copied();
    let count = copy.calls(&EXPIRE, calls);
    assert!(count > 12, "{count} {calls}");
    let mut strikes = 0;
    for when in some_of(count, 5) {
        strikes += 1;
        let copy = sandbox.copied();
        let inject = format!("{calls}:{action}:when={when}");
        let run = copy.struck(&EXPIRE, calls, action, when);
        let check = copy.restic(&["check", "--read-data", "--no-lock"]);
        assert_eq!(check.code, 0, "{inject}\n{run}\n{check}");
        let listed = copy.listed();
        assert!(
            ids[3..].iter().all(|id| listed.contains(id)),
            "{inject}: {listed:?}"
        );
        expire(&copy, &["--keep-last", "1"]);
        assert_eq!(copy.listed(), ids[3..], "{inject}");
        copy.run(["verify", "--read-data"]).ok();
        // A half-written one is no lock, and is swept once it is certain that nobody writes it any more.
        let held = entries(&copy.repository().join("locks"));
        let is_lock = |path: &&std::path::PathBuf| path.extension().is_none();
        assert_eq!(held.iter().filter(is_lock).count(), 0, "{inject}");
    }
    tell(&Finding {
        group: "Struck at a system call",
        what: &format!("`lifeboat expire`: {action} at {calls}"),
        n: strikes,
        bad: 0,
        of: "backups lost that had to stay, faults that restic finds, next runs that failed",
    });
}

#[test]
fn sigkill_at_every_change() {
    struck("expire_kill", "renameat2,unlink,unlinkat", "signal=KILL");
}

#[test]
fn a_disk_that_fails_to_sync() {
    struck("expire_sync", "fsync,fdatasync", "error=EIO");
}

#[test]
fn a_disk_that_is_full_at_every_step() {
    struck("expire_space", "renameat2,fsync,write", "error=ENOSPC");
}

#[test]
fn two_at_once_beside_backups() {
    let (database, sandbox, _) = with_backups("at_once", 4);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    sandbox.run(["expire", "--keep-last", "2"]).ok();
                }
            });
        }
        for seed in 100..106 {
            data::churn_a_little(&database, seed);
            sandbox.backup();
        }
        done.store(true, Ordering::SeqCst);
    });
    expire(&sandbox, &["--keep-last", "1"]);
    assert_eq!(sandbox.listed().len(), 3);
    assert_eq!(sandbox.restic_is_content().len(), 3);
    sandbox.run(["verify", "--read-data"]).ok();
    assert_eq!(locks(&sandbox), 0);
}

/// Stopped while it removes; somebody takes its lock away and prunes; it wakes.
#[test]
fn a_stopped_expire_that_lost_its_lock_removes_nothing() {
    let (_database, sandbox, ids) = with_backups("stopped", 6);
    let snapshots = || entries(&sandbox.repository().join("snapshots")).len();
    // Slowed down, so that it is met in its midst.
    let slow = "inject=unlink,unlinkat:delay_exit=300000";
    let words = ["-o", "/dev/null", "-e", "trace=unlink,unlinkat", "-e", slow];
    let mut running = Running::start(sandbox.traced(&EXPIRE, &words));
    wait_for("the first removal", || {
        snapshots() < 6 || running.has_ended()
    });
    let stopped = processes::with_marker(sandbox.marker())
        .into_iter()
        .find(|pid| {
            let program = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
            program.is_ok_and(|program| program == lifeboat())
        });
    let stopped = stopped.expect("it to be there");
    kill_process(stopped, Signal::STOP).unwrap();
    assert!(snapshots() > 3, "it was too fast");
    let unlock = sandbox.restic(&["unlock", "--remove-all"]);
    assert_eq!(unlock.code, 0, "{unlock}");
    // A backup that counts on what was about to go, and another expire.
    sandbox.backup();
    sandbox.run(["expire", "--keep-last", "5"]).ok();
    let before = files(&sandbox.repository());
    kill_process(stopped, Signal::CONT).unwrap();
    let run = sandbox.check(running.wait()).fails(1).says("lock");
    assert_eq!(before, files(&sandbox.repository()), "{run}");
    assert!(sandbox.listed().contains(&ids[3]));
    sandbox.restic_is_content();
    next_run_succeeds(&sandbox);
    tell(&Finding {
        group: "Together",
        what: "an expire that was stopped, lost its lock to another one, and woke",
        n: 1,
        bad: 0,
        of: "files that it removed then",
    });
}

/// A small disk without a byte left: expire still frees space, and backups go on.
#[test]
fn a_full_disk() {
    let database = app_database("expire_full");
    let mut sandbox = Sandbox::new(&database.url());
    let _disk = SmallDisk::mount(&mut sandbox, "24m");
    sandbox.run(["init"]).ok();
    for seed in 0..8 {
        data::churn_a_little(&database, seed);
        sandbox.backup();
    }
    let filler = sandbox.repository().join("filler");
    let fill = format!("cat /dev/zero > {} 2>/dev/null; true", filler.display());
    sandbox.inside(&["sh", "-c", &fill]).ok();
    sandbox.run(["backup"]).fails(1).says("space");
    let before = free(&sandbox);
    // The last backup failed for the want of the very room that this makes. There is none for a lock, either.
    sandbox.run(["expire", "--keep-last", "3"]).ok();
    assert!(free(&sandbox) > before, "nothing was freed");
    let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
    assert_eq!(check.code, 0, "{check}");
    assert_eq!(sandbox.restic_snapshots().len(), 3);
    sandbox.backup();
    sandbox.inside(&["rm", filler.to_str().unwrap()]).ok();
    assert_eq!(sandbox.restic_is_content().len(), 4);
}

fn free(sandbox: &Sandbox) -> u64 {
    let path = sandbox.repository();
    let blocks = sandbox.inside(&["stat", "-f", "-c", "%a", path.to_str().unwrap()]);
    blocks.ok().stdout.trim().parse().unwrap()
}
