//! What the end-to-end tests share: a sandbox in which the built `lifeboat` runs as a user would run it.
//!
//! Nothing in here knows the program's inside. What was stored is asked of restic, what was restored is
//! asked of psql. Every run, whatever its test is about, is also held against what must always be true: no
//! secret and no escape code in piped output, no panic, and failures that say one fact and at least one hint.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "every test file compiles its own copy and uses a part of it; a test fails by panicking"
)]

pub mod data;
pub mod midst;
pub mod power;
pub mod processes;
pub mod pty;
pub mod report;
pub mod restic;
pub mod running;
pub mod s3;
pub mod several;
pub mod small_disk;
pub mod sql;
pub mod strace;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_testkit::{TestDatabase, TestServer, search_path};
use serde_json::Value;
use tempfile::TempDir;

pub use running::{Run, Running};

/// The passphrase of every sandbox's repository.
pub const PASSPHRASE: &str = "dolphin-Passphrase-7f3a91";

/// The program under test: the one just built, or, to test one that was installed or packaged, the one that
/// `LIFEBOAT_TEST_PROGRAM` names.
pub fn lifeboat() -> PathBuf {
    let named = std::env::var_os("LIFEBOAT_TEST_PROGRAM").filter(|name| !name.is_empty());
    named.map_or_else(|| env!("CARGO_BIN_EXE_lifeboat").into(), PathBuf::from)
}

/// A user's little world: a home, a repository's place, a passphrase, and the three variables set.
#[derive(Debug)]
pub struct Sandbox {
    root: TempDir,
    marker: String,
    url: String,
    /// What must never be printed, besides the passphrase.
    pub secrets: Vec<String>,
    /// Words before the program: how a test puts it into another mount namespace.
    pub prefix: Vec<OsString>,
    /// A configuration file that says where the repository is, in place of the environment.
    pub config: Option<PathBuf>,
}

impl Sandbox {
    /// A sandbox whose `DATABASE_URL` is this.
    pub fn new(url: &str) -> Sandbox {
        let root = tempfile::Builder::new()
            .prefix("lifeboat-e2e-")
            .tempdir_in("/tmp")
            .expect("a sandbox");
        // As root, scratch servers run as another user, who has to pass through.
        set_mode(root.path(), 0o755);
        for folder in ["home", "config", "state", "cache", "tmp", "work"] {
            fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        set_mode(&root.path().join("tmp"), 0o1777);
        let sandbox = Sandbox {
            marker: format!("LIFEBOAT_E2E={}", root.path().display()),
            root,
            url: url.to_owned(),
            secrets: Vec::new(),
            prefix: Vec::new(),
            config: None,
        };
        write_secret(&sandbox.password_file(), &format!("{PASSPHRASE}\n"));
        sandbox
    }

    /// As [`Sandbox::new`], with its repository made by `init`.
    pub fn initialised(url: &str) -> Sandbox {
        let sandbox = Sandbox::new(url);
        sandbox.run(["init"]).ok();
        sandbox
    }

    /// As [`Sandbox::initialised`], of a database of its own, with one backup taken: its ID comes last.
    pub fn with_backup(name: &str) -> (TestDatabase<'static>, Sandbox, String) {
        let database = app_database(name);
        let sandbox = Sandbox::initialised(&database.url());
        let id = sandbox.backup();
        (database, sandbox, id)
    }

    /// Another sandbox with a copy of this one's repository and passphrase.
    pub fn copied(&self) -> Sandbox {
        let copy = Sandbox::new(&self.url);
        copy_folder(&self.repository(), &copy.repository());
        fs::copy(self.password_file(), copy.password_file()).expect("a copy");
        copy
    }

    /// Its folder: everything the program may touch, except databases, is in here.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where the repository is or will be.
    pub fn repository(&self) -> PathBuf {
        self.root().join("repository")
    }

    /// The file with [`PASSPHRASE`], mode 0600.
    pub fn password_file(&self) -> PathBuf {
        self.root().join("passphrase")
    }

    /// The XDG state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.root().join("state")
    }

    /// The temporary folder, where scratch servers come and go.
    pub fn tmp_dir(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// The working directory of every command; empty.
    pub fn work_dir(&self) -> PathBuf {
        self.root().join("work")
    }

    /// Its `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Another `DATABASE_URL` from now on.
    pub fn set_url(&mut self, url: &str) {
        url.clone_into(&mut self.url);
    }

    /// What marks the environment of every process that this sandbox started, and of their children.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// The program with arguments, in an environment of its own: nothing of the developer's shell leaks in.
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut words = self.prefix.clone();
        words.push(lifeboat().into());
        let mut command = self.tool(&words[0]);
        command.args(&words[1..]).args(args);
        command
            .env("DATABASE_URL", &self.url)
            .env("LIFEBOAT_PASSWORD_FILE", self.password_file());
        match &self.config {
            Some(config) => command.env("LIFEBOAT_CONFIG", config),
            None => command.env("LIFEBOAT_REPOSITORY", self.repository()),
        };
        command
    }

    /// Any program, in the same environment without the three variables.
    pub fn tool(&self, program: impl AsRef<OsStr>) -> Command {
        let (name, value) = self.marker.split_once('=').expect("a marker");
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(name, value)
            .env("PATH", search_path())
            .env("HOME", self.root().join("home"))
            .env("XDG_CONFIG_HOME", self.root().join("config"))
            .env("XDG_STATE_HOME", self.state_dir())
            .env("XDG_CACHE_HOME", self.root().join("cache"))
            .env("TMPDIR", self.tmp_dir())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.work_dir());
        command
    }

    /// Runs the program to its end.
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Run {
        self.finish(self.command(args))
    }

    /// Runs it with changes to its command.
    pub fn run_with<I, S>(&self, args: I, change: impl FnOnce(&mut Command)) -> Run
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(args);
        change(&mut command);
        self.finish(command)
    }

    /// Runs it without one of the three variables.
    pub fn run_without(&self, variable: &str, args: &[&str]) -> Run {
        let mut command = self.command(args);
        command.env_remove(variable);
        self.finish(command)
    }

    /// Runs a command to its end and holds its output against what must always be true.
    pub fn finish(&self, command: Command) -> Run {
        self.check(Running::start(command).wait())
    }

    /// Starts the program and returns at once.
    pub fn start<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Running {
        Running::start(self.command(args))
    }

    /// Holds a finished run against what must always be true.
    pub fn check(&self, run: Run) -> Run {
        for secret in self.secrets.iter().map(String::as_str).chain([PASSPHRASE]) {
            assert!(!run.stdout.contains(secret), "a secret on stdout\n{run}");
            assert!(!run.stderr.contains(secret), "a secret on stderr\n{run}");
        }
        for output in [&run.stdout, &run.stderr] {
            assert!(!output.contains('\x1b'), "an escape code in a pipe\n{run}");
            assert!(!output.contains("panicked at"), "a panic\n{run}");
        }
        run
    }

    /// Takes a backup. Returns its ID as `--json` tells it.
    pub fn backup(&self) -> String {
        let run = self.run(["backup", "--json"]).ok();
        text(&run.json("backup"), "backup")
    }

    /// The IDs of the backups that `list --json` shows, in its order.
    pub fn listed(&self) -> Vec<String> {
        let list = self.run(["list", "--json"]).ok().json("list");
        list["backups"]
            .as_array()
            .unwrap_or_else(|| panic!("no backups in {list}"))
            .iter()
            .map(|backup| text(backup, "backup"))
            .collect()
    }

    /// Asserts that nothing is left of scratch servers: no process with our mark, no file in the
    /// temporary folder.
    pub fn assert_nothing_left(&self) {
        processes::wait_for("every process we started to end", || {
            processes::with_marker(&self.marker).is_empty()
                && processes::naming(&self.tmp_dir()).is_empty()
        });
        processes::wait_for("the temporary folder to be empty", || {
            entries(&self.tmp_dir()).is_empty()
        });
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Only those that carry this sandbox's mark: nobody else's processes.
        for pid in processes::with_marker(&self.marker) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// A JSON object's text field. Panics with the object if it is not there.
pub fn text(object: &Value, field: &str) -> String {
    object[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field:?} in {object:#}"))
        .to_owned()
}

/// A JSON object's number field.
pub fn number(object: &Value, field: &str) -> f64 {
    object[field]
        .as_f64()
        .unwrap_or_else(|| panic!("no number {field:?} in {object:#}"))
}

/// The folder's entries, sorted.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    found.sort();
    found
}

/// Every file below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in entries(folder) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            found.push(entry);
        }
    }
    found
}

/// Copies a folder with all that is below it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in entries(from) {
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy_folder(&entry, &target);
        } else {
            fs::copy(&entry, &target).expect("a copy");
        }
    }
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, content: &str) {
    fs::write(path, content).expect("a secret file");
    set_mode(path, 0o600);
}

/// Sets a path's permission bits.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// A path's permission bits.
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

/// One server for all tests of a file, and a database filled with a small application.
pub fn app_database(name: &str) -> TestDatabase<'static> {
    let database = TestServer::shared().database(name);
    data::fill(&database);
    database
}
