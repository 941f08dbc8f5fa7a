//! Why a cluster did not do what it was asked, and what that is for the caller of the program.

use std::error::Error as _;

use tonic::{Code, Status};
use tresor_proto::v1::ErrorInfo;
use tresor_storage::Kind;

use crate::exit::Failure;
use crate::metrics::Requests;

/// Why a call of a cluster failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A verb that is a cluster's, and none is chosen.
    #[error("{verb} needs a cluster, and none is chosen")]
    NoneChosen {
        /// `job list`.
        verb: &'static str,
    },
    /// Nobody has logged in there.
    #[error("no login is kept for {cluster}")]
    NotKept {
        /// As it was named.
        cluster: String,
    },
    /// What a login left is not what it must be.
    #[error("the login kept in {path} {why}")]
    Damaged {
        /// Its folder.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Who answers there is not the cluster that was meant.
    #[error("could not trust who answers at {address}: {why}")]
    Untrusted {
        /// Where.
        address: String,
        /// Why not.
        why: String,
    },
    /// Nobody answered in time.
    #[error("cluster {cluster} does not answer: {why}")]
    Unreachable {
        /// Its name.
        cluster: String,
        /// What was heard last.
        why: String,
    },
    /// It answered, and would not.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// An answer that no correct server gives.
    #[error("the cluster's answer makes no sense: {what}")]
    Answer {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A job that was waited for failed.
    #[error("job {job} failed: {why}")]
    JobFailed {
        /// Its number.
        job: u64,
        /// What its last attempt said.
        why: String,
        /// What that is.
        kind: Kind,
        /// What to do; may be empty.
        hint: String,
        /// Whether it is the worker's machine that failed, a disk on it or its index, and not the vault or its store.
        of_machine: bool,
        /// What the store was asked until then, as far as that was told.
        requests: Box<Requests>,
    },
    /// A job that was waited for was cancelled.
    #[error("job {job} was cancelled{}", because(why))]
    JobCancelled {
        /// Its number.
        job: u64,
        /// Why, if anybody said.
        why: String,
    },
}

/// A refusal, as the cluster worded it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", worded(field, message))]
pub(crate) struct Refusal {
    /// What helps.
    pub(crate) kind: Kind,
    /// For people.
    pub(crate) message: String,
    /// The field of the request that is wrong, if one is.
    pub(crate) field: String,
    /// What to do; may be empty.
    pub(crate) hint: String,
    /// Where the leader is, if who answered is not, and knows.
    pub(crate) leader: String,
    /// Whether it was the cluster that said so, and not a connection that broke.
    pub(crate) said: bool,
}

fn because(why: &str) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    }
}

/// The message with the field in front, as people know it: without where it stands in the request.
fn worded(field: &str, message: &str) -> String {
    if field.is_empty() {
        return message.to_owned();
    }
    let plain = field.trim_start_matches("spec.").replace('_', " ");
    match message.strip_prefix(field) {
        Some(rest) if rest.starts_with(':') => format!("{plain}{rest}"),
        _ if message.to_lowercase().starts_with(&plain) => message.to_owned(),
        _ => format!("{plain}: {message}"),
    }
}

/// A kind by its word on the wire. A word that a newer server uses is ours to mend: by an upgrade.
pub(crate) fn kind_of(word: &str) -> Kind {
    match word {
        "retry" => Kind::Retry,
        "invalid" => Kind::Invalid,
        "missing" => Kind::Missing,
        "corrupt" => Kind::Corrupt,
        "fenced" => Kind::Fenced,
        "full" => Kind::Full,
        "denied" => Kind::Denied,
        "bug" => Kind::Bug,
        // A lease that was lost, of an attempt: the next one may be luckier.
        "lost" => Kind::Retry,
        "cancelled" => Kind::Invalid,
        _ => Kind::Unsupported,
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        if let Some(info) = ErrorInfo::of(status) {
            return Self {
                kind: kind_of(&info.kind),
                message: status.message().to_owned(),
                field: info.field,
                hint: info.hint,
                leader: info.leader,
                said: true,
            };
        }
        // Without details it is from a proxy, from a server of another kind, or from this side: what a broken connection looks like has many codes,
        // but always a source.
        let broken = status.source().is_some();
        let kind = match status.code() {
            _ if broken => Kind::Retry,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => Kind::Retry,
            Code::NotFound => Kind::Missing,
            Code::Unauthenticated | Code::PermissionDenied => Kind::Denied,
            Code::InvalidArgument | Code::AlreadyExists | Code::OutOfRange => Kind::Invalid,
            Code::FailedPrecondition | Code::Aborted => Kind::Fenced,
            Code::DataLoss => Kind::Corrupt,
            Code::Unimplemented => Kind::Unsupported,
            Code::Ok | Code::Unknown | Code::Internal => Kind::Bug,
        };
        let message = match status.message() {
            _ if broken => innermost(status),
            "" => status.code().to_string().to_lowercase(),
            message => message.to_owned(),
        };
        Self {
            kind,
            message,
            field: String::new(),
            hint: String::new(),
            leader: String::new(),
            said: false,
        }
    }
}

/// The last cause: what is before it are layers of the connection that say `transport error`.
fn innermost(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl ClusterError {
    /// What it is for the caller.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::NoneChosen { .. } => Failure::Usage,
            Self::NotKept { .. } | Self::Untrusted { .. } => Failure::Vault(Kind::Denied),
            Self::Damaged { .. } => Failure::Machine(Kind::Invalid),
            Self::Unreachable { .. } => Failure::Vault(Kind::Retry),
            // A field of the request is a field of the command line.
            Self::Refused(refusal) if refusal.kind == Kind::Invalid && !refusal.field.is_empty() => Failure::Usage,
            Self::Refused(refusal) => Failure::Vault(refusal.kind),
            Self::Answer { .. } => Failure::Vault(Kind::Bug),
            Self::JobFailed {
                kind, of_machine: true, ..
            } => Failure::Machine(*kind),
            Self::JobFailed { kind, .. } => Failure::Vault(*kind),
            Self::JobCancelled { .. } => Failure::Vault(Kind::Invalid),
        }
    }

    /// What a person can do now.
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoneChosen { .. } => {
                "tresor node start makes this home its own; --cluster or TRESOR_CLUSTER names another, tresor login makes one known"
            }
            Self::NotKept { .. } => "tresor login HOST:PORT --ca-fingerprint SHA256",
            Self::Damaged { .. } => "log in again: tresor login HOST:PORT --ca-fingerprint SHA256",
            Self::Untrusted { .. } => {
                "compare the addresses and the fingerprint with those of the cluster; was the cluster made anew, log in again"
            }
            Self::Unreachable { .. } => {
                "is a coordinator up, and does a firewall stand between? tresor config show has the addresses"
            }
            Self::Refused(refusal) => return refusal.hint(),
            Self::Answer { .. } => {
                "is it the same version of tresor there? if so, please report it, with the output of -vv"
            }
            Self::JobFailed { job, hint, .. } if hint.is_empty() => {
                return Some(format!("tresor explain job {job}; tresor job retry {job}"));
            }
            Self::JobFailed { hint, .. } => hint,
            Self::JobCancelled { job, .. } => return Some(format!("tresor job retry {job}")),
        };
        Some(text.to_owned())
    }
}

impl Refusal {
    fn hint(&self) -> Option<String> {
        if !self.hint.is_empty() {
            return Some(self.hint.clone());
        }
        let text = match self.kind {
            Kind::Denied => "ask an admin of the cluster for another role; a token that expired: tresor login",
            Kind::Fenced => "somebody else changed it: look at it, then try again",
            Kind::Unsupported => "the cluster and this program have different versions: upgrade the older one",
            Kind::Retry => "try again: tresor cluster status",
            Kind::Full => "tresor cluster status says what is full",
            Kind::Corrupt => "tresor vault verify",
            Kind::Bug => "this is a fault of tresor: please report it, with the coordinators' logs",
            Kind::Missing | Kind::Invalid => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        self.kind == Kind::Retry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, field: &str) -> ClusterError {
        let info = ErrorInfo {
            kind: kind.to_owned(),
            field: field.to_owned(),
            ..Default::default()
        };
        ClusterError::Refused(Box::new(Refusal::from(&info.into_status("no"))))
    }

    #[test]
    fn every_refusal_has_the_exit_code_that_the_documentation_promises() {
        for (kind, field, code) in [
            ("retry", "", 7),
            ("invalid", "spec.schedule", 2),
            ("invalid", "", 1),
            ("missing", "name", 4),
            ("corrupt", "", 3),
            ("fenced", "version", 6),
            ("full", "", 8),
            ("denied", "", 5),
            ("bug", "", 1),
            ("a-word-of-tomorrow", "", 1),
        ] {
            assert_eq!(refused(kind, field).failure().code().number(), code, "{kind}");
        }
    }

    #[test]
    fn a_status_without_details_is_told_by_its_code() {
        for (code, number) in [
            (Code::Unavailable, 7),
            (Code::Unauthenticated, 5),
            (Code::PermissionDenied, 5),
            (Code::NotFound, 4),
            (Code::Unimplemented, 1),
            (Code::Internal, 1),
        ] {
            let refusal = Refusal::from(&Status::new(code, ""));
            assert!(!refusal.message.is_empty());
            let error = ClusterError::Refused(Box::new(refusal));
            assert_eq!(error.failure().code().number(), number, "{code:?}");
        }
    }

    #[test]
    fn a_broken_connection_may_pass_whatever_its_code_is() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let refusal = Refusal::from(&Status::from_error(Box::new(refused)));
        assert!(refusal.may_pass() && !refusal.said);
        assert_eq!(refusal.message, "connection refused");
    }

    #[test]
    fn the_field_stands_in_front_of_the_message_once() {
        for (field, message, text) in [
            ("", "it is held", "it is held"),
            (
                "spec.late_after",
                "spec.late_after: is no time",
                "late after: is no time",
            ),
            ("spec.disks.path", "must be absolute", "disks.path: must be absolute"),
            (
                "schedule",
                "schedule \"x\" has one field",
                "schedule \"x\" has one field",
            ),
            ("spec.zone", "Zone Mars/Base is unknown", "Zone Mars/Base is unknown"),
        ] {
            assert_eq!(worded(field, message), text);
        }
    }
}
