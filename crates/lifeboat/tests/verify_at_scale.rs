//! `verify --read-data` reads what is new and what was not read for long, says honestly what it did not read, and
//! a rolling share comes round to everything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::running::Run;
use support::{Sandbox, data, files, number, text};

fn packs(sandbox: &Sandbox) -> Vec<PathBuf> {
    files(&sandbox.repository().join("data"))
}

fn verify(sandbox: &Sandbox, args: &[&str]) -> (Value, Run) {
    let words = ["verify", "--json"].iter().chain(args);
    let run = sandbox.run(words);
    (run.json("verify"), run)
}

/// What is known of a backup.
fn level(sandbox: &Sandbox, id: &str) -> String {
    let list = sandbox.run(["list", "--json"]).ok().json("list");
    let backups = list["backups"].as_array().unwrap();
    let own = backups.iter().find(|one| text(one, "backup") == id);
    text(&own.unwrap()["proof"], "level")
}

#[test]
fn what_was_read_lately_is_not_read_again_unless_asked_for() {
    let (database, sandbox, _) = Sandbox::with_backup("lately");
    let first = packs(&sandbox).len() as f64;
    let (report, _) = verify(&sandbox, &["--read-data"]);
    let coverage = &report["coverage"];
    assert_eq!(number(coverage, "packs_read_now"), first);
    assert_eq!(report["backup_is_read"], true);

    data::churn(&database);
    sandbox.backup();
    let all = packs(&sandbox).len() as f64;
    let (report, _) = verify(&sandbox, &["--read-data"]);
    let coverage = &report["coverage"];
    assert_eq!(number(coverage, "packs_read_now"), all - first);
    assert_eq!(number(coverage, "packs_read_earlier"), first);
    assert_eq!(number(coverage, "bytes_unread"), 0.0);
    // Every byte the new backup needs was read, if not all of them just now.
    assert_eq!(report["backup_is_read"], true);

    let run = sandbox.run(["verify", "--read-data"]).ok();
    assert!(run.stdout.contains("0 B read and hashed now"), "{run}");
    let run = sandbox.run(["verify", "--all"]).ok();
    assert!(run.stdout.contains("all "), "{run}");
    let (report, _) = verify(&sandbox, &["--all"]);
    assert_eq!(number(&report["coverage"], "packs_read_now"), all);
    let (report, _) = verify(&sandbox, &["--read-data", "--max-proof-age", "1s"]);
    let again = number(&report["coverage"], "packs_read_now")
        + number(&report["coverage"], "packs_read_earlier");
    assert_eq!(again, all);
}

#[test]
fn a_file_that_was_touched_is_read_again_and_rot_is_found_by_all() {
    let (_database, sandbox, id) = Sandbox::with_backup("rot");
    sandbox.run(["verify", "--read-data"]).ok();
    // One of data: trees are read by every verification.
    let size = |pack: &PathBuf| fs::metadata(pack).unwrap().len();
    let pack = packs(&sandbox).into_iter().max_by_key(size).unwrap();
    let good = fs::read(&pack).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    let before = fs::metadata(&pack).unwrap().modified().unwrap();
    fs::write(&pack, &bad).unwrap();
    let (report, run) = verify(&sandbox, &["--read-data"]);
    assert_eq!(run.code, 3, "{run}");
    assert!(report["problems"].to_string().contains(&id[..8]), "{run}");

    // Mended and read; then the disk rots, and tells nobody.
    fs::write(&pack, &good).unwrap();
    sandbox.run(["verify", "--read-data"]).ok();
    let file = fs::File::options().write(true).open(&pack).unwrap();
    let read = fs::metadata(&pack).unwrap().modified().unwrap();
    assert!(read > before);
    fs::write(&pack, &bad).unwrap();
    file.set_modified(read).unwrap();
    let run = sandbox.run(["verify", "--read-data"]).ok();
    assert!(run.stdout.contains("0 B read and hashed now"), "{run}");
    let run = sandbox.run(["verify", "--all"]);
    assert_eq!(run.code, 3, "{run}");
    // Once known to be bad it is never taken for read.
    let run = sandbox.run(["verify", "--read-data"]);
    assert_eq!(run.code, 3, "{run}");
}

#[test]
fn a_share_says_what_it_left_out_and_proves_nothing_until_all_was_read() {
    let (database, sandbox, _) = Sandbox::with_backup("share");
    data::churn_a_little(&database, 1);
    sandbox.backup();
    data::churn_a_little(&database, 2);
    let newest = sandbox.backup();
    let all = packs(&sandbox).len();
    assert!(all >= 3, "{all} packs");
    let run = sandbox.run(["verify", "--subset", "1/1000"]).ok();
    assert!(run.stdout.contains("not read within 30"), "{run}");
    assert_eq!(level(&sandbox, &newest), "complete");
    let mut turns = 1;
    loop {
        let (report, run) = verify(&sandbox, &["--subset", "1/1000"]);
        assert_eq!(run.code, 0, "{run}");
        turns += 1;
        let coverage = &report["coverage"];
        assert!(number(coverage, "packs_read_now") >= 1.0, "{run}");
        if number(coverage, "bytes_unread") == 0.0 {
            break;
        }
        assert!(turns < all, "{turns} turns for {all} packs");
    }
    assert_eq!(level(&sandbox, &newest), "verified");
    for bad in ["0/3", "half", "4/3", "200%"] {
        assert_eq!(sandbox.run(["verify", "--subset", bad]).code, 2, "{bad}");
    }
    let both = sandbox.run(["verify", "--subset", "1/3", "--all"]);
    assert_eq!(both.code, 2, "{both}");
}
