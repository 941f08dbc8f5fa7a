//! How a cluster is reached: the socket of a node on this machine, or TLS to its coordinators with the authority pinned and a token in each request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tresor_proto::ids::{hex, unhex};
use tresor_proto::tls::{self, CaCertificate, ConnectError, Connector, Fingerprint, Trust};
use tresor_proto::token::ApiToken;
use tresor_proto::trace;

use super::address::{Address, list};
use super::{Cluster, ClusterError, Kept};
use crate::embedded::Seat;
use crate::screen::Screen;

/// A way to a cluster.
pub(super) enum Way {
    /// The socket of a node on this machine. The file system says who may use it, so no token is shown.
    Socket(PathBuf),
    /// The node of the home, in this process or another.
    Home(Arc<Seat>),
    /// Its coordinators.
    Members {
        /// Knows their addresses, and whom to trust.
        connector: Connector,
        /// As they were given.
        addresses: Vec<String>,
        /// Who we are.
        token: ApiToken,
    },
}

/// Puts the token into each request.
#[derive(Clone)]
pub(crate) struct Bearer(Option<ApiToken>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            token.attach(request.metadata_mut());
        }
        trace::carry_in(&mut request);
        Ok(request)
    }
}

impl Way {
    /// A channel that connects when it is first used, and again after it broke.
    pub(super) fn channel(&self) -> Channel {
        match self {
            Self::Socket(path) => tls::local::channel(path),
            Self::Home(seat) => seat.channel(),
            Self::Members { connector, .. } => connector.channel(),
        }
    }

    pub(super) fn bearer(&self) -> Bearer {
        match self {
            Self::Socket(_) | Self::Home(_) => Bearer(None),
            Self::Members { token, .. } => Bearer(Some(token.clone())),
        }
    }

    /// The next channel goes to the leader, if it is known where that is, else to another member.
    pub(super) fn turn(&self, leader: &str) {
        let Self::Members {
            connector, addresses, ..
        } = self
        else {
            return;
        };
        let known = leader.parse::<Address>().is_ok();
        let others = addresses.iter().filter(|address| *address != leader).cloned();
        // Who answers at an address that we were told is believed no more than who answers at one of ours: its certificate decides.
        let turned = known && {
            let all: Vec<String> = std::iter::once(leader.to_owned()).chain(others).collect();
            connector.set_addresses(all).is_ok()
        };
        if !turned {
            connector.skip();
        }
    }

    /// Who answered last.
    pub(super) fn connected_to(&self) -> Option<Address> {
        match self {
            Self::Socket(_) | Self::Home(_) => None,
            Self::Members { connector, .. } => connector.connected_to()?.parse().ok(),
        }
    }

    /// Whether it failed because who answers is not who was meant.
    pub(super) fn untrusted(&self, status: &Status) -> Option<ClusterError> {
        let Self::Members { addresses, .. } = self else {
            return None;
        };
        let refusal = tls::refusal(status)?;
        Some(ClusterError::Untrusted {
            address: addresses.join(","),
            why: refusal.to_string(),
        })
    }
}

/// What the first talk with a cluster brought.
pub(crate) struct Meeting {
    /// The certificate of its authority, PEM.
    pub(crate) ca: String,
    /// Its id, 32 hexadecimal digits.
    pub(crate) cluster: String,
}

/// Talks with a cluster of which only the fingerprint of its authority is known. Nothing secret is sent.
///
/// # Errors
/// When nobody answers, or nobody whom that authority vouches for.
pub(crate) async fn meet(addresses: &[Address], pinned: Fingerprint) -> Result<Meeting, ClusterError> {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    let contact = tls::first_contact(&texts, pinned).await;
    let contact = contact.map_err(|error| of_connect(&error, &list(addresses)))?;
    Ok(Meeting {
        ca: contact.ca.to_pem(),
        cluster: hex(&contact.server.name.cluster),
    })
}

fn of_connect(error: &ConnectError, address: &str) -> ClusterError {
    match tls::refusal(error) {
        Some(refusal) => ClusterError::Untrusted {
            address: address.to_owned(),
            why: refusal.to_string(),
        },
        None => ClusterError::Unreachable {
            cluster: address.to_owned(),
            why: chain(error),
        },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(": {error}"));
        next = error.source();
    }
    text
}

impl Cluster {
    /// The cluster of a node on this machine.
    pub(crate) fn at_socket(path: &Path, patience: Duration, screen: &Screen) -> Self {
        let name = format!("unix:{}", path.display());
        Self::new(name, Way::Socket(path.to_owned()), patience, screen)
    }

    /// The node of the home of this process.
    pub(crate) fn of_home(seat: Arc<Seat>, patience: Duration, screen: &Screen) -> Self {
        Self::new(String::from("of this home"), Way::Home(seat), patience, screen)
    }

    /// The cluster of a login.
    ///
    /// # Errors
    /// When what is kept of it is not what it must be.
    pub(crate) fn kept(kept: &Kept, patience: Duration, screen: &Screen) -> Result<Self, ClusterError> {
        let damaged = |why: String| ClusterError::Damaged {
            path: kept.name.clone(),
            why,
        };
        let ca = CaCertificate::from_pem(&kept.ca).map_err(|error| damaged(format!("has no authority: {error}")))?;
        let cluster = unhex(&kept.cluster).ok_or_else(|| damaged(String::from("has no cluster's id")))?;
        let addresses: Vec<String> = kept.tried().iter().map(Address::to_string).collect();
        let connector = Connector::new(addresses.clone(), Trust::any_coordinator(ca, cluster))
            .map_err(|error| damaged(format!("cannot be used: {}", chain(&error))))?;
        let way = Way::Members {
            connector,
            addresses,
            token: kept.token.clone(),
        };
        Ok(Self::new(kept.name.clone(), way, patience, screen))
    }
}
