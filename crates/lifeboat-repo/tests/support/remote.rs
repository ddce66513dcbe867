//! Remote storages on real servers.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_repo::storage::Storage;
use lifeboat_repo::storage::remote::{
    RemoteLocation, RemoteOptions, RemoteStorage, S3Access, SshCommand,
};
use lifeboat_testkit::remote::{S3Server, SshServer};

/// Gives up soon: a test that waits for minutes is a test that nobody runs.
pub fn impatient() -> RemoteOptions {
    RemoteOptions {
        first_contact: Duration::from_secs(1),
        give_up_after: Duration::from_secs(60),
        stall_timeout: Duration::from_secs(20),
        first_pause: Duration::from_millis(50),
        ..RemoteOptions::default()
    }
}

pub fn s3_access() -> S3Access {
    S3Access {
        region: "us-east-1".to_owned(),
        path_style: true,
        access_key_id: S3Server::ACCESS_KEY_ID.to_owned(),
        secret_access_key: S3Server::SECRET_ACCESS_KEY.into(),
        session_token: None,
    }
}

pub fn s3_at(endpoint: &str, bucket: &str, prefix: &str) -> String {
    format!("s3:{endpoint}/{bucket}/{prefix}")
}

pub fn s3_storage(location: &str, access: &S3Access, options: RemoteOptions) -> Arc<RemoteStorage> {
    match RemoteLocation::parse(location).unwrap() {
        RemoteLocation::S3(location) => {
            Arc::new(RemoteStorage::s3(&location, access, options).unwrap())
        }
        other => panic!("{other}"),
    }
}

pub fn s3(location: &str) -> Arc<dyn Storage> {
    s3_storage(location, &s3_access(), impatient())
}

pub fn ssh_with(config: &std::path::Path) -> SshCommand {
    SshCommand {
        arguments: vec!["-F".into(), config.into()],
        ..SshCommand::default()
    }
}

pub fn sftp_storage(location: &str, ssh: SshCommand, options: RemoteOptions) -> Arc<RemoteStorage> {
    match RemoteLocation::parse(location).unwrap() {
        RemoteLocation::Sftp(location) => Arc::new(RemoteStorage::sftp(&location, ssh, options)),
        other => panic!("{other}"),
    }
}

pub fn sftp(server: &SshServer, name: &str) -> Arc<dyn Storage> {
    let ssh = ssh_with(&server.ssh_config());
    sftp_storage(&server.location(name), ssh, impatient())
}
