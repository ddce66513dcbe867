//! What every command is handed: configuration, environment, output, the interrupt flag.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use lifeboat_engine::config::{Config, Sources, search};
use lifeboat_engine::journal::Journal;

use crate::cli::GlobalArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// The process, as far as commands may know it.
#[derive(Debug)]
pub struct App {
    /// What was configured.
    pub config: Config,
    /// The environment, as it was at the start. Variables that are not UTF-8 are not in it.
    pub environment: BTreeMap<String, String>,
    /// The two streams.
    pub out: Output,
    /// Set when somebody asked the process to stop.
    pub interrupt: Arc<AtomicBool>,
    /// The `--config` flag, for `init`.
    pub config_flag: Option<PathBuf>,
}

impl App {
    /// Finds, reads and resolves the configuration. Without `use_config` only the environment counts.
    pub fn new(
        global: &GlobalArgs,
        environment: BTreeMap<String, String>,
        out: Output,
        interrupt: Arc<AtomicBool>,
        use_config: bool,
    ) -> Result<Self, Failure> {
        let file = if use_config {
            find_config(global, &environment)?
        } else {
            None
        };
        if let Some((path, _)) = &file {
            out.detail(&format!("configuration: {}", path.display()));
        }
        let config = Config::resolve(&Sources {
            file,
            environment: &environment,
            is_root: rustix::process::geteuid().is_root(),
        })?;
        for notice in &config.notices {
            out.warn(notice);
        }
        Ok(Self {
            config,
            environment,
            out,
            interrupt,
            config_flag: global.config.clone(),
        })
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Opens the journal. When its folder cannot be used, says so once and goes on without history.
    pub fn journal(&self) -> Result<Journal, Failure> {
        let journal = Journal::open(self.config.state_dir.value.as_deref())
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        if let Some(reason) = journal.fallback() {
            self.out
                .warn(&format!("{reason}: this run is not kept in the history"));
        }
        Ok(journal)
    }

    /// Whether somebody asked the process to stop.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

/// The first configuration file that exists. One that was asked for must exist.
fn find_config(
    global: &GlobalArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Option<(PathBuf, String)>, Failure> {
    for candidate in search::candidates(global.config.as_deref(), environment) {
        match std::fs::read_to_string(&candidate.path) {
            Ok(text) => return Ok(Some((candidate.path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !candidate.required => {}
            Err(error) => {
                let path = candidate.path.display();
                let failure = Failure::new(
                    Exit::Usage,
                    format!("cannot read the configuration file {path}"),
                )
                .cause(&error);
                return Err(match error.kind() {
                    io::ErrorKind::NotFound => failure.hint(format!(
                        "{} names it; `lifeboat init` writes a new one",
                        candidate.origin
                    )),
                    io::ErrorKind::PermissionDenied => failure
                        .hint("run as the user that owns it, or name another with `--config FILE`"),
                    _ => failure,
                });
            }
        }
    }
    Ok(None)
}
