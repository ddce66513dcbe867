//! Scratch servers: they start, they serve, and nothing of them stays.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lifeboat_pg::instance::{InstanceError, ScratchOptions, ScratchServer, StopMode, sweep};
use lifeboat_testkit::{TestServer, newest};

/// A folder that the server's user can pass through.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn alive(pid: u32) -> bool {
    // A zombie is as good as gone: nobody reaps orphans in some containers.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}

fn postmaster(server: &ScratchServer) -> u32 {
    fs::read_to_string(server.data_dir().join("postmaster.pid"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "waited in vain until {what}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_server_starts_from_nothing_and_leaves_nothing() {
    let parent = open_folder();
    let mut server =
        ScratchServer::start(&ScratchOptions::new(&newest().bin_dir, parent.path())).unwrap();
    let pid = postmaster(&server);
    assert!(server.is_running());
    assert_eq!(entries(parent.path()).len(), 1);
    let folder = parent.path().join(&entries(parent.path())[0]);
    assert_eq!(
        fs::metadata(folder).unwrap().permissions().mode() & 0o777,
        0o700
    );

    assert_eq!(
        sweep(parent.path()).unwrap(),
        Default::default(),
        "a live server is not swept"
    );
    assert!(server.is_running());

    server.stop().unwrap();
    assert!(!alive(pid));
    assert_eq!(entries(parent.path()), Vec::<String>::new());
}

#[test]
fn a_dropped_server_is_gone() {
    let parent = open_folder();
    let server =
        ScratchServer::start(&ScratchOptions::new(&newest().bin_dir, parent.path())).unwrap();
    let pid = postmaster(&server);
    drop(server);
    assert!(!alive(pid));
    assert_eq!(entries(parent.path()), Vec::<String>::new());
}

#[test]
fn a_path_too_long_for_a_socket_gets_a_shorter_one() {
    let parent = open_folder();
    let deep = parent.path().join("d".repeat(60)).join("e".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    let server = ScratchServer::start(&ScratchOptions::new(&newest().bin_dir, &deep)).unwrap();
    let socket_dir = server.socket_dir().to_owned();
    assert!(socket_dir.join(".s.PGSQL.5432").exists());
    server.stop().unwrap();
    assert!(!socket_dir.exists());
    assert_eq!(entries(&deep), Vec::<String>::new());
}

#[test]
fn data_survives_a_restart_of_either_kind() {
    let mut server = TestServer::start();
    // Without a TestDatabase: it would hold the server.
    let sql = |server: &TestServer, sql: &str| {
        let output = Command::new(server.bin_dir().join("psql"))
            .args(["-XAtqc", sql])
            .envs(server.tool_env("postgres"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    sql(
        &server,
        "CREATE TABLE t AS SELECT 1 AS a; SELECT pg_switch_wal()",
    );
    server.restart(StopMode::Fast);
    assert_eq!(sql(&server, "SELECT a FROM t"), "1\n");
    server.restart(StopMode::Immediate);
    assert_eq!(sql(&server, "SELECT 2"), "2\n");
}

#[test]
fn failures_are_told_and_leave_nothing() {
    let parent = open_folder();
    let mut options = ScratchOptions::new("/nowhere", parent.path());
    assert!(matches!(
        ScratchServer::start(&options),
        Err(InstanceError::ToolMissing { .. })
    ));

    options.bin_dir = newest().bin_dir.clone();
    options.settings = vec![("no_such_setting".into(), "1".into())];
    let error = ScratchServer::start(&options).unwrap_err();
    assert!(
        matches!(&error, InstanceError::Start { log, .. } if log.contains("no_such_setting")),
        "{error}"
    );

    options.settings.clear();
    options.locale = "xx_NOWHERE".into();
    let error = ScratchServer::start(&options).unwrap_err();
    assert!(matches!(&error, InstanceError::Initdb { .. }), "{error}");
    assert_eq!(entries(parent.path()), Vec::<String>::new());

    options.locale = "C".into();
    options
        .interrupt
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(
        ScratchServer::start(&options),
        Err(InstanceError::Interrupted)
    ));
    assert_eq!(entries(parent.path()), Vec::<String>::new());
}

#[test]
fn root_is_told_which_folder_stops_the_servers_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error =
        ScratchServer::start(&ScratchOptions::new(&newest().bin_dir, closed.path())).unwrap_err();
    assert!(
        matches!(&error, InstanceError::Unreachable { path, .. } if path == closed.path()),
        "{error}"
    );
    let mut options = ScratchOptions::new(&newest().bin_dir, closed.path());
    options.os_user = Some("nobody-of-that-name".into());
    assert!(matches!(
        ScratchServer::start(&options),
        Err(InstanceError::NoSuchUser { .. })
    ));
}

/// Re-runs this test's own program as a child that starts a server and then dies by SIGKILL, with its
/// watchdog or without.
fn crashed_run(parent: &Path, with_watchdog: bool) -> u32 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash_helper", "--ignored", "--nocapture"])
        .env("LIFEBOAT_CRASH_PARENT", parent)
        .env(
            "LIFEBOAT_CRASH_WATCHDOG",
            if with_watchdog { "1" } else { "0" },
        )
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let at = text
        .find("postmaster=")
        .unwrap_or_else(|| panic!("{output:?}"));
    text[at + 11..]
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
#[ignore = "run by the tests below, as a process of its own that dies"]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn crash_helper() {
    let Some(parent) = std::env::var_os("LIFEBOAT_CRASH_PARENT") else {
        return;
    };
    let server = ScratchServer::start(&ScratchOptions::new(&newest().bin_dir, parent)).unwrap();
    let me = std::process::id();
    if std::env::var("LIFEBOAT_CRASH_WATCHDOG").unwrap() == "0" {
        Command::new("pkill")
            .args(["-KILL", "-P", &me.to_string(), "-f", "lifeboat-watchdog"])
            .status()
            .unwrap();
    }
    println!("\npostmaster={}", postmaster(&server));
    Command::new("kill")
        .args(["-KILL", &me.to_string()])
        .status()
        .unwrap();
    std::thread::park();
}

#[test]
fn the_watchdog_ends_what_a_killed_process_leaves() {
    let parent = open_folder();
    let pid = crashed_run(parent.path(), true);
    wait_until("the server is gone", || !alive(pid));
    // As root, the server's user may not remove the folder itself from a parent that is not its own.
    wait_until("its data is gone", || {
        let names = entries(parent.path());
        names.is_empty() || entries(&parent.path().join(&names[0])) == ["lifeboat-scratch.json"]
    });
    sweep(parent.path()).unwrap();
    assert_eq!(entries(parent.path()), Vec::<String>::new());
}

#[test]
fn the_sweep_ends_what_even_the_watchdog_did_not() {
    let parent = open_folder();
    let pid = crashed_run(parent.path(), false);
    assert!(alive(pid));
    // A stranger's folder with our prefix, and one of ours that is not marked.
    fs::create_dir(parent.path().join("lifeboat-scratch-unmarked")).unwrap();
    let report = sweep(parent.path()).unwrap();
    assert_eq!(
        (report.removed.len(), report.stopped.as_slice()),
        (1, &[pid][..]),
        "{report:?}"
    );
    assert!(!alive(pid));
    assert_eq!(entries(parent.path()), ["lifeboat-scratch-unmarked"]);
    assert_eq!(sweep(parent.path()).unwrap(), Default::default());
    assert_eq!(
        sweep(&parent.path().join("nowhere")).unwrap(),
        Default::default()
    );
}

#[test]
fn two_servers_at_once() {
    let one = TestServer::start();
    let two = TestServer::shared();
    let (a, b) = (one.database("same"), two.database("same"));
    a.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)");
    assert_eq!(a.value("SELECT count(*) FROM t"), "2");
    assert!(
        b.try_sql("SELECT * FROM t")
            .unwrap_err()
            .contains("does not exist")
    );
    assert_ne!(a.name(), b.name());
}
