//! Sealing to a public key: X25519 with an ephemeral key, then HKDF-SHA256.
//!
//! The key-encryption key of a slot is HKDF-SHA256 (RFC 5869) of the shared secret, salted with a label, with vault id, slot id and both
//! public keys as context: a wrapping cannot be taken for one of another slot, vault or recipient.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::keyring::Key;
use crate::error::FormatError;
use crate::ids::VaultId;

/// A public key.
pub(super) type Public = [u8; 32];

/// A slot's key pair; the private half is made of the slot's secret.
pub(super) struct Pair {
    private: PrivateKey,
    /// The public half, as the slot stores it.
    pub(super) public: Public,
}

/// What both sides put into the derivation beside the shared secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// The vault.
    pub(super) vault: VaultId,
    /// The slot.
    pub(super) slot: [u8; 16],
}

impl Pair {
    /// Takes 32 secret bytes as private key (X25519 clears and sets the bits that it needs to, RFC 7748 section 5).
    pub(super) fn from_secret(secret: &Key) -> Self {
        let private = PrivateKey::from_private_key(&X25519, secret.expose()).expect("X25519 takes any 32 bytes");
        let public = public_of(&private);
        Self { private, public }
    }

    /// The key-encryption key that the holder of `ephemeral` sealed with.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] when the point is one of the few that make any shared secret zero.
    pub(super) fn kek(&self, context: Context, ephemeral: &Public) -> Result<Key, FormatError> {
        shared(&self.private, ephemeral, context, &self.public, ephemeral)
    }
}

/// Draws an ephemeral key and returns the key-encryption key for the recipient and the public half to store.
///
/// # Errors
/// [`FormatError::Malformed`] when the recipient is no usable public key.
pub(super) fn kek_for(context: Context, recipient: &Public) -> Result<(Key, Public), FormatError> {
    let private = PrivateKey::generate(&X25519).expect("the operating system gives random numbers");
    let ephemeral = public_of(&private);
    let kek = shared(&private, recipient, context, recipient, &ephemeral)?;
    Ok((kek, ephemeral))
}

fn public_of(private: &PrivateKey) -> Public {
    let public = private
        .compute_public_key()
        .expect("every X25519 private key has a public key");
    public.as_ref().try_into().expect("X25519 public keys have 32 bytes")
}

fn shared(
    private: &PrivateKey,
    peer: &Public,
    context: Context,
    recipient: &Public,
    ephemeral: &Public,
) -> Result<Key, FormatError> {
    let unusable = FormatError::Malformed {
        what: "key slot",
        why: "public key is not usable",
    };
    agree(private, UnparsedPublicKey::new(&X25519, peer), unusable, |secret| {
        let mut kek = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, b"tresor v1 key slot")
            .extract(secret)
            .expand(&[&context.vault.0, &context.slot, recipient, ephemeral], HKDF_SHA256)
            .and_then(|okm| okm.fill(kek.as_mut_slice()))
            .expect("HKDF-SHA256 gives 32 bytes");
        Ok(Key::from_bytes(*kek))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CONTEXT: Context = Context {
        vault: VaultId([1; 16]),
        slot: [2; 16],
    };

    #[test]
    fn both_sides_get_one_key_and_each_sealing_another() {
        let pair = Pair::from_secret(&Key::random());
        let (kek, ephemeral) = kek_for(CONTEXT, &pair.public).unwrap();
        assert!(pair.kek(CONTEXT, &ephemeral).unwrap() == kek);
        let (again, _) = kek_for(CONTEXT, &pair.public).unwrap();
        assert!(again != kek);
    }

    #[test]
    fn another_recipient_slot_or_vault_gets_another_key() {
        let pair = Pair::from_secret(&Key::random());
        let (kek, ephemeral) = kek_for(CONTEXT, &pair.public).unwrap();
        assert!(Pair::from_secret(&Key::random()).kek(CONTEXT, &ephemeral).unwrap() != kek);
        assert!(
            pair.kek(
                Context {
                    slot: [3; 16],
                    ..CONTEXT
                },
                &ephemeral
            )
            .unwrap()
                != kek
        );
        assert!(
            pair.kek(
                Context {
                    vault: VaultId([3; 16]),
                    ..CONTEXT
                },
                &ephemeral
            )
            .unwrap()
                != kek
        );
    }

    #[test]
    fn the_point_that_makes_every_secret_zero_is_refused() {
        assert!(kek_for(CONTEXT, &[0; 32]).is_err());
        assert!(Pair::from_secret(&Key::random()).kek(CONTEXT, &[0; 32]).is_err());
    }
}
