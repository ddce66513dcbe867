//! `cargo xtask bench history`: a month of hourly backups, what it takes to keep it, and one hour more of it.
//!
//! Nothing is simulated but the waiting. Every hour the database changes by the design's churn, then a real backup
//! is taken and the same state goes to each peer as a real dump. Only the hours do not pass: the backups are dated
//! a second or two apart. So the thirty days are said as `--keep-last 720`, to Lifeboat and to restic, which for
//! hourly backups are the same ones as `--keep-within 30d`.
//!
//! Autovacuum looks every second in place of every minute: then the tables are vacuumed when their dead rows reach
//! its threshold, as they are where an hour takes an hour, and space is used again as it is there.

mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_testkit::remote::S3Server;

use super::contenders::{Bench, Dumper, done, remove, size_bytes};
use super::dataset::{self, Sizes};
use super::measure::{self, Measured};
use super::report::Row;
use super::server::Server;
use super::wire::{Traffic, Wire};
use super::{build_lifeboat, dataset_server, page, print, say, settle, work_folder};

/// The repository that has keys of its own.
const STRANGER: &str = "stranger";

/// A month of hourly backups, beside restic and a folder of dumps.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Size of the dataset and of its churn; 1 is a database of 3.7 GB.
    #[arg(long, default_value_t = 0.01)]
    scale: f64,
    /// So many hourly backups are kept: 720 are thirty days.
    #[arg(long, default_value_t = 720)]
    hours: u32,
    /// Hours after these, in each of which the new backup is copied and the oldest one expires.
    #[arg(long, default_value_t = 12)]
    more: u32,
    /// Where the server, the dumps and the repositories go.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Copy to folders alone: no S3 server is started.
    #[arg(long)]
    without_s3: bool,
    /// Write the result to docs/benchmarks.md, not only to standard output.
    #[arg(long)]
    write: bool,
}

/// What is told of it.
#[derive(Debug)]
struct History {
    scale: f64,
    hours: u32,
    more: u32,
    postgres: String,
    /// Of the database, at the beginning and at the end.
    database_bytes: (u64, u64),
    /// Of each hour: seconds and peak of the backup, with the bytes that it added.
    backups: Vec<(Measured, u64)>,
    /// The size of each hour's `pg_dump -Fc` file.
    dumps: Vec<u64>,
    /// Of each repository, when the month was full, and after the hours that came and went.
    full: Kept,
    steady: Kept,
    /// The first of each, which also tidies up after a month without one.
    first_expiries: Vec<Row>,
    expiries: Vec<Row>,
    copies: Vec<Copies>,
    minutes: f64,
}

/// Bytes of the repositories.
#[derive(Debug, Clone, Copy)]
struct Kept {
    lifeboat: u64,
    restic_plain: u64,
    restic_files: u64,
}

/// A repository that is kept up to date, and what that took.
#[derive(Debug)]
struct Copies {
    /// For people.
    name: &'static str,
    /// In the configuration.
    repository: &'static str,
    place: Place,
    /// The whole month at once.
    first: Option<(Measured, Traffic)>,
    /// Each hour: how long it took, what the hour's backup had added to the primary, and what moved.
    hourly: Vec<(Measured, u64, Traffic)>,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Wire(Wire),
}

impl Copies {
    fn new(name: &'static str, repository: &'static str, place: Place) -> Copies {
        Copies {
            name,
            repository,
            place,
            first: None,
            hourly: Vec::new(),
        }
    }

    /// Runs a copy. What moved into a folder is what it grew by; nothing is said of what was read there.
    fn copy(&self, month: &Month<'_>) -> Result<(Measured, Traffic), String> {
        let mut command = month.lifeboat()?;
        command.args(["--json", "copy", "--to", self.repository]);
        let before = match &self.place {
            Place::Folder(folder) => size_bytes(folder),
            Place::Wire(wire) => wire.take().sent,
        };
        let measured = measure::run(&mut command)?;
        let moved = match &self.place {
            Place::Folder(folder) => Traffic {
                sent: size_bytes(folder).saturating_sub(before),
                received: 0,
            },
            Place::Wire(wire) => wire.take(),
        };
        Ok((measured, moved))
    }
}

/// Runs it.
///
/// # Errors
/// A sentence for the person who typed the command.
pub fn run(args: &Args) -> Result<(), String> {
    if args.hours < 3 || args.more < 2 || !(0.0001..=1.0).contains(&args.scale) {
        return Err(
            "--hours starts at 3, --more at 2, --scale lies between 0.0001 and 1: fewer than three backups are \
             never left, and the hours after the month are what is measured"
                .into(),
        );
    }
    let started = std::time::Instant::now();
    let work = work_folder(&args.dir)?;
    let server = dataset_server(&args.dir, args.scale, None)?;
    let bench = Bench {
        server: &server,
        dir: work.path(),
        lifeboat: Some(build_lifeboat()?),
        jobs: 2,
    };
    let s3 = (!args.without_s3).then(S3Server::start);
    let wire = s3.as_ref().map(|s3| Wire::to(s3.port())).transpose()?;
    let month = Month {
        bench: &bench,
        scale: args.scale,
    };
    let mut copies = month.prepare(s3.as_ref().zip(wire))?;
    let mut history = History {
        scale: args.scale,
        hours: args.hours,
        more: args.more,
        postgres: server.version.clone(),
        database_bytes: (database_bytes(&server)?, 0),
        backups: Vec::new(),
        dumps: Vec::new(),
        full: month.kept(),
        steady: month.kept(),
        first_expiries: Vec::new(),
        expiries: Vec::new(),
        copies: Vec::new(),
        minutes: 0.0,
    };
    for hour in 1..=args.hours {
        month.pass(hour, &mut history)?;
        if hour % 24 == 0 {
            say(&format!(
                "day {} of {}, {:.1} minutes",
                hour / 24,
                args.hours / 24,
                started.elapsed().as_secs_f64() / 60.0
            ));
        }
    }
    history.full = month.kept();
    for one in &mut copies {
        month.init(one)?;
        one.first = Some(one.copy(&month)?);
        say(&format!("the month was copied: {}", one.name));
    }
    let mut expiries = month.expiries(args.hours)?;
    let rows = expiries.iter().map(|(name, ..)| Row::new(name.clone()));
    history.expiries = rows.collect();
    history.first_expiries = history.expiries.clone();
    for hour in args.hours + 1..=args.hours + args.more {
        month.pass(hour, &mut history)?;
        let added = history.backups.last().map_or(0, |(_, added)| *added);
        for one in &mut copies {
            let (measured, moved) = one.copy(&month)?;
            one.hourly.push((measured, added, moved));
        }
        let rows = if hour == args.hours + 1 {
            &mut history.first_expiries
        } else {
            &mut history.expiries
        };
        for ((_, command, repository), row) in expiries.iter_mut().zip(rows) {
            settle(&bench)?;
            let measured = measure::run(command)?;
            row.add(&measured, size_bytes(repository));
        }
        say(&format!("hour {hour}"));
    }
    history.steady = month.kept();
    history.database_bytes.1 = database_bytes(&server)?;
    history.copies = copies;
    month.check(args.hours)?;
    history.minutes = started.elapsed().as_secs_f64() / 60.0;

    let text = history.markdown();
    print(&format!("## {}\n{text}", page::HISTORY));
    if args.write {
        page::write(|old| page::with_section(old, page::HISTORY, &text))?;
    }
    Ok(())
}

fn database_bytes(server: &Server) -> Result<u64, String> {
    let answer = server.sql("bench", "SELECT pg_database_size(current_database())")?;
    answer.parse().map_err(|error| format!("{answer}: {error}"))
}

/// The hours as they pass.
struct Month<'a> {
    bench: &'a Bench<'a>,
    scale: f64,
}

impl Month<'_> {
    /// Makes the primary, restic's repositories, and the configuration of those that are copied to.
    fn prepare(&self, bucket: Option<(&S3Server, Wire)>) -> Result<Vec<Copies>, String> {
        let bench = self.bench;
        bench.server.sql(
            "postgres",
            "ALTER SYSTEM SET autovacuum_naptime = '1s'; SELECT pg_reload_conf()",
        )?;
        let folder = |name: &str| Place::Folder(bench.dir.join(name));
        let mut copies = vec![
            Copies::new("a folder, shared keys", "twin", folder("twin")),
            Copies::new("a folder, keys of its own", STRANGER, folder(STRANGER)),
        ];
        let mut config = format!(
            "[[repository]]\npath = \"{}\"\n",
            Dumper::Lifeboat.destination(bench).display()
        );
        for name in ["twin", STRANGER] {
            config += &format!("\n[[repository]]\nname = \"{name}\"\npath = \"{name}\"\n");
        }
        if let Some((s3, wire)) = bucket {
            config += &format!(
                "\n[[repository]]\nname = \"bucket\"\nurl = \"s3:http://127.0.0.1:{}/{}/repository\"\n",
                wire.port(),
                s3.bucket()
            );
            let name = "a bucket (SeaweedFS), shared keys";
            copies.push(Copies::new(name, "bucket", Place::Wire(wire)));
        }
        fs::write(self.config(), config).map_err(|error| error.to_string())?;
        done(self.lifeboat()?.arg("init"))?;
        Dumper::PgDumpIntoRestic.prepare(bench)?;
        done(bench.restic(&self.restic_of_files()).args(["-q", "init"]))?;
        Ok(copies)
    }

    /// Makes a repository to copy to.
    fn init(&self, copies: &Copies) -> Result<(), String> {
        let mut command = self.lifeboat()?;
        command.args(["init", "--repository", copies.repository]);
        if copies.repository == STRANGER {
            command.arg("--separate-keys");
        }
        done(&mut command)
    }

    fn config(&self) -> PathBuf {
        self.bench.dir.join("lifeboat.toml")
    }

    fn restic_of_files(&self) -> PathBuf {
        self.bench.dir.join("restic-of-files")
    }

    /// Lifeboat with the configuration of several repositories.
    fn lifeboat(&self) -> Result<Command, String> {
        let mut command = self.bench.lifeboat("bench")?;
        command
            .env_remove("LIFEBOAT_REPOSITORY")
            .env("LIFEBOAT_CONFIG", self.config())
            .env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY);
        Ok(command)
    }

    /// An hour passes, then everybody takes what there is.
    fn pass(&self, hour: u32, history: &mut History) -> Result<(), String> {
        let bench = self.bench;
        if hour > 1 {
            let churn = dataset::churn(Sizes::at(self.scale), self.scale, hour - 1);
            bench.server.sql("bench", &churn)?;
        }
        let repository = Dumper::Lifeboat.destination(bench);
        let before = size_bytes(&repository);
        let measured = measure::run(self.lifeboat()?.args(["--json", "backup"]))?;
        let added = size_bytes(&repository).saturating_sub(before);
        history.backups.push((measured, added));

        // Of the peers only the bytes count, so they may hinder each other.
        let mut plain = Dumper::PgDumpIntoRestic.command(bench)?;
        let mut dump = Dumper::PgDumpCustom.command(bench)?;
        let file = Dumper::PgDumpCustom.destination(bench);
        let mut store = bench.restic(&self.restic_of_files());
        store.args(["-q", "backup"]).arg(&file);
        let size = std::thread::scope(|scope| {
            let files = scope.spawn(move || {
                done(&mut dump)?;
                done(&mut store)?;
                let size = size_bytes(&file);
                remove(&file)?;
                Ok::<_, String>(size)
            });
            done(&mut plain)?;
            files.join().map_err(|_| "a thread panicked".to_owned())?
        })?;
        history.dumps.push(size);
        Ok(())
    }

    fn kept(&self) -> Kept {
        Kept {
            lifeboat: size_bytes(&Dumper::Lifeboat.destination(self.bench)),
            restic_plain: size_bytes(&Dumper::PgDumpIntoRestic.destination(self.bench)),
            restic_files: size_bytes(&self.restic_of_files()),
        }
    }

    /// The commands that let the oldest backup go, and the repositories that they work on.
    fn expiries(&self, hours: u32) -> Result<Vec<(String, Command, PathBuf)>, String> {
        let bench = self.bench;
        let keep = ["--keep-last".to_owned(), hours.to_string()];
        let ours = Dumper::Lifeboat.destination(bench);
        let mut expire = self.lifeboat()?;
        expire.args(["--json", "expire"]).args(&keep);
        let mut found = vec![(format!("lifeboat expire --keep-last {hours}"), expire, ours)];
        for (what, repository) in [
            ("-Fc -Z0", Dumper::PgDumpIntoRestic.destination(bench)),
            ("-Fc", self.restic_of_files()),
        ] {
            let mut forget = bench.restic(&repository);
            forget.args(["-q", "forget", "--prune"]).args(&keep);
            let name = format!("restic forget --prune --keep-last {hours}, of `{what}` dumps");
            found.push((name, forget, repository));
        }
        Ok(found)
    }

    /// Everybody has kept what was to be kept, and the referee finds nothing wrong with ours.
    fn check(&self, hours: u32) -> Result<(), String> {
        let bench = self.bench;
        let ours = Dumper::Lifeboat.destination(bench);
        for repository in [
            &ours,
            &Dumper::PgDumpIntoRestic.destination(bench),
            &self.restic_of_files(),
        ] {
            let left = snapshots(repository);
            if left != hours as usize {
                let place = repository.display();
                return Err(format!("{left} of {hours} backups are left in {place}"));
            }
        }
        done(bench.restic(&ours).args(["-q", "check", "--read-data"]))
    }
}

fn snapshots(repository: &Path) -> usize {
    fs::read_dir(repository.join("snapshots")).map_or(0, Iterator::count)
}
