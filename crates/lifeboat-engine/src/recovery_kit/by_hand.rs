//! Doing what part B of a kit says, to the letter: a shell runs the printed lines in an empty home, against a scratch
//! server, and what it is asked to type is typed. Then the rows are counted.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat_pg::conninfo::{ConnInfo, ConnInfoError};
use lifeboat_pg::instance::{InstanceError, PrivateFolder, ScratchOptions, ScratchServer};
use lifeboat_pg::tools::{Tool, ToolError, ToolFinder, Wanted};
use lifeboat_pg::wire::{ConnectOptions, Connection, PgError, quote_ident};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{Kit, ReadKit};
use crate::drill;
use crate::event::{Observer, Stage, Stages};
use crate::manifest::{MANIFEST_MAX_BYTES, MANIFEST_PATH, Manifest};

/// The folder that the kit's commands make and go into.
const FOLDER: &str = "lifeboat-recovery";
/// How often the shell is looked after.
const LOOK: Duration = Duration::from_millis(20);
/// How much of what the commands said is told.
const LAST_LINES: usize = 4;

/// What to do, and where.
#[derive(Debug)]
pub struct ByHandRequest<'a> {
    /// The kit, with the commands that it prints.
    pub kit: &'a ReadKit,
    /// The major version of the server that it is tried on, and of its programs.
    pub major: u32,
    /// The values of the kit's credentials, in its order.
    pub credentials: Vec<SecretString>,
    /// Where the folder for it and the scratch server are made.
    pub parent_dir: PathBuf,
    /// Where `restic` and a shell are.
    pub path: OsString,
    /// How PostgreSQL's programs are found.
    pub tools: ToolFinder,
    /// Set to stop.
    pub interrupt: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ByHandReport {
    /// What is wrong, one sentence each; empty when all is well.
    pub failures: Vec<String>,
    /// How many lines were typed.
    pub commands: usize,
    /// Every table of every database.
    pub tables: Vec<TableCount>,
    /// Rows that were found.
    pub rows: u64,
    /// How long it took.
    pub seconds: f64,
}

/// The rows of one table.
#[derive(Debug, Clone, Serialize)]
pub struct TableCount {
    /// The database that it belongs to.
    pub database: String,
    /// `schema.table`.
    pub table: String,
    /// What the backup's own list says.
    pub expected: u64,
    /// What there is; absent when it could not be counted.
    pub found: Option<u64>,
}

/// Why nothing can be said of part B.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// Its programs are not installed.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// No scratch server could be had.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Its address could not be used.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// The folder or the shell could not be had.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ByHandError {
    let path = path.to_owned();
    move |source| ByHandError::Io {
        action,
        path,
        source,
    }
}

/// Types the commands, and counts what they brought back. Nothing of it stays.
///
/// # Errors
/// When it could not be tried. A command that fails, or a row too few, is no error but a report that says so.
pub fn run(
    request: &ByHandRequest<'_>,
    observer: &dyn Observer,
) -> Result<ByHandReport, ByHandError> {
    let started = Instant::now();
    let kit = &request.kit.kit;
    let mut stages = Stages::new(observer);
    let programs = [Tool::Initdb, Tool::Postgres, Tool::PgRestore, Tool::Psql];
    let found = request
        .tools
        .find(&programs, Wanted::Exactly(request.major))?;
    let bin_dir = found.bin_dir().map(PathBuf::from).unwrap_or_default();
    // The commands write the passphrase into it. What a killed test left goes with the sweep before part A's drill.
    let home = PrivateFolder::create(&request.parent_dir)?;
    let server = stages.run(Stage::Scratch, || {
        let mut options = ScratchOptions::new(&bin_dir, &request.parent_dir);
        options.interrupt = Arc::clone(&request.interrupt);
        options.settings = drill::throw_away_settings();
        ScratchServer::start(&options)
    })?;
    let shell = Shell {
        request,
        home: home.path(),
        bin_dir: &bin_dir,
        server: &server,
    };
    let mut report = ByHandReport {
        failures: Vec::new(),
        commands: request.kit.without.len(),
        tables: Vec::new(),
        rows: 0,
        seconds: 0.0,
    };
    let said = stages.run(Stage::Data, || shell.run())?;
    match said {
        Some(failure) => report.failures.push(failure),
        None => stages.run(Stage::Compare, || {
            count(kit, home.path(), &server, &request.interrupt, &mut report)
        })?,
    }
    stages.run(Stage::CleanUp, || server.stop())?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Waits for our end of a pipe to close, which the kernel does however we end; then ends the shell and all that it
/// runs, and removes what they were given. The rest of the folder is the next sweep's, which knows it by its marker.
const WATCHDOG: &str = r#"
read -r _
kill -KILL -- "-$1"
rm -rf -- "$2"
"#;

/// Nobody goes on with the passphrase when we were killed. Without it, as where it cannot be started, the sweep is all
/// that cleans up.
struct Watchdog(Option<Child>);

impl Watchdog {
    fn over(shell: &Child, home: &Path) -> Self {
        let started = Command::new("sh")
            .args(["-c", WATCHDOG, "lifeboat-watchdog"])
            .arg(shell.id().to_string())
            .arg(home.join(FOLDER))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the Ctrl-C that ends us.
            .process_group(0)
            .spawn();
        Self(started.ok())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.0.take() {
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
    }
}

/// A shell in an empty home, as a helper would have it before them.
struct Shell<'a> {
    request: &'a ByHandRequest<'a>,
    home: &'a Path,
    bin_dir: &'a Path,
    server: &'a ScratchServer,
}

impl Shell<'_> {
    /// Types everything. Returns what went wrong, if something did.
    fn run(&self) -> Result<Option<String>, ByHandError> {
        let script = self.home.join("commands");
        let output = self.home.join("output");
        let lines = self.request.kit.without.join("\n") + "\n";
        std::fs::write(&script, lines).map_err(io_error("write", &script))?;
        let said = File::create(&output).map_err(io_error("write", &output))?;
        let both = said.try_clone().map_err(io_error("write", &output))?;
        let mut child = self
            .command(&script)
            .stdin(Stdio::piped())
            .stdout(said)
            .stderr(both)
            .spawn()
            .map_err(io_error("run", Path::new("sh")))?;
        let watchdog = Watchdog::over(&child, self.home);
        let typing = child.stdin.take().map(|mut stdin| {
            let answers = self.answers();
            std::thread::spawn(move || {
                // A shell that ended early reads no more of it, and says why itself.
                let _ = stdin.write_all(answers.expose_secret().as_bytes());
            })
        });
        let ended = self.wait(&mut child);
        drop(watchdog);
        if let Some(typing) = typing {
            let _ = typing.join();
        }
        let ended = ended?;
        Ok((!ended.success()).then(|| {
            let said = std::fs::read(&output).unwrap_or_default();
            format!(
                "the commands of part B end with {ended}: {}",
                self.last_words(&said)
            )
        }))
    }

    fn command(&self, script: &Path) -> Command {
        let mut path = OsString::from(self.bin_dir);
        path.push(":");
        path.push(&self.request.path);
        let mut command = Command::new("sh");
        // -e stops at the first that fails; -v shows which it was, as it is printed: -x would show the passphrase in it.
        command
            .arg("-euv")
            .arg(script)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home)
            .env("TMPDIR", self.home)
            .env("LC_ALL", "C.UTF-8")
            .env("PGHOST", self.server.socket_dir())
            .env("PGPORT", self.server.port().to_string())
            .env("PGUSER", self.server.user())
            .current_dir(self.home)
            // A group of its own, so that an interrupt ends the programs that it runs too.
            .process_group(0);
        command
    }

    /// What the lines that wait are given: the passphrase, then the credentials.
    fn answers(&self) -> SecretString {
        let mut answers = String::new();
        for answer in
            std::iter::once(&self.request.kit.kit.passphrase).chain(&self.request.credentials)
        {
            answers.push_str(answer.expose_secret());
            answers.push('\n');
        }
        answers.into()
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, ByHandError> {
        let failed = |error| io_error("wait for", Path::new("sh"))(error);
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if self.request.interrupt.load(Ordering::Relaxed) {
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
                let _ = child.wait();
                return Err(ByHandError::Interrupted);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The last lines that were said, without a secret that a program may have repeated.
    fn last_words(&self, said: &[u8]) -> String {
        let mut said = String::from_utf8_lossy(said).into_owned();
        for secret in self
            .answers()
            .expose_secret()
            .lines()
            .filter(|line| !line.is_empty())
        {
            said = said.replace(secret, "…");
        }
        let lines: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let first = lines.len().saturating_sub(LAST_LINES);
        lines[first..].join("; ")
    }
}

/// Counts the rows of every table that the restored files' own list names.
fn count(
    kit: &Kit,
    home: &Path,
    server: &ScratchServer,
    interrupt: &Arc<AtomicBool>,
    report: &mut ByHandReport,
) -> Result<(), ByHandError> {
    for database in &kit.databases {
        let path = home
            .join(FOLDER)
            .join(kit.folder(&database.name))
            .join(MANIFEST_PATH);
        let manifest = match read_manifest(&path) {
            Ok(manifest) => manifest,
            Err(what) => {
                report.failures.push(format!("{}: {what}", database.name));
                continue;
            }
        };
        let conninfo = ConnInfo::parse(&server.url(&database.target()), &|_: &str| None)?;
        let options = ConnectOptions {
            application_name: Some("lifeboat recovery-kit".to_owned()),
            interrupt: Arc::clone(interrupt),
            ..ConnectOptions::default()
        };
        let mut connection = match Connection::connect(&conninfo, &options) {
            Ok(connection) => connection,
            Err(PgError::Interrupted) => return Err(ByHandError::Interrupted),
            Err(error) => {
                report.failures.push(format!("{}: {error}", database.name));
                continue;
            }
        };
        for table in &manifest.tables {
            let found = match rows(&mut connection, &table.schema, &table.table) {
                Err(PgError::Interrupted) => return Err(ByHandError::Interrupted),
                found => found.ok(),
            };
            let count = TableCount {
                database: database.name.clone(),
                table: table.name(),
                expected: table.census.rows(),
                found,
            };
            report.rows += found.unwrap_or(0);
            report.failures.extend(count.difference());
            report.tables.push(count);
        }
    }
    Ok(())
}

fn read_manifest(path: &Path) -> Result<Manifest, String> {
    let bytes = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if bytes > MANIFEST_MAX_BYTES {
        return Err(format!("its list of tables has {bytes} bytes"));
    }
    let json = std::fs::read(path).map_err(|error| error.to_string())?;
    Manifest::from_json(&json).map_err(|error| error.to_string())
}

fn rows(connection: &mut Connection, schema: &str, table: &str) -> Result<u64, PgError> {
    // ONLY: an inheritance parent's own rows are what its backup counted.
    let sql = format!(
        "SELECT count(*) AS rows FROM ONLY {}.{}",
        quote_ident(schema),
        quote_ident(table)
    );
    let answer = connection.query(&sql)?;
    Ok(answer.value("rows")?.parse().unwrap_or(u64::MAX))
}

impl TableCount {
    fn difference(&self) -> Option<String> {
        let Self {
            database,
            table,
            expected,
            found,
        } = self;
        match found {
            Some(found) if found == expected => None,
            Some(found) => Some(format!(
                "{table} of {database} has {found} rows; the backup recorded {expected}"
            )),
            None => Some(format!("{table} of {database} could not be counted")),
        }
    }
}
