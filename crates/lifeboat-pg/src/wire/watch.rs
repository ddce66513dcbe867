//! What a waiting read or write looks at each time it wakes up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The interrupt flag and, while connecting, a deadline.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub interrupt: Arc<AtomicBool>,
    pub deadline: Option<Instant>,
}

/// Why waiting must end. Travels inside an `io::Error` through code that only knows those (rustls).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Interrupted,
    Deadline,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Interrupted => "interrupted",
            Stop::Deadline => "timed out",
        })
    }
}

impl std::error::Error for Stop {}

impl Watch {
    #[inline]
    pub fn check(&self) -> Result<(), Stop> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Stop::Deadline),
            _ => Ok(()),
        }
    }

    pub fn check_io(&self) -> io::Result<()> {
        self.check().map_err(io::Error::other)
    }
}

/// The [`Stop`] inside an `io::Error`, if that is what it carries.
pub(crate) fn stop_inside(error: &io::Error) -> Option<Stop> {
    error.get_ref()?.downcast_ref::<Stop>().copied()
}
