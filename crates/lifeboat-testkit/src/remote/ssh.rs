//! OpenSSH's own sshd, with keys that live as long as the test.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{ServerProcess, connect, free_ports};

/// An sshd of one's own, that lets its user in with one key.
#[derive(Debug)]
pub struct SshServer {
    process: ServerProcess,
    port: u16,
    folder: TempDir,
}

impl SshServer {
    /// Starts one.
    ///
    /// # Panics
    /// Where OpenSSH's server is not installed, or does not start.
    pub fn start() -> SshServer {
        let sshd = find(&["/usr/sbin/sshd", "/usr/local/sbin/sshd"]);
        let sftp = find(&[
            "/usr/lib/openssh/sftp-server",
            "/usr/libexec/openssh/sftp-server",
            "/usr/lib/ssh/sftp-server",
        ]);
        // sshd wants this to exist; at a system's own sshd it does.
        let _ = std::fs::create_dir_all("/run/sshd");
        let folder = tempfile::Builder::new()
            .prefix("lifeboat-ssh-")
            .tempdir_in("/tmp")
            .expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host", "user", "stranger"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", &at(key)])
                .status();
            assert!(
                made.is_ok_and(|status| status.success()),
                "no key: run scripts/setup"
            );
        }
        std::fs::copy(at("user.pub"), at("authorized")).expect("the key");
        let [port] = free_ports();
        let host_key = std::fs::read_to_string(at("host.pub")).expect("the key");
        std::fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {host_key}"))
            .expect("the host's key");
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp {sftp}\n",
            at("host"),
            at("authorized"),
        );
        std::fs::write(at("sshd_config"), config).expect("the configuration");
        for (name, key) in [("ssh_config", "user"), ("stranger_config", "stranger")] {
            let config = format!(
                "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n\
                 \x20 UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n",
                at(key),
                at("known_hosts"),
            );
            std::fs::write(at(name), config).expect("the configuration");
        }
        let arguments = vec![
            sshd,
            "-D".to_owned(),
            "-e".to_owned(),
            "-f".to_owned(),
            at("sshd_config"),
        ];
        let server = SshServer {
            process: ServerProcess::start(arguments, &folder.path().join("log")),
            port,
            folder,
        };
        server.wait();
        server
    }

    /// One server for all tests of a process that leave it alone.
    pub fn shared() -> &'static SshServer {
        static SHARED: OnceLock<SshServer> = OnceLock::new();
        SHARED.get_or_init(SshServer::start)
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A folder that it can reach, for repositories.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("repositories")
    }

    /// The location of a repository in [`SshServer::folder`], as restic writes it.
    pub fn location(&self, name: &str) -> String {
        format!(
            "sftp://127.0.0.1:{}/{}/{name}",
            self.port,
            self.folder().display()
        )
    }

    /// What makes `ssh -F` get in.
    pub fn ssh_config(&self) -> PathBuf {
        self.folder.path().join("ssh_config")
    }

    /// As [`SshServer::ssh_config`], with a key that nobody knows.
    pub fn strangers_config(&self) -> PathBuf {
        self.folder.path().join("stranger_config")
    }

    /// Kills it, and every connection, as a power cut would.
    pub fn kill(&mut self) {
        // A connection's processes are not sshd's children's children for long, so they are found by their
        // listening parent before that is gone.
        let connections = descendants(&self.process.server_pids());
        self.process.kill();
        for pid in connections {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Starts it again on the same port and keys.
    pub fn start_again(&mut self) {
        self.process.start_again();
        self.wait();
    }

    fn wait(&self) {
        self.process.wait_until("sshd", || {
            let Some(stream) = connect(self.port) else {
                return false;
            };
            let mut greeting = [0; 4];
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            (&stream).read_exact(&mut greeting).is_ok() && &greeting == b"SSH-"
        });
    }
}

/// Every process below these, itself left out.
fn descendants(roots: &[i32]) -> Vec<i32> {
    let mut found: Vec<i32> = roots.to_vec();
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    found.split_off(roots.len())
}

fn find(places: &[&str]) -> String {
    let found = places.iter().find(|place| Path::new(place).is_file());
    found
        .expect("no OpenSSH server found: run scripts/setup, which installs it for the tests")
        .to_string()
}
