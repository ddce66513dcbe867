//! Repositories on other machines: the conformance suite, the real restic, and everything that goes wrong with
//! a network, on a real SeaweedFS and a real sshd.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::error::Error as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lifeboat_repo::RepositoryError;
use lifeboat_repo::lock::LockMode;
use lifeboat_repo::storage::remote::RemoteOptions;
use lifeboat_repo::storage::{FileKind, Storage, StorageError, StorageErrorKind};
use lifeboat_testkit::remote::{S3Server, SshServer};
use lifeboat_testkit::storage_conformance::storage_conformance;
use support::remote::{impatient, s3, s3_access, s3_at, s3_storage, sftp, sftp_storage, ssh_with};
use support::{PASSWORD, back_up, check, clock, init, noise, open, rows, this_process};

fn name(number: usize) -> String {
    format!("{number:02x}{}", "5a".repeat(31))
}

fn words(error: &StorageError) -> String {
    format!(
        "{error}: {}",
        error.source().map(ToString::to_string).unwrap_or_default()
    )
}

/// restic on a remote repository.
fn restic(location: &str, home: &Path, extra: &[String], arguments: &[&str]) -> String {
    let output = Command::new("restic")
        .args(["--repo", location, "--no-cache"])
        .args(extra)
        .args(arguments)
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY)
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()
        .expect("restic has to be installed: run scripts/setup");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "restic {arguments:?}: {out}\n{err}"
    );
    out
}

/// Our repository, judged by restic; and restic's, read by us.
fn restic_and_we_agree(storage: &Arc<dyn Storage>, location: &str, extra: &[String]) {
    let home = tempfile::tempdir().unwrap();
    let repository = init(Arc::clone(storage)).unwrap();
    let files = [
        ("dump/toc.dat", rows(1, 100)),
        ("dump/tables/memes", noise(2, 400_000)),
    ];
    let (snapshot, _) = back_up(&repository, 9, &files, 100_000).unwrap();
    let said = restic(location, home.path(), extra, &["check", "--read-data"]);
    assert!(said.contains("no errors were found"), "{said}");
    let target = home.path().join("restored");
    let target_text = target.to_str().unwrap();
    restic(
        location,
        home.path(),
        extra,
        &["restore", "latest", "--target", target_text],
    );
    for (path, content) in &files {
        assert!(
            std::fs::read(target.join(path)).unwrap() == *content,
            "{path}"
        );
    }

    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), noise(3, 50_000)).unwrap();
    restic(
        location,
        home.path(),
        extra,
        &["backup", source.to_str().unwrap()],
    );
    let again = open(Arc::clone(storage)).unwrap();
    let (snapshots, damaged) = again.snapshots().unwrap();
    assert_eq!((snapshots.len(), damaged.len()), (2, 0));
    assert!(snapshots.iter().any(|found| found.id == snapshot.id));
    assert_eq!(check(&again, true).findings, []);
}

#[test]
fn s3_conforms() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let made = AtomicUsize::new(0);
    storage_conformance(&|| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        s3(&s3_at(
            &server.endpoint(),
            &bucket,
            &format!("{number}/deep/repo"),
        ))
    });
}

#[test]
fn s3_without_a_prefix_and_under_a_limit_works() {
    let server = S3Server::shared();
    let location = s3_at(&server.endpoint(), &server.bucket(), "");
    let options = RemoteOptions {
        bytes_per_second: Some(1 << 20),
        ..impatient()
    };
    let storage = s3_storage(&location, &s3_access(), options);
    storage.create().unwrap();
    storage.write(FileKind::Config, "config", b"x").unwrap();
    let content = noise(1, 1 << 20);
    let start = Instant::now();
    storage.write(FileKind::Pack, &name(1), &content).unwrap();
    let taken = start.elapsed();
    // A quarter of a second's worth may go at once.
    assert!(
        (Duration::from_millis(600)..Duration::from_secs(15)).contains(&taken),
        "{taken:?}"
    );
    assert!(storage.read(FileKind::Pack, &name(1)).unwrap() == content);
    assert_eq!(storage.list(FileKind::Config).unwrap().len(), 1);
}

#[test]
fn restic_and_we_agree_over_s3() {
    let server = S3Server::shared();
    let location = s3_at(&server.endpoint(), &server.bucket(), "host/repo");
    restic_and_we_agree(&s3(&location), &location, &[]);
}

/// Bad credentials, in these words, and without a second try.
fn told_at_once(attempt: &dyn Fn() -> Result<(), StorageError>, word: &str) -> StorageError {
    let start = Instant::now();
    let error = attempt().unwrap_err();
    let words = words(&error);
    assert_eq!(error.kind(), StorageErrorKind::BadCredentials, "{words}");
    assert!(words.contains(word), "{words}");
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(15), "no second try: {taken:?}");
    error
}

#[test]
fn a_wrong_secret_is_told_at_once_and_not_repeated() {
    let server = S3Server::shared();
    let location = s3_at(&server.endpoint(), &server.bucket(), "p");
    let mut access = s3_access();
    access.secret_access_key = "hunter2-hunter2".into();
    let storage = s3_storage(&location, &access, RemoteOptions::default());
    let attempts: [&dyn Fn() -> Result<(), StorageError>; 3] = [
        &|| storage.list(FileKind::Key).map(|_| ()),
        &|| storage.create(),
        &|| storage.size(FileKind::Config, "config").map(|_| ()),
    ];
    for attempt in attempts {
        let error = told_at_once(attempt, "SignatureDoesNotMatch");
        assert!(!words(&error).contains("hunter2"), "{}", words(&error));
    }
    assert!(!format!("{access:?} {storage:?}").contains("hunter2"));
}

#[test]
fn a_missing_bucket_is_not_a_missing_repository() {
    let server = S3Server::shared();
    let location = s3_at(&server.endpoint(), "lifeboat-no-such-bucket", "p");
    for result in [init(s3(&location)), open(s3(&location))] {
        match result {
            Err(RepositoryError::Storage(error)) => {
                assert_eq!(
                    error.kind(),
                    StorageErrorKind::NoSuchPlace,
                    "{}",
                    words(&error)
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let location = s3_at(&server.endpoint(), &server.bucket(), "nothing/here");
    assert!(matches!(
        open(s3(&location)),
        Err(RepositoryError::NotFound { .. })
    ));
}

#[test]
fn a_dead_server_is_given_up_with_its_cause() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let s3 = s3(&s3_at(&format!("http://127.0.0.1:{port}"), "bucket", "p"));
    let location = format!("sftp://127.0.0.1:{port}//nowhere");
    let ssh = ssh_with(&SshServer::shared().ssh_config());
    let sftp = sftp_storage(&location, ssh, impatient());
    for storage in [s3, sftp as Arc<dyn Storage>] {
        let error = storage.list(FileKind::Key).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unreachable);
        assert!(!error.is_permanent());
        let words = words(&error);
        assert!(
            words.contains("given up after") && words.contains("refused"),
            "{words}"
        );
    }
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = RemoteOptions {
        stall_timeout: Duration::from_millis(300),
        ..impatient()
    };
    let location = s3_at(&format!("http://127.0.0.1:{port}"), "bucket", "p");
    let storage = s3_storage(&location, &s3_access(), options.clone());
    let error = storage.list(FileKind::Key).unwrap_err();
    assert!(
        words(&error).contains("no answer within"),
        "{}",
        words(&error)
    );

    // And somebody who asks to stop is heard while nothing comes.
    let options = RemoteOptions {
        stall_timeout: Duration::from_secs(3600),
        ..options
    };
    let interrupt = Arc::clone(&options.interrupt);
    let storage = s3_storage(&location, &s3_access(), options);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The request has arrived: now it is being waited for.
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            interrupt.store(true, Ordering::Relaxed);
            // The connection stays open until the other side has had enough.
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        });
        let error = storage.list(FileKind::Key).unwrap_err();
        assert_eq!(
            error.kind(),
            StorageErrorKind::Interrupted,
            "{}",
            words(&error)
        );
        assert!(start.elapsed() < Duration::from_secs(20));
        drop(storage);
    });
    drop(listener);
}

/// Writes packs until told to stop, while the server dies and comes back in the middle: every write that was
/// acknowledged is there, whole.
fn survives_a_server_that_dies(
    storage: &dyn Storage,
    mut die: impl FnMut(),
    mut rise: impl FnMut(),
) {
    storage.create().unwrap();
    storage.write(FileKind::Config, "config", b"x").unwrap();
    let content = |number: usize| noise(number as u64, 300_000);
    let written = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..40 {
                storage
                    .write(FileKind::Pack, &name(number), &content(number))
                    .expect("write");
                written.store(number + 1, Ordering::Release);
            }
        });
        for at in [5, 20] {
            while written.load(Ordering::Acquire) < at && !writer.is_finished() {
                std::thread::yield_now();
            }
            die();
            rise();
        }
        writer.join().unwrap();
    });
    assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 40);
    for number in 0..40 {
        let read = storage.read(FileKind::Pack, &name(number)).unwrap();
        assert!(read == content(number), "{number}");
    }
}

#[test]
fn an_s3_server_that_dies_in_the_middle_is_waited_for() {
    let server = std::cell::RefCell::new(S3Server::start());
    let location = s3_at(&server.borrow().endpoint(), &server.borrow().bucket(), "p");
    let options = RemoteOptions {
        give_up_after: Duration::from_secs(120),
        ..impatient()
    };
    let storage = s3_storage(&location, &s3_access(), options);
    survives_a_server_that_dies(
        &*storage,
        || server.borrow_mut().kill(),
        || server.borrow_mut().start_again(),
    );
}

#[test]
fn an_ssh_server_that_dies_in_the_middle_is_waited_for() {
    let server = std::cell::RefCell::new(SshServer::start());
    let storage = {
        let server = server.borrow();
        sftp(&server, "dying")
    };
    survives_a_server_that_dies(
        &*storage,
        || server.borrow_mut().kill(),
        || server.borrow_mut().start_again(),
    );
}

#[test]
fn sftp_conforms() {
    let server = SshServer::shared();
    let made = AtomicUsize::new(0);
    storage_conformance(&|| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        sftp(server, &format!("conforms/{number}/deep/repo"))
    });
}

#[test]
fn restic_and_we_agree_over_sftp() {
    let server = SshServer::shared();
    let location = server.location("agree");
    let config = server.ssh_config();
    let command = format!(
        "sftp.command=ssh -F {} -p {} -s 127.0.0.1 sftp",
        config.display(),
        server.port()
    );
    let extra = ["-o".to_owned(), command];
    restic_and_we_agree(&sftp(server, "agree"), &location, &extra);
}

#[test]
fn sftp_files_are_private_and_leave_nothing_behind() {
    use std::os::unix::fs::PermissionsExt;
    let server = SshServer::shared();
    let storage = sftp(server, "private");
    storage.create().unwrap();
    storage.write(FileKind::Config, "config", b"x").unwrap();
    storage.write(FileKind::Pack, &name(1), b"x").unwrap();
    let root = server.folder().join("private");
    let mode = |path: &str| {
        std::fs::metadata(root.join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode(""), mode("data/01"), mode("config")),
        (0o700, 0o700, 0o600)
    );
    assert_eq!(mode(&format!("data/01/{}", name(1))), 0o600);
    let mut names: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["config", "data", "index", "keys", "locks", "snapshots"]
    );
    assert!(storage.free_space_bytes().unwrap() > 1 << 20);

    // A folder that a copying tool dropped is made again.
    std::fs::remove_dir_all(root.join("data")).unwrap();
    storage.write(FileKind::Pack, &name(2), b"y").unwrap();
    assert_eq!(storage.read(FileKind::Pack, &name(2)).unwrap(), b"y");

    // Leftovers of the dead go, those of the living stay.
    let old = root.join(".lifeboat-00.tmp");
    let young = root.join(".lifeboat-01.tmp");
    std::fs::write(&old, b"half").unwrap();
    std::fs::write(&young, b"half").unwrap();
    let days_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    std::fs::File::options()
        .write(true)
        .open(&old)
        .unwrap()
        .set_modified(days_ago)
        .unwrap();
    assert_eq!(storage.sweep().unwrap(), 1);
    assert!(!old.exists() && young.exists());
}

#[test]
fn an_unknown_key_is_told_at_once() {
    let server = SshServer::shared();
    let ssh = ssh_with(&server.strangers_config());
    let storage = sftp_storage(&server.location("stranger"), ssh, RemoteOptions::default());
    told_at_once(&|| storage.create(), "Permission denied");
}

#[test]
fn locks_and_backups_end_well_after_an_interrupt() {
    let server = SshServer::shared();
    let s3_server = S3Server::shared();
    let location = s3_at(&s3_server.endpoint(), &s3_server.bucket(), "p");
    for over_s3 in [true, false] {
        let options = impatient();
        let interrupt = Arc::clone(&options.interrupt);
        let storage: Arc<dyn Storage> = if over_s3 {
            s3_storage(&location, &s3_access(), options)
        } else {
            let ssh = ssh_with(&server.ssh_config());
            sftp_storage(&server.location("interrupted"), ssh, options)
        };
        let repository = init(Arc::clone(&storage)).unwrap();
        let lock = repository
            .lock(LockMode::Shared, &this_process(), clock())
            .unwrap();
        assert_eq!(storage.list(FileKind::Lock).unwrap().len(), 1);
        interrupt.store(true, Ordering::Relaxed);
        drop(lock);
        interrupt.store(false, Ordering::Relaxed);
        assert!(
            storage.list(FileKind::Lock).unwrap().is_empty(),
            "S3: {over_s3}"
        );
    }
}
