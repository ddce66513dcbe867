//! `lifeboat repair`: damage of every sort, with another repository that has good copies and without one. What can
//! be mended is mended, what is lost is named, and the rest is restored. restic judges the repository, PostgreSQL
//! the data.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_testkit::{TestDatabase, TestServer};
use serde_json::Value;
use support::report::{Finding, tell};
use support::running::Run;
use support::sql::{Fingerprint, Restored, assert_same, fingerprint};
use support::strace::some_of;
use support::{Sandbox, app_database, data, files, text};

/// Two backups, here and in a second repository.
struct World {
    sandbox: Sandbox,
    config: String,
    ids: Vec<String>,
    held: Fingerprint,
    database: TestDatabase<'static>,
}

fn world(name: &str, separate_keys: bool) -> World {
    let database = app_database(name);
    let sandbox = Sandbox::new(&database.url());
    let config = sandbox.root().join("lifeboat.toml");
    fs::write(
        &config,
        "[[repository]]\npath = \"repository\"\n\n[[repository]]\nname = \"other\"\npath = \"other\"\n",
    )
    .unwrap();
    let config = config.to_str().unwrap().to_owned();
    let mut world = World {
        sandbox,
        config,
        ids: Vec::new(),
        held: fingerprint(TestServer::shared(), database.name()),
        database,
    };
    world.run(&["init"]).ok();
    let mut init = vec!["init", "--repository", "other"];
    if separate_keys {
        init.push("--separate-keys");
    }
    world.run(&init).ok();
    world.backup();
    data::churn(&world.database);
    world.backup();
    world.held = fingerprint(TestServer::shared(), world.database.name());
    world.run(&["copy"]).ok();
    world
}

impl World {
    #[track_caller]
    fn run(&self, args: &[&str]) -> Run {
        let mut command = self.sandbox.command(args);
        command.env("LIFEBOAT_CONFIG", &self.config);
        self.sandbox.finish(command)
    }

    fn backup(&mut self) {
        let run = self.run(&["backup", "--json"]).ok();
        self.ids.push(text(&run.json("backup"), "backup"));
    }

    fn repository(&self) -> PathBuf {
        self.sandbox.repository()
    }

    /// What both repositories hold.
    fn keep(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let all = files(&self.repository()).into_iter();
        all.map(|file| {
            let content = fs::read(&file).unwrap();
            (file, content)
        })
        .collect()
    }

    fn put_back(&self, kept: &[(PathBuf, Vec<u8>)]) {
        for file in files(&self.repository()) {
            fs::remove_file(file).unwrap();
        }
        for (file, content) in kept {
            fs::write(file, content).unwrap();
            support::set_mode(file, 0o600);
        }
    }

    fn json(&self, args: &[&str], code: i32) -> Value {
        let words: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let run = self.run(&words);
        assert_eq!(run.code, code, "{run}");
        run.json("repair")
    }

    fn listed(&self) -> Vec<Value> {
        let list = self.run(&["list", "--json"]).ok().json("list");
        list["backups"].as_array().unwrap().clone()
    }

    fn assert_restores(&self, id: &str, held: &Fingerprint) {
        let target = Restored::reserve(TestServer::shared(), "repaired");
        self.run(&["restore", id, "--to", target.name()]).ok();
        assert_same(held, &fingerprint(TestServer::shared(), target.name()));
    }
}

fn sort(world: &World, file: &Path) -> String {
    let below = file.strip_prefix(world.repository()).unwrap();
    below.iter().next().unwrap().to_str().unwrap().to_owned()
}

/// Every way to damage a file that `damage.rs` knows.
const DAMAGES: [&str; 6] = ["flipped", "end flipped", "cut", "empty", "longer", "gone"];

fn damage(file: &Path, how: &str) {
    let mut bytes = fs::read(file).unwrap();
    let length = bytes.len();
    match how {
        "flipped" => bytes[length / 3] ^= 4,
        "end flipped" => bytes[length - 1] ^= 1,
        "cut" => bytes.truncate(length / 2),
        "empty" => bytes.clear(),
        "longer" => bytes.push(0),
        _ => return fs::remove_file(file).unwrap(),
    }
    fs::write(file, bytes).unwrap();
}

/// The files that a repair is for, with each damage.
fn cases(world: &World, at_least: usize) -> Vec<(PathBuf, &'static str)> {
    let all = files(&world.repository()).into_iter();
    let ours =
        all.filter(|file| ["data", "index", "snapshots"].contains(&sort(world, file).as_str()));
    let mut cases: Vec<(PathBuf, &'static str)> = Vec::new();
    for file in ours {
        // That there was one more backup nobody knows.
        let is_snapshot = sort(world, &file) == "snapshots";
        let hows = DAMAGES
            .into_iter()
            .filter(|how| !(is_snapshot && *how == "gone"));
        cases.extend(hows.map(|how| (file.clone(), how)));
    }
    let some: BTreeSet<usize> = some_of(cases.len(), at_least).collect();
    let numbered = cases.into_iter().zip(1..);
    numbered
        .filter(|(_, at)| some.contains(at))
        .map(|(case, _)| case)
        .collect()
}

#[test]
fn from_another_repository_everything_is_mended() {
    for separate_keys in [false, true] {
        let world = world(
            if separate_keys {
                "mend_apart"
            } else {
                "mend_alike"
            },
            separate_keys,
        );
        let kept = world.keep();
        let cases = cases(&world, if separate_keys { 4 } else { 8 });
        for (file, how) in &cases {
            let what = format!("{} {how}", file.display());
            damage(file, how);
            let report = world.json(&["repair"], 0);
            assert_eq!(report["good"], true, "{what}: {report:#}");
            assert_eq!(report["lost"].as_array().unwrap().len(), 0, "{what}");
            assert_eq!(world.sandbox.restic_is_content().len(), 2, "{what}");
            if !separate_keys {
                let now: Vec<String> = world
                    .listed()
                    .iter()
                    .map(|one| text(one, "backup"))
                    .collect();
                assert_eq!(now, world.ids, "{what}");
            }
            world.put_back(&kept);
        }
        // The last of them whole, from what was written anew.
        let packs = cases
            .iter()
            .filter(|(file, _)| sort(&world, file) == "data");
        for (file, how) in packs {
            damage(file, how);
        }
        world.json(&["repair", "--dry-run"], 3);
        world.json(&["repair"], 0);
        world.run(&["verify", "--read-data", "--all"]).ok();
        let again = world.json(&["repair"], 0);
        assert_eq!(again["damaged"].as_array().unwrap().len(), 0);
        world.assert_restores("latest", &world.held);
        world.run(&["drill"]).ok();
        tell(&Finding {
            group: "Repair",
            what: if separate_keys {
                "a damaged file of any sort, with a second repository that has other keys"
            } else {
                "a damaged file of any sort, with a second repository that shares the keys"
            },
            n: cases.len(),
            bad: 0,
            of: "not mended by `lifeboat repair`, or restic not content with the result",
        });
    }
}

#[test]
fn alone_what_is_lost_is_named_and_the_rest_is_restored() {
    let world = world("alone", false);
    let kept = world.keep();
    let tables = ["public.users", "public.memes", "public.activations"];
    let (mut mended, mut lost_something, mut came_back) = (0, 0, 0);
    let cases = cases(&world, 8);
    for (file, how) in &cases {
        let what = format!("{} {how}", file.display());
        damage(file, how);
        let run = world.run(&["repair", "--alone"]);
        if run.code == 0 {
            assert_eq!(world.sandbox.restic_is_content().len(), 2, "{what}");
            mended += 1;
            world.put_back(&kept);
            continue;
        }
        // Nobody confirmed: said, with the word that would.
        assert_eq!(run.code, 4, "{what}\n{run}");
        assert!(run.hints().contains("--yes primary"), "{what}\n{run}");
        world.run(&["repair", "--alone", "--yes", "wrong"]).fails(4);
        let report = world.json(&["repair", "--alone", "--yes", "primary"], 3);
        lost_something += 1;
        let lost = report["lost"].as_array().unwrap().clone();
        let listed = world.listed();
        // No backup is gone, but for one whose own file was all there was of it.
        let gone = report["done"]["backups_removed"].as_array().unwrap().len();
        assert_eq!(listed.len() + gone, 2, "{what}: {report:#}");
        assert_eq!(gone > 0, sort(&world, file) == "snapshots", "{what}");
        for one in &listed {
            let id = text(one, "backup");
            let loss = lost.iter().find(|loss| loss["backup"] == one["backup"]);
            assert_eq!(one["damaged"], loss.is_some(), "{what}: {one:#}");
            let parts: Vec<String> = loss.map_or(Vec::new(), |loss| {
                let parts = loss["parts"].as_array().unwrap().iter();
                parts.map(|part| text(part, "name")).collect()
            });
            let has_toc = !parts.iter().any(|part| {
                ["everything", "the table of contents", "the manifest"].contains(&part.as_str())
            });
            let target = Restored::reserve(TestServer::shared(), "partly");
            let whole = world.run(&["restore", &id, "--to", target.name()]);
            assert_eq!(
                whole.code == 0,
                parts.is_empty(),
                "{what}: {parts:?}\n{whole}"
            );
            // What is not named can be restored, what is named cannot.
            for table in tables.iter().filter(|_| !parts.is_empty() && has_toc) {
                let target = Restored::reserve(TestServer::shared(), "one_table");
                let run = world.run(&["restore", &id, "--to", target.name(), "--table", table]);
                let is_lost = parts
                    .iter()
                    .any(|part| part == table || part.starts_with("all tables"));
                assert_eq!(
                    run.code != 0,
                    is_lost,
                    "{what}: {table} of {parts:?}\n{run}"
                );
            }
        }
        // What is lost does not keep others from expiring.
        world.run(&["expire", "--dry-run"]).ok();
        world.run(&["expire"]).ok();
        // The database still has what the second backup held.
        world.run(&["backup"]).ok();
        world.assert_restores("latest", &world.held);
        let after = world.run(&["repair", "--alone", "--json"]).json("repair");
        let still = after["lost"].as_array().unwrap();
        let of_second = |losses: &[Value]| -> Vec<String> {
            let loss = losses.iter().find(|one| one["first_id"] == *world.ids[1]);
            let parts = loss
                .iter()
                .flat_map(|loss| loss["parts"].as_array().unwrap());
            parts.map(|part| text(part, "name")).collect()
        };
        // Of a backup's own files no other has the like: its table of contents, its manifest, the folders of these.
        let has_folders = !of_second(&lost)
            .iter()
            .any(|part| ["everything", "the table of contents"].contains(&part.as_str()));
        if gone == 0 && has_folders {
            let left = of_second(still);
            let is_table = |part: &String| part.starts_with("public.");
            assert!(!left.iter().any(is_table), "{what}: {after:#}");
            let mut listed = world.listed().into_iter();
            let second = listed.find(|one| one["first_id"] == *world.ids[1]);
            let second = second.unwrap();
            assert_eq!(second["damaged"], !left.is_empty(), "{what}: {after:#}");
            if left.is_empty() {
                world.assert_restores(&text(&second, "backup"), &world.held);
            }
        }
        if still.is_empty() {
            assert_eq!(world.sandbox.restic_is_content().len(), 3 - gone, "{what}");
            came_back += 1;
        }
        world.put_back(&kept);
    }
    // Which few of all cases are tried is up to the names of the files.
    let is_all = std::env::var_os("LIFEBOAT_TORTURE").is_some();
    assert!(
        mended > 0 && lost_something > 0 && (came_back > 0 || !is_all),
        "{mended} {lost_something} {came_back}"
    );
    tell(&Finding {
        group: "Repair",
        what: "a damaged file of any sort, with no other repository",
        n: cases.len(),
        bad: 0,
        of: "with a loss that was not named, a table that was not lost and could not be restored, or a backup removed",
    });
}

/// Killed at every step that changes something: what could be restored can be restored, and the next run goes on.
#[test]
fn killed_at_any_step() {
    let world = world("killed", false);
    let packs: Vec<PathBuf> = files(&world.repository().join("data"));
    damage(&packs[0], "flipped");
    damage(packs.last().unwrap(), "gone");
    let index = files(&world.repository().join("index"));
    damage(&index[0], "cut");
    let snapshots = files(&world.repository().join("snapshots"));
    damage(&snapshots[0], "flipped");
    let kept = world.keep();
    let args = ["--config", world.config.as_str(), "repair"];
    let calls = "rename,renameat2,unlink,unlinkat,fsync,fdatasync,link,linkat";
    let count = world.sandbox.calls(&args, calls);
    assert!(count > 10, "{count}");
    let mut strikes = 0;
    for when in some_of(count, 8) {
        world.put_back(&kept);
        let run = world.sandbox.struck(&args, calls, "signal=KILL", when);
        // Calls are counted by thread: the last ones may not be reached.
        if run.code == 0 {
            continue;
        }
        let report = world.json(&["repair"], 0);
        assert_eq!(report["good"], true, "{when}: {report:#}");
        assert!(world.sandbox.restic_is_content().len() >= 2, "{when}");
        strikes += 1;
    }
    assert!(strikes > 3, "{strikes} of {count}");
    world.json(&["repair"], 0);
    world.assert_restores("latest", &world.held);
    tell(&Finding {
        group: "Repair",
        what: "`kill -9` at every system call with which a repair changes something",
        n: strikes,
        bad: 0,
        of: "not whole after the next `lifeboat repair`",
    });
}

#[test]
fn nothing_is_removed_where_the_repository_is_append_only() {
    let world = world("appending", false);
    let packs: Vec<PathBuf> = files(&world.repository().join("data"));
    damage(&packs[0], "flipped");
    let config = fs::read_to_string(&world.config).unwrap();
    fs::write(
        &world.config,
        config.replacen(
            "path = \"repository\"\n",
            "path = \"repository\"\nappend_only = true\n",
            1,
        ),
    )
    .unwrap();
    let run = world.run(&["repair"]).fails(4);
    assert!(run.hints().contains("append_only"), "{run}");
    assert!(packs[0].exists());
    world.assert_restores("latest", &world.held);
    fs::write(&world.config, config).unwrap();
    world.run(&["repair", "--alone"]).ok();
    world.sandbox.restic_is_content();
}

#[test]
fn a_source_that_is_down_keeps_data_from_being_given_up() {
    let world = world("down", false);
    let packs: Vec<PathBuf> = files(&world.repository().join("data"));
    for pack in &packs {
        damage(pack, "gone");
    }
    let other = world.sandbox.root().join("other");
    fs::rename(&other, world.sandbox.root().join("away")).unwrap();
    let run = world.run(&["repair", "--yes", "primary"]).fails(4);
    assert!(run.stderr.contains("other could not be asked"), "{run}");
    world.run(&["repair", "--from", "other"]).fails(10);
    let away = world.sandbox.root().join("away");
    let report = world.json(&["repair", "--from", away.to_str().unwrap()], 0);
    assert_eq!(report["good"], true, "{report:#}");
    world.assert_restores("latest", &world.held);
    assert_eq!(world.sandbox.restic_is_content().len(), 2);
}
