//! Writing an operation's beginning and end into the journal.
//!
//! The journal is convenience: when it cannot be written, the operation goes on and its result stands. Hence
//! nothing here returns an error; [`Journal::fallback`] has told why.

use jiff::Timestamp;

use crate::journal::{Journal, Outcome, RunEnd, RunKind, RunStart};

/// Runs `work` and remembers that it ran, how it ended and why.
///
/// `describe` turns a success into what is remembered of it, `interrupted` tells an operator's stop from a failure.
pub fn recorded<T, E: std::fmt::Display>(
    journal: &Journal,
    kind: RunKind,
    repository: &str,
    database: &str,
    ended: impl FnOnce(&E) -> Outcome,
    describe: impl FnOnce(&T, &mut RunEnd),
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let run = journal
        .begin(&RunStart {
            kind,
            database: database.to_owned(),
            repository: repository.to_owned(),
            started: Timestamp::now(),
        })
        .ok();
    let result = work();
    if let Some(run) = run {
        let mut end = RunEnd::new(Outcome::Succeeded, Timestamp::now());
        match &result {
            Ok(value) => describe(value, &mut end),
            Err(error) => {
                end.error = Some(error.to_string());
                end.outcome = ended(error);
            }
        }
        // See above: a result stands whether or not it is remembered.
        let _ = journal.finish(run, &end);
    }
    result
}
