//! The kit as a document: one file, nothing fetched from elsewhere, set for A4 and Letter.

use super::page::{self, Block};

const STYLE: &str = include_str!("kit.css");

/// Sets the page.
pub(super) fn render(blocks: &[Block]) -> String {
    let mut body = String::new();
    let mut open = Open::Nothing;
    let mut in_section = false;
    for block in blocks {
        let wanted = match block {
            Block::Fact { .. } => Open::Facts,
            Block::Step { .. } => Open::Steps,
            _ => Open::Nothing,
        };
        if open != wanted {
            body.push_str(open.end());
            body.push_str(wanted.begin());
            open = wanted;
        }
        match block {
            Block::Heading(heading) => {
                if in_section {
                    body.push_str("</section>\n");
                }
                in_section = true;
                body.push_str(&format!("<section>\n<h2>{}</h2>\n", escaped(heading)));
            }
            Block::Text(prose) => body.push_str(&format!("<p>{}</p>\n", prose_of(prose))),
            Block::Notice(prose) => {
                body.push_str(&format!("<p class=\"notice\">{}</p>\n", prose_of(prose)))
            }
            Block::Fact {
                label,
                value,
                is_secret,
            } => body.push_str(&format!(
                "<div{}><dt>{}</dt><dd>{}</dd></div>\n",
                if *is_secret { " class=\"secret\"" } else { "" },
                escaped(label),
                escaped(value)
            )),
            Block::Step { text, commands } => {
                body.push_str(&format!("<li><p>{}</p>", prose_of(text)));
                if !commands.is_empty() {
                    body.push_str("<pre>");
                    for command in commands {
                        // Each a line of its own, so that one that is broken on paper is seen to go on.
                        body.push_str(&format!("<span>{}</span>", command_of(command)));
                    }
                    body.push_str("</pre>");
                }
                body.push_str("</li>\n");
            }
        }
    }
    body.push_str(open.end());
    if in_section {
        body.push_str("</section>\n");
    }
    let title = title();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// The title, set in letters of both sizes.
fn title() -> String {
    let lower = page::TITLE.to_ascii_lowercase();
    let mut title = String::with_capacity(lower.len());
    for (index, c) in lower.chars().enumerate() {
        title.push(if index == 0 {
            c.to_ascii_uppercase()
        } else {
            c
        });
    }
    title
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Facts,
    Steps,
}

impl Open {
    fn begin(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Facts => "<dl>\n",
            Self::Steps => "<ol>\n",
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Facts => "</dl>\n",
            Self::Steps => "</ol>\n",
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A command whose words stay whole where they fit: one that is broken after a hyphen is typed wrongly.
fn command_of(command: &str) -> String {
    const FITS: usize = 60;
    let words = command.split(' ').map(|word| match word.chars().count() {
        0..=FITS => format!("<i>{}</i>", escaped(word)),
        _ => escaped(word),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Words in backquotes are to be typed.
fn prose_of(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = escaped(part);
        if index % 2 == 1 {
            out.push_str(&format!("<code>{part}</code>"));
        } else {
            out.push_str(&part);
        }
    }
    out
}
