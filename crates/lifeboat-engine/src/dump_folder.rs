//! The check of a folder of plain `pg_dump` files, for those who still have one.
//!
//! The newest file whose name matches is taken and read to its last byte: dumps that were cut short look fine
//! from the front. Its age counts from when it was last written to, and from the start of the dump where the
//! file tells it: a copy made today of last year's dump is not fresh.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use lifeboat_pg::dump_file::{self, DumpDefect, DumpFile, InspectError};

use crate::objectives::human_seconds;
use crate::verify::CLOCK_TOLERANCE;

/// A dump tells its start in the local time of a machine whose zone nobody recorded: at most this far from UTC
/// (UTC+14, Kiribati).
const ZONE_DOUBT: SignedDuration = SignedDuration::from_hours(14);

/// Which dump to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpSource {
    /// The newest file of a folder whose name matches the pattern: `*` any letters, `?` any one.
    Newest {
        /// The folder.
        folder: PathBuf,
        /// The pattern.
        pattern: String,
    },
    /// This one.
    File(PathBuf),
}

/// What to check.
#[derive(Debug, Clone)]
pub struct DumpFolderRequest {
    /// Which dump.
    pub source: DumpSource,
    /// How old it may be.
    pub max_age: SignedDuration,
    /// The present.
    pub now: Timestamp,
    /// Set to stop.
    pub interrupt: Arc<AtomicBool>,
}

/// What was found.
#[derive(Debug)]
pub struct DumpFolderReport {
    /// The dump.
    pub dump: DumpFile,
    /// Its age, when it can be told.
    pub age: Option<SignedDuration>,
    /// What is wrong; empty when it is fresh and whole.
    pub problems: Vec<DumpProblem>,
}

impl DumpFolderReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// One thing that is wrong with a dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpProblem {
    /// It is older than allowed.
    #[error("it is {} old; {} are allowed", human(*.age), human(*.max_age))]
    Stale {
        /// Its age.
        age: SignedDuration,
        /// What is allowed.
        max_age: SignedDuration,
    },
    /// The file is new, the dump in it is not.
    #[error("the file is new, but the dump in it was begun at {begun}")]
    OldContent {
        /// The dumping machine's local time.
        begun: jiff::civil::DateTime,
    },
    /// It is dated in the future.
    #[error("it is dated {} in the future: a clock is wrong", human(*.ahead))]
    Future {
        /// By how much.
        ahead: SignedDuration,
    },
    /// It is not whole.
    #[error(transparent)]
    Defect(DumpDefect),
}

fn human(duration: SignedDuration) -> String {
    human_seconds(duration.as_secs().unsigned_abs())
}

/// Why there was no dump to check.
#[derive(Debug, thiserror::Error)]
pub enum DumpFolderError {
    /// The folder cannot be read.
    #[error("cannot read {}: {source}", folder.display())]
    Folder {
        /// Which one.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No file of the folder matches.
    #[error("no file in {} matches {pattern}", folder.display())]
    NoMatch {
        /// The folder.
        folder: PathBuf,
        /// The pattern.
        pattern: String,
    },
    /// The dump could not be opened, or the check was interrupted.
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

/// Checks the dump.
///
/// # Errors
/// When there is none, or it cannot be opened. What is wrong with a dump is in the report.
pub fn execute(request: &DumpFolderRequest) -> Result<DumpFolderReport, DumpFolderError> {
    let path = match &request.source {
        DumpSource::File(path) => path.clone(),
        DumpSource::Newest { folder, pattern } => newest(folder, pattern)?,
    };
    let mut dump = dump_file::inspect(&path, &request.interrupt, &mut |_| {})?;
    let modified = dump
        .modified
        .and_then(|time| Timestamp::try_from(time).ok());
    let age = modified.map(|modified| request.now.duration_since(modified));
    let mut problems = Vec::new();
    if let Some(defect) = dump.defect.take() {
        problems.push(DumpProblem::Defect(defect));
    }
    problems.extend(judge_age(age, dump.created, request));
    Ok(DumpFolderReport {
        dump,
        age,
        problems,
    })
}

fn judge_age(
    age: Option<SignedDuration>,
    begun: Option<jiff::civil::DateTime>,
    request: &DumpFolderRequest,
) -> Option<DumpProblem> {
    let max_age = request.max_age;
    match age {
        Some(age) if age < -CLOCK_TOLERANCE => return Some(DumpProblem::Future { ahead: -age }),
        Some(age) if age > max_age => return Some(DumpProblem::Stale { age, max_age }),
        _ => {}
    }
    let begun = begun?;
    let as_utc = begun.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (request.now.duration_since(as_utc) > max_age + ZONE_DOUBT)
        .then_some(DumpProblem::OldContent { begun })
}

/// The newest match: by the time of the last write, and of equals the last by name.
fn newest(folder: &Path, pattern: &str) -> Result<PathBuf, DumpFolderError> {
    let unreadable = |source| DumpFolderError::Folder {
        folder: folder.to_owned(),
        source,
    };
    let mut best: Option<(SystemTime, PathBuf)> = None;
    for path in matching(folder, pattern).map_err(unreadable)? {
        // Follows links; a file that went away meanwhile (an old dump being deleted) is no match.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let candidate = (metadata.modified().map_err(unreadable)?, path);
        if best.as_ref().is_none_or(|best| candidate > *best) {
            best = Some(candidate);
        }
    }
    best.map(|(_, path)| path)
        .ok_or_else(|| DumpFolderError::NoMatch {
            folder: folder.to_owned(),
            pattern: pattern.to_owned(),
        })
}

/// What in a folder has a name that matches, in no order.
pub(crate) fn matching(folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if matches(pattern.as_bytes(), entry.file_name().as_encoded_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a name matches a pattern of `*` and `?`, as a shell would have it: a leading dot must be matched by
/// a dot.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    // The usual walk with one way back: to the last star, which then takes one byte more.
    let (mut at, mut name_at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while name_at < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at, name_at));
                at += 1;
            }
            Some(b'?') => (at, name_at) = (at + 1, name_at + 1),
            Some(letter) if name.get(name_at) == Some(letter) => {
                (at, name_at) = (at + 1, name_at + 1);
            }
            _ => {
                let Some((star, taken)) = retry else {
                    return false;
                };
                retry = Some((star, taken + 1));
                (at, name_at) = (star + 1, taken + 1);
            }
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|letter| *letter == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.dump", "memalerts-20260101-0100.dump", true),
            ("*.dump", ".dump", false),
            ("*.dump", "a.dump.gz", false),
            ("memalerts-*.dump", "memalerts-.dump", true),
            ("memalerts-*.dump", "other-1.dump", false),
            ("?.dump", "ab.dump", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("*", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn age_counts_from_the_last_write_and_from_the_dump_itself() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap_or_default();
        let request = DumpFolderRequest {
            source: DumpSource::File("x".into()),
            max_age: SignedDuration::from_hours(2),
            now,
            interrupt: Arc::default(),
        };
        let hours = |hours| Some(SignedDuration::from_hours(hours));
        let begun = |day| jiff::civil::DateTime::new(2026, 3, day, 11, 0, 0, 0).ok();
        let last_year = jiff::civil::DateTime::new(2025, 3, 1, 11, 0, 0, 0).ok();
        assert!(judge_age(hours(1), begun(1), &request).is_none());
        assert!(judge_age(hours(2), None, &request).is_none());
        assert!(matches!(
            judge_age(hours(3), begun(1), &request),
            Some(DumpProblem::Stale { .. })
        ));
        assert!(matches!(
            judge_age(hours(1), last_year, &request),
            Some(DumpProblem::OldContent { .. })
        ));
        assert!(matches!(
            judge_age(hours(-1), begun(1), &request),
            Some(DumpProblem::Future { .. })
        ));
    }
}
