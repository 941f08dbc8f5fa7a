//! How Raft's messages reach the other members: a stream for each, that comes back by itself and never makes the node wait.
//!
//! A message that cannot be taken at once is dropped: Raft sends again what matters, and what waited would be old. So a dead or slow member costs a
//! bounded queue and an attempt to connect every few seconds.

mod outgoing;
mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tresor_proto::ids::MemberId;

pub use snapshots::{SnapshotError, send as send_snapshot};

/// Messages that wait for one member: more than a leader has in flight.
const QUEUE_MAX: usize = 1024;

/// Makes a channel to a member at an address: with this coordinator's certificate, and to nobody but that member.
pub type Dial = Arc<dyn Fn(MemberId, &str) -> Option<Channel> + Send + Sync>;

struct Peer {
    address: String,
    queue: mpsc::Sender<Bytes>,
    stop: CancellationToken,
}

/// The streams to all other members.
pub struct Peers {
    dial: Dial,
    runtime: tokio::runtime::Handle,
    peers: BTreeMap<MemberId, Peer>,
}

impl Peers {
    /// No streams yet; they will run on `runtime`.
    pub fn new(dial: Dial, runtime: tokio::runtime::Handle) -> Self {
        Self {
            dial,
            runtime,
            peers: BTreeMap::new(),
        }
    }

    /// Has a stream to each of these members and to nobody else.
    pub fn set_members<'a>(&mut self, members: impl IntoIterator<Item = (MemberId, &'a str)>) {
        let wanted: BTreeMap<MemberId, &str> = members.into_iter().collect();
        self.peers.retain(|id, peer| {
            let stays = wanted.get(id).is_some_and(|address| *address == peer.address);
            if !stays {
                peer.stop.cancel();
            }
            stays
        });
        for (id, address) in wanted {
            if self.peers.contains_key(&id) {
                continue;
            }
            let (queue, waiting) = mpsc::channel(QUEUE_MAX);
            let stop = CancellationToken::new();
            let dial = Arc::clone(&self.dial);
            let to = address.to_owned();
            self.runtime
                .spawn(outgoing::run(move || dial(id, &to), waiting, stop.clone()));
            let peer = Peer {
                address: address.to_owned(),
                queue,
                stop,
            };
            self.peers.insert(id, peer);
        }
    }

    /// Sends a message, or drops it. Returns whether it was taken.
    pub fn send(&self, to: MemberId, message: Vec<u8>) -> bool {
        self.peers
            .get(&to)
            .is_some_and(|peer| peer.queue.try_send(message.into()).is_ok())
    }

    /// A channel of its own to a member, for a snapshot: its many bytes must not hold up heartbeats.
    pub fn channel(&self, to: MemberId) -> Option<Channel> {
        let peer = self.peers.get(&to)?;
        // A channel connects on the runtime that it is made on, and who asks has one that only keeps time.
        let _network = self.runtime.enter();
        (self.dial)(to, &peer.address)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for peer in self.peers.values() {
            peer.stop.cancel();
        }
    }
}
