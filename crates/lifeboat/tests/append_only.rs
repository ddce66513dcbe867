//! A credential that may only add: `append_only = true` asks to remove nothing, its own locks included, and what
//! removes is done elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;

use support::{Sandbox, app_database, data, files, text};

#[test]
fn backups_remove_nothing_and_expire_runs_elsewhere() {
    let database = app_database("append_only");
    let mut sandbox = Sandbox::initialised(&database.url());
    let config = sandbox.root().join("append-only.toml");
    fs::write(&config, "[repository]\nappend_only = true\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    let locks = |sandbox: &Sandbox| files(&sandbox.repository().join("locks")).len();

    let calls = sandbox.root().join("calls");
    sandbox.prefix = ["strace", "-f", "-qq", "-e", "trace=unlink,unlinkat", "-o"]
        .map(Into::into)
        .to_vec();
    sandbox.prefix.push(calls.clone().into());
    for (seed, command) in ["backup", "backup", "verify", "list", "drill"]
        .iter()
        .enumerate()
    {
        sandbox.run([*command, "--config", &config]).ok();
        let repository = sandbox.repository();
        let removed = fs::read_to_string(&calls).unwrap();
        assert!(
            !removed.contains(repository.to_str().unwrap()),
            "{command} removed something\n{removed}"
        );
        data::churn_a_little(&database, seed);
    }
    sandbox.prefix.clear();
    assert!(locks(&sandbox) >= 4, "{}", locks(&sandbox));

    for refused in [
        &["expire", "--keep-last", "1"][..],
        &["hold", "latest", "--reason", "x"],
        &["key", "rotate"],
    ] {
        let words: Vec<&str> = refused
            .iter()
            .copied()
            .chain(["--config", &config])
            .collect();
        sandbox.run(words).fails(4).says("append-only");
    }
    // Elsewhere, at once: nobody waits for locks that were released.
    let run = sandbox.run(["expire", "--json", "--keep-last", "1"]).ok();
    assert_eq!(text(&run.json("expire"), "policy"), "1 last");
    assert_eq!(locks(&sandbox), 0);
    assert_eq!(sandbox.restic_is_content().len(), 2);
    sandbox.run(["backup", "--config", &config]).ok();
    // restic honours a lock that was released until it is stale.
    let check = sandbox.restic(&["check", "--read-data", "--no-lock"]);
    assert_eq!(check.code, 0, "{check}");
    assert_eq!(sandbox.listed().len(), 3);
}
