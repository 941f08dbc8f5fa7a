//! What follows from the inputs, in the order that keeps promises.
//!
//! raft-rs collects what is to be done in a `Ready`. This is done with each, and why in this order (the words are those of raft-rs's
//! documentation of `Ready`, `LightReady` and `RawNode::advance`):
//!
//! 1. **Snapshot**: one synced batch makes the rows count that were loaded and checked before, and the machine made of them takes over. First,
//!    because the entries of the same `Ready` come after it.
//! 2. **Entries and vote** (`entries`, `hs`): one batch, entries first, synced if `must_sync`: a vote or an entry is about to be promised to
//!    others. A commit index alone promises nothing, and waits for a batch that is synced anyway.
//! 3. **Messages** (`messages`, `persisted_messages`): only now. A leader's might go before step 2, to store in parallel with its followers; a
//!    follower's must not: they say "I have it". One order for both is simpler, and costs a leader the time of one sync.
//! 4. **Committed entries**: applied, and their rows, the last applied index, changed members and the commit index stored as one batch. They were
//!    stored by an earlier `Ready` (raft-rs hands out what is committed *and* persisted), so the batch is not synced: what a crash takes of it is
//!    applied again. The commit index is in the batch so that a crash never leaves rows of entries that are not known to be committed.
//! 5. **`advance`** tells raft-rs that all of this is done. What that makes possible comes back as a `LightReady`: a commit index, which must
//!    be stored too, more messages, and more committed entries, as in 4.
//! 6. **`advance_apply`**, for those.
//!
//! Answers and messages collect in the output, which the caller gets only when all of it succeeded.

use protobuf::Message as _;
use raft::eraftpb::{self, Message, MessageType};
use raft::{Ready, StateRole};
use tresor_proto::ids::MemberId;

use super::core::Core;
use super::members;
use super::output::{AppliedEntry, ChangeLost, CoreError, Outgoing, Output, SendSnapshot};
use super::policy::{self, LogSize};
use super::storage::{from_hard_state, from_raft};
use super::{Applied, Machine, Ticket, snapshots};
use crate::store::tables::{Durability, Tables};
use crate::store::{EntryKind, HardState, Membership, Position, RowChange};

impl<M: Machine, T: Tables> Core<M, T> {
    /// Does everything that follows from the inputs since the last time: stores, applies, and says what to send and what became of what.
    ///
    /// # Errors
    /// [`CoreError`]: this member stopped. What waits for an outcome is unclear, and nothing of what was done since the last time may be told.
    pub fn process(&mut self) -> Result<Output<M::Reply, T::View>, CoreError> {
        self.check_running()?;
        match self.run() {
            Ok(()) => Ok(std::mem::take(&mut self.output)),
            Err(error) => {
                self.stop(&error);
                Err(error)
            }
        }
    }

    fn check_running(&self) -> Result<(), CoreError> {
        match &self.stopped {
            Some(why) => Err(CoreError::Stopped { why: why.clone() }),
            None => Ok(()),
        }
    }

    fn run(&mut self) -> Result<(), CoreError> {
        loop {
            self.settle()?;
            // Now that everything is on disk: what relies on it, one after the other.
            if let Some(message) = self.aside.pop_front() {
                self.step_aside(message);
                self.check_running()?;
            } else if self.ticks_due > 0 {
                self.ticks_due -= 1;
                self.pass_tick();
            } else if let Some(question) = self.reads.ask(self.now) {
                self.node.read_index(question);
            } else {
                break;
            }
        }
        let applied = self.store().applied().index;
        self.output.reads.extend(self.reads.take_ready(applied));
        self.lose_proposals();
        self.compact()?;
        let standing = self.standing();
        if standing != self.reported {
            self.reported = standing;
            self.output.standing = Some(standing);
        }
        Ok(())
    }

    fn pass_tick(&mut self) {
        self.now += 1;
        self.node.tick();
        self.output.reads.extend(self.reads.take_late(self.now));
        for question in self.reads.ask_again(self.now, self.config.heartbeat_ticks as u64) {
            self.node.read_index(question);
        }
        self.tend_members();
    }

    /// As a leader: ends joint consensus, and lets learners vote that have caught up.
    fn tend_members(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return;
        }
        if self.membership.is_joint() {
            // raft-rs does so itself, unless the leader changed in the wrong moment.
            if let Err(error) = self.node.propose_conf_change(Vec::new(), members::leave()) {
                tracing::debug!(%error, "joint consensus is left later");
            }
            return;
        }
        let last = raft.raft_log.last_index();
        let peers = self.peers();
        let has_caught_up = |id: &&MemberId| {
            let peer = peers.get(id);
            let wants = self.membership.members.get(id).is_some_and(|member| member.to_vote);
            wants && peer.is_some_and(|peer| policy::has_caught_up(peer, last, self.config.election_ticks))
        };
        let Some(id) = self.membership.learners.iter().find(has_caught_up).copied() else {
            return;
        };
        if let Ok(change) = members::plan(&members::Change::Promote { id }, &self.membership)
            && let Err(error) = self.node.propose_conf_change(Vec::new(), change)
        {
            tracing::debug!(%error, member = id.0, "a learner is promoted later");
        }
    }

    /// Handles what raft-rs has ready, until it has nothing.
    fn settle(&mut self) -> Result<(), CoreError> {
        while self.node.has_ready() {
            let ready = self.node.ready();
            self.handle(ready)?;
        }
        Ok(self.node.store().trouble()?)
    }

    fn handle(&mut self, mut ready: Ready) -> Result<(), CoreError> {
        // 1. The snapshot.
        if !ready.snapshot().is_empty() {
            let vote = ready.hs().map_or(self.store().hard(), from_hard_state);
            let snapshot = ready.snapshot().clone();
            self.adopt(&snapshot, vote)?;
        }
        // 2. Entries and vote.
        let committed = ready.take_committed_entries();
        let mut hard = ready.hs().map(from_hard_state);
        let entries: Vec<_> = ready.take_entries().into_iter().map(from_raft).collect();
        if ready.must_sync() || !entries.is_empty() {
            self.store_mut().append(entries, hard.take(), Durability::Synced)?;
        } else if committed.is_empty() {
            self.store_mut().append(Vec::new(), hard.take(), Durability::Later)?;
        }
        // 3. Messages.
        let messages = [ready.take_messages(), ready.take_persisted_messages()].concat();
        self.send(messages);
        for read in ready.take_read_states() {
            self.reads.answer(&read.request_ctx, read.index);
        }
        // 4. Committed entries.
        self.apply(committed, hard)?;
        // 5. What that makes possible.
        let mut light = self.node.advance(ready);
        let hard = light.commit_index().map(|commit| HardState {
            commit,
            ..self.store().hard()
        });
        self.send(light.take_messages());
        self.apply(light.take_committed_entries(), hard)?;
        // 6. And that is done.
        self.node.advance_apply();
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = MemberId(message.to);
            let is_snapshot = message.msg_type == MessageType::MsgSnapshot;
            let bytes = message.write_to_bytes().expect("messages of raft-rs can be encoded");
            if !is_snapshot {
                self.output.messages.push(Outgoing { to, bytes });
            } else if let Some(snapshot) = self.node.mut_store().take_snapshot(to) {
                let header = bytes;
                self.output.snapshots.push(SendSnapshot { to, header, snapshot });
            }
        }
    }

    /// Makes the snapshot count that was received, and that raft-rs has decided to take.
    fn adopt(&mut self, snapshot: &eraftpb::Snapshot, vote: HardState) -> Result<(), CoreError> {
        let metadata = snapshot.get_metadata();
        let position = Position {
            index: metadata.index,
            term: metadata.term,
        };
        let received = self.receiving.take().and_then(snapshots::Receiving::into_machine);
        let (Some(machine), Ok(membership)) = (received, snapshots::read_membership(snapshot)) else {
            let why = "it takes a snapshot that was not received";
            return Err(CoreError::Raft { why: why.into() });
        };
        let hard = HardState {
            commit: position.index,
            ..vote
        };
        self.store_mut().adopt(position, membership.clone(), hard)?;
        self.machine = machine;
        self.change_membership(membership);
        self.output.restored = Some(position.index);
        Ok(())
    }

    fn change_membership(&mut self, membership: Membership) {
        self.membership = membership.clone();
        self.output.membership = Some(membership);
        self.forget_strangers();
    }

    /// Applies committed entries and stores what they did, with `hard`, as one batch. It need not survive: the entries do.
    fn apply(&mut self, entries: Vec<eraftpb::Entry>, hard: Option<HardState>) -> Result<(), CoreError> {
        let hard = hard.unwrap_or(self.store().hard());
        let Some(last) = entries.last() else {
            if hard == self.store().hard() {
                return Ok(());
            }
            // It need not survive: whoever leads says it again.
            return Ok(self.store_mut().append(Vec::new(), Some(hard), Durability::Later)?);
        };
        let position = Position {
            index: last.index,
            term: last.term,
        };
        let mut rows = Vec::new();
        let mut membership = None;
        for entry in entries {
            let entry = from_raft(entry);
            let at = entry.position();
            let ticket = self.proposals.take(at);
            match entry.kind {
                EntryKind::Change => {
                    let is_made = self.apply_change(&at, &entry.data)?;
                    if is_made {
                        membership = Some(self.membership.clone());
                    }
                    self.answer_change(ticket, is_made.then_some(at.index));
                }
                // A leader's first, or a change that raft-rs put aside for another that was under way.
                EntryKind::Command if entry.data.is_empty() => self.answer_change(ticket, None),
                EntryKind::Command => self.apply_command(&at, &entry.data, ticket, &mut rows)?,
            }
        }
        Ok(self.store_mut().apply(rows, position, membership, hard)?)
    }

    fn apply_command(
        &mut self,
        at: &Position,
        command: &[u8],
        ticket: Option<Ticket>,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), CoreError> {
        let applied = self.machine.apply(at.index, command);
        let Applied { reply, rows: changed } = applied.map_err(|source| CoreError::Entry {
            index: at.index,
            source: Box::new(source),
        })?;
        rows.extend(changed);
        self.output.applied.push(AppliedEntry {
            index: at.index,
            ticket,
            reply,
        });
        Ok(())
    }

    fn answer_change(&mut self, ticket: Option<Ticket>, made: Option<u64>) {
        if let Some(ticket) = ticket {
            self.output.changes.push((ticket, made.ok_or(ChangeLost::Refused)));
        }
    }

    /// Changes the members as an entry says. False: they do not allow it.
    fn apply_change(&mut self, at: &Position, data: &[u8]) -> Result<bool, CoreError> {
        let logged = members::read(data).map_err(|why| CoreError::Change { index: at.index, why })?;
        if !logged.is_allowed(&self.membership) {
            return Ok(false);
        }
        // raft-rs refuses what would leave nobody to decide, or came in the wrong order: the same on every member, since it changes nothing
        // before it has looked at everything.
        let Ok(conf) = self.node.apply_conf_change(&logged.change) else {
            return Ok(false);
        };
        let membership = logged.apply(&self.membership, &conf);
        self.change_membership(membership);
        let is_voter = self.membership.is_voter(self.me);
        if self.node.raft.state == StateRole::Leader && !is_voter {
            self.step_down();
        }
        Ok(true)
    }

    /// Stops leading, because this member does not vote any more. raft-rs leaves that to its caller, and a leader that is no member makes it
    /// panic with the next entry that is committed.
    fn step_down(&mut self) {
        if let Some(heir) = self.heir() {
            // It need not wait until it misses its leader.
            self.node.raft.send_timeout_now(heir.0);
        }
        // raft-rs asserts that who does not lead has no new messages in the middle of a `Ready`.
        let messages = std::mem::take(&mut self.node.raft.msgs);
        self.send(messages);
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
    }

    /// Gives up on proposals of terms that this member does not lead.
    fn lose_proposals(&mut self) {
        let raft = &self.node.raft;
        let leading = (raft.state == StateRole::Leader).then_some(raft.term);
        for (ticket, asked) in self.proposals.take_lost(leading) {
            self.lose(ticket, asked);
        }
    }

    fn compact(&mut self) -> Result<(), CoreError> {
        let keep = self.config.keep;
        let store = self.store();
        let applied = store.applied().index;
        let size = LogSize {
            first: store.first_index(),
            applied,
            applied_bytes: store.log_bytes() - store.log_bytes_after(applied),
            oldest_snapshot: self.node.store().sending.values().min().copied(),
        };
        if let Some(to) = keep.compact_to(size) {
            self.store_mut().compact(to)?;
        }
        Ok(())
    }
}
