//! A coordinator in the simulation: the driver, its disk, and the services that workers and the client reach, as thin as the real ones.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::{JobId, MemberId, SessionId, WorkerId};

use super::network::{Event, Network, Place};
use crate::lead::placement;
use crate::lead::plans::Plans;
use crate::lead::retries;
use crate::mutation::disk_lie;
use crate::node::driver::{Answer, Ask, Did, Driver, Now, Sender, TICK_MS};
use crate::node::error::NodeError;
use crate::node::handle::Membership as Change;
use crate::node::presence::{BeatAnswer, SaidLease};
use crate::raft::{Config, SnapshotId};
use crate::seeded::Random;
use crate::state::command::{Command, Failure, FailureKind};
use crate::state::entry::{Actor, ENTRY_FORM, IdempotencyKey, Time};
use crate::state::rows::{Job, Slot};
use crate::store::faulty::{Faults, Faulty};
use crate::store::memory::{Loss, Memory, MemoryView};
use crate::store::{Membership, Outgoing, Piece, SnapshotEnd, Stamp, Store};

pub(super) const CLUSTER: [u8; 16] = [7; 16];
/// Slots of the index: few, so that every one of them moves.
pub(super) const SLOTS: u16 = 12;
/// The wall clock when a run begins: a Monday.
pub(super) const START: i64 = 1_773_014_400_000;

type Disk = Faulty<Memory>;

/// What is asked of a coordinator, as a service would.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a test moves few of them")]
pub(super) enum Call {
    Change {
        actor: Actor,
        key: Option<IdempotencyKey>,
        command: Command,
    },
    Membership(Change),
    /// How much of the state a read sees; answered when it is as new as the question.
    Read,
    NextLease {
        worker: WorkerId,
        life: [u8; 16],
    },
    /// The map of the slots as this member has it.
    Map,
    Beat {
        worker: WorkerId,
        life: [u8; 16],
        said: Vec<SaidLease>,
    },
    Fail {
        worker: WorkerId,
        job: JobId,
        epoch: tresor_proto::ids::Epoch,
        kind: FailureKind,
    },
}

/// What a coordinator answers.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Changed { reply: crate::state::reply::Reply },
    Done,
    Seen(Seen),
    Lease { id: JobId, job: Box<Job> },
    NoLease,
    Map(Box<SlotView>),
    Beat(BeatAnswer),
    Error(NodeError),
}

/// A map of the slots, and the sessions that were open when it was read.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotView {
    pub(super) version: u64,
    pub(super) applied: u64,
    pub(super) open: BTreeSet<SessionId>,
    pub(super) slots: BTreeMap<u16, Slot>,
}

/// What a read saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) items: Vec<tresor_proto::ids::ItemId>,
    pub(super) points: Vec<tresor_proto::ids::PointId>,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a test moves few of them")]
pub(super) enum MemberEvent {
    Tick {
        life: u64,
    },
    Raft {
        from: MemberId,
        bytes: Vec<u8>,
        clock_ms: i64,
    },
    /// All of a snapshot, as it arrived: its pieces may have been lost or doubled.
    Snapshot {
        from: MemberId,
        header: Vec<u8>,
        pieces: Vec<Piece>,
        end: Option<SnapshotEnd>,
    },
    Sent {
        to: MemberId,
        is_whole: bool,
    },
    Call {
        from: Place,
        number: u64,
        call: Call,
    },
    Restart,
}

/// Who waits for an answer of the driver.
#[derive(Debug, Clone)]
struct Waits {
    from: Place,
    number: u64,
    for_lease: Option<JobId>,
    is_read: bool,
}

pub(super) struct Member {
    pub(super) id: MemberId,
    disk: Memory,
    faults: Faults,
    pub(super) driver: Option<Driver<Disk>>,
    pub(super) life: u64,
    wall_off: i64,
    /// Stopped (as by SIGSTOP) until then.
    pub(super) paused_until: u64,
    /// What came while it was stopped.
    held_back: Vec<MemberEvent>,
    waiting: BTreeMap<u64, Waits>,
    asked: u64,
    plans: Plans,
    pub(super) removed: bool,
}

/// What the members share with the world.
pub(super) struct Around<'w> {
    pub(super) network: &'w mut Network,
    pub(super) random: &'w mut Random,
    pub(super) now: u64,
    pub(super) faults_on: bool,
}

impl Member {
    pub(super) fn new(id: MemberId, membership: Membership, wall_off: i64) -> Self {
        let (disk, faults) = (Memory::new(), Faults::default());
        let store = Store::create(
            Faulty::new(disk.clone(), faults.clone()),
            Stamp {
                node: id,
                cluster: CLUSTER,
            },
            membership,
        );
        drop(store.unwrap());
        faults.set_lie(disk_lie());
        Self {
            id,
            disk,
            faults,
            driver: None,
            life: 0,
            wall_off,
            paused_until: 0,
            held_back: Vec::new(),
            waiting: BTreeMap::new(),
            asked: 0,
            plans: Plans::default(),
            removed: false,
        }
    }

    fn time(&self, now: u64) -> Now {
        Now {
            ms: now,
            wall: Time(START + i64::try_from(now).unwrap() + self.wall_off),
        }
    }

    pub(super) fn start(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        self.life += 1;
        let mut config = Config::new(self.life);
        // A window of one tick: raft-rs draws from the thread's randomness, which no seed rules.
        config.election_ticks_min = 10 + usize::try_from(around.random.below(10)).unwrap();
        config.election_ticks_max = config.election_ticks_min + 1;
        let stamp = Stamp {
            node: self.id,
            cluster: CLUSTER,
        };
        let store = Store::open(Faulty::new(self.disk.clone(), self.faults.clone()), stamp);
        let store = store.map_err(|error| format!("member {} does not open: {error}", self.id))?;
        let mut driver =
            Driver::open(config, store).map_err(|error| format!("member {} does not start: {error}", self.id))?;
        driver.set_slots(SLOTS);
        self.driver = Some(driver);
        self.waiting.clear();
        self.plans = Plans::default();
        let first = around.now + around.random.below(TICK_MS);
        around
            .network
            .at(first, Event::Member(self.id, MemberEvent::Tick { life: self.life }));
        self.settle(around);
        Ok(())
    }

    /// Cuts its power; it comes back later.
    pub(super) fn crash(&mut self, around: &mut Around<'_>) {
        self.driver = None;
        let unsynced = self.disk.unsynced();
        let loss = match around.random.below(3) {
            0 => Loss::Everything,
            _ => Loss::AllBut(usize::try_from(around.random.below(unsynced as u64 + 1)).unwrap()),
        };
        self.disk.crash(loss);
        self.waiting.clear();
        self.held_back.clear();
        let back = around.now + 500 + around.random.below(15_000);
        around.network.at(back, Event::Member(self.id, MemberEvent::Restart));
    }

    pub(super) fn take(&mut self, event: MemberEvent, around: &mut Around<'_>) -> Result<(), String> {
        if around.now < self.paused_until && !matches!(event, MemberEvent::Restart) {
            if self.held_back.len() < 500 || matches!(event, MemberEvent::Tick { .. }) {
                self.held_back.push(event);
            }
            return Ok(());
        }
        for held in std::mem::take(&mut self.held_back) {
            self.take_now(held, around)?;
        }
        self.take_now(event, around)
    }

    fn take_now(&mut self, event: MemberEvent, around: &mut Around<'_>) -> Result<(), String> {
        if let MemberEvent::Restart = event {
            return match (&self.driver, self.removed) {
                (None, false) => self.start(around),
                _ => Ok(()),
            };
        }
        let now = self.time(around.now);
        let Some(driver) = &mut self.driver else {
            return Ok(());
        };
        match event {
            MemberEvent::Tick { life } => {
                if life != self.life {
                    return Ok(());
                }
                driver.tick(now);
                around
                    .network
                    .at(around.now + TICK_MS, Event::Member(self.id, MemberEvent::Tick { life }));
            }
            MemberEvent::Raft { from, bytes, clock_ms } => {
                let clock_ms = clock_ms - self.wall_off;
                // Strangers and messages of earlier lives are refused; what stops a member shows at its next `process`.
                let _ = driver.receive(
                    from,
                    &bytes,
                    Sender {
                        clock_ms,
                        form: ENTRY_FORM,
                    },
                );
            }
            MemberEvent::Snapshot {
                from,
                header,
                pieces,
                end,
            } => {
                let taken = receive_snapshot(driver, from, &header, &pieces, end.as_ref());
                let event = Event::Member(
                    from,
                    MemberEvent::Sent {
                        to: self.id,
                        is_whole: taken,
                    },
                );
                let (me, to) = (Place::Member(self.id), Place::Member(from));
                around.network.send(around.random, around.now, me, to, &event);
            }
            MemberEvent::Sent { to, is_whole } => driver.report_snapshot(to, is_whole),
            MemberEvent::Call { from, number, call } => self.call(from, number, call, around),
            MemberEvent::Restart => {}
        }
        self.settle(around);
        Ok(())
    }

    fn call(&mut self, from: Place, number: u64, call: Call, around: &mut Around<'_>) {
        let now = self.time(around.now);
        let Some(driver) = &mut self.driver else {
            return;
        };
        let in_charge = driver.core().standing().in_charge;
        let not_leader = || {
            Reply::Error(NodeError::NotLeader {
                leader: driver.core().standing().leader,
            })
        };
        let shared = driver.state();
        let (ask, for_lease) = match call {
            Call::Change { actor, key, command } => (Ask::Change { actor, key, command }, None),
            Call::Membership(change) => (Ask::Membership(change), None),
            Call::Read => (Ask::Barrier, None),
            Call::Fail {
                worker,
                job,
                epoch,
                kind,
            } => {
                let state = shared.read().unwrap();
                let retry_at = retries::retry_at(&state, job, kind, state.now());
                let failure = Failure {
                    kind,
                    message: String::from("simulated"),
                    hint: String::new(),
                };
                let command = Command::Fail {
                    job,
                    epoch,
                    failure,
                    retry_at,
                };
                (
                    Ask::Change {
                        actor: Actor::Worker(worker),
                        key: None,
                        command,
                    },
                    None,
                )
            }
            Call::NextLease { worker, life } => {
                if !in_charge {
                    return reply(self.id, from, number, &not_leader(), around);
                }
                let state = shared.read().unwrap();
                self.plans.refresh(&state);
                let presence = driver.presence();
                let mut presence = presence.lock().unwrap();
                presence.hear(worker, life, 0, around.now);
                let at = state.now().max(now.wall);
                match placement::choose(&state, &presence, &self.plans, worker, at, around.now) {
                    Some(job) => {
                        let command = Command::Lease { job, worker, life };
                        (
                            Ask::Change {
                                actor: Actor::Worker(worker),
                                key: None,
                                command,
                            },
                            Some(job),
                        )
                    }
                    None => return reply(self.id, from, number, &Reply::NoLease, around),
                }
            }
            Call::Map => {
                let state = shared.read().unwrap();
                let view = SlotView {
                    version: state.marks().slot_map,
                    applied: state.marks().applied,
                    open: state.sessions().iter().map(|(id, _)| *id).collect(),
                    slots: state.slots().iter().map(|(number, slot)| (*number, *slot)).collect(),
                };
                return reply(self.id, from, number, &Reply::Map(Box::new(view)), around);
            }
            Call::Beat { worker, life, said } => {
                if !in_charge {
                    return reply(self.id, from, number, &not_leader(), around);
                }
                let state = shared.read().unwrap();
                let presence = driver.presence();
                let mut presence = presence.lock().unwrap();
                presence.hear(worker, life, 0, around.now);
                let answer = presence.beat(&state, worker, life, &said, around.now);
                return reply(self.id, from, number, &Reply::Beat(answer), around);
            }
        };
        self.asked += 1;
        let is_read = matches!(ask, Ask::Barrier);
        self.waiting.insert(
            self.asked,
            Waits {
                from,
                number,
                for_lease,
                is_read,
            },
        );
        driver.ask(self.asked, ask, now);
    }

    /// Does what comes out of the driver, as the node's task does.
    fn settle(&mut self, around: &mut Around<'_>) {
        let now = self.time(around.now);
        let Some(driver) = &mut self.driver else {
            return;
        };
        match driver.process(now) {
            Ok(did) => self.send(did, around),
            // It stopped, as on a full disk, and is started again.
            Err(error) => {
                if !around.faults_on {
                    panic!("member {} stopped without a fault: {error}", self.id);
                }
                self.crash(around);
            }
        }
    }

    fn send(&mut self, did: Did<MemoryView>, around: &mut Around<'_>) {
        let me = Place::Member(self.id);
        for message in did.messages {
            let event = MemberEvent::Raft {
                from: self.id,
                bytes: message.bytes,
                clock_ms: self.wall_off,
            };
            around.network.send(
                around.random,
                around.now,
                me,
                Place::Member(message.to),
                &Event::Member(message.to, event),
            );
        }
        for snapshot in did.snapshots {
            let (pieces, end) = pieces(snapshot.snapshot, around);
            let event = MemberEvent::Snapshot {
                from: self.id,
                header: snapshot.header,
                pieces,
                end,
            };
            around.network.send(
                around.random,
                around.now,
                me,
                Place::Member(snapshot.to),
                &Event::Member(snapshot.to, event),
            );
            // A stream that broke is noticed at its sender, too.
            let lost = Event::Member(
                self.id,
                MemberEvent::Sent {
                    to: snapshot.to,
                    is_whole: false,
                },
            );
            around.network.at(around.now + 10_000, lost);
        }
        for (number, answer) in did.answers {
            let Some(waits) = self.waiting.remove(&number) else {
                continue;
            };
            let answer = self.answer(&waits, answer);
            reply(self.id, waits.from, waits.number, &answer, around);
        }
    }

    fn answer(&self, waits: &Waits, answer: Result<Answer, NodeError>) -> Reply {
        let driver = self.driver.as_ref().unwrap();
        let shared = driver.state();
        let state = shared.read().unwrap();
        match answer {
            Err(error) => Reply::Error(error),
            Ok(Answer::Done) if waits.is_read => Reply::Seen(Seen {
                items: state.items().iter().map(|(id, _)| *id).collect(),
                points: state.points().iter().map(|(id, _)| *id).collect(),
            }),
            Ok(Answer::Done) => Reply::Done,
            Ok(Answer::Applied(applied)) => match (waits.for_lease, applied.reply) {
                (Some(job), crate::state::reply::Reply::Leased { .. }) => Reply::Lease {
                    id: job,
                    job: Box::new(state.jobs().get(&job).unwrap().clone()),
                },
                (Some(_), _) => Reply::NoLease,
                (None, reply) => Reply::Changed { reply },
            },
        }
    }
}

fn reply(from: MemberId, to: Place, number: u64, reply: &Reply, around: &mut Around<'_>) {
    let event = match to {
        Place::Worker(worker) => Event::Worker(
            worker,
            super::worker::WorkerEvent::Reply {
                number,
                reply: reply.clone(),
            },
        ),
        Place::Client => Event::Client(super::client::ClientEvent::Reply {
            number,
            reply: reply.clone(),
        }),
        Place::Member(_) => return,
    };
    around
        .network
        .send(around.random, around.now, Place::Member(from), to, &event);
}

fn pieces(mut outgoing: Outgoing<MemoryView>, around: &mut Around<'_>) -> (Vec<Piece>, Option<SnapshotEnd>) {
    let mut pieces = Vec::new();
    while let Some(piece) = outgoing.next_piece().unwrap() {
        pieces.push(piece);
    }
    let end = outgoing.end();
    if around.faults_on && around.random.one_in(4) && !pieces.is_empty() {
        // The stream broke off.
        pieces.truncate(around.random.place(pieces.len()));
        return (pieces, None);
    }
    (pieces, end)
}

fn receive_snapshot(
    driver: &mut Driver<Disk>,
    from: MemberId,
    header: &[u8],
    pieces: &[Piece],
    end: Option<&SnapshotEnd>,
) -> bool {
    let begun: Result<SnapshotId, _> = driver.begin_snapshot(from, header);
    let Ok(id) = begun else {
        return false;
    };
    for piece in pieces {
        if driver.snapshot_piece(id, piece).is_err() {
            return false;
        }
    }
    end.is_some_and(|end| driver.finish_snapshot(id, end).is_ok())
}
