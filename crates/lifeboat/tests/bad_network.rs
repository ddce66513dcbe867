//! Networks that misbehave: a proxy of ours in front of a real S3 server, a link of ours in front of a real sshd.
//! What may pass is passed over; what does not pass is given up in time, with its cause; and whatever happened, what
//! was acknowledged is there, restic finds nothing wrong, and the next run succeeds.
//!
//! `LIFEBOAT_TORTURE=1` strikes at every request, and with each fault.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use lifeboat_testkit::remote::{Fault, FaultyLink, FaultyProxy, LinkFault, S3Server, SshServer};
use lifeboat_testkit::{TestDatabase, TestServer};
use support::report::{Finding, tell};
use support::running::Run;
use support::several::{World, a_bucket, a_folder};
use support::sql::Restored;
use support::strace::is_torture;
use support::{app_database, data};

/// What a client that tries again gets over.
const PASSING: [Fault; 8] = [
    Fault::Answer(500, "InternalError"),
    Fault::Answer(503, "SlowDown"),
    Fault::ResetInRequest,
    Fault::ResetInAnswer,
    Fault::SilentAnswer,
    Fault::Silent,
    Fault::Truncated,
    Fault::Slow,
];

/// Three seconds without a byte are a lost connection, eight are the end. With less, a busy machine looks like a dead
/// one.
const IMPATIENT: &str = "stall_timeout = \"3s\"\ngive_up_after = \"8s\"";

/// A primary far away, behind something that misbehaves; and a folder, as what is copied to.
struct Remote {
    world: World,
    database: TestDatabase<'static>,
    /// Where restic finds it without what misbehaves.
    direct: String,
    seed: usize,
    /// What `expire` has to leave.
    newest: Vec<String>,
}

fn bucket(name: &str, more: &str) -> (FaultyProxy, Remote) {
    let server = S3Server::shared();
    let proxy = FaultyProxy::start(server.port());
    let place = format!("{}/host/repo", server.bucket());
    let through = format!("s3:{}/{place}", proxy.endpoint());
    let direct = format!("s3:{}/{place}", server.endpoint());
    (
        proxy,
        Remote::new(name, &a_bucket("bucket", &through, more), direct),
    )
}

fn behind_ssh(name: &str, more: &str) -> (FaultyLink, Remote) {
    let server = SshServer::shared();
    let link = FaultyLink::start(server.port());
    let folder = server.folder().join(name);
    let repository = format!(
        "[[repository]]\nname = \"ssh\"\nurl = \"sftp://127.0.0.1:{}/{}\"\n\
         ssh_command = [\"ssh\", \"-F\", \"{}\", \"-o\", \"HostKeyAlias=[127.0.0.1]:{}\"]\n{more}\n\n",
        link.port(),
        folder.display(),
        server.ssh_config().display(),
        server.port(),
    );
    (
        link,
        Remote::new(name, &repository, folder.display().to_string()),
    )
}

impl Remote {
    fn new(name: &str, repository: &str, direct: String) -> Remote {
        let database = app_database(name);
        let world = World::of(
            &database.url(),
            &format!("{repository}{}", a_folder("disk")),
        );
        world.run(&["init"]).ok();
        world.run(&["init", "--repository", "disk"]).ok();
        let mut remote = Remote {
            world,
            database,
            direct,
            seed: 0,
            newest: Vec::new(),
        };
        for _ in 0..4 {
            remote.back_up();
        }
        // From now on each has as much to do as the one before.
        remote.run("expire").code_is(0);
        remote.run("copy").code_is(0);
        remote
    }

    fn churn(&mut self) {
        self.seed += 1;
        data::churn_a_little(&self.database, self.seed);
    }

    /// Something new, and a backup of it.
    fn back_up(&mut self) {
        self.churn();
        let taken = self.world.backup();
        self.newest.push(support::text(&taken, "backup"));
    }

    /// Makes sure that a command has something to do.
    fn prepare(&mut self, command: &str) {
        match command {
            "backup" => self.churn(),
            "copy" | "expire" => self.back_up(),
            _ => {}
        }
    }

    /// Runs a command through the proxy, whatever it does.
    fn run(&mut self, command: &str) -> Run {
        let target = Restored::reserve(TestServer::shared(), "bad_network");
        let restore = ["restore", "latest", "--to", target.name()];
        let args: &[&str] = match command {
            "backup" => &["backup", "--json"],
            "copy" => &["copy"],
            "verify" => &["verify", "--all"],
            "expire" => &["expire", "--keep-last", "3"],
            _ => &restore,
        };
        let run = self.world.run(args);
        if command == "backup" && run.code == 0 {
            let taken = run.json("backup");
            self.newest.push(support::text(&taken, "backup"));
        }
        run
    }

    /// Everything that was acknowledged and has to stay is there; restic finds nothing wrong.
    #[track_caller]
    fn is_well(&self) {
        let listed = self.world.listed();
        for id in self.newest.iter().rev().take(3) {
            assert!(listed.contains(id), "{id} is lost: {listed:#?}");
        }
        let passphrase = self.world.password_file();
        self.world.restic_is_content(&self.direct, &passphrase, &[]);
    }
}

const COMMANDS: [&str; 5] = ["backup", "verify", "restore", "copy", "expire"];

/// All of them, or one that writes and one that reads.
fn some_commands() -> &'static [&'static str] {
    if is_torture() {
        &COMMANDS
    } else {
        &["backup", "restore"]
    }
}

/// Strikes at each `stride`th request of each command, beginning with the `first`. Returns how many it struck.
fn passes(
    (proxy, bucket): (&FaultyProxy, &mut Remote),
    stride: usize,
    first: usize,
    faults: &[Fault],
) -> usize {
    let mut struck = 0;
    for (place, command) in COMMANDS.into_iter().enumerate() {
        bucket.prepare(command);
        let mut planned = faults.to_vec();
        planned.rotate_left(3 * place % faults.len());
        proxy.strike(move |number| {
            let turn = number.checked_sub(first)?;
            let is_due = turn.is_multiple_of(stride);
            is_due.then(|| planned[turn / stride % planned.len()])
        });
        let run = bucket.run(command);
        let (requests, now) = proxy.calm();
        let point = format!("{command}, from {first} by {stride}: {faults:?}");
        assert!(
            requests > 5 && now > 0,
            "{now} of {requests}: {point}\n{run}"
        );
        assert_eq!(run.code, 0, "{now} of {requests}: {point}\n{run}");
        struck += now;
    }
    bucket.is_well();
    struck
}

#[test]
fn faults_of_a_bucket_that_pass() {
    let patient = "stall_timeout = \"1s\"\ngive_up_after = \"60s\"";
    let (proxy, mut bucket) = bucket("passing", patient);
    let tell_of = |what: &str, n| {
        tell(&Finding {
            group: "Network",
            what: &format!(
                "a bucket: {what}, at requests of backup, verify --all, restore, copy, expire"
            ),
            n,
            bad: 0,
            of: "commands that failed, backups lost, faults that restic finds",
        });
    };
    if !is_torture() {
        let struck = passes((&proxy, &mut bucket), 9, 2, &PASSING);
        tell_of("every fault in turn", struck);
        return;
    }
    for (place, fault) in PASSING.into_iter().enumerate() {
        // Each sixth request; every one of them by some fault.
        let struck = passes((&proxy, &mut bucket), 6, 1 + place % 6, &[fault]);
        tell_of(&fault.name(), struck);
    }
}

#[test]
fn faults_of_a_bucket_that_stay() {
    let (proxy, mut bucket) = bucket("staying", IMPATIENT);
    let faults = [
        (
            Fault::Answer(500, "InternalError"),
            "the server answered 500",
        ),
        (Fault::Answer(503, "SlowDown"), "the server answered 503"),
        (
            Fault::Answer(403, "InvalidAccessKeyId"),
            "InvalidAccessKeyId",
        ),
        (Fault::ResetInRequest, "connection"),
        (Fault::ResetInAnswer, "connection"),
        (Fault::SilentAnswer, "no answer within 3 s"),
        (Fault::Silent, "no answer within 3 s"),
        (Fault::Truncated, "connection"),
    ];
    for (turn, (fault, cause)) in faults.into_iter().enumerate() {
        let mut struck = 0;
        for (place, command) in COMMANDS.into_iter().enumerate() {
            // Of the eight, three; each with another command.
            if !is_torture() && (turn % 3 != 1 || turn % COMMANDS.len() != place) {
                continue;
            }
            bucket.prepare(command);
            // From the middle of it: everything works, and then nothing does any more.
            proxy.strike(|_| None);
            bucket.run(command).code_is(0);
            let (requests, _) = proxy.calm();
            // Each fault with each command, at another place.
            let part = if is_torture() {
                1 + (turn + place) % 8
            } else {
                5
            };
            let from = requests * part / 10;
            bucket.prepare(command);
            proxy.strike(move |number| (number >= from).then_some(fault));
            let run = bucket.run(command);
            let (_, now) = proxy.calm();
            let point = format!("{command}, from {from} of {requests}: {fault:?}");
            if now == 0 {
                // There was less to do than in the run that was measured.
                assert_eq!(run.code, 0, "{point}\n{run}");
                continue;
            }
            given_up(run, cause, &point);
            struck += 1;
            // The next run, of everything that is there.
            bucket.prepare(command);
            let next = bucket.run(command);
            assert_eq!(next.code, 0, "the next run: {point}\n{next}");
        }
        if struck == 0 {
            assert!(!is_torture(), "{fault:?} was never met");
            continue;
        }
        bucket.is_well();
        tell(&Finding {
            group: "Network",
            what: &format!(
                "a bucket: {} from some request on, for backup, verify --all, restore, copy, expire",
                fault.name()
            ),
            n: struck,
            bad: 0,
            of: "commands that did not give up in time with the cause, backups lost, faults that restic finds, next runs that failed",
        });
    }
}

/// It gave up, in time, and said why.
#[track_caller]
fn given_up(run: Run, cause: &str, point: &str) {
    assert!(run.took < Duration::from_secs(60), "{point}\n{run}");
    assert_eq!(run.code, 1, "{point}\n{run}");
    assert!(run.stderr.contains(cause), "{point}\n{run}");
    // As a line, or in an object.
    let is_hinted = !run.hints().is_empty() || run.stderr.contains("\"hints\":[\"");
    assert!(is_hinted, "{point}\n{run}");
}

/// Where a run of a command is struck: parts of all the bytes that an undisturbed one moves.
fn places(bytes: usize) -> Vec<usize> {
    let parts = if is_torture() { 6 } else { 1 };
    (0..parts)
        .map(|part| 1 + bytes * part / parts + bytes / (2 * parts))
        .collect()
}

#[test]
fn a_link_that_is_lost_or_reset() {
    let patient = "stall_timeout = \"3s\"\ngive_up_after = \"60s\"";
    let (link, mut remote) = behind_ssh("lost", patient);
    for (fault, what) in [
        (
            LinkFault::Lost,
            "nothing comes any more of what is under way",
        ),
        (LinkFault::Reset, "the connection is reset"),
    ] {
        let mut struck = 0;
        for command in some_commands() {
            remote.prepare(command);
            link.up();
            remote.run(command).code_is(0);
            let (bytes, _) = link.up();
            for after in places(bytes) {
                remote.prepare(command);
                link.strike_after(after, fault);
                let run = remote.run(command);
                let (_, now) = link.up();
                let point = format!("{command}, {fault:?} after {after} of {bytes} bytes");
                // The last bytes of a run may be fewer than those of the one that was measured.
                assert_eq!(run.code, 0, "{point}\n{run}");
                assert!(now == 1 || after > bytes * 3 / 4, "{point}\n{run}");
                struck += now;
            }
        }
        remote.is_well();
        remote.world.assert_nothing_left();
        tell(&Finding {
            group: "Network",
            what: &format!(
                "sshd: {what}, in the middle of backup, verify --all, restore, copy, expire"
            ),
            n: struck,
            bad: 0,
            of: "commands that failed, backups lost, faults that restic finds",
        });
    }
}

#[test]
fn a_link_that_stays_down() {
    let (link, mut remote) = behind_ssh("down", IMPATIENT);
    let mut struck = 0;
    for command in some_commands() {
        remote.prepare(command);
        link.up();
        remote.run(command).code_is(0);
        let (bytes, _) = link.up();
        for after in places(bytes)
            .into_iter()
            .take(if is_torture() { 4 } else { 1 })
        {
            remote.prepare(command);
            link.strike_after(after, LinkFault::Down);
            let run = remote.run(command);
            let point = format!("{command}, down after {after} of {bytes} bytes");
            if run.code == 0 {
                // There was less to do than in the run that was measured.
                assert_eq!(link.up().1, 0, "{point}\n{run}");
                continue;
            }
            given_up(run, "no answer within 3 s", &point);
            // As a cron job would: while it is down.
            if after == places(bytes)[0] {
                given_up(remote.run(command), "no answer within 3 s", &point);
            }
            struck += link.up().1;
            remote.prepare(command);
            let next = remote.run(command);
            assert_eq!(next.code, 0, "the next run: {point}\n{next}");
        }
    }
    remote.is_well();
    remote.world.assert_nothing_left();
    tell(&Finding {
        group: "Network",
        what: "sshd: the link goes down without a word, in the middle of backup, verify --all, restore, copy, expire",
        n: struck,
        bad: 0,
        of: "commands that did not give up in time with the cause, backups lost, faults that restic finds, next runs that failed",
    });
}
