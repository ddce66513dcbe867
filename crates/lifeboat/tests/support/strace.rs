//! The program under strace, which does something to it at one of its system calls.

use std::process::Command;

use super::{Run, Sandbox, lifeboat};

impl Sandbox {
    /// The program with arguments under strace, with these words of strace's. The journal is put out of the way, so
    /// that every call is the repository's or the passphrase file's.
    pub fn traced(&self, args: &[&str], words: &[&str]) -> Command {
        let inner = self.command(args);
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq"])
            .args(words)
            .arg(lifeboat())
            .args(inner.get_args())
            .env_clear()
            .current_dir(self.work_dir());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("XDG_STATE_HOME", self.password_file());
        command
    }

    /// Runs it to its end, struck at the `when`th of these calls.
    pub fn struck(&self, args: &[&str], calls: &str, action: &str, when: usize) -> Run {
        let trace = format!("trace={calls}");
        let inject = format!("inject={calls}:{action}:when={when}");
        let words = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
        self.finish(self.traced(args, &words))
    }

    /// How often it makes these calls in one run, which is undisturbed.
    pub fn calls(&self, args: &[&str], calls: &str) -> usize {
        let log = self.root().join("calls");
        let trace = format!("trace={calls}");
        let words = ["-o", log.to_str().unwrap(), "-e", &trace];
        self.finish(self.traced(args, &words)).ok();
        std::fs::read_to_string(&log).unwrap().lines().count()
    }
}

/// One of so many calls, or each of them where the whole torture is asked for (`LIFEBOAT_TORTURE=1`).
pub fn some_of(count: usize, at_least: usize) -> impl Iterator<Item = usize> {
    let stride = if is_torture() {
        1
    } else {
        (count / at_least).max(1)
    };
    (1..=count).step_by(stride)
}

/// Whether the whole torture is asked for.
pub fn is_torture() -> bool {
    std::env::var_os("LIFEBOAT_TORTURE").is_some()
}
