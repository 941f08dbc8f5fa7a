//! Who says which session may write and when a recovery point counts.
//!
//! A pipeline drives this port and nothing else decides for it. In a home the port stands on the vault's manifests and an fsynced counter
//! ([`home`]); in a cluster it will stand on the coordinator's log, with the same calls.

pub mod catalog;
pub mod home;

use async_trait::async_trait;
use tresor_storage::Kind;
use tresor_storage::ids::{ClusterId, ItemId, PointId, SessionId};
use tresor_storage::index::IndexSession;

/// What a session is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Points that stay while the session is open: parents of a backup, or what a reader reads.
    pub pins: Vec<PointId>,
    /// Whether it writes; else it only pins.
    pub writes: bool,
}

/// An open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The cluster or home.
    pub cluster: ClusterId,
    /// Its number, used for the first time now.
    pub session: SessionId,
    /// The sweep epoch at its opening.
    pub start_epoch: u64,
}

impl Session {
    /// As the index wants it.
    pub fn for_index(self) -> IndexSession {
        IndexSession {
            cluster: self.cluster,
            session: self.session,
            start_epoch: self.start_epoch,
        }
    }
}

/// A point whose manifest and all that it needs are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The session that made it.
    pub session: SessionId,
    /// Its item.
    pub item: ItemId,
    /// The point.
    pub point: PointId,
    /// BLAKE3 of the manifest object.
    pub manifest_hash: [u8; 32],
}

/// A point as the deciding side knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointRecord {
    /// Its item.
    pub item: ItemId,
    /// The point.
    pub point: PointId,
    /// When it was removed (RFC 3339), if it was: hidden, and restorable until it is swept.
    pub removed_at: Option<String>,
}

/// Why a decision was not made as asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody else may write now.
    #[error("vault was taken over by {holder} at {since}")]
    Fenced {
        /// Their host.
        holder: String,
        /// When.
        since: String,
    },
    /// Another process of this home writes.
    #[error("this home is in use by {holder}")]
    Busy {
        /// Process, command and host.
        holder: String,
    },
    /// A parent or a point to be read is gone.
    #[error("point {point} was removed")]
    Removed {
        /// The point.
        point: PointId,
    },
    /// The home lies elsewhere than where it claimed the vault: a copy, or moved.
    #[error("home {home} was copied or moved: it claimed the vault at {was}")]
    Copied {
        /// Where it is.
        home: String,
        /// Where it claimed.
        was: String,
    },
    /// Opened for reading only.
    #[error("the vault is open for reading only")]
    ReadOnly,
    /// The session is not open, or does not write.
    #[error("session {session} is not open for writing")]
    Closed {
        /// The session.
        session: SessionId,
    },
    /// The home's own files.
    #[error("{what} {path}")]
    Home {
        /// `could not write`, …
        what: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the home is not what was written there.
    #[error("{path}: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Storage(#[from] tresor_storage::Error),
}

impl ControlError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Fenced { .. } | Self::Busy { .. } | Self::Copied { .. } => Kind::Fenced,
            Self::ReadOnly | Self::Closed { .. } => Kind::Bug,
            Self::Removed { .. } => Kind::Missing,
            Self::Home { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                _ => Kind::Invalid,
            },
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Storage(e) => e.kind(),
        }
    }
}

/// Who decides. A session that is dropped without a commit leaves garbage only.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Opens a session. The number is used up, durably, before this returns.
    ///
    /// # Errors
    /// [`ControlError::Fenced`], [`ControlError::Busy`], [`ControlError::Removed`]; others by cause.
    async fn open_session(&self, request: OpenSession) -> Result<Session, ControlError>;

    /// Makes a point count. Call it after the manifest is durably put; only when this returns may the point be called done.
    ///
    /// # Errors
    /// [`ControlError::Fenced`]: the point does not count and its manifest is to be deleted.
    async fn commit(&self, commit: Commit) -> Result<(), ControlError>;

    /// All points that count, in no order; removed ones are marked.
    ///
    /// # Errors
    /// By cause.
    async fn points(&self) -> Result<Vec<PointRecord>, ControlError>;

    /// Points that open sessions hold.
    async fn pins(&self) -> Vec<PointId>;

    /// Ends a session, committed or not; its pins go.
    async fn close_session(&self, session: SessionId);
}
