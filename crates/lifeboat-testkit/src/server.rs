//! A PostgreSQL server for tests.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lifeboat_pg::instance::{ScratchOptions, ScratchServer, StopMode, sweep};
use rustix::fs::{FlockOperation, flock};

use crate::database::TestDatabase;
use crate::installed::{Installed, newest, of_major};

/// Where scratch servers and the cached data directories live. Not the build's folder: the server's OS
/// user must be able to reach it, and a socket's path must stay short.
const PARENT: &str = "/tmp";

/// A running server. Dropped, also by a panic, it is stopped and its data removed.
#[derive(Debug)]
pub struct TestServer {
    installed: &'static Installed,
    scratch: ScratchServer,
}

impl TestServer {
    /// A server of the major in `LIFEBOAT_TEST_PG_MAJOR`, else the newest installed.
    pub fn start() -> TestServer {
        TestServer::start_with(default_installed(), &[])
    }

    /// A server of this major, or `None` if it is not installed.
    pub fn start_major(major: u32) -> Option<TestServer> {
        of_major(major).map(|installed| TestServer::start_with(installed, &[]))
    }

    /// A server with settings of its own.
    pub fn start_with(installed: &'static Installed, settings: &[(&str, &str)]) -> TestServer {
        sweep_once();
        let mut options = ScratchOptions::new(&installed.bin_dir, PARENT);
        options.template = Some(template(installed));
        options.settings = settings
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let scratch = ScratchServer::start(&options).expect("a scratch server");
        TestServer { installed, scratch }
    }

    /// One server for all tests of a process that leave it alone. Statics are never dropped: what ends
    /// this one, when the process ends, is the scratch server's watchdog.
    pub fn shared() -> &'static TestServer {
        static SHARED: OnceLock<TestServer> = OnceLock::new();
        SHARED.get_or_init(TestServer::start)
    }

    /// A new empty database whose name begins with `name`, dropped at the end.
    pub fn database(&self, name: &str) -> TestDatabase<'_> {
        TestDatabase::create(self, name, "")
    }

    /// As [`TestServer::database`], with the rest of a `CREATE DATABASE` statement.
    pub fn database_with(&self, name: &str, options: &str) -> TestDatabase<'_> {
        TestDatabase::create(self, name, options)
    }

    /// A connection URI for one of its databases, as the superuser. Holds no secret.
    pub fn url(&self, database: &str) -> String {
        self.scratch.url(database)
    }

    /// The same as another role, which the server trusts as well.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        let url = self.url(database);
        url.replacen(
            &format!("//{}@", self.scratch.user()),
            &format!("//{role}@"),
            1,
        )
    }

    /// What a stock client program needs in its environment to reach this server.
    pub fn tool_env(&self, database: &str) -> Vec<(&'static str, OsString)> {
        vec![
            ("PGHOST", self.scratch.socket_dir().into()),
            ("PGPORT", self.scratch.port().to_string().into()),
            ("PGUSER", self.scratch.user().into()),
            ("PGDATABASE", database.into()),
        ]
    }

    /// The folder of its programs: `pg_dump`, `pg_restore`, `psql`.
    pub fn bin_dir(&self) -> &'static Path {
        &self.installed.bin_dir
    }

    /// Its major version.
    pub fn major(&self) -> u32 {
        self.installed.major
    }

    /// The server itself, to look closer.
    pub fn scratch(&self) -> &ScratchServer {
        &self.scratch
    }

    /// Stops and starts it, in an orderly way or as after a crash. Only on a server of one's own.
    pub fn restart(&mut self, mode: StopMode) {
        self.scratch.restart(mode).expect("the server starts again");
    }

    /// Stops it and leaves it so. Only on a server of one's own.
    pub fn halt(&mut self, mode: StopMode) {
        self.scratch.halt(mode);
    }
}

fn default_installed() -> &'static Installed {
    let Ok(wanted) = std::env::var("LIFEBOAT_TEST_PG_MAJOR") else {
        return newest();
    };
    let major = wanted.parse().expect("LIFEBOAT_TEST_PG_MAJOR is a number");
    of_major(major).expect("the PostgreSQL of LIFEBOAT_TEST_PG_MAJOR is installed")
}

fn sweep_once() {
    static SWEPT: OnceLock<()> = OnceLock::new();
    SWEPT.get_or_init(|| {
        sweep(Path::new(PARENT)).expect("the temporary folder can be read");
    });
}

/// A data directory to copy, made once per installation and kept: `initdb` takes a second, a copy 50 ms.
/// The first process to come makes it under a lock; the rename makes it appear whole or not at all.
fn template(installed: &Installed) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let cache = Path::new(PARENT).join(format!("lifeboat-testkit-{uid}"));
    let _ = fs::create_dir(&cache);
    let meta = fs::symlink_metadata(&cache).expect("the testkit's cache folder");
    assert!(
        meta.is_dir() && meta.uid() == uid,
        "{} belongs to somebody else",
        cache.display()
    );

    let initdb = fs::metadata(installed.bin_dir.join("initdb")).expect("initdb");
    let mut hash = DefaultHasher::new();
    (
        &installed.bin_dir,
        &installed.version,
        initdb.len(),
        initdb.mtime(),
    )
        .hash(&mut hash);
    let name = format!("{}-{:016x}", installed.version, hash.finish());

    let data_dir = cache.join(&name);
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("the cache's lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("the cache's lock");
    if !data_dir.exists() {
        // Made in a folder that the server's user owns, which the cache itself is not.
        let room = cache.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&room);
        fs::create_dir(&room).expect("a room for initdb");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&room, open).expect("the room's mode");
        let options = ScratchOptions::new(&installed.bin_dir, PARENT);
        ScratchServer::make_template(&options, &room.join("data")).expect("initdb");
        fs::rename(room.join("data"), &data_dir).expect("the cached data directory");
        let _ = fs::remove_dir_all(&room);
    }
    data_dir
}
