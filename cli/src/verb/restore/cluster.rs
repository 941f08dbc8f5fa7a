//! `tresor restore` in a cluster: a worker writes the disks.

use serde::Serialize;
use tresor_proto::v1::{DiskReport, Job, StartRestoreRequest};
use tresor_worker::source::DiskFormat;

use super::home::DiskShown;
use crate::app::App;
use crate::args::RestoreArgs;
use crate::cluster::Cluster;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::metrics::Requests;
use crate::screen::Answer;
use crate::verb::hosts::settle_path;
use crate::verb::job::{Finished, finish};
use crate::verb::places::{Placed, parse_place};
use crate::verb::point::named_point;
use crate::verb::shown::some;

#[derive(Serialize)]
struct RestoreShown {
    point: String,
    item: Option<String>,
    vault: String,
    job: u64,
    worker: Option<String>,
    host: String,
    path: String,
    /// None where what was made is not told in detail any more.
    disks: Option<Vec<DiskShown>>,
    bytes_read: u64,
    bytes_logical: u64,
    requests: Requests,
    elapsed_ms: u64,
}

/// Has a point restored.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, cluster: &Cluster, args: &RestoreArgs) -> Result<Answer, CliError> {
    let request = request(app, cluster, args).await?;
    let doing = || format!("could not restore {}", human::plain(&args.point));
    let (host, path) = (request.host.clone(), request.path.clone());
    let job = cluster.start_restore(request).await.doing(doing)?;
    let finished = Box::pin(finish(app, cluster, job, args.detach.detach)).await;
    let job = match finished.doing(doing)? {
        Finished::Detached(answer) => return Ok(answer),
        Finished::Done(job) => *job,
    };
    let shown = shown(job, host, path);
    Ok(app.screen.answer(&shown, || text(&shown)))
}

async fn request(app: &App, cluster: &Cluster, args: &RestoreArgs) -> Result<StartRestoreRequest, CliError> {
    // What the service has no word for is not left out silently.
    for (given, option) in [(args.dry_run, "--dry-run"), (args.allow_damage, "--allow-damage")] {
        if given {
            return Err(app.not_in_cluster(option));
        }
    }
    let disk = match args.disks.as_slice() {
        [] => String::new(),
        [disk] => disk.clone(),
        _ => {
            return Err(CliError::usage_hint(
                "a job restores one disk, or all of them",
                "give --disk once, or not at all",
            ));
        }
    };
    let not_text = || {
        let to = args.to.display();
        CliError::usage(format!("{to}: a cluster only knows paths that are UTF-8"))
    };
    let placed = parse_place(args.to.to_str().ok_or_else(not_text)?)?;
    let host = match (args.worker.clone(), placed.host) {
        (Some(worker), Some(host)) if worker != host => {
            return Err(CliError::usage(format!("--to names host {host}, --worker {worker}")));
        }
        (worker, host) => worker.or(host),
    };
    let there = placed.there;
    let (host, path) = settle_path(cluster, Placed { host, there }).await?;
    Ok(StartRestoreRequest {
        point: named_point(app, cluster, &args.point).await?,
        disk,
        host,
        path: path.to_str().ok_or_else(not_text)?.to_owned(),
        format: args.format().map(DiskFormat::name).unwrap_or_default().to_owned(),
        overwrite: args.overwrite,
        in_place: args.in_place,
        ..Default::default()
    })
}

fn shown(job: Job, host: String, path: String) -> RestoreShown {
    let counts = job.counts.unwrap_or_default();
    let disk = |disk: DiskReport| DiskShown {
        name: disk.name,
        path: disk.path,
        format: disk.format,
        size: disk.size,
        bytes_written: disk.bytes_written,
        bytes_equal: disk.bytes_equal,
        bytes_fetched: disk.bytes_fetched,
        // A job does not end well with any.
        damage: Vec::new(),
    };
    RestoreShown {
        point: job.point,
        item: some(job.item),
        vault: job.vault,
        job: job.id,
        worker: job.attempts.last().map(|attempt| attempt.worker.clone()),
        host,
        path,
        disks: job.report.map(|report| report.disks.into_iter().map(disk).collect()),
        requests: Requests::from(&counts),
        bytes_read: counts.bytes_read,
        bytes_logical: counts.bytes_logical,
        elapsed_ms: counts.took_ms,
    }
}

fn text(shown: &RestoreShown) -> String {
    human::plain(&format!(
        "{} of point {} is restored to {}:{}: {} of disk, {} read, in {}",
        shown.item.as_deref().unwrap_or("all"),
        shown.point,
        shown.host,
        shown.path,
        human::size(shown.bytes_logical),
        human::size(shown.bytes_read),
        human::elapsed(shown.elapsed_ms)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tresor_proto::v1::JobCounts;

    #[test]
    fn the_text_of_a_restore_by_a_cluster() {
        let job = Job {
            id: 813,
            item: String::from("web-03"),
            point: "ab".repeat(16),
            counts: Some(JobCounts {
                bytes_read: 3 << 30,
                bytes_logical: 20 << 30,
                took_ms: 61_000,
                ..Default::default()
            }),
            ..Default::default()
        };
        let shown = shown(job, String::from("kvm-7"), String::from("/vm/web.qcow2"));
        insta::assert_snapshot!(text(&shown), @"web-03 of point abababababababababababababababab is restored to kvm-7:/vm/web.qcow2: 20.0 GiB of disk, 3.0 GiB read, in 1 min 01 s");
    }
}
