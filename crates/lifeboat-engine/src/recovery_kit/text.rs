//! The kit as text, and read back from it.

use jiff::Timestamp;
use secrecy::SecretString;

use super::page::{self, Block};
use super::{Credential, Kit, KitDatabase};
use crate::config::RepositoryLocation;

/// How wide prose is set: fits a page in a fixed-width font.
const WIDTH: usize = 78;
/// How wide labels are.
const LABEL_WIDTH: usize = 22;
/// Stands for a space at which no line is broken, while prose is set.
const UNBROKEN: &str = "\u{1}";
/// What precedes a line that is to be typed.
const COMMAND: &str = "        ";

/// A kit as it was read, and the commands that it prints.
#[derive(Debug, Clone)]
pub struct ReadKit {
    /// What it tells.
    pub kit: Kit,
    /// The lines of part B, in their order.
    pub without: Vec<String>,
}

/// Why a text is no kit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KitError {
    /// It does not begin like one.
    #[error("this is no recovery kit: it does not begin with \"{}\"", page::TITLE)]
    NotAKit,
    /// A line is missing.
    #[error("the recovery kit has no line `{0}:`")]
    Missing(&'static str),
    /// A line does not say what it should.
    #[error("the recovery kit's line `{label}:` cannot be used: {what}")]
    Unusable {
        /// The line.
        label: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// There is nothing to type in part B.
    #[error("the recovery kit has no commands in part \"{}\"", page::WITHOUT)]
    NoCommands,
}

/// Sets the page.
pub(super) fn render(blocks: &[Block]) -> String {
    let mut text = format!("{}\n{}\n", page::TITLE, "=".repeat(page::TITLE.len()));
    let mut number = 0;
    let mut after_fact = false;
    for block in blocks {
        let is_fact = matches!(block, Block::Fact { .. });
        if !(is_fact && after_fact) {
            text.push('\n');
        }
        after_fact = is_fact;
        match block {
            Block::Heading(heading) => {
                number = 0;
                text.push_str(&format!(
                    "\n{heading}\n{}\n",
                    "-".repeat(heading.chars().count())
                ));
            }
            Block::Text(prose) => push_prose(&mut text, prose, "", ""),
            Block::Notice(prose) => {
                text.push_str(&format!("{}\n", "*".repeat(WIDTH)));
                push_prose(&mut text, prose, "* ", "* ");
                text.push_str(&format!("{}\n", "*".repeat(WIDTH)));
            }
            Block::Fact { label, value, .. } => {
                text.push_str(&format!("  {:LABEL_WIDTH$} {value}\n", format!("{label}:")));
            }
            Block::Step {
                text: prose,
                commands,
            } => {
                number += 1;
                push_prose(&mut text, prose, &format!("{number:3}. "), "     ");
                if !commands.is_empty() {
                    text.push('\n');
                }
                for command in commands {
                    text.push_str(&format!("{COMMAND}{command}\n"));
                }
            }
        }
    }
    text
}

fn push_prose(text: &mut String, prose: &str, first: &str, rest: &str) {
    // What is to be typed stays in one piece.
    let pieces = prose.split('`').enumerate();
    let prose: String = pieces
        .map(|(index, piece)| match index % 2 {
            0 => piece.to_owned(),
            _ => format!("\"{}\"", piece.replace(' ', UNBROKEN)),
        })
        .collect();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in prose
        .split_whitespace()
        .map(|word| word.replace(UNBROKEN, " "))
    {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = rest.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
        is_empty = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Reads a kit from what a person would read.
///
/// # Errors
/// [`KitError`], with the line that is missing or unusable.
pub fn read(text: &str) -> Result<ReadKit, KitError> {
    let mut lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    if lines
        .next()
        .map(|line| line.trim_start_matches('\u{feff}').trim())
        != Some(page::TITLE)
    {
        return Err(KitError::NotAKit);
    }
    let mut facts = Vec::new();
    let mut without = Vec::new();
    let mut section = "";
    for line in lines {
        if let Some(command) = line.strip_prefix(COMMAND) {
            if section == page::WITHOUT {
                without.push(command.to_owned());
            }
        } else if let Some((label, value)) = as_fact(line) {
            facts.push((label, value));
        } else if [page::WITH, page::WITHOUT, page::AFTERWARDS].contains(&line) {
            section = line;
        }
    }
    if without.is_empty() {
        return Err(KitError::NoCommands);
    }
    Ok(ReadKit {
        kit: kit(&Facts(facts))?,
        without,
    })
}

/// `  Label:   value`; steps begin with a number or deeper.
fn as_fact(line: &str) -> Option<(&str, &str)> {
    let line = line
        .strip_prefix("  ")
        .filter(|line| !line.starts_with(' '))?;
    let (label, value) = line.split_once(':')?;
    let value = value.strip_prefix(' ')?.trim();
    let is_label =
        label.starts_with(|c: char| c.is_ascii_uppercase()) && label.len() <= LABEL_WIDTH + 8;
    is_label.then_some((label, value))
}

struct Facts<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Facts<'t> {
    fn get(&self, label: &str) -> Option<&'t str> {
        self.0
            .iter()
            .find(|(name, value)| *name == label && !value.is_empty())
            .map(|(_, value)| *value)
    }

    fn owed(&self, label: &'static str) -> Result<&'t str, KitError> {
        self.get(label).ok_or(KitError::Missing(label))
    }
}

fn kit(facts: &Facts<'_>) -> Result<Kit, KitError> {
    let unusable = |label: &'static str, what: String| KitError::Unusable { label, what };
    let written: Timestamp = facts
        .owed(page::WRITTEN)?
        .parse()
        .map_err(|error: jiff::Error| unusable(page::WRITTEN, error.to_string()))?;
    let location = RepositoryLocation::parse(facts.owed(page::REPOSITORY)?)
        .map_err(|error| unusable(page::REPOSITORY, error.to_string()))?;
    let path_style = match facts.get(page::PATH_STYLE) {
        None => None,
        Some("yes") => Some(true),
        Some("no") => Some(false),
        Some(other) => {
            return Err(unusable(
                page::PATH_STYLE,
                format!("{other:?} is neither yes nor no"),
            ));
        }
    };
    let words = |label| {
        facts
            .get(label)
            .unwrap_or_default()
            .split([' ', ','])
            .filter(|word| !word.is_empty())
    };
    let credentials = words(page::NEEDED)
        .map(|name| Credential {
            name: name.to_owned(),
            value: facts.get(name).map(SecretString::from),
        })
        .collect();
    Ok(Kit {
        written,
        lifeboat_version: facts.owed(page::LIFEBOAT)?.to_owned(),
        hostname: facts.owed(page::HOST)?.to_owned(),
        location,
        repository_id: facts.owed(page::REPOSITORY_ID)?.to_owned(),
        key: facts.owed(page::KEY)?.to_owned(),
        passphrase: facts.owed(page::PASSPHRASE)?.into(),
        region: facts.get(page::REGION).map(str::to_owned),
        path_style,
        ssh_command: facts
            .get(page::SSH_COMMAND)
            .map(page::unquoted)
            .unwrap_or_default(),
        credentials,
        databases: databases(facts)?,
    })
}

/// Each database's line is followed by that of its server's version.
fn databases(facts: &Facts<'_>) -> Result<Vec<KitDatabase>, KitError> {
    let mut databases: Vec<KitDatabase> = Vec::new();
    for (label, value) in &facts.0 {
        match (*label, databases.last_mut()) {
            (page::DATABASE, _) => databases.push(KitDatabase {
                name: (*value).to_owned(),
                server_version: None,
            }),
            (page::POSTGRESQL, Some(last)) if *value != page::UNKNOWN => {
                last.server_version = Some((*value).to_owned());
            }
            _ => {}
        }
    }
    if databases.is_empty() {
        return Err(KitError::Missing(page::DATABASE));
    }
    Ok(databases)
}
