//! Names of tables as people type them for `--table`.

/// A table's name as `pg_dump --table` and `pg_restore --table` take it.
///
/// `name` or `schema.name`; `*` stands for any letters and `?` for one; letters outside double
/// quotes are folded to lower case, and in double quotes nothing has a special meaning. A name
/// that is there exactly as it was typed wins over all of that, as in `pg_restore`, so that
/// neither `Users` nor a table that is called `a.b*` need quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    typed: String,
    schema: Option<Vec<Piece>>,
    name: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Letter(char),
    AnyLetter,
    AnyLetters,
}

impl TablePattern {
    /// Reads a pattern. Every text is one.
    #[must_use]
    pub fn new(typed: &str) -> Self {
        let mut parts = vec![Vec::new()];
        let mut quoted = false;
        let mut letters = typed.chars().peekable();
        while let Some(letter) = letters.next() {
            let piece = match letter {
                '"' if quoted && letters.next_if_eq(&'"').is_some() => Piece::Letter('"'),
                '"' => {
                    quoted = !quoted;
                    continue;
                }
                '.' if !quoted && parts.len() == 1 => {
                    parts.push(Vec::new());
                    continue;
                }
                '*' if !quoted => Piece::AnyLetters,
                '?' if !quoted => Piece::AnyLetter,
                letter if quoted => Piece::Letter(letter),
                letter => Piece::Letter(letter.to_lowercase().next().unwrap_or(letter)),
            };
            if let Some(part) = parts.last_mut() {
                part.push(piece);
            }
        }
        let name = parts.pop().unwrap_or_default();
        Self {
            typed: typed.to_owned(),
            schema: parts.pop(),
            name,
        }
    }

    /// The pattern as it was typed.
    #[must_use]
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// Whether this is the name exactly as it was typed, with or without its schema.
    #[must_use]
    pub fn is_exactly(&self, schema: &str, name: &str) -> bool {
        self.typed == name
            || self
                .typed
                .strip_prefix(schema)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|rest| rest == name)
    }

    /// Whether the pattern fits the name.
    #[must_use]
    pub fn matches(&self, schema: &str, name: &str) -> bool {
        self.schema
            .as_ref()
            .is_none_or(|pattern| fits(pattern, schema))
            && fits(&self.name, name)
    }
}

/// The classic walk with one point to come back to, linear in practice and quadratic at worst.
fn fits(pattern: &[Piece], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut piece) = (0, 0);
    let mut retry = None;
    while at < text.len() {
        match pattern.get(piece) {
            Some(Piece::AnyLetters) => {
                retry = Some((at, piece));
                piece += 1;
                continue;
            }
            Some(Piece::AnyLetter) => {}
            Some(Piece::Letter(letter)) if *letter == text[at] => {}
            _ => match &mut retry {
                Some((from, star)) => {
                    *from += 1;
                    (at, piece) = (*from, *star + 1);
                    continue;
                }
                None => return false,
            },
        }
        at += 1;
        piece += 1;
    }
    pattern[piece..]
        .iter()
        .all(|piece| *piece == Piece::AnyLetters)
}

/// How many letters must change to make one word of the other.
pub(super) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, wanted) in other.iter().enumerate() {
            let change = diagonal + usize::from(letter != *wanted);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::{TablePattern, distance};

    #[test]
    fn patterns_fit_as_pg_dumps_do() {
        let cases = [
            ("users", "app", "users", true),
            ("USERS", "app", "users", true),
            ("users", "app", "Users", false),
            ("\"Users\"", "app", "Users", true),
            ("app.users", "app", "users", true),
            ("app.users", "public", "users", false),
            ("app.*", "app", "anything", true),
            ("*.users", "x", "users", true),
            ("us*", "app", "us", true),
            ("*s*r*", "app", "users", true),
            ("*s*r*x", "app", "users", false),
            ("user?", "app", "users", true),
            ("user?", "app", "user", false),
            ("\"us*\"", "app", "users", false),
            ("\"a\"\"b\"", "app", "a\"b", true),
            ("\"Odd.Schema\".t", "Odd.Schema", "t", true),
            ("größe", "app", "größe", true),
        ];
        for (pattern, schema, name, wanted) in cases {
            assert_eq!(
                TablePattern::new(pattern).matches(schema, name),
                wanted,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_name_as_it_was_typed_needs_no_quotes() {
        assert!(TablePattern::new("Users").is_exactly("app", "Users"));
        assert!(TablePattern::new("Odd.Schema.a.b*").is_exactly("Odd.Schema", "a.b*"));
        assert!(!TablePattern::new("app.users").is_exactly("public", "users"));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("user", "users"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("activatons", "activations"), 1);
        assert_eq!(distance("same", "same"), 0);
    }
}
