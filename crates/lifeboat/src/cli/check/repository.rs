//! The repository's half of the check: passphrase, opening it, locks, space, newest backup, journal.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use lifeboat_engine::catalog::{self, Catalog, Newest};
use lifeboat_engine::config::{PasswordSource, RepositorySettings, UrlSource};
use lifeboat_engine::journal::Journal;
use lifeboat_engine::objectives::age_seconds;
use lifeboat_engine::recovery_kit::Receipt;
use lifeboat_repo::Repository;
use lifeboat_repo::lock::{LockHolder, LockMode};

use super::Lines;
use super::line::{Line, State};
use crate::app::App;
use crate::cli::key::leftovers;
use crate::failure::Failure;
use crate::output::human;

/// Checks the repository; `needed_bytes` is what the databases hold together.
pub fn check(
    app: &App,
    settings: &RepositorySettings,
    needed_bytes: u64,
    lines: &mut Lines<'_>,
) -> Result<(), Failure> {
    for line in secrets(app) {
        lines.add(line);
    }
    for left in leftovers(settings) {
        lines.add(Line::attention(
            "rotation",
            format!("{} is left of one that did not end", left.display()),
            "`lifeboat key rotate` finishes it",
        ));
    }
    let mut opened = None;
    match app.open(settings) {
        Ok(repository) => {
            lines.add(Line::ready(
                "repository",
                format!(
                    "{}, {}",
                    repository.location(),
                    human::bytes(repository.size_bytes()?)
                ),
            ));
            lines.add(locks(app, &repository));
            lines.add(space(&repository, needed_bytes)?);
            lines.add(newest(app, &repository)?);
            lines.add(recovery_kit(app, &repository)?);
            opened = Some(repository);
        }
        Err(failure) => lines.add_failure("repository", failure)?,
    }
    // One that was asked for by name is looked at alone.
    if settings.name == app.config.primary.name {
        for one in &app.config.others {
            match other(app, one, opened.as_ref()) {
                Ok(line) => lines.add(line),
                Err(failure) => {
                    let fact = format!("{}: {}", one.name, failure.fact);
                    lines.add_failure("copies", Failure { fact, ..failure })?;
                }
            }
        }
    }
    lines.add(scratch(app, needed_bytes));
    lines.add(journal(app));
    Ok(())
}

/// A repository that is kept up to date with the first one.
fn other(
    app: &App,
    settings: &RepositorySettings,
    first: Option<&Repository>,
) -> Result<Line, Failure> {
    let name = &settings.name;
    let repository = app.open(settings)?;
    let lock = locks(app, &repository);
    if lock.state == State::Broken {
        return Ok(Line {
            fact: format!("{name}: {}", lock.fact),
            subject: "copies",
            ..lock
        });
    }
    let (backups, damaged) = Catalog::new(&repository).backups(None)?;
    if let Some(first) = damaged.first() {
        return Ok(Line::broken(
            "copies",
            format!("{name}: {first}"),
            format!("`lifeboat verify --read-data --repository {name}` names all that is damaged"),
        ));
    }
    let keys = match first.map(|first| first.shares_keys_with(&repository)) {
        Some(false) => ", with keys of its own",
        _ => "",
    };
    let place = format!("{name}: {}{keys}", repository.location());
    let newest = catalog::newest(&backups, app.now());
    if let Some(line) = from_the_future("copies", &newest, &format!("{name}: ")) {
        return Ok(line);
    }
    let Some(newest) = newest.backup.map(|backup| backup.time) else {
        return Ok(Line::attention(
            "copies",
            format!("{place}, no backup yet"),
            format!("`lifeboat copy --to {name}`"),
        ));
    };
    let age = age_seconds(newest, app.now());
    let fact = format!("{place}, the newest is {} old", human::age(age));
    Ok(if age > app.config.objectives.rpo.value.seconds() {
        let fix = format!("`lifeboat copy --to {name}`, or `after_backup = true` to have it done");
        Line::attention("copies", fact, fix)
    } else {
        Line::ready("copies", fact)
    })
}

/// Files that hold secrets must be their owner's alone.
fn secrets(app: &App) -> Vec<Line> {
    let mut files: Vec<(&'static str, PathBuf)> = Vec::new();
    for settings in app.config.repositories() {
        let password = settings.password.as_ref().map(|password| &password.value);
        if let Some(PasswordSource::File(path)) = password {
            files.push(("passphrase", path.clone()));
        }
        if let Some(path) = settings.remote.credentials_file.value.clone() {
            files.push(("credentials", path));
        }
    }
    let mut literal = false;
    for database in &app.config.databases {
        match (&database.url.value, &database.url.origin) {
            (UrlSource::File(path), _) => files.push(("URL file", path.clone())),
            (UrlSource::Literal(_), lifeboat_engine::config::Origin::File(_)) => literal = true,
            _ => {}
        }
    }
    if let Some(path) = app.config.file.clone().filter(|_| literal) {
        files.push(("configuration", path));
    }
    let mut seen = BTreeSet::new();
    files.retain(|(_, path)| seen.insert(path.clone()));
    files
        .into_iter()
        .filter_map(|(subject, path)| {
            Some(permissions(subject, &path, crate::secrets::mode(&path)?))
        })
        .collect()
}

fn permissions(subject: &'static str, path: &Path, mode: u32) -> Line {
    let path = path.display();
    if mode & 0o077 == 0 {
        Line::ready(subject, format!("{path}, mode {mode:04o}"))
    } else {
        Line::broken(
            subject,
            format!("{path} holds a secret, and others can read it (mode {mode:04o})"),
            format!("`chmod 600 {path}`"),
        )
    }
}

/// Who works on the repository now. Taking and dropping a lock is the true test of whether a backup could.
fn locks(app: &App, repository: &Repository) -> Line {
    let holder = LockHolder {
        hostname: crate::app::hostname(),
        username: app.username(),
        pid: std::process::id(),
    };
    let others = repository
        .list_locks()
        .map(|locks| locks.len())
        .unwrap_or(0);
    match repository.lock(
        LockMode::Shared,
        &holder,
        std::sync::Arc::new(jiff::Timestamp::now),
    ) {
        Ok(_guard) => Line::ready(
            "lock",
            match others {
                0 => "free".to_owned(),
                count => format!(
                    "free for backups; {} seen",
                    human::plural(count as u64, "other lock")
                ),
            },
        ),
        Err(error) => {
            let failure = Failure::from(error);
            Line {
                fixes: failure.hints,
                ..Line::broken("lock", failure.fact, "")
            }
        }
    }
}

/// A first backup is rarely larger than a third of the database, later ones far smaller.
fn space(repository: &Repository, needed_bytes: u64) -> Result<Line, Failure> {
    let Some(free) = repository.storage().free_space_bytes() else {
        return Ok(Line::ready("space", "unknown for this storage"));
    };
    let is_first = repository.snapshots()?.0.is_empty();
    Ok(judge_space(
        free,
        if is_first {
            needed_bytes / 3
        } else {
            needed_bytes / 20
        },
    ))
}

fn judge_space(free: u64, wanted: u64) -> Line {
    let fact = format!(
        "{} free, {} wanted for the next backup",
        human::bytes(free),
        human::bytes(wanted)
    );
    let fix = "make room on the repository's file system";
    if free < wanted {
        Line::broken("space", fact, fix)
    } else if free < wanted.saturating_mul(3) {
        Line::attention("space", fact, fix)
    } else {
        Line::ready("space", format!("{} free", human::bytes(free)))
    }
}

/// A backup whose date cannot be right says nothing about how fresh the backups are.
fn from_the_future(subject: &'static str, newest: &Newest<'_>, place: &str) -> Option<Line> {
    let backup = newest.future?;
    Some(Line::attention(
        subject,
        format!(
            "{place}backup {} is dated {}, in the future",
            backup.id.short(),
            backup.time
        ),
        "set the clock of the machine that took it; this one counts for nothing until then",
    ))
}

fn newest(app: &App, repository: &Repository) -> Result<Line, Failure> {
    let (backups, damaged) = Catalog::new(repository).backups(None)?;
    if let Some(first) = damaged.first() {
        return Ok(Line::broken(
            "backups",
            first.to_string(),
            "`lifeboat repair` mends it with good copies from other repositories, and names what is lost",
        ));
    }
    let rpo = app.config.objectives.rpo.value;
    let newest = catalog::newest(&backups, app.now());
    if let Some(line) = from_the_future("backups", &newest, "") {
        return Ok(line);
    }
    Ok(match newest.backup.map(|backup| backup.time) {
        None => Line::attention("backups", "none yet", "`lifeboat backup`"),
        Some(time) => {
            let age = age_seconds(time, app.now());
            let fact = format!(
                "the newest is {} old, {} in all",
                human::age(age),
                human::count(backups.len() as u64)
            );
            if age > rpo.seconds() {
                Line::attention(
                    "backups",
                    format!("{fact}; the objective is {rpo}"),
                    "`lifeboat backup`, and look at what should have run it",
                )
            } else {
                Line::ready("backups", fact)
            }
        }
    })
}

/// Whether a kit was written, and whether its passphrase still opens the repository. The kit itself is best kept
/// elsewhere, so what counts is what this machine remembers of it.
fn recovery_kit(app: &App, repository: &Repository) -> Result<Line, Failure> {
    const SUBJECT: &str = "recovery kit";
    let state_dir = app.config.state_dir.value.as_deref();
    let receipt = match state_dir.map(|folder| Receipt::read(folder, repository.id())) {
        Some(Ok(Some(receipt))) => receipt,
        Some(Err(error)) => {
            return Ok(Line::attention(
                SUBJECT,
                error.to_string(),
                "`lifeboat recovery-kit test FILE` says whether yours is good",
            ));
        }
        Some(Ok(None)) | None => {
            return Ok(Line::attention(
                SUBJECT,
                "none was written here",
                "`lifeboat recovery-kit write -o DIR`, print it, and keep it away from this machine",
            ));
        }
    };
    let keys = repository.keys()?;
    let written = format!(
        "written {} for key {}",
        human::time(receipt.written),
        receipt.key
    );
    if !keys.iter().any(|key| key.name.starts_with(&receipt.key)) {
        return Ok(Line::attention(
            SUBJECT,
            format!("{written}, which is gone: it opens nothing any more"),
            format!(
                "`lifeboat recovery-kit write --replace -o {}`, print it, and burn the old one",
                receipt.path.parent().unwrap_or(&receipt.path).display()
            ),
        ));
    }
    Ok(match receipt.tested {
        Some(tested) => Line::ready(
            SUBJECT,
            format!(
                "{written}, tested {}{}",
                human::time(tested),
                if receipt.tested_without {
                    ""
                } else {
                    " (not its way without Lifeboat)"
                }
            ),
        ),
        None => Line::attention(
            SUBJECT,
            format!("{written}, never tested"),
            format!(
                "`lifeboat recovery-kit test {}`, once there is a backup",
                receipt.path.display()
            ),
        ),
    })
}

/// A drill unpacks the whole database, with its indexes.
fn scratch(app: &App, needed_bytes: u64) -> Line {
    let folder = app.scratch_dir();
    match free_bytes(&folder) {
        Ok(free) if free < needed_bytes => Line::attention(
            "drill space",
            format!(
                "{} free in {}, a drill takes about {}",
                human::bytes(free),
                folder.display(),
                human::bytes(needed_bytes)
            ),
            "set `drill.scratch_dir` to a larger file system",
        ),
        Ok(free) => Line::ready(
            "drill space",
            format!("{} free in {}", human::bytes(free), folder.display()),
        ),
        Err(error) => Line::attention(
            "drill space",
            format!("{}: {error}", folder.display()),
            "set `drill.scratch_dir` to a folder that exists",
        ),
    }
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn journal(app: &App) -> Line {
    match Journal::open(app.config.state_dir.value.as_deref()) {
        Ok(journal) => match (journal.fallback(), journal.path()) {
            (None, Some(path)) => Line::ready("journal", path.display().to_string()),
            (Some(reason), _) => Line::attention(
                "journal",
                reason.to_string(),
                "set `state_dir` to a folder that this user can write; backups work without it",
            ),
            (None, None) => Line::ready("journal", "in memory"),
        },
        Err(error) => Line::attention("journal", error.to_string(), "backups work without it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::line::State;

    #[test]
    fn space_and_permissions() {
        for (free, wanted, state) in [
            (10, 0, State::Ready),
            (100, 30, State::Ready),
            (80, 30, State::Attention),
            (20, 30, State::Broken),
        ] {
            assert_eq!(judge_space(free, wanted).state, state);
        }
        for (mode, state) in [
            (0o600, State::Ready),
            (0o400, State::Ready),
            (0o640, State::Broken),
            (0o604, State::Broken),
        ] {
            assert_eq!(
                permissions("passphrase", Path::new("/x"), mode).state,
                state
            );
        }
    }
}
