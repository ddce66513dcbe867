//! The shape of `lifeboat.toml`, and the one source of its documentation.
//!
//! The doc comments on these fields are what a user reads: in the file that `init` writes, in
//! `docs/configuration.md` and in the JSON schema. `x-default`, `x-env` and `x-example` carry what a doc
//! comment cannot: [`super::reference`] prints them, and a test holds each `x-default` against the value
//! that [`super::resolve`] really gives.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::units::{ByteSize, TimeSpan};

/// Text that must not be printed: a connection string with a password in it.
#[derive(Debug, Clone)]
pub(super) struct SecretText(pub(super) SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "secret"})
    }
}

/// Lifeboat's configuration file.
///
/// Every key is optional. A command-line flag wins over an environment variable, which wins over this
/// file. Relative paths count from the folder of this file; `~/` is the home folder.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ConfigFile {
    /// The database to back up: a `postgresql://` URI, or `key=value` words as libpq reads them.
    ///
    /// It may hold a password, so a file that sets it must not be readable by others (mode 0600).
    /// Better: leave it out and set the environment variable, or use `database_url_file`.
    #[schemars(with = "Option<SecretText>")]
    #[schemars(extend("x-env" = "DATABASE_URL", "x-example" = "\"postgresql://app@db.example/memalerts\""))]
    pub(super) database_url: Option<Spanned<SecretText>>,
    /// A file that holds the database's connection string, on one line.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-example" = "\"/etc/lifeboat/database-url\""))]
    pub(super) database_url_file: Option<Spanned<String>>,
    /// Where Lifeboat keeps its journal: runs, proofs and drills. The backups do not need it.
    #[schemars(with = "Option<String>")]
    #[schemars(extend(
        "x-default" = "`$XDG_STATE_HOME/lifeboat`, else `/var/lib/lifeboat` for root, else `~/.local/state/lifeboat`",
        "x-example" = "\"/var/lib/lifeboat\""
    ))]
    pub(super) state_dir: Option<Spanned<String>>,
    /// One of several databases, each with a name. Use this or `database_url`, not both.
    pub(super) database: Vec<DatabaseSection>,
    /// Where backups are kept: ordinary restic repositories, encrypted and deduplicated. The first one is the
    /// primary: backups are written to it, and copied from there to the others by `lifeboat copy`. A single one
    /// can be written as the table `[repository]`. The environment variables are about the primary.
    #[schemars(with = "Vec<RepositorySection>")]
    pub(super) repository: OneOrMore,
    /// What you promised. `status` and the drills hold reality against these.
    pub(super) objectives: ObjectivesSection,
    /// How backups are taken.
    pub(super) backup: BackupSection,
    /// Which backups `expire` keeps. Each database's are judged by themselves, and one rule is enough to be kept.
    /// The `--keep-…` flags, if any is given, count instead of all of this.
    pub(super) retention: RetentionSection,
    /// What `verify` accepts.
    pub(super) verify: VerifySection,
    /// How backups are proven by restoring them.
    pub(super) drill: DrillSection,
    /// Where PostgreSQL's own programs are: `pg_dump`, `pg_restore`, `initdb`, `postgres`.
    pub(super) tools: ToolsSection,
}

/// One named database.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct DatabaseSection {
    /// The name used with `--database` and shown in lists. Letters, digits, `.`, `_` and `-`.
    #[schemars(with = "String")]
    #[schemars(extend("x-example" = "\"memalerts\""))]
    pub(super) name: Spanned<String>,
    /// Its connection string. It may hold a password: keep this file at mode 0600, or use `url_file`.
    #[schemars(with = "Option<SecretText>")]
    #[schemars(extend("x-example" = "\"postgresql://app@db.example/memalerts\""))]
    pub(super) url: Option<Spanned<SecretText>>,
    /// A file that holds its connection string, on one line.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-example" = "\"/etc/lifeboat/memalerts-url\""))]
    pub(super) url_file: Option<Spanned<String>>,
}

/// Where backups are stored, and what opens them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RepositorySection {
    /// The name used with `--repository` and shown by `status`. Letters, digits, `.`, `_` and `-`. Every one but
    /// the first needs one.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-default" = "`primary` for the first", "x-example" = "\"offsite\""))]
    pub(super) name: Option<Spanned<String>>,
    /// The folder that holds the repository; a mounted network folder is one. For a repository on another
    /// machine, use `url`.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-env" = "LIFEBOAT_REPOSITORY", "x-example" = "\"/var/backups/lifeboat\""))]
    pub(super) path: Option<Spanned<String>>,
    /// Where the repository is, written as restic writes it: `s3:https://HOST/BUCKET/PREFIX` for a bucket,
    /// `sftp:USER@HOST:/PATH` or `sftp://USER@HOST:PORT//PATH` for a folder behind SSH, `file:///PATH` for one
    /// here. Set this or `path`. The environment variable takes either.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-env" = "LIFEBOAT_REPOSITORY", "x-example" = "\"s3:https://s3.example.org/backups/memalerts\""))]
    pub(super) url: Option<Spanned<String>>,
    /// A file that holds the repository's passphrase, on one line (mode 0600). Keep a copy of it
    /// somewhere else: without it the backups cannot be read by anyone. A repository that has neither this nor
    /// `password_command` is opened with the primary's.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-env" = "LIFEBOAT_PASSWORD_FILE", "x-example" = "\"/etc/lifeboat/passphrase\""))]
    pub(super) password_file: Option<Spanned<String>>,
    /// A program that prints the passphrase, as a list of words; no shell is involved.
    /// The passphrase itself can also be set in the environment, as `LIFEBOAT_PASSWORD`.
    #[schemars(with = "Option<Vec<String>>")]
    #[schemars(extend("x-example" = "[\"pass\", \"show\", \"lifeboat\"]"))]
    pub(super) password_command: Option<Spanned<Vec<String>>>,
    /// Whether this machine only ever adds to the repository, and asks to remove nothing, its own locks included:
    /// for a credential that may not delete. `expire` and `hold` then have to run elsewhere, with another one.
    #[schemars(with = "Option<bool>")]
    #[schemars(extend("x-default" = "false", "x-example" = "true"))]
    pub(super) append_only: Option<Spanned<bool>>,
    /// S3: the region that requests are signed for. Servers other than Amazon's mostly don't mind.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-env" = "AWS_REGION", "x-default" = "what Amazon's host names tell, else `us-east-1`", "x-example" = "\"eu-central-1\""))]
    pub(super) region: Option<Spanned<String>>,
    /// S3: whether the bucket is part of the path (`https://host/bucket`), or else of the host's name
    /// (`https://bucket.host`).
    #[schemars(with = "Option<bool>")]
    #[schemars(extend("x-default" = "true, except at Amazon", "x-example" = "true"))]
    pub(super) path_style: Option<Spanned<bool>>,
    /// S3: a file with the access key, as `~/.aws/credentials` has it: lines `aws_access_key_id = …`,
    /// `aws_secret_access_key = …` and, for temporary ones, `aws_session_token = …` (mode 0600). It wins over
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, which may be the application's.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-example" = "\"/etc/lifeboat/s3-credentials\""))]
    pub(super) credentials_file: Option<Spanned<String>>,
    /// The most that is sent to and fetched from a repository on another machine, per second.
    #[schemars(with = "Option<ByteSize>")]
    #[schemars(extend("x-default" = "no limit", "x-example" = "\"10MiB\""))]
    pub(super) bandwidth_limit: Option<Spanned<ByteSize>>,
    /// How long a connection to another machine may stand still, with no byte moving, before it counts as lost and
    /// is made anew.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "1m"))]
    pub(super) stall_timeout: Option<Spanned<TimeSpan>>,
    /// How long a single request to another machine is tried again, after what may pass, before the command fails.
    /// A place that has not answered at all is tried for at most twenty seconds.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "5m"))]
    pub(super) give_up_after: Option<Spanned<TimeSpan>>,
    /// SFTP: the `ssh` to run, as a list of words. Keys, hosts and jump hosts are best kept in
    /// `~/.ssh/config`, or in a file named here with `-F`.
    #[schemars(with = "Option<Vec<String>>")]
    #[schemars(extend("x-default" = "the `ssh` on the path", "x-example" = "[\"ssh\", \"-F\", \"/etc/lifeboat/ssh_config\"]"))]
    pub(super) ssh_command: Option<Spanned<Vec<String>>>,
    /// Whether `lifeboat backup` copies to it, straight after each success. Not for the primary.
    #[schemars(with = "Option<bool>")]
    #[schemars(extend("x-default" = false, "x-example" = "false"))]
    pub(super) after_backup: Option<Spanned<bool>>,
}

/// `[repository]`, or several `[[repository]]`.
#[derive(Debug, Default)]
pub(super) struct OneOrMore(pub(super) Vec<Spanned<RepositorySection>>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, since an untagged enum would lose the places of the values.
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("[repository] or [[repository]]")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<Self::Value, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                // A table's place is never asked for: what is missing in the only one has a default.
                let section = RepositorySection::deserialize(map)?;
                Ok(OneOrMore(vec![Spanned::new(0..0, section)]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<Self::Value, A::Error> {
                let mut sections = Vec::new();
                while let Some(section) = items.next_element()? {
                    sections.push(section);
                }
                Ok(OneOrMore(sections))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The two promises of a recovery plan.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ObjectivesSection {
    /// RPO: how much of the newest data you can afford to lose.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "1h"))]
    pub(super) rpo: Option<Spanned<TimeSpan>>,
    /// RTO: how long you can afford to be down.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "1h"))]
    pub(super) rto: Option<Spanned<TimeSpan>>,
}

/// How a backup reads the server and compresses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct BackupSection {
    /// Connections that read in parallel, 1 to 64.
    #[schemars(with = "Option<u16>")]
    #[schemars(extend("x-default" = "one more than processors, at most 8", "x-example" = "2"))]
    pub(super) jobs: Option<Spanned<i64>>,
    /// zstd's level, 1 (fast) to 19 (small).
    #[schemars(with = "Option<i32>")]
    #[schemars(extend("x-default" = 1))]
    pub(super) compression_level: Option<Spanned<i64>>,
    /// How long to wait for another session's lock on a table before the backup fails.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "1m"))]
    pub(super) lock_timeout: Option<Spanned<TimeSpan>>,
    /// Tables larger than this are read in slices of this size, several at a time (PostgreSQL 14 and newer).
    /// Changing it costs some deduplication once.
    #[schemars(with = "Option<ByteSize>")]
    #[schemars(extend("x-default" = "128MiB"))]
    pub(super) slice_size: Option<Spanned<ByteSize>>,
}

/// Which backups stay. The words mean what they mean for `restic forget`; hours, days, weeks and months are
/// counted in UTC.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RetentionSection {
    /// Keep the newest so many.
    #[schemars(with = "Option<u32>")]
    #[schemars(extend("x-example" = "24"))]
    pub(super) keep_last: Option<Spanned<i64>>,
    /// For the last so many hours that have a backup, keep the newest of each hour.
    #[schemars(with = "Option<u32>")]
    #[schemars(extend("x-example" = "48"))]
    pub(super) keep_hourly: Option<Spanned<i64>>,
    /// For the last so many days that have one, keep the newest of each day.
    #[schemars(with = "Option<u32>")]
    #[schemars(extend("x-example" = "14"))]
    pub(super) keep_daily: Option<Spanned<i64>>,
    /// For the last so many weeks that have one, keep the newest of each week (Monday to Sunday).
    #[schemars(with = "Option<u32>")]
    #[schemars(extend("x-example" = "8"))]
    pub(super) keep_weekly: Option<Spanned<i64>>,
    /// For the last so many months that have one, keep the newest of each month.
    #[schemars(with = "Option<u32>")]
    #[schemars(extend("x-example" = "12"))]
    pub(super) keep_monthly: Option<Spanned<i64>>,
    /// For the last so many years that have one, keep the newest of each year.
    #[schemars(with = "Option<u32>")]
    #[schemars(extend("x-example" = "3"))]
    pub(super) keep_yearly: Option<Spanned<i64>>,
    /// Keep all that are at most so much older than the newest: `30d`, `2y5m7d3h` (years, months, days, hours).
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-default" = "`30d`, unless one of the others is set", "x-example" = "\"30d\""))]
    pub(super) keep_within: Option<Spanned<String>>,
    /// How much of the stored data `expire` may leave that no backup needs any more. Less means more copying.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-default" = "5%", "x-example" = "\"5%\""))]
    pub(super) max_unused: Option<Spanned<String>>,
}

/// When a backup counts as good.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct VerifySection {
    /// The oldest that the newest backup may be, counted from its snapshot of the database.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "2h"))]
    pub(super) max_age: Option<Spanned<TimeSpan>>,
    /// How long a stored file that `verify --read-data` has read counts as read. Until then it is not read again.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "30d"))]
    pub(super) max_proof_age: Option<Spanned<TimeSpan>>,
}

/// Rehearsals.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct DrillSection {
    /// How long the last successful drill may be ago before `status` calls it overdue.
    #[schemars(with = "Option<TimeSpan>")]
    #[schemars(extend("x-default" = "7d"))]
    pub(super) max_age: Option<Spanned<TimeSpan>>,
    /// Connections that load in parallel, 1 to 64.
    #[schemars(with = "Option<u16>")]
    #[schemars(extend("x-default" = "one per processor", "x-example" = "2"))]
    pub(super) jobs: Option<Spanned<i64>>,
    /// The folder in which scratch servers are started. It needs room for the whole database.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-default" = "the system's temporary folder", "x-example" = "\"/var/tmp\""))]
    pub(super) scratch_dir: Option<Spanned<String>>,
    /// A question that the restored database must answer rightly.
    pub(super) check: Vec<DrillCheckSection>,
}

/// One SQL check of a drill.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct DrillCheckSection {
    /// What the report calls it.
    #[schemars(with = "String")]
    #[schemars(extend("x-example" = "\"people can log in\""))]
    pub(super) name: Spanned<String>,
    /// A query that gives one row with one column.
    #[schemars(with = "String")]
    #[schemars(extend("x-example" = "\"select count(*) > 0 from users\""))]
    pub(super) sql: Spanned<String>,
    /// The value it must give: text, a number, or `true`/`false`.
    #[schemars(with = "ExpectedText")]
    #[schemars(extend("x-default" = "true", "x-example" = "true"))]
    pub(super) expect: Option<Spanned<ExpectedText>>,
}

/// A value as PostgreSQL prints it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExpectedText(pub(super) super::Expectation);

impl<'de> Deserialize<'de> for ExpectedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use super::Expectation;
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ExpectedText;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, a number, or true or false")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(ExpectedText(Expectation::Boolean(value)))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(ExpectedText(Expectation::Number(value.to_string())))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(ExpectedText(Expectation::Number(value.to_string())))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(ExpectedText(Expectation::Text(value.to_owned())))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for ExpectedText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "value".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }
}

/// PostgreSQL's own programs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ToolsSection {
    /// The folder to take them from. Without it Lifeboat looks in the usual places and takes a version
    /// that fits the server.
    #[schemars(with = "Option<String>")]
    #[schemars(extend("x-example" = "\"/usr/lib/postgresql/16/bin\""))]
    pub(super) bin_dir: Option<Spanned<String>>,
    /// Words put before each of them, to run `pg_dump` and `pg_restore` inside a container.
    #[schemars(with = "Option<Vec<String>>")]
    #[schemars(extend("x-example" = "[\"docker\", \"exec\", \"-i\", \"memalerts_postgres\"]"))]
    pub(super) prefix: Option<Spanned<Vec<String>>>,
}
