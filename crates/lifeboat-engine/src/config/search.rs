//! Where a configuration file is looked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Origin;

/// A place to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// Whether somebody named it: then its absence is an error, and no other place is looked at.
    pub required: bool,
    /// Who named it.
    pub origin: Origin,
}

/// The places, best first: the flag, `$LIFEBOAT_CONFIG`, `lifeboat.toml` here, the user's configuration
/// folder, the system's. The first that exists is used, alone.
pub fn candidates(flag: Option<&Path>, environment: &BTreeMap<String, String>) -> Vec<Candidate> {
    let env = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let named = |path: PathBuf, origin| {
        vec![Candidate {
            path,
            required: true,
            origin,
        }]
    };
    if let Some(path) = flag {
        return named(path.to_owned(), Origin::Flag("--config"));
    }
    if let Some(path) = env("LIFEBOAT_CONFIG") {
        return named(path.into(), Origin::Environment("LIFEBOAT_CONFIG"));
    }
    let user = match (env("XDG_CONFIG_HOME"), env("HOME")) {
        (Some(folder), _) if Path::new(folder).is_absolute() => Some(PathBuf::from(folder)),
        (_, Some(home)) => Some(Path::new(home).join(".config")),
        _ => None,
    };
    [
        Some(PathBuf::from("lifeboat.toml")),
        user.map(|folder| folder.join("lifeboat/lifeboat.toml")),
        Some(PathBuf::from("/etc/lifeboat/lifeboat.toml")),
    ]
    .into_iter()
    .flatten()
    .map(|path| Candidate {
        path,
        required: false,
        origin: Origin::Default,
    })
    .collect()
}
