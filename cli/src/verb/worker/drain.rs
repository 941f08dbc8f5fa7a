//! `tresor worker drain` and `undrain`.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tresor_proto::v1::{self, DrainWorkerRequest, GetWorkerRequest};

use super::WorkerShown;
use crate::app::App;
use crate::args::WorkerDrainArgs;
use crate::cluster::Cluster;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

/// How often a worker is looked at that is waited for: slots move once a minute, and jobs end in minutes.
const LOOK: Duration = Duration::from_secs(2);
/// How long somebody is waited for who could take its slots: a worker that restarts is there again by then.
const NOBODY: Duration = Duration::from_secs(60);

/// Drains a worker, and waits until it has nothing if that was asked for.
pub(super) async fn drain(app: &App, args: &WorkerDrainArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("worker drain")?;
    let name = human::plain(&args.name);
    let doing = || format!("could not drain {name}");
    let mut worker = asks(&cluster, &args.name, true).await.doing(doing)?;
    if args.wait {
        worker = wait(app, &cluster, worker).await.doing(doing)?;
    }
    let text = waits_for(&worker);
    let worker = WorkerShown::from(worker);
    Ok(app.screen.answer(&worker, || human::plain(&text)))
}

/// Gives a worker work again.
pub(super) async fn undrain(app: &App, name: &str) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("worker undrain")?;
    let worker = asks(&cluster, name, false).await;
    let worker = WorkerShown::from(worker.doing(|| format!("could not undrain {}", human::plain(name)))?);
    Ok(app.screen.answer(&worker, || {
        human::plain(&format!("worker {} gets work again", worker.worker))
    }))
}

async fn asks(cluster: &Cluster, name: &str, drained: bool) -> Result<v1::Worker, CliError> {
    let request = DrainWorkerRequest {
        name: name.to_owned(),
        drained,
        ..Default::default()
    };
    Ok(cluster.drain_worker(request).await?)
}

fn is_empty(worker: &v1::Worker) -> bool {
    worker.running == 0 && worker.slots == 0
}

/// What a drained worker still has, in a sentence.
fn waits_for(worker: &v1::Worker) -> String {
    let mut left = Vec::new();
    if worker.running > 0 {
        left.push(human::many(worker.running as usize, "job"));
    }
    if worker.slots > 0 {
        let slots = format!("{} of the index", human::many(worker.slots as usize, "slot"));
        left.push(match worker.takers {
            Some(0) => format!("{slots}, which no other worker that is here takes"),
            _ => format!("{slots}, of which 256 move in a minute"),
        });
    }
    match left.as_slice() {
        [] => format!("worker {} gets no work, and has none", worker.name),
        left => format!(
            "worker {} gets no new work; it still has {}",
            worker.name,
            left.join(" and ")
        ),
    }
}

/// Waits until a worker has no jobs and no slots.
async fn wait(app: &App, cluster: &Cluster, mut worker: v1::Worker) -> Result<v1::Worker, CliError> {
    let mut told = String::new();
    let mut nobody_since: Option<Instant> = None;
    while !is_empty(&worker) {
        let text = waits_for(&worker);
        if text != told {
            app.screen.note(&human::plain(&text));
            told = text;
        }
        let is_stuck = worker.running == 0 && worker.takers == Some(0);
        let since = is_stuck.then(|| *nobody_since.get_or_insert_with(Instant::now));
        nobody_since = since;
        if since.is_some_and(|since| since.elapsed() >= NOBODY) {
            let name = human::plain(&worker.name);
            return Err(CliError::usage_hint(
                format!(
                    "no other worker takes the {} slots of the index that it has",
                    worker.slots
                ),
                format!("let another worker serve slots, or: tresor worker remove {name} --force"),
            ));
        }
        sleep(LOOK).await;
        let request = GetWorkerRequest {
            name: worker.name.clone(),
        };
        worker = cluster.get_worker(request).await?;
    }
    Ok(worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_says_what_it_waits_for() {
        let worker = |running, slots, takers| v1::Worker {
            name: String::from("kvm-7"),
            running,
            slots,
            takers: Some(takers),
            ..Default::default()
        };
        let said = [(0, 0, 1), (2, 0, 1), (1, 4096, 3), (0, 7, 0)]
            .map(|(running, slots, takers)| waits_for(&worker(running, slots, takers)))
            .join("\n");
        insta::assert_snapshot!(said, @"
        worker kvm-7 gets no work, and has none
        worker kvm-7 gets no new work; it still has 2 jobs
        worker kvm-7 gets no new work; it still has 1 job and 4 096 slots of the index, of which 256 move in a minute
        worker kvm-7 gets no new work; it still has 7 slots of the index, which no other worker that is here takes
        ");
    }
}
