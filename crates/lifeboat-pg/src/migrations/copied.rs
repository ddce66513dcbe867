//! Migration tables out of the rows that a dump holds of them: there is no server to ask.
//!
//! The same tables, the same entries in the same order as [`super::read_migrations`] gives, in Rust where
//! [`super::frameworks`] has SQL. Not for frameworks that keep their lock in another table: what that says would be
//! missing, and half an answer is none.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::frameworks::KNOWN;
use super::{
    ENTRIES_AT_MOST, Framework, MigrationEntry, MigrationHistory, MigrationState, newest_applied,
};
use crate::data_file::DataRows;
use crate::dump::TableName;

/// More bytes of rows than any migration table has; a larger one is not looked at.
pub const MIGRATION_TABLE_MAX_BYTES: usize = 16 << 20;

/// Whether a table of this name may be a framework's.
#[must_use]
pub fn is_migration_table(name: &str) -> bool {
    KNOWN.iter().any(|known| known.tables.contains(&name))
}

/// What a migration table says, from its rows as a dump's data file holds them, to their end mark. `None` for a
/// table that is none, and for one that cannot be understood.
#[must_use]
pub fn from_copied_rows(
    table: TableName,
    columns: &[String],
    data: &[u8],
) -> Option<MigrationHistory> {
    let mut sorted = columns.to_vec();
    sorted.sort();
    let known = KNOWN
        .iter()
        .find(|known| known.fits(&table.name, &sorted))?;
    if known.lock.is_some() {
        return None;
    }
    let mut entries: Vec<(Order, MigrationEntry)> = Vec::new();
    let mut understood = true;
    let mut rows = DataRows::default();
    // In one piece every row lies whole in it.
    rows.push(data, |line| {
        match Row::parse(columns, line).map(|row| entry(known.framework, &row)) {
            Some(Some(Found::Entry(order, entry))) => entries.push((order, entry)),
            Some(Some(Found::Hidden)) => {}
            _ => understood = false,
        }
    })
    .ok()?;
    rows.finish().ok().filter(|_| understood)?;
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    let surplus = entries.len().saturating_sub(ENTRIES_AT_MOST);
    let mut history = MigrationHistory {
        framework: known.framework,
        table,
        current: None,
        locked: false,
        unreadable: None,
        entries: entries
            .into_iter()
            .skip(surplus)
            .map(|(_, entry)| entry)
            .collect(),
    };
    history.current = newest_applied(&history);
    Some(history)
}

/// What entries are put in order by, the oldest first.
type Order = (i64, String);

enum Found {
    Entry(Order, MigrationEntry),
    /// A row that says only that there is a table.
    Hidden,
}

/// One row as an entry. `None` where a value is missing or is not what it should be.
fn entry(framework: Framework, row: &Row<'_>) -> Option<Found> {
    use MigrationState::{Applied, Dirty, Failed, InProgress, RolledBack};
    let text = |column| row.get(column).map(str::to_owned);
    let number = |column| row.get(column)?.parse::<i64>().ok();
    let time = |column| row.get(column).and_then(moment);
    let named = |id: String| MigrationEntry {
        id,
        name: None,
        checksum: None,
        applied_at: None,
        state: Applied,
    };
    let (order, entry) = match framework {
        Framework::Prisma => {
            let id = text("migration_name")?;
            let started = time("started_at");
            let order = started.map_or(i64::MIN, Timestamp::as_microsecond);
            let state = if row.get("rolled_back_at").is_some() {
                RolledBack
            } else if row.get("finished_at").is_some() {
                Applied
            } else if row.get("logs").is_some() {
                Failed
            } else {
                InProgress
            };
            let entry = MigrationEntry {
                checksum: text("checksum"),
                applied_at: time("finished_at").or(started),
                state,
                ..named(id.clone())
            };
            ((order, id), entry)
        }
        Framework::Rails => {
            let id = text("version")?;
            (
                (i64::try_from(id.chars().count()).ok()?, id.clone()),
                named(id),
            )
        }
        Framework::GolangMigrate => {
            let dirty = row.get("dirty")? == "t";
            let entry = MigrationEntry {
                state: if dirty { Dirty } else { Applied },
                ..named(text("version")?)
            };
            ((number("version")?, String::new()), entry)
        }
        Framework::Django => {
            let id = format!("{}.{}", row.get("app")?, row.get("name")?);
            let entry = MigrationEntry {
                applied_at: time("applied"),
                ..named(id)
            };
            ((number("id")?, String::new()), entry)
        }
        Framework::Flyway => {
            let kind = row.get("type")?;
            let state = if row.get("success")? != "t" {
                Failed
            } else if kind.starts_with("UNDO") || kind == "DELETE" {
                RolledBack
            } else {
                Applied
            };
            let entry = MigrationEntry {
                name: text("description"),
                checksum: text("checksum"),
                applied_at: time("installed_on"),
                state,
                // Repeatable migrations have no version.
                ..named(text("version").or_else(|| text("script"))?)
            };
            ((number("installed_rank")?, String::new()), entry)
        }
        Framework::Alembic => {
            let id = text("version_num")?;
            ((0, id.clone()), named(id))
        }
        Framework::Sqlx => {
            let entry = MigrationEntry {
                name: text("description"),
                checksum: row
                    .get("checksum")
                    .and_then(|hex| hex.strip_prefix("\\x"))
                    .map(str::to_owned),
                applied_at: time("installed_on"),
                state: if row.get("success")? == "t" {
                    Applied
                } else {
                    Dirty
                },
                ..named(text("version")?)
            };
            ((number("version")?, String::new()), entry)
        }
        Framework::Diesel => {
            let id = text("version")?;
            let entry = MigrationEntry {
                applied_at: time("run_on"),
                ..named(id.clone())
            };
            ((0, id), entry)
        }
        Framework::TypeOrm => ((number("id")?, String::new()), named(text("name")?)),
        Framework::Drizzle => {
            let id = text("created_at")?;
            let order = format!("{:020}", number("id")?);
            let entry = MigrationEntry {
                checksum: text("hash"),
                ..named(id)
            };
            ((number("created_at")?, order), entry)
        }
        Framework::Goose => {
            if number("version_id")? == 0 {
                return Some(Found::Hidden);
            }
            let entry = MigrationEntry {
                applied_at: time("tstamp"),
                state: if row.get("is_applied")? == "t" {
                    Applied
                } else {
                    RolledBack
                },
                ..named(text("version_id")?)
            };
            ((number("id")?, String::new()), entry)
        }
        Framework::Knex | Framework::Liquibase | Framework::Other => return None,
    };
    Some(Found::Entry(order, entry))
}

/// A moment as COPY writes it; one without an offset is taken for UTC. `infinity` is none.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

/// A row with its values by column.
struct Row<'a> {
    columns: &'a [String],
    values: Vec<Option<String>>,
}

impl<'a> Row<'a> {
    /// Takes a line of COPY's text format apart; `None` if it has another number of values, or is not UTF-8.
    fn parse(columns: &'a [String], line: &[u8]) -> Option<Self> {
        let values: Vec<Option<String>> = std::str::from_utf8(line)
            .ok()?
            .split('\t')
            .map(value)
            .collect();
        (values.len() == columns.len()).then_some(Self { columns, values })
    }

    fn get(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.values.get(at)?.as_deref()
    }
}

/// A value without COPY's escapes ("Text Format" in PostgreSQL's manual, under COPY).
fn value(text: &str) -> Option<String> {
    if text == "\\N" {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                other => other,
            },
            letter => letter,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(table: &str, columns: &[&str], rows: &str) -> Option<MigrationHistory> {
        let columns: Vec<String> = columns.iter().map(|one| (*one).to_owned()).collect();
        let table = TableName {
            schema: "public".into(),
            name: table.into(),
        };
        from_copied_rows(table, &columns, format!("{rows}\\.\n\n\n").as_bytes())
    }

    const PRISMA: [&str; 8] = [
        "id",
        "checksum",
        "finished_at",
        "migration_name",
        "logs",
        "rolled_back_at",
        "started_at",
        "applied_steps_count",
    ];

    #[test]
    fn prisma_in_the_order_of_its_times() {
        let history = read(
            "_prisma_migrations",
            &PRISMA,
            "b\tc2\t2026-01-02 01:00:01.5+02\tsecond\t\\N\t\\N\t2026-01-02 01:00:00+02\t1\n\
             c\tc3\t\\N\tthird\ta\\tlog\\n\t\\N\t2026-01-03 00:00:00+00\t0\n\
             a\tc1\t2026-01-01 23:30:00+00\tfirst\t\\N\t\\N\t2026-01-01 22:00:00+00\t1\n",
        )
        .unwrap();
        let ids: Vec<&str> = history.entries.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["first", "second", "third"]);
        assert_eq!(history.current.as_deref(), Some("second"));
        assert_eq!(history.entries[2].state, MigrationState::Failed);
        assert!(history.has_trouble());
        let at = history.entries[1].applied_at.unwrap();
        assert_eq!(at.to_string(), "2026-01-01T23:00:01.5Z");
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        assert_eq!(read("users", &["id"], "1\n"), None);
        assert_eq!(read("schema_migrations", &["version"], "1\t2\n"), None);
        assert_eq!(read("_prisma_migrations", &["id"], "1\n"), None);
        assert!(
            read("schema_migrations", &["version"], "")
                .unwrap()
                .entries
                .is_empty()
        );
        let rails = read("schema_migrations", &["version"], "9\n20250101000000\n10\n").unwrap();
        assert_eq!(rails.current.as_deref(), Some("20250101000000"));
        // Its lock is in another table.
        let knex = ["id", "name", "batch", "migration_time"];
        assert_eq!(read("knex_migrations", &knex, ""), None);
    }
}
