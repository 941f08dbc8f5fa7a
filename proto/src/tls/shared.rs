//! An identity that is renewed while connections are made with it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity::{Identity, IdentityError};

/// The identity of this process, shared by its acceptor and its connectors. A renewed one is used by every handshake that begins after
/// [`Self::replace`]; connections that stand are left alone.
#[derive(Clone)]
pub struct SharedIdentity {
    current: Arc<RwLock<Arc<Identity>>>,
}

impl SharedIdentity {
    /// Begins with an identity.
    pub fn new(identity: Identity) -> Self {
        Self {
            current: Arc::new(RwLock::new(Arc::new(identity))),
        }
    }

    /// The identity that handshakes use now.
    pub fn current(&self) -> Arc<Identity> {
        // A pointer is copied or exchanged under this lock and nothing else, so no panic leaves it half done.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a renewed one. Save it first: a process that dies in between would come back with the old one.
    ///
    /// # Errors
    /// [`IdentityError::OtherNode`] when it is of another node or another authority: acceptors and connectors were made for this one.
    pub fn replace(&self, identity: Identity) -> Result<(), IdentityError> {
        let current = self.current();
        if identity.name() != current.name() || identity.ca() != current.ca() {
            return Err(IdentityError::OtherNode {
                old: current.name(),
                new: identity.name(),
            });
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
        Ok(())
    }
}

impl fmt::Debug for SharedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedIdentity").field(&self.current()).finish()
    }
}

impl ResolvesServerCert for SharedIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified())
    }
}

impl ResolvesClientCert for SharedIdentity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified())
    }

    fn has_certs(&self) -> bool {
        true
    }

    fn only_raw_public_keys(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::tls::testing::{COORDINATOR, TestAuthority, WORKER};

    #[test]
    fn only_the_same_node_of_the_same_authority_is_a_renewal() {
        let authority = TestAuthority::new();
        let shared = SharedIdentity::new(authority.identity(WORKER));
        let clone = shared.clone();
        let renewed = authority.identity(WORKER);
        let fingerprint = renewed.certificate().fingerprint;
        shared.replace(renewed).unwrap();
        assert_eq!(clone.current().certificate().fingerprint, fingerprint);
        for other in [authority.identity(COORDINATOR), TestAuthority::new().identity(WORKER)] {
            assert!(matches!(shared.replace(other), Err(IdentityError::OtherNode { .. })));
        }
        assert_eq!(clone.current().certificate().fingerprint, fingerprint);
    }
}
