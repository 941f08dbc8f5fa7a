//! Finds out of an error, however wrapped, why a handshake was refused: what the edge tells people, and whether asking again can help.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError};

use super::verify::VerifyError;

/// How many causes are looked through: a chain that refers to itself ends.
const DEPTH_MAX: usize = 32;

/// Why a handshake was refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// Who answered has no certificate of the pinned authority.
    Untrusted,
    /// Who answered has one that is over, or the clock here is wrong.
    Expired,
    /// Who answered has one that is not good yet, or the clock here is wrong.
    NotYetValid,
    /// Who answered was removed from the cluster.
    PeerRemoved,
    /// Who answered is not who was wanted.
    Peer(VerifyError),
    /// The other side refuses us: this node was removed.
    Removed,
    /// The other side refuses our certificate: over, of another authority, or of another cluster.
    CertificateRefused(AlertDescription),
    /// The two sides have nothing in common, or one of them speaks something else.
    Protocol,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "who answers has no certificate of this cluster's authority",
            Self::Expired => "the certificate of who answers is over, or the clock of this machine is ahead",
            Self::NotYetValid => {
                "the certificate of who answers is not good yet, or the clock of this machine is behind"
            }
            Self::PeerRemoved => "who answers was removed from the cluster",
            Self::Peer(error) => return error.fmt(f),
            Self::Removed => "this node was removed from the cluster",
            Self::CertificateRefused(_) => "the certificate of this node is refused: it is over, or of another cluster",
            Self::Protocol => "who answers does not speak TLS 1.3 as this cluster does",
        })
    }
}

/// Looks for a refusal in an error and its causes, as they come out of a channel: `tonic::Status`, `tonic::transport::Error`, `io::Error`.
pub fn refusal(error: &(dyn Error + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    for _ in 0..DEPTH_MAX {
        let error = next?;
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return of_rustls(error);
        }
        if let Some(error) = error.downcast_ref::<VerifyError>() {
            return of_verify(error);
        }
        // An `io::Error` is its custom error; its `source` would skip it.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn of_verify(error: &VerifyError) -> Option<Refusal> {
    match error {
        VerifyError::Chain(error) => of_rustls(error),
        error => Some(Refusal::Peer(error.clone())),
    }
}

fn of_rustls(error: &rustls::Error) -> Option<Refusal> {
    use AlertDescription as Alert;
    Some(match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired,
            CertificateError::Revoked => Refusal::PeerRemoved,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Refusal::NotYetValid,
            CertificateError::Other(other) => match other.0.downcast_ref::<VerifyError>() {
                Some(error) => return of_verify(error),
                None => Refusal::Untrusted,
            },
            _ => Refusal::Untrusted,
        },
        rustls::Error::AlertReceived(Alert::CertificateRevoked) => Refusal::Removed,
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            // Another authority of the same name: the signature does not hold.
            | Alert::DecryptError
            | Alert::AccessDenied),
        ) => Refusal::CertificateRefused(*alert),
        rustls::Error::AlertReceived(
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::NoApplicationProtocol,
        )
        | rustls::Error::PeerIncompatible(_)
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::NoApplicationProtocol => Refusal::Protocol,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_refusal_is_found_under_what_wraps_it() {
        let wrapped = |error: rustls::Error| Outer(io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, found) in [
            (CertificateError::UnknownIssuer.into(), Some(Refusal::Untrusted)),
            (CertificateError::Expired.into(), Some(Refusal::Expired)),
            (CertificateError::NotValidYet.into(), Some(Refusal::NotYetValid)),
            (
                rustls::Error::AlertReceived(AlertDescription::CertificateRevoked),
                Some(Refusal::Removed),
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::UnknownCA),
                Some(Refusal::CertificateRefused(AlertDescription::UnknownCA)),
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
                Some(Refusal::Protocol),
            ),
            (rustls::Error::DecryptError, None),
        ] {
            assert_eq!(refusal(&wrapped(error)), found);
        }
        let error = VerifyError::Role {
            found: crate::tls::testing::WORKER,
            expected: crate::tls::Role::Coordinator,
        };
        assert_eq!(refusal(&wrapped(error.clone().into())), Some(Refusal::Peer(error)));
        assert_eq!(refusal(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }
}
