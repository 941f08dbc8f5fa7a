//! A report for a terminal: the answer, facts, and its main table.

use super::page::{Grid, Page, Part};
use crate::human::{self, Table};

/// Draws it; of each table as many rows as `most`.
pub(crate) fn draw(page: &Page, most: usize) -> String {
    let mut text = format!("{}\n{}\n\n", human::plain(&page.answer.0), human::plain(&page.about));
    let facts: Vec<(&str, String)> = page
        .facts
        .iter()
        .map(|(name, cell)| (*name, cell.text.clone()))
        .collect();
    text.push_str(&human::pairs(&facts));
    text.push('\n');
    for part in &page.parts {
        if let Part::Grid(grid) = part {
            text.push_str(&format!("\n{}\n", table(grid, most)));
        }
    }
    for note in &page.notes {
        text.push_str(&format!("\nnote: {}", human::plain(note)));
    }
    text.trim_end().to_owned()
}

fn table(grid: &Grid, most: usize) -> String {
    if grid.rows.is_empty() {
        return format!("{}: none", grid.heading);
    }
    let mut table = Table::new(&grid.columns);
    for row in grid.rows.iter().take(most) {
        let cells: Vec<String> = row.iter().map(|cell| cell.text.clone()).collect();
        table.line(&cells);
    }
    let mut text = format!("{}\n{}", grid.heading, table.render());
    let hidden = grid.rows.len().saturating_sub(most) as u64 + grid.left_out;
    if hidden > 0 {
        text.push_str(&format!(
            "\nand {} more: --limit 0, or --format csv --table {}",
            human::count(hidden),
            grid.name
        ));
    }
    text
}
