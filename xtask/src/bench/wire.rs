//! A wire that counts: whoever connects to it is connected to a port of this machine, and every byte is counted.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What went over it since the last look, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// To the server.
    pub sent: u64,
    /// From it.
    pub received: u64,
}

/// The wire. It lies until the program ends.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Wire {
    /// Lays one to `server`, a port of the loopback.
    ///
    /// # Errors
    /// Without a free port.
    pub fn to(server: u16) -> Result<Wire, String> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        let port = listener
            .local_addr()
            .map_err(|error| error.to_string())?
            .port();
        let wire = Wire {
            port,
            sent: Arc::default(),
            received: Arc::default(),
        };
        let (sent, received) = (Arc::clone(&wire.sent), Arc::clone(&wire.received));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client whose server is gone finds its connection closed.
                let _ = connect(client, server, &sent, &received);
            }
        });
        Ok(wire)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What went over it since this was asked last.
    pub fn take(&self) -> Traffic {
        Traffic {
            sent: self.sent.swap(0, Ordering::Relaxed),
            received: self.received.swap(0, Ordering::Relaxed),
        }
    }
}

fn connect(
    client: TcpStream,
    server: u16,
    sent: &Arc<AtomicU64>,
    received: &Arc<AtomicU64>,
) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
    // Requests and answers are small and wait for each other.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to, count) in [
        (client.try_clone()?, server.try_clone()?, sent),
        (server, client, received),
    ] {
        let count = Arc::clone(count);
        std::thread::spawn(move || pass_on(from, to, &count));
    }
    Ok(())
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        // Counted before it goes: whoever has the answer finds it counted.
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
