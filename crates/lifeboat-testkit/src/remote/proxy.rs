//! An HTTP proxy that does wrong what it is told to: in front of a real S3 server, for what real networks do.
//!
//! One request to a connection, in both directions: what arrived, and what the server thinks of it, is then known
//! for each request by itself. The server sees what the client signed, its `Host` included.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::process::connect;

/// How often a connection that says nothing looks whether the test is over.
const TICK: Duration = Duration::from_millis(20);

/// What may go wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status and code of S3's, and not forwarded.
    Answer(u16, &'static str),
    /// The connection is reset after half of the request.
    ResetInRequest,
    /// The server does what it is asked; the connection is reset in the middle of its answer.
    ResetInAnswer,
    /// The server does what it is asked; its answer never comes.
    SilentAnswer,
    /// Neither forwarded nor answered.
    Silent,
    /// Half of the answer, then an orderly end.
    Truncated,
    /// The answer comes in small pieces, with pauses.
    Slow,
}

impl Fault {
    /// For people.
    pub fn name(self) -> String {
        match self {
            Fault::Answer(status, code) => format!("{status} {code}"),
            Fault::ResetInRequest => "a reset in the middle of a request".to_owned(),
            Fault::ResetInAnswer => "a reset in the middle of an answer".to_owned(),
            Fault::SilentAnswer => "done, but no answer".to_owned(),
            Fault::Silent => "not done, and no answer".to_owned(),
            Fault::Truncated => "half an answer".to_owned(),
            Fault::Slow => "slow answers".to_owned(),
        }
    }
}

/// Decides about a request by its number, which counts from 1.
type Plan = Box<dyn Fn(usize) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    requests: usize,
    struck: usize,
}

struct Shared {
    server: u16,
    stop: AtomicBool,
    state: Mutex<State>,
}

/// A proxy on a port of its own. Dropped, it is gone.
pub struct FaultyProxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for FaultyProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyProxy")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl FaultyProxy {
    /// In front of a port of the loopback. Does nothing wrong yet.
    pub fn start(server: u16) -> FaultyProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            server,
            stop: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        FaultyProxy {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// `http://127.0.0.1:…`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on requests are numbered from 1, and `plan` says what goes wrong with which.
    pub fn strike(&self, plan: impl Fn(usize) -> Option<Fault> + Send + 'static) {
        *self.shared.state() = State {
            plan: Some(Box::new(plan)),
            ..State::default()
        };
    }

    /// Nothing goes wrong any more. Says how many requests there were, and with how many something did.
    pub fn calm(&self) -> (usize, usize) {
        let state = std::mem::take(&mut *self.shared.state());
        (state.requests, state.struck)
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which waits for those that it started.
        drop(connect(self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn fault(&self) -> Option<Fault> {
        let mut state = self.state();
        state.requests += 1;
        let number = state.requests;
        let fault = state.plan.as_ref().and_then(|plan| plan(number));
        state.struck += usize::from(fault.is_some());
        fault
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    std::thread::scope(|scope| {
        for client in listener.incoming() {
            if shared.is_over() {
                return;
            }
            if let Ok(client) = client {
                // Whatever fails on the way is between client and server.
                scope.spawn(move || drop(serve(client, shared)));
            }
        }
    });
}

fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(TICK))?;
    let Some(head) = read_head(&mut client, shared)? else {
        return Ok(());
    };
    let fault = shared.fault();
    if let Some(Fault::Answer(status, code)) = fault {
        // Read to its end: or else the client may never see the answer.
        read_body(&mut client, &head, length(&head), shared)?;
        let body =
            format!("<Error><Code>{code}</Code><Message>as the test wants</Message></Error>");
        let is_head = head.bytes.starts_with(b"HEAD ");
        return write!(
            client,
            "HTTP/1.1 {status} Fault\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            body.len(),
            if is_head { "" } else { &body }
        );
    }
    if fault == Some(Fault::ResetInRequest) {
        read_body(&mut client, &head, length(&head) / 2, shared)?;
        return reset(&client);
    }
    let body = read_body(&mut client, &head, length(&head), shared)?;
    if fault == Some(Fault::Silent) {
        return wait_until_gone(&mut client, shared);
    }
    let answer = ask(shared.server, &head, &body)?;
    let half = answer.len() / 2;
    match fault {
        Some(Fault::SilentAnswer) => wait_until_gone(&mut client, shared),
        Some(Fault::Truncated) => client.write_all(&answer[..half]),
        Some(Fault::ResetInAnswer) => {
            client.write_all(&answer[..half])?;
            reset(&client)
        }
        Some(Fault::Slow) => {
            for piece in answer.chunks((answer.len() / 8).max(1)) {
                client.write_all(piece)?;
                std::thread::park_timeout(TICK);
            }
            Ok(())
        }
        _ => client.write_all(&answer),
    }
}

/// The lines of a request, and what had already arrived behind them.
struct Head {
    bytes: Vec<u8>,
    behind: Vec<u8>,
}

fn read_head(client: &mut TcpStream, shared: &Shared) -> io::Result<Option<Head>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let behind = bytes.split_off(end + 4);
            return Ok(Some(Head { bytes, behind }));
        }
        if read_some(client, &mut bytes, shared)? == 0 {
            return Ok(None);
        }
    }
}

fn read_body(
    client: &mut TcpStream,
    head: &Head,
    wanted: usize,
    shared: &Shared,
) -> io::Result<Vec<u8>> {
    let mut body = head.behind.clone();
    while body.len() < wanted {
        if read_some(client, &mut body, shared)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body)
}

/// Appends what comes; 0 at the end, or when the test is over.
fn read_some(client: &mut TcpStream, bytes: &mut Vec<u8>, shared: &Shared) -> io::Result<usize> {
    let mut buffer = [0; 64 << 10];
    loop {
        match client.read(&mut buffer) {
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                return Ok(count);
            }
            Err(_) if shared.is_over() => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait_until_gone(client: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    while read_some(client, &mut Vec::new(), shared)? > 0 {}
    Ok(())
}

fn length(head: &Head) -> usize {
    let text = String::from_utf8_lossy(&head.bytes).to_ascii_lowercase();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

/// The server's whole answer.
fn ask(port: u16, head: &Head, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    server.set_nodelay(true)?;
    let lines = &head.bytes[..head.bytes.len() - 2];
    server.write_all(&[lines, b"Connection: close\r\n\r\n", body].concat())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Ends a connection as a router does that has forgotten it.
pub(super) fn reset(client: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    Ok(())
}
