//! One key sealed under a key-encryption key: AES-256-GCM with a random nonce.
//!
//! The key-encryption key of a slot is drawn anew with every revision, so a nonce meets at most a few hundred others under one key.
//! Vault, slot, purpose and generation are associated data: no wrapped key can stand in another's place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::keyring::{Generation, Key};
use crate::error::FormatError;
use crate::ids::{VaultId, random_bytes};
use crate::stored;

/// Bytes of a sealed key: the key and the tag.
pub(super) const SEALED_LEN: usize = 32 + 16;

/// What a key of a vault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Purpose {
    /// `K_id`.
    Id,
    /// `K_cut`.
    Cut,
    /// `K_meta` of a generation.
    Meta,
    /// `K_data` of a generation.
    Data,
}

impl Purpose {
    fn code(self) -> u32 {
        match self {
            Self::Id => 1,
            Self::Cut => 2,
            Self::Meta => 3,
            Self::Data => 4,
        }
    }

    fn from_code(code: u32) -> Result<Self, FormatError> {
        match code {
            1 => Ok(Self::Id),
            2 => Ok(Self::Cut),
            3 => Ok(Self::Meta),
            4 => Ok(Self::Data),
            other => Err(FormatError::Unsupported {
                what: "purpose of a wrapped key",
                value: other.into(),
            }),
        }
    }
}

/// Where a wrapped key belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The vault.
    pub(super) vault: VaultId,
    /// The slot.
    pub(super) slot: [u8; 16],
    /// What the key is for.
    pub(super) purpose: Purpose,
    /// Its generation; `None` for keys of the vault's life.
    pub(super) generation: Option<Generation>,
}

impl Place {
    fn associated_data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(64);
        data.extend_from_slice(b"tresor key v1");
        data.extend_from_slice(&self.vault.0);
        data.extend_from_slice(&self.slot);
        data.extend_from_slice(&self.purpose.code().to_le_bytes());
        data.extend_from_slice(&self.generation.map_or(0, |g| g.0).to_le_bytes());
        data
    }
}

/// A wrapped key, and what it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrapped {
    /// What the key is for.
    pub(super) purpose: Purpose,
    /// Its generation.
    pub(super) generation: Option<Generation>,
    nonce: [u8; NONCE_LEN],
    sealed: [u8; SEALED_LEN],
}

impl Wrapped {
    /// Reads a stored one.
    ///
    /// # Errors
    /// By what is wrong with its shape.
    pub(super) fn from_stored(stored: &stored::WrappedKey) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::Malformed {
            what: "wrapped key",
            why,
        };
        let purpose = Purpose::from_code(stored.purpose)?;
        let generation = match (purpose, stored.generation) {
            (Purpose::Id | Purpose::Cut, 0) => None,
            (Purpose::Meta | Purpose::Data, 1..) => Some(Generation(stored.generation)),
            _ => return Err(malformed("generation does not go with the purpose")),
        };
        Ok(Self {
            purpose,
            generation,
            nonce: stored
                .nonce
                .as_ref()
                .try_into()
                .map_err(|_| malformed("nonce is not 12 bytes"))?,
            sealed: stored
                .sealed
                .as_ref()
                .try_into()
                .map_err(|_| malformed("sealed key is not 48 bytes"))?,
        })
    }

    /// The stored form.
    pub(super) fn to_stored(&self) -> stored::WrappedKey {
        stored::WrappedKey {
            purpose: self.purpose.code(),
            generation: self.generation.map_or(0, |g| g.0),
            nonce: self.nonce.to_vec().into(),
            sealed: self.sealed.to_vec().into(),
        }
    }
}

fn cipher(kek: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, kek.expose()).expect("AES-256 takes 32 bytes"))
}

/// Seals `key` for `place`.
pub(super) fn wrap(kek: &Key, place: Place, key: &Key) -> Wrapped {
    let nonce: [u8; NONCE_LEN] = random_bytes();
    let mut sealed = [0; SEALED_LEN];
    let (text, tag_place) = sealed.split_at_mut(32);
    text.copy_from_slice(key.expose());
    let tag = cipher(kek)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place.associated_data()),
            text,
        )
        .expect("32 bytes are within AES-GCM's bounds");
    tag_place.copy_from_slice(tag.as_ref());
    Wrapped {
        purpose: place.purpose,
        generation: place.generation,
        nonce,
        sealed,
    }
}

/// Opens what was sealed for exactly this place.
///
/// # Errors
/// [`FormatError::Authentication`]: other bytes, another place or another key. Whether `kek` is the slot's own is known from the slot's
/// public key, so at a slot this means damage.
pub(super) fn unwrap(kek: &Key, place: Place, wrapped: &Wrapped) -> Result<Key, FormatError> {
    let mut buffer = Zeroizing::new(wrapped.sealed);
    let plain = cipher(kek)
        .open_in_place(
            Nonce::assume_unique_for_key(wrapped.nonce),
            Aad::from(place.associated_data()),
            buffer.as_mut_slice(),
        )
        .map_err(|_| FormatError::Authentication { what: "wrapped key" })?;
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(plain);
    Ok(Key::from_bytes(*bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            vault: VaultId([1; 16]),
            slot: [2; 16],
            purpose: Purpose::Data,
            generation: Some(Generation(3)),
        }
    }

    #[test]
    fn a_wrapped_key_comes_back_at_its_place_only() {
        let (kek, key) = (Key::random(), Key::random());
        let wrapped = wrap(&kek, place(), &key);
        assert!(unwrap(&kek, place(), &wrapped).unwrap() == key);
        let others = [
            Place {
                vault: VaultId([9; 16]),
                ..place()
            },
            Place {
                slot: [9; 16],
                ..place()
            },
            Place {
                purpose: Purpose::Meta,
                ..place()
            },
            Place {
                generation: Some(Generation(4)),
                ..place()
            },
            Place {
                generation: None,
                ..place()
            },
        ];
        for other in others {
            assert!(unwrap(&kek, other, &wrapped).is_err(), "{other:?}");
        }
        assert!(unwrap(&Key::random(), place(), &wrapped).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (kek, key) = (Key::random(), Key::random());
        let wrapped = wrap(&kek, place(), &key);
        for bit in 0..SEALED_LEN * 8 {
            let mut other = wrapped.clone();
            other.sealed[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(&kek, place(), &other).is_err(), "bit {bit}");
        }
        for bit in 0..NONCE_LEN * 8 {
            let mut other = wrapped.clone();
            other.nonce[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(&kek, place(), &other).is_err(), "nonce bit {bit}");
        }
    }

    #[test]
    fn stored_forms_of_another_shape_are_refused() {
        let good = wrap(&Key::random(), place(), &Key::random());
        assert_eq!(Wrapped::from_stored(&good.to_stored()).unwrap(), good);
        let bad = [
            stored::WrappedKey {
                purpose: 9,
                ..good.to_stored()
            },
            stored::WrappedKey {
                generation: 0,
                ..good.to_stored()
            },
            stored::WrappedKey {
                purpose: 1,
                ..good.to_stored()
            },
            stored::WrappedKey {
                nonce: vec![0; 11].into(),
                ..good.to_stored()
            },
            stored::WrappedKey {
                sealed: vec![0; 49].into(),
                ..good.to_stored()
            },
        ];
        for stored in bad {
            assert!(Wrapped::from_stored(&stored).is_err(), "{stored:?}");
        }
    }
}
