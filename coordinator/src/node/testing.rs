//! A coordinator for tests that is its own majority: entries are applied as they come, and time goes by when a test says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot, watch};
use tresor_proto::ids::MemberId;

use super::error::NodeError;
use super::handle::{Applied, Handle, Leadership, MemberStanding, Membership, Request, Standing};
use crate::state::State;
use crate::state::command::Command;
use crate::state::entry::{Actor, Entry, IdempotencyKey, Time};
use crate::state::reply::Reply;
use crate::testing::{Acts, START, founding};

/// Its number.
pub(crate) const ME: MemberId = MemberId(1);
#[derive(Debug)]
struct Log {
    index: u64,
    now: Time,
    entries: Vec<Entry>,
    /// As a store has them.
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    memberships: Vec<Membership>,
    transfers: Vec<Option<MemberId>>,
    /// What everything is answered with, where a test wants failures.
    failure: Option<NodeError>,
    /// The next change is applied, and its answer is lost.
    lose_answer: bool,
    /// Coordinators of the state are members of Raft only when that was asked for.
    members_are_asked_for: bool,
}

/// Such a coordinator. Its task ends with the last [`Handle`] and itself.
#[derive(Debug, Clone)]
pub(crate) struct TestNode {
    /// How everything else speaks to it.
    pub(crate) handle: Handle,
    state: Arc<RwLock<State>>,
    log: Arc<Mutex<Log>>,
    leadership: watch::Sender<Leadership>,
    applied: watch::Sender<u64>,
}

impl TestNode {
    /// Starts one whose cluster is founded: named `test`, with the coordinator `c1` at `c1:7700`.
    pub(crate) fn start() -> Self {
        let node = Self::empty();
        assert_eq!(node.apply(Actor::Founder, None, founding()), Reply::Made(ME.0));
        node
    }

    /// Starts one without a cluster.
    pub(crate) fn empty() -> Self {
        let (requests, mut incoming) = mpsc::channel(super::handle::REQUESTS_MAX);
        let state = Arc::new(RwLock::new(State::default()));
        let (leadership, leads) = watch::channel(Leadership {
            leader: Some(ME),
            is_me: true,
            term: 1,
        });
        let (applied, is_applied) = watch::channel(0);
        let node = Self {
            handle: Handle::new(
                ME,
                requests,
                Arc::new(Mutex::new(Arc::clone(&state))),
                leads,
                is_applied,
            ),
            state,
            log: Arc::new(Mutex::new(Log {
                index: 0,
                now: START,
                entries: Vec::new(),
                rows: BTreeMap::new(),
                memberships: Vec::new(),
                transfers: Vec::new(),
                failure: None,
                lose_answer: false,
                members_are_asked_for: false,
            })),
            leadership,
            applied,
        };
        // Without a handle of its own, which would keep it alive.
        let task = node.task();
        tokio::spawn(async move {
            while let Some(request) = incoming.recv().await {
                task.serve(request);
            }
        });
        node
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn task(&self) -> Task {
        Task {
            state: Arc::clone(&self.state),
            log: Arc::clone(&self.log),
            applied: self.applied.clone(),
        }
    }

    /// Applies an entry at once.
    pub(crate) fn apply(&self, actor: Actor, key: Option<IdempotencyKey>, command: Command) -> Reply {
        self.task().apply(actor, key, command).reply
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.handle.read(look)
    }

    /// Lets time go by.
    pub(crate) fn advance(&self, milliseconds: i64) {
        let mut log = self.log();
        log.now = log.now.plus(milliseconds);
    }

    /// From here on everything is answered so; nothing: as it should be.
    pub(crate) fn fail_with(&self, failure: Option<NodeError>) {
        self.log().failure = failure;
    }

    /// The next change is applied, and its answer is lost.
    pub(crate) fn lose_next_answer(&self) {
        self.log().lose_answer = true;
    }

    /// Says that another member leads, or this one again.
    pub(crate) fn set_leader(&self, leader: MemberId) {
        self.leadership.send_replace(Leadership {
            leader: Some(leader),
            is_me: leader == ME,
            term: 2,
        });
    }

    /// Says that nobody leads.
    pub(crate) fn forget_leader(&self) {
        self.leadership.send_replace(Leadership::default());
    }

    /// From here on a coordinator is a member of Raft only once [`Membership::Add`] was asked for.
    pub(crate) fn ask_for_members(&self) {
        self.log().members_are_asked_for = true;
    }

    /// Entries so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.log().entries.clone()
    }

    /// Changes of the members that were asked for.
    pub(crate) fn memberships(&self) -> Vec<Membership> {
        self.log().memberships.clone()
    }

    /// Transfers of the lead that were asked for.
    pub(crate) fn transfers(&self) -> Vec<Option<MemberId>> {
        self.log().transfers.clone()
    }
}

impl Acts for TestNode {
    fn acts(&mut self, actor: Actor, command: Command) -> Reply {
        self.apply(actor, None, command)
    }

    fn clock(&self) -> Time {
        self.log().now
    }
}

#[derive(Debug)]
struct Task {
    state: Arc<RwLock<State>>,
    log: Arc<Mutex<Log>>,
    applied: watch::Sender<u64>,
}

impl Task {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, actor: Actor, key: Option<IdempotencyKey>, command: Command) -> Applied {
        let mut log = self.log();
        log.index += 1;
        let entry = Entry {
            now: log.now,
            actor,
            key,
            command,
        };
        let index = log.index;
        let entry = Entry::decode(&entry.encode()).expect("what was encoded decodes");
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let reply = state.apply(index, &entry);
        for change in state.take_changes() {
            let place = (change.table, change.key);
            match change.value {
                Some(value) => log.rows.insert(place, value),
                None => log.rows.remove(&place),
            };
        }
        drop(state);
        log.entries.push(entry);
        drop(log);
        self.applied.send_replace(index);
        Applied { index, reply }
    }

    fn serve(&self, request: Request) {
        let failure = self.log().failure.clone();
        fn send<T>(answer: oneshot::Sender<T>, with: T) {
            // Who asked may have stopped waiting.
            let _ = answer.send(with);
        }
        match request {
            Request::Change { answer, .. } if failure.is_some() => {
                send(answer, Err(failure.expect("just looked at")));
            }
            Request::Change {
                actor,
                key,
                command,
                answer,
            } => {
                let applied = self.apply(actor, key, command);
                let lost = std::mem::take(&mut self.log().lose_answer);
                send(answer, if lost { Err(NodeError::Unclear) } else { Ok(applied) });
            }
            Request::Barrier { answer } => send(answer, failure.map_or(Ok(()), Err)),
            Request::Membership { change, answer } => {
                self.log().memberships.push(change);
                send(answer, failure.map_or(Ok(()), Err));
            }
            Request::Transfer { to, answer } => {
                self.log().transfers.push(to);
                send(answer, failure.map_or(Ok(()), Err));
            }
            Request::Standing { answer } => send(answer, self.standing()),
            Request::Rows { places, answer } => {
                let log = self.log();
                let rows = places.iter().map(|place| log.rows.get(place).cloned()).collect();
                send(answer, Ok(rows));
            }
        }
    }

    fn standing(&self) -> Standing {
        let index = self.log().index;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let log = self.log();
        let was_asked_for = |id: &MemberId| {
            let is_it = |change: &Membership| matches!(change, Membership::Add { member, .. } if member == id);
            !log.members_are_asked_for || *id == ME || log.memberships.iter().any(is_it)
        };
        let members = state
            .members()
            .iter()
            .filter(|(id, member)| !member.removed && was_asked_for(id));
        Standing {
            term: 1,
            commit: index,
            applied: index,
            first: 1,
            members: members
                .map(|(&member, _)| MemberStanding {
                    member,
                    votes: true,
                    matched: index,
                    reachable: member == ME,
                    clock_ms: 0,
                })
                .collect(),
            snapshots: super::handle::SnapshotCounts::default(),
        }
    }
}
