//! The set-ups that Lifeboat replaces, under the same faults, for the report: `pg_dump -Fc` by cron with
//! `find -mtime +30 -delete`, and stock restic. What is asserted is only that the faults were brought about: others
//! may do better one day, and the report then says so.
//!
//! Only with `LIFEBOAT_TORTURE=1`: nothing of Lifeboat's is tested here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lifeboat_testkit::{TestDatabase, TestServer};
use support::midst::{another_big, end_a_copy};
use support::report::{Finding, tell};
use support::running::{Run, Running};
use support::small_disk::SmallDisk;
use support::strace::is_torture;
use support::{Sandbox, app_database, data, entries, files};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The line of a crontab, with a folder of dumps.
struct Cron {
    sandbox: Sandbox,
    folder: PathBuf,
}

impl Cron {
    fn new(url: &str) -> Cron {
        let sandbox = Sandbox::new(url);
        let folder = sandbox.repository();
        fs::create_dir_all(&folder).unwrap();
        Cron { sandbox, folder }
    }

    /// `pg_dump -Fc "$DATABASE_URL" > FOLDER/NAME.dump; find FOLDER -name "*.dump" -mtime +30 -delete`
    fn line(&self, name: &str) -> String {
        format!(
            "{} -Fc \"$DATABASE_URL\" > {1}/{name}.dump; find {1} -name '*.dump' -mtime +30 -delete",
            program("pg_dump").display(),
            self.folder.display()
        )
    }

    fn start(&self, line: &str) -> Running {
        let mut words = self.sandbox.prefix.clone();
        words.extend(["sh", "-c", line].map(Into::into));
        let mut command = self.sandbox.tool(&words[0]);
        command
            .args(&words[1..])
            .env("DATABASE_URL", self.sandbox.url());
        Running::start(command)
    }

    fn run(&self, line: &str) -> Run {
        self.sandbox.check(self.start(line).wait())
    }

    /// Whether `pg_restore` reads a dump to its end.
    fn reads(&self, file: &Path) -> bool {
        let program = program("pg_restore").display().to_string();
        let file = file.to_str().unwrap();
        let run = self.sandbox.inside(&[&program, "-f", "/dev/null", file]);
        run.code == 0
    }

    /// Whether `pg_restore --list` does, which many scripts take for a check.
    fn lists(&self, file: &Path) -> bool {
        let program = program("pg_restore").display().to_string();
        let file = file.to_str().unwrap();
        self.sandbox.inside(&[&program, "--list", file]).code == 0
    }
}

fn program(name: &str) -> PathBuf {
    TestServer::shared().bin_dir().join(name)
}

fn tell_of(group: &str, what: &str, n: usize, bad: usize, of: &str) {
    assert!(n > 0, "{what}");
    tell(&Finding {
        group,
        what,
        n,
        bad,
        of,
    });
}

/// Places all over a file, always the same.
fn spread(length: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |number| (length * number + length / 2) / count)
}

#[test]
fn a_full_disk() {
    if !is_torture() {
        return;
    }
    let database = app_database("others_full");
    data::fill_big(&database, "big", 20);
    let mut bad = 0;
    let sizes = [1, 2, 4, 6, 8];
    for size in sizes {
        let mut cron = Cron {
            sandbox: Sandbox::new(&database.url()),
            folder: PathBuf::new(),
        };
        cron.folder = cron.sandbox.repository();
        let _disk = SmallDisk::mount(&mut cron.sandbox, &format!("{size}m"));
        cron.run(&cron.line("newest"));
        let newest = cron.folder.join("newest.dump");
        let there = cron
            .sandbox
            .inside(&["test", "-s", newest.to_str().unwrap()]);
        assert_eq!(there.code, 0, "a disk too small to begin on");
        bad += usize::from(!cron.reads(&newest));
    }
    tell_of(
        "Full disk",
        "`pg_dump -Fc > FILE; find …` from cron",
        sizes.len(),
        bad,
        "half a dump left under the name of a whole one, as the newest in the folder",
    );
    restic_on_a_full_disk(&database);
}

/// A backup for which there is no room; then no room at all, and a prune.
fn restic_on_a_full_disk(database: &TestDatabase<'_>) {
    const RUNS: usize = 3;
    let (mut broken, mut stuck) = (0, 0);
    for seed in 0..RUNS {
        let mut sandbox = Sandbox::new(&database.url());
        let disk = SmallDisk::mount(&mut sandbox, "12m");
        sandbox.restic(&["init"]).ok();
        let source = sandbox.root().join("source");
        for number in 0..8 {
            fs::write(&source, noise(1 << 20, seed * 100 + number)).unwrap();
            sandbox.restic(&["backup", source.to_str().unwrap()]).ok();
        }
        fs::write(&source, noise(16 << 20, 7)).unwrap();
        let run = sandbox.restic(&["backup", source.to_str().unwrap()]);
        assert_ne!(run.code, 0, "there was room\n{run}");
        let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
        broken += usize::from(check.code != 0);
        let filler = sandbox.repository().join("filler");
        let fill = format!("cat /dev/zero > {} 2>/dev/null; true", filler.display());
        sandbox.inside(&["sh", "-c", &fill]).ok();
        let prune = sandbox.restic(&["forget", "--keep-last", "2", "--prune"]);
        stuck += usize::from(prune.code != 0);
        disk.grow(&sandbox, "64m");
        let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
        broken += usize::from(check.code != 0);
    }
    tell_of(
        "Full disk",
        "`restic backup`, then `restic forget --prune` without a byte left",
        2 * RUNS,
        broken,
        "repositories that `restic check` finds fault with",
    );
    tell_of(
        "Full disk",
        "`restic forget --keep-last 2 --prune` without a byte left",
        RUNS,
        stuck,
        "runs that failed",
    );
}

/// Bytes that do not compress, of a generator of no merit (SplitMix64).
fn noise(length: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64;
    let words = (0..length / 8).flat_map(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)).to_le_bytes()
    });
    words.collect()
}

/// The server ends the dump's session in the midst of it.
#[test]
fn a_dump_that_breaks_off() {
    if !is_torture() {
        return;
    }
    const RUNS: usize = 5;
    let database = another_big("others_broken");
    let server = TestServer::shared();
    let (mut half, mut silent, mut stored) = (0, 0, 0);
    for run in 0..RUNS {
        let cron = Cron::new(&database.url());
        let running = cron.start(&cron.line("newest"));
        end_a_copy(server, database.name(), "big");
        running.wait();
        half += usize::from(!cron.reads(&cron.folder.join("newest.dump")));

        let sandbox = Sandbox::new(&database.url());
        sandbox.restic(&["init"]).ok();
        let cron = Cron {
            folder: sandbox.repository(),
            sandbox,
        };
        let line = format!(
            "{} -Fc \"$DATABASE_URL\" | restic --no-cache -r {} -p {} backup --stdin --stdin-filename a.dump",
            program("pg_dump").display(),
            cron.folder.display(),
            cron.sandbox.password_file().display()
        );
        let running = cron.start(&line);
        end_a_copy(server, database.name(), "big");
        let ended = running.wait();
        silent += usize::from(ended.code == 0);
        let dump = cron.sandbox.root().join(format!("{run}.dump"));
        let fetch = format!(
            "restic --no-cache -r {} -p {} dump latest a.dump > {}",
            cron.folder.display(),
            cron.sandbox.password_file().display(),
            dump.display()
        );
        let fetched = cron.run(&fetch);
        stored += usize::from(fetched.code == 0 && !cron.reads(&dump));
    }
    tell_of(
        "Broken off",
        "`pg_dump -Fc > FILE` from cron, whose session the server ends",
        RUNS,
        half,
        "half a dump left under the name of a whole one, as the newest in the folder",
    );
    tell_of(
        "Broken off",
        "`pg_dump -Fc | restic backup --stdin` in sh, whose session the server ends",
        RUNS,
        stored,
        "half a dump stored as a snapshot, as the newest",
    );
    tell_of(
        "Broken off",
        "the same: the exit code (bash's `pipefail` would tell, and the snapshot would still be there)",
        RUNS,
        silent,
        "ended with 0",
    );
}

/// A month of dumps; then the dump fails every night, and `find` goes on.
#[test]
fn retention_while_backups_fail() {
    if !is_torture() {
        return;
    }
    let database = app_database("others_month");
    let mut cron = Cron::new(&database.url());
    cron.run(&cron.line("day-0")).ok();
    let first = cron.folder.join("day-0.dump");
    for day in 1..30 {
        fs::copy(&first, cron.folder.join(format!("day-{day}.dump"))).unwrap();
    }
    // The clock is turned by making files older.
    let age_by = |folder: &Path, name: &dyn Fn(usize) -> String, count: usize, days: u32| {
        for number in 0..count {
            let path = folder.join(name(number));
            if let Ok(file) = fs::File::options().write(true).open(&path) {
                let then = file.metadata().unwrap().modified().unwrap();
                file.set_modified(then - DAY * days).unwrap();
            }
        }
    };
    for day in 0..30 {
        let days = u32::try_from(29 - day).unwrap();
        let path = cron.folder.join(format!("day-{day}.dump"));
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - DAY * days).unwrap();
    }
    let good = |cron: &Cron| {
        let all = entries(&cron.folder).into_iter();
        all.filter(|file| cron.reads(file)).count()
    };
    assert_eq!(good(&cron), 30);
    cron.sandbox.set_url("postgresql://127.0.0.1:1/gone");
    let nights = 32;
    for night in 30..30 + nights {
        age_by(&cron.folder, &|day| format!("day-{day}.dump"), night, 1);
        cron.run(&cron.line(&format!("day-{night}")));
    }
    tell_of(
        "Retention while backups fail",
        "32 nights of `pg_dump -Fc > FILE; find -mtime +30 -delete` that fail, after 30 good ones",
        30,
        30 - good(&cron),
        "good dumps deleted; what is left in the folder is empty files",
    );

    // restic counts --keep-within from the newest snapshot, not from today.
    let sandbox = Sandbox::new(&database.url());
    sandbox.restic(&["init"]).ok();
    let now = jiff::Zoned::now();
    for day in 0..30_i64 {
        let time = now.checked_sub(jiff::Span::new().days(32 + day)).unwrap();
        let time = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let file = first.to_str().unwrap();
        fs::write(&first, format!("dump of {time}")).unwrap();
        sandbox.restic(&["backup", file, "--time", &time]).ok();
    }
    let before = sandbox.restic_snapshots().len();
    sandbox
        .restic(&["forget", "--keep-within", "30d", "--prune"])
        .ok();
    let after = sandbox.restic_snapshots().len();
    tell_of(
        "Retention while backups fail",
        "`restic forget --keep-within 30d --prune`, 32 days after the last of 30 snapshots",
        before,
        before - after,
        "snapshots removed",
    );
}

#[test]
fn a_flipped_bit() {
    if !is_torture() {
        return;
    }
    const FLIPS: usize = 200;
    let database = app_database("others_flip");
    for level in ["", " -Z0"] {
        let cron = Cron::new(&database.url());
        let line = cron.line("good").replace(" -Fc", &format!(" -Fc{level}"));
        cron.run(&line).ok();
        let file = cron.folder.join("good.dump");
        let good = fs::read(&file).unwrap();
        assert!(cron.reads(&file) && cron.lists(&file));
        let (mut listed, mut read) = (0, 0);
        for at in spread(good.len(), FLIPS) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, bad).unwrap();
            listed += usize::from(cron.lists(&file));
            read += usize::from(cron.reads(&file));
        }
        for (how, missed) in [("--list", listed), ("-f /dev/null", read)] {
            tell_of(
                "Damage",
                &format!("a flipped bit in a file of `pg_dump -Fc{level}`, `pg_restore {how}`"),
                FLIPS,
                missed,
                "not noticed",
            );
        }
    }
    let sandbox = Sandbox::new(&database.url());
    sandbox.restic(&["init"]).ok();
    let source = sandbox.root().join("source");
    fs::write(&source, noise(1 << 20, 1)).unwrap();
    sandbox.restic(&["backup", source.to_str().unwrap()]).ok();
    let (mut n, mut quick, mut whole) = (0, 0, 0);
    for file in files(&sandbox.repository()) {
        let good = fs::read(&file).unwrap();
        support::set_mode(&file, 0o600);
        for at in spread(good.len(), 8) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, bad).unwrap();
            quick += usize::from(sandbox.restic(&["check", "--no-lock"]).code == 0);
            let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
            whole += usize::from(check.code == 0);
            n += 1;
        }
        fs::write(&file, good).unwrap();
    }
    for (how, missed) in [("restic check", quick), ("restic check --read-data", whole)] {
        let what = format!("a flipped bit in any file of a repository, `{how}`");
        tell_of("Damage", &what, n, missed, "not noticed");
    }
}
