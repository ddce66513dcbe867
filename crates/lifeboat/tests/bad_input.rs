//! Everything else that a user can get wrong: no repository, a wrong passphrase, files of the wrong mode, locks,
//! IDs, keys, flags. One line of fact, a hint, the right exit code, and nothing lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::path::Path;

use support::small_disk::SmallDisk;
use support::{Sandbox, app_database, set_mode, write_secret};

#[test]
fn no_repository() {
    let database = app_database("no_repository");
    let sandbox = Sandbox::new(&database.url());
    for args in [
        &["backup"][..],
        &["list"],
        &["show", "latest"],
        &["verify"],
        &["restore", "latest", "--to", "never_made"],
        &["drill"],
        &["export", "latest", "-o", "out.dump"],
    ] {
        sandbox.run(args).fails(10).says("lifeboat init");
        assert!(!sandbox.repository().exists(), "{args:?} made a repository");
    }
    // An empty folder, as an unmounted disk leaves it, is none either, and stays empty.
    fs::create_dir(sandbox.repository()).unwrap();
    sandbox.run(["backup"]).fails(10);
    assert!(support::entries(&sandbox.repository()).is_empty());
    // Not even a place for one.
    sandbox
        .run_without("LIFEBOAT_REPOSITORY", &["list"])
        .fails(10)
        .says("LIFEBOAT_REPOSITORY");
}

#[test]
fn a_wrong_passphrase() {
    let (_database, sandbox, _) = Sandbox::with_backup("passphrase");
    write_secret(&sandbox.password_file(), "not the passphrase\n");
    for args in [&["backup"][..], &["list"], &["verify"], &["drill"]] {
        sandbox.run(args).fails(12);
    }
}

#[test]
fn a_password_file_that_cannot_be_used() {
    let (_database, sandbox, _) = Sandbox::with_backup("password_file");
    let file = sandbox.password_file();
    let name = file.to_str().unwrap().to_owned();
    let fails = |code: i32| {
        let run = sandbox.run(["list"]).fails(code).says(&name);
        drop(run);
    };

    // Readable by others: it works, so that no backup is missed for it, but `check` says how to mend it.
    set_mode(&file, 0o644);
    let run = sandbox.run(["check"]);
    let all = format!("{}{}", run.stdout, run.stderr);
    assert!(all.contains(&name) && all.contains("chmod 600"), "{run}");
    set_mode(&file, 0o600);
    fs::write(&file, "").unwrap();
    sandbox
        .run(["list"])
        .fails(2)
        .says("LIFEBOAT_PASSWORD_FILE");
    fs::remove_file(&file).unwrap();
    fails(2);
    fs::create_dir(&file).unwrap();
    fails(2);
    sandbox
        .run_without("LIFEBOAT_PASSWORD_FILE", &["list"])
        .fails(2)
        .says("LIFEBOAT_PASSWORD_FILE");
}

#[test]
fn files_that_may_not_be_read_or_written() {
    let (database, sandbox, _) = Sandbox::with_backup("unreadable");
    let Some(other) = Other::user() else { return };
    // Somebody else runs the same commands on the same files.
    other.fails(&sandbox, &["list"], 2, "passphrase");
    set_mode(&sandbox.password_file(), 0o600);
    other.own(&sandbox.password_file());
    for folder in ["state", "home", "work"] {
        other.own(&sandbox.root().join(folder));
    }
    // Found out before a word is said of its content: there is one, it just may not be read.
    other.fails(&sandbox, &["list"], 1, "ermission");
    // Readable, but not writable.
    for path in support::files(&sandbox.repository()) {
        set_mode(&path, 0o644);
        let mut folder = path.parent();
        while let Some(path) = folder.filter(|path| path.starts_with(sandbox.repository())) {
            set_mode(path, 0o755);
            folder = path.parent();
        }
    }
    for folder in support::entries(&sandbox.repository()) {
        if folder.is_dir() {
            set_mode(&folder, 0o755);
        }
    }
    other.fails(&sandbox, &["backup"], 1, "ermission");
    assert_eq!(sandbox.restic_snapshots().len(), 1);
    drop(database);
}

/// Another user of the system, where there is one: as root, somebody without root's rights.
struct Other {
    uid: u32,
}

impl Other {
    fn user() -> Option<Other> {
        // Without root nobody can be somebody else; what root may always read is no test either.
        rustix::process::geteuid()
            .is_root()
            .then_some(Other { uid: 65534 })
    }

    fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.uid)).unwrap();
        for entry in support::entries(path) {
            self.own(&entry);
        }
    }

    #[track_caller]
    fn fails(&self, sandbox: &Sandbox, args: &[&str], code: i32, words: &str) {
        use std::os::unix::process::CommandExt;
        let run = sandbox.run_with(args, |command| {
            command.uid(self.uid).gid(self.uid);
        });
        run.fails(code).says(words);
    }
}

#[test]
fn a_locked_repository() {
    let (_database, sandbox, _) = Sandbox::with_backup("locked");
    // restic's own exclusive lock, held for as long as a check of everything waits for its output to be read.
    let holder = exclusive_lock(&sandbox);
    let run = sandbox.run(["backup", "--retry-lock", "1s"]).fails(11);
    assert!(
        run.stderr.contains("restic") || run.stderr.contains("lock"),
        "{run}"
    );
    // A verdict waits for quiet: what is being moved looks damaged. Who needs the data takes it.
    sandbox.run(["verify", "--retry-lock", "1s"]).fails(11);
    sandbox.run(["drill", "--retry-lock", "1s"]).fails(11);
    let dump = sandbox.root().join("rescued.dump");
    let dump = dump.to_str().unwrap();
    sandbox
        .run(["export", "latest", "-o", dump, "--retry-lock", "1s"])
        .ok()
        .says("reading without a lock");
    drop(holder);
    sandbox.run(["backup"]).ok();
    sandbox.run(["verify"]).ok();
}

#[test]
fn reading_where_nothing_can_be_written() {
    let database = app_database("read_only");
    let mut sandbox = Sandbox::new(&database.url());
    let disk = SmallDisk::mount(&mut sandbox, "24m");
    sandbox.run(["init"]).ok();
    sandbox.backup();
    disk.remount(&sandbox, "ro");
    let run = sandbox.run(["verify", "--read-data"]).code_is(0);
    assert!(run.stderr.contains("reading without a lock"), "{run}");
    sandbox.run(["drill"]).code_is(0);
    sandbox.run(["backup"]).fails(1);
}

/// restic, stopped in the middle of a command that holds the exclusive lock. Dropped, it is gone, with its
/// lock.
struct Holder<'a> {
    sandbox: &'a Sandbox,
    running: Option<support::Running>,
}

fn exclusive_lock(sandbox: &Sandbox) -> Holder<'_> {
    // Stopped by strace at the first pack it reads: by then its lock is written.
    let mut command = sandbox.tool("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=openat"])
        .args(["-P", sandbox.repository().join("index").to_str().unwrap()])
        .args(["-e", "inject=openat:signal=STOP:when=1"])
        .args(["restic", "--no-cache", "check"])
        .env("RESTIC_REPOSITORY", sandbox.repository())
        .env("RESTIC_PASSWORD_FILE", sandbox.password_file());
    let mut running = support::Running::start(command);
    support::processes::wait_for("restic's lock", || {
        assert!(!running.has_ended(), "restic was not stopped");
        !support::entries(&sandbox.repository().join("locks")).is_empty()
    });
    Holder {
        sandbox,
        running: Some(running),
    }
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        for pid in support::processes::with_marker(self.sandbox.marker()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        drop(self.running.take());
        // All of them: where nobody reaps the dead, restic takes this one for alive.
        let unlock = self.sandbox.restic(&["unlock", "--remove-all"]);
        assert_eq!(unlock.code, 0, "{unlock}");
    }
}

#[test]
fn ids_that_are_none_or_too_many() {
    let (_database, sandbox, id) = Sandbox::with_backup("ids");
    for bad in [
        "zzzz",
        "0000000000",
        &format!("{id}0"),
        "../config",
        "",
        "newest",
    ] {
        let run = sandbox.run(["show", bad]);
        assert!([1, 2].contains(&run.code), "{run}");
        let code = run.code;
        run.fails(code);
    }
    // Until two IDs begin alike; sixteen digits, so seventeen backups are surely enough.
    let mut ids = vec![id];
    let shared = loop {
        let new = sandbox.backup();
        if ids.iter().any(|old| old[..1] == new[..1]) {
            break new[..1].to_owned();
        }
        ids.push(new);
    };
    let run = sandbox.run(["show", &shared]);
    let code = run.code;
    assert!([1, 2].contains(&code), "{run}");
    run.fails(code);
    for args in [
        &["restore", &shared, "--to", "never_made"][..],
        &["drill", &shared],
    ] {
        let run = sandbox.run(args);
        run.fails(code);
    }
}

#[test]
fn a_misspelt_key() {
    let (_database, sandbox, _) = Sandbox::with_backup("misspelt");
    let path = sandbox.work_dir().join("lifeboat.toml");
    for (text, wrong, right) in [
        ("[objectives]\nrpoo = \"1h\"\n", "rpoo", "rpo"),
        ("[repositry]\npath = \"/x\"\n", "repositry", "repository"),
        (
            "[backup]\nlock_timout = \"1m\"\n",
            "lock_timout",
            "lock_timeout",
        ),
        (
            "[[drill.check]]\nname = \"x\"\nsqll = \"select 1\"\nsql = \"select 1\"\n",
            "sqll",
            "sql",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let run = sandbox
            .run(["list"])
            .fails(2)
            .says(wrong)
            .says("lifeboat.toml");
        assert!(run.hints().contains(right), "{run}");
    }
    for text in [
        "[backup]\njobs = 0\n",
        "[objectives]\nrpo = \"soon\"\n",
        "not toml",
        "[backup]\njobs = \"many\"\n",
    ] {
        fs::write(&path, text).unwrap();
        let run = sandbox.run(["list"]);
        assert_eq!(run.code, 2, "{text}\n{run}");
        assert!(run.error().contains("lifeboat.toml"), "{run}");
    }
    fs::remove_file(&path).unwrap();
    sandbox
        .run(["--config", "nowhere.toml", "list"])
        .fails(2)
        .says("nowhere.toml");
}

#[test]
fn wrong_usage() {
    let (_database, sandbox, _) = Sandbox::with_backup("wrong_usage");
    for args in [
        &["backup", "--not-a-flag"][..],
        &["not-a-command"],
        &["show"],
        &["verify", "--max-age", "soon"],
        &["-q", "-v", "list"],
        &["export", "latest"],
        &["verify", "--file", "a", "--dump-dir", "b"],
    ] {
        let run = sandbox.run(args);
        assert_eq!(run.code, 2, "{run}");
        assert!(run.stderr.contains("error:"), "{run}");
        assert!(run.stdout.is_empty(), "{run}");
    }
    for args in [&["--help"][..], &["backup", "--help"], &["--version"]] {
        let run = sandbox.run(args).ok();
        assert!(!run.stdout.is_empty() && run.stderr.is_empty(), "{run}");
    }
    // As JSON the error is an object, still without data.
    let run = sandbox.run(["--json", "show", "zzzz"]);
    assert!(run.code != 0 && run.stdout.is_empty(), "{run}");
    let object: serde_json::Value = serde_json::from_str(run.stderr.trim()).expect("one JSON line");
    assert_eq!(object["schema"], "lifeboat.error/1");
    assert!(
        object["error"].is_string() && object["hints"].is_array(),
        "{object:#}"
    );
}
