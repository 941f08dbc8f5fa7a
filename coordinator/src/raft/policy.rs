//! What a member decides for itself: pure functions of what it knows.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::MemberId;

use super::limits::PROMOTION_LAG;

/// How much of the log is kept behind what is applied, for followers that were away. Who missed more gets a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Entries.
    pub entries: u64,
    /// Bytes. The smaller bound counts.
    pub bytes: u64,
}

impl Default for Keep {
    /// A follower that was away for ten minutes of the busiest cluster (100 entries a second) catches up from the log; opening a store
    /// reads it all, in less than a second.
    fn default() -> Self {
        Self {
            entries: 60_000,
            bytes: 256 << 20,
        }
    }
}

impl Keep {
    /// Up to where the log is to be forgotten now, if at all.
    ///
    /// A snapshot on its way needs the entries after it, or its receiver would need the next snapshot when it has this one. They are kept,
    /// unless that takes four times the bound.
    pub fn compact_to(&self, log: LogSize) -> Option<u64> {
        let LogSize {
            first,
            applied,
            applied_bytes,
            oldest_snapshot,
        } = log;
        let entries = (applied + 1).saturating_sub(first);
        if entries == 0 {
            return None;
        }
        // Not one at a time: each removal leaves a mark in the database that reads step over.
        let is_due = |times: u64| {
            entries > (self.entries.saturating_mul(times)).saturating_add(self.entries / 4)
                || applied_bytes > (self.bytes.saturating_mul(times)).saturating_add(self.bytes / 4)
        };
        if !is_due(1) {
            return None;
        }
        let by_entries = applied.saturating_sub(self.entries);
        // As if entries were of one size. When they are not, the next time corrects it.
        let kept = u128::from(entries) * u128::from(self.bytes) / u128::from(applied_bytes.max(1));
        let by_bytes = applied.saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX));
        let mut to = by_entries.max(by_bytes);
        if let Some(oldest) = oldest_snapshot.filter(|_| !is_due(4)) {
            to = to.min(oldest);
        }
        (to >= first).then_some(to)
    }
}

/// How long the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSize {
    /// Its first entry.
    pub first: u64,
    /// The last entry applied.
    pub applied: u64,
    /// Bytes of the entries up to there.
    pub applied_bytes: u64,
    /// The oldest snapshot that is being sent.
    pub oldest_snapshot: Option<u64>,
}

/// What a leader knows of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The last entry that it is known to have.
    pub matched: u64,
    /// Ticks since it was heard of.
    pub silent_ticks: u64,
    /// Whether it is being sent a snapshot.
    pub in_snapshot: bool,
}

impl Peer {
    fn is_heard(&self, election_ticks: usize) -> bool {
        self.silent_ticks <= election_ticks as u64
    }
}

/// Whether a learner has caught up, so that its vote is no burden: a voter that has nothing delays every commit that needs it.
pub(super) fn has_caught_up(peer: &Peer, last: u64, election_ticks: usize) -> bool {
    !peer.in_snapshot && peer.is_heard(election_ticks) && peer.matched > 0 && peer.matched + PROMOTION_LAG >= last
}

/// Who should lead next: a voter that was heard of and has most of the log; of several the one with the smallest number.
pub(super) fn heir(
    voters: &BTreeSet<MemberId>,
    peers: &BTreeMap<MemberId, Peer>,
    election_ticks: usize,
) -> Option<MemberId> {
    let heard = voters.iter().filter_map(|id| Some((id, peers.get(id)?)));
    heard
        .filter(|(_, peer)| peer.is_heard(election_ticks))
        .max_by_key(|(id, peer)| (peer.matched, std::cmp::Reverse(**id)))
        .map(|(id, _)| *id)
}

/// Whether a majority of these voters was heard of lately; who asks counts as heard.
pub(super) fn majority_is_heard(
    voters: &BTreeSet<MemberId>,
    me: MemberId,
    peers: &BTreeMap<MemberId, Peer>,
    election_ticks: usize,
) -> bool {
    let is_heard = |id: &&MemberId| **id == me || peers.get(id).is_some_and(|peer| peer.is_heard(election_ticks));
    voters.iter().filter(is_heard).count() > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep {
        entries: 100,
        bytes: 1000,
    };

    fn log(first: u64, applied: u64, applied_bytes: u64, oldest_snapshot: Option<u64>) -> LogSize {
        LogSize {
            first,
            applied,
            applied_bytes,
            oldest_snapshot,
        }
    }

    #[test]
    fn the_log_is_compacted_now_and_then_and_never_past_what_is_kept() {
        assert_eq!(KEEP.compact_to(log(1, 0, 0, None)), None);
        assert_eq!(KEEP.compact_to(log(1, 125, 0, None)), None);
        assert_eq!(KEEP.compact_to(log(1, 126, 0, None)), Some(26));
        assert_eq!(KEEP.compact_to(log(27, 126, 0, None)), None);
        // 50 entries of 100 bytes each: ten of them are kept.
        assert_eq!(KEEP.compact_to(log(1, 50, 5000, None)), Some(40));
        assert_eq!(KEEP.compact_to(log(41, 50, 1000, None)), None);
    }

    #[test]
    fn entries_after_a_snapshot_on_its_way_are_kept_up_to_a_bound() {
        assert_eq!(KEEP.compact_to(log(1, 300, 0, Some(10))), Some(10));
        assert_eq!(KEEP.compact_to(log(11, 300, 0, Some(10))), None);
        assert_eq!(KEEP.compact_to(log(1, 426, 0, Some(10))), Some(326));
        assert_eq!(KEEP.compact_to(log(1, 300, 0, Some(250))), Some(200));
    }

    fn peer(matched: u64, silent_ticks: u64) -> Peer {
        Peer {
            matched,
            silent_ticks,
            in_snapshot: false,
        }
    }

    #[test]
    fn a_learner_votes_when_it_was_heard_and_is_close() {
        assert!(has_caught_up(&peer(1000, 10), 1064, 10));
        assert!(!has_caught_up(&peer(1000, 10), 1065, 10));
        assert!(!has_caught_up(&peer(1000, 11), 1064, 10));
        // Close to the beginning of a log is not close to having anything.
        assert!(!has_caught_up(&peer(0, 0), 5, 10));
        let receiving = Peer {
            in_snapshot: true,
            ..peer(1000, 0)
        };
        assert!(!has_caught_up(&receiving, 1000, 10));
    }

    #[test]
    fn the_heir_has_most_and_is_there() {
        let voters: BTreeSet<MemberId> = (1..=4).map(MemberId).collect();
        let mut peers = BTreeMap::from([
            (MemberId(2), peer(7, 0)),
            (MemberId(3), peer(7, 0)),
            (MemberId(4), peer(9, 30)),
            (MemberId(5), peer(9, 0)),
        ]);
        assert_eq!(heir(&voters, &peers, 10), Some(MemberId(2)));
        peers.remove(&MemberId(2));
        assert_eq!(heir(&voters, &peers, 10), Some(MemberId(3)));
        assert!(majority_is_heard(
            &(1..=3).map(MemberId).collect(),
            MemberId(1),
            &peers,
            10
        ));
        assert!(!majority_is_heard(&voters, MemberId(1), &peers, 10));
        assert!(majority_is_heard(
            &BTreeSet::from([MemberId(1)]),
            MemberId(1),
            &peers,
            10
        ));
    }
}
