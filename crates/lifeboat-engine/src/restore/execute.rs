//! Carrying a restore out, stage by stage.

use std::sync::atomic::Ordering;
use std::time::Instant;

use lifeboat_pg::archive::{Archive, Section, Text};
use lifeboat_pg::load::{PgRestore, RestoreMessages};
use lifeboat_pg::tools::{Tool, Tools, Wanted};
use lifeboat_pg::wire::{ConnectOptions, Connection, PgError, quote_ident, quote_literal};
use lifeboat_repo::check::{CheckOptions, CheckScope};
use serde::Serialize;

use super::analyze::analyze;
use super::compare::{Comparison, Depth, TableComparison};
use super::passes::passes;
use super::plan::{RestorePlan, connect_to_any, database_settings, refuse_unsafe};
use super::{RestoreError, RestoreRequest, Target, What, data};
use crate::catalog::Catalog;
use crate::event::{Event, Observer, Stage, StageTime, Stages};

/// A restore that ran to its end.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The restored database's name.
    pub database: String,
    /// Rows loaded.
    pub rows: u64,
    /// Bytes loaded.
    pub bytes: u64,
    /// What arrived against what the backup recorded.
    pub comparison: Comparison,
    /// Statements that failed, and other things that are not as they were; empty when all is well.
    pub problems: Vec<String>,
    /// What differs on purpose: grants to roles that the target does not have, for one.
    pub notes: Vec<String>,
    /// The stages and their times.
    pub stages: Vec<StageTime>,
    /// Seconds from beginning to end.
    pub seconds: f64,
}

impl RestoreReport {
    /// Whether everything is as the backup recorded it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.comparison.matches()
    }
}

/// Carries out a plan. `confirmed` is the name that the operator typed or gave with `--yes`, for plans with a
/// [`confirmation`](RestorePlan::confirmation).
///
/// # Errors
/// [`RestoreError::NotConfirmed`] and [`RestoreError::WrongConfirmation`] before anything is touched;
/// [`RestoreError::Incomplete`] afterwards.
pub fn execute(
    catalog: &Catalog<'_>,
    plan: &RestorePlan,
    request: &RestoreRequest,
    confirmed: Option<&str>,
    observer: &dyn Observer,
) -> Result<RestoreReport, RestoreError> {
    let started = Instant::now();
    if let Some(name) = plan.confirmation() {
        match confirmed {
            None => {
                return Err(RestoreError::NotConfirmed {
                    name: name.to_owned(),
                });
            }
            Some(typed) if typed != name => {
                return Err(RestoreError::WrongConfirmation {
                    typed: typed.to_owned(),
                    name: name.to_owned(),
                });
            }
            Some(_) => {}
        }
        if plan.target.clean {
            read_everything(catalog, plan, request, observer)?;
        }
        // Between the plan and the answer to its question somebody may have come in.
        let mut connection =
            Connection::connect(&plan.target.conninfo, &request.connect_options())?;
        refuse_unsafe(request, &mut connection, name, plan.target.clean)?;
    }
    let newest = plan
        .manifest
        .server_major()
        .max(plan.target.server_version_num / 10_000);
    let tools = request
        .tools
        .find(&[Tool::PgRestore], Wanted::AtLeast(newest))?;
    let mut run = Run {
        catalog,
        plan,
        request,
        tools,
        created: false,
        stage: Stage::Create,
        problems: Vec::new(),
        notes: plan.notes.clone(),
    };
    let mut stages = Stages::new(observer);
    match run.all(&mut stages, observer) {
        Ok(comparison) => Ok(RestoreReport {
            database: plan.target.database.clone(),
            rows: comparison.rows(),
            bytes: plan.bytes(),
            comparison,
            problems: run.problems,
            notes: run.notes,
            stages: stages.into_times(),
            seconds: started.elapsed().as_secs_f64(),
        }),
        Err(error) => Err(run.incomplete(error)),
    }
}

/// Reads the backup to its last byte. Elsewhere damage that only reading shows costs a try; here it would come to
/// light when what was to be replaced is gone already.
fn read_everything(
    catalog: &Catalog<'_>,
    plan: &RestorePlan,
    request: &RestoreRequest,
    observer: &dyn Observer,
) -> Result<(), RestoreError> {
    let options = CheckOptions {
        read_data: true,
        ..request.check_options()
    };
    let scope = CheckScope::Snapshot(&plan.backup.snapshot);
    let check = Stages::new(observer).run(Stage::Check, || {
        catalog.repository().check(scope, &options, &|progress| {
            observer.event(&Event::CheckProgress {
                packs_done: progress.packs_done,
                packs_total: progress.packs_total,
                bytes: progress.bytes_done,
            });
        })
    })?;
    match check.findings.into_iter().next() {
        None => Ok(()),
        Some(finding) => Err(RestoreError::BackupDamaged {
            id: plan.backup.id,
            finding: Box::new(finding),
        }),
    }
}

struct Run<'a> {
    catalog: &'a Catalog<'a>,
    plan: &'a RestorePlan,
    request: &'a RestoreRequest,
    tools: Tools,
    created: bool,
    stage: Stage,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Run<'_> {
    fn all(
        &mut self,
        stages: &mut Stages<'_>,
        observer: &dyn Observer,
    ) -> Result<Comparison, RestoreError> {
        let what = self.plan.what;
        if self.plan.target.create {
            self.stage(stages, Stage::Create, Self::create_database)?;
        }
        if self.plan.target.clean && what != What::DataOnly {
            self.stage(stages, Stage::Clean, Self::clean)?;
        }
        if what != What::DataOnly {
            self.stage(stages, Stage::PreData, |run| {
                run.definitions(&run.plan.toc.with_sections(&[Section::PreData]), 1)
            })?;
        }
        let mut tables = Vec::new();
        let mut large_objects = None;
        if what != What::SchemaOnly {
            tables = self.stage(stages, Stage::Data, |run| {
                data::load_tables(run.catalog, run.plan, run.request, observer)
            })?;
            large_objects = self.stage(stages, Stage::Rest, Self::rest)?;
        }
        // Of a restore of rows alone, this is the refreshing of materialized views.
        self.stage(stages, Stage::PostData, |run| {
            for (archive, jobs) in passes(&run.plan.toc, run.request.jobs) {
                run.definitions(&archive, jobs)?;
            }
            Ok(())
        })?;
        if what != What::SchemaOnly {
            self.stage(stages, Stage::Analyze, |run| analyze(run.plan, run.request))?;
        }
        if self.request.read_back && what != What::SchemaOnly {
            (tables, large_objects) = self.stage(stages, Stage::Compare, |run| {
                data::read_back(run.plan, run.request, &mut run.notes)
            })?;
        }
        Ok(Comparison {
            depth: if self.request.read_back {
                Depth::ReadBack
            } else {
                Depth::Loaded
            },
            tables,
            large_objects,
        })
    }

    fn stage<T>(
        &mut self,
        stages: &mut Stages<'_>,
        stage: Stage,
        work: impl FnOnce(&mut Self) -> Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        self.stage = stage;
        if self.request.interrupt.load(Ordering::Relaxed) {
            return Err(RestoreError::Interrupted);
        }
        stages.run(stage, || work(self))
    }

    /// The error of a restore that had begun.
    fn incomplete(&self, error: RestoreError) -> RestoreError {
        // Nothing was touched as long as the database is not there.
        if self.plan.target.create && !self.created {
            return error;
        }
        let error = if self.request.interrupt.load(Ordering::Relaxed) {
            RestoreError::Interrupted
        } else {
            error
        };
        RestoreError::Incomplete {
            stage: self.stage,
            database: self.plan.target.database.clone(),
            created: self.created,
            source: Box::new(error),
        }
    }

    fn create_database(&mut self) -> Result<(), RestoreError> {
        let Target::New { server, name } = &self.request.target else {
            return Ok(());
        };
        let mut connection = connect_to_any(server, &self.request.connect_options())?;
        let source = &self.plan.manifest.server;
        let with_locale = create_statement(name, source, self.plan.target.server_version_num);
        match connection.execute(&with_locale) {
            Ok(_) => {}
            // invalid_parameter_value, undefined_object, wrong_object_type: another system, without that
            // locale. A database that sorts differently is better than none, as long as it is said.
            Err(error) if matches!(error.sqlstate(), Some("22023" | "42704" | "42809")) => {
                self.notes.push(format!(
                    "the target does not know the locale {} of the source: the new database sorts by the server's own",
                    source.collate
                ));
                connection.execute(&format!(
                    "CREATE DATABASE {} TEMPLATE template0 ENCODING {}",
                    quote_ident(name),
                    quote_literal(&source.encoding)
                ))?;
            }
            Err(error) => return Err(error.into()),
        }
        self.created = true;
        Ok(())
    }

    /// Drops what the backup will create, in `pg_restore`'s own way: an archive whose entries have nothing but
    /// their `DROP` statements.
    fn clean(&mut self) -> Result<(), RestoreError> {
        let mut drops = self.plan.toc.clone();
        drops
            .entries
            .retain(|entry| entry.drop_stmt.is_some() && !entry.is("BLOB METADATA"));
        for entry in &mut drops.entries {
            // A comment: `pg_restore` drops nothing that has no definition at all.
            entry.defn = Some(Text::from("--"));
            entry.data = lifeboat_pg::archive::DataRef::None;
            entry.copy_stmt = None;
            // Or the dropped access method would be asked for.
            entry.table_am = None;
            entry.tablespace = None;
        }
        let messages = PgRestore {
            clean: true,
            // Or it would give an owner to what it has just dropped.
            keep_owner: false,
            ..self.pg_restore(1)
        }
        .run(&self.tools, &drops)?;
        // No problem by itself, and with partitions the rule: a partition's constraint goes with its parent's.
        // What stays and is in the way makes its own `CREATE` fail, and that is one.
        let left = messages.errors.into_iter().chain(messages.warnings);
        self.notes.extend(left);
        self.clean_large_objects()
    }

    /// From 17 on large objects come in groups, whose definition is the list of their numbers: `pg_restore` would
    /// make again what it drops.
    fn clean_large_objects(&self) -> Result<(), RestoreError> {
        let groups = self.plan.toc.entries.iter();
        let numbers: Vec<&str> = groups
            .filter(|entry| entry.is("BLOB METADATA"))
            .filter_map(|entry| entry.defn.as_ref().and_then(Text::as_str))
            .flat_map(str::split_ascii_whitespace)
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let mut connection =
            Connection::connect(&self.plan.target.conninfo, &self.request.connect_options())?;
        for numbers in numbers.chunks(1000) {
            connection.query(&format!(
                "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid IN ({})",
                numbers.join(", ")
            ))?;
        }
        Ok(())
    }

    fn definitions(&mut self, archive: &Archive, jobs: usize) -> Result<(), RestoreError> {
        let messages = self.pg_restore(jobs).run(&self.tools, archive)?;
        self.take_messages(messages);
        Ok(())
    }

    /// What is in the data section without being rows: sequence values, the large objects themselves.
    fn rest(&mut self) -> Result<Option<TableComparison>, RestoreError> {
        // Before 17 large objects are created in the section before the rows, which a restore of rows alone skips.
        let sections = match self.plan.what {
            What::DataOnly => &[Section::PreData, Section::Data][..],
            _ => &[Section::Data],
        };
        let mut rest = self.plan.toc.with_sections(sections);
        rest.entries.retain(|entry| !entry.has_data());
        self.definitions(&rest, 1)?;
        self.apply_database_settings()?;
        if !self.plan.large_objects {
            return Ok(None);
        }
        let found = data::load_large_objects(self.catalog, self.plan, self.request)?;
        Ok(Some(TableComparison {
            table: "large objects".to_owned(),
            expected: self.plan.manifest.large_objects.census,
            found: Some(found),
        }))
    }

    /// `ALTER DATABASE … SET`, which belong to the database and not to anything in it: `pg_restore` gives them
    /// only to a database that it creates itself, under its old name.
    fn apply_database_settings(&mut self) -> Result<(), RestoreError> {
        if !self.created || self.plan.what != What::Everything {
            return Ok(());
        }
        let old = self.plan.manifest.server.database.as_str();
        let statements = database_settings(&self.plan.toc, old, &self.plan.target.database);
        if statements.is_empty() {
            return Ok(());
        }
        let mut connection =
            Connection::connect(&self.plan.target.conninfo, &self.request.connect_options())?;
        for statement in statements {
            match connection.execute(&statement) {
                Ok(_) => {}
                Err(PgError::Server(error)) => self.notes.push(format!(
                    "a setting of the database was not restored: {}",
                    error.message
                )),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn pg_restore(&self, jobs: usize) -> PgRestore {
        PgRestore {
            conninfo: self.plan.target.conninfo.clone(),
            jobs,
            keep_owner: self.request.keep_owner,
            no_tablespaces: self.plan.no_tablespaces,
            clean: false,
            settings: [
                ("synchronous_commit", "off"),
                ("default_transaction_read_only", "off"),
                ("maintenance_work_mem", "256MB"),
                ("max_parallel_maintenance_workers", "2"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            interrupt: std::sync::Arc::clone(&self.request.interrupt),
        }
    }

    fn take_messages(&mut self, messages: RestoreMessages) {
        self.problems.extend(messages.errors);
        self.notes.extend(messages.warnings);
    }
}

/// `CREATE DATABASE` with the source's encoding and locale, from the empty template.
fn create_statement(
    name: &str,
    source: &crate::manifest::ServerRecord,
    target_version_num: u32,
) -> String {
    use std::fmt::Write as _;
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {}",
        quote_ident(name),
        quote_literal(&source.encoding),
    );
    // Imported dumps may not say.
    for (key, value) in [("LC_COLLATE", &source.collate), ("LC_CTYPE", &source.ctype)] {
        if !value.is_empty() {
            let _ = write!(sql, " {key} {}", quote_literal(value));
        }
    }
    // Providers other than libc exist since 15, `builtin` since 17.
    let provider = match source.locale_provider.as_deref() {
        Some("icu") if target_version_num >= 150_000 => Some("icu"),
        Some("builtin") if target_version_num >= 170_000 => Some("builtin"),
        _ => None,
    };
    if let (Some(provider), Some(locale)) = (provider, source.locale.as_deref()) {
        let key = if provider == "icu" {
            "ICU_LOCALE"
        } else {
            "BUILTIN_LOCALE"
        };
        let _ = write!(
            sql,
            " LOCALE_PROVIDER {provider} {key} {}",
            quote_literal(locale)
        );
    }
    sql
}

impl RestoreRequest {
    pub(super) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            application_name: Some("lifeboat restore".to_owned()),
            interrupt: std::sync::Arc::clone(&self.interrupt),
            ..ConnectOptions::default()
        }
    }
}
