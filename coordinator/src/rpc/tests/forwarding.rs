//! Calls that come to a member that does not lead.

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tresor_proto::ids::{JobId, MemberId, WorkerId};
use tresor_proto::tls::Role;
use tresor_proto::token::ApiToken;
use tresor_proto::v1;
use tresor_proto::v1::ErrorInfo;
use tresor_proto::v1::admin_client::AdminClient;
use tresor_proto::v1::agent_client::AgentClient;
use tresor_proto::v1::peer_server::Peer;

use super::super::metrics::Metrics;
use super::super::server::{Listeners, Served, serve};
use super::super::testing::{Cluster, Stop, listener};
use crate::node::presence::Presence;
use crate::node::testing::TestNode;
use crate::state::State;
use crate::state::command::{Command, MemberSpec};
use crate::state::entry::Time;
use crate::testing::{Acts as _, LIFE, MAIN};

/// Takes nothing, and says so when the stream ends.
pub(super) struct NoPeer;

#[tonic::async_trait]
impl Peer for NoPeer {
    async fn messages(
        &self,
        request: Request<Streaming<v1::RaftMessage>>,
    ) -> Result<tonic::Response<v1::MessagesEnd>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        Ok(tonic::Response::new(v1::MessagesEnd {}))
    }

    async fn snapshot(
        &self,
        _: Request<Streaming<v1::SnapshotPiece>>,
    ) -> Result<tonic::Response<v1::SnapshotResult>, Status> {
        Ok(tonic::Response::new(v1::SnapshotResult::default()))
    }
}

/// The first job that waits.
pub(super) fn any_job(state: &State, _: &Presence, _: WorkerId, _: Time, _: u64) -> Option<JobId> {
    state
        .open_jobs()
        .find(|id| state.jobs().get(id).is_some_and(|job| job.running().is_none()))
}

/// A member with all its services, as coordinator `id`.
pub(super) async fn member(cluster: &Cluster, node: &TestNode, id: u64, listeners: Listeners) -> Stop {
    let stop = CancellationToken::new();
    let served = Served {
        services: cluster.services(node),
        key: cluster.key.clone(),
        identity: cluster.identity(Role::Coordinator, id),
        keys_here: None,
        placement: Arc::new(any_job),
        peer: NoPeer,
        metrics: Arc::new(Metrics::new()),
        folder: None,
        beside: None,
    };
    tokio::spawn(serve(listeners, served, stop.clone()));
    Stop(stop)
}

fn over(network: tokio::net::TcpListener) -> Listeners {
    Listeners {
        network: Some(network),
        ..Listeners::default()
    }
}

/// A leader, coordinator 2, and a member that follows it, coordinator 1. Every entry of one is an entry of the other.
struct Pair {
    cluster: Cluster,
    leader: TestNode,
    follower: TestNode,
    leader_address: String,
    address: String,
    copied: usize,
    /// The leader's server.
    leads: Option<Stop>,
    _follows: Stop,
}

impl Pair {
    async fn new() -> Self {
        let cluster = Cluster::new();
        let (to_follower, address) = listener().await;
        let (to_leader, leader_address) = listener().await;
        // Each test node calls itself 1; who it is to others stands in its certificate.
        let mut leader = cluster.found(&address);
        leader.does(Command::AddMember(MemberSpec {
            member: MemberId(2),
            name: String::from("c2"),
            address: leader_address.clone(),
            token: None,
        }));
        let follower = TestNode::empty();
        follower.set_leader(MemberId(2));
        let leads = member(&cluster, &leader, 2, over(to_leader)).await;
        let follows = member(&cluster, &follower, 1, over(to_follower)).await;
        let mut pair = Self {
            cluster,
            leader,
            follower,
            leader_address,
            address,
            copied: 0,
            leads: Some(leads),
            _follows: follows,
        };
        pair.catch_up();
        pair
    }

    /// Applies at the follower what the leader has applied.
    fn catch_up(&mut self) {
        let entries = self.leader.entries();
        for entry in &entries[self.copied..] {
            self.follower
                .apply(entry.actor.clone(), entry.key, entry.command.clone());
        }
        self.copied = entries.len();
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.cluster.program(&self.address))
    }
}

fn with<T>(token: &ApiToken, message: T) -> Request<T> {
    let mut request = Request::new(message);
    token.attach(request.metadata_mut());
    request
}

fn info(status: &Status) -> ErrorInfo {
    <ErrorInfo as prost::Message>::decode(status.details()).unwrap()
}

#[tokio::test]
async fn a_member_that_follows_has_the_leader_answer_in_the_callers_name() {
    let mut pair = Pair::new().await;
    let token = pair.cluster.token(&mut pair.leader, "operator", None);
    pair.catch_up();
    let answer = pair
        .admin()
        .who_am_i(with(&token, v1::WhoAmIRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.name.as_str(), answer.role.as_str()),
        ("operator token", "operator")
    );
    // The leader's permissions hold, and its log says who it was.
    let refused = pair
        .admin()
        .confirm_clock(with(&token, v1::ConfirmClockRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let admin = pair.cluster.token(&mut pair.leader, "admin", None);
    pair.catch_up();
    let request = v1::CreateJoinTokenRequest {
        idempotency_key: vec![7; 16].into(),
        role: String::from("worker"),
        ..v1::CreateJoinTokenRequest::default()
    };
    pair.admin().create_join_token(with(&admin, request)).await.unwrap();
    let entry = pair.leader.entries().pop().unwrap();
    assert_eq!(entry.actor, crate::state::entry::Actor::Token(admin.id));
}

#[tokio::test]
async fn a_token_that_only_the_leader_knows_yet_is_good_everywhere() {
    let mut pair = Pair::new().await;
    let token = pair.cluster.token(&mut pair.leader, "auditor", None);
    let answer = pair
        .admin()
        .who_am_i(with(&token, v1::WhoAmIRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.role, "auditor");
    let unknown = ApiToken::random().unwrap();
    let refused = pair
        .admin()
        .who_am_i(with(&unknown, v1::WhoAmIRequest {}))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), info(&refused).kind.as_str()),
        (Code::Unauthenticated, "denied")
    );
}

#[tokio::test]
async fn a_token_that_the_leader_has_revoked_is_revoked_everywhere() {
    let mut pair = Pair::new().await;
    let token = pair.cluster.token(&mut pair.leader, "admin", None);
    pair.catch_up();
    pair.cluster.revoke(&mut pair.leader, token.id);
    let refused = pair
        .admin()
        .who_am_i(with(&token, v1::WhoAmIRequest {}))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn guesses_through_a_member_that_follows_are_counted_there() {
    let pair = Pair::new().await;
    let mut last = Code::Ok;
    let mut admin = pair.admin();
    for _ in 0..15 {
        let guess = ApiToken::random().unwrap();
        last = admin
            .who_am_i(with(&guess, v1::WhoAmIRequest {}))
            .await
            .unwrap_err()
            .code();
    }
    assert_eq!(last, Code::ResourceExhausted);
}

#[tokio::test]
async fn streams_and_calls_that_wait_pass_through() {
    let mut pair = Pair::new().await;
    let (worker, identity) = pair.cluster.worker(&mut pair.leader, "w1");
    let token = pair.cluster.token(&mut pair.leader, "read-only", None);
    pair.catch_up();
    // A worker waits for work at the member that follows.
    let mut agent = AgentClient::new(pair.cluster.node(&pair.address, identity));
    let mut asking = agent.clone();
    let wait = tokio::spawn(async move {
        let request = v1::NextLeaseRequest {
            life: LIFE.to_vec().into(),
            free: 1,
            wait_ms: 20_000,
        };
        asking.next_lease(request).await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!wait.is_finished(), "there is no work yet");
    let secret = [9; 32];
    let key = super::super::context::SecretBox::wrap_vault_key(&pair.cluster.key, MAIN, &secret).unwrap();
    let job = pair.leader.makes(Command::AddVault(crate::state::command::VaultSpec {
        vault: MAIN,
        name: String::from("main"),
        url: String::from("file:///srv/main"),
        region: String::new(),
        profile: String::new(),
        origin: crate::state::command::VaultOrigin::Make,
        key,
    }));
    let lease = wait.await.unwrap().unwrap().into_inner().lease.unwrap();
    assert_eq!(lease.id.unwrap().job, job);
    assert_eq!(lease.vault.unwrap().key.as_ref(), secret);
    // A person watches the job there.
    let mut jobs = pair
        .admin()
        .watch_job(with(&token, v1::WatchJobRequest { id: job }))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(jobs.next().await.unwrap().unwrap().state, "running");
    let complete = v1::CompleteRequest {
        report: None,
        id: lease.id,
        session: lease.session,
        counts: None,
        outcome: Some(v1::complete_request::Outcome::Claimed(v1::Claimed {
            n: 1,
            cluster: 5,
            header: vec![3; 32].into(),
            points_unreadable: 0,
        })),
    };
    agent.complete(complete).await.unwrap();
    let last = loop {
        match jobs.next().await {
            Some(job) => {
                let job = job.unwrap();
                if job.state == "done" {
                    break job;
                }
            }
            None => panic!("the stream ended before the job"),
        }
    };
    assert_eq!(last.id, job);
    assert!(jobs.next().await.is_none(), "a job that has ended changes no more");
    assert_eq!(
        worker,
        WorkerId(
            pair.leader
                .read(|state| state.jobs().get(&JobId(job)).unwrap().attempts[0].worker.0)
        )
    );
}

#[tokio::test]
async fn a_call_that_was_handed_on_is_not_handed_on_again() {
    let mut pair = Pair::new().await;
    let token = pair.cluster.token(&mut pair.leader, "admin", None);
    pair.catch_up();
    // Each believes that the other one leads.
    pair.leader.set_leader(MemberId(2));
    let refused = pair
        .admin()
        .who_am_i(with(&token, v1::WhoAmIRequest {}))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let info = info(&refused);
    assert_eq!(
        (info.kind.as_str(), info.leader.as_str()),
        ("retry", pair.leader_address.as_str())
    );
}

#[tokio::test]
async fn a_leader_that_is_gone_is_to_be_asked_again_and_one_that_comes_is_waited_for() {
    let mut pair = Pair::new().await;
    let token = pair.cluster.token(&mut pair.leader, "admin", None);
    pair.catch_up();
    let mut admin = pair.admin();
    admin.who_am_i(with(&token, v1::WhoAmIRequest {})).await.unwrap();
    drop(pair.leads.take());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = admin.who_am_i(with(&token, v1::WhoAmIRequest {})).await.unwrap_err();
    assert_eq!(
        (refused.code(), info(&refused).kind.as_str()),
        (Code::Unavailable, "retry")
    );
    // Nobody leads any more; the member that is left is elected while the call waits.
    pair.follower.forget_leader();
    let elected = pair.follower.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        elected.set_leader(MemberId(1));
    });
    let begun = std::time::Instant::now();
    let answer = admin
        .who_am_i(with(&token, v1::WhoAmIRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.role, "admin");
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "it waited for the election"
    );
}
