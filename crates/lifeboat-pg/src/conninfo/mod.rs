//! Where a server is and how to log in to it, by libpq's rules.
//!
//! A [`ConnInfo`] is made once from a text (URI, `key=value`, or nothing) and an [`Env`], with libpq's
//! precedence: the text, then the service file, then `PG*` variables, then `.pgpass` and defaults
//! (PostgreSQL's manual, "Database Connection Control Functions"). It is immutable afterwards.
//!
//! Invariant: nothing that this module prints, in `Display`, `Debug` or an error, holds a password or
//! a part of the text that might be one.

mod error;
mod options;
mod resolve;
mod text;
mod tool_env;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

pub use error::{ConnInfoError, ConnInfoWarning};

use crate::passfile::PassFile;

/// The process's environment, as an argument: a library does not read it by itself.
pub trait Env {
    /// The value of a variable; `None` when unset or not UTF-8.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Env for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// One place where the server may be. Several are tried in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A DNS name, an IP address, or the absolute path of a socket's folder (`@name` for an abstract
    /// one). Empty only when `address` is given alone.
    pub name: String,
    /// `hostaddr`: where to connect to without asking the DNS; `name` then only counts for TLS.
    pub address: Option<IpAddr>,
    /// TCP port, or the number at the end of the socket file's name.
    pub port: u16,
}

impl Host {
    /// The socket file, when this is not TCP.
    pub fn socket_path(&self) -> Option<PathBuf> {
        (self.address.is_none() && (self.name.starts_with('/') || self.name.starts_with('@')))
            .then(|| PathBuf::from(format!("{}/.s.PGSQL.{}", self.name, self.port)))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.socket_path() {
            return write!(f, "{}", path.display());
        }
        match &self.address {
            Some(address) if self.name.is_empty() => write!(f, "{address}"),
            _ if self.name.contains(':') => write!(f, "[{}]", self.name),
            _ => f.write_str(&self.name),
        }?;
        if self.port == 5432 {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

/// `sslmode`, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Plain first, encrypted when the server insists.
    Allow,
    /// Encrypted first, plain when that fails.
    Prefer,
    /// Always encrypted; the certificate is checked only when a root certificate file exists.
    Require,
    /// The certificate must come from a trusted authority.
    VerifyCa,
    /// And must name the host.
    VerifyFull,
}

/// `sslrootcert`: who may vouch for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// `system`: the operating system's store.
    System,
    /// A PEM file; `verify-ca` and `verify-full` fail without it, weaker modes then do not verify.
    File(PathBuf),
    /// Neither was given and there is no home folder to look in.
    Nowhere,
}

/// `sslnegotiation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslNegotiation {
    /// Ask first (SSLRequest), as all versions do.
    Postgres,
    /// Begin with the TLS handshake at once: PostgreSQL 17 and newer, needs at least `require`.
    Direct,
}

/// Everything about encryption.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslnegotiation`.
    pub negotiation: SslNegotiation,
    /// `sslrootcert`.
    pub root_cert: RootCert,
    /// `sslcrl`: a PEM file of revoked certificates.
    pub crl: Option<PathBuf>,
    /// `sslcert`: our own certificate.
    pub cert: Option<PathBuf>,
    /// `sslkey`: its private key.
    pub key: Option<PathBuf>,
    /// `sslsni`: whether the server is told which name we want.
    pub sni: bool,
    /// `ssl_min_protocol_version=TLSv1.3`.
    pub only_tls13: bool,
    /// `ssl_max_protocol_version=TLSv1.2`.
    pub only_tls12: bool,
}

/// `channel_binding`: whether SCRAM must be tied to the TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When both sides can.
    Prefer,
    /// Always.
    Require,
}

/// `target_session_attrs`: which kind of server will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// Any.
    Any,
    /// One that accepts writes.
    ReadWrite,
    /// One whose sessions are read-only.
    ReadOnly,
    /// Not in hot standby.
    Primary,
    /// In hot standby.
    Standby,
    /// A standby, or any if there is none.
    PreferStandby,
}

impl TargetSession {
    /// The setting's name, as libpq writes it.
    pub fn name(self) -> &'static str {
        match self {
            TargetSession::Any => "any",
            TargetSession::ReadWrite => "read-write",
            TargetSession::ReadOnly => "read-only",
            TargetSession::Primary => "primary",
            TargetSession::Standby => "standby",
            TargetSession::PreferStandby => "prefer-standby",
        }
    }
}

/// TCP keepalive and the limit for unacknowledged data; `None` leaves Lifeboat's own default, which
/// notices a dead server within minutes where the operating system's takes hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// `keepalives`.
    pub enabled: bool,
    /// `keepalives_idle`.
    pub idle: Option<Duration>,
    /// `keepalives_interval`.
    pub interval: Option<Duration>,
    /// `keepalives_count`.
    pub count: Option<u32>,
    /// `tcp_user_timeout`.
    pub user_timeout: Option<Duration>,
}

/// A complete, checked answer to "which server, as whom, which database".
#[derive(Clone)]
pub struct ConnInfo {
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) database: String,
    /// From the text, the service file or `PGPASSWORD`; `.pgpass` is asked per host.
    pub(crate) password: Option<SecretString>,
    pub(crate) passfile: Option<Arc<PassFile>>,
    pub(crate) tls: TlsSettings,
    pub(crate) channel_binding: ChannelBinding,
    /// Methods of `require_auth`, as written; empty means any.
    pub(crate) require_auth: Vec<String>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) application_name: Option<String>,
    pub(crate) options: Option<String>,
    pub(crate) target_session: TargetSession,
    pub(crate) keepalive: KeepAlive,
    pub(crate) ignored: Vec<(String, String)>,
    pub(crate) warnings: Vec<ConnInfoWarning>,
}

impl ConnInfo {
    /// Reads a connection string by libpq's rules.
    ///
    /// `text` is a `postgresql://` URI, a `key=value` list, or empty, which leaves everything to the
    /// environment. The service file, `.pgpass` and the OS user database are read as libpq reads
    /// them; certificate files are only read when connecting.
    ///
    /// URI parameters that libpq does not know are tolerated and kept in [`ConnInfo::ignored`], since
    /// a `DATABASE_URL` often carries some that belong to the application's own driver. Not so a
    /// misspelt name of an option that libpq does know: dropping `sslmod=verify-full` in silence
    /// would be a hole.
    ///
    /// # Errors
    /// [`ConnInfoError`] names the part that is wrong, and never shows what might be a password.
    pub fn parse(text: &str, env: &dyn Env) -> Result<ConnInfo, ConnInfoError> {
        let parsed = text::parse(text)?;
        resolve::resolve(parsed, env)
    }

    /// Where to look, in order; never empty.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The first host's port.
    pub fn port(&self) -> u16 {
        self.hosts.first().map_or(5432, |host| host.port)
    }

    /// The role to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database; the user's name when none was given.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The password for the first host, from wherever it was found.
    pub fn password(&self) -> Option<SecretString> {
        self.hosts.first().and_then(|host| self.password_for(host))
    }

    /// The password for one host: `.pgpass` may hold a different one for each.
    pub(crate) fn password_for(&self, host: &Host) -> Option<SecretString> {
        self.password.clone().or_else(|| {
            let file = self.passfile.as_ref()?;
            file.find(&host.passfile_name(), host.port, &self.database, &self.user)
        })
    }

    /// Everything about encryption.
    pub fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// `sslmode`.
    pub fn ssl_mode(&self) -> SslMode {
        self.tls.mode
    }

    /// `channel_binding`.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// `connect_timeout`, per host; `None` is without limit.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// `application_name`.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// `options`: command line options for the server process.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// `target_session_attrs`.
    pub fn target_session(&self) -> TargetSession {
        self.target_session
    }

    /// URI parameters that are not libpq's, such as Prisma's `schema` or `pgbouncer`, in the order
    /// written.
    pub fn ignored(&self) -> &[(String, String)] {
        &self.ignored
    }

    /// What was found and deliberately not used, such as a password file that others can read.
    pub fn warnings(&self) -> &[ConnInfoWarning] {
        &self.warnings
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> ConnInfo {
        ConnInfo {
            database: name.to_owned(),
            ..self.clone()
        }
    }

    /// The same, under another `application_name`.
    #[must_use]
    pub fn with_application_name(&self, name: &str) -> ConnInfo {
        ConnInfo {
            application_name: Some(name.to_owned()),
            ..self.clone()
        }
    }

    /// The first host, for people: `db.example:5432`, or a socket's folder.
    #[must_use]
    pub fn address(&self) -> String {
        match self.hosts.first() {
            Some(host) if host.socket_path().is_some() => host.name.clone(),
            Some(host) => format!("{}:{}", host.name, host.port),
            None => String::new(),
        }
    }

    /// The same with settings (`name`, `value`) for the session, added to `options`.
    #[must_use]
    pub fn with_settings(&self, settings: &[(String, String)]) -> ConnInfo {
        let mut options = self.options.clone().unwrap_or_default();
        for (name, value) in settings {
            // The server splits `options` at spaces that no backslash precedes.
            let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
            options.push_str(&format!(" -c {name}={value}"));
        }
        ConnInfo {
            options: Some(options),
            ..self.clone()
        }
    }

    /// For people: `memalerts at db.example:5432`. Never a secret.
    pub fn display(&self) -> String {
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|host| match host.socket_path() {
                Some(path) => path.display().to_string(),
                None if host.port == 5432 => format!("{host}:5432"),
                None => host.to_string(),
            })
            .collect();
        format!("{} at {}", self.database, hosts.join(", "))
    }
}

impl Host {
    /// What `.pgpass` knows this host by: libpq writes `localhost` for the default socket's folder.
    fn passfile_name(&self) -> String {
        if self.name.is_empty() {
            return self
                .address
                .map(|address| address.to_string())
                .unwrap_or_default();
        }
        if resolve::DEFAULT_SOCKET_FOLDERS.contains(&self.name.as_str()) {
            return "localhost".to_owned();
        }
        self.name.clone()
    }
}

impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnInfo")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("password", &self.password().map(|_| "[redacted]"))
            .field("tls", &self.tls)
            .field("target_session", &self.target_session)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
