//! `tresor backup` in a cluster: a job is queued, and waited for.

use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1::{
    CancelJobRequest, DiskReport, GetItemRequest, GetPointRequest, Item, ItemSpec, Job, JobCounts, ListJobsRequest,
    Point, ProtectItemRequest, StartBackupRequest, UpdateItemRequest,
};
use tresor_storage::Kind;
use tresor_storage::ids::hex;
use tresor_storage::vault::naming::check_item_name;
use tresor_worker::backup::BackupCounts;

use super::home::{DiskShown, keep_until, leave_metrics};
use crate::app::App;
use crate::args::BackupArgs;
use crate::cluster::{Cluster, ClusterError};
use crate::config::Origin;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::metrics::{BackupRun, Requests};
use crate::screen::Answer;
use crate::verb::disks::item_name;
use crate::verb::hosts::settle_disks;
use crate::verb::job::{Finished, finish, wait};
use crate::verb::places::{parse_placed_disks, wire_disks};
use crate::verb::shown::some;

/// Jobs of one item that are looked through for one that was left behind.
const LEFT_MAX: usize = 100;

#[derive(Serialize)]
struct BackupShown {
    point: String,
    item: String,
    item_id: Option<String>,
    vault: String,
    time: Option<String>,
    consistency: Option<String>,
    /// None where what was made is not told in detail any more.
    live: Option<bool>,
    disks: Option<Vec<DiskShown>>,
    job: u64,
    worker: Option<String>,
    bytes_read: u64,
    bytes_new: u64,
    bytes_stored: u64,
    bytes_logical: u64,
    chunks_new: u64,
    chunks_known: u64,
    requests: Requests,
    elapsed_ms: u64,
}

/// Has a backup made.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, cluster: &Cluster, args: &BackupArgs) -> Result<Answer, CliError> {
    let begun = Instant::now();
    let result = make(app, cluster, args).await;
    if let Some(path) = app.settings.metrics_file.value.as_deref() {
        let counts = match &result {
            Ok((_, counts)) => *counts,
            Err(_) => None,
        };
        let run = BackupRun {
            ended: Timestamp::now().as_second(),
            seconds: begun.elapsed().as_secs_f64(),
            failure: result.as_ref().err().map(CliError::failure),
            counts: counts.as_ref().map(backup_counts),
            requests: match &result {
                Ok(_) => counts.as_ref().map(Requests::from).unwrap_or_default(),
                Err(error) => requests_of(error),
            },
        };
        leave_metrics(app, path, &run);
    }
    result.map(|(answer, _)| answer)
}

/// What a failed backup asked of the store.
fn requests_of(error: &CliError) -> Requests {
    match error {
        CliError::While { source, .. } => requests_of(source),
        CliError::Cluster(ClusterError::JobFailed { requests, .. }) => **requests,
        _ => Requests::default(),
    }
}

fn backup_counts(counts: &JobCounts) -> BackupCounts {
    BackupCounts {
        bytes_read: counts.bytes_read,
        bytes_new: counts.bytes_new,
        bytes_stored: counts.bytes_stored,
        chunks_new: counts.chunks_new,
        chunks_known: counts.chunks_known,
        lookups: counts.lookups,
        segments_inherited: counts.segments_inherited,
        packs: counts.packs,
    }
}

/// Makes it; the numbers are those of a job that was waited for.
async fn make(app: &App, cluster: &Cluster, args: &BackupArgs) -> Result<(Answer, Option<JobCounts>), CliError> {
    let request = request(app, cluster, args).await?;
    let name = human::plain(&request.item);
    let doing = || format!("could not back up {name}");
    let job = start(app, cluster, request).await.doing(doing)?;
    let finished = Box::pin(finish(app, cluster, job, args.detach.detach)).await;
    let job = match finished.doing(doing)? {
        Finished::Detached(answer) => return Ok((answer, None)),
        Finished::Done(job) => *job,
    };
    let counts = job.counts;
    // The point is made, whatever becomes of this question.
    let point = cluster.get_point(GetPointRequest {
        name: job.point.clone(),
    });
    let shown = shown(job, point.await.ok());
    let answer = app.screen.answer(&shown, || {
        if app.screen.is_terminal() {
            text(&shown)
        } else {
            shown.point.clone()
        }
    });
    Ok((answer, counts))
}

/// Starts the job. In a home whose node this process is, one of the item that an earlier process left behind makes room first: what was asked then
/// need not be what is asked now.
async fn start(app: &App, cluster: &Cluster, request: StartBackupRequest) -> Result<Job, CliError> {
    if app.is_node() {
        for state in ["queued", "running"] {
            let asked = ListJobsRequest {
                item: request.item.clone(),
                vault: request.vault.clone(),
                state: state.to_owned(),
                ..Default::default()
            };
            let listed = match cluster.jobs(asked, Some(LEFT_MAX)).await {
                // Nobody has heard of the item: it has no job.
                Err(ClusterError::Refused(refusal)) if refusal.kind == Kind::Missing => break,
                listed => listed?,
            };
            let left = listed.rows.into_iter().find(|job| job.kind == "backup");
            if let Some(job) = left.filter(|job| app.is_left_over(job.id)) {
                end(app, cluster, job).await?;
            }
        }
    }
    Ok(cluster.start_backup(request).await?)
}

/// Cancels a job that was left over, and waits for its end: it has one once the worker of this process is registered.
async fn end(app: &App, cluster: &Cluster, job: Job) -> Result<(), CliError> {
    let cancelling = CancelJobRequest {
        id: job.id,
        ..Default::default()
    };
    match cluster.cancel_job(cancelling).await {
        // It has ended meanwhile.
        Err(ClusterError::Refused(_)) => {}
        cancelled => drop(cancelled?),
    }
    let job = Box::pin(wait(app, cluster, job)).await?;
    tracing::debug!(job = job.id, state = job.state, "a job that was left over has ended");
    Ok(())
}

async fn request(app: &App, cluster: &Cluster, args: &BackupArgs) -> Result<StartBackupRequest, CliError> {
    let keep_until = keep_until(app, args)?;
    let mut request = StartBackupRequest {
        vault: app.meant_vault(cluster)?,
        keep_until: keep_until.unwrap_or_default(),
        ..Default::default()
    };
    if args.disks.is_empty() {
        let item = args.item.clone().unwrap_or_default();
        check_item_name(&item).map_err(|error| CliError::usage(error.to_string()))?;
        if args.worker.is_some() || args.source_format().is_some() || args.allow_live || args.allow_backing {
            return Err(CliError::usage_hint(
                "how disks are read is the item's own where no DISK is given",
                "tresor item protect ITEM changes it",
            ));
        }
        request.item = item;
        return Ok(request);
    }
    let placed = parse_placed_disks(&args.disks, args.worker.as_deref())?;
    request.item = item_name(args.item.as_deref(), &placed.there)?;
    let (host, disks) = settle_disks(cluster, placed).await?;
    let spec = ItemSpec {
        name: request.item.clone(),
        vault: request.vault.clone(),
        host,
        disks: wire_disks(&disks, args.source_format())?,
        allow_live: args.allow_live,
        allow_backing: args.allow_backing,
        ..Default::default()
    };
    if !is_known(cluster, &request, &spec).await?
        && cluster.is_of_home()
        && app.settings.vault.origin != Origin::Default
    {
        // In another vault it may be, too: who names the vault asks for it in this one.
        let also = ProtectItemRequest {
            spec: Some(spec.clone()),
            also: true,
            // As for any item that a backup by hand enters: nobody asked for a schedule.
            no_policy: true,
            ..Default::default()
        };
        cluster.protect_item(also).await?;
    }
    request.spec = Some(spec);
    Ok(request)
}

/// Whether there is an item of that name. Refuses disks that a protected one does not have: the cluster would back up those that it has.
async fn is_known(cluster: &Cluster, request: &StartBackupRequest, spec: &ItemSpec) -> Result<bool, CliError> {
    let asked = GetItemRequest {
        name: request.item.clone(),
        vault: request.vault.clone(),
    };
    let known = match cluster.get_item(asked).await {
        Ok(item) if item.protected => item,
        Ok(_) => return Ok(true),
        Err(ClusterError::Refused(refusal)) if refusal.kind == Kind::Missing => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let Item {
        id,
        spec: known,
        version,
        ..
    } = known;
    let known = known.unwrap_or_default();
    if is_same(&known, spec) {
        return Ok(true);
    }
    if cluster.is_of_home() && known.policy.is_empty() {
        // It is what the last backup by hand said; no schedule reads those disks, so the item is what this one says.
        let changed = UpdateItemRequest {
            name: id,
            spec: Some(ItemSpec {
                host: spec.host.clone(),
                disks: spec.disks.clone(),
                allow_live: spec.allow_live,
                allow_backing: spec.allow_backing,
                ..known
            }),
            version,
            ..Default::default()
        };
        cluster.update_item(changed).await?;
        return Ok(true);
    }
    let places = known.disks.iter().map(|disk| format!("{}={}", disk.name, disk.path));
    let places: Vec<String> = places.collect();
    Err(CliError::usage_hint(
        human::plain(&format!("item {} has other disks: {}", known.name, places.join(", "))),
        "tresor backup --item ITEM backs those up; another --item makes another one",
    ))
}

/// Whether the same is read in the same way.
fn is_same(known: &ItemSpec, asked: &ItemSpec) -> bool {
    let host = known.host.is_empty() || known.host == asked.host;
    let ways = known.allow_live == asked.allow_live && known.allow_backing == asked.allow_backing;
    host && ways && known.disks == asked.disks
}

fn shown(job: Job, point: Option<Point>) -> BackupShown {
    let counts = job.counts.unwrap_or_default();
    let point = point.unwrap_or_default();
    let worker = job.attempts.last().map(|attempt| attempt.worker.clone());
    let disk = |disk: DiskReport| DiskShown {
        name: disk.name,
        size: disk.size,
        root: hex(&disk.root),
    };
    let live = job.report.as_ref().map(|report| report.live);
    BackupShown {
        point: job.point,
        item: job.item,
        item_id: some(point.item),
        vault: job.vault,
        time: some(point.time),
        consistency: some(point.consistency),
        live,
        disks: job.report.map(|report| report.disks.into_iter().map(disk).collect()),
        job: job.id,
        worker,
        bytes_read: counts.bytes_read,
        bytes_new: counts.bytes_new,
        bytes_stored: counts.bytes_stored,
        bytes_logical: counts.bytes_logical,
        chunks_new: counts.chunks_new,
        chunks_known: counts.chunks_known,
        requests: Requests::from(&counts),
        elapsed_ms: counts.took_ms,
    }
}

fn text(shown: &BackupShown) -> String {
    let live = if shown.live == Some(true) { ", read live" } else { "" };
    let consistency = match &shown.consistency {
        Some(consistency) => format!(" ({consistency}-consistent{live})"),
        None => String::new(),
    };
    let mut text = format!(
        "{} is backed up in vault {}: point {}{consistency}\n",
        human::plain(&shown.item),
        human::plain(&shown.vault),
        human::plain(&shown.point),
    );
    let rate = human::size(shown.bytes_logical.saturating_mul(1000) / shown.elapsed_ms.max(1));
    let disks = match &shown.disks {
        Some(disks) => {
            let named = |disk: &DiskShown| format!("{} {}", human::plain(&disk.name), human::size(disk.size));
            disks.iter().map(named).collect::<Vec<_>>().join(", ")
        }
        None => human::size(shown.bytes_logical),
    };
    text.push_str(&human::pairs(&[
        ("disks", disks),
        (
            "read",
            format!(
                "{} in {}, {rate}/s of disk",
                human::size(shown.bytes_read),
                human::elapsed(shown.elapsed_ms)
            ),
        ),
        (
            "new",
            format!(
                "{} in {} chunks; {} known",
                human::size(shown.bytes_new),
                human::count(shown.chunks_new),
                human::count(shown.chunks_known)
            ),
        ),
        (
            "stored",
            format!(
                "{} with {} puts",
                human::size(shown.bytes_stored),
                human::count(shown.requests.put)
            ),
        ),
        (
            "job",
            match &shown.worker {
                Some(worker) => format!("{} on {worker}", shown.job),
                None => shown.job.to_string(),
            },
        ),
    ]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tresor_proto::v1::{Attempt, Report};

    #[test]
    fn the_text_of_a_backup_by_a_cluster() {
        let job = Job {
            id: 812,
            item: String::from("web-03"),
            vault: String::from("main"),
            point: "ab".repeat(16),
            attempts: vec![Attempt {
                worker: String::from("kvm-7"),
                ..Default::default()
            }],
            counts: Some(JobCounts {
                bytes_read: 3 << 30,
                bytes_new: 210 << 20,
                bytes_stored: 88 << 20,
                bytes_logical: 20 << 30,
                took_ms: 12_345,
                chunks_new: 7_512,
                chunks_known: 104_233,
                puts: 5,
                ..Default::default()
            }),
            report: Some(Report {
                disks: vec![DiskReport {
                    name: String::from("vda"),
                    size: 20 << 30,
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let point = Point {
            consistency: String::from("crash"),
            ..Default::default()
        };
        insta::assert_snapshot!(text(&shown(job, Some(point))), @"
        web-03 is backed up in vault main: point abababababababababababababababab (crash-consistent)
        disks   vda 20.0 GiB
        read    3.0 GiB in 12.3 s, 1.6 GiB/s of disk
        new     210.0 MiB in 7 512 chunks; 104 233 known
        stored  88.0 MiB with 5 puts
        job     812 on kvm-7
        ");
    }
}
