//! How a member takes part.

use raft::ReadOnlyOption;

use super::limits;
use super::policy::Keep;

/// Settings of a member. Ticks are the caller's; these numbers are meant for ticks of 100 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A number that no earlier process of this member had: drawn at random, or counted up and used up durably. Answers to reads of an
    /// earlier life are told from this one's by it.
    pub life: u64,
    /// A leader shows itself every so many ticks.
    pub heartbeat_ticks: usize,
    /// A leader that a majority has not answered for so many ticks steps down; a follower that heard of one less long ago votes for no other.
    pub election_ticks: usize,
    /// A follower without a leader waits at least so many ticks before it wants to be elected; not below `election_ticks`.
    pub election_ticks_min: usize,
    /// … and less than so many. How long exactly is drawn each time, by raft-rs and not from a seed: who simulates leaves it no choice.
    pub election_ticks_max: usize,
    /// How much of the log is kept for followers that were away.
    pub keep: Keep,
}

impl Config {
    /// The settings to use.
    pub fn new(life: u64) -> Self {
        Self {
            life,
            heartbeat_ticks: 2,
            election_ticks: 10,
            election_ticks_min: 10,
            election_ticks_max: 20,
            keep: Keep::default(),
        }
    }

    pub(super) fn for_raft(&self, id: u64, applied: u64) -> raft::Config {
        raft::Config {
            id,
            applied,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            min_election_tick: self.election_ticks_min,
            max_election_tick: self.election_ticks_max,
            max_size_per_msg: limits::APPEND_BYTES as u64,
            max_inflight_msgs: limits::APPENDS_IN_FLIGHT,
            max_uncommitted_size: limits::UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: limits::APPLY_BYTES,
            // A member that was cut off does not disturb the others when it comes back, and a leader that is cut off notices.
            pre_vote: true,
            check_quorum: true,
            // Each read asks a majority whether there is another leader. The other option trusts clocks.
            read_only_option: ReadOnlyOption::Safe,
            // Followers learn at once what is committed: they serve reads and answer watches.
            skip_bcast_commit: false,
            // Batching would let a message grow beyond its bound.
            batch_append: false,
            priority: 0,
        }
    }
}
