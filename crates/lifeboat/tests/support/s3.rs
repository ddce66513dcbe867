//! A repository in a bucket.

use std::process::Command;

use lifeboat_testkit::remote::S3Server;

/// A place in a new bucket of this server's.
pub fn s3_location(server: &S3Server) -> String {
    format!("s3:{}/{}/host/repo", server.endpoint(), server.bucket())
}

/// What tells a command where the repository is, and how it is reached.
pub fn with_s3(location: &str) -> impl Fn(&mut Command) {
    move |command| {
        command
            .env("LIFEBOAT_REPOSITORY", location)
            .env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY);
    }
}
