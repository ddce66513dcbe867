//! A link in front of a server, of any protocol, that goes down when it is told to.
//!
//! From either end a cable that is cut looks like this: nothing comes any more, and nothing says so. What is behind
//! the cut, dropped packets or a proxy that holds them, cannot be told apart.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::process::connect;
use super::proxy::reset;

/// How often a connection looks whether its link is still up.
const TICK: Duration = Duration::from_millis(20);

/// What happens to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    /// What is under way is lost without a word; new connections work.
    Lost,
    /// The link is down: nothing is let through, also of new connections, until [`FaultyLink::up`].
    Down,
    /// The connections that are there are reset; new ones work.
    Reset,
}

#[derive(Debug, Default)]
struct State {
    /// After how many more bytes, in both directions together.
    strike: Option<(usize, LinkFault)>,
    is_down: bool,
    /// A connection of an older generation has met its fault, which was this.
    generation: usize,
    fate: Option<LinkFault>,
    struck: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Shared {
    server: u16,
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// A link with a port of its own at our end. Dropped, it is gone.
#[derive(Debug)]
pub struct FaultyLink {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FaultyLink {
    /// To a port of the loopback.
    pub fn start(server: u16) -> FaultyLink {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            server,
            stop: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        FaultyLink {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The port at our end.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets so many bytes through, then this happens, once.
    pub fn strike_after(&self, bytes: usize, fault: LinkFault) {
        self.shared.state().strike = Some((bytes, fault));
    }

    /// Everything works again. Says how many bytes went through since the last time, and how often something
    /// happened.
    pub fn up(&self) -> (usize, usize) {
        let mut state = self.shared.state();
        state.strike = None;
        state.is_down = false;
        self.shared.changed.notify_all();
        (
            std::mem::take(&mut state.bytes),
            std::mem::take(&mut state.struck),
        )
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.up();
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

    /// Whether these bytes of a connection may go on.
    fn pass(&self, generation: usize, count: usize) -> Result<(), LinkFault> {
        let mut state = self.state();
        if state.generation == generation
            && let Some((left, fault)) = state.strike
        {
            if left > count {
                state.strike = Some((left - count, fault));
            } else {
                state.strike = None;
                state.struck += 1;
                state.generation += 1;
                state.fate = Some(fault);
                state.is_down = fault == LinkFault::Down;
            }
        }
        if state.generation == generation {
            state.bytes += count;
            Ok(())
        } else {
            Err(state.fate.unwrap_or(LinkFault::Lost))
        }
    }

    /// Those who connect to a link that is down hear nothing until it is up again.
    fn wait_until_up(&self) -> usize {
        let mut state = self.state();
        while state.is_down && !self.is_over() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.generation
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
                scope.spawn(move || drop(serve(&client, shared)));
            }
        }
    });
}

fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let generation = shared.wait_until_up();
    let server = TcpStream::connect(("127.0.0.1", shared.server))?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| pump(client, &server, generation, shared));
        pump(&server, client, generation, shared);
    });
    Ok(())
}

/// Carries bytes one way until an end closes or the link fails.
fn pump(mut from: &TcpStream, mut to: &TcpStream, generation: usize, shared: &Shared) {
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !shared.is_over() => 0,
            Err(_) => break,
        };
        match shared.pass(generation, count) {
            Ok(()) => {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(LinkFault::Reset) => {
                // When the other direction has met its fate as well, both are closed, which resets them.
                let _ = reset(from).and_then(|()| reset(to));
                return;
            }
            // Read, so that an end that gives up is noticed, and dropped.
            Err(LinkFault::Lost | LinkFault::Down) => {}
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
