#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn resolve(text: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::resolve(&Sources {
        file: Some((
            PathBuf::from("/etc/lifeboat/lifeboat.toml"),
            text.to_owned(),
        )),
        environment: &env(pairs),
        is_root: false,
    })
}

fn errors(text: &str) -> String {
    resolve(text, &[]).expect_err(text).to_string()
}

fn literal(database: &Database) -> &str {
    match &database.url.value {
        UrlSource::Literal(text) => text.expose_secret(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn three_variables_are_enough() {
    let environment = env(&[
        ("DATABASE_URL", "postgresql:///memalerts"),
        ("LIFEBOAT_REPOSITORY", "/srv/lifeboat"),
        ("LIFEBOAT_PASSWORD_FILE", "/etc/lifeboat/passphrase"),
        ("HOME", "/home/ops"),
    ]);
    let config = Config::resolve(&Sources {
        file: None,
        environment: &environment,
        is_root: false,
    })
    .unwrap();
    assert_eq!(
        literal(config.database(None).unwrap()),
        "postgresql:///memalerts"
    );
    let (location, password) = config.primary.access().unwrap();
    assert_eq!(
        location.value,
        RepositoryLocation::Local("/srv/lifeboat".into())
    );
    assert_eq!(location.origin, Origin::Environment("LIFEBOAT_REPOSITORY"));
    assert!(matches!(&password.value, PasswordSource::File(path) if path.ends_with("passphrase")));
    assert_eq!(
        config.state_dir.value,
        Some("/home/ops/.local/state/lifeboat".into())
    );
    assert!(!config.verify.dumps.is_selected());
}

#[test]
fn every_key_reads_and_knows_its_line() {
    let text = r#"
state_dir = "state"
database_url_file = "~/url"

[repository]
path = "repo"
password_command = ["pass", "show", "lifeboat"]
region = "eu-central-1"
path_style = false
credentials_file = "s3-key"
bandwidth_limit = "10MiB"
stall_timeout = "10s"
give_up_after = "1h"
ssh_command = ["ssh", "-F", "x"]

[objectives]
rpo = "30m"
rto = "2h"

[backup]
jobs = 4
compression_level = 3
lock_timeout = "10s"
slice_size = "1GiB"

[retention]
keep_last = 3
keep_hourly = 24
keep_daily = 7
keep_weekly = 5
keep_monthly = 12
keep_yearly = 2
keep_within = "1y2m"

[verify]
max_age = "90m"

[drill]
max_age = "30d"
jobs = 2
scratch_dir = "/var/tmp"

[[drill.check]]
name = "people"
sql = "select count(*) > 0 from users"

[[drill.check]]
name = "plan"
sql = "select 5"
expect = 5

[tools]
bin_dir = "/opt/pg/bin"
prefix = ["docker", "exec", "-i", "pg"]
"#;
    let config = resolve(text, &[("HOME", "/home/ops")]).unwrap();
    assert!(
        matches!(&config.databases[0].url.value, UrlSource::File(path) if path == &PathBuf::from("/home/ops/url"))
    );
    assert_eq!(config.state_dir.value, Some("/etc/lifeboat/state".into()));
    let remote = &config.primary.remote;
    assert_eq!(remote.region.value.as_deref(), Some("eu-central-1"));
    assert_eq!(remote.path_style.value, Some(false));
    assert_eq!(
        remote.credentials_file.value,
        Some("/etc/lifeboat/s3-key".into())
    );
    assert_eq!(
        remote.bandwidth_limit.value.map(|limit| limit.bytes()),
        Some(10 << 20)
    );
    assert_eq!(remote.stall_timeout.value.seconds(), 10);
    assert_eq!(remote.give_up_after.value.seconds(), 3_600);
    assert_eq!(remote.ssh_command.value, ["ssh", "-F", "x"]);
    let repository = config.primary.location.clone().unwrap();
    assert_eq!(repository.value.to_string(), "/etc/lifeboat/repo");
    assert_eq!(
        repository.origin.to_string(),
        "/etc/lifeboat/lifeboat.toml:6"
    );
    assert_eq!(config.objectives.rpo.value.seconds(), 1_800);
    assert_eq!(config.backup.jobs.value.unwrap().get(), 4);
    assert_eq!(config.backup.compression_level.value, 3);
    assert_eq!(config.backup.slice_size.value.bytes(), 1 << 30);
    assert_eq!(
        config.retention.value.to_string(),
        "3 last, 24 hourly, 7 daily, 5 weekly, 12 monthly, 2 yearly, all within 1y2m"
    );
    assert_eq!(
        config.verify.max_age.origin.to_string(),
        "/etc/lifeboat/lifeboat.toml:36"
    );
    assert_eq!(config.drill.checks.len(), 2);
    assert_eq!(config.drill.checks[0].expect, Expectation::Boolean(true));
    assert_eq!(
        config.drill.checks[1].expect,
        Expectation::Number("5".to_owned())
    );
    assert_eq!(config.tools.prefix.value.len(), 4);
    let flagged = config
        .verify
        .max_age
        .or_flag("--max-age", Some("1d".parse().unwrap()));
    assert_eq!(flagged.origin.to_string(), "--max-age");
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, expected) in [
        (
            "rpo = \"1h\"",
            "/etc/lifeboat/lifeboat.toml:1: unknown key `rpo`",
        ),
        (
            "\n[objectives]\nrpoo = \"1h\"",
            "/etc/lifeboat/lifeboat.toml:3: unknown key `objectives.rpoo`",
        ),
        (
            "[objectives]\nrpo = \"soon\"",
            "/etc/lifeboat/lifeboat.toml:2: \"soon\" is not a duration such as \"90s\", \"2h\" or \"30d\"",
        ),
        (
            "[backup]\n\nslice_size = \"1G\"",
            "/etc/lifeboat/lifeboat.toml:3: \"1G\" is not a size such as \"64MiB\" or \"1GiB\"",
        ),
        (
            "[backup]\njobs = 0",
            "/etc/lifeboat/lifeboat.toml:2: backup.jobs is 0, but must be 1 to 64",
        ),
        (
            "[repository]\nurl = \"rclone:remote:bucket\"",
            "/etc/lifeboat/lifeboat.toml:2: repositories are kept in folders, in `s3:` and in `sftp:`, not in `rclone`",
        ),
        (
            "[repository]\nurl = \"s3:https://key:hunter2@example.com/bucket\"",
            "/etc/lifeboat/lifeboat.toml:2: credentials do not belong into the location: other users can see it",
        ),
        (
            "[repository]\ncredential_file = \"x\"",
            "/etc/lifeboat/lifeboat.toml:2: unknown key `repository.credential_file`",
        ),
        (
            "[repository]\nssh_command = []",
            "/etc/lifeboat/lifeboat.toml:2: repository.ssh_command names no program",
        ),
        (
            "[repository]\npath = \"/a\"\nurl = \"file:///a\"",
            "/etc/lifeboat/lifeboat.toml:3: set, but /etc/lifeboat/lifeboat.toml:2 already says this",
        ),
        (
            "[[repository]]\npath = \"/a\"\n[[repository]]\nname = \"b\"\npath = \"/b\"\nafter_bakcup = true",
            "/etc/lifeboat/lifeboat.toml:6: unknown key `repository.after_bakcup`",
        ),
        (
            "[[repository]]\npath = \"/a\"\n\n[[repository]]\npath = \"/b\"",
            "/etc/lifeboat/lifeboat.toml:4: repository number 2 has no name: only the first one can do without",
        ),
        (
            "[[repository]]\nname = \"a\"\npath = \"/a\"\n[[repository]]\nname = \"a\"\npath = \"/b\"",
            "/etc/lifeboat/lifeboat.toml:5: a repository named `a` exists already",
        ),
        (
            "[[repository]]\npath = \"/a\"\n[[repository]]\nname = \"primary\"\npath = \"/b\"",
            "/etc/lifeboat/lifeboat.toml:4: a repository named `primary` exists already",
        ),
        (
            "[[repository]]\npath = \"/a\"\n[[repository]]\nname = \"b\"",
            "/etc/lifeboat/lifeboat.toml:4: repository b has no path and no url",
        ),
        (
            "[repository]\npath = \"/a\"\nafter_backup = true",
            "/etc/lifeboat/lifeboat.toml:3: repository.after_backup: backups are written to the first repository; this is for the others",
        ),
        (
            "[[database]]\nname = \"a b\"\nurl = \"x\"",
            "/etc/lifeboat/lifeboat.toml:2: \"a b\" is not a database name: use up to 63 letters, digits, `.`, `_` and `-`",
        ),
        (
            "[[database]]\nname = \"a\"",
            "/etc/lifeboat/lifeboat.toml:2: database a has no url and no url_file",
        ),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
    assert!(errors("[repository\n").starts_with("/etc/lifeboat/lifeboat.toml:1: not valid TOML: "));
    // All of them at once, not one a run.
    assert_eq!(errors("a = 1\nb = 2\n[drill]\nc = 3").lines().count(), 3);
}

#[test]
fn the_nearest_key_is_offered() {
    for (text, expected) in [
        ("[objective]\nrpo = \"1h\"", Some("objectives")),
        (
            "[repository]\npasword_file = \"x\"",
            Some("repository.password_file"),
        ),
        ("[backup]\nmax_age = \"1h\"", Some("verify.max_age")),
        ("[[drill.checks]]\nname = \"x\"", Some("drill.check")),
        ("[backup]\ncolour = 1", None),
    ] {
        let errors = resolve(text, &[]).unwrap_err();
        let ConfigError::UnknownKey { nearest, .. } = &errors.all()[0] else {
            panic!("{errors}");
        };
        assert_eq!(nearest.as_deref(), expected, "{text}");
    }
}

#[test]
fn environment_wins_over_file_except_where_it_cannot_mean_one_thing() {
    let url = [("DATABASE_URL", "postgresql:///env")];
    let config = resolve("database_url = \"postgresql:///file\"", &url).unwrap();
    assert_eq!(literal(&config.databases[0]), "postgresql:///env");

    let config = resolve("[[database]]\nname = \"a\"", &url).unwrap();
    assert_eq!(config.databases[0].name.as_deref(), Some("a"));
    assert_eq!(literal(&config.databases[0]), "postgresql:///env");

    let two = "[[database]]\nname = \"a\"\nurl = \"postgresql:///a\"\n[[database]]\nname = \"b\"\nurl = \"postgresql:///b\"";
    let config = resolve(two, &url).unwrap();
    assert_eq!(literal(&config.databases[0]), "postgresql:///a");
    assert_eq!(config.notices.len(), 1);
    assert!(matches!(
        config.database(None),
        Err(ConfigError::ChooseDatabase { .. })
    ));
    assert_eq!(
        literal(config.database(Some("b")).unwrap()),
        "postgresql:///b"
    );
    assert!(matches!(
        config.database(Some("c")),
        Err(ConfigError::UnknownDatabase { .. })
    ));

    // An empty variable is an unset one.
    let config = resolve(
        "database_url = \"postgresql:///file\"",
        &[("DATABASE_URL", "")],
    )
    .unwrap();
    assert_eq!(literal(&config.databases[0]), "postgresql:///file");
    // restic's variables are somebody else's.
    let config = resolve("", &[("RESTIC_REPOSITORY", "/r"), ("RESTIC_PASSWORD", "p")]).unwrap();
    assert!(matches!(
        config.primary.access(),
        Err(ConfigError::NoRepository)
    ));
    // libpq's own variables name a database too.
    let config = resolve("", &[("PGDATABASE", "x"), ("PGHOST", "y")]).unwrap();
    assert!(matches!(
        config.databases[0].url.value,
        UrlSource::LibpqEnvironment
    ));
    assert!(
        resolve("", &[("PGHOST", "y")])
            .unwrap()
            .databases
            .is_empty()
    );
}

#[test]
fn several_repositories() {
    let text = r#"
[[repository]]
path = "repo"
password_file = "secret"
region = "here"

[[repository]]
name = "offsite"
url = "s3:https://s3.example.org/bucket"
credentials_file = "keys"
bandwidth_limit = "1MiB"
after_backup = true

[[repository]]
name = "disk"
path = "/mnt/disk"
password_command = ["pass"]
"#;
    let variables = [
        ("LIFEBOAT_REPOSITORY", "/elsewhere"),
        ("LIFEBOAT_PASSWORD", "hunter2"),
    ];
    let config = resolve(text, &variables).unwrap();
    let names: Vec<&str> = config.repositories().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["primary", "offsite", "disk"]);
    // The environment is about the primary, and those without a passphrase of their own follow it.
    let place = |name| {
        let (location, password) = config.repository(name).unwrap().access().unwrap();
        (location.value.to_string(), password.origin.to_string())
    };
    let variable = "$LIFEBOAT_PASSWORD".to_owned();
    assert_eq!(place(None), ("/elsewhere".to_owned(), variable.clone()));
    let offsite = "s3:https://s3.example.org/bucket".to_owned();
    assert_eq!(place(Some("offsite")), (offsite, variable));
    let (disk, own) = place(Some("disk"));
    assert_eq!(disk, "/mnt/disk");
    assert_eq!(own, "/etc/lifeboat/lifeboat.toml:17");

    assert_eq!(config.primary.remote.region.value.as_deref(), Some("here"));
    let [offsite, disk] = config.others.as_slice() else {
        panic!("{:?}", config.others)
    };
    assert!(offsite.after_backup.value && !disk.after_backup.value);
    assert!(offsite.is_off_host() && !disk.is_off_host());
    assert_eq!(offsite.remote.region.value, None);
    assert_eq!(
        offsite.remote.credentials_file.value,
        Some("/etc/lifeboat/keys".into())
    );
    let unknown = config.repository(Some("ofsite")).unwrap_err();
    let ConfigError::UnknownRepository { nearest, names, .. } = unknown else {
        panic!("{unknown}")
    };
    assert_eq!(nearest.as_deref(), Some("offsite"));
    assert_eq!(names.len(), 3);
}

#[test]
fn repository_addresses() {
    for (text, expected) in [
        ("/srv/r", Ok("/srv/r")),
        ("./odd:name", Ok("./odd:name")),
        ("file:///srv/r", Ok("/srv/r")),
        ("local:/srv/r", Ok("/srv/r")),
        ("sftp:me@host:/srv/r", Ok("sftp:me@host:/srv/r")),
        (
            "s3:https://example.com/b/p",
            Ok("s3:https://example.com/b/p"),
        ),
        ("rest:https://example.com/b", Err("rest")),
        ("ftp://example.com/b", Err("ftp")),
    ] {
        let result = resolve("", &[("LIFEBOAT_REPOSITORY", text)]);
        match (result, expected) {
            (Ok(config), Ok(path)) => {
                assert_eq!(config.primary.location.unwrap().value.to_string(), path)
            }
            (Err(errors), Err(scheme)) => {
                assert!(
                    errors.to_string().contains(&format!("`{scheme}`")),
                    "{errors}"
                );
            }
            (result, _) => panic!("{text}: {result:?}"),
        }
    }
    let both = resolve(
        "",
        &[("LIFEBOAT_PASSWORD", "a"), ("LIFEBOAT_PASSWORD_FILE", "b")],
    )
    .unwrap_err();
    assert_eq!(
        both.to_string(),
        "$LIFEBOAT_PASSWORD_FILE: set, but $LIFEBOAT_PASSWORD already says this"
    );
}

#[test]
fn dump_folder_variables_select_the_folder_check() {
    for (name, value) in [
        ("BACKUP_DIR", "/b"),
        ("BACKUP_GLOB", "memalerts-*.dump"),
        ("BACKUP_MAX_AGE_HOURS", "3"),
        ("BACKUP_FILE", "/b/x.dump"),
    ] {
        let config = resolve("", &[(name, value)]).unwrap();
        assert!(config.verify.dumps.is_selected(), "{name}");
    }
    let config = resolve("", &[("BACKUP_MAX_AGE_HOURS", "1.5")]).unwrap();
    assert_eq!(config.verify.dumps.max_age.unwrap().value.seconds(), 5_400);
    assert_eq!(config.verify.dumps.dir.value, PathBuf::from("/backups"));
    for wrong in ["two", "0", "-1", "NaN", "inf"] {
        assert!(
            resolve("", &[("BACKUP_MAX_AGE_HOURS", wrong)]).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn state_folder() {
    let folder = |pairs: &[(&str, &str)], is_root| {
        Config::resolve(&Sources {
            file: None,
            environment: &env(pairs),
            is_root,
        })
        .unwrap()
        .state_dir
        .value
    };
    assert_eq!(
        folder(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")], true),
        Some("/s/lifeboat".into())
    );
    assert_eq!(
        folder(&[("HOME", "/root")], true),
        Some("/var/lib/lifeboat".into())
    );
    assert_eq!(
        folder(&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], false),
        Some("/h/.local/state/lifeboat".into())
    );
    assert_eq!(folder(&[], false), None);
}

#[test]
fn expectations() {
    for (expectation, answer, met) in [
        (Expectation::Boolean(true), Some("t"), true),
        (Expectation::Boolean(true), Some("f"), false),
        (Expectation::Boolean(false), Some("f"), true),
        (Expectation::Number("5".into()), Some("5.00"), true),
        (
            Expectation::Number("9007199254740993".into()),
            Some("9007199254740992"),
            false,
        ),
        (Expectation::Text("ok".into()), Some("ok"), true),
        (Expectation::Text("t".into()), None, false),
    ] {
        assert_eq!(
            expectation.is_met_by(answer),
            met,
            "{expectation:?} {answer:?}"
        );
    }
}

#[test]
fn secrets_do_not_print() {
    let config = resolve(
        "database_url = \"postgresql://u:hunter2@h/d\"",
        &[("LIFEBOAT_PASSWORD", "hunter3")],
    )
    .unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains("hunter"), "{printed}");
    // Nor in what serde and the parser say of a wrong value beside it.
    let wrong = errors("database_url = \"postgresql://u:hunter2@h/d\"\nstate_dir = 1");
    assert!(!wrong.contains("hunter"), "{wrong}");
}

#[test]
fn retention_has_a_default_only_when_nothing_is_said() {
    let policy = |text: &str| resolve(text, &[]).map(|config| config.retention.value.to_string());
    assert_eq!(policy("").unwrap(), "all within 30d");
    assert_eq!(policy("[retention]\n").unwrap(), "all within 30d");
    assert_eq!(policy("[retention]\nkeep_daily = 7").unwrap(), "7 daily");
    assert_eq!(policy("[retention]\nkeep_daily = 0").unwrap(), "nothing");
    for wrong in [
        "keep_last = -1",
        "keep_last = 9999999",
        "keep_within = \"30\"",
        "keep_within = \"2w\"",
        "max_unused = \"120%\"",
        "max_unused = \"5\"",
        "max_unused = \"-1%\"",
    ] {
        assert!(policy(&format!("[retention]\n{wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn documented_defaults_are_the_real_ones() {
    let config = resolve("", &[]).unwrap();
    let real: BTreeMap<&str, String> = [
        ("objectives.rpo", config.objectives.rpo.value.to_string()),
        ("objectives.rto", config.objectives.rto.value.to_string()),
        (
            "backup.compression_level",
            config.backup.compression_level.value.to_string(),
        ),
        (
            "backup.lock_timeout",
            config.backup.lock_timeout.value.to_string(),
        ),
        (
            "backup.slice_size",
            config.backup.slice_size.value.to_string(),
        ),
        ("verify.max_age", config.verify.max_age.value.to_string()),
        (
            "verify.max_proof_age",
            config.verify.max_proof_age.value.to_string(),
        ),
        (
            "repository.stall_timeout",
            config.primary.remote.stall_timeout.value.to_string(),
        ),
        (
            "repository.give_up_after",
            config.primary.remote.give_up_after.value.to_string(),
        ),
        (
            "repository.append_only",
            config.primary.remote.append_only.value.to_string(),
        ),
        (
            "retention.max_unused",
            format!("{}%", config.max_unused_permille.value / 10),
        ),
        ("drill.max_age", config.drill.max_age.value.to_string()),
        (
            "repository.after_backup",
            config.primary.after_backup.value.to_string(),
        ),
        ("drill.check.expect", Expectation::Boolean(true).to_string()),
    ]
    .into();
    for key in reference::keys() {
        assert!(!key.doc.is_empty(), "{} has no documentation", key.path);
        match (real.get(key.path.as_str()), key.default) {
            (Some(real), Some(documented)) => assert_eq!(*real, documented, "{}", key.path),
            (None, Some(documented)) => assert!(
                documented.contains(' '),
                "{}: {documented} is unproven",
                key.path
            ),
            (Some(_), None) => panic!("{} has an undocumented default", key.path),
            (None, None) => {}
        }
    }
}

#[test]
fn template_is_valid_as_it_is_and_with_everything_uncommented() {
    let bare = reference::template(&[]);
    let config = resolve(&bare, &[]).unwrap();
    assert!(config.databases.is_empty() && config.primary.location.is_none());

    let known = [
        ("repository.path", "\"/srv/r\"".to_owned()),
        ("database_url", "\"postgresql:///x\"".to_owned()),
    ];
    let config = resolve(&reference::template(&known), &[]).unwrap();
    assert_eq!(literal(&config.databases[0]), "postgresql:///x");
    assert_eq!(config.primary.location.unwrap().value.to_string(), "/srv/r");

    // Every example parses as its key's value: uncommented, the only complaints are about keys that
    // exclude each other.
    let all: String = bare
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let errors = resolve(&all, &[]).unwrap_err();
    assert!(
        errors
            .all()
            .iter()
            .all(|error| matches!(error, ConfigError::Conflict { .. })),
        "{errors}"
    );
}

#[test]
fn search_order() {
    let paths = |flag: Option<&str>, pairs: &[(&str, &str)]| -> Vec<String> {
        search::candidates(flag.map(std::path::Path::new), &env(pairs))
            .into_iter()
            .map(|candidate| candidate.path.display().to_string())
            .collect()
    };
    assert_eq!(
        paths(Some("/x.toml"), &[("LIFEBOAT_CONFIG", "/y.toml")]),
        ["/x.toml"]
    );
    assert_eq!(paths(None, &[("LIFEBOAT_CONFIG", "/y.toml")]), ["/y.toml"]);
    assert_eq!(
        paths(None, &[("HOME", "/h")]),
        [
            "lifeboat.toml",
            "/h/.config/lifeboat/lifeboat.toml",
            "/etc/lifeboat/lifeboat.toml"
        ]
    );
}
