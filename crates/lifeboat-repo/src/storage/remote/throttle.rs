//! A limit on bytes per second, shared by all that is under way in a storage, in both directions.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::attempt::{Failed, Patience};

/// What may go at once without waiting: a quarter of a second's worth.
const BURST: f64 = 0.25;

/// Says how long to wait before the next bytes.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: f64,
    /// When all that was let through so far will have been paid for.
    paid: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            #[expect(clippy::cast_precision_loss, reason = "a limit needs no 53 bits")]
            bytes_per_second: bytes_per_second.max(1) as f64,
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Takes note of `bytes` that are about to move, or just did, and says how long to wait.
    pub(super) fn pay(&self, bytes: usize) -> Duration {
        self.pay_at(Instant::now(), bytes)
    }

    fn pay_at(&self, now: Instant, bytes: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a limit needs no 53 bits")]
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used while idle is not saved up.
        *paid = (*paid).max(now) + cost;
        (*paid - now).saturating_sub(Duration::from_secs_f64(BURST))
    }
}

/// Waits until `bytes` may move, where there is a limit.
pub(super) fn pay(
    throttle: Option<&Throttle>,
    bytes: usize,
    patience: &Patience,
) -> Result<(), Failed> {
    throttle.map_or(Ok(()), |throttle| patience.wait(throttle.pay(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_takes_a_second() {
        let throttle = Throttle::new(1000);
        let start = Instant::now();
        assert_eq!(
            throttle.pay_at(start, 200),
            Duration::ZERO,
            "a burst is free"
        );
        let wait = throttle.pay_at(start, 1000);
        assert!(
            wait.abs_diff(Duration::from_millis(950)) < Duration::from_millis(5),
            "{wait:?}"
        );
        let later = start + Duration::from_secs(60);
        let wait = throttle.pay_at(later, 1000);
        assert!(
            wait.abs_diff(Duration::from_millis(750)) < Duration::from_millis(5),
            "{wait:?}"
        );
    }
}
