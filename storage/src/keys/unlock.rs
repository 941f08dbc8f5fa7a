//! What a person or machine holds to open a slot, and the slot's secret that comes of it.

use std::collections::HashMap;
use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::KeyError;
use super::keyring::Key;
use crate::error::FormatError;

/// Shortest passphrase taken for a new slot, characters: whoever reads the store may guess for years.
pub const PASSPHRASE_MIN: usize = 8;
/// Longest passphrase, bytes.
pub const PASSPHRASE_MAX: usize = 1024;
/// Most memory that a stored slot may ask for, KiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes that a stored slot may ask for.
const PASSES_MAX: u32 = 64;
/// Most lanes that a stored slot may ask for.
const LANES_MAX: u32 = 16;
/// Most work (KiB times passes) that one slot may ask for: some ten seconds.
const WORK_MAX: u64 = 16 << 20;
/// Most work for opening a vault, over all slots of all revisions, so that planted slots cannot keep anybody busy for hours.
const WORK_TOTAL_MAX: u64 = 64 << 20;

/// What opens a slot.
#[derive(Clone)]
pub enum Unlock {
    /// The secret of a key file.
    File(Key),
    /// A passphrase, as typed: bytes of UTF-8, not normalised.
    Passphrase(Zeroizing<String>),
    /// The secret of a recovery kit.
    Kit(Key),
}

impl Unlock {
    /// In words, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::File(_) => "the key file",
            Self::Passphrase(_) => "the passphrase",
            Self::Kit(_) => "the recovery kit",
        }
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlock({})", self.describe())
    }
}

/// What Argon2id costs; stored with the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PassphraseCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes. We compute on one thread, so more of them only help an attacker who does not.
    pub lanes: u32,
}

impl Default for PassphraseCost {
    /// 64 MiB and three passes, the second recommendation of RFC 9106 (section 4): the first, 2 GiB, is more than a worker may use
    /// in all. About 0.2 s once for each opening.
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 1,
        }
    }
}

impl PassphraseCost {
    /// Checks the bounds, for a stored slot and a new one alike.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] or [`FormatError::Malformed`].
    pub(super) fn check(self) -> Result<Self, FormatError> {
        let at_most = |what, value: u64, max: u64| {
            if value > max {
                Err(FormatError::TooLarge { what, value, max })
            } else {
                Ok(())
            }
        };
        at_most(
            "memory of a passphrase slot (KiB)",
            self.memory_kib.into(),
            MEMORY_KIB_MAX.into(),
        )?;
        at_most("passes of a passphrase slot", self.passes.into(), PASSES_MAX.into())?;
        at_most("lanes of a passphrase slot", self.lanes.into(), LANES_MAX.into())?;
        at_most("work of a passphrase slot (KiB times passes)", self.work(), WORK_MAX)?;
        if self.passes == 0 || self.lanes == 0 || self.memory_kib < 8 * self.lanes {
            return Err(FormatError::Malformed {
                what: "passphrase slot",
                why: "its cost is below what Argon2 allows",
            });
        }
        Ok(self)
    }

    fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }
}

/// How a slot's secret is had: the kind of the slot, and what its kind needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Opener {
    File,
    Passphrase { salt: [u8; 16], cost: PassphraseCost },
    Kit,
}

/// The secrets that one unlock gives, each made once however many revisions ask.
pub(super) struct Secrets<'a> {
    unlock: &'a Unlock,
    derived: HashMap<([u8; 16], PassphraseCost), Key>,
    work_left: u64,
}

impl<'a> Secrets<'a> {
    pub(super) fn new(unlock: &'a Unlock) -> Self {
        Self {
            unlock,
            derived: HashMap::new(),
            work_left: WORK_TOTAL_MAX,
        }
    }

    /// The secret for a slot of this kind; `None` when the unlock is of another kind. Costs Argon2id for a passphrase.
    ///
    /// # Errors
    /// When the slots tried before have used up the work that one opening may cost.
    pub(super) fn secret(&mut self, opener: &Opener) -> Result<Option<Key>, FormatError> {
        match (opener, self.unlock) {
            (Opener::File, Unlock::File(key)) | (Opener::Kit, Unlock::Kit(key)) => Ok(Some(key.clone())),
            (Opener::Passphrase { salt, cost }, Unlock::Passphrase(text)) => {
                if let Some(key) = self.derived.get(&(*salt, *cost)) {
                    return Ok(Some(key.clone()));
                }
                self.work_left = self.work_left.checked_sub(cost.work()).ok_or(FormatError::TooLarge {
                    what: "work of all passphrase slots (KiB times passes)",
                    value: WORK_TOTAL_MAX - self.work_left + cost.work(),
                    max: WORK_TOTAL_MAX,
                })?;
                let key = argon2id(text, salt, *cost)?;
                self.derived.insert((*salt, *cost), key.clone());
                Ok(Some(key))
            }
            _ => Ok(None),
        }
    }
}

/// Checks a passphrase that somebody chose for a new slot.
///
/// # Errors
/// [`KeyError::Slot`] when it is too short or too long.
pub(super) fn check_passphrase(text: &str) -> Result<(), KeyError> {
    let refuse = |why: String| Err(KeyError::Slot { why });
    if text.chars().count() < PASSPHRASE_MIN {
        return refuse(format!("a passphrase has at least {PASSPHRASE_MIN} characters"));
    }
    if text.len() > PASSPHRASE_MAX {
        return refuse(format!("a passphrase has at most {PASSPHRASE_MAX} bytes"));
    }
    Ok(())
}

fn argon2id(text: &str, salt: &[u8; 16], cost: PassphraseCost) -> Result<Key, FormatError> {
    let cost = cost.check()?;
    let impossible = |_| FormatError::Malformed {
        what: "passphrase slot",
        why: "Argon2 refuses its cost",
    };
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(impossible)?;
    let mut out = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(text.as_bytes(), salt, out.as_mut_slice())
        .map_err(impossible)?;
    Ok(Key::from_bytes(*out))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    pub(crate) const CHEAP: PassphraseCost = PassphraseCost {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };

    #[test]
    fn absurd_costs_are_refused_before_any_memory_is_taken() {
        let absurd = [
            PassphraseCost {
                memory_kib: u32::MAX,
                ..CHEAP
            },
            PassphraseCost {
                passes: u32::MAX,
                ..CHEAP
            },
            PassphraseCost {
                lanes: u32::MAX,
                ..CHEAP
            },
            PassphraseCost {
                memory_kib: MEMORY_KIB_MAX,
                passes: PASSES_MAX,
                lanes: 1,
            },
            PassphraseCost { passes: 0, ..CHEAP },
            PassphraseCost { lanes: 0, ..CHEAP },
            PassphraseCost { memory_kib: 0, ..CHEAP },
        ];
        for cost in absurd {
            assert!(cost.check().is_err(), "{cost:?}");
        }
        assert!(PassphraseCost::default().check().is_ok());
    }

    #[test]
    fn many_costly_slots_do_not_keep_an_opening_busy() {
        let unlock = Unlock::Passphrase(Zeroizing::new(String::from("correct horse")));
        let mut secrets = Secrets::new(&unlock);
        secrets.work_left = 3 * CHEAP.work();
        for slot in 0..3 {
            assert!(
                secrets
                    .secret(&Opener::Passphrase {
                        salt: [slot; 16],
                        cost: CHEAP
                    })
                    .unwrap()
                    .is_some()
            );
        }
        assert!(
            secrets
                .secret(&Opener::Passphrase {
                    salt: [9; 16],
                    cost: CHEAP
                })
                .is_err()
        );
        assert!(
            secrets
                .secret(&Opener::Passphrase {
                    salt: [0; 16],
                    cost: CHEAP
                })
                .unwrap()
                .is_some(),
            "made once"
        );
    }

    #[test]
    fn argon2id_agrees_with_the_reference_implementation() {
        // The reference implementation's argon2id_hash_raw, version 0x13, with these parameters.
        let cost = PassphraseCost {
            memory_kib: 64,
            passes: 3,
            lanes: 1,
        };
        let key = argon2id("correct horse", b"somesaltsomesalt", cost).unwrap();
        assert_eq!(
            crate::ids::hex(key.expose()),
            "2dbe5243b4e8487a3e870dffe21f0314074c9afcf8e0c860b00ea461028456f6"
        );
    }

    #[test]
    fn an_unlock_does_not_print_its_secret() {
        let unlock = Unlock::Passphrase(Zeroizing::new(String::from("correct horse")));
        assert_eq!(format!("{unlock:?}"), "Unlock(the passphrase)");
    }

    #[test]
    fn short_passphrases_are_refused() {
        assert!(check_passphrase("sieben7").is_err());
        assert!(check_passphrase("acht8888").is_ok());
        assert!(check_passphrase(&"a".repeat(PASSPHRASE_MAX + 1)).is_err());
    }
}
