//! Roles in the grants of `ACL` and `DEFAULT ACL` entries.
//!
//! Format: `buildACLCommands` and `buildDefaultACLCommands` in PostgreSQL's `dumputils.c`: one
//! statement a line, keywords in capitals, which an unquoted name never is:
//! `GRANT … TO role [WITH GRANT OPTION];`, `REVOKE … FROM role;`, `ALTER DEFAULT PRIVILEGES FOR
//! ROLE role …`, and `SET SESSION AUTHORIZATION role;` … `RESET SESSION AUTHORIZATION;` around
//! grants that somebody other than the owner gave.

use std::collections::BTreeSet;

use super::super::text::Text;
use super::super::toc::TocEntry;

/// The roles that an entry's grants mention. `PUBLIC` is no role.
pub(super) fn mentioned(entry: &TocEntry) -> BTreeSet<String> {
    let text = entry.defn.as_ref().map(Text::lossy).unwrap_or_default();
    statements(&text).flat_map(roles_of).collect()
}

/// The entry without the statements that mention one of `missing`, and those statements.
pub(super) fn without_roles(
    entry: &TocEntry,
    missing: &BTreeSet<String>,
) -> (Option<TocEntry>, Vec<String>) {
    let Some(text) = entry.defn.as_ref().and_then(|defn| defn.as_str()) else {
        return (Some(entry.clone()), Vec::new());
    };
    let mut kept = String::new();
    let mut dropped = Vec::new();
    // A session that cannot be switched takes the statements up to its end with it.
    let mut in_missing_session = false;
    for statement in statements(text) {
        let words = statement.trim();
        let drop = in_missing_session || roles_of(statement).any(|role| missing.contains(&role));
        if words.starts_with("SET SESSION AUTHORIZATION") {
            in_missing_session = drop;
        } else if words.starts_with("RESET SESSION AUTHORIZATION") {
            in_missing_session = false;
        } else if drop {
            dropped.push(words.to_owned());
        }
        if !drop {
            kept.push_str(statement);
        }
    }
    if dropped.is_empty() {
        return (Some(entry.clone()), dropped);
    }
    let anything_left = statements(&kept).any(|statement| roles_of(statement).next().is_some());
    let rest = (anything_left || kept.contains("PUBLIC")).then(|| TocEntry {
        defn: Some(kept.into()),
        ..entry.clone()
    });
    (rest, dropped)
}

/// The statements of a text, each with its semicolon and what white space comes before it.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut quote = None;
        let end = rest.char_indices().find(|(_, c)| {
            match quote {
                Some(open) if *c == open => quote = None,
                None if matches!(c, '"' | '\'') => quote = Some(*c),
                None => return *c == ';',
                Some(_) => {}
            }
            false
        });
        let length = end.map_or(rest.len(), |(at, _)| at + 1);
        let (statement, tail) = rest.split_at(length);
        rest = tail;
        Some(statement).filter(|statement| !statement.trim().is_empty())
    })
}

fn roles_of(statement: &str) -> impl Iterator<Item = String> {
    let words = words(statement);
    let mut found = Vec::new();
    // Only the last TO or FROM can introduce the grantee: earlier ones may be arguments' names.
    let grantee = words
        .iter()
        .rposition(|word| matches!(word, Word::Plain("TO" | "FROM")));
    let session = words
        .iter()
        .position(|word| *word == Word::Plain("AUTHORIZATION"));
    let default = words
        .windows(2)
        .position(|pair| pair == [Word::Plain("FOR"), Word::Plain("ROLE")])
        .map(|at| at + 1);
    for at in [grantee, session, default].into_iter().flatten() {
        match words.get(at + 1) {
            Some(Word::Quoted(name)) => found.push(name.clone()),
            Some(Word::Plain(name)) if *name != "PUBLIC" => found.push((*name).to_owned()),
            _ => {}
        }
    }
    found.into_iter()
}

#[derive(PartialEq)]
enum Word<'a> {
    Plain(&'a str),
    Quoted(String),
}

fn words(statement: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|c: char| !is_name(c) && c != '"');
        if rest.is_empty() {
            return words;
        }
        if let Some(inner) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut chars = inner.char_indices().peekable();
            let mut end = inner.len();
            while let Some((at, c)) = chars.next() {
                if c != '"' {
                    name.push(c);
                } else if chars.next_if(|(_, next)| *next == '"').is_some() {
                    name.push('"');
                } else {
                    end = at + 1;
                    break;
                }
            }
            words.push(Word::Quoted(name));
            rest = &inner[end..];
        } else {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            words.push(Word::Plain(&rest[..end]));
            rest = &rest[end..];
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::{roles_of, statements};

    #[test]
    fn roles_are_found_where_grants_put_them() {
        let cases: [(&str, &[&str]); 8] = [
            (
                "GRANT SELECT ON TABLE app.users TO \"sample reader\";",
                &["sample reader"],
            ),
            (
                "GRANT ALL ON FUNCTION app.f(\"FROM\" text) TO bob WITH GRANT OPTION;",
                &["bob"],
            ),
            (
                "REVOKE ALL ON TABLE \"TO\".\"x;y\" FROM \"a\"\"b\";",
                &["a\"b"],
            ),
            ("GRANT USAGE ON SCHEMA public TO PUBLIC;", &[]),
            ("GRANT USAGE ON SCHEMA public TO \"PUBLIC\";", &["PUBLIC"]),
            ("SET SESSION AUTHORIZATION carol;", &["carol"]),
            ("RESET SESSION AUTHORIZATION;", &[]),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE ann IN SCHEMA s GRANT SELECT ON TABLES TO ben;",
                &["ben", "ann"],
            ),
        ];
        for (statement, wanted) in cases {
            assert_eq!(
                roles_of(statement).collect::<Vec<_>>(),
                wanted,
                "{statement}"
            );
        }
    }

    #[test]
    fn statements_end_at_semicolons_outside_quotes() {
        let text = "GRANT ALL ON TABLE \"a;b\" TO x;\nREVOKE ALL ON TABLE c FROM \";\";\n";
        assert_eq!(
            statements(text).collect::<Vec<_>>(),
            [
                "GRANT ALL ON TABLE \"a;b\" TO x;",
                "\nREVOKE ALL ON TABLE c FROM \";\";"
            ]
        );
    }
}
