//! Backups that do not come to their end: a signal, a server that goes away, a disk that is full, a lock, a
//! missing right. Each says why, lists nothing, leaves a repository that restic calls clean, and the next run
//! needs no clean-up.
//!
//! Nothing here waits for time to pass: every blow falls when a condition says that the work is in its midst.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;

use lifeboat_testkit::{StopMode, TestServer};
use rustix::process::{Pid, Signal, kill_process};
use support::midst::{
    Moment, another_big, big, copying, end_a_copy, locks, meet, next_run_succeeds,
    nothing_was_backed_up, packs, sessions,
};
use support::processes::wait_for;
use support::report::{Finding, tell};
use support::running::Session;
use support::small_disk::SmallDisk;
use support::sql::psql;
use support::{Sandbox, app_database, data, text};

const MOMENTS: [Moment; 4] = [
    ("its lock is written", |sandbox, _| locks(sandbox) > 0),
    ("rows are read", |_, database| {
        !copying(TestServer::shared(), database.name()).is_empty()
    }),
    ("the first pack is stored", |sandbox, _| packs(sandbox) > 0),
    ("the second pack is stored", |sandbox, _| packs(sandbox) > 1),
];

#[test]
fn sigint_in_the_middle_of_a_backup() {
    let database = another_big("sigint");
    for moment in &MOMENTS {
        for signal in [Signal::INT, Signal::TERM] {
            let (sandbox, running) = meet(&database, "backup", moment);
            running.signal(signal);
            let run = sandbox.check(running.wait()).was_interrupted();
            assert!(!run.stdout.contains("backup"), "{run}");
            nothing_was_backed_up(&sandbox, 0);
            if moment.0 == MOMENTS[3].0 && signal == Signal::INT {
                next_run_succeeds(&sandbox);
            }
        }
    }
}

#[test]
fn sigint_while_the_server_hangs() {
    let database = another_big("hangs");
    let (sandbox, running) = meet(&database, "backup", &MOMENTS[1]);
    let frozen = Frozen::new(TestServer::shared(), database.name());
    running.signal(Signal::INT);
    sandbox.check(running.wait()).was_interrupted();
    drop(frozen);
    nothing_was_backed_up(&sandbox, 0);
}

#[test]
fn a_second_sigint_insists() {
    let database = another_big("insists");
    let (sandbox, running) = meet(&database, "backup", &MOMENTS[1]);
    let frozen = Frozen::new(TestServer::shared(), database.name());
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    let run = running.wait();
    assert_eq!(run.code, 130, "{run}");
    drop(frozen);
    assert!(sandbox.listed().is_empty());
    sandbox.assert_nothing_left();
    next_run_succeeds(&sandbox);
}

/// Server processes that no longer answer, until this is dropped.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn new(server: &TestServer, database: &str) -> Frozen {
        // All of them: one that has sent its last row is no longer needed, but the leader is, to the end.
        let found = sessions(server, database);
        for pid in &found {
            kill_process(*pid, Signal::STOP).expect("the right to stop a server process");
        }
        Frozen(found)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

#[test]
fn sigkill_in_the_middle_of_a_backup() {
    let database = another_big("sigkill");
    for moment in &MOMENTS {
        let (sandbox, running) = meet(&database, "backup", moment);
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code, 137, "{}", moment.0);
        // pg_dump, if it was still there, and the sessions on the server end by themselves.
        sandbox.assert_nothing_left();
        let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
        assert_eq!(check.code, 0, "{check}");
        assert!(sandbox.listed().is_empty());
        // What the dead run left, its lock above all, is in nobody's way: not ours, then not restic's.
        next_run_succeeds(&sandbox);
    }
}

#[test]
fn sigkill_at_every_step_of_making_it_durable() {
    let database = app_database("steps");
    let sandbox = Sandbox::initialised(&database.url());
    let (mut complete, mut strikes) = (0, 0);
    // A rename is what makes a file appear. One after the other is never reached, until all are done.
    for when in 1..100 {
        data::churn_a_little(&database, when);
        let run = sandbox.struck(
            &["backup"],
            "rename,renameat,renameat2,linkat,link",
            "signal=KILL",
            when,
        );
        let snapshots = sandbox.restic(&["snapshots", "--no-lock", "--json"]);
        let listed = serde_json::from_str::<serde_json::Value>(&snapshots.stdout).unwrap();
        complete = listed.as_array().map_or(0, Vec::len);
        if run.code == 0 {
            assert!(
                when > 3,
                "packs, index and snapshot are at least three files\n{run}"
            );
            break;
        }
        strikes += 1;
        assert_eq!(complete, 0, "killed at file {when}, and listed\n{run}");
        let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
        assert_eq!(check.code, 0, "killed at file {when}\n{check}");
    }
    assert_eq!(complete, 1);
    next_run_succeeds(&sandbox);
    tell(&Finding {
        group: "Struck at a system call",
        what: "`lifeboat backup`: signal=KILL at every rename and link",
        n: strikes,
        bad: 0,
        of: "half backups listed, faults that restic finds, next runs that failed",
    });
}

#[test]
fn a_failing_disk_at_every_step() {
    let database = app_database("disk");
    let sandbox = Sandbox::initialised(&database.url());
    for (calls, action) in [
        ("fsync,fdatasync", "error=EIO"),
        ("rename,renameat,renameat2,linkat,link", "error=ENOSPC"),
    ] {
        let mut strikes = 0;
        for when in 1..100 {
            data::churn_a_little(&database, when);
            let before = sandbox.restic_snapshots().len();
            let run = sandbox.struck(&["backup"], calls, action, when);
            if run.code == 0 {
                assert!(when > 3, "{calls} happen more often than that\n{run}");
                break;
            }
            run.fails(1);
            nothing_was_backed_up(&sandbox, before);
            strikes += 1;
        }
        tell(&Finding {
            group: "Struck at a system call",
            what: &format!("`lifeboat backup`: {action} at every {calls}"),
            n: strikes,
            bad: 0,
            of: "half backups listed, faults that restic finds, next runs that failed",
        });
    }
    next_run_succeeds(&sandbox);
}

#[test]
fn the_server_ends_our_sessions() {
    let database = another_big("ended");
    let sandbox = Sandbox::initialised(&database.url());
    let running = sandbox.start(["backup"]);
    end_a_copy(TestServer::shared(), database.name(), "big");
    sandbox.check(running.wait()).fails(1);
    nothing_was_backed_up(&sandbox, 0);
    next_run_succeeds(&sandbox);
}

#[test]
fn the_server_goes_down_and_comes_back() {
    let mut server = TestServer::start();
    let (name, url) = {
        let database = server.database("down");
        data::fill(&database);
        data::fill_big(&database, "big", 150);
        let found = (database.name().to_owned(), database.url());
        // The database has to outlive this borrow of a server that will be stopped.
        std::mem::forget(database);
        found
    };
    psql(&server, "postgres", "CHECKPOINT");
    let sandbox = Sandbox::initialised(&url);
    for mode in [StopMode::Immediate, StopMode::Fast] {
        let running = sandbox.start(["backup"]);
        wait_for("rows to be read", || !copying(&server, &name).is_empty());
        server.halt(mode);
        sandbox.check(running.wait()).fails(1);
        // While it is down: a reason, and no backup.
        sandbox.run(["backup"]).fails(1);
        nothing_was_backed_up(&sandbox, 0);
        server.restart(StopMode::Fast);
    }
    next_run_succeeds(&sandbox);
}

#[test]
fn a_full_disk() {
    let database = app_database("full");
    let mut sandbox = Sandbox::new(&database.url());
    let disk = SmallDisk::mount(&mut sandbox, "24m");
    sandbox.run(["init"]).ok();
    sandbox.backup();
    data::fill_big(&database, "big", 100);
    for _ in 0..2 {
        let run = sandbox.run(["backup"]).fails(1);
        assert!(run.stderr.to_lowercase().contains("space"), "{run}");
        // Room for restic's own lock.
        let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
        assert_eq!(check.code, 0, "{check}");
        assert_eq!(sandbox.listed().len(), 1);
        sandbox.run(["verify", "--read-data"]).ok();
    }
    disk.grow(&sandbox, "200m");
    assert_eq!(sandbox.restic_is_content().len(), 1);
    next_run_succeeds(&sandbox);
}

#[test]
fn a_table_that_cannot_be_locked() {
    let database = app_database("locked");
    let sandbox = Sandbox::initialised(&database.url());
    let config = sandbox.root().join("lifeboat.toml");
    fs::write(&config, "[backup]\nlock_timeout = \"1s\"\n").unwrap();
    let config = config.to_str().unwrap();
    let server = TestServer::shared();
    let migration = Session::holding(
        server,
        database.name(),
        "LOCK TABLE memes IN ACCESS EXCLUSIVE MODE",
    );
    sandbox
        .run(["--config", config, "backup"])
        .fails(1)
        .says("memes");
    nothing_was_backed_up(&sandbox, 0);

    // Interrupted while it waits, with a minute still to go.
    let running = sandbox.start(["backup"]);
    wait_for("our session to wait for the lock", || {
        let waiting = format!(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = '{}'",
            database.name()
        );
        psql(server, "postgres", &waiting).trim() != "0"
    });
    running.signal(Signal::INT);
    sandbox.check(running.wait()).was_interrupted();
    wait_for("our sessions to be gone", || {
        let ours = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name ILIKE '%lifeboat%' AND datname = '{}'",
            database.name()
        );
        psql(server, "postgres", &ours).trim() == "0"
    });
    nothing_was_backed_up(&sandbox, 0);

    // Let go while the backup waits: then it is taken.
    let running = sandbox.start(["backup"]);
    wait_for("our session to wait for the lock", || {
        psql(
            server,
            "postgres",
            "SELECT count(*) FROM pg_locks WHERE NOT granted",
        )
        .trim()
            != "0"
    });
    drop(migration);
    sandbox.check(running.wait()).ok();
}

#[test]
fn a_table_that_may_not_be_read() {
    let database = app_database("denied");
    let server = TestServer::shared();
    psql(server, "postgres", "CREATE ROLE reads_most LOGIN");
    database.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reads_most; REVOKE SELECT ON memes FROM reads_most");
    let sandbox = Sandbox::initialised(&database.url_as("reads_most"));
    sandbox.run(["backup"]).fails(1).says("memes");
    nothing_was_backed_up(&sandbox, 0);
    drop(sandbox);
    drop(database);
    psql(server, "postgres", "DROP ROLE reads_most");
}

#[test]
fn a_policy_that_would_hide_rows() {
    // Not even the owner sees all rows here. A backup without them would be a false green.
    let server = TestServer::shared();
    psql(server, "postgres", "CREATE ROLE hidden_from LOGIN");
    let database = server.database_with("hidden", "OWNER hidden_from");
    let url = database.url_as("hidden_from");
    database.sql(
        "SET SESSION AUTHORIZATION hidden_from; CREATE SCHEMA mine; CREATE TABLE mine.secrets (id int);
         INSERT INTO mine.secrets VALUES (1), (2); ALTER TABLE mine.secrets ENABLE ROW LEVEL SECURITY;
         ALTER TABLE mine.secrets FORCE ROW LEVEL SECURITY; CREATE POLICY odd ON mine.secrets USING (id = 1)",
    );
    let sandbox = Sandbox::initialised(&url);
    sandbox.run(["backup"]).fails(1).says("secrets");
    nothing_was_backed_up(&sandbox, 0);
    drop(sandbox);
    drop(database);
    psql(server, "postgres", "DROP ROLE hidden_from");
}

#[test]
fn restic_unlock_beside_a_running_backup() {
    // restic asks a lock's owner whether it lives by sending it SIGHUP.
    let sandbox = Sandbox::initialised(&big().url());
    let mut running = sandbox.start(["backup"]);
    wait_for("the first pack", || {
        packs(&sandbox) > 0 || running.has_ended()
    });
    let unlock = sandbox.restic(&["unlock"]);
    assert_eq!(unlock.code, 0, "{unlock}");
    sandbox.check(running.wait()).ok();
    assert_eq!(sandbox.restic_is_content().len(), 1);
}

#[test]
fn two_backups_at_once() {
    let sandbox = Sandbox::initialised(&big().url());
    let both = [
        sandbox.start(["backup", "--json"]),
        sandbox.start(["backup", "--json"]),
    ];
    let ids =
        both.map(|running| text(&sandbox.check(running.wait()).ok().json("backup"), "backup"));
    assert_ne!(ids[0], ids[1]);
    assert_eq!(sandbox.restic_is_content().len(), 2);
    sandbox.run(["verify", "--read-data", &ids[0]]).ok();
    sandbox.run(["verify", "--read-data", &ids[1]]).ok();
}
