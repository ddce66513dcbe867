//! A connection: the system's own `ssh`, which brings keys, agent, known hosts and configuration, and our half
//! of the conversation with the server's SFTP subsystem behind it.
//!
//! One thread at a time. Requests go out before answers to earlier ones are in, so that distance costs
//! once for a batch and not once for a piece.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::wire::{self, LARGEST_PACKET_BYTES, Packet, Received, Reply};
use crate::storage::StorageErrorKind;
use crate::storage::remote::attempt::{Failed, MOST_OF_A_LINE, Patience, TICK, printable};
use crate::storage::remote::location::SftpLocation;

/// Requests under way at once: 2 MiB of pieces, which is what ssh's own window takes.
const WINDOW: usize = 64;

/// The part of ssh's words that is kept.
const MOST_WORDS_BYTES: usize = 8 << 10;

/// How `ssh` is run.
#[derive(Debug, Clone)]
pub struct SshCommand {
    /// The program.
    pub program: OsString,
    /// What comes before the arguments that the location asks for; ssh heeds the first of several.
    pub arguments: Vec<OsString>,
}

impl Default for SshCommand {
    fn default() -> Self {
        Self {
            program: "ssh".into(),
            arguments: Vec::new(),
        }
    }
}

impl SshCommand {
    fn command(&self, location: &SftpLocation) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        for option in [
            // There is nobody to ask.
            "BatchMode=yes",
            "ConnectTimeout=10",
            // A peer that is gone without a word is noticed.
            "ServerAliveInterval=15",
            "ServerAliveCountMax=3",
            "ClearAllForwardings=yes",
        ] {
            command.args(["-o", option]);
        }
        if let Some(port) = location.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(user) = &location.user {
            command.arg("-l").arg(user);
        }
        command.args(["-s", "--", &location.host, "sftp"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on a terminal is for us alone: a lock has still to be removed through this connection.
            .process_group(0);
        command
    }
}

/// One `ssh` with a conversation under way.
pub(super) struct Connection {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    words: Vec<u8>,
    next_id: u32,
    /// Requests whose answers nobody waits for.
    ignored: HashSet<u32>,
    extensions: Vec<String>,
    /// Whether the server has answered: what ssh says from then on is not about the login.
    is_established: bool,
    /// Set when answers may still be under way that nobody would know what to do with.
    pub(super) is_broken: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("ssh", &self.child.id())
            .finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Connection {
    pub(super) fn open(
        ssh: &SshCommand,
        location: &SftpLocation,
        patience: &Arc<Patience>,
    ) -> Result<Self, Failed> {
        // About the way there, and about no file.
        let hopeless = |cause: String| Failed::for_good(StorageErrorKind::Unreachable, cause);
        let program = ssh.program.to_string_lossy().into_owned();
        let mut child = ssh
            .command(location)
            .spawn()
            .map_err(|error| hopeless(format!("cannot run `{program}`: {error}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(hopeless("ssh has no pipes".to_owned()));
        };
        let mut connection = Self {
            child,
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
            outgoing: Vec::new(),
            sent: 0,
            incoming: Vec::new(),
            words: Vec::new(),
            next_id: 0,
            ignored: HashSet::new(),
            extensions: Vec::new(),
            is_established: false,
            is_broken: true,
        };
        connection
            .make_nonblocking()
            .map_err(|error| hopeless(error.to_string()))?;
        wire::hello(&mut connection.outgoing);
        match connection.receive(patience)? {
            Received::Version(version, extensions) if version >= wire::VERSION => {
                connection.extensions = extensions;
                // A second key that was refused before the right one, or the server's greeting.
                connection.words.clear();
                connection.is_established = true;
                connection.is_broken = false;
                Ok(connection)
            }
            _ => Err(hopeless(
                "the server does not speak SFTP version 3".to_owned(),
            )),
        }
    }

    fn make_nonblocking(&self) -> io::Result<()> {
        let set = |pipe: &dyn AsFd| -> io::Result<()> {
            let flags = fcntl_getfl(pipe.as_fd())?;
            Ok(fcntl_setfl(pipe.as_fd(), flags | OFlags::NONBLOCK)?)
        };
        set(&self.stdout)?;
        if let Some(stdin) = &self.stdin {
            set(stdin)?;
        }
        self.stderr.as_ref().map_or(Ok(()), |stderr| set(stderr))
    }

    pub(super) fn has_extension(&self, name: &str) -> bool {
        self.extensions.iter().any(|known| known == name)
    }

    /// One request, and its answer.
    pub(super) fn ask(
        &mut self,
        packet: &Packet,
        patience: &Arc<Patience>,
    ) -> Result<Reply, Failed> {
        let mut found = None;
        self.ask_all(std::iter::once(packet.clone()), patience, |_, reply| {
            found = Some(reply);
            Ok(())
        })?;
        found.ok_or_else(|| Failed::for_now(StorageErrorKind::Unreachable, "no answer"))
    }

    /// Many requests, several under way at once; `answer` is handed each answer with its request's place in the
    /// order, in whatever order they come. The first error ends it.
    pub(super) fn ask_all(
        &mut self,
        packets: impl IntoIterator<Item = Packet>,
        patience: &Arc<Patience>,
        mut answer: impl FnMut(usize, Reply) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        // Whatever makes this end early leaves answers under way.
        self.is_broken = true;
        let first_id = self.next_id;
        let mut packets = packets.into_iter();
        // Those that are not answered: a second answer to one must not pass for another's.
        let mut open = HashSet::new();
        loop {
            while open.len() < WINDOW {
                let Some(packet) = packets.next() else {
                    break;
                };
                packet.send(self.next_id, &mut self.outgoing);
                open.insert(self.next_id);
                self.next_id = self.next_id.wrapping_add(1);
            }
            if open.is_empty() {
                break;
            }
            let Received::Reply(id, reply) = self.receive(patience)? else {
                return Err(confused());
            };
            if !open.remove(&id) {
                return Err(confused());
            }
            answer(id.wrapping_sub(first_id) as usize, reply)?;
        }
        self.is_broken = false;
        Ok(())
    }

    /// Sends a request whose answer does not matter, with whatever goes next.
    pub(super) fn tell(&mut self, packet: &Packet) {
        packet.send(self.next_id, &mut self.outgoing);
        self.ignored.insert(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// The next packet that someone waits for.
    fn receive(&mut self, patience: &Arc<Patience>) -> Result<Received, Failed> {
        loop {
            while let Some(packet) = self.take_packet()? {
                match wire::parse(&packet).ok_or_else(confused)? {
                    Received::Reply(id, _) if self.ignored.remove(&id) => {}
                    received => return Ok(received),
                }
            }
            self.pump(patience)?;
        }
    }

    fn take_packet(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        let Some(length) = self.incoming.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > LARGEST_PACKET_BYTES {
            // Most likely a login script that greets; its first letters read as a length.
            return Err(confused());
        }
        if self.incoming.len() < 4 + length {
            return Ok(None);
        }
        let packet = self.incoming[4..4 + length].to_vec();
        self.incoming.drain(..4 + length);
        Ok(Some(packet))
    }

    /// Waits until something can be written or read, and does it; every [`TICK`] asks whether to go on.
    fn pump(&mut self, patience: &Arc<Patience>) -> Result<(), Failed> {
        patience.check()?;
        let gone = |error: io::Error| {
            Failed::for_now(
                StorageErrorKind::Unreachable,
                format!("the connection to ssh is lost: {error}"),
            )
        };
        let has_more_to_send = self.sent < self.outgoing.len();
        let mut fds = vec![PollFd::new(&self.stdout, PollFlags::IN)];
        if let Some(stderr) = &self.stderr {
            fds.push(PollFd::new(stderr, PollFlags::IN));
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| has_more_to_send) {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(TICK.subsec_nanos()),
        };
        match poll(&mut fds, Some(&tick)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(gone(error.into())),
        }
        drop(fds);

        self.listen_to_ssh();
        let mut buffer = [0; 64 << 10];
        match self.stdout.read(&mut buffer) {
            Ok(0) => return Err(self.ended()),
            Ok(count) => {
                patience.progressed();
                self.incoming.extend_from_slice(&buffer[..count]);
            }
            Err(error) if is_not_now(&error) => {}
            Err(error) => return Err(gone(error)),
        }
        if has_more_to_send && let Some(stdin) = &mut self.stdin {
            match stdin.write(&self.outgoing[self.sent..]) {
                Ok(count) => {
                    patience.progressed();
                    self.sent += count;
                }
                Err(error) if is_not_now(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(self.ended()),
                Err(error) => return Err(gone(error)),
            }
            if self.sent == self.outgoing.len() {
                self.outgoing.clear();
                self.sent = 0;
            }
        }
        Ok(())
    }

    /// Takes in what ssh says to people.
    fn listen_to_ssh(&mut self) {
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        let mut buffer = [0; 4096];
        loop {
            match stderr.read(&mut buffer) {
                Ok(0) => {
                    self.stderr = None;
                    return;
                }
                Ok(count) => {
                    self.words.extend_from_slice(&buffer[..count]);
                    let excess = self.words.len().saturating_sub(MOST_WORDS_BYTES);
                    self.words.drain(..excess);
                }
                Err(_) => return,
            }
        }
    }

    /// ssh has ended: why, by its own words.
    fn ended(&mut self) -> Failed {
        // It closes its output before it ends, and may have something to say in between.
        drop(self.stdin.take());
        let mut is_over = false;
        for _ in 0..40 {
            self.listen_to_ssh();
            if is_over || self.stderr.is_none() {
                break;
            }
            is_over = !matches!(self.child.try_wait(), Ok(None));
            if !is_over {
                std::thread::sleep(TICK / 2);
            }
        }
        let why = why_ssh_ended(&String::from_utf8_lossy(&self.words));
        if self.is_established {
            return Failed::for_now(StorageErrorKind::Unreachable, why.cause);
        }
        why
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn confused() -> Failed {
    Failed::for_good(
        StorageErrorKind::Unreachable,
        "what comes back is not SFTP; a login script on the server that prints something does that",
    )
}

/// The one place that reads another program's words: ssh ends with 255 for a wrong key and for a cut cable
/// alike, and only says which. They are in its source, and never translated.
fn why_ssh_ended(words: &str) -> Failed {
    let lines: Vec<String> = words
        .lines()
        .map(|line| printable(line, MOST_OF_A_LINE))
        .filter(|line| !line.is_empty() && !line.starts_with("Warning: Permanently added"))
        .collect();
    let last = lines
        .iter()
        .rev()
        .take(3)
        .rev()
        .cloned()
        .collect::<Vec<_>>();
    let cause = if last.is_empty() {
        "the connection was closed".to_owned()
    } else {
        format!("ssh says: {}", last.join("; "))
    };
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    if says(&[
        "Permission denied",
        "Host key verification failed",
        "HOST IDENTIFICATION HAS CHANGED",
        "Too many authentication failures",
    ]) {
        return Failed::for_good(StorageErrorKind::BadCredentials, cause);
    }
    if says(&[
        "Bad configuration option",
        "command-line",
        "subsystem request failed",
        "no matching ",
    ]) {
        return Failed::for_good(StorageErrorKind::Unreachable, cause);
    }
    Failed::for_now(StorageErrorKind::Unreachable, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_tells_why_it_ended() {
        use StorageErrorKind as Kind;
        for (words, kind, may_pass) in [
            ("", Kind::Unreachable, true),
            (
                "ssh: connect to host nas port 22: Connection refused\n",
                Kind::Unreachable,
                true,
            ),
            (
                "ssh: Could not resolve hostname nas: Name or service not known",
                Kind::Unreachable,
                true,
            ),
            (
                "me@nas: Permission denied (publickey).\n",
                Kind::BadCredentials,
                false,
            ),
            (
                "Host key verification failed.\n",
                Kind::BadCredentials,
                false,
            ),
            (
                "subsystem request failed on channel 0",
                Kind::Unreachable,
                false,
            ),
        ] {
            let failed = why_ssh_ended(words);
            assert_eq!((failed.kind, failed.may_pass), (kind, may_pass), "{words}");
            assert!(failed.cause.contains(words.trim()), "{failed:?}");
        }
    }
}
