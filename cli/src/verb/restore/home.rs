//! `tresor restore` by this home.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tresor_proto::v1::NoteRestoreRequest;
use tresor_storage::Kind;
use tresor_storage::manifest::Manifest;
use tresor_worker::WorkerError;
use tresor_worker::control::home::HomeControl;
use tresor_worker::control::{Control as _, OpenSession};
use tresor_worker::home::{self, OpenVault};
use tresor_worker::progress::Progress;
use tresor_worker::restore::{self, Damage, Existing, Placed, RestoreOutcome, RestoreRequest, merge_gap};

use crate::app::App;
use crate::args::RestoreArgs;
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::human;
use crate::metrics::Requests;
use crate::screen::Answer;

/// Damaged ranges that are named to people; `--json` has all.
const DAMAGE_SHOWN: usize = 20;

#[derive(Serialize)]
pub(super) struct DamageShown {
    offset: u64,
    length: u64,
    why: String,
}

#[derive(Serialize)]
pub(super) struct DiskShown {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) format: String,
    pub(super) size: u64,
    pub(super) bytes_written: u64,
    pub(super) bytes_equal: u64,
    pub(super) bytes_fetched: u64,
    pub(super) damage: Vec<DamageShown>,
}

#[derive(Serialize)]
struct RestoreShown {
    point: String,
    item: String,
    disks: Vec<DiskShown>,
    requests: Requests,
    elapsed_ms: u64,
}

#[derive(Serialize)]
struct DiskPreview {
    name: String,
    path: String,
    format: &'static str,
    size: u64,
    exists: bool,
    bytes_data: u64,
    bytes_fetched: u64,
    requests: u64,
    packs: u64,
}

#[derive(Serialize)]
struct PreviewShown {
    point: String,
    item: String,
    dry_run: bool,
    disks: Vec<DiskPreview>,
}

/// Restores, or says what a restore would do.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, args: &RestoreArgs) -> Result<Answer, CliError> {
    let begun = Instant::now();
    app.refuse_detach(&args.detach)?;
    app.refuse_worker(args.worker.as_deref())?;
    let vault = app.open_for_reading("restore", None).await?;
    let points = app.points(&vault).await?;
    let manifest = &app.resolve(&points, &args.point)?.manifest;
    let disks = restore::choose_disks(manifest, &args.disks)?;
    let work = restore::place_disks(disks, &args.to, args.format());
    let existing = Existing::of(args.overwrite, args.in_place);
    // A dry run also says what would be restored over something.
    if !args.dry_run || existing == Existing::InPlace {
        restore::refuse_wrong_targets(&work, existing)?;
    }
    if args.dry_run {
        return preview(app, &vault, manifest, &work).await;
    }
    note(app, args, manifest).await;
    restore::make_folder(&work, &args.to).map_err(|source| WorkerError::Sink {
        disk: work.first().map_or_else(String::new, |work| work.disk.name.clone()),
        source,
    })?;

    let (_signals, cancel) = app.signals()?;
    let control = HomeControl::reading(Arc::clone(&vault.vault));
    let session = control
        .open_session(OpenSession {
            pins: vec![manifest.point],
            writes: false,
        })
        .await?;
    let mut shown = Vec::with_capacity(work.len());
    let mut failed = None;
    for work in &work {
        match one(app, args, &vault, work, &cancel)
            .await
            .doing(|| format!("could not restore disk {} of {}", work.disk.name, manifest.item_name))
        {
            Ok(outcome) => shown.push(disk_shown(work, outcome)),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    control.close_session(session.session).await;
    if let Some(error) = failed {
        return Err(as_damage(error, manifest));
    }
    let shown = RestoreShown {
        point: manifest.point.to_string(),
        item: manifest.item_name.clone(),
        disks: shown,
        requests: vault.counters.snapshot().into(),
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let damaged = tell_damage(app, args, &shown);
    let answer = app.screen.answer(&shown, || text(&shown));
    Ok(if damaged {
        answer.with_code(Code::Damage)
    } else {
        answer
    })
}

/// Has the node's audit trail say that this process restores a point by itself. Getting data back does not wait for the trail: where the node cannot be
/// had, that is said.
async fn note(app: &App, args: &RestoreArgs, manifest: &Manifest) {
    let Some(node) = app.node_of_home() else { return };
    let path = std::path::absolute(&args.to).unwrap_or_else(|_| args.to.clone());
    let request = NoteRestoreRequest {
        point: manifest.point.to_string(),
        host: home::host_name(),
        path: path.to_string_lossy().into_owned(),
        allow_damage: args.allow_damage,
        ..Default::default()
    };
    if let Err(error) = node.note_restore(request).await {
        app.screen
            .say(&format!("warning: the audit trail does not have this restore: {error}"));
    }
}

async fn one(
    app: &App,
    args: &RestoreArgs,
    vault: &OpenVault,
    work: &Placed<'_>,
    cancel: &CancellationToken,
) -> Result<RestoreOutcome, CliError> {
    let disk = work.disk.name.clone();
    let sink = tokio::select! {
        sink = restore::open_target(work, Existing::of(args.overwrite, args.in_place)) => sink?,
        () = cancel.cancelled() => return Err(CliError::Interrupted),
    };
    let progress = Arc::new(Progress::default());
    let _watch = app.screen.watch(&disk, Arc::clone(&progress));
    let request = RestoreRequest {
        disk,
        root: work.disk.root,
        sink,
        in_place: args.in_place,
        allow_damage: args.allow_damage,
        merge_gap: merge_gap(&vault.url),
        cores: app.settings.cores.value,
        progress,
        cancel: cancel.clone(),
    };
    Ok(Box::pin(restore::run(&vault.reader, request)).await?)
}

/// What a point needs and is missing or wrong is damage, not a wrong question.
fn as_damage(error: CliError, manifest: &Manifest) -> CliError {
    if is_lost(&error) {
        return CliError::Damage {
            what: format!("point {} of {}", manifest.point, manifest.item_name),
            source: Box::new(error),
        };
    }
    error
}

fn is_lost(error: &CliError) -> bool {
    match error {
        CliError::While { source, .. } => is_lost(source),
        CliError::Storage(error) | CliError::Worker(WorkerError::Storage(error)) => {
            matches!(error.kind(), Kind::Missing | Kind::Corrupt)
        }
        _ => false,
    }
}

fn disk_shown(work: &Placed<'_>, outcome: RestoreOutcome) -> DiskShown {
    let damage = outcome
        .damage
        .into_iter()
        .map(|Damage { offset, length, why }| DamageShown { offset, length, why });
    DiskShown {
        name: work.disk.name.clone(),
        path: work.target.path.display().to_string(),
        format: work.target.format.name().to_owned(),
        size: work.disk.root.size,
        bytes_written: outcome.bytes_written,
        bytes_equal: outcome.bytes_equal,
        bytes_fetched: outcome.bytes_fetched,
        damage: damage.collect(),
    }
}

/// Names damaged ranges at standard error; says whether there are any.
fn tell_damage(app: &App, args: &RestoreArgs, shown: &RestoreShown) -> bool {
    let mut damaged = false;
    for disk in shown.disks.iter().filter(|disk| !disk.damage.is_empty()) {
        damaged = true;
        let bytes: u64 = disk.damage.iter().map(|damage| damage.length).sum();
        let what = match (args.allow_damage, args.in_place) {
            (false, _) => "and it is not complete",
            (true, false) => "which are zeros now",
            (true, true) => "which are as they were",
        };
        let (name, count) = (human::plain(&disk.name), disk.damage.len());
        app.screen.say(&format!(
            "error: disk {name} has {count} damaged ranges ({}), {what}:",
            human::size(bytes)
        ));
        for damage in disk.damage.iter().take(DAMAGE_SHOWN) {
            app.screen.say(&format!(
                "  {}+{}: {}",
                damage.offset,
                damage.length,
                human::plain(&damage.why)
            ));
        }
        if count > DAMAGE_SHOWN {
            app.screen
                .say(&format!("  and {} more; --json names all", count - DAMAGE_SHOWN));
        }
    }
    if damaged {
        let vault = &app.settings.vault.value;
        let more = if args.allow_damage {
            ""
        } else {
            "; --allow-damage restores the rest"
        };
        app.screen
            .say(&format!("hint: tresor vault verify {vault} --level contents{more}"));
    }
    damaged
}

fn text(shown: &RestoreShown) -> String {
    let mut text = String::new();
    for disk in &shown.disks {
        let equal = if disk.bytes_equal > 0 {
            format!(", {} were there", human::size(disk.bytes_equal))
        } else {
            String::new()
        };
        text.push_str(&format!(
            "{} ({}) to {}: {} written{equal}, {} fetched\n",
            human::plain(&disk.name),
            human::size(disk.size),
            disk.path,
            human::size(disk.bytes_written),
            human::size(disk.bytes_fetched),
        ));
    }
    text.push_str(&format!(
        "{} of point {} in {}",
        human::plain(&shown.item),
        shown.point,
        human::elapsed(shown.elapsed_ms)
    ));
    text
}

async fn preview(app: &App, vault: &OpenVault, manifest: &Manifest, work: &[Placed<'_>]) -> Result<Answer, CliError> {
    let mut disks = Vec::with_capacity(work.len());
    for Placed { disk, target, exists } in work {
        let preview = Box::pin(restore::preview(&vault.reader, disk.root, merge_gap(&vault.url))).await;
        let preview = preview.doing(|| format!("could not plan the restore of disk {}", disk.name));
        let preview = preview.map_err(|error| as_damage(error, manifest))?;
        disks.push(DiskPreview {
            name: disk.name.clone(),
            path: target.path.display().to_string(),
            format: target.format.name(),
            size: disk.root.size,
            exists: *exists,
            bytes_data: preview.bytes_data,
            bytes_fetched: preview.bytes_fetched,
            requests: preview.requests,
            packs: preview.packs,
        });
    }
    let shown = PreviewShown {
        point: manifest.point.to_string(),
        item: manifest.item_name.clone(),
        dry_run: true,
        disks,
    };
    Ok(app.screen.answer(&shown, || preview_text(&shown, &manifest.time)))
}

fn preview_text(shown: &PreviewShown, time: &str) -> String {
    let mut text = format!(
        "would restore {} as of {time} (point {}):",
        human::plain(&shown.item),
        shown.point
    );
    for disk in &shown.disks {
        let there = if disk.exists { ", which exists" } else { "" };
        text.push_str(&format!(
            "\n{} ({}, {} of data) as {} to {}{there}: {} in {} requests from {} packs",
            human::plain(&disk.name),
            human::size(disk.size),
            human::size(disk.bytes_data),
            disk.format,
            disk.path,
            human::size(disk.bytes_fetched),
            human::count(disk.requests),
            human::count(disk.packs),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tresor_storage::FormatError;
    use tresor_storage::backend::BackendError;
    use tresor_worker::sink::SinkError;

    #[test]
    fn a_lost_pack_is_damage_and_an_unreachable_store_is_not() {
        let lost = CliError::from(BackendError::NotFound {
            name: String::from("packs/x"),
        });
        let lost = Err::<(), _>(lost)
            .doing(|| String::from("could not restore"))
            .expect_err("an error stays one");
        assert!(is_lost(&lost));
        assert!(is_lost(&CliError::from(FormatError::Checksum { what: "frame" })));
        let silent = BackendError::Unavailable {
            operation: "read",
            name: String::from("packs/x"),
            source: "timed out".into(),
        };
        assert!(!is_lost(&CliError::from(silent)));
        let missing = SinkError::Missing { path: "/t".into() };
        assert!(!is_lost(&CliError::from(WorkerError::Sink {
            disk: String::from("vda"),
            source: missing
        })));
    }

    #[test]
    fn the_text_of_a_dry_run() {
        let shown = PreviewShown {
            point: "ab".repeat(16),
            item: String::from("web-03"),
            dry_run: true,
            disks: vec![DiskPreview {
                name: String::from("vda"),
                path: String::from("/t/vda.qcow2"),
                format: "qcow2",
                size: 20 << 30,
                exists: true,
                bytes_data: 3 << 30,
                bytes_fetched: 1 << 30,
                requests: 1234,
                packs: 33,
            }],
        };
        insta::assert_snapshot!(preview_text(&shown, "2026-03-10T12:00:00Z"), @"
        would restore web-03 as of 2026-03-10T12:00:00Z (point abababababababababababababababab):
        vda (20.0 GiB, 3.0 GiB of data) as qcow2 to /t/vda.qcow2, which exists: 1.0 GiB in 1 234 requests from 33 packs
        ");
    }
}
