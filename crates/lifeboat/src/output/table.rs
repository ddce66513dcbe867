//! Tables: columns two spaces apart, no lines, so that they read well and `awk` can cut them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A column's heading and side.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Text, on the left.
    Left(&'static str),
    /// Numbers, on the right.
    Right(&'static str),
}

/// Draws rows under headings; no line has blanks at its end.
pub fn draw(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|column| match column {
            Column::Left(name) | Column::Right(name) => *name,
        }));
    for row in rows {
        table.add_row(row);
    }
    for (column, spec) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if let Column::Right(_) = spec {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    trimmed(&table.to_string())
}

/// Names and values, in two columns without headings: for `show` and `status`.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn trimmed(text: &str) -> String {
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let drawn = draw(
            &[
                Column::Left("id"),
                Column::Right("size"),
                Column::Left("proof"),
            ],
            [
                vec![
                    "4f1c09ab".to_owned(),
                    "434 MB".to_owned(),
                    "proven".to_owned(),
                ],
                vec!["9".to_owned(), "7 B".to_owned(), String::new()],
            ],
        );
        assert_eq!(
            drawn,
            "id          size  proof\n4f1c09ab  434 MB  proven\n9            7 B"
        );
        assert_eq!(
            pairs(&[("a", "1".into()), ("long", "2".into())]),
            "a     1\nlong  2"
        );
    }
}
