//! `tresor point diff`.

use std::sync::Arc;

use serde::Serialize;
use tresor_storage::manifest::{Manifest, ManifestDisk};
use tresor_storage::recipe::{NodeSource, Tree, diff};
use tresor_storage::vault::VaultError;
use tresor_worker::home::OpenVault;

use crate::app::App;
use crate::args::PointDiffArgs;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

/// Ranges that are named to people; `--json` has all.
const RANGES_SHOWN: usize = 20;

#[derive(Serialize)]
struct Range {
    offset: u64,
    length: u64,
}

#[derive(Serialize)]
struct DiskDiff {
    name: String,
    /// Bytes; none where that point has no such disk.
    from_size: Option<u64>,
    to_size: Option<u64>,
    equal: bool,
    bytes_differing: u64,
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct PointDiff {
    from: String,
    to: String,
    equal: bool,
    disks: Vec<DiskDiff>,
}

/// Compares two points.
pub(super) async fn run(app: &App, args: &PointDiffArgs) -> Result<Answer, CliError> {
    let vault = app.open_for_reading("point diff", None).await?;
    let points = app.points(&vault).await?;
    let from = &app.resolve(&points, &args.from)?.manifest;
    let to = &app.resolve(&points, &args.to)?.manifest;
    let mut pairs = pair(from, to);
    if let Some(name) = &args.disk {
        pairs.retain(|(a, b)| [a, b].into_iter().flatten().any(|disk| disk.name == *name));
        if pairs.is_empty() {
            return Err(VaultError::NotThere {
                what: "disk",
                name: name.clone(),
            }
            .into());
        }
    }
    let mut disks = Vec::with_capacity(pairs.len());
    for pair in pairs {
        disks.push(Box::pin(compare(&vault, pair)).await?);
    }
    let equal = disks.iter().all(|disk| disk.equal);
    let shown = PointDiff {
        from: from.point.to_string(),
        to: to.point.to_string(),
        equal,
        disks,
    };
    Ok(app.screen.answer(&shown, || text(&shown)))
}

type Pair<'a> = (Option<&'a ManifestDisk>, Option<&'a ManifestDisk>);

/// Which disks belong together: by name, and one disk with one disk whatever its name.
fn pair<'a>(from: &'a Manifest, to: &'a Manifest) -> Vec<Pair<'a>> {
    if let ([a], [b]) = (from.disks.as_slice(), to.disks.as_slice()) {
        return vec![(Some(a), Some(b))];
    }
    let in_to = |name: &str| to.disks.iter().find(|disk| disk.name == name);
    let only_to = to
        .disks
        .iter()
        .filter(|disk| !from.disks.iter().any(|other| other.name == disk.name));
    let pairs = from.disks.iter().map(|disk| (Some(disk), in_to(&disk.name)));
    pairs.chain(only_to.map(|disk| (None, Some(disk)))).collect()
}

async fn compare(vault: &OpenVault, (from, to): Pair<'_>) -> Result<DiskDiff, CliError> {
    let name = to.or(from).map(|disk| disk.name.clone()).unwrap_or_default();
    let (from_size, to_size) = (from.map(|disk| disk.root.size), to.map(|disk| disk.root.size));
    let ranges = match (from, to) {
        (Some(from), Some(to)) => {
            let source: Arc<dyn NodeSource> = Arc::clone(&vault.reader) as _;
            let tree = |disk: &ManifestDisk| Tree::new(disk.root, vault.vault.ids.clone(), Arc::clone(&source));
            diff(&tree(from), &tree(to))
                .await
                .doing(|| format!("could not compare disk {name}"))?
        }
        (Some(only), None) | (None, Some(only)) => vec![(0, only.root.size)],
        (None, None) => Vec::new(),
    };
    let bytes_differing = ranges.iter().map(|(_, length)| length).sum();
    let equal = ranges.is_empty();
    let ranges = ranges
        .into_iter()
        .map(|(offset, length)| Range { offset, length })
        .collect();
    Ok(DiskDiff {
        name,
        from_size,
        to_size,
        equal,
        bytes_differing,
        ranges,
    })
}

fn text(shown: &PointDiff) -> String {
    let mut lines = Vec::new();
    for disk in &shown.disks {
        let name = human::plain(&disk.name);
        match (disk.from_size, disk.to_size) {
            (Some(_), None) => lines.push(format!("{name}: only in {}", shown.from)),
            (None, Some(_)) => lines.push(format!("{name}: only in {}", shown.to)),
            _ if disk.equal => lines.push(format!("{name}: equal")),
            _ => {
                let count = disk.ranges.len() as u64;
                lines.push(format!(
                    "{name}: {} differ in {} ranges",
                    human::size(disk.bytes_differing),
                    human::count(count)
                ));
                lines.extend(
                    disk.ranges
                        .iter()
                        .take(RANGES_SHOWN)
                        .map(|range| format!("  {}+{}", range.offset, range.length)),
                );
                if disk.ranges.len() > RANGES_SHOWN {
                    lines.push(format!(
                        "  and {} more; --json names all",
                        disk.ranges.len() - RANGES_SHOWN
                    ));
                }
            }
        }
    }
    lines.join("\n")
}
