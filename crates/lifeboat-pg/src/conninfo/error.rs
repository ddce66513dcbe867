//! What can be wrong with a connection string, without ever repeating what may be a secret.

use std::path::PathBuf;

/// A connection string, service file or `PG*` variable that cannot be used.
///
/// Values are shown only for options that never hold a secret and whose text cannot have been torn
/// out of a password by a missing escape.
#[derive(Debug, thiserror::Error)]
pub enum ConnInfoError {
    /// A URI of some other kind, such as `mysql://`.
    #[error("the connection URI begins with {scheme}://, not postgresql://")]
    Scheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// Neither a URI nor `key=value`.
    #[error("the connection string is neither a postgresql:// URI nor a list of key=value")]
    NotAConnectionString,
    /// In a `key=value` list, something without `=`; often a space inside an unquoted value.
    #[error("the connection string has a word without \"=\" after option {after}")]
    MissingEquals {
        /// The option before it, the likely culprit.
        after: &'static str,
    },
    /// A quote without its end.
    #[error("the value of {option} has an opening quote and no closing one")]
    UnterminatedQuote {
        /// The option.
        option: String,
    },
    /// A `%` that is not followed by two hexadecimal digits, or decodes to no valid text.
    #[error("the {part} in the connection URI has an invalid percent-encoding")]
    PercentEncoding {
        /// Which part: `password`, `host`, …
        part: String,
    },
    /// The URI does not fall into parts as a URI must; nearly always an unescaped character in the
    /// password.
    #[error("the {part} in the connection URI holds an unescaped \"{character}\"")]
    Unescaped {
        /// Which part.
        part: &'static str,
        /// The character that must be percent-encoded.
        character: char,
    },
    /// An IPv6 address without its closing bracket, or with something after it.
    #[error("the IPv6 address in the connection URI is not of the form [address]")]
    Ipv6,
    /// A URI parameter that is not `name=value`.
    #[error("the connection URI has a parameter that is not of the form name=value")]
    Parameter,
    /// An option that libpq does not have.
    #[error("unknown connection option{}{}", name.as_deref().map(|n| format!(" {n}")).unwrap_or_default(),
        nearest.map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    UnknownOption {
        /// Its name; left out where it might be a piece of a password.
        name: Option<String>,
        /// The known option with the nearest name.
        nearest: Option<&'static str>,
    },
    /// An option that libpq has and Lifeboat cannot honour. Ignoring it would weaken what was asked.
    #[error("connection option {option} is not supported{}", value.as_deref().map(|v| format!(" with the value {v}")).unwrap_or_default())]
    Unsupported {
        /// Its name.
        option: &'static str,
        /// The value, where only some values are unsupported.
        value: Option<String>,
    },
    /// A value that does not fit its option.
    #[error("connection option {option} must be {expected}{}", value.as_deref().map(|v| format!(", not {v:?}")).unwrap_or_default())]
    Invalid {
        /// Its name.
        option: &'static str,
        /// What would do.
        expected: &'static str,
        /// What was there, where it cannot be a secret.
        value: Option<String>,
    },
    /// Lists of hosts, addresses and ports that do not match.
    #[error("{hosts} hosts were given with {others} {option} values")]
    CountMismatch {
        /// `port` or `hostaddr`.
        option: &'static str,
        /// How many hosts.
        hosts: usize,
        /// How many of the other.
        others: usize,
    },
    /// `sslrootcert=system` with a mode that would not use it.
    #[error("sslmode {mode} is too weak for sslrootcert=system, which needs verify-full")]
    WeakWithSystemRoots {
        /// The mode.
        mode: String,
    },
    /// `sslnegotiation=direct` with a mode that allows plain connections.
    #[error("sslmode {mode} is too weak for sslnegotiation=direct, which needs require or more")]
    WeakWithDirect {
        /// The mode.
        mode: String,
    },
    /// The service file does not have that section.
    #[error("service {service:?} is in none of: {}", join(looked_in))]
    ServiceNotFound {
        /// The name.
        service: String,
        /// The files that were looked for, in order.
        looked_in: Vec<PathBuf>,
    },
    /// A service file is there and cannot be used.
    #[error("service file {}, line {line}: {what}", path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1; 0 when the file as a whole is meant.
        line: usize,
        /// One fact.
        what: String,
    },
    /// No user was given, and the operating system does not name the one who runs us.
    #[error("no user was given and the operating system user has no name")]
    NoUser,
}

fn join(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Something found and, by libpq's rules, not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnInfoWarning {
    /// The password file can be read by others (its mode is wider than 0600).
    PassFileTooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The password file is not a plain file.
    PassFileNotPlain {
        /// The path.
        path: PathBuf,
    },
}

impl std::fmt::Display for ConnInfoWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConnInfoWarning::PassFileTooOpen { path, mode } => write!(
                f,
                "password file {} was not used: its permissions are {mode:04o}, wider than 0600",
                path.display()
            ),
            ConnInfoWarning::PassFileNotPlain { path } => {
                write!(
                    f,
                    "password file {} was not used: it is not a plain file",
                    path.display()
                )
            }
        }
    }
}
