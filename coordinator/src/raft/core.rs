//! The core and its inputs. What follows from them comes out of [`Core::process`].

use std::collections::{BTreeMap, VecDeque};

use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use tresor_proto::ids::MemberId;

use super::check::{self, Refused, Situation};
use super::limits::ASIDE_MAX;
use super::members::{self, Change};
use super::output::{
    CoreError, NotChanged, NotProposed, NotRead, NotTransferred, Output, Role, Standing, Status, Ticket,
};
use super::policy::{self, Peer};
use super::proposals::{Asked, Proposals};
use super::reads::Reads;
use super::snapshots::Receiving;
use super::storage::Shelf;
use super::{ChangeLost, Config, Machine, Unclear, bridge};
use crate::store::tables::Tables;
use crate::store::{ENTRY_BYTES_MAX, Membership, Position, Store};

/// A member.
pub struct Core<M: Machine, T: Tables> {
    pub(super) node: RawNode<Shelf<T>>,
    pub(super) machine: M,
    pub(super) me: MemberId,
    pub(super) config: Config,
    /// The members as of the last entry that was given to raft-rs: a moment ahead of the store's while entries are being applied.
    pub(super) membership: Membership,
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    pub(super) receiving: Option<Receiving<M>>,
    /// Ticks since it was opened.
    pub(super) now: u64,
    /// Ticks that are not done yet.
    pub(super) ticks_due: u32,
    /// Messages that wait until everything before them is on disk.
    pub(super) aside: VecDeque<Message>,
    /// When others were last heard of.
    heard: BTreeMap<MemberId, u64>,
    pub(super) output: Output<M::Reply, T::View>,
    pub(super) reported: Standing,
    pub(super) stopped: Option<String>,
    last_ticket: u64,
}

impl<M: Machine, T: Tables> Core<M, T> {
    /// Starts a member with what its store has. One that is alone leads at once.
    ///
    /// # Errors
    /// [`CoreError::Store`], [`CoreError::Rows`], [`CoreError::Config`].
    pub fn open(config: Config, store: Store<T>) -> Result<Self, CoreError> {
        let me = store.stamp().node;
        let machine = store.read_rows(M::load)?.map_err(|source| CoreError::Rows {
            source: Box::new(source),
        })?;
        let membership = store.membership().clone();
        let settings = config.for_raft(me.0, store.applied().index);
        settings
            .validate()
            .map_err(|error| CoreError::Config { why: error.to_string() })?;
        let is_alone = membership.voters.iter().eq([&me]) && !membership.is_joint();
        let mut node = RawNode::new(&settings, Shelf::new(store), &bridge::logger()).map_err(failed)?;
        if is_alone {
            // Nobody else can lead, so there is nobody to wait for.
            node.campaign().map_err(failed)?;
        }
        let mut core = Self {
            reads: Reads::new(me, config.life),
            node,
            machine,
            me,
            config,
            membership,
            proposals: Proposals::default(),
            receiving: None,
            now: 0,
            ticks_due: 0,
            aside: VecDeque::new(),
            heard: BTreeMap::new(),
            output: Output::default(),
            reported: Standing {
                role: Role::Follower,
                term: 0,
                leader: None,
                in_charge: false,
            },
            stopped: None,
            last_ticket: 0,
        };
        core.reported = core.standing();
        Ok(core)
    }

    /// Lets one tick pass. Ticks that were missed, as while a snapshot was loaded, are better left out: many at once look like a leader that
    /// is gone.
    pub fn tick(&mut self) {
        // An election with entries that are not on disk yet would be won without them; `process` stores them first.
        self.ticks_due = self.ticks_due.saturating_add(1);
    }

    /// Takes a message that came from another member, whose name its certificate proved.
    ///
    /// # Errors
    /// [`Refused`]: nothing happened, except that [`Refused::LogLost`] stops this member.
    pub fn receive(&mut self, from: MemberId, bytes: &[u8]) -> Result<(), Refused> {
        if let Some(why) = &self.stopped {
            return Err(Refused::Stopped { why: why.clone() });
        }
        let situation = self.situation();
        let message = check::read(from, bytes, &situation)?;
        if let Err(refused) = check::check(&message, &situation) {
            self.stop_if_lost(&refused);
            return Err(refused);
        }
        self.heard.insert(from, self.now);
        // Votes and the call to be elected rely on all entries being on disk: raft-rs asserts it. They wait for `process`.
        let relies_on_disk = matches!(
            message.msg_type,
            MessageType::MsgTimeoutNow | MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse
        );
        if relies_on_disk || !self.aside.is_empty() {
            if self.aside.len() < ASIDE_MAX {
                self.aside.push_back(message);
            }
        } else {
            self.step(message);
        }
        Ok(())
    }

    /// Gives raft-rs a message that was put aside, if it still makes sense.
    pub(super) fn step_aside(&mut self, message: Message) {
        match check::check(&message, &self.situation()) {
            Ok(()) => self.step(message),
            Err(refused) => self.stop_if_lost(&refused),
        }
    }

    fn stop_if_lost(&mut self, refused: &Refused) {
        if let Refused::LogLost { commit, last } = *refused {
            self.stop(&CoreError::LogLost { commit, last });
        }
    }

    /// Gives raft-rs a checked message.
    pub(super) fn step(&mut self, message: Message) {
        if message.msg_type == MessageType::MsgReadIndex && self.node.raft.state != StateRole::Leader {
            // A follower would send it on, and two that take each other for the leader would do so for ever. Who asks, asks again.
            return;
        }
        if let Err(error) = self.node.step(message) {
            // Answers of members that were removed in between.
            tracing::debug!(%error, "a message was not taken");
        }
    }

    pub(super) fn situation(&self) -> Situation<'_> {
        let raft = &self.node.raft;
        Situation {
            me: self.me,
            term: raft.term,
            last_index: raft.raft_log.last_index(),
            leader: MemberId(raft.leader_id),
            membership: &self.membership,
        }
    }

    /// Proposes a command. Its outcome comes in [`Output::applied`] or [`Output::unclear`].
    ///
    /// # Errors
    /// [`NotProposed`]: there is no entry.
    pub fn propose(&mut self, command: Vec<u8>) -> Result<Ticket, NotProposed> {
        let bytes = command.len();
        // An empty entry is a leader's own.
        if bytes == 0 || bytes > ENTRY_BYTES_MAX {
            return Err(NotProposed::Size { bytes });
        }
        self.may_propose(bytes)?;
        let result = self.node.propose(Vec::new(), command);
        self.proposed(result, Asked::Command, bytes)
    }

    /// Proposes a change of the membership. Its outcome comes in [`Output::changes`].
    ///
    /// # Errors
    /// [`NotChanged`]: there is no entry.
    pub fn propose_membership(&mut self, change: &Change) -> Result<Ticket, NotChanged> {
        self.may_propose(0)?;
        let planned = members::plan(change, &self.membership)?;
        if self.node.raft.has_pending_conf() {
            return Err(members::NotAllowed::Busy.into());
        }
        if let Some(voters) = members::voters_after(change, &self.membership) {
            if !voters.contains(&self.me) {
                // A leader that is removed must tell the others so and be gone: when that message is lost, and there were two, the other cannot
                // be elected without it. The other one as leader has no such trouble.
                let to = self.heir().ok_or(NotChanged::NoMajority)?;
                self.node.transfer_leader(to.0);
                return Err(NotChanged::HandsOver { to });
            }
            let (peers, ticks) = (self.peers(), self.config.election_ticks);
            if !policy::majority_is_heard(&voters, self.me, &peers, ticks) {
                return Err(NotChanged::NoMajority);
            }
            let last = self.node.raft.raft_log.last_index();
            let is_behind = |id: &&MemberId| {
                !peers
                    .get(id)
                    .is_some_and(|peer| policy::has_caught_up(peer, last, ticks))
            };
            if let Some(id) = voters.difference(&self.membership.voters).find(is_behind) {
                return Err(NotChanged::Behind { id: *id });
            }
        }
        Ok(self.propose_change(planned)?)
    }

    pub(super) fn propose_change(&mut self, change: raft::eraftpb::ConfChangeV2) -> Result<Ticket, NotProposed> {
        let bytes = change.compute_size() as usize;
        let result = self.node.propose_conf_change(Vec::new(), change);
        self.proposed(result, Asked::Change, bytes)
    }

    fn may_propose(&self, bytes: usize) -> Result<(), NotProposed> {
        if let Some(why) = &self.stopped {
            return Err(NotProposed::Stopped { why: why.clone() });
        }
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            // raft-rs would send it to the leader, and nobody would learn what became of it.
            let leader = self.leader();
            return Err(NotProposed::NotLeader { leader });
        }
        if let Some(to) = raft.lead_transferee.map(MemberId) {
            return Err(NotProposed::HandingOver { to });
        }
        if !self.proposals.has_room(bytes) {
            return Err(NotProposed::Full);
        }
        Ok(())
    }

    /// Notes a ticket for what was appended last.
    fn proposed(&mut self, result: raft::Result<()>, asked: Asked, bytes: usize) -> Result<Ticket, NotProposed> {
        // What else raft-rs refuses was asked before: what is left is its bound of uncommitted bytes.
        result.map_err(|_| NotProposed::Full)?;
        let ticket = self.ticket();
        let raft = &self.node.raft;
        let at = Position {
            index: raft.raft_log.last_index(),
            term: raft.term,
        };
        if let Some((before, asked)) = self.proposals.add(at, ticket, asked, bytes) {
            self.lose(before, asked);
        }
        Ok(ticket)
    }

    pub(super) fn lose(&mut self, ticket: Ticket, asked: Asked) {
        let leader = self.leader();
        let unclear = Unclear { leader };
        match asked {
            Asked::Command => self.output.unclear.push((ticket, unclear)),
            Asked::Change => self.output.changes.push((ticket, Err(ChangeLost::Unclear(unclear)))),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Asks to read the state as it is now or later, on any member. The outcome comes in [`Output::reads`], after `ticks` at the latest: the
    /// machine may be read when it comes.
    ///
    /// # Errors
    /// [`NotRead`].
    pub fn read_index(&mut self, ticks: u32) -> Result<Ticket, NotRead> {
        if let Some(why) = &self.stopped {
            return Err(NotRead::Stopped { why: why.clone() });
        }
        if !self.reads.has_room() {
            return Err(NotRead::Full);
        }
        let ticket = self.ticket();
        self.reads.add(ticket, self.now + u64::from(ticks.max(1)));
        Ok(ticket)
    }

    /// Begins to hand leadership to a voter. Until that is done, or an election's time has passed, nothing is proposed.
    ///
    /// # Errors
    /// [`NotTransferred`].
    pub fn transfer_leader(&mut self, to: MemberId) -> Result<(), NotTransferred> {
        if self.node.raft.state != StateRole::Leader {
            return Err(NotTransferred::NotLeader);
        }
        if !self.membership.voters.contains(&to) {
            return Err(NotTransferred::NoVoter { id: to });
        }
        self.node.transfer_leader(to.0);
        Ok(())
    }

    /// Begins to hand leadership to whoever can take it soonest, as before a shutdown.
    ///
    /// # Errors
    /// [`NotTransferred`].
    pub fn hand_over(&mut self) -> Result<MemberId, NotTransferred> {
        if self.node.raft.state != StateRole::Leader {
            return Err(NotTransferred::NotLeader);
        }
        let to = self.heir().ok_or(NotTransferred::Nobody)?;
        self.node.transfer_leader(to.0);
        Ok(to)
    }

    pub(super) fn heir(&self) -> Option<MemberId> {
        let others = self.membership.voters.iter().copied().filter(|id| *id != self.me);
        policy::heir(&others.collect(), &self.peers(), self.config.election_ticks)
    }

    /// Says that a message could not be sent: the leader sends fewer until it hears of that member again.
    pub fn report_unreachable(&mut self, to: MemberId) {
        self.node.report_unreachable(to.0);
    }

    /// Says how the sending of a snapshot ended: whether the receiver's [`Self::finish_snapshot`] said that it is whole.
    pub fn report_snapshot(&mut self, to: MemberId, is_whole: bool) {
        if self.node.mut_store().sending.remove(&to).is_some() {
            let status = if is_whole {
                SnapshotStatus::Finish
            } else {
                SnapshotStatus::Failure
            };
            self.node.report_snapshot(to.0, status);
        }
    }

    /// Takes no part any more. What was not handed out never is.
    pub(super) fn stop(&mut self, error: &CoreError) -> String {
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            why = format!("{why}: {error}");
            cause = error.source();
        }
        self.output = Output::default();
        self.stopped = Some(why.clone());
        why
    }

    /// Who this is.
    pub fn id(&self) -> MemberId {
        self.me
    }

    /// The machine, after the last entry applied. What followers read of it may be old; see [`Self::read_index`].
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The members, as of the last entry applied.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Its store, for looking at.
    pub fn store(&self) -> &Store<T> {
        &self.node.store().store
    }

    pub(super) fn store_mut(&mut self) -> &mut Store<T> {
        &mut self.node.mut_store().store
    }

    fn leader(&self) -> Option<MemberId> {
        Some(MemberId(self.node.raft.leader_id)).filter(|id| id.0 != 0)
    }

    /// Who leads.
    pub fn standing(&self) -> Standing {
        let raft = &self.node.raft;
        let role = match raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate | StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        };
        Standing {
            role,
            term: raft.term,
            leader: self.leader(),
            in_charge: role == Role::Leader && raft.apply_to_current_term(),
        }
    }

    /// Where it stands, for people and metrics.
    pub fn status(&self) -> Status {
        let store = self.store();
        Status {
            standing: self.standing(),
            commit: self.node.raft.raft_log.committed,
            applied: store.applied(),
            first_index: store.first_index(),
            last_index: store.last_index(),
            log_bytes: store.log_bytes(),
            membership: self.membership.clone(),
            peers: self.peers(),
            proposals: self.proposals.len(),
            reads: self.reads.len(),
        }
    }

    /// What a leader knows of the others; empty for who does not lead.
    pub(super) fn peers(&self) -> BTreeMap<MemberId, Peer> {
        if self.node.raft.state != StateRole::Leader {
            return BTreeMap::new();
        }
        let progress = self.node.raft.prs().iter().map(|(id, progress)| {
            let id = MemberId(*id);
            let heard = self.heard.get(&id);
            let peer = Peer {
                matched: progress.matched,
                silent_ticks: heard.map_or(u64::MAX, |at| self.now - at),
                in_snapshot: progress.state == ProgressState::Snapshot,
            };
            (id, peer)
        });
        progress.filter(|(id, _)| *id != self.me).collect()
    }

    /// Forgets when members were heard of that are members no more.
    pub(super) fn forget_strangers(&mut self) {
        let membership = &self.membership;
        self.heard.retain(|id, _| !membership.was_removed(*id));
    }
}

/// What raft-rs says where it has no reason to refuse.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(error: raft::Error) -> CoreError {
    CoreError::Raft { why: error.to_string() }
}
