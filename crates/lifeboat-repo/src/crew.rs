//! Several threads that take their work from one list.

use crate::error::RepositoryError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Has `each` done for all of `list`, by at most `jobs` threads of which this one is one; each has `hands` of its own,
/// which it keeps from one to the next. Those that are called `name` are told apart from others in a process list.
///
/// # Errors
/// The first error ends it: what was begun is ended, and nothing else is begun.
pub(crate) fn for_each<T: Sync, Hands>(
    name: &str,
    jobs: usize,
    list: &[T],
    hands: impl Fn() -> Result<Hands, RepositoryError> + Sync,
    each: impl Fn(&mut Hands, &T) -> Result<(), RepositoryError> + Sync,
) -> Result<(), RepositoryError> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let take = || {
            let mut hands = hands()?;
            while let Some(one) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                if failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                each(&mut hands, one)?;
            }
            Ok(())
        };
        let result = take();
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        result
    };
    let jobs = jobs.clamp(1, list.len().max(1));
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..jobs)
            .map(|_| {
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn_scoped(scope, work)
            })
            .collect();
        let mut result = work();
        for other in others {
            // Without further threads the work is done by this one.
            let Ok(thread) = other else { continue };
            let joined = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(joined);
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn everything_is_done_once_and_nothing_after_a_failure() {
        let list: Vec<u32> = (0..1000).collect();
        for jobs in [0, 1, 4, 5000] {
            let done = Mutex::new(Vec::new());
            let each = |_: &mut (), one: &u32| {
                done.lock()
                    .map(|mut done| done.push(*one))
                    .map_err(|_| RepositoryError::Interrupted)
            };
            assert!(for_each("test", jobs, &list, || Ok(()), each).is_ok());
            let mut done = done.into_inner().unwrap_or_default();
            done.sort_unstable();
            assert_eq!(done, list, "{jobs}");
        }
        let count = AtomicUsize::new(0);
        let each = |_: &mut (), _: &u32| {
            count.fetch_add(1, Ordering::Relaxed);
            Err(RepositoryError::Interrupted)
        };
        let result = for_each("test", 4, &list, || Ok(()), each);
        assert!(matches!(result, Err(RepositoryError::Interrupted)));
        assert!(count.into_inner() <= 4, "each thread's first at most");
    }
}
