//! The thread that owns a coordinator's [`Driver`]: it waits for whatever comes next, hands it over, and does what comes out.
//!
//! A thread of its own, because it waits for the disk: syncing an entry must not hold up connections, nor they a heartbeat. What has come meanwhile is
//! handed over together, so that many changes share one sync.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tresor_proto::ids::MemberId;

use super::driver::{Answer, Ask, Driver, Now, TICK_MS, Upkeep};
use super::error::NodeError;
use super::handle::{Handle, Leadership, REQUESTS_MAX, Request, SnapshotCounts, Standing};
use super::inbox::{AskedStep, Inbound, Inbox, MESSAGES_MAX, STEPS_MAX, SnapshotStep};
use super::presence::Presence;
use crate::peers::{Dial, Peers, send_snapshot};
use crate::raft::{Config, CoreError, SnapshotId};
use crate::state::State;
use crate::store::Store;
use crate::store::rocks::Rocks;

/// Inputs handed over at once, of each kind: their entries share a sync.
const BATCH: usize = 256;
/// How long a leader that stops waits for another one to lead.
const HAND_OVER: Duration = Duration::from_millis(1500);

/// How long a member goes on that knows that it was removed: until others have heard it from the leader, some heartbeats and an election.
const LINGER: Duration = Duration::from_secs(5);

/// The monotonic clock of this process, milliseconds: what leases are counted with.
pub fn monotonic_ms() -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A running coordinator.
#[derive(Debug)]
pub struct Running {
    /// Speaks to it.
    pub handle: Handle,
    /// Takes what other members send.
    pub inbox: Inbox,
    /// What is known of workers.
    pub presence: Arc<Mutex<Presence>>,
    /// How it ended: well after it was told to stop, or with the reason why this member cannot go on.
    pub ended: oneshot::Receiver<Result<(), CoreError>>,
}

/// Starts the thread. `dial` connects to other members; `stop` ends it, handing over the lead first. Streams to others run on the present runtime.
///
/// # Errors
/// [`CoreError`] when the store cannot be followed; [`std::io::Error`] is one of its store's kind where no thread can be had.
pub fn start(config: Config, store: Store<Rocks>, dial: Dial, stop: CancellationToken) -> Result<Running, CoreError> {
    start_with(Upkeep::All, config, store, dial, stop)
}

/// As [`start`], with an upkeep of its own.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    upkeep: Upkeep,
    config: Config,
    store: Store<Rocks>,
    dial: Dial,
    stop: CancellationToken,
) -> Result<Running, CoreError> {
    let mut driver = Driver::open(config, store)?;
    driver.set_upkeep(upkeep);
    let presence = driver.presence();
    let (requests, asked) = mpsc::channel(REQUESTS_MAX);
    let (messages, inbound) = mpsc::channel(MESSAGES_MAX);
    let (steps, asked_steps) = mpsc::channel(STEPS_MAX);
    let (leadership, leads) = watch::channel(Leadership::default());
    let (applied, applies) = watch::channel(driver.applied());
    let state = Arc::new(Mutex::new(driver.state()));
    let handle = Handle::new(driver.me(), requests, Arc::clone(&state), leads, applies);
    let mut peers = Peers::new(dial, tokio::runtime::Handle::current());
    set_members(&mut peers, driver.me(), &driver.members());
    let (snapshot_ends, snapshots_ended) = mpsc::channel(STEPS_MAX);
    let task = Task {
        driver,
        peers,
        runtime: tokio::runtime::Handle::current(),
        state,
        leadership,
        applied,
        waiting: BTreeMap::new(),
        next: 0,
        receiving: None,
        snapshot_ends,
        snapshots_ended,
        snapshots: SnapshotCounts::default(),
    };
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name(String::from("raft"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let result = match runtime {
                Ok(runtime) => runtime.block_on(task.run(asked, inbound, asked_steps, &stop)),
                Err(error) => Err(CoreError::Stopped { why: error.to_string() }),
            };
            if let Err(error) = &result {
                tracing::error!(error = %Chain(error), "this coordinator cannot go on");
            }
            // Nobody waits for it where the process ends anyway.
            let _ = end.send(result);
        })
        .map_err(|error| CoreError::Stopped { why: error.to_string() })?;
    Ok(Running {
        handle,
        inbox: Inbox::new(messages, steps),
        presence,
        ended,
    })
}

/// An error with everything below it.
struct Chain<'e>(&'e dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

/// The present state: a snapshot puts another object there.
type Shared = Arc<Mutex<Arc<RwLock<State>>>>;

/// Who waits for an answer.
#[derive(Debug)]
enum Waits {
    Change(oneshot::Sender<Result<super::handle::Applied, NodeError>>),
    Done(oneshot::Sender<Result<(), NodeError>>),
}

struct Task {
    driver: Driver<Rocks>,
    peers: Peers,
    runtime: tokio::runtime::Handle,
    state: Shared,
    leadership: watch::Sender<Leadership>,
    applied: watch::Sender<u64>,
    waiting: BTreeMap<u64, Waits>,
    next: u64,
    /// The call whose snapshot is being received.
    receiving: Option<(u64, SnapshotId)>,
    /// Where it is said how the sending of a snapshot ended.
    snapshot_ends: mpsc::Sender<(MemberId, bool)>,
    snapshots_ended: mpsc::Receiver<(MemberId, bool)>,
    snapshots: SnapshotCounts,
}

fn set_members(peers: &mut Peers, me: MemberId, members: &[(MemberId, String)]) {
    let others = members.iter().filter(|(id, _)| *id != me);
    peers.set_members(others.map(|(id, address)| (*id, address.as_str())));
}

fn now() -> Now {
    Now {
        ms: monotonic_ms(),
        wall: Timestamp::now().into(),
    }
}

impl Task {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Request>,
        mut inbound: mpsc::Receiver<Inbound>,
        mut steps: mpsc::Receiver<AskedStep>,
        stop: &CancellationToken,
    ) -> Result<(), CoreError> {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        // After a long sync the ticks that were missed are not made up: an election is worth less than the time to hear of the leader.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopping: Option<Instant> = None;
        let mut left: Option<Instant> = None;
        self.settle()?;
        loop {
            tokio::select! {
                _ = ticks.tick() => self.driver.tick(now()),
                Some(request) = asked.recv() => self.take(request),
                Some(message) = inbound.recv() => self.receive(&message),
                Some(step) = steps.recv() => self.step(step),
                Some((to, is_whole)) = self.snapshots_ended.recv() => {
                    let ended = if is_whole { &mut self.snapshots.sent } else { &mut self.snapshots.failed };
                    *ended += 1;
                    self.driver.report_snapshot(to, is_whole);
                }
                () = stop.cancelled(), if stopping.is_none() => {
                    stopping = Some(Instant::now());
                    self.driver.ask(u64::MAX, Ask::Transfer(None), now());
                }
            }
            for _ in 0..BATCH {
                let mut any = false;
                if let Ok(request) = asked.try_recv() {
                    self.take(request);
                    any = true;
                }
                if let Ok(message) = inbound.try_recv() {
                    self.receive(&message);
                    any = true;
                }
                if !any {
                    break;
                }
            }
            self.settle()?;
            if stopping.is_none() && self.driver.core().membership().was_removed(self.driver.me()) {
                // Others may need what it still has to send, or this member may have had a part in the change that removed it.
                if left.get_or_insert_with(Instant::now).elapsed() > LINGER {
                    return Err(CoreError::Removed);
                }
            } else {
                left = None;
            }
            if let Some(since) = stopping
                && (!self.leadership.borrow().is_me
                    || self.driver.core().membership().voters.len() < 2
                    || since.elapsed() > HAND_OVER)
            {
                return Ok(());
            }
        }
    }

    fn take(&mut self, request: Request) {
        let (ask, waits) = match request {
            Request::Change {
                actor,
                key,
                command,
                answer,
            } => (Ask::Change { actor, key, command }, Waits::Change(answer)),
            Request::Barrier { answer } => (Ask::Barrier, Waits::Done(answer)),
            Request::Membership { change, answer } => (Ask::Membership(change), Waits::Done(answer)),
            Request::Transfer { to, answer } => (Ask::Transfer(to), Waits::Done(answer)),
            Request::Rows { places, answer } => {
                let read = |(table, key): &(u8, Vec<u8>)| self.driver.row(*table, key);
                let rows = places.iter().map(read).collect::<Result<_, _>>();
                // Who asked may have gone.
                let _ = answer.send(rows.map_err(|error| NodeError::Unreadable { why: error.to_string() }));
                return;
            }
            Request::Standing { answer } => {
                // Who asked may have gone.
                let _ = answer.send(Standing {
                    snapshots: self.snapshots,
                    ..self.driver.standing()
                });
                return;
            }
        };
        self.next += 1;
        self.waiting.insert(self.next, waits);
        self.driver.ask(self.next, ask, now());
    }

    fn receive(&mut self, inbound: &Inbound) {
        if let Err(refused) = self.driver.receive(inbound.from, &inbound.message, inbound.sender) {
            tracing::warn!(from = %inbound.from, %refused, "a message of another coordinator was refused");
        }
    }

    fn step(&mut self, asked: AskedStep) {
        let AskedStep { call, step, answer } = asked;
        let current = |receiving: Option<(u64, SnapshotId)>| {
            receiving
                .filter(|(of, _)| *of == call)
                .map(|(_, id)| id)
                .ok_or_else(|| String::from("another snapshot is being received"))
        };
        let taken = match step {
            SnapshotStep::Begin { from, message } => self
                .driver
                .begin_snapshot(from, &message)
                .map(|id| self.receiving = Some((call, id)))
                .map_err(|error| error.to_string()),
            SnapshotStep::Piece(piece) => current(self.receiving).and_then(|id| {
                self.driver
                    .snapshot_piece(id, &piece)
                    .map_err(|error| error.to_string())
            }),
            SnapshotStep::End(end) => current(self.receiving).and_then(|id| {
                self.receiving = None;
                self.driver
                    .finish_snapshot(id, &end)
                    .map(|_| self.snapshots.received += 1)
                    .map_err(|error| error.to_string())
            }),
        };
        // The sender may have gone; then it tries again.
        let _ = answer.send(taken);
    }

    /// Does what comes out of the driver.
    fn settle(&mut self) -> Result<(), CoreError> {
        let did = self.driver.process(now())?;
        if did.restored {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = self.driver.state();
        }
        let applied = self.driver.applied();
        self.applied
            .send_if_modified(|before| std::mem::replace(before, applied) != applied);
        if let Some(leadership) = did.leadership {
            tracing::info!(leader = ?leadership.leader, mine = leadership.is_me, term = leadership.term, "leadership changed");
            self.leadership.send_replace(leadership);
        }
        if let Some(members) = did.members {
            set_members(&mut self.peers, self.driver.me(), &members);
        }
        for message in did.messages {
            if !self.peers.send(message.to, message.bytes) {
                self.driver.report_unreachable(message.to);
            }
        }
        for snapshot in did.snapshots {
            let (to, done) = (snapshot.to, self.snapshot_ends.clone());
            let Some(channel) = self.peers.channel(to) else {
                self.driver.report_snapshot(to, false);
                continue;
            };
            self.runtime.spawn(async move {
                let sent = send_snapshot(channel, snapshot.header, snapshot.snapshot).await;
                if let Err(error) = &sent {
                    tracing::warn!(%to, %error, "a snapshot did not arrive");
                }
                // The task may have ended.
                let _ = done.send((to, sent.is_ok())).await;
            });
        }
        for (number, answer) in did.answers {
            // Who asked may have gone; that it was answered is all there is to do.
            match self.waiting.remove(&number) {
                Some(Waits::Change(to)) => {
                    let answer = answer.and_then(|answer| match answer {
                        Answer::Applied(applied) => Ok(applied),
                        Answer::Done => Err(NodeError::Unclear),
                    });
                    let _ = to.send(answer);
                }
                Some(Waits::Done(to)) => {
                    let _ = to.send(answer.map(|_| ()));
                }
                None => {}
            }
        }
        Ok(())
    }
}
