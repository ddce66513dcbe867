//! The COPY statement of a `TABLE DATA` entry, taken apart.
//!
//! Format: `dumpTableData` and `fmtCopyColumnList` in PostgreSQL's `pg_dump.c`:
//! `COPY schema.table (a, "B c") FROM stdin;`, without a list for a table that has no column to
//! copy.

use super::error::ArchiveError;
use super::toc::TocEntry;

/// What a `TABLE DATA` entry copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTarget {
    /// The table as SQL, quoted where needed: `public."Meme"`.
    pub relation: String,
    /// The schema's name, not quoted; `None` if the statement names none.
    pub schema: Option<String>,
    /// The table's name, not quoted.
    pub table: String,
    /// The columns as SQL, quoted where needed, in the order of the data. Generated columns are
    /// not among them. Empty for a table without columns.
    pub columns: Vec<String>,
}

impl CopyTarget {
    /// The columns as a select list: `a, "B c"`; empty for a table without columns.
    #[must_use]
    pub fn select_list(&self) -> String {
        self.columns.join(", ")
    }

    /// What the columns are called, not quoted.
    #[must_use]
    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|column| unquote(column)).collect()
    }

    /// `COPY table (columns) TO STDOUT`.
    #[must_use]
    pub fn copy_to(&self) -> String {
        format!("COPY {} TO STDOUT", self.relation_with_columns())
    }

    /// `COPY table (columns) FROM STDIN`.
    #[must_use]
    pub fn copy_from(&self) -> String {
        format!("COPY {} FROM STDIN", self.relation_with_columns())
    }

    fn relation_with_columns(&self) -> String {
        // "()" is no valid column list: no list means all columns, of which there are none.
        if self.columns.is_empty() {
            return self.relation.clone();
        }
        format!("{} ({})", self.relation, self.select_list())
    }

    /// Takes the statement apart; `None` if it is not one that pg_dump writes.
    #[must_use]
    pub fn parse(statement: &str) -> Option<Self> {
        let mut rest = Cursor(statement);
        rest.keyword("COPY")?;
        let (first_sql, first) = rest.identifier()?;
        let (relation, schema, table) = if rest.symbol('.') {
            let (second_sql, second) = rest.identifier()?;
            (format!("{first_sql}.{second_sql}"), Some(first), second)
        } else {
            (first_sql.to_owned(), None, first)
        };
        let mut columns = Vec::new();
        if rest.symbol('(') {
            loop {
                columns.push(rest.identifier()?.0.to_owned());
                if rest.symbol(')') {
                    break;
                }
                rest.symbol(',').then_some(())?;
            }
        }
        if rest.keyword("WITH").is_some() {
            // PostgreSQL 11 and older: tables with OIDs put them before the columns.
            rest.keyword("OIDS")?;
        }
        rest.keyword("FROM")?;
        rest.keyword("stdin")?;
        rest.symbol(';').then_some(())?;
        rest.0.trim().is_empty().then_some(Self {
            relation,
            schema,
            table,
            columns,
        })
    }
}

impl TocEntry {
    /// What the entry's COPY statement copies. `None` for an entry without one (no `TABLE DATA`,
    /// or dumped with `--inserts`).
    ///
    /// # Errors
    /// [`ArchiveError::CopyStatement`] if the statement is not what pg_dump writes, or not UTF-8.
    pub fn copy_columns(&self) -> Result<Option<CopyTarget>, ArchiveError> {
        let Some(statement) = self.copy_stmt.as_ref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let target = statement.as_str().and_then(CopyTarget::parse);
        target.map(Some).ok_or_else(|| ArchiveError::CopyStatement {
            description: self.describe(),
            statement: statement.lossy().chars().take(200).collect(),
        })
    }
}

/// What a column as SQL (`a`, `"B ""c"""`) is called.
fn unquote(column: &str) -> String {
    match column
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\"\"", "\""),
        None => column.to_owned(),
    }
}

/// What is left of a statement.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn keyword(&mut self, word: &str) -> Option<()> {
        let text = self.0.trim_start();
        let head = text.get(..word.len())?;
        let tail = &text[word.len()..];
        let ends = !tail.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if !head.eq_ignore_ascii_case(word) || !ends {
            return None;
        }
        self.0 = tail;
        Some(())
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let rest = self.0.trim_start().strip_prefix(symbol);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// An identifier as it is written, and what it means.
    fn identifier(&mut self) -> Option<(&'a str, String)> {
        let text = self.0.trim_start();
        let (length, meaning) = if text.starts_with('"') {
            quoted(text)?
        } else {
            let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
            let end = end.unwrap_or(text.len());
            (end, text[..end].to_lowercase())
        };
        if meaning.is_empty() {
            return None;
        }
        self.0 = &text[length..];
        Some((&text[..length], meaning))
    }
}

/// The length in bytes of the quoted identifier that `text` starts with, and its meaning.
fn quoted(text: &str) -> Option<(usize, String)> {
    let mut meaning = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            meaning.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            meaning.push('"');
        } else {
            return Some((at + 1, meaning));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::CopyTarget;

    fn parse(statement: &str) -> Option<(Option<String>, String, String)> {
        let target = CopyTarget::parse(statement)?;
        Some((
            target.schema.clone(),
            target.table.clone(),
            target.copy_to(),
        ))
    }

    #[test]
    fn statements_as_pg_dump_writes_them() {
        let cases = [
            (
                "COPY public.users (id, name) FROM stdin;\n",
                Some("public"),
                "users",
                "COPY public.users (id, name) TO STDOUT",
            ),
            (
                "COPY \"Odd.Schema\".\"a \"\"b\"\" (c)\" (\"x, y\", \"\"\"\") FROM stdin;\n",
                Some("Odd.Schema"),
                "a \"b\" (c)",
                "COPY \"Odd.Schema\".\"a \"\"b\"\" (c)\" (\"x, y\", \"\"\"\") TO STDOUT",
            ),
            (
                "COPY public.bare  FROM stdin;\n",
                Some("public"),
                "bare",
                "COPY public.bare TO STDOUT",
            ),
            (
                "COPY old (a) FROM stdin;\n",
                None,
                "old",
                "COPY old (a) TO STDOUT",
            ),
            (
                "COPY public.\"größe\" (\"from\") WITH OIDS FROM stdin;\n",
                Some("public"),
                "größe",
                "COPY public.\"größe\" (\"from\") TO STDOUT",
            ),
            (
                "COPY s.\"from\" (a$1) FROM stdin;",
                Some("s"),
                "from",
                "COPY s.\"from\" (a$1) TO STDOUT",
            ),
        ];
        for (statement, schema, table, copy_to) in cases {
            let wanted = (
                schema.map(str::to_owned),
                table.to_owned(),
                copy_to.to_owned(),
            );
            assert_eq!(parse(statement), Some(wanted), "{statement}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for statement in [
            "",
            "COPY",
            "COPY public.users",
            "COPY public.users () FROM stdin;",
            "COPY public.users (a b) FROM stdin;",
            "COPY public.users (a FROM stdin;",
            "COPY public.\"users (a) FROM stdin;",
            "COPY public.users (a) FROM stdin; DROP TABLE x;",
            "COPY public.users (a) TO stdout;",
            "COPYpublic.users (a) FROM stdin;",
            "COPY (SELECT 1) FROM stdin;",
        ] {
            assert_eq!(parse(statement), None, "{statement}");
        }
    }
}
