//! Why a request is not done, and the status that says so.
//!
//! A status has a code and a sentence for every client of gRPC, and in its details an [`ErrorInfo`] for ours: what helps, which field is wrong, what to
//! do, where the leader is. Clients decide by the kind, never by the text.

use prost::Message as _;
use tonic::{Code, Status};
use tresor_proto::ids::{JobId, MemberId};
use tresor_proto::v1::ErrorInfo;

use crate::node::NodeError;
use crate::state::State;
use crate::state::command::FailureKind;
use crate::state::reply::Refusal;

/// Longest text of a caller that a refusal repeats, characters.
const SHOWN_MAX: usize = 300;

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A field breaks a rule.
    #[error("{field}: {rule}")]
    Invalid {
        /// The field, as it is called in the message.
        field: String,
        /// The rule.
        rule: String,
    },
    /// There is none of that name.
    #[error("there is no {what} {name}")]
    Missing {
        /// `item`, `point`, …
        what: &'static str,
        /// As it was asked for, shortened.
        name: String,
    },
    /// The name means several.
    #[error("more than one {what} is meant by {name}: {found}")]
    Ambiguous {
        /// `item`, `point`.
        what: &'static str,
        /// As it was asked for, shortened.
        name: String,
        /// What answers to it.
        found: String,
    },
    /// It cannot be done as things are.
    #[error("{why}")]
    Held {
        /// Why.
        why: String,
        /// What to do first; may be empty.
        hint: String,
    },
    /// It is somebody else's, and the caller's role is for its own.
    #[error("job {job} is not one that {name} began, and role {role} cancels no others")]
    NotOwn {
        /// The job.
        job: JobId,
        /// Who asks.
        name: String,
        /// As what.
        role: String,
    },
    /// The idempotency key came with another change before.
    #[error("idempotency_key: it was drawn for another change: draw one for each")]
    OtherChange,
    /// What the state or the node said.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// There is too much of it already.
    #[error("{what}: try again later")]
    Busy {
        /// What there is too much of.
        what: &'static str,
    },
    /// Randomness or the cluster key failed.
    #[error("could not {doing}: {why}")]
    Secrets {
        /// `wrap the key of vault main`, …
        doing: String,
        /// What the provider said.
        why: String,
    },
    /// A defect of ours.
    #[error("{why}: this is a defect of the coordinator")]
    Bug {
        /// What is not as it should be.
        why: &'static str,
    },
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Node(NodeError::Refused(refusal))
    }
}

impl Refused {
    /// A field that breaks a rule.
    pub(crate) fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            rule: rule.into(),
        }
    }

    /// None of that name.
    pub(crate) fn missing(what: &'static str, name: impl std::fmt::Display) -> Self {
        Self::Missing {
            what,
            name: shown(&name.to_string()),
        }
    }

    /// What helps.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Invalid { .. } | Self::Ambiguous { .. } | Self::OtherChange => FailureKind::Invalid,
            Self::Missing { .. } => FailureKind::Missing,
            Self::Held { .. } => FailureKind::Fenced,
            Self::NotOwn { .. } => FailureKind::Denied,
            Self::Node(NodeError::Refused(refusal)) => refusal.kind(),
            Self::Node(_) | Self::Busy { .. } => FailureKind::Retry,
            Self::Secrets { .. } | Self::Bug { .. } => FailureKind::Bug,
        }
    }

    fn field(&self) -> &str {
        match self {
            Self::Node(NodeError::Refused(Refusal::Moved { .. })) => "slots",
            Self::Invalid { field, .. } | Self::Node(NodeError::Refused(Refusal::Invalid { field, .. })) => field,
            Self::OtherChange => "idempotency_key",
            _ => "",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Held { hint, .. } => hint.clone(),
            Self::Ambiguous { what: "item", .. } => String::from("name the vault, or the item by its id"),
            Self::Ambiguous { .. } => String::from("name it by more of its id"),
            Self::Missing { what, .. } => list_hint(what).to_owned(),
            Self::Node(NodeError::Refused(Refusal::Missing { what, .. })) => list_hint(what).to_owned(),
            Self::Node(NodeError::Refused(Refusal::Exists { what, name, .. })) if what == "job" => {
                format!("tresor job watch {name}")
            }
            _ => String::new(),
        }
    }

    fn is_moved(&self) -> bool {
        matches!(self, Self::Node(NodeError::Refused(Refusal::Moved { .. })))
    }

    /// The kind as it travels. What only a moved slot stands against has one of its own: the same lease goes on, and repeating alone does not help.
    fn kind_text(&self) -> &'static str {
        match self.is_moved() {
            true => ErrorInfo::MOVED,
            false => kind_text(self.kind()),
        }
    }

    /// The member that leads instead of this one, if it is known.
    pub fn leader(&self) -> Option<MemberId> {
        match self {
            Self::Node(NodeError::NotLeader { leader }) => *leader,
            _ => None,
        }
    }

    /// The status. `leader` is where the leader is, if that is not here and is known.
    pub fn status(&self, leader: &str) -> Status {
        let kind = self.kind();
        let info = ErrorInfo {
            kind: self.kind_text().to_owned(),
            field: self.field().to_owned(),
            hint: self.hint(),
            leader: leader.to_owned(),
        };
        let code = match self.is_moved() {
            true => Code::FailedPrecondition,
            false => code_of(kind),
        };
        Status::with_details(code, self.to_string(), info.encode_to_vec().into())
    }

    /// The status, with the leader's address as the state knows it.
    pub fn status_in(&self, state: &State) -> Status {
        let leader = self.leader().and_then(|leader| state.members().get(&leader));
        self.status(leader.map_or("", |leader| &leader.address))
    }
}

fn list_hint(what: &str) -> &'static str {
    match what {
        "vault" => "tresor vault list",
        "policy" => "tresor policy list",
        "item" => "tresor item list",
        "point" => "tresor point list",
        "job" => "tresor job list",
        "worker" => "tresor worker list",
        "coordinator" => "tresor coordinator list",
        _ => "",
    }
}

/// A kind as it travels.
pub(crate) fn kind_text(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Retry => "retry",
        FailureKind::Invalid => "invalid",
        FailureKind::Missing => "missing",
        FailureKind::Corrupt => "corrupt",
        FailureKind::Fenced => "fenced",
        FailureKind::Full => "full",
        FailureKind::Denied => "denied",
        FailureKind::Bug => "bug",
        FailureKind::Lost => "lost",
        FailureKind::Cancelled => "cancelled",
        FailureKind::Unsupported => "unsupported",
    }
}

/// The code that says the nearest to it in gRPC's words.
fn code_of(kind: FailureKind) -> Code {
    match kind {
        FailureKind::Retry | FailureKind::Lost | FailureKind::Cancelled => Code::Unavailable,
        FailureKind::Invalid => Code::InvalidArgument,
        FailureKind::Missing => Code::NotFound,
        FailureKind::Corrupt => Code::DataLoss,
        FailureKind::Fenced => Code::FailedPrecondition,
        FailureKind::Full => Code::ResourceExhausted,
        FailureKind::Denied => Code::PermissionDenied,
        FailureKind::Bug => Code::Internal,
        FailureKind::Unsupported => Code::Unimplemented,
    }
}

/// What a caller wrote, shortened.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn info(status: &Status) -> ErrorInfo {
        ErrorInfo::decode(status.details()).unwrap()
    }

    #[test]
    fn a_status_says_what_helps_which_field_and_what_to_do() {
        let status = Refused::invalid("spec.zone", "is no time zone").status("");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "spec.zone: is no time zone");
        let said = info(&status);
        assert_eq!((said.kind.as_str(), said.field.as_str()), ("invalid", "spec.zone"));

        let status = Refused::missing("item", "web").status("");
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "there is no item web")
        );
        assert_eq!(info(&status).hint, "tresor item list");
    }

    #[test]
    fn refusals_of_the_state_keep_their_kind_and_field() {
        let full = Refusal::Full {
            what: String::from("items"),
            max: 5,
        };
        let status = Refused::from(full).status("");
        assert_eq!(
            (status.code(), info(&status).kind.as_str()),
            (Code::ResourceExhausted, "full")
        );
        let invalid = Refusal::Invalid {
            field: String::from("level"),
            rule: String::from("is wrong"),
        };
        assert_eq!(info(&Refused::from(invalid).status("")).field, "level");
        let exists = Refusal::Exists {
            what: String::from("job"),
            name: String::from("12"),
            beside: String::from(": it backs up web"),
        };
        let status = Refused::from(exists).status("");
        assert_eq!(status.message(), "job 12 is there already: it backs up web");
        assert_eq!(info(&status).hint, "tresor job watch 12");
    }

    #[test]
    fn what_may_pass_is_to_be_repeated_and_tells_where_the_leader_is() {
        for passing in [
            NodeError::Unclear,
            NodeError::NoMajority,
            NodeError::Busy,
            NodeError::Stopping,
        ] {
            assert!(passing.is_passing());
            let status = Refused::from(passing).status("");
            assert_eq!(
                (status.code(), info(&status).kind.as_str()),
                (Code::Unavailable, "retry")
            );
        }
        let elsewhere = Refused::from(NodeError::NotLeader {
            leader: Some(MemberId(2)),
        });
        assert_eq!(elsewhere.leader(), Some(MemberId(2)));
        assert_eq!(info(&elsewhere.status("c2:7700")).leader, "c2:7700");
    }

    #[test]
    fn what_a_caller_wrote_is_repeated_up_to_a_bound() {
        let status = Refused::missing("item", "ä".repeat(10_000)).status("");
        assert!(status.message().chars().count() < 400);
    }
}
