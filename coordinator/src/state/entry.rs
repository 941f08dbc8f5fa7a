//! One entry of the log: who asks, when, under which key, and for what.

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{MemberId, TokenId, WorkerId};

use super::command::Command;
use super::error::EntryError;

/// The newest form of entries; forms up to this one can be read. An entry is written in the oldest that knows its command ([`Command::form`]), so that
/// members of the version before can read it. Before a leader writes a new form, the log has to say that every member knows it
/// ([`Command::RaiseVersion`]).
pub const ENTRY_FORM: u16 = 2;

/// The cluster's clock: milliseconds since 1970 in UTC, as the leader stamped them. Never goes back within a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Time(pub i64);

impl Time {
    /// Later by so many milliseconds; the end of time where that does not fit.
    #[must_use]
    pub fn plus(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` to here; 0 if it is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }

    /// As a timestamp; the nearest there is.
    pub fn timestamp(self) -> jiff::Timestamp {
        let end = if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        };
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(end)
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp.as_millisecond())
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.timestamp().fmt(f)
    }
}

/// On whose behalf a command is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Actor {
    /// The cluster itself: the scheduler, an expired lease.
    Cluster,
    /// A person or program with this token.
    Token(TokenId),
    /// A worker.
    Worker(WorkerId),
    /// A coordinator.
    Member(MemberId),
    /// Whoever may use the socket in the home of an embedded node.
    Local {
        /// The user's number on that machine.
        uid: u32,
    },
    /// Whoever started the process that made the cluster.
    Founder,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Token(id) => write!(f, "token {id}"),
            Self::Worker(id) => write!(f, "worker {id}"),
            Self::Member(id) => write!(f, "coordinator {id}"),
            Self::Local { uid } => write!(f, "local user {uid}"),
            Self::Founder => f.write_str("founder"),
        }
    }
}

/// A key that a client draws for one change and sends again with it: the change is made once. Drawn at random, so that no two clients meet.
pub type IdempotencyKey = [u8; 16];

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's stamp. The state's clock is the greatest it has seen.
    pub now: Time,
    /// Who asks.
    pub actor: Actor,
    /// Under which key, for changes that a client may send twice.
    pub key: Option<IdempotencyKey>,
    /// For what.
    pub command: Command,
}

impl Entry {
    /// As bytes of the log.
    pub fn encode(&self) -> Vec<u8> {
        let form = self.command.form().to_le_bytes().to_vec();
        postcard::to_extend(self, form).expect("entries are plain data and memory can be had")
    }

    /// From bytes of the log.
    ///
    /// # Errors
    /// [`EntryError`]; the member that gets it stops.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let damaged = |why: &str| EntryError::Damaged { why: why.to_owned() };
        let (form, rest) = bytes.split_first_chunk().ok_or_else(|| damaged("too short"))?;
        let form = u16::from_le_bytes(*form);
        if form == 0 || form > ENTRY_FORM {
            return Err(EntryError::Form {
                form,
                known: ENTRY_FORM,
            });
        }
        let (entry, left) = postcard::take_from_bytes(rest).map_err(|e| damaged(&e.to_string()))?;
        if left.is_empty() {
            Ok(entry)
        } else {
            Err(damaged("bytes follow it"))
        }
    }
}
