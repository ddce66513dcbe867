//! The connection string rules, as tables.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use secrecy::ExposeSecret as _;

use super::*;

fn env(pairs: &[(&str, &str)]) -> impl Env + use<> {
    let map: HashMap<String, String> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    move |name: &str| map.get(name).cloned()
}

fn parse(text: &str) -> Result<ConnInfo, ConnInfoError> {
    ConnInfo::parse(text, &env(&[]))
}

fn password(info: &ConnInfo) -> String {
    info.password()
        .map(|password| password.expose_secret().to_owned())
        .unwrap_or_default()
}

/// user, password, hosts with ports, database
fn parts(text: &str) -> (String, String, String, String) {
    let info = parse(text).unwrap();
    let hosts: Vec<String> = info
        .hosts()
        .iter()
        .map(|host| format!("{}|{}", host.name, host.port))
        .collect();
    (
        info.user().to_owned(),
        password(&info),
        hosts.join(" "),
        info.database().to_owned(),
    )
}

#[test]
fn uris_come_apart_as_in_libpq() {
    let table = [
        ("postgresql://u:p@h:6432/d", ("u", "p", "h|6432", "d")),
        ("postgres://u@h", ("u", "", "h|5432", "u")),
        (
            "postgresql://u%40x:p%2Fw%25%3A@h/my%20db",
            ("u@x", "p/w%:", "h|5432", "my db"),
        ),
        ("postgresql://u:a:b?c@h/d", ("u", "a:b?c", "h|5432", "d")),
        (
            "postgresql://u@a:1,b,c:3/d",
            ("u", "", "a|1 b|5432 c|3", "d"),
        ),
        ("postgresql://u@[::1]:7/d", ("u", "", "::1|7", "d")),
        (
            "postgresql://u@[fe80::1],b/d",
            ("u", "", "fe80::1|5432 b|5432", "d"),
        ),
        (
            "postgresql://u@%2Frun%2Fpg:7/d",
            ("u", "", "/run/pg|7", "d"),
        ),
        (
            "postgresql://u@/d?host=/run/pg&port=7",
            ("u", "", "/run/pg|7", "d"),
        ),
        (
            "postgresql:///d?user=u&password=p&host=h",
            ("u", "p", "h|5432", "d"),
        ),
        (
            "postgresql://u@h/d?dbname=other",
            ("u", "", "h|5432", "other"),
        ),
        ("  postgresql://u@h/d\n", ("u", "", "h|5432", "d")),
        (
            "host=h port=1 user=u dbname=d password=p",
            ("u", "p", "h|1", "d"),
        ),
        ("host = h user= u dbname =d", ("u", "", "h|5432", "d")),
        (
            r"host=h user='a b' password='it\'s \\' dbname=d",
            ("a b", r"it's \", "h|5432", "d"),
        ),
        (r"host=h user=a\ b dbname=''", ("a b", "", "h|5432", "a b")),
        ("host=a,b port=1,2 user=u", ("u", "", "a|1 b|2", "u")),
        ("host=a,b port=9 user=u", ("u", "", "a|9 b|9", "u")),
        ("host=a host=b user=u", ("u", "", "b|5432", "u")),
    ];
    for (text, (user, password, hosts, database)) in table {
        let found = parts(text);
        let wanted = (
            user.to_owned(),
            password.to_owned(),
            hosts.to_owned(),
            database.to_owned(),
        );
        assert_eq!(found, wanted, "{text}");
    }
}

#[test]
fn every_mistake_is_named_and_no_password_is_shown() {
    // In each of these the secret is s3cr3t, or a piece of it.
    let table = [
        ("mysql://u:s3cr3t@h/d", "mysql://"),
        ("s3cr3t", "neither"),
        ("postgresql://u:s3%zzcr3t@h/d", "password"),
        ("postgresql://u:s3cr3t%@h/d", "password"),
        ("postgresql://u:x%00s3cr3t@h/d", "password"),
        ("postgresql://u:%ffs3cr3t@h/d", "password"),
        ("postgresql://u:x@s3cr3t@h/d", "unescaped \"@\""),
        ("postgresql://u:x/s3cr3t@h/d", "unescaped \"/\""),
        ("postgresql://u:12/s3cr3t@h/d", "unescaped \"/\""),
        ("postgresql://u:s3cr3t/x", "port"),
        ("postgresql://u:p@h:s3cr3t/x", "port"),
        ("postgresql://u:p@h:70000/x", "port"),
        ("postgresql://u:p@h:0/x", "port"),
        ("postgresql://u:p@[::1/x", "IPv6"),
        ("postgresql://u:p@[::1]x/x", "IPv6"),
        ("postgresql://u:s3cr3t@h/d?sslmode", "name=value"),
        ("postgresql://u:s3cr3t@h/d?sslmode=a=b", "name=value"),
        (
            "postgresql://u:s3cr3t@h/d?sslmod=verify-full",
            "did you mean sslmode",
        ),
        ("postgresql://u:s3cr3t@h/d?sslmode=ful", "verify-full"),
        (
            "postgresql://u:s3cr3t@h/d?connect_timeout=soon",
            "connect_timeout",
        ),
        (
            "postgresql://u:s3cr3t@h/d?target_session_attrs=rw",
            "read-write",
        ),
        ("postgresql://u:s3cr3t@h/d?hostaddr=nowhere", "hostaddr"),
        (
            "postgresql://u:s3cr3t@h/d?requirepeer=postgres",
            "requirepeer",
        ),
        ("postgresql://u:s3cr3t@h/d?gssencmode=require", "gssencmode"),
        (
            "postgresql://u:s3cr3t@h/d?sslrootcert=system&sslmode=require",
            "verify-full",
        ),
        ("postgresql://u:s3cr3t@h/d?sslnegotiation=direct", "require"),
        (
            "postgresql://u:s3cr3t@h/d?require_auth=magic",
            "require_auth",
        ),
        ("host=h password=x s3cr3t user=u", "after option password"),
        (
            "host=h password=x s3cr3t=1 user=u",
            "unknown connection option",
        ),
        ("host=h password='s3cr3t", "password"),
        ("host=h passwort=s3cr3t", "did you mean password"),
        ("host=a,b,c port=1,2 user=u password=s3cr3t", "3 hosts"),
        (
            "host=a,b hostaddr=127.0.0.1 user=u password=s3cr3t",
            "2 hosts",
        ),
    ];
    for (text, fact) in table {
        let error = parse(text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(error.to_string().contains(fact), "{text}: {error}");
        assert!(
            !shown.contains("s3") && !shown.contains("cr3t"),
            "{text}: {shown}"
        );
    }
}

#[test]
fn nothing_printed_holds_the_password() {
    let info = parse("postgresql://u:s3cr3t@db.example,b:7/app?sslmode=require").unwrap();
    assert_eq!(info.display(), "app at db.example:5432, b:7");
    for shown in [
        format!("{info}"),
        format!("{info:?}"),
        format!("{:#?}", info.clone()),
    ] {
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}

#[test]
fn foreign_parameters_are_kept_aside() {
    let url = "postgresql://u@h/d?schema=public&connection_limit=5&pgbouncer=true&sslaccept=strict&whatever=x";
    let info = parse(url).unwrap();
    let names: Vec<&str> = info
        .ignored()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "schema",
            "connection_limit",
            "pgbouncer",
            "sslaccept",
            "whatever"
        ]
    );
    assert_eq!(info.ignored()[0].1, "public");
    assert_eq!(
        parse("postgresql://u@h/d?ssl=true").unwrap().ssl_mode(),
        SslMode::Require
    );
}

#[test]
fn the_environment_fills_what_the_text_leaves_open() {
    let variables = env(&[
        ("PGHOST", "envhost"),
        ("PGPORT", "7000"),
        ("PGUSER", "envuser"),
        ("PGPASSWORD", "envpass"),
        ("PGDATABASE", "envdb"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGAPPNAME", "envapp"),
        ("PGCONNECT_TIMEOUT", "1"),
        ("PGOPTIONS", "-c a=b"),
        ("PGTARGETSESSIONATTRS", "read-write"),
        ("PGCHANNELBINDING", "require"),
    ]);
    let info = ConnInfo::parse("", &variables).unwrap();
    assert_eq!(info.display(), "envdb at envhost:7000");
    assert_eq!(
        (info.user(), password(&info).as_str()),
        ("envuser", "envpass")
    );
    assert_eq!(info.ssl_mode(), SslMode::VerifyCa);
    assert_eq!(info.tls().root_cert, RootCert::File("/ca.pem".into()));
    assert_eq!(info.application_name(), Some("envapp"));
    assert_eq!(info.options(), Some("-c a=b"));
    assert_eq!(info.target_session(), TargetSession::ReadWrite);
    assert_eq!(info.channel_binding(), ChannelBinding::Require);
    // One second is too little for a login; libpq makes it two.
    assert_eq!(info.connect_timeout(), Some(Duration::from_secs(2)));

    let info = ConnInfo::parse(
        "postgresql://u:p@h:1/d?sslmode=disable&connect_timeout=0",
        &variables,
    )
    .unwrap();
    assert_eq!(info.display(), "d at h:1");
    assert_eq!((info.user(), password(&info).as_str()), ("u", "p"));
    assert_eq!(info.ssl_mode(), SslMode::Disable);
    assert_eq!(info.connect_timeout(), None);
}

#[test]
fn defaults_are_a_socket_and_the_operating_system_user() {
    let info = ConnInfo::parse("", &env(&[])).unwrap();
    assert!(info.hosts()[0].socket_path().is_some());
    assert!(!info.user().is_empty());
    assert_eq!(info.database(), info.user());
    assert_eq!(info.ssl_mode(), SslMode::Prefer);
    assert_eq!(info.tls().root_cert, RootCert::Nowhere);
    let info = ConnInfo::parse("", &env(&[("HOME", "/home/x")])).unwrap();
    assert_eq!(
        info.tls().root_cert,
        RootCert::File("/home/x/.postgresql/root.crt".into())
    );
    let info = parse("host=h user=u sslrootcert=system").unwrap();
    assert_eq!(
        (info.ssl_mode(), &info.tls().root_cert),
        (SslMode::VerifyFull, &RootCert::System)
    );
}

#[test]
fn the_password_file_is_asked_per_host_and_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pgpass");
    fs::write(
        &path,
        "a:5432:d:u:for a\nb:5432:*:u:for b\nlocalhost:5432:d:u:for the socket\na:5432:other:u:for other\n",
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let path = path.to_str().unwrap();
    let variables = env(&[("PGPASSFILE", path), ("HOME", "/nonexistent")]);
    let info = ConnInfo::parse("postgresql://u@a,b/d", &variables).unwrap();
    let of = |info: &ConnInfo, index: usize| {
        let found = info.password_for(&info.hosts()[index]);
        found
            .map(|password| password.expose_secret().to_owned())
            .unwrap_or_default()
    };
    assert_eq!(
        (of(&info, 0).as_str(), of(&info, 1).as_str()),
        ("for a", "for b")
    );
    assert_eq!(of(&info.with_database("other"), 0), "for other");
    let info = ConnInfo::parse("postgresql://u@/d?host=/var/run/postgresql", &variables).unwrap();
    assert_eq!(of(&info, 0), "for the socket");
    // A password in the text wins.
    let info = ConnInfo::parse("postgresql://u:mine@a/d", &variables).unwrap();
    assert_eq!(of(&info, 0), "mine");

    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let info = ConnInfo::parse("postgresql://u@a/d", &variables).unwrap();
    assert!(info.password().is_none());
    assert!(matches!(
        info.warnings(),
        [ConnInfoWarning::PassFileTooOpen { mode: 0o644, .. }]
    ));
}

#[test]
fn services_stand_between_the_text_and_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pg_service.conf");
    let text = "# services\n[other]\nhost=elsewhere\n\n[app]\nhost=db.example\nport = 6000\nuser=fromservice\nsslmode=require\n[last]\nnonsense\n";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let variables = env(&[
        ("PGSERVICEFILE", path),
        ("PGHOST", "envhost"),
        ("PGDATABASE", "envdb"),
    ]);
    let info = ConnInfo::parse("service=app port=1", &variables).unwrap();
    assert_eq!(info.display(), "envdb at db.example:1");
    assert_eq!(
        (info.user(), info.ssl_mode()),
        ("fromservice", SslMode::Require)
    );
    let info = ConnInfo::parse("postgresql://?service=app", &variables).unwrap();
    assert_eq!(info.display(), "envdb at db.example:6000");
    let with_service = env(&[("PGSERVICEFILE", path), ("PGSERVICE", "app")]);
    assert_eq!(
        ConnInfo::parse("", &with_service).unwrap().hosts()[0].name,
        "db.example"
    );

    let error = ConnInfo::parse("service=absent", &variables).unwrap_err();
    assert!(
        error.to_string().contains("\"absent\"") && error.to_string().contains(path),
        "{error}"
    );
    let error = ConnInfo::parse("service=last", &variables).unwrap_err();
    assert!(
        matches!(error, ConnInfoError::ServiceFile { line: 11, .. }),
        "{error}"
    );
}

#[test]
fn children_get_variables_and_no_service() {
    let info = parse("postgresql://u:p@a,b:7/d?sslmode=require&application_name=x&options=-ca%3Db")
        .unwrap();
    let given: HashMap<_, _> = info.tool_env().into_iter().collect();
    let value = |name: &str| {
        given
            .get(name)
            .and_then(|value| value.to_str())
            .unwrap_or("unset")
    };
    let names = [
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGDATABASE",
        "PGPASSWORD",
        "PGSSLMODE",
        "PGAPPNAME",
        "PGOPTIONS",
    ];
    let values: Vec<&str> = names.iter().map(|name| value(name)).collect();
    assert_eq!(
        values,
        ["a,b", "5432,7", "u", "d", "p", "require", "x", "-ca=b"]
    );
    let mut command = std::process::Command::new("true");
    info.apply_to(&mut command);
    let settings: HashMap<_, _> = command.get_envs().collect();
    assert_eq!(settings.get(std::ffi::OsStr::new("PGSERVICE")), Some(&None));
    assert_eq!(
        settings.get(std::ffi::OsStr::new("PGHOSTADDR")),
        Some(&None)
    );
    assert!(command.get_args().next().is_none());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,60}") {
        let _ = parse(&text);
        let _ = parse(&format!("postgresql://{text}"));
    }

    #[test]
    fn an_encoded_password_comes_back(secret in "[^\0]{1,30}") {
        let encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let info = parse(&format!("postgresql://u:{encoded}@h/d")).unwrap();
        proptest::prop_assert_eq!(password(&info), secret.clone());
        let quoted = secret.replace('\\', r"\\").replace('\'', r"\'");
        let info = parse(&format!("host=h user=u password='{quoted}'")).unwrap();
        proptest::prop_assert_eq!(password(&info), secret);
    }
}
