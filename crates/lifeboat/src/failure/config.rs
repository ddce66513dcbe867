//! Advice on the configuration.

use lifeboat_engine::config::{ConfigError, ConfigErrors};

use super::Failure;
use crate::exit::Exit;

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::NoRepository => Exit::NoRepository,
            _ => Exit::Usage,
        };
        let failure = Self::of(exit, &error);
        match advice(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        let mut all = errors.all().iter();
        let Some(first) = all.next() else {
            return Self::bug(errors);
        };
        let mut failure = Self::from(first.clone());
        // One line of fact each; the advice of the first is enough to begin with.
        for error in all {
            failure.fact = format!("{}; also {error}", failure.fact);
            failure
                .hints
                .extend(advice(error).filter(|_| matches!(error, ConfigError::UnknownKey { .. })));
        }
        failure
    }
}

fn advice(error: &ConfigError) -> Option<String> {
    Some(match error {
        ConfigError::UnknownKey { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
        ConfigError::UnknownKey { nearest: None, .. } => {
            "every key is listed in docs/configuration.md".to_owned()
        }
        ConfigError::StorageUnknown { .. } => {
            "most clouds speak S3 as well: `s3:https://HOST/BUCKET/PREFIX`; what rclone can mount is a folder".to_owned()
        }
        ConfigError::Conflict { .. } => "keep one of the two".to_owned(),
        ConfigError::NoDatabase => {
            "set DATABASE_URL, or run `lifeboat init` to write a configuration file".to_owned()
        }
        ConfigError::ChooseDatabase { .. } => "choose one with `--database NAME`".to_owned(),
        ConfigError::UnknownDatabase { nearest: Some(nearest), .. } => format!("did you mean `--database {nearest}`?"),
        ConfigError::UnknownDatabase { names, .. } if names.is_empty() => {
            "the only configured database has no name: leave `--database` out".to_owned()
        }
        ConfigError::UnknownDatabase { names, .. } => format!("configured: {}", names.join(", ")),
        ConfigError::UnknownRepository { nearest: Some(nearest), names, .. } => {
            format!("did you mean {nearest}? configured: {}", names.join(", "))
        }
        ConfigError::UnknownRepository { names, .. } => format!("configured: {}", names.join(", ")),
        ConfigError::DuplicateRepository { .. } => "give one of them another `name`".to_owned(),
        ConfigError::NoRepository => {
            "set LIFEBOAT_REPOSITORY to a folder, an `s3:` or an `sftp:` location, or run `lifeboat init` to make a repository".to_owned()
        }
        ConfigError::NoPassword => {
            "set LIFEBOAT_PASSWORD_FILE to the file that holds the passphrase, or run `lifeboat init` to make one".to_owned()
        }
        _ => return None,
    })
}
