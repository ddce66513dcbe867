//! Several passphrases for one repository, and a rotation that is cut at every step. restic is the judge of what
//! opens.
//!
//! `LIFEBOAT_TORTURE=1` strikes at every call instead of at some of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_testkit::TestServer;
use lifeboat_testkit::remote::S3Server;
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::Value;
use support::processes::wait_for;
use support::pty::Terminal;
use support::report::{Finding, tell};
use support::s3::{s3_location, with_s3};
use support::strace::some_of;
use support::{PASSPHRASE, Run, Sandbox, entries, mode, set_mode, text, write_secret};

fn sandbox() -> Sandbox {
    Sandbox::initialised(&TestServer::shared().url("postgres"))
}

/// Whether restic opens the repository with the passphrase in this file.
fn opens(sandbox: &Sandbox, passphrase: &Path) -> bool {
    let mut restic = sandbox.tool("restic");
    restic
        .args(["--no-cache", "--no-lock", "cat", "config"])
        .env("RESTIC_REPOSITORY", sandbox.repository())
        .env("RESTIC_PASSWORD_FILE", passphrase);
    let run = sandbox.finish(restic);
    assert!(
        run.code == 0 || run.stderr.contains("wrong password or no key found"),
        "{run}"
    );
    run.code == 0
}

fn secret(sandbox: &Sandbox, name: &str, content: &str) -> PathBuf {
    let path = sandbox.root().join(name);
    write_secret(&path, &format!("{content}\n"));
    path
}

fn keys(sandbox: &Sandbox) -> Vec<Value> {
    let list = sandbox.run(["key", "list", "--json"]).ok().json("key");
    list["keys"].as_array().unwrap().clone()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// What a rotation may leave beside the passphrase file while it is not finished.
fn leftovers(sandbox: &Sandbox) -> Vec<PathBuf> {
    let mut found = entries(sandbox.root());
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.contains(".lifeboat-")
    });
    found
}

#[test]
fn each_passphrase_opens_the_repository_for_both_programs() {
    let sandbox = sandbox();
    let ann = secret(&sandbox, "ann", "ann's Passphrase 1");
    let generated = sandbox.root().join("generated");
    let added = sandbox.run([
        "key",
        "add",
        "--json",
        "--new-password-file",
        ann.to_str().unwrap(),
    ]);
    let added = text(&added.ok().json("key"), "added");
    sandbox
        .run(["key", "add", "--generate", generated.to_str().unwrap()])
        .ok()
        .says("opens it");
    assert_eq!(mode(&generated), 0o600);
    assert_eq!(read(&generated).len(), 35);
    let bob = secret(&sandbox, "bob", "bob's Passphrase 2");
    let restic = sandbox.restic(&["key", "add", "--new-password-file", bob.to_str().unwrap()]);
    assert_eq!(restic.code, 0, "{restic}");

    for file in [&ann, &generated, &bob, &sandbox.password_file()] {
        assert!(opens(&sandbox, file), "{}", file.display());
        let with = |command: &mut Command| {
            command.env("LIFEBOAT_PASSWORD_FILE", file);
        };
        let list = sandbox
            .run_with(["key", "list", "--json"], with)
            .ok()
            .json("key");
        let list = list["keys"].as_array().unwrap();
        assert_eq!(list.len(), 4);
        assert_eq!(list.iter().filter(|key| key["in_use"] == true).count(), 1);
        let of_ann = list.iter().find(|key| text(key, "key") == added).unwrap();
        assert_eq!(of_ann["in_use"] == true, file == &ann);
    }
    let restic = sandbox.restic(&["key", "list"]);
    assert!(restic.stdout.contains(&added[..8]), "{restic}");
    let table = sandbox.run(["key", "list"]).ok();
    assert!(
        table.stdout.contains("in use") && table.stdout.contains(&added[..8]),
        "{table}"
    );

    // Twice the same passphrase is a mistake, and an existing file is not written over.
    sandbox
        .run(["key", "add", "--new-password-file", ann.to_str().unwrap()])
        .fails(2)
        .says(&added[..8]);
    sandbox
        .run(["key", "add", "--generate", ann.to_str().unwrap()])
        .fails(4);
    sandbox.run(["key", "add"]).fails(2).says("nobody to ask");
    let empty = secret(&sandbox, "empty", "");
    sandbox
        .run(["key", "add", "--new-password-file", empty.to_str().unwrap()])
        .fails(2)
        .says("empty");
    assert_eq!(keys(&sandbox).len(), 4);

    sandbox
        .run(["key", "remove", &added])
        .fails(4)
        .says("nobody confirmed");
    sandbox
        .run(["key", "remove", &added, "--yes", "no"])
        .fails(4);
    sandbox.run(["key", "remove", "zz"]).fails(2).says("no key");
    assert!(opens(&sandbox, &ann));
    sandbox
        .run(["key", "remove", &added[..10], "--yes", &added[..8]])
        .ok();
    assert!(!opens(&sandbox, &ann));
    assert!(opens(&sandbox, &generated) && opens(&sandbox, &sandbox.password_file()));
    assert!(entries(&sandbox.repository().join("locks")).is_empty());
}

#[test]
fn the_key_in_use_and_the_last_one_cannot_be_removed() {
    let sandbox = sandbox();
    let own = text(&keys(&sandbox)[0], "key");
    sandbox
        .run(["key", "remove", &own, "--yes", &own[..8]])
        .fails(4)
        .says("the only one");
    let other = sandbox.root().join("other");
    sandbox
        .run(["key", "add", "--generate", other.to_str().unwrap()])
        .ok();
    sandbox
        .run(["key", "remove", &own, "--yes", &own[..8]])
        .fails(4)
        .says("in use");
    assert_eq!(keys(&sandbox).len(), 2);
    assert!(opens(&sandbox, &sandbox.password_file()));
}

/// Rotated: the file opens, with a new passphrase; the old one does not; one key is left, and nothing else.
#[track_caller]
fn is_rotated(sandbox: &Sandbox, run: &Run) {
    let file = sandbox.password_file();
    let new = read(&file);
    assert_ne!(new, PASSPHRASE, "{run}");
    assert!(
        !run.stdout.contains(&new) && !run.stderr.contains(&new),
        "the passphrase is shown\n{run}"
    );
    assert_eq!(mode(&file), 0o600);
    assert!(opens(sandbox, &file), "{run}");
    let old = secret(sandbox, "the-first", PASSPHRASE);
    assert!(!opens(sandbox, &old), "{run}");
    assert_eq!(leftovers(sandbox), Vec::<PathBuf>::new(), "{run}");
    let keys = keys(sandbox);
    assert_eq!(keys.len(), 1, "{keys:#?}\n{run}");
    assert_eq!(keys[0]["in_use"], true);
}

#[test]
fn a_rotation_replaces_passphrase_and_key() {
    let sandbox = sandbox();
    let run = sandbox.run(["key", "rotate"]).ok().says("recovery kit");
    is_rotated(&sandbox, &run);
    assert!(sandbox.restic_is_content().is_empty());

    // To a passphrase of one's own; through a link, which stays one.
    let file = sandbox.password_file();
    let real = sandbox.root().join("real");
    fs::rename(&file, &real).unwrap();
    set_mode(&real, 0o640);
    std::os::unix::fs::symlink("real", &file).unwrap();
    let mine = secret(&sandbox, "mine", "my own Passphrase 3");
    let words = [
        "key",
        "rotate",
        "--json",
        "--new-password-file",
        mine.to_str().unwrap(),
    ];
    let run = sandbox.run(words).ok().says("0640");
    let done = run.json("key");
    assert_eq!(done["finished"], true);
    assert_eq!(done["removed"].as_array().unwrap().len(), 1);
    assert_eq!(read(&real), "my own Passphrase 3");
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    is_rotated(&sandbox, &run);
    sandbox.run(words).code_is(2).says("in use");

    // What opens another repository as well stays, by whatever name that one knows it.
    let config = sandbox.root().join("two.toml");
    std::os::unix::fs::symlink("real", sandbox.root().join("linked")).unwrap();
    for other in [
        format!("password_file = \"{}\"", real.display()),
        "password_file = \"linked\"".to_owned(),
        format!("password_command = [\"cat\", \"{}\"]", real.display()),
    ] {
        let text = format!(
            "[[repository]]\n\n[[repository]]\nname = \"disk\"\npath = \"disk\"\n{other}\n"
        );
        fs::write(&config, text).unwrap();
        sandbox
            .run(["key", "rotate", "--config", config.to_str().unwrap()])
            .fails(4)
            .says("opens the repository disk as well");
        assert_eq!(read(&real), "my own Passphrase 3", "{other}");
    }

    // The passphrase of another key would join the two.
    let other = sandbox.root().join("other");
    let other = other.to_str().unwrap();
    sandbox.run(["key", "add", "--generate", other]).ok();
    sandbox
        .run(["key", "rotate", "--new-password-file", other])
        .fails(2)
        .says("already");
    assert_eq!(keys(&sandbox).len(), 2);
    assert_eq!(leftovers(&sandbox), Vec::<PathBuf>::new());
}

#[test]
fn a_passphrase_without_a_file_is_rotated_in_two_steps() {
    let sandbox = sandbox();
    let new = secret(&sandbox, "new", "the new Passphrase 4");
    let from_environment = |passphrase: &'static str| {
        move |command: &mut Command| {
            command
                .env_remove("LIFEBOAT_PASSWORD_FILE")
                .env("LIFEBOAT_PASSWORD", passphrase);
        }
    };
    let old = from_environment(PASSPHRASE);
    sandbox
        .run_with(["key", "rotate"], old)
        .fails(2)
        .says("--new-password-file");
    let words = [
        "key",
        "rotate",
        "--json",
        "--new-password-file",
        new.to_str().unwrap(),
    ];
    let first = sandbox.run_with(words, old).ok().says("LIFEBOAT_PASSWORD");
    let first = first.json("key");
    assert_eq!(first["finished"], false);
    // Again, as after a crash: no third key.
    let again = sandbox.run_with(words, old).ok().json("key");
    assert_eq!(again["key"], first["key"]);
    assert_eq!(keys(&sandbox).len(), 2);
    let id = text(&first, "old");
    sandbox
        .run_with(["key", "remove", &id, "--yes", &id[..8]], old)
        .fails(4)
        .says("in use");
    let changed = from_environment("the new Passphrase 4");
    sandbox
        .run_with(["key", "remove", &id, "--yes", &id[..8]], changed)
        .ok();
    sandbox.run_with(["key", "list"], old).fails(12);
    assert!(opens(&sandbox, &new));
}

const ROTATE: [&str; 2] = ["key", "rotate"];

/// Strikes at these calls in turn. Whatever it did, the passphrase file opens the repository; a second rotation ends
/// what the first began, and leaves nothing.
fn struck(calls: &str, action: &str, at_least: usize) {
    let sandbox = sandbox();
    let count = sandbox.copied().calls(&ROTATE, calls);
    assert!(count >= at_least, "{count} {calls}");
    let points: Vec<usize> = some_of(count, at_least).collect();
    // Most of the time goes into scrypt: two at once.
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (sandbox, points) = (&sandbox, &points);
            scope.spawn(move || {
                for when in points.iter().skip(half).step_by(2) {
                    let copy = sandbox.copied();
                    let point = format!("{calls}:{action}:when={when} of {count}");
                    let first = copy.struck(&ROTATE, calls, action, *when);
                    assert!(
                        opens(&copy, &copy.password_file()),
                        "the file does not open it: {point}\n{first}"
                    );
                    let left = leftovers(&copy);
                    if first.code == 1 && first.stderr.contains("not finished") {
                        assert!(
                            first.stderr.contains("opens the repository"),
                            "{point}\n{first}"
                        );
                    }
                    let second = copy.run(ROTATE);
                    assert_eq!(second.code, 0, "{point}, {left:?}\n{first}\n{second}");
                    is_rotated(&copy, &second);
                    let locks = entries(&copy.repository().join("locks"));
                    let held = locks.iter().filter(|path| path.extension().is_none());
                    assert_eq!(held.count(), 0, "{point}");
                }
            });
        }
    });
    tell(&Finding {
        group: "Struck at a system call",
        what: &format!("`lifeboat key rotate`: {action} at {calls}"),
        n: points.len(),
        bad: 0,
        of: "passphrase files that open nothing, next runs that failed",
    });
}

#[test]
fn killed_at_every_name_that_changes() {
    struck(
        "rename,renameat,renameat2,link,linkat,unlink,unlinkat",
        "signal=KILL",
        6,
    );
}

#[test]
fn killed_at_every_write() {
    struck(
        "write,fsync,fdatasync,fchown,ftruncate,mkdir,chmod,fchmod",
        "signal=KILL",
        5,
    );
}

#[test]
fn a_disk_that_fails_or_is_full_at_every_step() {
    struck("fsync,fdatasync", "error=EIO", 4);
    struck("rename,renameat,renameat2,write", "error=ENOSPC", 3);
}

/// A credential that may write and not delete, as backups should have.
#[test]
fn keys_that_may_not_be_removed() {
    struck("unlink,unlinkat", "error=EACCES", 3);
}

#[test]
fn interrupted_rotations_are_told_of() {
    let sandbox = sandbox();
    // The exchange is the one plain rename: files of the repository are put in place by renameat2.
    let run = sandbox.struck(&ROTATE, "rename", "signal=KILL", 1);
    assert_eq!(run.code, 137, "{run}");
    assert_eq!(
        leftovers(&sandbox).len(),
        2,
        "before the exchange, both are there\n{run}"
    );
    assert_eq!(keys(&sandbox).len(), 2);
    sandbox.run(["key", "list"]).ok().says("did not end");
    let staged = read(&sandbox.root().join("passphrase.lifeboat-new"));
    let check = sandbox.run(["check"]);
    assert!(check.stdout.contains("key rotate"), "{check}");
    let run = sandbox.run(ROTATE).ok().says("had not ended");
    assert_eq!(
        read(&sandbox.password_file()),
        staged,
        "it goes on with what it had made"
    );
    is_rotated(&sandbox, &run);
}

#[test]
fn two_rotations_at_once() {
    let sandbox = sandbox();
    let both = [sandbox.start(ROTATE), sandbox.start(ROTATE)];
    let both = both.map(|running| sandbox.check(running.wait()));
    // One that read the passphrase just before the other put its own in place is told that it is wrong.
    assert!(
        both.iter().any(|run| run.code == 0) && both.iter().all(|run| [0, 12].contains(&run.code)),
        "{}\n{}",
        both[0],
        both[1]
    );
    is_rotated(&sandbox, &both[0]);
}

#[test]
fn a_rotation_in_a_bucket() {
    let location = s3_location(S3Server::shared());
    let change = with_s3(&location);
    let mut sandbox = Sandbox::new(&TestServer::shared().url("postgres"));
    sandbox.secrets.push(S3Server::SECRET_ACCESS_KEY.to_owned());
    sandbox.run_with(["init"], &change).ok();
    let before = read(&sandbox.password_file());
    sandbox.run_with(ROTATE, &change).ok();
    assert_ne!(read(&sandbox.password_file()), before);
    let list = sandbox
        .run_with(["key", "list", "--json"], &change)
        .ok()
        .json("key");
    assert_eq!(list["keys"].as_array().unwrap().len(), 1);
    assert_eq!(leftovers(&sandbox), Vec::<PathBuf>::new());
    let mut restic = sandbox.tool("restic");
    restic.args(["--no-cache", "cat", "config"]);
    change(&mut restic);
    restic
        .env("RESTIC_REPOSITORY", &location)
        .env("RESTIC_PASSWORD_FILE", sandbox.password_file());
    let run = sandbox.finish(restic);
    assert_eq!(run.code, 0, "{run}");
}

#[test]
fn a_passphrase_is_asked_twice_and_not_shown() {
    let sandbox = sandbox();
    let terminal = Terminal::open();
    let mut keyboard = terminal.keyboard();
    let mut command = sandbox.command(["key", "add"]);
    command
        .env("TERM", "xterm")
        .stdin(terminal.stdio())
        .stdout(terminal.stdio())
        .stderr(terminal.stdio());
    let (running, shown) = terminal.start(command);
    // Typed before that, the terminal itself would show it.
    wait_for("the terminal to show nothing that is typed", || {
        !tcgetattr(&keyboard)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
    });
    write!(keyboard, "typed Passphrase 5\ntyped Passphrase 5\n").unwrap();
    drop(keyboard);
    let run = running.wait();
    let shown = shown.join().unwrap();
    assert_eq!(run.code, 0, "{shown}");
    assert!(!shown.contains("typed Passphrase"), "{shown}");
    let typed = secret(&sandbox, "typed", "typed Passphrase 5");
    assert!(opens(&sandbox, &typed));
}
