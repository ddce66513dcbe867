//! Eight processes at once on one repository and its copy: backups of two databases, a copy, verifications, expiries.
//! Each of them ends well, or as the manual says; no backup that was acknowledged and has to stay is lost.
//!
//! `LIFEBOAT_TORTURE=1` does it more often.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use jiff::Timestamp;
use support::report::{Finding, tell};
use support::running::{Run, Running};
use support::several::{World, a_folder};
use support::strace::is_torture;
use support::{app_database, data, entries, text};

/// What the policy keeps of each database.
const KEEP: usize = 4;

/// Both repositories are worked on by those that add, those that read, and those that remove.
const COMMANDS: [&[&str]; 8] = [
    &["backup", "--json"],
    &["backup", "--json"],
    &["backup", "--json"],
    &["copy"],
    &["verify", "--all"],
    &["verify", "--all", "--repository", "disk"],
    &["expire", "--keep-last", "4"],
    &["expire", "--keep-last", "4", "--repository", "disk"],
];

/// Done, or locked for longer than it would wait, and said so.
#[track_caller]
fn ended_well(run: Run) -> Run {
    if run.code == 0 {
        run.ok()
    } else {
        run.fails(11)
    }
}

#[test]
fn eight_processes_at_once() {
    let rounds = if is_torture() { 30 } else { 2 };
    let databases = [app_database("eight_a"), app_database("eight_b")];
    let world = World::new(&databases[0].url(), &a_folder("disk"));
    world.run(&["init"]).ok();
    world.run(&["init", "--repository", "disk"]).ok();
    for database in &databases {
        let of_it = |command: &mut Command| {
            command.env("DATABASE_URL", database.url());
        };
        world.run_with(["backup"], of_it).ok();
    }
    world.run(&["copy"]).ok();
    // By database: when each was taken, and its ID.
    let mut acknowledged: BTreeMap<usize, Vec<(Timestamp, String)>> = BTreeMap::new();
    let (mut done, mut locked) = (0, 0);
    for round in 0..rounds {
        for database in &databases {
            data::churn_a_little(database, round);
        }
        let running = COMMANDS.iter().enumerate().map(|(place, args)| {
            let database = place % 2;
            let mut command = world.command(args.iter());
            command.env("DATABASE_URL", databases[database].url());
            (database, Running::start(command))
        });
        for (database, running) in running.collect::<Vec<_>>() {
            let run = ended_well(world.check(running.wait()));
            done += usize::from(run.code == 0);
            locked += usize::from(run.code == 11);
            if run.code == 0 && run.command.contains("backup --json") {
                let report = run.json("backup");
                let time = text(&report, "snapshot_time").parse().unwrap();
                let taken = acknowledged.entry(database).or_default();
                taken.push((time, text(&report, "backup")));
            }
        }
        nothing_is_lost(&world, "primary", &mut acknowledged);
    }
    // All eight were at it, and not one of them all the time in vain.
    assert!(done > 4 * rounds, "{done} done, {locked} locked");

    world.run(&["copy"]).ok();
    nothing_is_lost(&world, "disk", &mut acknowledged);
    for name in ["repository", "disk"] {
        let folder = world.root().join(name);
        let locks = entries(&folder.join("locks"));
        assert!(locks.is_empty(), "{locks:?}");
        let location = folder.display().to_string();
        world.restic_is_content(&location, &world.password_file(), &[]);
    }
    for name in ["primary", "disk"] {
        world.run(&["verify", "--all", "--repository", name]).ok();
    }
    world.run(&["drill"]).ok();
    world.assert_nothing_left();
    tell(&Finding {
        group: "Together",
        what: "eight processes at once: three backups of two databases, copy, two verify --all, two expire",
        n: rounds * COMMANDS.len(),
        bad: 0,
        of: "processes that ended otherwise than done or locked, backups lost that had to stay, locks left, faults that restic finds",
    });
}

/// The newest of each database are there: the policy keeps them, and whatever had to go was older.
#[track_caller]
fn nothing_is_lost(
    world: &World,
    repository: &str,
    acknowledged: &mut BTreeMap<usize, Vec<(Timestamp, String)>>,
) {
    let listed = world.listed_in(repository);
    for taken in acknowledged.values_mut() {
        taken.sort();
        for (time, id) in taken.iter().rev().take(KEEP) {
            assert!(
                listed.contains(id),
                "{id} of {time} is lost in {repository}: {listed:#?}"
            );
        }
    }
}
