//! `tresor point show`.

use super::PointShown;
use crate::app::App;
use crate::error::CliError;
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::left::Left;

/// Shows one point.
pub(super) async fn run(app: &App, text_of_point: &str) -> Result<Answer, CliError> {
    let vault = app.open_for_reading("point show", None).await?;
    let points = app.points(&vault).await?;
    let point = app.resolve(&points, text_of_point)?;
    let left = Left::read(&points.cluster_state);
    let shown = PointShown::new(&vault.name, point, left.as_ref());
    Ok(app.screen.answer(&shown, || text(&shown)))
}

fn text(shown: &PointShown<'_>) -> String {
    let mut lines = vec![
        ("point", shown.point.clone()),
        ("item", format!("{} ({})", human::plain(shown.item), shown.item_id)),
        ("vault", shown.vault.to_owned()),
        ("time", shown.time.to_owned()),
        ("keep until", shown.keep_until.unwrap_or("(no date)").to_owned()),
        ("parent", shown.parent.clone().unwrap_or_else(|| String::from("(none)"))),
        (
            "consistency",
            format!("{} ({})", shown.consistency, human::plain(shown.consistency_reason)),
        ),
    ];
    if shown.live {
        lines.push((
            "live",
            String::from("disks were in use or changed while they were read"),
        ));
    }
    if let Some(at) = shown.removed_at {
        lines.push(("removed", format!("{at}; tresor point undelete brings it back")));
    }
    if let Some(why) = shown.held {
        lines.push(("held", human::plain(why)));
    }
    lines.push(("read", human::size(shown.bytes_read)));
    lines.push(("new", human::size(shown.bytes_new)));
    lines.push(("stored", human::size(shown.bytes_stored)));
    let mut text = String::new();
    for (name, value) in lines {
        text.push_str(&format!("{name:<13}{value}\n"));
    }
    let mut table = Table::new(&["disk", ">size", "from", "format", "root"]);
    for disk in &shown.disks {
        let root = disk.root.chars().take(16).collect();
        table.row([
            disk.name.to_owned(),
            human::size(disk.size),
            disk.source_kind.to_owned(),
            disk.source_format.to_owned(),
            root,
        ]);
    }
    format!("{text}\n{}", table.render())
}
