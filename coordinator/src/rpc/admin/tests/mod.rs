//! Every call against a coordinator that is its own majority: what it does, what it refuses, and that doing it twice does it once.

mod channels;
mod items;
mod jobs;
mod limits;
mod nodes;
mod points;
mod policies;
mod tokens;
mod trail;
mod vaults;
mod watches;

use std::sync::{Arc, Mutex};

use prost::Message as _;
use tonic::{Code, Request, Status};
use tresor_proto::ids::WorkerId;
use tresor_proto::v1;
use tresor_proto::v1::admin_server::Admin;

use super::AdminService;
use crate::node::presence::Presence;
use crate::node::testing::TestNode;
use crate::rpc::caller::Caller;
use crate::rpc::context::{Clock, Services};
use crate::security::ClusterKey;
use crate::state::entry::{Actor, Time};
use crate::testing::{Acts, LIFE, MAIN};

/// Whose clocks are the node's, since it began.
struct NodeClock(TestNode);

impl Clock for NodeClock {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.0.clock().since(crate::testing::START)).unwrap_or(0)
    }

    fn wall(&self) -> Time {
        self.0.clock()
    }
}

/// A coordinator with the vault `main` and the worker `w1`, and its service.
pub(super) struct Cluster {
    pub(super) node: TestNode,
    pub(super) worker: WorkerId,
    pub(super) service: AdminService,
    pub(super) presence: Arc<Mutex<Presence>>,
}

impl Cluster {
    pub(super) fn start() -> Self {
        let mut node = TestNode::start();
        let worker = node.adds_worker("w1");
        node.makes_vault(MAIN, "main", worker);
        let presence = Arc::new(Mutex::new(Presence::default()));
        presence.lock().unwrap().hear(worker, LIFE, 0, 0);
        let services = Services::new(
            node.handle.clone(),
            Arc::clone(&presence),
            Arc::new(NodeClock(node.clone())),
            Arc::new(ClusterKey::from_bytes(&[5; 32])),
            "Europe/Berlin",
        );
        Self {
            service: AdminService::new(services),
            node,
            worker,
            presence,
        }
    }

    /// Hears of a worker now.
    pub(super) fn hears(&self, worker: WorkerId) {
        let now = u64::try_from(self.node.clock().since(crate::testing::START)).unwrap();
        self.presence.lock().unwrap().hear(worker, LIFE, 0, now);
    }
}

/// Who calls in these tests.
pub(super) fn alice() -> Caller {
    Caller {
        actor: Actor::Local { uid: 1000 },
        name: String::from("alice"),
        role: String::from("admin"),
    }
}

/// A request of Alice's.
pub(super) fn of_alice<T>(message: T) -> Request<T> {
    by(alice(), message)
}

pub(super) fn by<T>(caller: Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller);
    request
}

/// A key, made of a number.
pub(super) fn key(number: u8) -> bytes::Bytes {
    vec![number; 16].into()
}

/// Makes a call of Alice's: the answer, or the status.
macro_rules! call {
    ($cluster:expr, $method:ident, $message:expr) => {
        $cluster
            .service
            .$method(crate::rpc::admin::tests::of_alice($message))
            .await
            .map(tonic::Response::into_inner)
    };
}
pub(super) use call;

/// What a status says in its details.
pub(super) fn info(status: &Status) -> v1::ErrorInfo {
    v1::ErrorInfo::decode(status.details()).unwrap()
}

/// Asserts that a call was refused with that kind, and returns the status.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, kind: &str) -> Status {
    let status = answer.unwrap_err();
    assert_eq!(info(&status).kind, kind, "{status:?}");
    status
}

/// Asserts that a call was refused for a field.
#[track_caller]
pub(super) fn refused_for<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str) {
    let status = refused(answer, "invalid");
    assert_eq!(info(&status).field, field, "{status:?}");
    assert!(status.message().starts_with(field), "{status:?}");
}

#[tokio::test]
async fn a_request_without_its_caller_is_a_defect_and_does_nothing() {
    let cluster = Cluster::start();
    let request = Request::new(v1::ConfirmClockRequest {
        idempotency_key: key(1),
    });
    let status = cluster.service.confirm_clock(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
}

#[tokio::test]
async fn a_caller_is_told_who_it_is() {
    let cluster = Cluster::start();
    let answer = call!(cluster, who_am_i, v1::WhoAmIRequest {}).unwrap();
    assert_eq!(
        (answer.name.as_str(), answer.role.as_str(), answer.cluster_name.as_str()),
        ("alice", "admin", "test")
    );
    assert_eq!(answer.cluster, "07".repeat(16));
    assert_eq!(answer.expires, "");
}

#[tokio::test]
async fn status_and_explanations_are_of_now() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let point = cluster.node.makes_point(web, MAIN, cluster.worker);
    let report = call!(cluster, get_status, v1::GetStatusRequest {}).unwrap();
    assert_eq!((report.items, report.cluster_name.as_str()), (1, "test"));
    assert_eq!(
        (report.coordinators[0].name.as_str(), report.coordinators[0].leader),
        ("c1", true)
    );
    assert_eq!(report.attention, [""; 0]);
    let explain = |kind: &str, name: &str| v1::ExplainRequest {
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let item = call!(cluster, explain, explain("item", "web")).unwrap();
    assert_eq!(item.what, "item web in vault main: no schedule");
    let newest = call!(cluster, explain, explain("point", "web")).unwrap();
    assert!(newest.what.contains(&point.to_string()));
    refused_for(call!(cluster, explain, explain("vault", "main")), "kind");
    refused(call!(cluster, explain, explain("job", "seven")), "missing");
    refused(call!(cluster, explain, explain("item", "mail")), "missing");
}

#[tokio::test]
async fn what_cannot_be_answered_now_is_to_be_asked_again() {
    let cluster = Cluster::start();
    cluster.node.fail_with(Some(crate::node::NodeError::NotLeader {
        leader: Some(tresor_proto::ids::MemberId(1)),
    }));
    let status = refused(call!(cluster, get_status, v1::GetStatusRequest {}), "retry");
    assert_eq!(
        (status.code(), info(&status).leader.as_str()),
        (Code::Unavailable, "c1:7700")
    );
    cluster.node.fail_with(Some(crate::node::NodeError::NoMajority));
    refused(call!(cluster, list_items, v1::ListItemsRequest::default()), "retry");
}
