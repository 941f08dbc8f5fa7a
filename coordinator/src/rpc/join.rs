//! How a process becomes a node, and how a node renews its certificate.
//!
//! The order protects: the log decides first (the token is used up, a number is given, in one entry), then a certificate is made for that number. So no
//! certificate has a name that the log does not know, and one token makes as many nodes as it may, whoever leads meanwhile. What is lost on the way is
//! asked for again under the same key and answered with the same number, and with another certificate for it.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use tresor_proto::ids::{MemberId, TokenId, WorkerId};
use tresor_proto::tls::{PeerName, Role};
use tresor_proto::token::JoinToken;
use tresor_proto::v1;
use tresor_proto::v1::join_server::Join;

use super::auth::refusal;
use super::context::{Services, opened};
use super::convert;
use super::refused::Refused;
use crate::node::NodeError;
use crate::node::handle::Membership;
use crate::security::token::TokenHash;
use crate::security::{Authority, AuthorityError, ClusterKey, Purpose};
use crate::state::State;
use crate::state::command::{Command, MemberSpec, WorkerSpec};
use crate::state::entry::{Actor, IdempotencyKey, Time};
use crate::state::reply::{Refusal, Reply};
use crate::state::rows::TokenUse;

/// What everybody hears whose token is not good.
const NOT_GOOD: &str = "the join token is not good here";

/// Serves nodes that join, and nodes that renew.
#[derive(Debug, Clone)]
pub struct JoinService {
    services: Services,
    key: ClusterKey,
    /// One change of the members at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Why a node did not join.
#[derive(Debug)]
enum NotJoined {
    /// The token is not good; the hint says what is wrong with it.
    Token(&'static str),
    /// Something else.
    Refused(Refused),
}

impl<E: Into<Refused>> From<E> for NotJoined {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// A token that was shown, with what the state says it is for.
struct Shown {
    id: TokenId,
    role: Role,
}

/// What the state says of a join token. Whether it still has uses is the log's to say: of a request that is repeated, it has been used up already.
fn check(state: &State, token: &JoinToken, now: Time) -> Result<Shown, &'static str> {
    let row = state
        .tokens()
        .get(&token.id)
        .ok_or("nobody knows it: perhaps it is of another cluster")?;
    let hash: TokenHash = postcard::from_bytes(&row.hash).map_err(|_| "its row is damaged")?;
    if !hash.matches(token.id, &token.secret) {
        return Err("its secret is another");
    }
    let TokenUse::Join { role, .. } = &row.used_for else {
        return Err("it is a token of a person or a program: nodes join with a join token");
    };
    if row.revoked {
        return Err("it was revoked: make another one with tresor cluster join-token");
    }
    if row.expires.is_some_and(|end| end <= now) {
        return Err("its time is over: make another one with tresor cluster join-token");
    }
    let role = role
        .parse()
        .map_err(|_| "it is for nodes that this program does not know")?;
    Ok(Shown { id: token.id, role })
}

/// The key of a joining: of this caller's key, this token and this node, so that nobody gets another one's number by repeating a key.
fn key(token: TokenId, request: &v1::JoinRequest) -> Result<IdempotencyKey, Refused> {
    if request.idempotency_key.len() != 16 {
        let rule = "must have 16 bytes, drawn at random for each joining";
        return Err(Refused::invalid("idempotency_key", rule));
    }
    let mut hasher = blake3::Hasher::new_derive_key("tresor control v1 joining");
    hasher.update(&request.idempotency_key);
    hasher.update(&token.0);
    for text in [&request.name, &request.address] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    Ok(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Whether a text is a host and a port that others can use.
fn check_address(address: &str) -> Result<(), Refused> {
    let wrong = |rule: &str| Refused::invalid("address", rule.to_owned());
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| wrong("must be host:port where other coordinators and workers reach it"))?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified()),
        None => {
            let is_named = (1..=253).contains(&host.len())
                && host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c));
            is_named
                && host
                    .parse::<std::net::Ipv4Addr>()
                    .map_or(true, |ip| !ip.is_unspecified())
        }
    };
    if !is_host || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(wrong("must be host:port where other coordinators and workers reach it"));
    }
    Ok(())
}

impl JoinService {
    /// Serves with the cluster key, which opens the authority.
    pub fn new(services: Services, key: ClusterKey) -> Self {
        Self {
            services,
            key,
            turn: Arc::default(),
        }
    }

    fn status(&self, error: &NotJoined) -> Status {
        match error {
            NotJoined::Token(hint) => refusal(tonic::Code::Unauthenticated, "denied", NOT_GOOD, hint, ""),
            NotJoined::Refused(refused) => self.services.handle.read(|state| refused.status_in(state)),
        }
    }

    /// The authority of the cluster. It is opened for each certificate and dropped after it: nodes join seldom.
    fn authority(&self) -> Result<Authority, Refused> {
        let trouble = |why: String| Refused::Secrets {
            doing: String::from("open the cluster's authority"),
            why,
        };
        let wrapped = self
            .services
            .handle
            .read(|state| state.cluster().map(|cluster| cluster.ca_key.clone()));
        let wrapped = wrapped.ok_or_else(|| trouble(String::from("the cluster is not founded")))?;
        let wrapped = postcard::from_bytes(&wrapped).map_err(|_| trouble(String::from("it is damaged")))?;
        let bytes = self
            .key
            .unwrap(Purpose::Authority, &wrapped)
            .map_err(|error| trouble(error.to_string()))?;
        Authority::decode(&bytes).map_err(|error| trouble(error.to_string()))
    }

    /// A certificate for a node that the log knows.
    fn issue(&self, csr: &[u8], role: Role, id: u64) -> Result<(Authority, Vec<u8>), Refused> {
        let authority = self.authority()?;
        let name = PeerName {
            cluster: authority.cluster(),
            role,
            id,
        };
        let now = self.services.clock.wall().timestamp().as_second();
        match authority.issue(csr, name, now) {
            Ok(issued) => Ok((authority, issued.der)),
            Err(
                error @ (AuthorityError::Request(_) | AuthorityError::RequestLength(_) | AuthorityError::RequestKey),
            ) => Err(Refused::invalid("csr", error.to_string())),
            Err(error) => Err(Refused::Secrets {
                doing: format!("make a certificate for {}", name.short()),
                why: error.to_string(),
            }),
        }
    }

    async fn join(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, NotJoined> {
        let token: JoinToken = request
            .token
            .parse()
            .map_err(|_| NotJoined::Token("it is not whole: copy all of it, from tresor_join_ on"))?;
        let handle = &self.services.handle;
        // Made by another leader a moment ago, it may not be applied here yet.
        handle.barrier().await?;
        let checked = handle.read(|state| {
            let now = self.services.now(state);
            let ca = state
                .cluster()
                .map(|cluster| tresor_proto::tls::Fingerprint::of(&cluster.ca_certificate));
            (check(state, &token, now), ca)
        });
        let shown = match checked {
            (Ok(shown), ca) if ca == Some(token.ca) => shown,
            (Ok(_), _) => return Err(NotJoined::Token("it is of another authority")),
            (Err(hint), _) => {
                tracing::info!(token = %token, reason = hint, "join token refused");
                return Err(NotJoined::Token(hint));
            }
        };
        // What the authority would refuse anyway uses up no token.
        self.check_csr(&request.csr, shown.role)?;
        let key = key(shown.id, &request)?;
        // In the name of this coordinator, which has looked at the token: nobody else is known yet.
        let actor = Actor::Member(handle.me());
        let command = match shown.role {
            Role::Worker => Command::AddWorker(WorkerSpec {
                name: request.name.clone(),
                token: Some(shown.id),
            }),
            Role::Coordinator => {
                check_address(&request.address)?;
                Command::AddMember(MemberSpec {
                    member: MemberId(0),
                    name: request.name.clone(),
                    address: request.address.clone(),
                    token: Some(shown.id),
                })
            }
        };
        let applied = handle.change(actor, Some(key), command).await?;
        let Reply::Made(id) = applied.reply else {
            return Err(NotJoined::Refused(Refused::Bug {
                why: "a joining was answered with something else",
            }));
        };
        // A repeated request may be older than the node's removal.
        self.check_present(shown.role, id)?;
        if shown.role == Role::Coordinator {
            self.add_members(MemberId(id)).await?;
        }
        let (authority, certificate) = self.issue(&request.csr, shown.role, id)?;
        tracing::info!(role = %shown.role, id, name = request.name, "a node has joined");
        let (cluster_name, members, coordinators) = handle.read(|state| {
            let name = state.cluster().map(|cluster| cluster.name.clone());
            let present = state.members().iter().filter(|(_, member)| !member.removed);
            let members: Vec<v1::CoordinatorAddress> = present
                .map(|(id, member)| v1::CoordinatorAddress {
                    id: id.0,
                    address: member.address.clone(),
                })
                .take(convert::ADDRESSES_MAX)
                .collect();
            (name.unwrap_or_default(), members, convert::coordinators(state))
        });
        Ok(v1::JoinResponse {
            id,
            role: shown.role.to_string(),
            cluster: authority.cluster().to_vec().into(),
            cluster_name,
            certificate: certificate.into(),
            ca_certificate: authority.certificate().der().to_vec().into(),
            coordinators,
            members,
            cluster_key: match shown.role {
                Role::Coordinator => self.key.expose().to_vec().into(),
                Role::Worker => bytes::Bytes::new(),
            },
        })
    }

    /// Makes members of Raft of the coordinators that the log knows and Raft does not, up to this one, by their numbers: Raft takes them in this order
    /// only. Of a request that is repeated it may be one already; and one before it may have lost its leader in between.
    async fn add_members(&self, up_to: MemberId) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        let handle = &self.services.handle;
        let standing = handle.standing().await?;
        let missing: Vec<(MemberId, String)> = handle.read(|state| {
            let rows = state.members().range(..=up_to);
            let missing =
                rows.filter(|(id, row)| !row.removed && standing.members.iter().all(|member| member.member != **id));
            missing.map(|(id, row)| (*id, row.address.clone())).collect()
        });
        for (member, address) in missing {
            match handle.membership(Membership::Add { member, address }).await {
                Ok(()) => {}
                // Another change is under way, or too few members are there.
                Err(NodeError::Refused(refusal)) => {
                    tracing::warn!(%member, %refusal, "a coordinator cannot become a member yet");
                    return Err(Refused::Busy {
                        what: "the members of the cluster cannot be changed at the moment",
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether a certificate could be made of a request at all.
    fn check_csr(&self, csr: &[u8], role: Role) -> Result<(), Refused> {
        // Number 0 is nobody's, and what is made here is thrown away.
        self.issue(csr, role, 0).map(|_| ())
    }

    fn check_present(&self, role: Role, id: u64) -> Result<(), Refused> {
        let removed = self.services.handle.read(|state| match role {
            Role::Worker => state.workers().get(&WorkerId(id)).map(|row| row.removed),
            Role::Coordinator => state.members().get(&MemberId(id)).map(|row| row.removed),
        });
        match removed {
            Some(false) => Ok(()),
            _ => Err(Refusal::Denied {
                why: format!("{role} {id} was removed from the cluster"),
            }
            .into()),
        }
    }

    async fn renew(&self, actor: &Actor, csr: &[u8]) -> Result<v1::RenewResponse, Refused> {
        let (role, id) = match actor {
            Actor::Worker(id) => (Role::Worker, id.0),
            Actor::Member(id) => (Role::Coordinator, id.0),
            other => {
                return Err(Refusal::Denied {
                    why: format!("{other} is no node"),
                }
                .into());
            }
        };
        // A removal that another leader has acknowledged counts here.
        self.services.handle.barrier().await?;
        self.check_present(role, id)?;
        let (authority, certificate) = self.issue(csr, role, id)?;
        tracing::info!(%role, id, "a node's certificate was renewed");
        Ok(v1::RenewResponse {
            certificate: certificate.into(),
            ca_certificate: authority.certificate().der().to_vec().into(),
        })
    }
}

#[tonic::async_trait]
impl Join for JoinService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let answer = self.join(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| self.status(&error))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let (caller, request) = opened(request)?;
        let answer = self.renew(&caller.actor, &request.csr).await;
        answer
            .map(Response::new)
            .map_err(|refused| self.services.handle.read(|state| refused.status_in(state)))
    }
}
