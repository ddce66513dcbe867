//! Facts of a real server, as its superuser and as somebody who may do nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod wire_support;

use lifeboat_pg::server::LocaleProvider;
use lifeboat_pg::{ServerFacts, Tool, ToolFinder, Wanted};
use lifeboat_testkit::TestServer;
use wire_support::connect;

#[test]
fn the_superuser_sees_everything() {
    let server = TestServer::shared();
    let database = server.database("facts");
    database.sql("CREATE EXTENSION pgcrypto");
    let mut connection = connect(&database.url()).unwrap();
    let before = jiff::Timestamp::now();
    let facts = ServerFacts::gather(&mut connection).unwrap();
    assert_eq!(facts.version.major(), server.major());
    assert!(facts.version.text.starts_with(&facts.version.to_string()));
    assert!(facts.system_identifier.is_some_and(|id| id > 0));
    assert!(!facts.in_recovery && !facts.is_read_only);
    assert!(facts.server_time >= before && facts.server_time <= jiff::Timestamp::now());
    assert!(facts.started_at.unwrap() < facts.server_time);
    assert!(facts.role.is_superuser && facts.role.sees_role_passwords);
    // pg_read_all_data came with 14.
    assert_eq!(facts.role.reads_all_data, server.major() >= 14);
    assert_eq!(facts.database.name, database.name());
    assert!(facts.database.size_bytes.unwrap() > 1_000_000);
    assert_eq!(facts.database.collation.encoding, "UTF8");
    assert_eq!(facts.database.collation.provider, LocaleProvider::Libc);
    assert_eq!(facts.database.connection_limit, None);
    let names: Vec<_> = facts
        .database
        .extensions
        .iter()
        .map(|e| e.name.as_str())
        .collect();
    assert_eq!(names, ["pgcrypto", "plpgsql"]);
    assert!(facts.connections.in_use >= 1 && facts.connections.limit > facts.connections.reserved);
    assert_eq!(facts.setting("server_encoding"), Some("UTF8"));
    assert_eq!(facts.setting("block_size"), Some("8192"));
    assert!(facts.setting("data_directory").is_some());
}

#[test]
fn an_ordinary_owner_gathers_without_an_error_even_in_a_transaction() {
    let server = TestServer::shared();
    let database = server.database("facts");
    let role = format!("owner_of_{}", database.name());
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN; ALTER DATABASE {} OWNER TO {role}",
        database.name()
    ));
    let mut connection = connect(&database.url_as(&role)).unwrap();
    connection
        .execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .unwrap();
    let facts = ServerFacts::gather(&mut connection).unwrap();
    assert_eq!(facts.role.name, role);
    assert!(!facts.role.is_superuser && !facts.role.sees_role_passwords);
    assert!(facts.database.is_ours);
    assert_eq!(facts.database.owner, role);
    assert!(facts.database.size_bytes.is_some());
    assert_eq!(facts.setting("data_directory"), None);
    connection.execute("COMMIT").unwrap();
    drop(connection);

    let stranger = format!("stranger_to_{}", database.name());
    database.sql(&format!("CREATE ROLE {stranger} LOGIN CONNECTION LIMIT 3"));
    let facts = ServerFacts::gather(&mut connect(&database.url_as(&stranger)).unwrap()).unwrap();
    assert!(!facts.database.is_ours);
    database.sql(&format!(
        "ALTER DATABASE {} OWNER TO CURRENT_USER; DROP ROLE {role}, {stranger}",
        database.name()
    ));
}

#[test]
fn the_installed_tools_are_found_for_the_server() {
    let server = TestServer::shared();
    let finder = ToolFinder::new(Some(lifeboat_testkit::search_path()));
    let tools = finder.find(
        &[Tool::PgDump, Tool::PgRestore],
        Wanted::AtLeast(server.major()),
    );
    let tools = match tools {
        Ok(tools) => tools,
        // The matrix's servers live where only the tests know.
        Err(_) => {
            let finder = ToolFinder {
                bin_dir: Some(server.bin_dir().to_owned()),
                ..finder
            };
            finder
                .find(&[Tool::Postgres], Wanted::Exactly(server.major()))
                .unwrap()
        }
    };
    assert!(tools.major() >= server.major());
    let finder = ToolFinder::new(Some(lifeboat_testkit::search_path()));
    assert!(finder.find(&[Tool::PgDump], Wanted::AtLeast(99)).is_err());
}
