//! The calling side: a channel to whichever of a list of addresses answers as who it should be.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use super::shared::SharedIdentity;
use super::verify::{NothingRevoked, Revocations, ServerVerifier, Trust};
use super::{ALPN, VERSIONS, http2, provider};

/// How long one address has for TCP and TLS together. A machine that is off does not answer at all, and the next address waits for that.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Most addresses in a list: coordinators are 3 to 7, with two addresses each at most.
const ADDRESSES_MAX: usize = 32;
/// What TLS calls the other side. It is not sent, and nothing is decided by it.
const SERVER_NAME: &str = "tresor.invalid";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was given.
    #[error("no address to connect to")]
    NoAddress,
    /// More addresses than there can be.
    #[error("{count} addresses, where {ADDRESSES_MAX} at most make sense")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Not a host and a port.
    #[error("{text:?} is not an address like host:7420 or [::1]:7420")]
    Address {
        /// What was given, shortened.
        text: String,
    },
    /// The configuration of TLS does not hold.
    #[error("prepare TLS")]
    Tls(#[source] rustls::Error),
    /// Nobody answers there.
    #[error("connect to {address}")]
    Tcp {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Who answers there is not believed, or does not believe us.
    #[error("agree with {address} on who is who")]
    Handshake {
        /// Where.
        address: String,
        /// What TLS said; [`super::refusal()`] reads it.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s", CONNECT_TIME.as_secs())]
    TimedOut {
        /// Where.
        address: String,
    },
    /// No address of several would do.
    #[error("none of {} addresses would do ({others})", count)]
    All {
        /// How many were tried.
        count: usize,
        /// What was wrong with all but the last, shortened.
        others: String,
        /// What was wrong with the last one.
        #[source]
        last: Box<ConnectError>,
    },
}

/// Checks that a text is a host and a port.
pub(crate) fn check_address(text: &str) -> Result<(), ConnectError> {
    let is_host = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                (1..=253).contains(&host.len())
                    && host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
            }
        }
    };
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err(ConnectError::Address {
            text: text.chars().take(80).collect(),
        }),
    }
}

pub(crate) fn check_addresses(addresses: &[String]) -> Result<(), ConnectError> {
    match addresses.len() {
        0 => Err(ConnectError::NoAddress),
        count if count > ADDRESSES_MAX => Err(ConnectError::TooMany { count }),
        _ => addresses.iter().try_for_each(|text| check_address(text)),
    }
}

/// A client's configuration: TLS 1.3, no resumption, no name sent.
pub(crate) fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<SharedIdentity>,
) -> Result<ClientConfig, ConnectError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(ConnectError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Connects to one address, with the time limit.
pub(crate) async fn connect_one(tls: &TlsConnector, address: &str) -> Result<TlsStream<TcpStream>, ConnectError> {
    let connect = async {
        let stream = TcpStream::connect(address).await.map_err(|source| ConnectError::Tcp {
            address: address.to_owned(),
            source,
        })?;
        // Small messages go at once; a socket that does not know the option works without it.
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name");
        tls.connect(name, stream)
            .await
            .map_err(|source| ConnectError::Handshake {
                address: address.to_owned(),
                source,
            })
    };
    tokio::time::timeout(CONNECT_TIME, connect).await.unwrap_or_else(|_| {
        Err(ConnectError::TimedOut {
            address: address.to_owned(),
        })
    })
}

/// Joins what was wrong with each of several addresses.
pub(crate) fn join_errors(mut errors: Vec<ConnectError>) -> ConnectError {
    let count = errors.len();
    let Some(last) = errors.pop() else {
        return ConnectError::NoAddress;
    };
    if errors.is_empty() {
        return last;
    }
    let others = errors.iter().map(chain).collect::<Vec<_>>().join("; ");
    ConnectError::All {
        count,
        others: others.chars().take(600).collect(),
        last: Box::new(last),
    }
}

/// An error with its causes, in one line.
fn chain(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Makes channels to one peer, or to any of several that are as good.
///
/// Cheap to clone; clones share the addresses.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    tls: TlsConnector,
    trust: Trust,
    addresses: Mutex<Addresses>,
}

/// The list, turned so that the address to try first is the first one.
struct Addresses {
    turned: Vec<String>,
    connected: Option<String>,
}

impl Connector {
    /// Prepares to connect as a program: without a certificate, with a token in each request.
    ///
    /// # Errors
    /// [`ConnectError::NoAddress`], [`ConnectError::TooMany`], [`ConnectError::Address`], [`ConnectError::Tls`].
    pub fn new(addresses: Vec<String>, trust: Trust) -> Result<Self, ConnectError> {
        Self::with(addresses, trust, None, Arc::new(NothingRevoked))
    }

    /// Prepares to connect as a node. Renewed identities are used by the connections made after that.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_identity(
        addresses: Vec<String>,
        trust: Trust,
        identity: SharedIdentity,
        revocations: Arc<dyn Revocations>,
    ) -> Result<Self, ConnectError> {
        Self::with(addresses, trust, Some(identity), revocations)
    }

    fn with(
        addresses: Vec<String>,
        trust: Trust,
        identity: Option<SharedIdentity>,
        revocations: Arc<dyn Revocations>,
    ) -> Result<Self, ConnectError> {
        check_addresses(&addresses)?;
        let verifier = ServerVerifier {
            trust: trust.clone(),
            revocations,
        };
        let config = client_config(Arc::new(verifier), identity)?;
        Ok(Self {
            inner: Arc::new(Inner {
                tls: TlsConnector::from(Arc::new(config)),
                trust,
                addresses: Mutex::new(Addresses {
                    turned: addresses,
                    connected: None,
                }),
            }),
        })
    }

    /// A channel that connects when it is first used, and again when a connection is lost: the address that answered last is tried first, then
    /// the others in their order. A call made while nobody answers fails after all were tried; nothing waits for ever.
    ///
    /// Calls have no time limit of their own, because some wait on purpose: set one for each.
    pub fn channel(&self) -> Channel {
        let inner = Arc::clone(&self.inner);
        http2::endpoint("http://tresor").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let inner = Arc::clone(&inner);
            async move { inner.connect().await.map(TokioIo::new) }
        }))
    }

    /// Connects now, for what is no HTTP/2 or to try whether it works.
    ///
    /// # Errors
    /// By cause; [`ConnectError::All`] when there are several addresses.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        self.inner.connect().await
    }

    /// Takes another list of addresses, for connections made from now on.
    ///
    /// # Errors
    /// [`ConnectError::NoAddress`], [`ConnectError::TooMany`], [`ConnectError::Address`]: the old list stays.
    pub fn set_addresses(&self, addresses: Vec<String>) -> Result<(), ConnectError> {
        check_addresses(&addresses)?;
        self.inner.lock().turned = addresses;
        Ok(())
    }

    /// Tries the next address first from now on: for a peer that answers and cannot help, such as a coordinator without a leader. Channels
    /// keep the connection that they have: ask for another one.
    pub fn skip(&self) {
        self.inner.lock().turned.rotate_left(1);
    }

    /// The addresses, the one to be tried first before the others.
    pub fn addresses(&self) -> Vec<String> {
        self.inner.lock().turned.clone()
    }

    /// The address that answered last.
    pub fn connected_to(&self) -> Option<String> {
        self.inner.lock().connected.clone()
    }

    /// Whom it connects to.
    pub fn trust(&self) -> &Trust {
        &self.inner.trust
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Addresses> {
        // Strings are replaced whole under this lock, so no panic leaves them half done.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let addresses = self.lock().turned.clone();
        let mut errors = Vec::new();
        for address in addresses {
            match connect_one(&self.tls, &address).await {
                Ok(stream) => {
                    let mut addresses = self.lock();
                    // The list may have changed meanwhile.
                    if let Some(at) = addresses.turned.iter().position(|other| *other == address) {
                        addresses.turned.rotate_left(at);
                    }
                    addresses.connected = Some(address);
                    return Ok(stream);
                }
                Err(error) => errors.push(error),
            }
        }
        Err(join_errors(errors))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("trust", &self.inner.trust)
            .field("addresses", &self.inner.lock().turned)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::tls::testing::{CLUSTER, TestAuthority};

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for right in ["localhost:1", "10.0.0.1:65535", "[::1]:7420", "a_b.example-1.org:7420"] {
            check_address(right).unwrap();
        }
        for wrong in [
            "",
            "host",
            "host:",
            ":7420",
            "host:0",
            "host:65536",
            "::1:7420",
            "[::1]",
            "[x]:1",
            "http://host:1",
            "a b:1",
        ] {
            assert!(check_address(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(check_addresses(&[]), Err(ConnectError::NoAddress)));
        let many = vec![String::from("host:1"); ADDRESSES_MAX + 1];
        assert!(matches!(
            check_addresses(&many),
            Err(ConnectError::TooMany { count: 33 })
        ));
    }

    #[test]
    fn a_refused_list_of_addresses_changes_nothing() {
        let trust = Trust::any_coordinator(TestAuthority::new().ca(), CLUSTER);
        let connector = Connector::new(vec!["a:1".into(), "b:2".into()], trust).unwrap();
        connector.set_addresses(vec!["nonsense".into()]).unwrap_err();
        assert_eq!(connector.inner.lock().turned, ["a:1", "b:2"]);
        connector.skip();
        assert_eq!(connector.inner.lock().turned, ["b:2", "a:1"]);
    }

    #[tokio::test]
    async fn what_was_wrong_with_every_address_is_said() {
        // A port that was free a moment ago: nobody listens there.
        let port = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let (first, second) = (port(), port());
        let trust = Trust::any_coordinator(TestAuthority::new().ca(), CLUSTER);
        let connector = Connector::new(vec![first.clone(), second.clone()], trust).unwrap();
        let error = connector.connect().await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(&first) && text.contains(&second), "{text}");
        assert_eq!(connector.connected_to(), None);
    }
}
