//! Which PostgreSQL versions this machine has.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// One installed PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// 15, say.
    pub major: u32,
    /// As `postgres --version` tells it: `15.18`.
    pub version: String,
    /// Where `postgres`, `initdb`, `pg_dump` and the rest are.
    pub bin_dir: PathBuf,
}

/// Every PostgreSQL found, oldest first, one per major: those in `LIFEBOAT_TEST_PG_BINDIRS` (colon
/// separated) or `LIFEBOAT_TEST_PG_BINDIR`, or, with neither set, Debian's `/usr/lib/postgresql/*/bin`.
pub fn installed() -> &'static [Installed] {
    static FOUND: OnceLock<Vec<Installed>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: Vec<Installed> = candidates().iter().filter_map(|dir| look(dir)).collect();
        found.sort_by_key(|one| one.major);
        found.dedup_by_key(|one| one.major);
        found
    })
}

/// The newest one.
pub fn newest() -> &'static Installed {
    installed()
        .last()
        .expect("no PostgreSQL found: install Debian's postgresql, or set LIFEBOAT_TEST_PG_BINDIR")
}

/// The one of this major, if it is there.
pub fn of_major(major: u32) -> Option<&'static Installed> {
    installed().iter().find(|one| one.major == major)
}

/// A search path for programs under test: those of every PostgreSQL found, the newest first, then the system's.
pub fn search_path() -> OsString {
    let ours = installed().iter().rev().map(|one| one.bin_dir.clone());
    let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::join_paths(ours.chain(system)).expect("a search path")
}

fn candidates() -> Vec<PathBuf> {
    for name in ["LIFEBOAT_TEST_PG_BINDIRS", "LIFEBOAT_TEST_PG_BINDIR"] {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            return std::env::split_paths(&value).collect();
        }
    }
    let Ok(versions) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect()
}

fn look(bin_dir: &Path) -> Option<Installed> {
    // Debian also makes folders for client-only installations.
    bin_dir.join("initdb").is_file().then_some(())?;
    let output = Command::new(bin_dir.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().nth(2)?.to_owned();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some(Installed {
        major: digits.parse().ok()?,
        version,
        bin_dir: bin_dir.to_owned(),
    })
}
