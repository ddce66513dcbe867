//! The repositories: the primary, which the environment can name as well, and the others.

use lifeboat_repo::storage::remote::LocationError;
use toml::Spanned;

use super::error::ConfigError;
use super::file::RepositorySection;
use super::resolve::{Layers, is_name, some_text};
use super::{
    Origin, PasswordSource, RemoteSettings, RepositoryLocation, RepositorySettings, Setting,
    TimeSpan,
};

/// What the first one is called when it has no name.
const PRIMARY: &str = "primary";

const STALL_TIMEOUT: TimeSpan = TimeSpan::minutes(1);
const GIVE_UP_AFTER: TimeSpan = TimeSpan::minutes(5);

/// Which one is being read. The environment is about the primary alone: one variable cannot mean several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Primary,
    Other,
}

impl Layers<'_> {
    /// The primary, and the others.
    pub(super) fn repositories(
        &mut self,
        sections: Vec<Spanned<RepositorySection>>,
    ) -> (RepositorySettings, Vec<RepositorySettings>) {
        let mut sections = sections.into_iter();
        let nothing = || Spanned::new(0..0, RepositorySection::default());
        let first = sections.next().unwrap_or_else(nothing);
        let mut names = Vec::new();
        let primary = self.one(first, Place::Primary, &mut names);
        let others = sections.map(|section| {
            let one = self.one(section, Place::Other, &mut names);
            RepositorySettings {
                password: one.password.or_else(|| primary.password.clone()),
                ..one
            }
        });
        let others = others.collect();
        (primary, others)
    }

    fn one(
        &mut self,
        section: Spanned<RepositorySection>,
        place: Place,
        names: &mut Vec<String>,
    ) -> RepositorySettings {
        let origin = self.origin(&section);
        let mut section = section.into_inner();
        let name = self.name(section.name.take(), origin, place, names);
        let after_backup = self.or_default(section.after_backup.take(), false);
        if place == Place::Primary && after_backup.value {
            self.unusable(
                after_backup.origin.clone(),
                "repository.after_backup: backups are written to the first repository; this is for the others",
            );
        }
        let remote = self.remote(&mut section);
        let is_placed = section.path.is_some() || section.url.is_some();
        if place == Place::Other && !is_placed {
            self.unusable(
                name.origin.clone(),
                format!("repository {} has no path and no url", name.value),
            );
        }
        RepositorySettings {
            location: self.location(section.path, section.url, place),
            password: self.password(section.password_file, section.password_command, place),
            remote,
            after_backup,
            name: name.value,
        }
    }

    fn name(
        &mut self,
        name: Option<Spanned<String>>,
        section: Origin,
        place: Place,
        names: &mut Vec<String>,
    ) -> Setting<String> {
        let name = match (name, place) {
            (Some(name), _) => {
                let origin = self.origin(&name);
                Setting::new(name.into_inner(), origin)
            }
            (None, Place::Primary) => Setting::default(PRIMARY.to_owned()),
            (None, Place::Other) => {
                let number = names.len() + 1;
                self.unusable(
                    section,
                    format!(
                        "repository number {number} has no name: only the first one can do without"
                    ),
                );
                return Setting::default(number.to_string());
            }
        };
        if !is_name(&name.value) {
            self.unusable(
                name.origin.clone(),
                format!(
                    "{:?} is not a repository name: use up to 63 letters, digits, `.`, `_` and `-`",
                    name.value
                ),
            );
        }
        if names.contains(&name.value) {
            self.errors.push(ConfigError::DuplicateRepository {
                origin: name.origin.clone(),
                name: name.value.clone(),
            });
        }
        names.push(name.value.clone());
        name
    }

    fn password_of_the_environment(&mut self) -> Option<Setting<PasswordSource>> {
        let literal = self
            .env("LIFEBOAT_PASSWORD")
            .map(|(text, origin)| Setting::new(PasswordSource::Literal(text.into()), origin));
        let named = self
            .env("LIFEBOAT_PASSWORD_FILE")
            .map(|(path, origin)| Setting::new(PasswordSource::File(path.into()), origin));
        self.at_most_one(literal, named)
    }

    fn location(
        &mut self,
        path: Option<Spanned<String>>,
        url: Option<Spanned<String>>,
        place: Place,
    ) -> Option<Setting<RepositoryLocation>> {
        let path = path.map(|spanned| (spanned.get_ref().clone(), self.origin(&spanned)));
        let url = url.map(|spanned| (spanned.get_ref().clone(), self.origin(&spanned)));
        if let (Some((_, first)), Some((_, second))) = (&path, &url) {
            self.errors.push(ConfigError::Conflict {
                first: first.clone(),
                second: second.clone(),
            });
        }
        let from_environment = match place {
            Place::Primary => self.env("LIFEBOAT_REPOSITORY"),
            Place::Other => None,
        };
        let (text, origin) = from_environment.or(path).or(url)?;
        let location = match RepositoryLocation::parse(&text) {
            Ok(RepositoryLocation::Local(folder)) => RepositoryLocation::Local(match &origin {
                Origin::File(_) => self.file_path(&folder.to_string_lossy()),
                _ => folder,
            }),
            Ok(location) => location,
            Err(LocationError::UnknownScheme { scheme }) => {
                self.errors
                    .push(ConfigError::StorageUnknown { origin, scheme });
                return None;
            }
            Err(error) => {
                self.unusable(origin, error.to_string());
                return None;
            }
        };
        Some(Setting::new(location, origin))
    }

    fn remote(&mut self, section: &mut RepositorySection) -> RemoteSettings {
        let region = self.or_default(section.region.take().map(some_text), None);
        let credentials_file = self.path_or_none(section.credentials_file.take());
        let path_style = match section.path_style.take() {
            Some(spanned) => {
                let origin = self.origin(&spanned);
                Setting::new(Some(spanned.into_inner()), origin)
            }
            None => Setting::default(None),
        };
        let bandwidth_limit = match section.bandwidth_limit.take() {
            Some(spanned) => {
                let origin = self.origin(&spanned);
                Setting::new(Some(spanned.into_inner()), origin)
            }
            None => Setting::default(None),
        };
        let ssh_command = self.or_default(section.ssh_command.take(), vec!["ssh".to_owned()]);
        if ssh_command
            .value
            .first()
            .is_none_or(|program| program.is_empty())
        {
            let origin = ssh_command.origin.clone();
            self.unusable(origin, "repository.ssh_command names no program");
        }
        RemoteSettings {
            append_only: self.or_default(section.append_only.take(), false),
            region,
            path_style,
            credentials_file,
            bandwidth_limit,
            stall_timeout: self.or_default(section.stall_timeout.take(), STALL_TIMEOUT),
            give_up_after: self.or_default(section.give_up_after.take(), GIVE_UP_AFTER),
            ssh_command,
        }
    }

    fn password(
        &mut self,
        file: Option<Spanned<String>>,
        command: Option<Spanned<Vec<String>>>,
        place: Place,
    ) -> Option<Setting<PasswordSource>> {
        let from_environment = match place {
            Place::Primary => self.password_of_the_environment(),
            Place::Other => None,
        };

        let file = file.map(|spanned| {
            let origin = self.origin(&spanned);
            if spanned.get_ref().is_empty() {
                self.unusable(origin.clone(), "repository.password_file is empty");
            }
            Setting::new(
                PasswordSource::File(self.file_path(spanned.get_ref())),
                origin,
            )
        });
        let command = command.map(|spanned| {
            let origin = self.origin(&spanned);
            if spanned
                .get_ref()
                .first()
                .is_none_or(|program| program.is_empty())
            {
                self.unusable(
                    origin.clone(),
                    "repository.password_command names no program",
                );
            }
            Setting::new(PasswordSource::Command(spanned.into_inner()), origin)
        });
        let from_file = self.at_most_one(file, command);
        from_environment.or(from_file)
    }
}
