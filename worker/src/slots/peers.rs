//! Who to ask: this process for its own slots, others over channels that are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tresor_proto::ids::WorkerId;
use tresor_proto::tls::{Connector, PeerName, Role, SharedIdentity, Trust};

use super::map::SlotOwner;
use super::owner::Owner;
use super::peer::SlotPeer;
use super::remote::Remote;
use super::revoked::Revoked;

/// How long an owner that did not answer is left alone: its ids are new until then, and nobody waits for it. Twice as long each time, up to a lease.
const SUSPENDED: Duration = Duration::from_secs(3);
const SUSPENDED_MAX: Duration = Duration::from_secs(30);

/// Makes channels to other workers.
pub(crate) trait Dial: Send + Sync + 'static {
    /// The slots of a worker at an address; none if that is no address.
    fn dial(&self, owner: &SlotOwner) -> Option<Arc<dyn SlotPeer>>;
}

/// Over TLS, with this worker's certificate: whoever answers there must be that worker.
#[derive(Clone)]
pub(crate) struct TlsDial {
    pub(crate) identity: SharedIdentity,
    pub(crate) revoked: Revoked,
}

impl TlsDial {
    /// A channel to a worker at its address; none if that is no address.
    pub(crate) fn channel(&self, worker: WorkerId, serves: &str) -> Option<Channel> {
        let current = self.identity.current();
        let name = PeerName {
            cluster: current.name().cluster,
            role: Role::Worker,
            id: worker.0,
        };
        let trust = Trust::exactly(current.ca().clone(), name);
        let (identity, revoked) = (self.identity.clone(), Arc::new(self.revoked.clone()));
        match Connector::with_identity(vec![serves.to_owned()], trust, identity, revoked) {
            Ok(connector) => Some(connector.channel()),
            Err(error) => {
                tracing::warn!(%worker, address = serves, %error, "a worker cannot be asked");
                None
            }
        }
    }
}

impl Dial for TlsDial {
    fn dial(&self, owner: &SlotOwner) -> Option<Arc<dyn SlotPeer>> {
        Some(Arc::new(Remote::new(self.channel(owner.worker, &owner.serves)?)))
    }
}

struct Known {
    serves: String,
    peer: Arc<dyn SlotPeer>,
    suspended: Option<Instant>,
    /// Times in a row that it was.
    failures: u32,
}

/// All owners that were asked so far.
pub(crate) struct Peers {
    me: WorkerId,
    own: Owner,
    dial: Box<dyn Dial>,
    known: Mutex<HashMap<WorkerId, Known>>,
}

impl Peers {
    pub(crate) fn new(me: WorkerId, own: Owner, dial: Box<dyn Dial>) -> Self {
        Self {
            me,
            own,
            dial,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<WorkerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask; none while it is left alone.
    pub(crate) fn of(&self, owner: &SlotOwner) -> Option<Arc<dyn SlotPeer>> {
        if owner.worker == self.me {
            return Some(Arc::new(self.own.clone()));
        }
        let mut known = self.known();
        if let Some(peer) = known.get_mut(&owner.worker).filter(|peer| peer.serves == owner.serves) {
            if peer.suspended.is_some_and(|until| Instant::now() < until) {
                return None;
            }
            return Some(Arc::clone(&peer.peer));
        }
        let peer = self.dial.dial(owner)?;
        known.insert(
            owner.worker,
            Known {
                serves: owner.serves.clone(),
                peer: Arc::clone(&peer),
                suspended: None,
                failures: 0,
            },
        );
        Some(peer)
    }

    /// It did not answer: it is left alone for a moment. Returns whether that is news.
    pub(crate) fn suspend(&self, worker: WorkerId) -> bool {
        let now = Instant::now();
        match self.known().get_mut(&worker) {
            Some(peer) => {
                if peer.suspended.is_some_and(|until| now < until) {
                    // Asked before it was known.
                    return false;
                }
                let time = SUSPENDED * 1_u32.checked_shl(peer.failures.min(8)).unwrap_or(1);
                peer.suspended = Some(now + time.min(SUSPENDED_MAX));
                peer.failures = peer.failures.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// It answered.
    pub(crate) fn resume(&self, worker: WorkerId) {
        if let Some(peer) = self.known().get_mut(&worker) {
            peer.suspended = None;
            peer.failures = 0;
        }
    }

    /// Forgets channels to workers that own nothing any more.
    pub(crate) fn keep(&self, owners: &[SlotOwner]) {
        self.known()
            .retain(|worker, _| owners.iter().any(|owner| owner.worker == *worker));
    }
}
