//! Meeting the program in the middle of its work, and what has to be true after it was struck there.

use std::sync::OnceLock;

use lifeboat_testkit::{TestDatabase, TestServer};
use rustix::process::Pid;

use super::sql::psql;
use super::{Sandbox, app_database, data, entries, files};

/// One database, large enough that its backup can be met in the middle. Nobody changes it.
pub fn big() -> &'static TestDatabase<'static> {
    static BIG: OnceLock<TestDatabase<'static>> = OnceLock::new();
    BIG.get_or_init(|| {
        let database = app_database("big");
        data::fill_big(&database, "big", 120);
        database
    })
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
    let rows = psql(
        server,
        "postgres",
        &format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active' AND query ILIKE 'copy%'"
        ),
    );
    rows.lines()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap())
        .collect()
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
pub type Moment = (&'static str, fn(&Sandbox) -> bool);
