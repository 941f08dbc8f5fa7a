//! A coordinator without its sockets: Raft, the state, the cluster's clock and what a leader does of itself, driven from outside.
//!
//! No clock, network, thread or disk of its own: who drives it says what time it is ([`Now`]), hands over what comes and sends what it is told. So the
//! task that serves real clients and the simulations run the same code.
//!
//! What is asked is answered exactly once, under the number that it was asked with, unless the driver fails: then nothing more is answered, and what
//! was asked may have happened or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tresor_proto::ids::MemberId;

use super::clock::{Clock, median};
use super::error::NodeError;
use super::forms;
use super::handle::{Applied, Leadership, MemberStanding, Membership, SnapshotCounts, Standing};
use super::machine::StateMachine;
use super::presence::Presence;
use crate::lead::pass::{self, Cursor};
use crate::lead::plans::Plans;
use crate::lead::slots::Moves;
#[cfg(test)]
use crate::mutation::{Mutation, mutated};
use crate::raft::{self, NotRead};
use crate::raft::{
    ChangeLost, Config, Core, CoreError, NotChanged, NotProposed, NotTransferred, Outgoing, Refused, SendSnapshot,
    SnapshotError, SnapshotId, Ticket,
};
use crate::state::State;
use crate::state::command::Command;
use crate::state::entry::{Actor, Entry, IdempotencyKey, Time};
use crate::state::reply::{Refusal, Reply};
use crate::store::tables::Tables;
use crate::store::{Piece, SnapshotEnd, Store, StoreError};

/// How long a tick is, milliseconds: with [`Config::new`] a leader is missed after one to two seconds.
pub const TICK_MS: u64 = 100;
/// How often a leader looks for leases that have ended and backups that are due, milliseconds: half of what an interval of a second would need.
const UPKEEP_MS: u64 = 500;
/// How often a leader looks for points that expire, and for catalogues that are behind, milliseconds.
const EXPIRY_MS: u64 = 1000;
/// How long a read waits for a leader, ticks.
const READ_TICKS: u32 = 80;
/// A member that was not heard of for so many ticks counts as out of reach.
const SILENT_TICKS: u64 = 20;

/// What time it is, where the driver runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// A monotonic clock, milliseconds.
    pub ms: u64,
    /// The wall clock.
    pub wall: Time,
}

/// What a member says of itself with every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Its wall clock minus ours when the message came, milliseconds.
    pub clock_ms: i64,
    /// The newest form of entries that it knows.
    pub form: u16,
}

/// Something that is asked.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "most are changes, and each is moved once")]
pub enum Ask {
    /// A change.
    Change {
        /// For whom.
        actor: Actor,
        /// Under which key.
        key: Option<IdempotencyKey>,
        /// What.
        command: Command,
    },
    /// To read what is at least as new as the question.
    Barrier,
    /// A change of the members.
    Membership(Membership),
    /// To give the lead to another one; to whom does not matter if none is named.
    Transfer(Option<MemberId>),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A change was applied.
    Applied(Applied),
    /// Whatever it was, it is done.
    Done,
}

/// Under which number something was asked, and what came of it.
pub type Answered = (u64, Result<Answer, NodeError>);

/// What is to be done after [`Driver::process`], and what happened.
pub struct Did<V> {
    /// Messages to send; they may be lost.
    pub messages: Vec<Outgoing>,
    /// Snapshots to send; each is reported with [`Driver::report_snapshot`].
    pub snapshots: Vec<SendSnapshot<V>>,
    /// Answers.
    pub answers: Vec<Answered>,
    /// Who leads, if that changed.
    pub leadership: Option<Leadership>,
    /// The members and where they are, if that changed.
    pub members: Option<Vec<(MemberId, String)>>,
    /// The state is another object than before.
    pub restored: bool,
}

/// What a ticket of the core is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Somebody's question, under its number.
    Asked(u64),
    /// The leader's own upkeep.
    Upkeep,
}

/// What a leader does by itself, beyond what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Upkeep {
    /// What is due begins, what is old expires, catalogues are put, leases end, slots of the index are granted.
    #[default]
    All,
    /// Leases end and catalogues are put, and nothing else: the coordinator stands for one command of a person, who asked for nothing more.
    Own,
}

/// A coordinator.
pub struct Driver<T: Tables> {
    core: Core<StateMachine, T>,
    presence: Arc<Mutex<Presence>>,
    upkeep: Upkeep,
    plans: Plans,
    cursor: Cursor,
    moves: Moves,
    /// While it is in charge.
    clock: Option<Clock>,
    /// Other members' wall clocks minus ours, milliseconds.
    clocks: BTreeMap<MemberId, i64>,
    /// The forms of entries that other members know.
    forms: BTreeMap<MemberId, u16>,
    waiting: BTreeMap<Ticket, For>,
    /// Proposals of the upkeep that wait: no more are made meanwhile, so that nothing is proposed twice by one leader.
    upkeep_waiting: usize,
    upkeep_at: u64,
    expiry_at: u64,
    answers: Vec<Answered>,
    reported: Leadership,
}

impl<T: Tables> Driver<T> {
    /// Starts a member with what its store has.
    ///
    /// # Errors
    /// [`CoreError`].
    pub fn open(config: Config, store: Store<T>) -> Result<Self, CoreError> {
        Ok(Self {
            core: Core::open(config, store)?,
            presence: Arc::default(),
            upkeep: Upkeep::All,
            plans: Plans::default(),
            cursor: Cursor::default(),
            moves: Moves::default(),
            clock: None,
            clocks: BTreeMap::new(),
            forms: BTreeMap::new(),
            waiting: BTreeMap::new(),
            upkeep_waiting: 0,
            upkeep_at: 0,
            expiry_at: 0,
            answers: Vec::new(),
            reported: Leadership::default(),
        })
    }

    /// What it does by itself from now on.
    pub fn set_upkeep(&mut self, upkeep: Upkeep) {
        self.upkeep = upkeep;
    }

    /// Grants only so many slots of the index.
    #[cfg(test)]
    pub(crate) fn set_slots(&mut self, count: u16) {
        self.moves.set_count(count);
    }

    /// What is known of workers; shared with who serves them.
    pub fn presence(&self) -> Arc<Mutex<Presence>> {
        Arc::clone(&self.presence)
    }

    /// The state, shared. Another object after [`Did::restored`].
    pub fn state(&self) -> Arc<RwLock<State>> {
        self.core.machine().shared()
    }

    /// Who this is.
    pub fn me(&self) -> MemberId {
        self.core.id()
    }

    /// A row as it is on the disk; for those that are nowhere else.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn row(&self, table: u8, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.core.store().row(table, key)
    }

    /// Raft's own view, for tests and metrics.
    pub fn core(&self) -> &Core<StateMachine, T> {
        &self.core
    }

    /// Where the members are.
    pub fn members(&self) -> Vec<(MemberId, String)> {
        let membership = self.core.membership();
        membership
            .members
            .iter()
            .map(|(id, member)| (*id, String::from_utf8_lossy(&member.address).into_owned()))
            .collect()
    }

    /// Takes a question. Its answer comes out of [`Self::process`].
    pub fn ask(&mut self, number: u64, ask: Ask, now: Now) {
        #[cfg(test)]
        if matches!(ask, Ask::Barrier) && mutated(Mutation::UnconfirmedReads) {
            self.answers.push((number, Ok(Answer::Done)));
            return;
        }
        let asked = match ask {
            Ask::Change { actor, key, command } => self.propose(actor, key, command, now),
            Ask::Barrier => self.core.read_index(READ_TICKS).map_err(|error| match error {
                NotRead::Full => NodeError::Busy,
                NotRead::Stopped { .. } => NodeError::Stopping,
            }),
            Ask::Membership(change) => self.change_members(&change),
            Ask::Transfer(to) => {
                let answer = self.transfer(to);
                self.answers.push((number, answer));
                return;
            }
        };
        match asked {
            Ok(ticket) => {
                self.waiting.insert(ticket, For::Asked(number));
            }
            Err(error) => self.answers.push((number, Err(error))),
        }
    }

    fn propose(
        &mut self,
        actor: Actor,
        key: Option<IdempotencyKey>,
        command: Command,
        now: Now,
    ) -> Result<Ticket, NodeError> {
        let standing = self.core.standing();
        let Some(clock) = self.clock.as_mut().filter(|_| standing.in_charge) else {
            // A leader that has not yet applied what earlier ones left would stamp from an old clock.
            let leader = standing.leader.filter(|id| *id != self.core.id());
            return Err(NodeError::NotLeader { leader });
        };
        let shared = self.core.machine().shared();
        let stopped = read(&shared).marks().clock_is_doubted();
        let raised = read(&shared).marks().form;
        let members = self.core.membership().members.keys().copied();
        let others = members.filter(|member| *member != self.core.id());
        let raise = forms::before(command.form(), raised, others, &self.forms)
            .map_err(|behind| NodeError::Refused(too_old(&read(&shared), &behind)))?;
        let off = median(self.clocks.values().copied().collect());
        let stamp = clock.stamp(now.ms, now.wall, off, stopped);
        if let Some(step) = stamp.alarm {
            tracing::error!(
                step_ms = step,
                "the wall clock stepped: nothing expires until a person confirms it"
            );
            // The alarm comes before whatever the new time would let expire.
            self.propose_first(stamp.now, Command::StopExpiry { step })?;
        }
        for to in raise {
            self.propose_first(stamp.now, Command::RaiseVersion { to })?;
        }
        let entry = Entry {
            now: stamp.now,
            actor,
            key,
            command,
        };
        self.core.propose(entry.encode()).map_err(not_proposed)
    }

    /// Proposes what has to be in the log before something else.
    fn propose_first(&mut self, now: Time, command: Command) -> Result<(), NodeError> {
        let entry = Entry {
            now,
            actor: Actor::Cluster,
            key: None,
            command,
        };
        let ticket = self.core.propose(entry.encode()).map_err(not_proposed)?;
        self.waiting.insert(ticket, For::Upkeep);
        self.upkeep_waiting += 1;
        Ok(())
    }

    fn change_members(&mut self, change: &Membership) -> Result<Ticket, NodeError> {
        let change = match change {
            Membership::Add { member, address } => raft::Change::Add {
                id: *member,
                address: address.clone().into_bytes(),
            },
            Membership::Remove { member } => raft::Change::Remove { id: *member },
        };
        self.core.propose_membership(&change).map_err(|error| match error {
            NotChanged::NotProposed(error) => not_proposed(error),
            NotChanged::HandsOver { to } => NodeError::NotLeader { leader: Some(to) },
            error @ (NotChanged::NotAllowed(_) | NotChanged::NoMajority | NotChanged::Behind { .. }) => {
                NodeError::Refused(Refusal::Held { why: error.to_string() })
            }
        })
    }

    fn transfer(&mut self, to: Option<MemberId>) -> Result<Answer, NodeError> {
        let done = match to {
            Some(to) => self.core.transfer_leader(to),
            None => self.core.hand_over().map(|_| ()),
        };
        match done {
            Ok(()) => Ok(Answer::Done),
            Err(NotTransferred::NotLeader) => Err(NodeError::NotLeader {
                leader: self.core.standing().leader,
            }),
            Err(error) => Err(NodeError::Refused(Refusal::Held { why: error.to_string() })),
        }
    }

    /// Lets [`TICK_MS`] pass.
    pub fn tick(&mut self, now: Now) {
        self.core.tick();
        if self.clock.is_none() || self.upkeep_waiting > 0 {
            return;
        }
        let upkeep = self.upkeep;
        let mut commands = Vec::new();
        if now.ms >= self.upkeep_at {
            self.upkeep_at = now.ms + UPKEEP_MS;
            commands.extend(self.look(now, |state, plans, presence, (_, moves), at| {
                let mut commands = pass::expired_leases(state, presence, at, now.ms);
                if upkeep == Upkeep::All {
                    commands.extend(pass::due_backups(state, plans, at));
                    commands.extend(moves.due(state, presence, at, now.ms));
                }
                commands
            }));
        }
        if now.ms >= self.expiry_at {
            self.expiry_at = now.ms + EXPIRY_MS;
            commands.extend(self.look(now, |state, plans, _, (cursor, _), at| {
                let mut commands = match upkeep {
                    Upkeep::All => pass::expired_points(state, plans, cursor, at),
                    Upkeep::Own => Vec::new(),
                };
                commands.extend(pass::catalogues_due(state, at));
                commands
            }));
        }
        for command in commands {
            // What finds no room now is found again the next time.
            match self.propose(Actor::Cluster, None, command, now) {
                Ok(ticket) => {
                    self.waiting.insert(ticket, For::Upkeep);
                    self.upkeep_waiting += 1;
                }
                Err(_) => break,
            }
        }
    }

    fn look(
        &mut self,
        now: Now,
        decide: impl FnOnce(&State, &Plans, &mut Presence, (&mut Cursor, &mut Moves), Time) -> Vec<Command>,
    ) -> Vec<Command> {
        let shared = self.core.machine().shared();
        let state = read(&shared);
        self.plans.refresh(&state);
        let off = median(self.clocks.values().copied().collect());
        let stopped = state.marks().clock_is_doubted();
        let Some(clock) = &self.clock else {
            return Vec::new();
        };
        // A look, no stamp: the clock goes on with what is proposed.
        let at = clock.clone().stamp(now.ms, now.wall, off, stopped).now;
        let mut presence = locked(&self.presence);
        let kept = (&mut self.cursor, &mut self.moves);
        decide(&state, &self.plans, &mut presence, kept, at)
    }

    /// Takes a message of another member, whose number its certificate proved, and what it says of itself.
    ///
    /// # Errors
    /// [`Refused`]: nothing happened.
    pub fn receive(&mut self, from: MemberId, message: &[u8], sender: Sender) -> Result<(), Refused> {
        self.core.receive(from, message)?;
        self.clocks.insert(from, sender.clock_ms);
        self.forms.insert(from, sender.form);
        Ok(())
    }

    /// As [`Core::begin_snapshot`].
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn begin_snapshot(&mut self, from: MemberId, header: &[u8]) -> Result<SnapshotId, SnapshotError> {
        self.core.begin_snapshot(from, header)
    }

    /// As [`Core::snapshot_piece`].
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn snapshot_piece(&mut self, id: SnapshotId, piece: &Piece) -> Result<(), SnapshotError> {
        self.core.snapshot_piece(id, piece)
    }

    /// As [`Core::finish_snapshot`].
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn finish_snapshot(&mut self, id: SnapshotId, end: &SnapshotEnd) -> Result<bool, SnapshotError> {
        self.core.finish_snapshot(id, end)
    }

    /// As [`Core::report_snapshot`].
    pub fn report_snapshot(&mut self, to: MemberId, is_whole: bool) {
        self.core.report_snapshot(to, is_whole);
    }

    /// As [`Core::report_unreachable`].
    pub fn report_unreachable(&mut self, to: MemberId) {
        self.core.report_unreachable(to);
    }

    /// Does everything that follows from what was handed over since the last time.
    ///
    /// # Errors
    /// [`CoreError`]: this member has stopped.
    pub fn process(&mut self, now: Now) -> Result<Did<T::View>, CoreError> {
        let output = self.core.process()?;
        for (ticket, _) in output.unclear {
            self.answer(ticket, Err(NodeError::Unclear));
        }
        for applied in output.applied {
            if let Some(ticket) = applied.ticket {
                if let Reply::Refused(Refusal::Moved { session, .. }) = &applied.reply {
                    self.moves.refused(*session);
                }
                let answer = Applied {
                    index: applied.index,
                    reply: applied.reply,
                };
                self.answer(ticket, Ok(Answer::Applied(answer)));
            }
        }
        for (ticket, change) in output.changes {
            let answer = match change {
                Ok(_) => Ok(Answer::Done),
                Err(ChangeLost::Refused) => Err(NodeError::Refused(Refusal::Held {
                    why: String::from("the members changed in between: look again"),
                })),
                Err(ChangeLost::Unclear(_)) => Err(NodeError::Unclear),
            };
            self.answer(ticket, answer);
        }
        for (ticket, read) in output.reads {
            self.answer(ticket, read.map(|_| Answer::Done).map_err(|_| NodeError::NoMajority));
        }
        let leadership = self.follow_leadership(now);
        let members = output.membership.is_some().then(|| self.members());
        if let Some(members) = &members {
            self.clocks
                .retain(|id, _| members.iter().any(|(member, _)| member == id));
        }
        Ok(Did {
            messages: output.messages,
            snapshots: output.snapshots,
            answers: std::mem::take(&mut self.answers),
            leadership,
            members,
            restored: output.restored.is_some(),
        })
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Answer, NodeError>) {
        match self.waiting.remove(&ticket) {
            Some(For::Asked(number)) => self.answers.push((number, answer)),
            Some(For::Upkeep) => {
                self.upkeep_waiting -= 1;
                if let Ok(Answer::Applied(Applied {
                    reply: Reply::Refused(refusal),
                    ..
                })) = answer
                {
                    // Two leaders saw the same; the log took one of them.
                    tracing::debug!(%refusal, "the state did not need what the leader proposed");
                }
            }
            None => {}
        }
    }

    fn follow_leadership(&mut self, now: Now) -> Option<Leadership> {
        let standing = self.core.standing();
        if standing.in_charge && self.clock.is_none() {
            let (last, applied) = {
                let shared = self.core.machine().shared();
                let state = read(&shared);
                (state.now(), state.marks().applied)
            };
            self.clock = Some(Clock::new(last, now.ms));
            // What the leader before knew of workers is not known here; leases get a full term.
            *locked(&self.presence) = match self.upkeep {
                Upkeep::All => Presence::of_new_leader(now.ms, applied),
                Upkeep::Own => Presence::of_one_command(),
            };
            self.moves.begin(now.ms);
            self.upkeep_at = now.ms;
            self.expiry_at = now.ms + EXPIRY_MS;
        }
        if !standing.in_charge {
            self.clock = None;
        }
        let leadership = Leadership {
            leader: standing.leader,
            is_me: standing.in_charge,
            term: standing.term,
        };
        (leadership != self.reported).then(|| {
            self.reported = leadership;
            leadership
        })
    }

    /// How this member stands.
    pub fn standing(&self) -> Standing {
        let status = self.core.status();
        let me = self.core.id();
        let members = status
            .membership
            .members
            .keys()
            .map(|id| {
                let peer = status.peers.get(id);
                MemberStanding {
                    member: *id,
                    votes: status.membership.is_voter(*id),
                    matched: if *id == me {
                        status.last_index
                    } else {
                        peer.map_or(0, |peer| peer.matched)
                    },
                    reachable: *id == me || peer.is_some_and(|peer| peer.silent_ticks <= SILENT_TICKS),
                    clock_ms: self.clocks.get(id).copied().unwrap_or(0),
                }
            })
            .collect();
        Standing {
            term: status.standing.term,
            commit: status.commit,
            applied: status.applied.index,
            first: status.first_index,
            members,
            // Who sends and receives them counts.
            snapshots: SnapshotCounts::default(),
        }
    }

    /// The index that was applied last.
    pub fn applied(&self) -> u64 {
        self.core.store().applied().index
    }
}

/// Why a change waits for an upgrade.
fn too_old(state: &State, behind: &[MemberId]) -> Refusal {
    let name = |id: &MemberId| {
        let member = state.members().get(id);
        member.map_or_else(|| id.to_string(), |member| member.name.clone())
    };
    let names: Vec<String> = behind.iter().map(name).collect();
    Refusal::Held {
        why: format!(
            "this is new, and every coordinator has to know it first: update tresor on {}, or start it if it is down",
            names.join(", ")
        ),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_proposed(error: NotProposed) -> NodeError {
    match error {
        NotProposed::NotLeader { leader } => NodeError::NotLeader { leader },
        NotProposed::HandingOver { to } => NodeError::NotLeader { leader: Some(to) },
        NotProposed::Full => NodeError::Busy,
        NotProposed::Size { bytes } => NodeError::Refused(Refusal::Invalid {
            field: String::from("request"),
            rule: format!("makes an entry of {bytes} bytes, which is too large"),
        }),
        NotProposed::Stopped { .. } => NodeError::Stopping,
    }
}

fn read(state: &RwLock<State>) -> std::sync::RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn locked(presence: &Mutex<Presence>) -> MutexGuard<'_, Presence> {
    presence.lock().unwrap_or_else(PoisonError::into_inner)
}
