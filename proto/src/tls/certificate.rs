//! Certificates of the cluster's authority and of its nodes: what is read out of them, and what makes one acceptable.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::name::PeerName;
use super::pem;
use crate::ids::{hex, unhex};

/// Longest certificate that is read, bytes. Ours have about 500.
const CERTIFICATE_BYTES_MAX: usize = 16 << 10;
/// Longest serial number, bytes (RFC 5280, section 4.1.2.2, and the sign).
const SERIAL_BYTES_MAX: usize = 21;

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let hash = digest(&SHA256, der);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = CertificateError;
    fn from_str(text: &str) -> Result<Self, CertificateError> {
        unhex(text)
            .map(Self)
            .ok_or(CertificateError::Encoding("a fingerprint has 64 hexadecimal digits"))
    }
}

/// The number under which an authority issued a certificate, as it stands in it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// Takes a number's bytes, greatest first.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes, greatest first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// From when until when a certificate is good, Unix seconds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// Whether it holds.
    pub fn contains(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// When its holder asks for the next one: when a third of the lifetime is left. With 30 days that leaves 10 days of asking before
    /// anything stops, long enough for a holiday and for a cluster that is being repaired.
    pub fn renew_at(&self) -> i64 {
        self.not_after
            .saturating_sub(self.not_after.saturating_sub(self.not_before) / 3)
    }

    /// Whether it is time to renew.
    pub fn is_renewal_due(&self, now: i64) -> bool {
        now >= self.renew_at()
    }
}

/// Why a certificate is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("not a certificate: {0}")]
    Encoding(&'static str),
    /// It is not one of an authority.
    #[error("the certificate is not one of an authority: {0}")]
    NoAuthority(&'static str),
    /// It is not one of a node.
    #[error("the certificate is not one of a node: {0}")]
    NoNode(&'static str),
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(CertificateError::Encoding("too long"));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(CertificateError::Encoding("bytes after its end")),
        Err(_) => Err(CertificateError::Encoding("damaged or of another format")),
    }
}

fn is_authority(certificate: &X509Certificate<'_>) -> Result<bool, CertificateError> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| CertificateError::Encoding("its basic constraints are damaged"))?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca))
}

/// The certificate of a cluster's authority: what everybody pins.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    fingerprint: Fingerprint,
    validity: Validity,
}

impl CaCertificate {
    /// Reads one. Whether it is *the* one is its fingerprint's to say.
    ///
    /// # Errors
    /// [`CertificateError::Encoding`]; [`CertificateError::NoAuthority`] for a node's certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        if !is_authority(&certificate)? {
            return Err(CertificateError::NoAuthority("it may sign no other"));
        }
        if certificate.issuer() != certificate.subject() {
            return Err(CertificateError::NoAuthority("another issued it"));
        }
        let validity = validity(&certificate);
        Ok(Self {
            der: CertificateDer::from(der.to_vec()),
            fingerprint: Fingerprint::of(der),
            validity,
        })
    }

    /// Reads one from a text.
    ///
    /// # Errors
    /// As [`Self::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&from_pem(text)?)
    }

    /// As a text, for `ca.crt`.
    pub fn to_pem(&self) -> String {
        to_pem(&self.der)
    }

    /// Its bytes.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its fingerprint: what join tokens carry.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// When it is good.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CaCertificate").field(&self.fingerprint).finish()
    }
}

/// What a node's certificate says. Reading one proves nothing: [`super::verify`] does, before this is shown to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whose it is.
    pub name: PeerName,
    /// Under which number it was issued.
    pub serial: Serial,
    /// Of its bytes.
    pub fingerprint: Fingerprint,
    /// When it is good.
    pub validity: Validity,
}

impl PeerCertificate {
    /// Reads a node's certificate. It has one name of our scheme and may be used on both sides of a connection.
    ///
    /// # Errors
    /// [`CertificateError::Encoding`]; [`CertificateError::NoNode`] for one of an authority, without a name, or for another use.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        if is_authority(&certificate)? {
            return Err(CertificateError::NoNode("it is an authority's"));
        }
        let usage = certificate
            .extended_key_usage()
            .map_err(|_| CertificateError::Encoding("its extended key usage is damaged"))?;
        if !usage.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
            return Err(CertificateError::NoNode("it is not for both sides of a connection"));
        }
        let serial = certificate.raw_serial();
        if serial.is_empty() || serial.len() > SERIAL_BYTES_MAX {
            return Err(CertificateError::Encoding("its serial number is too long"));
        }
        Ok(Self {
            name: name(&certificate)?,
            serial: Serial::new(serial),
            fingerprint: Fingerprint::of(der),
            validity: validity(&certificate),
        })
    }
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity {
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    }
}

/// The one name of our scheme. Two would let two readers see two nodes.
fn name(certificate: &X509Certificate<'_>) -> Result<PeerName, CertificateError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::Encoding("its alternative names are damaged"))?;
    let mut ours = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(PeerName::SCHEME) => Some(*uri),
            _ => None,
        });
    match (ours.next(), ours.next()) {
        (None, _) => Err(CertificateError::NoNode("it names no node of a cluster")),
        (Some(_), Some(_)) => Err(CertificateError::NoNode("it names several nodes")),
        (Some(one), None) => one.parse().map_err(|_| CertificateError::NoNode("its name is damaged")),
    }
}

pub(crate) fn to_pem(der: &[u8]) -> String {
    pem::encode(pem::CERTIFICATE, der).to_string()
}

pub(crate) fn from_pem(text: &str) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    pem::decode(pem::CERTIFICATE, text).ok_or(CertificateError::Encoding("no PEM of one certificate"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::tls::name::Role;
    use crate::tls::testing::{TestAuthority, WORKER};
    use rcgen::{ExtendedKeyUsagePurpose, SanType};

    #[test]
    fn a_third_of_the_lifetime_before_the_end_it_is_time_to_renew() {
        let validity = Validity {
            not_before: 1_000,
            not_after: 4_000,
        };
        assert_eq!(validity.renew_at(), 3_000);
        assert!(!validity.is_renewal_due(2_999));
        assert!(validity.is_renewal_due(3_000));
        assert!(validity.is_renewal_due(9_000), "an expired one too");
        assert!(validity.contains(1_000) && validity.contains(4_000));
        assert!(!validity.contains(999) && !validity.contains(4_001));
        let odd = Validity {
            not_before: i64::MIN,
            not_after: i64::MAX,
        };
        assert!(odd.renew_at() < i64::MAX);
    }

    #[test]
    fn a_nodes_certificate_says_who_it_is() {
        let authority = TestAuthority::new();
        let identity = authority.identity(WORKER);
        let read = PeerCertificate::from_der(identity.certificate_der()).unwrap();
        assert_eq!(read.name, WORKER);
        assert_eq!(read.name.role, Role::Worker);
        assert_eq!(read.fingerprint, Fingerprint::of(identity.certificate_der()));
        assert_eq!(&read, identity.certificate());
    }

    #[test]
    fn a_certificate_has_exactly_one_name_of_a_node() {
        let authority = TestAuthority::new();
        let uri = |text: String| SanType::URI(text.try_into().unwrap());
        let read = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
            let (der, _key) = authority.certificate(WORKER, change);
            PeerCertificate::from_der(&der)
        };
        assert!(read(&|_| {}).is_ok());
        assert!(read(&|p| p.subject_alt_names.push(uri("https://elsewhere".into()))).is_ok());
        assert_eq!(
            read(&|p| p.subject_alt_names.clear()),
            Err(CertificateError::NoNode("it names no node of a cluster"))
        );
        assert_eq!(
            read(&|p| p.subject_alt_names.push(uri(WORKER.to_string()))),
            Err(CertificateError::NoNode("it names several nodes"))
        );
        assert_eq!(
            read(&|p| p.subject_alt_names = vec![uri(format!("{WORKER}/"))]),
            Err(CertificateError::NoNode("its name is damaged"))
        );
        assert_eq!(
            read(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            Err(CertificateError::NoNode("it is not for both sides of a connection"))
        );
        assert_eq!(
            PeerCertificate::from_der(authority.ca().der()),
            Err(CertificateError::NoNode("it is an authority's"))
        );
    }

    #[test]
    fn only_an_authoritys_certificate_is_pinned() {
        let authority = TestAuthority::new();
        let ca = authority.ca();
        assert_eq!(CaCertificate::from_pem(&ca.to_pem()).unwrap(), ca);
        assert_eq!(
            ca.fingerprint().to_string().parse::<Fingerprint>().unwrap(),
            ca.fingerprint()
        );
        let node = authority.identity(WORKER);
        assert!(matches!(
            CaCertificate::from_der(node.certificate_der()),
            Err(CertificateError::NoAuthority(_))
        ));
        let mut longer = ca.der().to_vec();
        longer.push(0);
        assert!(matches!(
            CaCertificate::from_der(&longer),
            Err(CertificateError::Encoding(_))
        ));
        assert!(CaCertificate::from_der(&vec![0x30; CERTIFICATE_BYTES_MAX + 1]).is_err());
        assert!(CaCertificate::from_der(b"").is_err());
    }
}
