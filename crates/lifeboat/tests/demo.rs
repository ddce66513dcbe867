//! `lifeboat demo`: the whole life of a backup in front of one's eyes, and nothing left of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::processes::{naming, wait_for};
use support::{Running, Sandbox, entries, lifeboat};

fn demo(sandbox: &Sandbox) -> std::process::Command {
    // No variable, no configuration, no server of anybody's.
    let mut command = sandbox.tool(lifeboat());
    command.arg("demo");
    command
}

fn assert_untouched(sandbox: &Sandbox) {
    sandbox.assert_nothing_left();
    for folder in ["home", "config", "state", "cache", "work"] {
        let found = support::files(&sandbox.root().join(folder));
        assert!(found.is_empty(), "left in {folder}: {found:?}");
    }
    assert!(!sandbox.repository().exists());
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let sandbox = Sandbox::new("");
    let run = sandbox.finish(demo(&sandbox)).ok();
    assert!(run.took < Duration::from_secs(120), "{run}");
    let all = format!("{}{}", run.stdout, run.stderr);
    for word in ["RPO", "RTO", "proven"] {
        assert!(all.contains(word), "no {word}\n{run}");
    }
    assert_untouched(&sandbox);
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_either() {
    let sandbox = Sandbox::new("");
    for signal in [Signal::INT, Signal::KILL] {
        let mut running = Running::start(demo(&sandbox));
        wait_for("its server", || {
            !naming(&sandbox.tmp_dir()).is_empty() || running.has_ended()
        });
        running.signal(signal);
        let run = sandbox.check(running.wait());
        if signal == Signal::INT {
            run.was_interrupted();
            assert_untouched(&sandbox);
        } else {
            wait_for("its server to end", || {
                naming(&sandbox.tmp_dir()).is_empty()
            });
        }
    }
    // The next one sweeps what the killed one may have left.
    sandbox.finish(demo(&sandbox)).ok();
    assert!(entries(&sandbox.tmp_dir()).is_empty());
    assert_untouched(&sandbox);
}
