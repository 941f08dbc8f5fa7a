//! What a refused request is answered with: a status for every gRPC client, and in its details an [`ErrorInfo`] for ours.

use prost::Message as _;
use tonic::{Code, Status};

use crate::v1::ErrorInfo;

/// Largest details that are read: an answer of a few sentences.
const DETAILS_MAX: usize = 64 << 10;

impl ErrorInfo {
    /// The kind of a commit that is refused because slots of the index were granted anew since it asked: it asks them again, and commits under the same
    /// lease.
    pub const MOVED: &'static str = "moved";

    /// The status that says so, with a message for people. The code follows from the kind.
    pub fn into_status(self, message: impl Into<String>) -> Status {
        let code = match self.kind.as_str() {
            "retry" => Code::Unavailable,
            "invalid" => Code::InvalidArgument,
            "missing" => Code::NotFound,
            "corrupt" => Code::DataLoss,
            "fenced" | Self::MOVED => Code::FailedPrecondition,
            "full" => Code::ResourceExhausted,
            "denied" => Code::PermissionDenied,
            _ => Code::Internal,
        };
        Status::with_details(code, message, self.encode_to_vec().into())
    }

    /// What a status says beyond its code and message; none if it is from somebody else: a proxy, or the client's own side.
    pub fn of(status: &Status) -> Option<Self> {
        let details = status.details();
        if details.is_empty() || details.len() > DETAILS_MAX {
            return None;
        }
        Self::decode(details).ok().filter(|info| !info.kind.is_empty())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_out_of_the_status_as_it_went_in() {
        let info = ErrorInfo {
            kind: String::from("fenced"),
            field: String::from("version"),
            hint: String::from("read it again"),
            leader: String::from("c2:7700"),
        };
        let status = info.clone().into_status("somebody else changed it");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "somebody else changed it");
        assert_eq!(ErrorInfo::of(&status).unwrap(), info);
    }

    #[test]
    fn what_is_no_refusal_of_ours_has_no_info() {
        assert!(ErrorInfo::of(&Status::unavailable("connection refused")).is_none());
        for details in [b"\xff\xff\xff".to_vec(), vec![0x12, 1, b'x'], vec![0; DETAILS_MAX + 1]] {
            let status = Status::with_details(Code::Unknown, "proxy", details.into());
            assert!(ErrorInfo::of(&status).is_none());
        }
    }
}
