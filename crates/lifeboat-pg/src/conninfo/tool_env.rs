//! A connection for the children we start: `PG*` variables, never arguments, since any user of the
//! machine can read a process's arguments.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use secrecy::ExposeSecret as _;

use super::options::{KNOWN, OTHER_VARIABLES};
use super::{ChannelBinding, ConnInfo, RootCert, SslMode, SslNegotiation, TargetSession};

impl ConnInfo {
    /// The variables that give libpq's programs this connection, database included.
    ///
    /// A child must not also see the `PG*` variables of our own environment: `PGSERVICE` would win
    /// over these. [`ConnInfo::apply_to`] takes care of that.
    pub fn tool_env(&self) -> Vec<(&'static str, OsString)> {
        let mut env: Vec<(&'static str, OsString)> = Vec::new();
        let list = |f: &dyn Fn(&super::Host) -> String| -> OsString {
            self.hosts
                .iter()
                .map(f)
                .collect::<Vec<_>>()
                .join(",")
                .into()
        };
        if self.hosts.iter().any(|host| !host.name.is_empty()) {
            env.push(("PGHOST", list(&|host| host.name.clone())));
        }
        if self.hosts.iter().any(|host| host.address.is_some()) {
            env.push((
                "PGHOSTADDR",
                list(&|h| h.address.map(|a| a.to_string()).unwrap_or_default()),
            ));
        }
        env.push(("PGPORT", list(&|host| host.port.to_string())));
        env.push(("PGUSER", self.user.clone().into()));
        env.push(("PGDATABASE", self.database.clone().into()));
        if let Some(password) = self.password() {
            env.push(("PGPASSWORD", password.expose_secret().into()));
        }
        self.tls_env(&mut env);
        if let Some(timeout) = self.connect_timeout {
            env.push(("PGCONNECT_TIMEOUT", timeout.as_secs().to_string().into()));
        }
        if let Some(name) = &self.application_name {
            env.push(("PGAPPNAME", name.into()));
        }
        if let Some(options) = &self.options {
            env.push(("PGOPTIONS", options.into()));
        }
        if self.target_session != TargetSession::Any {
            env.push(("PGTARGETSESSIONATTRS", self.target_session.name().into()));
        }
        env
    }

    fn tls_env(&self, env: &mut Vec<(&'static str, OsString)>) {
        let mode = match self.tls.mode {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        };
        env.push(("PGSSLMODE", mode.into()));
        // GSS encryption is tried first by libpq's programs, and never by us.
        env.push(("PGGSSENCMODE", "disable".into()));
        if self.tls.negotiation == SslNegotiation::Direct {
            env.push(("PGSSLNEGOTIATION", "direct".into()));
        }
        match &self.tls.root_cert {
            RootCert::System => env.push(("PGSSLROOTCERT", "system".into())),
            RootCert::File(path) => env.push(("PGSSLROOTCERT", path.into())),
            RootCert::Nowhere => {}
        }
        // Named certificate files that do not exist are errors to libpq; unnamed ones are not.
        let mut present = |name: &'static str, path: Option<&Path>| {
            if let Some(path) = path.filter(|path| path.exists()) {
                env.push((name, path.into()));
            }
        };
        present("PGSSLCRL", self.tls.crl.as_deref());
        present("PGSSLCERT", self.tls.cert.as_deref());
        present("PGSSLKEY", self.tls.key.as_deref());
        match self.channel_binding {
            ChannelBinding::Prefer => {}
            ChannelBinding::Disable => env.push(("PGCHANNELBINDING", "disable".into())),
            ChannelBinding::Require => env.push(("PGCHANNELBINDING", "require".into())),
        }
    }

    /// Gives a child this connection and nothing of our own environment's.
    pub fn apply_to(&self, command: &mut Command) {
        for name in KNOWN
            .iter()
            .filter_map(|known| known.env)
            .chain(OTHER_VARIABLES.iter().copied())
        {
            command.env_remove(name);
        }
        command.envs(self.tool_env());
    }
}
