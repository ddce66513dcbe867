//! From a connection string to raw options: libpq's two notations, taken apart and not yet understood.

use super::error::ConnInfoError;
use super::options::{self, Options};

/// A connection string taken apart.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub options: Options,
    pub ignored: Vec<(String, String)>,
}

/// URI parameters of the drivers that most often share a `DATABASE_URL` with us; whatever looks like
/// a misspelt libpq option and is not one of these is an error.
const FOREIGN_PARAMETERS: &[&str] = &[
    "schema",
    "connection_limit",
    "pool_timeout",
    "pgbouncer",
    "socket_timeout",
    "statement_cache_size",
    "sslaccept",
    "sslidentity",
    "sslfactory",
    "single_use_connections",
    "max_idle_connection_lifetime",
];

pub(super) fn parse(text: &str) -> Result<Parsed, ConnInfoError> {
    let text = text.trim();
    if let Some(rest) = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
    {
        return parse_uri(rest);
    }
    if let Some((scheme, _)) = text.split_once("://")
        && !scheme.is_empty()
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.:_".contains(c))
    {
        return Err(ConnInfoError::Scheme {
            scheme: scheme.to_owned(),
        });
    }
    if !text.is_empty() && !text.contains('=') {
        return Err(ConnInfoError::NotAConnectionString);
    }
    parse_pairs(text)
}

/// `key=value` with libpq's quoting: spaces around `=` allowed, `'…'` around values, `\` before a
/// quote or backslash (`conninfo_parse`).
fn parse_pairs(text: &str) -> Result<Parsed, ConnInfoError> {
    let mut parsed = Parsed::default();
    let mut rest = text.trim_start();
    let mut previous: Option<&'static str> = None;
    while !rest.is_empty() {
        let name_end = rest
            .find(|c: char| c == '=' || c.is_ascii_whitespace())
            .unwrap_or(rest.len());
        let name = &rest[..name_end];
        let Some(after) = rest[name_end..].trim_start().strip_prefix('=') else {
            return Err(match previous {
                Some(after) => ConnInfoError::MissingEquals { after },
                None => ConnInfoError::NotAConnectionString,
            });
        };
        let Some(known) = options::find(name) else {
            // What stands here may be the tail of an unquoted password, so it is only repeated when
            // it is nearly the name of an option.
            let nearest = options::nearest(name);
            return Err(ConnInfoError::UnknownOption {
                name: nearest.map(|_| name.to_owned()),
                nearest,
            });
        };
        let (value, remaining) = pair_value(after.trim_start(), known.name)?;
        parsed.options.set(known.name, value);
        previous = Some(known.name);
        rest = remaining.trim_start();
    }
    Ok(parsed)
}

fn pair_value<'a>(text: &'a str, option: &str) -> Result<(String, &'a str), ConnInfoError> {
    let quoted = text.starts_with('\'');
    let body = if quoted { &text[1..] } else { text };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[index + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, &body[index..])),
            c => value.push(c),
        }
    }
    if quoted {
        return Err(ConnInfoError::UnterminatedQuote {
            option: option.to_owned(),
        });
    }
    Ok((value, ""))
}

/// `[user[:password]@][host[:port][,…]][/database][?name=value&…]` (`conninfo_uri_parse_options`).
fn parse_uri(rest: &str) -> Result<Parsed, ConnInfoError> {
    let mut parsed = Parsed::default();
    let (before_query, query) = match credentials_end(rest) {
        // A "?" inside the user or password part is theirs, as in libpq.
        Some(at) => match rest[at..].find('?') {
            Some(mark) => (&rest[..at + mark], Some(&rest[at + mark + 1..])),
            None => (rest, None),
        },
        None => match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        },
    };
    let hosts_and_database = match credentials_end(before_query) {
        Some(at) => {
            let credentials = &before_query[..at];
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            if !user.is_empty() {
                parsed.options.set("user", decode(user, "user")?);
            }
            if let Some(password) = password.filter(|password| !password.is_empty()) {
                parsed
                    .options
                    .set("password", decode(password, "password")?);
            }
            &before_query[at + 1..]
        }
        None => before_query,
    };
    let (authority, database) = match hosts_and_database.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (hosts_and_database, None),
    };
    // libpq would take a second "@" for a part of the host's name, and a "/" in the password for the
    // end of the host; both then show up in its error texts. They are refused before that can happen.
    if authority.contains('@') {
        return Err(ConnInfoError::Unescaped {
            part: "user or password",
            character: '@',
        });
    }
    if database.is_some_and(|database| database.contains('@')) {
        let part = if authority.contains(':') {
            "user or password"
        } else {
            "database name"
        };
        let character = if authority.contains(':') { '/' } else { '@' };
        return Err(ConnInfoError::Unescaped { part, character });
    }
    let (hosts, ports) = split_authority(authority)?;
    if !hosts.is_empty() {
        parsed.options.set("host", decode(&hosts, "host")?);
    }
    if !ports.is_empty() {
        parsed.options.set("port", decode(&ports, "port")?);
    }
    if let Some(database) = database.filter(|database| !database.is_empty()) {
        parsed
            .options
            .set("dbname", decode(database, "database name")?);
    }
    for parameter in query
        .unwrap_or("")
        .split('&')
        .filter(|parameter| !parameter.is_empty())
    {
        parse_parameter(parameter, &mut parsed)?;
    }
    Ok(parsed)
}

/// The `@` after the user and password: the first one, if no `/` comes before it.
fn credentials_end(text: &str) -> Option<usize> {
    let at = text.find(['@', '/'])?;
    text[at..].starts_with('@').then_some(at)
}

/// Comma separated hosts and ports, both lists of the same length, still percent-encoded.
fn split_authority(authority: &str) -> Result<(String, String), ConnInfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for part in authority.split(',') {
        let (host, port) = if let Some(bracketed) = part.strip_prefix('[') {
            let (address, after) = bracketed.split_once(']').ok_or(ConnInfoError::Ipv6)?;
            let port = match after.strip_prefix(':') {
                Some(port) => port,
                None if after.is_empty() => "",
                None => return Err(ConnInfoError::Ipv6),
            };
            if address.is_empty() {
                return Err(ConnInfoError::Ipv6);
            }
            (address, port)
        } else {
            part.split_once(':').unwrap_or((part, ""))
        };
        hosts.push(host);
        ports.push(port);
    }
    let any_port = ports.iter().any(|port| !port.is_empty());
    Ok((
        hosts.join(","),
        if any_port {
            ports.join(",")
        } else {
            String::new()
        },
    ))
}

fn parse_parameter(parameter: &str, parsed: &mut Parsed) -> Result<(), ConnInfoError> {
    let (name, value) = parameter.split_once('=').ok_or(ConnInfoError::Parameter)?;
    if value.contains('=') {
        return Err(ConnInfoError::Parameter);
    }
    let name = decode(name, "parameter name")?;
    let value = decode(value, &name)?;
    // JDBC's spelling, which libpq takes too.
    if name == "ssl" && value == "true" {
        parsed.options.set("sslmode", "require".to_owned());
        return Ok(());
    }
    if let Some(known) = options::find(&name) {
        parsed.options.set(known.name, value);
        return Ok(());
    }
    if !FOREIGN_PARAMETERS.contains(&name.as_str())
        && let Some(nearest) = options::nearest(&name)
    {
        return Err(ConnInfoError::UnknownOption {
            name: Some(name),
            nearest: Some(nearest),
        });
    }
    parsed.ignored.push((name, value));
    Ok(())
}

/// `%XX` to bytes. libpq leaves `+` alone, and refuses `%00`.
fn decode(text: &str, part: &str) -> Result<String, ConnInfoError> {
    let bad = || ConnInfoError::PercentEncoding {
        part: part.to_owned(),
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(rest.next()), digit(rest.next()));
        let (Some(high), Some(low)) = (high, low) else {
            return Err(bad());
        };
        match u8::try_from(high * 16 + low) {
            Ok(0) | Err(_) => return Err(bad()),
            Ok(value) => bytes.push(value),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}
