//! SIGINT and SIGTERM: the first asks, the second insists. SIGHUP is no reason to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::Exit;

/// A flag that the first SIGINT or SIGTERM sets, so that the command can end its work in order. A second
/// one ends the process at once.
pub fn interrupt_flag() -> io::Result<Arc<AtomicBool>> {
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Registered before the line that sets the flag: handlers run in order, so the first signal
        // finds the flag unset and passes on.
        flag::register_conditional_shutdown(
            signal,
            i32::from(Exit::Interrupted.code()),
            Arc::clone(&interrupt),
        )?;
        flag::register(signal, Arc::clone(&interrupt))?;
    }
    // `restic unlock` sends it to the owner of a lock, to learn whether it lives; and a terminal that was closed
    // is somebody who stopped looking. A handler, since what is ignored would stay so in our child processes.
    flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))?;
    Ok(interrupt)
}
