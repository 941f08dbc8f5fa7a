//! Tokens as the log keeps them: a hash of the secret, next to the id.
//!
//! A secret has 256 random bits, so a plain fast hash is enough: there is nothing to guess. The id is hashed with it, so that a hash is of use
//! in its own row only. The text of tokens is [`tresor_proto::token`].

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::{Deserialize, Serialize};
use tresor_proto::ids::TokenId;
use tresor_proto::token::Secret;

pub use tresor_proto::token::{ApiToken, JoinToken, TokenError};

/// What the log keeps of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token's secret.
    pub fn of(id: TokenId, secret: &Secret) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tresor control v1 token");
        hasher.update(&id.0);
        hasher.update(secret.expose());
        Self(*hasher.finalize().as_bytes())
    }

    /// As it lies in the log.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether this is the hash of that secret, in a time that does not depend on it.
    pub fn matches(&self, id: TokenId, secret: &Secret) -> bool {
        verify_slices_are_equal(&self.0, &Self::of(id, secret).0).is_ok()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use tresor_proto::ids::hex;
    use tresor_proto::tls::Fingerprint;

    #[test]
    fn a_hash_is_of_one_secret_in_one_row() {
        let token = ApiToken::random().unwrap();
        let other = ApiToken::random().unwrap();
        let hash = TokenHash::of(token.id, &token.secret);
        let read: ApiToken = token.reveal().parse().unwrap();
        assert!(hash.matches(read.id, &read.secret));
        assert!(!hash.matches(token.id, &other.secret));
        assert!(!hash.matches(other.id, &token.secret));
        assert!(!hash.matches(other.id, &other.secret));
        let stored: TokenHash = postcard::from_bytes(&postcard::to_allocvec(&hash).unwrap()).unwrap();
        assert!(stored.matches(token.id, &token.secret));
    }

    #[test]
    fn the_hash_of_a_stored_token_is_fixed() {
        // A changed context would make every token of every cluster unknown.
        let text = format!("tresor_api_{}_{}", "01".repeat(16), "02".repeat(32));
        let token: ApiToken = format!("{text}_29fd5af8").parse().unwrap();
        assert_eq!(
            hex(&TokenHash::of(token.id, &token.secret).0),
            "67211b3810968670320d308914a98297e640375ec09ace831f2f5c80adecc55d"
        );
    }

    #[test]
    fn nothing_that_is_stored_or_shown_has_the_secret() {
        let token = JoinToken::random(Fingerprint([1; 32])).unwrap();
        let hash = TokenHash::of(token.id, &token.secret);
        let stored = postcard::to_allocvec(&hash).unwrap();
        let texts = format!("{token} {token:?} {hash:?} {} {stored:?}", hex(&stored));
        for part in token.secret.expose().windows(4) {
            assert!(!texts.contains(&hex(part)) && !texts.contains(&format!("{part:?}")));
            assert!(!stored.windows(4).any(|other| other == part));
        }
    }
}
