//! The chain of the audit trail: each entry's hash covers the one before it, so whoever knows one hash can tell that nothing up to there was
//! changed, taken out, put in or turned around.
//!
//! The trail has a bound, so its beginning goes away: the hash before the oldest entry that is kept is the anchor. Who wants to be sure of what
//! was before writes hashes down elsewhere, which is what an exported head is for.
//!
//! Pure: the replicated state holds the entries, and every replica must compute the same.

use std::fmt;

use serde::{Deserialize, Serialize};
use tresor_proto::ids::hex;

/// BLAKE3's context of an entry. A changed one would break the chains of all clusters.
const ENTRY: &str = "tresor control v1 audit entry";
/// BLAKE3's context of what is before the first entry.
const GENESIS: &str = "tresor control v1 audit genesis";

/// The hash of an entry and of everything before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuditHash(pub [u8; 32]);

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Who did what to what, when, and how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Dense from 1.
    pub sequence: u64,
    /// When, as the log stamped it.
    pub time: i64,
    /// Who: a token, a node, a local user.
    pub actor: &'a str,
    /// What was asked for.
    pub action: &'a str,
    /// Of what.
    pub object: &'a str,
    /// How it went: done, or why not.
    pub outcome: &'a str,
}

/// How far a chain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last entry; 0 before the first.
    pub sequence: u64,
    /// Its hash.
    pub hash: AuditHash,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing, doubled or in the wrong place.
    #[error("audit entry {found} stands where {expected} should")]
    Sequence {
        /// The number that should come.
        expected: u64,
        /// The number that comes.
        found: u64,
    },
    /// An entry, or something before it, was changed.
    #[error("audit entry {sequence} or one before it was changed")]
    Hash {
        /// The first entry whose hash is another.
        sequence: u64,
    },
}

impl Broken {
    /// The first entry that cannot be believed.
    pub fn sequence(&self) -> u64 {
        match *self {
            Self::Sequence { expected, .. } => expected,
            Self::Hash { sequence } => sequence,
        }
    }
}

impl Head {
    /// Before the first entry of a cluster: another cluster's entries do not fit.
    pub fn genesis(cluster: [u8; 16]) -> Self {
        Self {
            sequence: 0,
            hash: AuditHash(blake3::derive_key(GENESIS, &cluster)),
        }
    }

    /// The head after one more entry, which has the next number.
    ///
    /// # Errors
    /// [`Broken::Sequence`].
    pub fn append(&self, entry: &Entry<'_>) -> Result<Self, Broken> {
        let expected = self.sequence.saturating_add(1);
        if entry.sequence != expected {
            return Err(Broken::Sequence {
                expected,
                found: entry.sequence,
            });
        }
        Ok(Self {
            sequence: entry.sequence,
            hash: hash(&self.hash, entry),
        })
    }
}

/// The hash of an entry after another one. Every field has its length in front, so that no two entries are one string of bytes.
pub fn hash(previous: &AuditHash, entry: &Entry<'_>) -> AuditHash {
    let mut hasher = blake3::Hasher::new_derive_key(ENTRY);
    hasher.update(&previous.0);
    hasher.update(&entry.sequence.to_le_bytes());
    hasher.update(&entry.time.to_le_bytes());
    for field in [entry.actor, entry.action, entry.object, entry.outcome] {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field.as_bytes());
    }
    AuditHash(*hasher.finalize().as_bytes())
}

/// Checks entries with the hashes stored beside them, in their order, from the anchor on.
///
/// # Errors
/// What is wrong with the first entry that does not fit.
pub fn verify<'a>(anchor: Head, entries: impl IntoIterator<Item = (Entry<'a>, AuditHash)>) -> Result<Head, Broken> {
    entries.into_iter().try_fold(anchor, |head, (entry, stored)| {
        let next = head.append(&entry)?;
        if next.hash == stored {
            Ok(next)
        } else {
            Err(Broken::Hash {
                sequence: entry.sequence,
            })
        }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CLUSTER: [u8; 16] = [5; 16];

    fn entry(sequence: u64) -> Entry<'static> {
        Entry {
            sequence,
            time: 1_750_000_000_000 + i64::try_from(sequence).unwrap(),
            actor: "token 01",
            action: "run-restore",
            object: "item web-03",
            outcome: "done",
        }
    }

    fn chain(count: u64) -> Vec<(Entry<'static>, AuditHash)> {
        let mut head = Head::genesis(CLUSTER);
        (1..=count)
            .map(|sequence| {
                head = head.append(&entry(sequence)).unwrap();
                (entry(sequence), head.hash)
            })
            .collect()
    }

    #[test]
    fn a_whole_chain_holds_from_any_anchor() {
        let entries = chain(9);
        let genesis = Head::genesis(CLUSTER);
        let head = verify(genesis, entries.iter().copied()).unwrap();
        assert_eq!((head.sequence, head.hash), (9, entries[8].1));
        assert_eq!(verify(genesis, []), Ok(genesis));
        for kept in 1..9 {
            let anchor = Head {
                sequence: kept,
                hash: entries[kept as usize - 1].1,
            };
            assert_eq!(verify(anchor, entries[kept as usize..].iter().copied()), Ok(head));
        }
    }

    #[test]
    fn whatever_is_changed_breaks_the_chain_there() {
        let entries = chain(5);
        let genesis = Head::genesis(CLUSTER);
        let changes: [fn(&mut Entry<'static>); 5] = [
            |e| e.time += 1,
            |e| e.actor = "token 02",
            |e| e.action = "read-state",
            |e| e.object = "item web-04",
            |e| e.outcome = "refused",
        ];
        for at in 0..5 {
            let sequence = at as u64 + 1;
            for change in changes {
                let mut wrong = entries.clone();
                change(&mut wrong[at].0);
                assert_eq!(verify(genesis, wrong), Err(Broken::Hash { sequence }));
            }
            let mut wrong = entries.clone();
            wrong[at].1.0[31] ^= 1;
            assert_eq!(verify(genesis, wrong).unwrap_err().sequence(), sequence);
            // Changed, and made to fit: the next one does not.
            let mut wrong = entries.clone();
            wrong[at].0.outcome = "refused";
            let before = if at == 0 { genesis.hash } else { wrong[at - 1].1 };
            wrong[at].1 = hash(&before, &wrong[at].0);
            let expected = if at == 4 { None } else { Some(sequence + 1) };
            assert_eq!(verify(genesis, wrong).err().map(|e| e.sequence()), expected);
        }
    }

    #[test]
    fn what_is_missing_doubled_or_turned_around_is_noticed() {
        let entries = chain(5);
        let genesis = Head::genesis(CLUSTER);
        let mut missing = entries.clone();
        missing.remove(2);
        assert_eq!(
            verify(genesis, missing),
            Err(Broken::Sequence { expected: 3, found: 4 })
        );
        let mut doubled = entries.clone();
        doubled.insert(2, doubled[1]);
        assert_eq!(
            verify(genesis, doubled),
            Err(Broken::Sequence { expected: 3, found: 2 })
        );
        let mut turned = entries.clone();
        turned.swap(0, 1);
        assert_eq!(verify(genesis, turned), Err(Broken::Sequence { expected: 1, found: 2 }));
        // Of another cluster.
        assert_eq!(
            verify(Head::genesis([6; 16]), entries),
            Err(Broken::Hash { sequence: 1 })
        );
    }

    #[test]
    fn a_byte_that_moves_from_one_field_to_the_next_changes_the_hash() {
        let before = Head::genesis(CLUSTER).hash;
        let with = |actor, action| Entry {
            actor,
            action,
            ..entry(1)
        };
        assert_ne!(hash(&before, &with("ab", "c")), hash(&before, &with("a", "bc")));
    }

    #[test]
    fn the_hash_of_an_entry_is_fixed() {
        assert_eq!(
            chain(1)[0].1.to_string(),
            "483a3d849b7aeeb2ddef55425d75888ce6d9d6cfb833ccf4caefec9648c5766e"
        );
    }
}
