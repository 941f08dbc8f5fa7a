//! `tresor point list`.

use serde::Serialize;
use tresor_storage::vault::VaultError;
use tresor_worker::home::{KnownPoint, find_item};

use super::PointShown;
use crate::app::App;
use crate::args::PointListArgs;
use crate::error::CliError;
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::left::Left;
use crate::verb::shown::note_more;

/// Digits of an id that are shown in a list: enough to tell a million points apart, and enough to type.
pub(super) const DIGITS: usize = 12;

#[derive(Serialize)]
struct Points<'a> {
    points: Vec<PointShown<'a>>,
    /// Manifests that cannot be read.
    damaged: usize,
    /// There are more.
    more: bool,
}

/// Lists points, the newest first.
pub(super) async fn run(app: &App, args: &PointListArgs) -> Result<Answer, CliError> {
    let vault = app.open_for_reading("point list", None).await?;
    let points = app.points(&vault).await?;
    let of_item: Box<dyn Fn(&KnownPoint) -> bool> = match &args.item {
        None => Box::new(|_| true),
        Some(text) => match find_item(&points.points, text)? {
            Some(item) => Box::new(move |point| point.manifest.item == item),
            // All of its points may be removed: then it is no item any more, and with --all its points are shown all the same.
            None if args.all && points.points.iter().any(|point| point.manifest.item_name == *text) => {
                Box::new(move |point| point.manifest.item_name == *text)
            }
            None => {
                return Err(VaultError::NotThere {
                    what: "item",
                    name: text.clone(),
                }
                .into());
            }
        },
    };
    let chosen = points
        .points
        .iter()
        .filter(|point| (args.all || point.removed_at.is_none()) && of_item(point));
    let most = args.limit.most(app.screen.is_for_person()).unwrap_or(usize::MAX);
    let left = Left::read(&points.cluster_state);
    let mut chosen = chosen.map(|point| PointShown::new(&vault.name, point, left.as_ref()));
    let shown = Points {
        points: chosen.by_ref().take(most).collect(),
        damaged: points.damaged_total,
        more: chosen.next().is_some(),
    };
    note_more(app, shown.more, shown.points.len());
    Ok(app.screen.answer(&shown, || text(&shown)))
}

fn text(shown: &Points<'_>) -> String {
    if shown.points.is_empty() {
        return String::from("no recovery points");
    }
    let mut table = Table::new(&["time", "item", "point", ">size", ">new", ">stored", "keep until", ""]);
    for point in &shown.points {
        table.row([
            point.time.to_owned(),
            point.item.to_owned(),
            point.point.chars().take(DIGITS).collect(),
            human::size(point.size()),
            human::size(point.bytes_new),
            human::size(point.bytes_stored),
            point.keep_until.unwrap_or("").to_owned(),
            point.state().to_owned(),
        ]);
    }
    table.render()
}
