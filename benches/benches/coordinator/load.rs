//! Clients of a coordinator, in its process: each queues a backup, gives it to a worker of its own and completes it, one change after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tresor_coordinator::node::Handle;
use tresor_coordinator::state::command::{
    Command, CommittedPoint, Completion, Consistency, Counts, Outcome, VaultClaim, WorkerFacts, WorkerSpec,
};
use tresor_coordinator::state::entry::{Actor, Time};
use tresor_coordinator::state::reply::Reply;
use tresor_proto::ids::{ItemId, JobId, PointId, VaultId, WorkerId};

use crate::passes::{adopted, backup_of, id, item_spec, vault_spec};
use crate::percentile;

const LIFE: [u8; 16] = [1; 16];
/// Points that one entry enters: half of what fits.
const ADOPTED: u64 = 4000;

fn vault() -> VaultId {
    VaultId(id(0, 0))
}

fn now() -> Time {
    jiff::Timestamp::now().into()
}

async fn change(handle: &Handle, actor: Actor, key: Option<[u8; 16]>, command: Command) -> Reply {
    let applied = handle.change(actor, key, command).await;
    applied.expect("a leader with a majority takes it").reply
}

async fn makes(handle: &Handle, command: Command) -> u64 {
    match change(handle, Actor::Cluster, None, command).await {
        Reply::Made(number) => number,
        other => panic!("made nothing: {other:?}"),
    }
}

/// A client's worker and item.
#[derive(Clone, Copy)]
struct Client {
    worker: WorkerId,
    item: ItemId,
}

impl Client {
    /// The one of that number: made where it is not there yet.
    async fn of(handle: &Handle, number: u64) -> Self {
        let name = format!("w{number}");
        let item = ItemId(id(3, number));
        if let Some(worker) = handle.read(|state| state.worker_named(&name)) {
            return Self { worker, item };
        }
        let spec = WorkerSpec {
            name: name.clone(),
            token: None,
        };
        let worker = WorkerId(makes(handle, Command::AddWorker(spec)).await);
        let facts = WorkerFacts {
            host: name,
            permits: 2,
            ..WorkerFacts::default()
        };
        let register = Command::Register {
            worker,
            life: LIFE,
            facts,
            kept_life: None,
        };
        change(handle, Actor::Cluster, None, register).await;
        if handle.read(|state| state.vaults().is_empty()) {
            let job = JobId(makes(handle, Command::AddVault(vault_spec(vault(), "main"))).await);
            let claim = VaultClaim {
                n: 1,
                cluster: 5,
                header: [3; 32],
            };
            let client = Self { worker, item };
            client.completes(handle, job, |_| Outcome::Claimed(claim)).await;
        }
        let protect = Command::Protect {
            item,
            spec: item_spec(&format!("vm-{number}"), vault(), None, ""),
            also: false,
        };
        change(handle, Actor::Cluster, None, protect).await;
        Self { worker, item }
    }

    async fn leases(&self, handle: &Handle, job: JobId) -> Reply {
        let lease = Command::Lease {
            job,
            worker: self.worker,
            life: LIFE,
        };
        change(handle, Actor::Worker(self.worker), None, lease).await
    }

    async fn reports(&self, handle: &Handle, job: JobId, leased: &Reply, outcome: impl FnOnce(u64) -> Outcome) {
        let Reply::Leased { epoch, session } = *leased else {
            panic!("no lease: {leased:?}");
        };
        let completion = Completion {
            job,
            epoch,
            session,
            outcome: outcome(epoch.0),
        };
        // As a worker's reports are: under a key, which is remembered.
        let key = Some(id(4, epoch.0));
        change(handle, Actor::Worker(self.worker), key, Command::Complete(completion)).await;
    }

    async fn completes(&self, handle: &Handle, job: JobId, outcome: impl FnOnce(u64) -> Outcome) {
        let leased = self.leases(handle, job).await;
        self.reports(handle, job, &leased, outcome).await;
    }
}

fn backup(epoch: u64) -> Outcome {
    Outcome::Backup(CommittedPoint {
        point: PointId(id(5, epoch)),
        time: now(),
        manifest: [4; 32],
        consistency: Consistency::Crash,
        slots: Vec::new(),
        slot_map: 0,
        slots_missing: Vec::new(),
        findings_seen: 0,
        counts: Counts {
            bytes_read: 10,
            bytes_new: 5,
            bytes_stored: 3,
            bytes_logical: 100,
            took: 1000,
            ..Counts::default()
        },
    })
}

/// What clients found.
pub(crate) struct Found {
    /// Entries committed.
    pub(crate) events: u64,
    /// In so many seconds.
    pub(crate) seconds: f64,
    /// Milliseconds from asking to the answer, sorted.
    pub(crate) latencies: Vec<f64>,
}

impl Found {
    /// As one line for another process.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "events": self.events,
            "seconds": self.seconds,
            "p50": percentile(&self.latencies, 50),
            "p99": percentile(&self.latencies, 99),
            "worst": self.latencies.last().copied().unwrap_or(f64::NAN),
        })
    }
}

/// So many clients until so many entries are committed, all of them on jobs.
pub(crate) async fn events(handle: &Handle, clients: u64, count: u64) -> Found {
    let mut all = Vec::new();
    for number in 0..clients {
        all.push(Client::of(handle, number).await);
    }
    let done = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let tasks: Vec<_> = all
        .into_iter()
        .map(|client| {
            let (handle, done) = (handle.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while done.fetch_add(3, Ordering::Relaxed) < count {
                    let mut asked = Instant::now();
                    let mut took = |latencies: &mut Vec<f64>| {
                        latencies.push(asked.elapsed().as_secs_f64() * 1e3);
                        asked = Instant::now();
                    };
                    let job = JobId(makes(&handle, backup_of(client.item, vault(), now(), None)).await);
                    took(&mut latencies);
                    let leased = client.leases(&handle, job).await;
                    took(&mut latencies);
                    client.reports(&handle, job, &leased, backup).await;
                    took(&mut latencies);
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no client panics"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    Found {
        events: latencies.len() as u64,
        seconds,
        latencies,
    }
}

/// Enters so many points of so many items.
pub(crate) async fn adopt(handle: &Handle, points: u64, items: u64) {
    Client::of(handle, 0).await;
    for first in (0..points).step_by(ADOPTED as usize) {
        let points = (first..points.min(first + ADOPTED)).map(|n| {
            let item = n % items;
            adopted(ItemId(id(6, item)), &format!("vm-{item}"), n, Time(n as i64 * 1000))
        });
        let adopt = Command::AdoptPoints {
            vault: vault(),
            points: points.collect(),
        };
        change(handle, Actor::Cluster, None, adopt).await;
    }
}
