//! Logging in: from the startup message to the first ReadyForQuery.

use std::collections::BTreeMap;
use std::io;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret as _, SecretString};

use super::certificate;
use super::channel::{Channel, Stream};
use super::error::{PgError, ServerError};
use crate::conninfo::{ChannelBinding, ConnInfo, Host};

/// Why we could not, or would not, answer what the server asked for.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The server wants a password and none was found.
    #[error("the server asks for a password and none was given")]
    PasswordMissing,
    /// A method that this client does not speak.
    #[error("the server asks for {method} authentication, which is not supported")]
    Unsupported {
        /// GSSAPI, SSPI, …
        method: String,
    },
    /// `require_auth` rules out what the server asked for.
    #[error("the server asks for {method} authentication, which require_auth rules out")]
    NotAllowed {
        /// In `require_auth`'s spelling.
        method: &'static str,
    },
    /// `channel_binding=require`, and the server or the session cannot.
    #[error("channel binding is required, and {why}")]
    ChannelBinding {
        /// One fact.
        why: &'static str,
    },
    /// The server did not prove that it knows the password: it may be an impostor.
    #[error("the server failed to prove that it knows the password: {0}")]
    Scram(#[source] io::Error),
}

/// What the server tells during startup.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    pub parameters: BTreeMap<String, String>,
    pub process_id: i32,
    pub secret_key: i32,
    pub notices: Vec<ServerError>,
}

pub(crate) fn log_in(
    channel: &mut Channel,
    info: &ConnInfo,
    host: &Host,
) -> Result<Greeting, PgError> {
    send_startup(channel, info)?;
    let mut greeting = Greeting::default();
    let mut login = Login {
        info,
        password: info.password_for(host),
        scram: None,
        bound: false,
        asked: false,
        done: false,
        host: host.to_string(),
    };
    loop {
        let frame = channel.next_frame()?;
        let body = channel.body(&frame);
        match frame.tag {
            backend::AUTHENTICATION_TAG => {
                let message = parse(frame.tag, body)?;
                login.answer(channel, message)?;
            }
            backend::ERROR_RESPONSE_TAG => {
                return Err(PgError::Server(Box::new(ServerError::parse(body))));
            }
            backend::NOTICE_RESPONSE_TAG => greeting.notices.push(ServerError::parse(body)),
            // Until the server has proven itself, nothing else may come: an impostor could otherwise
            // skip the proof and go straight on.
            _ if !login.done => {
                return Err(PgError::protocol(
                    "a message came before the login was complete",
                ));
            }
            backend::PARAMETER_STATUS_TAG => {
                if let Some((name, value)) = parameter(body) {
                    greeting.parameters.insert(name, value);
                }
            }
            backend::BACKEND_KEY_DATA_TAG => {
                if let Message::BackendKeyData(key) = parse(frame.tag, body)? {
                    greeting.process_id = key.process_id();
                    greeting.secret_key = key.secret_key();
                }
            }
            backend::READY_FOR_QUERY_TAG => return Ok(greeting),
            tag => {
                return Err(PgError::protocol(format!(
                    "message type 0x{tag:02x} during startup"
                )));
            }
        }
    }
}

fn send_startup(channel: &mut Channel, info: &ConnInfo) -> Result<(), PgError> {
    let mut parameters = vec![
        ("user", info.user()),
        ("database", info.database()),
        // Names and messages are to arrive as UTF-8 whatever the database holds.
        ("client_encoding", "UTF8"),
    ];
    if let Some(name) = info.application_name() {
        parameters.push(("application_name", name));
    }
    if let Some(options) = info.options() {
        parameters.push(("options", options));
    }
    frontend::startup_message(parameters, &mut channel.output).map_err(|_| nul_byte())?;
    channel.flush()
}

struct Login<'a> {
    info: &'a ConnInfo,
    password: Option<SecretString>,
    scram: Option<ScramSha256>,
    /// Whether the SCRAM talk is bound to the TLS session.
    bound: bool,
    /// Whether the server asked for anything at all.
    asked: bool,
    done: bool,
    host: String,
}

impl Login<'_> {
    fn answer(&mut self, channel: &mut Channel, message: Message) -> Result<(), PgError> {
        match message {
            Message::AuthenticationOk => self.finish(),
            Message::AuthenticationCleartextPassword => {
                self.allow("password")?;
                let password = self.password()?;
                send_password(channel, password.expose_secret().as_bytes())
            }
            Message::AuthenticationMd5Password(body) => {
                self.allow("md5")?;
                let password = self.password()?;
                let user = self.info.user().as_bytes();
                let hash = md5_hash(user, password.expose_secret().as_bytes(), body.salt());
                send_password(channel, hash.as_bytes())
            }
            Message::AuthenticationSasl(body) => {
                self.allow("scram-sha-256")?;
                let mechanisms: Vec<String> = body
                    .mechanisms()
                    .map(|name| Ok(name.to_owned()))
                    .collect()
                    .map_err(|_| PgError::protocol("unreadable list of SASL mechanisms"))?;
                self.start_scram(channel, &mechanisms)
            }
            Message::AuthenticationSaslContinue(body) => {
                let host = &self.host;
                let scram = self.scram.as_mut().ok_or_else(out_of_turn)?;
                scram.update(body.data()).map_err(|error| PgError::Auth {
                    host: host.clone(),
                    source: AuthError::Scram(error),
                })?;
                frontend::sasl_response(scram.message(), &mut channel.output)
                    .map_err(|_| nul_byte())?;
                channel.flush()
            }
            Message::AuthenticationSaslFinal(body) => {
                let mut scram = self.scram.take().ok_or_else(out_of_turn)?;
                scram
                    .finish(body.data())
                    .map_err(|error| self.error(AuthError::Scram(error)))
            }
            Message::AuthenticationGss | Message::AuthenticationKerberosV5 => {
                Err(self.unsupported("GSSAPI"))
            }
            Message::AuthenticationSspi => Err(self.unsupported("SSPI")),
            _ => Err(self.unsupported("another kind of")),
        }
    }

    fn start_scram(&mut self, channel: &mut Channel, offered: &[String]) -> Result<(), PgError> {
        if self.scram.is_some() {
            return Err(out_of_turn());
        }
        let offers = |name: &str| offered.iter().any(|offer| offer == name);
        let wanted = self.info.channel_binding();
        let session = match &channel.stream {
            Stream::Tls(session) if wanted != ChannelBinding::Disable => Some(session),
            _ => None,
        };
        let hash = session
            .and_then(|session| session.server_certificate())
            .and_then(certificate::end_point_hash);
        let (mechanism, binding) = match hash {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                self.bound = true;
                (
                    SCRAM_SHA_256_PLUS,
                    sasl::ChannelBinding::tls_server_end_point(hash),
                )
            }
            _ if wanted == ChannelBinding::Require => {
                let why = match session {
                    None => "the connection is not encrypted",
                    Some(_) if !offers(SCRAM_SHA_256_PLUS) => "the server does not offer it",
                    Some(_) => "the server's certificate has no usable signature hash",
                };
                return Err(self.error(AuthError::ChannelBinding { why }));
            }
            // Says "I could, but you did not offer": if the offer was cut out on the way, the server
            // notices.
            Some(_) => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if !offers(mechanism) {
            return Err(self.unsupported("an unknown SASL"));
        }
        let password = self.password()?;
        let scram = ScramSha256::new(password.expose_secret().as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), &mut channel.output)
            .map_err(|_| nul_byte())?;
        self.scram = Some(scram);
        channel.flush()
    }

    /// AuthenticationOk. With a SCRAM talk begun, it only counts after the server's proof.
    fn finish(&mut self) -> Result<(), PgError> {
        if self.scram.is_some() {
            return Err(PgError::protocol(
                "the login was accepted in the middle of SCRAM",
            ));
        }
        if !self.bound && self.info.channel_binding() == ChannelBinding::Require {
            let why = "the server let us in without it";
            return Err(self.error(AuthError::ChannelBinding { why }));
        }
        if !self.asked {
            self.allow("none")?;
        }
        self.done = true;
        Ok(())
    }

    fn allow(&mut self, method: &'static str) -> Result<(), PgError> {
        let rules = &self.info.require_auth;
        let excluding = rules.first().is_some_and(|rule| rule.starts_with('!'));
        let named = rules
            .iter()
            .any(|rule| rule.trim_start_matches('!') == method);
        if !rules.is_empty() && named == excluding {
            return Err(self.error(AuthError::NotAllowed { method }));
        }
        self.asked = true;
        Ok(())
    }

    fn password(&self) -> Result<SecretString, PgError> {
        self.password
            .clone()
            .ok_or_else(|| self.error(AuthError::PasswordMissing))
    }

    fn unsupported(&self, method: &str) -> PgError {
        self.error(AuthError::Unsupported {
            method: method.to_owned(),
        })
    }

    fn error(&self, source: AuthError) -> PgError {
        PgError::Auth {
            host: self.host.clone(),
            source,
        }
    }
}

fn send_password(channel: &mut Channel, password: &[u8]) -> Result<(), PgError> {
    frontend::password_message(password, &mut channel.output).map_err(|_| nul_byte())?;
    channel.flush()
}

fn out_of_turn() -> PgError {
    PgError::protocol("a SASL message out of turn")
}

/// The only thing that makes a frontend message impossible. Not shown: it may be the password.
fn nul_byte() -> PgError {
    PgError::protocol("a value to be sent holds a NUL byte")
}

fn parse(tag: u8, body: &[u8]) -> Result<Message, PgError> {
    let unreadable = || PgError::protocol(format!("message type 0x{tag:02x} is malformed"));
    let length = u32::try_from(body.len() + 4).map_err(|_| unreadable())?;
    let mut bytes = BytesMut::with_capacity(body.len() + 5);
    bytes.extend_from_slice(&[tag]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    Message::parse(&mut bytes)
        .ok()
        .flatten()
        .ok_or_else(unreadable)
}

/// The body of a ParameterStatus: two strings, each ended by a NUL.
pub(crate) fn parameter(body: &[u8]) -> Option<(String, String)> {
    let mut parts = body.split(|byte| *byte == 0);
    let name = String::from_utf8_lossy(parts.next()?).into_owned();
    let value = String::from_utf8_lossy(parts.next()?).into_owned();
    Some((name, value))
}
