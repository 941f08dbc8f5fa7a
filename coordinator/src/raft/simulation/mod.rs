//! Clusters of cores in one thread, by seed: messages are lost, doubled and late, links are cut, members crash and lose what they did not
//! sync, disks fail in the middle of what a core does, and members are added, removed and replaced. The same seed does the same.
//!
//! ```text
//! World    who is up, what is on its way, what goes wrong         (world; wire and streams within)
//! Checker  what must hold, looked at with every outcome           (check)
//! Subject  a machine to run, with commands and a digest           (subject; one of our own: register)
//! ```
//! It is generic over the machine: implement [`Subject`] for another one and call [`run`].

mod check;
mod register;
mod subject;
mod world;

use crate::raft::Keep;
use crate::store::faulty::Lie;

pub(crate) use register::Register;
pub(crate) use subject::Subject;
use world::World;

/// What may happen. Chances are given as one in so many; 0 is never.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Members at the beginning.
    pub(crate) members: u64,
    /// Rounds of trouble; in each, most members tick once.
    pub(crate) rounds: u64,
    /// A message is lost.
    pub(crate) loses: u64,
    /// A message comes twice.
    pub(crate) doubles: u64,
    /// Rounds that a message takes at most.
    pub(crate) delay: u64,
    /// A member crashes, in each round.
    pub(crate) crashes: u64,
    /// A member's disk fails in the middle of something, in each round.
    pub(crate) disk_fails: u64,
    /// Links are cut, in each round.
    pub(crate) cuts: u64,
    /// The members are changed, in each round.
    pub(crate) changes: u64,
    /// Leadership is handed over, in each round.
    pub(crate) transfers: u64,
    /// How much of the log is kept.
    pub(crate) keep: Keep,
    /// How disks lie.
    pub(crate) lie: Option<Lie>,
    /// How clients err.
    pub(crate) error: Option<ClientError>,
}

/// What a careless caller of the core might do; each must be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientError {
    /// Reads from whoever takes itself for the leader, without asking.
    ReadsWithoutAsking,
    /// Calls a write done whose outcome is unclear.
    TrustsTheUnclear,
    /// Makes two members vote under one number: one is restored from an older copy of its disk.
    RestoresAnOldDisk,
}

impl Settings {
    /// Everything goes wrong now and then.
    pub(crate) fn rough(members: u64) -> Self {
        Self {
            members,
            rounds: 400,
            loses: 20,
            doubles: 20,
            delay: 3,
            crashes: 60,
            disk_fails: 90,
            cuts: 60,
            changes: 0,
            transfers: 100,
            keep: Keep {
                entries: 12,
                bytes: 1 << 20,
            },
            lie: None,
            error: None,
        }
    }

    /// Nothing goes wrong.
    pub(crate) fn calm(members: u64) -> Self {
        Self {
            loses: 0,
            doubles: 0,
            delay: 1,
            crashes: 0,
            disk_fails: 0,
            cuts: 0,
            transfers: 0,
            ..Self::rough(members)
        }
    }
}

/// What a run did: so that a test can tell whether it tested anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Over everything that happened, in order.
    pub(crate) trace: [u8; 32],
    pub(crate) acknowledged: u64,
    pub(crate) unclear: u64,
    pub(crate) reads: u64,
    pub(crate) late_reads: u64,
    pub(crate) crashes: u64,
    pub(crate) disk_failures: u64,
    pub(crate) leaders: u64,
    pub(crate) snapshots: u64,
    pub(crate) broken_streams: u64,
    pub(crate) changes: u64,
    pub(crate) joint: u64,
    pub(crate) messages: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.trace = other.trace;
        let sums = [
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.unclear, other.unclear),
            (&mut self.reads, other.reads),
            (&mut self.late_reads, other.late_reads),
            (&mut self.crashes, other.crashes),
            (&mut self.disk_failures, other.disk_failures),
            (&mut self.leaders, other.leaders),
            (&mut self.snapshots, other.snapshots),
            (&mut self.broken_streams, other.broken_streams),
            (&mut self.changes, other.changes),
            (&mut self.joint, other.joint),
            (&mut self.messages, other.messages),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }
}

/// Runs a cluster: trouble, then peace, in which everybody must come to the same state.
///
/// # Errors
/// What must not have happened.
pub(crate) fn run<M: Subject>(seed: u64, settings: &Settings) -> Result<Report, String> {
    let mut world = World::<M>::new(seed, settings.clone())?;
    for _ in 0..settings.rounds {
        world.round()?;
    }
    world.make_peace()
}
