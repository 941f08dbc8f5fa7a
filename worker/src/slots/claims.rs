//! Who is about to store what: advice, in memory, with a time limit. It decides nothing: a claim that is lost or runs out costs a duplicate.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tresor_storage::ids::ChunkId;

/// How long a claim stands. Its session puts a pack when it has 32 MiB of new data: at 1 MB/s of new data that takes half a minute.
const LIFETIME: Duration = Duration::from_secs(60);
/// Claims of a vault at once: eight backups with two packs each under way have some 30,000. About 24 MB.
const CLAIMS_MAX: usize = 1 << 18;

#[derive(Debug, Clone, Copy)]
struct Claim {
    claimant: u64,
    made: Instant,
}

/// Chunks that somebody has said to store: each who reads for a session is one.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    by_id: HashMap<ChunkId, Claim>,
    /// In the order in which they were made; with those that are gone or were made anew since.
    order: VecDeque<(Instant, ChunkId)>,
}

impl Claims {
    /// Whether somebody else claims `id`; if nobody does, `claimant` does from now on.
    pub(crate) fn claim(&mut self, id: ChunkId, claimant: u64, now: Instant) -> bool {
        self.expire(now);
        match self.by_id.get(&id) {
            Some(claim) => claim.claimant != claimant,
            None => {
                if self.order.len() >= 2 * CLAIMS_MAX {
                    // Mostly of chunks that were stored since.
                    let by_id = &self.by_id;
                    self.order
                        .retain(|(made, id)| by_id.get(id).is_some_and(|claim| claim.made == *made));
                }
                if self.by_id.len() < CLAIMS_MAX {
                    self.by_id.insert(id, Claim { claimant, made: now });
                    self.order.push_back((now, id));
                }
                false
            }
        }
    }

    /// It is stored: nobody claims it any more.
    pub(crate) fn settle(&mut self, id: &ChunkId) {
        self.by_id.remove(id);
    }

    fn expire(&mut self, now: Instant) {
        while let Some((made, id)) = self.order.front() {
            let is_gone = self.by_id.get(id).is_none_or(|claim| claim.made != *made);
            if !is_gone && now.duration_since(*made) < LIFETIME {
                return;
            }
            if !is_gone {
                self.by_id.remove(id);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 1;
    const B: u64 = 2;

    fn id(n: u8) -> ChunkId {
        ChunkId([n; 32])
    }

    #[test]
    fn the_first_who_asks_claims_and_others_are_told() {
        let now = Instant::now();
        let mut claims = Claims::default();
        assert!(!claims.claim(id(1), A, now));
        assert!(claims.claim(id(1), B, now));
        assert!(!claims.claim(id(1), A, now), "its own claim is none to it");
        assert!(!claims.claim(id(2), B, now));
    }

    #[test]
    fn a_claim_ends_when_the_chunk_is_stored_or_time_is_up() {
        let now = Instant::now();
        let mut claims = Claims::default();
        claims.claim(id(1), A, now);
        claims.settle(&id(1));
        assert!(!claims.claim(id(1), B, now), "settled");
        claims.claim(id(2), A, now);
        let later = now + LIFETIME;
        assert!(!claims.claim(id(2), B, later), "it ran out, and is B's now");
        assert!(claims.claim(id(2), A, later));
    }

    #[test]
    fn what_was_claimed_anew_is_not_ended_by_the_time_of_the_first() {
        let now = Instant::now();
        let half = now + LIFETIME / 2;
        let mut claims = Claims::default();
        claims.claim(id(1), A, now);
        claims.settle(&id(1));
        claims.claim(id(1), A, half);
        assert!(claims.claim(id(1), B, now + LIFETIME), "the second claim stands");
        assert!(!claims.claim(id(1), B, half + LIFETIME));
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let now = Instant::now();
        let mut claims = Claims::default();
        for n in 0..CLAIMS_MAX as u64 + 10 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            claims.claim(ChunkId(bytes), A, now);
        }
        assert_eq!(claims.by_id.len(), CLAIMS_MAX);
        assert_eq!(claims.order.len(), CLAIMS_MAX);
    }
}
