//! The conversation: what is not configured is asked, and everything is written down.

use std::path::{Path, PathBuf};

use lifeboat_engine::config::{PasswordSource, RepositoryLocation, reference};
use lifeboat_engine::recovery_kit::KitDatabase;
use lifeboat_pg::ConnInfo;
use secrecy::{ExposeSecret, SecretString};

use super::{InitArgs, Keys, Made, Places, chunk_sizes, dotenv, finished, make};
use crate::app::App;
use crate::cli::recovery_kit::write;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::new_files::{self, NewFiles};
use crate::{passphrase, prompt, secrets};

/// Asks, makes, and tells.
pub fn run(app: &App, args: &InitArgs) -> Result<(), Failure> {
    let places = Places::default_for(app);
    app.out
        .say("This makes an encrypted repository for your backups, and a configuration file.");
    app.out
        .say("Enter takes the answer in brackets; Ctrl-C leaves without a trace.\n");

    let (url, conninfo, version) = database(app)?;
    let repository = match &app.config.primary.location {
        Some(setting) => setting.value.clone(),
        None => {
            let answer = prompt::ask(
                app,
                "Repository: a folder, or s3:https://HOST/BUCKET/PREFIX, or sftp:USER@HOST:/PATH",
                Some(&places.repository.to_string()),
            )?;
            location(&answer)?
        }
    };
    let config_file = absolute(&prompt::ask(
        app,
        "Configuration file",
        Some(&places.config_file.display().to_string()),
    )?)?;
    if config_file.exists() {
        return Err(new_files::exists(&config_file));
    }
    let folder = config_file.parent().unwrap_or(Path::new("/")).to_owned();
    let kit_folder = args.recovery_kit.as_deref().unwrap_or(&folder);
    let kit_folder = super::kit_folder(Some(kit_folder))?.unwrap_or_default();

    // Everything is known; from here on something is made.
    let mut files = NewFiles::default();
    let key = match &repository {
        RepositoryLocation::Local(_) => "repository.path",
        _ => "repository.url",
    };
    let mut known = vec![(key, toml_text(&repository.to_string()))];
    let (password, passphrase_file) = password(app, &folder, &mut files, &mut known)?;
    let url_file = folder.join("database-url");
    files.write(&url_file, &format!("{}\n", url.expose_secret()))?;
    known.push(("database_url_file", toml_text(&file_name(&url_file))));
    let configured = KitDatabase {
        name: conninfo.database().to_owned(),
        server_version: version,
    };
    let chunk_sizes = chunk_sizes(app, &[conninfo])?;
    files.write(&config_file, &reference::template(&known))?;
    // The repository last: it is the one thing that is never removed again.
    let storage = app.storage(&app.config.primary, &repository)?;
    let (made, created) = make(app, storage, &password, Keys::New(chunk_sizes))?;
    files.keep();
    let recovery_kit = super::write_kit(app, &kit_folder, || {
        write::kit(
            app,
            &app.config.primary,
            &repository,
            &made,
            password,
            vec![configured],
        )
    });
    app.out.say("");
    finished(
        app,
        &Made {
            name: app.config.primary.name.clone(),
            shared_keys: None,
            keys_of: None,
            is_remote: matches!(repository, RepositoryLocation::Remote(_)),
            repository: repository.to_string(),
            repository_id: made.id().to_owned(),
            created,
            chunk_average_bytes: made.chunk_sizes().avg,
            config_file: Some(config_file),
            passphrase_file,
            database_url_file: Some(url_file),
            recovery_kit,
        },
    )
}

/// What was typed, as a location; a folder counts from where the question was asked.
fn location(answer: &str) -> Result<RepositoryLocation, Failure> {
    match RepositoryLocation::parse(answer) {
        Ok(RepositoryLocation::Local(path)) => Ok(RepositoryLocation::Local(absolute(
            &path.to_string_lossy(),
        )?)),
        Ok(location) => Ok(location),
        Err(error) => Err(Failure::of(Exit::Usage, &error)),
    }
}

/// The connection string: the environment's, a `.env` file's, or typed; tried at once.
fn database(app: &App) -> Result<(SecretString, ConnInfo, Option<String>), Failure> {
    let mut offer = match app.config.databases.first() {
        Some(database) => Some((
            secrets::database_url(&database.url)?,
            format!("{} in the environment", database.url.origin),
        )),
        None => std::env::current_dir()
            .ok()
            .and_then(|folder| dotenv::find(&folder, "DATABASE_URL"))
            .map(|(url, path)| (SecretString::from(url), path.display().to_string())),
    };
    loop {
        let url = match offer.take() {
            Some((url, from)) => {
                let Ok(conninfo) = app.conninfo(&url) else {
                    continue;
                };
                if !prompt::confirm(
                    app,
                    &format!("Back up {} (from {from})?", conninfo.display()),
                    true,
                )? {
                    continue;
                }
                url
            }
            None => prompt::ask(
                app,
                "Database (postgresql://USER:PASSWORD@HOST/DATABASE)",
                None,
            )?
            .into(),
        };
        match app.conninfo(&url).and_then(|conninfo| {
            app.connect(&conninfo)
                .map(|connection| (conninfo, connection))
        }) {
            Ok((conninfo, connection)) => {
                let version = connection.parameter("server_version").unwrap_or("?");
                app.out.say(&format!("Connected: PostgreSQL {version}.\n"));
                return Ok((url, conninfo, write::version(&connection)));
            }
            Err(failure) if failure.exit == crate::exit::Exit::Interrupted => return Err(failure),
            Err(failure) => app.out.failure(&failure),
        }
    }
}

/// The passphrase: the configured one, the one of a file that is there from an earlier try, or a new one.
fn password(
    app: &App,
    folder: &Path,
    files: &mut NewFiles,
    known: &mut Vec<(&'static str, String)>,
) -> Result<(SecretString, Option<PathBuf>), Failure> {
    if let Some(source) = &app.config.primary.password {
        let path = match &source.value {
            PasswordSource::File(path) => Some(absolute(&path.to_string_lossy())?),
            _ => None,
        };
        if let Some(path) = &path {
            known.push((
                "repository.password_file",
                toml_text(&path.to_string_lossy()),
            ));
        }
        return Ok((secrets::password(source)?, path));
    }
    let path = folder.join("passphrase");
    let password = passphrase::generate()?;
    files.write(&path, &format!("{password}\n"))?;
    known.push(("repository.password_file", toml_text(&file_name(&path))));
    Ok((password.into(), Some(path)))
}

/// The file's name alone: beside the configuration file, which is where relative paths count from.
fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// A typed path, with `~/` and relative ones made whole: what is written down must mean the same in cron.
fn absolute(text: &str) -> Result<PathBuf, Failure> {
    let path = match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    };
    std::path::absolute(path).map_err(Failure::bug)
}

fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}
