//! How long the leader's decisions take with 100,000 items: pure functions of a state in memory.

use std::collections::BTreeMap;
use std::hint::black_box;

use tresor_coordinator::lead::pass::{Cursor, DUE_MAX, catalogues_due, due_backups, expired_leases, expired_points};
use tresor_coordinator::lead::placement::choose;
use tresor_coordinator::lead::plans::Plans;
use tresor_coordinator::node::presence::Presence;
use tresor_coordinator::state::State;
use tresor_coordinator::state::command::{
    AdoptedPoint, Command, Completion, Consistency, DiskSpec, Founding, ItemSpec, JobSpec, MemberSpec, Outcome,
    PolicySpec, VaultClaim, VaultOrigin, VaultSpec, Work, WorkerFacts, WorkerSpec,
};
use tresor_coordinator::state::entry::{Actor, Entry, Time};
use tresor_coordinator::state::reply::Reply;
use tresor_proto::ids::{ItemId, JobId, MemberId, PointId, PolicyId, VaultId, WorkerId};

use crate::{answer, calls};

const ITEMS: u64 = 100_000;
const VAULTS: u64 = 20;
const POLICIES: u64 = 20;
const WORKERS: u64 = 1000;
/// Jobs that each worker runs at a time.
const PERMITS: u32 = 4;
/// Of each item; together a million.
const POINTS: u64 = 10;
const LIFE: [u8; 16] = [1; 16];
/// 2026-11-20 12:00 UTC.
const START: Time = Time(1_795_176_000_000);
const DAY: i64 = 24 * 3600 * 1000;
const ROUNDS: usize = 50;

pub(crate) fn id(kind: u8, n: u64) -> [u8; 16] {
    // As if drawn at random, so that keys come in no order.
    let hash = blake3::hash(&[&[kind], n.to_le_bytes().as_slice()].concat());
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

pub(crate) fn vault_spec(vault: VaultId, name: &str) -> VaultSpec {
    VaultSpec {
        vault,
        name: name.to_owned(),
        url: format!("file:///srv/{name}"),
        region: String::new(),
        profile: String::new(),
        origin: VaultOrigin::Make,
        key: b"wrapped".to_vec(),
    }
}

pub(crate) fn item_spec(name: &str, vault: VaultId, policy: Option<PolicyId>, host: &str) -> ItemSpec {
    ItemSpec {
        name: name.to_owned(),
        vault,
        policy,
        host: host.to_owned(),
        worker_labels: BTreeMap::new(),
        labels: BTreeMap::new(),
        disks: vec![DiskSpec {
            name: String::from("vda"),
            path: format!("/srv/{name}.qcow2"),
            format: String::new(),
        }],
        allow_live: false,
        allow_backing: false,
    }
}

pub(crate) fn backup_of(item: ItemId, vault: VaultId, now: Time, occurrence: Option<Time>) -> Command {
    Command::Enqueue(JobSpec {
        vault,
        work: Work::Backup { item, keep_until: None },
        priority: 0,
        not_before: now,
        occurrence,
    })
}

pub(crate) fn adopted(item: ItemId, name: &str, n: u64, time: Time) -> AdoptedPoint {
    AdoptedPoint {
        point: PointId(id(2, n)),
        item,
        item_name: name.to_owned(),
        time,
        keep_until: None,
        manifest: *blake3::hash(&n.to_le_bytes()).as_bytes(),
        consistency: Consistency::Crash,
        hidden: None,
    }
}

/// A log applied as it is written.
struct World {
    state: State,
    index: u64,
    now: Time,
    presence: Presence,
    plans: Plans,
    workers: Vec<WorkerId>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            now: START,
            presence: Presence::default(),
            plans: Plans::default(),
            workers: Vec::new(),
        };
        world.makes(Command::Found(Founding {
            cluster: [9; 16],
            name: String::from("bench"),
            ca_certificate: Vec::new(),
            ca_key: Vec::new(),
            member: MemberSpec {
                member: MemberId(1),
                name: String::from("c1"),
                address: String::from("c1:7700"),
                token: None,
            },
            admin: None,
        }));
        for n in 0..WORKERS {
            world.adds_worker(n);
        }
        for n in 0..VAULTS {
            let spec = vault_spec(VaultId(id(0, n)), &format!("vault-{n}"));
            let job = JobId(world.makes(Command::AddVault(spec)));
            let claim = VaultClaim {
                n: 1,
                cluster: 5,
                header: [3; 32],
            };
            world.leases(job, 0, Some(Outcome::Claimed(claim)));
        }
        for n in 0..POLICIES {
            world.does(Command::CreatePolicy {
                policy: PolicyId(id(1, n)),
                spec: PolicySpec {
                    name: format!("policy-{n}"),
                    schedule: format!("daily {:02}:00", n % 24),
                    zone: String::from("Europe/Berlin"),
                    windows: Vec::new(),
                    jitter: 3_600_000,
                    retention: String::from("last 3, daily 7, weekly 4"),
                    priority: 0,
                    late_after: 0,
                },
            });
        }
        for n in 0..ITEMS {
            // Half of the items are on one host, as local disks are; half can be reached by every worker.
            let host = if n % 2 == 0 {
                String::new()
            } else {
                format!("host-{}", n / 2 % WORKERS)
            };
            let policy = PolicyId(id(1, n / VAULTS % POLICIES));
            let name = format!("vm-{n}");
            let spec = item_spec(&name, World::vault(n), Some(policy), &host);
            world.does(Command::Protect {
                item: World::item(n),
                spec,
                also: false,
            });
        }
        world.plans.refresh(&world.state);
        world
    }

    fn item(n: u64) -> ItemId {
        ItemId(id(3, n))
    }

    fn vault(n: u64) -> VaultId {
        VaultId(id(0, n % VAULTS))
    }

    fn does(&mut self, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry {
            now: self.now,
            actor: Actor::Cluster,
            key: None,
            command,
        };
        let reply = self.state.apply(self.index, &entry);
        // As they are stored after each entry.
        self.state.take_changes();
        assert!(!matches!(reply, Reply::Refused(_)), "{:?}: {reply:?}", entry.command);
        reply
    }

    fn makes(&mut self, command: Command) -> u64 {
        self.does(command);
        self.index
    }

    fn adds_worker(&mut self, n: u64) {
        let worker = WorkerId(self.makes(Command::AddWorker(WorkerSpec {
            name: format!("host-{n}"),
            token: None,
        })));
        self.does(Command::Register {
            worker,
            life: LIFE,
            facts: WorkerFacts {
                host: format!("host-{n}"),
                permits: PERMITS,
                ..WorkerFacts::default()
            },
            kept_life: None,
        });
        self.presence.hear(worker, LIFE, 0, 0);
        self.workers.push(worker);
    }

    fn leases(&mut self, job: JobId, worker: usize, outcome: Option<Outcome>) {
        let worker = self.workers[worker];
        let reply = self.does(Command::Lease {
            job,
            worker,
            life: LIFE,
        });
        if let (Reply::Leased { epoch, session }, Some(outcome)) = (reply, outcome) {
            self.does(Command::Complete(Completion {
                job,
                epoch,
                session,
                outcome,
            }));
        }
    }
}

pub(crate) fn ask() {
    let mut world = World::new();
    for n in 0..ITEMS {
        let points = (0..POINTS).map(|p| adopted(World::item(n), "", n * POINTS + p, START.plus(-(p as i64) * DAY)));
        world.does(Command::AdoptPoints {
            vault: World::vault(n),
            points: points.collect(),
        });
    }
    let nothing_due = calls(ROUNDS, || {
        black_box(due_backups(&world.state, &world.plans, world.now));
    });
    answer("backups due, 100,000 items, none due", nothing_due);
    // Two days on, all are due.
    world.now = START.plus(2 * DAY);
    let all_due = calls(ROUNDS, || {
        let due = black_box(due_backups(&world.state, &world.plans, world.now));
        assert_eq!(due.len(), DUE_MAX);
    });
    answer("backups due, 100,000 items, all due", all_due);
    let mut cursor = Cursor::default();
    let expiry = calls(100, || {
        black_box(expired_points(&world.state, &world.plans, &mut cursor, world.now));
    });
    answer("expiry, 1,000 of 100,000 items with 10 points each", expiry);

    // Every item waits; and a worker asks.
    for n in 0..ITEMS {
        let (due, now) = (world.now, world.now);
        world.does(backup_of(World::item(n), World::vault(n), now, Some(due)));
    }
    choices(&world, "100,000 jobs wait, none runs");
    // All workers but two run as many as they may.
    let jobs: Vec<JobId> = world
        .state
        .open_jobs()
        .take((WORKERS as usize - 2) * PERMITS as usize)
        .collect();
    for (n, job) in jobs.into_iter().enumerate() {
        world.leases(job, 2 + n / PERMITS as usize, None);
    }
    choices(&world, "96,000 jobs wait, 4,000 run");
    let upkeep = calls(ROUNDS, || {
        let mut presence = world.presence.clone();
        black_box(expired_leases(&world.state, &mut presence, world.now, 0));
        black_box(due_backups(&world.state, &world.plans, world.now));
        black_box(catalogues_due(&world.state, world.now));
    });
    answer("leases, backups and catalogues, 100,000 jobs open", upkeep);
}

/// How long the choice for a worker takes: for one of the cluster's, and for one that may have none of the jobs.
fn choices(world: &World, when: &str) {
    let chosen = |worker| choose(&world.state, &world.presence, &world.plans, worker, world.now, 0);
    let some = calls(ROUNDS, || assert!(black_box(chosen(world.workers[0])).is_some()));
    answer(&format!("choice for a worker, {when}"), some);
}
