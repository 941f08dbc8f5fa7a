//! A cluster with an authority, tokens and nodes, for tests of what stands before and behind the listeners.

use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tresor_proto::ids::{MemberId, TokenId, WorkerId};
use tresor_proto::tls::{Connector, Identity, NothingRevoked, PeerName, Role, SharedIdentity, Trust};
use tresor_proto::token::{ApiToken, JoinToken};

use super::context::{Services, SystemClock};
use crate::node::presence::Presence;
use crate::node::testing::TestNode;
use crate::security::token::TokenHash;
use crate::security::{Authority, ClusterKey, Purpose};
use crate::state::command::{ApiTokenSpec, Command, Founding, JoinTokenSpec, MemberSpec};
use crate::state::entry::{Actor, Time};
use crate::testing::Acts as _;

/// The cluster.
pub(crate) const CLUSTER: [u8; 16] = [0x11; 16];

/// The present moment, Unix seconds: certificates are of the machine's clock.
pub(crate) fn now_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What makes nodes and tokens of one cluster.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    pub(crate) key: ClusterKey,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            authority: Authority::create(CLUSTER, now_seconds()).unwrap(),
            key: ClusterKey::random().unwrap(),
        }
    }

    /// What founds it, with coordinator 1 at an address.
    pub(crate) fn founding(&self, address: &str) -> Command {
        let authority = self.authority.encode().unwrap();
        let wrapped = self.key.wrap(Purpose::Authority, &authority).unwrap();
        Command::Found(Founding {
            cluster: CLUSTER,
            name: String::from("test"),
            ca_certificate: self.authority.certificate().der().to_vec(),
            ca_key: postcard::to_stdvec(&wrapped).unwrap(),
            member: MemberSpec {
                member: MemberId(1),
                name: String::from("c1"),
                address: address.to_owned(),
                token: None,
            },
            admin: None,
        })
    }

    /// Its first coordinator, which leads.
    pub(crate) fn found(&self, address: &str) -> TestNode {
        let node = TestNode::empty();
        node.apply(Actor::Founder, None, self.founding(address))
            .accepted()
            .unwrap();
        node
    }

    /// A certificate and its key.
    pub(crate) fn identity(&self, role: Role, id: u64) -> SharedIdentity {
        let name = PeerName {
            cluster: CLUSTER,
            role,
            id,
        };
        SharedIdentity::new(self.authority.identity(name, now_seconds()).unwrap())
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::any_coordinator(self.authority.certificate().clone(), CLUSTER)
    }

    /// A channel as a program has it.
    pub(crate) fn program(&self, address: &str) -> Channel {
        Connector::new(vec![address.to_owned()], self.trust())
            .unwrap()
            .channel()
    }

    /// A channel as a node has it.
    pub(crate) fn node(&self, address: &str, identity: SharedIdentity) -> Channel {
        let revocations = Arc::new(NothingRevoked);
        Connector::with_identity(vec![address.to_owned()], self.trust(), identity, revocations)
            .unwrap()
            .channel()
    }

    /// What handlers stand on.
    pub(crate) fn services(&self, node: &TestNode) -> Services {
        Services::new(
            node.handle.clone(),
            Arc::new(Mutex::new(Presence::default())),
            Arc::new(SystemClock::start()),
            Arc::new(self.key.clone()),
            "UTC",
        )
    }

    /// A token of a role that the node knows.
    pub(crate) fn token(&self, node: &mut TestNode, role: &str, expires: Option<Time>) -> ApiToken {
        let token = ApiToken::random().unwrap();
        let hash = TokenHash::of(token.id, &token.secret).to_bytes();
        node.does(Command::CreateApiToken(ApiTokenSpec {
            token: token.id,
            name: format!("{role} token"),
            role: role.to_owned(),
            hash,
            expires,
        }));
        token
    }

    /// A join token for a role.
    pub(crate) fn join_token(&self, node: &mut TestNode, role: &str, expires: Time, uses: u32) -> JoinToken {
        let token = JoinToken::random(self.authority.fingerprint()).unwrap();
        let hash = TokenHash::of(token.id, &token.secret).to_bytes();
        node.does(Command::CreateJoinToken(JoinTokenSpec {
            token: token.id,
            role: role.to_owned(),
            hash,
            expires,
            uses,
        }));
        token
    }

    pub(crate) fn revoke(&self, node: &mut TestNode, token: TokenId) {
        node.does(Command::RevokeToken { token });
    }

    /// Joins a worker without asking anybody.
    pub(crate) fn worker(&self, node: &mut TestNode, name: &str) -> (WorkerId, SharedIdentity) {
        let worker = node.adds_worker(name);
        (worker, self.identity(Role::Worker, worker.0))
    }
}

/// An identity of an authority that nobody here knows, with the name of one that is known.
pub(crate) fn stranger(role: Role, id: u64) -> Identity {
    let name = PeerName {
        cluster: CLUSTER,
        role,
        id,
    };
    let authority = Authority::create(CLUSTER, now_seconds()).unwrap();
    authority.identity(name, now_seconds()).unwrap()
}

/// A listener on the loopback, and its address.
pub(crate) async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Cancels when it is dropped.
pub(crate) struct Stop(pub(crate) CancellationToken);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
