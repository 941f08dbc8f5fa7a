//! Slots: the same keys sealed for each holder.
//!
//! Every slot is a recipient. Its secret (a key file's bytes, a kit's, or what Argon2id makes of a passphrase) gives an X25519 private key; the
//! public key stands in the slot. So whoever holds all keys of a vault can write a new revision to every slot while the passphrase is in
//! somebody's head and the kit in a safe; a rotation that would leave a slot behind cannot happen.
//!
//! Sealing to a public key proves nothing about who sealed: a store's operator could seal keys of his own choice to all slots. Therefore a
//! slot has an **anchor**, a keyed hash of the vault's lasting keys under a key from the slot's secret, made when the slot is made and copied
//! from revision to revision. Only who knew the secret can have made it; keys that do not fit it are refused.

use std::collections::BTreeMap;

use super::keyring::{Generation, GenerationKeys, Key, Keyring};
use super::recipient::{Context, Pair, Public, kek_for};
use super::unlock::{Opener, PassphraseCost, Secrets, check_passphrase};
use super::wrap::{Place, Purpose, Wrapped, unwrap, wrap};
use super::{KeyError, Unlock};
use crate::error::FormatError;
use crate::ids::{VaultId, random_bytes};
use crate::limits::SHORT_TEXT_MAX;
use crate::stored::{self, key_slot};

/// Longest name of a slot, characters.
pub const SLOT_NAME_MAX: usize = 50;

/// Which keys a slot gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// All: to back up, to restore, to change keys.
    Full,
    /// `K_id`, `K_meta` and `K_data`: to restore and verify.
    Read,
    /// `K_id` and `K_meta`: to list points, to index and to sweep; no contents of disks.
    Sweep,
}

impl Grant {
    fn code(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::Read => 2,
            Self::Sweep => 3,
        }
    }

    fn from_code(code: u32) -> Result<Self, FormatError> {
        match code {
            1 => Ok(Self::Full),
            2 => Ok(Self::Read),
            3 => Ok(Self::Sweep),
            other => Err(FormatError::Unsupported {
                what: "grant of a key slot",
                value: other.into(),
            }),
        }
    }

    /// The keys of such a slot, in the order in which they are stored.
    fn keys(self, generations: &[Generation]) -> impl Iterator<Item = (Purpose, Option<Generation>)> {
        let lasting = [
            Some((Purpose::Id, None)),
            (self == Self::Full).then_some((Purpose::Cut, None)),
        ];
        let data = self != Self::Sweep;
        let content = generations.iter().flat_map(move |&generation| {
            [
                Some((Purpose::Meta, Some(generation))),
                data.then_some((Purpose::Data, Some(generation))),
            ]
        });
        lasting.into_iter().chain(content).flatten()
    }
}

/// What kind of thing opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// A key file that the platform made.
    File,
    /// A passphrase.
    Passphrase,
    /// A recovery kit.
    Kit,
}

impl SlotKind {
    /// The word for lists: `file`, `passphrase`, `recovery kit`.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Passphrase => "passphrase",
            Self::Kit => "recovery kit",
        }
    }
}

/// A slot to be made.
#[derive(Debug, Clone)]
pub struct NewSlot {
    /// Its name: 1–50 characters, unique in the vault.
    pub name: String,
    /// What will open it.
    pub unlock: Unlock,
    /// Which keys it gives.
    pub grant: Grant,
    /// What a passphrase costs; not used otherwise.
    pub cost: PassphraseCost,
}

impl NewSlot {
    /// A slot with all keys, at the default cost.
    pub fn full(name: &str, unlock: Unlock) -> Self {
        Self {
            name: name.to_owned(),
            unlock,
            grant: Grant::Full,
            cost: PassphraseCost::default(),
        }
    }
}

/// What can be told of a slot without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its name.
    pub name: String,
    /// What opens it.
    pub kind: SlotKind,
    /// Which keys it gives.
    pub grant: Grant,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

/// A slot as it lasts over revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    id: [u8; 16],
    opener: Opener,
    pub(super) grant: Grant,
    recipient: Public,
    anchor: [u8; 32],
    created_at: String,
}

/// A slot with the keys of one revision in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealedSlot {
    pub(super) slot: Slot,
    ephemeral: Public,
    keys: Vec<Wrapped>,
}

/// Checks a slot's name.
///
/// # Errors
/// [`KeyError::Slot`] with the rule.
pub(super) fn check_slot_name(name: &str) -> Result<(), KeyError> {
    if slot_name_is_fine(name) {
        return Ok(());
    }
    Err(KeyError::Slot {
        why: format!(
            "{name:?} cannot name a key slot: 1 to {SLOT_NAME_MAX} characters, none of them a control character"
        ),
    })
}

fn slot_name_is_fine(name: &str) -> bool {
    (1..=SLOT_NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

impl Slot {
    /// Makes a slot for the keys of `ring`, which must be whole. Costs Argon2id for a passphrase.
    ///
    /// # Errors
    /// [`KeyError::Slot`] for a bad name, passphrase or cost.
    pub(super) fn make(vault: VaultId, new: &NewSlot, created_at: &str, ring: &Keyring) -> Result<Self, KeyError> {
        check_slot_name(&new.name)?;
        let opener = match &new.unlock {
            Unlock::File(_) => Opener::File,
            Unlock::Kit(_) => Opener::Kit,
            Unlock::Passphrase(text) => {
                check_passphrase(text)?;
                let cost = new.cost.check().map_err(|e| KeyError::Slot { why: e.to_string() })?;
                Opener::Passphrase {
                    salt: random_bytes(),
                    cost,
                }
            }
        };
        let secret = Secrets::new(&new.unlock)
            .secret(&opener)
            .map_err(|e| KeyError::Slot { why: e.to_string() })?
            .expect("the opener was made for this unlock");
        let id = random_bytes();
        Ok(Self {
            name: new.name.clone(),
            id,
            opener,
            grant: new.grant,
            recipient: pair(vault, &id, &secret).public,
            anchor: anchor(vault, &id, &secret, new.grant, ring).ok_or(KeyError::NotAllowed {
                what: "give keys to others",
            })?,
            created_at: created_at.to_owned(),
        })
    }

    /// What can be told of it.
    pub(super) fn info(&self) -> SlotInfo {
        let kind = match self.opener {
            Opener::File => SlotKind::File,
            Opener::Passphrase { .. } => SlotKind::Passphrase,
            Opener::Kit => SlotKind::Kit,
        };
        SlotInfo {
            name: self.name.clone(),
            kind,
            grant: self.grant,
            created_at: self.created_at.clone(),
        }
    }

    /// Seals what the slot is granted of `ring`.
    ///
    /// # Errors
    /// [`KeyError::NotAllowed`] when `ring` is not whole; [`KeyError::Slot`] when the slot's public key is not usable.
    pub(super) fn seal(&self, vault: VaultId, ring: &Keyring) -> Result<SealedSlot, KeyError> {
        let context = Context { vault, slot: self.id };
        let (kek, ephemeral) = kek_for(context, &self.recipient).map_err(|e| KeyError::Slot {
            why: format!("key slot {:?}: {e}", self.name),
        })?;
        let generations: Vec<Generation> = ring.generations.keys().copied().collect();
        let keys = self.grant.keys(&generations).map(|(purpose, generation)| {
            let key = of(ring, purpose, generation).ok_or(KeyError::NotAllowed { what: "change keys" })?;
            Ok(wrap(
                &kek,
                Place {
                    vault,
                    slot: self.id,
                    purpose,
                    generation,
                },
                key,
            ))
        });
        Ok(SealedSlot {
            slot: self.clone(),
            ephemeral,
            keys: keys.collect::<Result<_, KeyError>>()?,
        })
    }
}

impl SealedSlot {
    /// Whether the unlock opens this slot: the secret, if so. Costs Argon2id for a passphrase.
    ///
    /// # Errors
    /// When the slots tried so far have used up what one opening may cost.
    pub(super) fn fits(&self, vault: VaultId, secrets: &mut Secrets<'_>) -> Result<Option<Key>, FormatError> {
        let Some(secret) = secrets.secret(&self.slot.opener)? else {
            return Ok(None);
        };
        let fits = pair(vault, &self.slot.id, &secret).public == self.slot.recipient;
        Ok(fits.then_some(secret))
    }

    /// Unwraps the keys with a secret that fits, and checks the anchor.
    ///
    /// # Errors
    /// [`FormatError::Authentication`]: damage, or keys that others than the vault's holders sealed.
    pub(super) fn open(&self, vault: VaultId, secret: &Key) -> Result<Keyring, FormatError> {
        let slot = &self.slot;
        let kek = pair(vault, &slot.id, secret).kek(Context { vault, slot: slot.id }, &self.ephemeral)?;
        let (mut id, mut cut) = (None, None);
        let (mut meta, mut data) = (BTreeMap::new(), BTreeMap::new());
        for wrapped in &self.keys {
            let place = Place {
                vault,
                slot: slot.id,
                purpose: wrapped.purpose,
                generation: wrapped.generation,
            };
            let key = unwrap(&kek, place, wrapped)?;
            match (wrapped.purpose, wrapped.generation) {
                (Purpose::Id, _) => id = Some(key),
                (Purpose::Cut, _) => cut = Some(key),
                (Purpose::Meta, Some(generation)) => drop(meta.insert(generation, key)),
                (Purpose::Data, Some(generation)) => drop(data.insert(generation, key)),
                (Purpose::Meta | Purpose::Data, None) => {
                    return Err(FormatError::Malformed {
                        what: "wrapped key",
                        why: "has no generation",
                    });
                }
            }
        }
        let generations = meta
            .into_iter()
            .map(|(g, meta)| {
                (
                    g,
                    GenerationKeys {
                        meta,
                        data: data.remove(&g),
                    },
                )
            })
            .collect();
        let id = id.ok_or(FormatError::Malformed {
            what: "key slot",
            why: "K_id is not in it",
        })?;
        let ring = Keyring { id, cut, generations };
        let made = anchor(vault, &slot.id, secret, slot.grant, &ring);
        // As blake3's hash, so that the comparison takes the same time whatever differs.
        if made.map(blake3::Hash::from) != Some(blake3::Hash::from(slot.anchor)) {
            return Err(FormatError::Authentication {
                what: "anchor of the key slot",
            });
        }
        Ok(ring)
    }

    /// The stored form.
    pub(super) fn to_stored(&self) -> stored::KeySlot {
        let unlock = match self.slot.opener {
            Opener::File => key_slot::Unlock::File(stored::FileUnlock {}),
            Opener::Kit => key_slot::Unlock::Kit(stored::KitUnlock {}),
            Opener::Passphrase { salt, cost } => key_slot::Unlock::Passphrase(stored::PassphraseUnlock {
                salt: salt.to_vec().into(),
                memory_kib: cost.memory_kib,
                passes: cost.passes,
                lanes: cost.lanes,
            }),
        };
        stored::KeySlot {
            name: self.slot.name.clone(),
            slot_id: self.slot.id.to_vec().into(),
            unlock: Some(unlock),
            grant: self.slot.grant.code().into(),
            recipient: self.slot.recipient.to_vec().into(),
            ephemeral: self.ephemeral.to_vec().into(),
            anchor: self.slot.anchor.to_vec().into(),
            keys: self.keys.iter().map(Wrapped::to_stored).collect(),
            created_at: self.slot.created_at.clone(),
        }
    }

    /// Reads a stored slot; `generations` are those of its revision.
    ///
    /// # Errors
    /// By what is wrong with its shape or its bounds.
    pub(super) fn from_stored(stored: &stored::KeySlot, generations: &[Generation]) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::Malformed { what: "key slot", why };
        if !slot_name_is_fine(&stored.name) {
            return Err(malformed("its name is against the rules"));
        }
        if stored.created_at.len() > SHORT_TEXT_MAX {
            return Err(malformed("its time is too long"));
        }
        let opener = match &stored.unlock {
            Some(key_slot::Unlock::File(_)) => Opener::File,
            Some(key_slot::Unlock::Kit(_)) => Opener::Kit,
            Some(key_slot::Unlock::Passphrase(p)) => Opener::Passphrase {
                salt: p
                    .salt
                    .as_ref()
                    .try_into()
                    .map_err(|_| malformed("salt is not 16 bytes"))?,
                cost: PassphraseCost {
                    memory_kib: p.memory_kib,
                    passes: p.passes,
                    lanes: p.lanes,
                }
                .check()?,
            },
            // A kind of a later version: the others of the revision would do, but what we rewrite we would lose.
            None => {
                return Err(FormatError::Unsupported {
                    what: "kind of a key slot",
                    value: 0,
                });
            }
        };
        let grant = Grant::from_code(stored.grant)?;
        let keys: Vec<Wrapped> = stored.keys.iter().map(Wrapped::from_stored).collect::<Result<_, _>>()?;
        if !grant
            .keys(generations)
            .eq(keys.iter().map(|k| (k.purpose, k.generation)))
        {
            return Err(malformed(
                "its keys are not those of its grant and the revision's generations",
            ));
        }
        let bytes32 = |bytes: &[u8], why| bytes.try_into().map_err(|_| malformed(why));
        Ok(Self {
            slot: Slot {
                name: stored.name.clone(),
                id: stored
                    .slot_id
                    .as_ref()
                    .try_into()
                    .map_err(|_| malformed("slot id is not 16 bytes"))?,
                opener,
                grant,
                recipient: bytes32(&stored.recipient, "public key is not 32 bytes")?,
                anchor: bytes32(&stored.anchor, "anchor is not 32 bytes")?,
                created_at: stored.created_at.clone(),
            },
            ephemeral: bytes32(&stored.ephemeral, "ephemeral key is not 32 bytes")?,
            keys,
        })
    }
}

fn material(vault: VaultId, slot: &[u8; 16]) -> [u8; 32] {
    let mut material = [0; 32];
    material[..16].copy_from_slice(&vault.0);
    material[16..].copy_from_slice(slot);
    material
}

fn pair(vault: VaultId, slot: &[u8; 16], secret: &Key) -> Pair {
    Pair::from_secret(&secret.derive("tresor v1 key slot private key", &material(vault, slot)))
}

/// The keyed hash of what the slot's holder may rely on for the vault's life; `None` when `ring` lacks a key of the grant.
fn anchor(vault: VaultId, slot: &[u8; 16], secret: &Key, grant: Grant, ring: &Keyring) -> Option<[u8; 32]> {
    let key = secret.derive("tresor v1 key slot anchor", &material(vault, slot));
    let mut hasher = blake3::Hasher::new_keyed(key.expose());
    hasher.update(&[grant.code()]);
    hasher.update(ring.id.expose());
    if grant == Grant::Full {
        hasher.update(ring.cut.as_ref()?.expose());
    }
    Some(*hasher.finalize().as_bytes())
}

fn of(ring: &Keyring, purpose: Purpose, generation: Option<Generation>) -> Option<&Key> {
    match purpose {
        Purpose::Id => Some(&ring.id),
        Purpose::Cut => ring.cut.as_ref(),
        Purpose::Meta => Some(&ring.generations.get(&generation?)?.meta),
        Purpose::Data => ring.generations.get(&generation?)?.data.as_ref(),
    }
}
