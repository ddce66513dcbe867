//! The result of a query: text values, kept in one buffer.

use super::error::PgError;

/// Rows of text values, as the simple query protocol sends them.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    columns: Vec<String>,
    text: String,
    /// For each value its end in `text`, or `NULL`; row by row.
    ends: Vec<Option<usize>>,
    count: usize,
}

impl Rows {
    /// The columns' names, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One row by its number, from 0.
    pub fn row(&self, index: usize) -> Option<Row<'_>> {
        (index < self.count).then_some(Row { rows: self, index })
    }

    /// The first row.
    pub fn first(&self) -> Option<Row<'_>> {
        self.row(0)
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> + DoubleEndedIterator {
        (0..self.count).map(|index| Row { rows: self, index })
    }

    /// A value of the first row that must be there and not NULL.
    ///
    /// # Errors
    /// [`PgError::Column`] when there is no row, no such column, or a NULL in it.
    pub fn value(&self, column: &str) -> Result<&str, PgError> {
        self.first()
            .and_then(|row| row.get(column))
            .ok_or_else(|| PgError::Column {
                column: column.to_owned(),
            })
    }

    fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name == column)
    }

    /// Starts anew from a RowDescription's body.
    pub(crate) fn describe(body: &[u8]) -> Result<Rows, PgError> {
        let malformed = || PgError::protocol("malformed description of a result");
        let (count, mut rest) = take_u16(body).ok_or_else(malformed)?;
        let mut columns = Vec::with_capacity(usize::from(count).min(1664));
        for _ in 0..count {
            let end = rest
                .iter()
                .position(|byte| *byte == 0)
                .ok_or_else(malformed)?;
            columns.push(String::from_utf8_lossy(&rest[..end]).into_owned());
            // Table, column number, type, size, modifier, format: 18 bytes of no use to text.
            rest = rest.get(end + 1 + 18..).ok_or_else(malformed)?;
        }
        Ok(Rows {
            columns,
            ..Rows::default()
        })
    }

    /// Adds a DataRow's body.
    pub(crate) fn push(&mut self, body: &[u8]) -> Result<(), PgError> {
        let malformed = || PgError::protocol("malformed row");
        let (count, mut rest) = take_u16(body).ok_or_else(malformed)?;
        if usize::from(count) != self.columns.len() {
            return Err(PgError::protocol(
                "a row with another number of columns than announced",
            ));
        }
        for column in &self.columns {
            let (length, after) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
            rest = after;
            match i32::from_be_bytes(*length) {
                -1 => self.ends.push(None),
                length => {
                    let length = usize::try_from(length).map_err(|_| malformed())?;
                    let (value, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
                    rest = after;
                    let value = std::str::from_utf8(value).map_err(|_| PgError::NotUtf8 {
                        column: column.clone(),
                    })?;
                    self.text.push_str(value);
                    self.ends.push(Some(self.text.len()));
                }
            }
        }
        self.count += 1;
        Ok(())
    }

    fn at(&self, row: usize, column: usize) -> Option<&str> {
        let index = row * self.columns.len() + column;
        let end = (*self.ends.get(index)?)?;
        let start = self.ends[..index]
            .iter()
            .rev()
            .find_map(|end| *end)
            .unwrap_or(0);
        self.text.get(start..end)
    }
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}

/// One row of a result.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    rows: &'a Rows,
    index: usize,
}

impl<'a> Row<'a> {
    /// The value of a column by name; `None` for NULL and for a column that the result lacks.
    pub fn get(&self, column: &str) -> Option<&'a str> {
        self.rows.at(self.index, self.rows.position(column)?)
    }

    /// The value of a column by its number, from 0.
    pub fn at(&self, column: usize) -> Option<&'a str> {
        (column < self.rows.columns.len()).then(|| self.rows.at(self.index, column))?
    }

    /// A value that must be there and not NULL.
    ///
    /// # Errors
    /// [`PgError::Column`] when it is not.
    pub fn value(&self, column: &str) -> Result<&'a str, PgError> {
        self.get(column).ok_or_else(|| PgError::Column {
            column: column.to_owned(),
        })
    }

    /// A value that must be there and of type `T`, such as a number.
    ///
    /// # Errors
    /// [`PgError::Column`] when it is not.
    pub fn parse<T: std::str::FromStr>(&self, column: &str) -> Result<T, PgError> {
        self.value(column)?.parse().map_err(|_| PgError::Column {
            column: column.to_owned(),
        })
    }

    /// A boolean as PostgreSQL prints it.
    ///
    /// # Errors
    /// [`PgError::Column`] when it is NULL, absent, or neither `t` nor `f`.
    pub fn bool(&self, column: &str) -> Result<bool, PgError> {
        match self.value(column)? {
            "t" | "true" => Ok(true),
            "f" | "false" => Ok(false),
            _ => Err(PgError::Column {
                column: column.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;
    use crate::wire::error::ServerError;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            if let Ok(mut rows) = Rows::describe(&bytes) {
                let _ = rows.push(&bytes);
                let _ = rows.iter().filter(|row| row.at(0).is_some()).count();
            }
            let _ = ServerError::parse(&bytes);
            let _ = crate::wire::input::peek_frame(&bytes);
        }
    }
}
