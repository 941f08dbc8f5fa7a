//! `tresor point …`.

mod change;
mod cluster;
mod diff;
mod list;
mod named;
mod show;

use serde::Serialize;
use tresor_worker::home::KnownPoint;

use crate::app::App;
use crate::args::PointVerb;
use crate::cluster::ClusterError;
use crate::error::CliError;
use crate::screen::Answer;
use crate::verb::left::Left;
use change::Change;

pub(crate) use named::named_point;

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: PointVerb) -> Result<Answer, CliError> {
    if let Some(cluster) = app.cluster()? {
        return Box::pin(cluster::run(app, &cluster, verb)).await;
    }
    if let PointVerb::Hold(_) | PointVerb::Release(_) = &verb
        && !app.settings.home.value.exists()
    {
        // No home is made for what it cannot have.
        return Err(ClusterError::NoneChosen { verb: "point hold" }.into());
    }
    match verb {
        PointVerb::List(args) => Box::pin(list::run(app, &args)).await,
        PointVerb::Show(args) => Box::pin(show::run(app, &args.point)).await,
        PointVerb::Diff(args) => Box::pin(diff::run(app, &args)).await,
        PointVerb::Hold(args) => Box::pin(change::run(app, &args.points, Change::Hold(&args.reason))).await,
        PointVerb::Release(args) => Box::pin(change::run(app, &args.points, Change::Release)).await,
        PointVerb::Remove(args) => Box::pin(change::run(app, &args.points, Change::Remove)).await,
        PointVerb::Undelete(args) => Box::pin(change::run(app, &args.points, Change::Undelete)).await,
    }
}

#[derive(Serialize)]
struct DiskShown<'a> {
    name: &'a str,
    size: u64,
    root: String,
    source_kind: &'a str,
    source_format: &'a str,
}

/// A point with all that its manifest says.
#[derive(Serialize)]
struct PointShown<'a> {
    point: String,
    item: &'a str,
    item_id: String,
    vault: &'a str,
    time: &'a str,
    keep_until: Option<&'a str>,
    removed_at: Option<&'a str>,
    /// Why it is held.
    held: Option<&'a str>,
    parent: Option<String>,
    consistency: &'static str,
    consistency_reason: &'a str,
    live: bool,
    disks: Vec<DiskShown<'a>>,
    bytes_read: u64,
    bytes_new: u64,
    bytes_stored: u64,
}

impl<'a> PointShown<'a> {
    fn new(vault: &'a str, point: &'a KnownPoint, left: Option<&'a Left>) -> Self {
        let manifest = &point.manifest;
        let disks = manifest.disks.iter().map(|disk| DiskShown {
            name: &disk.name,
            size: disk.root.size,
            root: disk.root.id.to_string(),
            source_kind: &disk.source_kind,
            source_format: &disk.source_format,
        });
        Self {
            point: manifest.point.to_string(),
            item: &manifest.item_name,
            item_id: manifest.item.to_string(),
            vault,
            time: &manifest.time,
            keep_until: manifest.keep_until.as_deref(),
            removed_at: point.removed_at.as_deref(),
            // Of more than a catalogue names, the words of a cluster say it.
            held: point
                .held
                .as_deref()
                .or_else(|| left.and_then(|left| left.hold(manifest.point))),
            parent: manifest.parent.map(|parent| parent.to_string()),
            consistency: manifest.consistency.name(),
            consistency_reason: &manifest.consistency_reason,
            live: manifest.live,
            disks: disks.collect(),
            bytes_read: manifest.bytes_read,
            bytes_new: manifest.bytes_new,
            bytes_stored: manifest.bytes_stored,
        }
    }

    /// Bytes of all disks.
    fn size(&self) -> u64 {
        self.disks.iter().map(|disk| disk.size).sum()
    }

    /// What is to be known of it in one word or two.
    fn state(&self) -> &'static str {
        match (self.removed_at.is_some(), self.held.is_some(), self.live) {
            (true, ..) => "removed",
            (false, true, true) => "held, live",
            (false, true, false) => "held",
            (false, false, true) => "live",
            (false, false, false) => "",
        }
    }
}
