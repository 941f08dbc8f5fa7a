//! What the state answers and keeps, subject by subject.
//!
//! [`Bench`] is a cluster of one state. Whatever a test asks of it, it checks after every entry what always holds: the invariants; that a refusal
//! changed nothing but the clock and the audit trail; that the changed rows are all the rows that changed.

mod answers;
mod audit;
mod bounds;
mod catalogue;
mod channels;
mod clock;
mod commits;
mod entries;
mod golden;
mod items;
mod jobs;
mod leases;
mod limits;
mod logs;
mod memory;
mod nodes;
mod player;
mod points;
mod policies;
mod properties;
mod refound;
mod samples;
mod slots;
mod story;
mod tokens;
mod vaults;

use std::collections::BTreeMap;

use tresor_proto::ids::{Epoch, ItemId, JobId, MemberId, PointId, PolicyId, SessionId, VaultId, WorkerId};

use super::State;
use super::command::*;
use super::entry::{Actor, Entry, IdempotencyKey, Time};
use super::reply::{Refusal, Reply};
use super::rows::JobState;
use super::table::RowChange;

const VAULT: VaultId = VaultId([1; 16]);
const POLICY: PolicyId = PolicyId([2; 16]);
const ITEM: ItemId = ItemId([3; 16]);
const LIFE: [u8; 16] = [4; 16];
/// A person at the socket of a node.
const PERSON: Actor = Actor::Local { uid: 0 };
/// The clock of a new bench.
const START: i64 = 1_800_000_000_000;
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Tables that a refused command may write to: the marks and the audit trail.
const WRITTEN_BY_REFUSALS: [u8; 2] = [1, 13];

struct Bench {
    state: State,
    /// Of the newest entry.
    index: u64,
    /// The leader's stamp.
    now: Time,
    /// What a store of rows would have.
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    /// What a log would have, where a test asks for one.
    log: Option<Vec<Entry>>,
}

/// A lease, and the session that was opened with it.
#[derive(Debug, Clone, Copy)]
struct Leased {
    job: JobId,
    worker: WorkerId,
    epoch: Epoch,
    session: SessionId,
}

fn point_id(number: u64) -> PointId {
    let mut id = [0xaa; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    PointId(id)
}

fn item_id(number: u64) -> ItemId {
    let mut id = [0xbb; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    ItemId(id)
}

fn founding() -> Founding {
    Founding {
        cluster: [9; 16],
        name: String::from("test"),
        ca_certificate: vec![1, 2, 3],
        ca_key: vec![4, 5, 6],
        member: MemberSpec {
            member: MemberId(1),
            name: String::from("c1"),
            address: String::from("c1:7000"),
            token: None,
        },
        admin: None,
    }
}

fn vault_spec(vault: VaultId, name: &str) -> VaultSpec {
    VaultSpec {
        vault,
        name: name.to_owned(),
        url: format!("s3://bucket/{name}"),
        region: String::from("eu"),
        profile: String::from("default"),
        origin: VaultOrigin::Make,
        key: vec![7; 40],
    }
}

fn policy_spec(name: &str) -> PolicySpec {
    PolicySpec {
        name: name.to_owned(),
        schedule: String::from("daily 02:00"),
        zone: String::from("Europe/Berlin"),
        retention: String::from("daily 7"),
        ..PolicySpec::default()
    }
}

fn item_spec(name: &str, vault: VaultId) -> ItemSpec {
    ItemSpec {
        name: name.to_owned(),
        vault,
        policy: Some(POLICY),
        host: String::new(),
        worker_labels: BTreeMap::new(),
        labels: BTreeMap::new(),
        disks: vec![DiskSpec {
            name: String::from("vda"),
            path: format!("/disks/{name}.raw"),
            format: String::new(),
        }],
        allow_live: false,
        allow_backing: false,
    }
}

fn facts(permits: u32) -> WorkerFacts {
    WorkerFacts {
        host: String::from("host"),
        version: String::from("0.1.0"),
        permits,
        serves: String::from("host:7430"),
        ..WorkerFacts::default()
    }
}

fn claim(n: u64) -> VaultClaim {
    VaultClaim {
        n,
        cluster: 77,
        header: [5; 32],
    }
}

fn counts(stored: u64) -> Counts {
    Counts {
        bytes_read: 1000,
        bytes_new: 100,
        bytes_stored: stored,
        bytes_logical: 4000,
        took: 10,
        ..Counts::default()
    }
}

/// A point that rests on no slot and has looked at everything that `state` has found.
fn committed(state: &State, point: PointId) -> CommittedPoint {
    CommittedPoint {
        point,
        time: state.now(),
        manifest: [6; 32],
        consistency: Consistency::Crash,
        slots: Vec::new(),
        slot_map: state.marks().slot_map,
        slots_missing: Vec::new(),
        findings_seen: state.vaults().get(&VAULT).map_or(0, |vault| vault.findings),
        counts: counts(50),
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        message: String::from("the disk went away"),
        hint: String::from("look at it"),
    }
}

fn backup_of(item: ItemId) -> JobSpec {
    JobSpec {
        vault: VAULT,
        work: Work::Backup { item, keep_until: None },
        priority: 0,
        not_before: Time(0),
        occurrence: None,
    }
}

fn restore_of(point: PointId, host: &str, path: &str) -> JobSpec {
    JobSpec {
        work: Work::Restore {
            point,
            host: host.to_owned(),
            target: RestoreTarget {
                disk: String::new(),
                path: path.to_owned(),
                format: String::new(),
                overwrite: false,
                in_place: false,
            },
        },
        ..backup_of(ITEM)
    }
}

fn verify_of(point: Option<PointId>) -> JobSpec {
    JobSpec {
        work: Work::Verify {
            point,
            level: String::from("contents"),
        },
        ..backup_of(ITEM)
    }
}

fn catalogue() -> JobSpec {
    JobSpec {
        work: Work::Catalogue,
        ..backup_of(ITEM)
    }
}

impl Bench {
    /// Nothing yet, not even a cluster.
    fn empty() -> Self {
        Self {
            state: State::default(),
            index: 0,
            now: Time(START),
            rows: BTreeMap::new(),
            log: None,
        }
    }

    /// A founded cluster.
    fn founded() -> Self {
        let mut bench = Self::empty();
        bench.by(Actor::Founder, Command::Found(founding()));
        bench
    }

    /// A founded cluster with the worker `w1`, the vault `main`, which is ready, the policy `nightly` and the item `web`. Returns the worker too.
    fn ready() -> (Self, WorkerId) {
        let mut bench = Self::founded();
        let worker = bench.worker("w1", 4);
        bench.vault(VAULT, "main", worker);
        bench.does(Command::CreatePolicy {
            policy: POLICY,
            spec: policy_spec("nightly"),
        });
        bench.protect(ITEM, "web");
        (bench, worker)
    }

    /// Applies a command and checks what always holds.
    fn ask_under(&mut self, key: Option<IdempotencyKey>, actor: Actor, command: Command) -> Reply {
        let entry = Entry {
            now: self.now,
            actor,
            key,
            command,
        };
        if let Some(log) = &mut self.log {
            log.push(entry.clone());
        }
        self.index += 1;
        let reply = self.state.apply(self.index, &entry);
        let changes = self.state.take_changes();
        if let Reply::Refused(refusal) = &reply {
            assert!(!refusal.to_string().is_empty(), "{entry:?}");
            for change in &changes {
                assert!(
                    WRITTEN_BY_REFUSALS.contains(&change.table),
                    "{entry:?} was refused ({refusal}), and wrote to table {}",
                    change.table
                );
            }
        }
        for RowChange { table, key, value } in changes {
            match value {
                Some(value) => self.rows.insert((table, key), value),
                None => self.rows.remove(&(table, key)),
            };
        }
        reply
    }

    fn ask(&mut self, actor: Actor, command: Command) -> Reply {
        self.ask_under(None, actor, command)
    }

    /// What may not be refused, asked by `actor`.
    fn by(&mut self, actor: Actor, command: Command) -> Reply {
        let asked = format!("{command:?}");
        self.ask(actor, command)
            .accepted()
            .unwrap_or_else(|refusal| panic!("{asked}: {refusal}"))
    }

    /// What may not be refused, asked by a person.
    fn does(&mut self, command: Command) -> Reply {
        self.by(PERSON, command)
    }

    /// What has to be refused.
    fn refuses(&mut self, actor: Actor, command: Command) -> Refusal {
        let asked = format!("{command:?}");
        match self.ask(actor, command) {
            Reply::Refused(refusal) => refusal,
            taken => panic!("{asked} was taken: {taken:?}"),
        }
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now = self.now.plus(milliseconds);
    }

    /// The number that a command made.
    fn made(&mut self, actor: Actor, command: Command) -> u64 {
        match self.by(actor, command) {
            Reply::Made(number) => number,
            other => panic!("nothing was made: {other:?}"),
        }
    }

    /// A worker that joined and registered.
    fn worker(&mut self, name: &str, permits: u32) -> WorkerId {
        let spec = WorkerSpec {
            name: name.to_owned(),
            token: None,
        };
        let worker = WorkerId(self.made(PERSON, Command::AddWorker(spec)));
        self.register(worker, LIFE, permits);
        worker
    }

    fn register(&mut self, worker: WorkerId, life: [u8; 16], permits: u32) {
        self.by(
            Actor::Worker(worker),
            Command::Register {
                worker,
                life,
                facts: facts(permits),
                kept_life: None,
            },
        );
    }

    /// A vault that a worker made.
    fn vault(&mut self, vault: VaultId, name: &str, worker: WorkerId) {
        let job = JobId(self.made(PERSON, Command::AddVault(vault_spec(vault, name))));
        let leased = self.lease(job, worker);
        self.completes(leased, Outcome::Claimed(claim(1)));
    }

    fn protect(&mut self, item: ItemId, name: &str) {
        self.does(Command::Protect {
            item,
            spec: item_spec(name, VAULT),
            also: false,
        });
    }

    fn queue(&mut self, spec: JobSpec) -> JobId {
        JobId(self.made(Actor::Cluster, Command::Enqueue(spec)))
    }

    fn lease_command(job: JobId, worker: WorkerId) -> Command {
        Command::Lease {
            job,
            worker,
            life: LIFE,
        }
    }

    fn lease(&mut self, job: JobId, worker: WorkerId) -> Leased {
        match self.by(Actor::Cluster, Self::lease_command(job, worker)) {
            Reply::Leased { epoch, session } => Leased {
                job,
                worker,
                epoch,
                session,
            },
            other => panic!("not leased: {other:?}"),
        }
    }

    fn completion(leased: Leased, outcome: Outcome) -> Command {
        Command::Complete(Completion {
            job: leased.job,
            epoch: leased.epoch,
            session: leased.session,
            outcome,
        })
    }

    fn completes(&mut self, leased: Leased, outcome: Outcome) {
        let reply = self.by(Actor::Worker(leased.worker), Self::completion(leased, outcome));
        assert_eq!(reply, Reply::Done);
    }

    /// Reports a point of a leased backup; says why it was refused, if it was.
    fn commit(&mut self, leased: Leased, point: CommittedPoint) -> Result<(), Refusal> {
        let command = Self::completion(leased, Outcome::Backup(point));
        self.ask(Actor::Worker(leased.worker), command).accepted().map(drop)
    }

    fn start_backup(&mut self, item: ItemId, worker: WorkerId) -> Leased {
        let job = self.queue(backup_of(item));
        self.lease(job, worker)
    }

    /// A whole backup; a second passes.
    fn back_up(&mut self, item: ItemId, worker: WorkerId, point: PointId) {
        let leased = self.start_backup(item, worker);
        self.pass(SECOND);
        let made = CommittedPoint {
            time: self.now,
            ..committed(&self.state, point)
        };
        self.completes(leased, Outcome::Backup(made));
    }

    /// So many backups of `ITEM` with the points 1, 2, ….
    fn with_points(count: u64) -> (Self, WorkerId) {
        let (mut bench, worker) = Self::ready();
        for number in 1..=count {
            bench.back_up(ITEM, worker, point_id(number));
        }
        (bench, worker)
    }

    fn hide(&mut self, points: &[PointId], by_retention: bool) -> Reply {
        let actor = if by_retention { Actor::Cluster } else { PERSON };
        self.by(
            actor,
            Command::HidePoints {
                points: points.to_vec(),
                by_retention,
            },
        )
    }

    fn give_up(&mut self, points: &[PointId]) -> Reply {
        self.by(
            Actor::Cluster,
            Command::GiveUpPoints {
                points: points.to_vec(),
            },
        )
    }

    fn is_visible(&self, point: PointId) -> bool {
        self.state.points().get(&point).is_some_and(|row| row.hidden.is_none())
    }

    fn job_state(&self, job: JobId) -> JobState {
        self.state.jobs().get(&job).unwrap().state
    }

    fn stored(&self) -> impl Iterator<Item = (u8, Vec<u8>, Vec<u8>)> + '_ {
        self.rows
            .iter()
            .map(|((table, key), value)| (*table, key.clone(), value.clone()))
    }
}
