//! The members, the wire between them, and what goes wrong.

mod streams;

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::MemberId;

use self::streams::Stream;
use super::check::Checker;
use super::subject::{Seen, Watched, hash, take_applied};
use super::{ClientError, Report, Settings, Subject};
use crate::raft::{Change, Config, Core, Output, Refused, Role, SendSnapshot, SnapshotId, Ticket};
use crate::seeded::Random;
use crate::store::faulty::{Failure, Faults, Faulty};
use crate::store::memory::{Loss, Memory, MemoryView};
use crate::store::{Membership, Piece, Stamp, Store};

const CLUSTER: [u8; 16] = *b"a simulated one!";
/// Members that there ever are.
const IDS_MAX: u64 = 12;
/// Rounds of peace after which everybody must agree.
const PEACE: u64 = 600;

type Life<M> = Core<Watched<M>, Faulty<Memory>>;

struct Node<M: Subject> {
    disk: Memory,
    faults: Faults,
    core: Option<Life<M>>,
    lives: u64,
    /// The round in which a crashed one comes back.
    back_at: u64,
    /// Learned that it was removed, and was shut down.
    is_gone: bool,
    /// Writes, with the command and what was known when they were asked for.
    writes: BTreeMap<Ticket, (u64, u64)>,
    reads: BTreeMap<Ticket, u64>,
    changes: BTreeSet<Ticket>,
    election_ticks: usize,
    old_disk: Option<Memory>,
}

struct Packet {
    from: MemberId,
    to: MemberId,
    bytes: Vec<u8>,
}

pub(super) struct World<M: Subject> {
    random: Random,
    settings: Settings,
    round: u64,
    nodes: BTreeMap<MemberId, Node<M>>,
    wire: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    cuts: BTreeSet<(MemberId, MemberId)>,
    cuts_until: u64,
    streams: Vec<Stream>,
    /// A piece that was delivered once, to be delivered again.
    old_piece: Option<(MemberId, SnapshotId, Piece)>,
    last_id: MemberId,
    commands: u64,
    checker: Checker,
    report: Report,
    trace: blake3::Hasher,
}

impl<M: Subject> World<M> {
    pub(super) fn new(seed: u64, settings: Settings) -> Result<Self, String> {
        // Of a run before that ended early.
        take_applied();
        let members = settings.members;
        let mut world = Self {
            random: Random::seeded(seed),
            settings,
            round: 0,
            nodes: BTreeMap::new(),
            wire: BTreeMap::new(),
            sent: 0,
            cuts: BTreeSet::new(),
            cuts_until: 0,
            streams: Vec::new(),
            old_piece: None,
            last_id: MemberId(members),
            commands: 0,
            checker: Checker::default(),
            report: Report::default(),
            trace: blake3::Hasher::new(),
        };
        let founding = Membership::founding((1..=members).map(|id| (MemberId(id), address(MemberId(id)))));
        for id in (1..=members).map(MemberId) {
            world.add_node(id, founding.clone())?;
        }
        Ok(world)
    }

    fn add_node(&mut self, id: MemberId, membership: Membership) -> Result<(), String> {
        let disk = Memory::new();
        let stamp = stamp(id);
        Store::create(disk.clone(), stamp, membership).map_err(|e| format!("no store could be made: {e}"))?;
        let node = Node {
            disk,
            faults: Faults::default(),
            core: None,
            lives: 0,
            back_at: 0,
            is_gone: false,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            changes: BTreeSet::new(),
            // One choice each, so that a seed repeats.
            election_ticks: 10 + self.random.place(10),
            old_disk: None,
        };
        self.nodes.insert(id, node);
        self.start(id)
    }

    fn start(&mut self, id: MemberId) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).expect("only members are started");
        node.lives += 1;
        node.faults = Faults::default();
        node.faults.set_lie(self.settings.lie);
        let config = Config {
            election_ticks_min: node.election_ticks,
            election_ticks_max: node.election_ticks + 1,
            keep: self.settings.keep,
            ..Config::new(node.lives)
        };
        let tables = Faulty::new(node.disk.clone(), node.faults.clone());
        let store = Store::open(tables, stamp(id)).map_err(|e| format!("the store of {id} cannot be opened: {e}"))?;
        let core: Life<M> = Core::open(config, store).map_err(|e| format!("{id} cannot be started: {e}"))?;
        self.checker
            .state(id, core.store().applied().index, core.machine().0.digest())?;
        node.core = Some(core);
        self.note(&[1, id.0]);
        Ok(())
    }

    fn note(&mut self, event: &[u64]) {
        self.trace.update(&self.round.to_le_bytes());
        for number in event {
            self.trace.update(&number.to_le_bytes());
        }
    }

    fn chance(&mut self, in_all: u64) -> bool {
        in_all != 0 && self.random.one_in(in_all)
    }

    fn up(&self) -> Vec<MemberId> {
        let is_up = |(id, node): (&MemberId, &Node<M>)| node.core.is_some().then_some(*id);
        self.nodes.iter().filter_map(is_up).collect()
    }

    fn core(&mut self, id: MemberId) -> Option<&mut Life<M>> {
        self.nodes.get_mut(&id)?.core.as_mut()
    }

    /// Members that take themselves for the leader.
    fn leaders(&mut self) -> Vec<MemberId> {
        let ids = self.up();
        let leads = |id: &MemberId| self.core(*id).is_some_and(|core| core.standing().role == Role::Leader);
        ids.into_iter().filter(leads).collect()
    }

    pub(super) fn round(&mut self) -> Result<(), String> {
        self.round += 1;
        self.deliver()?;
        self.pass_time();
        self.write_and_read()?;
        self.change_members()?;
        self.process_all()?;
        self.stream()?;
        self.make_trouble()?;
        self.bring_back()
    }

    fn deliver(&mut self) -> Result<(), String> {
        let later = self.wire.split_off(&(self.round + 1, 0));
        let due = std::mem::replace(&mut self.wire, later);
        for packet in due.into_values() {
            if self.cuts.contains(&(packet.from, packet.to)) {
                continue;
            }
            self.report.messages += 1;
            match self
                .core(packet.to)
                .map(|core| core.receive(packet.from, &packet.bytes))
            {
                Some(Ok(()) | Err(Refused::Removed { .. } | Refused::Stopped { .. })) | None => {}
                // A call to be elected that came late.
                Some(Err(Refused::Malformed { why })) if why.contains("our leader") => {}
                Some(Err(refused)) => return Err(format!("{} refused a message: {refused}", packet.to)),
            }
            self.note(&[2, packet.from.0, packet.to.0, hash(&packet.bytes)]);
            if self.random.one_in(2) {
                self.process(packet.to)?;
            }
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        for id in self.up() {
            // Clocks do not run alike.
            let ticks = match self.random.below(16) {
                0 => 0,
                1 => 2,
                _ => 1,
            };
            for _ in 0..ticks {
                self.core(id).expect("it is up").tick();
            }
        }
    }

    fn write_and_read(&mut self) -> Result<(), String> {
        let up = self.up();
        if up.is_empty() {
            return Ok(());
        }
        let leaders = self.leaders();
        for _ in 0..self.random.below(3) {
            // Mostly where it leads to something.
            let to = match leaders.is_empty() || self.random.one_in(8) {
                true => up[self.random.place(up.len())],
                false => leaders[self.random.place(leaders.len())],
            };
            self.commands += 1;
            let command = M::command(&mut self.random, self.commands);
            let (name, floor) = (hash(&command), self.checker.floor());
            let node = self.nodes.get_mut(&to).expect("it is up");
            if let Some(Ok(ticket)) = node.core.as_mut().map(|core| core.propose(command)) {
                node.writes.insert(ticket, (name, floor));
            }
        }
        if self.random.one_in(2) {
            let from = up[self.random.place(up.len())];
            let floor = self.checker.floor();
            let ticks = 1 + self.random.below(40) as u32;
            let node = self.nodes.get_mut(&from).expect("it is up");
            if let Some(Ok(ticket)) = node.core.as_mut().map(|core| core.read_index(ticks)) {
                node.reads.insert(ticket, floor);
            }
        }
        if self.settings.error == Some(ClientError::ReadsWithoutAsking) {
            for leader in leaders {
                let applied = self.core(leader).map(|core| core.store().applied().index);
                self.checker.read(applied.unwrap_or(u64::MAX), self.checker.floor())?;
            }
        }
        Ok(())
    }

    fn change_members(&mut self) -> Result<(), String> {
        if self.chance(self.settings.transfers) {
            for leader in self.leaders() {
                if let Some(core) = self.core(leader) {
                    // Whether it is possible depends on who was heard.
                    let _ = core.hand_over();
                }
            }
        }
        if !self.chance(self.settings.changes) {
            return Ok(());
        }
        let Some(leader) = self.leaders().pop() else {
            return Ok(());
        };
        let membership = self.core(leader).expect("it is up").membership().clone();
        let voters: Vec<MemberId> = membership.voters.iter().copied().collect();
        let learners: Vec<MemberId> = membership.learners.iter().copied().collect();
        let any = voters[self.random.place(voters.len())];
        let change = match self.random.below(6) {
            0..3 if self.last_id.0 < IDS_MAX && membership.members.len() < 6 => {
                let id = MemberId(self.last_id.0 + 1);
                self.last_id = id;
                let known = membership
                    .members
                    .iter()
                    .map(|(id, member)| (*id, member.address.clone()));
                self.add_node(id, Membership::joining(known))?;
                let address = address(id);
                match self.random.one_in(3) {
                    true => Change::AddLearner { id, address },
                    false => Change::Add { id, address },
                }
            }
            // At least three, so that one crash stops nothing.
            3 if voters.len() > 3 => Change::Remove { id: any },
            4 if !learners.is_empty() => Change::Replace {
                leaving: any,
                joining: learners[self.random.place(learners.len())],
            },
            5 if !learners.is_empty() => Change::Remove {
                id: learners[self.random.place(learners.len())],
            },
            _ => Change::Move {
                id: any,
                address: self.round.to_le_bytes().to_vec(),
            },
        };
        let node = self.nodes.get_mut(&leader).expect("it is up");
        if let Some(Ok(ticket)) = node.core.as_mut().map(|core| core.propose_membership(&change)) {
            node.changes.insert(ticket);
        }
        Ok(())
    }

    fn process_all(&mut self) -> Result<(), String> {
        for id in self.up() {
            self.process(id)?;
        }
        Ok(())
    }

    fn process(&mut self, id: MemberId) -> Result<(), String> {
        let Some(core) = self.core(id) else { return Ok(()) };
        let result = core.process();
        for (index, seen) in take_applied() {
            self.checker.applied(id, index, seen)?;
        }
        match result {
            Ok(output) => self.follow(id, output),
            Err(error) => {
                let node = &self.nodes[&id];
                if !node.faults.has_failed() {
                    return Err(format!("{id} stopped: {error:?}"));
                }
                self.report.disk_failures += 1;
                self.crash(id);
                Ok(())
            }
        }
    }

    fn follow(&mut self, id: MemberId, output: Output<Seen, MemoryView>) -> Result<(), String> {
        for message in output.messages {
            self.note(&[3, id.0, message.to.0, hash(&message.bytes)]);
            self.send(id, message.to, &message.bytes);
        }
        for SendSnapshot { to, header, snapshot } in output.snapshots {
            let from_life = self.nodes[&id].lives;
            self.streams.push(Stream {
                from: id,
                from_life,
                to,
                header,
                id: None,
                snapshot,
            });
        }
        if output.restored.is_some() {
            self.report.snapshots += 1;
        }
        let node = self.nodes.get_mut(&id).expect("its core was asked");
        for entry in &output.applied {
            let Some(ticket) = entry.ticket else { continue };
            let (command, floor) = node.writes.remove(&ticket).ok_or("a ticket has two outcomes")?;
            self.checker.acknowledged(entry.index, command, floor)?;
            self.report.acknowledged += 1;
        }
        for (ticket, _) in output.unclear {
            let (command, _) = node.writes.remove(&ticket).ok_or("a ticket has two outcomes")?;
            self.report.unclear += 1;
            if self.settings.error == Some(ClientError::TrustsTheUnclear) {
                self.checker.trusted(command);
            }
        }
        let core = node.core.as_ref().expect("it was asked");
        let applied = core.store().applied().index;
        for (ticket, outcome) in output.reads {
            let floor = node.reads.remove(&ticket).ok_or("a ticket has two outcomes")?;
            match outcome {
                Ok(index) if index != applied => return Err(format!("a read at {index} found {applied}")),
                Ok(index) => {
                    self.checker.read(index, floor)?;
                    self.report.reads += 1;
                }
                Err(_) => self.report.late_reads += 1,
            }
        }
        for (ticket, outcome) in output.changes {
            if !node.changes.remove(&ticket) {
                return Err(String::from("a ticket has two outcomes"));
            }
            self.report.changes += u64::from(outcome.is_ok());
        }
        self.checker.state(id, applied, core.machine().0.digest())?;
        if core.membership() != core.store().membership() {
            return Err(format!("{id} stores other members than it knows"));
        }
        if let Some(membership) = &output.membership {
            self.report.joint += u64::from(membership.is_joint());
            membership
                .check()
                .map_err(|why| format!("a membership that cannot be: {why}"))?;
        }
        if let Some(standing) = output.standing {
            if standing.role == Role::Leader {
                self.checker.leads(id, standing.term)?;
            }
            self.note(&[4, id.0, standing.term, standing.role as u64]);
        }
        self.note(&[5, id.0, applied]);
        Ok(())
    }

    fn send(&mut self, from: MemberId, to: MemberId, bytes: &[u8]) {
        if self.chance(self.settings.loses) {
            return;
        }
        let copies = if self.chance(self.settings.doubles) { 2 } else { 1 };
        for _ in 0..copies {
            let due = self.round + 1 + self.random.below(self.settings.delay);
            self.sent += 1;
            let packet = Packet {
                from,
                to,
                bytes: bytes.to_vec(),
            };
            self.wire.insert((due, self.sent), packet);
        }
    }

    fn make_trouble(&mut self) -> Result<(), String> {
        if self.chance(self.settings.crashes) {
            let up = self.up();
            if !up.is_empty() {
                let id = up[self.random.place(up.len())];
                self.crash(id);
            }
        }
        if self.chance(self.settings.disk_fails) {
            let up = self.up();
            if !up.is_empty() {
                let id = up[self.random.place(up.len())];
                let nth = self.random.below(4);
                let failure = match self.random.one_in(2) {
                    true => Failure::Done,
                    false => Failure::NotDone,
                };
                self.nodes[&id].faults.fail_write(nth, failure);
            }
        }
        if self.round >= self.cuts_until {
            self.cuts.clear();
        }
        if self.chance(self.settings.cuts) {
            self.cut();
        }
        if self.settings.error == Some(ClientError::RestoresAnOldDisk) && self.random.one_in(20) {
            self.restore_old_disk();
        }
        // Who learned that it was removed is shut down after a while.
        for id in self.up() {
            let core = self.core(id).expect("it is up");
            if core.membership().was_removed(id) && self.random.one_in(10) {
                let node = self.nodes.get_mut(&id).expect("it is up");
                node.core = None;
                node.is_gone = true;
            }
        }
        Ok(())
    }

    fn crash(&mut self, id: MemberId) {
        self.note(&[6, id.0]);
        self.report.crashes += 1;
        let back_at = self.round + 1 + self.random.below(60);
        let node = self.nodes.get_mut(&id).expect("it is there");
        node.core = None;
        node.back_at = back_at;
        node.writes.clear();
        node.reads.clear();
        node.changes.clear();
        let unsynced = node.disk.unsynced() as u64;
        let kept = self.random.below(unsynced + 1) as usize;
        node.disk.crash(Loss::AllBut(kept));
    }

    /// Half of the links of some members, or all links between two halves, one way or both.
    fn cut(&mut self) {
        let ids: Vec<MemberId> = self.nodes.keys().copied().collect();
        let side: BTreeSet<MemberId> = ids.iter().copied().filter(|_| self.random.one_in(2)).collect();
        let one_way = self.random.one_in(3);
        for from in &ids {
            for to in &ids {
                let is_cut = match one_way {
                    true => side.contains(from) && !side.contains(to),
                    false => side.contains(from) != side.contains(to),
                };
                if is_cut {
                    self.cuts.insert((*from, *to));
                }
            }
        }
        self.cuts_until = self.round + 10 + self.random.below(60);
    }

    fn restore_old_disk(&mut self) {
        let up = self.up();
        let Some(id) = up.first().copied() else { return };
        let node = self.nodes.get_mut(&id).expect("it is up");
        match node.old_disk.take() {
            None => node.old_disk = Some(node.disk.fork()),
            Some(old) => {
                self.crash(id);
                self.nodes.get_mut(&id).expect("it is there").disk = old;
            }
        }
    }

    fn bring_back(&mut self) -> Result<(), String> {
        let is_due = |node: &Node<M>| node.core.is_none() && !node.is_gone && node.back_at <= self.round;
        let due = self.nodes.iter().filter_map(|(id, node)| is_due(node).then_some(*id));
        for id in due.collect::<Vec<_>>() {
            self.start(id)?;
        }
        Ok(())
    }

    /// Ends all trouble and waits until everybody agrees.
    pub(super) fn make_peace(mut self) -> Result<Report, String> {
        self.settings = Settings {
            lie: self.settings.lie,
            keep: self.settings.keep,
            ..Settings::calm(self.settings.members)
        };
        self.cuts.clear();
        for node in self.nodes.values_mut() {
            node.back_at = 0;
        }
        self.bring_back()?;
        for round in 0..PEACE {
            self.round += 1;
            self.deliver()?;
            self.pass_time();
            self.process_all()?;
            self.stream()?;
            self.bring_back()?;
            if round > 60 && self.agree() {
                return self.finish();
            }
        }
        let states: Vec<_> = self
            .up()
            .into_iter()
            .map(|id| self.core(id).map(|core| core.status()))
            .collect();
        Err(format!("no agreement after {PEACE} rounds of peace: {states:#?}"))
    }

    /// The members that the leader knows of.
    fn participants(&mut self) -> Vec<MemberId> {
        let mut in_charge = self.leaders();
        in_charge.retain(|id| self.core(*id).is_some_and(|core| core.standing().in_charge));
        let leader = in_charge.last().copied();
        leader
            .and_then(|id| self.core(id))
            .map(|core| core.membership().members.keys().copied().collect())
            .unwrap_or_default()
    }

    fn agree(&mut self) -> bool {
        let participants = self.participants();
        let mut states = BTreeSet::new();
        for id in &participants {
            let Some(core) = self.core(*id) else { return false };
            let status = core.status();
            let Some(leader) = status.standing.leader else {
                return false;
            };
            let is_settled = status.applied.index == status.last_index && !status.membership.is_joint();
            let wait_to_vote = status
                .membership
                .learners
                .iter()
                .any(|id| status.membership.members[id].to_vote);
            if !is_settled || wait_to_vote {
                return false;
            }
            states.insert((leader, status.applied, core.machine().0.digest()));
        }
        states.len() == 1
    }

    fn finish(mut self) -> Result<Report, String> {
        let participants = self.participants();
        let mut applied = 0;
        for id in participants {
            let core = self.core(id).expect("everybody is there");
            applied = core.store().applied().index;
            let stored = core
                .store()
                .read_rows(|rows| M::load(rows).map(|machine| machine.digest()));
            let stored = stored.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            if stored != core.machine().0.digest() {
                return Err(format!("the rows of {id} are not its state"));
            }
        }
        self.checker.finish(applied)?;
        self.report.leaders = self.checker.leaders();
        self.report.trace = *self.trace.finalize().as_bytes();
        Ok(self.report)
    }
}

fn stamp(id: MemberId) -> Stamp {
    Stamp {
        node: id,
        cluster: CLUSTER,
    }
}

fn address(id: MemberId) -> Vec<u8> {
    format!("member-{id}:7000").into_bytes()
}
