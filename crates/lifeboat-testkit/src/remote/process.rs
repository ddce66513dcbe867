//! A server process that can be killed and started again, and that never outlives the tests.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Kills what it started, hard, when its standard input ends.
const WATCHDOG: &str = r#""$@" </dev/null & server=$!
read -r _
kill -9 $server
wait $server"#;

#[derive(Debug)]
pub(super) struct ServerProcess {
    arguments: Vec<String>,
    log: PathBuf,
    shell: Option<Child>,
}

impl ServerProcess {
    /// Starts a program. Its output goes to `log`.
    pub(super) fn start(arguments: Vec<String>, log: &Path) -> ServerProcess {
        let mut process = ServerProcess {
            arguments,
            log: log.to_owned(),
            shell: None,
        };
        process.start_again();
        process
    }

    pub(super) fn start_again(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("the log");
        let shell = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "server"])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        self.shell = Some(shell);
    }

    /// The processes that the shell has started and that still run.
    pub(super) fn server_pids(&self) -> Vec<i32> {
        let Some(shell) = &self.shell else {
            return Vec::new();
        };
        let path = format!("/proc/{0}/task/{0}/children", shell.id());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }

    /// Waits until `is_ready`, with a bound.
    pub(super) fn wait_until(&self, what: &str, is_ready: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_ready() {
            if Instant::now() > until {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("{what} does not answer; its log: {log}");
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that are free now, all at once.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// A connection to a port of the loopback.
pub(super) fn connect(port: u16) -> Option<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
}
