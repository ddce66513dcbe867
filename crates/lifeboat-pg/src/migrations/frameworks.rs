//! The tables of thirteen frameworks, as their own sources create them.

use super::Framework;

/// The shape of one framework's table.
pub(super) struct Known {
    pub(super) framework: Framework,
    /// Its usual names.
    pub(super) tables: &'static [&'static str],
    /// The columns that it must have.
    columns: &'static [&'static str],
    /// Whether it has no others: several frameworks call their table alike.
    exactly: bool,
    /// SQL for the values of an entry; the empty string where there is none.
    id: &'static str,
    name: &'static str,
    checksum: &'static str,
    /// A timestamp, with zone or without.
    at: &'static str,
    /// One of the words that [`super::entry`] knows.
    state: &'static str,
    /// The newest first.
    order: &'static str,
    /// A row that is hidden.
    only: &'static str,
    /// The table of the framework's lock (`None`: the same name with `_lock`), and the condition on its
    /// row when it is held.
    pub(super) lock: Option<(Option<&'static str>, &'static str)>,
}

impl Known {
    /// Whether a table of this name with these columns (sorted) is one of these.
    pub(super) fn fits(&self, table: &str, columns: &[String]) -> bool {
        self.tables.contains(&table)
            && self
                .columns
                .iter()
                .all(|wanted| columns.iter().any(|column| column == wanted))
            && (!self.exactly || self.columns.len() == columns.len())
    }

    /// Reads at most `limit` entries, the newest first.
    pub(super) fn sql(&self, table: &str, limit: usize) -> String {
        let or_null = |expression: &str| {
            if expression.is_empty() {
                "NULL".to_owned()
            } else {
                expression.to_owned()
            }
        };
        let at = match self.at {
            "" => "NULL".to_owned(),
            at => format!(
                "CASE WHEN pg_catalog.isfinite({at}) THEN (extract(epoch FROM {at}) * 1000000)::pg_catalog.int8 END"
            ),
        };
        let only = if self.only.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.only)
        };
        format!(
            "SELECT ({})::text AS id, ({})::text AS name, ({})::text AS checksum, {at} AS at, {} AS state
               FROM {table} t{only} ORDER BY {} LIMIT {limit}",
            self.id,
            or_null(self.name),
            or_null(self.checksum),
            self.state,
            self.order
        )
    }
}

const PLAIN: Known = Known {
    framework: Framework::Other,
    tables: &[],
    columns: &[],
    exactly: false,
    id: "t.version",
    name: "",
    checksum: "",
    at: "",
    state: "'applied'",
    order: "t.version DESC",
    only: "",
    lock: None,
};

pub(super) const KNOWN: &[Known] = &[
    Known {
        framework: Framework::Prisma,
        tables: &["_prisma_migrations"],
        columns: &[
            "id",
            "checksum",
            "finished_at",
            "migration_name",
            "logs",
            "rolled_back_at",
            "started_at",
        ],
        id: "t.migration_name",
        checksum: "t.checksum",
        at: "coalesce(t.finished_at, t.started_at)",
        // `migrate deploy` writes the logs when a migration fails, and leaves finished_at empty.
        state: "CASE WHEN t.rolled_back_at IS NOT NULL THEN 'rolled-back'
                     WHEN t.finished_at IS NOT NULL THEN 'applied'
                     WHEN t.logs IS NOT NULL THEN 'failed'
                     ELSE 'in-progress' END",
        order: "t.started_at DESC, t.migration_name DESC",
        ..PLAIN
    },
    Known {
        framework: Framework::Rails,
        tables: &["schema_migrations"],
        columns: &["version"],
        exactly: true,
        // Text, but of digits: timestamps, or numbers in very old applications.
        order: "pg_catalog.length(t.version::text) DESC, t.version DESC",
        ..PLAIN
    },
    Known {
        framework: Framework::GolangMigrate,
        tables: &["schema_migrations"],
        columns: &["dirty", "version"],
        exactly: true,
        state: "CASE WHEN t.dirty THEN 'dirty' ELSE 'applied' END",
        ..PLAIN
    },
    Known {
        framework: Framework::Django,
        tables: &["django_migrations"],
        columns: &["id", "app", "name", "applied"],
        id: "t.app || '.' || t.name",
        at: "t.applied",
        order: "t.id DESC",
        ..PLAIN
    },
    Known {
        framework: Framework::Flyway,
        // The second is what version 4 and older called it.
        tables: &["flyway_schema_history", "schema_version"],
        columns: &[
            "installed_rank",
            "version",
            "description",
            "type",
            "script",
            "checksum",
            "installed_on",
            "success",
        ],
        // Repeatable migrations have no version.
        id: "coalesce(t.version, t.script)",
        name: "t.description",
        checksum: "t.checksum",
        at: "t.installed_on",
        state: "CASE WHEN NOT t.success THEN 'failed'
                     WHEN t.type LIKE 'UNDO%' OR t.type = 'DELETE' THEN 'rolled-back'
                     ELSE 'applied' END",
        order: "t.installed_rank DESC",
        ..PLAIN
    },
    Known {
        framework: Framework::Liquibase,
        tables: &["databasechangelog"],
        columns: &[
            "id",
            "author",
            "filename",
            "dateexecuted",
            "orderexecuted",
            "exectype",
            "md5sum",
        ],
        id: "t.filename || '::' || t.id || '::' || t.author",
        checksum: "t.md5sum",
        at: "t.dateexecuted",
        state: "CASE WHEN t.exectype = 'FAILED' THEN 'failed' ELSE 'applied' END",
        // The counter begins anew in some versions.
        order: "t.dateexecuted DESC, t.orderexecuted DESC",
        lock: Some((Some("databasechangeloglock"), "locked")),
        ..PLAIN
    },
    Known {
        framework: Framework::Alembic,
        tables: &["alembic_version"],
        columns: &["version_num"],
        exactly: true,
        id: "t.version_num",
        order: "t.version_num DESC",
        ..PLAIN
    },
    Known {
        framework: Framework::Sqlx,
        tables: &["_sqlx_migrations"],
        columns: &[
            "version",
            "description",
            "installed_on",
            "success",
            "checksum",
        ],
        name: "t.description",
        checksum: "pg_catalog.encode(t.checksum, 'hex')",
        at: "t.installed_on",
        // SQLx itself calls such a version dirty.
        state: "CASE WHEN t.success THEN 'applied' ELSE 'dirty' END",
        ..PLAIN
    },
    Known {
        framework: Framework::Diesel,
        tables: &["__diesel_schema_migrations"],
        columns: &["version", "run_on"],
        at: "t.run_on",
        ..PLAIN
    },
    Known {
        framework: Framework::Knex,
        tables: &["knex_migrations"],
        columns: &["id", "name", "batch", "migration_time"],
        id: "t.name",
        at: "t.migration_time",
        order: "t.id DESC",
        lock: Some((None, "is_locked = 1")),
        ..PLAIN
    },
    Known {
        framework: Framework::TypeOrm,
        tables: &["migrations", "typeorm_migrations"],
        columns: &["id", "name", "timestamp"],
        exactly: true,
        id: "t.name",
        order: "t.id DESC",
        ..PLAIN
    },
    Known {
        framework: Framework::Drizzle,
        tables: &["__drizzle_migrations"],
        columns: &["created_at", "hash", "id"],
        // The time in the migration's own journal, in milliseconds: its identity, not when it ran.
        id: "t.created_at",
        checksum: "t.hash",
        order: "t.created_at DESC, t.id DESC",
        ..PLAIN
    },
    Known {
        framework: Framework::Goose,
        tables: &["goose_db_version"],
        columns: &["id", "version_id", "is_applied", "tstamp"],
        id: "t.version_id",
        at: "t.tstamp",
        // Older versions note an undone migration by a further line.
        state: "CASE WHEN t.is_applied THEN 'applied' ELSE 'rolled-back' END",
        order: "t.id DESC",
        // The line that says that there is a table.
        only: "t.version_id <> 0",
        ..PLAIN
    },
];
