//! Several repositories: the bucket of a real S3 server, a folder behind a real sshd, another folder here. What is
//! copied, what is said of it, and that each of them is enough by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::PathBuf;
use std::process::Command;

use lifeboat_testkit::TestServer;
use lifeboat_testkit::remote::{S3Server, SshServer};
use rustix::process::Signal;
use serde_json::Value;
use support::processes::wait_for;
use support::report::{Finding, tell};
use support::several::{
    World, a_bucket, a_folder, a_folder_behind_ssh, destination, in_a_new_bucket,
};
use support::sql::{Restored, assert_same, fingerprint};
use support::strace::some_of;
use support::{Sandbox, app_database, copy_folder, data, files, number, text};

#[test]
fn each_copy_is_enough_by_itself() {
    let (s3, ssh) = (S3Server::shared(), SshServer::shared());
    let server = TestServer::shared();
    let database = app_database("copied_twice");
    let bucket = in_a_new_bucket(s3);
    let others = a_bucket("bucket", &bucket, "after_backup = true")
        + &a_folder_behind_ssh("ssh", ssh, "password_file = \"other-passphrase\"");
    let world = World::new(&database.url(), &others);
    world.run(&["init"]).ok();
    // Not made yet: said with the command that makes it, and the backup stands.
    let run = world
        .run(&["backup"])
        .fails(1)
        .says("was taken and is whole in");
    assert!(run.hints().contains("init --repository bucket"), "{run}");
    let run = world.run(&["check"]);
    assert!(run.stdout.contains("init --repository ssh"), "{run}");
    world.run(&["init", "--repository", "bucket"]).ok();
    let made = world
        .run(&["init", "--repository", "ssh", "--json"])
        .ok()
        .json("init");
    assert_eq!(
        (&made["created"], &made["shared_keys"]),
        (&true.into(), &true.into())
    );

    data::churn(&database);
    let held = fingerprint(server, database.name());
    let taken = world.backup();
    // Both backups: the first one was not forgotten.
    assert_eq!(
        taken["copies"][0]["copied"].as_array().unwrap().len(),
        2,
        "{taken:#}"
    );
    let status = world.run(&["status", "--json"]).json("status");
    let repositories = status["status"]["repositories"].as_array().unwrap();
    assert_eq!(repositories.len(), 3);
    assert_eq!(repositories[1]["newest"], taken["backup"], "{status:#}");
    assert!(repositories[1]["last_copy"].is_string(), "{status:#}");
    assert!(repositories[2]["newest"].is_null(), "{status:#}");

    let copied = world.run(&["copy", "--json"]).ok().json("copy");
    assert_eq!(destination(&copied, "bucket")["packs"], 0, "{copied:#}");
    assert_eq!(
        destination(&copied, "ssh")["copied"]
            .as_array()
            .unwrap()
            .len(),
        2,
        "{copied:#}"
    );
    let run = world.run(&["copy"]).ok();
    assert!(run.stdout.contains("ssh: up to date, 2 backups"), "{run}");
    let run = world.run(&["check"]);
    for name in ["bucket: s3:", "ssh: sftp:"] {
        assert!(run.stdout.contains(name), "{run}");
    }
    for name in ["bucket", "ssh", "primary"] {
        let listed = world
            .run(&["list", "--json", "--repository", name])
            .ok()
            .json("list");
        let ids: Vec<&Value> = listed["backups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["backup"])
            .collect();
        assert!(
            ids.len() == 2 && ids.contains(&&taken["backup"]),
            "{name}: {listed:#}"
        );
        world
            .run(&["verify", "--read-data", "--repository", name])
            .ok();
        world.run(&["show", "latest", "--repository", name]).ok();
    }
    let root = world.sandbox.root();
    world.restic_is_content(&bucket, &world.sandbox.password_file(), &[]);
    let command = format!(
        "sftp.command=ssh -F {} -p {} -s 127.0.0.1 sftp",
        ssh.ssh_config().display(),
        ssh.port()
    );
    let behind = ssh.location(&format!("ssh-{}", std::process::id()));
    world.restic_is_content(
        &behind,
        &root.join("other-passphrase"),
        &["-o".to_owned(), command],
    );

    // The machine burns. Another one has a location, credentials and a passphrase, and no configuration.
    std::fs::remove_dir_all(world.sandbox.repository()).unwrap();
    let bare = Sandbox::new(&database.url());
    let from_bucket = |command: &mut Command| {
        command
            .env_remove("DATABASE_URL")
            .env("LIFEBOAT_REPOSITORY", &bucket)
            .env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY);
    };
    bare.run_with(["verify", "--read-data"], from_bucket).ok();
    bare.run_with(["drill"], from_bucket).ok();
    let target = Restored::reserve(server, "copied_twice");
    bare.run_with(["restore", "latest", "--to", target.name()], |command| {
        from_bucket(command);
        command.env("DATABASE_URL", database.url());
    })
    .ok();
    assert_same(&held, &fingerprint(server, target.name()));

    // And with the configuration at hand the other one does as well.
    let target = Restored::reserve(server, "copied_twice_ssh");
    world
        .run(&[
            "restore",
            "latest",
            "--to",
            target.name(),
            "--repository",
            "ssh",
        ])
        .ok();
    assert_same(&held, &fingerprint(server, target.name()));
    bare.assert_nothing_left();
}

#[test]
fn an_hour_of_churn_moves_its_new_bytes_and_no_more() {
    let database = app_database("churn_copied");
    let world = World::new(&database.url(), &a_folder("disk"));
    world.run(&["init"]).ok();
    world.run(&["init", "--repository", "disk"]).ok();
    world.backup();
    world.run(&["copy"]).ok();
    data::churn(&database);
    let new = number(&world.backup(), "new_bytes");
    // Somebody else's snapshot is none of ours.
    let file = world.config().display().to_string();
    let stored = world.sandbox.restic(&["backup", &file]);
    assert!(stored.code == 0, "{stored}");
    let planned = world
        .run(&["copy", "--dry-run", "--json"])
        .ok()
        .json("copy");
    assert_eq!(
        destination(&planned, "disk")["copied"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let copied = world.run(&["copy", "--json"]).ok().json("copy");
    let moved = number(destination(&copied, "disk"), "bytes");
    assert!(moved > 0.0 && moved <= new * 1.05, "{moved} of {new}");
    assert_eq!(files(&world.sandbox.root().join("disk/snapshots")).len(), 2);
}

/// What is asked of it every hour is fetched once. Seen by damage of the same length, which whoever fetches it again
/// stumbles over; and `verify` does.
#[test]
fn what_the_destination_holds_is_fetched_once() {
    let server = SshServer::shared();
    let database = app_database("fetched_once");
    let world = World::new(
        &database.url(),
        &a_folder_behind_ssh("once", server, "after_backup = true"),
    );
    world.run(&["init"]).ok();
    world.run(&["init", "--repository", "once"]).ok();
    world.backup();
    let folder = server.folder().join(format!("once-{}", std::process::id()));
    let damaged: Vec<PathBuf> = files(&folder.join("index"));
    assert!(!damaged.is_empty());
    for file in &damaged {
        let mut content = std::fs::read(file).unwrap();
        content[40] ^= 1;
        std::fs::write(file, content).unwrap();
    }
    data::churn(&database);
    let taken = world.backup();
    assert_eq!(
        taken["copies"][0]["copied"].as_array().unwrap().len(),
        1,
        "{taken:#}"
    );
    world.run(&["verify", "--repository", "once"]).code_is(3);
    std::fs::remove_dir_all(world.sandbox.state_dir().join("lifeboat/cache")).unwrap();
    world.run(&["copy"]).code_is(3);
}

/// Killed in the midst of it: nothing that arrived is sent again, and there is nothing to clean up.
#[test]
fn a_killed_copy_is_taken_up_where_it_was() {
    let server = SshServer::shared();
    let database = app_database("killed_copy");
    let slowly = a_folder_behind_ssh("killed", server, "bandwidth_limit = \"200KiB\"");
    let quickly = a_folder_behind_ssh("killed", server, "");
    let world = World::new(&database.url(), &quickly);
    world.run(&["init"]).ok();
    world.run(&["init", "--repository", "killed"]).ok();
    // Several packs: each backup brings one of its own, of noise.
    for hour in 0..5 {
        database.sql(&format!(
            "CREATE TABLE noise_{hour} AS SELECT decode(string_agg(md5(random()::text), ''), 'hex') AS bytes
             FROM generate_series(1, 25000) AS n GROUP BY n / 100"
        ));
        world.backup();
    }
    world.configure(&slowly);
    let folder = server
        .folder()
        .join(format!("killed-{}", std::process::id()));
    let there = |sort: &str| -> Vec<PathBuf> {
        let all = files(&folder.join(sort));
        all.into_iter()
            .filter(|file| file.file_name().unwrap().len() == 64)
            .collect()
    };
    let size = |paths: &[PathBuf]| -> u64 {
        paths
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum()
    };
    let mut running = world.start(["copy"]);
    wait_for("two packs to arrive", || there("data").len() >= 2);
    assert!(!running.has_ended());
    running.signal(Signal::KILL);
    running.wait();
    let before = size(&there("data"));
    assert!(there("snapshots").len() < 5);

    world.configure(&quickly);
    let copied = world.run(&["copy", "--json"]).ok().json("copy");
    let copied = destination(&copied, "killed");
    let all = size(&there("data"));
    let (moved, rest) = (number(copied, "bytes"), (all - before) as f64);
    assert!(before > 0 && rest > 0.0, "{before} {rest}");
    // The rest, its index and the snapshots.
    assert!(
        moved >= rest && moved <= rest * 1.05 + 30_000.0,
        "{moved} for {rest}, {copied:#}"
    );
    assert_eq!(all, size(&files(&world.sandbox.repository().join("data"))));
    world
        .run(&["verify", "--read-data", "--repository", "killed"])
        .ok();
    let run = world.run(&["copy"]).ok();
    assert!(run.stdout.contains("up to date, 5 backups"), "{run}");
}

/// One place is down: the other is served, what is wrong is said, and what is not known counts for nothing.
#[test]
fn a_dead_destination_stops_neither_the_others_nor_the_backup() {
    let mut server = SshServer::start();
    let database = app_database("one_is_down");
    let others = a_folder_behind_ssh("down", &server, "after_backup = true") + &a_folder("disk");
    let world = World::new(&database.url(), &others);
    for args in [
        &["init"][..],
        &["init", "--repository", "down"],
        &["init", "--repository", "disk"],
        &["backup"],
        &["drill"],
    ] {
        world.run(args).ok();
    }
    let status = world.run(&["status"]).ok();
    assert!(
        status.stdout.contains("from the newest off-host"),
        "{status}"
    );
    server.kill();
    let run = world
        .run(&["backup"])
        .fails(1)
        .says("was taken and is whole in");
    assert!(run.error().contains("down"), "{run}");
    let run = world.run(&["copy"]).fails(1).says("1 of 2 repositories");
    assert!(run.stdout.contains("disk: 2 backups copied"), "{run}");
    let status = world.run(&["status", "--json"]).code_is(3).json("status");
    let database = &status["status"]["databases"][0];
    assert_eq!(database["rpo"]["verdict"], "unknown", "{status:#}");
    assert!(
        status["status"]["repositories"][1]["error"].is_string(),
        "{status:#}"
    );
    server.start_again();
    let run = world.run(&["copy"]).ok();
    assert!(run.stdout.contains("down: 1 backup copied"), "{run}");
    world.run(&["status"]).ok();
}

/// Without the first one's key a copy is opened and sealed anew. It says which backup it was.
#[test]
fn keys_of_its_own() {
    let database = app_database("own_keys");
    let others = a_folder("disk").replace("path", "password_file = \"other-passphrase\"\npath");
    let world = World::new(&database.url(), &others);
    world.run(&["init"]).ok();
    let made = ["init", "--repository", "disk", "--separate-keys", "--json"];
    assert_eq!(world.run(&made).ok().json("init")["shared_keys"], false);
    let first = world.backup();
    data::churn(&database);
    world.backup();
    let copied = world.run(&["copy", "--json"]).ok().json("copy");
    let copied = destination(&copied, "disk");
    assert_eq!(copied["shared_keys"], false);
    assert_eq!(copied["copied"].as_array().unwrap().len(), 2);
    assert_ne!(copied["copied"][1]["id_there"], first["backup"]);
    // By its first ID it is found there, and not copied again.
    let id = first["backup"].as_str().unwrap();
    world.run(&["show", id, "--repository", "disk"]).ok();
    let run = world.run(&["copy"]).ok();
    assert!(run.stdout.contains("up to date, 2 backups"), "{run}");
    world
        .run(&["verify", "--read-data", "--repository", "disk"])
        .ok();
    let root = world.sandbox.root();
    let location = root.join("disk").display().to_string();
    world.restic_is_content(&location, &root.join("other-passphrase"), &[]);
    world.run(&["drill", "--repository", "disk"]).ok();
}

#[test]
fn a_damaged_backup_is_named_and_the_others_are_copied() {
    let database = app_database("damaged_copy");
    let world = World::new(&database.url(), &a_folder("disk"));
    world.run(&["init"]).ok();
    world.run(&["init", "--repository", "disk"]).ok();
    let first = world.backup();
    let packs = || files(&world.sandbox.repository().join("data"));
    let before = packs();
    data::churn(&database);
    let second = world.backup();
    let later: Vec<PathBuf> = packs()
        .into_iter()
        .filter(|pack| !before.contains(pack))
        .collect();
    for pack in &later {
        let mut bytes = std::fs::read(pack).unwrap();
        bytes[40] ^= 1;
        support::set_mode(pack, 0o600);
        std::fs::write(pack, bytes).unwrap();
    }
    let run = world.run(&["copy"]).fails(3);
    let name = |backup: &Value| backup["backup"].as_str().unwrap()[..8].to_owned();
    assert!(run.stderr.contains(&name(&second)), "{run}");
    assert!(!run.stderr.contains(&name(&first)), "{run}");
    assert!(run.stdout.contains("disk: 1 backup copied"), "{run}");
    let location = world.sandbox.root().join("disk").display().to_string();
    world.restic_is_content(&location, &world.sandbox.password_file(), &[]);
    // The next one, which counts on what is damaged, is judged by itself: nothing bad arrives.
    data::churn_a_little(&database, 1);
    world.backup();
    let run = world.run(&["copy"]);
    assert!(run.stdout.contains("disk: "), "{run}");
    world.run(&["verify", "--repository", "disk", "--read-data"]);
    world.restic_is_content(&location, &world.sandbox.password_file(), &[]);
}

#[test]
fn names_and_holds() {
    let database = app_database("names_holds");
    let world = World::new(&database.url(), "");
    world.run(&["init"]).ok();
    world
        .run(&["copy"])
        .fails(2)
        .says("no repository is configured to copy to");
    world.configure(
        &(a_folder("disk") + &a_folder("same").replace("path = \"same\"", "path = \"repository\"")),
    );
    let run = world.run(&["list", "--repository", "dsik"]).fails(2);
    assert!(run.hints().contains("did you mean disk?"), "{run}");
    assert!(run.hints().contains("primary, disk, same"), "{run}");
    world
        .run(&["copy", "--to", "same"])
        .fails(2)
        .says("is the repository that would be copied from");
    world.run(&["copy", "--to", "primary"]).fails(2);
    let run = world.run(&["copy", "--to", "disk"]).fails(10);
    assert!(run.hints().contains("init --repository disk"), "{run}");

    world.configure(&a_folder("disk"));
    world.run(&["init", "--repository", "disk"]).ok();
    world.backup();
    world.run(&["copy"]).ok();
    world
        .run(&["hold", "latest", "--reason", "before the move"])
        .ok();
    world.run(&["copy"]).ok();
    let run = world.run(&["hold", "--list", "--repository", "disk"]).ok();
    assert!(run.stdout.contains("before the move"), "{run}");
    let listed = world
        .run(&["list", "--json", "--repository", "disk"])
        .ok()
        .json("list");
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1, "{listed:#}");
    let run = world.run(&["copy"]).ok();
    assert!(run.stdout.contains("up to date"), "{run}");
    // Back from a copy: a new primary with the same keys.
    std::fs::remove_dir_all(world.sandbox.repository()).unwrap();
    world.run(&["init", "--keys-of", "disk"]).ok();
    world
        .run(&["copy", "--from", "disk", "--to", "primary"])
        .ok();
    let listed = |name| {
        let args = ["list", "--json", "--repository", name];
        world.run(&args).ok().json("list")["backups"][0]["backup"].clone()
    };
    assert_eq!(listed("primary"), listed("disk"));
    assert!(listed("disk").is_string());
    world.run(&["verify", "--read-data"]).ok();
    world
        .run(&["expire", "--dry-run", "--repository", "disk"])
        .ok();
}

/// Strikes at each of these calls of a copy in turn, with the short version at some: what had been copied is there,
/// restic finds nothing wrong, the next run needs no clean-up.
fn struck(name: &str, calls: &str, action: &str) {
    let database = app_database(name);
    let world = World::new(&database.url(), &a_folder("disk"));
    world.run(&["init"]).ok();
    world.run(&["init", "--repository", "disk"]).ok();
    let mut ids = Vec::new();
    for seed in 0..3 {
        data::churn_a_little(&database, seed);
        ids.push(text(&world.backup(), "backup"));
        if seed == 0 {
            world.run(&["copy"]).ok();
        }
    }
    let (disk, kept) = (world.root().join("disk"), world.root().join("kept"));
    copy_folder(&disk, &kept);
    let go_back = || {
        std::fs::remove_dir_all(&disk).unwrap();
        copy_folder(&kept, &disk);
    };
    let location = disk.display().to_string();
    let count = world.calls(&["copy"], calls);
    assert!(count > 8, "{count} {calls}");
    let mut strikes = 0;
    for when in some_of(count, 2) {
        go_back();
        strikes += 1;
        let point = format!("{calls}:{action}:when={when} of {count}");
        let run = world.struck(&["copy"], calls, action, when);
        let there = world.listed_in("disk");
        let due = if run.code == 0 { 3 } else { 1 };
        assert!(
            ids[..due].iter().all(|id| there.contains(id)),
            "{point}: {there:?}\n{run}"
        );
        world.restic_is_content(&location, &world.password_file(), &["--no-lock".to_owned()]);
        let next = world.run(&["copy"]);
        assert_eq!(next.code, 0, "{point}\n{next}");
        assert_eq!(world.listed_in("disk").len(), 3, "{point}");
        world.run(&["verify", "--all", "--repository", "disk"]).ok();
        for folder in [world.repository(), disk.clone()] {
            let locks = support::entries(&folder.join("locks"));
            let held = locks.iter().filter(|path| path.extension().is_none());
            assert_eq!(held.count(), 0, "{point}: {locks:?}");
        }
    }
    tell(&Finding {
        group: "Struck at a system call",
        what: &format!("`lifeboat copy`: {action} at {calls}"),
        n: strikes,
        bad: 0,
        of: "backups lost that had been copied, faults that restic finds, next runs that failed",
    });
}

#[test]
fn killed_at_every_name_that_changes() {
    struck(
        "copy_kill",
        "rename,renameat,renameat2,link,linkat,unlink,unlinkat",
        "signal=KILL",
    );
}

#[test]
fn a_disk_that_fails_to_sync() {
    struck("copy_sync", "fsync,fdatasync", "error=EIO");
}

#[test]
fn a_disk_that_is_full_at_every_step() {
    struck("copy_space", "renameat2,fsync,write", "error=ENOSPC");
}
