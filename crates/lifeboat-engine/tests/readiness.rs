//! What a role cannot read is named, and nothing else.

#![expect(clippy::expect_used, reason = "a failed setup is a failed test")]

use lifeboat_engine::readiness::Unreadable;
use lifeboat_pg::{ConnInfo, ConnectOptions, Connection};
use lifeboat_testkit::TestServer;

fn unreadable(url: &str) -> Unreadable {
    let conninfo = ConnInfo::parse(url, &|_: &str| None::<String>).expect("a good URL");
    let mut connection =
        Connection::connect(&conninfo, &ConnectOptions::default()).expect("a server");
    Unreadable::gather(&mut connection).expect("answers")
}

#[test]
fn everything_a_role_cannot_read_is_named() {
    let server = TestServer::shared();
    let database = server.database("readiness");
    database.sql(
        "CREATE ROLE readiness_reader LOGIN;
         CREATE SCHEMA hidden;
         CREATE TABLE hidden.secret (x int);
         GRANT SELECT ON hidden.secret TO readiness_reader;
         CREATE TABLE open (x int);
         GRANT SELECT ON open TO readiness_reader;
         CREATE TABLE \"Shut Table\" (id serial);
         CREATE TABLE rls (x int);
         ALTER TABLE rls ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON rls TO readiness_reader;
         SELECT lo_create(0);
         SELECT lo_create(4711);
         GRANT SELECT ON LARGE OBJECT 4711 TO readiness_reader;",
    );
    assert!(unreadable(&database.url()).is_empty());
    let found = unreadable(&database.url_as("readiness_reader"));
    database.sql("DROP OWNED BY readiness_reader; DROP ROLE readiness_reader");
    assert_eq!(
        found,
        Unreadable {
            tables: vec!["hidden.secret".to_owned(), "public.Shut Table".to_owned()],
            sequences: vec!["public.Shut Table_id_seq".to_owned()],
            row_security: vec!["public.rls".to_owned()],
            large_objects: 1,
        }
    );
}
