//! A bucket, through OpenDAL.
//!
//! What a bucket lacks, and what stands in for it:
//! - There are no folders, so nothing says whether a repository was ever made at a prefix. A place without
//!   `config`, in which this process made none, is "not found", as a folder that is missing would be.
//! - A put is whole or not there; that it never replaces is asked for with `If-None-Match: *`. A server that
//!   ignores or refuses that is asked beforehand whether the object exists, which leaves a moment in which two
//!   writers can both succeed. Files are named by their content, so they bring the same bytes; only `config`
//!   is not, and only two `init` at the same instant could write that.

mod answer;
mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opendal::options::{ListOptions, ReadOptions, WriteOptions};
use opendal::{Buffer, BytesRange, EntryMode, HttpTransporter, OperationContext, Operator};
use secrecy::{ExposeSecret, SecretString};

use super::attempt::{Failed, Patience, TICK};
use super::location::S3Location;
use super::throttle::{self, Throttle};
use super::{Backend, LARGEST_UNCHECKED_RANGE};
use crate::storage::{FileEntry, FileKind, StorageErrorKind, is_valid_name, layout};
use transport::{CALL, Call, Transport};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How a bucket is accessed.
#[derive(Debug, Clone)]
pub struct S3Access {
    /// The region that requests are signed for; servers other than Amazon's mostly don't mind.
    pub region: String,
    /// Whether the bucket is the first part of the path, or else the first label of the host.
    pub path_style: bool,
    /// Who asks.
    pub access_key_id: String,
    /// What proves it.
    pub secret_access_key: SecretString,
    /// What temporary credentials have besides.
    pub session_token: Option<SecretString>,
}

pub(super) struct S3Backend {
    operator: Operator,
    location: S3Location,
    throttle: Option<Arc<Throttle>>,
    /// A thread that drives the sockets; futures are polled by whoever waits for them.
    runtime: Option<tokio::runtime::Runtime>,
    /// Whether there is a repository here, or this process is making one.
    exists: AtomicBool,
    /// Whether the server takes `If-None-Match` on a put.
    has_conditional_put: AtomicBool,
}

impl std::fmt::Debug for S3Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Backend")
            .field("location", &self.location.to_string())
            .finish_non_exhaustive()
    }
}

impl Drop for S3Backend {
    fn drop(&mut self) {
        // Not waited for: nobody is interested in what is still under way.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl S3Backend {
    pub(super) fn new(
        location: &S3Location,
        access: &S3Access,
        throttle: Option<Arc<Throttle>>,
    ) -> Result<Self, Failed> {
        let other = |cause: String| Failed::for_good(StorageErrorKind::Other, cause);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| other(format!("no thread for the network: {error}")))?;
        let mut service = opendal::services::S3::default()
            .bucket(&location.bucket)
            .root(&format!("/{}", location.prefix))
            .endpoint(&location.endpoint)
            .region(&access.region)
            .access_key_id(&access.access_key_id)
            .secret_access_key(access.secret_access_key.expose_secret())
            // The environment is for whoever made `access` to read.
            .disable_config_load()
            .disable_ec2_metadata()
            // Buckets with object lock want one, and it finds what a bad cable or proxy did.
            .checksum_algorithm("md5");
        if let Some(token) = &access.session_token {
            service = service.session_token(token.expose_secret());
        }
        if !access.path_style {
            service = service.enable_virtual_host_style();
        }
        let transport = Transport::new(client().map_err(other)?, throttle.clone());
        let context =
            OperationContext::default().with_http_transport(HttpTransporter::new(transport));
        let operator = Operator::new(service)
            .map_err(|error| other(error.message().to_owned()))?
            .with_context(context);
        Ok(Self {
            operator,
            location: location.clone(),
            throttle,
            runtime: Some(runtime),
            exists: AtomicBool::new(false),
            has_conditional_put: AtomicBool::new(true),
        })
    }

    /// Runs an operation to its end, or to the end of patience.
    fn run<T>(
        &self,
        patience: &Arc<Patience>,
        operation: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, Failed> {
        self.run_noting(patience, operation)
            .map_err(|(failed, _)| failed)
    }

    /// As [`S3Backend::run`]; an error says whether the server does not know the conditional put.
    fn run_noting<T>(
        &self,
        patience: &Arc<Patience>,
        operation: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, (Failed, bool)> {
        let Some(runtime) = &self.runtime else {
            return Err((Failed::interrupted(), false));
        };
        let call = Call::new(Arc::clone(patience));
        let watched = async {
            let operation = CALL.scope(Arc::clone(&call), operation);
            let mut operation = std::pin::pin!(operation);
            loop {
                match tokio::time::timeout(TICK, operation.as_mut()).await {
                    Ok(done) => return done.map_err(|error| understand(&error, &call)),
                    Err(_) => patience.check().map_err(|failed| (failed, false))?,
                }
            }
        };
        runtime.block_on(watched)
    }

    /// Asks for a listing of nothing much, only for the sake of how that fails: unlike an answer to HEAD, it
    /// says why.
    fn reason(&self, patience: &Arc<Patience>) -> Result<(), Failed> {
        let probe = async {
            let options = ListOptions {
                limit: Some(1),
                ..ListOptions::default()
            };
            let mut lister = self
                .operator
                .lister_options(&prefix(FileKind::Key), options)
                .await?;
            use futures_util::TryStreamExt as _;
            lister.try_next().await
        };
        self.run(patience, probe).map(|_| ())
    }

    /// `NotFound` unless there is a repository here, or this process is about to make one.
    fn require_repository(&self, patience: &Arc<Patience>) -> Result<(), Failed> {
        if self.exists.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.size(FileKind::Config, "config", patience) {
            Err(failed) if failed.kind == StorageErrorKind::NotFound => {
                Err(Failed::no_repository())
            }
            found => found.map(|_| ()),
        }
    }

    /// Waits for the right to move `bytes`.
    fn put_once(
        &self,
        path: &str,
        content: &Bytes,
        only_if_new: bool,
        patience: &Arc<Patience>,
    ) -> Result<(), (Failed, bool)> {
        let options = WriteOptions {
            if_not_exists: only_if_new,
            ..WriteOptions::default()
        };
        let content = Buffer::from(content.clone());
        self.run_noting(
            patience,
            self.operator.write_options(path, content, options),
        )
        .map(|_| ())
    }
}

impl Backend for S3Backend {
    fn location(&self) -> String {
        self.location.to_string()
    }

    fn list(&self, kind: FileKind, patience: &Arc<Patience>) -> Result<Vec<FileEntry>, Failed> {
        if kind == FileKind::Config {
            self.require_repository(patience)?;
            return match self.size(kind, "config", patience) {
                Ok(size_bytes) => Ok(vec![FileEntry {
                    name: "config".to_owned(),
                    size_bytes,
                    modified: None,
                }]),
                Err(failed) if failed.kind == StorageErrorKind::NotFound => Ok(Vec::new()),
                Err(failed) => Err(failed),
            };
        }
        let options = ListOptions {
            recursive: kind == FileKind::Pack,
            ..ListOptions::default()
        };
        let listed = self.run(patience, self.operator.list_options(&prefix(kind), options))?;
        let mut found = Vec::with_capacity(listed.len());
        for entry in listed {
            let name = entry.path().rsplit('/').next().unwrap_or_default();
            // What lies elsewhere, such as a pack under another's prefix, would never be found by its name.
            if entry.metadata().mode() == EntryMode::FILE
                && is_valid_name(kind, name)
                && entry.path() == layout::path(kind, name)
            {
                found.push(FileEntry {
                    name: name.to_owned(),
                    size_bytes: entry.metadata().content_length(),
                    modified: entry.metadata().last_modified().map(Into::into),
                });
            }
        }
        if found.is_empty() {
            self.require_repository(patience)?;
        }
        Ok(found)
    }

    fn size(&self, kind: FileKind, name: &str, patience: &Arc<Patience>) -> Result<u64, Failed> {
        match self.run(patience, self.operator.stat(&layout::path(kind, name))) {
            Ok(metadata) => {
                if kind == FileKind::Config {
                    self.exists.store(true, Ordering::Relaxed);
                }
                Ok(metadata.content_length())
            }
            // Without `config` it may be the bucket that is missing.
            Err(failed)
                if failed.kind == StorageErrorKind::NotFound && kind == FileKind::Config =>
            {
                self.reason(patience)?;
                Err(Failed::not_found())
            }
            Err(failed) if failed.kind == StorageErrorKind::NotFound => Err(Failed::not_found()),
            Err(failed) if failed.may_pass || failed.kind == StorageErrorKind::Interrupted => {
                Err(failed)
            }
            Err(failed) => {
                self.reason(patience)?;
                Err(failed)
            }
        }
    }

    fn read(
        &self,
        kind: FileKind,
        name: &str,
        patience: &Arc<Patience>,
    ) -> Result<Vec<u8>, Failed> {
        let content = self.run(patience, self.operator.read(&layout::path(kind, name)))?;
        throttle::pay(self.throttle.as_deref(), content.len(), patience)?;
        Ok(content.to_vec())
    }

    fn read_range(
        &self,
        (kind, name): (FileKind, &str),
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
        patience: &Arc<Patience>,
    ) -> Result<(), Failed> {
        let end = offset.checked_add(length as u64);
        let too_short = |patience| {
            let size = self.size(kind, name, patience)?;
            Err(Failed::too_short(size, length, offset))
        };
        if length == 0 || length > LARGEST_UNCHECKED_RANGE || end.is_none() {
            let size = self.size(kind, name, patience)?;
            if end.is_none_or(|end| end > size) {
                return Err(Failed::too_short(size, length, offset));
            }
            if length == 0 {
                return Ok(());
            }
        }
        throttle::pay(self.throttle.as_deref(), length, patience)?;
        let options = ReadOptions {
            range: BytesRange::new(offset, Some(length as u64)),
            ..ReadOptions::default()
        };
        let path = layout::path(kind, name);
        match self.run(patience, self.operator.read_options(&path, options)) {
            Ok(content) if content.len() == length => {
                buffer.reserve_exact(length);
                for part in content {
                    buffer.extend_from_slice(&part);
                }
                Ok(())
            }
            Ok(_) => too_short(patience),
            // Half a range is answered with what there is, which OpenDAL takes for a fault of its own.
            Err(failed)
                if matches!(
                    failed.kind,
                    StorageErrorKind::TooShort | StorageErrorKind::Other
                ) =>
            {
                let size = self.size(kind, name, patience)?;
                Err(if end.is_none_or(|end| end > size) {
                    Failed::too_short(size, length, offset)
                } else {
                    failed
                })
            }
            Err(failed) => Err(failed),
        }
    }

    fn put(
        &self,
        kind: FileKind,
        name: &str,
        content: &[u8],
        patience: &Arc<Patience>,
    ) -> Result<(), Failed> {
        self.require_repository(patience)?;
        // Also where there is a conditional put: a pack that is there need not be sent to learn that.
        match self.size(kind, name, patience) {
            Ok(_) => return Err(Failed::already_exists()),
            Err(failed) if failed.kind == StorageErrorKind::NotFound => {}
            Err(failed) => return Err(failed),
        }
        let path = layout::path(kind, name);
        let content = Bytes::copy_from_slice(content);
        if self.has_conditional_put.load(Ordering::Relaxed) {
            match self.put_once(&path, &content, true, patience) {
                Ok(()) => return Ok(()),
                Err((failed, false)) => {
                    return Err(match failed.kind {
                        StorageErrorKind::AlreadyExists => Failed::already_exists(),
                        _ => failed,
                    });
                }
                Err((_, true)) => self.has_conditional_put.store(false, Ordering::Relaxed),
            }
        }
        self.put_once(&path, &content, false, patience)
            .map_err(|(failed, _)| failed)
    }

    fn delete(&self, kind: FileKind, name: &str, patience: &Arc<Patience>) -> Result<(), Failed> {
        // S3 says the same whether there was such an object or not.
        self.size(kind, name, patience)?;
        self.run(patience, self.operator.delete(&layout::path(kind, name)))
    }

    fn create(&self, patience: &Arc<Patience>) -> Result<(), Failed> {
        // There is nothing to make; but whether the bucket is there, and lets us in, is known now.
        self.reason(patience)?;
        self.exists.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn free_space_bytes(&self, _: &Arc<Patience>) -> Option<u64> {
        None
    }

    fn sweep(&self, _: &Arc<Patience>) -> Result<usize, Failed> {
        // An object that was not put whole was not put.
        Ok(0)
    }
}

/// What the names of a kind of files begin with.
fn prefix(kind: FileKind) -> String {
    layout::folder(kind).map_or_else(|| "/".to_owned(), |folder| format!("{folder}/"))
}

/// What was noted in the transport, or else what OpenDAL says of itself.
fn understand(error: &opendal::Error, call: &Call) -> (Failed, bool) {
    match call.refusal() {
        Some(refusal) => (refusal.failed(), refusal.is_not_implemented()),
        None if error.is_temporary() => {
            let failed = Failed::for_now(StorageErrorKind::Unreachable, error.message());
            (failed, false)
        }
        None => {
            let kind = match error.kind() {
                opendal::ErrorKind::NotFound => StorageErrorKind::NotFound,
                opendal::ErrorKind::RangeNotSatisfied => StorageErrorKind::TooShort,
                _ => StorageErrorKind::Other,
            };
            (Failed::for_good(kind, error.message()), false)
        }
    }
}

/// HTTP 1.1 over rustls with ring, given by hand: nothing in the process depends on which provider rustls
/// would choose. The certificates that are trusted are the system's, or those that `SSL_CERT_FILE` names.
fn client() -> Result<reqwest::Client, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        // A bucket in another region redirects; better that this is told than paid for with every request.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())
}
