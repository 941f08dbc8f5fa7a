//! A table of a report as CSV: RFC 4180, UTF-8, values for programs (bytes, seconds, RFC 3339), empty where one is not known.

use super::escape;
use super::page::Grid;

/// Draws it: the headings, then a line for each row.
pub(crate) fn draw(grid: &Grid) -> String {
    let mut text = String::new();
    let mut line = |fields: &mut dyn Iterator<Item = &str>| {
        let fields: Vec<String> = fields.map(escape::csv).collect();
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    };
    let name = |column: &&'static str| column.trim_start_matches('>').replace(' ', "_");
    let names: Vec<String> = grid.columns.iter().map(name).collect();
    line(&mut names.iter().map(String::as_str));
    for row in &grid.rows {
        line(&mut row.iter().map(|cell| cell.raw.as_str()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::page::Cell;
    use super::*;

    #[test]
    fn a_table_has_its_headings_and_a_line_for_each_row() {
        let grid = Grid {
            name: "items",
            heading: "Items",
            note: None,
            columns: vec!["item", ">bytes stored"],
            rows: vec![
                vec![
                    Cell::text("=HYPERLINK(\"http://x\",\"y\")"),
                    Cell::of(Some(2048), crate::human::size),
                ],
                vec![Cell::text("db, old"), Cell::of(None::<u64>, crate::human::size)],
            ],
            left_out: 0,
        };
        assert_eq!(
            draw(&grid),
            "item,bytes_stored\r\n\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",2048\r\n\"db, old\",\r\n"
        );
    }
}
