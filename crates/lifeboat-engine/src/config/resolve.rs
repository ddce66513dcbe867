//! The layers, laid over each other: default, file, environment.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::error::{ConfigError, ConfigErrors, Place};
use super::file::{ConfigFile, DatabaseSection, DrillCheckSection, ExpectedText, RetentionSection};
use super::parse::{Lines, parse};
use super::units::{ByteSize, TimeSpan};
use super::{
    BackupSettings, Config, Database, DrillCheck, DrillSettings, DumpFolder, Expectation,
    Objectives, Origin, Setting, Sources, ToolSettings, UrlSource, VerifySettings,
};
use crate::expire::{Policy, Within};

const RPO: TimeSpan = TimeSpan::hours(1);
const RTO: TimeSpan = TimeSpan::hours(1);
const VERIFY_MAX_AGE: TimeSpan = TimeSpan::hours(2);
const VERIFY_MAX_PROOF_AGE: TimeSpan = TimeSpan::hours(30 * 24);
const DRILL_MAX_AGE: TimeSpan = TimeSpan::hours(7 * 24);
const LOCK_TIMEOUT_SECONDS: u64 = 60;
const MAX_UNUSED_PERMILLE: u64 = 50;
const SLICE_SIZE: ByteSize = ByteSize::mebibytes(128);
const KEEP_WITHIN: Within = Within {
    years: 0,
    months: 0,
    days: 30,
    hours: 0,
};
const KEEP_MAX: i64 = 1_000_000;
const COMPRESSION_LEVEL: i32 = 1;
const JOBS_MAX: i64 = 64;
const DUMP_DIR: &str = "/backups";
const DUMP_GLOB: &str = "*.dump";

pub(super) fn resolve(sources: &Sources<'_>) -> Result<Config, ConfigErrors> {
    let (path, text) = match &sources.file {
        Some((path, text)) => (path.as_path(), text.as_str()),
        None => (Path::new(""), ""),
    };
    let file = match &sources.file {
        Some(_) => parse(path, text)?,
        None => ConfigFile::default(),
    };
    let mut layers = Layers {
        environment: sources.environment,
        lines: Lines { path, text },
        errors: Vec::new(),
    };
    let mut notices = Vec::new();

    let state_dir = layers.state_dir(file.state_dir, sources.is_root);
    let databases = layers.databases(
        file.database_url,
        file.database_url_file,
        file.database,
        &mut notices,
    );
    let (primary, others) = layers.repositories(file.repository.0);
    let lock_timeout = TimeSpan::from_seconds(LOCK_TIMEOUT_SECONDS).unwrap_or(TimeSpan::hours(1));
    let config = Config {
        file: sources.file.as_ref().map(|(path, _)| path.clone()),
        databases,
        primary,
        others,
        objectives: Objectives {
            rpo: layers.or_default(file.objectives.rpo, RPO),
            rto: layers.or_default(file.objectives.rto, RTO),
        },
        backup: BackupSettings {
            jobs: layers.jobs("backup.jobs", file.backup.jobs),
            compression_level: layers.compression_level(file.backup.compression_level),
            lock_timeout: layers.or_default(file.backup.lock_timeout, lock_timeout),
            slice_size: layers.or_default(file.backup.slice_size, SLICE_SIZE),
        },
        max_unused_permille: layers.max_unused(file.retention.max_unused.clone()),
        retention: layers.retention(file.retention),
        verify: VerifySettings {
            max_age: layers.or_default(file.verify.max_age, VERIFY_MAX_AGE),
            max_proof_age: layers.or_default(file.verify.max_proof_age, VERIFY_MAX_PROOF_AGE),
            dumps: layers.dump_folder(),
        },
        drill: DrillSettings {
            max_age: layers.or_default(file.drill.max_age, DRILL_MAX_AGE),
            jobs: layers.jobs("drill.jobs", file.drill.jobs),
            scratch_dir: layers.path_or_none(file.drill.scratch_dir),
            checks: file
                .drill
                .check
                .into_iter()
                .map(|check| layers.drill_check(check))
                .collect(),
        },
        tools: ToolSettings {
            bin_dir: layers.path_or_none(file.tools.bin_dir),
            prefix: layers.or_default(file.tools.prefix, Vec::new()),
        },
        state_dir,
        notices,
    };
    ConfigErrors::check(layers.errors)?;
    Ok(config)
}

pub(super) struct Layers<'a> {
    environment: &'a BTreeMap<String, String>,
    lines: Lines<'a>,
    pub(super) errors: Vec<ConfigError>,
}

impl Layers<'_> {
    pub(super) fn env(&self, name: &'static str) -> Option<(String, Origin)> {
        let value = self.environment.get(name)?;
        (!value.is_empty()).then(|| (value.clone(), Origin::Environment(name)))
    }

    fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        self.lines.place(Some(spanned.span()))
    }

    pub(super) fn origin<T>(&self, spanned: &Spanned<T>) -> Origin {
        Origin::File(self.place(spanned))
    }

    pub(super) fn unusable(&mut self, origin: Origin, message: impl Into<String>) {
        self.errors.push(ConfigError::Unusable {
            origin,
            message: message.into(),
        });
    }

    pub(super) fn or_default<T>(&self, value: Option<Spanned<T>>, default: T) -> Setting<T> {
        match value {
            Some(spanned) => {
                let origin = self.origin(&spanned);
                Setting::new(spanned.into_inner(), origin)
            }
            None => Setting::default(default),
        }
    }

    /// A path from the file: `~/` is the home folder, anything relative counts from the file's folder, so
    /// that a cron job in another folder means the same file.
    pub(super) fn file_path(&self, text: &str) -> PathBuf {
        if let Some(rest) = text.strip_prefix("~/")
            && let Some((home, _)) = self.env("HOME")
        {
            return Path::new(&home).join(rest);
        }
        match self.lines.path.parent() {
            Some(folder) => folder.join(text),
            None => PathBuf::from(text),
        }
    }

    pub(super) fn path_or_none(&self, value: Option<Spanned<String>>) -> Setting<Option<PathBuf>> {
        let setting = self.or_default(value.map(some_text), None);
        setting.map(|text| text.map(|text| self.file_path(&text)))
    }

    fn jobs(&mut self, key: &str, value: Option<Spanned<i64>>) -> Setting<Option<NonZeroUsize>> {
        let Some(spanned) = value else {
            return Setting::default(None);
        };
        let origin = self.origin(&spanned);
        let count = spanned.into_inner();
        let jobs = usize::try_from(count).ok().and_then(NonZeroUsize::new);
        if !(1..=JOBS_MAX).contains(&count) {
            self.unusable(
                origin.clone(),
                format!("{key} is {count}, but must be 1 to {JOBS_MAX}"),
            );
        }
        Setting::new(jobs, origin)
    }

    fn max_unused(&mut self, value: Option<Spanned<String>>) -> Setting<u64> {
        let Some(spanned) = value else {
            return Setting::default(MAX_UNUSED_PERMILLE);
        };
        let origin = self.origin(&spanned);
        let text = spanned.into_inner();
        let percent = text.strip_suffix('%').map(str::trim).unwrap_or_default();
        match percent.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => {
                Setting::new((percent * 10.0).round() as u64, origin)
            }
            _ => {
                self.unusable(
                    origin.clone(),
                    format!("retention.max_unused is {text:?}, but must be 0% to 100%"),
                );
                Setting::new(MAX_UNUSED_PERMILLE, origin)
            }
        }
    }

    fn compression_level(&mut self, value: Option<Spanned<i64>>) -> Setting<i32> {
        let Some(spanned) = value else {
            return Setting::default(COMPRESSION_LEVEL);
        };
        let origin = self.origin(&spanned);
        let level = spanned.into_inner();
        // Levels 20 to 22 need several times the memory for almost nothing, and memory is promised.
        match i32::try_from(level) {
            Ok(level @ 1..=19) => Setting::new(level, origin),
            _ => {
                self.unusable(
                    origin.clone(),
                    format!("backup.compression_level is {level}, but must be 1 to 19"),
                );
                Setting::new(COMPRESSION_LEVEL, origin)
            }
        }
    }

    /// The policy; where no part of it is set, the default one.
    fn retention(&mut self, section: RetentionSection) -> Setting<Policy> {
        let mut origin = Origin::Default;
        let mut policy = Policy::default();
        let counts = [
            ("keep_last", section.keep_last, &mut policy.last),
            ("keep_hourly", section.keep_hourly, &mut policy.hourly),
            ("keep_daily", section.keep_daily, &mut policy.daily),
            ("keep_weekly", section.keep_weekly, &mut policy.weekly),
            ("keep_monthly", section.keep_monthly, &mut policy.monthly),
            ("keep_yearly", section.keep_yearly, &mut policy.yearly),
        ];
        for (key, value, target) in counts {
            let Some(spanned) = value else { continue };
            origin = self.origin(&spanned);
            let count = spanned.into_inner();
            match u32::try_from(count).ok().filter(|_| count <= KEEP_MAX) {
                Some(count) => *target = count,
                None => self.unusable(
                    origin.clone(),
                    format!("retention.{key} is {count}, but must be 0 to {KEEP_MAX}"),
                ),
            }
        }
        if let Some(spanned) = section.keep_within {
            origin = self.origin(&spanned);
            match spanned.get_ref().parse() {
                Ok(within) => policy.within = Some(within),
                Err(error) => {
                    self.unusable(origin.clone(), format!("retention.keep_within: {error}"))
                }
            }
        }
        if origin == Origin::Default {
            policy.within = Some(KEEP_WITHIN);
        }
        Setting::new(policy, origin)
    }

    fn drill_check(&mut self, check: DrillCheckSection) -> DrillCheck {
        for (what, text) in [("name", &check.name), ("sql", &check.sql)] {
            if text.get_ref().trim().is_empty() {
                let origin = self.origin(text);
                self.unusable(origin, format!("a drill check's {what} is empty"));
            }
        }
        DrillCheck {
            name: check.name.into_inner(),
            sql: check.sql.into_inner(),
            expect: match check.expect.map(Spanned::into_inner) {
                Some(ExpectedText(expectation)) => expectation,
                None => Expectation::Boolean(true),
            },
        }
    }

    fn databases(
        &mut self,
        url: Option<Spanned<super::file::SecretText>>,
        url_file: Option<Spanned<String>>,
        sections: Vec<DatabaseSection>,
        notices: &mut Vec<String>,
    ) -> Vec<Database> {
        let literal = url.map(|spanned| {
            let origin = self.origin(&spanned);
            Setting::new(UrlSource::Literal(spanned.into_inner().0), origin)
        });
        let from_file = url_file.map(|spanned| {
            let origin = self.origin(&spanned);
            Setting::new(UrlSource::File(self.file_path(spanned.get_ref())), origin)
        });
        let single = self.at_most_one(literal, from_file);

        let mut named: Vec<Database> = Vec::new();
        for section in sections {
            if let Some(single) = &single {
                let second = self.origin(&section.name);
                self.errors.push(ConfigError::Conflict {
                    first: single.origin.clone(),
                    second,
                });
            }
            if let Some(database) = self.named_database(section, &named) {
                named.push(database);
            }
        }
        if let Some(url) = single {
            named.push(Database { name: None, url });
        }

        let from_environment = self
            .env("DATABASE_URL")
            .map(|(url, origin)| Setting::new(UrlSource::Literal(url.into()), origin));
        match (from_environment, named.as_mut_slice()) {
            (Some(url), []) => named.push(Database { name: None, url }),
            (Some(url), [only]) => only.url = url,
            // One variable cannot mean several databases; guessing which would be the wrong target.
            (Some(_), several) => notices.push(format!(
                "DATABASE_URL is set but not used: the configuration names {} databases",
                several.len()
            )),
            // A lone PGHOST says nothing about what to back up; a database or a service does.
            (None, []) => {
                let libpq = self.env("PGDATABASE").or_else(|| self.env("PGSERVICE"));
                if let Some((_, origin)) = libpq {
                    named.push(Database {
                        name: None,
                        url: Setting::new(UrlSource::LibpqEnvironment, origin),
                    });
                }
            }
            (None, _) => {}
        }
        named
    }

    fn named_database(
        &mut self,
        section: DatabaseSection,
        earlier: &[Database],
    ) -> Option<Database> {
        let origin = self.origin(&section.name);
        let name = section.name.into_inner();
        if !is_name(&name) {
            self.unusable(
                origin.clone(),
                format!("{name:?} is not a database name: use up to 63 letters, digits, `.`, `_` and `-`"),
            );
        }
        if earlier
            .iter()
            .any(|database| database.name.as_deref() == Some(&name))
        {
            self.errors.push(ConfigError::DuplicateDatabase {
                origin: origin.clone(),
                name: name.clone(),
            });
        }
        let literal = section.url.map(|spanned| {
            let origin = self.origin(&spanned);
            Setting::new(UrlSource::Literal(spanned.into_inner().0), origin)
        });
        let from_file = section.url_file.map(|spanned| {
            let origin = self.origin(&spanned);
            Setting::new(UrlSource::File(self.file_path(spanned.get_ref())), origin)
        });
        match self.at_most_one(literal, from_file) {
            Some(url) => Some(Database {
                name: Some(name),
                url,
            }),
            // The only database may get its URL from the environment: then the name alone is enough.
            None => match self.env("DATABASE_URL") {
                Some((url, from)) => Some(Database {
                    name: Some(name),
                    url: Setting::new(UrlSource::Literal(url.into()), from),
                }),
                None => {
                    self.unusable(
                        origin,
                        format!("database {name} has no url and no url_file"),
                    );
                    None
                }
            },
        }
    }

    pub(super) fn at_most_one<T>(
        &mut self,
        first: Option<Setting<T>>,
        second: Option<Setting<T>>,
    ) -> Option<Setting<T>> {
        if let (Some(first), Some(second)) = (&first, &second) {
            self.errors.push(ConfigError::Conflict {
                first: first.origin.clone(),
                second: second.origin.clone(),
            });
        }
        first.or(second)
    }

    fn dump_folder(&mut self) -> DumpFolder {
        let or = |found: Option<(String, Origin)>, default: &str| match found {
            Some((text, origin)) => Setting::new(text, origin),
            None => Setting::default(default.to_owned()),
        };
        let max_age = self.env("BACKUP_MAX_AGE_HOURS").and_then(|(text, origin)| {
            // A plain number, as the scripts it replaces read it; fractions of an hour are useful in tests.
            let seconds = text
                .trim()
                .parse::<f64>()
                .ok()
                .map(|hours| (hours * 3_600.0).round());
            let span = seconds
                .filter(|seconds| (1.0..1e9).contains(seconds))
                .and_then(|seconds| TimeSpan::from_seconds(seconds as u64));
            if span.is_none() {
                self.unusable(origin.clone(), format!("{text:?} is not a number of hours"));
            }
            span.map(|span| Setting::new(span, origin))
        });
        DumpFolder {
            dir: or(self.env("BACKUP_DIR"), DUMP_DIR).map(PathBuf::from),
            glob: or(self.env("BACKUP_GLOB"), DUMP_GLOB),
            file: match self.env("BACKUP_FILE") {
                Some((path, origin)) => Setting::new(Some(path.into()), origin),
                None => Setting::default(None),
            },
            max_age,
        }
    }

    fn state_dir(&self, file: Option<Spanned<String>>, is_root: bool) -> Setting<Option<PathBuf>> {
        if file.is_some() {
            return self.path_or_none(file);
        }
        if let Some((folder, origin)) = self.env("XDG_STATE_HOME")
            && Path::new(&folder).is_absolute()
        {
            return Setting::new(Some(Path::new(&folder).join("lifeboat")), origin);
        }
        if is_root {
            return Setting::default(Some(PathBuf::from("/var/lib/lifeboat")));
        }
        Setting::default(
            self.env("HOME")
                .map(|(home, _)| Path::new(&home).join(".local/state/lifeboat")),
        )
    }
}

/// Whether it is a name for a database or a repository.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// The scheme of a repository's address: the letters before the first `:`, when they are one of the known
/// storages or `//` follows. A colon in a folder's name is not a scheme.
pub(super) fn scheme(text: &str) -> Option<&str> {
    const KNOWN: [&str; 11] = [
        "file", "local", "s3", "sftp", "rest", "b2", "azure", "gs", "swift", "rclone", "opendal",
    ];
    let (scheme, rest) = text.split_once(':')?;
    let word = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
    (word && (KNOWN.contains(&scheme) || rest.starts_with("//"))).then_some(scheme)
}

pub(super) fn some_text(spanned: Spanned<String>) -> Spanned<Option<String>> {
    let span = spanned.span();
    Spanned::new(span, Some(spanned.into_inner()))
}
