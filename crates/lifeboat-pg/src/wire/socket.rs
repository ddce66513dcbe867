//! Sockets that never block for longer than a quarter of a second, so that an interrupt is seen.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::watch::Watch;
use crate::conninfo::KeepAlive;

/// How long a read or write may wait before the interrupt flag and the deadline are looked at.
pub(crate) const WAKE_UP: Duration = Duration::from_millis(250);

/// Lifeboat's own keepalive: a dead server is noticed after 60 + 4 × 15 seconds of silence. The
/// system's default is over two hours, in which a backup would look merely slow.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_COUNT: u32 = 4;

/// Linux counts a closed receive window as unacknowledged too, and a server that loads data may stop
/// reading during a checkpoint or behind a lock: so minutes, not seconds.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// One address to connect to, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub fn connect(
        endpoint: &Endpoint,
        keepalive: &KeepAlive,
        watch: &Watch,
    ) -> io::Result<Socket> {
        match endpoint {
            Endpoint::Tcp(address) => connect_tcp(address, keepalive, watch).map(Socket::Tcp),
            Endpoint::Unix(path) => connect_unix(path, watch).map(Socket::Unix),
        }
    }

    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }

    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).write(data),
            Socket::Unix(stream) => (&mut &*stream).write(data),
        }
    }

    /// Whether a read would find something at once: data, the end, or an error.
    pub fn readable_now(&self) -> bool {
        let mut byte = [0];
        let peeked = rustix::net::recv(self, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(
            peeked,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    /// A last word that must not wait: the connection is going away.
    pub fn send_without_waiting(&self, data: &[u8]) {
        let _ = rustix::net::send(self, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// `EAGAIN` in its two spellings, which a timed-out read gives.
pub(crate) fn is_wake_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        // A TCP user timeout is ETIMEDOUT too, and that is the end of the connection.
        && error.raw_os_error() != Some(rustix::io::Errno::TIMEDOUT.raw_os_error())
}

fn connect_tcp(
    address: &SocketAddr,
    keepalive: &KeepAlive,
    watch: &Watch,
) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            let slice = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 250_000_000,
            };
            loop {
                let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
                match poll(&mut fds, Some(&slice)) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => watch.check_io()?,
                    Ok(_) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    if keepalive.enabled {
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, keepalive.idle.unwrap_or(KEEPALIVE_IDLE))?;
        sockopt::set_tcp_keepintvl(&stream, keepalive.interval.unwrap_or(KEEPALIVE_INTERVAL))?;
        sockopt::set_tcp_keepcnt(&stream, keepalive.count.unwrap_or(KEEPALIVE_COUNT))?;
    }
    #[cfg(target_os = "linux")]
    {
        let limit = keepalive.user_timeout.unwrap_or(USER_TIMEOUT).as_millis();
        sockopt::set_tcp_user_timeout(&stream, u32::try_from(limit).unwrap_or(u32::MAX))?;
    }
    stream.set_read_timeout(Some(WAKE_UP))?;
    stream.set_write_timeout(Some(WAKE_UP))?;
    Ok(stream)
}

fn connect_unix(path: &Path, watch: &Watch) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let stream = UnixStream::from(socket);
    // A full backlog makes connect wait; with this limit it wakes up as reads and writes do.
    stream.set_write_timeout(Some(WAKE_UP))?;
    stream.set_read_timeout(Some(WAKE_UP))?;
    let address = match path.to_str().and_then(|path| path.strip_prefix('@')) {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        _ => SocketAddrUnix::new(path)?,
    };
    loop {
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => watch.check_io()?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Looks a name up. The system's resolver cannot be interrupted, so it gets a thread that may outlive
/// our patience.
pub(crate) fn look_up(name: &str, port: u16, watch: &Watch) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse::<std::net::IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let owned = name.to_owned();
    thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(move || {
            let found = (owned.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect::<Vec<_>>);
            let _ = sender.send(found);
        })?;
    loop {
        match receiver.recv_timeout(WAKE_UP) {
            Ok(found) => {
                let mut addresses = found?;
                addresses.dedup();
                return Ok(addresses);
            }
            Err(RecvTimeoutError::Timeout) => watch.check_io()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the name could not be looked up"));
            }
        }
    }
}

/// A deadline `limit` from now; absurdly long limits become none.
pub(crate) fn deadline(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}
