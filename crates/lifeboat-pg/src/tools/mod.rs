//! Finds PostgreSQL's own programs, by version, wherever distributions hide them.
//!
//! An *installation* is one folder that holds programs of one version; the programs of two
//! installations are never mixed. With a command prefix (`docker exec -i NAME`) the programs are those
//! on the other side of it, and there is only one installation to choose from.

mod error;
mod places;
mod version;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use error::{Found, ToolError};
pub use version::ToolVersion;

use crate::conninfo::ConnInfo;

/// A program of PostgreSQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// Dumps a database.
    PgDump,
    /// Restores a dump.
    PgRestore,
    /// Dumps what belongs to no database: roles, tablespaces.
    PgDumpall,
    /// Makes a cluster.
    Initdb,
    /// The server itself.
    Postgres,
    /// The terminal.
    Psql,
}

impl Tool {
    /// What a backup needs.
    pub const FOR_BACKUP: [Tool; 2] = [Tool::PgDump, Tool::PgDumpall];
    /// What a restore needs.
    pub const FOR_RESTORE: [Tool; 1] = [Tool::PgRestore];
    /// What a scratch server needs.
    pub const FOR_SCRATCH: [Tool; 2] = [Tool::Initdb, Tool::Postgres];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Tool::PgDump => "pg_dump",
            Tool::PgRestore => "pg_restore",
            Tool::PgDumpall => "pg_dumpall",
            Tool::Initdb => "initdb",
            Tool::Postgres => "postgres",
            Tool::Psql => "psql",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which majors will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This one or a newer; the nearest is taken. Nearest and not newest: an archive is only read by a
    /// `pg_restore` at least as new as the `pg_dump` that wrote it, so taking 18 for a server of 15
    /// would shut out that server's own tools.
    AtLeast(u32),
    /// This one alone: a data directory belongs to one major.
    Exactly(u32),
}

impl Wanted {
    fn suits(self, major: u32) -> bool {
        match self {
            Wanted::AtLeast(least) => major >= least,
            Wanted::Exactly(exact) => major == exact,
        }
    }

    fn major(self) -> u32 {
        match self {
            Wanted::AtLeast(major) | Wanted::Exactly(major) => major,
        }
    }
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct ToolFinder {
    /// Look here and nowhere else. With a prefix: a folder on the other side.
    pub bin_dir: Option<PathBuf>,
    /// Words put before each command, such as `docker exec -i db`.
    pub prefix: Vec<String>,
    /// `PATH`, searched after the places where distributions keep each version.
    pub path: Option<OsString>,
    /// Folder patterns, `*` standing for any part of one name.
    pub places: Vec<String>,
}

impl ToolFinder {
    /// The usual places and this `PATH`.
    pub fn new(path: Option<OsString>) -> ToolFinder {
        ToolFinder {
            bin_dir: None,
            prefix: Vec::new(),
            path,
            places: places::USUAL
                .iter()
                .map(|place| (*place).to_owned())
                .collect(),
        }
    }

    /// Finds one installation that has all of `tools` in a suitable version, each program's version
    /// asked for and compared.
    ///
    /// # Errors
    /// [`ToolError`], with everything that was found and where it was looked for.
    pub fn find(&self, tools: &[Tool], wanted: Wanted) -> Result<Tools, ToolError> {
        let Some(&first) = tools.first() else {
            return Ok(self.installation(self.bin_dir.clone()));
        };
        if !self.prefix.is_empty() {
            let mut installation = self.installation(self.bin_dir.clone());
            installation.check(tools)?;
            let version = &installation.versions[&first];
            if wanted.suits(version.major) {
                return Ok(installation);
            }
            let found = vec![Found {
                program: installation.words(first).join(" "),
                version: version.clone(),
            }];
            return Err(ToolError::unsuitable(first, found, wanted));
        }
        let looked_in = match &self.bin_dir {
            Some(folder) => vec![folder.clone()],
            None => places::folders(&self.places, self.path.as_deref()),
        };
        let mut found = Vec::new();
        let mut failures = Vec::new();
        let mut candidates = Vec::new();
        for folder in &looked_in {
            if !places::is_program(&folder.join(first.name())) {
                continue;
            }
            let mut installation = self.installation(Some(folder.clone()));
            match installation.check(&[first]) {
                Ok(()) => {
                    let version = installation.versions[&first].clone();
                    found.push(Found {
                        program: folder.join(first.name()).display().to_string(),
                        version: version.clone(),
                    });
                    if wanted.suits(version.major) {
                        candidates.push((version, installation));
                    }
                }
                Err(error) => failures.push(error),
            }
        }
        // The nearest major, of that the newest minor. The sort is stable: of equals, the first place.
        candidates.sort_by_key(|(version, _)| (version.major, std::cmp::Reverse(version.minor)));
        for (_, mut installation) in candidates {
            match installation.check(tools) {
                Ok(()) => return Ok(installation),
                Err(error) => failures.push(error),
            }
        }
        match failures.into_iter().next() {
            // Something suitable was there and is broken or incomplete: that is the fact to know.
            Some(failure) => Err(failure),
            None if found.is_empty() => Err(ToolError::NotFound {
                tool: first,
                needed: wanted.major(),
                looked_in,
            }),
            None => Err(ToolError::unsuitable(first, found, wanted)),
        }
    }

    fn installation(&self, folder: Option<PathBuf>) -> Tools {
        Tools {
            folder,
            prefix: self.prefix.clone(),
            versions: BTreeMap::new(),
        }
    }
}

/// One installation's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    folder: Option<PathBuf>,
    prefix: Vec<String>,
    versions: BTreeMap<Tool, ToolVersion>,
}

impl Tools {
    /// Asks each program for its version, and refuses a folder where they differ in their major.
    fn check(&mut self, tools: &[Tool]) -> Result<(), ToolError> {
        for tool in tools {
            if self.versions.contains_key(tool) {
                continue;
            }
            let words = self.words(*tool);
            if let Some(folder) = self.folder.as_deref().filter(|_| self.prefix.is_empty())
                && !places::is_program(&folder.join(tool.name()))
            {
                return Err(ToolError::Incomplete {
                    tool: *tool,
                    folder: folder.to_owned(),
                });
            }
            let version = version::ask(&words, *tool)?;
            if let Some((other, known)) = self
                .versions
                .iter()
                .find(|(_, known)| known.major != version.major)
            {
                return Err(ToolError::Mixed {
                    tool: *tool,
                    version,
                    other: *other,
                    other_version: known.clone(),
                });
            }
            self.versions.insert(*tool, version);
        }
        Ok(())
    }

    /// The folder of the programs; with a prefix, on the other side of it, if one was given at all.
    pub fn bin_dir(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The version of a program that was asked for in [`ToolFinder::find`].
    pub fn version(&self, tool: Tool) -> Option<&ToolVersion> {
        self.versions.get(&tool)
    }

    /// The installation's major version; 0 when nothing was asked for.
    pub fn major(&self) -> u32 {
        self.versions
            .values()
            .next()
            .map_or(0, |version| version.major)
    }

    /// Whether commands go through a prefix, and so may run on another machine or in a container.
    pub fn is_elsewhere(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// The command's words: the prefix, then the program.
    fn words(&self, tool: Tool) -> Vec<String> {
        let program = match &self.folder {
            Some(folder) => folder.join(tool.name()).to_string_lossy().into_owned(),
            None => tool.name().to_owned(),
        };
        self.prefix.iter().cloned().chain([program]).collect()
    }

    /// A command that runs a program, without arguments yet.
    pub fn command(&self, tool: Tool) -> Command {
        command(&self.words(tool))
    }

    /// The same with a connection in its environment, and no other `PG*` variables.
    ///
    /// Through `docker exec` and its kin the variables are named with `-e NAME`, which passes their
    /// values on without putting them into the arguments. Other prefixes (`ssh`, `kubectl exec`) pass no
    /// environment; there the other side must know the password by itself.
    pub fn command_for(&self, tool: Tool, connection: &ConnInfo) -> Command {
        let mut words = self.words(tool);
        if let Some(at) = container_exec(&self.prefix) {
            let names = connection.tool_env().into_iter().map(|(name, _)| name);
            let flags: Vec<String> = names
                .flat_map(|name| ["-e".to_owned(), name.to_owned()])
                .collect();
            words.splice(at..at, flags);
        }
        let mut command = command(&words);
        connection.apply_to(&mut command);
        command
    }
}

fn command(words: &[String]) -> Command {
    let (program, arguments) = words
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Where the flags of `docker exec` begin, when the prefix is one (also behind `sudo`).
fn container_exec(prefix: &[String]) -> Option<usize> {
    let name = |word: &String| {
        Path::new(word)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let engine = prefix.iter().position(|word| {
        name(word).is_some_and(|name| matches!(name.as_str(), "docker" | "podman" | "nerdctl"))
    })?;
    // `docker compose exec` takes -e NAME=VALUE only, which would show the password.
    prefix
        .get(engine + 1)
        .filter(|word| *word == "exec")
        .map(|_| engine + 2)
}

#[cfg(test)]
mod tests;
