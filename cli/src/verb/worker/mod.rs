//! `tresor worker …`.

mod drain;
mod endpoints;

use std::collections::BTreeMap;

use serde::Serialize;
use tresor_proto::v1::{self, GetWorkerRequest, ListWorkersRequest, RemoveWorkerRequest};

use crate::app::App;
use crate::args::{WorkerRemoveArgs, WorkerVerb};
use crate::confirm::confirm;
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::shown::{labels, some};

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
    jobs: bool,
    slots: u32,
    serves: Option<String>,
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    takers: Option<u32>,
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
            jobs: !worker.no_jobs,
            slots: worker.slots,
            serves: some(worker.serves),
            region: some(worker.region),
            items: worker.items,
            takers: worker.takers,
        }
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: WorkerVerb) -> Result<Answer, CliError> {
    match verb {
        WorkerVerb::Start(args) => Box::pin(super::process::worker::run(app, *args)).await,
        WorkerVerb::List => list(app).await,
        WorkerVerb::Show(args) => show(app, &args.name).await,
        WorkerVerb::Drain(args) => drain::drain(app, &args).await,
        WorkerVerb::Undrain(args) => drain::undrain(app, &args.name).await,
        WorkerVerb::Endpoints(args) => endpoints::run(app, args.name.as_deref()).await,
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

async fn show(app: &App, name: &str) -> Result<Answer, CliError> {
    let request = GetWorkerRequest { name: name.to_owned() };
    let worker = app.need_cluster("worker show")?.get_worker(request).await;
    let worker = WorkerShown::from(worker.doing(|| format!("could not show worker {}", human::plain(name)))?);
    Ok(app.screen.answer(&worker, || details(&worker)))
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
        force: args.force,
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

/// Jobs that run, of how many.
fn jobs(worker: &WorkerShown) -> String {
    match worker.jobs {
        true => format!("{} of {}", worker.running, worker.permits),
        false => String::from("none"),
    }
}

/// Slots of the index; nothing for one that serves none.
fn slots(worker: &WorkerShown) -> String {
    match (&worker.serves, worker.slots) {
        (None, 0) => String::new(),
        (_, slots) => slots.to_string(),
    }
}

/// Prefixes of the stores that it reaches.
fn stores(worker: &WorkerShown) -> String {
    match worker.stores.as_slice() {
        [] => String::from("all"),
        stores => stores.join(" "),
    }
}

/// When it was heard of.
fn heard(worker: &WorkerShown) -> String {
    match worker.state.as_str() {
        "joined" => String::from("never"),
        _ => format!("{} ago", human::elapsed(worker.silent_ms)),
    }
}

/// One worker.
fn details(worker: &WorkerShown) -> String {
    let free = worker.permits.saturating_sub(worker.running);
    let jobs = match worker.jobs {
        true => format!("{} run, {free} more may", worker.running),
        false => String::from("none: it answers for slots of the index only"),
    };
    let number = |number: Option<u64>| number.map(human::count).unwrap_or_default();
    human::pairs(&[
        ("worker", worker.worker.clone()),
        ("host", worker.host.clone()),
        ("region", worker.region.clone().unwrap_or_default()),
        ("state", worker.state.clone()),
        ("heard of", heard(worker)),
        ("clock", clock(worker.clock_ms)),
        ("version", worker.version.clone()),
        ("labels", labels(&worker.labels)),
        ("jobs", jobs),
        ("items in reach", number(worker.items)),
        ("stores", stores(worker)),
        ("serves at", worker.serves.clone().unwrap_or_default()),
        ("slots", slots(worker)),
        ("could take them", number(worker.takers.map(u64::from))),
    ])
}

/// Workers as a table.
pub(crate) fn table(workers: &[WorkerShown]) -> String {
    let headings = [
        "worker", "host", "region", "state", ">jobs", ">slots", "heard", "version", "stores", "labels", "",
    ];
    let mut table = Table::new(&headings);
    for worker in workers {
        table.row([
            worker.worker.clone(),
            worker.host.clone(),
            worker.region.clone().unwrap_or_default(),
            worker.state.clone(),
            jobs(worker),
            slots(worker),
            heard(worker),
            worker.version.clone(),
            stores(worker),
            labels(&worker.labels),
            clock(worker.clock_ms),
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
            region: String::from("north"),
            slots: 2048,
            serves: String::from("kvm-7.x.org:7430"),
            ..Default::default()
        };
        let silent = v1::Worker {
            name: String::from("kvm-8"),
            state: String::from("silent"),
            silent_ms: 185_000,
            clock_ms: -95_000,
            stores: vec![String::from("s3://user:secret@north/")],
            serves: String::new(),
            slots: 0,
            ..ready.clone()
        };
        let index = v1::Worker {
            name: String::from("index-1"),
            no_jobs: true,
            permits: 0,
            running: 0,
            labels: BTreeMap::new(),
            region: String::new(),
            ..ready.clone()
        };
        let shown = v1::Worker {
            items: Some(1200),
            takers: Some(1),
            ..ready.clone()
        };
        insta::assert_snapshot!(details(&WorkerShown::from(shown)), @"
        worker           kvm-7
        host             kvm-7.x.org
        region           north
        state            ready
        heard of         0.9 s ago
        version          0.1.0
        labels           site=a
        jobs             2 run, 2 more may
        items in reach   1 200
        stores           all
        serves at        kvm-7.x.org:7430
        slots            2048
        could take them  1
        ");
        let workers = [ready, silent, index].map(WorkerShown::from);
        insta::assert_snapshot!(table(&workers), @"
        WORKER   HOST         REGION  STATE     JOBS  SLOTS  HEARD           VERSION  STORES       LABELS
        kvm-7    kvm-7.x.org  north   ready   2 of 4   2048  0.9 s ago       0.1.0    all          site=a
        kvm-8    kvm-7.x.org  north   silent  2 of 4         3 min 05 s ago  0.1.0    s3://north/  site=a  clock 1 min 35 s behind
        index-1  kvm-7.x.org          ready     none   2048  0.9 s ago       0.1.0    all
        ");
    }
}
