//! Several sessions at work side by side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{RestoreError, RestoreRequest};

/// Runs `work` on as many threads as are worth it; the first error is returned and stops the others.
pub(super) fn run_threads(
    request: &RestoreRequest,
    pieces: usize,
    work: impl Fn(&AtomicBool) -> Result<(), RestoreError> + Sync,
) -> Result<(), RestoreError> {
    let stop = AtomicBool::new(false);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..request.jobs.clamp(1, pieces.max(1)) {
            scope.spawn(|| {
                if let Err(error) = work(&stop) {
                    lock(&failure).get_or_insert(error);
                    stop.store(true, Ordering::Release);
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The value, also after a panic elsewhere: that one is reported by itself.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
