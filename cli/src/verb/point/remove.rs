//! `tresor point remove` and `tresor point undelete`.

use serde::Serialize;
use tresor_storage::ids::PointId;

use crate::app::App;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

#[derive(Serialize)]
struct Changed {
    point: String,
    item: String,
    time: String,
    removed_at: Option<String>,
}

#[derive(Serialize)]
struct ChangedPoints {
    points: Vec<Changed>,
}

/// Hides points, or shows them again. All of them are found before any is changed.
pub(super) async fn run(app: &App, texts: &[String], hide: bool) -> Result<Answer, CliError> {
    let home = app.home(if hide { "point remove" } else { "point undelete" })?;
    let name = app.vault_name(&home, None)?;
    let vault = app.open_for_writing(&home, &name).await?;
    let mut chosen: Vec<(PointId, Changed)> = Vec::with_capacity(texts.len());
    for text in texts {
        let point = app.resolve(&vault.points, text)?;
        let manifest = &point.manifest;
        if chosen.iter().any(|(id, _)| *id == manifest.point) {
            continue;
        }
        let changed = Changed {
            point: manifest.point.to_string(),
            item: manifest.item_name.clone(),
            time: manifest.time.clone(),
            removed_at: point.removed_at.clone(),
        };
        chosen.push((manifest.point, changed));
    }
    let mut shown = ChangedPoints {
        points: Vec::with_capacity(chosen.len()),
    };
    for (id, mut changed) in chosen {
        // What is so already stays so: repeating the command is no fault.
        if hide && changed.removed_at.is_none() {
            changed.removed_at = Some(
                vault
                    .control
                    .remove(id)
                    .await
                    .doing(|| format!("could not remove point {id}"))?,
            );
        } else if !hide && changed.removed_at.is_some() {
            vault
                .control
                .undelete(id)
                .await
                .doing(|| format!("could not undelete point {id}"))?;
            changed.removed_at = None;
        }
        shown.points.push(changed);
    }
    Ok(app.screen.answer(&shown, || text(&shown, hide)))
}

fn text(shown: &ChangedPoints, hide: bool) -> String {
    let line = |point: &Changed| {
        let end = if hide {
            "is removed; tresor point undelete brings it back"
        } else {
            "is visible"
        };
        format!(
            "{} of {}, point {}, {end}",
            human::plain(&point.item),
            point.time,
            point.point
        )
    };
    shown.points.iter().map(line).collect::<Vec<_>>().join("\n")
}
