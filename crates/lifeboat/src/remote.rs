//! From settings and environment to a storage on another machine.

use std::path::Path;
use std::sync::Arc;

use lifeboat_engine::config::RemoteSettings;
use lifeboat_repo::storage::Storage;
use lifeboat_repo::storage::remote::{
    RemoteLocation, RemoteOptions, RemoteStorage, S3Access, S3Location, SshCommand,
};
use secrecy::SecretString;

use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;

/// What Amazon's tools sign for when nothing says otherwise, and what other servers take for no region.
const DEFAULT_REGION: &str = "us-east-1";

/// The storage at a location. Reads credentials, connects to nothing.
pub fn storage(
    app: &App,
    settings: &RemoteSettings,
    location: &RemoteLocation,
) -> Result<Arc<dyn Storage>, Failure> {
    let defaults = RemoteOptions::default();
    let give_up_after = settings.give_up_after.value.duration();
    let options = RemoteOptions {
        interrupt: Arc::clone(&app.interrupt),
        bytes_per_second: settings.bandwidth_limit.value.map(|limit| limit.bytes()),
        stall_timeout: settings.stall_timeout.value.duration(),
        first_contact: defaults.first_contact.min(give_up_after),
        give_up_after,
        ..defaults
    };
    match location {
        RemoteLocation::S3(location) => {
            let storage = RemoteStorage::s3(location, &access(app, settings, location)?, options)?;
            Ok(Arc::new(storage))
        }
        RemoteLocation::Sftp(location) => {
            let mut words = settings.ssh_command.value.iter();
            let ssh = match words.next() {
                Some(program) => SshCommand {
                    program: program.into(),
                    arguments: words.map(Into::into).collect(),
                },
                None => SshCommand::default(),
            };
            Ok(Arc::new(RemoteStorage::sftp(location, ssh, options)))
        }
        other => Err(Failure::bug(format_args!("no storage for {other}"))),
    }
}

fn access(
    app: &App,
    settings: &RemoteSettings,
    location: &S3Location,
) -> Result<S3Access, Failure> {
    let environment = |name: &str| {
        app.environment
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    };
    let keys = match &settings.credentials_file.value {
        Some(path) => read_keys(path)?,
        None => Keys {
            id: environment("AWS_ACCESS_KEY_ID"),
            secret: environment("AWS_SECRET_ACCESS_KEY").map(Into::into),
            token: environment("AWS_SESSION_TOKEN").map(Into::into),
        },
    };
    let (Some(access_key_id), Some(secret_access_key)) = (keys.id, keys.secret) else {
        let place = match &settings.credentials_file.value {
            Some(path) => format!("in {}", path.display()),
            None => "in the environment".to_owned(),
        };
        return Err(
            Failure::new(Exit::Usage, format!("no access key for {location} {place}"))
                .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
                .hint("or write `aws_access_key_id = …` and `aws_secret_access_key = …` into a file (mode 0600) that `repository.credentials_file` names"),
        );
    };
    // A bucket with a dot in its name fits no certificate of the form `*.host`.
    let path_style = !location.is_amazon() || location.bucket.contains('.');
    Ok(S3Access {
        region: region(app, settings, location),
        path_style: settings.path_style.value.unwrap_or(path_style),
        access_key_id,
        secret_access_key,
        session_token: keys.token,
    })
}

/// The region that requests to a bucket are signed for.
pub fn region(app: &App, settings: &RemoteSettings, location: &S3Location) -> String {
    let environment = |name: &str| {
        let value = app.environment.get(name).cloned();
        value.filter(|value| !value.is_empty())
    };
    let region = settings.region.value.clone();
    region
        .or_else(|| location.region().map(str::to_owned))
        .or_else(|| environment("AWS_REGION"))
        .or_else(|| environment("AWS_DEFAULT_REGION"))
        .unwrap_or_else(|| DEFAULT_REGION.to_owned())
}

/// The access key to a bucket: its ID and its secret.
pub fn access_key(
    app: &App,
    settings: &RemoteSettings,
    location: &S3Location,
) -> Result<(String, SecretString), Failure> {
    let access = access(app, settings, location)?;
    Ok((access.access_key_id, access.secret_access_key))
}

#[derive(Debug, Default)]
struct Keys {
    id: Option<String>,
    secret: Option<SecretString>,
    token: Option<SecretString>,
}

fn read_keys(path: &Path) -> Result<Keys, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let fact = format!("cannot read the access key from {}", path.display());
        Failure::new(Exit::Usage, fact)
            .cause(&error)
            .hint("make it readable for this user alone, or correct `repository.credentials_file`")
    })?;
    Ok(parse_keys(&text))
}

/// The `[default]` section of Amazon's credentials file, or what stands before any section. Also takes lines
/// of an environment file, which name the same in capitals.
fn parse_keys(text: &str) -> Keys {
    let mut keys = Keys::default();
    let mut is_ours = true;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            is_ours = section.trim_end_matches(']').trim() == "default";
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_ours) else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']).to_owned();
        let name = name
            .trim()
            .trim_start_matches("export ")
            .to_ascii_lowercase();
        match name.as_str() {
            _ if value.is_empty() => {}
            "aws_access_key_id" => keys.id = Some(value),
            "aws_secret_access_key" => keys.secret = Some(value.into()),
            "aws_session_token" => keys.token = Some(value.into()),
            _ => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn keys_are_read_from_amazons_file_and_from_an_environment_file() {
        for text in [
            "aws_access_key_id = A\naws_secret_access_key = S=s/\n",
            "# ours\n[default]\naws_access_key_id=A\naws_secret_access_key=S=s/\n[other]\naws_access_key_id=B\n",
            "[other]\naws_access_key_id=B\naws_secret_access_key=B\n[default]\naws_secret_access_key = S=s/\naws_access_key_id = A",
            "export AWS_ACCESS_KEY_ID=\"A\"\nAWS_SECRET_ACCESS_KEY='S=s/'\nAWS_SESSION_TOKEN=\n",
        ] {
            let keys = parse_keys(text);
            assert_eq!(keys.id.as_deref(), Some("A"), "{text}");
            assert_eq!(keys.secret.unwrap().expose_secret(), "S=s/", "{text}");
            assert!(keys.token.is_none());
        }
        assert!(parse_keys("[other]\naws_access_key_id=B").id.is_none());
    }
}
