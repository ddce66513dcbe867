//! What a user sees when something goes wrong: a fact, its causes, what to type next, and an exit code.
//!
//! Errors arrive here as facts, told apart by variant and SQLSTATE and never by their text. The advice is
//! added here and nowhere else: [`config`] for the configuration, and so on for each room below.

mod config;
mod engine;
pub mod import;
mod keys;
pub mod pg;
pub mod repo;
pub mod tools;

use std::error::Error;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::exit::Exit;
use crate::output::{Tone, paint};

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What is the case, in one line.
    #[serde(rename = "error")]
    pub fact: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do next, most useful first; commands in backquotes.
    pub hints: Vec<String>,
    /// How the process ends.
    #[serde(serialize_with = "exit_code")]
    pub exit: Exit,
}

fn exit_code<S: Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(exit.code())
}

impl Failure {
    /// A fact and how to end.
    pub fn new(exit: Exit, fact: impl Into<String>) -> Self {
        Self {
            fact: one_line(&fact.into()),
            causes: Vec::new(),
            hints: Vec::new(),
            exit,
        }
    }

    /// An error and its sources, as facts.
    pub fn of(exit: Exit, error: &dyn Error) -> Self {
        let mut failure = Self::new(exit, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            failure = failure.cause(cause);
            source = cause.source();
        }
        failure
    }

    /// Adds a cause, unless an outer message already quotes it.
    #[must_use]
    pub fn cause(mut self, cause: impl Display) -> Self {
        let cause = one_line(&cause.to_string());
        if !self.fact.contains(&cause) && !self.causes.iter().any(|outer| outer.contains(&cause)) {
            self.causes.push(cause);
        }
        self
    }

    /// The fact and its causes, in one line.
    pub fn sentence(&self) -> String {
        let mut words = vec![self.fact.as_str()];
        words.extend(self.causes.iter().map(String::as_str));
        words.join(": ")
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a hint where nobody had a better one: nobody is left with a fact alone, unless they asked for it by
    /// interrupting.
    #[must_use]
    pub fn with_any_hint(self) -> Self {
        if !self.hints.is_empty() {
            return self;
        }
        match self.exit {
            Exit::Interrupted => self,
            Exit::Usage => self.hint(
                "docs/configuration.md lists every setting, `lifeboat COMMAND --help` every flag",
            ),
            _ => self.hint("`lifeboat check` says what is ready, and how to mend what is not"),
        }
    }

    /// Something that cannot happen did.
    pub fn bug(error: impl Display) -> Self {
        Self::new(Exit::Failed, format!("internal error: {error}")).hint(
            "this is a bug in lifeboat; nothing was changed by it, please report it with this line",
        )
    }

    /// Somebody pressed Ctrl-C or stopped the service.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    /// The lines for a person.
    pub fn render(&self, color: bool) -> String {
        let mut lines = vec![format!(
            "{} {}",
            paint(color, Tone::Bad, "error:"),
            self.fact
        )];
        for cause in &self.causes {
            lines.push(format!("{} {cause}", paint(color, Tone::Dim, "cause:")));
        }
        for hint in &self.hints {
            lines.push(format!("{}  {hint}", paint(color, Tone::Good, "hint:")));
        }
        lines.join("\n")
    }
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
