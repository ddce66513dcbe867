//! From raw options to a [`ConnInfo`]: service file, variables, defaults, and every value checked.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ConnInfoError, ConnInfoWarning};
use super::options::{self, Options, Use};
use super::text::Parsed;
use super::{
    ChannelBinding, ConnInfo, Env, Host, KeepAlive, RootCert, SslMode, SslNegotiation,
    TargetSession, TlsSettings,
};
use crate::passfile::PassFile;
use crate::service::ServiceFiles;

/// Where distributions put the server's socket: Debian, Red Hat and containers, then PostgreSQL's own
/// default.
pub(super) const DEFAULT_SOCKET_FOLDERS: [&str; 3] =
    ["/var/run/postgresql", "/run/postgresql", "/tmp"];

pub(super) fn resolve(parsed: Parsed, env: &dyn Env) -> Result<ConnInfo, ConnInfoError> {
    let Parsed {
        mut options,
        ignored,
    } = parsed;
    let home = env
        .get("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from);
    add_service(&mut options, env, home.as_deref())?;
    for known in options::KNOWN {
        if let Some(value) = known.env.and_then(|name| env.get(name)) {
            options.set_default(known.name, value);
        }
    }
    refuse_unsupported(&options)?;

    let user = match options.given("user") {
        Some(user) => user.to_owned(),
        None => system_user(env).ok_or(ConnInfoError::NoUser)?,
    };
    let database = options.given("dbname").unwrap_or(&user).to_owned();
    let mut warnings = Vec::new();
    let password = options
        .given("password")
        .map(|password| password.to_owned().into());
    let passfile = match password {
        Some(_) => None,
        None => read_passfile(&options, home.as_deref(), &mut warnings),
    };
    Ok(ConnInfo {
        hosts: hosts(&options)?,
        user,
        database,
        password,
        passfile,
        tls: tls(&options, env, home.as_deref())?,
        channel_binding: one_of(
            &options,
            "channel_binding",
            "disable, prefer or require",
            CHANNEL_BINDINGS,
        )?
        .unwrap_or(ChannelBinding::Prefer),
        require_auth: require_auth(&options)?,
        connect_timeout: connect_timeout(&options)?,
        application_name: options
            .given("application_name")
            .or_else(|| options.given("fallback_application_name"))
            .map(str::to_owned),
        options: options.given("options").map(str::to_owned),
        target_session: one_of(&options, "target_session_attrs", TARGETS_EXPECTED, TARGETS)?
            .unwrap_or(TargetSession::Any),
        keepalive: keepalive(&options)?,
        ignored,
        warnings,
    })
}

fn add_service(
    options: &mut Options,
    env: &dyn Env,
    home: Option<&Path>,
) -> Result<(), ConnInfoError> {
    let Some(service) = options
        .given("service")
        .map(str::to_owned)
        .or_else(|| env.get("PGSERVICE"))
        .filter(|s| !s.is_empty())
    else {
        return Ok(());
    };
    let files = ServiceFiles {
        personal: options
            .given("servicefile")
            .map(PathBuf::from)
            .or_else(|| {
                env.get("PGSERVICEFILE")
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from)
            })
            .or_else(|| home.map(|home| home.join(".pg_service.conf"))),
        system: match env.get("PGSYSCONFDIR").filter(|folder| !folder.is_empty()) {
            Some(folder) => vec![Path::new(&folder).join("pg_service.conf")],
            None => vec![
                "/etc/postgresql-common/pg_service.conf".into(),
                "/etc/pg_service.conf".into(),
            ],
        },
    };
    for (name, value) in files.find(&service)? {
        match options::find(&name) {
            Some(known) => options.set_default(known.name, value),
            None => {
                let nearest = options::nearest(&name);
                return Err(ConnInfoError::UnknownOption {
                    name: Some(name),
                    nearest,
                });
            }
        }
    }
    Ok(())
}

fn refuse_unsupported(options: &Options) -> Result<(), ConnInfoError> {
    for (name, value) in options.iter() {
        let Some(known) = options::find(name) else {
            continue;
        };
        if let Use::Only(allowed) = known.treatment
            && !value.is_empty()
            && !allowed.contains(&value)
        {
            let value = (allowed.len() > 1).then(|| value.to_owned());
            return Err(ConnInfoError::Unsupported {
                option: known.name,
                value,
            });
        }
    }
    Ok(())
}

fn hosts(options: &Options) -> Result<Vec<Host>, ConnInfoError> {
    let list = |name: &str| -> Vec<String> {
        options.given(name).map_or_else(Vec::new, |text| {
            text.split(',').map(|s| s.trim().to_owned()).collect()
        })
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = if addresses.is_empty() {
        names.len()
    } else {
        addresses.len()
    }
    .max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(ConnInfoError::CountMismatch {
            option: "hostaddr",
            hosts: names.len(),
            others: addresses.len(),
        });
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(ConnInfoError::CountMismatch {
            option: "port",
            hosts: count,
            others: ports.len(),
        });
    }
    (0..count)
        .map(|index| {
            let port = port(
                ports
                    .get(index)
                    .or_else(|| ports.first())
                    .map_or("", String::as_str),
            )?;
            let address = match addresses.get(index).map(String::as_str) {
                None | Some("") => None,
                Some(text) => Some(IpAddr::from_str(text).map_err(|_| ConnInfoError::Invalid {
                    option: "hostaddr",
                    expected: "an IP address",
                    value: None,
                })?),
            };
            let mut name = names.get(index).cloned().unwrap_or_default();
            if name.is_empty() && address.is_none() {
                name = default_socket_folder(port);
            }
            Ok(Host {
                name,
                address,
                port,
            })
        })
        .collect()
}

/// The value is not repeated: in a URI whose password holds an unescaped character, what looks like
/// a port is a piece of the password.
fn port(text: &str) -> Result<u16, ConnInfoError> {
    match text {
        "" => Ok(5432),
        text => text
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(ConnInfoError::Invalid {
                option: "port",
                expected: "a number from 1 to 65535",
                value: None,
            }),
    }
}

fn default_socket_folder(port: u16) -> String {
    let folders = DEFAULT_SOCKET_FOLDERS.iter().map(Path::new);
    let with_socket = folders
        .clone()
        .find(|folder| folder.join(format!(".s.PGSQL.{port}")).exists());
    let chosen = with_socket.or_else(|| folders.clone().find(|folder| folder.is_dir()));
    chosen
        .unwrap_or(Path::new("/tmp"))
        .to_string_lossy()
        .into_owned()
}

/// libpq's default is the effective user's name, not `$USER`; the variables are the last resort for
/// systems whose users are not in `/etc/passwd`.
fn system_user(env: &dyn Env) -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let from_file = fs::read_to_string("/etc/passwd").ok().and_then(|text| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
    });
    let named = |name: &str| env.get(name).filter(|value| !value.is_empty());
    from_file
        .or_else(|| named("USER"))
        .or_else(|| named("LOGNAME"))
}

fn read_passfile(
    options: &Options,
    home: Option<&Path>,
    warnings: &mut Vec<ConnInfoWarning>,
) -> Option<Arc<PassFile>> {
    let path = match options.given("passfile") {
        Some(path) => PathBuf::from(path),
        None => home?.join(".pgpass"),
    };
    match PassFile::read(&path) {
        Ok(file) => file.map(Arc::new),
        Err(warning) => {
            warnings.push(warning);
            None
        }
    }
}

fn tls(
    options: &Options,
    env: &dyn Env,
    home: Option<&Path>,
) -> Result<TlsSettings, ConnInfoError> {
    let system_roots = options.given("sslrootcert") == Some("system");
    let written = one_of(options, "sslmode", SSL_MODES_EXPECTED, SSL_MODES)?;
    let mode = match written {
        Some(mode) => mode,
        None if system_roots => SslMode::VerifyFull,
        // An old variable that libpq still honours.
        None if env
            .get("PGREQUIRESSL")
            .is_some_and(|value| value.starts_with('1')) =>
        {
            SslMode::Require
        }
        None => SslMode::Prefer,
    };
    let mode_text = || options.given("sslmode").unwrap_or("prefer").to_owned();
    if system_roots && mode != SslMode::VerifyFull {
        return Err(ConnInfoError::WeakWithSystemRoots { mode: mode_text() });
    }
    let negotiation = one_of(
        options,
        "sslnegotiation",
        "postgres or direct",
        &[
            ("postgres", SslNegotiation::Postgres),
            ("direct", SslNegotiation::Direct),
        ],
    )?
    .unwrap_or(SslNegotiation::Postgres);
    if negotiation == SslNegotiation::Direct && mode < SslMode::Require {
        return Err(ConnInfoError::WeakWithDirect { mode: mode_text() });
    }
    let file = |option: &str, default: &str| match options.given(option) {
        Some(path) => Some(PathBuf::from(path)),
        None => home.map(|home| home.join(".postgresql").join(default)),
    };
    let no_client_cert = options.given("sslcertmode") == Some("disable");
    let version = |option: &'static str| {
        one_of(
            options,
            option,
            "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
            &[
                ("TLSv1", 10),
                ("TLSv1.1", 11),
                ("TLSv1.2", 12),
                ("TLSv1.3", 13),
            ],
        )
    };
    let newest = version("ssl_max_protocol_version")?;
    if newest.is_some_and(|version| version < 12) {
        return Err(ConnInfoError::Unsupported {
            option: "ssl_max_protocol_version",
            value: options.given("ssl_max_protocol_version").map(str::to_owned),
        });
    }
    Ok(TlsSettings {
        mode,
        negotiation,
        root_cert: match file("sslrootcert", "root.crt") {
            _ if system_roots => RootCert::System,
            Some(path) => RootCert::File(path),
            None => RootCert::Nowhere,
        },
        crl: file("sslcrl", "root.crl"),
        cert: file("sslcert", "postgresql.crt").filter(|_| !no_client_cert),
        key: file("sslkey", "postgresql.key").filter(|_| !no_client_cert),
        sni: options.given("sslsni") != Some("0"),
        only_tls13: version("ssl_min_protocol_version")? == Some(13),
        only_tls12: newest == Some(12),
    })
}

const SSL_MODES_EXPECTED: &str = "disable, allow, prefer, require, verify-ca or verify-full";
const SSL_MODES: &[(&str, SslMode)] = &[
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];
const CHANNEL_BINDINGS: &[(&str, ChannelBinding)] = &[
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];
const TARGETS_EXPECTED: &str = "any, read-write, read-only, primary, standby or prefer-standby";
const TARGETS: &[(&str, TargetSession)] = &[
    ("any", TargetSession::Any),
    ("read-write", TargetSession::ReadWrite),
    ("read-only", TargetSession::ReadOnly),
    ("primary", TargetSession::Primary),
    ("standby", TargetSession::Standby),
    ("prefer-standby", TargetSession::PreferStandby),
];

/// Methods of `require_auth`; a list of `!method` excludes.
const AUTH_METHODS: [&str; 7] = [
    "password",
    "md5",
    "gss",
    "sspi",
    "scram-sha-256",
    "none",
    "oauth",
];

fn require_auth(options: &Options) -> Result<Vec<String>, ConnInfoError> {
    let Some(text) = options.given("require_auth") else {
        return Ok(Vec::new());
    };
    let methods: Vec<String> = text
        .split(',')
        .map(|method| method.trim().to_owned())
        .collect();
    let excluded = methods
        .iter()
        .filter(|method| method.starts_with('!'))
        .count();
    let known = methods
        .iter()
        .all(|method| AUTH_METHODS.contains(&method.trim_start_matches('!')));
    if !known || (excluded != 0 && excluded != methods.len()) {
        return Err(ConnInfoError::Invalid {
            option: "require_auth",
            expected: "a list of methods, or of methods each after a \"!\"",
            value: Some(text.to_owned()),
        });
    }
    Ok(methods)
}

fn connect_timeout(options: &Options) -> Result<Option<Duration>, ConnInfoError> {
    // libpq: zero, negative or absent is without limit, and one second is rounded up to two.
    Ok(number(options, "connect_timeout")?
        .filter(|seconds| *seconds > 0)
        .map(|seconds| Duration::from_secs(seconds.unsigned_abs().max(2))))
}

fn keepalive(options: &Options) -> Result<KeepAlive, ConnInfoError> {
    let seconds = |name| -> Result<Option<Duration>, ConnInfoError> {
        Ok(number(options, name)?
            .filter(|n| *n > 0)
            .map(|n| Duration::from_secs(n.unsigned_abs())))
    };
    let count = number(options, "keepalives_count")?.and_then(|n| u32::try_from(n).ok());
    let limit = number(options, "tcp_user_timeout")?.filter(|n| *n > 0);
    Ok(KeepAlive {
        enabled: number(options, "keepalives")? != Some(0),
        idle: seconds("keepalives_idle")?,
        interval: seconds("keepalives_interval")?,
        count: count.filter(|count| *count > 0),
        user_timeout: limit.map(|n| Duration::from_millis(n.unsigned_abs())),
    })
}

fn number(options: &Options, option: &'static str) -> Result<Option<i64>, ConnInfoError> {
    let Some(text) = options.given(option) else {
        return Ok(None);
    };
    let invalid = || ConnInfoError::Invalid {
        option,
        expected: "a whole number",
        value: Some(text.to_owned()),
    };
    let number: i32 = text.trim().parse().map_err(|_| invalid())?;
    Ok(Some(i64::from(number)))
}

fn one_of<T: Copy>(
    options: &Options,
    option: &'static str,
    expected: &'static str,
    values: &[(&str, T)],
) -> Result<Option<T>, ConnInfoError> {
    let Some(text) = options.given(option) else {
        return Ok(None);
    };
    match values.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Ok(Some(*value)),
        None => Err(ConnInfoError::Invalid {
            option,
            expected,
            value: Some(text.to_owned()),
        }),
    }
}
