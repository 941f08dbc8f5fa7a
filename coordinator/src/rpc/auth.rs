//! Finds out who calls, and whether they may.
//!
//! A caller is known by one of four things, looked at in this order:
//! 1. the local socket of an embedded node: the file system let them in; or the node's own process, which has a worker in it;
//! 2. the certificate of a worker or a coordinator, checked in the handshake and again with each call, since nodes are removed and certificates end
//!    while connections stand;
//! 3. of a coordinator that hands on a call: whom it names. Whoever has a coordinator's key has the cluster key too, so this gives away nothing;
//! 4. an API token, compared with the hashes in the state.
//!
//! The state here may be behind the log. What is removed, revoked or ended stays so, and is refused at once; what is *unknown* may be new, and is refused
//! only by a leader that has made sure that it knows everything. A member that follows hands such a call on, or asks to be asked again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tresor_proto::ids::{MemberId, TokenId, WorkerId};
use tresor_proto::tls::{PeerCertificate, PeerInfo, Revocations, Role as NodeRole};
use tresor_proto::v1::ErrorInfo;

use super::caller::Caller;
use super::forward;
use super::guesses::{Guesses, Place};
use super::metrics::Denied;
use super::permissions::{Access, LOCAL};
use crate::node::{Handle, NodeError};
use crate::security::token::{ApiToken, TokenHash};
use crate::state::State;
use crate::state::entry::{Actor, Time};
use crate::state::rows::{Token, TokenUse};

/// What everybody hears whose token is not good, whatever is wrong with it.
const NOT_GOOD: &str = "the token is not good here";

/// A call turned away, and as what it is counted.
#[derive(Debug)]
pub(crate) struct TurnedAway {
    pub(crate) why: Denied,
    pub(crate) status: Box<Status>,
}

impl TurnedAway {
    fn new(why: Denied, code: Code, message: impl Into<String>, hint: &str) -> Self {
        let kind = match code {
            Code::Unavailable | Code::ResourceExhausted => "retry",
            Code::Unimplemented => "invalid",
            _ => "denied",
        };
        Self {
            why,
            status: Box::new(refusal(code, kind, message, hint, "")),
        }
    }
}

/// A status with an [`ErrorInfo`] among its details.
pub(crate) fn refusal(code: Code, kind: &str, message: impl Into<String>, hint: &str, leader: &str) -> Status {
    let info = ErrorInfo {
        kind: kind.to_owned(),
        field: String::new(),
        hint: hint.to_owned(),
        leader: leader.to_owned(),
    };
    Status::with_details(code, message, prost::Message::encode_to_vec(&info).into())
}

/// Who calls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// This one.
    Known(Caller),
    /// Nothing was shown.
    Nobody,
    /// A token that this member does not know, and the leader may.
    Undecided,
}

/// Which nodes the state says are removed: asked in every handshake and with every call.
#[derive(Debug, Clone)]
pub struct Removed(Handle);

impl Removed {
    /// As this member knows it.
    pub fn new(handle: Handle) -> Self {
        Self(handle)
    }
}

impl Revocations for Removed {
    fn is_revoked(&self, peer: &PeerCertificate) -> bool {
        self.0.read(|state| match peer.name.role {
            NodeRole::Worker => state
                .workers()
                .get(&WorkerId(peer.name.id))
                .is_some_and(|row| row.removed),
            NodeRole::Coordinator => state
                .members()
                .get(&MemberId(peer.name.id))
                .is_some_and(|row| row.removed),
        })
    }
}

/// What the state says of a token.
enum TokenRow {
    /// There is none.
    Unknown,
    /// This, at that time.
    Found(Token, Time),
}

/// Finds out who calls.
#[derive(Debug)]
pub(crate) struct Auth {
    handle: Handle,
    removed: Removed,
    guesses: Mutex<Guesses>,
    since: Instant,
}

impl Auth {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            removed: Removed::new(handle.clone()),
            handle,
            guesses: Mutex::new(Guesses::default()),
            since: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn guesses(&self) -> MutexGuard<'_, Guesses> {
        // Every change of the table is whole when it panics.
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out who makes a call that needs `access`, and whether they may.
    pub(crate) async fn admit(
        &self,
        access: Access,
        headers: &HeaderMap,
        peer: &PeerInfo,
        wall: jiff::Timestamp,
    ) -> Result<Identity, TurnedAway> {
        if access == Access::Anyone {
            return Ok(Identity::Nobody);
        }
        let identity = self.identify(access, headers, peer, wall).await?;
        match &identity {
            Identity::Known(caller) if access.is_given_to(&caller.role) => Ok(identity),
            Identity::Known(caller) => {
                let message = format!(
                    "{} may not do this as {}: it is for {}",
                    caller.name,
                    caller.role,
                    access.holders()
                );
                Err(TurnedAway::new(Denied::Role, Code::PermissionDenied, message, ""))
            }
            Identity::Nobody if access.is_for_people() => Err(TurnedAway::new(
                Denied::Nothing,
                Code::Unauthenticated,
                "no token was shown",
                "tresor login",
            )),
            Identity::Nobody => Err(TurnedAway::new(
                Denied::Nothing,
                Code::Unauthenticated,
                format!("this is for a {}, which shows its certificate", access.holders()),
                "",
            )),
            Identity::Undecided => Ok(identity),
        }
    }

    async fn identify(
        &self,
        access: Access,
        headers: &HeaderMap,
        peer: &PeerInfo,
        wall: jiff::Timestamp,
    ) -> Result<Identity, TurnedAway> {
        let names_caller = headers.contains_key(forward::CALLER);
        let certificate = match peer {
            PeerInfo::Local { uid } => {
                return Ok(Identity::Known(Caller {
                    actor: Actor::Local { uid: *uid },
                    name: format!("local user {uid}"),
                    role: LOCAL.to_owned(),
                }));
            }
            PeerInfo::Inside { worker } => return self.worker(WorkerId(*worker)).await.map(Identity::Known),
            PeerInfo::Remote { certificate, .. } => certificate.as_ref(),
        };
        let Some(certificate) = certificate else {
            if names_caller {
                return Err(not_a_coordinator());
            }
            return self.by_token(headers, peer, wall).await;
        };
        if let Err(error) = peer.check(&self.removed, wall.as_second()) {
            let message = error.to_string();
            return Err(TurnedAway::new(
                Denied::Certificate,
                Code::Unauthenticated,
                message,
                "a removed node can join again as a new one",
            ));
        }
        let id = certificate.name.id;
        match certificate.name.role {
            NodeRole::Worker if names_caller => Err(not_a_coordinator()),
            NodeRole::Worker => self.worker(WorkerId(id)).await.map(Identity::Known),
            NodeRole::Coordinator if names_caller => self.forwarded(headers, wall).await.map(Identity::Known),
            // Handed on by a member that does not know the token.
            NodeRole::Coordinator if headers.contains_key(forward::FORWARDED) && access.is_for_people() => {
                self.by_token(headers, peer, wall).await
            }
            NodeRole::Coordinator => Ok(Identity::Known(self.member(MemberId(id)))),
        }
    }

    /// A coordinator, by its number. One that the state does not have is newer than the state: its certificate was made after its entry.
    fn member(&self, id: MemberId) -> Caller {
        let name = self
            .handle
            .read(|state| state.members().get(&id).map(|row| row.name.clone()));
        Caller {
            actor: Actor::Member(id),
            name: name.unwrap_or_else(|| format!("coordinator {id}")),
            role: NodeRole::Coordinator.to_string(),
        }
    }

    /// A worker, by its number, if the state has it and it is not removed.
    async fn worker(&self, id: WorkerId) -> Result<Caller, TurnedAway> {
        let look = |state: &State| state.workers().get(&id).map(|row| (row.name.clone(), row.removed));
        let mut found = self.handle.read(look);
        if found.is_none() {
            // A worker that joined a moment ago.
            self.catch_up().await?;
            found = self.handle.read(look);
        }
        match found {
            Some((name, false)) => Ok(Caller {
                actor: Actor::Worker(id),
                name,
                role: NodeRole::Worker.to_string(),
            }),
            removed => {
                let what = removed.map_or("is not known", |_| "was removed");
                Err(TurnedAway::new(
                    Denied::Certificate,
                    Code::Unauthenticated,
                    format!("worker {id} {what} in this cluster"),
                    "a removed node can join again as a new one",
                ))
            }
        }
    }

    /// Makes sure that what is not known here is not known at all.
    async fn catch_up(&self) -> Result<(), TurnedAway> {
        self.handle.barrier().await.map_err(|error| TurnedAway {
            why: Denied::Certificate,
            status: Box::new(unavailable(&self.handle, &error)),
        })
    }

    /// Whom a coordinator names, as far as the state here does not say otherwise: it may know more than the one that hands on.
    async fn forwarded(&self, headers: &HeaderMap, wall: jiff::Timestamp) -> Result<Caller, TurnedAway> {
        let caller = forward::read(headers).ok_or_else(|| {
            TurnedAway::new(
                Denied::Certificate,
                Code::InvalidArgument,
                "the coordinator that handed this on names nobody that this one understands",
                "run the same version of tresor on all coordinators",
            )
        })?;
        match &caller.actor {
            Actor::Token(id) => match self.token_row(*id, wall).await? {
                Some(TokenRow::Found(row, now)) => match good(&row, now) {
                    Ok(role) => Ok(Caller { role, ..caller }),
                    Err(hint) => Err(not_good(hint)),
                },
                _ => Err(not_good("nobody knows it")),
            },
            Actor::Worker(id) => self.worker(*id).await,
            Actor::Member(id) => {
                let is_removed = |state: &State| state.members().get(id).is_some_and(|row| row.removed);
                if self.handle.read(is_removed) {
                    let message = format!("coordinator {id} was removed from the cluster");
                    return Err(TurnedAway::new(Denied::Certificate, Code::Unauthenticated, message, ""));
                }
                Ok(self.member(*id))
            }
            Actor::Local { .. } => Ok(caller),
            // Nobody calls as these.
            Actor::Cluster | Actor::Founder => Err(not_a_coordinator()),
        }
    }

    /// The row of a token; none if this member cannot say whether there is one.
    async fn token_row(&self, id: TokenId, wall: jiff::Timestamp) -> Result<Option<TokenRow>, TurnedAway> {
        let look = |state: &State| match state.tokens().get(&id) {
            Some(row) => TokenRow::Found(row.clone(), expiry_clock(state, wall)),
            None => TokenRow::Unknown,
        };
        if let found @ TokenRow::Found(..) = self.handle.read(look) {
            return Ok(Some(found));
        }
        if !self.handle.leadership().borrow().is_me {
            return Ok(None);
        }
        self.catch_up().await?;
        Ok(Some(self.handle.read(look)))
    }

    async fn by_token(
        &self,
        headers: &HeaderMap,
        peer: &PeerInfo,
        wall: jiff::Timestamp,
    ) -> Result<Identity, TurnedAway> {
        let place = place(peer);
        let token = match ApiToken::find(&MetadataMap::from_headers(only_authorization(headers))) {
            Ok(Some(token)) => token,
            Ok(None) => return Ok(Identity::Nobody),
            Err(error) => {
                self.check_guesses(place, None)?;
                self.note_failure(peer);
                return Err(not_good(&error.to_string()));
            }
        };
        self.check_guesses(place, Some(token.id))?;
        let Some(row) = self.token_row(token.id, wall).await? else {
            return Ok(Identity::Undecided);
        };
        let checked = match row {
            TokenRow::Unknown => Err("nobody knows it: perhaps it is of another cluster"),
            TokenRow::Found(row, now) => match postcard::from_bytes::<TokenHash>(&row.hash) {
                Ok(hash) if hash.matches(token.id, &token.secret) => good(&row, now).map(|role| (row.name, role)),
                _ => Err("its secret is another"),
            },
        };
        match checked {
            Ok((name, role)) => {
                if let Some(place) = place {
                    self.guesses().succeeded(place, token.id, self.now_ms());
                }
                Ok(Identity::Known(Caller {
                    actor: Actor::Token(token.id),
                    name,
                    role,
                }))
            }
            Err(hint) => {
                tracing::info!(token = %token, ?peer, reason = hint, "token refused");
                self.note_failure(peer);
                Err(not_good(hint))
            }
        }
    }

    /// Refuses to look at what comes from where too much failed lately.
    pub(crate) fn check_guesses(&self, place: Option<Place>, token: Option<TokenId>) -> Result<(), TurnedAway> {
        let Some(place) = place else {
            return Ok(());
        };
        let now = self.now_ms();
        let guesses = self.guesses();
        let Some(wait) = guesses.wait(place, now) else {
            return Ok(());
        };
        if token.is_some_and(|token| guesses.is_known(place, token, now)) {
            return Ok(());
        }
        Err(TurnedAway::new(
            Denied::Guesses,
            Code::ResourceExhausted,
            format!(
                "too many tokens that were not good came from this address: wait {} s",
                wait.div_ceil(1000)
            ),
            "",
        ))
    }

    /// Notes that something that was shown was not good.
    pub(crate) fn note_failure(&self, peer: &PeerInfo) {
        if let Some(place) = place(peer) {
            self.guesses().failed(place, self.now_ms());
        }
    }
}

/// Where failures of a peer are counted: not those of the local user, nor of coordinators, which hand on those of others.
pub(crate) fn place(peer: &PeerInfo) -> Option<Place> {
    match peer {
        PeerInfo::Remote {
            address,
            certificate: None,
        } => Some(Place::of(address.ip())),
        _ => None,
    }
}

/// Why no answer can be had from this member.
pub(crate) fn unavailable(handle: &Handle, error: &NodeError) -> Status {
    let leader = match error {
        NodeError::NotLeader { leader: Some(leader) } => handle.read(|state| address(state, *leader)),
        _ => None,
    };
    refusal(
        Code::Unavailable,
        "retry",
        error.to_string(),
        "ask again in a moment",
        &leader.unwrap_or_default(),
    )
}

/// Where a member is.
pub(crate) fn address(state: &State, id: MemberId) -> Option<String> {
    state.members().get(&id).map(|member| member.address.clone())
}

fn not_a_coordinator() -> TurnedAway {
    TurnedAway::new(
        Denied::Certificate,
        Code::PermissionDenied,
        "only coordinators say on whose behalf a call is",
        "",
    )
}

fn not_good(hint: &str) -> TurnedAway {
    TurnedAway::new(Denied::Token, Code::Unauthenticated, NOT_GOOD, hint)
}

/// The clock that decides whether a token has ended. The state's stands still while nothing is written, so the wall clock of this machine counts
/// too; but not while a person has yet to say which clock is right.
fn expiry_clock(state: &State, wall: jiff::Timestamp) -> Time {
    if state.marks().clock_is_doubted() {
        state.now()
    } else {
        state.now().max(wall.into())
    }
}

/// The role of a token whose secret was shown, or what is wrong with the token.
fn good(row: &Token, now: Time) -> Result<String, &'static str> {
    let TokenUse::Api { role } = &row.used_for else {
        return Err("it is a join token, with which nodes join");
    };
    if row.revoked {
        return Err("it was revoked: ask an administrator for another one");
    }
    if !row.is_good(now) {
        return Err("its time is over: ask an administrator for another one");
    }
    Ok(role.clone())
}

/// The one header that a token is looked for in.
fn only_authorization(headers: &HeaderMap) -> HeaderMap {
    let mut only = HeaderMap::new();
    if let Some(value) = headers.get(http::header::AUTHORIZATION) {
        only.insert(http::header::AUTHORIZATION, value.clone());
    }
    only
}
