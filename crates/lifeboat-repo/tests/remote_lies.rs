//! Servers, and an `ssh`, that answer what they should not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use lifeboat_repo::storage::remote::{RemoteOptions, SshCommand};
use lifeboat_repo::storage::{FileKind, Storage, StorageError, StorageErrorKind};
use support::remote::{impatient, s3_access, s3_at, s3_storage, sftp_storage};

fn words(error: &StorageError) -> String {
    let cause = std::error::Error::source(error).unwrap();
    format!("{error}: {cause}")
}

/// In place of `ssh` a program that says to people and to us what it is given, and ends when it is asked for more
/// than so many bytes.
struct Canned(tempfile::TempDir);

impl Canned {
    fn new(says: &str, answers: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("says"), says).unwrap();
        std::fs::write(folder.path().join("answers"), answers).unwrap();
        Self(folder)
    }

    fn storage(&self, heeds: usize) -> impl Storage {
        let folder = self.0.path().display();
        let script = format!(
            "cat {folder}/says >&2; cat {folder}/answers; head -c {heeds} > {folder}/asked"
        );
        let ssh = SshCommand {
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
        };
        let options = RemoteOptions {
            give_up_after: Duration::from_secs(1),
            ..impatient()
        };
        std::sync::Arc::into_inner(sftp_storage("sftp:host:/folder", ssh, options)).unwrap()
    }
}

/// A packet: its kind, its number, the rest.
fn packet(kind: u8, id: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(5 + rest.len()).unwrap();
    let head = [&length.to_be_bytes()[..], &[kind], &id.to_be_bytes()];
    [&head.concat(), rest].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

fn version() -> Vec<u8> {
    packet(2, 3, &[])
}

fn handle(id: u32) -> Vec<u8> {
    packet(102, id, &text(b"h"))
}

fn size(id: u32, size: u64) -> Vec<u8> {
    let flags = 1_u32.to_be_bytes();
    packet(105, id, &[&flags[..], &size.to_be_bytes()].concat())
}

fn data(id: u32, bytes: &[u8]) -> Vec<u8> {
    packet(103, id, &text(bytes))
}

const FOREVER: usize = 1 << 20;

fn name() -> String {
    "a".repeat(64)
}

/// A key that was refused before the right one is no reason to give up when, hours later, the network drops.
#[test]
fn what_ssh_said_at_the_login_is_no_reason_for_what_comes_later() {
    let canned = Canned::new("me@host: Permission denied (publickey).\n", &version());
    // Heeds the greeting, and ends at the first question.
    let error = canned
        .storage(10)
        .size(FileKind::Lock, &name())
        .unwrap_err();
    assert_eq!(
        error.kind(),
        StorageErrorKind::Unreachable,
        "{}",
        words(&error)
    );
    assert!(
        words(&error).contains("given up after"),
        "{}",
        words(&error)
    );
}

#[test]
fn a_size_that_cannot_be_is_not_believed() {
    for kind in [FileKind::Snapshot, FileKind::Pack] {
        let answers = [version(), handle(0), size(1, 1 << 60)].concat();
        let canned = Canned::new("", &answers);
        let error = canned.storage(FOREVER).read(kind, &name()).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Other);
        assert!(words(&error).contains("too many"), "{}", words(&error));
    }
}

#[test]
fn a_second_answer_does_not_pass_for_anothers() {
    let piece = [7; 32 << 10];
    let start = [version(), handle(0), size(1, 64 << 10), data(2, &piece)].concat();
    let right = Canned::new("", &[&start[..], &data(3, &piece)].concat());
    let read = right.storage(FOREVER).read(FileKind::Pack, &name());
    assert!(read.unwrap() == [7; 64 << 10]);
    let twice = Canned::new("", &[&start[..], &data(2, &piece)].concat());
    let read = twice.storage(FOREVER).read(FileKind::Pack, &name());
    let error = read.unwrap_err();
    assert!(words(&error).contains("not SFTP"), "{}", words(&error));
}

/// A bucket in another region: Amazon answers with a redirect, which is not followed, and a proxy with anything.
#[test]
fn a_redirect_is_a_wrong_place_told_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let storage = s3_storage(&s3_at(&endpoint, "bucket", "p"), &s3_access(), impatient());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                let body = "moved\n\x1b[31mto hell".repeat(100);
                let answer = format!(
                    "HTTP/1.1 301 Moved\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        for result in [
            storage.list(FileKind::Key).map(|_| ()),
            storage.read(FileKind::Lock, &name()).map(|_| ()),
        ] {
            let error = result.unwrap_err();
            let words = words(&error);
            assert_eq!(error.kind(), StorageErrorKind::NoSuchPlace, "{words}");
            assert!(words.ends_with("the server answered 301"), "{words}");
        }
    });
}
