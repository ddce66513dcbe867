//! Messages over a socket or a TLS session: framing on top, waiting and interrupts below.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::backend;

use super::error::{PgError, ServerError};
use super::input::{Frame, Input};
use super::socket::{Socket, is_wake_up};
use super::tls::TlsSession;
use super::watch::{Stop, Watch, stop_inside};

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsSession>),
}

impl Stream {
    pub fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(session) => session.socket(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub stream: Stream,
    pub input: Input,
    /// Messages put together and not yet sent.
    pub output: BytesMut,
    pub watch: Watch,
}

impl Channel {
    pub fn new(stream: Stream, watch: Watch) -> Channel {
        Channel {
            stream,
            input: Input::new(),
            output: BytesMut::new(),
            watch,
        }
    }

    /// Waits for more bytes; returns how many came.
    pub fn fill(&mut self) -> Result<usize, PgError> {
        loop {
            self.watch.check().map_err(stopped)?;
            let space = self.input.space();
            let read = match &mut self.stream {
                Stream::Plain(socket) => socket.read(space),
                Stream::Tls(session) => session.read(space),
            };
            match read {
                Ok(0) => {
                    return Err(PgError::Lost(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server closed it",
                    )));
                }
                Ok(length) => {
                    self.input.filled(length);
                    return Ok(length);
                }
                Err(error) if is_wake_up(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }

    /// The next message of any kind.
    pub fn next_frame(&mut self) -> Result<Frame, PgError> {
        loop {
            if let Some(frame) = self.input.next_frame()? {
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    pub fn body(&self, frame: &Frame) -> &[u8] {
        self.input.slice(frame.body.clone())
    }

    /// Sends all of `data`, waiting as long as it takes.
    pub fn send(&mut self, mut data: &[u8]) -> Result<(), PgError> {
        while !data.is_empty() {
            let written = match &mut self.stream {
                Stream::Plain(socket) => socket.write(data),
                Stream::Tls(session) => session.write(data),
            };
            match written {
                Ok(length) => data = data.get(length..).unwrap_or(&[]),
                Err(error) if is_wake_up(&error) => self.watch.check().map_err(stopped)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed_send(error)),
            }
        }
        Ok(())
    }

    /// Sends what `output` holds and makes sure that nothing waits in the TLS session.
    pub fn flush(&mut self) -> Result<(), PgError> {
        let mut output = std::mem::take(&mut self.output);
        let sent = self.send(&output);
        output.clear();
        self.output = output;
        sent?;
        loop {
            let Stream::Tls(session) = &mut self.stream else {
                return Ok(());
            };
            match session.flush() {
                Ok(()) => return Ok(()),
                Err(error) if is_wake_up(&error) => self.watch.check().map_err(stopped)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed_send(error)),
            }
        }
    }

    /// A server that ends a session says why before it hangs up, and the reason is worth more than
    /// "broken pipe".
    fn failed_send(&mut self, error: io::Error) -> PgError {
        if stop_inside(&error).is_none() {
            while let Ok(frame) = self.next_frame() {
                if frame.tag == backend::ERROR_RESPONSE_TAG {
                    return PgError::Server(Box::new(ServerError::parse(self.body(&frame))));
                }
            }
        }
        lost(error)
    }
}

pub(crate) fn lost(error: io::Error) -> PgError {
    match stop_inside(&error) {
        Some(stop) => stopped(stop),
        None => PgError::Lost(error),
    }
}

/// Who connects replaces the timeout by one that names the host.
pub(crate) fn stopped(stop: Stop) -> PgError {
    match stop {
        Stop::Interrupted => PgError::Interrupted,
        Stop::Deadline => PgError::Timeout {
            host: String::new(),
            seconds: 0,
        },
    }
}
