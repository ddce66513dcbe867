#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::seal::MasterKey;
use crate::storage::{AppendOnly, MemoryStorage};
use LockMode::{Exclusive, Shared};
use jiff::SignedDuration;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// A process that was and is no more. (Its number could be given to another, but not within a test.)
fn dead_pid() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

fn holder(hostname: &str, pid: u32) -> LockHolder {
    LockHolder {
        hostname: hostname.to_owned(),
        username: "root".to_owned(),
        pid,
    }
}

fn here() -> LockHolder {
    holder("here", std::process::id())
}

#[derive(Clone)]
struct TestClock(Arc<AtomicI64>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_700_000_000)))
    }

    fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Arc::new(move || Timestamp::from_second(seconds.load(Ordering::Relaxed)).unwrap())
    }

    fn advance(&self, by: SignedDuration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

struct Bench {
    locks: Locks,
    storage: MemoryStorage,
    time: TestClock,
}

impl Bench {
    fn new() -> Self {
        let storage = MemoryStorage::new();
        storage.create().unwrap();
        let sealer = Sealer::new(&MasterKey::random().unwrap());
        Self {
            locks: Locks {
                storage: Arc::new(storage.clone()),
                sealer,
            },
            storage,
            time: TestClock::new(),
        }
    }

    fn acquire(&self, mode: LockMode, holder: &LockHolder) -> Result<LockGuard, LockError> {
        self.locks.acquire(mode, holder, self.time.clock())
    }

    /// A lock file whose holder will not remove it.
    fn leave(&self, mode: LockMode, holder: &LockHolder) -> String {
        self.locks.write(mode, holder, self.time.clock()()).unwrap()
    }

    fn files(&self) -> usize {
        self.storage.list(FileKind::Lock).unwrap().len()
    }
}

fn held_by(result: Result<LockGuard, LockError>) -> LockInfo {
    match result {
        Err(LockError::Held(info)) => *info,
        other => panic!("should be held: {other:?}"),
    }
}

#[test]
fn shared_locks_share_and_exclusive_ones_exclude() {
    let bench = Bench::new();
    let first = bench.acquire(Shared, &here()).unwrap();
    let second = bench.acquire(Shared, &holder("there", 1)).unwrap();
    assert_eq!(held_by(bench.acquire(Exclusive, &here())).mode, Shared);
    assert_eq!(bench.files(), 2, "the refused one left no file");
    drop((first, second));
    assert_eq!(bench.files(), 0);

    let exclusive = bench.acquire(Exclusive, &here()).unwrap();
    assert_eq!(held_by(bench.acquire(Shared, &here())), exclusive.info());
    assert_eq!(
        held_by(bench.acquire(Exclusive, &holder("there", 1))),
        exclusive.info()
    );
    drop(exclusive);
    assert_eq!(bench.files(), 0);
    bench.acquire(Exclusive, &here()).unwrap();
}

#[test]
fn a_dead_holder_of_this_machine_is_stale_at_once() {
    let bench = Bench::new();
    bench.leave(Exclusive, &holder("here", dead_pid()));
    let guard = bench.acquire(Exclusive, &here()).unwrap();
    assert_eq!(bench.files(), 1, "the stale one was removed");
    guard.check().unwrap();
}

#[test]
fn what_cannot_be_known_to_be_dead_is_alive() {
    for holder in [
        holder("there", dead_pid()),
        holder("here", 0),
        holder("here", u32::MAX),
        holder("", dead_pid()),
    ] {
        let bench = Bench::new();
        let name = bench.leave(Exclusive, &holder);
        assert_eq!(held_by(bench.acquire(Shared, &here())).name, name);
        assert_eq!(bench.files(), 1);
    }
}

#[test]
fn a_lock_is_stale_after_thirty_minutes() {
    let bench = Bench::new();
    bench.leave(Exclusive, &holder("there", 1));
    bench.time.advance(SignedDuration::from_mins(30));
    held_by(bench.acquire(Shared, &here()));
    bench.time.advance(SignedDuration::from_secs(1));
    bench.acquire(Shared, &here()).unwrap();
}

#[test]
fn a_lock_from_the_future_is_honoured() {
    let bench = Bench::new();
    bench.time.advance(SignedDuration::from_hours(48));
    bench.leave(Exclusive, &holder("there", 1));
    bench.time.advance(SignedDuration::from_hours(-48));
    held_by(bench.acquire(Shared, &here()));
}

#[test]
fn unreadable_locks_stop_us_and_empty_ones_do_not() {
    let bench = Bench::new();
    bench
        .storage
        .overwrite(FileKind::Lock, &"0".repeat(64), b"");
    drop(bench.acquire(Shared, &here()).unwrap());

    let name = "1".repeat(64);
    let sealed_nonsense = bench.locks.sealer.seal(b"{\"time\": 3}").unwrap();
    for content in [b"torn".to_vec(), sealed_nonsense, vec![0; 1 << 20]] {
        bench.storage.overwrite(FileKind::Lock, &name, &content);
        match bench.acquire(Shared, &here()) {
            Err(LockError::Unreadable { name: found, .. }) => assert_eq!(found, name),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn refreshing_moves_the_time_and_keeps_one_file() {
    let bench = Bench::new();
    let guard = bench.acquire(Exclusive, &here()).unwrap();
    let before = guard.info();
    bench.time.advance(SignedDuration::from_mins(20));
    guard.check().unwrap();
    guard.held.refresh().unwrap();
    bench.time.advance(SignedDuration::from_mins(20));
    guard.check().unwrap();
    let after = guard.info();
    assert_eq!(
        after.time.duration_since(before.time),
        SignedDuration::from_mins(20)
    );
    assert_eq!(
        (bench.files(), held_by(bench.acquire(Shared, &here())).name),
        (1, after.name)
    );
}

#[test]
fn a_lock_that_was_not_refreshed_is_lost_before_others_take_it() {
    let bench = Bench::new();
    let guard = bench.acquire(Exclusive, &here()).unwrap();
    bench.time.advance(SignedDuration::from_mins(23));
    assert!(matches!(guard.check(), Err(LockError::Lost { .. })));
    held_by(bench.acquire(Shared, &holder("there", 1)));
}

#[test]
fn a_lock_that_someone_removed_is_lost_and_never_comes_back() {
    let bench = Bench::new();
    let guard = bench.acquire(Exclusive, &here()).unwrap();
    bench
        .storage
        .delete(FileKind::Lock, &guard.info().name)
        .unwrap();
    let other = bench.acquire(Exclusive, &holder("there", 1)).unwrap();
    assert!(matches!(guard.held.refresh(), Err(LockError::Lost { .. })));
    assert!(matches!(guard.check(), Err(LockError::Lost { .. })));
    assert_eq!(bench.files(), 1);
    drop(guard);
    assert_eq!(bench.files(), 1, "the other's lock stays");
    drop(other);
}

#[test]
fn the_thread_refreshes() {
    let bench = Bench::new();
    let tick = Duration::from_millis(1);
    let guard = bench
        .locks
        .acquire_refreshing(Shared, &here(), bench.time.clock(), tick)
        .unwrap();
    let first = guard.info().name;
    let deadline = Instant::now() + Duration::from_secs(30);
    while guard.info().name == first {
        assert!(Instant::now() < deadline, "never refreshed");
        std::thread::yield_now();
    }
    guard.check().unwrap();
    drop(guard);
    assert_eq!(bench.files(), 0);
}

#[test]
fn of_many_contenders_at_most_one_holds_it_exclusively() {
    let bench = Bench::new();
    let holding = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let Ok(_guard) = bench.acquire(Exclusive, &here()) else {
                        continue;
                    };
                    assert_eq!(holding.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    std::thread::yield_now();
                    holding.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(bench.files(), 0);
}

/// As [`Bench::acquire`], by someone who may not delete.
fn acquire_appending(bench: &Bench, mode: LockMode) -> Result<LockGuard, LockError> {
    let locks = Locks {
        storage: Arc::new(AppendOnly::new(Arc::new(bench.storage.clone()))),
        sealer: bench.locks.sealer.clone(),
    };
    locks.acquire(mode, &holder("there", 1), bench.time.clock())
}

#[test]
fn who_may_not_delete_says_that_its_locks_count_for_nothing_any_more() {
    let bench = Bench::new();
    let guard = acquire_appending(&bench, Shared).unwrap();
    bench.time.advance(SignedDuration::from_mins(5));
    guard.held.refresh().unwrap();
    guard.verify().unwrap();
    assert_eq!(bench.files(), 2, "the old one and the fresh one");
    held_by(bench.acquire(Exclusive, &here()));
    assert_eq!(bench.locks.list().unwrap().len(), 2);
    drop(guard);
    assert_eq!(bench.files(), 3, "and the one that releases both");
    assert_eq!(
        bench.locks.list().unwrap().len(),
        0,
        "none of them is a lock"
    );

    // Nobody waits half an hour, neither those who may not delete nor those who may, who tidy up.
    drop(acquire_appending(&bench, Exclusive).unwrap());
    let exclusive = bench.acquire(Exclusive, &here()).unwrap();
    assert_eq!(bench.files(), 1);
    held_by(acquire_appending(&bench, Shared));
    drop(exclusive);
    assert_eq!(bench.files(), 0);
}

#[test]
fn a_release_counts_for_the_locks_it_names_and_no_other() {
    let bench = Bench::new();
    let other = bench.acquire(Shared, &holder("elsewhere", 1)).unwrap();
    drop(acquire_appending(&bench, Shared).unwrap());
    assert_eq!(
        held_by(bench.acquire(Exclusive, &here())).name,
        other.info().name
    );
}

/// A lock that is held for weeks leaves a file every five minutes. Its release names those that matter, and stays
/// short enough to be believed.
#[test]
fn a_long_life_without_deleting_ends_with_a_release_that_can_be_read() {
    let bench = Bench::new();
    let guard = acquire_appending(&bench, Shared).unwrap();
    for _ in 0..8 * 24 * 12 {
        bench.time.advance(SignedDuration::from_mins(5));
        guard.held.refresh().unwrap();
    }
    drop(guard);
    drop(bench.acquire(Exclusive, &here()).unwrap());
    assert_eq!(bench.files(), 0);
}
