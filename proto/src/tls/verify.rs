//! Whom to believe: the chain is checked by webpki against one pinned authority, the name in the certificate by us.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme};

use super::certificate::{CaCertificate, CertificateError, Fingerprint, PeerCertificate};
use super::name::{PeerName, Role};
use super::provider;
use crate::ids::hex;

/// Why a peer is not believed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// The pinned authority did not make the certificate, or it is not good now.
    #[error("check the certificate against the cluster's authority")]
    Chain(#[source] rustls::Error),
    /// It is not one of a node.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The node is of another cluster.
    #[error("{found} belongs to another cluster than {}", hex(expected))]
    Cluster {
        /// Who it is.
        found: PeerName,
        /// The cluster that was expected.
        expected: [u8; 16],
    },
    /// The node is for something else.
    #[error("{} answers where a {expected} is expected", found.short())]
    Role {
        /// Who it is.
        found: PeerName,
        /// What was expected.
        expected: Role,
    },
    /// The node is another of its kind.
    #[error("{} answers where number {expected} is expected", found.short())]
    Id {
        /// Who it is.
        found: PeerName,
        /// Which one was expected.
        expected: u64,
    },
    /// The node was removed from the cluster, or this certificate withdrawn.
    #[error("the certificate of {} is revoked", found.short())]
    Revoked {
        /// Who it is.
        found: PeerName,
    },
    /// No certificate in the chain has the pinned fingerprint.
    #[error("no authority with fingerprint {expected} vouches for who answers")]
    Fingerprint {
        /// What was pinned.
        expected: Fingerprint,
    },
}

impl From<VerifyError> for rustls::Error {
    fn from(error: VerifyError) -> Self {
        // What the other side learns is the alert that follows from this: `certificate_revoked` tells a removed node what happened.
        Self::InvalidCertificate(match error {
            VerifyError::Chain(error) => return error,
            VerifyError::Certificate(CertificateError::Encoding(_)) => rustls::CertificateError::BadEncoding,
            VerifyError::Revoked { .. } => rustls::CertificateError::Revoked,
            error => rustls::CertificateError::Other(OtherError(Arc::new(error))),
        })
    }
}

/// Which nodes were removed. It is asked in the midst of a handshake and with every request: it must neither block nor take long.
pub trait Revocations: Send + Sync + 'static {
    /// Whether this certificate, or its holder, is refused from now on.
    fn is_revoked(&self, peer: &PeerCertificate) -> bool;
}

/// For who cannot know: a worker's own listener, a program.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingRevoked;

impl Revocations for NothingRevoked {
    fn is_revoked(&self, _peer: &PeerCertificate) -> bool {
        false
    }
}

/// Whom a client wants to talk to. Addresses play no part: they change, names do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The pinned authority.
    pub ca: CaCertificate,
    /// The cluster.
    pub cluster: [u8; 16],
    /// What the peer must be for.
    pub role: Role,
    /// Which one, if any other will not do: a message of Raft is for one member.
    pub id: Option<u64>,
}

impl Trust {
    /// Any coordinator of a cluster.
    pub fn any_coordinator(ca: CaCertificate, cluster: [u8; 16]) -> Self {
        Self {
            ca,
            cluster,
            role: Role::Coordinator,
            id: None,
        }
    }

    /// One node and no other.
    pub fn exactly(ca: CaCertificate, name: PeerName) -> Self {
        Self {
            ca,
            cluster: name.cluster,
            role: name.role,
            id: Some(name.id),
        }
    }

    /// Compares a name with what is wanted.
    ///
    /// # Errors
    /// [`VerifyError::Cluster`], [`VerifyError::Role`], [`VerifyError::Id`].
    pub fn check_name(&self, found: PeerName) -> Result<(), VerifyError> {
        if found.cluster != self.cluster {
            return Err(VerifyError::Cluster {
                found,
                expected: self.cluster,
            });
        }
        if found.role != self.role {
            return Err(VerifyError::Role {
                found,
                expected: self.role,
            });
        }
        match self.id {
            Some(expected) if found.id != expected => Err(VerifyError::Id { found, expected }),
            _ => Ok(()),
        }
    }
}

/// Checks that an authority made this certificate for the use of a server, and that it is good now. There are no authorities in between.
pub(crate) fn check_chain(leaf: &CertificateDer<'_>, ca: &CaCertificate, now: UnixTime) -> Result<(), VerifyError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).map_err(VerifyError::Chain)?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(VerifyError::Chain)?;
    let algorithms = provider().signature_verification_algorithms.all;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)
        .map_err(VerifyError::Chain)
}

/// What the two verifiers of servers have in common.
fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let provider = provider();
    rustls::crypto::verify_tls13_signature(
        message,
        certificate,
        signature,
        &provider.signature_verification_algorithms,
    )
}

fn refuse_tls12() -> rustls::Error {
    // No configuration offers it, so nobody asks for this.
    rustls::Error::General("TLS 1.2 is not spoken here".into())
}

/// A client's look at a server.
pub(crate) struct ServerVerifier {
    pub(crate) trust: Trust,
    pub(crate) revocations: Arc<dyn Revocations>,
}

impl ServerVerifier {
    fn check(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), VerifyError> {
        check_chain(leaf, &self.trust.ca, now)?;
        let peer = PeerCertificate::from_der(leaf)?;
        self.trust.check_name(peer.name)?;
        if self.revocations.is_revoked(&peer) {
            return Err(VerifyError::Revoked { found: peer.name });
        }
        Ok(())
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerVerifier").field(&self.trust).finish()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The authority in a chain that has the pinned fingerprint, and the coordinator that it vouches for.
///
/// # Errors
/// [`VerifyError::Fingerprint`] when there is none; others as for a pinned authority.
pub(crate) fn check_first_contact(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    pinned: Fingerprint,
    now: UnixTime,
) -> Result<(CaCertificate, PeerCertificate), VerifyError> {
    let ca = others
        .iter()
        .find(|der| Fingerprint::of(der) == pinned)
        .ok_or(VerifyError::Fingerprint { expected: pinned })?;
    let ca = CaCertificate::from_der(ca)?;
    check_chain(leaf, &ca, now)?;
    let peer = PeerCertificate::from_der(leaf)?;
    Trust::any_coordinator(ca.clone(), peer.name.cluster).check_name(peer.name)?;
    Ok((ca, peer))
}

/// A client's look at a server of which it knows only the authority's fingerprint.
#[derive(Debug)]
pub(crate) struct FirstContactVerifier(pub(crate) Fingerprint);

impl ServerCertVerifier for FirstContactVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        check_first_contact(end_entity, intermediates, self.0, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A server's look at a client: no certificate is fine, a bad one is not.
pub(crate) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: [u8; 16],
    revocations: Arc<dyn Revocations>,
}

impl ClientVerifier {
    pub(crate) fn new(
        ca: &CaCertificate,
        cluster: [u8; 16],
        revocations: Arc<dyn Revocations>,
    ) -> Result<Self, VerifyError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).map_err(VerifyError::Chain)?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| VerifyError::Chain(rustls::Error::General(e.to_string())))?;
        Ok(Self {
            chain,
            cluster,
            revocations,
        })
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientVerifier").field(&hex(&self.cluster)).finish()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, &[], now)?;
        let peer = PeerCertificate::from_der(end_entity).map_err(VerifyError::from)?;
        if peer.name.cluster != self.cluster {
            return Err(VerifyError::Cluster {
                found: peer.name,
                expected: self.cluster,
            }
            .into());
        }
        if self.revocations.is_revoked(&peer) {
            return Err(VerifyError::Revoked { found: peer.name }.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::tls::Identity;
    use crate::tls::testing::{CLUSTER, COORDINATOR, TestAuthority, WORKER};
    use std::time::Duration;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    const NOW: u64 = 1_750_000_000;

    #[test]
    fn a_name_must_be_of_the_cluster_the_role_and_the_number() {
        let ca = TestAuthority::new().ca();
        let any = Trust::any_coordinator(ca.clone(), CLUSTER);
        let second = PeerName { id: 2, ..COORDINATOR };
        assert_eq!(any.check_name(COORDINATOR), Ok(()));
        assert_eq!(any.check_name(second), Ok(()));
        assert!(matches!(any.check_name(WORKER), Err(VerifyError::Role { .. })));
        let elsewhere = PeerName {
            cluster: [9; 16],
            ..COORDINATOR
        };
        assert!(matches!(any.check_name(elsewhere), Err(VerifyError::Cluster { .. })));
        let first = Trust::exactly(ca, COORDINATOR);
        assert_eq!(first.check_name(COORDINATOR), Ok(()));
        assert_eq!(
            first.check_name(second).unwrap_err().to_string(),
            "coordinator 2 answers where number 1 is expected"
        );
    }

    #[test]
    fn first_contact_believes_the_fingerprint_and_not_the_chain() {
        let (authority, impostor) = (TestAuthority::new(), TestAuthority::new());
        let ours = authority.identity(COORDINATOR);
        let theirs = impostor.identity(COORDINATOR);
        let pinned = authority.ca().fingerprint();
        let check = |leaf: &Identity, others: &[&CaCertificate]| {
            let others: Vec<_> = others.iter().map(|ca| ca.der().clone()).collect();
            check_first_contact(leaf.certificate_der(), &others, pinned, at(NOW))
        };
        let (ca, peer) = check(&ours, &[&authority.ca()]).unwrap();
        assert_eq!((ca, peer.name), (authority.ca(), COORDINATOR));
        assert_eq!(check(&ours, &[]), Err(VerifyError::Fingerprint { expected: pinned }));
        assert_eq!(
            check(&theirs, &[&impostor.ca()]),
            Err(VerifyError::Fingerprint { expected: pinned })
        );
        // Who shows the right authority without being vouched for by it.
        assert!(matches!(
            check(&theirs, &[&impostor.ca(), &authority.ca()]),
            Err(VerifyError::Chain(_))
        ));
        let worker = authority.identity(WORKER);
        assert!(matches!(
            check(&worker, &[&authority.ca()]),
            Err(VerifyError::Role { .. })
        ));
    }

    #[test]
    fn first_contact_takes_no_node_for_an_authority() {
        let authority = TestAuthority::new();
        let node = authority.identity(WORKER);
        let leaf = authority.identity(COORDINATOR);
        let checked = check_first_contact(
            leaf.certificate_der(),
            &[node.certificate_der().clone()],
            node.certificate().fingerprint,
            at(NOW),
        );
        assert!(matches!(
            checked,
            Err(VerifyError::Certificate(CertificateError::NoAuthority(_)))
        ));
    }

    #[test]
    fn a_chain_holds_only_in_its_time() {
        let authority = TestAuthority::new();
        let identity = authority.identity(COORDINATOR);
        let validity = identity.validity();
        let check = |now| check_chain(identity.certificate_der(), &authority.ca(), now);
        assert_eq!(check(at(NOW)), Ok(()));
        let after = u64::try_from(validity.not_after).unwrap() + 1;
        assert!(matches!(check(at(after)), Err(VerifyError::Chain(_))));
        let before = u64::try_from(validity.not_before).unwrap() - 1;
        assert!(matches!(check(at(before)), Err(VerifyError::Chain(_))));
    }
}
