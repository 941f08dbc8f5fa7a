//! What the state answers: done, or refused with the reason.

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{Epoch, ItemId, SessionId};

use super::command::FailureKind;

/// An answer. It is kept under the change's idempotency key, so it is plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// Made something, under this number.
    Made(u64),
    /// The item: a new one, or the one that the machine had in this vault before.
    Item(ItemId),
    /// So many were changed; others did not have to be, or could not.
    Changed(u64),
    /// The job is the worker's.
    Leased {
        /// The fence.
        epoch: Epoch,
        /// The session opened with it.
        session: SessionId,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

impl Reply {
    /// The refusal as an error.
    ///
    /// # Errors
    /// When it is one.
    pub fn accepted(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            other => Ok(other),
        }
    }
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is none of that name or number.
    #[error("there is no {what} {name}")]
    Missing {
        /// `job`, `item`, …
        what: String,
        /// Its name or number.
        name: String,
    },
    /// There is one already.
    #[error("{what} {name} is there already{beside}")]
    Exists {
        /// `job`, `item`, …
        what: String,
        /// Its name.
        name: String,
        /// Where, for people: ` in vault archive`; may be empty.
        beside: String,
    },
    /// It cannot be done as things are.
    #[error("{why}")]
    Held {
        /// Why, for people.
        why: String,
    },
    /// The lease, the session or the version is not the present one.
    #[error("{why}")]
    Fenced {
        /// Why, for people.
        why: String,
    },
    /// What was asked makes no sense.
    #[error("{field}: {rule}")]
    Invalid {
        /// The field.
        field: String,
        /// The rule.
        rule: String,
    },
    /// The token, the node or the role may not.
    #[error("{why}")]
    Denied {
        /// Why, for people.
        why: String,
    },
    /// A bound of the state.
    #[error("there are {max} {what} already, and no more fit")]
    Full {
        /// What there is too much of.
        what: String,
        /// The bound.
        max: u64,
    },
    /// A slot whose answers a commit rests on was granted anew, or is nobody's any more. Nothing has ended by this: the session asks again whoever has the
    /// slot now, and commits under the same lease.
    #[error("slot {slot} of the index was moved: its ids are to be asked again")]
    Moved {
        /// The first such slot.
        slot: u16,
        /// The session that commits.
        session: SessionId,
    },
}

impl Refusal {
    /// What helps.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Missing { .. } => FailureKind::Missing,
            Self::Exists { .. } | Self::Held { .. } | Self::Fenced { .. } => FailureKind::Fenced,
            Self::Moved { .. } => FailureKind::Retry,
            Self::Invalid { .. } => FailureKind::Invalid,
            Self::Denied { .. } => FailureKind::Denied,
            Self::Full { .. } => FailureKind::Full,
        }
    }

    /// What was refused, in words that are part of the log's meaning: they stand in the audit trail, and members of two versions have to write the same
    /// ones. The text for people may change with every version, so it is never kept.
    pub(super) fn code(&self) -> String {
        match self {
            Self::Missing { what, name } => format!("missing {what} {name}"),
            Self::Exists { what, name, .. } => format!("exists {what} {name}"),
            Self::Held { .. } => String::from("held"),
            Self::Fenced { .. } => String::from("fenced"),
            Self::Invalid { field, .. } => format!("invalid {field}"),
            Self::Denied { .. } => String::from("denied"),
            Self::Full { what, .. } => format!("full {what}"),
            Self::Moved { slot, .. } => format!("moved slot {slot}"),
        }
    }

    pub(super) fn missing(what: &str, name: impl std::fmt::Display) -> Self {
        Self::Missing {
            what: what.to_owned(),
            name: name.to_string(),
        }
    }

    pub(super) fn exists(what: &str, name: impl std::fmt::Display) -> Self {
        Self::Exists {
            what: what.to_owned(),
            name: name.to_string(),
            beside: String::new(),
        }
    }

    pub(super) fn held(why: impl Into<String>) -> Self {
        Self::Held { why: why.into() }
    }

    pub(super) fn fenced(why: impl Into<String>) -> Self {
        Self::Fenced { why: why.into() }
    }

    pub(super) fn invalid(field: &str, rule: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.to_owned(),
            rule: rule.into(),
        }
    }

    pub(super) fn denied(why: impl Into<String>) -> Self {
        Self::Denied { why: why.into() }
    }
}
