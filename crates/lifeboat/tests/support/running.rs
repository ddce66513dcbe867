//! A program that runs, and what came of it.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lifeboat_testkit::TestServer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Nothing in these tests takes nearly this long; whatever does hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// A finished run.
#[derive(Debug)]
pub struct Run {
    /// The command, for messages.
    pub command: String,
    /// The exit code, or 128 and the signal's number.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nexit {}", self.command, self.code)?;
        writeln!(f, "--- stdout\n{}", self.stdout)?;
        writeln!(f, "--- stderr\n{}", self.stderr)
    }
}

impl Run {
    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Run {
        assert!(self.code == 0, "this had to succeed\n{self}");
        assert!(
            !self.stderr.contains("error:"),
            "success with an error\n{self}"
        );
        self
    }

    /// Asserts this exit code and nothing more.
    #[track_caller]
    pub fn code_is(self, code: i32) -> Run {
        assert!(self.code == code, "this had to exit {code}\n{self}");
        self
    }

    /// Asserts this exit code and what every failure owes its user: one line of fact, then hints.
    #[track_caller]
    pub fn fails(self, code: i32) -> Run {
        assert!(self.code == code, "this had to exit {code}\n{self}");
        let errors = self.error_lines();
        assert!(errors.len() == 1, "one `error:` line is owed\n{self}");
        let hints = self.hint_lines();
        assert!(
            !hints.is_empty(),
            "at least one `hint:` line is owed\n{self}"
        );
        // The hints are the last word: nobody scrolls up at three in the morning.
        let last = self.stderr.lines().rev().find(|line| !line.is_empty());
        let last = last.unwrap_or_default();
        assert!(
            last.starts_with("hint:") || last.starts_with("      "),
            "the hints come last\n{self}"
        );
        self
    }

    /// Asserts that it ended as interrupted programs do, with a reason.
    #[track_caller]
    pub fn was_interrupted(self) -> Run {
        assert!(self.code == 130, "this had to exit 130\n{self}");
        assert!(
            self.error_lines().len() == 1,
            "one `error:` line is owed\n{self}"
        );
        self
    }

    /// The one fact of a failure.
    pub fn error(&self) -> String {
        self.error_lines().join("\n")
    }

    /// The hints of a failure.
    pub fn hints(&self) -> String {
        self.hint_lines().join("\n")
    }

    fn error_lines(&self) -> Vec<&str> {
        let lines = self.stderr.lines();
        lines.filter(|line| line.starts_with("error:")).collect()
    }

    fn hint_lines(&self) -> Vec<&str> {
        let lines = self.stderr.lines();
        lines.filter(|line| line.starts_with("hint:")).collect()
    }

    /// Asserts that stderr names something.
    #[track_caller]
    pub fn says(self, words: &str) -> Run {
        let heard = self.stderr.to_lowercase();
        assert!(
            heard.contains(&words.to_lowercase()),
            "{words:?} is not said\n{self}"
        );
        self
    }

    /// The final object that `--json` printed, of the form `lifeboat.KIND/1`.
    #[track_caller]
    pub fn json(&self, kind: &str) -> Value {
        let whole: Result<Value, _> = serde_json::from_str(&self.stdout);
        let value = whole.unwrap_or_else(|_| {
            let lines = self.stdout.lines();
            let values: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
            let values = values.unwrap_or_else(|error| panic!("{error}: not JSON\n{self}"));
            values
                .last()
                .unwrap_or_else(|| panic!("no JSON\n{self}"))
                .clone()
        });
        assert_eq!(value["schema"], format!("lifeboat.{kind}/1"), "\n{self}");
        value
    }
}

/// A program that still runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    started: Instant,
}

impl Running {
    /// Starts it with nothing on stdin. Streams that the command has not set are collected.
    pub fn start(command: Command) -> Running {
        let mut command = command;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Running::start_as_is(command)
    }

    /// Starts it with the streams that the command says.
    pub fn start_as_is(mut command: Command) -> Running {
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let words = words.join(" ");
        let started = Instant::now();
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{words}: {error}"));
        Running {
            command: words,
            stdout: child.stdout.take().map(collect),
            stderr: child.stderr.take().map(collect),
            child,
            started,
        }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child's state").is_some()
    }

    /// Waits until it ends, or panics when it hangs.
    pub fn wait(mut self) -> Run {
        let status = self.wait_bounded();
        let took = self.started.elapsed();
        let text = |handle: Option<JoinHandle<String>>| {
            handle
                .map(|handle| handle.join().expect("a reader"))
                .unwrap_or_default()
        };
        Run {
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
            command: std::mem::take(&mut self.command),
            code: code(status),
            took,
        }
    }

    fn wait_bounded(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's state") {
                return status;
            }
            if self.started.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let mut words = String::new();
                for handle in [self.stdout.take(), self.stderr.take()]
                    .into_iter()
                    .flatten()
                {
                    words.push_str(&handle.join().unwrap_or_default());
                }
                panic!("{} hangs; it said:\n{words}", self.command);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .expect("an exit status")
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Somebody else's session in a database, which stays until it is dropped.
#[derive(Debug)]
pub struct Session {
    child: Child,
}

impl Session {
    /// Connects and does nothing more.
    pub fn open(server: &TestServer, database: &str) -> Session {
        Session::holding(server, database, "SELECT 1")
    }

    /// Connects, begins a transaction, runs SQL in it, and leaves it open.
    pub fn holding(server: &TestServer, database: &str, sql: &str) -> Session {
        let mut child = Command::new(super::sql::tool(server, "psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1"])
            .envs(server.tool_env(database))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql");
        let stdin = child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "BEGIN;\n{sql};\n\\echo there").expect("psql listens");
        let mut lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
        let there = lines.any(|line| line.is_ok_and(|line| line == "there"));
        assert!(there, "the other session could not run {sql}");
        Session { child }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The end of its input ends psql, which closes its session in an orderly way before it exits.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
