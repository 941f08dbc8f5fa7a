//! `tresor point …` in a cluster: its log has the points, no store is asked.

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1::{
    self, GetPointRequest, HoldPointRequest, ListPointsRequest, ReleasePointRequest, RemovePointRequest,
    UndeletePointRequest,
};
use tresor_storage::ids::hex;

use super::list::DIGITS;
use super::named_point;
use crate::app::App;
use crate::args::{PointListArgs, PointVerb};
use crate::cluster::{Cluster, ClusterError};
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::shown::{note_more, some};

/// A point as the cluster knows it.
#[derive(Debug, Serialize)]
struct PointShown {
    point: String,
    item: String,
    item_id: String,
    vault: String,
    time: String,
    consistency: String,
    keep_until: Option<String>,
    held: Option<String>,
    removed_at: Option<String>,
    undo_until: Option<String>,
    harmed: bool,
    manifest: String,
}

#[derive(Serialize)]
struct Points {
    points: Vec<PointShown>,
    /// There are more.
    more: bool,
}

#[derive(Serialize)]
struct Changed {
    points: Vec<PointShown>,
}

impl From<v1::Point> for PointShown {
    fn from(point: v1::Point) -> Self {
        Self {
            point: point.id,
            item: point.item_name,
            item_id: point.item,
            vault: point.vault,
            time: point.time,
            consistency: point.consistency,
            keep_until: some(point.keep_until),
            held: some(point.held),
            removed_at: some(point.hidden_at),
            undo_until: some(point.undo_until),
            harmed: point.harmed,
            manifest: hex(&point.manifest),
        }
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, cluster: &Cluster, verb: PointVerb) -> Result<Answer, CliError> {
    match verb {
        PointVerb::List(args) => list(app, cluster, args).await,
        PointVerb::Show(args) => {
            let doing = || format!("could not show point {}", args.point);
            let name = named_point(app, cluster, &args.point).await.doing(doing)?;
            let point = cluster.get_point(GetPointRequest { name }).await;
            let shown = PointShown::from(point.doing(doing)?);
            Ok(app.screen.answer(&shown, || shown.text()))
        }
        PointVerb::Diff(_) => Err(app.not_in_cluster("point diff")),
        PointVerb::Hold(args) => {
            let reason = args.reason;
            let hold = async |name: String| {
                let request = HoldPointRequest {
                    name,
                    reason: reason.clone(),
                    ..Default::default()
                };
                cluster.hold_point(request).await
            };
            change(app, cluster, args.points, ("hold", "is held"), hold).await
        }
        PointVerb::Release(args) => {
            let release = async |name: String| {
                let request = ReleasePointRequest {
                    name,
                    ..Default::default()
                };
                cluster.release_point(request).await
            };
            change(app, cluster, args.points, ("release", "is held no more"), release).await
        }
        PointVerb::Remove(args) => {
            let remove = async |name: String| {
                let request = RemovePointRequest {
                    name,
                    ..Default::default()
                };
                cluster.remove_point(request).await
            };
            change(app, cluster, args.points, ("remove", "is removed"), remove).await
        }
        PointVerb::Undelete(args) => {
            let undelete = async |name: String| {
                let request = UndeletePointRequest {
                    name,
                    ..Default::default()
                };
                cluster.undelete_point(request).await
            };
            change(app, cluster, args.points, ("undelete", "is visible"), undelete).await
        }
    }
}

async fn list(app: &App, cluster: &Cluster, args: PointListArgs) -> Result<Answer, CliError> {
    let request = ListPointsRequest {
        vault: match &args.item {
            Some(_) => app.meant_vault(cluster)?,
            None => app.cluster_vault(None),
        },
        item: args.item.unwrap_or_default(),
        hidden: args.all,
        ..Default::default()
    };
    let listed = cluster
        .points(request, args.limit.most(app.screen.is_for_person()))
        .await
        .doing(|| String::from("could not list points"))?;
    let shown = Points {
        points: listed.rows.into_iter().map(PointShown::from).collect(),
        more: listed.more,
    };
    note_more(app, shown.more, shown.points.len());
    Ok(app.screen.answer(&shown, || table(&shown.points)))
}

/// Changes points. All of them are found before any is changed: an item's name means another point when its newest is gone.
async fn change(
    app: &App,
    cluster: &Cluster,
    names: Vec<String>,
    (verb, end): (&'static str, &'static str),
    call: impl AsyncFn(String) -> Result<v1::Point, ClusterError>,
) -> Result<Answer, CliError> {
    let mut ids: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let doing = || format!("could not {verb} point {name}");
        let name = named_point(app, cluster, &name).await.doing(doing)?;
        let point = cluster.get_point(GetPointRequest { name }).await.doing(doing)?;
        if !ids.contains(&point.id) {
            ids.push(point.id);
        }
    }
    let mut shown = Changed { points: Vec::new() };
    for id in ids {
        let point = call(id.clone()).await.doing(|| {
            let before = match shown.points.len() {
                0 => String::new(),
                count => format!(" (of those before it, {count} are done)"),
            };
            format!("could not {verb} point {id}{before}")
        })?;
        shown.points.push(PointShown::from(point));
    }
    Ok(app.screen.answer(&shown, || {
        let lines: Vec<String> = shown.points.iter().map(|point| point.line(end)).collect();
        lines.join("\n")
    }))
}

impl PointShown {
    /// What is to be known of it in a few words.
    fn state(&self) -> String {
        let mut words = Vec::new();
        if self.harmed {
            words.push("HARMED");
        }
        if self.removed_at.is_some() {
            words.push("removed");
        }
        if self.held.is_some() {
            words.push("held");
        }
        words.join(", ")
    }

    /// What became of it.
    fn line(&self, end: &str) -> String {
        let undo = match &self.undo_until {
            Some(until) if self.removed_at.is_some() => format!("; until {until} tresor point undelete brings it back"),
            _ => String::new(),
        };
        human::plain(&format!(
            "{} of {}, point {}, {end}{undo}",
            self.item, self.time, self.point
        ))
    }

    fn text(&self) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let removed = match (&self.removed_at, &self.undo_until) {
            (Some(at), Some(until)) => format!("{at}; until {until} tresor point undelete brings it back"),
            (Some(at), None) => at.clone(),
            (None, _) => String::new(),
        };
        let harmed = if self.harmed {
            String::from("a part of it is missing or damaged: tresor vault verify says more")
        } else {
            String::new()
        };
        human::pairs(&[
            ("point", self.point.clone()),
            ("item", format!("{} ({})", self.item, self.item_id)),
            ("vault", self.vault.clone()),
            ("time", self.time.clone()),
            ("consistency", self.consistency.clone()),
            ("keep until", text(&self.keep_until)),
            ("held", text(&self.held)),
            ("removed", removed),
            ("harmed", harmed),
            ("manifest", self.manifest.clone()),
        ])
    }
}

fn table(points: &[PointShown]) -> String {
    if points.is_empty() {
        return String::from("no recovery points");
    }
    let mut table = Table::new(&["time", "item", "point", "vault", "consistency", "keep until", ""]);
    for point in points {
        let whole = point.time.parse::<Timestamp>().map(human::time);
        table.row([
            whole.unwrap_or_else(|_| point.time.clone()),
            point.item.clone(),
            point.point.chars().take(DIGITS).collect(),
            point.vault.clone(),
            point.consistency.clone(),
            point.keep_until.clone().unwrap_or_default(),
            point.state(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> PointShown {
        PointShown::from(v1::Point {
            id: "ab".repeat(16),
            item: "cd".repeat(16),
            item_name: String::from("web-03"),
            vault: String::from("main"),
            time: String::from("2026-03-10T12:00:00.25Z"),
            consistency: String::from("crash"),
            keep_until: String::from("2027-01-01T00:00:00Z"),
            held: String::from("audit of 2026"),
            hidden_at: String::from("2026-03-11T08:00:00Z"),
            undo_until: String::from("2026-03-18T08:00:00Z"),
            harmed: true,
            manifest: vec![0xef; 32].into(),
        })
    }

    #[test]
    fn the_text_of_a_point_about_which_there_is_much_to_say() {
        insta::assert_snapshot!(point().text(), @"
        point        abababababababababababababababab
        item         web-03 (cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd)
        vault        main
        time         2026-03-10T12:00:00.25Z
        consistency  crash
        keep until   2027-01-01T00:00:00Z
        held         audit of 2026
        removed      2026-03-11T08:00:00Z; until 2026-03-18T08:00:00Z tresor point undelete brings it back
        harmed       a part of it is missing or damaged: tresor vault verify says more
        manifest     efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef
        ");
        insta::assert_snapshot!(point().line("is removed"), @"web-03 of 2026-03-10T12:00:00.25Z, point abababababababababababababababab, is removed; until 2026-03-18T08:00:00Z tresor point undelete brings it back");
    }

    #[test]
    fn the_table_of_points() {
        insta::assert_snapshot!(table(&[point()]), @"
        TIME                  ITEM    POINT         VAULT  CONSISTENCY  KEEP UNTIL
        2026-03-10T12:00:00Z  web-03  abababababab  main   crash        2027-01-01T00:00:00Z  HARMED, removed, held
        ");
    }
}
