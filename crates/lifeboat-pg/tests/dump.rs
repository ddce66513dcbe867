//! Dumps of a real server: whole, consistent, and readable by stock pg_restore; or an error that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod dump_support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dump_support::{
    connect, folder, info, open, open_as, pg_restore, read_all, table_units, wait_until,
    write_folder,
};
use lifeboat_pg::census::RowCensus;
use lifeboat_pg::dump::{
    CopyFailure, DumpError, DumpOptions, DumpSession, EntryKind, Globals, UnitWork,
};
use lifeboat_testkit::{TestDatabase, TestServer, awkward};

const SLICE: u64 = 16;

#[test]
fn everything_awkward_comes_back_through_stock_pg_restore() {
    let server = TestServer::shared();
    let before = awkward::load(server);
    let session = open(&before).unwrap();
    let folder = folder();
    let censuses = write_folder(&session, SLICE, folder.path());
    assert_eq!(censuses.len(), session.entries().len());
    let after = server.database_with("restored", "TEMPLATE template0 ENCODING 'UTF8'");
    pg_restore(server, folder.path(), after.name(), &["-j2"]);
    let differences = awkward::fingerprint(server, before.name())
        .differences(&awkward::fingerprint(server, after.name()));
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    // The restored database has the same census, table by table, whatever the order of its heap; where
    // rows are loaded through the root of a partitioned table, root by root.
    let again = open(&after).unwrap();
    let read = read_all(&again, 3, 2).unwrap();
    let (then, now) = (by_table(&session, &censuses), by_table(&again, &read));
    assert!(then.len() > 40);
    assert_eq!(then, now);
    again.finish().unwrap();
    session.finish().unwrap();
}

fn by_table(
    session: &DumpSession,
    censuses: &dump_support::Censuses,
) -> BTreeMap<String, RowCensus> {
    let mut by_table = BTreeMap::new();
    for entry in session.entries() {
        let name = match &entry.kind {
            EntryKind::Table { table, root } => root.as_ref().unwrap_or(&table.name).to_string(),
            EntryKind::LargeObjects { .. } => "large objects".to_owned(),
        };
        *by_table.entry(name).or_insert(RowCensus::EMPTY) += censuses[&entry.dump_id];
    }
    by_table
}

#[test]
fn two_thousand_tables() {
    let server = TestServer::shared();
    let before = server.database("many");
    awkward::load_many(&before);
    let session = open(&before).unwrap();
    let censuses = read_all(&session, SLICE, 2).unwrap();
    assert!(censuses.len() >= 2000);
    session.finish().unwrap();
}

fn big_table(database: &TestDatabase<'_>) {
    database.sql(
        "CREATE TABLE big (id int PRIMARY KEY, text text);
         INSERT INTO big SELECT i, repeat(md5(i::text), 1 + i % 9) FROM generate_series(1, 20000) i;
         DELETE FROM big WHERE id % 7 = 0;
         UPDATE big SET text = E'tab\\there, newline\\nthere, backslash \\\\ and \\\\.' WHERE id % 11 = 0",
    );
}

#[test]
fn slices_are_the_whole_byte_for_byte() {
    let server = TestServer::shared();
    let database = server.database("slices");
    big_table(&database);
    let session = open(&database).unwrap();
    let read = |slice_blocks: u64| {
        let mut worker = session.worker().unwrap();
        let mut bytes = Vec::new();
        let mut census = RowCensus::EMPTY;
        let mut units = table_units(&session, slice_blocks);
        units.sort_by_key(|unit| unit.part);
        for unit in &units {
            let result = worker
                .copy_out(unit, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok::<(), Infallible>(())
                })
                .unwrap();
            census += result.census;
        }
        (units.len(), bytes, census)
    };
    let (one, whole, census) = read(1 << 40);
    assert_eq!(one, 1);
    assert!(whole.ends_with(b"\n\\.\n\n\n"));
    let mut by_lines = RowCensus::EMPTY;
    by_lines.add_lines(&whole[..whole.len() - 5]);
    assert_eq!(census, by_lines);
    assert_eq!(
        census.rows().to_string(),
        database.value("SELECT count(*) FROM big")
    );
    for slice_blocks in [1, 7, 100] {
        let (parts, sliced, sliced_census) = read(slice_blocks);
        assert!(server.major() < 14 || parts > 1);
        assert_eq!(sliced_census, census);
        assert!(sliced == whole, "slices of {slice_blocks} blocks");
    }
}

#[test]
fn money_is_neither_made_nor_lost_while_it_moves() {
    let server = TestServer::shared();
    let database = server.database("bank");
    database.sql(
        "CREATE TABLE a (id int PRIMARY KEY, amount int); INSERT INTO a SELECT i, 100 FROM generate_series(1, 2000) i;
         CREATE TABLE b (id int PRIMARY KEY, amount int); INSERT INTO b SELECT i, 100 FROM generate_series(1, 2000) i;",
    );
    let stop = AtomicBool::new(false);
    let moves = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for teller in 0..2u64 {
            let (stop, moves, url) = (&stop, &moves, database.url());
            scope.spawn(move || {
                let mut connection = connect(&url);
                let mut turn = teller;
                while !stop.load(Ordering::Relaxed) {
                    turn = turn
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    let (from, to, amount) = (
                        1 + (turn >> 33) % 2000,
                        1 + (turn >> 20) % 2000,
                        (turn >> 50) % 9,
                    );
                    connection
                        .execute(&format!(
                            "BEGIN; UPDATE a SET amount = amount - {amount} WHERE id = {from};
                             UPDATE b SET amount = amount + {amount} WHERE id = {to}; COMMIT"
                        ))
                        .unwrap();
                    moves.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        for _ in 0..5 {
            let before = moves.load(Ordering::Relaxed);
            wait_until("money moves", || {
                moves.load(Ordering::Relaxed) > before + 20
            });
            let session = open(&database).unwrap();
            let at_snapshot = moves.load(Ordering::Relaxed);
            // Only when the tellers went on in the meantime does a single snapshot matter.
            wait_until("money moves on", || {
                moves.load(Ordering::Relaxed) > at_snapshot + 50
            });
            let mut total = 0i64;
            let mut worker = session.worker().unwrap();
            for unit in table_units(&session, 2) {
                let mut text = Vec::new();
                worker
                    .copy_out(&unit, |piece| {
                        text.extend_from_slice(piece);
                        Ok::<(), Infallible>(())
                    })
                    .unwrap();
                let rows = String::from_utf8(text).unwrap();
                total += rows
                    .lines()
                    .filter_map(|row| row.split_once('\t'))
                    .map(|(_, amount)| amount.parse::<i64>().unwrap())
                    .sum::<i64>();
                let seen = moves.load(Ordering::Relaxed);
                wait_until("money moves between units", || {
                    moves.load(Ordering::Relaxed) > seen + 5
                });
            }
            session.finish().unwrap();
            assert_eq!(total, 400_000);
        }
    });
}

/// Ends the threads of a scope also when the test fails, which would otherwise wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_truncate_at_the_start_cannot_hide() {
    // Truncating and refilling in one transaction: any dump sees 1000 rows, never none. A snapshot taken
    // before the lock could see the old, now empty file.
    let server = TestServer::shared();
    let database = server.database("truncate");
    let fill = "INSERT INTO t SELECT i FROM generate_series(1, 1000) i";
    database.sql(&format!(
        "CREATE TABLE t (a int); {fill}; CREATE TABLE u (a int)"
    ));
    let mut other = connect(&database.url());
    for round in 0..12u32 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Later in each round, to meet the dump at every step of its beginning.
                (0..round * 3).for_each(|_| drop(other.query("SELECT pg_backend_pid()").unwrap()));
                other
                    .execute(&format!("BEGIN; TRUNCATE t; {fill}; COMMIT"))
                    .unwrap();
            });
            let session = open(&database).unwrap();
            let rows: u64 = read_all(&session, SLICE, 1)
                .unwrap()
                .values()
                .map(RowCensus::rows)
                .sum();
            session.finish().unwrap();
            assert_eq!(rows, 1000);
        });
    }
}

#[test]
fn somebody_who_queues_for_a_table_does_not_stop_the_dump() {
    let server = TestServer::shared();
    let database = server.database("queue");
    database.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); CREATE TABLE u (a int)");
    let session = open(&database).unwrap();
    std::thread::scope(|scope| {
        let url = database.url();
        let alter = scope.spawn(move || connect(&url).execute("ALTER TABLE t ADD COLUMN b int"));
        wait_until("ALTER TABLE waits for the dump", || {
            database.value(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass",
            ) == "1"
        });
        let censuses = read_all(&session, SLICE, 2).unwrap();
        assert_eq!(
            censuses.values().map(|census| census.rows()).sum::<u64>(),
            2
        );
        session.finish().unwrap();
        alter.join().unwrap().unwrap();
    });
    assert_eq!(database.value("SELECT count(b) FROM t"), "0");
}

#[test]
fn a_lock_that_is_not_to_be_had_is_told_with_its_holder() {
    let server = TestServer::shared();
    let database = server.database("locked");
    database.sql("CREATE TABLE t (a int); CREATE TABLE \"U\" (a int)");
    let mut other = connect(&database.url());
    other
        .execute("SET application_name = 'the migration'; BEGIN; LOCK TABLE \"U\"")
        .unwrap();
    let options = DumpOptions {
        lock_timeout: Duration::from_millis(200),
        ..DumpOptions::default()
    };
    let started = Instant::now();
    let error = open_as(&database, &database.url(), &options).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20));
    let DumpError::LockTimeout { held, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(held.len(), 1, "{error}");
    assert_eq!(
        (held[0].table.name.as_str(), held[0].application.as_str()),
        ("U", "the migration")
    );
    assert_eq!(held[0].pid, other.backend_pid());
    other.execute("ROLLBACK").unwrap();
    open_as(&database, &database.url(), &options)
        .unwrap()
        .finish()
        .unwrap();
}

#[test]
fn an_owner_without_superuser_dumps_what_he_owns() {
    let server = TestServer::shared();
    let database = server.database("owned");
    let role = format!("owner_{}", database.name());
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN; ALTER DATABASE {} OWNER TO {role}; ALTER SCHEMA public OWNER TO {role};
         SET ROLE {role};
         CREATE TABLE t (a serial, b text); INSERT INTO t (b) VALUES ('x'), ('y');
         SELECT lo_from_bytea(0, 'owned');",
        database.name()
    ));
    let session = open_as(&database, &database.url_as(&role), &DumpOptions::default()).unwrap();
    assert!(
        matches!(session.globals(), Globals::WithoutPasswords { .. }),
        "{:?}",
        session.globals()
    );
    let globals = String::from_utf8_lossy(session.globals().sql().unwrap()).into_owned();
    assert!(
        globals.contains(&format!("CREATE ROLE {role}")),
        "{globals}"
    );
    assert!(session.roles().contains(&role), "{:?}", session.roles());
    assert!(session.snapshot().lsn.is_some());
    let rows: u64 = read_all(&session, SLICE, 2)
        .unwrap()
        .values()
        .map(|census| census.rows())
        .sum();
    assert_eq!(rows, 3, "two rows and a large object");
    session.finish().unwrap();

    // Another's table is not read over: all of them are named, before anything is read.
    database.sql("RESET ROLE; CREATE TABLE secret (a int); CREATE TABLE secret2 (a int); REVOKE ALL ON secret FROM PUBLIC");
    let error = open_as(&database, &database.url_as(&role), &DumpOptions::default()).unwrap_err();
    let DumpError::Unreadable { tables } = &error else {
        panic!("{error}")
    };
    assert_eq!(tables.len(), 2, "{error}");

    // Nor are rows that a policy hides.
    database.sql(&format!(
        "DROP TABLE secret, secret2; CREATE TABLE tenant (a int); GRANT SELECT ON tenant TO {role};
         ALTER TABLE tenant ENABLE ROW LEVEL SECURITY;"
    ));
    let error = open_as(&database, &database.url_as(&role), &DumpOptions::default()).unwrap_err();
    assert!(
        matches!(&error, DumpError::RowSecurity { tables } if tables[0].name == "tenant"),
        "{error}"
    );
    database.sql(&format!(
        "DROP TABLE tenant; REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"
    ));
}

#[test]
fn a_superuser_gets_passwords_too() {
    let server = TestServer::shared();
    let database = server.database("globals");
    let session = open(&database).unwrap();
    assert!(
        matches!(session.globals(), Globals::Whole { .. }),
        "{:?}",
        session.globals()
    );
    let skew = session
        .snapshot()
        .server_time
        .duration_since(session.snapshot().client_time);
    assert!(
        skew.abs() < jiff::SignedDuration::from_secs(2),
        "{:?}",
        session.snapshot()
    );
    session.finish().unwrap();
}

/// Runs one worker over a big table and does something to it in the middle.
fn disturbed(
    database: &TestDatabase<'_>,
    session: &DumpSession,
    disturb: impl FnOnce(),
) -> Result<(), CopyFailure<Infallible>> {
    let mut worker = session.worker().unwrap();
    let mut disturb = Some(disturb);
    for unit in table_units(session, 1 << 40) {
        worker.copy_out(&unit, |_| {
            if let Some(disturb) = disturb.take() {
                disturb();
            }
            Ok(())
        })?;
    }
    assert!(disturb.is_none(), "{} was read", database.name());
    Ok(())
}

fn huge_table(database: &TestDatabase<'_>) {
    // More than what sockets and buffers hold, so that the server is still sending when it is disturbed.
    database.sql("CREATE TABLE huge AS SELECT i, repeat(md5(i::text), 30) AS text FROM generate_series(1, 60000) i");
}

#[test]
fn a_worker_that_is_cut_off_is_an_error_with_the_table() {
    let server = TestServer::shared();
    let database = server.database("cut");
    huge_table(&database);
    let session = open(&database).unwrap();
    let result = disturbed(&database, &session, || {
        let ended = database.value(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
              WHERE datname = '{}' AND query LIKE 'COPY%'",
            database.name()
        ));
        assert_eq!(ended, "1");
    });
    let Err(CopyFailure::Dump(error)) = result else {
        panic!("{result:?}")
    };
    assert!(
        matches!(&error, DumpError::Table { table, .. } if table.name == "huge"),
        "{error}"
    );
}

#[test]
fn a_dump_whose_leader_died_is_not_one() {
    let server = TestServer::shared();
    let database = server.database("leader");
    huge_table(&database);
    let session = open(&database).unwrap();
    let leader = session.leader().backend_pid();
    disturbed(&database, &session, || {
        database.sql(&format!("SELECT pg_terminate_backend({leader})"));
    })
    .unwrap();
    wait_until("the leader's session is gone", || {
        database.value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {leader}"
        )) == "0"
    });
    assert!(matches!(
        session.worker(),
        Err(DumpError::SnapshotLost { .. })
    ));
    assert!(matches!(
        session.finish(),
        Err(DumpError::SnapshotLost { .. })
    ));
}

#[test]
fn an_interrupt_ends_a_dump_wherever_it_is() {
    let server = TestServer::shared();
    let database = server.database("interrupt");
    huge_table(&database);
    let interrupt = Arc::new(AtomicBool::new(false));
    let options = DumpOptions {
        interrupt: Arc::clone(&interrupt),
        ..DumpOptions::default()
    };

    let session = open_as(&database, &database.url(), &options).unwrap();
    let result = disturbed(&database, &session, || {
        interrupt.store(true, Ordering::Relaxed)
    });
    assert!(
        matches!(result, Err(CopyFailure::Dump(DumpError::Interrupted))),
        "{result:?}"
    );
    drop(session);

    let error = open_as(&database, &database.url(), &options).unwrap_err();
    assert!(matches!(error, DumpError::Interrupted), "{error}");

    // While it waits for a lock.
    interrupt.store(false, Ordering::Relaxed);
    let mut other = connect(&database.url());
    other.execute("BEGIN; LOCK TABLE huge").unwrap();
    let error = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| open_as(&database, &database.url(), &options).unwrap_err());
        wait_until("the dump waits for the lock", || {
            database.value(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'huge'::regclass",
            ) == "1"
        });
        interrupt.store(true, Ordering::Relaxed);
        waiting.join().unwrap()
    });
    assert!(matches!(error, DumpError::Interrupted), "{error}");
    drop(other);

    // Nothing of any of them is left on the server.
    wait_until("all sessions are gone", || {
        database.value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
            database.name()
        )) == "0"
    });
}

#[test]
fn a_sink_that_fails_ends_the_unit() {
    let server = TestServer::shared();
    let database = server.database("sink");
    huge_table(&database);
    let session = open(&database).unwrap();
    let unit = table_units(&session, 1 << 40).remove(0);
    let result = session
        .worker()
        .unwrap()
        .copy_out(&unit, |_| Err("disk full"));
    assert!(
        matches!(result, Err(CopyFailure::Sink("disk full"))),
        "{result:?}"
    );
    session.finish().unwrap();
}

#[test]
fn large_objects_of_all_sizes() {
    let server = TestServer::shared();
    let database = server.database("blobs");
    database.sql(
        "SELECT lo_create(100); SELECT lo_from_bytea(101, 'a'); SELECT lo_from_bytea(0, '\\x00ff0a5c2e0a'::bytea);
         SELECT lo_from_bytea(103, decode(repeat('00ff', 131072), 'hex'));
         SELECT lo_from_bytea(104, convert_to(repeat('x', 262145), 'UTF8'));
         SELECT lo_put(lo_create(105), 3000000, 'far behind a hole');
         SELECT lo_from_bytea(0, convert_to(i::text, 'UTF8')) FROM generate_series(1, 1200) i;",
    );
    let session = open(&database).unwrap();
    let units = session.plan(SLICE);
    assert!(
        units
            .iter()
            .filter(|unit| matches!(unit.work, UnitWork::LargeObjects { .. }))
            .count()
            >= 3
    );
    let dump = folder();
    let censuses = write_folder(&session, SLICE, dump.path());
    assert_eq!(
        censuses.values().map(|census| census.rows()).sum::<u64>(),
        1206
    );
    assert_eq!(fs::read(dump.path().join("blob_100.dat")).unwrap(), b"");
    assert_eq!(
        fs::read(dump.path().join("blob_103.dat")).unwrap(),
        [0u8, 255].repeat(131072)
    );
    let holed = fs::read(dump.path().join("blob_105.dat")).unwrap();
    assert_eq!(holed.len(), 3_000_017);
    assert!(holed[..3_000_000].iter().all(|byte| *byte == 0));
    session.finish().unwrap();

    let after = server.database("blobs_after");
    pg_restore(server, dump.path(), after.name(), &[]);
    let sums = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1";
    assert_eq!(database.sql(sums), after.sql(sums));
    assert_eq!(
        read_all(&open(&after).unwrap(), SLICE, 2)
            .unwrap()
            .values()
            .next(),
        censuses.values().next()
    );
}

#[test]
fn a_large_object_that_is_not_there() {
    let server = TestServer::shared();
    let database = server.database("noblob");
    let session = open(&database).unwrap();
    let result = session
        .worker()
        .unwrap()
        .large_object(424242, |_| Ok::<(), Infallible>(()));
    assert!(
        matches!(
            result,
            Err(CopyFailure::Dump(DumpError::LargeObject {
                oid: 424242,
                ..
            }))
        ),
        "{result:?}"
    );
}

#[test]
fn an_extensions_configuration_table_gives_the_users_rows_only() {
    let server = TestServer::shared();
    let database = server.database("extconfig");
    // Any extension that is there will do; a table is made its member and registered by hand.
    database.sql(
        "CREATE TABLE config (a int, standard bool); INSERT INTO config VALUES (1, true), (2, false), (3, false);
         ALTER EXTENSION plpgsql ADD TABLE config;
         UPDATE pg_extension SET extconfig = ARRAY['config'::regclass::oid],
                extcondition = ARRAY['WHERE NOT standard'] WHERE extname = 'plpgsql';
         CREATE TABLE member (a int); INSERT INTO member VALUES (1); ALTER EXTENSION plpgsql ADD TABLE member;",
    );
    let session = open(&database).unwrap();
    let censuses = read_all(&session, SLICE, 1).unwrap();
    assert_eq!(
        censuses
            .values()
            .map(|census| census.rows())
            .collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn another_encoding_than_utf8() {
    let server = TestServer::shared();
    let options = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    let before = server.database_with("latin", options);
    before.sql("CREATE TABLE \"größe\" (\"länge\" text); INSERT INTO \"größe\" VALUES ('Ärger'), ('naïve')");
    let session = open(&before).unwrap();
    let dump = folder();
    write_folder(&session, SLICE, dump.path());
    let after = server.database_with("latin_after", options);
    pg_restore(server, dump.path(), after.name(), &[]);
    let rows = "SELECT \"länge\" FROM \"größe\" ORDER BY 1";
    assert_eq!(before.sql(rows), after.sql(rows));
    assert!(after.sql(rows).contains("naïve"));
}

#[test]
fn tables_that_come_and_go_meanwhile() {
    let server = TestServer::shared();
    let database = server.database("churn");
    database.sql("CREATE TABLE stays (a int); INSERT INTO stays VALUES (1)");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = connect(&database.url());
            while !stop.load(Ordering::Relaxed) {
                connection
                    .execute(
                        "CREATE TABLE one (a int); ALTER TABLE one RENAME TO two; DROP TABLE two",
                    )
                    .unwrap();
            }
        });
        let _stop = StopOnDrop(&stop);
        for _ in 0..10 {
            match open(&database) {
                Ok(session) => {
                    let rows: u64 = read_all(&session, SLICE, 1)
                        .unwrap()
                        .values()
                        .map(|c| c.rows())
                        .sum();
                    assert_eq!(rows, 1);
                    session.finish().unwrap();
                }
                Err(DumpError::TablesKeepChanging { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn an_unreachable_server_and_a_wrong_database() {
    let server = TestServer::shared();
    let tools = dump_support::tools(server);
    let error = DumpSession::open(
        &info(&server.url("no such database")),
        &tools,
        &DumpOptions::default(),
    )
    .unwrap_err();
    assert!(
        matches!(&error, DumpError::Pg(error) if error.sqlstate() == Some("3D000")),
        "{error}"
    );
}
