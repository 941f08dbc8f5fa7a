//! Who may call: workers of the cluster, which the listener knows by their certificates.

use tonic::{Request, Status};
use tresor_proto::ids::WorkerId;
use tresor_proto::tls::{PeerInfo, Role};
use tresor_proto::v1::ErrorInfo;

use super::revoked::Revoked;

/// Knows who calls. Clones share it.
#[derive(Clone)]
pub(crate) struct Callers(Revoked);

impl Callers {
    pub(crate) fn new(revoked: Revoked) -> Self {
        Self(revoked)
    }

    /// The message of a worker of the cluster; nobody else has a say here.
    pub(crate) fn check<T>(&self, request: Request<T>) -> Result<T, Status> {
        Ok(self.check_who(request)?.1)
    }

    /// As [`Self::check`], with who it is.
    pub(crate) fn check_who<T>(&self, request: Request<T>) -> Result<(WorkerId, T), Status> {
        let peer = PeerInfo::of(&request).and_then(PeerInfo::name);
        let worker = peer.filter(|name| name.role == Role::Worker);
        let stands =
            PeerInfo::of(&request).is_some_and(|peer| peer.check(&self.0, jiff::Timestamp::now().as_second()).is_ok());
        if let Some(worker) = worker.filter(|_| stands) {
            return Ok((WorkerId(worker.id), request.into_inner()));
        }
        let denied = ErrorInfo {
            kind: String::from("denied"),
            ..Default::default()
        };
        Err(denied.into_status("only workers of the cluster ask here"))
    }
}
