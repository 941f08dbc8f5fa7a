//! Workers that were removed from the cluster, as the coordinators said last: their certificates are refused here too, before they run out.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use tresor_proto::tls::{PeerCertificate, Revocations, Role};

/// Who is refused. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Revoked(Arc<RwLock<HashSet<u64>>>);

impl Revoked {
    /// Refuses these from now on. A removal is for good, so what was refused before stays.
    pub(crate) fn add(&self, workers: impl IntoIterator<Item = u64>) {
        // A set is whole whatever panicked beside it.
        let mut revoked = self.0.write().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(workers);
    }
}

impl Revocations for Revoked {
    fn is_revoked(&self, peer: &PeerCertificate) -> bool {
        let revoked = self.0.read().unwrap_or_else(PoisonError::into_inner);
        peer.name.role == Role::Worker && revoked.contains(&peer.name.id)
    }
}
