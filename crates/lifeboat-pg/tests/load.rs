//! Putting dumps back into a real server, and counting what is there then.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod dump_support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dump_support::{Censuses, connect, folder, info, open, tools, wait_until, write_folder};
use lifeboat_pg::archive::{self, Archive, Section, TABLE_DATA_END};
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::dump::{DumpSession, EntryKind, TableName};
use lifeboat_pg::load::{
    DataSource, LoadError, LoadFailure, LoadOptions, LoadedRows, Loader, PgRestore, ReadBack,
    RestoreMessages, TableSlice, data_bytes,
};
use lifeboat_testkit::{TestDatabase, TestServer, awkward};

/// A data file in memory, in pieces, that may fail after some of them.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
    fails_after: Option<usize>,
}

impl DataSource for Pieces<'_> {
    type Error = &'static str;

    fn next(&mut self) -> Result<Option<&[u8]>, &'static str> {
        if let Some(left) = &mut self.fails_after {
            *left = left.checked_sub(1).ok_or("the repository is on fire")?;
        }
        let (now, later) = self.bytes.split_at(self.size.min(self.bytes.len()));
        self.bytes = later;
        Ok((!now.is_empty()).then_some(now))
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        application_name: "test".into(),
        encoding: "UTF8".into(),
        disable_triggers: false,
        interrupt: Arc::default(),
    }
}

fn loader(database: &TestDatabase<'_>) -> Loader {
    Loader::open(&info(&database.url()), &options()).unwrap()
}

struct Target<'a> {
    table: &'a str,
    copy: &'a str,
    fresh: bool,
}

fn load(
    loader: &mut Loader,
    target: &Target<'_>,
    file: &[u8],
    range: Range<u64>,
    size: usize,
    fails_after: Option<usize>,
) -> Result<LoadedRows, LoadFailure<&'static str>> {
    let slice = TableSlice {
        table: target.table,
        relation: target.table,
        copy_sql: target.copy,
        file_bytes: file.len() as u64,
        range,
        fresh: target.fresh,
    };
    let open = |from: u64| {
        Ok(Pieces {
            bytes: &file[from as usize..],
            size,
            fails_after,
        })
    };
    loader.load_rows(&slice, open, |_| {})
}

fn whole(file: &[u8]) -> Range<u64> {
    0..data_bytes(file.len() as u64)
}

fn file(rows: &[u8]) -> Vec<u8> {
    [rows, TABLE_DATA_END].concat()
}

fn runner(database: &TestDatabase<'_>) -> PgRestore {
    PgRestore {
        conninfo: info(&database.url()),
        jobs: 2,
        keep_owner: true,
        no_tablespaces: false,
        clean: false,
        settings: vec![("maintenance_work_mem".into(), "64MB".into())],
        interrupt: Arc::default(),
    }
}

fn definitions(archive: &Archive, sections: &[Section], database: &TestDatabase<'_>) {
    let part = archive
        .with_sections(sections)
        .filtered(|entry| !entry.has_data());
    let messages = runner(database)
        .run(&tools(database.server()), &part)
        .unwrap();
    assert_eq!(messages, RestoreMessages::default());
}

/// Loads everything that has data from a folder, big tables in several ranges.
fn load_data(archive: &Archive, dump: &Path, database: &TestDatabase<'_>) -> Censuses {
    let mut loader = loader(database);
    let mut censuses = Censuses::new();
    for entry in archive.data_entries() {
        let path = dump.join(archive.data_file(entry).unwrap());
        let census = censuses.entry(entry.dump_id).or_default();
        let content = fs::read(&path).unwrap();
        if entry.is("BLOBS") {
            for (oid, name) in archive::read_blob_list(&mut &content[..]).unwrap() {
                let content = fs::read(dump.join(name)).unwrap();
                let source = Pieces {
                    bytes: &content,
                    size: 100_000,
                    fails_after: None,
                };
                *census += loader.load_large_object(oid, source).unwrap().census;
            }
            continue;
        }
        let target = entry.copy_columns().unwrap().unwrap();
        let own = entry
            .tag
            .as_ref()
            .is_some_and(|tag| tag.as_bytes() == target.table.as_bytes());
        let rows_bytes = data_bytes(content.len() as u64);
        let parts = (rows_bytes / 50_000).clamp(1, 3);
        let copy = target.copy_from();
        let target = Target {
            table: &target.relation,
            copy: &copy,
            fresh: parts == 1 && own,
        };
        for part in 0..parts {
            let range = rows_bytes * part / parts..rows_bytes * (part + 1) / parts;
            *census += load(&mut loader, &target, &content, range, 30_000, None)
                .unwrap()
                .census;
        }
    }
    censuses
}

/// The tables of a dump by name, those loaded through a root under the root's, with the census of each.
fn expected(
    session: &DumpSession,
    censuses: &Censuses,
) -> BTreeMap<TableName, (Vec<TableName>, Vec<String>, RowCensus)> {
    let mut tables = BTreeMap::new();
    for entry in session.entries() {
        let EntryKind::Table { table, root } = &entry.kind else {
            continue;
        };
        let of = root.as_ref().unwrap_or(&table.name).clone();
        let (read, _, census) = tables
            .entry(of)
            .or_insert_with(|| (Vec::new(), table.columns.clone(), RowCensus::EMPTY));
        read.push(table.name.clone());
        *census += censuses[&entry.dump_id];
    }
    tables
}

#[test]
fn everything_awkward_comes_back_over_our_own_connections() {
    let server = TestServer::shared();
    let before = awkward::load(server);
    let session = open(&before).unwrap();
    let dump = folder();
    let censuses = write_folder(&session, 16, dump.path());
    let mut toc = &fs::read(dump.path().join("toc.dat")).unwrap()[..];
    let archive = Archive::read_toc(&mut toc).unwrap();

    let after = server.database_with("loaded", "TEMPLATE template0 ENCODING 'UTF8'");
    definitions(&archive, &[Section::PreData, Section::Data], &after);
    let loaded = load_data(&archive, dump.path(), &after);
    definitions(&archive, &[Section::PostData], &after);

    assert_eq!(loaded, censuses);
    let differences = awkward::fingerprint(server, before.name())
        .differences(&awkward::fingerprint(server, after.name()));
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    // Read back, in pieces, it is what was backed up.
    let mut reader = ReadBack::open(&info(&after.url()), "UTF8", None, &Arc::default()).unwrap();
    let mut pieces = 0;
    for (name, (tables, columns, census)) in expected(&session, &censuses) {
        let mut counted = RowCensus::EMPTY;
        for table in tables {
            for rows in reader.pieces(&table, 4).unwrap() {
                pieces += 1;
                counted += reader.count(&table, &columns, &rows).unwrap();
            }
        }
        assert_eq!(counted, census, "{name}");
    }
    assert!(server.major() < 14 || pieces > loaded.len());
    let blobs: RowCensus = session
        .entries()
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::LargeObjects { .. }))
        .map(|entry| censuses[&entry.dump_id])
        .sum();
    assert!(blobs.rows() > 0);
    assert_eq!(reader.count_large_objects().unwrap(), blobs);
    session.finish().unwrap();
}

#[test]
fn ranges_loaded_in_parallel_are_the_whole() {
    let server = TestServer::shared();
    let database = server.database("ranges");
    database.sql("CREATE TABLE t (id int, text text)");
    let mut rows = String::new();
    let mut wanted = RowCensus::EMPTY;
    for id in 0..20_000 {
        let row = format!("{id}\t{}", "x\\n".repeat(id % 40));
        wanted.add_row(row.as_bytes());
        rows.push_str(&row);
        rows.push('\n');
    }
    let file = file(rows.as_bytes());
    let end = data_bytes(file.len() as u64);
    let sum: RowCensus = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|part| {
                let (file, database) = (&file, &database);
                scope.spawn(move || {
                    let target = Target {
                        table: "public.t",
                        copy: "COPY public.t (id, text) FROM STDIN",
                        fresh: false,
                    };
                    let range = end * part / 4..end * (part + 1) / 4;
                    load(&mut loader(database), &target, file, range, 10_000, None).unwrap()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap().census)
            .sum()
    });
    assert_eq!(sum, wanted);
    let table = TableName {
        schema: "public".into(),
        name: "t".into(),
    };
    let zoned = |zone| ReadBack::open(&info(&database.url()), "UTF8", Some(zone), &Arc::default());
    assert!(zoned("Europe/Vienna").unwrap().knows_the_zone());
    assert!(!zoned("Atlantis/Old_Town").unwrap().knows_the_zone());
    let mut reader = ReadBack::open(&info(&database.url()), "UTF8", None, &Arc::default()).unwrap();
    let columns = ["id".to_owned(), "text".to_owned()];
    let counted: RowCensus = reader
        .pieces(&table, 8)
        .unwrap()
        .iter()
        .map(|rows| reader.count(&table, &columns, rows).unwrap())
        .sum();
    assert_eq!(counted, wanted);
}

#[test]
fn a_slice_that_fails_leaves_none_of_its_rows() {
    let server = TestServer::shared();
    let database = server.database("failing");
    database.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (7)");
    for fresh in [false, true] {
        let target = Target {
            table: "public.t",
            copy: "COPY public.t (id) FROM STDIN",
            fresh,
        };
        let bad = file(b"1\n2\nthree\n4\n");
        let error = load(&mut loader(&database), &target, &bad, whole(&bad), 4, None).unwrap_err();
        let LoadFailure::Load(LoadError::Table { source, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(source.sqlstate(), Some("22P02"));
        assert!(
            source
                .server()
                .unwrap()
                .context
                .as_ref()
                .unwrap()
                .contains("line 3"),
            "{error:?}"
        );

        let good = file(b"1\n2\n3\n4\n");
        let error = load(
            &mut loader(&database),
            &target,
            &good,
            whole(&good),
            2,
            Some(3),
        )
        .unwrap_err();
        assert!(
            matches!(error, LoadFailure::Source("the repository is on fire")),
            "{error}"
        );

        // Cut short, with or without an end; and something behind the end.
        for damaged in [
            &good[..6],
            &good[..good.len() - 1],
            &b"1\n2\n\\.\n\n"[..],
            &file(b"1\n2"),
        ] {
            let error = load(
                &mut loader(&database),
                &target,
                damaged,
                whole(damaged),
                2,
                None,
            )
            .unwrap_err();
            assert!(
                matches!(
                    error,
                    LoadFailure::Load(LoadError::Malformed { .. } | LoadError::Table { .. })
                ),
                "{error}"
            );
        }
        assert_eq!(
            database.value("SELECT string_agg(id::text, ',') FROM t"),
            "7",
            "fresh: {fresh}"
        );
    }
    let nowhere = Target {
        table: "public.nowhere",
        copy: "COPY public.nowhere (id) FROM STDIN",
        fresh: false,
    };
    let good = file(b"1\n");
    let error = load(
        &mut loader(&database),
        &nowhere,
        &good,
        whole(&good),
        2,
        None,
    )
    .unwrap_err();
    assert!(
        matches!(error, LoadFailure::Load(LoadError::Table { .. })),
        "{error}"
    );
}

#[test]
fn an_interrupt_ends_a_load_and_a_restore() {
    let server = TestServer::shared();
    let database = server.database("stopped");
    database.sql("CREATE TABLE t (id int)");
    let interrupt = Arc::new(AtomicBool::new(false));
    let mut watched = Loader::open(
        &info(&database.url()),
        &LoadOptions {
            interrupt: Arc::clone(&interrupt),
            ..options()
        },
    )
    .unwrap();
    let endless = file(&b"1\n".repeat(8 << 20));
    let target = TableSlice {
        table: "public.t",
        relation: "public.t",
        copy_sql: "COPY public.t (id) FROM STDIN",
        file_bytes: endless.len() as u64,
        range: whole(&endless),
        fresh: false,
    };
    let open_endless = |_| {
        Ok::<_, &'static str>(Pieces {
            bytes: &endless,
            size: 65536,
            fails_after: None,
        })
    };
    let mut seen = 0;
    let result = watched.load_rows(&target, open_endless, |bytes| {
        seen += bytes;
        if seen > 1 << 20 {
            interrupt.store(true, Ordering::Relaxed);
        }
    });
    assert!(
        matches!(result, Err(LoadFailure::Load(LoadError::Interrupted))),
        "{result:?}"
    );
    drop(watched);
    assert_eq!(database.value("SELECT count(*) FROM t"), "0");

    // pg_restore, waiting for a lock that it does not get.
    interrupt.store(false, Ordering::Relaxed);
    let session = open(&database).unwrap();
    let archive = session.archive().with_sections(&[Section::PreData]);
    session.finish().unwrap();
    let mut other = connect(&database.url());
    other.execute("BEGIN; LOCK TABLE t").unwrap();
    let mut runner = runner(&database);
    (runner.clean, runner.jobs, runner.interrupt) = (true, 1, Arc::clone(&interrupt));
    let result = std::thread::scope(|scope| {
        let restoring = scope.spawn(|| runner.run(&tools(server), &archive));
        wait_until("pg_restore waits", || {
            database.value(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass",
            ) == "1"
        });
        interrupt.store(true, Ordering::Relaxed);
        restoring.join().unwrap()
    });
    assert!(matches!(result, Err(LoadError::Interrupted)), "{result:?}");
    drop(other);
    assert_eq!(
        database.value("SELECT count(*) FROM t"),
        "0",
        "it is still there"
    );
}

#[test]
fn pg_restores_complaints_are_reported() {
    let server = TestServer::shared();
    let before = server.database("complain");
    before.sql("CREATE TABLE a (id int); CREATE TABLE b (id int)");
    let session = open(&before).unwrap();
    let archive = session.archive().schema_only();
    session.finish().unwrap();
    let after = server.database("complained");
    after.sql("CREATE TABLE a (x text)");
    let mut runner = runner(&after);
    let messages = runner.run(&tools(server), &archive).unwrap();
    assert_eq!(messages.errors.len(), 1, "{messages:?}");
    assert!(
        messages.errors[0].contains("already exists"),
        "{messages:?}"
    );
    assert_eq!(
        after.value("SELECT to_regclass('b') IS NULL"),
        "f",
        "it went on"
    );

    runner.clean = true;
    assert_eq!(
        runner.run(&tools(server), &archive).unwrap(),
        RestoreMessages::default()
    );
    assert_eq!(
        after.value(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attname = 'id'"
        ),
        "1"
    );

    runner.conninfo = info(&server.url("no such database"));
    let error = runner.run(&tools(server), &archive).unwrap_err();
    assert!(
        matches!(&error, LoadError::PgRestore { words, .. } if words.contains("no such database")),
        "{error}"
    );
}

#[test]
fn owners_can_be_left_out() {
    let server = TestServer::shared();
    let before = server.database("owners");
    let role = format!("gone_{}", before.name());
    before.sql(&format!(
        "CREATE ROLE {role}; CREATE TABLE t (id int); ALTER TABLE t OWNER TO {role}"
    ));
    let session = open(&before).unwrap();
    let archive = session.archive().schema_only();
    session.finish().unwrap();
    before.sql(&format!(
        "REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"
    ));
    let after = server.database("ownerless");
    let mut runner = runner(&after);
    runner.keep_owner = false;
    assert_eq!(
        runner.run(&tools(server), &archive).unwrap(),
        RestoreMessages::default()
    );
    assert_eq!(
        after.value("SELECT relowner::regrole FROM pg_class WHERE relname = 't'"),
        "postgres"
    );
}

#[test]
fn data_alone_into_tables_that_have_triggers() {
    let server = TestServer::shared();
    let database = server.database("triggers");
    database.sql(
        "CREATE TABLE child (parent int);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
         CREATE TRIGGER no BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let target = Target {
        table: "public.child",
        copy: "COPY public.child (parent) FROM STDIN",
        fresh: false,
    };
    let one = file(b"1\n");
    let error = load(&mut loader(&database), &target, &one, whole(&one), 9, None);
    assert!(matches!(
        error,
        Err(LoadFailure::Load(LoadError::Table { .. }))
    ));
    let quiet = LoadOptions {
        disable_triggers: true,
        ..options()
    };
    let mut loader = Loader::open(&info(&database.url()), &quiet).unwrap();
    assert_eq!(
        load(&mut loader, &target, &one, whole(&one), 9, None)
            .unwrap()
            .census
            .rows(),
        1
    );

    let role = format!("plain_{}", database.name());
    database.sql(&format!("CREATE ROLE {role} LOGIN"));
    let error = Loader::open(&info(&database.url_as(&role)), &quiet).unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"), "{error}");
    database.sql(&format!("DROP ROLE {role}"));
}

#[test]
fn large_objects_are_written_in_pieces() {
    let server = TestServer::shared();
    let database = server.database("lo");
    database.sql("SELECT lo_create(70); SELECT lo_create(71); SELECT lo_create(72)");
    let big: Vec<u8> = (0..2_500_000u32).map(|i| (i % 251) as u8).collect();
    let mut loader = loader(&database);
    let mut census = RowCensus::EMPTY;
    for (oid, content, size) in [(70, &b""[..], 9), (71, b"\0\\x\n", 3), (72, &big, 700_000)] {
        let source = Pieces {
            bytes: content,
            size,
            fails_after: None,
        };
        census += loader.load_large_object(oid, source).unwrap().census;
    }
    assert_eq!(
        database.value("SELECT encode(lo_get(71), 'hex')"),
        "005c780a"
    );
    assert_eq!(
        database.value("SELECT length(lo_get(70)) || ' ' || length(lo_get(72))"),
        "0 2500000"
    );
    let mut reader = ReadBack::open(&info(&database.url()), "UTF8", None, &Arc::default()).unwrap();
    assert_eq!(reader.count_large_objects().unwrap(), census);
    let nowhere = Pieces {
        bytes: b"x",
        size: 1,
        fails_after: None,
    };
    let error = loader.load_large_object(999_999, nowhere).unwrap_err();
    assert!(
        matches!(
            error,
            LoadFailure::Load(LoadError::LargeObject { oid: 999_999, .. })
        ),
        "{error}"
    );
}
