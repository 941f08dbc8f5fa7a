//! What the core tells its caller.

use std::collections::BTreeMap;

use tresor_proto::ids::MemberId;

use super::members::NotAllowed;
use super::policy::Peer;
use crate::store;
use crate::store::{Membership, Position, StoreError};

/// Something asked of a core, until its outcome is in an [`Output`]. Never used twice by one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What to do and what happened since the last time. Everything that it relies on is on disk already.
pub struct Output<R, V> {
    /// Messages to send, to each member in this order. They may be lost, doubled, late and reordered.
    pub messages: Vec<Outgoing>,
    /// Snapshots to send. Each must be reported with [`super::Core::report_snapshot`], however it ends.
    pub snapshots: Vec<SendSnapshot<V>>,
    /// Commands that were applied, in order, whoever proposed them.
    pub applied: Vec<AppliedEntry<R>>,
    /// Proposals that were not seen applied while this member led.
    pub unclear: Vec<(Ticket, Unclear)>,
    /// Changes of the membership that were asked for here: the entry that made them, or why there is none.
    pub changes: Vec<(Ticket, Result<u64, ChangeLost>)>,
    /// Reads: everything up to this entry is applied and may be read now, or why not.
    pub reads: Vec<(Ticket, Result<u64, ReadLost>)>,
    /// The members, when they changed. Who is not among them any more takes no part; it still votes until it is shut down, which the others
    /// may need to learn of its removal.
    pub membership: Option<Membership>,
    /// A snapshot took the place of the machine, at this entry: whoever follows single changes must look at everything anew.
    pub restored: Option<u64>,
    /// Who leads, when that changed.
    pub standing: Option<Standing>,
}

impl<R, V> Default for Output<R, V> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            snapshots: Vec::new(),
            applied: Vec::new(),
            unclear: Vec::new(),
            changes: Vec::new(),
            reads: Vec::new(),
            membership: None,
            restored: None,
            standing: None,
        }
    }
}

/// A message for another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Who gets it.
    pub to: MemberId,
    /// For its [`super::Core::receive`].
    pub bytes: Vec<u8>,
}

/// A snapshot for another member: the header, then all pieces, then the end, on a stream of their own.
pub struct SendSnapshot<V> {
    /// Who gets it.
    pub to: MemberId,
    /// For its [`super::Core::begin_snapshot`].
    pub header: Vec<u8>,
    /// The pieces and the end. It may go to another thread.
    pub snapshot: store::Outgoing<V>,
}

/// A command that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedEntry<R> {
    /// Its entry.
    pub index: u64,
    /// Who proposed it, if that was here and in this leader's term.
    pub ticket: Option<Ticket>,
    /// What the machine answered.
    pub reply: R,
}

/// This member stopped leading before it saw a proposal committed. The entry may be applied yet, or never; ask the next leader again under
/// the same idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this member stopped leading before it saw the proposal committed")]
pub struct Unclear {
    /// Who leads now, as far as known.
    pub leader: Option<MemberId>,
}

/// Why a change of the membership did not happen, or not as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeLost {
    /// As for a command.
    #[error(transparent)]
    Unclear(Unclear),
    /// When its turn came, the members did not allow it any more.
    #[error("the members changed in between, and do not allow it")]
    Refused,
}

/// Why a read may not see the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadLost {
    /// No leader confirmed itself in time.
    #[error("no leader answered in time")]
    Late,
}

/// What a member is in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Wants to lead.
    Candidate,
    /// Leads.
    Leader,
}

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What this member is.
    pub role: Role,
    /// In which term.
    pub term: u64,
    /// Who leads, as far as known.
    pub leader: Option<MemberId>,
    /// Whether this member leads and has applied everything of earlier leaders, so that its machine is the state to decide upon.
    pub in_charge: bool,
}

/// Where a member stands, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Who leads.
    pub standing: Standing,
    /// The last entry known to be committed.
    pub commit: u64,
    /// The last entry applied.
    pub applied: Position,
    /// The first entry of the log.
    pub first_index: u64,
    /// The last entry of the log.
    pub last_index: u64,
    /// Bytes of the log's entries.
    pub log_bytes: u64,
    /// The members, as of the last entry applied.
    pub membership: Membership,
    /// The others; known to a leader alone.
    pub peers: BTreeMap<MemberId, Peer>,
    /// Proposals that wait.
    pub proposals: usize,
    /// Reads that wait.
    pub reads: usize,
}

/// Why a command was not proposed. It is not in the log, and will not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotProposed {
    /// Somebody else leads.
    #[error("this member does not lead")]
    NotLeader {
        /// Who, as far as known.
        leader: Option<MemberId>,
    },
    /// Leadership is being handed over.
    #[error("leadership is being handed to member {to}")]
    HandingOver {
        /// To whom.
        to: MemberId,
    },
    /// Too much waits to be committed.
    #[error("too many proposals wait to be committed")]
    Full,
    /// It is empty, or larger than an entry may be.
    #[error("a command of {bytes} bytes cannot be proposed")]
    Size {
        /// Its size.
        bytes: usize,
    },
    /// This member stopped.
    #[error("this member stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// Why a change of the membership was not proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// As for a command.
    #[error(transparent)]
    NotProposed(#[from] NotProposed),
    /// The members do not allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The leader would remove itself. It hands over first: ask the next one.
    #[error("a leader does not remove itself; leadership is being handed to member {to}")]
    HandsOver {
        /// To whom.
        to: MemberId,
    },
    /// Who would vote has not caught up, and every commit might have to wait for it.
    #[error("member {id} has not caught up")]
    Behind {
        /// Who.
        id: MemberId,
    },
    /// Fewer than a majority of those who would vote were heard of lately: after the change nothing could be decided.
    #[error("a majority of the voters after the change was not heard of lately")]
    NoMajority,
}

/// Why a read was not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// Too many wait.
    #[error("too many reads wait for a leader")]
    Full,
    /// This member stopped.
    #[error("this member stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// Why leadership is not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTransferred {
    /// This member does not lead.
    #[error("this member does not lead")]
    NotLeader,
    /// Who was named does not vote.
    #[error("member {id} does not vote")]
    NoVoter {
        /// Who.
        id: MemberId,
    },
    /// Nobody else who votes was heard of lately.
    #[error("no other voter was heard of lately")]
    Nobody,
}

/// Why a member stopped. It takes no part any more; start it again when the cause is mended.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// Its store.
    #[error("the store of this member")]
    Store(#[from] StoreError),
    /// An entry is not understood, as after the others were upgraded.
    #[error("could not decode entry {index}")]
    Entry {
        /// Which.
        index: u64,
        /// What the machine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its rows are not understood.
    #[error("could not decode the rows of this member")]
    Rows {
        /// What the machine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A change of the membership in the log is not understood.
    #[error("could not decode the change of the membership in entry {index}: {why}")]
    Change {
        /// Which entry.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// It is a member no more.
    #[error("this coordinator was removed from its cluster")]
    Removed,
    /// Its settings.
    #[error("these settings cannot be: {why}")]
    Config {
        /// What is wrong.
        why: String,
    },
    /// It lost what it had acknowledged; see [`super::Refused::LogLost`].
    #[error("entry {commit} was acknowledged by this member, but its log ends at {last}: it lost data")]
    LogLost {
        /// What was acknowledged.
        commit: u64,
        /// What there is.
        last: u64,
    },
    /// raft-rs refused what it must not refuse.
    #[error("raft-rs: {why}")]
    Raft {
        /// What it said.
        why: String,
    },
    /// It stopped before.
    #[error("this member stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}
