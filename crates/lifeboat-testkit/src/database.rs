//! A database for one test.

use crate::server::TestServer;
use crate::sql;

/// A database of its own, dropped at the end, also after a panic, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase<'a> {
    server: &'a TestServer,
    name: String,
}

impl<'a> TestDatabase<'a> {
    pub(crate) fn create(server: &'a TestServer, name: &str, options: &str) -> TestDatabase<'a> {
        let name = format!("{name}_{}", unique());
        sql::run(
            server,
            "postgres",
            &format!("CREATE DATABASE {} {options}", quote(&name)),
        )
        .expect("CREATE DATABASE");
        TestDatabase { server, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its server.
    pub fn server(&self) -> &'a TestServer {
        self.server
    }

    /// A connection URI for it, as the superuser. Holds no secret.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The same as another role.
    pub fn url_as(&self, role: &str) -> String {
        self.server.url_as(role, &self.name)
    }

    /// Runs SQL (several statements are fine) as the superuser. Returns rows as lines, columns separated
    /// by `|`, NULL as nothing. Panics with the server's words if a statement fails.
    pub fn sql(&self, sql: &str) -> String {
        match sql::run(self.server, &self.name, sql) {
            Ok(rows) => rows,
            Err(words) => panic!("{words}\nin: {sql}"),
        }
    }

    /// As [`TestDatabase::sql`], with a failure returned as the server's words.
    ///
    /// # Errors
    /// The first statement that fails.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        sql::run(self.server, &self.name, sql)
    }

    /// A query's only value.
    pub fn value(&self, query: &str) -> String {
        self.sql(query).trim_end_matches('\n').to_owned()
    }
}

impl Drop for TestDatabase<'_> {
    fn drop(&mut self) {
        // FORCE, from 13 on: a test that failed may have left its connections open. A server that the test
        // itself has stopped takes the database with it.
        let _ = sql::run(
            self.server,
            "postgres",
            &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(&self.name)),
        );
    }
}

/// Names that no other test, process or run has.
pub(crate) fn unique() -> String {
    let mut bytes = [0u8; 5];
    getrandom::fill(&mut bytes).expect("random bytes");
    hex::encode(bytes)
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
