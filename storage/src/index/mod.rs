//! The chunk index: which chunks and recipe nodes a vault has, and where.
//!
//! It is a memory of what the stores hold, never the truth: losing it costs a rebuild or duplicates. The port
//! is the one that index slots on many workers will speak, so sessions and touch epochs are in it from the start.
//!
//! Read the port below, then the rules (`entry`), then the maps (`memory`, `rocks`). `segment` and `checkpoint` are what lies in the store to make
//! an index from, and `rebuild` makes it. `slot` is how ids are shared out among workers.

pub mod checkpoint;
pub mod conformance;
pub mod entry;
mod memory;
pub mod rebuild;
#[cfg(feature = "rocks")]
pub mod rocks;
mod runs;
pub mod segment;
pub mod slot;

pub use entry::{Entry, Flags, Found};
pub use memory::MemoryIndex;
#[cfg(feature = "rocks")]
pub use rocks::{RocksIndex, SlotRow, Stamp};

use async_trait::async_trait;

use crate::error::Kind;
use crate::ids::{ChunkId, ClusterId, Location, PackId, SessionId};

/// On whose behalf an index is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSession {
    /// Sessions are compared only within one cluster id.
    pub cluster: ClusterId,
    /// The session.
    pub session: SessionId,
    /// The sweep epoch when the session was opened; lookups touch entries with it.
    pub start_epoch: u64,
}

/// What an index says of one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nobody has it (or what there is must not be relied on): store it.
    New,
    /// Another open session is storing it now: defer it, then ask again.
    Claimed,
    /// It is stored there.
    Known(Location),
}

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Its database.
    #[error("index database: {what}")]
    Database {
        /// What was being done.
        what: &'static str,
        /// What helps: `Retry`, `Full` or `Denied`.
        kind: Kind,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The index belongs to another vault or claim, or is newer than the vault: rebuild it.
    #[error("index is not of this vault's present state: {why}")]
    Stale {
        /// How that was seen.
        why: String,
    },
    /// Another process has it open.
    #[error("index is in use by another process")]
    Locked,
    /// A session of another cluster: its numbers and epochs mean nothing here.
    #[error("index belongs to cluster {index}, not to {session}")]
    Foreign {
        /// The index's.
        index: ClusterId,
        /// The session's.
        session: ClusterId,
    },
    /// A row that cannot be read.
    #[error("index row is malformed")]
    Malformed,
}

impl IndexError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Database { kind, .. } => *kind,
            Self::Stale { .. } | Self::Malformed => Kind::Corrupt,
            Self::Locked | Self::Foreign { .. } => Kind::Fenced,
        }
    }
}

/// The chunk index of one vault.
#[async_trait]
pub trait ChunkIndex: Send + Sync + 'static {
    /// Answers for each id, in order, and touches what it answers `Known`: an entry's touch epoch is raised to at least the
    /// session's start epoch. Any number of ids.
    ///
    /// # Errors
    /// When the index cannot be asked. Callers that write take that as [`Answer::New`].
    async fn lookup(&self, session: IndexSession, ids: &[ChunkId]) -> Result<Vec<Answer>, IndexError>;

    /// Records where pieces lie, after their pack is durably put; durable when this returns.
    ///
    /// The first good location wins; over a lost or condemned entry the new one wins. Either way the entry is touched as by a lookup.
    ///
    /// # Errors
    /// When the index cannot take them; the caller says so at its commit.
    async fn insert(&self, session: IndexSession, entries: &[(ChunkId, Location)]) -> Result<(), IndexError>;

    /// Flags entries as lost where they still are at that location: lookups answer `New` until another location is inserted.
    ///
    /// # Errors
    /// When the index cannot take them.
    async fn mark_lost(&self, entries: &[(ChunkId, Location)]) -> Result<(), IndexError>;

    /// Where an id lies, without touching it: for readers whose hint went stale. Lost entries are not answered.
    ///
    /// # Errors
    /// When the index cannot be asked.
    async fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, IndexError>;

    /// Notes damage at a frame (or, without an offset, a whole pack), so that no later backup inherits hints into it.
    ///
    /// # Errors
    /// When the index cannot take it.
    async fn add_damage(&self, pack: PackId, frame_offset: Option<u32>) -> Result<(), IndexError>;

    /// All damage noted and not cleared by a rebuild.
    ///
    /// # Errors
    /// When the index cannot be asked.
    async fn damage(&self) -> Result<Vec<(PackId, Option<u32>)>, IndexError>;

    /// Number of entries, possibly an estimate.
    ///
    /// # Errors
    /// When the index cannot be asked.
    async fn count(&self) -> Result<u64, IndexError>;
}
