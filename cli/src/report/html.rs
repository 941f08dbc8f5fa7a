//! A report as one HTML file: no script, nothing from elsewhere, by day and by night, on paper, and for who does not see it.

use std::fmt::Write as _;

use super::escape;
use super::page::{Cell, Grid, Page, Part, Tone};
use crate::human;

/// Rows of a table that a browser shows at once; all of them are in `--format csv` and `json`.
pub(crate) const ROWS_MAX: usize = 2000;

const STYLE: &str = include_str!("style.css");

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Good => " class=\"good\"",
        Tone::Warn => " class=\"warn\"",
        Tone::Bad => " class=\"bad\"",
        Tone::Dim => " class=\"dim\"",
    }
}

/// Draws it.
pub(crate) fn draw(page: &Page) -> String {
    let mut text = String::with_capacity(64 << 10);
    let title = escape::html(page.title);
    let _ = write!(
        text,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n\
         <p class=\"about\">{}</p>\n<p class=\"answer\"><strong{}>{}</strong></p>\n</header>\n",
        escape::html(&page.about),
        class(page.answer.1),
        escape::html(&page.answer.0)
    );
    text.push_str("<dl class=\"facts\">\n");
    for (name, cell) in &page.facts {
        let _ = writeln!(
            text,
            "<div><dt>{}</dt><dd{}>{}</dd></div>",
            escape::html(name),
            class(cell.tone),
            escape::html(&cell.text)
        );
    }
    text.push_str("</dl>\n");
    let mut parts = page.parts.iter().enumerate().peekable();
    let mut in_charts = false;
    while let Some((at, part)) = parts.next() {
        let is_chart = !matches!(part, Part::Grid(_));
        if is_chart != in_charts {
            text.push_str(if is_chart {
                "<div class=\"charts\">\n"
            } else {
                "</div>\n"
            });
            in_charts = is_chart;
        }
        let id = format!("c{at}");
        match part {
            Part::Days(days) => figure(
                &mut text,
                " class=\"wide\"",
                days.title,
                &days.legend(),
                &days.draw(&id),
            ),
            Part::Bars(bars) => figure(&mut text, "", bars.title, "", &bars.draw(&id)),
            Part::Grid(grid) => {
                let _ = writeln!(text, "<section>\n<h2>{}</h2>", escape::html(grid.heading));
                if let Some(note) = &grid.note {
                    let _ = writeln!(text, "<p class=\"note\">{}</p>", escape::html(note));
                }
                table(&mut text, grid);
                text.push_str("</section>\n");
            }
            Part::Numbers(grid) => {
                text.push_str("<details><summary>The numbers</summary>\n");
                table(&mut text, grid);
                text.push_str("</details>\n");
            }
        }
        // A chart and its numbers are one figure.
        let has_numbers = matches!(parts.peek(), Some((_, Part::Numbers(_))));
        if is_chart && !(matches!(part, Part::Days(_) | Part::Bars(_)) && has_numbers) {
            text.push_str("</figure>\n");
        }
    }
    if in_charts {
        text.push_str("</div>\n");
    }
    if !page.notes.is_empty() {
        text.push_str("<section>\n<h2>How to read this</h2>\n<ul class=\"notes\">\n");
        for note in &page.notes {
            let _ = writeln!(text, "<li>{}</li>", escape::html(note));
        }
        text.push_str("</ul>\n</section>\n");
    }
    let _ = write!(
        text,
        "</main>\n<footer>tresor {}</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    text
}

fn figure(text: &mut String, class: &str, title: &str, legend: &str, svg: &str) {
    let _ = writeln!(
        text,
        "<figure{class}>\n<figcaption>{}</figcaption>\n{legend}\n<div class=\"drawing\">{svg}</div>",
        escape::html(title)
    );
}

fn table(text: &mut String, grid: &Grid) {
    if grid.rows.is_empty() {
        text.push_str("<p class=\"dim\">none</p>\n");
        return;
    }
    let is_right: Vec<bool> = grid.columns.iter().map(|column| column.starts_with('>')).collect();
    // Wide tables are moved in their own frame, which the keyboard reaches, too.
    let _ = write!(
        text,
        "<div class=\"frame\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n<table>\n<thead><tr>",
        escape::html(grid.heading)
    );
    for (column, is_right) in grid.columns.iter().zip(&is_right) {
        let right = if *is_right { " class=\"right\"" } else { "" };
        let name = escape::html(column.trim_start_matches('>'));
        let _ = write!(text, "<th scope=\"col\"{right}>{name}</th>");
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in grid.rows.iter().take(ROWS_MAX) {
        text.push_str("<tr>");
        for (at, (cell, is_right)) in row.iter().zip(&is_right).enumerate() {
            let tag = if at == 0 { "th scope=\"row\"" } else { "td" };
            let right = if *is_right { " class=\"right\"" } else { "" };
            let _ = write!(text, "<{tag}{right}>{}</{}>", shown(cell), &tag[..2]);
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table>\n</div>\n");
    let hidden = grid.rows.len().saturating_sub(ROWS_MAX) as u64 + grid.left_out;
    if hidden > 0 {
        let _ = writeln!(
            text,
            "<p class=\"note\">and {} more: they are in --format csv --table {}</p>",
            human::count(hidden),
            grid.name
        );
    }
}

fn shown(cell: &Cell) -> String {
    let text = escape::html(&cell.text);
    match cell.tone {
        Tone::Plain => text,
        tone => format!("<span{}>{text}</span>", class(tone)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::chart::{Bars, Days, Series};
    use super::*;

    /// A page with a hostile text wherever one from elsewhere may be.
    fn hostile(name: &str) -> Page {
        let grid = |rows| Grid {
            name: "items",
            heading: "Items",
            note: Some(name.to_owned()),
            columns: vec!["item", ">n"],
            rows,
            left_out: 0,
        };
        Page {
            title: "Protection",
            answer: (name.to_owned(), Tone::Bad),
            about: name.to_owned(),
            notes: vec![name.to_owned()],
            facts: vec![("fact", Cell::text(name))],
            parts: vec![
                Part::Days(Days {
                    title: "By day",
                    days: vec![name.to_owned()],
                    series: vec![
                        Series {
                            name: name.to_owned(),
                            class: "good",
                            values: vec![1],
                        },
                        Series {
                            name: name.to_owned(),
                            class: "bad",
                            values: vec![2],
                        },
                    ],
                    read: human::count,
                    binary: false,
                }),
                Part::Numbers(grid(vec![vec![Cell::text(name), Cell::count(1)]])),
                Part::Bars(Bars {
                    title: "By name",
                    rows: vec![(name.to_owned(), 1, "one")],
                    read: human::count,
                }),
                Part::Grid(grid(vec![vec![Cell::text(name).meant(Tone::Bad), Cell::count(1)]])),
            ],
        }
    }

    /// The names of all tags, closing ones with their slash.
    fn tags(html: &str) -> Vec<String> {
        let name = |piece: &str| {
            let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '/' | '!'));
            piece[..end.unwrap_or(piece.len())].to_owned()
        };
        html.split('<').skip(1).map(name).collect()
    }

    #[test]
    fn a_hostile_name_changes_no_tag_of_the_page() {
        let harmless = tags(&draw(&hostile("web")));
        for name in [
            "</title><script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
            "' onload='x",
            "--><svg onload=alert(1)>",
            "]]><style>*{}</style>",
            "&lt;b&gt;",
        ] {
            let html = draw(&hostile(name));
            assert_eq!(tags(&html), harmless, "{name}");
            assert!(!html.contains(name), "{name} is there as it is");
        }
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let html = draw(&hostile("web"));
        for word in ["http://", "https://", "<script", "@import", "url(", " src="] {
            assert!(!html.contains(word), "{word}");
        }
        let opened = tags(&html);
        for tag in [
            "figure", "div", "section", "details", "table", "svg", "ul", "dl", "main",
        ] {
            let count = |name: &str| opened.iter().filter(|opened| *opened == name).count();
            assert_eq!(count(tag), count(&format!("/{tag}")), "{tag}");
        }
    }

    #[test]
    fn a_long_table_says_how_many_rows_are_elsewhere() {
        let mut page = hostile("web");
        let Some(Part::Grid(grid)) = page.parts.last_mut() else {
            panic!("the table is last");
        };
        grid.rows = (0..ROWS_MAX as u64 + 7)
            .map(|n| vec![Cell::text("x"), Cell::count(n)])
            .collect();
        assert!(draw(&page).contains("and 7 more: they are in --format csv --table items"));
    }
}
