//! Restores and drills that do not come to their end say what they leave, leave nothing running, and are in
//! nobody's way: not the source's, not the next run's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use lifeboat_testkit::TestServer;
use rustix::process::{Signal, kill_process};
use support::midst::{Moment, big, copying, end_a_copy};
use support::processes::{naming, wait_for};
use support::sql::{Restored, assert_same, databases, fingerprint, psql};
use support::{Sandbox, entries, files};

/// One backup of the big database, for whichever tests run at the same time. Not a plain static: those are
/// never dropped, and its folder would stay.
fn big_backup() -> Arc<Sandbox> {
    static BACKUP: Mutex<Weak<Sandbox>> = Mutex::new(Weak::new());
    let mut backup = BACKUP.lock().unwrap_or_else(PoisonError::into_inner);
    backup.upgrade().unwrap_or_else(|| {
        let sandbox = Sandbox::initialised(&big().url());
        sandbox.backup();
        let sandbox = Arc::new(sandbox);
        *backup = Arc::downgrade(&sandbox);
        sandbox
    })
}

/// A sandbox of its own, with the shared repository, which lives as long as the second value.
fn sandbox_on_big_backup() -> (Sandbox, Arc<Sandbox>) {
    let shared = big_backup();
    let sandbox = Sandbox::new(&big().url());
    std::os::unix::fs::symlink(shared.repository(), sandbox.repository()).unwrap();
    (sandbox, shared)
}

#[test]
fn a_restore_that_is_stopped_says_what_it_leaves() {
    let server = TestServer::shared();
    let (sandbox, _shared) = sandbox_on_big_backup();
    let before = fingerprint(server, big().name());
    for signal in [Signal::INT, Signal::KILL] {
        let target = Restored::reserve(server, "stopped");
        let running = sandbox.start(["restore", "latest", "--to", target.name()]);
        wait_for("rows to be loaded", || {
            !copying(server, target.name()).is_empty()
        });
        running.signal(signal);
        let run = sandbox.check(running.wait());
        if signal == Signal::INT {
            let run = run.was_interrupted();
            // Either it took its half-made database away, or it says how to.
            let told =
                run.stderr.contains(target.name()) && run.stderr.to_lowercase().contains("drop");
            assert!(told || !target.exists(), "{run}");
        }
        wait_for("its sessions to end", || {
            let sessions = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
                target.name()
            );
            psql(server, "postgres", &sessions).trim() == "0"
        });
        // What is half there is not taken for a whole one.
        if target.exists() {
            sandbox
                .run(["restore", "latest", "--to", target.name()])
                .fails(4)
                .says(target.name());
            psql(
                server,
                "postgres",
                &format!("DROP DATABASE \"{}\"", target.name()),
            );
        }
        sandbox
            .run(["restore", "latest", "--to", target.name()])
            .ok();
        assert_same(&before, &fingerprint(server, target.name()));
        sandbox.assert_nothing_left();
    }
    assert_same(&before, &fingerprint(server, big().name()));
}

#[test]
fn a_restore_whose_server_ends_its_sessions() {
    let server = TestServer::shared();
    let (sandbox, _shared) = sandbox_on_big_backup();
    let target = Restored::reserve(server, "ended");
    let running = sandbox.start(["restore", "latest", "--to", target.name()]);
    end_a_copy(server, target.name(), "big");
    let run = sandbox.check(running.wait()).fails(1);
    assert!(
        run.stderr.contains(target.name()) || !target.exists(),
        "{run}"
    );
    sandbox.assert_nothing_left();
}

/// Bytes below a folder; what vanishes while we look counts as nothing.
fn size(folder: &std::path::Path) -> u64 {
    files(folder)
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|meta| meta.len())
        .sum()
}

#[test]
fn a_drill_that_is_stopped_leaves_nothing_running() {
    let moments: [Moment; 3] = [
        ("its folder is made", |sandbox, _| {
            !entries(&sandbox.tmp_dir()).is_empty()
        }),
        ("its server runs", |sandbox, _| {
            !naming(&sandbox.tmp_dir()).is_empty()
        }),
        ("its rows are loaded", |sandbox, _| {
            size(&sandbox.tmp_dir()) > 60_000_000
        }),
    ];
    for (what, moment) in moments {
        for signal in [Signal::INT, Signal::KILL] {
            let (sandbox, _shared) = sandbox_on_big_backup();
            let mut running = sandbox.start(["drill"]);
            wait_for(what, || moment(&sandbox, big()) || running.has_ended());
            running.signal(signal);
            let run = sandbox.check(running.wait());
            if signal == Signal::INT {
                run.was_interrupted();
                sandbox.assert_nothing_left();
            } else {
                wait_for("its server to end with it", || {
                    naming(&sandbox.tmp_dir()).is_empty()
                });
                // Whatever it left on the disk, the next one sweeps.
                if what == moments[2].0 {
                    sandbox.run(["drill"]).ok();
                    sandbox.assert_nothing_left();
                }
            }
            let list = sandbox.run(["list", "--json"]).ok();
            let proven = list.stdout.contains("\"proven\"");
            assert_eq!(
                proven,
                what == moments[2].0 && signal == Signal::KILL,
                "{list}"
            );
        }
    }
}

#[test]
fn a_crash_of_the_whole_machine_leaves_a_folder_that_the_next_drill_sweeps() {
    let (sandbox, _shared) = sandbox_on_big_backup();
    let mut running = sandbox.start(["drill"]);
    wait_for("its rows to be loaded", || {
        size(&sandbox.tmp_dir()) > 30_000_000 || running.has_ended()
    });
    // All at once: the watchdog that would clean up is gone with the rest.
    let mut all = support::processes::with_marker(sandbox.marker());
    all.extend(naming(&sandbox.tmp_dir()));
    for pid in &all {
        let _ = kill_process(*pid, Signal::STOP);
    }
    for pid in &all {
        let _ = kill_process(*pid, Signal::KILL);
    }
    drop(running);
    wait_for("all to be dead", || naming(&sandbox.tmp_dir()).is_empty());
    // Somebody else's folder of a like name stays.
    let foreign = sandbox.tmp_dir().join("lifeboat-scratch-notes");
    fs::create_dir(&foreign).unwrap();
    sandbox.run(["drill"]).ok();
    assert_eq!(entries(&sandbox.tmp_dir()), std::slice::from_ref(&foreign));
    fs::remove_dir(&foreign).unwrap();
    sandbox.assert_nothing_left();
}

#[test]
fn a_drill_on_a_server_that_is_stopped() {
    let server = TestServer::shared();
    let (sandbox, _shared) = sandbox_on_big_backup();
    let url = server.url("postgres");
    let ours = || -> Vec<String> {
        databases(server)
            .into_iter()
            .filter(|name| name.starts_with("lifeboat_drill_"))
            .collect()
    };
    for signal in [Signal::INT, Signal::KILL] {
        let running = sandbox.start(["drill", "--on", &url]);
        wait_for("its database to be filled", || {
            ours().iter().any(|name| !copying(server, name).is_empty())
        });
        running.signal(signal);
        let run = sandbox.check(running.wait());
        if signal == Signal::INT {
            let run = run.was_interrupted();
            assert!(ours().is_empty(), "{run}");
        }
    }
    // Left by the one that was killed; a database that merely looks like it is somebody's.
    assert_eq!(ours().len(), 1);
    psql(server, "postgres", "CREATE DATABASE lifeboat_drill_report");
    sandbox.run(["drill", "--on", &url]).ok();
    assert_eq!(ours(), ["lifeboat_drill_report"]);
    psql(server, "postgres", "DROP DATABASE lifeboat_drill_report");
}
