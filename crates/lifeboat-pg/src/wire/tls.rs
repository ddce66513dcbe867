//! A TLS session over a socket, by rustls.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::socket::{Socket, is_wake_up};
use super::watch::Watch;

/// Ciphertext read ahead in one system call; rustls alone would ask for 4 KiB at a time.
const RAW_BYTES: usize = 256 * 1024;

pub(crate) struct TlsSession {
    socket: Socket,
    tls: ClientConnection,
    raw: Vec<u8>,
    start: usize,
    end: usize,
}

impl std::fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSession")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl TlsSession {
    /// Shakes hands. Certificate trouble arrives as an `io::Error` that holds a `rustls::Error`.
    pub fn start(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        watch: &Watch,
    ) -> io::Result<TlsSession> {
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut session = TlsSession {
            socket,
            tls,
            raw: vec![0; RAW_BYTES],
            start: 0,
            end: 0,
        };
        while session.tls.is_handshaking() {
            watch.check_io()?;
            let step = match session.flush() {
                Ok(()) if session.tls.is_handshaking() => session.take_in(),
                other => other.map(|()| true),
            };
            match step {
                Ok(true) => {}
                Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if is_wake_up(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The alert that says what displeased us; the server logs it.
                    let _ = session.tls.write_tls(&mut SocketWriter(&session.socket));
                    return Err(error);
                }
            }
        }
        Ok(session)
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The server's own certificate, in DER.
    pub fn server_certificate(&self) -> Option<&[u8]> {
        self.tls.peer_certificates()?.first().map(AsRef::as_ref)
    }

    pub fn negotiated_postgres(&self) -> bool {
        self.tls.alpn_protocol() == Some(b"postgresql")
    }

    /// Moves ciphertext into rustls; false at the end of the stream.
    fn take_in(&mut self) -> io::Result<bool> {
        if self.start == self.end {
            // Both at once and before the read: one that only wakes up must not leave old bytes behind.
            (self.start, self.end) = (0, 0);
            self.end = self.socket.read(&mut self.raw)?;
        }
        if self.end == 0 {
            // Tells rustls that this is the end, so that a cut-off stream is told from a closed one.
            self.tls.read_tls(&mut io::empty())?;
            return Ok(false);
        }
        let mut ciphertext = &self.raw[self.start..self.end];
        self.start += self.tls.read_tls(&mut ciphertext)?;
        self.tls.process_new_packets().map_err(io::Error::other)?;
        Ok(true)
    }

    /// Reads plaintext, filling `buffer` as far as what has arrived reaches.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            match self.tls.reader().read(&mut buffer[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(length) => {
                    filled += length;
                    if filled == buffer.len() {
                        return Ok(filled);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if filled > 0 && self.start == self.end {
                        return Ok(filled);
                    }
                    if !self.take_in()? {
                        return Ok(filled);
                    }
                    // A key update wants an answer. If it cannot go out now, the next write takes it
                    // along; failing here would lose what `buffer` already holds.
                    let _ = self.flush();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes some of `data`; it may stay inside until `flush`.
    pub fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(data)?;
        match self.flush() {
            Ok(()) => Ok(taken),
            Err(error) if is_wake_up(&error) && taken > 0 => Ok(taken),
            Err(error) => Err(error),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut SocketWriter(&self.socket))?;
        }
        Ok(())
    }

    /// Says one last thing and hangs up, without waiting for anything.
    pub fn close_with(&mut self, data: &[u8]) {
        let mut last = Vec::new();
        let _ = self.tls.writer().write_all(data);
        self.tls.send_close_notify();
        while self.tls.wants_write() && self.tls.write_tls(&mut last).is_ok() {}
        self.socket.send_without_waiting(&last);
    }
}

struct SocketWriter<'a>(&'a Socket);

impl io::Write for SocketWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
