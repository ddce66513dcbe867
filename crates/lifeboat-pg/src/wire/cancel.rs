//! CancelRequest: a second, short connection that carries nothing else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use postgres_protocol::message::frontend;

use super::channel::Channel;
use super::connect::{Route, open};
use super::error::PgError;
use super::socket::deadline;
use super::watch::Watch;

/// A cancel that takes longer is given up: it runs while somebody waits for the program to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cancels the statement that a session is running. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct CancelHandle(Arc<Target>);

struct Target {
    route: Route,
    process_id: i32,
    secret_key: i32,
}

impl std::fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever knows the key can cancel, so it is not shown.
        write!(f, "CancelHandle(process {})", self.0.process_id)
    }
}

impl CancelHandle {
    pub(super) fn new(route: Route, process_id: i32, secret_key: i32) -> CancelHandle {
        CancelHandle(Arc::new(Target {
            route,
            process_id,
            secret_key,
        }))
    }

    /// Asks the server to cancel. It goes by the same road as the session, encrypted if that was, and
    /// waits until the server has taken it, which is not yet the statement's end. A session that runs
    /// nothing is not harmed.
    ///
    /// # Errors
    /// When the server cannot be reached within five seconds.
    pub fn cancel(&self) -> Result<(), PgError> {
        let target = &*self.0;
        let watch = Watch {
            interrupt: Arc::new(AtomicBool::new(false)),
            deadline: deadline(Some(PATIENCE)),
        };
        let stream = open(&target.route, target.route.encryption.is_some(), &watch)?;
        let mut channel = Channel::new(stream, watch);
        frontend::cancel_request(target.process_id, target.secret_key, &mut channel.output);
        let ended = channel.flush().and_then(|()| channel.fill());
        match ended {
            // The server never answers; it hangs up when it has passed the request on.
            Ok(_) => Ok(()),
            Err(PgError::Lost(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            Err(PgError::Timeout { .. }) => Err(PgError::Timeout {
                host: target.route.host.clone(),
                seconds: PATIENCE.as_secs(),
            }),
            Err(error) => Err(error),
        }
    }
}
