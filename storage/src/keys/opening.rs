//! From the objects of `keys/` and something that unlocks to the keys, and from there to the next revision.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::keyring::{Generation, Keyring};
use super::revision::{Decoded, ObjectHash, Revision};
use super::slot::{Grant, NewSlot, SealedSlot, Slot, check_slot_name};
use super::unlock::Secrets;
use super::{KeyError, Unlock};
use crate::error::FormatError;
use crate::ids::{VaultId, Writer};
use crate::limits::{KEY_GENERATIONS_MAX, KEY_REVISIONS_MAX, KEY_SLOTS_MAX};

/// One object of `keys/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionObject {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A revision that does not count, and why; for alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The object.
    pub name: String,
    /// What is wrong with it.
    pub why: FormatError,
}

/// A vault's keys, opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The keys that the slot gives, of all valid revisions.
    pub keyring: Keyring,
    /// The revision that counts.
    pub revision: Revision,
    /// The BLAKE3 of its object.
    pub hash: ObjectHash,
    /// The slot that was opened.
    pub slot: String,
    /// Objects that do not count.
    pub ignored: Vec<Ignored>,
    /// Those of them that the same secret opens and that name another header than the vault's: left by makings under the same id that lost. They may
    /// be deleted: the header is there, and theirs can never be put.
    pub strays: Vec<String>,
    /// Generations that two valid revisions fill with different keys; the keys of the one that counts are in the key ring. Somebody wrote
    /// against the rules: show it, and keep those revisions.
    pub conflicts: BTreeSet<Generation>,
    /// Valid revisions all of whose keys are here.
    taken: BTreeSet<ObjectHash>,
    unlock: UnlockedBy,
}

/// How many bytes a slot's name may need in a message is bounded by the slot; this is only the kind.
type UnlockedBy = &'static str;

/// Who writes a revision, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The writer: part of the object's name.
    pub writer: Writer,
    /// The number of the claim under which it is written.
    pub claim: u64,
    /// RFC 3339, UTC.
    pub now: String,
}

/// A revision made and not yet stored.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its object.
    pub object: RevisionObject,
    /// The revision.
    pub revision: Revision,
    /// The keys that it wraps.
    pub keyring: Keyring,
}

/// A change of who can open a vault.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds a slot.
    Add(NewSlot),
    /// Removes a slot.
    Remove {
        /// Its name.
        slot: String,
        /// Whether its secret may be in the wrong hands: also starts a new generation.
        compromised: bool,
    },
    /// Gives a slot another secret. Name and grant stay.
    Replace {
        /// Its name.
        slot: String,
        /// What opens it from now on, and what a passphrase costs.
        unlock: Unlock,
        /// The cost of a passphrase.
        cost: super::PassphraseCost,
        /// Whether the old secret may be in the wrong hands: also starts a new generation.
        compromised: bool,
    },
    /// Starts a new generation of `K_meta` and `K_data`.
    NewGeneration,
}

/// Makes the first revision of a vault. Costs Argon2id for each passphrase.
///
/// # Errors
/// [`KeyError::Slot`] for bad, missing or equal names, or when no slot gives all keys.
pub fn first_revision(
    vault: VaultId,
    header_hash: ObjectHash,
    stamp: &Stamp,
    keyring: Keyring,
    slots: &[NewSlot],
) -> Result<Draft, KeyError> {
    let slots = slots
        .iter()
        .map(|slot| Slot::make(vault, slot, &stamp.now, &keyring))
        .collect::<Result<Vec<_>, _>>()?;
    draft(vault, header_hash, 1, stamp, keyring, &slots, BTreeSet::new())
}

/// Whether any readable revision names a slot of this kind. Not proven by any key: only to know what a person can be asked for.
pub fn names_slot_kind(vault: VaultId, objects: &[RevisionObject], kind: super::SlotKind) -> bool {
    let mut readable = objects
        .iter()
        .take(KEY_REVISIONS_MAX)
        .filter_map(|o| Decoded::read(vault, &o.name, &o.bytes).ok());
    readable.any(|decoded| decoded.revision.slots().any(|slot| slot.kind == kind))
}

/// Finds the keys that `unlock` gives. Costs Argon2id for each passphrase slot, with a bound over all; run it where blocking is allowed.
///
/// `header_hash` is that of the vault's header where it is at hand.
///
/// # Errors
/// [`KeyError::Wrong`] when no slot fits; [`KeyError::Removed`] when only slots of superseded revisions do; [`KeyError::Revisions`] when
/// nothing readable is there; [`KeyError::Header`] when the header is another than the keys were made for.
pub fn open_revisions(
    vault: VaultId,
    header_hash: Option<&ObjectHash>,
    objects: &[RevisionObject],
    unlock: &Unlock,
) -> Result<Opened, KeyError> {
    let mut ignored = Vec::new();
    let mut decoded = Vec::new();
    for object in objects.iter().take(KEY_REVISIONS_MAX) {
        match Decoded::read(vault, &object.name, &object.bytes) {
            Ok(revision) => decoded.push(revision),
            Err(why) => ignored.push(Ignored {
                name: object.name.clone(),
                why,
            }),
        }
    }
    decoded.sort_by_key(|d| std::cmp::Reverse(d.revision.rank()));

    let mut secrets = Secrets::new(unlock);
    let mut unfit = Vec::new();
    let mut opened: Vec<(Decoded, Keyring, String)> = Vec::new();
    let mut strays = Vec::new();
    for decoded in decoded {
        match open_one(vault, &decoded, &mut secrets) {
            // Of a making that was repeated with the same id and secret and lost: another vault's keys, whatever their rank.
            Ok(Some(_)) if header_hash.is_some_and(|hash| *hash != decoded.revision.header_hash) => {
                strays.push(decoded.revision);
            }
            Ok(Some((ring, slot))) => {
                // One secret opens one vault's keys: the anchors say so. Two passphrase slots have secrets of their own.
                if opened.first().is_some_and(|(_, best, _)| best.id != ring.id) {
                    let why = FormatError::Authentication {
                        what: "anchor of the key slot",
                    };
                    ignored.push(Ignored {
                        name: decoded.revision.object_name(),
                        why,
                    });
                } else {
                    opened.push((decoded, ring, slot));
                }
            }
            Ok(None) => unfit.push(decoded),
            Err(why) => ignored.push(Ignored {
                name: decoded.revision.object_name(),
                why,
            }),
        }
    }

    let mut rest = opened.into_iter();
    let Some((best, mut keyring, slot)) = rest.next() else {
        if !strays.is_empty() {
            return Err(KeyError::Header {
                vault: vault.to_string(),
            });
        }
        return Err(nothing_opened(vault, unlock, unfit.is_empty(), &ignored));
    };
    ignored.extend(strays.iter().map(|revision| Ignored {
        name: revision.object_name(),
        why: FormatError::Mismatch {
            what: "header hash of the key revision",
            expected: crate::ids::hex(&best.revision.header_hash),
            found: crate::ids::hex(&revision.header_hash),
        },
    }));
    let mut taken = BTreeSet::from([best.hash]);
    let mut conflicts = BTreeSet::new();
    for (older, ring, _) in rest {
        if unite(&mut keyring, ring, &mut conflicts) {
            taken.insert(older.hash);
        }
    }
    for other in unfit {
        match other.check(&keyring) {
            // What the best contains was taken over by whoever wrote it.
            Ok(()) if other.revision.rank() < best.revision.rank() => {
                if best.revision.contains.contains(&other.hash) {
                    taken.insert(other.hash);
                }
            }
            Ok(()) => {
                return Err(KeyError::Removed {
                    what: unlock.describe(),
                    vault: vault.to_string(),
                    slot,
                    revision: other.revision.number,
                });
            }
            Err(why) => ignored.push(Ignored {
                name: other.revision.object_name(),
                why,
            }),
        }
    }
    Ok(Opened {
        keyring,
        revision: best.revision,
        hash: best.hash,
        slot,
        ignored,
        strays: strays.iter().map(Revision::object_name).collect(),
        conflicts,
        taken,
        unlock: unlock.describe(),
    })
}

impl Opened {
    /// What opened it, in words.
    pub fn opened_with(&self) -> &'static str {
        self.unlock
    }

    /// Makes the next revision: every slot that stays is sealed anew with all generations. Costs Argon2id for a new passphrase.
    ///
    /// # Errors
    /// [`KeyError::NotAllowed`] without all keys; [`KeyError::Slot`] for a name taken or unknown, too many slots or generations, the last slot
    /// with all keys; [`KeyError::Revisions`] when a revision that a newer program wrote is not understood and would be passed over.
    pub fn change(&self, stamp: &Stamp, change: &Change) -> Result<Draft, KeyError> {
        let mut ring = self.keyring.clone();
        if ring.cut.is_none() || ring.generations.values().any(|g| g.data.is_none()) {
            return Err(KeyError::NotAllowed { what: "change keys" });
        }
        if let Some(newer) = self
            .ignored
            .iter()
            .find(|i| matches!(i.why, FormatError::Unsupported { .. }))
        {
            return Err(KeyError::Revisions {
                vault: self.revision.vault.to_string(),
                object: newer.name.clone(),
                source: newer.why.clone(),
            });
        }
        let vault = self.revision.vault;
        let mut slots: Vec<Slot> = self.revision.slots.iter().map(|s| s.slot.clone()).collect();
        let at = |name: &str| {
            self.revision
                .slots
                .iter()
                .position(|s| s.slot.name == name)
                .ok_or_else(|| KeyError::Slot {
                    why: format!("there is no key slot {name:?}"),
                })
        };
        let mut renew = false;
        match change {
            Change::Add(new) => slots.push(Slot::make(vault, new, &stamp.now, &ring)?),
            Change::Remove { slot, compromised } => {
                drop(slots.remove(at(slot)?));
                renew = *compromised;
            }
            Change::Replace {
                slot,
                unlock,
                cost,
                compromised,
            } => {
                let at = at(slot)?;
                let new = NewSlot {
                    name: slot.clone(),
                    unlock: unlock.clone(),
                    grant: slots[at].grant,
                    cost: *cost,
                };
                slots[at] = Slot::make(vault, &new, &stamp.now, &ring)?;
                renew = *compromised;
            }
            Change::NewGeneration => renew = true,
        }
        if renew {
            ring.add_generation();
        }
        let number = self.revision.number.checked_add(1).ok_or_else(|| KeyError::Slot {
            why: String::from("the vault has no number left for another key revision"),
        })?;
        draft(
            vault,
            self.revision.header_hash,
            number,
            stamp,
            ring,
            &slots,
            self.taken.clone(),
        )
    }

    /// Names of the objects that the revision that counts contains: they may be deleted. Nothing else in `keys/` may.
    pub fn superseded(&self, objects: &[RevisionObject]) -> Vec<String> {
        objects
            .iter()
            .filter(|o| self.revision.contains.contains(blake3::hash(&o.bytes).as_bytes()))
            .map(|o| o.name.clone())
            .collect()
    }
}

impl Draft {
    /// Unwraps an object read back from a store and compares its keys with those that were to be wrapped. Costs Argon2id for a passphrase.
    ///
    /// # Errors
    /// What [`open_revisions`] says, and [`KeyError::Slot`] when other keys come out or `unlock` is not for a slot of this revision.
    pub fn check_read_back(&self, bytes: &Bytes, unlock: &Unlock) -> Result<Opened, KeyError> {
        let object = RevisionObject {
            name: self.object.name.clone(),
            bytes: bytes.clone(),
        };
        let opened = open_revisions(self.revision.vault, Some(&self.revision.header_hash), &[object], unlock)?;
        let same = opened.keyring.id == self.keyring.id
            && (opened.keyring.cut.is_none() || opened.keyring.cut == self.keyring.cut)
            && opened.keyring.generations.keys().eq(self.keyring.generations.keys())
            && opened.keyring.generations.iter().all(|(generation, keys)| {
                let meant = &self.keyring.generations[generation];
                keys.meta == meant.meta && (keys.data.is_none() || keys.data == meant.data)
            });
        if !same || bytes != &self.object.bytes {
            return Err(KeyError::Slot {
                why: format!("{} reads back with other keys", self.object.name),
            });
        }
        Ok(opened)
    }
}

/// Opens the slot that fits, if one does.
fn open_one(
    vault: VaultId,
    decoded: &Decoded,
    secrets: &mut Secrets<'_>,
) -> Result<Option<(Keyring, String)>, FormatError> {
    for sealed in &decoded.revision.slots {
        if let Some(secret) = sealed.fits(vault, secrets)? {
            let ring = sealed.open(vault, &secret)?;
            decoded.check(&ring)?;
            return Ok(Some((ring, sealed.slot.name.clone())));
        }
    }
    Ok(None)
}

fn nothing_opened(vault: VaultId, unlock: &Unlock, none_unfit: bool, ignored: &[Ignored]) -> KeyError {
    // With a whole revision at hand whose slots do not fit, the unlock is wrong; else the first damage is the reason.
    match ignored.iter().find(|i| !matches!(i.why, FormatError::Mismatch { .. })) {
        Some(first) if none_unfit => KeyError::Revisions {
            vault: vault.to_string(),
            object: first.name.clone(),
            source: first.why.clone(),
        },
        None if none_unfit => KeyError::None {
            vault: vault.to_string(),
            why: String::from("the vault holds no key revision of its own"),
        },
        _ => KeyError::Wrong {
            what: unlock.describe().to_owned(),
            vault: vault.to_string(),
        },
    }
}

/// Adds the generations of an older revision; whether all its keys are in `ring` now.
fn unite(ring: &mut Keyring, older: Keyring, conflicts: &mut BTreeSet<Generation>) -> bool {
    let mut whole = true;
    for (generation, keys) in older.generations {
        let entry = ring.generations.entry(generation).or_insert_with(|| keys.clone());
        if entry.meta != keys.meta || (entry.data.is_some() && keys.data.is_some() && entry.data != keys.data) {
            conflicts.insert(generation);
            whole = false;
        } else if entry.data.is_none() {
            entry.data.clone_from(&keys.data);
        }
    }
    whole
}

fn draft(
    vault: VaultId,
    header_hash: ObjectHash,
    number: u32,
    stamp: &Stamp,
    keyring: Keyring,
    slots: &[Slot],
    contains: BTreeSet<ObjectHash>,
) -> Result<Draft, KeyError> {
    let refuse = |why: String| Err(KeyError::Slot { why });
    for (at, slot) in slots.iter().enumerate() {
        check_slot_name(&slot.name)?;
        if slots[..at].iter().any(|other| other.name == slot.name) {
            return refuse(format!("there is a key slot {:?} already", slot.name));
        }
    }
    if slots.len() > KEY_SLOTS_MAX {
        return refuse(format!("a vault has at most {KEY_SLOTS_MAX} key slots"));
    }
    if keyring.generations.len() > KEY_GENERATIONS_MAX {
        return refuse(format!("a vault has at most {KEY_GENERATIONS_MAX} generations of keys"));
    }
    if !slots.iter().any(|slot| slot.grant == Grant::Full) {
        return refuse(String::from("the last key slot that gives all keys cannot be removed"));
    }
    let sealed = slots
        .iter()
        .map(|slot| slot.seal(vault, &keyring))
        .collect::<Result<Vec<SealedSlot>, _>>()?;
    let revision = Revision {
        vault,
        number,
        writer: stamp.writer,
        claim: stamp.claim,
        header_hash,
        generations: keyring.generations.keys().copied().collect(),
        slots: sealed,
        contains,
        created_at: stamp.now.clone(),
    };
    let object = RevisionObject {
        name: revision.object_name(),
        bytes: revision.encode(&keyring),
    };
    Ok(Draft {
        object,
        revision,
        keyring,
    })
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
