//! Text to [`ConfigFile`], with every mistake named by file and line.

use std::path::Path;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Place};
use super::file::ConfigFile;
use super::nearest::nearest_key;
use super::reference;

/// Reads a configuration file's text. `path` is for messages only.
pub(super) fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigErrors> {
    let lines = Lines { path, text };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        place: lines.place(error.span()),
        message: one_line(error.message()),
    })?;

    // Unknown keys are found by walking the document against the schema rather than by serde's
    // `deny_unknown_fields`, which stops at the first and can only tell its place, not what was meant.
    let schema = reference::schema();
    let known: Vec<String> = reference::keys().into_iter().map(|key| key.path).collect();
    let mut errors = Vec::new();
    unknown_keys(&lines, &known, "", table.get_ref(), &schema, &mut errors);
    // TOML's tables come sorted by name; people read from the top.
    errors.sort_by_key(|error| match error {
        ConfigError::UnknownKey { place, .. } => place.line,
        _ => 0,
    });
    ConfigErrors::check(errors)?;

    toml::from_str(text).map_err(|error| {
        ConfigError::BadValue {
            place: lines.place(error.span()),
            message: one_line(error.message()),
        }
        .into()
    })
}

fn unknown_keys(
    lines: &Lines<'_>,
    known: &[String],
    prefix: &str,
    table: &DeTable<'_>,
    schema: &Value,
    errors: &mut Vec<ConfigError>,
) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{prefix}.{}", key.get_ref())
        };
        let Some(inner) = schema["properties"].get(key.get_ref().as_ref()) else {
            errors.push(ConfigError::UnknownKey {
                place: lines.place(Some(key.span())),
                nearest: nearest_key(&path, known),
                key: path,
            });
            continue;
        };
        match value.get_ref() {
            DeValue::Table(table) if inner.get("properties").is_some() => {
                unknown_keys(lines, known, &path, table, inner, errors);
            }
            // One entry of a list that may also be written as a table.
            DeValue::Table(table) if inner["items"].get("properties").is_some() => {
                unknown_keys(lines, known, &path, table, &inner["items"], errors);
            }
            DeValue::Array(items) => {
                for item in items {
                    if let DeValue::Table(table) = item.get_ref() {
                        unknown_keys(lines, known, &path, table, &inner["items"], errors);
                    }
                }
            }
            _ => {}
        }
    }
}

fn one_line(message: &str) -> String {
    message
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Turns byte offsets into lines.
pub(super) struct Lines<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Lines<'_> {
    pub(super) fn place(&self, span: Option<std::ops::Range<usize>>) -> Place {
        let offset = span.map_or(0, |span| span.start).min(self.text.len());
        Place {
            path: self.path.to_owned(),
            line: 1 + self.text.as_bytes()[..offset]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count(),
        }
    }
}
