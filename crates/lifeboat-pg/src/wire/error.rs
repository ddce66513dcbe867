//! What can go wrong between us and a server. Facts only: who shows an error adds the advice.

use std::fmt;
use std::io;

use super::auth::AuthError;

/// A five character SQLSTATE, as in Appendix A of PostgreSQL's manual.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SqlState(pub String);

impl SqlState {
    /// `query_canceled`: a CancelRequest or `statement_timeout`.
    pub const QUERY_CANCELED: &'static str = "57014";
    /// `invalid_password`.
    pub const INVALID_PASSWORD: &'static str = "28P01";
    /// `invalid_authorization_specification`: no such role, or no line in `pg_hba.conf` lets it in.
    pub const INVALID_AUTHORIZATION: &'static str = "28000";
    /// `invalid_catalog_name`: the database does not exist.
    pub const UNKNOWN_DATABASE: &'static str = "3D000";
    /// `insufficient_privilege`.
    pub const INSUFFICIENT_PRIVILEGE: &'static str = "42501";
    /// A setting that does not take this value.
    pub const INVALID_PARAMETER_VALUE: &'static str = "22023";
    /// `undefined_table`.
    pub const UNDEFINED_TABLE: &'static str = "42P01";
    /// `cannot_connect_now`: starting up or shutting down.
    pub const CANNOT_CONNECT_NOW: &'static str = "57P03";

    /// The five characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An ErrorResponse or NoticeResponse, with the fields of the manual's "Error and Notice Message
/// Fields". Texts are the server's, in its `lc_messages`: decide on `code`, never on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL, PANIC, WARNING, NOTICE… never translated.
    pub severity: String,
    /// The SQLSTATE.
    pub code: SqlState,
    /// One line of fact.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// The server's own advice.
    pub hint: Option<String>,
    /// The call stack (`CONTEXT`), such as `COPY users, line 7`.
    pub context: Option<String>,
    /// The schema of the object at fault.
    pub schema: Option<String>,
    /// The table at fault.
    pub table: Option<String>,
    /// The column at fault.
    pub column: Option<String>,
    /// The constraint at fault.
    pub constraint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse. Missing fields are left empty: an
    /// error from a broken server is still better shown than replaced by a complaint about it.
    pub(crate) fn parse(body: &[u8]) -> ServerError {
        let mut error = ServerError {
            severity: String::new(),
            code: SqlState(String::new()),
            message: String::new(),
            detail: None,
            hint: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
        };
        let mut rest = body;
        while let Some((&field, tail)) = rest.split_first() {
            if field == 0 {
                break;
            }
            let end = tail.iter().position(|&b| b == 0).unwrap_or(tail.len());
            let value = String::from_utf8_lossy(&tail[..end]).into_owned();
            match field {
                // 'V' is the untranslated severity; it comes after 'S' and wins.
                b'S' | b'V' => error.severity = value,
                b'C' => error.code = SqlState(value),
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'W' => error.context = Some(value),
                b's' => error.schema = Some(value),
                b't' => error.table = Some(value),
                b'c' => error.column = Some(value),
                b'n' => error.constraint = Some(value),
                _ => {}
            }
            rest = tail.get(end + 1..).unwrap_or(&[]);
        }
        error
    }
}

/// Any failure of a connection. No variant's text holds a password or a whole connection string.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The server said no. The connection lives on unless the severity was FATAL or PANIC.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The connection broke while in use.
    #[error("connection to the server was lost: {0}")]
    Lost(#[source] io::Error),
    /// Nobody answered there.
    #[error("no connection to {host}: {source}")]
    Connect {
        /// The host or socket path, with its port.
        host: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Several hosts were given and none of them served; one entry for each, in order.
    #[error("none of {} hosts could be used: {}", attempts.len(), join_attempts(attempts))]
    NoHost {
        /// Each host with its failure.
        attempts: Vec<(String, PgError)>,
    },
    /// The server was reached, but it is not of the kind that `target_session_attrs` asks for.
    #[error("{host} is not the kind of server asked for (target_session_attrs={wanted})")]
    WrongSessionKind {
        /// The host or socket path, with its port.
        host: String,
        /// The setting as written.
        wanted: &'static str,
    },
    /// No encrypted connection could be made, or the server's certificate was refused.
    #[error("TLS with {host}: {reason}")]
    Tls {
        /// The host, with its port.
        host: String,
        /// One line of fact.
        reason: String,
    },
    /// Logging in failed on our side of the talk (a refusal by the server is `Server`).
    #[error("logging in to {host}: {source}")]
    Auth {
        /// The host or socket path, with its port.
        host: String,
        /// What was missing or wrong.
        source: AuthError,
    },
    /// The other side does not speak PostgreSQL's protocol, or broke its rules.
    #[error("unexpected answer from the server: {0}")]
    Protocol(String),
    /// A value came in bytes that are not UTF-8, so it cannot be handed out as text.
    #[error("column {column} of a result is not valid UTF-8")]
    NotUtf8 {
        /// The column's name, as far as it was readable.
        column: String,
    },
    /// A result lacks a column, or holds a value of another shape than its reader needs.
    #[error("result has no usable column {column}")]
    Column {
        /// The column's name.
        column: String,
    },
    /// Connecting took longer than `connect_timeout`.
    #[error("no answer from {host} within {seconds} s")]
    Timeout {
        /// The host or socket path, with its port.
        host: String,
        /// The limit.
        seconds: u64,
    },
    /// The `interrupt` flag was raised; the running statement was cancelled.
    #[error("interrupted")]
    Interrupted,
    /// This connection failed earlier and must not be used again.
    #[error("connection is closed")]
    Closed,
}

fn join_attempts(attempts: &[(String, PgError)]) -> String {
    let mut text = String::new();
    for (index, (host, error)) in attempts.iter().enumerate() {
        if index > 0 {
            text.push_str("; ");
        }
        match error {
            // These already name their host.
            PgError::Connect { .. }
            | PgError::Tls { .. }
            | PgError::Auth { .. }
            | PgError::Timeout { .. }
            | PgError::WrongSessionKind { .. } => text.push_str(&error.to_string()),
            _ => {
                text.push_str(host);
                text.push_str(": ");
                text.push_str(&error.to_string());
            }
        }
    }
    text
}

impl PgError {
    /// The SQLSTATE, when the server sent the error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|error| error.code.as_str())
    }

    /// The server's error, when it sent one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            PgError::Server(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> PgError {
        PgError::Protocol(what.into())
    }
}

/// Why a `copy_out` ended early: the connection, or the one who took the rows.
#[derive(Debug, thiserror::Error)]
pub enum CopyOutError<E> {
    /// The server or the connection failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The taker of the rows returned this error. The statement was cancelled and the connection
    /// closed.
    #[error("{0}")]
    Sink(E),
}
