//! Advice on PostgreSQL's own programs.

use lifeboat_pg::tools::ToolError;

use super::Failure;
use crate::exit::Exit;

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        advise(Self::of(Exit::Failed, &error), &error)
    }
}

/// Adds what helps against `error` to a failure that it caused.
pub fn advise(failure: Failure, error: &ToolError) -> Failure {
    match error {
        ToolError::NotFound { needed, .. } | ToolError::TooOld { needed, .. } => failure
            .hint(format!(
                "install the client package, such as `apt-get install postgresql-client-{needed}`"
            ))
            .hint("or set `tools.bin_dir`, or run them in a container with `tools.prefix`"),
        ToolError::OtherMajor { needed, .. } => failure.hint(format!(
            "install the server package, such as `apt-get install postgresql-{needed}`"
        )),
        ToolError::Incomplete { .. } | ToolError::Mixed { .. } => {
            failure.hint("set `tools.bin_dir` to the `bin` folder of one whole installation")
        }
        ToolError::Failed { .. } => {
            failure.hint("run it by hand; `tools.bin_dir` and `tools.prefix` say what is run")
        }
    }
}
