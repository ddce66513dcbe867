//! One line of the check.

use serde::Serialize;

use crate::output::{Output, Tone};

/// How a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ready,
    /// Works, and should be looked at.
    Attention,
    /// In the way of a backup.
    Broken,
}

/// A subject, how it stands, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    /// How it stands.
    pub state: State,
    /// What is the case, in one line.
    pub fact: String,
    /// What to do, most useful first; empty when it is ready.
    pub fixes: Vec<String>,
}

impl Line {
    /// All well.
    pub fn ready(subject: &'static str, fact: impl Into<String>) -> Self {
        Self {
            subject,
            state: State::Ready,
            fact: fact.into(),
            fixes: Vec::new(),
        }
    }

    /// Worth a look.
    pub fn attention(
        subject: &'static str,
        fact: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            subject,
            state: State::Attention,
            fact: fact.into(),
            fixes: vec![fix.into()],
        }
    }

    /// In the way.
    pub fn broken(subject: &'static str, fact: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            subject,
            state: State::Broken,
            fact: fact.into(),
            fixes: vec![fix.into()],
        }
    }

    /// For people: `ok    tools          pg_dump 16.4`, with the fixes below.
    pub fn render(&self, out: &Output) -> String {
        let (tone, word) = match self.state {
            State::Ready => (Tone::Good, "ok  "),
            State::Attention => (Tone::Warn, "look"),
            State::Broken => (Tone::Bad, "FAIL"),
        };
        let mut text = format!(
            "{}  {:14} {}",
            out.paint(tone, word),
            self.subject,
            self.fact
        );
        for fix in &self.fixes {
            text.push_str(&format!(
                "\n{:21}{} {fix}",
                "",
                out.paint(Tone::Dim, "fix:")
            ));
        }
        text
    }
}
