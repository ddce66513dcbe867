//! The configuration's documentation, made from its types: the list of keys, the file that `init` writes,
//! the reference page, the JSON schema.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::file::ConfigFile;

/// One key, as its documentation describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// Full path, such as `objectives.rpo`.
    pub path: String,
    /// Whether the section it stands in may occur several times (`[[drill.check]]`).
    pub in_list: bool,
    /// What its value is: `text`, `number`, `duration`, `size`, `list of text`, `secret text`…
    pub kind: String,
    /// What it says, in full. First paragraph first.
    pub doc: String,
    /// The value used when nobody sets it, as text.
    pub default: Option<String>,
    /// The environment variable that wins over the file.
    pub env: Option<String>,
    /// A value to copy, in TOML.
    pub example: String,
}

/// One section, as its documentation describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionDoc {
    /// Path, such as `drill.check`; empty for the top level.
    pub path: String,
    /// Whether it may occur several times.
    pub is_list: bool,
    /// What it says.
    pub doc: String,
    /// Its own keys, in order.
    pub keys: Vec<KeyDoc>,
}

/// The JSON schema of `lifeboat.toml`, for editors and for tests.
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<ConfigFile>()
        .to_value()
}

/// Every section, in the file's order; the top level first.
pub fn sections() -> Vec<SectionDoc> {
    let mut sections = Vec::new();
    collect("", false, &schema(), None, &mut sections);
    sections
}

/// Every key, in the file's order.
pub fn keys() -> Vec<KeyDoc> {
    sections()
        .into_iter()
        .flat_map(|section| section.keys)
        .collect()
}

fn collect(
    path: &str,
    is_list: bool,
    schema: &Value,
    doc: Option<&str>,
    sections: &mut Vec<SectionDoc>,
) {
    let mut section = SectionDoc {
        path: path.to_owned(),
        is_list,
        doc: doc.map_or_else(|| text(schema, "description"), str::to_owned),
        keys: Vec::new(),
    };
    let mut inner = Vec::new();
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (name, property) in properties {
        let full = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let doc = text(property, "description");
        if property.get("properties").is_some() {
            inner.push((full, false, property.clone(), doc));
        } else if property["items"].get("properties").is_some() {
            inner.push((full, true, property["items"].clone(), doc));
        } else {
            section.keys.push(key(full, is_list, doc, property));
        }
    }
    sections.push(section);
    for (path, is_list, schema, doc) in inner {
        collect(&path, is_list, &schema, Some(&doc), sections);
    }
}

fn key(path: String, in_list: bool, doc: String, property: &Value) -> KeyDoc {
    let default = match &property["x-default"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let example = match property["x-example"].as_str() {
        Some(example) => example.to_owned(),
        None => match (&default, property["format"].as_str()) {
            (Some(default), Some("duration" | "size")) => format!("{default:?}"),
            (Some(default), _) => default.clone(),
            (None, _) => "\"\"".to_owned(),
        },
    };
    KeyDoc {
        path,
        in_list,
        kind: kind(property),
        doc,
        default,
        env: property["x-env"].as_str().map(str::to_owned),
        example,
    }
}

fn kind(property: &Value) -> String {
    let types: Vec<&str> = match &property["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect(),
        _ => Vec::new(),
    };
    match (property["format"].as_str(), types.as_slice()) {
        (Some("secret"), _) => "secret text".to_owned(),
        (Some(format @ ("duration" | "size")), _) => format.to_owned(),
        (_, ["string"]) => "text".to_owned(),
        (_, ["integer"]) => "number".to_owned(),
        (_, ["boolean"]) => "true/false".to_owned(),
        (_, ["array"]) => "list of text".to_owned(),
        _ => "text, number or true/false".to_owned(),
    }
}

fn text(schema: &Value, name: &str) -> String {
    schema[name].as_str().unwrap_or_default().to_owned()
}

/// Values that `init` knows and writes uncommented: full key and its value in TOML.
pub type Known<'a> = &'a [(&'a str, String)];

/// The text of a new `lifeboat.toml`: every key with its documentation, all commented out but `known`.
pub fn template(known: Known<'_>) -> String {
    let mut out = String::new();
    for (index, section) in sections().iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        comment(&mut out, &section.doc);
        let active = section
            .keys
            .iter()
            .any(|key| known.iter().any(|(path, _)| *path == key.path));
        if index > 0 {
            // An empty table changes nothing, so plain sections stay open for the next edit. A list's
            // entry would be an entry, so it stays commented until something is in it.
            match (section.is_list, active) {
                (false, _) => writeln!(out, "[{}]", section.path),
                (true, true) => writeln!(out, "[[{}]]", section.path),
                (true, false) => writeln!(out, "#[[{}]]", section.path),
            }
            .unwrap_or_default();
        } else {
            out.push('\n');
        }
        for (position, key) in section.keys.iter().enumerate() {
            if position > 0 {
                out.push('\n');
            }
            let name = key.path.rsplit('.').next().unwrap_or(&key.path);
            comment(&mut out, &key.doc);
            if let Some(env) = &key.env {
                comment(&mut out, &format!("Environment: {env}."));
            }
            match known.iter().find(|(path, _)| *path == key.path) {
                Some((_, value)) => writeln!(out, "{name} = {value}"),
                None => writeln!(out, "#{name} = {}", key.example),
            }
            .unwrap_or_default();
        }
    }
    out
}

fn comment(out: &mut String, doc: &str) {
    for line in wrapped(doc, 96) {
        let line = if line.is_empty() {
            "#".to_owned()
        } else {
            format!("# {line}")
        };
        out.push_str(&line);
        out.push('\n');
    }
}

/// Joins the lines of each paragraph and breaks them again at `width`.
fn wrapped(doc: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, paragraph) in doc.split("\n\n").enumerate() {
        if index > 0 {
            lines.push(String::new());
        }
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// The reference page, in Markdown.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Made from the config types by `cargo xtask config-reference`. Edit the doc comments there. -->\n\n",
    );
    out.push_str(
        "Lifeboat reads one file: the one named by `--config`, else by `$LIFEBOAT_CONFIG`, else the first of\n\
         `./lifeboat.toml`, `$XDG_CONFIG_HOME/lifeboat/lifeboat.toml` (`~/.config/…`) and\n\
         `/etc/lifeboat/lifeboat.toml` that exists. None is needed when `DATABASE_URL`, `LIFEBOAT_REPOSITORY`\n\
         and `LIFEBOAT_PASSWORD_FILE` are set. Unknown keys are errors.\n\n\
         Durations are written `\"90s\"`, `\"2h\"`, `\"1h30m\"`, `\"30d\"`; sizes `\"64MiB\"`, `\"1GiB\"`, `\"2GB\"`.\n\n",
    );
    for section in sections() {
        let doc = section.doc.clone();
        if section.path.is_empty() {
            let body = doc.split_once("\n\n").map_or("", |(_, body)| body);
            out.push_str(&format!("{}\n\n## Top level\n\n", joined(body)));
        } else {
            let (open, close) = if section.is_list {
                ("[[", "]]")
            } else {
                ("[", "]")
            };
            out.push_str(&format!(
                "## `{open}{}{close}`\n\n{}\n\n",
                section.path,
                joined(&doc)
            ));
        }
        for key in &section.keys {
            let name = key.path.rsplit('.').next().unwrap_or(&key.path);
            let mut facts = vec![key.kind.clone()];
            if let Some(default) = &key.default {
                let code = default.contains('`') || default.contains(' ');
                facts.push(if code {
                    format!("default: {default}")
                } else {
                    format!("default `{default}`")
                });
            }
            if let Some(env) = &key.env {
                facts.push(format!("environment `{env}`"));
            }
            out.push_str(&format!(
                "### `{name}`\n\n{}.\n\n{}\n\n",
                sentence(&facts.join(" · ")),
                joined(&key.doc)
            ));
            out.push_str(&format!("```toml\n{name} = {}\n```\n\n", key.example));
        }
    }
    out.push_str(ENVIRONMENT);
    out
}

fn joined(doc: &str) -> String {
    wrapped(doc, 110).join("\n")
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

const ENVIRONMENT: &str = "\
## Environment only

| variable | meaning |
|---|---|
| `LIFEBOAT_CONFIG` | the configuration file, when `--config` does not name one |
| `LIFEBOAT_PASSWORD` | the repository's passphrase itself; prefer `LIFEBOAT_PASSWORD_FILE` |
| `PGHOST`, `PGDATABASE`, `PGSERVICE`, … | as libpq reads them, for whatever the connection string leaves out |
| `BACKUP_DIR` | `verify`: a folder of dumps (default `/backups`) |
| `BACKUP_GLOB` | `verify`: which of its files are dumps (default `*.dump`) |
| `BACKUP_MAX_AGE_HOURS` | `verify`: how old the newest of them may be (default 2) |
| `BACKUP_FILE` | `verify`: this dump, not the newest |
| `NO_COLOR` | no colours |

Any of the `BACKUP_…` variables makes `verify` check dumps, not the repository. restic's own variables
(`RESTIC_REPOSITORY`, `RESTIC_PASSWORD`, …) are not read.
";
