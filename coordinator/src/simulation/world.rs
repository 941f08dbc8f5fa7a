//! All of it together, and what goes wrong when.

use std::collections::BTreeMap;

use tresor_proto::ids::MemberId;

use super::check::Ledger;
use super::client::{Client, ClientEvent};
use super::member::{Around, Member, MemberEvent};
use super::network::{Event, Network, Place};
use super::worker::{Worker, WorkerEvent};
use crate::node::handle::Membership as Change;
use crate::seeded::Random;
use crate::state::entry::Time;
use crate::state::rows::JobState;
use crate::store::Membership;

/// How long things go wrong, milliseconds: a few leases.
const TROUBLE_MS: u64 = 100_000;
/// How long it may take after that until all is done, milliseconds.
const PATIENCE_MS: u64 = 400_000;
/// How often members are compared, milliseconds.
const COMPARE_MS: u64 = 5000;

/// What a run was like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) completions: usize,
    pub(super) applied: u64,
    pub(super) elections: u64,
    /// Slots that went from one worker to another.
    pub(super) moves: usize,
    /// Commits that were refused for a moved slot.
    pub(super) refused_for_slots: usize,
    pub(super) ended_at: u64,
    /// Of everything that happened, in order.
    pub(super) trace: [u8; 32],
}

pub(super) struct World {
    random: Random,
    now: u64,
    members: BTreeMap<MemberId, Member>,
    workers: Vec<Worker>,
    client: Client,
    network: Network,
    ledger: Ledger,
    trace: blake3::Hasher,
    elections: u64,
    joined: bool,
}

fn address(id: MemberId) -> (MemberId, Vec<u8>) {
    (id, format!("c{id}:1").into_bytes())
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let count = if random.one_in(4) { 5 } else { 3 };
        let ids: Vec<MemberId> = (1..=count).map(MemberId).collect();
        let founding = Membership::founding(ids.iter().copied().map(address));
        let members = ids
            .iter()
            .map(|id| {
                // One clock in a while is off by years; the majority's are right.
                let off = match (id.0 == 1 && random.one_in(4), random.below(4000)) {
                    (true, _) => 10 * 365 * 86_400_000,
                    (false, off) => i64::try_from(off).unwrap() - 2000,
                };
                (*id, Member::new(*id, founding.clone(), off))
            })
            .collect();
        let workers = (0..3).map(Worker::new).collect();
        Self {
            random,
            now: 0,
            members,
            workers,
            client: Client::new(),
            network: Network::default(),
            ledger: Ledger::default(),
            trace: blake3::Hasher::new(),
            elections: 0,
            joined: false,
        }
    }

    fn ids(&self) -> Vec<MemberId> {
        self.members
            .values()
            .filter(|member| !member.removed)
            .map(|member| member.id)
            .collect()
    }

    /// Runs it to its end.
    pub(super) fn run(mut self) -> Result<Report, String> {
        let ids = self.ids();
        let mut around = around(&mut self.network, &mut self.random, 0, true);
        for id in &ids {
            self.members.get_mut(id).unwrap().start(&mut around)?;
        }
        for worker in &self.workers {
            self.network
                .at(10, Event::Worker(worker.number, WorkerEvent::Begin { life: 0 }));
        }
        self.network.at(5, Event::Client(ClientEvent::Next));
        self.network.at(3000, Event::Fault);
        let mut healed = false;
        let mut compare_at = COMPARE_MS;
        while let Some((ms, event)) = self.network.next() {
            self.now = ms;
            if ms >= TROUBLE_MS && !healed {
                healed = true;
                self.heal();
            }
            self.note(&event);
            self.step(event, !healed)?;
            if ms >= compare_at {
                compare_at = ms + COMPARE_MS;
                self.compare();
                self.ledger.wrong()?;
                if healed && self.is_done() {
                    return self.end();
                }
            }
            if ms > TROUBLE_MS + PATIENCE_MS {
                return Err(format!(
                    "it is not done {PATIENCE_MS} ms after all was healed: {}",
                    self.why_not_done()
                ));
            }
        }
        Err(String::from("nothing happens any more"))
    }

    fn note(&mut self, event: &Event) {
        self.trace.update(&self.now.to_le_bytes());
        let (kind, one, other) = match event {
            Event::Member(id, MemberEvent::Raft { from, bytes, .. }) => {
                self.trace.update(bytes);
                (1, id.0, from.0)
            }
            Event::Member(id, _) => (2, id.0, 0),
            Event::Worker(number, _) => (3, *number as u64, 0),
            Event::Client(_) => (4, 0, 0),
            Event::Fault => (5, 0, 0),
        };
        for number in [kind, one, other] {
            self.trace.update(&u64::to_le_bytes(number));
        }
    }

    fn step(&mut self, event: Event, faults_on: bool) -> Result<(), String> {
        let ids = self.ids();
        if let Event::Fault = event {
            if faults_on {
                self.fault()?;
                let next = self.now + 500 + self.random.below(8000);
                self.network.at(next, Event::Fault);
            }
            return Ok(());
        }
        let mut around = around(&mut self.network, &mut self.random, self.now, faults_on);
        match event {
            Event::Member(id, event) => {
                let Some(member) = self.members.get_mut(&id) else {
                    return Ok(());
                };
                let led = member
                    .driver
                    .as_ref()
                    .is_some_and(|driver| driver.core().standing().in_charge);
                member.take(event, &mut around)?;
                if let Some(driver) = &member.driver {
                    self.ledger.observe(id, &driver.state().read().unwrap());
                }
                let leads = member
                    .driver
                    .as_ref()
                    .is_some_and(|driver| driver.core().standing().in_charge);
                self.elections += u64::from(leads && !led);
            }
            Event::Worker(number, event) => self.workers[number].take(event, &ids, &mut self.ledger, &mut around),
            Event::Client(event) => self.client.take(event, &ids, &mut self.ledger, &mut around),
            Event::Fault => {}
        }
        Ok(())
    }

    /// Something goes wrong.
    fn fault(&mut self) -> Result<(), String> {
        let ids = self.ids();
        let id = ids[self.random.place(ids.len())];
        let worker = self.random.place(self.workers.len());
        let kind = self.random.below(10);
        let later = self.now + 1000 + self.random.below(12_000);
        let mut around = around(&mut self.network, &mut self.random, self.now, true);
        match kind {
            0..3 => self.members.get_mut(&id).unwrap().crash(&mut around),
            3 => self.members.get_mut(&id).unwrap().paused_until = later,
            4 | 5 => self.workers[worker].crash(&mut self.ledger, &mut around),
            6 => {
                // One member, or the client's and a worker's side of the network with it.
                for other in &ids {
                    self.network.cut(Place::Member(id), Place::Member(*other));
                }
            }
            7 => {
                for other in &ids {
                    self.network.cut(Place::Worker(worker), Place::Member(*other));
                }
            }
            8 if !self.joined && !self.client.busy_setup => self.join()?,
            _ => {
                let loss = [0, 0, 5, 20][self.random.place(4)];
                self.network.heal();
                self.network.loss = loss;
            }
        }
        Ok(())
    }

    /// Another member comes.
    fn join(&mut self) -> Result<(), String> {
        self.joined = true;
        let id = MemberId(1_000_000);
        let ids = self.ids();
        let mut member = Member::new(id, Membership::joining(ids.iter().copied().map(address)), 0);
        let mut around = around(&mut self.network, &mut self.random, self.now, true);
        member.start(&mut around)?;
        let (member_id, address) = address(id);
        let address = String::from_utf8(address).unwrap();
        self.client.change_members(
            Change::Add {
                member: member_id,
                address,
            },
            &ids,
            &mut around,
        );
        self.members.insert(id, member);
        Ok(())
    }

    fn heal(&mut self) {
        self.network.heal();
        self.client.rest();
        for member in self.members.values_mut() {
            member.paused_until = 0;
        }
    }

    fn compare(&mut self) {
        for member in self.members.values() {
            if let Some(driver) = &member.driver {
                let state = driver.state();
                self.ledger.compare(member.id, driver.applied(), &state.read().unwrap());
            }
        }
    }

    fn why_not_done(&self) -> String {
        let mut why = Vec::new();
        for member in self.members.values() {
            match &member.driver {
                None => why.push(format!("member {} is down", member.id)),
                Some(driver) => {
                    let state = driver.state();
                    let state = state.read().unwrap();
                    why.push(format!(
                        "member {}: applied {}, now {}, {:?}, {:?}, slots answered for: {}",
                        member.id,
                        driver.applied(),
                        state.now(),
                        driver.core().standing(),
                        state
                            .open_jobs()
                            .filter_map(|id| state.jobs().get(&id).map(|job| (id, job.state, job.attempts_made)))
                            .collect::<Vec<_>>(),
                        self.ledger.all_answer(&state),
                    ));
                }
            }
        }
        if self.client.waits() {
            why.push(String::from("the client waits"));
        }
        why.join("; ")
    }

    /// Whether a member was ever taken in: one that came while things went wrong may have been refused, or its asking given up.
    fn is_in(&self, member: &Member) -> bool {
        let drivers = self.members.values().filter_map(|other| other.driver.as_ref());
        let mut others = drivers.filter(|driver| driver.applied() > 0);
        others.any(|driver| driver.members().iter().any(|(id, _)| *id == member.id))
    }

    /// All members run and have the same, and no job waits that could run.
    fn is_done(&self) -> bool {
        let mut applied = Vec::new();
        for member in self.members.values().filter(|member| self.is_in(member)) {
            let Some(driver) = &member.driver else {
                return false;
            };
            applied.push(driver.applied());
            let state = driver.state();
            let state = state.read().unwrap();
            // What has failed often waits for long; the others have to be done.
            let now = state
                .now()
                .max(Time(super::member::START + i64::try_from(self.now).unwrap()));
            let waits_for_later = |id| match state.jobs().get(&id).map(|job| job.state) {
                Some(JobState::Queued { not_before }) => not_before > now,
                _ => false,
            };
            if !state.open_jobs().all(waits_for_later) || !self.ledger.all_answer(&state) {
                return false;
            }
        }
        !self.client.waits() && applied.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn end(mut self) -> Result<Report, String> {
        let mut applied = 0;
        let members: Vec<&Member> = self.members.values().filter(|member| self.is_in(member)).collect();
        for member in members {
            let driver = member.driver.as_ref().unwrap();
            applied = driver.applied();
            let state = driver.state();
            self.ledger.at_the_end(&state.read().unwrap())?;
        }
        Ok(Report {
            completions: self.ledger.completions(),
            applied,
            elections: self.elections,
            moves: self.ledger.moves(),
            refused_for_slots: self.ledger.refused_for_slots,
            ended_at: self.now,
            trace: *self.trace.finalize().as_bytes(),
        })
    }
}

fn around<'w>(network: &'w mut Network, random: &'w mut Random, now: u64, faults_on: bool) -> Around<'w> {
    Around {
        network,
        random,
        now,
        faults_on,
    }
}
