//! The server under measurement: a private one, set up as a small production machine would be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_pg::instance::{ScratchOptions, ScratchServer};
use lifeboat_testkit::newest;

/// Durable, unlike the throw-away defaults of a scratch server; everything else as PostgreSQL ships it.
const SETTINGS: [(&str, &str); 13] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("autovacuum", "on"),
    ("checkpoint_timeout", "5min"),
    ("shared_buffers", "1GB"),
    ("effective_cache_size", "3GB"),
    ("maintenance_work_mem", "256MB"),
    ("work_mem", "16MB"),
    ("max_wal_size", "4GB"),
    ("jit", "off"),
];

#[derive(Debug)]
pub struct Server {
    scratch: ScratchServer,
    bin_dir: PathBuf,
    pub version: String,
}

impl Server {
    /// Starts one below `parent`, with a copy of the data directory `template` if there is one.
    pub fn start(parent: &Path, template: Option<&Path>) -> Result<Server, String> {
        let installed = newest();
        let mut options = ScratchOptions::new(&installed.bin_dir, parent);
        options.template = template.map(Path::to_owned);
        options.settings = SETTINGS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let scratch = ScratchServer::start(&options).map_err(|error| error.to_string())?;
        Ok(Server {
            scratch,
            bin_dir: installed.bin_dir.clone(),
            version: installed.version.clone(),
        })
    }

    pub fn url(&self, database: &str) -> String {
        self.scratch.url(database)
    }

    /// One of the stock programs, told how to reach a database of this server.
    pub fn tool(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(name));
        command.envs(self.env(database));
        command
    }

    pub fn env(&self, database: &str) -> Vec<(String, String)> {
        vec![
            (
                "PGHOST".into(),
                self.scratch.socket_dir().display().to_string(),
            ),
            ("PGPORT".into(), self.scratch.port().to_string()),
            ("PGUSER".into(), self.scratch.user().into()),
            ("PGDATABASE".into(), database.into()),
        ]
    }

    /// The folder of the stock programs.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Runs SQL and returns its rows, columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let script = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        fs::write(script.path(), sql).map_err(|error| error.to_string())?;
        let output = self
            .tool("psql", database)
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(script.path())
            .output()
            .map_err(|error| format!("psql: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// A path in the server's private folder.
    pub fn beside_data(&self, name: &str) -> PathBuf {
        self.scratch.data_dir().with_file_name(name)
    }

    /// Makes a folder that belongs to the server's user.
    pub fn give(&self, folder: &Path) -> Result<(), String> {
        let owner = fs::metadata(self.scratch.data_dir()).map_err(|error| error.to_string())?;
        fs::create_dir(folder)
            .and_then(|()| std::os::unix::fs::chown(folder, Some(owner.uid()), Some(owner.gid())))
            .map_err(|error| format!("{}: {error}", folder.display()))
    }

    /// A program run by the user who runs the server.
    pub fn as_its_user(&self, program: &str) -> Command {
        let owner = |of: &Path| fs::metadata(of).map_or((0, 0), |meta| (meta.uid(), meta.gid()));
        let (own, _) = owner(Path::new("/proc/self"));
        let (user, group) = owner(&self.scratch.data_dir());
        if own != 0 {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args([
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".into(),
            ])
            .arg(program)
            .current_dir("/");
        command
    }

    /// What pgBackRest has to be told about this server.
    pub fn pgbackrest_options(&self) -> [String; 4] {
        [
            format!("--pg1-path={}", self.scratch.data_dir().display()),
            format!("--pg1-socket-path={}", self.scratch.socket_dir().display()),
            format!("--pg1-port={}", self.scratch.port()),
            format!("--pg1-user={}", self.scratch.user()),
        ]
    }

    /// Stops the server in an orderly way and keeps its data directory as `place`, for another day.
    pub fn keep(&mut self, place: &Path) -> Result<(), String> {
        use lifeboat_pg::instance::StopMode;
        self.scratch.halt(StopMode::Fast);
        let copied = Command::new("cp")
            .args(["--archive", "--sparse=auto"])
            .arg(self.scratch.data_dir())
            .arg(place)
            .status()
            .map_err(|error| format!("cp: {error}"))?;
        if !copied.success() {
            return Err(format!("cp: {copied}"));
        }
        self.scratch
            .restart(StopMode::Fast)
            .map_err(|error| error.to_string())
    }
}
