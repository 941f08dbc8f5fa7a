//! `tresor backup` by this home.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use tresor_storage::backend::Counters;
use tresor_storage::ids::ItemId;
use tresor_storage::manifest::Consistency;
use tresor_worker::WorkerError;
use tresor_worker::backup::{self, BackupCounts, BackupDisk, BackupOutcome, BackupRequest, Changes, Steering};
use tresor_worker::home::{self, MAIN, find_item, newest_of};
use tresor_worker::progress::Progress;
use tresor_worker::source::{self, SourceError, SourceSpec};

use crate::app::App;
use crate::args::BackupArgs;
use crate::cluster::Cluster;
use crate::embedded::adopt;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::metrics::{self, BackupRun, Requests};
use crate::screen::Answer;
use crate::verb::disks::{NamedDisk, item_name, parse_disks};
use crate::verb::places::parse_placed_disks;

#[derive(Serialize)]
pub(super) struct DiskShown {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) root: String,
}

#[derive(Serialize)]
struct BackupShown {
    point: String,
    item: String,
    item_id: String,
    vault: String,
    time: String,
    consistency: &'static str,
    live: bool,
    disks: Vec<DiskShown>,
    bytes_read: u64,
    bytes_new: u64,
    bytes_stored: u64,
    chunks_new: u64,
    chunks_known: u64,
    requests: Requests,
    elapsed_ms: u64,
}

/// What is to be done, as far as the command line alone tells.
struct Plan {
    disks: Vec<NamedDisk>,
    item: String,
    keep_until: Option<String>,
}

/// Makes a backup, and leaves its numbers where they are wanted, whether it succeeds or not.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, args: &BackupArgs) -> Result<Answer, CliError> {
    let begun = Instant::now();
    let plan = plan(app, args)?;
    let mut store = None;
    let result = make(app, args, &plan, &mut store).await;
    let took = begun.elapsed();
    let requests = store.map_or_else(Requests::default, |counters: Arc<Counters>| counters.snapshot().into());
    if let Some(path) = app.settings.metrics_file.value.as_deref() {
        let failure = result.as_ref().err().map(CliError::failure);
        let counts = result.as_ref().ok().map(|(outcome, _)| outcome.counts);
        let ended = Timestamp::now().as_second();
        leave_metrics(
            app,
            path,
            &BackupRun {
                ended,
                seconds: took.as_secs_f64(),
                failure,
                counts,
                requests,
            },
        );
    }
    let (outcome, vault) = result?;
    let elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let shown = shown(&outcome, vault, requests, elapsed_ms);
    Ok(app.screen.answer(&shown, || {
        if app.screen.is_terminal() {
            text(&shown)
        } else {
            shown.point.clone()
        }
    }))
}

/// A backup that is made is made, whatever becomes of its numbers.
pub(super) fn leave_metrics(app: &App, path: &Path, run: &BackupRun) {
    if let Err(error) = metrics::write(path, run) {
        app.screen.say(&format!("warning: no metrics: {}", error.chain()));
    }
}

/// Refuses what no home can back up: it has no node yet that could know an item's disks.
///
/// # Errors
/// By cause.
pub(super) fn check(app: &App, args: &BackupArgs) -> Result<(), CliError> {
    // Nobody would go on with the job: what this process is the node for ends with it.
    app.refuse_detach(&args.detach)?;
    app.refuse_worker(args.worker.as_deref())?;
    if args.disks.is_empty() {
        return Err(CliError::usage_hint(
            "no disk is given: this home does not know where an item's disks are",
            "tresor backup DISK… --item NAME",
        ));
    }
    check_disks(app, args)
}

/// Refuses what is wrong whoever reads the disks, and disks of this host that are not there.
///
/// # Errors
/// By cause.
pub(super) fn check_disks(app: &App, args: &BackupArgs) -> Result<(), CliError> {
    let disks = parse_placed_disks(&args.disks, None)?.there;
    if !disks.is_empty() {
        item_name(args.item.as_deref(), &disks)?;
    }
    keep_until(app, args)?;
    for disk in disks {
        let is_url = disk.path.to_string_lossy().contains("://");
        if !is_url
            && let Err(error) = std::fs::metadata(&disk.path)
            && error.kind() == std::io::ErrorKind::NotFound
        {
            let source = SourceError::Missing { path: disk.path };
            return Err(WorkerError::Source {
                disk: disk.name,
                source,
            }
            .into());
        }
    }
    Ok(())
}

/// Until when the point is to be kept, RFC 3339.
///
/// # Errors
/// [`CliError::Usage`].
pub(super) fn keep_until(app: &App, args: &BackupArgs) -> Result<Option<String>, CliError> {
    let until = args
        .keep_until
        .as_deref()
        .map(|text| human::parse_keep_until(text, app.now));
    until
        .transpose()
        .map_err(|why| CliError::usage(format!("--keep-until: {why}")))
}

fn plan(app: &App, args: &BackupArgs) -> Result<Plan, CliError> {
    // Before a vault is made for it, and before anybody is asked for a passphrase.
    check(app, args)?;
    let disks = parse_disks(&args.disks)?;
    let item = item_name(args.item.as_deref(), &disks)?;
    Ok(Plan {
        disks,
        item,
        keep_until: keep_until(app, args)?,
    })
}

async fn make(
    app: &App,
    args: &BackupArgs,
    plan: &Plan,
    store: &mut Option<Arc<Counters>>,
) -> Result<(BackupOutcome, String), CliError> {
    let home = app.home("backup")?;
    app.refuse_store(&app.settings.vault.value)?;
    let name = match app.chosen_vault(&home, None)? {
        Some(name) if name != MAIN => name,
        _ => first_vault(app, &home).await?,
    };
    let vault = app.open_for_writing(&home, &name).await?;
    *store = Some(Arc::clone(&vault.open.counters));
    let points = &vault.points;
    let known = find_item(&points.points, &plan.item)?;
    let parent = known
        .and_then(|item| newest_of(&points.points, item))
        .map(|point| point.manifest.clone());

    let (_signals, cancel) = app.signals()?;
    let disks = tokio::select! {
        disks = open_disks(args, &plan.disks) => disks?,
        () = cancel.cancelled() => return Err(CliError::Interrupted),
    };
    let request = BackupRequest {
        item: known.unwrap_or_else(ItemId::random),
        item_name: plan.item.clone(),
        disks,
        parent,
        time: human::time(Timestamp::now()),
        keep_until: plan.keep_until.clone(),
        consistency: Consistency::Crash,
        consistency_reason: String::from(backup::UNAIDED),
        allow_live: args.allow_live,
        effort: app.settings.effort(),
    };
    let progress = Arc::new(Progress::default());
    let watch = app.screen.watch(&plan.item, Arc::clone(&progress));
    let running = backup::run(&vault.engine, request, Steering { progress, cancel });
    let result = Box::pin(running)
        .await
        .doing(|| format!("could not back up {}", plan.item));
    drop(watch);
    Ok((result?, name))
}

/// Sees to it that the vault which is meant is the node's, and makes it in a home that has none. Also where another command is doing the same: neither
/// the vault's name in the home nor its being known to the node says that it is ready.
///
/// # Errors
/// By cause.
pub(super) async fn vault_of_node(app: &App, node: &Cluster) -> Result<(), CliError> {
    let home = app.home("backup")?;
    let name = if home.vaults()?.is_empty() {
        Box::pin(first_vault(app, &home)).await?
    } else {
        match app.chosen_vault(&home, None)? {
            Some(name) => name,
            // Of several none is meant: the node says so.
            None => return Ok(()),
        }
    };
    Box::pin(adopt(app, &home, node, &name)).await
}

/// Makes the vault of a home that has none.
///
/// # Errors
/// By cause.
pub(crate) async fn first_vault(app: &App, home: &home::Home) -> Result<String, CliError> {
    let making = home::ensure_main(home, &app.stores);
    let (entry, made) = Box::pin(making)
        .await
        .doing(|| String::from("could not make vault main"))?;
    if made {
        app.screen
            .note(&format!("made vault {} in {}", entry.name, home.root().display()));
        app.screen.note(&crate::verb::vault::kit_advice(&entry.name));
    }
    Ok(entry.name)
}

async fn open_disks(args: &BackupArgs, disks: &[NamedDisk]) -> Result<Vec<BackupDisk>, CliError> {
    let mut opened = Vec::with_capacity(disks.len());
    for NamedDisk { name, path } in disks {
        let spec = SourceSpec {
            path: absolute(path),
            format: args.source_format(),
            allow_live: args.allow_live,
            allow_backing: args.allow_backing,
        };
        let source = source::open(&spec).await.map_err(|source| WorkerError::Source {
            disk: name.clone(),
            source,
        })?;
        opened.push(BackupDisk {
            name: name.clone(),
            source,
            changes: Changes::Unknown,
        });
    }
    Ok(opened)
}

/// A path that no program it is handed to can take for an option or an URL.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn shown(outcome: &BackupOutcome, vault: String, requests: Requests, elapsed_ms: u64) -> BackupShown {
    let BackupOutcome { manifest, counts } = outcome;
    let BackupCounts {
        bytes_read,
        bytes_new,
        bytes_stored,
        chunks_new,
        chunks_known,
        ..
    } = *counts;
    let disk = |disk: &tresor_storage::manifest::ManifestDisk| DiskShown {
        name: disk.name.clone(),
        size: disk.root.size,
        root: disk.root.id.to_string(),
    };
    BackupShown {
        point: manifest.point.to_string(),
        item: manifest.item_name.clone(),
        item_id: manifest.item.to_string(),
        vault,
        time: manifest.time.clone(),
        consistency: manifest.consistency.name(),
        live: manifest.live,
        disks: manifest.disks.iter().map(disk).collect(),
        bytes_read,
        bytes_new,
        bytes_stored,
        chunks_new,
        chunks_known,
        requests,
        elapsed_ms,
    }
}

fn text(shown: &BackupShown) -> String {
    let size: u64 = shown.disks.iter().map(|disk| disk.size).sum();
    let live = if shown.live { ", read live" } else { "" };
    let mut text = format!(
        "{} is backed up in vault {}: point {} ({}-consistent{live})\n",
        human::plain(&shown.item),
        shown.vault,
        shown.point,
        shown.consistency
    );
    let disks: Vec<String> = shown
        .disks
        .iter()
        .map(|disk| format!("{} {}", human::plain(&disk.name), human::size(disk.size)))
        .collect();
    let rate = human::size(size * 1000 / shown.elapsed_ms.max(1));
    text.push_str(&format!("disks    {}\n", disks.join(", ")));
    text.push_str(&format!(
        "read     {} in {}, {rate}/s of disk\n",
        human::size(shown.bytes_read),
        human::elapsed(shown.elapsed_ms)
    ));
    text.push_str(&format!(
        "new      {} in {} chunks; {} known\n",
        human::size(shown.bytes_new),
        human::count(shown.chunks_new),
        human::count(shown.chunks_known)
    ));
    text.push_str(&format!(
        "stored   {} with {} puts",
        human::size(shown.bytes_stored),
        human::count(shown.requests.put)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_backup() {
        let shown = BackupShown {
            point: "ab".repeat(16),
            item: String::from("web-03"),
            item_id: "cd".repeat(16),
            vault: String::from("main"),
            time: String::from("2026-03-10T12:00:00Z"),
            consistency: "crash",
            live: false,
            disks: vec![DiskShown {
                name: String::from("vda"),
                size: 20 << 30,
                root: "ef".repeat(32),
            }],
            bytes_read: 3 << 30,
            bytes_new: 210 << 20,
            bytes_stored: 88 << 20,
            chunks_new: 7_512,
            chunks_known: 104_233,
            requests: Requests {
                put: 5,
                ..Default::default()
            },
            elapsed_ms: 12_345,
        };
        insta::assert_snapshot!(text(&shown), @"
        web-03 is backed up in vault main: point abababababababababababababababab (crash-consistent)
        disks    vda 20.0 GiB
        read     3.0 GiB in 12.3 s, 1.6 GiB/s of disk
        new      210.0 MiB in 7 512 chunks; 104 233 known
        stored   88.0 MiB with 5 puts
        ");
    }
}
