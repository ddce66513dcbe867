//! A folder of `pg_dump -Fc` files becomes a history of backups: nothing is lost on the way, nothing is stored twice,
//! and a file that is not what it should be keeps no other from being imported.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_testkit::{TestDatabase, TestServer, awkward};
use rustix::process::Signal;
use serde_json::Value;
use support::midst::{another_big, locks, packs};
use support::processes::wait_for;
use support::sql::{Restored, assert_same, fingerprint, pg_restore, tool};
use support::{Run, Running, Sandbox, app_database, data, number, text};

/// Stock pg_dump in the custom format, to a file of the sandbox, on a server that is set to another zone than UTC.
fn dump(sandbox: &Sandbox, database: &TestDatabase<'_>, name: &str, options: &[&str]) -> PathBuf {
    dump_in("Asia/Kolkata", sandbox, database, name, options)
}

fn dump_in(
    zone: &str,
    sandbox: &Sandbox,
    database: &TestDatabase<'_>,
    name: &str,
    options: &[&str],
) -> PathBuf {
    let file = sandbox.root().join(name);
    let (words, pipe) = match options.split_first() {
        Some((&"|", rest)) => (rest, true),
        _ => (options, false),
    };
    let server = database.server();
    let mut command = Command::new(tool(server, "pg_dump"));
    command
        .args(words)
        .envs(server.tool_env(database.name()))
        .env("PGTZ", zone);
    if !words.iter().any(|word| word.starts_with("-F")) {
        command.arg("-Fc");
    }
    if !pipe {
        command.arg("-f").arg(&file);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    if pipe {
        fs::write(&file, output.stdout).unwrap();
    }
    file
}

/// Gives a dump another date, in UTC, as if pg_dump had been run then on a machine of that zone.
fn redate(file: &Path, time: Timestamp) {
    let mut bytes = fs::read(file).unwrap();
    // Magic, version, sizes and format; then the compression, a number before version 1.15, and since then a byte.
    let start = if bytes[6] >= 15 { 12 } else { 16 };
    let local = time.to_zoned(TimeZone::UTC).datetime();
    let fields = [
        i32::from(local.second()),
        i32::from(local.minute()),
        i32::from(local.hour()),
        i32::from(local.day()),
        i32::from(local.month()) - 1,
        i32::from(local.year()) - 1900,
    ];
    for (field, value) in fields.into_iter().enumerate() {
        let at = start + field * 5 + 1;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(file, bytes).unwrap();
    set_modified(file, time, 5);
}

fn set_modified(file: &Path, time: Timestamp, seconds_later: i64) {
    let seconds = u64::try_from(time.as_second() + seconds_later).unwrap();
    File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .unwrap();
}

fn hours_ago(hours: i64) -> Timestamp {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now - hours * 3600).unwrap()
}

fn import<I: AsRef<Path>>(sandbox: &Sandbox, files: &[I], options: &[&str]) -> Run {
    sandbox.run_with(["import"], |command| {
        command.args(options);
        command.args(files.iter().map(AsRef::as_ref));
    })
}

fn imported<I: AsRef<Path>>(sandbox: &Sandbox, files: &[I], options: &[&str]) -> Value {
    let mut words = vec!["--json"];
    words.extend(options);
    import(sandbox, files, &words).ok().json("import")
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_awkward_database_comes_back_as_the_dump_has_it() {
    let server = TestServer::shared();
    let database = awkward::load(server);
    let before = fingerprint(server, database.name());
    let sandbox = Sandbox::initialised(&database.url());
    let files = [
        dump(&sandbox, &database, "plain.dump", &["-Z0"]),
        dump(&sandbox, &database, "gzip.dump", &["-Z6"]),
        dump(&sandbox, &database, "pipe.dump", &["|", "-Z1"]),
    ];
    for (file, hours) in files.iter().zip([3, 2, 1]) {
        redate(file, hours_ago(hours));
    }
    let report = imported(&sandbox, &files, &["--database", "app"]);
    assert_eq!(report["imported"], 3, "{report:#}");
    // The same rows, however they were compressed: nothing of them is stored again.
    let new = |at: usize| number(&report["files"][at], "new_bytes");
    assert!(new(1) < new(0) / 4.0 && new(2) < new(0) / 4.0, "{report:#}");
    let ids = sandbox.listed();
    assert_eq!(ids.len(), 3);
    assert_eq!(sandbox.restic_is_content().len(), 3);
    sandbox
        .run(["verify", "--database", "app", "--read-data"])
        .ok();

    // What pg_restore makes of the dump, and what we make of the backup.
    let by_pg_restore = server.database_with("stock", "TEMPLATE template0 ENCODING 'UTF8'");
    pg_restore(server, by_pg_restore.name(), &[], &files[1]);
    assert_same(&before, &fingerprint(server, by_pg_restore.name()));
    for id in &ids {
        let target = Restored::reserve(server, "imported_to");
        sandbox
            .run(["restore", id, "--to", target.name(), "--owner"])
            .ok();
        assert_same(&before, &fingerprint(server, target.name()));
        sandbox.run(["drill", id]).ok();
    }
    let exported = sandbox.root().join("again.dump");
    sandbox.run(["export", &ids[2], "-o", utf8(&exported)]).ok();
    let target = server.database_with("exported", "TEMPLATE template0 ENCODING 'UTF8'");
    pg_restore(server, target.name(), &["-j2"], &exported);
    assert_same(&before, &fingerprint(server, target.name()));
    sandbox.assert_nothing_left();
}

#[test]
fn it_is_shown_as_what_it_is_and_a_table_comes_out_of_it() {
    let server = TestServer::shared();
    let database = app_database("shown");
    let sandbox = Sandbox::initialised(&database.url());
    let file = dump(&sandbox, &database, "a.dump", &[]);
    let dry = imported(&sandbox, &[&file], &["--dry-run"]);
    assert_eq!(dry["dry_run"], true);
    assert_eq!(dry["files"][0]["action"], "import", "{dry:#}");
    assert_eq!(dry["files"][0]["database"], database.name());
    assert_eq!(dry["files"][0]["compression"], "gzip");
    assert!(sandbox.listed().is_empty());

    let report = imported(&sandbox, &[&file], &[]);
    let one = &report["files"][0];
    assert_eq!(one["migration"], "20260102000000_activations", "{report:#}");
    let id = text(one, "backup");
    let show = sandbox.run(["show", &id, "--json"]).ok().json("show");
    let manifest = &show["manifest"];
    assert_eq!(text(&manifest["imported"], "file"), utf8(&file));
    assert_eq!(
        number(&manifest["imported"], "size_bytes"),
        fs::metadata(&file).unwrap().len() as f64
    );
    for unknown in ["lsn", "read_finished"] {
        assert_eq!(manifest[unknown], Value::Null, "{show:#}");
    }
    assert_eq!(show["backup"]["proof"], Value::Null);
    // As the rows are written, whatever the server's zone is.
    assert!(manifest["row_time_zone"].is_string(), "{manifest:#}");
    let words = sandbox.run(["show", &id]).ok();
    assert!(words.stdout.contains(utf8(&file)), "{words}");
    assert!(words.stdout.contains("taken, not verified yet"), "{words}");

    let target = Restored::reserve(server, "one_table");
    sandbox
        .run(["restore", &id, "--to", target.name(), "--table", "users"])
        .ok();
    let count = support::sql::psql(server, target.name(), "SELECT count(*) FROM users");
    assert_eq!(count.trim(), "500");
    sandbox.run(["drill", &id]).ok();
    let show = sandbox.run(["show", &id, "--json"]).ok().json("show");
    assert_eq!(show["backup"]["proof"]["level"], "proven");
    sandbox.assert_nothing_left();
}

#[test]
fn a_month_of_dumps_is_little_more_than_one() {
    let database = app_database("month");
    let sandbox = Sandbox::initialised(&database.url());
    let folder = sandbox.root().join("dumps");
    fs::create_dir(&folder).unwrap();
    let mut sum = 0;
    for hour in 0..30_u32 {
        database.sql(&format!(
            "UPDATE users SET name = 'hour {hour}' WHERE id % 100 = {};
             INSERT INTO activations (meme, at, note) SELECT 1 + g, now(), md5('{hour} ' || g) FROM generate_series(1, 20) AS g",
            hour
        ));
        // Else the timestamps would be other text than in our own backups, and be stored again once.
        let name = format!("dumps/{hour}.dump");
        let file = dump_in("UTC", &sandbox, &database, &name, &["-Z6"]);
        redate(&file, hours_ago(30 - i64::from(hour)));
        sum += fs::metadata(&file).unwrap().len();
    }
    let report = imported(&sandbox, &[&folder], &[]);
    assert_eq!(report["imported"], 30, "{report:#}");
    let new = number(&report, "new_bytes");
    assert!(new < sum as f64 / 4.0, "{new} of {sum}");
    // The oldest first, each after the one before it.
    let times: Vec<String> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| text(file, "snapshot_time"))
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(sandbox.restic_is_content().len(), 30);
    // Our own backup of the same tables finds their rows.
    let own = sandbox.run(["backup", "--json"]).ok().json("backup");
    let first = number(&report["files"][0], "new_bytes");
    assert!(number(&own, "new_bytes") < first / 4.0, "{own:#} {first}");

    let again = imported(&sandbox, &[&folder], &[]);
    assert_eq!(again["already_there"], 30, "{again:#}");
    assert_eq!(again["imported"], 0);
    // Under another name, too.
    let copy = sandbox.root().join("copy.dump");
    fs::copy(folder.join("7.dump"), &copy).unwrap();
    let again = imported(&sandbox, &[&copy], &[]);
    assert_eq!(again["already_there"], 1, "{again:#}");
    assert_eq!(sandbox.listed().len(), 31);
    assert_eq!(locks(&sandbox), 0);
}

#[test]
fn what_is_not_importable_is_refused_and_the_others_go_on() {
    let database = app_database("refused");
    let sandbox = Sandbox::initialised(&database.url());
    let good = dump(&sandbox, &database, "good.dump", &["-Z6"]);
    let whole = fs::read(&good).unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = sandbox.root().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let mut flipped = whole.clone();
    let at = whole.len() - whole.len() / 3;
    flipped[at] ^= 0x10;
    let longer = [&whole[..], b"more"].concat();
    let redated = |name: &str, time: &str| {
        let path = write(name, &whole);
        redate(&path, time.parse().unwrap());
        path
    };
    let bad = [
        (write("cut.dump", &whole[..whole.len() / 2]), "ends at byte"),
        (write("head.dump", &whole[..300]), "ends at byte"),
        (write("flipped.dump", &flipped), "damaged"),
        (write("longer.dump", &longer), "more bytes follow"),
        (write("empty.dump", b""), "an empty file"),
        (
            write("text.dump", b"pg_dump: error: connection failed\n"),
            "a text file",
        ),
        (
            dump(&sandbox, &database, "plain.sql", &["-Fp"]),
            "a plain SQL dump",
        ),
        (
            dump(&sandbox, &database, "folder", &["-Fd"]),
            "directory format",
        ),
        (dump(&sandbox, &database, "a.tar", &["-Ft"]), "a tar file"),
        (dump(&sandbox, &database, "schema.dump", &["-s"]), "no rows"),
        (
            dump(&sandbox, &database, "data.dump", &["-a"]),
            "without their tables",
        ),
        (
            dump(&sandbox, &database, "inserts.dump", &["--inserts"]),
            "INSERT",
        ),
        (sandbox.root().join("nowhere.dump"), "cannot be read"),
        (
            redated("future.dump", "2090-01-01T00:00:00Z"),
            "in the future",
        ),
        (
            redated("old.dump", "1999-01-01T00:00:00Z"),
            "before there were such dumps",
        ),
    ];
    for (path, why) in &bad {
        let run = import(&sandbox, &[path], &[]).fails(1).says(why);
        assert!(run.error().contains(utf8(path)), "{run}");
        // What is only found by reading to the end is nothing that a dry run does.
        let is_seen = !["cut.dump", "flipped.dump", "longer.dump"]
            .iter()
            .any(|name| path.ends_with(name));
        import(&sandbox, &[path], &["--dry-run"]).code_is(i32::from(is_seen));
    }
    assert!(sandbox.listed().is_empty());
    assert_eq!(sandbox.restic_is_content().len(), 0);

    let mut all: Vec<&Path> = bad.iter().map(|(path, _)| path.as_path()).collect();
    all.insert(3, &good);
    let run = import(&sandbox, &all, &["--json"]).code_is(1);
    let report = run.json("import");
    assert_eq!(report["refused"], bad.len(), "{report:#}");
    assert_eq!(report["imported"], 1);
    assert_eq!(sandbox.restic_is_content().len(), 1);
    let run = import(&sandbox, &all, &[])
        .fails(1)
        .says("15 of 16 files were refused");
    assert!(run.stdout.contains("already there"), "{run}");
    sandbox.run(["drill"]).ok();
    sandbox.run(["import"]).code_is(2);
    let empty = sandbox.root().join("nothing");
    fs::create_dir(&empty).unwrap();
    import(&sandbox, &[&empty], &[]).fails(1).says("no file in");
    assert_eq!(locks(&sandbox), 0);
}

/// Archives that pg_dump 15 to 18 made, in every version of the format and every compression.
#[test]
fn every_format_and_compression() {
    let database = app_database("formats");
    let sandbox = Sandbox::initialised(&database.url());
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lifeboat-pg/tests/archives");
    let names = [
        "pg15-z6",
        "pg16-z6-redirect",
        "pg17-lz4",
        "pg17-zstd",
        "pg18-z0",
    ];
    let files = names.map(|name| {
        let packed = fixtures.join(format!("{name}.dump.gz"));
        // As it is, it is no dump.
        import(&sandbox, &[&packed], &[])
            .fails(1)
            .says("a gzip file");
        let file = sandbox.root().join(format!("{name}.dump"));
        let output = Command::new("gzip")
            .arg("-dc")
            .arg(packed)
            .output()
            .unwrap();
        fs::write(&file, output.stdout).unwrap();
        file
    });
    let report = imported(
        &sandbox,
        &files,
        &["--database", "sample", "--time-zone", "UTC"],
    );
    assert_eq!(report["imported"], names.len(), "{report:#}");
    for one in report["files"].as_array().unwrap() {
        assert_eq!(one["rows"], report["files"][0]["rows"], "{report:#}");
        let id = text(one, "backup");
        let out = sandbox.root().join(format!("{id}.dump"));
        sandbox.run(["export", &id, "-o", utf8(&out)]).ok();
        sandbox.run(["verify", "--file", utf8(&out)]).ok();
    }
    sandbox
        .run([
            "verify",
            "--read-data",
            "--database",
            "sample",
            "--max-age",
            "36500d",
        ])
        .ok();
    assert_eq!(sandbox.restic_is_content().len(), names.len());
}

#[test]
fn flipped_bytes_of_what_is_compressed_are_found() {
    let database = TestServer::shared().database("flips");
    database.sql("CREATE TABLE t (id int, note text); INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 300) AS g");
    let sandbox = Sandbox::initialised(&database.url());
    let file = dump(&sandbox, &database, "a.dump", &["-Z6"]);
    let whole = fs::read(&file).unwrap();
    // The data block is the last thing of the file; its own end is a length of zero.
    for back in [1, 3, 5, 7, 9, 40, 400, 2000, 4000] {
        let mut flipped = whole.clone();
        let at = flipped.len() - back;
        flipped[at] ^= 0x04;
        fs::write(&file, flipped).unwrap();
        import(&sandbox, &[&file], &[]).fails(1);
    }
    assert!(sandbox.listed().is_empty());
}

#[test]
fn a_dump_has_the_date_of_the_zone_it_was_made_in() {
    let database = app_database("zones");
    let sandbox = Sandbox::initialised(&database.url());
    let file = dump(&sandbox, &database, "a.dump", &[]);
    let local: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    redate(&file, local);
    let time = |options: &[&str], zone: &str| {
        let mut words = vec!["--dry-run", "--json"];
        words.extend(options);
        let run = sandbox.run_with(["import"], |command| {
            command.args(&words).arg(&file).env("TZ", zone);
        });
        let plan = run.ok().json("import");
        text(&plan["files"][0], "snapshot_time")
    };
    assert_eq!(time(&[], "UTC"), "2026-03-01T12:00:00Z");
    // Written to at 10:00:05 UTC: two hours to the east, wherever it is imported.
    set_modified(&file, local, -7195);
    assert_eq!(time(&[], "UTC"), "2026-03-01T10:00:00Z");
    assert_eq!(time(&[], "America/New_York"), "2026-03-01T10:00:00Z");
    // Copied without its time.
    set_modified(&file, local, 90 * 86_400);
    assert_eq!(time(&[], "UTC"), "2026-03-01T12:00:00Z");
    assert_eq!(time(&[], "America/New_York"), "2026-03-01T17:00:00Z");
    let given = ["--time-zone", "Asia/Kolkata"];
    assert_eq!(time(&given, "UTC"), "2026-03-01T06:30:00Z");
    let given = ["--time-zone", "-03:00"];
    assert_eq!(time(&given, "UTC"), "2026-03-01T15:00:00Z");
    sandbox
        .run(["import", "--time-zone", "Mars/Olympus", utf8(&file)])
        .code_is(2);
}

/// The same database's name on a server that is not asked.
fn another_server_of(database: &TestDatabase<'_>) -> String {
    format!("postgresql://nobody@127.0.0.1:1/{}", database.name())
}

#[test]
fn the_configured_name_is_found() {
    let database = app_database("named");
    let sandbox = Sandbox::initialised(&database.url());
    let file = dump(&sandbox, &database, "a.dump", &[]);
    let config = sandbox.root().join("lifeboat.toml");
    let url = sandbox.root().join("url");
    support::write_secret(&url, &database.url());
    fs::write(
        &config,
        format!(
            "[[database]]\nname = \"shop\"\nurl_file = \"{}\"\n",
            utf8(&url)
        ),
    )
    .unwrap();
    let mut command = sandbox.command(["--config", utf8(&config), "import", "--json", utf8(&file)]);
    command.env_remove("DATABASE_URL");
    let report = sandbox.finish(command).ok().json("import");
    assert_eq!(report["files"][0]["database"], "shop", "{report:#}");

    // Two that go by its name: nobody guesses, and one name is not given to two databases.
    let other = another_server_of(&database);
    support::write_secret(&sandbox.root().join("other-url"), &other);
    let both = fs::read_to_string(&config).unwrap()
        + "[[database]]\nname = \"staging\"\nurl_file = \"other-url\"\n";
    fs::write(&config, both).unwrap();
    let import = |more: &[&str]| {
        let mut words = vec![
            "--config",
            utf8(&config),
            "import",
            "--dry-run",
            utf8(&file),
        ];
        words.extend(more);
        let mut command = sandbox.command(words);
        command.env_remove("DATABASE_URL");
        sandbox.finish(command)
    };
    import(&[]).code_is(1).says("shop, staging");
    import(&["--database", "staging"]).ok();
    let second = app_database("named_otherwise");
    let stranger = dump(&sandbox, &second, "b.dump", &[]);
    import(&["--database", "staging", utf8(&stranger)])
        .fails(2)
        .says("several databases");
}

/// What `expire` says of each backup: dated before its time?
fn back_dated(sandbox: &Sandbox) -> Vec<bool> {
    let run = sandbox.run(["expire", "--dry-run", "--json", "--keep-last", "2"]);
    let expired = run.ok().json("expire");
    let backups = expired["backups"].as_array().unwrap().iter();
    backups.map(|one| !one["not_before"].is_null()).collect()
}

#[test]
fn expire_knows_what_this_machine_has_imported() {
    let database = app_database("dated");
    let sandbox = Sandbox::initialised(&database.url());
    sandbox.backup();
    // The backup's file is three days old; what is stored now is dated long before it.
    let own = support::files(&sandbox.repository().join("snapshots"));
    set_modified(&own[0], hours_ago(72), 0);
    let files: Vec<PathBuf> = (0..5)
        .map(|number| {
            let file = dump(&sandbox, &database, &format!("{number}.dump"), &[]);
            redate(&file, hours_ago(2000 + number));
            file
        })
        .collect();
    imported(&sandbox, &files, &[]);
    assert_eq!(back_dated(&sandbox), [false; 6]);
    // A hold gives a backup another ID, and a file that was stored anew.
    let oldest = sandbox.listed()[0].clone();
    sandbox
        .run(["hold", &oldest, "--reason", "first of all"])
        .ok();
    assert_eq!(back_dated(&sandbox), [false; 6]);
    let expired = sandbox
        .run(["expire", "--dry-run", "--keep-last", "1"])
        .ok();
    assert!(expired.stdout.contains("2 backups would go"), "{expired}");

    // Nor does a copy look dated back that was made long after another one, or proven by nobody.
    let config = sandbox.root().join("copied.toml");
    fs::write(
        &config,
        "[[repository]]\n\n[[repository]]\nname = \"disk\"\npath = \"disk\"\n",
    )
    .unwrap();
    let with = |words: &[&str]| {
        let config = ["--config", utf8(&config)];
        sandbox.run(words.iter().chain(&config)).ok()
    };
    with(&["init", "--repository", "disk"]);
    with(&["copy"]);
    let oldest = sandbox.listed()[0].clone();
    // The backup arrived first, the others three days later.
    let newest = sandbox.listed().pop().unwrap();
    for copied in support::files(&sandbox.root().join("disk/snapshots")) {
        if copied.ends_with(&newest) {
            set_modified(&copied, hours_ago(72), 0);
        }
    }
    sandbox.run(["drill", &oldest]).ok();
    let run = with(&[
        "expire",
        "--dry-run",
        "--json",
        "--keep-last",
        "1",
        "--repository",
        "disk",
    ]);
    let expired = run.json("expire");
    let backups = expired["backups"].as_array().unwrap();
    assert!(
        backups.iter().all(|one| one["not_before"].is_null()),
        "{expired:#}"
    );
    let drilled = backups.iter().find(|one| one["backup"] == oldest.as_str());
    assert!(
        drilled.unwrap()["rules"].to_string().contains("proven"),
        "{expired:#}"
    );

    // Without the journal nobody knows: they stay, and push nothing out.
    fs::remove_dir_all(sandbox.state_dir().join("lifeboat")).unwrap();
    let flags = back_dated(&sandbox);
    assert_eq!(flags.iter().filter(|flag| **flag).count(), 4, "{flags:?}");
}

#[test]
fn an_import_that_is_stopped_goes_on_where_it_was() {
    let database = another_big("stopped");
    let sandbox = Sandbox::new(&database.url());
    let first = dump(&sandbox, &database, "1.dump", &["-Z1"]);
    data::churn(&database);
    let second = dump(&sandbox, &database, "2.dump", &["-Z1"]);
    redate(&first, hours_ago(2));
    redate(&second, hours_ago(1));
    for signal in [Signal::INT, Signal::KILL] {
        let fresh = Sandbox::initialised(&database.url());
        let command = fresh.command(["import", utf8(&first), utf8(&second)]);
        let mut running = Running::start(command);
        wait_for("the first pack", || {
            assert!(!running.has_ended(), "the file is too small to be met");
            packs(&fresh) > 0
        });
        running.signal(signal);
        let run = fresh.check(running.wait());
        if signal == Signal::INT {
            run.was_interrupted();
            assert_eq!(locks(&fresh), 0);
        }
        assert!(fresh.listed().is_empty());
        let check = fresh.restic(&["check", "--read-data", "--no-lock"]);
        assert_eq!(check.code, 0, "{check}");
        let report = imported(&fresh, &[&first, &second], &[]);
        assert_eq!(report["imported"], 2, "{report:#}");
        assert_eq!(fresh.restic_is_content().len(), 2);
        fresh.run(["drill"]).ok();
    }
}
