//! `tresor worker …`.

use std::collections::BTreeMap;

use serde::Serialize;
use tresor_proto::v1::{self, DrainWorkerRequest, ListWorkersRequest, RemoveWorkerRequest};

use crate::app::App;
use crate::args::{WorkerRemoveArgs, WorkerVerb};
use crate::confirm::confirm;
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::shown::labels;

/// A difference of clocks that people are told of, milliseconds: half of what stops a coordinator from leading.
const CLOCK_SHOWN_MS: u64 = 30_000;

/// A worker as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct WorkerShown {
    worker: String,
    worker_id: u64,
    host: String,
    version: String,
    pub(crate) state: String,
    running: u32,
    permits: u32,
    labels: BTreeMap<String, String>,
    stores: Vec<String>,
    silent_ms: u64,
    clock_ms: i64,
}

#[derive(Serialize)]
struct Workers {
    workers: Vec<WorkerShown>,
}

#[derive(Serialize)]
struct Removed {
    worker: String,
    removed: bool,
}

impl From<v1::Worker> for WorkerShown {
    fn from(worker: v1::Worker) -> Self {
        Self {
            worker: worker.name,
            worker_id: worker.id,
            host: worker.host,
            version: worker.version,
            state: worker.state,
            running: worker.running,
            permits: worker.permits,
            labels: worker.labels,
            stores: worker.stores.iter().map(|url| human::url(url)).collect(),
            silent_ms: worker.silent_ms,
            clock_ms: worker.clock_ms,
        }
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: WorkerVerb) -> Result<Answer, CliError> {
    match verb {
        WorkerVerb::Start(args) => Box::pin(super::process::worker::run(app, args)).await,
        WorkerVerb::List => list(app).await,
        WorkerVerb::Drain(args) => drain(app, "worker drain", args.name, true).await,
        WorkerVerb::Undrain(args) => drain(app, "worker undrain", args.name, false).await,
        WorkerVerb::Remove(args) => remove(app, args).await,
    }
}

async fn list(app: &App) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("worker list")?;
    let listed = cluster
        .workers(ListWorkersRequest::default(), None)
        .await
        .doing(|| String::from("could not list workers"))?;
    let shown = Workers {
        workers: listed.rows.into_iter().map(WorkerShown::from).collect(),
    };
    Ok(app.screen.answer(&shown, || {
        if shown.workers.is_empty() {
            String::from("no workers; tresor cluster join-token create --role worker lets one join")
        } else {
            table(&shown.workers)
        }
    }))
}

async fn drain(app: &App, verb: &'static str, name: String, drained: bool) -> Result<Answer, CliError> {
    let request = DrainWorkerRequest {
        name: name.clone(),
        drained,
        ..Default::default()
    };
    let worker = app.need_cluster(verb)?.drain_worker(request).await;
    let worker = WorkerShown::from(worker.doing(|| format!("could not {} {name}", verb.replace("worker ", "")))?);
    Ok(app.screen.answer(&worker, || {
        human::plain(&match (drained, worker.running) {
            (false, _) => format!("worker {} gets work again", worker.worker),
            (true, 0) => format!("worker {} gets no work, and has none", worker.worker),
            (true, running) => format!("worker {} gets no new work; {running} jobs go on", worker.worker),
        })
    }))
}

async fn remove(app: &App, args: WorkerRemoveArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("worker remove")?;
    let name = human::plain(&args.name);
    confirm(
        &app.screen,
        args.yes,
        &format!("Worker {name} will be refused for good, and its jobs begin anew elsewhere. Remove it?"),
    )?;
    let request = RemoveWorkerRequest {
        name: args.name.clone(),
        ..Default::default()
    };
    let removed = cluster.remove_worker(request).await;
    removed.doing(|| format!("could not remove worker {name}"))?;
    let shown = Removed {
        worker: args.name,
        removed: true,
    };
    Ok(app.screen.answer(&shown, || format!("worker {name} is removed")))
}

/// What a clock's difference is worth saying: nothing where it is small.
pub(crate) fn clock(clock_ms: i64) -> String {
    if clock_ms.unsigned_abs() < CLOCK_SHOWN_MS {
        return String::new();
    }
    let way = if clock_ms < 0 { "behind" } else { "ahead" };
    format!("clock {} {way}", human::elapsed(clock_ms.unsigned_abs()))
}

/// Workers as a table.
pub(crate) fn table(workers: &[WorkerShown]) -> String {
    let mut table = Table::new(&["worker", "host", "state", ">jobs", "version", "labels", ""]);
    for worker in workers {
        let silent = if worker.state == "silent" {
            format!("not heard of for {}", human::elapsed(worker.silent_ms))
        } else {
            String::new()
        };
        let remarks: Vec<String> = [silent, clock(worker.clock_ms)]
            .into_iter()
            .filter(|remark| !remark.is_empty())
            .collect();
        table.row([
            worker.worker.clone(),
            worker.host.clone(),
            worker.state.clone(),
            format!("{} of {}", worker.running, worker.permits),
            worker.version.clone(),
            labels(&worker.labels),
            remarks.join(", "),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_workers_says_what_is_wrong_with_them() {
        let ready = v1::Worker {
            id: 4,
            name: String::from("kvm-7"),
            host: String::from("kvm-7.x.org"),
            version: String::from("0.1.0"),
            labels: BTreeMap::from([(String::from("site"), String::from("a"))]),
            permits: 4,
            running: 2,
            state: String::from("ready"),
            silent_ms: 900,
            clock_ms: -29_000,
            ..Default::default()
        };
        let silent = v1::Worker {
            name: String::from("kvm-8"),
            state: String::from("silent"),
            silent_ms: 185_000,
            clock_ms: -95_000,
            ..ready.clone()
        };
        let workers = [ready, silent].map(WorkerShown::from);
        insta::assert_snapshot!(table(&workers), @"
        WORKER  HOST         STATE     JOBS  VERSION  LABELS
        kvm-7   kvm-7.x.org  ready   2 of 4  0.1.0    site=a
        kvm-8   kvm-7.x.org  silent  2 of 4  0.1.0    site=a  not heard of for 3 min 05 s, clock 1 min 35 s behind
        ");
    }
}
