//! Nodes that join, and nodes that renew: through the real listeners, from the token to the first call under the new certificate.

use tonic::transport::Channel;
use tonic::{Code, Status};
use tresor_proto::ids::MemberId;
use tresor_proto::tls::{Identity, PeerName, PrivateKey, Role, SharedIdentity, first_contact};
use tresor_proto::token::JoinToken;
use tresor_proto::v1;
use tresor_proto::v1::ErrorInfo;
use tresor_proto::v1::agent_client::AgentClient;
use tresor_proto::v1::join_client::JoinClient;

use super::super::server::Listeners;
use super::super::testing::{CLUSTER, Cluster, Stop, listener};
use super::forwarding::member;
use crate::node::handle::Membership;
use crate::node::testing::TestNode;
use crate::security::ClusterKey;
use crate::state::command::Command;
use crate::state::entry::Time;
use crate::state::rows::TokenUse;
use crate::testing::{Acts as _, LIFE};

const LATER: Time = Time(i64::MAX);

struct Served {
    cluster: Cluster,
    node: TestNode,
    address: String,
    _stop: Stop,
}

async fn served() -> Served {
    let cluster = Cluster::new();
    let (network, address) = listener().await;
    let node = cluster.found(&address);
    node.ask_for_members();
    let listeners = Listeners {
        network: Some(network),
        ..Listeners::default()
    };
    let stop = member(&cluster, &node, 1, listeners).await;
    Served {
        cluster,
        node,
        address,
        _stop: stop,
    }
}

impl Served {
    fn client(&self) -> JoinClient<Channel> {
        JoinClient::new(self.cluster.program(&self.address))
    }

    fn uses_left(&self, token: &JoinToken) -> u32 {
        self.node
            .read(|state| match &state.tokens().get(&token.id).unwrap().used_for {
                TokenUse::Join { uses, .. } => *uses,
                other => panic!("{other:?}"),
            })
    }
}

fn request(token: &JoinToken, key: &PrivateKey, name: &str, drawn: u8) -> v1::JoinRequest {
    v1::JoinRequest {
        token: token.reveal().to_string(),
        csr: key.request().unwrap().into(),
        name: name.to_owned(),
        address: String::new(),
        idempotency_key: vec![drawn; 16].into(),
    }
}

fn info(status: &Status) -> ErrorInfo {
    <ErrorInfo as prost::Message>::decode(status.details()).unwrap()
}

/// What a node makes of the answer.
fn identity(answer: &v1::JoinResponse, key: &PrivateKey) -> Identity {
    let ca = tresor_proto::tls::CaCertificate::from_der(&answer.ca_certificate).unwrap();
    Identity::new(key, &answer.certificate, ca).unwrap()
}

#[tokio::test]
async fn a_worker_joins_with_nothing_but_its_token_and_works_under_its_certificate() {
    let mut served = served().await;
    let token = served.cluster.join_token(&mut served.node, "worker", LATER, 1);
    // The token knows the authority; nothing else is believed.
    let contact = first_contact(std::slice::from_ref(&served.address), token.ca)
        .await
        .unwrap();
    assert_eq!(contact.trust(), served.cluster.trust());
    let key = PrivateKey::generate().unwrap();
    let answer = served
        .client()
        .join(request(&token, &key, "w1", 1))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.role.as_str(), answer.cluster_name.as_str()), ("worker", "test"));
    assert_eq!(answer.cluster.as_ref(), CLUSTER);
    assert_eq!(answer.coordinators, [served.address.clone()]);
    assert!(answer.cluster_key.is_empty(), "that is for coordinators");
    let identity = identity(&answer, &key);
    let name = PeerName {
        cluster: CLUSTER,
        role: Role::Worker,
        id: answer.id,
    };
    assert_eq!(identity.name(), name);
    let channel = served.cluster.node(&served.address, SharedIdentity::new(identity));
    let register = v1::RegisterRequest {
        life: LIFE.to_vec().into(),
        host: String::from("host-1"),
        permits: 2,
        ..v1::RegisterRequest::default()
    };
    let registered = AgentClient::new(channel).register(register).await.unwrap().into_inner();
    assert_eq!(registered.name, "w1");
    assert!(registered.beat_ms * 2 < registered.lease_ms);
    // The trail says that it joined.
    let joined = served
        .node
        .read(|state| state.audit().values().any(|entry| entry.action == "add worker"));
    assert!(joined);
}

#[tokio::test]
async fn a_joining_that_is_repeated_makes_one_node_and_another_one_needs_another_token() {
    let mut served = served().await;
    let token = served.cluster.join_token(&mut served.node, "worker", LATER, 1);
    let key = PrivateKey::generate().unwrap();
    served.node.lose_next_answer();
    let lost = served.client().join(request(&token, &key, "w1", 1)).await.unwrap_err();
    assert_eq!((lost.code(), info(&lost).kind.as_str()), (Code::Unavailable, "retry"));
    assert_eq!(served.uses_left(&token), 0);
    // Perhaps with a new key: the process that asked first may be gone.
    let other = PrivateKey::generate().unwrap();
    let first = served
        .client()
        .join(request(&token, &key, "w1", 1))
        .await
        .unwrap()
        .into_inner();
    let again = served
        .client()
        .join(request(&token, &other, "w1", 1))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.id, again.id);
    assert_eq!(identity(&again, &other).name().id, first.id);
    for (name, drawn) in [("w1", 2), ("w2", 1), ("w2", 2)] {
        let refused = served
            .client()
            .join(request(&token, &key, name, drawn))
            .await
            .unwrap_err();
        assert_ne!(info(&refused).kind, "retry", "{refused:?}");
    }
    assert_eq!(served.node.read(|state| state.workers().len()), 1);
    // Removed meanwhile: the answer that is remembered opens nothing.
    served.node.does(Command::RemoveWorker {
        worker: tresor_proto::ids::WorkerId(first.id),
    });
    let refused = served.client().join(request(&token, &key, "w1", 1)).await.unwrap_err();
    assert_eq!(
        (refused.code(), info(&refused).kind.as_str()),
        (Code::PermissionDenied, "denied")
    );
}

#[tokio::test]
async fn a_coordinator_that_joins_gets_the_cluster_key_and_becomes_a_member() {
    let mut served = served().await;
    let token = served.cluster.join_token(&mut served.node, "coordinator", LATER, 1);
    let key = PrivateKey::generate().unwrap();
    let asked = v1::JoinRequest {
        address: String::from("c2.example:7700"),
        ..request(&token, &key, "c2", 1)
    };
    let answer = served.client().join(asked.clone()).await.unwrap().into_inner();
    assert_eq!(answer.role, "coordinator");
    let handed: [u8; 32] = answer.cluster_key.as_ref().try_into().unwrap();
    assert_eq!(ClusterKey::from_bytes(&handed).id(), served.cluster.key.id());
    let added = Membership::Add {
        member: MemberId(answer.id),
        address: String::from("c2.example:7700"),
    };
    assert_eq!(served.node.memberships(), std::slice::from_ref(&added));
    let again = served.client().join(asked).await.unwrap().into_inner();
    assert_eq!(again.id, answer.id);
    assert_eq!(served.node.memberships(), [added], "a member is added once");
}

#[tokio::test]
async fn a_coordinator_whose_leader_was_lost_in_between_becomes_a_member_before_the_next_one() {
    let mut served = served().await;
    let add = |name: &str, address: &str| {
        Command::AddMember(crate::state::command::MemberSpec {
            member: MemberId(0),
            name: name.to_owned(),
            address: address.to_owned(),
            token: None,
        })
    };
    // Its entry is there, and what was to follow was not done.
    let lost = served.node.makes(add("c2", "c2:7700"));
    let token = served.cluster.join_token(&mut served.node, "coordinator", LATER, 1);
    let key = PrivateKey::generate().unwrap();
    let asked = v1::JoinRequest {
        address: String::from("c3:7700"),
        ..request(&token, &key, "c3", 1)
    };
    let answer = served.client().join(asked).await.unwrap().into_inner();
    let members: Vec<u64> = served
        .node
        .memberships()
        .iter()
        .map(|change| match change {
            Membership::Add { member, .. } => member.0,
            Membership::Remove { .. } => panic!("nobody goes"),
        })
        .collect();
    assert_eq!(members, [lost, answer.id]);
}

#[tokio::test]
async fn a_token_makes_no_other_node_than_it_is_for_and_a_bad_request_uses_none_up() {
    let mut served = served().await;
    let key = PrivateKey::generate().unwrap();
    let worker = served.cluster.join_token(&mut served.node, "worker", LATER, 1);
    let coordinator = served.cluster.join_token(&mut served.node, "coordinator", LATER, 1);
    for (what, asked) in [
        (
            "no key",
            v1::JoinRequest {
                idempotency_key: bytes::Bytes::new(),
                ..request(&worker, &key, "w1", 1)
            },
        ),
        (
            "no csr",
            v1::JoinRequest {
                csr: bytes::Bytes::new(),
                ..request(&worker, &key, "w1", 1)
            },
        ),
        (
            "rubbish for a csr",
            v1::JoinRequest {
                csr: vec![7; 300].into(),
                ..request(&worker, &key, "w1", 1)
            },
        ),
        ("no name", request(&worker, &key, "", 1)),
        ("no address", request(&coordinator, &key, "c2", 1)),
        (
            "an address that nobody can use",
            v1::JoinRequest {
                address: String::from("0.0.0.0:7700"),
                ..request(&coordinator, &key, "c2", 1)
            },
        ),
    ] {
        let refused = served.client().join(asked).await.unwrap_err();
        assert_eq!(
            (refused.code(), info(&refused).kind.as_str()),
            (Code::InvalidArgument, "invalid"),
            "{what}"
        );
    }
    assert_eq!((served.uses_left(&worker), served.uses_left(&coordinator)), (1, 1));
    // The role is the token's, whatever else is asked.
    let asked = v1::JoinRequest {
        address: String::from("c2:7700"),
        ..request(&worker, &key, "w1", 1)
    };
    let answer = served.client().join(asked).await.unwrap().into_inner();
    assert_eq!(answer.role, "worker");
    assert!(answer.cluster_key.is_empty());
    assert!(served.node.memberships().is_empty());
}

#[tokio::test]
async fn a_join_token_that_is_not_good_makes_no_node_and_only_the_hint_says_why() {
    let mut served = served().await;
    let key = PrivateKey::generate().unwrap();
    let good = served.cluster.join_token(&mut served.node, "worker", LATER, 1);
    let ended = served.cluster.join_token(&mut served.node, "worker", Time(1), 1);
    let revoked = served.cluster.join_token(&mut served.node, "worker", LATER, 1);
    served.cluster.revoke(&mut served.node, revoked.id);
    let unknown = JoinToken::random(served.cluster.authority.fingerprint()).unwrap();
    let other_secret = JoinToken {
        id: good.id,
        ..JoinToken::random(good.ca).unwrap()
    };
    let other_ca = JoinToken {
        ca: tresor_proto::tls::Fingerprint([1; 32]),
        id: good.id,
        secret: good.secret.clone(),
    };
    let api = served.cluster.token(&mut served.node, "admin", None);
    let as_join = JoinToken {
        id: api.id,
        secret: api.secret.clone(),
        ca: good.ca,
    };
    let mut texts = std::collections::BTreeSet::new();
    let cases = [
        (request(&ended, &key, "w1", 1), "time is over"),
        (request(&revoked, &key, "w1", 1), "revoked"),
        (request(&unknown, &key, "w1", 1), "nobody knows it"),
        (request(&other_secret, &key, "w1", 1), "secret is another"),
        (request(&other_ca, &key, "w1", 1), "another authority"),
        (request(&as_join, &key, "w1", 1), "person or a program"),
        (
            v1::JoinRequest {
                token: String::from("tresor_join_abc"),
                ..request(&good, &key, "w1", 1)
            },
            "not whole",
        ),
    ];
    for (asked, hint) in cases {
        let refused = served.client().join(asked).await.unwrap_err();
        let said = info(&refused);
        assert_eq!(
            (refused.code(), said.kind.as_str()),
            (Code::Unauthenticated, "denied"),
            "{hint}"
        );
        assert!(said.hint.contains(hint), "{said:?}");
        texts.insert(refused.message().to_owned());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(served.node.read(|state| state.workers().len()), 0);
    // Who goes on guessing is not listened to, and then not even a good one is.
    for _ in 0..10 {
        let guess = JoinToken::random(good.ca).unwrap();
        served.client().join(request(&guess, &key, "w1", 1)).await.unwrap_err();
    }
    let refused = served.client().join(request(&good, &key, "w1", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(served.uses_left(&good), 1);
}

#[tokio::test]
async fn a_node_renews_under_its_own_name_and_a_removed_one_does_not() {
    let mut served = served().await;
    let (worker, old) = served.cluster.worker(&mut served.node, "w1");
    let mut client = JoinClient::new(served.cluster.node(&served.address, old.clone()));
    let key = PrivateKey::generate().unwrap();
    let renew = || v1::RenewRequest {
        csr: key.request().unwrap().into(),
    };
    let answer = client.renew(renew()).await.unwrap().into_inner();
    let ca = tresor_proto::tls::CaCertificate::from_der(&answer.ca_certificate).unwrap();
    let renewed = Identity::new(&key, &answer.certificate, ca).unwrap();
    assert_eq!(renewed.name(), old.current().name());
    assert_ne!(renewed.certificate().serial, old.current().certificate().serial);
    // It takes the place of the old one.
    old.replace(renewed).unwrap();
    let mut coordinator = JoinClient::new(
        served
            .cluster
            .node(&served.address, served.cluster.identity(Role::Coordinator, 1)),
    );
    coordinator.renew(renew()).await.unwrap();
    let refused = client.renew(v1::RenewRequest::default()).await.unwrap_err();
    assert_eq!(info(&refused).field, "csr");
    served.node.does(Command::RemoveWorker { worker });
    let refused = client.renew(renew()).await.unwrap_err();
    assert_eq!(
        (refused.code(), info(&refused).kind.as_str()),
        (Code::Unauthenticated, "denied")
    );
    let nobody = served.client().renew(renew()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
}
