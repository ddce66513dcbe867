//! Selections: the right entries, and stock pg_restore can restore them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod archive_support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use archive_support::{fixture, run, sample, tool};
use lifeboat_pg::archive::{
    Archive, DropRules, Section, SelectError, TablePattern, TableSelection,
};
use lifeboat_testkit::{TestDatabase, TestServer};

fn archive(name: &str) -> Archive {
    Archive::read_toc(&mut fixture(name).as_slice()).unwrap()
}

fn select(archive: &Archive, names: &[&str]) -> Result<TableSelection, SelectError> {
    let patterns: Vec<TablePattern> = names.iter().map(|name| TablePattern::new(name)).collect();
    archive.select_tables(&patterns)
}

fn described(archive: &Archive) -> Vec<String> {
    archive
        .entries
        .iter()
        .map(|entry| entry.describe())
        .collect()
}

fn has(archive: &Archive, entry: &str) -> bool {
    described(archive).iter().any(|have| have == entry)
}

#[test]
fn a_table_brings_what_it_needs_and_what_is_its_own() {
    for version in ["pg15-z6", "pg16-z6-redirect", "pg18-z0"] {
        let chosen = select(&archive(version), &["app.users"]).unwrap();
        assert_eq!(chosen.selected, ["app.users"]);
        assert_eq!(chosen.required, [""; 0]);
        assert_eq!(chosen.left_out, []);
        let mut have = described(&chosen.archive);
        have.sort();
        let mut wanted = [
            "ENCODING ENCODING",
            "STDSTRINGS STDSTRINGS",
            "SEARCHPATH SEARCHPATH",
            "SCHEMA app",
            "COMMENT SCHEMA app",
            "DOMAIN app.email",
            "TYPE app.mood",
            "FUNCTION app.slug(text)",
            "FUNCTION app.touch()",
            "SEQUENCE app.ticket",
            "TABLE app.users",
            "COMMENT app.TABLE users",
            "COMMENT app.COLUMN users.mail",
            "SEQUENCE app.users_id_seq",
            "TABLE DATA app.users",
            "SEQUENCE SET app.ticket",
            "SEQUENCE SET app.users_id_seq",
            "CONSTRAINT app.users users_pkey",
            "INDEX app.users_slug",
            "STATISTICS app.users_stats",
            "TRIGGER app.users touch",
            "POLICY app.users readable",
            "ROW SECURITY app.users",
            "ACL app.TABLE users",
            "ACL app.COLUMN users.mail",
        ];
        wanted.sort_unstable();
        assert_eq!(have, wanted, "{version}");
        let shared: BTreeSet<String> = chosen
            .archive
            .entries
            .iter()
            .filter(|entry| chosen.shared.contains(&entry.dump_id))
            .map(|entry| entry.describe())
            .collect();
        let wanted = [
            "COMMENT SCHEMA app",
            "DOMAIN app.email",
            "FUNCTION app.slug(text)",
            "FUNCTION app.touch()",
            "SCHEMA app",
            "SEQUENCE SET app.ticket",
            "SEQUENCE app.ticket",
            "TYPE app.mood",
        ];
        assert_eq!(shared, BTreeSet::from(wanted.map(str::to_owned)));
    }
}

#[test]
fn foreign_keys_come_only_with_both_ends() {
    let archive = archive("pg15-z6");
    let alone = select(&archive, &["memes"]).unwrap();
    assert_eq!(alone.left_out.len(), 1);
    assert_eq!(
        alone.left_out[0].entry,
        "FK CONSTRAINT app.memes memes_author_fkey"
    );
    assert_eq!(alone.left_out[0].needs, ["app.users"]);
    assert!(has(&alone.archive, "SEQUENCE OWNED BY app.memes_id_seq"));
    assert!(has(&alone.archive, "DEFAULT app.memes id"));
    assert!(!has(&alone.archive, "TABLE app.users"));

    let both = select(&archive, &["memes", "app.users"]).unwrap();
    assert_eq!(both.left_out, []);
    assert!(has(
        &both.archive,
        "FK CONSTRAINT app.memes memes_author_fkey"
    ));
}

#[test]
fn a_partitioned_table_brings_its_partitions_and_a_partition_stands_alone() {
    for version in ["pg15-z6", "pg18-z0"] {
        let archive = archive(version);
        let whole = select(&archive, &["app.events"]).unwrap();
        assert_eq!(
            whole.selected,
            [
                "app.events",
                "app.events_2025",
                "app.events_2026",
                "app.events_2026_a"
            ]
        );
        for entry in [
            "TABLE DATA app.events_2025",
            "TABLE ATTACH app.events_2026_a",
            "INDEX ATTACH app.events_2026_a_pkey",
        ] {
            assert!(has(&whole.archive, entry), "{entry}");
        }
        assert!(!has(
            &whole.archive,
            "FK CONSTRAINT app.notes notes_at_what_fkey"
        ));

        let partition = select(&archive, &["events_2025"]).unwrap();
        assert_eq!(partition.selected, ["app.events_2025"]);
        assert_eq!(partition.required, [""; 0]);
        assert_eq!(partition.left_out.len(), 1);
        assert_eq!(partition.left_out[0].entry, "TABLE ATTACH app.events_2025");
        assert_eq!(partition.left_out[0].needs, ["app.events"]);
        assert!(has(
            &partition.archive,
            "CONSTRAINT app.events_2025 events_2025_pkey"
        ));
        assert!(!has(
            &partition.archive,
            "CONSTRAINT app.events events_pkey"
        ));
        assert!(!has(
            &partition.archive,
            "INDEX ATTACH app.events_2025_pkey"
        ));
    }
}

#[test]
fn what_a_relation_cannot_do_without_comes_along() {
    let archive = archive("pg18-z0");
    let child = select(&archive, &["derived"]).unwrap();
    assert_eq!(child.required, ["app.base"]);
    assert!(has(&child.archive, "TABLE DATA app.derived"));
    assert!(!has(&child.archive, "TABLE DATA app.base"));

    let view = select(&archive, &["per_user"]).unwrap();
    assert_eq!(view.required, ["app.memes"]);
    assert!(has(&view.archive, "TABLE DATA app.memes"));
    assert!(has(&view.archive, "MATERIALIZED VIEW DATA app.per_user"));
}

#[test]
fn names_and_patterns() {
    let archive = archive("pg15-z6");
    let names = |pattern: &str| select(&archive, &[pattern]).map(|chosen| chosen.selected);
    assert_eq!(names("users").unwrap(), ["app.users", "public.users"]);
    assert_eq!(names("public.*").unwrap().len(), 4);
    assert_eq!(names("*.e*y").unwrap(), ["public.empty"]);
    let odd = "Odd.Schema.Täble \" with, (everything) %_*?";
    assert_eq!(names(odd).unwrap(), [odd]);
    assert_eq!(names("\"Odd.Schema\".*").unwrap(), [odd]);

    let unknown = |name: &str, wanted: &[&str]| match names(name).unwrap_err() {
        SelectError::UnknownTable {
            name: told,
            nearest,
        } => {
            assert_eq!(told, name);
            assert_eq!(nearest, wanted);
        }
    };
    unknown("app.user", &["app.users"]);
    unknown("Note", &["app.notes"]);
    unknown("nothing_like_it", &[]);
}

#[test]
fn sections_and_kinds() {
    let archive = archive("pg15-z6");
    let parts: usize = [Section::PreData, Section::Data, Section::PostData]
        .iter()
        .map(|section| archive.with_sections(&[*section]).entries.len())
        .sum();
    // Each part has the three settings.
    assert_eq!(parts, archive.entries.len() + 2 * 3);
    assert!(
        has(
            &archive.with_sections(&[Section::PreData]),
            "ACL app.TABLE users"
        ) || has(
            &archive.with_sections(&[Section::PostData]),
            "ACL app.TABLE users"
        )
    );

    let schema = archive.schema_only();
    assert!(schema.data_entries().next().is_none());
    assert!(!has(&schema, "SEQUENCE SET app.ticket"));
    assert!(!has(&schema, "COMMENT LARGE OBJECT 900001"));
    assert!(has(&schema, "INDEX app.users_slug"));

    let data = archive.data_only();
    assert_eq!(data.data_entries().count(), archive.data_entries().count());
    assert!(has(&data, "SEQUENCE SET app.ticket"));
    assert!(!has(&data, "TABLE app.users"));
}

#[test]
fn grants_of_missing_roles_and_publications_go() {
    let archive = archive("pg18-z0");
    assert!(archive.roles().contains("sample reader"));
    assert!(archive.roles().contains("sample_owner"));

    let rules = DropRules {
        publications: true,
        missing_roles: BTreeSet::from(["sample reader".to_owned()]),
        ..DropRules::default()
    };
    let (kept, dropped) = archive.without(&rules);
    assert!(!kept.roles().contains("sample reader"));
    assert!(!has(&kept, "PUBLICATION sample_publication"));
    assert!(!has(
        &kept,
        "PUBLICATION TABLE app.sample_publication users"
    ));
    assert!(!has(&kept, "ACL app.TABLE users"));
    assert!(
        dropped.contains(&"GRANT SELECT ON TABLE app.users TO \"sample reader\";".to_owned()),
        "{dropped:?}"
    );
    assert_eq!(
        archive.without(&DropRules::default()),
        (archive.clone(), Vec::new())
    );
}

/// Restores a selection with stock pg_restore, from a directory that is made of pg_dump's own files.
fn restore<'a>(
    server: &'a TestServer,
    stock: &Path,
    selection: &Archive,
    folder: &Path,
) -> TestDatabase<'a> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder).unwrap();
    selection
        .write_directory_toc(&mut File::create(folder.join("toc.dat")).unwrap())
        .unwrap();
    for entry in selection.data_entries() {
        let name = selection.data_file(entry).unwrap();
        fs::copy(stock.join(&name), folder.join(&name)).unwrap();
    }
    let restored = server.database("selected");
    run(tool(server, "pg_restore", restored.name())
        .args(["-Fd", "-e", "-j2", "-d", restored.name()])
        .arg(folder));
    restored
}

#[test]
fn every_selection_can_be_restored() {
    let server = TestServer::shared();
    let database = sample(server);
    let folder = tempfile::tempdir().unwrap();
    let stock = folder.path().join("stock");
    run(tool(server, "pg_dump", database.name())
        .args(["-Fd", "-Z0", "-f"])
        .arg(&stock));
    let archive = Archive::read_toc(&mut File::open(stock.join("toc.dat")).unwrap()).unwrap();
    let ours = folder.path().join("ours");

    for (names, query) in [
        (
            &["app.users"][..],
            "SELECT count(*), max(last_value) FROM app.users, app.ticket",
        ),
        (&["memes"], "SELECT count(*), sum(id) FROM app.memes"),
        (
            &["app.*"],
            "SELECT count(*) FROM app.memes JOIN app.users ON author = users.id",
        ),
        (&["events"], "SELECT count(*), max(at) FROM app.events"),
        (&["events_2025"], "SELECT count(*) FROM app.events_2025"),
        (&["derived"], "SELECT count(*) FROM app.derived"),
        (&["per_user"], "SELECT sum(memes) FROM app.per_user"),
        (&["happy"], "SELECT count(*) FROM app.happy"),
        (&["ticket"], "SELECT nextval('app.ticket')"),
        (
            &["notes", "events"],
            "SELECT count(*) FROM app.notes JOIN app.events USING (at, what)",
        ),
        (
            &["\"Odd.Schema\".*"],
            "SELECT count(*) FROM \"Odd.Schema\".\"Täble \"\" with, (everything) %_*?\"",
        ),
    ] {
        let chosen = select(&archive, names).unwrap();
        let restored = restore(server, &stock, &chosen.archive, &ours);
        // nextval moves the source's sequence too: each is asked once.
        assert_eq!(restored.value(query), database.value(query), "{names:?}");
    }

    let restored = restore(server, &stock, &archive.schema_only(), &ours);
    assert_eq!(restored.value("SELECT count(*) FROM app.users"), "0");
}
