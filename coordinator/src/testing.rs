//! Stories for tests: a cluster with a vault and a worker, and what happens to items in a line each.

use std::collections::BTreeMap;

use tresor_proto::ids::{Epoch, ItemId, JobId, PointId, PolicyId, SessionId, VaultId, WorkerId};

use crate::state::State;
use crate::state::command::{
    Command, CommittedPoint, Completion, Consistency, Counts, DiskSpec, Failure, FailureKind, Founding, ItemSpec,
    JobSpec, MemberSpec, Outcome, VaultClaim, VaultOrigin, VaultSpec, Work, WorkerFacts, WorkerSpec,
};
use crate::state::entry::{Actor, Entry, IdempotencyKey, Time};
use crate::state::reply::Reply;

/// When stories begin: 2026-11-20 12:00 UTC, a Friday.
pub(crate) const START: Time = Time(1_795_176_000_000);
/// The vault `main` of every story.
pub(crate) const MAIN: VaultId = VaultId([0x11; 16]);
/// The life of every worker.
pub(crate) const LIFE: [u8; 16] = [1; 16];

/// A moment.
pub(crate) fn at(text: &str) -> Time {
    text.parse::<jiff::Timestamp>().expect("tests write RFC 3339").into()
}

/// What makes the cluster `test` of the coordinator `c1`, number 1.
pub(crate) fn founding() -> Command {
    Command::Found(Founding {
        cluster: [7; 16],
        name: String::from("test"),
        ca_certificate: b"certificate".to_vec(),
        ca_key: b"wrapped".to_vec(),
        member: MemberSpec {
            member: tresor_proto::ids::MemberId(1),
            name: String::from("c1"),
            address: String::from("c1:7700"),
            token: None,
        },
        admin: None,
    })
}

/// An item with one disk.
pub(crate) fn item_spec(name: &str, vault: VaultId, policy: Option<PolicyId>) -> ItemSpec {
    ItemSpec {
        name: name.to_owned(),
        vault,
        policy,
        host: String::new(),
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

/// An item's id made of its name and vault.
pub(crate) fn item_id(name: &str, vault: VaultId) -> ItemId {
    let hash = blake3::hash(format!("{name} in {vault}").as_bytes());
    ItemId(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Whatever commands can be given to.
pub(crate) trait Acts {
    /// Applies a command of an actor.
    fn acts(&mut self, actor: Actor, command: Command) -> Reply;

    /// The cluster's clock.
    fn clock(&self) -> Time;

    /// Applies a command of the cluster that is not refused.
    fn does(&mut self, command: Command) -> Reply {
        let reply = self.acts(Actor::Cluster, command.clone());
        assert!(!matches!(reply, Reply::Refused(_)), "{command:?}: {reply:?}");
        reply
    }

    /// Applies a command that makes something, and returns its number.
    fn makes(&mut self, command: Command) -> u64 {
        match self.does(command) {
            Reply::Made(number) => number,
            other => panic!("made nothing: {other:?}"),
        }
    }

    /// Adds a worker that runs two jobs at a time.
    fn adds_worker(&mut self, name: &str) -> WorkerId {
        let spec = WorkerSpec {
            name: name.to_owned(),
            token: None,
        };
        let worker = WorkerId(self.makes(Command::AddWorker(spec)));
        let facts = WorkerFacts {
            host: name.to_owned(),
            version: String::from("0.1.0"),
            permits: 2,
            ..WorkerFacts::default()
        };
        self.does(Command::Register {
            worker,
            life: LIFE,
            facts,
            kept_life: None,
        });
        worker
    }

    /// Enters a vault; its claim waits. Returns the claim's job.
    fn adds_vault(&mut self, vault: VaultId, name: &str) -> JobId {
        let spec = VaultSpec {
            vault,
            name: name.to_owned(),
            url: format!("file:///srv/{name}"),
            region: String::new(),
            profile: String::new(),
            origin: VaultOrigin::Make,
            key: b"wrapped".to_vec(),
        };
        JobId(self.makes(Command::AddVault(spec)))
    }

    /// Enters a vault and has it made by a worker.
    fn makes_vault(&mut self, vault: VaultId, name: &str, worker: WorkerId) {
        let job = self.adds_vault(vault, name);
        let claim = VaultClaim {
            n: 1,
            cluster: 5,
            header: [3; 32],
        };
        self.ends_well(job, worker, Outcome::Claimed(claim));
    }

    /// Gives a job to a worker.
    fn leases(&mut self, job: JobId, worker: WorkerId) -> (Epoch, SessionId) {
        let command = Command::Lease {
            job,
            worker,
            life: LIFE,
        };
        match self.does(command) {
            Reply::Leased { epoch, session } => (epoch, session),
            other => panic!("no lease: {other:?}"),
        }
    }

    /// Has a worker do a job.
    fn ends_well(&mut self, job: JobId, worker: WorkerId, outcome: Outcome) {
        let (epoch, session) = self.leases(job, worker);
        self.does(Command::Complete(Completion {
            job,
            epoch,
            session,
            outcome,
        }));
    }

    /// Has a worker fail at a job for good.
    fn ends_badly(&mut self, job: JobId, worker: WorkerId, kind: FailureKind, message: &str) {
        let (epoch, _) = self.leases(job, worker);
        self.does(Command::Fail {
            job,
            epoch,
            failure: Failure {
                kind,
                message: message.to_owned(),
                hint: String::from("look at the disk"),
            },
            retry_at: None,
        });
    }

    /// Protects an item in a vault.
    fn protects(&mut self, name: &str, vault: VaultId, policy: Option<PolicyId>) -> ItemId {
        let item = item_id(name, vault);
        self.does(Command::Protect {
            item,
            spec: item_spec(name, vault, policy),
            also: true,
        });
        item
    }

    /// Queues a backup.
    fn queues(&mut self, item: ItemId, vault: VaultId) -> JobId {
        let spec = JobSpec {
            vault,
            work: Work::Backup { item, keep_until: None },
            priority: 0,
            not_before: self.clock(),
            occurrence: None,
        };
        JobId(self.makes(Command::Enqueue(spec)))
    }

    /// Has a worker back an item up; the point's id is made of the job's number.
    fn makes_point(&mut self, item: ItemId, vault: VaultId, worker: WorkerId) -> PointId {
        let job = self.queues(item, vault);
        let hash = blake3::hash(&job.0.to_le_bytes());
        let point = PointId(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        let outcome = Outcome::Backup(CommittedPoint {
            point,
            time: self.clock(),
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
        });
        self.ends_well(job, worker, outcome);
        point
    }
}

/// Adds a worker that answers for slots of the index at port 7430 of a host called as it is.
pub(crate) fn serves(acts: &mut impl Acts, name: &str) -> WorkerId {
    let worker = acts.adds_worker(name);
    registers(acts, worker, name, LIFE, None);
    worker
}

/// Begins a life of such a worker.
pub(crate) fn registers(
    acts: &mut impl Acts,
    worker: WorkerId,
    name: &str,
    life: [u8; 16],
    kept_life: Option<[u8; 16]>,
) {
    let facts = WorkerFacts {
        host: name.to_owned(),
        version: String::from("0.1.0"),
        permits: 2,
        serves: format!("{name}:7430"),
        ..WorkerFacts::default()
    };
    acts.does(Command::Register {
        worker,
        life,
        facts,
        kept_life,
    });
}

/// A state on its own, with the vault `main` and the worker `w1`.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) state: State,
    pub(crate) now: Time,
    pub(crate) worker: WorkerId,
    index: u64,
}

impl Acts for Story {
    fn acts(&mut self, actor: Actor, command: Command) -> Reply {
        self.applies(actor, None, command)
    }

    fn clock(&self) -> Time {
        self.now
    }
}

impl Story {
    /// Applies a command of an actor under a key.
    pub(crate) fn applies(&mut self, actor: Actor, key: Option<IdempotencyKey>, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry {
            now: self.now,
            actor,
            key,
            command,
        };
        self.state.apply(self.index, &entry)
    }

    pub(crate) fn new() -> Self {
        let mut story = Self {
            state: State::default(),
            now: START,
            worker: WorkerId(0),
            index: 0,
        };
        Acts::does(&mut story, founding());
        let worker = story.adds_worker("w1");
        story.makes_vault(MAIN, "main", worker);
        story.worker = worker;
        story
    }

    /// Lets time go by.
    pub(crate) fn advance(&mut self, milliseconds: i64) {
        self.now = self.now.plus(milliseconds);
    }

    /// Applies a command of the cluster that is not refused.
    pub(crate) fn does(&mut self, command: Command) -> Reply {
        Acts::does(self, command)
    }

    /// Protects an item in `main`.
    pub(crate) fn protect(&mut self, name: &str, policy: Option<PolicyId>) -> ItemId {
        self.protects(name, MAIN, policy)
    }

    /// Makes a point of an item of `main`.
    pub(crate) fn backs_up(&mut self, item: ItemId) -> PointId {
        self.makes_point(item, MAIN, self.worker)
    }

    /// Lets a backup of an item of `main` fail for good.
    pub(crate) fn fails(&mut self, item: ItemId) -> JobId {
        let job = self.queues(item, MAIN);
        self.ends_badly(job, self.worker, FailureKind::Invalid, "the disk is not there");
        job
    }
}
