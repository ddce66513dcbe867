//! The server's half of the check: connection, role, privileges, clock, programs.

use jiff::{SignedDuration, Timestamp};
use lifeboat_engine::readiness::Unreadable;
use lifeboat_pg::server::ServerFacts;
use lifeboat_pg::tools::{Tool, ToolFinder, Wanted};

use super::Lines;
use super::line::Line;
use crate::app::App;
use crate::failure::Failure;
use crate::output::human;

/// The oldest server that a backup can be taken from.
const OLDEST_MAJOR: u32 = 13;
/// Clocks this far apart make ages of backups wrong enough to matter.
const SKEW_TO_LOOK_AT: SignedDuration = SignedDuration::from_secs(10);
/// And this far apart, RPO cannot be told.
const SKEW_TO_STOP_AT: SignedDuration = SignedDuration::from_mins(5);

/// Checks one database. Gives its size in bytes, 0 when it cannot be known.
pub fn check(app: &App, name: Option<&str>, lines: &mut Lines<'_>) -> Result<u64, Failure> {
    let source = match app.source(name) {
        Ok(source) => source,
        Err(failure) => return lines.add_failure("database", failure).map(|()| 0),
    };
    let before = app.now();
    let mut connection = match app.connect(&source.conninfo) {
        Ok(connection) => connection,
        Err(failure) => return lines.add_failure("server", failure).map(|()| 0),
    };
    let facts = match ServerFacts::gather(&mut connection) {
        Ok(facts) => facts,
        Err(error) => return lines.add_failure("server", error.into()).map(|()| 0),
    };
    let size = facts.database.size_bytes;
    lines.add(server(
        &facts,
        &source.conninfo.display(),
        connection.is_encrypted(),
    ));
    lines.add(clock(facts.server_time, before, app.now()));
    match Unreadable::gather(&mut connection) {
        Ok(unreadable) => lines.add(privileges(&facts, &unreadable)),
        Err(error) => lines.add_failure("privileges", error.into())?,
    }
    lines.add(connections(&facts, app));
    tools(app, facts.version.major(), lines)?;
    Ok(size.unwrap_or(0))
}

fn server(facts: &ServerFacts, place: &str, is_encrypted: bool) -> Line {
    let size = facts
        .database
        .size_bytes
        .map_or_else(|| "size unknown".to_owned(), human::bytes);
    let tls = if is_encrypted { ", TLS" } else { "" };
    let standby = if facts.in_recovery { ", a standby" } else { "" };
    let fact = format!(
        "PostgreSQL {}, {place}, {size}{tls}{standby}",
        facts.version.text
    );
    if facts.version.major() < OLDEST_MAJOR {
        return Line::broken(
            "server",
            fact,
            format!("Lifeboat backs up PostgreSQL {OLDEST_MAJOR} and newer: upgrade the server"),
        );
    }
    Line::ready("server", fact)
}

/// The server's time against ours, which may be read any time between `before` and `after`.
fn clock(server: Timestamp, before: Timestamp, after: Timestamp) -> Line {
    let skew = if server < before {
        before.duration_since(server)
    } else if server > after {
        server.duration_since(after)
    } else {
        SignedDuration::ZERO
    };
    let seconds = skew.as_secs().unsigned_abs();
    let fact = format!("{} apart from the server's", human::age(seconds));
    let fix = "ages of backups count in this machine's time: synchronise both clocks (NTP)";
    if skew > SKEW_TO_STOP_AT {
        Line::broken("clock", fact, fix)
    } else if skew > SKEW_TO_LOOK_AT {
        Line::attention("clock", fact, fix)
    } else {
        Line::ready("clock", "agrees with the server's")
    }
}

fn privileges(facts: &ServerFacts, unreadable: &Unreadable) -> Line {
    let role = &facts.role.name;
    let mut parts = Vec::new();
    let mut fixes = Vec::new();
    for (count, one) in [
        (unreadable.tables.len(), "table"),
        (unreadable.sequences.len(), "sequence"),
        (
            usize::try_from(unreadable.large_objects).unwrap_or(usize::MAX),
            "large object",
        ),
    ] {
        if count > 0 {
            parts.push(human::plural(count as u64, one));
        }
    }
    let named: Vec<&str> = unreadable
        .tables
        .iter()
        .chain(&unreadable.sequences)
        .map(String::as_str)
        .collect();
    if !named.is_empty() {
        if facts.version.major() >= 14 {
            fixes.push(format!(
                "`GRANT pg_read_all_data TO \"{role}\"`, as a superuser"
            ));
        } else {
            fixes.push(format!("`GRANT USAGE ON SCHEMA … TO \"{role}\"` and `GRANT SELECT ON ALL TABLES IN SCHEMA … TO \"{role}\"`, and the same for sequences"));
        }
    }
    if unreadable.large_objects > 0 {
        fixes.push(format!(
            "`GRANT SELECT ON LARGE OBJECT … TO \"{role}\"`, or use the role that owns them"
        ));
    }
    if !unreadable.row_security.is_empty() {
        fixes.push(format!(
            "row security hides rows: `ALTER ROLE \"{role}\" BYPASSRLS`, or use the tables' owner"
        ));
    }
    if fixes.is_empty() {
        let fact = if facts.role.is_superuser {
            format!("{role} is a superuser")
        } else {
            format!("{role} can read every table")
        };
        return Line::ready("privileges", fact);
    }
    let mut fact = format!("{role} cannot read ");
    if parts.is_empty() {
        fact = format!(
            "{role} does not see every row of {}",
            some(&unreadable.row_security)
        );
    } else {
        fact.push_str(&parts.join(", "));
        if !named.is_empty() {
            let named: Vec<String> = named.into_iter().map(str::to_owned).collect();
            fact.push_str(&format!(" ({})", some(&named)));
        }
        if !unreadable.row_security.is_empty() {
            fact.push_str(&format!(
                ", and not every row of {}",
                some(&unreadable.row_security)
            ));
        }
    }
    Line {
        fixes,
        ..Line::broken("privileges", fact, "")
    }
}

/// The first few names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

fn connections(facts: &ServerFacts, app: &App) -> Line {
    // One leads, and pg_dump takes one for a moment.
    let wanted = app.backup_jobs(app.config.backup.jobs.value) + 2;
    let free = facts.connections.free();
    let fact = format!(
        "{free} of {} free, a backup takes {wanted}",
        facts.connections.limit
    );
    if (free as usize) < wanted {
        Line::broken(
            "connections",
            fact,
            "lower `backup.jobs`, or raise max_connections",
        )
    } else {
        Line::ready("connections", fact)
    }
}

fn tools(app: &App, major: u32, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let finder = app.tools();
    for (subject, tools, wanted) in [
        (
            "backup tools",
            Tool::FOR_BACKUP.as_slice(),
            Wanted::AtLeast(major),
        ),
        (
            "restore tools",
            Tool::FOR_RESTORE.as_slice(),
            Wanted::AtLeast(major),
        ),
    ] {
        match finder.find(tools, wanted) {
            Ok(found) => {
                let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
                let place = found
                    .bin_dir()
                    .map(|path| format!(" in {}", path.display()))
                    .unwrap_or_default();
                lines.add(Line::ready(
                    subject,
                    format!("{} {}{place}", names.join(", "), found.major()),
                ));
            }
            Err(error) => lines.add_failure(subject, error.into())?,
        }
    }
    // Drills are no precondition of a backup: they may run on another machine.
    let local = ToolFinder {
        prefix: Vec::new(),
        ..finder
    };
    match local.find(&Tool::FOR_SCRATCH, Wanted::Exactly(major)) {
        Ok(_) => lines.add(Line::ready(
            "drill tools",
            format!("initdb, postgres {major}"),
        )),
        Err(error) => {
            let failure = Failure::from(error);
            let mut line = Line::attention(
                "drill tools",
                failure.fact,
                format!(
                    "install the server package, such as `apt-get install postgresql-{major}`, or drill with `--on URL`"
                ),
            );
            line.fixes.truncate(1);
            lines.add(line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::check::line::State;

    #[test]
    fn clocks() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        for (server, state) in [
            (0, State::Ready),
            (1, State::Ready),
            (-9, State::Ready),
            (12, State::Attention),
            (-200, State::Attention),
            (-400, State::Broken),
            (400, State::Broken),
        ] {
            assert_eq!(clock(at(server), at(0), at(1)).state, state, "{server}");
        }
    }
}
