//! From a [`ConnInfo`] to a logged-in session: hosts in order, TLS as `sslmode` wants it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::auth::{self, Greeting};
use super::channel::{Channel, Stream, stopped};
use super::error::{PgError, SqlState};
use super::socket::{Endpoint, Socket, deadline, is_wake_up, look_up};
use super::tls::TlsSession;
use super::verify;
use super::watch::{Stop, Watch, stop_inside};
use super::{ConnectOptions, Connection};
use crate::conninfo::{ConnInfo, Host, SslMode, SslNegotiation, TargetSession};

/// How this session was reached: a CancelRequest goes the same way.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub endpoint: Endpoint,
    pub encryption: Option<Encryption>,
    pub keepalive: crate::conninfo::KeepAlive,
    /// For error texts.
    pub host: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Encryption {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
    pub direct: bool,
}

/// A session just begun.
pub(crate) struct Session {
    pub channel: Channel,
    pub greeting: Greeting,
    pub route: Route,
}

pub(super) fn connect(info: &ConnInfo, options: &ConnectOptions) -> Result<Connection, PgError> {
    let info = match &options.application_name {
        Some(name) => &info.with_application_name(name),
        None => info,
    };
    let wanted = info.target_session();
    match over_hosts(info, options, wanted) {
        // No standby to be had: any will do.
        Err(PgError::WrongSessionKind { .. } | PgError::NoHost { .. })
            if wanted == TargetSession::PreferStandby =>
        {
            over_hosts(info, options, TargetSession::Any)
        }
        other => other,
    }
}

fn over_hosts(
    info: &ConnInfo,
    options: &ConnectOptions,
    wanted: TargetSession,
) -> Result<Connection, PgError> {
    let mut attempts = Vec::new();
    for host in info.hosts() {
        match one_host(info, host, options, wanted) {
            Ok(connection) => return Ok(connection),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => attempts.push((host.to_string(), error)),
        }
    }
    match attempts.len() {
        1 => Err(attempts.swap_remove(0).1),
        _ => Err(PgError::NoHost { attempts }),
    }
}

/// Whether the other hosts need not be tried. As in libpq, a server that was reached and refuses
/// *us* settles it; one that is starting up does not.
fn is_final(error: &PgError) -> bool {
    match error {
        PgError::Interrupted | PgError::Auth { .. } => true,
        PgError::Server(error) => error.code.as_str() != SqlState::CANNOT_CONNECT_NOW,
        _ => false,
    }
}

fn one_host(
    info: &ConnInfo,
    host: &Host,
    options: &ConnectOptions,
    wanted: TargetSession,
) -> Result<Connection, PgError> {
    let limit = options.connect_timeout.or(info.connect_timeout());
    let watch = Watch {
        interrupt: options.interrupt.clone(),
        deadline: deadline(limit),
    };
    let naming = |error| name_the_host(error, host, limit);
    let session = log_in_somewhere(info, host, &watch).map_err(naming)?;
    let mut connection = Connection::begin(session);
    if !suits(&mut connection, wanted).map_err(naming)? {
        return Err(PgError::WrongSessionKind {
            host: host.to_string(),
            wanted: wanted.name(),
        });
    }
    connection.forget_deadline();
    Ok(connection)
}

fn name_the_host(error: PgError, host: &Host, limit: Option<Duration>) -> PgError {
    match error {
        PgError::Timeout { .. } => PgError::Timeout {
            host: host.to_string(),
            seconds: limit.unwrap_or_default().as_secs(),
        },
        other => other,
    }
}

fn suits(connection: &mut Connection, wanted: TargetSession) -> Result<bool, PgError> {
    if wanted == TargetSession::Any {
        return Ok(true);
    }
    let rows = connection.query(
        "SELECT pg_catalog.pg_is_in_recovery() AS standby, \
         pg_catalog.current_setting('transaction_read_only') AS read_only",
    )?;
    let standby = rows.value("standby")? == "t";
    let read_only = standby || rows.value("read_only")? == "on";
    Ok(match wanted {
        TargetSession::Any => true,
        TargetSession::ReadWrite => !read_only,
        TargetSession::ReadOnly => read_only,
        TargetSession::Primary => !standby,
        TargetSession::Standby | TargetSession::PreferStandby => standby,
    })
}

fn log_in_somewhere(info: &ConnInfo, host: &Host, watch: &Watch) -> Result<Session, PgError> {
    let endpoints = match host.socket_path() {
        Some(path) => vec![Endpoint::Unix(path)],
        None => match host.address {
            Some(address) => vec![Endpoint::Tcp((address, host.port).into())],
            None => look_up(&host.name, host.port, watch)
                .map_err(|error| unreachable(error, host))?
                .into_iter()
                .map(Endpoint::Tcp)
                .collect(),
        },
    };
    let mut last = None;
    for endpoint in endpoints {
        match log_in(info, host, endpoint, watch) {
            // Another address of the same name may do better; a server's answer settles it.
            Err(error @ PgError::Connect { .. }) => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| PgError::Connect {
        host: host.to_string(),
        source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
    }))
}

/// The order of plain and encrypted attempts that a mode stands for.
fn log_in(
    info: &ConnInfo,
    host: &Host,
    endpoint: Endpoint,
    watch: &Watch,
) -> Result<Session, PgError> {
    let plain = |endpoint| attempt(info, host, endpoint, None, false, watch);
    // libpq never encrypts over a Unix socket, whatever the mode.
    if matches!(endpoint, Endpoint::Unix(_)) {
        return plain(endpoint);
    }
    let encrypted = |endpoint, must| {
        let encryption = encryption(info, host)?;
        attempt(info, host, endpoint, Some(encryption), must, watch)
    };
    match info.ssl_mode() {
        SslMode::Disable => plain(endpoint),
        SslMode::Allow => match plain(endpoint.clone()) {
            Err(first) if refused_by_rule(&first) => encrypted(endpoint, true).map_err(|_| first),
            other => other,
        },
        SslMode::Prefer => match encrypted(endpoint.clone(), false) {
            Err(first) if refused_by_rule(&first) || matches!(first, PgError::Tls { .. }) => {
                plain(endpoint).map_err(|second| match first {
                    PgError::Tls { .. } => second,
                    first => first,
                })
            }
            other => other,
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => encrypted(endpoint, true),
    }
}

/// `pg_hba.conf` may let in only encrypted or only plain sessions, and says 28000 to the others. A
/// wrong password (28P01) is not tried again: the other way has the same one.
fn refused_by_rule(error: &PgError) -> bool {
    error.sqlstate() == Some(SqlState::INVALID_AUTHORIZATION)
}

fn encryption(info: &ConnInfo, host: &Host) -> Result<Encryption, PgError> {
    let tls_error = |reason| PgError::Tls {
        host: host.to_string(),
        reason,
    };
    let settings = info.tls();
    Ok(Encryption {
        config: Arc::new(verify::config(settings, host).map_err(tls_error)?),
        name: verify::server_name(settings, host).map_err(tls_error)?,
        direct: settings.negotiation == SslNegotiation::Direct,
    })
}

fn attempt(
    info: &ConnInfo,
    host: &Host,
    endpoint: Endpoint,
    encryption: Option<Encryption>,
    must_encrypt: bool,
    watch: &Watch,
) -> Result<Session, PgError> {
    let mut route = Route {
        endpoint,
        encryption,
        keepalive: info.keepalive,
        host: host.to_string(),
    };
    let stream = open(&route, must_encrypt, watch)?;
    if matches!(stream, Stream::Plain(_)) {
        route.encryption = None;
    }
    let mut channel = Channel::new(stream, watch.clone());
    let greeting = auth::log_in(&mut channel, info, host)?;
    Ok(Session {
        channel,
        greeting,
        route,
    })
}

/// Connects and, where asked, encrypts. With `must_encrypt` off, a server without TLS is used plain.
pub(crate) fn open(route: &Route, must_encrypt: bool, watch: &Watch) -> Result<Stream, PgError> {
    let tls_error = |reason: String| PgError::Tls {
        host: route.host.clone(),
        reason,
    };
    let socket = Socket::connect(&route.endpoint, &route.keepalive, watch).map_err(|source| {
        match stop_inside(&source) {
            Some(stop) => stopped(stop),
            None => PgError::Connect {
                host: route.host.clone(),
                source,
            },
        }
    })?;
    let Some(encryption) = &route.encryption else {
        return Ok(Stream::Plain(socket));
    };
    if !encryption.direct {
        match ask_for_tls(&socket, watch).map_err(|error| broken(error, &route.host))? {
            b'S' => {}
            b'N' if !must_encrypt => return Ok(Stream::Plain(socket)),
            b'N' => return Err(tls_error("the server does not offer encryption".to_owned())),
            // An 'E' would be an error message, but from someone unknown over a plain connection: its
            // text is not worth showing.
            _ => {
                return Err(tls_error(
                    "the server does not know what encryption is".to_owned(),
                ));
            }
        }
    }
    let session = TlsSession::start(
        socket,
        encryption.config.clone(),
        encryption.name.clone(),
        watch,
    )
    .map_err(|error| match stop_inside(&error) {
        Some(stop) => stopped(stop),
        None => tls_error(describe(&error)),
    })?;
    if encryption.direct && !session.negotiated_postgres() {
        return Err(tls_error(
            "the server did not agree to speak PostgreSQL's protocol".to_owned(),
        ));
    }
    Ok(Stream::Tls(Box::new(session)))
}

/// Sends an SSLRequest and reads the one byte of answer, and no byte more: what follows belongs to
/// the encrypted stream, and plain bytes slipped in here must not be taken for the server's.
fn ask_for_tls(socket: &Socket, watch: &Watch) -> io::Result<u8> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let mut rest: &[u8] = &request;
    while !rest.is_empty() {
        match socket.write(rest) {
            Ok(length) => rest = rest.get(length..).unwrap_or(&[]),
            Err(error) if is_wake_up(&error) => watch.check_io()?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut answer = [0];
    loop {
        match socket.read(&mut answer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(answer[0]),
            Err(error) if is_wake_up(&error) => watch.check_io()?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn broken(error: io::Error, host: &str) -> PgError {
    match stop_inside(&error) {
        Some(stop) => stopped(stop),
        None => PgError::Connect {
            host: host.to_owned(),
            source: error,
        },
    }
}

fn unreachable(error: io::Error, host: &Host) -> PgError {
    match stop_inside(&error) {
        Some(Stop::Interrupted) => PgError::Interrupted,
        Some(stop) => stopped(stop),
        None => PgError::Connect {
            host: host.to_string(),
            source: error,
        },
    }
}

/// rustls's own words, without the Debug texts it uses for certificate errors.
fn describe(error: &io::Error) -> String {
    use rustls::{CertificateError as Bad, Error};
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(bad)) => match bad {
            Bad::UnknownIssuer => {
                "the server's certificate comes from an unknown authority".to_owned()
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "the server's certificate is for another host name".to_owned()
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "the server's certificate has expired".to_owned()
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet".to_owned()
            }
            Bad::Revoked => "the server's certificate was revoked".to_owned(),
            other => format!("the server's certificate cannot be trusted: {other}"),
        },
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection during the handshake".to_owned()
        }
        None => error.to_string(),
    }
}
