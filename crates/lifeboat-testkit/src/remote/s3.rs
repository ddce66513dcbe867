//! SeaweedFS: an S3 server that knows conditional puts and rejects a wrong secret.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{ServerProcess, connect, free_ports};

/// A SeaweedFS of one's own.
#[derive(Debug)]
pub struct S3Server {
    process: ServerProcess,
    port: u16,
    filer_port: u16,
    buckets: AtomicU32,
    _folder: TempDir,
}

impl S3Server {
    /// Who may do everything.
    pub const ACCESS_KEY_ID: &str = "LIFEBOATTESTKEY";
    /// What proves it.
    pub const SECRET_ACCESS_KEY: &str = "dolphin/Secret+9c41d7e2";

    /// Starts one.
    ///
    /// # Panics
    /// Where SeaweedFS is not installed, or does not start.
    pub fn start() -> S3Server {
        let weed = weed();
        let folder = tempfile::Builder::new()
            .prefix("lifeboat-s3-")
            .tempdir_in("/tmp")
            .expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let users = folder.path().join("users.json");
        std::fs::write(&users, users_file()).expect("the users");
        // SeaweedFS has a port for each of its parts.
        let [
            master,
            master_rpc,
            volume,
            volume_rpc,
            filer,
            filer_rpc,
            s3,
            s3_rpc,
        ] = free_ports();
        let mut arguments = vec![
            weed.display().to_string(),
            "-logtostderr".to_owned(),
            "server".to_owned(),
        ];
        arguments.extend([
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            format!("-dir={}", data.display()),
            "-master.telemetry=false".to_owned(),
            format!("-master.port={master}"),
            format!("-master.port.grpc={master_rpc}"),
            format!("-volume.port={volume}"),
            format!("-volume.port.grpc={volume_rpc}"),
            // Each bucket takes several, and by itself it allows as many as the disk has room for whole ones.
            "-volume.max=1000".to_owned(),
            "-master.volumeSizeLimitMB=64".to_owned(),
            "-volume.preStopSeconds=0".to_owned(),
            format!("-filer.port={filer}"),
            format!("-filer.port.grpc={filer_rpc}"),
            "-s3".to_owned(),
            format!("-s3.port={s3}"),
            format!("-s3.port.grpc={s3_rpc}"),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            "-s3.iam=false".to_owned(),
            format!("-s3.config={}", users.display()),
        ]);
        let server = S3Server {
            process: ServerProcess::start(arguments, &folder.path().join("log")),
            port: s3,
            filer_port: filer,
            buckets: AtomicU32::new(0),
            _folder: folder,
        };
        server.wait();
        server
    }

    /// One server for all tests of a process that leave it alone.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(S3Server::start)
    }

    /// `http://127.0.0.1:…`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port that speaks S3, for a proxy in front of it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new empty bucket.
    pub fn bucket(&self) -> String {
        let number = self.buckets.fetch_add(1, Ordering::Relaxed);
        let bucket = format!("lifeboat-{}-{number}", std::process::id());
        let status = http(self.filer_port, "POST", &format!("/buckets/{bucket}/"));
        assert_eq!(status, Some(201), "no bucket");
        bucket
    }

    /// Kills it by its process number, as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and data.
    pub fn start_again(&mut self) {
        self.process.start_again();
        self.wait();
    }

    fn wait(&self) {
        self.process.wait_until("SeaweedFS", || {
            // 403: it wants to know who asks. A file goes all the way through to a volume.
            http(self.port, "GET", "/") == Some(403)
                && http(self.filer_port, "POST", "/buckets/ready/")
                    .is_some_and(|status| status < 500)
        });
    }
}

fn users_file() -> String {
    format!(
        r#"{{"identities":[{{"name":"owner","credentials":[{{"accessKey":"{}","secretKey":"{}"}}],
        "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#,
        S3Server::ACCESS_KEY_ID,
        S3Server::SECRET_ACCESS_KEY
    )
}

/// The status of a request without a body.
fn http(port: u16, method: &str, path: &str) -> Option<u16> {
    let mut stream = connect(port)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    // A body that is no text is none of our business.
    let _ = stream.take(512).read_to_string(&mut answer);
    answer.split(' ').nth(1)?.parse().ok()
}

/// Where `scripts/setup` puts it, unless it is named or on the path.
fn weed() -> PathBuf {
    if let Some(named) = std::env::var_os("LIFEBOAT_TEST_WEED").filter(|name| !name.is_empty()) {
        return named.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_default();
    let installed = cache.join("lifeboat-tests/seaweedfs/bin/weed");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("weed"))
        .chain([installed])
        .find(|program| Path::is_file(program));
    found.expect("no SeaweedFS found: run scripts/setup, which installs it for the tests")
}
