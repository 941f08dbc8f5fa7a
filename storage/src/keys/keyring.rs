//! The keys of one vault, unwrapped, in memory only.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::KeyError;
use crate::ids::random_bytes;

/// 32 secret bytes, overwritten when dropped and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    /// Draws one.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// Takes the bytes of one.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a cipher.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives a key of its own for `context` (BLAKE3's key derivation mode) from this key and `material`, which may be public.
    pub fn derive(&self, context: &'static str, material: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0);
        hasher.update(material);
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A generation of content keys: new packs use the newest, old ones name theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// The keys of one generation.
#[derive(Debug, Clone)]
pub struct GenerationKeys {
    /// `K_meta`: recipes, footers, manifests, segments.
    pub meta: Key,
    /// `K_data`: chunks. A holder that sweeps or lists has none.
    pub data: Option<Key>,
}

/// What a holder was given of a vault's keys.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// `K_id`: names of chunks and nodes, for the vault's life.
    pub id: Key,
    /// `K_cut`: where chunks end, for the vault's life. Only writers need it.
    pub cut: Option<Key>,
    /// Content keys by generation; never empty.
    pub generations: BTreeMap<Generation, GenerationKeys>,
}

impl Keyring {
    /// Draws the keys of a new vault.
    pub fn generate() -> Self {
        let first = GenerationKeys {
            meta: Key::random(),
            data: Some(Key::random()),
        };
        Self {
            id: Key::random(),
            cut: Some(Key::random()),
            generations: BTreeMap::from([(Generation(1), first)]),
        }
    }

    /// The generation that new objects use.
    ///
    /// # Panics
    /// When there is none: every maker of a key ring puts one in.
    pub fn newest(&self) -> Generation {
        *self
            .generations
            .keys()
            .next_back()
            .expect("a key ring has a generation")
    }

    /// The keys of one generation.
    ///
    /// # Errors
    /// [`KeyError::None`] when the generation is not here (a newer revision has it).
    pub fn generation(&self, generation: Generation) -> Result<&GenerationKeys, KeyError> {
        self.generations.get(&generation).ok_or_else(|| KeyError::None {
            vault: String::from("(this)"),
            why: format!("key generation {} is in no key revision that was read", generation.0),
        })
    }

    /// Adds a generation with fresh keys and returns it.
    pub fn add_generation(&mut self) -> Generation {
        let next = Generation(self.newest().0 + 1);
        self.generations.insert(
            next,
            GenerationKeys {
                meta: Key::random(),
                data: Some(Key::random()),
            },
        );
        next
    }
}
