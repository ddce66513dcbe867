//! A scratch PostgreSQL server with a life of its own: for drills, demos and tests.
//!
//! The room owns one private folder per server: data directory, socket, log and a marker. It refuses to
//! know what the server is for. Invariants: nobody but its own OS user and root can connect (Unix socket
//! only, inside a 0700 folder), and nothing of it outlives the process that made it. Three mechanisms see
//! to the second: `Drop` in the orderly case; a watchdog process, holding the read end of a pipe, when
//! this process is killed; and [`sweep`] when the whole machine went down.

mod error;
mod folder;
mod os_user;
mod process;
mod sweep;

pub use error::InstanceError;
pub use folder::PrivateFolder;
pub use sweep::{SweepReport, sweep};

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use folder::ScratchFolder;
use os_user::OsUser;

/// The port in the socket's file name. Every scratch server has a socket folder of its own, so one number
/// serves all of them.
const PORT: u16 = 5432;

/// Settings that trade every promise of durability for speed: what is in a scratch server exists elsewhere.
const THROW_AWAY_SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("archive_mode", "off"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("lc_messages", "C"),
];

/// How to make a scratch server.
#[derive(Debug, Clone)]
pub struct ScratchOptions {
    /// The folder that holds `initdb` and `postgres` of one PostgreSQL version.
    pub bin_dir: PathBuf,
    /// Where the server's private folder is made. Its OS user must be able to pass through it.
    pub parent_dir: PathBuf,
    /// Who runs the server when this process is root, since PostgreSQL refuses to. `None`: `postgres` if
    /// there is such a user, else `nobody`. Ignored unless this process is root.
    pub os_user: Option<String>,
    /// Encoding of the template databases, as `initdb --encoding` takes it.
    pub encoding: String,
    /// Locale of the template databases, as `initdb --locale` takes it.
    pub locale: String,
    /// Lines for `postgresql.conf`; they win over the throw-away settings.
    pub settings: Vec<(String, String)>,
    /// A data directory that a former `initdb` made, to be copied in place of running `initdb` again.
    /// Encoding and locale are then the template's.
    pub template: Option<PathBuf>,
    /// How long the server may take until it accepts connections.
    pub start_timeout: Duration,
    /// Set by somebody else to give up waiting.
    pub interrupt: Arc<AtomicBool>,
}

impl ScratchOptions {
    /// UTF-8, locale C, no settings of its own, a minute to start.
    pub fn new(bin_dir: impl Into<PathBuf>, parent_dir: impl Into<PathBuf>) -> ScratchOptions {
        ScratchOptions {
            bin_dir: bin_dir.into(),
            parent_dir: parent_dir.into(),
            os_user: None,
            encoding: "UTF8".into(),
            locale: "C".into(),
            settings: Vec::new(),
            template: None,
            start_timeout: Duration::from_secs(60),
            interrupt: Arc::new(AtomicBool::new(false)),
        }
    }

    fn check_interrupt(&self) -> Result<(), InstanceError> {
        if self.interrupt.load(Ordering::Relaxed) {
            Err(InstanceError::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Disconnects everybody, writes a checkpoint.
    Fast,
    /// As a crash: no checkpoint; the next start runs recovery.
    Immediate,
}

/// A running server that belongs to this value: dropped, it is stopped and its folder removed.
#[derive(Debug)]
pub struct ScratchServer {
    options: ScratchOptions,
    owner: OsUser,
    server: Option<Child>,
    watchdog: Option<Child>,
    // The folder goes last: it removes itself when dropped, after the server was stopped.
    folder: ScratchFolder,
}

impl ScratchServer {
    /// Runs `initdb` (or copies the template), starts `postgres`, and waits until it accepts connections.
    ///
    /// # Errors
    /// Whatever failed, with the output of the program that failed; nothing is left behind.
    pub fn start(options: &ScratchOptions) -> Result<ScratchServer, InstanceError> {
        options.check_interrupt()?;
        for tool in ["initdb", "postgres"] {
            let path = options.bin_dir.join(tool);
            if !path.is_file() {
                return Err(InstanceError::ToolMissing { path });
            }
        }
        let owner = OsUser::for_server(options.os_user.as_deref())?;
        let folder = ScratchFolder::create(&options.parent_dir, &owner, PORT)?;
        match &options.template {
            Some(template) => folder::copy_tree(template, &folder.data_dir(), &owner)?,
            None => process::initdb(options, &folder.data_dir(), &owner)?,
        }
        let mut server = ScratchServer {
            options: options.clone(),
            owner,
            server: None,
            watchdog: None,
            folder,
        };
        server.write_settings()?;
        server.launch()?;
        Ok(server)
    }

    /// Makes a data directory at `data_dir` (which must not exist) for later use as
    /// [`ScratchOptions::template`].
    ///
    /// # Errors
    /// As [`ScratchServer::start`].
    pub fn make_template(options: &ScratchOptions, data_dir: &Path) -> Result<(), InstanceError> {
        let owner = OsUser::for_server(options.os_user.as_deref())?;
        process::initdb(options, data_dir, &owner)
    }

    fn write_settings(&self) -> Result<(), InstanceError> {
        let socket_dir = self.folder.socket_dir().display().to_string();
        let mut text = String::from("\n# A scratch server: nothing in here is worth keeping.\n");
        let fixed = THROW_AWAY_SETTINGS
            .iter()
            .copied()
            .chain([("unix_socket_directories", socket_dir.as_str())]);
        let own = self
            .options
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.chain(own) {
            // The last line for a name wins. Backslashes are escapes inside the quotes.
            let quoted = value.replace('\\', "\\\\").replace('\'', "''");
            text.push_str(&format!("{name} = '{quoted}'\n"));
        }
        folder::append(&self.folder.data_dir().join("postgresql.conf"), &text)
    }

    fn launch(&mut self) -> Result<(), InstanceError> {
        let child = process::spawn_postgres(&self.options.bin_dir, &self.folder, &self.owner)?;
        let postmaster = child.id();
        self.server = Some(child);
        self.watchdog = Some(process::spawn_watchdog(
            &self.folder,
            postmaster,
            &self.owner,
        )?);
        let Some(child) = self.server.as_mut() else {
            return Ok(());
        };
        process::wait_ready(child, &self.folder, &self.options)
    }

    /// Stops and starts the server on the same data, as a reboot would.
    ///
    /// # Errors
    /// As [`ScratchServer::start`].
    pub fn restart(&mut self, mode: StopMode) -> Result<(), InstanceError> {
        self.halt(mode);
        self.launch()
    }

    /// Stops the server, keeping its data for a later [`ScratchServer::restart`].
    pub fn halt(&mut self, mode: StopMode) {
        if let Some(mut child) = self.server.take() {
            process::stop(&mut child, mode);
        }
        // Only now: until the server is gone, the watchdog is what ends it if we are killed here.
        if let Some(mut watchdog) = self.watchdog.take() {
            process::end(&mut watchdog);
        }
    }

    /// Stops the server and removes everything it wrote. The same as dropping it, with the failure told.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn stop(mut self) -> Result<(), InstanceError> {
        self.halt(StopMode::Immediate);
        self.folder.remove()
    }

    /// Whether the server process is still there.
    pub fn is_running(&mut self) -> bool {
        self.server
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The folder of its Unix socket: what `PGHOST` or `host=` wants.
    pub fn socket_dir(&self) -> &Path {
        self.folder.socket_dir()
    }

    /// The port in its socket's name.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// Its superuser, whom it trusts without a password.
    pub fn user(&self) -> &'static str {
        process::SUPERUSER
    }

    /// A connection URI for one of its databases. Holds no secret.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgresql://{}@/{}?host={}&port={}",
            self.user(),
            percent_encode(database),
            percent_encode(&self.socket_dir().display().to_string()),
            PORT
        )
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.data_dir()
    }

    /// The end of its log, for a person who wonders what went wrong.
    pub fn log_tail(&self) -> String {
        self.folder.log_tail()
    }
}

impl Drop for ScratchServer {
    fn drop(&mut self) {
        self.halt(StopMode::Immediate);
    }
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
