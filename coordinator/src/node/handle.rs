//! How the rest of a coordinator speaks to the task that owns Raft and the state.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tresor_proto::ids::MemberId;

use super::error::NodeError;
use crate::state::State;
use crate::state::command::Command;
use crate::state::entry::{Actor, IdempotencyKey};
use crate::state::reply::Reply;

/// Changes and reads that wait for the node's task. Beyond, callers are told that it is busy.
pub(crate) const REQUESTS_MAX: usize = 4096;
/// How long a change or a read waits for a majority: a new leader is found in less.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Who.
    pub leader: Option<MemberId>,
    /// Whether it is this member.
    pub is_me: bool,
    /// In which term.
    pub term: u64,
}

/// A change that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The index of its entry. For a change that was sent again, of the second entry.
    pub index: u64,
    /// The answer.
    pub reply: Reply,
}

/// What can be done with the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// Adds one: it learns first, and votes as soon as it has caught up.
    Add {
        /// Its number.
        member: MemberId,
        /// Where it is.
        address: String,
    },
    /// Removes one for good.
    Remove {
        /// Its number.
        member: MemberId,
    },
}

/// How a member stands, as one of them knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStanding {
    /// Its number.
    pub member: MemberId,
    /// Whether it votes; else it learns.
    pub votes: bool,
    /// How far its log is known to agree; only the leader knows it of others.
    pub matched: u64,
    /// Whether it was heard of lately.
    pub reachable: bool,
    /// Its wall clock minus ours, milliseconds.
    pub clock_ms: i64,
}

/// How a coordinator stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Its term.
    pub term: u64,
    /// Committed up to here.
    pub commit: u64,
    /// Applied up to here.
    pub applied: u64,
    /// Its log begins here.
    pub first: u64,
    /// All members.
    pub members: Vec<MemberStanding>,
    /// Snapshots since the process began.
    pub snapshots: SnapshotCounts,
}

/// Snapshots to and from other members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotCounts {
    /// That arrived there.
    pub sent: u64,
    /// That did not.
    pub failed: u64,
    /// That came here and were whole.
    pub received: u64,
}

/// A request to the node's task.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are changes, and each is moved once")]
pub(crate) enum Request {
    /// A change: stamped and proposed.
    Change {
        actor: Actor,
        key: Option<IdempotencyKey>,
        command: Command,
        answer: oneshot::Sender<Result<Applied, NodeError>>,
    },
    /// A read: answered as soon as the state is at least as new as the question.
    Barrier {
        answer: oneshot::Sender<Result<(), NodeError>>,
    },
    /// A change of the members.
    Membership {
        change: Membership,
        answer: oneshot::Sender<Result<(), NodeError>>,
    },
    /// Gives the lead to another.
    Transfer {
        to: Option<MemberId>,
        answer: oneshot::Sender<Result<(), NodeError>>,
    },
    /// How it stands.
    Standing { answer: oneshot::Sender<Standing> },
    /// Rows as they are on the disk.
    Rows {
        places: Vec<(u8, Vec<u8>)>,
        answer: oneshot::Sender<Result<Vec<Option<Vec<u8>>>, NodeError>>,
    },
}

/// Speaks to the node's task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    me: MemberId,
    requests: mpsc::Sender<Request>,
    /// The present state: a snapshot puts another object there.
    state: Arc<Mutex<Arc<RwLock<State>>>>,
    leadership: watch::Receiver<Leadership>,
    applied: watch::Receiver<u64>,
}

impl Handle {
    pub(crate) fn new(
        me: MemberId,
        requests: mpsc::Sender<Request>,
        state: Arc<Mutex<Arc<RwLock<State>>>>,
        leadership: watch::Receiver<Leadership>,
        applied: watch::Receiver<u64>,
    ) -> Self {
        Self {
            me,
            requests,
            state,
            leadership,
            applied,
        }
    }

    /// The number of this member.
    pub fn me(&self) -> MemberId {
        self.me
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, NodeError>>) -> Request,
    ) -> Result<T, NodeError> {
        let (answer, answered) = oneshot::channel();
        match self.requests.try_send(request(answer)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(NodeError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(NodeError::Stopping),
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NodeError::Stopping),
            Err(_) => Err(NodeError::NoMajority),
        }
    }

    /// Makes a change: returns when it is committed and applied here.
    ///
    /// # Errors
    /// [`NodeError::Refused`]: nothing was changed. [`NodeError::Unclear`] and [`NodeError::NoMajority`]: it may yet happen; repeat it under the same
    /// key. Others: it did not happen.
    pub async fn change(
        &self,
        actor: Actor,
        key: Option<IdempotencyKey>,
        command: Command,
    ) -> Result<Applied, NodeError> {
        let applied = self
            .ask(|answer| Request::Change {
                actor,
                key,
                command,
                answer,
            })
            .await?;
        let reply = applied.reply.accepted()?;
        Ok(Applied {
            index: applied.index,
            reply,
        })
    }

    /// Waits until what [`Self::read`] shows is at least as new as everything that was acknowledged to anybody before this call.
    ///
    /// # Errors
    /// [`NodeError::NotLeader`], [`NodeError::NoMajority`], …: what is read may be old.
    pub async fn barrier(&self) -> Result<(), NodeError> {
        self.ask(|answer| Request::Barrier { answer }).await
    }

    /// Looks at the state as far as this member has applied the log. Short: the node's task waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        // Nothing panics while it holds the lock for writing but a broken invariant, and then the process is to end.
        let state = Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner));
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        look(&state)
    }

    /// Reads rows that are on the disk alone, by table and key: each is some kilobytes, and the node's task waits for the disk meanwhile.
    ///
    /// # Errors
    /// [`NodeError::Unreadable`], [`NodeError::Busy`], [`NodeError::Stopping`].
    pub async fn rows(&self, places: Vec<(u8, Vec<u8>)>) -> Result<Vec<Option<Vec<u8>>>, NodeError> {
        self.ask(|answer| Request::Rows { places, answer }).await
    }

    /// Changes the members.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn membership(&self, change: Membership) -> Result<(), NodeError> {
        self.ask(|answer| Request::Membership { change, answer }).await
    }

    /// Gives the lead to another member; to whom does not matter if none is named.
    ///
    /// # Errors
    /// When this member does not lead.
    pub async fn transfer(&self, to: Option<MemberId>) -> Result<(), NodeError> {
        self.ask(|answer| Request::Transfer { to, answer }).await
    }

    /// How this member stands.
    ///
    /// # Errors
    /// [`NodeError::Stopping`].
    pub async fn standing(&self) -> Result<Standing, NodeError> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(Request::Standing { answer })
            .await
            .map_err(|_| NodeError::Stopping)?;
        answered.await.map_err(|_| NodeError::Stopping)
    }

    /// Who leads, now and whenever that changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// The index that was applied last, now and whenever that changes.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }
}
