//! Which packs a verification reads, and what is remembered of those that were read before.
//!
//! A pack never changes, so one that was read last week need not be read again today; but disks forget, so it is
//! read again after a while. The journal remembers packs by the place they lie in, with the size and the time that
//! their file had: one that was touched since counts as never read.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use lifeboat_repo::check::reading::{PackFile, Reading};
use lifeboat_repo::{PackId, Repository};

use super::CLOCK_TOLERANCE;
use crate::journal::{Journal, PackRead};

/// Packs that are remembered together. What a killed run read and did not note is read again.
const NOTED_AT_ONCE: usize = 64;

/// Which packs are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// None: sizes are compared.
    Nothing,
    /// Those that were not read within the request's `max_proof_age`.
    Due,
    /// This much of all bytes: first what was never read, then what was read longest ago.
    Subset(Share),
    /// All of them.
    All,
}

/// A share of the repository: `1/30`, or `5%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    numerator: f64,
    denominator: f64,
}

impl Share {
    /// That share of `bytes`, at least one.
    fn of(self, bytes: u64) -> u64 {
        let share = bytes as f64 * self.numerator / self.denominator;
        (share.ceil() as u64).max(1)
    }
}

/// Why a text is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share is written like 1/30 or 5%, more than nothing and not more than all")]
pub struct ShareError;

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let (numerator, denominator) = match (text.split_once('/'), text.strip_suffix('%')) {
            (Some((numerator, denominator)), _) => {
                let whole = |text: &str| text.trim().parse::<u32>().map_err(|_| ShareError);
                (whole(numerator)?.into(), whole(denominator)?.into())
            }
            (None, Some(percent)) => (percent.trim().parse().map_err(|_| ShareError)?, 100.0),
            (None, None) => return Err(ShareError),
        };
        if numerator > 0.0 && numerator <= denominator {
            Ok(Self {
                numerator,
                denominator,
            })
        } else {
            Err(ShareError)
        }
    }
}

/// How much of a repository's data has been read, now or lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Packs there are.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs read now and found good.
    pub packs_now: u64,
    /// Their bytes.
    pub bytes_now: u64,
    /// Packs read earlier, and recently enough to count.
    pub packs_earlier: u64,
    /// Their bytes.
    pub bytes_earlier: u64,
    /// When the one of those was read that was read longest ago.
    pub oldest: Option<Timestamp>,
    /// What is recent enough.
    pub max_proof_age: SignedDuration,
}

impl Coverage {
    /// Whether every pack was read recently enough.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.packs_now + self.packs_earlier == self.packs
    }

    /// Bytes that were not read recently enough.
    #[must_use]
    pub fn bytes_unread(&self) -> u64 {
        self.bytes
            .saturating_sub(self.bytes_now + self.bytes_earlier)
    }
}

/// Chooses packs by what the journal remembers, and notes those that are read.
pub(crate) struct Ledger<'a> {
    journal: &'a Journal,
    repository: String,
    location: String,
    read: ReadData,
    max_proof_age: SignedDuration,
    now: Timestamp,
    started: Instant,
    known: HashMap<[u8; 32], PackRead>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: Vec<PackFile>,
    good: HashSet<PackId>,
    to_note: Vec<PackRead>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn open(
        repository: &Repository,
        journal: &'a Journal,
        read: ReadData,
        max_proof_age: SignedDuration,
        now: Timestamp,
    ) -> Self {
        let (id, location) = (repository.id().to_owned(), repository.location());
        let known = match read {
            ReadData::Nothing => HashMap::new(),
            // The journal is convenience: what it does not remember is read.
            _ => journal.packs_read(&id, &location).unwrap_or_default(),
        };
        Self {
            journal,
            known,
            repository: id,
            location,
            read,
            max_proof_age,
            now,
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a pack was read that is still the same file.
    fn last_read(&self, file: &PackFile) -> Option<Timestamp> {
        let read = self.known.get(file.id.as_bytes())?;
        let milliseconds = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
        let is_same = read.size_bytes == file.size_bytes
            && milliseconds(read.modified) == milliseconds(file.modified);
        // A reading that is yet to come was noted by a wrong clock.
        (is_same && read.at <= self.now + CLOCK_TOLERANCE).then_some(read.at)
    }

    fn is_recent(&self, at: Timestamp) -> bool {
        self.now.duration_since(at) <= self.max_proof_age
    }

    fn note(&self, reads: &[PackRead]) {
        // As in `open`: what could not be noted is read again the next time.
        let _ = self
            .journal
            .record_packs_read(&self.repository, &self.location, reads);
    }

    /// Notes what is left to be noted, also of a check that was interrupted.
    pub(crate) fn flush(&self) {
        let left = std::mem::take(&mut self.state().to_note);
        if !left.is_empty() {
            self.note(&left);
        }
    }

    /// Forgets what is gone and what turned out to be `damaged`; says how much is covered, and whether all of
    /// `needed` is.
    pub(crate) fn finish(
        self,
        needed: &HashSet<PackId>,
        damaged: &HashSet<PackId>,
    ) -> (Coverage, bool) {
        self.flush();
        let state = std::mem::take(&mut *self.state());
        let mut coverage = Coverage {
            packs: state.files.len() as u64,
            bytes: 0,
            packs_now: 0,
            bytes_now: 0,
            packs_earlier: 0,
            bytes_earlier: 0,
            oldest: None,
            max_proof_age: self.max_proof_age,
        };
        let mut covered = HashSet::new();
        for file in &state.files {
            coverage.bytes += file.size_bytes;
            if damaged.contains(&file.id) {
                continue;
            }
            if state.good.contains(&file.id) {
                coverage.packs_now += 1;
                coverage.bytes_now += file.size_bytes;
                covered.insert(file.id);
                continue;
            }
            let Some(at) = self.last_read(file).filter(|at| self.is_recent(*at)) else {
                continue;
            };
            coverage.packs_earlier += 1;
            coverage.bytes_earlier += file.size_bytes;
            coverage.oldest = Some(coverage.oldest.map_or(at, |oldest| oldest.min(at)));
            covered.insert(file.id);
        }
        let there: HashSet<&[u8; 32]> = state
            .files
            .iter()
            .filter(|file| !damaged.contains(&file.id))
            .map(|file| file.id.as_bytes())
            .collect();
        let gone: Vec<[u8; 32]> = self
            .known
            .keys()
            .filter(|pack| !there.contains(pack))
            .copied()
            .collect();
        if !gone.is_empty() {
            // As in `note`: one that is gone and still remembered harms nobody.
            let _ = self
                .journal
                .forget_packs_read(&self.repository, &self.location, &gone);
        }
        (coverage, needed.is_subset(&covered))
    }
}

impl Reading for Ledger<'_> {
    fn choose(&self, packs: &[PackFile]) -> HashSet<PackId> {
        self.state().files = packs.to_vec();
        let chosen = |wanted: &dyn Fn(&PackFile) -> bool| {
            packs
                .iter()
                .filter(|file| wanted(file))
                .map(|file| file.id)
                .collect()
        };
        match self.read {
            ReadData::Nothing => HashSet::new(),
            ReadData::All => chosen(&|_| true),
            ReadData::Due => {
                chosen(&|file| !self.last_read(file).is_some_and(|at| self.is_recent(at)))
            }
            ReadData::Subset(share) => {
                let mut order: Vec<_> = packs
                    .iter()
                    .map(|file| (self.last_read(file), file))
                    .collect();
                // `None`, never, sorts before every time.
                order.sort_by_key(|(at, file)| (*at, file.id));
                let mut left = share.of(packs.iter().map(|file| file.size_bytes).sum());
                let mut some = HashSet::new();
                for (_, file) in order {
                    if left == 0 {
                        break;
                    }
                    left = left.saturating_sub(file.size_bytes);
                    some.insert(file.id);
                }
                some
            }
        }
    }

    fn found_good(&self, file: &PackFile) {
        let elapsed = SignedDuration::try_from(self.started.elapsed()).unwrap_or_default();
        let read = PackRead {
            pack: *file.id.as_bytes(),
            size_bytes: file.size_bytes,
            modified: file.modified,
            at: self.now + elapsed,
        };
        let full = {
            let mut state = self.state();
            state.good.insert(file.id);
            state.to_note.push(read);
            if state.to_note.len() < NOTED_AT_ONCE {
                return;
            }
            std::mem::take(&mut state.to_note)
        };
        self.note(&full);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn file(number: u8, size_bytes: u64) -> PackFile {
        PackFile {
            id: PackId::from_bytes([number; 32]),
            size_bytes,
            modified: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        }
    }

    fn ledger(journal: &Journal, read: ReadData, now: Timestamp) -> Ledger<'_> {
        Ledger {
            journal,
            known: journal.packs_read("repository", "here").unwrap(),
            repository: "repository".to_owned(),
            location: "here".to_owned(),
            read,
            max_proof_age: SignedDuration::from_hours(30 * 24),
            now,
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// A run that finds everything good that it reads. Returns which packs it read, and what is covered.
    fn run(
        journal: &Journal,
        read: ReadData,
        now: Timestamp,
        files: &[PackFile],
    ) -> (Vec<u8>, Coverage) {
        let ledger = ledger(journal, read, now);
        let chosen = ledger.choose(files);
        files
            .iter()
            .filter(|file| chosen.contains(&file.id))
            .for_each(|file| ledger.found_good(file));
        let (coverage, _) = ledger.finish(&HashSet::new(), &HashSet::new());
        let mut numbers: Vec<u8> = chosen.iter().map(|id| id.as_bytes()[0]).collect();
        numbers.sort_unstable();
        (numbers, coverage)
    }

    #[test]
    fn only_what_is_new_changed_or_long_unread_is_due() {
        let journal = Journal::in_memory().unwrap();
        let now: Timestamp = NOW.parse().unwrap();
        let mut files = vec![file(1, 10), file(2, 10)];
        assert_eq!(run(&journal, ReadData::Due, now, &files).0, [1, 2]);

        files.push(file(3, 10));
        files[1].modified = Some(now);
        let (read, coverage) = run(
            &journal,
            ReadData::Due,
            now + SignedDuration::from_hours(24),
            &files,
        );
        assert_eq!(read, [2, 3]);
        assert!(coverage.is_whole());
        assert_eq!((coverage.packs_now, coverage.packs_earlier), (2, 1));

        let later = now + SignedDuration::from_hours(30 * 24 + 1);
        assert_eq!(run(&journal, ReadData::Due, later, &files).0, [1]);
        // What a clock far ahead noted does not count once the clock is right.
        assert_eq!(run(&journal, ReadData::Due, now, &files).0, [1, 2, 3]);
        // In another place nothing was read yet.
        assert!(
            journal
                .packs_read("repository", "there")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_rolling_share_covers_everything_in_as_many_runs() {
        let journal = Journal::in_memory().unwrap();
        let mut now: Timestamp = NOW.parse().unwrap();
        let files: Vec<PackFile> = (0..30).map(|number| file(number, 10)).collect();
        let share = ReadData::Subset("1/10".parse().unwrap());
        let mut seen = Vec::new();
        for turn in 1..=10 {
            let (read, coverage) = run(&journal, share, now, &files);
            assert_eq!(read.len(), 3);
            assert_eq!(coverage.is_whole(), turn == 10);
            assert_eq!(coverage.bytes_unread(), 300 - 30 * turn);
            seen.extend(read);
            now += SignedDuration::from_hours(24);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..30).collect::<Vec<u8>>());
        // And round again, from the one that was read longest ago.
        assert_eq!(run(&journal, share, now, &files).0, [0, 1, 2]);
    }

    #[test]
    fn damage_is_forgotten_and_never_covered() {
        let journal = Journal::in_memory().unwrap();
        let now: Timestamp = NOW.parse().unwrap();
        let files = [file(1, 10), file(2, 10)];
        run(&journal, ReadData::All, now, &files);
        let second = ledger(&journal, ReadData::Nothing, now);
        second.choose(&files);
        let bad = HashSet::from([files[0].id]);
        let (coverage, is_covered) = second.finish(&bad, &bad);
        assert!(!coverage.is_whole() && !is_covered);
        assert_eq!(run(&journal, ReadData::Due, now, &files).0, [1]);
    }

    #[test]
    fn shares_are_between_nothing_and_all() {
        for good in ["1/30", "5%", "100%", "0.5%", "1/1"] {
            assert!(good.parse::<Share>().is_ok(), "{good}");
        }
        for bad in [
            "", "0/3", "4/3", "1/0", "-1/3", "101%", "0%", "NaN%", "x", "1",
        ] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
