//! The words of the kit.

use jiff::tz::TimeZone;
use lifeboat_repo::storage::remote::{RemoteLocation, SftpLocation};
use secrecy::ExposeSecret;

use super::{Kit, KitDatabase};
use crate::catalog::{DATABASE_TAG, TAG};
use crate::config::RepositoryLocation;

/// Labels of facts, by which the text is read back.
pub(super) const WRITTEN: &str = "Written";
pub(super) const LIFEBOAT: &str = "Lifeboat";
pub(super) const HOST: &str = "Host";
pub(super) const REPOSITORY: &str = "Repository";
pub(super) const REPOSITORY_ID: &str = "Repository ID";
pub(super) const KEY: &str = "Key";
pub(super) const PASSPHRASE: &str = "Passphrase";
pub(super) const REGION: &str = "Region";
pub(super) const PATH_STYLE: &str = "Bucket in the path";
pub(super) const SSH_COMMAND: &str = "SSH command";
pub(super) const NEEDED: &str = "Needed to reach it";
pub(super) const DATABASE: &str = "Database";
pub(super) const POSTGRESQL: &str = "PostgreSQL";
pub(super) const UNKNOWN: &str = "version unknown";

pub(super) const TITLE: &str = "LIFEBOAT RECOVERY KIT";
pub(super) const WITH: &str = "A. With Lifeboat";
pub(super) const WITHOUT: &str = "B. Without Lifeboat";
pub(super) const AFTERWARDS: &str = "C. When it is back";

/// The oldest restic that reads this form of the format and that we test with.
const RESTIC: &str = "0.14";

/// A part of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// Begins a section.
    Heading(String),
    /// Prose; words in backquotes are to be typed.
    Text(String),
    /// Prose that nobody may miss.
    Notice(String),
    /// A label and its value. A secret is marked as one where that can be done without changing it.
    Fact {
        label: String,
        value: String,
        is_secret: bool,
    },
    /// A numbered step, with the lines to type.
    Step { text: String, commands: Vec<String> },
}

fn fact(label: &str, value: impl Into<String>) -> Block {
    Block::Fact {
        label: label.to_owned(),
        value: value.into(),
        is_secret: false,
    }
}

fn secret(label: &str, value: &str) -> Block {
    Block::Fact {
        label: label.to_owned(),
        value: value.to_owned(),
        is_secret: true,
    }
}

fn step(text: impl Into<String>, commands: Vec<String>) -> Block {
    Block::Step {
        text: text.into(),
        commands,
    }
}

fn heading(text: &str) -> Block {
    Block::Heading(text.to_owned())
}

fn text(text: impl Into<String>) -> Block {
    Block::Text(text.into())
}

/// The whole page.
pub(super) fn page(kit: &Kit) -> Vec<Block> {
    let mut blocks = vec![
        Block::Notice(
            "This page holds a secret. Print it, keep it where you keep deeds and keys, away from the machines that it \
             is for, and let nobody photograph it."
                .to_owned(),
        ),
        text(
            "With this page, what it says is needed, and a bare machine, the backups come back: with Lifeboat (part A) \
             or with programs that every distribution has (part B). `lifeboat recovery-kit test` proves it by doing it.",
        ),
        heading("The backups"),
        fact(REPOSITORY, kit.location.to_string()),
        fact(REPOSITORY_ID, &kit.repository_id),
    ];
    blocks.extend(kit.region.as_ref().map(|region| fact(REGION, region)));
    if let Some(path_style) = kit.path_style {
        blocks.push(fact(PATH_STYLE, if path_style { "yes" } else { "no" }));
    }
    if !kit.ssh_command.is_empty() {
        blocks.push(fact(SSH_COMMAND, words(&kit.ssh_command)));
    }
    for database in &kit.databases {
        blocks.push(fact(DATABASE, &database.name));
        let version = database.server_version.as_deref().unwrap_or(UNKNOWN);
        blocks.push(fact(POSTGRESQL, version));
    }
    let written = kit.written.to_zoned(TimeZone::UTC);
    blocks.extend([
        fact(WRITTEN, written.strftime("%Y-%m-%d %H:%M:%SZ").to_string()),
        fact(LIFEBOAT, &kit.lifeboat_version),
        fact(HOST, &kit.hostname),
        text(where_it_is(kit)),
        heading("The secret"),
        text(
            "Whoever has this and the repository's files can read every backup. Without it nobody can, and nobody can \
             reset it.",
        ),
        secret(PASSPHRASE, kit.passphrase.expose_secret()),
        fact(KEY, &kit.key),
    ]);
    if !kit.credentials.is_empty() {
        let names: Vec<&str> = kit
            .credentials
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        blocks.push(fact(NEEDED, names.join(", ")));
        for one in &kit.credentials {
            let value = one.value.as_ref();
            blocks.extend(value.map(|value| secret(&one.name, value.expose_secret())));
        }
    }
    blocks.extend(with_lifeboat(kit));
    blocks.extend(without(kit));
    blocks.extend(afterwards(kit));
    blocks
}

fn where_it_is(kit: &Kit) -> String {
    match &kit.location {
        RepositoryLocation::Remote(RemoteLocation::S3(_)) => {
            "The repository is in a bucket. What is needed to reach it is the access key, which is kept by whoever runs \
             the object store, unless it stands below."
                .to_owned()
        }
        RepositoryLocation::Remote(RemoteLocation::Sftp(location)) => format!(
            "The repository is behind SSH: `{}` has to get in without a question, with a key that is not on this page.",
            ssh(location, &[]).join(" ")
        ),
        _ => format!(
            "The repository is a folder of {}. If that machine is lost, so is the folder: this page is worth something \
             only together with a copy of the folder on another machine.",
            kit.hostname
        ),
    }
}

/// The first steps of both parts.
fn begin(kit: &Kit, programs: &str, major: &str) -> Vec<Block> {
    vec![
        step(
            format!(
                "On a bare machine, install {programs} and PostgreSQL {major}, both server and client programs, and \
                 start the server. Then become the user who may do everything on it: on Debian, Ubuntu and Red Hat \
                 `sudo -iu postgres`. For a server elsewhere, set PGHOST, PGPORT, PGUSER and PGPASSWORD."
            ),
            Vec::new(),
        ),
        step(
            format!(
                "Make a folder on a disk with room for {}. The third line waits for the passphrase: type it, then Enter.",
                if kit.databases.len() > 1 {
                    "all the databases"
                } else {
                    "the database"
                }
            ),
            vec![
                "umask 077; mkdir lifeboat-recovery".to_owned(),
                "cd lifeboat-recovery".to_owned(),
                "read -r passphrase && printf '%s\\n' \"$passphrase\" > passphrase".to_owned(),
            ],
        ),
    ]
}

/// The step that asks for the credentials, when there are any.
fn credentials(kit: &Kit) -> Option<Block> {
    let names: Vec<&str> = kit
        .credentials
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let reads: Vec<String> = names.iter().map(|name| format!("read -r {name}")).collect();
    (!names.is_empty()).then(|| {
        step(
            format!(
                "The access key. The line waits for {}: type each, then Enter.",
                names.join(", then ")
            ),
            vec![format!(
                "{} && export {}",
                reads.join(" && "),
                names.join(" ")
            )],
        )
    })
}

fn locate(kit: &Kit, variables: [&str; 2]) -> Block {
    let [repository, password_file] = variables;
    let mut commands = vec![
        format!("export {repository}={}", quoted(&kit.location.to_string())),
        format!("export {password_file}=\"$PWD/passphrase\""),
    ];
    if let Some(region) = &kit.region {
        commands.push(format!("export AWS_DEFAULT_REGION={}", quoted(region)));
    }
    let words = match &kit.location {
        RepositoryLocation::Local(_) => {
            "Say where the backups are. If the folder's copy is elsewhere on this machine, correct the path."
        }
        _ => "Say where the backups are.",
    };
    step(words, commands)
}

fn with_lifeboat(kit: &Kit) -> Vec<Block> {
    let mut blocks = vec![heading(WITH)];
    let major = kit
        .major()
        .map_or("of the old server's version".to_owned(), |major| {
            major.to_string()
        });
    blocks.extend(begin(
        kit,
        &format!("Lifeboat {} or newer", kit.lifeboat_version),
        &major,
    ));
    blocks.push(locate(
        kit,
        ["LIFEBOAT_REPOSITORY", "LIFEBOAT_PASSWORD_FILE"],
    ));
    blocks.extend(settings(kit));
    blocks.extend(credentials(kit));
    blocks.push(step("See what is there.", vec!["lifeboat list".to_owned()]));
    let restores = kit.databases.iter().map(|one| {
        format!(
            "lifeboat restore latest --database {} --to {} --server postgresql:///postgres",
            quoted(&one.name),
            quoted(&one.target())
        )
    });
    blocks.push(step(
        "Bring it back; an ID of the list in place of `latest` brings back another. Rows are compared with the backup \
         on the way, and whatever differs is told. Everything then belongs to the role that restored it; the old \
         roles are in the backup, in the file globals.sql (part B).",
        restores.collect(),
    ));
    blocks
}

/// Settings that no variable holds: a configuration file of a few lines.
fn settings(kit: &Kit) -> Option<Block> {
    let mut lines = Vec::new();
    if let Some(path_style) = kit.path_style {
        lines.push(format!("path_style = {path_style}"));
    }
    if !kit.ssh_command.is_empty() {
        let words: Vec<String> = kit
            .ssh_command
            .iter()
            .map(|word| toml::Value::from(word.as_str()).to_string())
            .collect();
        lines.push(format!("ssh_command = [{}]", words.join(", ")));
    }
    if lines.is_empty() {
        return None;
    }
    let mut commands = vec![
        "cat > lifeboat.toml <<'END'".to_owned(),
        "[repository]".to_owned(),
    ];
    commands.extend(lines);
    commands.push("END".to_owned());
    Some(step("How it is reached.", commands))
}

fn without(kit: &Kit) -> Vec<Block> {
    let mut blocks = vec![
        heading(WITHOUT),
        text(
            "The repository is an ordinary restic repository, and each backup in it an ordinary PostgreSQL dump.",
        ),
    ];
    let major = kit
        .major()
        .map_or("of the old server's version".to_owned(), |major| {
            format!("{major} or newer")
        });
    blocks.extend(begin(kit, &format!("restic {RESTIC} or newer"), &major));
    blocks.push(locate(kit, ["RESTIC_REPOSITORY", "RESTIC_PASSWORD_FILE"]));
    blocks.extend(credentials(kit));
    let restic = restic(kit);
    blocks.push(step(
        "See what is there.",
        vec![format!("{restic} snapshots --tag {TAG}")],
    ));
    for database in &kit.databases {
        blocks.extend(without_one(kit, database, &restic));
    }
    blocks
}

fn without_one(kit: &Kit, database: &KitDatabase, restic: &str) -> [Block; 3] {
    let folder = kit.folder(&database.name);
    // A comma separates tags on restic's command line; the path has the name too.
    let which = if database.name.contains(',') {
        format!("--path {}", quoted(&format!("/{}", database.name)))
    } else {
        format!(
            "--tag {}",
            quoted(&format!("{DATABASE_TAG}{}", database.name))
        )
    };
    let target = quoted(&database.target());
    let load = if database.is_everywhere() {
        vec![
            format!("createdb -T template0 {target}"),
            format!("pg_restore --no-tablespaces -j 2 -d {target} {folder}/dump"),
        ]
    } else {
        vec![format!(
            "pg_restore --create --no-tablespaces -j 2 -d postgres {folder}/dump"
        )]
    };
    let analyze = format!("psql -X -d {target} -c ANALYZE");
    [
        step(
            format!(
                "Fetch the newest backup of {}; an ID of the list in place of `latest` fetches another.",
                database.name
            ),
            vec![format!("{restic} restore latest {which} --target {folder}")],
        ),
        step(
            "The roles, where the backup has them. That one exists already is no fault.",
            vec![format!(
                "if [ -f {folder}/globals.sql ]; then psql -X -d postgres -f {folder}/globals.sql; fi"
            )],
        ),
        step(
            "The database itself. No error is expected here. If the machine lacks its locale: `createdb -T template0`, \
             then the same with that database's name after `-d`, without `--create`.",
            load.into_iter().chain([analyze]).collect(),
        ),
    ]
}

fn afterwards(kit: &Kit) -> Vec<Block> {
    let folder = kit
        .databases
        .first()
        .map_or("backup".to_owned(), |one| kit.folder(&one.name));
    vec![
        heading(AFTERWARDS),
        step(
            "What was written after the backup's snapshot is lost. The lists above show its time: tell those who wait \
             for newer data.",
            Vec::new(),
        ),
        step(
            format!(
                "Count. How many rows each table had is told by `lifeboat show latest`, and without Lifeboat by \
                 `{folder}/lifeboat.json`, under `tables`, as `census.rows`. Look at the newest rows of a table that \
                 you know."
            ),
            Vec::new(),
        ),
        step(
            "The same places name the last schema migration that the backup holds. Apply those that the release you run \
             expects besides.",
            Vec::new(),
        ),
        step(
            "See that nothing writes to the old server any more, then point the application to the new one, and log in \
             as a user of it would. Passwords of roles are in the backup only when it ran as a superuser.",
            Vec::new(),
        ),
        step(
            "Set up backups of the new server and take the first one at once.",
            Vec::new(),
        ),
        step(
            "This page has been read in a hurry by people and lies on a desk: `lifeboat key rotate`, then \
             `lifeboat recovery-kit write`, print the new page, and burn this one.",
            Vec::new(),
        ),
    ]
}

/// The beginning of restic's command line, with the options that no variable holds.
fn restic(kit: &Kit) -> String {
    let mut words = vec!["restic".to_owned()];
    if let Some(path_style) = kit.path_style {
        let lookup = if path_style { "path" } else { "dns" };
        words.push(format!("-o s3.bucket-lookup={lookup}"));
    }
    if let (RepositoryLocation::Remote(RemoteLocation::Sftp(location)), false) =
        (&kit.location, kit.ssh_command.is_empty())
    {
        let command = format!("{} -s sftp", ssh(location, &kit.ssh_command).join(" "));
        words.push(format!("-o sftp.command={}", quoted(&command)));
    }
    words.join(" ")
}

/// The words that reach an SFTP server's machine.
fn ssh(location: &SftpLocation, command: &[String]) -> Vec<String> {
    let mut words = if command.is_empty() {
        vec!["ssh".to_owned()]
    } else {
        command.iter().map(|word| quoted(word)).collect()
    };
    words.extend(location.port.map(|port| format!("-p {port}")));
    words.push(match &location.user {
        Some(user) => format!("{user}@{}", location.host),
        None => location.host.clone(),
    });
    words
}

/// Words for a shell. [`unquoted`] takes them apart.
pub(super) fn words(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// The words of a line of a kit, as [`words`] has put them together.
pub(super) fn unquoted(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quotes, mut escaped) = (Vec::new(), None, false, false);
    for letter in line.chars() {
        match letter {
            _ if escaped => {
                word.get_or_insert_with(String::new).push(letter);
                escaped = false;
            }
            '\\' if !quotes => escaped = true,
            '\'' => {
                quotes = !quotes;
                word.get_or_insert_with(String::new);
            }
            ' ' if !quotes => words.extend(word.take()),
            _ => word.get_or_insert_with(String::new).push(letter),
        }
    }
    words.extend(word);
    words
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
