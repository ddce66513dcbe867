//! Why no suitable program was found.

use std::fmt;
use std::path::PathBuf;

use super::{Tool, ToolVersion, Wanted};

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path, or the whole command with its prefix.
    pub program: String,
    /// Its version.
    pub version: ToolVersion,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.program, self.version)
    }
}

/// Why no suitable program was found.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is none at all.
    #[error("{tool} was not found")]
    NotFound {
        /// The program.
        tool: Tool,
        /// The major version that is needed, or a newer one.
        needed: u32,
        /// The folders that were searched.
        looked_in: Vec<PathBuf>,
    },
    /// All that were found are older than the server.
    #[error("{tool} {needed} or newer is needed, found {}", list(found))]
    TooOld {
        /// The program.
        tool: Tool,
        /// What was found.
        found: Vec<Found>,
        /// The major version that would do, or a newer one.
        needed: u32,
    },
    /// Exactly one major would do, and only others were found.
    #[error("{tool} of PostgreSQL {needed} is needed, found {}", list(found))]
    OtherMajor {
        /// The program.
        tool: Tool,
        /// What was found.
        found: Vec<Found>,
        /// The major version that would do.
        needed: u32,
    },
    /// A folder has one of the programs and lacks another.
    #[error("{} has no {tool}", folder.display())]
    Incomplete {
        /// What is missing.
        tool: Tool,
        /// Where.
        folder: PathBuf,
    },
    /// Programs of different majors in one folder.
    #[error("{tool} is version {version} and {other} beside it is {other_version}")]
    Mixed {
        /// One.
        tool: Tool,
        /// Its version.
        version: ToolVersion,
        /// The other.
        other: Tool,
        /// Its version.
        other_version: ToolVersion,
    },
    /// A program does not run, or does not say its version.
    #[error("`{command}` failed: {reason}")]
    Failed {
        /// The command, with its prefix.
        command: String,
        /// One line: what the system or the program said.
        reason: String,
    },
}

impl ToolError {
    pub(super) fn unsuitable(tool: Tool, found: Vec<Found>, wanted: Wanted) -> ToolError {
        match wanted {
            Wanted::AtLeast(needed) => ToolError::TooOld {
                tool,
                found,
                needed,
            },
            Wanted::Exactly(needed) => ToolError::OtherMajor {
                tool,
                found,
                needed,
            },
        }
    }
}

fn list(found: &[Found]) -> String {
    found
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
