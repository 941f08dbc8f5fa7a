//! Hands calls on to the leader, as they came: headers and bodies pass through, in both directions.
//!
//! A call that was handed on is marked, and is not handed on again: while members disagree on who leads, it would go round in circles.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use serde::{Deserialize, Serialize};
use tonic::body::Body;
use tonic::metadata::{Binary, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tower::ServiceExt as _;
use tresor_proto::ids::MemberId;
use tresor_proto::tls::{ConnectError, Connector, PeerName, Revocations, Role, SharedIdentity, Trust};

use super::caller::Caller;
use crate::state::entry::Actor;

/// Names the caller of a call that was handed on.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("tresor-caller-bin");
/// Says that a call was handed on.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("tresor-forwarded");
/// Connections to the leader. A server takes 256 calls of each at a time, and of a thousand workers every one may wait for work through this member.
const CONNECTIONS: usize = 8;
/// The form of a named caller.
const FORM: u8 = 1;
/// Longest name of a caller that is read.
const CALLER_BYTES_MAX: usize = 4096;

/// A caller as it travels.
#[derive(Serialize, Deserialize)]
struct Named {
    actor: Actor,
    name: String,
    role: String,
}

/// Names a caller among headers.
fn write(headers: &mut HeaderMap, caller: &Caller) {
    let named = Named {
        actor: caller.actor.clone(),
        name: caller.name.clone(),
        role: caller.role.clone(),
    };
    let bytes = postcard::to_extend(&named, vec![FORM]).expect("a caller is plain data and memory can be had");
    let value = MetadataValue::<Binary>::from_bytes(&bytes);
    let value = HeaderValue::from_bytes(value.as_encoded_bytes()).expect("base64 is fine in a header");
    headers.insert(CALLER, value);
}

/// The caller that headers name, if there is one that can be read. Whether they are to be believed is the caller's to know.
pub(crate) fn read(headers: &HeaderMap) -> Option<Caller> {
    let mut values = headers.get_all(CALLER).iter();
    let value = values.next()?;
    if values.next().is_some() || value.len() > CALLER_BYTES_MAX {
        return None;
    }
    let mut only = HeaderMap::new();
    only.insert(CALLER, value.clone());
    let bytes = MetadataMap::from_headers(only)
        .get_bin(CALLER.as_str())?
        .to_bytes()
        .ok()?;
    let (form, rest) = bytes.split_first()?;
    if *form != FORM {
        return None;
    }
    let (named, left): (Named, _) = postcard::take_from_bytes(rest).ok()?;
    left.is_empty().then_some(Caller {
        actor: named.actor,
        name: named.name,
        role: named.role,
    })
}

/// Channels to one leader.
struct Channels {
    leader: MemberId,
    address: String,
    channels: Vec<Channel>,
}

/// Hands calls on.
pub(crate) struct Forwarder {
    identity: SharedIdentity,
    revocations: Arc<dyn Revocations>,
    to: Mutex<Option<Channels>>,
    turn: AtomicUsize,
}

impl Forwarder {
    /// Prepares to hand on as this coordinator.
    pub(crate) fn new(identity: SharedIdentity, revocations: Arc<dyn Revocations>) -> Self {
        Self {
            identity,
            revocations,
            to: Mutex::new(None),
            turn: AtomicUsize::new(0),
        }
    }

    fn channel(&self, leader: MemberId, address: &str) -> Result<Channel, ConnectError> {
        // Channels are made under this lock, and connect later.
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
        if let Some(to) = to.as_ref().filter(|to| to.leader == leader && to.address == address) {
            return Ok(to.channels[turn].clone());
        }
        let current = self.identity.current();
        let name = PeerName {
            cluster: current.name().cluster,
            role: Role::Coordinator,
            id: leader.0,
        };
        let connector = Connector::with_identity(
            vec![address.to_owned()],
            Trust::exactly(current.ca().clone(), name),
            self.identity.clone(),
            Arc::clone(&self.revocations),
        )?;
        let channels: Vec<Channel> = std::iter::repeat_with(|| connector.channel())
            .take(CONNECTIONS)
            .collect();
        let channel = channels[turn].clone();
        *to = Some(Channels {
            leader,
            address: address.to_owned(),
            channels,
        });
        Ok(channel)
    }

    /// Hands a call on to `leader`, on behalf of `caller`; of nobody where the leader is to look at the token, or the call needs none.
    ///
    /// # Errors
    /// When no connection can be had, or it is lost before the answer begins: the call may have been made or not.
    pub(crate) async fn forward(
        &self,
        request: Request<Body>,
        leader: MemberId,
        address: &str,
        caller: Option<&Caller>,
    ) -> Result<Response<Body>, ForwardError> {
        let channel = self.channel(leader, address)?;
        let (parts, body) = request.into_parts();
        let mut onward = Request::new(body);
        *onward.method_mut() = parts.method;
        *onward.uri_mut() = parts.uri;
        *onward.version_mut() = Version::HTTP_2;
        *onward.headers_mut() = parts.headers;
        let headers = onward.headers_mut();
        headers.insert(FORWARDED, HeaderValue::from_static("1"));
        if let Some(caller) = caller {
            // The leader believes us; the secret need not travel on.
            headers.remove(http::header::AUTHORIZATION);
            write(headers, caller);
        }
        Ok(channel.oneshot(onward).await?)
    }
}

/// Why a call could not be handed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// The address is none, or TLS cannot be prepared.
    #[error("prepare to reach the leader")]
    Connect(#[from] ConnectError),
    /// Nobody answers, or the connection was lost.
    #[error("reach the leader")]
    Transport(#[from] tonic::transport::Error),
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Headers of a call that is handed on.
    pub(crate) fn naming(caller: &Caller) -> HeaderMap {
        let mut headers = HeaderMap::new();
        write(&mut headers, caller);
        headers.insert(FORWARDED, HeaderValue::from_static("1"));
        headers
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use tresor_proto::ids::{TokenId, WorkerId};

    use super::*;

    fn caller(actor: Actor) -> Caller {
        Caller {
            actor,
            name: String::from("Ops’ console"),
            role: String::from("operator"),
        }
    }

    #[test]
    fn a_caller_survives_the_way() {
        for actor in [
            Actor::Token(TokenId([7; 16])),
            Actor::Worker(WorkerId(9)),
            Actor::Member(MemberId(1)),
            Actor::Local { uid: 1000 },
        ] {
            let mut headers = HeaderMap::new();
            write(&mut headers, &caller(actor.clone()));
            assert_eq!(read(&headers), Some(caller(actor)));
        }
    }

    #[test]
    fn what_names_nobody_is_nobody() {
        let mut good = HeaderMap::new();
        write(&mut good, &caller(Actor::Worker(WorkerId(9))));
        let text = good.get(CALLER).unwrap().clone();
        assert_eq!(read(&HeaderMap::new()), None);
        let mut twice = good.clone();
        twice.append(CALLER, text.clone());
        assert_eq!(read(&twice), None, "two callers are none");
        let long = "A".repeat(CALLER_BYTES_MAX + 4);
        for wrong in ["", "!", "AA", "Ag", long.as_str()] {
            let mut headers = HeaderMap::new();
            headers.insert(CALLER, wrong.parse().unwrap());
            assert_eq!(read(&headers), None, "{wrong}");
        }
        for cut in 1..text.len() {
            let mut headers = HeaderMap::new();
            headers.insert(CALLER, HeaderValue::from_bytes(&text.as_bytes()[..cut]).unwrap());
            assert_eq!(read(&headers), None, "cut at {cut}");
        }
    }
}
