//! The power goes: at every step by which a command makes something durable, and at the moment after it said that it
//! was done. On an ext4 of its own, which forgets on command what was not synced. Needs root and loop devices; without
//! them there is nothing to see here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;

use lifeboat_testkit::{TestDatabase, TestServer};
use support::power::{Cut, Disk, can_cut_power};
use support::report::{Finding, tell};
use support::running::Run;
use support::several::{World, a_folder};
use support::strace::some_of;
use support::{PASSPHRASE, Sandbox, app_database, data, set_mode, text};

/// Whatever makes something durable, or gives it its name, or takes it away.
const STEPS: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat";

/// A repository on a disk of its own, with backups in it and something new in the database.
struct Scene {
    ids: Vec<String>,
    disk: Disk,
    sandbox: Sandbox,
    /// How a command is told to look at it, if it is not the only one.
    named: &'static [&'static str],
    _database: TestDatabase<'static>,
}

impl Scene {
    fn new(name: &str, backups: usize) -> Scene {
        let database = app_database(name);
        let sandbox = Sandbox::new(&database.url());
        let disk = Disk::new(&sandbox);
        sandbox.run(["init"]).ok();
        let mut ids = Vec::new();
        for seed in 0..=backups {
            if seed < backups {
                ids.push(sandbox.backup());
            }
            data::churn_a_little(&database, seed);
        }
        Scene {
            ids,
            disk,
            sandbox,
            named: &[],
            _database: database,
        }
    }

    /// A copy is on the disk, and lacks all backups but the first; the primary is elsewhere.
    fn of_a_copy(name: &str, backups: usize) -> Scene {
        let database = app_database(name);
        let repositories = a_folder("primary") + &a_folder("repository");
        let World { sandbox } = World::of(&database.url(), &repositories);
        let disk = Disk::new(&sandbox);
        let named = &["--repository", "repository"];
        sandbox.run(["init"]).ok();
        sandbox.run(["init", "--repository", "repository"]).ok();
        let mut ids = Vec::new();
        for seed in 0..backups {
            data::churn_a_little(&database, seed);
            ids.push(sandbox.backup());
            if seed == 0 {
                sandbox.run(["copy"]).ok();
            }
        }
        Scene {
            ids,
            disk,
            sandbox,
            named,
            _database: database,
        }
    }

    /// The IDs of the backups that are on the disk.
    fn listed(&self) -> Vec<String> {
        let list = self.sandbox.run([&["list", "--json"], self.named].concat());
        let list = list.ok().json("list");
        let backups = list["backups"].as_array().unwrap().iter();
        backups.map(|backup| text(backup, "backup")).collect()
    }

    /// Cuts the power at each of the steps of a command, and after the last. `of` says which backups have to be there
    /// then. Returns how many cuts there were.
    fn cut_at_each_step(
        &self,
        args: &[&str],
        at_least: usize,
        of: impl Fn(&Run) -> Vec<String>,
    ) -> usize {
        let kept = self.disk.keep();
        let count = self.sandbox.calls(args, STEPS);
        assert!(count >= at_least, "{count} steps");
        let mut cuts = 0;
        // One more than there are: the run ends, says so, and then the power goes.
        let points = some_of(count, at_least).chain([count + 1]);
        for (when, how) in points.zip([Cut::AtOnce, Cut::JournalWritten].into_iter().cycle()) {
            self.disk.go_back(&kept);
            let run = self.sandbox.struck(args, STEPS, "signal=KILL", when);
            // strace counts the calls of each thread: not every number is reached by one.
            assert!(
                run.code == 0 || when <= count,
                "step {when} of {count}\n{run}"
            );
            self.disk.cut(how);
            cuts += 1;
            let point = format!("step {when} of {count}, {how:?}");
            let listed = self.listed();
            for id in of(&run) {
                assert!(listed.contains(&id), "{id} is lost: {point}\n{run}");
            }
            let check = self.sandbox.restic(&["check", "--read-data", "--no-lock"]);
            assert_eq!(check.code, 0, "{point}\n{run}\n{check}");
            let next = self.sandbox.run(args.iter());
            assert_eq!(next.code, 0, "the next run, {point}\n{next}");
            self.sandbox
                .run([&["verify", "--read-data"], self.named].concat())
                .ok();
        }
        cuts
    }
}

#[test]
fn at_every_step_of_a_backup() {
    if !can_cut_power() {
        return;
    }
    let scene = Scene::new("power_backup", 2);
    let cuts = scene.cut_at_each_step(&["backup", "--json"], 6, |run| {
        let mut there = scene.ids.clone();
        if run.code == 0 {
            there.push(text(&run.json("backup"), "backup"));
        }
        there
    });
    tell(&Finding {
        group: "Power cut",
        what: "lifeboat backup, at every step that makes something durable, and after its last word",
        n: cuts,
        bad: 0,
        of: "acknowledged backups lost, or repositories that restic finds fault with",
    });
}

#[test]
fn at_every_step_of_an_expire() {
    if !can_cut_power() {
        return;
    }
    let scene = Scene::new("power_expire", 5);
    let cuts = scene.cut_at_each_step(&["expire", "--keep-last", "1"], 6, |_| {
        scene.ids[2..].to_vec()
    });
    tell(&Finding {
        group: "Power cut",
        what: "lifeboat expire, at every step that makes something durable, and after its last word",
        n: cuts,
        bad: 0,
        of: "backups lost that had to stay, or repositories that restic finds fault with",
    });
}

#[test]
fn at_every_step_of_a_copy() {
    if !can_cut_power() {
        return;
    }
    let scene = Scene::of_a_copy("power_copy", 3);
    let cuts = scene.cut_at_each_step(&["copy"], 3, |run| {
        let there = if run.code == 0 { 3 } else { 1 };
        scene.ids[..there].to_vec()
    });
    tell(&Finding {
        group: "Power cut",
        what: "lifeboat copy, at every step that makes something durable in the copy, and after its last word",
        n: cuts,
        bad: 0,
        of: "backups lost that had been copied, or repositories that restic finds fault with",
    });
}

/// The passphrase file is on the same disk: whatever the cut leaves of the two, the one has to open the other.
#[test]
fn at_every_step_of_a_key_rotation() {
    if !can_cut_power() {
        return;
    }
    let scene = Scene::new("power_rotate", 1);
    let (named, real) = (
        scene.sandbox.password_file(),
        scene.sandbox.repository().join("passphrase"),
    );
    fs::copy(&named, &real).unwrap();
    set_mode(&real, 0o600);
    fs::remove_file(&named).unwrap();
    std::os::unix::fs::symlink(&real, &named).unwrap();
    let cuts = scene.cut_at_each_step(&["key", "rotate"], 3, |run| {
        let passphrase = fs::read_to_string(&named).unwrap();
        // An acknowledged rotation is one: the old passphrase may be known to somebody.
        assert!(run.code != 0 || passphrase.trim() != PASSPHRASE, "{run}");
        scene.ids.clone()
    });
    tell(&Finding {
        group: "Power cut",
        what: "lifeboat key rotate, at every step that makes something durable, and after its last word",
        n: cuts,
        bad: 0,
        of: "passphrase files that do not open the repository, old ones that came back, or repositories that restic finds fault with",
    });
}

/// The set-ups that Lifeboat replaces, for the report: how often what was acknowledged is gone after the power was.
#[test]
fn what_others_lose() {
    if !can_cut_power() || std::env::var_os("LIFEBOAT_TORTURE").is_none() {
        return;
    }
    const RUNS: usize = 10;
    let scene = Scene::new("power_others", 1);
    let url = scene.sandbox.url().to_owned();
    let folder = scene.sandbox.repository().join("dumps");
    let pg_dump = TestServer::shared().bin_dir().join("pg_dump");
    let kept = scene.disk.keep();
    let mut lost = 0;
    for run in 0..RUNS {
        scene.disk.go_back(&kept);
        fs::create_dir(&folder).unwrap();
        let line = format!(
            "{} -Fc \"$DATABASE_URL\" > {}/memalerts-{run}.dump",
            pg_dump.display(),
            folder.display()
        );
        let mut command = scene.sandbox.tool("sh");
        command.args(["-c", &line]).env("DATABASE_URL", &url);
        scene.sandbox.finish(command).ok();
        scene.disk.cut(Cut::AtOnce);
        let file = folder.join(format!("memalerts-{run}.dump"));
        let mut command = scene.sandbox.tool(pg_dump.with_file_name("pg_restore"));
        command.args(["-f", "/dev/null"]).arg(&file);
        lost += usize::from(scene.sandbox.finish(command).code != 0);
    }
    tell(&Finding {
        group: "Power cut",
        what: "`pg_dump -Fc > FILE`, right after it exited with 0",
        n: RUNS,
        bad: lost,
        of: "dumps that were acknowledged and are gone, empty or cut off",
    });
    let mut lost = 0;
    for _ in 0..RUNS {
        scene.disk.go_back(&kept);
        let restic = scene
            .sandbox
            .restic(&["backup", "/etc/hostname", "--no-lock"]);
        let restic = if restic.code == 0 {
            restic
        } else {
            scene.sandbox.restic(&["backup", "/etc/hostname"])
        };
        assert_eq!(restic.code, 0, "{restic}");
        scene.disk.cut(Cut::AtOnce);
        let check = scene.sandbox.restic(&["check", "--read-data", "--no-lock"]);
        let snapshots = scene.sandbox.restic(&["snapshots", "--json", "--no-lock"]);
        let count = snapshots.stdout.matches("\"short_id\"").count();
        lost += usize::from(check.code != 0 || count < 2);
    }
    tell(&Finding {
        group: "Power cut",
        what: "`restic backup`, right after it exited with 0",
        n: RUNS,
        bad: lost,
        of: "snapshots that were acknowledged and are gone or broken",
    });
}
