//! Whoever answers for slots: this process, or another worker.

use async_trait::async_trait;
use bytes::Bytes;
use tresor_storage::ids::{ClusterId, Location, PackId, VaultId};
use tresor_storage::index::{Answer, IndexSession};

use super::wire::{Asked, Changed};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerError {
    /// Nobody answered in time. Whether a change was made is not known; it may be sent again.
    #[error("no answer: {why}")]
    Unreachable {
        /// What was heard last.
        why: String,
    },
    /// The session is over, or the vault is another cluster's.
    #[error("{why}")]
    Fenced {
        /// Which.
        why: String,
    },
    /// What was asked is not done for anybody.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// It could not be done now.
    #[error("{why}")]
    Failed {
        /// Why.
        why: String,
    },
}

/// The port of an owner of slots: one try of each call. An answer of none, and [`Changed::NotHeld`], say that a slot is not held under the grant named.
#[async_trait]
pub(crate) trait SlotPeer: Send + Sync + 'static {
    async fn lookup(
        &self,
        vault: VaultId,
        session: IndexSession,
        asked: Vec<Asked>,
        claimant: u64,
    ) -> Result<Vec<Option<Answer>>, PeerError>;

    async fn insert(
        &self,
        vault: VaultId,
        session: IndexSession,
        entries: Vec<(Asked, Location)>,
        whole_at: u64,
    ) -> Result<Vec<Changed>, PeerError>;

    async fn locate(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        asked: Vec<Asked>,
    ) -> Result<Vec<Option<Answer>>, PeerError>;

    async fn replace(
        &self,
        vault: VaultId,
        session: IndexSession,
        moves: Vec<(Asked, Location, Location)>,
    ) -> Result<Vec<Changed>, PeerError>;

    async fn mark_lost(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        entries: Vec<(Asked, Location)>,
    ) -> Result<Vec<Changed>, PeerError>;

    async fn add_damage(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        damage: Vec<(PackId, Option<u32>)>,
    ) -> Result<(), PeerError>;

    async fn damage(&self, vault: VaultId, cluster: ClusterId) -> Result<Vec<(PackId, Option<u32>)>, PeerError>;

    async fn count(&self, vault: VaultId, cluster: ClusterId) -> Result<u64, PeerError>;

    /// The encoded list of a vault's packs that it made after the grant `wave`.
    async fn packs(&self, vault: VaultId, wave: u64) -> Result<Bytes, PeerError>;
}
