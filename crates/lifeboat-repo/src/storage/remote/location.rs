//! Where a remote repository is, written as restic writes it, so that one string works with both.

use std::fmt;

/// The place of a remote repository. Never holds a secret: [`RemoteLocation::parse`] refuses a URL with a
/// password in it, and does not repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteLocation {
    /// A bucket of a server that speaks S3.
    S3(S3Location),
    /// A folder that is reached by `ssh`.
    Sftp(SftpLocation),
}

/// `s3:https://host:port/bucket/prefix`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// With its scheme: `https://s3.example.org:9000`.
    pub endpoint: String,
    /// The bucket, which has to exist.
    pub bucket: String,
    /// What every object's name begins with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Whether it was written without a scheme, as restic allows.
    scheme_left_out: bool,
}

/// `sftp:user@host:/path`, `sftp://user@host:port//path`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftpLocation {
    /// The user, where it is not left to `ssh`.
    pub user: Option<String>,
    /// A host name, an address, or a `Host` of ssh's own configuration.
    pub host: String,
    /// The port, where it is not left to `ssh`.
    pub port: Option<u16>,
    /// The folder: absolute, or counted from the user's home there.
    pub path: String,
}

/// Why a text is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// It begins with none of the schemes that are known.
    #[error("`{scheme}` is no place that repositories can be kept in")]
    UnknownScheme {
        /// What stands before the first colon.
        scheme: String,
    },
    /// It lacks a part, or has one too many.
    #[error("{what}")]
    Malformed {
        /// What is wrong with it; never the text itself, which may hold a password.
        what: &'static str,
    },
}

const fn malformed(what: &'static str) -> LocationError {
    LocationError::Malformed { what }
}

impl RemoteLocation {
    /// Reads a location as restic does ("Preparing a new repository" in its manual).
    ///
    /// # Errors
    /// `UnknownScheme`, `Malformed`.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        match text.split_once(':') {
            Some(("s3", rest)) => s3(rest).map(Self::S3),
            Some(("sftp", rest)) => sftp(rest).map(Self::Sftp),
            Some((scheme, _)) => Err(LocationError::UnknownScheme {
                scheme: scheme.to_owned(),
            }),
            None => Err(malformed("it has no scheme, such as `s3:` or `sftp:`")),
        }
    }
}

impl fmt::Display for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(location) => location.fmt(f),
            Self::Sftp(location) => location.fmt(f),
        }
    }
}

impl S3Location {
    /// The host, with its port.
    #[must_use]
    pub fn host(&self) -> &str {
        let rest = self.endpoint.split_once("://");
        rest.map_or(self.endpoint.as_str(), |(_, host)| host)
    }

    /// Whether it is Amazon's own.
    #[must_use]
    pub fn is_amazon(&self) -> bool {
        self.host().ends_with(".amazonaws.com") || self.host().ends_with(".amazonaws.com.cn")
    }

    /// The region that Amazon's host names tell: `s3.eu-central-1.amazonaws.com`.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        let host = self.host().split_once(".amazonaws.com")?.0;
        let region = host
            .strip_prefix("s3.dualstack.")
            .or_else(|| host.strip_prefix("s3."))
            .or_else(|| host.strip_prefix("s3-"))?;
        (!region.is_empty()).then_some(region)
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = if self.scheme_left_out {
            self.host()
        } else {
            &self.endpoint
        };
        write!(f, "s3:{server}/{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl fmt::Display for SftpLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self
            .user
            .as_ref()
            .map_or(String::new(), |user| format!("{user}@"));
        match self.port {
            Some(port) if self.host.contains(':') => {
                write!(f, "sftp://{user}[{}]:{port}/{}", self.host, self.path)
            }
            Some(port) => write!(f, "sftp://{user}{}:{port}/{}", self.host, self.path),
            None if self.host.contains(':') => {
                write!(f, "sftp://{user}[{}]/{}", self.host, self.path)
            }
            None => write!(f, "sftp:{user}{}:{}", self.host, self.path),
        }
    }
}

fn s3(rest: &str) -> Result<S3Location, LocationError> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (scheme, rest, scheme_left_out) = match rest.split_once("://") {
        Some((scheme @ ("https" | "http"), rest)) => (scheme, rest, false),
        Some(_) => {
            return Err(malformed(
                "after `s3:` comes `https://`, `http://` or a host",
            ));
        }
        None => ("https", rest, true),
    };
    if rest.contains(['?', '#']) {
        return Err(malformed("an S3 location has no `?` and no `#`"));
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(malformed(
            "credentials do not belong into the location: other users can see it",
        ));
    }
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let bucket = parts.next().unwrap_or_default();
    if host.is_empty() || bucket.is_empty() {
        return Err(malformed(
            "an S3 location names a host and a bucket: s3:https://HOST/BUCKET/PREFIX",
        ));
    }
    Ok(S3Location {
        endpoint: format!("{scheme}://{host}"),
        bucket: bucket.to_owned(),
        prefix: parts.collect::<Vec<_>>().join("/"),
        scheme_left_out,
    })
}

fn sftp(rest: &str) -> Result<SftpLocation, LocationError> {
    const SHAPE: &str =
        "an SFTP location is sftp:USER@HOST:/PATH, or with a port sftp://USER@HOST:PORT//PATH";
    let (authority, path, may_have_port) = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_once('/').ok_or(malformed(SHAPE))?;
            (authority, path, true)
        }
        None => {
            let (authority, path) = rest.split_once(':').ok_or(malformed(SHAPE))?;
            (authority, path, false)
        }
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    // `sftp:user:password@host:/path`, of which restic would make a host `user`.
    let is_password = |path: &str| {
        path.split('/')
            .next()
            .is_some_and(|part| part.contains('@'))
    };
    if user.is_some_and(|user| user.contains(':')) || (!may_have_port && is_password(path)) {
        return Err(malformed(
            "a password does not belong into the location: ssh takes keys",
        ));
    }
    let (host, port) = if !may_have_port {
        (host, None)
    } else if let Some(rest) = host.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(malformed(SHAPE))?;
        (host, rest.strip_prefix(':'))
    } else {
        match host.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host, None),
        }
    };
    let port = match port {
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(malformed("the port of an SFTP location is a number")),
        },
        None => None,
    };
    // A dash at the front would be an option for ssh.
    let is_option = |text: &str| text.starts_with('-');
    if host.is_empty()
        || is_option(host)
        || user.is_some_and(|user| user.is_empty() || is_option(user))
    {
        return Err(malformed(SHAPE));
    }
    let trimmed = path.trim_end_matches('/');
    if path.is_empty() || (trimmed.is_empty() && !path.starts_with('/')) {
        return Err(malformed(SHAPE));
    }
    if path.starts_with('~') {
        return Err(malformed(
            "`~` means nothing to an SFTP server: a path without a `/` at its front counts from the home folder",
        ));
    }
    Ok(SftpLocation {
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
        path: if trimmed.is_empty() { "/" } else { trimmed }.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn s3(text: &str) -> S3Location {
        match RemoteLocation::parse(text).unwrap() {
            RemoteLocation::S3(location) => location,
            other => panic!("{other:?}"),
        }
    }

    fn sftp(text: &str) -> SftpLocation {
        match RemoteLocation::parse(text).unwrap() {
            RemoteLocation::Sftp(location) => location,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn s3_as_restic_writes_it() {
        for (text, endpoint, bucket, prefix) in [
            (
                "s3:s3.amazonaws.com/bucket",
                "https://s3.amazonaws.com",
                "bucket",
                "",
            ),
            (
                "s3:https://host:9000/b/some/prefix/",
                "https://host:9000",
                "b",
                "some/prefix",
            ),
            (
                "s3:http://127.0.0.1:8333/b//p",
                "http://127.0.0.1:8333",
                "b",
                "p",
            ),
            ("s3://eu.example/b/p", "https://eu.example", "b", "p"),
        ] {
            let found = s3(text);
            assert_eq!(
                (
                    found.endpoint.as_str(),
                    found.bucket.as_str(),
                    found.prefix.as_str()
                ),
                (endpoint, bucket, prefix),
                "{text}"
            );
            assert_eq!(s3(&found.to_string()), found, "{text}");
        }
        assert_eq!(s3("s3:host/b/p").to_string(), "s3:host/b/p");
        assert_eq!(s3("s3:https://host/b").to_string(), "s3:https://host/b");
    }

    #[test]
    fn amazons_hosts_tell_their_region() {
        for (text, region) in [
            ("s3:s3.amazonaws.com/b", None),
            ("s3:s3.eu-central-1.amazonaws.com/b", Some("eu-central-1")),
            (
                "s3:https://s3.dualstack.eu-west-3.amazonaws.com/b",
                Some("eu-west-3"),
            ),
            ("s3:s3.cn-north-1.amazonaws.com.cn/b", Some("cn-north-1")),
            ("s3:https://s3.example.org/b", None),
        ] {
            assert_eq!(s3(text).region(), region, "{text}");
        }
        assert!(s3("s3:s3.amazonaws.com/b").is_amazon());
        assert!(!s3("s3:s3.amazonaws.com.evil.example/b").is_amazon());
    }

    #[test]
    fn sftp_as_restic_writes_it() {
        for (text, user, host, port, path) in [
            (
                "sftp:backup@nas:/srv/repo",
                Some("backup"),
                "nas",
                None,
                "/srv/repo",
            ),
            ("sftp:nas:repo/", None, "nas", None, "repo"),
            (
                "sftp://backup@nas:2222//srv/repo",
                Some("backup"),
                "nas",
                Some(2222),
                "/srv/repo",
            ),
            ("sftp://nas/repo", None, "nas", None, "repo"),
            ("sftp://u@[::1]:2222//r", Some("u"), "::1", Some(2222), "/r"),
            (
                "sftp:me@example.org@nas:/r",
                Some("me@example.org"),
                "nas",
                None,
                "/r",
            ),
        ] {
            let found = sftp(text);
            assert_eq!(
                (
                    found.user.as_deref(),
                    found.host.as_str(),
                    found.port,
                    found.path.as_str()
                ),
                (user, host, port, path),
                "{text}"
            );
            assert_eq!(sftp(&found.to_string()), found, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_location_is_refused_without_being_repeated() {
        for text in [
            "s3:",
            "s3:host",
            "s3:https:///bucket",
            "s3:ftp://host/bucket",
            "s3:https://host/b?x",
            "s3:https://hunter2:hunter2@host/bucket",
            "sftp:",
            "sftp:host",
            "sftp:host:",
            "sftp://host",
            "sftp://host:port//p",
            "sftp://host:0//p",
            "sftp:-oProxyCommand=hunter2:/p",
            "sftp:-l@host:/p",
            "sftp:u:hunter2@host:/p",
            "sftp://u:hunter2@host//p",
            "sftp:host:~/repo",
            "gs:b:/p",
            "/a/folder",
        ] {
            let error = RemoteLocation::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
