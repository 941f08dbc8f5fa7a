//! How what other members send reaches the node's task.

use tokio::sync::{mpsc, oneshot};
use tresor_proto::ids::MemberId;

use super::driver::Sender;
use crate::store::{Piece, SnapshotEnd};

/// Messages that wait for the node's task; beyond, they are dropped: Raft sends again.
pub(crate) const MESSAGES_MAX: usize = 4096;
/// Steps of a snapshot that wait: each waits for the disk, and the sender for each.
pub(crate) const STEPS_MAX: usize = 4;

/// A message of another member.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// Whose certificate came with it.
    pub(crate) from: MemberId,
    /// As Raft encoded it.
    pub(crate) message: bytes::Bytes,
    /// What the sender says of itself.
    pub(crate) sender: Sender,
}

/// A step of a snapshot being received. Whoever began the newest one owns the others.
#[derive(Debug)]
pub(crate) enum SnapshotStep {
    /// Raft's message about it.
    Begin { from: MemberId, message: bytes::Bytes },
    /// Rows.
    Piece(Piece),
    /// What they must amount to: checked, and handed to Raft.
    End(SnapshotEnd),
}

/// A step, and where to answer whether it was taken.
#[derive(Debug)]
pub(crate) struct AskedStep {
    /// Drawn by the call that sends the steps, so that two calls are not mixed.
    pub(crate) call: u64,
    pub(crate) step: SnapshotStep,
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// Takes what other members send.
#[derive(Debug, Clone)]
pub struct Inbox {
    messages: mpsc::Sender<Inbound>,
    steps: mpsc::Sender<AskedStep>,
}

impl Inbox {
    pub(crate) fn new(messages: mpsc::Sender<Inbound>, steps: mpsc::Sender<AskedStep>) -> Self {
        Self { messages, steps }
    }

    /// Hands a message over, or drops it when too many wait.
    pub(crate) fn message(&self, from: MemberId, message: bytes::Bytes, sender: Sender) {
        let inbound = Inbound { from, message, sender };
        if self.messages.try_send(inbound).is_err() {
            tracing::debug!(%from, "dropped a message of another coordinator: too many wait");
        }
    }

    /// Hands a step of a snapshot over and waits until it is on the disk.
    ///
    /// # Errors
    /// Why it was not taken, in words for the sender's log.
    pub(crate) async fn step(&self, call: u64, step: SnapshotStep) -> Result<(), String> {
        let stopping = || String::from("the coordinator stops");
        let (answer, answered) = oneshot::channel();
        let asked = AskedStep { call, step, answer };
        self.steps.send(asked).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}
