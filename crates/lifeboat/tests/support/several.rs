//! Several repositories in one configuration file: the primary, and whatever a test adds.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use lifeboat_testkit::remote::{S3Server, SshServer};
use serde_json::Value;

use super::{Run, Sandbox, write_secret};

const OTHER_PASSPHRASE: &str = "walrus-Passphrase-51c0de";

/// A sandbox with a configuration file, beside which lie the credentials that repositories may need.
#[derive(Debug)]
pub struct World {
    pub sandbox: Sandbox,
}

impl Deref for World {
    type Target = Sandbox;
    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl World {
    /// With the primary in the sandbox, and these.
    pub fn new(url: &str, others: &str) -> World {
        World::of(url, &primary_and(others))
    }

    /// With these repositories, of which the first is the primary.
    pub fn of(url: &str, repositories: &str) -> World {
        let mut sandbox = Sandbox::new(url);
        sandbox.secrets.push(OTHER_PASSPHRASE.to_owned());
        sandbox.secrets.push(S3Server::SECRET_ACCESS_KEY.to_owned());
        write_secret(&sandbox.root().join("other-passphrase"), OTHER_PASSPHRASE);
        let keys = format!(
            "aws_access_key_id = {}\naws_secret_access_key = {}\n",
            S3Server::ACCESS_KEY_ID,
            S3Server::SECRET_ACCESS_KEY
        );
        write_secret(&sandbox.root().join("s3-keys"), &keys);
        sandbox.config = Some(sandbox.root().join("lifeboat.toml"));
        let world = World { sandbox };
        world.write(repositories);
        world
    }

    /// The primary in the sandbox, and others than before.
    pub fn configure(&self, others: &str) {
        self.write(&primary_and(others));
    }

    /// Other repositories than before.
    pub fn write(&self, repositories: &str) {
        std::fs::write(self.config(), repositories).unwrap();
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.sandbox.root().join("lifeboat.toml")
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Run {
        self.sandbox.run(args)
    }

    /// Takes a backup, and returns what was said of it.
    #[track_caller]
    pub fn backup(&self) -> Value {
        self.run(&["backup", "--json"]).ok().json("backup")
    }

    /// The backups that `list` shows of one of them.
    #[track_caller]
    pub fn listed_in(&self, repository: &str) -> Vec<String> {
        let list = self.run(&["list", "--json", "--repository", repository]);
        let list = list.ok().json("list");
        let backups = list["backups"].as_array().unwrap().iter();
        backups.map(|one| super::text(one, "backup")).collect()
    }

    /// restic on any location, with any passphrase file.
    #[track_caller]
    pub fn restic_is_content(&self, location: &str, password: &Path, extra: &[String]) {
        let mut command = self.sandbox.tool("restic");
        command
            .args(extra)
            .args(["--no-cache", "check", "--read-data"])
            .env("RESTIC_REPOSITORY", location)
            .env("RESTIC_PASSWORD_FILE", password)
            .env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY);
        let run = self.sandbox.finish(command);
        assert!(
            run.code == 0 && run.stdout.contains("no errors were found"),
            "restic is not content\n{run}"
        );
    }
}

fn primary_and(others: &str) -> String {
    format!("[[repository]]\npath = \"repository\"\n\n{others}")
}

/// A repository in a folder beside the configuration file.
pub fn a_folder(name: &str) -> String {
    format!("[[repository]]\nname = \"{name}\"\npath = \"{name}\"\n\n")
}

/// A repository in a bucket.
pub fn a_bucket(name: &str, location: &str, more: &str) -> String {
    format!(
        "[[repository]]\nname = \"{name}\"\nurl = \"{location}\"\ncredentials_file = \"s3-keys\"\n{more}\n\n"
    )
}

/// A repository in a folder that this server lets one in to.
pub fn a_folder_behind_ssh(name: &str, server: &SshServer, more: &str) -> String {
    format!(
        "[[repository]]\nname = \"{name}\"\nurl = \"{}\"\nssh_command = [\"ssh\", \"-F\", \"{}\"]\n{more}\n\n",
        server.location(&format!("{name}-{}", std::process::id())),
        server.ssh_config().display()
    )
}

/// A location in a bucket that nobody else has.
pub fn in_a_new_bucket(server: &S3Server) -> String {
    format!("s3:{}/{}/offsite", server.endpoint(), server.bucket())
}

/// What `copy --json` says of one of them.
pub fn destination<'a>(copied: &'a Value, name: &str) -> &'a Value {
    let all = copied["destinations"].as_array().unwrap();
    all.iter()
        .find(|one| one["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {copied:#}"))
}
