//! Questions on a terminal.

use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;

use crate::app::App;
use crate::failure::Failure;

/// Whether there is somebody to ask: standard input and standard error are terminals.
pub fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and gives the answer without its line end; an empty answer means `default`.
pub fn ask(app: &App, question: &str, default: Option<&str>) -> Result<String, Failure> {
    let shown = match default {
        Some(default) => format!("{question} [{default}]: "),
        None => format!("{question}: "),
    };
    // A question needs its cursor on the same line, which `Output` does not do.
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(shown.as_bytes())
        .and_then(|()| stderr.flush());
    drop(stderr);
    let line = read_line(app)?;
    let answer = line.trim();
    Ok(match (answer, default) {
        ("", Some(default)) => default.to_owned(),
        (answer, _) => answer.to_owned(),
    })
}

/// Asks for a secret, which is not shown while it is typed.
pub fn secret(app: &App, question: &str) -> Result<SecretString, Failure> {
    let silence = Silence::begin();
    let answer = ask(app, question, None);
    if silence.is_some() {
        // The Enter was not shown either.
        let _ = io::stderr().lock().write_all(b"\n");
    }
    answer.map(SecretString::from)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Asks a question whose answer is yes or no.
pub fn confirm(app: &App, question: &str, default: bool) -> Result<bool, Failure> {
    loop {
        let answer = ask(app, question, Some(if default { "Y/n" } else { "y/N" }))?;
        match answer.to_lowercase().as_str() {
            "y/n" => return Ok(default),
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => app.out.warn("please answer y or n"),
        }
    }
}

/// Reads a line from standard input. Ctrl-C ends the question: a plain read would be restarted after the
/// signal, and the first Ctrl-C would seem to do nothing, so this waits in `poll`, which is not. And since
/// `poll` knows the terminal alone, nothing may lie in a buffer of ours: the bytes are read past `Stdin`.
fn read_line(app: &App) -> Result<String, Failure> {
    let stdin = io::stdin();
    let mut line = Vec::new();
    loop {
        {
            let mut descriptors = [PollFd::new(&stdin, PollFlags::IN)];
            if let Err(error) = poll(&mut descriptors, None)
                && error != rustix::io::Errno::INTR
            {
                return Err(Failure::bug(io::Error::from(error)));
            }
        }
        if app.is_interrupted() {
            return Err(Failure::interrupted());
        }
        let mut byte = [0];
        match rustix::io::read(&stdin, &mut byte) {
            // Ctrl-D answers nothing more; treat it as a wish to leave.
            Ok(0) if line.is_empty() => return Err(Failure::interrupted()),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::bug(io::Error::from(error))),
        }
    }
    String::from_utf8(line).map_err(|_| Failure::bug("the answer is not UTF-8"))
}
