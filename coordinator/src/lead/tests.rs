use std::collections::BTreeMap;

use tresor_proto::ids::{ItemId, JobId, MemberId, PointId, PolicyId, VaultId, WorkerId};

use super::pass::{Cursor, EXPIRY_POINTS, catalogues_due, due_backups, expired_leases, expired_points};
use super::placement::{Unfit, Waiting, choose, explain};
use super::plans::Plans;
use crate::node::presence::{LEASE_MS, Presence, SILENT_MS};
use crate::state::State;
use crate::state::command::{
    AdoptedPoint, Command, Completion, Consistency, DiskSpec, Founding, ItemSpec, JobSpec, MemberSpec, Outcome,
    PolicySpec, VaultClaim, VaultOrigin, VaultSpec, Work, WorkerFacts, WorkerSpec,
};
use crate::state::entry::{Actor, Entry, Time};
use crate::state::reply::Reply;
use crate::state::table::looks;

const VAULT: VaultId = VaultId([1; 16]);
const OTHER_VAULT: VaultId = VaultId([2; 16]);
const POLICY: PolicyId = PolicyId([3; 16]);
const LIFE: [u8; 16] = [4; 16];

fn at(text: &str) -> Time {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

/// A cluster whose log is applied as it is written.
struct World {
    state: State,
    index: u64,
    now: Time,
    presence: Presence,
    plans: Plans,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            now: at("2026-03-02T12:00:00Z"),
            presence: Presence::default(),
            plans: Plans::default(),
        };
        world.done(Command::Found(Founding {
            cluster: [9; 16],
            name: String::from("lab"),
            ca_certificate: Vec::new(),
            ca_key: Vec::new(),
            member: MemberSpec {
                member: MemberId(1),
                name: String::from("c1"),
                address: String::from("c1:7000"),
                token: None,
            },
            admin: None,
        }));
        world.vault(VAULT, "main", "file:///srv/main");
        world.policy("daily 02:00", "last 2");
        world
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let person = matches!(command, Command::ConfirmClock);
        let entry = Entry {
            now: self.now,
            actor: if person { Actor::Founder } else { Actor::Cluster },
            key: None,
            command,
        };
        let reply = self.state.apply(self.index, &entry);
        self.plans.refresh(&self.state);
        reply
    }

    fn done(&mut self, command: Command) -> u64 {
        let text = format!("{command:?}");
        let reply = self.apply(command);
        assert!(!matches!(reply, Reply::Refused(_)), "{text}: {reply:?}");
        self.index
    }

    fn all(&mut self, commands: Vec<Command>) -> usize {
        let count = commands.len();
        for command in commands {
            self.done(command);
        }
        count
    }

    fn vault(&mut self, vault: VaultId, name: &str, url: &str) {
        let job = self.done(Command::AddVault(VaultSpec {
            vault,
            name: name.to_owned(),
            url: url.to_owned(),
            region: String::new(),
            profile: String::from("grain-32k"),
            origin: VaultOrigin::Make,
            key: Vec::new(),
        }));
        let worker = self.worker(
            &format!("maker-of-{name}"),
            WorkerFacts {
                permits: 1,
                ..WorkerFacts::default()
            },
        );
        let epoch = self.lease(JobId(job), worker);
        self.complete(
            JobId(job),
            epoch,
            Outcome::Claimed(VaultClaim {
                n: 1,
                cluster: 7,
                header: [0; 32],
            }),
        );
        self.done(Command::RemoveWorker { worker });
    }

    fn policy(&mut self, schedule: &str, retention: &str) {
        self.done(Command::CreatePolicy {
            policy: POLICY,
            spec: PolicySpec {
                name: String::from("nightly"),
                schedule: schedule.to_owned(),
                zone: String::from("UTC"),
                windows: Vec::new(),
                jitter: 0,
                retention: retention.to_owned(),
                priority: 0,
                late_after: 0,
            },
        });
    }

    fn item(&mut self, number: u8, vault: VaultId, policy: Option<PolicyId>) -> ItemId {
        self.item_at(number, vault, policy, "")
    }

    fn item_at(&mut self, number: u8, vault: VaultId, policy: Option<PolicyId>, host: &str) -> ItemId {
        let item = ItemId([number; 16]);
        self.done(Command::Protect {
            item,
            spec: ItemSpec {
                name: format!("vm-{number}"),
                vault,
                policy,
                host: host.to_owned(),
                worker_labels: BTreeMap::new(),
                labels: BTreeMap::new(),
                disks: vec![DiskSpec {
                    name: String::from("vda"),
                    path: String::from("/disks/vda"),
                    format: String::new(),
                }],
                allow_live: false,
                allow_backing: false,
            },
            also: false,
        });
        item
    }

    fn worker(&mut self, name: &str, facts: WorkerFacts) -> WorkerId {
        let worker = WorkerId(self.done(Command::AddWorker(WorkerSpec {
            name: name.to_owned(),
            token: None,
        })));
        self.done(Command::Register {
            worker,
            life: LIFE,
            facts,
            kept_life: None,
        });
        self.presence.hear(worker, LIFE, 0, 0);
        worker
    }

    fn ready_worker(&mut self, name: &str) -> WorkerId {
        self.worker(
            name,
            WorkerFacts {
                permits: 2,
                ..WorkerFacts::default()
            },
        )
    }

    fn backup(&mut self, item: ItemId, vault: VaultId) -> JobId {
        self.backup_with(item, vault, 0)
    }

    fn backup_with(&mut self, item: ItemId, vault: VaultId, priority: i32) -> JobId {
        let not_before = self.now;
        JobId(self.done(Command::Enqueue(JobSpec {
            vault,
            work: Work::Backup { item, keep_until: None },
            priority,
            not_before,
            occurrence: None,
        })))
    }

    fn lease(&mut self, job: JobId, worker: WorkerId) -> tresor_proto::ids::Epoch {
        tresor_proto::ids::Epoch(self.done(Command::Lease {
            job,
            worker,
            life: LIFE,
        }))
    }

    fn complete(&mut self, job: JobId, epoch: tresor_proto::ids::Epoch, outcome: Outcome) {
        self.done(Command::Complete(Completion {
            job,
            epoch,
            session: tresor_proto::ids::SessionId(epoch.0),
            outcome,
        }));
    }

    fn points(&mut self, item: ItemId, times: &[&str]) {
        let points = times
            .iter()
            .enumerate()
            .map(|(n, time)| AdoptedPoint {
                point: PointId([u8::try_from(n).unwrap() + 100; 16]),
                item,
                item_name: String::new(),
                time: at(time),
                keep_until: None,
                manifest: [0; 32],
                consistency: Consistency::Crash,
                hidden: None,
            })
            .collect();
        self.done(Command::AdoptPoints { vault: VAULT, points });
    }

    fn choose(&self, worker: WorkerId, now_ms: u64) -> Option<JobId> {
        choose(&self.state, &self.presence, &self.plans, worker, self.now, now_ms)
    }

    fn explain(&self, job: JobId) -> Option<Waiting> {
        explain(&self.state, &self.presence, &self.plans, job, self.now, 0)
    }

    fn due(&self) -> Vec<Command> {
        due_backups(&self.state, &self.plans, self.now)
    }
}

#[test]
fn protection_alone_makes_no_point_and_the_next_occurrence_does() {
    let mut world = World::new();
    world.item(10, VAULT, Some(POLICY));
    assert_eq!(world.due(), []);
    world.now = at("2026-03-03T01:59:59Z");
    assert_eq!(world.due(), []);
    world.now = at("2026-03-03T02:00:00Z");
    let due = world.due();
    assert_eq!(world.all(due), 1);
    assert_eq!(world.due(), [], "it waits already");
}

#[test]
fn after_a_week_without_a_leader_an_item_is_backed_up_once() {
    let mut world = World::new();
    let item = world.item(10, VAULT, Some(POLICY));
    world.now = at("2026-03-10T12:00:00Z");
    let due = world.due();
    assert_eq!(world.all(due), 1);
    let worker = world.ready_worker("w1");
    let job = world.choose(worker, 0).unwrap();
    let epoch = world.lease(job, worker);
    world.complete(
        job,
        epoch,
        Outcome::Backup(crate::state::command::CommittedPoint {
            point: PointId([200; 16]),
            time: world.now,
            manifest: [0; 32],
            consistency: Consistency::Crash,
            slots: Vec::new(),
            slot_map: 0,
            slots_missing: Vec::new(),
            findings_seen: 0,
            counts: crate::state::command::Counts::default(),
        }),
    );
    assert_eq!(world.state.newest_point(item), Some(PointId([200; 16])));
    assert_eq!(world.due(), []);
    world.now = at("2026-03-11T02:00:00Z");
    assert_eq!(world.due().len(), 1);
}

#[test]
fn two_leaders_that_both_see_an_occurrence_make_one_job() {
    let mut world = World::new();
    world.item(10, VAULT, Some(POLICY));
    world.now = at("2026-03-03T02:00:00Z");
    let (first, second) = (world.due(), world.due());
    world.all(first);
    for command in second {
        assert!(matches!(world.apply(command), Reply::Refused(_)));
    }
    assert_eq!(world.state.open_jobs_count(), 1);
}

#[test]
fn a_worker_gets_the_most_urgent_and_then_the_longest_waiting_job() {
    let mut world = World::new();
    let items: Vec<ItemId> = (10..13).map(|n| world.item(n, VAULT, None)).collect();
    let first = world.backup(items[0], VAULT);
    world.backup(items[1], VAULT);
    let urgent = world.backup_with(items[2], VAULT, 5);
    let worker = world.ready_worker("w1");
    assert_eq!(world.choose(worker, 0), Some(urgent));
    world.lease(urgent, worker);
    assert_eq!(world.choose(worker, 0), Some(first));
    world.lease(first, worker);
    assert_eq!(world.choose(worker, 0), None, "it runs as many as it may");
}

#[test]
fn a_vault_with_many_waiting_items_does_not_keep_another_from_its_turn() {
    let mut world = World::new();
    world.vault(OTHER_VAULT, "small", "file:///srv/small");
    let crowd: Vec<ItemId> = (10..20).map(|n| world.item(n, VAULT, None)).collect();
    for item in crowd {
        world.backup(item, VAULT);
    }
    let alone = world.item(30, OTHER_VAULT, None);
    let alone = world.backup(alone, OTHER_VAULT);
    let worker = world.ready_worker("w1");
    let first = world.choose(worker, 0).unwrap();
    assert_ne!(first, alone);
    world.lease(first, worker);
    assert_eq!(world.choose(worker, 0), Some(alone));
}

#[test]
fn disks_labels_and_stores_decide_who_may_and_the_reasons_are_told() {
    let mut world = World::new();
    let item = world.item_at(10, VAULT, None, "host-b");
    let job = world.backup(item, VAULT);
    assert_eq!(world.explain(job), Some(Waiting::NoWorker { workers: vec![] }));
    let far = world.ready_worker("host-a");
    let blind = world.worker(
        "blind",
        WorkerFacts {
            permits: 1,
            stores: vec![String::from("s3://")],
            host: String::from("host-b"),
            ..WorkerFacts::default()
        },
    );
    assert_eq!(world.choose(far, 0), None);
    assert_eq!(world.choose(blind, 0), None);
    let Some(Waiting::NoWorker { workers }) = world.explain(job) else {
        panic!("{:?}", world.explain(job));
    };
    let host = Unfit::Host {
        wanted: String::from("host-b"),
    };
    let store = Unfit::Store {
        url: String::from("file:///srv/main"),
    };
    assert_eq!(
        workers,
        [(String::from("host-a"), host), (String::from("blind"), store)]
    );
    let near = world.ready_worker("host-b");
    assert_eq!(world.explain(job), Some(Waiting::Next));
    assert_eq!(world.choose(near, 0), Some(job));
    assert_eq!(world.choose(near, SILENT_MS), None, "not heard of for too long");
    world.done(Command::Drain {
        worker: near,
        drained: true,
    });
    assert_eq!(world.choose(near, 0), None);
}

#[test]
fn a_lease_ends_when_its_worker_is_silent_and_a_new_leader_gives_it_a_full_term() {
    let mut world = World::new();
    let item = world.item(10, VAULT, None);
    let job = world.backup(item, VAULT);
    let worker = world.ready_worker("w1");
    world.lease(job, worker);
    let mut presence = Presence::default();
    let started = 1_000_000;
    assert_eq!(expired_leases(&world.state, &mut presence, world.now, started), []);
    assert_eq!(
        expired_leases(&world.state, &mut presence, world.now, started + LEASE_MS - 1),
        []
    );
    let ended = expired_leases(&world.state, &mut presence, world.now, started + LEASE_MS);
    assert_eq!(ended.len(), 1);
    assert!(matches!(&ended[0], Command::ExpireLease { retry_at: Some(at), .. } if *at > world.now));
    world.all(ended);
    assert_eq!(
        expired_leases(&world.state, &mut presence, world.now, started + LEASE_MS),
        []
    );
}

#[test]
fn another_life_of_a_worker_ends_what_its_earlier_one_had() {
    let mut world = World::new();
    let item = world.item(10, VAULT, None);
    let job = world.backup(item, VAULT);
    let worker = world.ready_worker("w1");
    world.lease(job, worker);
    let mut presence = Presence::default();
    assert_eq!(expired_leases(&world.state, &mut presence, world.now, 0), []);
    world.done(Command::Register {
        worker,
        life: [5; 16],
        facts: WorkerFacts {
            permits: 2,
            ..WorkerFacts::default()
        },
        kept_life: None,
    });
    assert_eq!(expired_leases(&world.state, &mut presence, world.now, 1).len(), 1);
}

#[test]
fn a_job_whose_worker_was_lost_goes_to_another_one_first() {
    let mut world = World::new();
    let item = world.item(10, VAULT, None);
    let job = world.backup(item, VAULT);
    let (lost, other) = (world.ready_worker("w1"), world.ready_worker("w2"));
    let epoch = world.lease(job, lost);
    let retry_at = Some(world.now);
    world.done(Command::ExpireLease { job, epoch, retry_at });
    assert_eq!(world.choose(lost, 0), None);
    assert_eq!(world.choose(other, 0), Some(job));
    world.done(Command::Drain {
        worker: other,
        drained: true,
    });
    assert_eq!(world.choose(lost, 0), Some(job), "nobody else may have it");
}

#[test]
fn retention_hides_what_it_does_not_keep_and_gives_it_up_a_week_later() {
    let mut world = World::new();
    let item = world.item(10, VAULT, Some(POLICY));
    world.points(
        item,
        &[
            "2026-02-01T00:00:00Z",
            "2026-02-02T00:00:00Z",
            "2026-02-03T00:00:00Z",
            "2026-02-04T00:00:00Z",
        ],
    );
    let mut cursor = Cursor::default();
    let commands = expired_points(&world.state, &world.plans, &mut cursor, world.now);
    assert_eq!(world.all(commands), 1);
    let visible = |world: &World| {
        world
            .state
            .points()
            .values()
            .filter(|point| point.hidden.is_none())
            .count()
    };
    assert_eq!(visible(&world), 2);
    world.now = world.now.plus(crate::state::UNDO_MS - 1);
    assert_eq!(expired_points(&world.state, &world.plans, &mut cursor, world.now), []);
    world.now = world.now.plus(1);
    let commands = expired_points(&world.state, &world.plans, &mut cursor, world.now);
    assert_eq!(world.all(commands), 1);
    assert_eq!(world.state.points().len(), 2);
    assert_eq!(world.state.given_up().len(), 2);
}

#[test]
fn one_look_at_points_is_bounded_and_the_next_one_goes_on() {
    let mut world = World::new();
    let many = world.item(10, VAULT, None);
    let few = world.item(11, VAULT, Some(POLICY));
    let point = |n: usize| AdoptedPoint {
        point: PointId(u128::try_from(n).unwrap().to_be_bytes()),
        item: many,
        item_name: String::new(),
        time: world.now,
        keep_until: None,
        manifest: [0; 32],
        consistency: Consistency::Crash,
        hidden: None,
    };
    let points = (1..=EXPIRY_POINTS).map(point).collect();
    world.done(Command::AdoptPoints { vault: VAULT, points });
    world.points(
        few,
        &["2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z", "2026-02-03T00:00:00Z"],
    );
    let mut cursor = Cursor::default();
    assert_eq!(expired_points(&world.state, &world.plans, &mut cursor, world.now), []);
    assert_ne!(cursor, Cursor::default());
    let commands = expired_points(&world.state, &world.plans, &mut cursor, world.now);
    assert_eq!(world.all(commands), 1);
    assert_eq!(cursor, Cursor::default(), "it begins anew");
}

#[test]
fn nothing_expires_while_a_step_of_the_clock_waits_for_a_person() {
    let mut world = World::new();
    let item = world.item(10, VAULT, Some(POLICY));
    world.points(
        item,
        &["2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z", "2026-02-03T00:00:00Z"],
    );
    world.done(Command::StopExpiry { step: 1 });
    let mut cursor = Cursor::default();
    assert_eq!(expired_points(&world.state, &world.plans, &mut cursor, world.now), []);
    world.done(Command::ConfirmClock);
    assert_eq!(
        expired_points(&world.state, &world.plans, &mut cursor, world.now).len(),
        1
    );
}

#[test]
fn a_vault_gets_one_catalogue_job_when_it_is_behind() {
    let mut world = World::new();
    world.item(10, VAULT, None);
    let due = catalogues_due(&world.state, world.now);
    assert_eq!(world.all(due), 1);
    assert_eq!(catalogues_due(&world.state, world.now), [], "it waits already");
}

#[test]
fn a_pass_over_items_looks_up_a_bounded_number_of_rows_of_each() {
    let looks_at = |items: u8| {
        let mut world = World::new();
        for number in 0..items {
            world.item(number, VAULT, Some(POLICY));
        }
        world.now = at("2026-03-04T03:00:00Z");
        let (due, looks) = looks::during(|| world.due());
        assert_eq!(due.len(), usize::from(items));
        looks
    };
    // The vault of each; what is found by key alone counts.
    assert_eq!(looks_at(200) - looks_at(50), 150);
}
