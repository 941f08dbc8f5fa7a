//! The first talk with a cluster of which only the fingerprint of its authority is known, from a join token or `tresor login`.

use std::io;
use std::sync::Arc;

use rustls::pki_types::UnixTime;
use tokio_rustls::TlsConnector;

use super::certificate::{CaCertificate, Fingerprint, PeerCertificate};
use super::connect::{self, ConnectError};
use super::verify::{self, FirstContactVerifier, Trust};

/// What the first talk brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The authority, to be kept and pinned from now on.
    pub ca: CaCertificate,
    /// Which coordinator answered, and so which cluster it is.
    pub server: PeerCertificate,
}

impl Contact {
    /// What to trust from now on: any coordinator of this cluster.
    pub fn trust(&self) -> Trust {
        Trust::any_coordinator(self.ca.clone(), self.server.name.cluster)
    }
}

/// Shakes hands with the first address that answers with a chain up to the authority of that fingerprint, and hangs up. Nothing secret is sent:
/// the token goes with a [`super::Connector`] that pins what is returned.
///
/// # Errors
/// By cause; with [`super::refusal()`] a wrong fingerprint is told from a machine that is off.
pub async fn first_contact(addresses: &[String], pinned: Fingerprint) -> Result<Contact, ConnectError> {
    connect::check_addresses(addresses)?;
    let config = connect::client_config(Arc::new(FirstContactVerifier(pinned)), None)?;
    let tls = TlsConnector::from(Arc::new(config));
    let mut errors = Vec::new();
    for address in addresses {
        let stream = match connect::connect_one(&tls, address).await {
            Ok(stream) => stream,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        // The verifier has just done the same; it has no way to hand out what it found.
        let checked = match chain.split_first() {
            Some((leaf, others)) => verify::check_first_contact(leaf, others, pinned, UnixTime::now()),
            None => Err(verify::VerifyError::Fingerprint { expected: pinned }),
        };
        match checked {
            Ok((ca, server)) => return Ok(Contact { ca, server }),
            Err(error) => errors.push(ConnectError::Handshake {
                address: address.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, error),
            }),
        }
    }
    Err(connect::join_errors(errors))
}
