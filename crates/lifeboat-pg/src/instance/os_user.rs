//! Who runs the server: ourselves, or, when we are root, somebody whom PostgreSQL accepts.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::InstanceError;

/// The OS user of a server. `switch` is set when it is not ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OsUser {
    pub(super) name: String,
    switch: Option<(u32, u32)>,
}

impl OsUser {
    pub(super) fn for_server(wanted: Option<&str>) -> Result<OsUser, InstanceError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(OsUser {
                name: "this one".into(),
                switch: None,
            });
        }
        let candidates: Vec<String> = match wanted {
            Some(name) => vec![name.to_owned()],
            None => vec!["postgres".into(), "nobody".into()],
        };
        candidates
            .iter()
            .find_map(|name| {
                look_up(name).map(|ids| OsUser {
                    name: name.clone(),
                    switch: Some(ids),
                })
            })
            .filter(|user| user.switch.is_some_and(|(uid, _)| uid != 0))
            .ok_or(InstanceError::NoSuchUser { wanted: candidates })
    }

    /// Makes `command` run as this user, without root's supplementary groups (the standard library drops
    /// them whenever it sets the user id as root).
    pub(super) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some((uid, gid)) = self.switch {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file or folder to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), InstanceError> {
        let Some((uid, gid)) = self.switch else {
            return Ok(());
        };
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(InstanceError::folder(path))
    }

    /// Finds the folder on the way to `path` that would stop this user, so that the reason is told instead
    /// of the confused words of a program that starts in a place it cannot see.
    pub(super) fn require_passage(&self, path: &Path) -> Result<(), InstanceError> {
        use std::os::unix::fs::MetadataExt;
        let Some((uid, gid)) = self.switch else {
            return Ok(());
        };
        let path = path.canonicalize().map_err(InstanceError::folder(path))?;
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        for folder in way {
            let meta = fs::metadata(folder).map_err(InstanceError::folder(folder))?;
            let bit = if meta.uid() == uid {
                0o100
            } else if meta.gid() == gid {
                0o010
            } else {
                0o001
            };
            if meta.mode() & bit == 0 {
                return Err(InstanceError::Unreachable {
                    path: folder.to_owned(),
                    user: self.name.clone(),
                });
            }
        }
        Ok(())
    }
}

/// User and group id by name: `/etc/passwd`, then whatever else the system asks (LDAP, sssd) through `getent`.
fn look_up(name: &str) -> Option<(u32, u32)> {
    let ids = |line: &str| -> Option<(u32, u32)> {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&name)).then_some(())?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    if let Some(found) = fs::read_to_string("/etc/passwd")
        .unwrap_or_default()
        .lines()
        .find_map(ids)
    {
        return Some(found);
    }
    let output = Command::new("getent")
        .args(["passwd", "--", name])
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(ids)
}
