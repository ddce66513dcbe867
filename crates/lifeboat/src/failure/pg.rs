//! Advice on PostgreSQL: connections and what servers refuse, by variant and SQLSTATE.

use std::io::ErrorKind;

use lifeboat_pg::conninfo::ConnInfoError;
use lifeboat_pg::wire::{AuthError, PgError};

use super::Failure;
use crate::exit::Exit;

impl From<ConnInfoError> for Failure {
    fn from(error: ConnInfoError) -> Self {
        let failure = Self::of(Exit::Usage, &error);
        match &error {
            ConnInfoError::Scheme { .. } | ConnInfoError::NotAConnectionString => {
                failure.hint("write it as `postgresql://USER:PASSWORD@HOST:5432/DATABASE`")
            }
            ConnInfoError::Unescaped { .. } | ConnInfoError::PercentEncoding { .. } => failure.hint(
                "in a URI, write special characters of a password as %XX: `@` is %40, `/` is %2F, `%` is %25",
            ),
            ConnInfoError::MissingEquals { .. } | ConnInfoError::UnterminatedQuote { .. } => {
                failure.hint("put a value that holds spaces or quotes between single quotes, with \\' and \\\\ inside")
            }
            ConnInfoError::ServiceNotFound { .. } => {
                failure.hint("PGSERVICEFILE names the file, else it is ~/.pg_service.conf")
            }
            ConnInfoError::NoUser => failure.hint("put the user in the URL, or set PGUSER"),
            _ => failure,
        }
    }
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        if let PgError::Interrupted = error {
            return Self::interrupted();
        }
        advise(Self::of(Exit::Failed, &error), &error)
    }
}

/// Adds what helps against `error` to a failure that it caused.
pub fn advise(mut failure: Failure, error: &PgError) -> Failure {
    if let PgError::NoHost { attempts } = error {
        // One list of hints for all hosts, each hint once.
        for (_, attempt) in attempts {
            for hint in advise(Failure::new(Exit::Failed, ""), attempt).hints {
                if !failure.hints.contains(&hint) {
                    failure.hints.push(hint);
                }
            }
        }
        return failure;
    }
    if let Some(hint) = error.server().and_then(|server| server.hint.clone()) {
        failure = failure.hint(format!("the server says: {hint}"));
    }
    let advice = match error {
        PgError::Server(server) => by_sqlstate(server.code.as_str()),
        PgError::Connect { source, .. } => match source.kind() {
            ErrorKind::ConnectionRefused => {
                Some("is the server running, and is this its port? try `pg_isready`")
            }
            ErrorKind::NotFound => Some(
                "no server listens on this socket: is it running? try `pg_isready`, or give a host",
            ),
            ErrorKind::PermissionDenied => {
                Some("this user may not use that socket; connect over TCP, or as another user")
            }
            _ => Some("check the host name, the network and the firewall"),
        },
        PgError::Timeout { .. } => Some(
            "check the network and the firewall; `connect_timeout` in the URL allows more time",
        ),
        PgError::Tls { .. } => Some(
            "`sslmode` in the URL says how strict TLS is, `sslrootcert` which authority to trust",
        ),
        PgError::Auth {
            source: AuthError::PasswordMissing,
            ..
        } => Some("put the password in the URL, in PGPASSWORD or in ~/.pgpass"),
        PgError::Auth {
            source: AuthError::Scram(_),
            ..
        } => Some("either the password is wrong, or this is not the server you think it is"),
        PgError::Lost(_) => {
            Some("the server's log says why; nothing half-done counts, just run it again")
        }
        _ => None,
    };
    match advice {
        Some(advice) => failure.hint(advice),
        None => failure,
    }
}

fn by_sqlstate(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => "check the password in DATABASE_URL, PGPASSWORD or ~/.pgpass",
        "28000" => {
            "pg_hba.conf on the server must let this role in, from this host, to this database"
        }
        "3D000" => "`psql -l` lists the databases of a server",
        "42501" => {
            "grant it, or use the role that owns the database; from PostgreSQL 14 on `GRANT pg_read_all_data TO role` reads everything"
        }
        "53300" => "the server has no connection left: lower `--jobs`, or raise max_connections",
        "53100" => "the server's disk is full",
        "53200" => "the server is out of memory: lower `--jobs`",
        "55P03" => {
            "another session holds a lock: `select * from pg_locks` shows it; `backup.lock_timeout` allows more time"
        }
        "57014" => "somebody cancelled the statement, or a statement_timeout is set for this role",
        "57P01" | "57P02" => "the server was stopped or restarted; run it again once it is up",
        "57P03" => "the server is starting, stopping or recovering; try again in a moment",
        "58030" => "the server cannot read or write its files: look at its log and at its disks",
        "XX001" | "XX002" => {
            "the server's own data is damaged: stop writing to it, copy its data directory, and find the last good backup with `lifeboat list`"
        }
        "25006" => "this is a standby or a read-only database; use the primary",
        "42P04" => "choose another name",
        _ => return None,
    })
}
