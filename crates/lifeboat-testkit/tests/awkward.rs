//! The awkward database against stock tools: if they cannot carry it unchanged, it judges nobody.

#![allow(clippy::expect_used, reason = "tests say what they expected and stop")]

use std::process::Command;

use lifeboat_testkit::{TestServer, awkward};

#[test]
fn stock_tools_carry_it_unchanged() {
    let server = TestServer::shared();
    let before = awkward::load(server);
    awkward::load_many(&before);
    let after = server.database_with("awkward_after", "TEMPLATE template0 ENCODING 'UTF8'");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let dump = folder.path().join("dump");
    run(
        server,
        before.name(),
        "pg_dump",
        &["-Fc", "-Z0", "-f", &dump.to_string_lossy()],
    );
    run(
        server,
        after.name(),
        "pg_restore",
        &["-j2", "-d", after.name(), &dump.to_string_lossy()],
    );

    let was = awkward::fingerprint(server, before.name());
    let is = awkward::fingerprint(server, after.name());
    assert_eq!(was.differences(&is), Vec::<String>::new());
    assert!(was.rows.len() > 2060, "{} tables", was.rows.len());
    assert_eq!(was.large_objects.len(), 1010);
    assert!(was.database.contains("a database's comment"));
}

#[test]
fn every_kind_of_change_is_seen() {
    let server = TestServer::shared();
    let database = awkward::load(server);
    let before = awkward::fingerprint(server, database.name());
    for (change, seen) in [
        (
            "UPDATE churned SET padding = padding || ' ' WHERE id = 4999",
            "rows of \"public.churned\"",
        ),
        (
            "INSERT INTO nothing DEFAULT VALUES",
            "rows of \"public.nothing\"",
        ),
        ("SELECT nextval('advanced')", "sequence \"public.advanced\""),
        (
            "SELECT lo_put(70003, 599999, '\\xfe')",
            "large object 70003",
        ),
        (
            "REVOKE SELECT ON LARGE OBJECT 70001 FROM lifeboat_awkward_reader",
            "large object 70001",
        ),
        (
            "REVOKE SELECT ON customers FROM lifeboat_awkward_reader",
            "schema - GRANT SELECT,DELETE ON TABLE public.customers",
        ),
        (
            "COMMENT ON COLUMN customers.name IS NULL",
            "schema - COMMENT ON COLUMN public.customers.name",
        ),
    ] {
        database.sql(change);
        let differences = before.differences(&awkward::fingerprint(server, database.name()));
        assert!(
            differences.iter().any(|line| line.starts_with(seen)),
            "{change}: {differences:?}"
        );
    }
}

fn run(server: &TestServer, database: &str, tool: &str, arguments: &[&str]) {
    let output = Command::new(server.bin_dir().join(tool))
        .args(arguments)
        .envs(server.tool_env(database))
        .output()
        .expect("the tool runs");
    assert!(
        output.status.success(),
        "{tool}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
