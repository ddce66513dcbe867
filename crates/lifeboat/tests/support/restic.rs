//! The judge of what was stored: stock restic.

use serde_json::Value;

use super::{Run, Sandbox};

impl Sandbox {
    /// Runs restic on the repository.
    pub fn restic(&self, args: &[&str]) -> Run {
        let mut words = self.prefix.clone();
        words.push("restic".into());
        let mut command = self.tool(&words[0]);
        command
            .args(&words[1..])
            .arg("--no-cache")
            .args(args)
            .env("RESTIC_REPOSITORY", self.repository())
            .env("RESTIC_PASSWORD_FILE", self.password_file());
        self.finish(command)
    }

    /// Asserts that restic finds nothing wrong with any byte of the repository, unreferenced packs of an
    /// interrupted backup aside, which are no damage. Returns the snapshots.
    #[track_caller]
    pub fn restic_is_content(&self) -> Vec<Value> {
        let check = self.restic(&["check", "--read-data"]);
        assert!(check.code == 0, "restic is not content\n{check}");
        self.restic_snapshots()
    }

    /// The snapshots as restic tells them.
    #[track_caller]
    pub fn restic_snapshots(&self) -> Vec<Value> {
        let run = self.restic(&["snapshots", "--json"]);
        assert!(run.code == 0, "restic cannot list\n{run}");
        let snapshots: Value = serde_json::from_str(&run.stdout).expect("restic's JSON");
        // `null` for none, in some versions.
        snapshots.as_array().cloned().unwrap_or_default()
    }
}
