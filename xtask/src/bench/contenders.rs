//! The programs that are compared, and how each is told to do the same work.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::Server;

/// Everything a command needs to know.
#[derive(Debug)]
pub struct Bench<'a> {
    pub server: &'a Server,
    /// Destinations of dumps and repositories.
    pub dir: &'a Path,
    /// The release build of Lifeboat, if there is one.
    pub lifeboat: Option<PathBuf>,
    pub jobs: u32,
}

/// Who dumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumper {
    Lifeboat,
    PgDumpCustom,
    PgDumpDirectory,
    PgDumpIntoRestic,
    /// Physical: it copies files, not rows. Here for scale; left out where it is not installed.
    PgBackRest,
}

impl Dumper {
    pub const ALL: [Dumper; 5] = [
        Dumper::Lifeboat,
        Dumper::PgDumpCustom,
        Dumper::PgDumpDirectory,
        Dumper::PgDumpIntoRestic,
        Dumper::PgBackRest,
    ];

    pub fn name(self, jobs: u32) -> String {
        match self {
            Dumper::Lifeboat => "lifeboat backup".into(),
            Dumper::PgDumpCustom => "pg_dump -Fc".into(),
            Dumper::PgDumpDirectory => format!("pg_dump -Fd -j{jobs}"),
            Dumper::PgDumpIntoRestic => "pg_dump -Fc -Z0 \\| restic backup --stdin".into(),
            Dumper::PgBackRest => format!("pgbackrest, full, zst, {jobs} processes (physical)"),
        }
    }

    /// Where it puts what it makes.
    pub fn destination(self, bench: &Bench<'_>) -> PathBuf {
        bench.dir.join(match self {
            // The server's own user runs it, and can only write beside the server's data.
            Dumper::PgBackRest => return bench.server.beside_data("pgbackrest"),
            Dumper::Lifeboat => "lifeboat-repository",
            Dumper::PgDumpCustom => "custom.dump",
            Dumper::PgDumpDirectory => "directory.dump",
            Dumper::PgDumpIntoRestic => "restic-repository",
        })
    }

    /// Makes the destination ready; not measured.
    pub fn prepare(self, bench: &Bench<'_>) -> Result<(), String> {
        let destination = self.destination(bench);
        remove(&destination)?;
        match self {
            Dumper::Lifeboat => done(bench.lifeboat("bench")?.arg("init")),
            Dumper::PgDumpIntoRestic => done(bench.restic(&destination).args(["-q", "init"])),
            Dumper::PgDumpCustom | Dumper::PgDumpDirectory => Ok(()),
            Dumper::PgBackRest => {
                bench.server.give(&destination)?;
                done(bench.pgbackrest(&destination).arg("stanza-create"))
            }
        }
    }

    /// The measured command.
    pub fn command(self, bench: &Bench<'_>) -> Result<Command, String> {
        let destination = self.destination(bench);
        Ok(match self {
            Dumper::Lifeboat => {
                let mut command = bench.lifeboat("bench")?;
                command.args(["--json", "backup"]);
                command
            }
            Dumper::PgDumpCustom => {
                let mut command = bench.server.tool("pg_dump", "bench");
                command.args(["-Fc", "-f"]).arg(destination);
                command
            }
            Dumper::PgDumpDirectory => {
                let mut command = bench.server.tool("pg_dump", "bench");
                command
                    .args(["-Fd", &format!("-j{}", bench.jobs), "-f"])
                    .arg(destination);
                command
            }
            Dumper::PgBackRest => {
                let mut command = bench.pgbackrest(&destination);
                command.args(["--type=full", "--no-archive-check", "--start-fast"]);
                command.args(["--compress-type=zst", "--compress-level=1"]);
                command.arg(format!("--process-max={}", bench.jobs));
                command.args(["--repo1-retention-full=1", "backup"]);
                command
            }
            Dumper::PgDumpIntoRestic => {
                let mut command = bench.shell(
                    "\"$PG_DUMP\" -Fc -Z0 | restic -q backup --stdin --stdin-filename bench.dump",
                );
                command.env("PG_DUMP", bench.server.bin_dir().join("pg_dump"));
                bench.restic_env(&mut command, &destination);
                command
            }
        })
    }
}

impl Bench<'_> {
    /// The `lifeboat` program with everything it needs in its environment and nothing of this machine's.
    pub fn lifeboat(&self, database: &str) -> Result<Command, String> {
        let program = self
            .lifeboat
            .as_ref()
            .ok_or("no lifeboat program was built")?;
        let mut command = Command::new(program);
        command
            .current_dir(self.dir)
            .env_remove("LIFEBOAT_CONFIG")
            .env("DATABASE_URL", self.server.url(database))
            .env("LIFEBOAT_REPOSITORY", Dumper::Lifeboat.destination(self))
            .env("LIFEBOAT_PASSWORD_FILE", self.password_file())
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("XDG_CONFIG_HOME", self.dir.join("config"));
        Ok(command)
    }

    pub fn password_file(&self) -> PathBuf {
        self.dir.join("password")
    }

    /// restic on a repository, with a cache of its own.
    pub fn restic(&self, repository: &Path) -> Command {
        let mut command = Command::new("restic");
        self.restic_env(&mut command, repository);
        command
    }

    fn restic_env(&self, command: &mut Command, repository: &Path) {
        command
            .env("RESTIC_REPOSITORY", repository)
            .env("RESTIC_PASSWORD_FILE", self.password_file())
            .env("RESTIC_CACHE_DIR", self.dir.join("restic-cache"));
    }

    fn pgbackrest(&self, repository: &Path) -> Command {
        let mut command = self.server.as_its_user("pgbackrest");
        command.args([
            "--stanza=bench",
            "--log-level-console=warn",
            "--log-level-file=off",
        ]);
        for (option, folder) in [
            ("repo1-path", "repository"),
            ("lock-path", "lock"),
            ("log-path", "log"),
        ] {
            command.arg(format!("--{option}={}", repository.join(folder).display()));
        }
        command.args(self.server.pgbackrest_options());
        command
    }

    /// bash, so that a failure anywhere in a pipe fails the whole.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-c", script])
            .envs(self.server.env("bench"));
        command
    }

    /// Back into a database that was just made, from the custom-format file.
    pub fn pg_restore(&self, database: &str) -> Command {
        let mut command = self.server.tool("pg_restore", database);
        command
            .args([&format!("-j{}", self.jobs), "-d", database])
            .arg(Dumper::PgDumpCustom.destination(self));
        command
    }

    /// Back into a new database, from the repository. It compares the census too, which pg_restore cannot.
    pub fn lifeboat_restore(&self, database: &str) -> Result<Command, String> {
        let mut command = self.lifeboat("bench")?;
        command.args(["--json", "restore", "latest", "--to", database]);
        command.args(["--jobs", &self.jobs.to_string()]);
        Ok(command)
    }
}

/// Runs a command whose time does not count.
pub fn done(command: &mut Command) -> Result<(), String> {
    super::measure::run(command).map(|_| ())
}

/// Removes a file or a folder, if it is there.
pub fn remove(path: &Path) -> Result<(), String> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(|error| format!("{}: {error}", path.display()))
}

/// Bytes of a file, or of all files below a folder.
pub fn size_bytes(path: &Path) -> u64 {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| size_bytes(&entry.path()))
            .sum(),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}
