//! The folder check: what replaces the verification script beside a `pg_dump` cron job. One line of verdict,
//! exit 0 or 3.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use lifeboat_testkit::TestServer;
use support::running::Run;
use support::sql::tool;
use support::{Sandbox, app_database};

/// Dumps of one database, made once: custom (compressed and not), plain SQL, tar.
struct Dumps {
    custom: Vec<u8>,
    uncompressed: Vec<u8>,
    plain: Vec<u8>,
    tar: Vec<u8>,
}

fn dumps() -> &'static Dumps {
    static DUMPS: OnceLock<Dumps> = OnceLock::new();
    DUMPS.get_or_init(|| {
        let server = TestServer::shared();
        let database = app_database("dumped");
        let dump = |args: &[&str]| {
            let output = Command::new(tool(server, "pg_dump"))
                .args(args)
                .envs(server.tool_env(database.name()))
                .output()
                .unwrap();
            assert!(output.status.success());
            output.stdout
        };
        Dumps {
            custom: dump(&["-Fc"]),
            uncompressed: dump(&["-Fc", "-Z0"]),
            plain: dump(&["-Fp"]),
            tar: dump(&["-Ft"]),
        }
    })
}

struct Folder {
    sandbox: Sandbox,
    dir: PathBuf,
}

impl Folder {
    fn new() -> Folder {
        // No database, no repository: the folder check needs neither.
        let sandbox = Sandbox::new("postgresql://nobody@/nothing?host=/nonexistent");
        let dir = sandbox.root().join("backups");
        fs::create_dir(&dir).unwrap();
        Folder { sandbox, dir }
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn age(path: &Path, hours: f64) {
        let then = SystemTime::now() - Duration::from_secs_f64(hours * 3600.0);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(then)
            .unwrap();
    }

    fn verify(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        self.sandbox
            .run_with(std::iter::once(&"verify").chain(args), |command| {
                for name in [
                    "DATABASE_URL",
                    "LIFEBOAT_REPOSITORY",
                    "LIFEBOAT_PASSWORD_FILE",
                ] {
                    command.env_remove(name);
                }
                command.envs(variables.iter().copied());
            })
    }

    fn dir(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    #[track_caller]
    fn is_good(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        verdict(self.verify(args, variables), 0)
    }

    #[track_caller]
    fn is_bad(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        verdict(self.verify(args, variables), 3)
    }
}

#[track_caller]
fn verdict(run: Run, code: i32) -> Run {
    assert_eq!(run.code, code, "{run}");
    assert_eq!(run.stdout.lines().count(), 1, "one line of verdict\n{run}");
    run
}

#[test]
fn the_newest_match_counts() {
    let folder = Folder::new();
    let good = folder.write("memalerts-20260101-0000.dump", &dumps().custom);
    let old = folder.write("memalerts-20260101-0100.dump", b"half a file");
    Folder::age(&old, 1.5);
    folder.write("notes.txt", b"not a dump");
    folder.write("memalerts-20260101-0200.dump.part", b"being written");
    let run = folder.is_good(&["--dump-dir", folder.dir()], &[]);
    assert!(run.stdout.contains("memalerts-20260101-0000.dump"), "{run}");
    // Now the broken one is the newest: an older good one is no comfort.
    Folder::age(&good, 1.9);
    let run = folder.is_bad(&["--dump-dir", folder.dir()], &[]);
    assert!(run.stdout.contains("memalerts-20260101-0100.dump"), "{run}");
}

#[test]
fn a_stale_dump() {
    let folder = Folder::new();
    let dump = folder.write("a.dump", &dumps().custom);
    Folder::age(&dump, 2.1);
    folder.is_bad(&["--dump-dir", folder.dir()], &[]);
    folder.is_good(&["--dump-dir", folder.dir(), "--max-age", "3h"], &[]);
    folder.is_good(
        &[],
        &[("BACKUP_DIR", folder.dir()), ("BACKUP_MAX_AGE_HOURS", "3")],
    );
    folder.is_good(
        &[],
        &[
            ("BACKUP_DIR", folder.dir()),
            ("BACKUP_MAX_AGE_HOURS", "2.5"),
        ],
    );
    folder.is_bad(
        &[],
        &[("BACKUP_DIR", folder.dir()), ("BACKUP_MAX_AGE_HOURS", "1")],
    );
    folder.is_bad(&["--file", dump.to_str().unwrap()], &[]);
    // A flag wins over a variable.
    folder.is_good(
        &["--max-age", "3h"],
        &[("BACKUP_DIR", folder.dir()), ("BACKUP_MAX_AGE_HOURS", "1")],
    );
    let run = folder.verify(
        &[],
        &[
            ("BACKUP_DIR", folder.dir()),
            ("BACKUP_MAX_AGE_HOURS", "two"),
        ],
    );
    run.fails(2).says("BACKUP_MAX_AGE_HOURS");
}

#[test]
fn complete_to_the_last_block() {
    for content in [&dumps().custom, &dumps().uncompressed] {
        let folder = Folder::new();
        let path = folder.write("a.dump", content);
        let file = path.to_str().unwrap();
        folder.is_good(&["--file", file], &[]);
        let length = content.len();
        // 812 bytes is what one team's dumps had for fourteen months.
        let cuts = [
            0,
            1,
            4,
            5,
            11,
            100,
            812,
            length / 10,
            length / 3,
            length / 2,
            length - 1000,
            length - 5,
            length - 1,
        ];
        for cut in cuts {
            fs::write(&path, &content[..cut]).unwrap();
            let run = folder.is_bad(&["--file", file], &[]);
            assert!(run.stdout.contains("a.dump"), "cut at {cut}\n{run}");
        }
        // Complete in length, wrong inside.
        for at in [length / 2, length - 200] {
            let mut broken = content.clone();
            let end = (at + 64).min(length);
            broken[at..end].fill(0xff);
            fs::write(&path, &broken).unwrap();
            let run = folder.verify(&["--file", file], &[]);
            // Uncompressed data holds no checksum; structure is all that can be known there.
            if content == &dumps().custom {
                verdict(run, 3);
            } else {
                assert!([0, 3].contains(&run.code), "{run}");
            }
        }
    }
}

#[test]
fn files_that_are_no_custom_dump() {
    let folder = Folder::new();
    // Plain SQL says at its end that it is complete.
    let plain = &dumps().plain;
    let path = folder.write("a.dump", plain);
    folder.is_good(&["--file", path.to_str().unwrap()], &[]);
    for content in [
        &plain[..plain.len() / 2],
        &plain[..812],
        b"pg_dump: error: aborting because of server version mismatch\n",
        &[0; 4096],
    ] {
        let path = folder.write("a.dump", content);
        folder.is_bad(&["--file", path.to_str().unwrap()], &[]);
    }
    // A tar dump is a dump; this check may know it or not, but must not call it damaged data and stop there.
    let path = folder.write("a.dump", &dumps().tar);
    let run = folder.verify(&["--file", path.to_str().unwrap()], &[]);
    assert!(run.code == 0 || run.stdout.contains("tar"), "{run}");
    let garbage: Vec<u8> = b"PGDMP"
        .iter()
        .copied()
        .chain((0..3000).map(|n| (n * 7) as u8))
        .collect();
    let path = folder.write("b.dump", &garbage);
    folder.is_bad(&["--file", path.to_str().unwrap()], &[]);
}

#[test]
fn nothing_to_check_is_bad() {
    let folder = Folder::new();
    folder.is_bad(&["--dump-dir", folder.dir()], &[]);
    folder.write("a.dump", &dumps().custom);
    folder.is_bad(
        &["--dump-dir", folder.dir(), "--glob", "memalerts-*.dump"],
        &[],
    );
    folder.is_bad(
        &[],
        &[("BACKUP_DIR", folder.dir()), ("BACKUP_GLOB", "*.sql")],
    );
    folder.is_good(&["--dump-dir", folder.dir(), "--glob", "?.du?p"], &[]);
    folder.is_bad(&["--file", "/nonexistent/a.dump"], &[]);
    folder.is_bad(&["--dump-dir", "/nonexistent"], &[]);
    folder.is_bad(&[], &[("BACKUP_FILE", "/nonexistent/a.dump")]);
    // A folder could be a dump in directory format. This one is none, and it is the newest.
    fs::create_dir(folder.dir.join("z.dump")).unwrap();
    folder.is_bad(&["--dump-dir", folder.dir()], &[]);
}

#[test]
fn any_of_the_variables_selects_the_folder() {
    let folder = Folder::new();
    let path = folder.write("a.dump", &dumps().custom);
    let file = path.to_str().unwrap();
    folder.is_good(&[], &[("BACKUP_DIR", folder.dir())]);
    folder.is_good(&[], &[("BACKUP_FILE", file)]);
    // The default folder, which this machine need not have: no error about repositories, in any case.
    for variable in [("BACKUP_GLOB", "no-such-*"), ("BACKUP_MAX_AGE_HOURS", "2")] {
        let run = folder.verify(&[], &[variable]);
        assert!([0, 3].contains(&run.code), "{run}");
        assert!(run.stdout.contains("/backups"), "{run}");
    }
    // Empty as an env file leaves it is not set.
    let run = folder.verify(&[], &[("BACKUP_DIR", ""), ("BACKUP_FILE", "")]);
    assert_eq!(run.code, 10, "{run}");
    let run = folder.verify(&["--json", "--file", file], &[]);
    run.ok().json("verify-dump");
}

#[test]
fn the_cron_line_of_memalerts_works_as_it_stands() {
    let folder = Folder::new();
    folder.write("memalerts-20260101-0000.dump", &dumps().custom);
    let app = folder.sandbox.root().join("opt");
    fs::create_dir(&app).unwrap();
    // `pnpm backup:verify` becomes `lifeboat verify`; the rest of the line stays.
    let line = format!(
        "cd {} && BACKUP_DIR={} lifeboat verify",
        app.display(),
        folder.dir()
    );
    let cron = || {
        let mut command = folder.sandbox.tool("sh");
        let program = support::lifeboat();
        let bin = program.parent().unwrap();
        command
            .args(["-c", &line])
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        folder.sandbox.finish(command)
    };
    verdict(cron(), 0);
    fs::write(folder.dir.join("memalerts-20260101-0100.dump"), "").unwrap();
    verdict(cron(), 3);
}
