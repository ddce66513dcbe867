//! Where words and data go.
//!
//! Data goes to standard output, words to standard error. With `--json`, standard output gets exactly one
//! object, so that it can be piped into `jq` whatever happens on the way, and everything else (progress,
//! notes, the error) is one JSON object per line on standard error. A reader that goes away (`| head`) is
//! no failure: a backup must not die because somebody stopped looking.

pub mod human;
pub mod progress;
pub mod table;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only data, warnings and errors.
    Quiet,
    /// What happens.
    Normal,
    /// What happens and why.
    Verbose,
}

/// What the output needs to know of the process; a value, so that tests can make one.
#[derive(Debug, Clone, Copy)]
pub struct OutputOptions {
    /// `--json`.
    pub json: bool,
    /// `-q`, `-v`.
    pub verbosity: Verbosity,
    /// Colours on standard output.
    pub stdout_color: bool,
    /// Colours on standard error.
    pub stderr_color: bool,
    /// Whether standard error is a terminal that can redraw: then progress is bars.
    pub stderr_terminal: bool,
}

impl OutputOptions {
    /// As this process stands: its streams and `NO_COLOR`, `TERM`.
    pub fn detect(
        json: bool,
        verbosity: Verbosity,
        environment: &BTreeMap<String, String>,
    ) -> Self {
        let no_color = environment
            .get("NO_COLOR")
            .is_some_and(|value| !value.is_empty());
        let dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
        let stderr_terminal = io::stderr().is_terminal();
        Self {
            json,
            verbosity,
            stdout_color: io::stdout().is_terminal() && !no_color && !dumb,
            stderr_color: stderr_terminal && !no_color && !dumb,
            stderr_terminal: stderr_terminal && !dumb,
        }
    }
}

/// A meaning that is shown in colour where there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Good: green.
    Good,
    /// Worth a look: yellow.
    Warn,
    /// Bad: red.
    Bad,
    /// Less important: dim.
    Dim,
    /// More important: bold.
    Strong,
}

/// Paints a text, if colours are on.
pub fn paint(on: bool, tone: Tone, text: &str) -> String {
    if !on {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "1;31",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// The two streams.
#[derive(Debug, Clone)]
pub struct Output {
    options: OutputOptions,
}

impl Output {
    /// An output with these options.
    pub fn new(options: OutputOptions) -> Self {
        Self { options }
    }

    /// The options.
    pub fn options(&self) -> &OutputOptions {
        &self.options
    }

    /// Whether `--json` was given.
    pub fn is_json(&self) -> bool {
        self.options.json
    }

    /// A line or more of data for people, on standard output. Nothing with `--json`.
    pub fn data(&self, text: &str) {
        if !self.options.json {
            write_whole(&mut io::stdout().lock(), text);
        }
    }

    /// The report of something that went well, for people, on standard output. Nothing with `--quiet` or `--json`:
    /// cron mails whatever a command prints.
    pub fn report(&self, text: &str) {
        if self.options.verbosity >= Verbosity::Normal {
            self.data(text);
        }
    }

    /// The one object of `--json`, under `"schema": "lifeboat.NAME/1"`. Nothing without `--json`.
    pub fn object(&self, name: &str, content: &impl Serialize) -> Result<(), Failure> {
        if self.options.json {
            let object = versioned(name, content)?;
            let text = serde_json::to_string_pretty(&object).map_err(Failure::bug)?;
            write_whole(&mut io::stdout().lock(), &text);
        }
        Ok(())
    }

    /// A line of words about what happens. Not with `--quiet`.
    pub fn say(&self, text: &str) {
        if self.options.verbosity >= Verbosity::Normal {
            self.words("note", text);
        }
    }

    /// A line of words for the curious: with `--verbose` only.
    pub fn detail(&self, text: &str) {
        if self.options.verbosity >= Verbosity::Verbose {
            self.words("detail", text);
        }
    }

    /// Something that should be looked at. Always said.
    pub fn warn(&self, text: &str) {
        if self.options.json {
            self.event("warning", &json!({ "text": text }));
        } else {
            let label = paint(self.options.stderr_color, Tone::Warn, "warning:");
            write_whole(&mut io::stderr().lock(), &format!("{label} {text}"));
        }
    }

    fn words(&self, event: &str, text: &str) {
        if self.options.json {
            self.event(event, &json!({ "text": text }));
        } else {
            write_whole(&mut io::stderr().lock(), text);
        }
    }

    /// One event line on standard error, with `--json` only: `"schema": "lifeboat.event/1"`.
    pub fn event(&self, name: &str, content: &impl Serialize) {
        if !self.options.json {
            return;
        }
        // An event that cannot be written down is not worth failing a backup for.
        if let Ok(Value::Object(mut fields)) = versioned("event", content) {
            fields.insert("event".to_owned(), name.into());
            write_whole(&mut io::stderr().lock(), &Value::Object(fields).to_string());
        }
    }

    /// An error, with its causes and hints.
    pub fn failure(&self, failure: &Failure) {
        if self.options.json {
            if let Ok(object) = versioned("error", failure) {
                write_whole(&mut io::stderr().lock(), &object.to_string());
            }
        } else {
            write_whole(
                &mut io::stderr().lock(),
                &failure.render(self.options.stderr_color),
            );
        }
    }

    /// A text in a tone, for standard output.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.options.stdout_color, tone, text)
    }
}

fn versioned(name: &str, content: &impl Serialize) -> Result<Value, Failure> {
    let mut fields = serde_json::Map::new();
    fields.insert("schema".to_owned(), format!("lifeboat.{name}/1").into());
    match serde_json::to_value(content).map_err(Failure::bug)? {
        Value::Object(content) => fields.extend(content),
        Value::Null => {}
        other => {
            fields.insert("items".to_owned(), other);
        }
    }
    Ok(Value::Object(fields))
}

/// Writes a text and the end of its line, whole. A stream that nobody reads any more is not an error.
fn write_whole(stream: &mut dyn Write, text: &str) {
    let _ = stream
        .write_all(text.as_bytes())
        .and_then(|()| {
            if text.ends_with('\n') {
                Ok(())
            } else {
                stream.write_all(b"\n")
            }
        })
        .and_then(|()| stream.flush());
}
