//! Meeting the program in the middle of its work, and what has to be true after it was struck there.

use std::sync::OnceLock;

use lifeboat_testkit::{TestDatabase, TestServer};
use rustix::process::Pid;

use super::processes::wait_for;
use super::running::Running;
use super::sql::psql;
use super::{Sandbox, app_database, data, entries, files};

/// One database, large enough that its backup can be met in the middle. Nobody changes it, and nobody looks
/// at the sessions in it: other tests work there too.
pub fn big() -> &'static TestDatabase<'static> {
    static BIG: OnceLock<TestDatabase<'static>> = OnceLock::new();
    BIG.get_or_init(|| another_big("big"))
}

/// Another one such, for a test that looks at the sessions in it, or ends them.
pub fn another_big(name: &str) -> TestDatabase<'static> {
    let database = app_database(name);
    data::fill_big(&database, "big", 120);
    database
}

/// Starts `command` in sandboxes of its own until one is met at `moment`: a run that was faster than the look
/// is no failure, and is followed by another.
pub fn meet(database: &TestDatabase<'_>, command: &str, moment: &Moment) -> (Sandbox, Running) {
    let (what, condition) = moment;
    for _ in 0..20 {
        let sandbox = Sandbox::initialised(&database.url());
        let mut running = sandbox.start([command]);
        let mut ended = false;
        wait_for(what, || {
            ended = running.has_ended();
            ended || condition(&sandbox, database)
        });
        if !ended {
            return (sandbox, running);
        }
        sandbox.check(running.wait()).ok();
    }
    panic!("{command} was never met when {what}");
}

/// Packs in the repository.
pub fn packs(sandbox: &Sandbox) -> usize {
    files(&sandbox.repository().join("data")).len()
}

/// Locks in the repository.
pub fn locks(sandbox: &Sandbox) -> usize {
    entries(&sandbox.repository().join("locks")).len()
}

/// The server processes that copy in this database, ours or others'.
pub fn copying(server: &TestServer, database: &str) -> Vec<Pid> {
    sessions_where(server, database, "state = 'active' AND query ILIKE 'copy%'")
}

/// All server processes of this database's sessions.
pub fn sessions(server: &TestServer, database: &str) -> Vec<Pid> {
    sessions_where(server, database, "true")
}

fn sessions_where(server: &TestServer, database: &str, condition: &str) -> Vec<Pid> {
    let rows = psql(
        server,
        "postgres",
        &format!("SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND {condition}"),
    );
    rows.lines()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap())
        .collect()
}

/// Ends the first session that copies this table in this database. Looked for on the server itself, every few
/// milliseconds, so that it is met in the first part of the rows.
pub fn end_a_copy(server: &TestServer, database: &str, table: &str) {
    psql(
        server,
        "postgres",
        &format!(
            "DO $$ BEGIN LOOP
                PERFORM pg_stat_clear_snapshot();
                PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = '{database}' AND state = 'active' AND query ILIKE 'copy%{table}%';
                EXIT WHEN FOUND;
                PERFORM pg_sleep(0.002);
             END LOOP; END $$"
        ),
    );
}

/// After a backup that failed: nothing is listed by us or restic, restic finds no damage, our lock is gone.
#[track_caller]
pub fn nothing_was_backed_up(sandbox: &Sandbox, before: usize) {
    assert_eq!(
        sandbox.restic_is_content().len(),
        before,
        "a backup that never was"
    );
    assert_eq!(sandbox.listed().len(), before);
    assert_eq!(locks(sandbox), 0, "a lock was left");
    sandbox.assert_nothing_left();
}

/// The next run, just so; and it is a good one.
#[track_caller]
pub fn next_run_succeeds(sandbox: &Sandbox) {
    let before = sandbox.restic_snapshots().len();
    sandbox.backup();
    sandbox.run(["verify", "--read-data"]).ok();
    assert_eq!(sandbox.restic_is_content().len(), before + 1);
}

/// When to strike.
pub type Moment = (&'static str, fn(&Sandbox, &TestDatabase<'_>) -> bool);
