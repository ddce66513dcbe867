//! A session: queries by the simple protocol, with everything a server may say in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use postgres_protocol::message::{backend, frontend};

use super::auth;
use super::cancel::CancelHandle;
use super::channel::{Channel, Stream};
use super::connect::{self, Session};
use super::error::{PgError, ServerError};
use super::input::Frame;
use super::rows::Rows;
use crate::conninfo::ConnInfo;

/// Notices kept for the caller; a function that raises one per row must not fill the memory.
const MAX_NOTICES: usize = 100;

/// How to connect, beyond what the connection string says.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Shown in `pg_stat_activity`; overrides the connection string's.
    pub application_name: Option<String>,
    /// Per host; overrides the connection string's.
    pub connect_timeout: Option<Duration>,
    /// Raising it ends any wait of this connection with [`PgError::Interrupted`].
    pub interrupt: Arc<AtomicBool>,
}

/// A session with a server.
///
/// After [`PgError::Lost`], [`PgError::Interrupted`], [`PgError::Protocol`] or a FATAL server error it
/// is closed, and says [`PgError::Closed`] from then on. Dropping it ends the session.
#[derive(Debug)]
pub struct Connection {
    pub(super) channel: Channel,
    parameters: BTreeMap<String, String>,
    notices: Vec<ServerError>,
    process_id: i32,
    cancel: CancelHandle,
    /// `I` idle, `T` in a transaction, `E` in a failed one.
    status: u8,
    pub(super) closed: bool,
}

impl Connection {
    /// Connects and logs in: the hosts in order, encrypted as `sslmode` says.
    ///
    /// # Errors
    /// Every variant of [`PgError`] but `Closed`. What the server itself refused (wrong password,
    /// unknown database, too many connections) is [`PgError::Server`] with its SQLSTATE.
    pub fn connect(info: &ConnInfo, options: &ConnectOptions) -> Result<Connection, PgError> {
        connect::connect(info, options)
    }

    pub(super) fn begin(session: Session) -> Connection {
        let Session {
            channel,
            greeting,
            route,
        } = session;
        Connection {
            channel,
            parameters: greeting.parameters,
            notices: greeting.notices,
            process_id: greeting.process_id,
            cancel: CancelHandle::new(route, greeting.process_id, greeting.secret_key),
            status: b'I',
            closed: false,
        }
    }

    pub(super) fn forget_deadline(&mut self) {
        self.channel.watch.deadline = None;
    }

    /// Runs one or more statements and returns the rows of the last one that has any.
    ///
    /// All rows are held in memory: this is for catalogs, not for data.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn query(&mut self, sql: &str) -> Result<Rows, PgError> {
        self.run(sql).map(|(rows, _)| rows)
    }

    /// Runs one or more statements and returns how many rows the last one touched (0 for statements
    /// that touch none).
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub fn execute(&mut self, sql: &str) -> Result<u64, PgError> {
        self.run(sql).map(|(_, affected)| affected)
    }

    fn run(&mut self, sql: &str) -> Result<(Rows, u64), PgError> {
        self.send_query(sql)?;
        let mut rows = Rows::default();
        let mut affected = 0;
        loop {
            let frame = self.next_frame()?;
            match frame.tag {
                backend::ROW_DESCRIPTION_TAG => {
                    rows = self.guard(|c| Rows::describe(c.body(&frame)))?
                }
                backend::DATA_ROW_TAG => {
                    if let Err(error) = rows.push(self.channel.body(&frame)) {
                        return Err(self.after_refusal(error));
                    }
                }
                backend::COMMAND_COMPLETE_TAG => affected = rows_in_tag(self.channel.body(&frame)),
                backend::EMPTY_QUERY_RESPONSE_TAG => {}
                backend::READY_FOR_QUERY_TAG => {
                    self.ready(&frame);
                    return Ok((rows, affected));
                }
                backend::ERROR_RESPONSE_TAG => return Err(self.server_error(&frame)),
                backend::COPY_IN_RESPONSE_TAG | backend::COPY_OUT_RESPONSE_TAG => {
                    return Err(self.fail(PgError::protocol("a COPY where a query was expected")));
                }
                tag => return Err(self.fail(unexpected(tag))),
            }
        }
    }

    /// A value that cannot be used does not spoil the session: the rest of the answer is read past.
    fn after_refusal(&mut self, error: PgError) -> PgError {
        match error {
            PgError::NotUtf8 { .. } => match self.drain() {
                Ok(()) => error,
                Err(worse) => worse,
            },
            error => self.fail(error),
        }
    }

    /// A setting that the server reports, such as `server_version` or `TimeZone`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The process that serves us, as in `pg_stat_activity.pid`.
    pub fn backend_pid(&self) -> i32 {
        self.process_id
    }

    /// Whether a transaction is open (also a failed one).
    pub fn in_transaction(&self) -> bool {
        self.status != b'I'
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the session is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.channel.stream, Stream::Tls(_))
    }

    /// Warnings and notices, oldest first; at most the first hundred since `clear_notices`.
    pub fn notices(&self) -> &[ServerError] {
        &self.notices
    }

    /// Forgets the notices so far.
    pub fn clear_notices(&mut self) {
        self.notices.clear();
    }

    /// Something to cancel this session's running statement with, from any thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub(super) fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        if self.closed {
            return Err(PgError::Closed);
        }
        self.channel.output.clear();
        if frontend::query(sql, &mut self.channel.output).is_err() {
            self.channel.output.clear();
            return Err(PgError::protocol("a statement to be sent holds a NUL byte"));
        }
        self.guard(Channel::flush)
    }

    /// The next message that answers us; what the server says on the side is put where it belongs.
    pub(super) fn next_frame(&mut self) -> Result<Frame, PgError> {
        loop {
            let frame = self.guard(Channel::next_frame)?;
            if !self.aside(&frame) {
                return Ok(frame);
            }
        }
    }

    /// Messages that may come at any time. True if this was one.
    pub(super) fn aside(&mut self, frame: &Frame) -> bool {
        let body = self.channel.body(frame);
        match frame.tag {
            backend::NOTICE_RESPONSE_TAG => {
                if self.notices.len() < MAX_NOTICES {
                    self.notices.push(ServerError::parse(body));
                }
            }
            backend::PARAMETER_STATUS_TAG => {
                if let Some((name, value)) = auth::parameter(body) {
                    self.parameters.insert(name, value);
                }
            }
            backend::NOTIFICATION_RESPONSE_TAG => {}
            _ => return false,
        }
        true
    }

    pub(super) fn ready(&mut self, frame: &Frame) {
        self.status = self.channel.body(frame).first().copied().unwrap_or(b'I');
    }

    /// An ErrorResponse: reads on to ReadyForQuery, so that the session can be used again.
    pub(super) fn server_error(&mut self, frame: &Frame) -> PgError {
        let error = ServerError::parse(self.channel.body(frame));
        if matches!(error.severity.as_str(), "FATAL" | "PANIC") {
            self.closed = true;
        } else if let Err(worse) = self.drain()
            && matches!(worse, PgError::Interrupted)
        {
            return worse;
        }
        PgError::Server(Box::new(error))
    }

    pub(super) fn drain(&mut self) -> Result<(), PgError> {
        loop {
            let frame = self.next_frame()?;
            if frame.tag == backend::READY_FOR_QUERY_TAG {
                self.ready(&frame);
                return Ok(());
            }
        }
    }

    /// Runs a step on the channel; a failure ends the session.
    pub(super) fn guard<T>(
        &mut self,
        step: impl FnOnce(&mut Channel) -> Result<T, PgError>,
    ) -> Result<T, PgError> {
        match step(&mut self.channel) {
            Ok(value) => Ok(value),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Closes after a failure. What still runs on the server is cancelled: a COPY of a terabyte would
    /// otherwise go on until it notices that nobody reads.
    pub(super) fn fail(&mut self, error: PgError) -> PgError {
        if !self.closed {
            self.closed = true;
            if matches!(error, PgError::Interrupted) {
                // The session is lost either way; if this fails, the closed socket tells the server.
                let _ = self.cancel.cancel();
            }
        }
        error
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let output = &mut self.channel.output;
        output.clear();
        frontend::terminate(output);
        match &mut self.channel.stream {
            Stream::Plain(socket) => socket.send_without_waiting(output),
            Stream::Tls(session) => session.close_with(output),
        }
    }
}

pub(super) fn unexpected(tag: u8) -> PgError {
    PgError::protocol(format!("message type 0x{tag:02x} out of place"))
}

/// The row count at the end of a CommandComplete such as `COPY 12` or `INSERT 0 3`.
pub(super) fn rows_in_tag(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or(tag);
    std::str::from_utf8(last)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// An identifier as SQL wants it: always quoted, since the list of reserved words grows.
pub fn quote_ident(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for character in name.chars() {
        if character == '"' {
            quoted.push('"');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// A string constant, right under either value of `standard_conforming_strings`.
pub fn quote_literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 3);
    if text.contains('\\') {
        quoted.push_str("E'");
    } else {
        quoted.push('\'');
    }
    for character in text.chars() {
        if matches!(character, '\'' | '\\') {
            quoted.push(character);
        }
        quoted.push(character);
    }
    quoted.push('\'');
    quoted
}
