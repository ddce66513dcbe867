//! What the integration tests share: small repositories, and the real restic.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

pub mod remote;
pub mod repair;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use lifeboat_repo::check::{CheckOptions, CheckReport, CheckScope};
use lifeboat_repo::lock::{Clock, LockHolder};
use lifeboat_repo::repository::{ChunkSizes, InitOptions, ScryptParams};
use lifeboat_repo::snapshot::Snapshot;
use lifeboat_repo::storage::{FileKind, LocalStorage, MemoryStorage, Storage};
use lifeboat_repo::tree::Directory;
use lifeboat_repo::writer::{SnapshotDraft, WriteStats, WriterOptions};
use lifeboat_repo::{Repository, RepositoryError};

pub const PASSWORD: &str = "correct horse battery staple";

pub const ALL_KINDS: [FileKind; 6] = [
    FileKind::Config,
    FileKind::Key,
    FileKind::Lock,
    FileKind::Snapshot,
    FileKind::Index,
    FileKind::Pack,
];

/// The files of a backup: paths and contents.
pub type Files<'a> = &'a [(&'a str, Vec<u8>)];

pub fn init(storage: Arc<dyn Storage>) -> Result<Repository, RepositoryError> {
    let options = InitOptions {
        chunk_sizes: ChunkSizes::with_average(4 << 10),
        scrypt: ScryptParams::cheap(),
        hostname: hostname(),
        username: "tester".to_owned(),
        now: "2026-03-01T09:00:00Z".parse().unwrap(),
    };
    Repository::init(storage, &PASSWORD.into(), &options)
}

pub fn open(storage: Arc<dyn Storage>) -> Result<Repository, RepositoryError> {
    Repository::open(storage, &PASSWORD.into())
}

pub fn writer_options(pack_size_bytes: usize) -> WriterOptions {
    WriterOptions {
        pack_size_bytes,
        ..WriterOptions::default()
    }
}

pub fn draft(hour: u32) -> SnapshotDraft {
    SnapshotDraft {
        parent: None,
        time: format!("2026-03-01T{hour:02}:00:00Z").parse().unwrap(),
        hostname: hostname(),
        username: "tester".to_owned(),
        paths: vec!["/dump".to_owned()],
        tags: vec!["lifeboat".to_owned()],
        worked: None,
        extra: None,
    }
}

/// Writes a snapshot of `files`; packs end at `pack_size_bytes`.
pub fn back_up(
    repository: &Repository,
    hour: u32,
    files: Files<'_>,
    pack_size_bytes: usize,
) -> Result<(Snapshot, WriteStats), RepositoryError> {
    let writer = repository.writer(writer_options(pack_size_bytes))?;
    let mut root = Directory::default();
    let mut worker = writer.worker()?;
    for (path, content) in files {
        let mut file = worker.file();
        for part in content.chunks(1000) {
            file.push(part)?;
        }
        root.insert(path, file.finish()?).unwrap();
    }
    worker.finish()?;
    writer.commit(&root, draft(hour))
}

pub fn check(repository: &Repository, read_data: bool) -> CheckReport {
    let options = CheckOptions {
        read_data,
        jobs: 2,
        ..CheckOptions::default()
    };
    repository
        .check(CheckScope::Everything, &options, &|_| ())
        .unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Rows as a table's COPY gives them: they compress.
pub fn rows(seed: u64, count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for (row, salt) in noise(seed, count).into_iter().enumerate() {
        text.extend_from_slice(
            format!("{row}\tuser {salt}\t2026-03-01 09:00:00+00\t\\N\n").as_bytes(),
        );
    }
    text
}

/// This machine's name, as restic would say it.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_str()
        .unwrap()
        .to_owned()
}

pub fn this_process() -> LockHolder {
    LockHolder {
        hostname: hostname(),
        username: "tester".to_owned(),
        pid: std::process::id(),
    }
}

/// The number of a process that was and is no more.
pub fn ended_process() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

pub fn clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// Copies every file of one storage into another.
pub fn copy(from: &dyn Storage, to: &dyn Storage) {
    to.create().unwrap();
    for kind in ALL_KINDS {
        for file in from.list(kind).unwrap() {
            to.write(kind, &file.name, &from.read(kind, &file.name).unwrap())
                .unwrap();
        }
    }
}

/// A repository folder and the real restic.
pub struct Restic {
    pub folder: tempfile::TempDir,
}

impl Restic {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn repository_path(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(LocalStorage::new(self.repository_path()))
    }

    /// A folder beside the repository.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command
            .args(["--repo".as_ref(), self.repository_path().as_os_str()])
            .arg("--no-cache")
            .args(arguments)
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("restic has to be installed: `apt-get install restic`")
    }

    /// Runs restic, which has to succeed, and returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.try_run(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "restic {arguments:?}: {words}");
        output.stdout
    }

    pub fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments)).unwrap()
    }

    /// restic reads every byte and finds nothing to say.
    pub fn check_is_clean(&self) {
        let output = self.try_run(&["check", "--read-data"]);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success() && out.contains("no errors were found"),
            "{out}\n{err}"
        );
        // Hints about leftovers go to stdout; anything on stderr is a complaint.
        assert_eq!(err.trim(), "", "{out}");
    }
}

/// Writes the files of a storage into restic's folder, for it to judge.
pub fn hand_to_restic(storage: &MemoryStorage) -> Restic {
    let restic = Restic::new();
    copy(storage, &*restic.storage());
    restic
}

/// All files below a folder with their paths relative to it, sorted; links that lead nowhere are left out.
pub fn read_folder(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.exists() {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
