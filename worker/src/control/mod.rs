//! Who says which session may write and when a recovery point counts.
//!
//! A pipeline drives this port and nothing else decides for it. In a home the port stands on the vault's manifests and an fsynced counter
//! ([`home`]); in a cluster it stands on a lease and the coordinator's log ([`crate::agent`]), with the same calls.

pub mod catalog;
pub mod home;

use async_trait::async_trait;
use tresor_storage::Kind;
use tresor_storage::backend::Traffic;
use tresor_storage::ids::{ClusterId, ItemId, PointId, SessionId};
use tresor_storage::index::IndexSession;
use tresor_storage::manifest::Consistency;
use tresor_storage::recipe::Root;
use tresor_storage::vault::VaultError;

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
    /// When reading began, RFC 3339 in UTC.
    pub time: String,
    /// How consistent it is.
    pub consistency: Consistency,
    /// Its disks, in order.
    pub disks: Vec<CommitDisk>,
    /// Whether a disk changed while it was read.
    pub live: bool,
    /// What it took.
    pub counts: Counts,
}

/// A disk of a point, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitDisk {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub root: Root,
}

/// What an attempt took, as the deciding side keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Bytes read from disks (holes left out), or fetched from the store.
    pub bytes_read: u64,
    /// Plaintext of new chunks, or bytes written to targets.
    pub bytes_new: u64,
    /// Bytes put.
    pub bytes_stored: u64,
    /// Size of the disks.
    pub bytes_logical: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// Chunks that the parent or the index had.
    pub chunks_known: u64,
    /// Segments whose leaf was taken over from the parent.
    pub segments_inherited: u64,
    /// Ids that the index was asked for.
    pub lookups: u64,
    /// Packs put.
    pub packs: u64,
    /// Requests to the store while it ran, as far as who decides was told: those of other jobs in the vault are among them.
    pub requests: Requests,
}

/// Requests to a store, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Puts.
    pub puts: u64,
    /// Reads of objects or ranges.
    pub gets: u64,
    /// Questions for a length.
    pub heads: u64,
    /// Listings.
    pub lists: u64,
    /// Deletes.
    pub deletes: u64,
}

impl Requests {
    /// What went out between two looks at a store's counters.
    pub fn between(before: &Traffic, after: &Traffic) -> Self {
        Self {
            puts: after.puts.saturating_sub(before.puts),
            gets: after.gets.saturating_sub(before.gets),
            heads: after.heads.saturating_sub(before.heads),
            lists: after.lists.saturating_sub(before.lists),
            deletes: after.deletes.saturating_sub(before.deletes),
        }
    }
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
    /// A catalogue of this cluster is later than the lease: either another lease has just put it, or the log is an older state of itself.
    #[error(
        "vault has a catalogue of this cluster with the number {there}, later than this lease ({ours}): is its log an older state of itself?"
    )]
    OldLog {
        /// The catalogue's number.
        there: u64,
        /// The lease's.
        ours: u64,
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
    /// Somebody wants the point kept.
    #[error("point {point} is held: {reason}")]
    Held {
        /// The point.
        point: PointId,
        /// Why.
        reason: String,
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
    /// Who decides refused it for ever.
    #[error("the cluster refused it: {why}")]
    Refused {
        /// What helps.
        kind: Kind,
        /// Why.
        why: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// Shares of the index got other owners since they answered: what they said is to be asked again, and the same may be committed after that.
    #[error("shares of the index got other owners meanwhile: {why}")]
    Moved {
        /// Which.
        why: String,
    },
    /// Who decides did not answer: whether it was taken is not known.
    #[error("the cluster did not answer: {why}")]
    Unanswered {
        /// What was heard last.
        why: String,
    },
    /// The point does not count here, and who holds the vault now may count on it: its manifest stays.
    #[error("vault was taken over by {holder} at {since}; the point is left to them")]
    Left {
        /// Their host.
        holder: String,
        /// When.
        since: String,
    },
    /// Something was asked of a lease that it is not for.
    #[error("the lease is not for that: {why}")]
    NotLeased {
        /// What does not fit.
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
            Self::Fenced { .. } | Self::Left { .. } | Self::Busy { .. } | Self::Copied { .. } | Self::Held { .. } => {
                Kind::Fenced
            }
            Self::ReadOnly | Self::Closed { .. } | Self::NotLeased { .. } => Kind::Bug,
            Self::Refused { kind, .. } => *kind,
            Self::Unanswered { .. } | Self::OldLog { .. } | Self::Moved { .. } => Kind::Retry,
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

    /// Whether a commit that ended so does not count and never will: what it acknowledged is to be deleted. Of any other error that is not known.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::Refused { .. } | Self::Moved { .. })
    }
}

/// Tells that somebody took over from other trouble.
pub(crate) fn fenced(error: tresor_storage::Error) -> ControlError {
    fn taker(error: &tresor_storage::Error) -> Option<(String, String)> {
        match error {
            tresor_storage::Error::While { source, .. } => taker(source),
            tresor_storage::Error::Vault(VaultError::TakenOver { holder, since }) => {
                Some((holder.clone(), since.clone()))
            }
            _ => None,
        }
    }
    match taker(&error) {
        Some((holder, since)) => ControlError::Fenced { holder, since },
        None => error.into(),
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
    /// By cause. Of a refusal ([`ControlError::is_refusal`]) the point does not count and its manifest is to be deleted.
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
