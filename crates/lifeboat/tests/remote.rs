//! The whole life of a backup in a repository on another machine: a bucket of a real S3 server, a folder behind
//! a real sshd. And what is said when that machine does not play along.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::process::Command;

use lifeboat_testkit::TestServer;
use lifeboat_testkit::remote::{S3Server, SshServer};
use support::s3::{s3_location, with_s3};
use support::sql::Restored;
use support::{Sandbox, app_database, write_secret};

/// What tells a command where the repository is.
type Change<'a> = &'a dyn Fn(&mut Command);

/// Every command, each told where the repository is by `change`; at last on a machine that has nothing else.
fn whole_life(name: &str, location: &str, secrets: &[&str], change: Change<'_>) {
    let server = TestServer::shared();
    let database = app_database(name);
    let mut sandbox = Sandbox::new(&database.url());
    sandbox
        .secrets
        .extend(secrets.iter().map(|secret| (*secret).to_owned()));
    for args in [
        &["-v", "init"][..],
        &["-v", "check"],
        &["-v", "backup"],
        &["-v", "backup", "--json"],
        &["-v", "list"],
        &["-v", "show", "latest"],
        &["-v", "verify", "--read-data"],
    ] {
        sandbox.run_with(args, change).ok();
    }
    let checked = sandbox.run_with(["check"], change).ok();
    assert!(checked.stdout.contains(location), "{checked}");
    sandbox.run_with(["drill"], change).ok();
    sandbox.run_with(["-v", "status"], change).ok();
    let file = sandbox.root().join("export.dump");
    let file_text = file.to_str().unwrap();
    sandbox
        .run_with(["export", "latest", "-o", file_text], change)
        .ok();
    assert!(file.metadata().unwrap().len() > 1000);
    assert!(!sandbox.repository().exists(), "nothing is kept here");

    // A bare machine: the location, the credentials and the passphrase.
    let mut bare = Sandbox::new(&database.url());
    bare.secrets.clone_from(&sandbox.secrets);
    let target = Restored::reserve(server, name);
    bare.run_with(["restore", "latest", "--to", target.name()], change)
        .ok();
    let listed = bare.run_with(["list", "--json"], change).ok().json("list");
    assert_eq!(listed["backups"].as_array().unwrap().len(), 2);
    sandbox.assert_nothing_left();
    bare.assert_nothing_left();
}

#[test]
fn a_whole_life_in_a_bucket() {
    let location = s3_location(S3Server::shared());
    let secrets = [S3Server::SECRET_ACCESS_KEY];
    whole_life("in_a_bucket", &location, &secrets, &with_s3(&location));
}

#[test]
fn a_whole_life_behind_ssh() {
    let server = SshServer::shared();
    let location = server.location("whole-life");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lifeboat.toml");
    let text = format!(
        "[repository]\nurl = \"{location}\"\nssh_command = [\"ssh\", \"-F\", \"{}\"]\n",
        server.ssh_config().display()
    );
    std::fs::write(&config, text).unwrap();
    whole_life("behind_ssh", &location, &[], &|command| {
        command
            .env_remove("LIFEBOAT_REPOSITORY")
            .env("LIFEBOAT_CONFIG", &config);
    });
}

#[test]
fn what_is_wrong_with_a_remote_is_said_in_words_with_a_hint() {
    let server = S3Server::shared();
    let mut sandbox = Sandbox::new(&TestServer::shared().url("postgres"));
    sandbox.secrets.push("hunter2-hunter2".to_owned());
    let location = s3_location(server);
    let right = with_s3(&location);
    sandbox.run_with(["init"], &right).ok();

    let wrong_secret = |command: &mut Command| {
        right(command);
        command.env("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2");
    };
    let no_key = |command: &mut Command| {
        right(command);
        command.env_remove("AWS_SECRET_ACCESS_KEY");
    };
    let missing = format!("s3:{}/lifeboat-no-such-bucket/p", server.endpoint());
    let no_bucket = |command: &mut Command| {
        right(command);
        command.env("LIFEBOAT_REPOSITORY", &missing);
    };
    let elsewhere = location.replace("/host/repo", "/elsewhere");
    let no_repository = |command: &mut Command| {
        right(command);
        command.env("LIFEBOAT_REPOSITORY", &elsewhere);
    };
    let changes: [(Change<'_>, i32, &str, &str); 4] = [
        (
            &wrong_secret,
            1,
            "SignatureDoesNotMatch",
            "AWS_SECRET_ACCESS_KEY",
        ),
        (&no_key, 2, "no access key", "AWS_ACCESS_KEY_ID"),
        (
            &no_bucket,
            10,
            "NoSuchBucket",
            "make the bucket `lifeboat-no-such-bucket`",
        ),
        (&no_repository, 10, "no repository at", "lifeboat init"),
    ];
    for (change, code, fact, hint) in changes {
        let run = sandbox.run_with(["list"], change);
        assert_eq!(run.code, code, "{run}");
        assert!(
            run.stderr.contains(fact) && run.stderr.contains(hint),
            "{run}"
        );
        let run = sandbox.run_with(["check"], change);
        assert!(
            run.stdout.contains(fact) && run.stdout.contains(hint),
            "{run}"
        );
    }

    // A file with the key wins over the environment, and must be its owner's alone.
    let key = sandbox.root().join("key");
    let lines = format!(
        "aws_access_key_id = {}\naws_secret_access_key = {}\n",
        S3Server::ACCESS_KEY_ID,
        S3Server::SECRET_ACCESS_KEY
    );
    write_secret(&key, &lines);
    let config = sandbox.root().join("config.toml");
    let keys = format!("[repository]\ncredentials_file = \"{}\"\n", key.display());
    std::fs::write(&config, keys).unwrap();
    let with_file = |command: &mut Command| {
        wrong_secret(command);
        command.env("LIFEBOAT_CONFIG", &config);
    };
    sandbox.run_with(["list"], with_file).ok();
    support::set_mode(&key, 0o644);
    let run = sandbox.run_with(["check"], with_file);
    assert!(run.stdout.contains("others can read it"), "{run}");
}
