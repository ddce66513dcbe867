//! `lifeboat key`: the passphrases that open the repository.

mod add;
mod rotate;

use std::sync::Arc;

use clap::{Args, Subcommand};
use lifeboat_engine::config::{PasswordSource, RepositorySettings};
use lifeboat_engine::keys::{self, KeyHolder};
use lifeboat_repo::key::ScryptParams;
use lifeboat_repo::keys::KeyInfo;
use serde_json::json;

use super::{LockArg, RepositoryArg};
use crate::app::{self, App};
use crate::confirm;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;
use crate::output::progress::Progress;
use crate::output::table::{self, Column};

/// Arguments of `key`.
#[derive(Debug, Args)]
#[command(after_help = "\
A repository has one master key, which encrypts everything in it. A key file holds that master
key, sealed with a passphrase; there can be several, one for each machine or person.

Changing or removing a passphrase does not change the master key. Whoever has read an old
passphrase AND has a copy of its key file, for example in an old copy of the repository, can
still read the data, also what is backed up later. Against that, only a new repository helps:
docs/keys.md says how.")]
#[command(disable_help_subcommand = true)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys: who made them, when, and which one is in use.
    List(ListArgs),
    /// Let a further passphrase open the repository.
    Add(add::AddArgs),
    /// Remove a key, so that its passphrase opens the repository no more.
    Remove(RemoveArgs),
    /// Replace the passphrase in use by a new one.
    Rotate(rotate::RotateArgs),
}

/// Flags of `key list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Flags of `key remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The key: its ID, or the beginning of it.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Confirm, by the ID that `key list` shows, that it shall go.
    #[arg(long, value_name = "ID")]
    pub yes: Option<String>,
    #[command(flatten)]
    pub repository: RepositoryArg,
    #[command(flatten)]
    pub lock: LockArg,
}

/// Runs it.
pub fn run(app: &App, args: &KeyArgs) -> Result<Exit, Failure> {
    match &args.command {
        KeyCommand::List(args) => list(app, args),
        KeyCommand::Add(args) => add::run(app, args),
        KeyCommand::Remove(args) => remove(app, args),
        KeyCommand::Rotate(args) => rotate::run(app, args),
    }
}

fn holder(app: &App, lock: &LockArg) -> KeyHolder {
    KeyHolder {
        hostname: app::hostname(),
        username: app.username(),
        now: app.now(),
        scrypt: ScryptParams::default(),
        patience: lock.patience(),
        interrupt: Arc::clone(&app.interrupt),
    }
}

fn list(app: &App, args: &ListArgs) -> Result<Exit, Failure> {
    let keys = app.repository(&args.repository)?.keys()?;
    let items: Vec<_> = keys.iter().map(item).collect();
    app.out.object("key", &json!({ "keys": items }))?;
    app.out.data(&table::draw(
        &[
            Column::Left("KEY"),
            Column::Left("USER"),
            Column::Left("HOST"),
            Column::Left("CREATED"),
            Column::Left(""),
        ],
        keys.iter().map(row),
    ));
    warn_of_leftovers(app, app.config.repository(args.repository.name())?);
    Ok(Exit::Done)
}

fn item(key: &KeyInfo) -> serde_json::Value {
    let origin = key.origin.as_ref();
    json!({
        "key": key.name,
        "short": key.short(),
        "in_use": key.is_in_use,
        "username": origin.ok().map(|origin| &origin.username),
        "hostname": origin.ok().map(|origin| &origin.hostname),
        "created": origin.ok().map(|origin| origin.created),
        "damage": origin.err(),
    })
}

fn row(key: &KeyInfo) -> Vec<String> {
    let in_use = if key.is_in_use { "in use" } else { "" }.to_owned();
    let [user, host, created, note] = match &key.origin {
        Ok(origin) => [
            origin.username.clone(),
            origin.hostname.clone(),
            human::time(origin.created),
            in_use,
        ],
        Err(what) => [String::new(), String::new(), String::new(), what.clone()],
    };
    vec![key.short().to_owned(), user, host, created, note]
}

/// An interrupted rotation is in nobody's way, but somebody should end it.
fn warn_of_leftovers(app: &App, settings: &RepositorySettings) {
    for path in leftovers(settings) {
        app.out.warn(&format!(
            "{} is left of a rotation that did not end; `lifeboat key rotate` finishes it",
            path.display()
        ));
    }
}

/// What an interrupted rotation left beside the passphrase file.
pub fn leftovers(settings: &RepositorySettings) -> Vec<std::path::PathBuf> {
    match settings.password.as_ref().map(|source| &source.value) {
        Some(PasswordSource::File(path)) => keys::leftovers(path),
        _ => Vec::new(),
    }
}

fn remove(app: &App, args: &RemoveArgs) -> Result<Exit, Failure> {
    let repository = app.repository(&args.repository)?;
    let key = repository.find_key(&args.id)?;
    // Asked first of what would be refused anyway, so that nobody types an ID in vain.
    if !key.is_in_use {
        let whose = match &key.origin {
            Ok(origin) => format!(" of {} on {}", origin.username, origin.hostname),
            Err(_) => String::new(),
        };
        let what = format!(
            "This removes key {}{whose}; its passphrase opens the repository no more",
            key.short()
        );
        confirm::by_name(app, &what, key.short(), args.yes.as_deref())?;
    }
    let progress = Progress::new(&app.out);
    let result = keys::remove(&repository, &key, &holder(app, &args.lock), &progress);
    drop(progress);
    result?;
    app.out.object(
        "key",
        &json!({ "removed": [key.name], "key": repository.key_id().to_string() }),
    )?;
    app.out.report(&table::pairs(&[
        ("removed", key.short().to_owned()),
        ("in use", repository.key_id().short()),
    ]));
    app.out.say(
        "\nIts passphrase opens this repository no more. Copies of the repository that still hold the key\n\
         file, it still opens: docs/keys.md.",
    );
    Ok(Exit::Done)
}
