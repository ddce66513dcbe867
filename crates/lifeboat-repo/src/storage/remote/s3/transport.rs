//! Carries OpenDAL's requests, and sees what OpenDAL's errors no longer tell: how a request failed, whether
//! bytes still move, and how fast they may.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::{Request, Response};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use tokio::time::Sleep;

use super::answer::Refusal;
use crate::storage::remote::attempt::Patience;
use crate::storage::remote::throttle::Throttle;

/// The most of an error's body that is read.
const LARGEST_ERROR_BYTES: usize = 64 << 10;

/// What is handed to the connection at once, so that the limit and the progress are smooth.
const FRAME_BYTES: usize = 64 << 10;

/// One operation under way: who waits for it, and how its last request failed, if it did.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) patience: Arc<Patience>,
    refusal: Mutex<Option<Refusal>>,
}

impl Call {
    pub(super) fn new(patience: Arc<Patience>) -> Arc<Self> {
        Arc::new(Self {
            patience,
            refusal: Mutex::default(),
        })
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }
}

tokio::task_local! {
    /// The operation that the present task is about. OpenDAL calls the transport with nothing that would tell.
    pub(super) static CALL: Arc<Call>;
}

#[derive(Debug)]
pub(super) struct Transport {
    client: reqwest::Client,
    throttle: Option<Arc<Throttle>>,
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, throttle: Option<Arc<Throttle>>) -> Self {
        Self { client, throttle }
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let call = CALL.try_with(Arc::clone).ok();
        let note = |refusal: Refusal| {
            if let Some(call) = &call {
                call.note(refusal);
            }
        };
        let is_head = request.method() == http::Method::HEAD;
        let uri = request.uri().clone();
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse(&uri.to_string())
            .map_err(|_| Error::new(ErrorKind::ConfigInvalid, "not a URL"))?;
        let mut request = self
            .client
            .request(parts.method, url)
            .headers(parts.headers);
        if !body.is_empty() {
            request = request.body(reqwest::Body::wrap(Upload {
                body,
                frame: Bytes::new(),
                throttle: self.throttle.clone(),
                pause: None,
                call: call.clone(),
            }));
        }
        let answer = request.send().await.map_err(|error| {
            note(lost(&error));
            Error::new(ErrorKind::Unexpected, "no answer")
        })?;
        if let Some(call) = &call {
            call.patience.progressed();
        }

        let status = answer.status();
        let headers = answer.headers().clone();
        let content_length = answer.content_length();
        // A redirect is an error, too: none is followed.
        let body = if !status.is_success() {
            let body = read_error(answer).await;
            note(Refusal::read(status.as_u16(), &body));
            HttpBody::new(futures_util::stream::iter([Ok(Buffer::from(body))]), None)
        } else {
            let progress = call.clone();
            let stream = answer
                .bytes_stream()
                .map_ok(move |bytes| {
                    if let Some(call) = &progress {
                        call.patience.progressed();
                    }
                    Buffer::from(bytes)
                })
                .map_err(move |error| {
                    if let Some(call) = &call {
                        call.note(lost(&error));
                    }
                    Error::new(ErrorKind::Unexpected, "the answer was cut off")
                });
            HttpBody::new(stream, content_length.filter(|_| !is_head))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.extensions_mut().insert(uri);
        Ok(response)
    }
}

async fn read_error(answer: reqwest::Response) -> Bytes {
    let mut body = Vec::new();
    let mut stream = answer.bytes_stream();
    // What can't be read of it is not missed.
    while let Some(Ok(bytes)) = stream.next().await {
        body.extend_from_slice(&bytes);
        if body.len() >= LARGEST_ERROR_BYTES {
            break;
        }
    }
    body.into()
}

/// A request that got no answer.
fn lost(error: &reqwest::Error) -> Refusal {
    let mut innermost: &dyn StdError = error;
    let mut certificate = None;
    while let Some(source) = innermost.source() {
        certificate = certificate.or_else(|| source.downcast_ref::<rustls::Error>());
        innermost = source;
    }
    // rustls wraps itself in an io::Error, whose source is what rustls says, without rustls.
    let io = innermost.downcast_ref::<std::io::Error>();
    let certificate = certificate.or_else(|| io?.get_ref()?.downcast_ref::<rustls::Error>());
    if let Some(error) = certificate {
        return Refusal::Lost {
            may_pass: !matches!(
                error,
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
            ),
            cause: format!("no TLS connection: {error}"),
        };
    }
    let cause = innermost.to_string();
    Refusal::Lost {
        may_pass: !error.is_builder(),
        cause: if error.is_connect() {
            format!("no connection: {cause}")
        } else {
            format!("the connection was lost: {cause}")
        },
    }
}

/// A request's body, in frames, not faster than is allowed.
struct Upload {
    body: Buffer,
    frame: Bytes,
    throttle: Option<Arc<Throttle>>,
    pause: Option<Pin<Box<Sleep>>>,
    call: Option<Arc<Call>>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        // Asked for more, or waiting by our own will: either way the connection is alive.
        if let Some(call) = &self.call {
            call.patience.progressed();
        }
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if self.frame.is_empty() {
            match Iterator::next(&mut self.body) {
                Some(bytes) => self.frame = bytes,
                None => return Poll::Ready(None),
            }
        }
        let length = self.frame.len().min(FRAME_BYTES);
        let frame = self.frame.split_to(length);
        if let Some(throttle) = &self.throttle {
            // Paid for after it goes, waited for before the next.
            let pause = throttle.pay(length);
            if pause > Duration::ZERO {
                self.pause = Some(Box::pin(tokio::time::sleep(pause)));
            }
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty() && self.frame.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact((self.body.len() + self.frame.len()) as u64)
    }
}
