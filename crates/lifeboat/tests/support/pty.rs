//! A terminal for the program to believe in.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::running::Running;

/// A terminal of 100 columns, with what was shown on it.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    slave: File,
}

impl Terminal {
    /// Opens one.
    pub fn open() -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a terminal's name");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a name"))
            .expect("the terminal's other end");
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).expect("a size");
        Terminal { master, slave }
    }

    /// The terminal as one of a command's streams.
    pub fn stdio(&self) -> Stdio {
        self.slave.try_clone().expect("a stream").into()
    }

    /// What a person types on. The terminal does not end before this is dropped.
    pub fn keyboard(&self) -> File {
        File::from(self.master.try_clone().expect("a keyboard"))
    }

    /// Starts a command and returns it with what will have been shown.
    pub fn start(self, command: Command) -> (Running, JoinHandle<String>) {
        let running = Running::start_as_is(command);
        // When the last process closes its end, reading fails with EIO: that is the terminal's end of file.
        drop(self.slave);
        let mut master = File::from(self.master);
        let shown = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..count]);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        (running, shown)
    }
}
