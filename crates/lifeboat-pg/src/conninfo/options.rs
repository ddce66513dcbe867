//! The options that libpq knows (`PQconninfoOptions`, src/interfaces/libpq/fe-connect.c, up to
//! PostgreSQL 18), each with its variable and what we do with it.

use std::collections::BTreeMap;
use std::fmt;

/// What becomes of an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Honoured.
    Honoured,
    /// Without meaning here; dropping it weakens nothing.
    Harmless,
    /// Asks for a safeguard that we do not have; only the given values may pass.
    Only(&'static [&'static str]),
}

pub(super) struct Known {
    pub name: &'static str,
    pub env: Option<&'static str>,
    pub treatment: Use,
}

const fn known(name: &'static str, env: &'static str, treatment: Use) -> Known {
    Known {
        name,
        env: Some(env),
        treatment,
    }
}

const fn no_env(name: &'static str, treatment: Use) -> Known {
    Known {
        name,
        env: None,
        treatment,
    }
}

use Use::{Harmless, Honoured, Only};

pub(super) const KNOWN: &[Known] = &[
    known("service", "PGSERVICE", Honoured),
    no_env("servicefile", Honoured),
    known("user", "PGUSER", Honoured),
    known("password", "PGPASSWORD", Honoured),
    known("passfile", "PGPASSFILE", Honoured),
    known("dbname", "PGDATABASE", Honoured),
    known("host", "PGHOST", Honoured),
    known("hostaddr", "PGHOSTADDR", Honoured),
    known("port", "PGPORT", Honoured),
    known("channel_binding", "PGCHANNELBINDING", Honoured),
    known("connect_timeout", "PGCONNECT_TIMEOUT", Honoured),
    known("options", "PGOPTIONS", Honoured),
    known("application_name", "PGAPPNAME", Honoured),
    no_env("fallback_application_name", Honoured),
    known("sslmode", "PGSSLMODE", Honoured),
    known("sslnegotiation", "PGSSLNEGOTIATION", Honoured),
    known("sslcert", "PGSSLCERT", Honoured),
    known("sslkey", "PGSSLKEY", Honoured),
    known("sslrootcert", "PGSSLROOTCERT", Honoured),
    known("sslcrl", "PGSSLCRL", Honoured),
    known("sslsni", "PGSSLSNI", Honoured),
    known(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        Honoured,
    ),
    known(
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        Honoured,
    ),
    known("require_auth", "PGREQUIREAUTH", Honoured),
    known("target_session_attrs", "PGTARGETSESSIONATTRS", Honoured),
    no_env("keepalives", Honoured),
    no_env("keepalives_idle", Honoured),
    no_env("keepalives_interval", Honoured),
    no_env("keepalives_count", Honoured),
    no_env("tcp_user_timeout", Honoured),
    // An encrypted key needs this; rustls reads no encrypted keys, which is said when it meets one.
    no_env("sslpassword", Harmless),
    known("sslcertmode", "PGSSLCERTMODE", Only(&["allow", "disable"])),
    known("sslcrldir", "PGSSLCRLDIR", Only(&[""])),
    known("requirepeer", "PGREQUIREPEER", Only(&[""])),
    known("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"])),
    no_env("replication", Only(&["false", "off", "no", "0", ""])),
    // A client chooses the first host that answers; spreading sessions has no use for a backup.
    known("load_balance_hosts", "PGLOADBALANCEHOSTS", Harmless),
    known("client_encoding", "PGCLIENTENCODING", Harmless),
    known("sslcompression", "PGSSLCOMPRESSION", Harmless),
    known("krbsrvname", "PGKRBSRVNAME", Harmless),
    known("gsslib", "PGGSSLIB", Harmless),
    known("gssdelegation", "PGGSSDELEGATION", Harmless),
    known("min_protocol_version", "PGMINPROTOCOLVERSION", Harmless),
    known("max_protocol_version", "PGMAXPROTOCOLVERSION", Harmless),
    no_env("sslkeylogfile", Harmless),
    no_env("scram_client_key", Harmless),
    no_env("scram_server_key", Harmless),
    no_env("oauth_issuer", Harmless),
    no_env("oauth_client_id", Harmless),
    no_env("oauth_client_secret", Harmless),
    no_env("oauth_scope", Harmless),
    no_env("authtype", Harmless),
    no_env("tty", Harmless),
];

/// Variables of libpq's that are not options of their own, and yet steer it.
pub(super) const OTHER_VARIABLES: &[&str] = &["PGSERVICEFILE", "PGSYSCONFDIR", "PGREQUIRESSL"];

pub(super) fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// The known option that a misspelt name most likely meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    KNOWN
        .iter()
        .map(|known| (distance(&name, known.name), known.name))
        .filter(|(distance, known)| *distance <= if known.len() > 5 { 2 } else { 1 })
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Raw values by option name. No `Debug` that shows values: one of them is a password.
#[derive(Default, Clone)]
pub(super) struct Options(BTreeMap<&'static str, String>);

impl Options {
    /// Later values win, as in libpq.
    pub fn set(&mut self, name: &'static str, value: String) {
        self.0.insert(name, value);
    }

    pub fn set_default(&mut self, name: &'static str, value: String) {
        self.0.entry(name).or_insert(value);
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Present and not empty: libpq treats most empty values as absent.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
