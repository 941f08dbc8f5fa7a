//! Why a coordinator could not do what it was asked.

use tresor_proto::ids::MemberId;

use crate::state::reply::Refusal;

/// Why a change or a read did not happen, or is not known to have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The state refused it: final.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another member leads, or none does yet.
    #[error("this coordinator does not lead{}", .leader.map(|id| format!("; coordinator {id} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<MemberId>,
    },
    /// Leadership was lost before the change was seen committed: it may have happened or not. Ask again under the same key.
    #[error("the leader changed before the answer was known")]
    Unclear,
    /// No majority in time.
    #[error("no majority of the coordinators answered in time")]
    NoMajority,
    /// More waits than fits.
    #[error("the coordinator has too much to do: try again")]
    Busy,
    /// What it keeps could not be read.
    #[error("the coordinator could not read its disk: {why}")]
    Unreadable {
        /// What the disk said.
        why: String,
    },
    /// It stops.
    #[error("the coordinator stops")]
    Stopping,
}

impl NodeError {
    /// Whether asking again (under the same key) may help.
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}
