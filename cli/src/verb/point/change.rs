//! `tresor point hold`, `release`, `remove` and `undelete` in a vault that is the home's own: what they say stands in the vault's catalogue.

use serde::Serialize;
use tresor_storage::ids::PointId;
use tresor_worker::control::ControlError;
use tresor_worker::control::home::HomeControl;

use crate::app::App;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

#[derive(Serialize)]
struct Changed {
    point: String,
    item: String,
    time: String,
    held: Option<String>,
    removed_at: Option<String>,
}

#[derive(Serialize)]
struct ChangedPoints {
    points: Vec<Changed>,
}

/// What becomes of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// They are held, for a reason.
    Hold(&'a str),
    /// They are held no more.
    Release,
    /// They are hidden.
    Remove,
    /// They are shown again.
    Undelete,
}

impl Change<'_> {
    fn verb(self) -> &'static str {
        match self {
            Self::Hold(_) => "hold",
            Self::Release => "release",
            Self::Remove => "remove",
            Self::Undelete => "undelete",
        }
    }

    /// What is so already stays so: repeating the command is no fault.
    async fn make(self, control: &HomeControl, id: PointId, point: &mut Changed) -> Result<(), ControlError> {
        match self {
            Self::Hold(reason) => {
                control.hold(id, reason).await?;
                point.held = Some(reason.to_owned());
            }
            Self::Release => {
                control.release(id).await?;
                point.held = None;
            }
            Self::Remove => point.removed_at = Some(control.remove(id).await?),
            Self::Undelete => {
                control.undelete(id).await?;
                point.removed_at = None;
            }
        }
        Ok(())
    }

    fn end(self) -> &'static str {
        match self {
            Self::Hold(_) => "is held",
            Self::Release => "is held no more",
            Self::Remove => "is removed; tresor point undelete brings it back",
            Self::Undelete => "is visible",
        }
    }
}

/// Changes points. All of them are found before any is changed.
pub(super) async fn run(app: &App, texts: &[String], change: Change<'_>) -> Result<Answer, CliError> {
    let verb = change.verb();
    let home = app.home(&format!("point {verb}"))?;
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
            held: point.held.clone(),
            removed_at: point.removed_at.clone(),
        };
        chosen.push((manifest.point, changed));
    }
    let mut shown = ChangedPoints {
        points: Vec::with_capacity(chosen.len()),
    };
    for (id, mut changed) in chosen {
        change
            .make(&vault.control, id, &mut changed)
            .await
            .doing(|| format!("could not {verb} point {id}"))?;
        shown.points.push(changed);
    }
    Ok(app.screen.answer(&shown, || text(&shown, change)))
}

fn text(shown: &ChangedPoints, change: Change<'_>) -> String {
    let line = |point: &Changed| {
        format!(
            "{} of {}, point {}, {}",
            human::plain(&point.item),
            point.time,
            point.point,
            change.end()
        )
    };
    shown.points.iter().map(line).collect::<Vec<_>>().join("\n")
}
