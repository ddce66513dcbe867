//! Installations made of small scripts: every version at hand, none of it real.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn script(&self, path: &str, body: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn install(&self, folder: &str, version: &str, tools: &[Tool]) {
        for tool in tools {
            self.script(
                &format!("{folder}/{tool}"),
                &format!("echo '{tool} (PostgreSQL) {version} (Test {version}-1)'"),
            );
        }
    }

    fn finder(&self) -> ToolFinder {
        let pattern = |tail: &str| format!("{}/{tail}", self.root.path().display());
        ToolFinder {
            places: vec![pattern("lib/*/bin")],
            ..ToolFinder::new(Some(self.root.path().join("path").into()))
        }
    }
}

const BACKUP: [Tool; 3] = [Tool::PgDump, Tool::PgRestore, Tool::PgDumpall];

#[test]
fn versions_are_read_as_programs_print_them() {
    let table = [
        (
            "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
            Some((15, 18, "15.18")),
        ),
        ("postgres (PostgreSQL) 18beta1", Some((18, 0, "18beta1"))),
        ("psql (PostgreSQL) 19devel", Some((19, 0, "19devel"))),
        ("pg_dump (PostgreSQL) 9.6.24", Some((9, 0, "9.6.24"))),
        ("restic 0.14.0", None),
        ("pg_dump (PostgreSQL) ", None),
        ("", None),
    ];
    for (line, wanted) in table {
        let found = ToolVersion::parse(line);
        let found = found.as_ref().map(|v| (v.major, v.minor, v.text.as_str()));
        assert_eq!(found, wanted, "{line}");
    }
}

#[test]
fn the_nearest_major_that_is_new_enough_is_taken() {
    let machine = Machine::new();
    for version in ["13.9", "15.4", "17.2"] {
        let folder = format!("lib/{}/bin", version.split('.').next().unwrap());
        machine.install(&folder, version, &BACKUP);
    }
    machine.install("path", "15.18", &BACKUP);
    let finder = machine.finder();
    let text = |wanted| {
        finder
            .find(&BACKUP, wanted)
            .unwrap()
            .version(Tool::PgDump)
            .unwrap()
            .text
            .clone()
    };
    assert_eq!(text(Wanted::AtLeast(13)), "13.9");
    // Two of one major: the newer minor, though it is only in PATH.
    assert_eq!(text(Wanted::AtLeast(14)), "15.18");
    assert_eq!(text(Wanted::AtLeast(16)), "17.2");
    assert_eq!(text(Wanted::Exactly(17)), "17.2");
    let Err(ToolError::TooOld {
        found, needed: 18, ..
    }) = finder.find(&BACKUP, Wanted::AtLeast(18))
    else {
        panic!("18 was found");
    };
    let versions: Vec<_> = found
        .iter()
        .map(|found| found.version.text.as_str())
        .collect();
    assert_eq!(versions, ["13.9", "15.4", "17.2", "15.18"]);
    assert!(matches!(
        finder.find(&BACKUP, Wanted::Exactly(16)),
        Err(ToolError::OtherMajor { .. })
    ));
}

#[test]
fn an_installation_must_be_complete_and_of_one_version() {
    let machine = Machine::new();
    machine.install("lib/15/bin", "15.4", &[Tool::PgDump]);
    let error = machine
        .finder()
        .find(&BACKUP, Wanted::AtLeast(15))
        .unwrap_err();
    assert!(
        matches!(
            error,
            ToolError::Incomplete {
                tool: Tool::PgRestore,
                ..
            }
        ),
        "{error}"
    );
    // A complete one elsewhere is taken instead.
    machine.install("path", "16.1", &BACKUP);
    assert_eq!(
        machine
            .finder()
            .find(&BACKUP, Wanted::AtLeast(15))
            .unwrap()
            .major(),
        16
    );
    machine.install("lib/15/bin", "14.4", &[Tool::PgRestore, Tool::PgDumpall]);
    let finder = ToolFinder {
        path: None,
        ..machine.finder()
    };
    let error = finder.find(&BACKUP, Wanted::AtLeast(15)).unwrap_err();
    assert!(matches!(error, ToolError::Mixed { .. }), "{error}");
}

#[test]
fn nothing_found_says_where_it_was_looked_for() {
    let machine = Machine::new();
    fs::create_dir_all(machine.root.path().join("path")).unwrap();
    fs::create_dir_all(machine.root.path().join("lib/15/bin")).unwrap();
    let error = machine
        .finder()
        .find(&BACKUP, Wanted::AtLeast(15))
        .unwrap_err();
    let ToolError::NotFound {
        tool: Tool::PgDump,
        needed: 15,
        looked_in,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(
        looked_in,
        [
            machine.root.path().join("lib/15/bin"),
            machine.root.path().join("path")
        ]
    );
}

#[test]
fn wrappers_and_broken_programs_are_not_taken() {
    let machine = Machine::new();
    machine.install("share", "15.4", &[Tool::PgDump]);
    fs::rename(
        machine.root.path().join("share/pg_dump"),
        machine.root.path().join("share/pg_wrapper"),
    )
    .unwrap();
    fs::create_dir_all(machine.root.path().join("path")).unwrap();
    let link = machine.root.path().join("path/pg_dump");
    std::os::unix::fs::symlink(machine.root.path().join("share/pg_wrapper"), link).unwrap();
    let find = || {
        machine
            .finder()
            .find(&[Tool::PgDump], Wanted::AtLeast(15))
            .unwrap_err()
    };
    assert!(matches!(find(), ToolError::NotFound { .. }));
    machine.script(
        "lib/15/bin/pg_dump",
        "echo 'error while loading shared libraries' >&2; exit 127",
    );
    assert!(
        find().to_string().contains("shared libraries"),
        "{}",
        find()
    );
    machine.script("lib/15/bin/pg_dump", "echo hello");
    assert!(find().to_string().contains("hello"), "{}", find());
}

#[test]
fn a_prefix_leads_elsewhere_and_the_password_stays_out_of_the_arguments() {
    let machine = Machine::new();
    // Behaves like `docker exec [-i] [-e NAME]… CONTAINER COMMAND…`.
    machine.script(
        "docker",
        "shift; while [ \"${1#-}\" != \"$1\" ]; do [ \"$1\" = -e ] && shift; shift; done; shift\n\
         [ \"$2\" = --version ] && echo \"$1 (PostgreSQL) 16.3\" || echo \"$PGPASSWORD\"",
    );
    let docker = machine.root.path().join("docker").display().to_string();
    let prefix = [docker.as_str(), "exec", "-i", "db"]
        .map(str::to_owned)
        .to_vec();
    let finder = ToolFinder {
        prefix,
        ..machine.finder()
    };
    let tools = finder.find(&BACKUP, Wanted::AtLeast(15)).unwrap();
    assert_eq!((tools.major(), tools.is_elsewhere()), (16, true));
    assert!(matches!(
        finder.find(&BACKUP, Wanted::AtLeast(17)),
        Err(ToolError::TooOld { .. })
    ));
    let info = ConnInfo::parse("postgresql://u:s3cret@h/d", &|_: &str| None).unwrap();
    let mut command = tools.command_for(Tool::PgDump, &info);
    let arguments: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    assert_eq!(arguments[..3], ["exec", "-e", "PGHOST"]);
    assert_eq!(arguments[arguments.len() - 3..], ["-i", "db", "pg_dump"]);
    assert!(arguments.iter().all(|word| !word.contains("s3cret")));
    assert_eq!(command.output().unwrap().stdout, b"s3cret\n");
    let gone = ToolFinder {
        prefix: vec!["/nonexistent/ssh".to_owned()],
        ..machine.finder()
    };
    assert!(matches!(
        gone.find(&BACKUP, Wanted::AtLeast(15)),
        Err(ToolError::Failed { .. })
    ));
}
