//! What a server's refusal means.
//!
//! OpenDAL's errors tell kinds apart that matter to it; for a backup more do: a wrong key from a missing
//! permission, a missing bucket from a missing object, a full disk from a bad day. So the answer is noted where
//! it arrives, in the transport, and understood here, by its status and its code ("Error responses" in Amazon's
//! S3 API reference), never by the words of its message.

use crate::storage::StorageErrorKind;
use crate::storage::remote::attempt::{Failed, MOST_OF_A_LINE, printable};

/// How a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There was an answer: no.
    Status {
        status: u16,
        /// `<Code>` of the answer, if it had one. An answer to HEAD never has.
        code: Option<String>,
        /// `<Message>` of the answer, shortened.
        message: Option<String>,
    },
    /// There was no answer, or not all of it.
    Lost {
        /// Whether another try may fare better.
        may_pass: bool,
        cause: String,
    },
}

impl Refusal {
    /// Reads the body of an error.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            let (value, _) = rest.split_once(&format!("</{name}>"))?;
            let value = printable(value, MOST_OF_A_LINE);
            let value = [
                ("&quot;", "\""),
                ("&#34;", "\""),
                ("&apos;", "'"),
                ("&#39;", "'"),
                ("&lt;", "<"),
                ("&gt;", ">"),
                ("&amp;", "&"),
            ]
            .iter()
            .fold(value, |value, (entity, letter)| {
                value.replace(entity, letter)
            });
            (!value.trim().is_empty()).then(|| value.trim().to_owned())
        };
        Self::Status {
            status,
            code: element("Code"),
            message: element("Message"),
        }
    }

    /// Whether the server doesn't know the conditional put.
    pub(super) fn is_not_implemented(&self) -> bool {
        match self {
            Self::Status { status, code, .. } => {
                *status == 501 || code.as_deref() == Some("NotImplemented")
            }
            Self::Lost { .. } => false,
        }
    }

    pub(super) fn failed(&self) -> Failed {
        let (status, code, message) = match self {
            Self::Lost { may_pass, cause } => {
                return Failed::new((StorageErrorKind::Unreachable, *may_pass), cause);
            }
            Self::Status {
                status,
                code,
                message,
            } => (*status, code.as_deref(), message.as_deref()),
        };
        let mut cause = format!("the server answered {status}");
        for part in [
            code.map(|code| format!(" {code}")),
            message.map(|message| format!(": {message}")),
        ] {
            cause.push_str(&part.unwrap_or_default());
        }
        Failed::new(meaning(status, code), cause)
    }
}

/// What a status and a code mean, and whether that may pass.
fn meaning(status: u16, code: Option<&str>) -> (StorageErrorKind, bool) {
    use StorageErrorKind as Kind;
    match code {
        Some(
            "SignatureDoesNotMatch"
            | "InvalidAccessKeyId"
            | "InvalidSecurity"
            | "InvalidToken"
            | "ExpiredToken"
            | "TokenRefreshRequired"
            | "RequestTimeTooSkewed"
            | "NotSignedUp"
            | "AuthorizationHeaderMalformed"
            | "MissingSecurityHeader"
            | "AccountProblem",
        ) => return (Kind::BadCredentials, false),
        Some("NoSuchBucket" | "InvalidBucketName" | "PermanentRedirect") => {
            return (Kind::NoSuchPlace, false);
        }
        Some("QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage") => {
            return (Kind::NoSpace, false);
        }
        // What arrived is not what was sent, which a bad cable or proxy does.
        Some("BadDigest" | "IncompleteBody") => return (Kind::Unreachable, true),
        Some(
            "SlowDown"
            | "InternalError"
            | "ServiceUnavailable"
            | "RequestTimeout"
            | "TooManyRequests"
            | "OperationAborted"
            | "ConditionalRequestConflict",
        ) => return (Kind::Unreachable, true),
        _ => {}
    }
    match status {
        // Redirects are not followed: an answer to a signed request is for this address alone.
        300..=399 => (Kind::NoSuchPlace, false),
        401 => (Kind::BadCredentials, false),
        403 => (Kind::PermissionDenied, false),
        404 => (Kind::NotFound, false),
        412 => (Kind::AlreadyExists, false),
        416 => (Kind::TooShort, false),
        507 => (Kind::NoSpace, false),
        408 | 425 | 429 | 499 => (Kind::Unreachable, true),
        501 | 505 => (Kind::Other, false),
        500.. => (Kind::Unreachable, true),
        _ => (Kind::Other, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        use StorageErrorKind as Kind;
        for (status, code, kind, may_pass) in [
            (403, "SignatureDoesNotMatch", Kind::BadCredentials, false),
            (403, "InvalidAccessKeyId", Kind::BadCredentials, false),
            (400, "ExpiredToken", Kind::BadCredentials, false),
            (403, "AccessDenied", Kind::PermissionDenied, false),
            (403, "", Kind::PermissionDenied, false),
            (404, "NoSuchBucket", Kind::NoSuchPlace, false),
            (301, "", Kind::NoSuchPlace, false),
            (307, "TemporaryRedirect", Kind::NoSuchPlace, false),
            (404, "NoSuchKey", Kind::NotFound, false),
            (404, "", Kind::NotFound, false),
            (412, "PreconditionFailed", Kind::AlreadyExists, false),
            (409, "ConditionalRequestConflict", Kind::Unreachable, true),
            (429, "", Kind::Unreachable, true),
            (503, "SlowDown", Kind::Unreachable, true),
            (500, "InternalError", Kind::Unreachable, true),
            (502, "", Kind::Unreachable, true),
            (400, "BadDigest", Kind::Unreachable, true),
            (400, "EntityTooLarge", Kind::Other, false),
            (507, "", Kind::NoSpace, false),
            (501, "NotImplemented", Kind::Other, false),
            (400, "InvalidArgument", Kind::Other, false),
        ] {
            let code = (!code.is_empty()).then_some(code);
            assert_eq!(meaning(status, code), (kind, may_pass), "{status} {code:?}");
        }
    }

    #[test]
    fn only_code_and_message_are_repeated() {
        let body = b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code>\
            <Message>No &quot;such&quot;\nkey</Message><AWSAccessKeyId>AKIAHUNTER2</AWSAccessKeyId></Error>";
        let failed = Refusal::read(403, body).failed();
        assert_eq!(
            failed.cause,
            "the server answered 403 InvalidAccessKeyId: No \"such\" key"
        );
        assert_eq!(
            Refusal::read(502, b"<html>bad</html>").failed().cause,
            "the server answered 502"
        );
        assert!(Refusal::read(501, b"").is_not_implemented());
    }
}
