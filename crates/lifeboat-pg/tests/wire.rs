//! Sessions with a real server over its Unix socket: queries, COPY both ways, cancelling, and what
//! happens when either side goes away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod wire_support;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use lifeboat_pg::instance::StopMode;
use lifeboat_pg::{CopyOutError, PgError, quote_ident, quote_literal};
use lifeboat_testkit::TestServer;
use wire_support::{connect, connect_watched, info, wait_until};

#[test]
fn queries_give_text_null_and_counts() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    let rows = connection
        .query("SELECT 1 AS one, NULL AS nothing, '' AS empty, 'grüße' AS word UNION ALL SELECT 2, 'x', 'y', NULL")
        .unwrap();
    assert_eq!(rows.columns(), ["one", "nothing", "empty", "word"]);
    assert_eq!(rows.len(), 2);
    let first = rows.first().unwrap();
    assert_eq!(first.get("one"), Some("1"));
    assert_eq!(first.get("nothing"), None);
    assert_eq!(first.get("empty"), Some(""));
    assert_eq!(first.get("word"), Some("grüße"));
    assert_eq!(first.get("no such column"), None);
    let second: Vec<_> = (0..4)
        .map(|column| rows.row(1).unwrap().at(column))
        .collect();
    assert_eq!(second, [Some("2"), Some("x"), Some("y"), None]);
    assert_eq!(first.parse::<i64>("one").unwrap(), 1);
    assert!(matches!(
        first.value("nothing"),
        Err(PgError::Column { .. })
    ));

    assert_eq!(connection.execute("CREATE TABLE t (a int)").unwrap(), 0);
    assert_eq!(
        connection
            .execute("INSERT INTO t SELECT generate_series(1, 7)")
            .unwrap(),
        7
    );
    assert_eq!(connection.execute("").unwrap(), 0);
    assert!(connection.query("SELECT").unwrap().columns().is_empty());
    assert!(connection.parameter("server_version").is_some());
    assert_eq!(
        connection
            .query("SELECT pg_backend_pid() AS pid")
            .unwrap()
            .value("pid")
            .unwrap(),
        connection.backend_pid().to_string()
    );
}

#[test]
fn a_server_error_carries_its_facts_and_the_session_lives_on() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    let error = connection.query("SELECT * FROM missing").unwrap_err();
    assert_eq!(error.sqlstate(), Some("42P01"));
    assert_eq!(error.server().unwrap().severity, "ERROR");
    connection
        .execute("CREATE TABLE t (a int CONSTRAINT positive CHECK (a > 0))")
        .unwrap();
    let error = connection.execute("INSERT INTO t VALUES (0)").unwrap_err();
    let server = error.server().unwrap();
    assert_eq!(server.constraint.as_deref(), Some("positive"));
    assert_eq!(server.table.as_deref(), Some("t"));
    connection.execute("BEGIN").unwrap();
    assert!(connection.in_transaction());
    assert!(connection.execute("SELECT 1/0").is_err());
    assert!(connection.in_transaction());
    connection.execute("ROLLBACK").unwrap();
    assert!(!connection.in_transaction());
    connection
        .execute("DO $$ BEGIN RAISE WARNING 'look here'; END $$")
        .unwrap();
    assert_eq!(connection.notices()[0].message, "look here");
}

#[test]
fn quoting_survives_the_server() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    for word in ["plain", "it's", "a\\b", "\"quoted\"", "ünï", "x\\'; DROP"] {
        for setting in ["on", "off"] {
            connection
                .execute(&format!("SET standard_conforming_strings = {setting}"))
                .unwrap();
            let sql = format!("SELECT {} AS {}", quote_literal(word), quote_ident(word));
            let rows = connection.query(&sql).unwrap();
            assert_eq!(rows.columns(), [word]);
            assert_eq!(rows.value(word).unwrap(), word);
        }
    }
}

#[test]
fn copy_out_gives_each_row_once_also_a_huge_one() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    connection
        .execute("CREATE TABLE t AS SELECT g AS id, repeat('x', g % 500) AS pad FROM generate_series(1, 20000) g")
        .unwrap();
    // Larger than the read buffer by far, between small ones.
    connection
        .execute("INSERT INTO t VALUES (20001, repeat('y', 40000000)), (20002, 'z')")
        .unwrap();
    let mut expected = 0;
    let mut longest = 0;
    let rows = connection
        .copy_out("COPY (SELECT * FROM t ORDER BY id) TO STDOUT", |row| {
            expected += 1;
            let text = std::str::from_utf8(row).map_err(|_| "not text")?;
            let (id, rest) = text.split_once('\t').ok_or("no tab")?;
            assert_eq!(id, expected.to_string());
            assert!(rest.ends_with('\n'));
            longest = longest.max(row.len());
            Ok::<(), &str>(())
        })
        .unwrap();
    assert_eq!((rows, expected), (20002, 20002));
    assert_eq!(longest, 40_000_000 + "20001\t\n".len());
    // And the session is ready for the next.
    assert_eq!(
        connection
            .copy_out("COPY (SELECT 1 WHERE false) TO STDOUT", |_| Ok::<_, ()>(()))
            .unwrap(),
        0
    );
}

#[test]
fn copy_out_failing_midway_is_an_error_with_the_rows_before_it() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    let mut seen = 0;
    let result = connection.copy_out(
        "COPY (SELECT 1 / (1000 - g) FROM generate_series(1, 5000) g) TO STDOUT",
        |_| {
            seen += 1;
            Ok::<(), ()>(())
        },
    );
    let Err(CopyOutError::Pg(error)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(error.sqlstate(), Some("22012"));
    assert_eq!(seen, 999);
    assert_eq!(connection.query("SELECT 1 AS a").unwrap().len(), 1);
    let refused = connection.copy_out("COPY missing TO STDOUT", |_| Ok::<(), ()>(()));
    assert!(matches!(refused, Err(CopyOutError::Pg(PgError::Server(_)))));
    let not_a_copy = connection.copy_out("SELECT 1", |_| Ok::<(), ()>(()));
    assert!(matches!(
        not_a_copy,
        Err(CopyOutError::Pg(PgError::Protocol(_)))
    ));
    assert!(matches!(connection.query("SELECT 1"), Err(PgError::Closed)));
}

#[test]
fn a_sink_that_fails_stops_the_server_too() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    let pid = connection.backend_pid();
    let endless = "COPY (SELECT generate_series(1, 1000000000)) TO STDOUT";
    let result = connection.copy_out(endless, |_| Err("full"));
    assert!(matches!(result, Err(CopyOutError::Sink("full"))));
    assert!(matches!(connection.query("SELECT 1"), Err(PgError::Closed)));
    drop(connection);
    wait_until("the server has noticed", || {
        database.value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
        )) == "0"
    });
}

#[test]
fn copy_in_stores_rows_in_any_pieces() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    connection
        .execute("CREATE TABLE t (id int, pad text)")
        .unwrap();
    let mut data = Vec::new();
    for id in 0..30_000 {
        data.extend_from_slice(format!("{id}\t{}\n", "p".repeat(id % 300)).as_bytes());
    }
    for piece in [7, 1000, 70_000, 3_000_000] {
        connection.execute("TRUNCATE t").unwrap();
        let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
        for chunk in data.chunks(piece) {
            copy.write(chunk).unwrap();
        }
        assert_eq!(copy.finish().unwrap(), 30_000, "pieces of {piece}");
    }
    let sum = connection
        .query("SELECT sum(id) AS s, sum(length(pad)) AS l FROM t")
        .unwrap();
    assert_eq!(
        sum.value("s").unwrap(),
        (0..30_000u64).sum::<u64>().to_string()
    );
    assert_eq!(
        sum.value("l").unwrap(),
        (0..30_000u64).map(|id| id % 300).sum::<u64>().to_string()
    );
}

#[test]
fn copy_in_given_up_or_dropped_leaves_nothing() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    connection.execute("CREATE TABLE t (id int)").unwrap();
    let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
    copy.write(b"1\n2\n").unwrap();
    copy.abort("enough").unwrap();
    let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
    copy.write(b"1\n2\n").unwrap();
    drop(copy);
    assert_eq!(
        connection
            .query("SELECT count(*) AS n FROM t")
            .unwrap()
            .value("n")
            .unwrap(),
        "0"
    );
}

#[test]
fn copy_in_notices_a_bad_row_long_before_the_end() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    connection.execute("CREATE TABLE t (id int)").unwrap();
    let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
    copy.write(b"not a number\n").unwrap();
    let block = b"1\n".repeat(32 * 1024);
    let mut sent = 0_u64;
    let error = loop {
        match copy.write(&block) {
            Ok(()) => sent += block.len() as u64,
            Err(error) => break error,
        }
        assert!(sent < 1 << 30, "a gigabyte was sent after the error");
    };
    assert_eq!(error.sqlstate(), Some("22P02"));
    assert!(matches!(copy.finish(), Err(PgError::Closed)));
    assert_eq!(
        connection
            .query("SELECT count(*) AS n FROM t")
            .unwrap()
            .value("n")
            .unwrap(),
        "0"
    );
    // An error that only shows at the end.
    let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
    copy.write(b"1\nx\n").unwrap();
    assert_eq!(copy.finish().unwrap_err().sqlstate(), Some("22P02"));
}

#[test]
fn an_interrupt_ends_a_waiting_query_and_the_server_stops_working() {
    let database = TestServer::shared().database("wire");
    let (mut connection, interrupt) = connect_watched(&database.url());
    let pid = connection.backend_pid();
    let waiter = thread::spawn(move || {
        let result = connection.query("SELECT pg_sleep(600)");
        (result.map(|_| ()), connection.query("SELECT 1").map(|_| ()))
    });
    wait_until("the query runs", || {
        database.value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
        )) == "1"
    });
    let started = Instant::now();
    interrupt.store(true, Ordering::Relaxed);
    let (result, after) = waiter.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(result, Err(PgError::Interrupted)), "{result:?}");
    assert!(matches!(after, Err(PgError::Closed)));
    wait_until("the server has stopped", || {
        database.value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
        )) == "0"
    });
}

#[test]
fn an_interrupt_ends_a_running_copy_and_a_blocked_load() {
    let database = TestServer::shared().database("wire");
    database.sql("CREATE TABLE t (a int)");
    let (mut connection, interrupt) = connect_watched(&database.url());
    let endless = "COPY (SELECT generate_series(1, 1000000000)) TO STDOUT";
    let result = connection.copy_out(endless, |_| {
        interrupt.store(true, Ordering::Relaxed);
        Ok::<(), ()>(())
    });
    assert!(matches!(
        result,
        Err(CopyOutError::Pg(PgError::Interrupted))
    ));

    // A trigger that sleeps makes the server stop reading; the socket then fills up.
    database.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END';
         CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    let (mut connection, interrupt) = connect_watched(&database.url());
    let loader = thread::spawn(move || {
        let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
        let block = b"1\n".repeat(64 * 1024);
        loop {
            if let Err(error) = copy.write(&block) {
                return error;
            }
        }
    });
    wait_until("the server sleeps", || {
        database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()") == "1"
    });
    interrupt.store(true, Ordering::Relaxed);
    assert!(matches!(loader.join().unwrap(), PgError::Interrupted));
}

#[test]
fn a_cancel_from_another_thread_fails_the_statement_alone() {
    let database = TestServer::shared().database("wire");
    let mut connection = connect(&database.url()).unwrap();
    let handle = connection.cancel_handle();
    let pid = connection.backend_pid();
    let waiter = thread::spawn(move || {
        let error = connection.query("SELECT pg_sleep(600)").unwrap_err();
        (
            error,
            connection.query("SELECT 1 AS a").map(|rows| rows.len()),
        )
    });
    wait_until("the query runs", || {
        database.value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
        )) == "1"
    });
    handle.cancel().unwrap();
    let (error, after) = waiter.join().unwrap();
    assert_eq!(error.sqlstate(), Some("57014"));
    assert_eq!(after.unwrap(), 1);
    handle
        .cancel()
        .expect("a cancel of a session that is gone does no harm");
}

#[test]
fn a_server_that_goes_away_midway_is_told_from_the_end_of_the_rows() {
    for mode in [StopMode::Fast, StopMode::Immediate] {
        let mut server = TestServer::start();
        let mut connection = connect(&server.url("postgres")).unwrap();
        let endless = "COPY (SELECT generate_series(1, 1000000000)) TO STDOUT";
        let mut first = true;
        let result = connection.copy_out(endless, |_| {
            if std::mem::take(&mut first) {
                server.halt(mode);
            }
            Ok::<(), ()>(())
        });
        let Err(CopyOutError::Pg(error)) = result else {
            panic!("{result:?}")
        };
        match &error {
            PgError::Lost(_) => {}
            PgError::Server(error) => assert!(error.code.as_str().starts_with("57P0"), "{error}"),
            other => panic!("{other}"),
        }
        assert!(matches!(connection.query("SELECT 1"), Err(PgError::Closed)));
    }
}

#[test]
fn refusals_name_the_place_and_carry_the_sqlstate() {
    let server = TestServer::shared();
    let url = server.url("no_such_database");
    assert_eq!(connect(&url).unwrap_err().sqlstate(), Some("3D000"));
    let url = server.url_as("no_such_role", "postgres");
    assert_eq!(connect(&url).unwrap_err().sqlstate(), Some("28000"));

    let socket = format!(
        "host={} port=1 user=x",
        server.scratch().socket_dir().display()
    );
    let error = connect(&socket).unwrap_err();
    assert!(matches!(error, PgError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(".s.PGSQL.1"), "{error}");
}

#[test]
fn application_name_options_and_database_arrive() {
    let database = TestServer::shared().database("wire");
    let url = format!("{}&options=-c%20work_mem%3D7MB", database.url());
    let info = info(&url).with_application_name("lifeboat test");
    let mut connection =
        lifeboat_pg::Connection::connect(&info, &lifeboat_pg::ConnectOptions::default()).unwrap();
    let rows = connection
        .query("SELECT current_setting('application_name') AS a, current_setting('work_mem') AS w, current_database() AS d")
        .unwrap();
    assert_eq!(rows.value("a").unwrap(), "lifeboat test");
    assert_eq!(rows.value("w").unwrap(), "7MB");
    assert_eq!(rows.value("d").unwrap(), database.name());
}
