//! Is there a backup, is it fresh, and can it be read?
//!
//! Two depths. The quick one looks at everything that can be known without reading data: the backup's age,
//! its manifest and table of contents, that every table has its file, that every blob is indexed and every
//! pack is there with the right size. With [`VerifyRequest::read`] packs are read whole and their hashes compared,
//! all of them or those that were not read lately.
//!
//! A verification never says more than it saw: [`VerifyReport::content_is_good`] says what may be written down.

pub(crate) mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::{SignedDuration, Timestamp};
use lifeboat_pg::archive::{Archive, Text};
use lifeboat_repo::check::{CheckOptions, CheckScope, Finding};
use lifeboat_repo::storage::FileKind;
use lifeboat_repo::tree::NodeKind;
use lifeboat_repo::{Repository, RepositoryError, SnapshotId};

use crate::catalog::{Backup, Catalog, CatalogError, Selector};
use crate::event::{Event, Observer, Stage, Stages};
use crate::journal::Journal;
use crate::manifest::{MANIFEST_PATH, Manifest, TOC_PATH};
use reading::Ledger;
pub use reading::{Coverage, ReadData, Share, ShareError};

/// How far a backup's time may lie ahead of our clock before it counts as wrong: two hosts' clocks are never
/// quite equal.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// What to verify.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// Which backup.
    pub selector: Selector,
    /// Of which database, when the selector is `latest`.
    pub database: Option<String>,
    /// How old it may be; `None` when its age does not matter (an old backup asked for by its ID).
    pub max_age: Option<SignedDuration>,
    /// Which packs of the repository are read whole.
    pub read: ReadData,
    /// How long a pack that was read counts as read.
    pub max_proof_age: SignedDuration,
    /// How many threads read.
    pub jobs: usize,
    /// The present.
    pub now: Timestamp,
    /// Set to stop early.
    pub interrupt: Arc<AtomicBool>,
}

/// What a verification saw.
#[derive(Debug)]
pub struct VerifyReport {
    /// The backup.
    pub backup: Backup,
    /// Its age: from its database snapshot until now.
    pub age: SignedDuration,
    /// How much was read, if reading was asked for.
    pub coverage: Option<Coverage>,
    /// Whether every pack that this backup needs was read now, or lately, and found good.
    pub is_read: bool,
    /// Packs looked at.
    pub packs_checked: u64,
    /// Blobs looked at.
    pub blobs_checked: u64,
    /// Bytes read from the repository.
    pub bytes_read: u64,
    /// Everything that is wrong; empty when the backup is fresh and readable.
    pub problems: Vec<Problem>,
    /// Seconds it took.
    pub seconds: f64,
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The backup is older than allowed.
    #[error("the newest backup is {} old; {} are allowed", minutes(*.age), minutes(*.max_age))]
    Stale {
        /// Its age.
        age: SignedDuration,
        /// What was allowed.
        max_age: SignedDuration,
    },
    /// The backup is dated in the future, so its age cannot be judged.
    #[error("the backup is dated {} in the future: a clock is wrong", minutes(*.ahead))]
    Future {
        /// By how much.
        ahead: SignedDuration,
    },
    /// A file inside the backup is missing, damaged or contradicts another.
    #[error("{path}: {what}")]
    Content {
        /// The file inside the backup.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file of the repository is damaged or missing.
    #[error("{}", finding_line(.finding))]
    Repository {
        /// What the repository's check found.
        finding: Finding,
        /// The backups that need this file.
        backups: Vec<SnapshotId>,
    },
    /// A snapshot file of the repository cannot be read.
    #[error("{0}")]
    Snapshot(RepositoryError),
}

fn finding_line(finding: &Finding) -> String {
    finding.to_string()
}

fn minutes(duration: SignedDuration) -> String {
    crate::objectives::human_seconds(duration.as_secs().unsigned_abs())
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether the backup's content is good, whatever its age: this is what a proof may say.
    #[must_use]
    pub fn content_is_good(&self) -> bool {
        self.problems
            .iter()
            .all(|problem| matches!(problem, Problem::Stale { .. } | Problem::Future { .. }))
    }
}

/// Why no verdict was possible at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to verify, or it could not be found.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Verifies a backup.
///
/// # Errors
/// When there is no backup to speak of, or the repository cannot be read at all. Damage is not an error
/// but a [`Problem`] in the report.
pub fn execute(
    repository: &Repository,
    journal: &Journal,
    request: &VerifyRequest,
    observer: &dyn Observer,
) -> Result<VerifyReport, VerifyError> {
    let started = std::time::Instant::now();
    let catalog = Catalog::new(repository);
    let backup = catalog.select(&request.selector, request.database.as_deref())?;
    let age = request.now.duration_since(backup.time);
    let mut problems = judge_age(age, request.max_age);

    let ledger = Ledger::open(
        repository,
        journal,
        request.read,
        request.max_proof_age,
        request.now,
    );
    let read_data = request.read != ReadData::Nothing;
    let mut stages = Stages::new(observer);
    let check = stages.run(Stage::Check, || {
        let scope = if read_data {
            CheckScope::Everything
        } else {
            CheckScope::Snapshot(&backup.snapshot)
        };
        let options = CheckOptions {
            read_data,
            jobs: request.jobs,
            packs_of: Some(backup.id),
            interrupt: Arc::clone(&request.interrupt),
        };
        repository.check_reading(scope, &options, &ledger, &|progress| {
            observer.event(&Event::CheckProgress {
                packs_done: progress.packs_done,
                packs_total: progress.packs_total,
                bytes: progress.bytes_done,
            });
        })
    });
    // Also what an interrupted run has read is read.
    ledger.flush();
    let check = check?;
    let damaged = check
        .findings
        .iter()
        .filter(|finding| finding.kind == FileKind::Pack)
        .filter_map(|finding| finding.name.parse().ok())
        .collect();
    let (coverage, is_read) = if read_data {
        let (coverage, is_read) = ledger.finish(&check.packs_of, &damaged);
        (Some(coverage), is_read)
    } else {
        (None, false)
    };
    problems.extend(check.findings.into_iter().map(|finding| {
        let backups = finding.snapshots.clone();
        Problem::Repository { finding, backups }
    }));
    problems.extend(content_problems(&catalog, &backup)?);

    Ok(VerifyReport {
        backup,
        age,
        coverage,
        is_read,
        packs_checked: check.packs_checked,
        blobs_checked: check.blobs_checked,
        bytes_read: check.bytes_read,
        problems,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn judge_age(age: SignedDuration, max_age: Option<SignedDuration>) -> Vec<Problem> {
    let Some(max_age) = max_age else {
        return Vec::new();
    };
    if age < -CLOCK_TOLERANCE {
        return vec![Problem::Future { ahead: -age }];
    }
    if age > max_age {
        return vec![Problem::Stale { age, max_age }];
    }
    Vec::new()
}

/// Whether the manifest, the table of contents and the folder of files agree with each other.
fn content_problems(catalog: &Catalog<'_>, backup: &Backup) -> Result<Vec<Problem>, VerifyError> {
    let manifest = match catalog.manifest(backup) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(vec![content_problem(MANIFEST_PATH, &error)]),
    };
    let toc = match catalog.toc(backup) {
        Ok(toc) => toc,
        Err(error) => return Ok(vec![content_problem(TOC_PATH, &error)]),
    };
    let mut files = BTreeMap::new();
    let walked = catalog.reader()?.walk(&backup.snapshot, |path, node| {
        if node.kind == NodeKind::File {
            files.insert(path.to_owned(), node.size);
        }
        Ok::<(), RepositoryError>(())
    });
    if let Err(error) = walked {
        return Ok(vec![Problem::Content {
            path: "dump".to_owned(),
            what: error.to_string(),
        }]);
    }
    Ok(disagreements(&manifest, &toc, &files))
}

fn content_problem(path: &str, error: &CatalogError) -> Problem {
    Problem::Content {
        path: path.to_owned(),
        what: error.to_string(),
    }
}

fn text(name: Option<&Text>) -> String {
    name.map(|name| name.lossy().into_owned())
        .unwrap_or_default()
}

/// Compares the three accounts of what the backup holds. `files`: size in bytes by path.
fn disagreements(
    manifest: &Manifest,
    toc: &Archive,
    files: &BTreeMap<String, u64>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: String, what: String| problems.push(Problem::Content { path, what });
    let recorded: BTreeMap<i32, _> = manifest
        .tables
        .iter()
        .map(|table| (table.dump_id, table))
        .collect();
    for entry in toc
        .entries
        .iter()
        .filter(|entry| entry.is("TABLE DATA") && entry.has_data())
    {
        let name = format!(
            "{}.{}",
            text(entry.namespace.as_ref()),
            text(entry.tag.as_ref())
        );
        let Some(table) = recorded.get(&entry.dump_id) else {
            problem(
                TOC_PATH.to_owned(),
                format!("{name} is in the table of contents but not in the manifest"),
            );
            continue;
        };
        let path = format!("dump/{}", table.file);
        match files.get(&path) {
            None => problem(path, format!("the rows of {name} are missing")),
            Some(size) if *size != table.size_bytes => problem(
                path,
                format!(
                    "the rows of {name} are {size} bytes long; the manifest says {}",
                    table.size_bytes
                ),
            ),
            Some(_) => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_judged_only_against_a_limit_and_never_by_a_wrong_clock() {
        let hour = SignedDuration::from_hours(1);
        assert!(judge_age(hour, Some(hour)).is_empty());
        assert!(judge_age(hour * 100, None).is_empty());
        assert!(matches!(
            judge_age(hour * 2, Some(hour)).as_slice(),
            [Problem::Stale { .. }]
        ));
        assert!(judge_age(SignedDuration::from_secs(-2), Some(hour)).is_empty());
        assert!(matches!(
            judge_age(-hour, Some(hour)).as_slice(),
            [Problem::Future { .. }]
        ));
    }
}
