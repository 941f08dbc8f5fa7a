//! Who decides: a real state, and the leader's real decisions about it. Every entry that a coordinator would write is applied.

use std::collections::BTreeMap;

use tresor_coordinator::lead::pass::due_backups;
use tresor_coordinator::lead::placement::choose;
use tresor_coordinator::lead::plans::Plans;
use tresor_coordinator::lead::slots::Moves;
use tresor_coordinator::node::presence::Presence;
use tresor_coordinator::state::command::{
    Command, CommittedPoint, Completion, Consistency, Counts, DiskSpec, Founding, ItemSpec, MemberSpec, Outcome,
    PolicySpec, VaultClaim, VaultOrigin, VaultSpec, Work, WorkerFacts, WorkerSpec,
};
use tresor_coordinator::state::entry::{Actor, Entry, Time};
use tresor_coordinator::state::reply::Reply;
use tresor_coordinator::state::{SLOTS, State};
use tresor_proto::ids::{Epoch, ItemId, JobId, MemberId, PointId, PolicyId, SessionId, VaultId, WorkerId};

const LIFE: [u8; 16] = [1; 16];
const VAULT: VaultId = VaultId([7; 16]);
const POLICY: PolicyId = PolicyId([8; 16]);
/// 2026-11-20 12:00 UTC.
const BEFORE: Time = Time(1_795_176_000_000);
/// The night's two o'clock.
const NIGHT: Time = Time(BEFORE.0 + 14 * 3600 * 1000);

/// A lease: which disk a worker reads, and what it says when it is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    /// Of the workload.
    pub(crate) disk: usize,
    job: JobId,
    epoch: Epoch,
    session: SessionId,
}

/// The cluster's log, applied as it is written.
pub(crate) struct Control {
    state: State,
    index: u64,
    now: Time,
    presence: Presence,
    plans: Plans,
    workers: Vec<WorkerId>,
    disks: BTreeMap<ItemId, usize>,
    points: u64,
}

/// As if drawn at random, so that keys come in no order.
fn id(n: usize) -> [u8; 16] {
    let hash = blake3::hash(&n.to_le_bytes());
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

impl Control {
    /// A cluster with so many workers that answer for slots, and an item for each disk, all of which are due at the same time.
    pub(crate) fn new(workers: u32, disks: usize, permits: u32) -> Self {
        let mut control = Self {
            state: State::default(),
            index: 0,
            now: BEFORE,
            presence: Presence::default(),
            plans: Plans::default(),
            workers: Vec::new(),
            disks: BTreeMap::new(),
            points: 0,
        };
        control.does(Command::Found(Founding {
            cluster: [9; 16],
            name: String::from("fleet"),
            ca_certificate: Vec::new(),
            ca_key: Vec::new(),
            member: MemberSpec {
                member: MemberId(1),
                name: String::from("c1"),
                address: String::from("c1:7420"),
                token: None,
            },
            admin: None,
        }));
        for worker in 0..workers {
            control.adds_worker(worker, permits);
        }
        let claim = JobId(control.makes(Command::AddVault(VaultSpec {
            vault: VAULT,
            name: String::from("main"),
            url: String::from("s3://bucket/main"),
            region: String::new(),
            profile: String::new(),
            origin: VaultOrigin::Make,
            key: b"wrapped".to_vec(),
        })));
        control.claims_the_vault(claim);
        control.does(Command::CreatePolicy {
            policy: POLICY,
            spec: PolicySpec {
                name: String::from("nightly"),
                schedule: String::from("daily 02:00"),
                zone: String::from("UTC"),
                windows: Vec::new(),
                jitter: 0,
                retention: String::from("last 3, daily 7, weekly 4"),
                priority: 0,
                late_after: 0,
            },
        });
        for number in 0..disks {
            control.protects(number);
        }
        control.plans.refresh(&control.state);
        control.grants_slots();
        control.now = NIGHT;
        control
    }

    fn adds_worker(&mut self, number: u32, permits: u32) {
        let name = format!("host-{number}");
        let worker = WorkerId(self.makes(Command::AddWorker(WorkerSpec {
            name: name.clone(),
            token: None,
        })));
        self.does(Command::Register {
            worker,
            life: LIFE,
            facts: WorkerFacts {
                host: name.clone(),
                permits,
                serves: format!("{name}:7422"),
                ..WorkerFacts::default()
            },
            kept_life: None,
        });
        self.presence.hear(worker, LIFE, 0, 0);
        self.workers.push(worker);
    }

    fn claims_the_vault(&mut self, job: JobId) {
        let Reply::Leased { epoch, session } = self.lease(job, 0) else {
            panic!("nothing else runs");
        };
        self.does(Command::Complete(Completion {
            job,
            epoch,
            session,
            outcome: Outcome::Claimed(VaultClaim {
                n: 1,
                cluster: 5,
                header: [3; 32],
            }),
        }));
    }

    fn protects(&mut self, number: usize) {
        let item = ItemId(id(number));
        let name = format!("vm-{number}");
        self.does(Command::Protect {
            item,
            spec: ItemSpec {
                disks: vec![DiskSpec {
                    name: String::from("vda"),
                    path: format!("/srv/{name}.qcow2"),
                    format: String::new(),
                }],
                name,
                vault: VAULT,
                policy: Some(POLICY),
                // Any worker may read it.
                host: String::new(),
                worker_labels: BTreeMap::new(),
                labels: BTreeMap::new(),
                allow_live: false,
                allow_backing: false,
            },
            also: false,
        });
        self.disks.insert(item, number);
    }

    /// As the leader does when all have joined.
    fn grants_slots(&mut self) {
        self.now = BEFORE.plus(60_000);
        let mut moves = Moves::default();
        moves.begin(0);
        let grants = moves.due(&self.state, &self.presence, self.now, 1);
        self.does(grants.expect("nobody has the slots, and the workers are here"));
        assert_eq!(self.state.slots().iter().count(), usize::from(SLOTS));
    }

    /// Of each worker, the share of all chunk ids that it answers for.
    pub(crate) fn shares(&self) -> Vec<f64> {
        let mut slots: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for (_, row) in self.state.slots().iter() {
            *slots.entry(row.worker).or_default() += 1;
        }
        let share = |worker: &WorkerId| f64::from(slots.get(worker).copied().unwrap_or(0)) / f64::from(SLOTS);
        self.workers.iter().map(share).collect()
    }

    /// One pass of the leader: queues what is due. Returns how many.
    pub(crate) fn pass(&mut self) -> usize {
        let due = due_backups(&self.state, &self.plans, self.now);
        let count = due.len();
        for command in due {
            self.does(command);
        }
        count
    }

    /// Gives a worker a job, if there is one for it.
    pub(crate) fn gives(&mut self, worker: usize) -> Option<Lease> {
        let job = choose(
            &self.state,
            &self.presence,
            &self.plans,
            self.workers[worker],
            self.now,
            0,
        )?;
        let work = self.state.jobs().get(&job).map(|job| job.spec.work.clone());
        let Some(Work::Backup { item, .. }) = work else {
            panic!("nothing but backups is queued");
        };
        let Reply::Leased { epoch, session } = self.lease(job, worker) else {
            panic!("a chosen job can be leased");
        };
        Some(Lease {
            disk: self.disks[&item],
            job,
            epoch,
            session,
        })
    }

    fn lease(&mut self, job: JobId, worker: usize) -> Reply {
        let worker = self.workers[worker];
        self.does(Command::Lease {
            job,
            worker,
            life: LIFE,
        })
    }

    /// A point counts.
    pub(crate) fn takes(&mut self, lease: &Lease) {
        self.points += 1;
        let point = PointId(id(usize::MAX - self.points as usize));
        let slot_map = self.state.marks().slot_map;
        self.does(Command::Complete(Completion {
            job: lease.job,
            epoch: lease.epoch,
            session: lease.session,
            outcome: Outcome::Backup(CommittedPoint {
                point,
                time: self.now,
                manifest: *blake3::hash(&point.0).as_bytes(),
                consistency: Consistency::Crash,
                slots: vec![0xff; usize::from(SLOTS) / 8],
                slot_map,
                slots_missing: Vec::new(),
                findings_seen: 0,
                counts: Counts::default(),
            }),
        }));
    }

    /// Points that count.
    pub(crate) fn points(&self) -> usize {
        self.state.points().iter().count()
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
}
