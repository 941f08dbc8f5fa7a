//! A worker in the simulation: it registers, asks for work, beats, and reports until it is answered. Its store is a list of manifests.

use std::collections::BTreeMap;

use tresor_proto::ids::{Epoch, JobId, MemberId, PointId, SessionId, WorkerId};

use super::check::Ledger;
use super::member::{Around, Call, MemberEvent, Reply, SLOTS, SlotView};
use super::network::{Event, Place};
use crate::node::error::NodeError;
use crate::node::presence::{BEAT_MS, JobProgress, LEASE_MS, SaidLease};
use crate::state::command::{
    Command, CommittedPoint, Completion, Consistency, Counts, FailureKind, Outcome, VaultClaim, Work, WorkerFacts,
};
use crate::state::entry::{Actor, Time};
use crate::state::reply;
use crate::state::rows::Job;

/// How long an answer is waited for, milliseconds.
const PATIENCE: u64 = 2000;

#[derive(Debug, Clone)]
pub(super) enum WorkerEvent {
    Begin {
        life: u64,
    },
    Poll {
        life: u64,
    },
    Beat {
        life: u64,
    },
    /// Looks at the map of the slots.
    Watch {
        life: u64,
    },
    /// A job's work is done.
    Worked {
        life: u64,
        job: JobId,
        epoch: Epoch,
    },
    /// A report is sent, again if need be.
    Report {
        life: u64,
        job: JobId,
        epoch: Epoch,
    },
    Reply {
        number: u64,
        reply: Reply,
    },
    Late {
        number: u64,
    },
}

/// What was asked and is not answered.
#[derive(Debug, Clone)]
enum Asked {
    Add,
    Register,
    Next,
    Beat,
    Watch,
    /// The map, for the answers that a job's point rests on.
    Map {
        job: JobId,
        epoch: Epoch,
    },
    Report {
        job: JobId,
        epoch: Epoch,
    },
}

#[derive(Debug, Clone)]
struct Running {
    job: Job,
    epoch: Epoch,
    session: SessionId,
    /// Until when the lease lasts by this worker's own clock.
    until: u64,
    /// What is to be reported, once the work is done.
    report: Option<Call>,
    /// Slots whose answers it rests on, under which grants, and the map that they stand on.
    rests_on: BTreeMap<u16, u64>,
    slot_map: u64,
}

impl Running {
    /// A bit for each slot that it rests on.
    fn bitmap(&self) -> Vec<u8> {
        let mut bits = vec![0; usize::from(SLOTS).div_ceil(8)];
        for slot in self.rests_on.keys() {
            bits[usize::from(slot / 8)] |= 1 << (slot % 8);
        }
        bits
    }

    /// Reports what was made, from now on.
    fn complete(&mut self, worker: WorkerId, job: JobId, outcome: Outcome) {
        // The same report has the same key; with other answers it is another one.
        let mut key = [0x55; 16];
        key[..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        key[8..].copy_from_slice(&self.slot_map.to_le_bytes());
        self.report = Some(Call::Change {
            actor: Actor::Worker(worker),
            key: Some(key),
            command: Command::Complete(Completion {
                job,
                epoch: self.epoch,
                session: self.session,
                outcome,
            }),
        });
    }
}

pub(super) struct Worker {
    pub(super) number: usize,
    id: Option<WorkerId>,
    life: u64,
    registered: bool,
    running: BTreeMap<JobId, Running>,
    asked: BTreeMap<u64, Asked>,
    next: u64,
    /// Who was asked last, and with luck leads.
    leader: MemberId,
    pub(super) down_until: u64,
    /// The life that used the databases of its slots last.
    kept: Option<u64>,
}

impl Worker {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            id: None,
            life: 0,
            registered: false,
            running: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 0,
            leader: MemberId(1),
            down_until: 0,
            kept: None,
        }
    }

    fn life_bytes(&self) -> [u8; 16] {
        self.bytes_of(self.life)
    }

    fn bytes_of(&self, life: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(self.number as u64).to_le_bytes());
        bytes[8..].copy_from_slice(&life.to_le_bytes());
        bytes
    }

    /// Its process ends, and starts again later: nothing of before is known.
    pub(super) fn crash(&mut self, ledger: &mut Ledger, around: &mut Around<'_>) {
        let is_lost = around.random.one_in(4);
        if let Some(id) = self.id {
            ledger.owner_died(id, is_lost);
        }
        if is_lost {
            self.kept = None;
        }
        self.life += 1;
        self.registered = false;
        self.running.clear();
        self.asked.clear();
        // Often it is back before its lease has ended, and sometimes long after.
        let longer = if around.random.one_in(4) { 40_000 } else { 0 };
        self.down_until = around.now + 1000 + around.random.below(20_000) + longer;
        around.network.at(
            self.down_until,
            Event::Worker(self.number, WorkerEvent::Begin { life: self.life }),
        );
    }

    fn ask(&mut self, asked: Asked, call: Call, members: &[MemberId], around: &mut Around<'_>) {
        self.next += 1;
        // Numbers of earlier lives are not used again.
        let number = self.life << 32 | self.next;
        self.asked.insert(number, asked);
        if !members.contains(&self.leader) || around.random.one_in(20) {
            self.leader = members[around.random.place(members.len())];
        }
        let event = Event::Member(
            self.leader,
            MemberEvent::Call {
                from: Place::Worker(self.number),
                number,
                call,
            },
        );
        around.network.send(
            around.random,
            around.now,
            Place::Worker(self.number),
            Place::Member(self.leader),
            &event,
        );
        around.network.at(
            around.now + PATIENCE,
            Event::Worker(self.number, WorkerEvent::Late { number }),
        );
    }

    fn again(&self, ms: u64, event: WorkerEvent, around: &mut Around<'_>) {
        around.network.at(around.now + ms, Event::Worker(self.number, event));
    }

    pub(super) fn take(
        &mut self,
        event: WorkerEvent,
        members: &[MemberId],
        ledger: &mut Ledger,
        around: &mut Around<'_>,
    ) {
        if around.now < self.down_until {
            return;
        }
        match event {
            WorkerEvent::Begin { life } if life == self.life => self.begin(members, around),
            WorkerEvent::Poll { life } if life == self.life && self.registered => self.poll(members, around),
            WorkerEvent::Beat { life } if life == self.life => self.beat(members, around),
            WorkerEvent::Watch { life } if life == self.life => {
                self.again(1000, WorkerEvent::Watch { life }, around);
                self.ask(Asked::Watch, Call::Map, members, around);
            }
            WorkerEvent::Worked { life, job, epoch } if life == self.life => self.worked(job, epoch, ledger, around),
            WorkerEvent::Report { life, job, epoch } if life == self.life => self.report(job, epoch, members, around),
            WorkerEvent::Reply { number, reply } => {
                if let Some(asked) = self.asked.remove(&number) {
                    self.answered(asked, Some(reply), members, ledger, around);
                }
            }
            WorkerEvent::Late { number } => {
                if let Some(asked) = self.asked.remove(&number) {
                    self.leader = members[around.random.place(members.len())];
                    self.answered(asked, None, members, ledger, around);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, members: &[MemberId], around: &mut Around<'_>) {
        let change = |actor, key, command| Call::Change { actor, key, command };
        match self.id {
            None => {
                let spec = crate::state::command::WorkerSpec {
                    name: format!("w{}", self.number),
                    token: None,
                };
                let mut key = [0xaa; 16];
                key[0] = u8::try_from(self.number).unwrap();
                self.ask(
                    Asked::Add,
                    change(Actor::Cluster, Some(key), Command::AddWorker(spec)),
                    members,
                    around,
                );
            }
            Some(worker) => {
                let facts = WorkerFacts {
                    host: format!("w{}", self.number),
                    permits: 2,
                    serves: format!("w{}:1", self.number),
                    ..WorkerFacts::default()
                };
                let command = Command::Register {
                    worker,
                    life: self.life_bytes(),
                    facts,
                    kept_life: self.kept.map(|life| self.bytes_of(life)),
                };
                self.ask(
                    Asked::Register,
                    change(Actor::Worker(worker), None, command),
                    members,
                    around,
                );
            }
        }
    }

    fn poll(&mut self, members: &[MemberId], around: &mut Around<'_>) {
        let Some(worker) = self.id else { return };
        if self.running.len() >= 2 {
            return self.again(500, WorkerEvent::Poll { life: self.life }, around);
        }
        let call = Call::NextLease {
            worker,
            life: self.life_bytes(),
        };
        self.ask(Asked::Next, call, members, around);
    }

    fn beat(&mut self, members: &[MemberId], around: &mut Around<'_>) {
        self.again(BEAT_MS / 4, WorkerEvent::Beat { life: self.life }, around);
        let Some(worker) = self.id.filter(|_| self.registered) else {
            return;
        };
        let said = self
            .running
            .iter()
            .map(|(job, running)| SaidLease {
                job: *job,
                epoch: running.epoch,
                progress: JobProgress::default(),
            })
            .collect();
        // Counted from sending it, not from the answer.
        let call = Call::Beat {
            worker,
            life: self.life_bytes(),
            said,
        };
        self.ask(Asked::Beat, call, members, around);
    }

    fn worked(&mut self, id: JobId, epoch: Epoch, ledger: &mut Ledger, around: &mut Around<'_>) {
        let Some(worker) = self.id else { return };
        // What is cancelled is reported as that, whatever its work comes to.
        let is_this = |running: &&mut Running| running.epoch == epoch && running.report.is_none();
        let Some(running) = self.running.get_mut(&id).filter(is_this) else {
            return;
        };
        let outcome = match &running.job.spec.work {
            Work::Backup { .. } if around.faults_on && around.random.one_in(10) => {
                let call = Call::Fail {
                    worker,
                    job: id,
                    epoch,
                    kind: FailureKind::Retry,
                };
                running.report = Some(call);
                return self.again(
                    0,
                    WorkerEvent::Report {
                        life: self.life,
                        job: id,
                        epoch,
                    },
                    around,
                );
            }
            Work::Backup { .. } => {
                let point = PointId(std::array::from_fn(|_| u8::try_from(around.random.below(256)).unwrap()));
                ledger.stored(point, id, epoch);
                ledger.rests_on(point, &running.rests_on);
                Outcome::Backup(CommittedPoint {
                    point,
                    time: Time(super::member::START + i64::try_from(around.now).unwrap()),
                    manifest: [1; 32],
                    consistency: Consistency::Crash,
                    slots: running.bitmap(),
                    slot_map: running.slot_map,
                    slots_missing: Vec::new(),
                    findings_seen: 0,
                    counts: Counts::default(),
                })
            }
            Work::Claim => Outcome::Claimed(VaultClaim {
                n: 1,
                cluster: 1,
                header: [0; 32],
            }),
            _ => Outcome::Done {
                counts: Counts::default(),
            },
        };
        running.complete(worker, id, outcome);
        self.again(
            0,
            WorkerEvent::Report {
                life: self.life,
                job: id,
                epoch,
            },
            around,
        );
    }

    fn report(&mut self, job: JobId, epoch: Epoch, members: &[MemberId], around: &mut Around<'_>) {
        let call = self
            .running
            .get(&job)
            .filter(|running| running.epoch == epoch)
            .and_then(|running| running.report.clone());
        if let Some(call) = call {
            self.ask(Asked::Report { job, epoch }, call, members, around);
        }
    }

    /// Asks some slots, or those again that a commit was refused for: whoever has them by the map answers, and takes an insert.
    fn asks_slots(&mut self, id: JobId, epoch: Epoch, view: &SlotView, ledger: &mut Ledger, around: &mut Around<'_>) {
        let Some(worker) = self.id else { return };
        let Some(running) = self.running.get_mut(&id).filter(|running| running.epoch == epoch) else {
            return;
        };
        if !matches!(running.job.spec.work, Work::Backup { .. }) || view.version < running.slot_map {
            return;
        }
        let first = running.rests_on.is_empty();
        let asked: Vec<u16> = match first {
            true => (0..3)
                .map(|_| u16::try_from(around.random.below(SLOTS.into())).unwrap())
                .collect(),
            false => running.rests_on.keys().copied().collect(),
        };
        for slot in asked {
            let owner = view.slots.get(&slot);
            let stands = owner.is_some_and(|owner| running.rests_on.get(&slot) == Some(&owner.owner_epoch));
            if stands {
                continue;
            }
            match owner.filter(|owner| ledger.inserts(owner, slot, running.session)) {
                Some(owner) => running.rests_on.insert(slot, owner.owner_epoch),
                None => running.rests_on.remove(&slot),
            };
        }
        running.slot_map = view.version;
        // A commit that was refused is tried again with what was answered now.
        if let Some(Call::Change {
            command: Command::Complete(completion),
            ..
        }) = &running.report
            && let Outcome::Backup(point) = &completion.outcome
        {
            let point = CommittedPoint {
                slots: running.bitmap(),
                slot_map: running.slot_map,
                ..point.clone()
            };
            ledger.rests_on(point.point, &running.rests_on);
            running.complete(worker, id, Outcome::Backup(point));
        }
    }

    fn answered(
        &mut self,
        asked: Asked,
        reply: Option<Reply>,
        members: &[MemberId],
        ledger: &mut Ledger,
        around: &mut Around<'_>,
    ) {
        if let Some(Reply::Error(NodeError::NotLeader { leader: Some(leader) })) = &reply {
            self.leader = *leader;
        }
        match (asked, reply) {
            (
                Asked::Add,
                Some(Reply::Changed {
                    reply: reply::Reply::Made(id),
                    ..
                }),
            ) => {
                self.id = Some(WorkerId(id));
                self.again(1, WorkerEvent::Begin { life: self.life }, around);
            }
            (
                Asked::Register,
                Some(Reply::Changed {
                    reply: reply::Reply::Done,
                    ..
                }),
            ) => {
                self.registered = true;
                self.again(1, WorkerEvent::Poll { life: self.life }, around);
                self.again(BEAT_MS / 4, WorkerEvent::Beat { life: self.life }, around);
                self.again(1, WorkerEvent::Watch { life: self.life }, around);
            }
            (Asked::Add | Asked::Register, _) => self.again(300, WorkerEvent::Begin { life: self.life }, around),
            (Asked::Next, Some(Reply::Lease { id, job })) => {
                let attempt = job.attempts.last().unwrap().clone();
                // The answer of an earlier poll may come late, when the lease was given to another already.
                if attempt.worker == self.id.unwrap() && attempt.life == self.life_bytes() {
                    ledger.leased(id, attempt.epoch, attempt.session, attempt.worker);
                    let longest = if around.random.one_in(5) { 60_000 } else { 8000 };
                    let took = 500 + around.random.below(longest);
                    let running = Running {
                        job: *job,
                        epoch: attempt.epoch,
                        session: attempt.session,
                        until: around.now + LEASE_MS,
                        report: None,
                        rests_on: BTreeMap::new(),
                        slot_map: 0,
                    };
                    self.running.insert(id, running);
                    let epoch = attempt.epoch;
                    self.ask(Asked::Map { job: id, epoch }, Call::Map, members, around);
                    self.again(
                        took,
                        WorkerEvent::Worked {
                            life: self.life,
                            job: id,
                            epoch: attempt.epoch,
                        },
                        around,
                    );
                }
                self.again(10, WorkerEvent::Poll { life: self.life }, around);
            }
            (Asked::Next, _) => self.again(700, WorkerEvent::Poll { life: self.life }, around),
            (Asked::Beat, Some(Reply::Beat(answer))) => {
                for (job, epoch) in answer.cancelled {
                    if let (Some(worker), Some(running)) = (self.id, self.running.get_mut(&job))
                        && running.epoch == epoch
                        && running.report.is_none()
                    {
                        running.report = Some(Call::Fail {
                            worker,
                            job,
                            epoch,
                            kind: FailureKind::Cancelled,
                        });
                        self.again(
                            1,
                            WorkerEvent::Report {
                                life: self.life,
                                job,
                                epoch,
                            },
                            around,
                        );
                    }
                }
                for (job, epoch) in answer.held {
                    if let Some(running) = self.running.get_mut(&job).filter(|running| running.epoch == epoch) {
                        running.until = running.until.max(around.now + LEASE_MS);
                    }
                }
            }
            (Asked::Watch, Some(Reply::Map(view))) => {
                if let Some(worker) = self.id
                    && ledger.owns(worker, self.life_bytes(), &view)
                {
                    self.kept = Some(self.life);
                }
            }
            (Asked::Map { job, epoch }, Some(Reply::Map(view))) => self.asks_slots(job, epoch, &view, ledger, around),
            (Asked::Beat | Asked::Watch | Asked::Map { .. }, _) => {}
            (Asked::Report { job, epoch }, reply) => self.reported(job, epoch, reply, members, ledger, around),
        }
    }

    fn reported(
        &mut self,
        job: JobId,
        epoch: Epoch,
        reply: Option<Reply>,
        members: &[MemberId],
        ledger: &mut Ledger,
        around: &mut Around<'_>,
    ) {
        let Some(running) = self.running.get(&job).filter(|running| running.epoch == epoch) else {
            return;
        };
        let completes = match &running.report {
            Some(Call::Change {
                command: Command::Complete(completion),
                ..
            }) => Some(completion.clone()),
            _ => None,
        };
        match reply {
            Some(Reply::Changed {
                reply: reply::Reply::Refused(reply::Refusal::Moved { .. }),
            }) => {
                // The lease goes on: the slots are asked again, and the point is committed with what they answer.
                ledger.was_moved();
                self.ask(Asked::Map { job, epoch }, Call::Map, members, around);
                let life = self.life;
                self.again(700, WorkerEvent::Report { life, job, epoch }, around);
            }
            Some(Reply::Changed { reply, .. }) => {
                self.running.remove(&job);
                if let Some(Completion {
                    outcome: Outcome::Backup(point),
                    ..
                }) = completes
                {
                    match reply {
                        reply::Reply::Refused(_) => ledger.refused(point.point),
                        _ => ledger.completed(job, epoch, point.point),
                    }
                }
            }
            // Unclear, no leader, lost: the same report again.
            _ => self.again(
                300,
                WorkerEvent::Report {
                    life: self.life,
                    job,
                    epoch,
                },
                around,
            ),
        }
    }
}
