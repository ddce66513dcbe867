//! Logging in over TCP: each method, each `sslmode`, certificates made on the spot.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod wire_support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_pg::instance::StopMode;
use lifeboat_pg::{Connection, PgError};
use lifeboat_testkit::{TestServer, newest};
use wire_support::{connect, loopback};

const HBA: &str = "\
local all all trust
host all trusted 127.0.0.0/8 trust
host all scram 127.0.0.0/8 scram-sha-256
host all md5 127.0.0.0/8 md5
host all clear 127.0.0.0/8 password
hostssl all only_encrypted 127.0.0.0/8 scram-sha-256
hostnossl all only_plain 127.0.0.0/8 scram-sha-256
hostssl all with_certificate 127.0.0.0/8 cert
";

const ROLES: &str = "\
SET password_encryption = 'scram-sha-256';
CREATE ROLE trusted LOGIN;
CREATE ROLE scram LOGIN PASSWORD 'pä$$ :/@';
CREATE ROLE only_encrypted LOGIN PASSWORD 'secret';
CREATE ROLE only_plain LOGIN PASSWORD 'secret';
CREATE ROLE clear LOGIN PASSWORD 'secret';
CREATE ROLE with_certificate LOGIN;
SET password_encryption = 'md5';
CREATE ROLE md5 LOGIN PASSWORD 'secret';
";

/// A server on a loopback address of its own, so that no port has to be chosen.
struct Server {
    server: TestServer,
    address: String,
    files: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let address = loopback();
        let server = TestServer::start_with(newest(), &[("listen_addresses", &address)]);
        let mut superuser = connect(&server.url("postgres")).unwrap();
        superuser.execute(ROLES).unwrap();
        drop(superuser);
        let mut server = Server {
            server,
            address,
            files: tempfile::tempdir().unwrap(),
        };
        server.install("pg_hba.conf", HBA.as_bytes());
        server.server.restart(StopMode::Fast);
        server
    }

    /// A file in the data directory, owned by the server's user.
    fn install(&self, name: &str, content: &[u8]) {
        let folder = self.server.scratch().data_dir();
        let owner = fs::metadata(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// Makes the server encrypt with a certificate from `files`.
    fn encrypt_with(&mut self, certificate: &str) {
        for (from, to) in [
            (format!("{certificate}.crt"), "server.crt"),
            (format!("{certificate}.key"), "server.key"),
            ("ca.crt".to_owned(), "ca.crt"),
        ] {
            self.install(to, &fs::read(self.path(&from)).unwrap());
        }
        let mut superuser = connect(&self.server.url("postgres")).unwrap();
        for setting in ["ssl = on", "ssl_ca_file = 'ca.crt'"] {
            superuser
                .execute(&format!("ALTER SYSTEM SET {setting}"))
                .unwrap();
        }
        drop(superuser);
        self.server.restart(StopMode::Fast);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// `options` in key=value form, on top of the server's address.
    fn connect(&self, options: &str) -> Result<Connection, PgError> {
        let port = self.server.scratch().port();
        connect(&format!(
            "host=db.test hostaddr={} port={port} dbname=postgres {options}",
            self.address
        ))
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.files.path())
            .output()
            .expect("openssl is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn make_authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -keyout {name}.key -out {name}.crt -subj /CN={name}"
        ));
    }

    /// A certificate signed by `ca`; with `extension` empty, OpenSSL makes version 1.
    fn make_certificate(&self, name: &str, subject: &str, extension: &str, signing: &str) {
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
             -keyout {name}.key -out {name}.csr -subj /CN={subject}"
        ));
        let extensions = if extension.is_empty() {
            String::new()
        } else {
            fs::write(self.path("extensions"), extension).unwrap();
            "-extfile extensions".to_owned()
        };
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             {signing} {extensions} -out {name}.crt"
        ));
        make_private(&self.path(&format!("{name}.key")));
    }
}

fn make_private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn tls_reason(result: Result<Connection, PgError>) -> String {
    match result {
        Err(PgError::Tls { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_password_method_works_and_every_wrong_password_is_refused() {
    let server = Server::start();
    server.connect("user=trusted").unwrap();
    server.connect("user=scram password='pä$$ :/@'").unwrap();
    server.connect("user=md5 password=secret").unwrap();
    server.connect("user=clear password=secret").unwrap();
    for user in ["scram", "md5", "clear"] {
        let error = server
            .connect(&format!("user={user} password=wr0ng-one"))
            .unwrap_err();
        assert_eq!(error.sqlstate(), Some("28P01"), "{user}: {error}");
        assert!(!format!("{error} {error:?}").contains("wr0ng-one"));
        let error = server.connect(&format!("user={user}")).unwrap_err();
        assert!(matches!(error, PgError::Auth { .. }), "{user}: {error}");
        assert!(error.to_string().contains("none was given"), "{error}");
    }
    // require_auth
    server
        .connect("user=scram password='pä$$ :/@' require_auth=scram-sha-256")
        .unwrap();
    for (user, rule) in [
        ("md5", "scram-sha-256"),
        ("clear", "!password"),
        ("trusted", "!none"),
    ] {
        let error = server
            .connect(&format!("user={user} password=secret require_auth={rule}"))
            .unwrap_err();
        assert!(matches!(error, PgError::Auth { .. }), "{user}: {error}");
    }
    // No encryption on this server.
    assert!(
        !server
            .connect("user=trusted sslmode=prefer")
            .unwrap()
            .is_encrypted()
    );
    assert!(tls_reason(server.connect("user=trusted sslmode=require")).contains("does not offer"));
    let error = server
        .connect("user=scram password='pä$$ :/@' channel_binding=require")
        .unwrap_err();
    assert!(error.to_string().contains("not encrypted"), "{error}");
    let error = server
        .connect("user=only_encrypted password=secret")
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("28000"));
    // Which kind of server
    server
        .connect("user=trusted target_session_attrs=read-write")
        .unwrap();
    server
        .connect("user=trusted target_session_attrs=prefer-standby")
        .unwrap();
    let error = server
        .connect("user=trusted target_session_attrs=standby")
        .unwrap_err();
    assert!(matches!(error, PgError::WrongSessionKind { .. }), "{error}");
    let error = server
        .connect("user=trusted target_session_attrs=read-write options='-c default_transaction_read_only=on'")
        .unwrap_err();
    assert!(matches!(error, PgError::WrongSessionKind { .. }), "{error}");
}

#[test]
fn a_password_file_and_a_service_file_are_enough_to_log_in() {
    let server = Server::start();
    let port = server.server.scratch().port();
    let passfile = server.path("pgpass");
    fs::write(&passfile, "db.test:*:postgres:md5:secret\n*:*:*:*:wrong\n").unwrap();
    make_private(&passfile);
    let services = server.path("pg_service.conf");
    let address = &server.address;
    let service = format!("[app]\nhost=db.test\nhostaddr={address}\nport={port}\nuser=md5\n");
    fs::write(&services, service).unwrap();
    let env = |name: &str| match name {
        "PGPASSFILE" => Some(passfile.display().to_string()),
        "PGSERVICEFILE" => Some(services.display().to_string()),
        "PGSERVICE" => Some("app".to_owned()),
        "PGDATABASE" => Some("postgres".to_owned()),
        _ => None,
    };
    let info = lifeboat_pg::ConnInfo::parse("", &env).unwrap();
    let mut connection = Connection::connect(&info, &Default::default()).unwrap();
    let rows = connection.query("SELECT current_user AS u").unwrap();
    assert_eq!(rows.value("u").unwrap(), "md5");
    // And psql gets in by the variables that a child is given, whatever else is set.
    let mut psql = Command::new(server.server.bin_dir().join("psql"));
    psql.env("PGSERVICE", "nonsense")
        .args(["-XAtc", "SELECT current_user"]);
    info.apply_to(&mut psql);
    let output = psql.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "md5\n",
        "{output:?}"
    );
}

#[test]
fn hosts_are_tried_in_order_until_one_answers() {
    let server = Server::start();
    let port = server.server.scratch().port();
    let (nobody, somebody) = (loopback(), &server.address);
    let mut connection = connect(&format!(
        "postgresql://trusted@{nobody}:{port},{somebody}:{port}/postgres"
    ))
    .unwrap();
    assert_eq!(connection.query("SELECT 1 AS a").unwrap().len(), 1);
    let error = connect(&format!("host={nobody} port={port} user=trusted")).unwrap_err();
    assert!(
        matches!(&error, PgError::Connect { host, .. } if host.contains(&nobody)),
        "{error}"
    );
    let error = connect(&format!("host={nobody},{nobody} port={port} user=trusted")).unwrap_err();
    assert!(
        matches!(&error, PgError::NoHost { attempts } if attempts.len() == 2),
        "{error}"
    );
    // A server that refuses us settles it: the second host would do, and is not asked.
    let error = connect(&format!(
        "postgresql://scram:wrong@{somebody}:{port},{somebody}:{port}/postgres"
    ))
    .unwrap_err();
    assert_eq!(error.sqlstate(), Some("28P01"));
    let error = connect("host=no-such-host.invalid user=x").unwrap_err();
    assert!(matches!(error, PgError::Connect { .. }), "{error}");
}

#[test]
fn each_sslmode_trusts_what_libpq_would() {
    let mut server = Server::start();
    server.make_authority("ca");
    server.make_authority("stranger");
    server.make_certificate(
        "server",
        "ignored",
        "subjectAltName=DNS:db.test,DNS:*.wild.test",
        "-sha256",
    );
    server.make_certificate(
        "client",
        "with_certificate",
        "extendedKeyUsage=clientAuth",
        "-sha256",
    );
    server.encrypt_with("server");
    let ca = format!("sslrootcert={}", server.path("ca.crt").display());
    let stranger = format!("sslrootcert={}", server.path("stranger.crt").display());
    let absent = format!("sslrootcert={}", server.path("absent.crt").display());
    let with = |options: &str| server.connect(&format!("user=trusted {options}"));

    assert!(!with("sslmode=disable").unwrap().is_encrypted());
    assert!(!with("sslmode=allow").unwrap().is_encrypted());
    for mode in ["prefer", "require"] {
        assert!(with(&format!("sslmode={mode}")).unwrap().is_encrypted());
        // Without its file, a root certificate is not asked for; with it, it counts.
        assert!(
            with(&format!("sslmode={mode} {absent}"))
                .unwrap()
                .is_encrypted()
        );
        assert!(
            with(&format!("sslmode={mode} {ca}"))
                .unwrap()
                .is_encrypted()
        );
    }
    assert!(
        !with(&format!("sslmode=prefer {stranger}"))
            .unwrap()
            .is_encrypted()
    );
    assert!(tls_reason(with(&format!("sslmode=require {stranger}"))).contains("unknown authority"));
    for mode in ["verify-ca", "verify-full"] {
        assert!(
            with(&format!("sslmode={mode} {ca}"))
                .unwrap()
                .is_encrypted()
        );
        assert!(
            tls_reason(with(&format!("sslmode={mode} {stranger}"))).contains("unknown authority")
        );
        assert!(tls_reason(with(&format!("sslmode={mode} {absent}"))).contains("does not exist"));
        assert!(tls_reason(with(&format!("sslmode={mode}"))).contains("root certificate"));
    }
    assert!(
        with(&format!("sslmode=verify-ca host=other.test {ca}"))
            .unwrap()
            .is_encrypted()
    );
    assert!(
        with(&format!("sslmode=verify-full host=a.wild.test {ca}"))
            .unwrap()
            .is_encrypted()
    );
    let reason = tls_reason(with(&format!("sslmode=verify-full host=other.test {ca}")));
    assert!(reason.contains("another host name"), "{reason}");
    // The system's store does not know our authority.
    assert!(matches!(
        with("sslrootcert=system"),
        Err(PgError::Tls { .. })
    ));
    assert!(
        with("sslmode=require ssl_max_protocol_version=TLSv1.2")
            .unwrap()
            .is_encrypted()
    );
    assert!(
        with("sslmode=require ssl_min_protocol_version=TLSv1.3")
            .unwrap()
            .is_encrypted()
    );

    // pg_hba.conf decides which way in: prefer and allow find it.
    let secret = "password=secret";
    for mode in ["allow", "prefer", "require"] {
        let connection = server
            .connect(&format!("user=only_encrypted {secret} sslmode={mode}"))
            .unwrap();
        assert!(connection.is_encrypted());
    }
    for mode in ["disable", "allow", "prefer"] {
        let connection = server
            .connect(&format!("user=only_plain {secret} sslmode={mode}"))
            .unwrap();
        assert!(!connection.is_encrypted());
    }

    // Our own certificate.
    let certificate = format!(
        "user=with_certificate sslmode=require sslcert={} sslkey={}",
        server.path("client.crt").display(),
        server.path("client.key").display()
    );
    assert!(server.connect(&certificate).unwrap().is_encrypted());
    assert!(
        server
            .connect("user=with_certificate sslmode=require")
            .is_err()
    );
    fs::set_permissions(server.path("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(tls_reason(server.connect(&certificate)).contains("permissions"));
}

#[test]
fn an_encrypted_session_copies_cancels_and_ends_like_a_plain_one() {
    let mut server = Server::start();
    server.make_authority("ca");
    server.make_certificate("server", "db.test", "subjectAltName=DNS:db.test", "-sha256");
    server.encrypt_with("server");
    let mut connection = server.connect("user=trusted sslmode=require").unwrap();
    let handle = connection.cancel_handle();
    let (mut bytes, mut rows) = (0, 0);
    let counted = connection
        .copy_out(
            "COPY (SELECT g, repeat('x', g % 2000) FROM generate_series(1, 100000) g) TO STDOUT",
            |row| {
                bytes += row.len();
                rows += 1;
                Ok::<(), ()>(())
            },
        )
        .unwrap();
    assert_eq!((counted, rows), (100_000, 100_000));
    assert_eq!(
        bytes,
        (1..=100_000_usize)
            .map(|g| g.to_string().len() + 2 + g % 2000)
            .sum::<usize>()
    );
    connection
        .execute("CREATE TEMP TABLE t (a int, b text)")
        .unwrap();
    let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
    let block = format!("7\t{}\n", "y".repeat(999)).repeat(1000);
    for _ in 0..20 {
        copy.write(block.as_bytes()).unwrap();
    }
    assert_eq!(copy.finish().unwrap(), 20_000);
    let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
    copy.write(b"x\ty\n").unwrap();
    let error = loop {
        if let Err(error) = copy.write(block.as_bytes()) {
            break error;
        }
    };
    assert_eq!(error.sqlstate(), Some("22P02"));
    drop(copy);
    // Cancelling an idle session does nothing to it.
    handle.cancel().unwrap();
    assert_eq!(connection.query("SELECT 1 AS a").unwrap().len(), 1);
    let result = connection.copy_out(
        "COPY (SELECT generate_series(1, 1000000000)) TO STDOUT",
        |_| {
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(|| handle.cancel().unwrap());
            Ok::<(), ()>(())
        },
    );
    let Err(lifeboat_pg::CopyOutError::Pg(error)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(error.sqlstate(), Some("57014"), "{error:?}");
    assert_eq!(connection.query("SELECT 1 AS a").unwrap().len(), 1);
}

#[test]
fn channel_binding_holds_for_every_kind_of_certificate() {
    let mut server = Server::start();
    server.make_authority("ca");
    let login = "user=scram password='pä$$ :/@' sslmode=require channel_binding=require";
    let kinds = [
        ("sha256", "subjectAltName=DNS:db.test", "-sha256"),
        ("sha384", "subjectAltName=DNS:db.test", "-sha384"),
        ("sha512", "subjectAltName=DNS:db.test", "-sha512"),
        ("version1", "", "-sha256"),
    ];
    for (name, extension, signing) in kinds {
        server.make_certificate(name, "db.test", extension, signing);
        server.encrypt_with(name);
        assert!(server.connect(login).unwrap().is_encrypted(), "{name}");
        server
            .connect(&login.replace("binding=require", "binding=disable"))
            .unwrap();
    }
    let error = server
        .connect("user=md5 password=secret channel_binding=require")
        .unwrap_err();
    assert!(matches!(error, PgError::Auth { .. }), "{error}");
    let error = server
        .connect("user=trusted channel_binding=require")
        .unwrap_err();
    assert!(matches!(error, PgError::Auth { .. }), "{error}");
}

#[test]
fn a_self_signed_certificate_can_vouch_for_itself_by_its_common_name() {
    let mut server = Server::start();
    // As PostgreSQL's manual says to make one.
    server.openssl("req -new -x509 -days 2 -nodes -out ca.crt -keyout ca.key -subj /CN=db.test");
    server.encrypt_with("ca");
    let root = format!("sslrootcert={}", server.path("ca.crt").display());
    let with = |options: &str| server.connect(&format!("user=trusted {root} {options}"));
    assert!(with("sslmode=verify-ca").unwrap().is_encrypted());
    assert!(with("sslmode=verify-full").unwrap().is_encrypted());
    assert!(tls_reason(with("sslmode=verify-full host=other.test")).contains("another host name"));
}
