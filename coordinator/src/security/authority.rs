//! The cluster's own certificate authority.
//!
//! It is made by `cluster init` and lives as long as the cluster. Its key is ECDSA on P-256 (why: [`tresor_proto::tls::key`]) and signs nothing
//! but nodes' certificates. A node makes its own key and sends a request; only the public key is taken from it. Who the node is, the
//! coordinator has decided, and the log has numbered.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use tresor_proto::ids::hex;
use tresor_proto::tls::{
    CaCertificate, CertificateError, Fingerprint, Identity, IdentityError, KeyError, PeerCertificate, PeerName,
    PrivateKey, Validity,
};
use zeroize::Zeroizing;

/// How long the authority's certificate is good: longer than hardware, shorter than the word of its algorithm. A cluster that grows older
/// makes a new authority and joins its nodes again.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How long a node's certificate is good. What is stolen with a disk is of use for a month at most, also where nobody asks the log; a node
/// that was off over a holiday comes back by itself; with renewal at a third left, 50 renewals a day in a cluster of a thousand.
pub const NODE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How far before now a certificate begins to be good: clocks of machines without time servers differ by minutes, a wrong summer time by an hour.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// Longest request that is read, bytes. Ours have about 250.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// The end of year 9999, Unix seconds: the last time that a certificate can name (RFC 5280, section 4.1.2.5).
const TIME_MAX: i64 = 253_402_300_799;
/// The version of [`Authority::encode`].
const VERSION: u8 = 1;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its own certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What was stored is not an authority.
    #[error("the stored authority is damaged: {0}")]
    Damaged(&'static str),
    /// A program of a later version stored it.
    #[error("the stored authority has version {0}, this program reads up to {VERSION}")]
    Version(u8),
    /// The request is none, or not signed by the key in it.
    #[error("not a certificate request that shows its key")]
    Request(#[source] rcgen::Error),
    /// The request is longer than any of ours.
    #[error("a certificate request of {0} bytes")]
    RequestLength(usize),
    /// The key in the request is of another kind.
    #[error("the key in the certificate request is not on P-256")]
    RequestKey,
    /// The name is of another cluster.
    #[error("{name} is not of this cluster")]
    OtherCluster {
        /// Whose certificate was asked for.
        name: PeerName,
    },
    /// The times make no sense, or the authority's own time is over.
    #[error("no certificate can be good from {} to {}: the authority's is until {until}", validity.not_before, validity.not_after)]
    Time {
        /// What was asked for.
        validity: Validity,
        /// The end of the authority, Unix seconds.
        until: i64,
    },
    /// It could not be signed.
    #[error("sign the certificate")]
    Sign(#[source] rcgen::Error),
    /// The operating system gave no random numbers.
    #[error("draw random numbers")]
    Random,
    /// What was made does not hold.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A certificate as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, DER: for the node.
    pub der: Vec<u8>,
    /// What it says: for the log.
    pub certificate: PeerCertificate,
}

/// The authority: its certificate and its private key.
pub struct Authority {
    cluster: [u8; 16],
    ca: CaCertificate,
    key: PrivateKey,
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// [`AuthorityError::Key`], [`AuthorityError::Random`], [`AuthorityError::Time`], [`AuthorityError::Sign`].
    pub fn create(cluster: [u8; 16], now: i64) -> Result<Self, AuthorityError> {
        let key = PrivateKey::generate()?;
        let validity = lasting(now, AUTHORITY_LIFETIME, i64::MAX);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Tresor");
        // The name ties a certificate to its issuer, so two clusters must not have the same.
        params.distinguished_name.push(DnType::CommonName, hex(&cluster));
        // No authorities below this one.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        finish(&mut params, validity, i64::MAX)?;
        let certificate = params.self_signed(&key).map_err(AuthorityError::Sign)?;
        Ok(Self {
            cluster,
            ca: CaCertificate::from_der(certificate.der())?,
            key,
        })
    }

    /// All of it as bytes, to be kept [wrapped](super::wrapping).
    ///
    /// # Errors
    /// [`AuthorityError::Key`] when the provider does not give out the key.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
        let key = self.key.to_pkcs8()?;
        let ca = self.ca.der();
        let length = u32::try_from(ca.len()).map_err(|_| AuthorityError::Damaged("its certificate is too long"))?;
        // Reserved at once: a buffer that grows leaves copies behind that nobody wipes.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + 16 + 4 + ca.len() + key.len()));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.cluster);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(ca);
        bytes.extend_from_slice(&key);
        Ok(bytes)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`AuthorityError::Version`], [`AuthorityError::Damaged`], [`AuthorityError::Certificate`], [`AuthorityError::Key`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AuthorityError> {
        let short = || AuthorityError::Damaged("it is too short");
        let (&version, rest) = bytes.split_first().ok_or_else(short)?;
        if version != VERSION {
            return Err(AuthorityError::Version(version));
        }
        let (&cluster, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (&length, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| short())?;
        let (ca, key) = rest.split_at_checked(length).ok_or_else(short)?;
        let authority = Self {
            cluster,
            ca: CaCertificate::from_der(ca)?,
            key: PrivateKey::from_pkcs8(key)?,
        };
        let public = public_key_of(&authority.ca)?;
        if public != authority.key.public_key()? {
            return Err(AuthorityError::Damaged("its key is not that of its certificate"));
        }
        Ok(authority)
    }

    /// Makes a node's certificate out of its request, good for [`NODE_LIFETIME`] or as long as the authority.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] and its kind; [`AuthorityError::OtherCluster`], [`AuthorityError::Time`]; others by cause.
    pub fn issue(&self, request: &[u8], name: PeerName, now: i64) -> Result<Issued, AuthorityError> {
        let validity = lasting(now, NODE_LIFETIME, self.ca.validity().not_after);
        // A certificate that is over when it is made helps nobody: the authority is over.
        if validity.not_after <= now {
            return Err(AuthorityError::Time {
                validity,
                until: self.ca.validity().not_after,
            });
        }
        self.issue_for(request, name, validity)
    }

    /// As [`Self::issue`], with times of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::issue`]; [`AuthorityError::Time`] when it would outlive the authority.
    pub fn issue_for(&self, request: &[u8], name: PeerName, validity: Validity) -> Result<Issued, AuthorityError> {
        if name.cluster != self.cluster {
            return Err(AuthorityError::OtherCluster { name });
        }
        if request.len() > REQUEST_BYTES_MAX {
            return Err(AuthorityError::RequestLength(request.len()));
        }
        // This checks that the request is signed by the key in it: nobody gets a certificate for another one's key.
        let request = CertificateSigningRequestParams::from_der(&request.into()).map_err(AuthorityError::Request)?;
        let key = request.public_key;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(AuthorityError::RequestKey);
        }
        let uri = name.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Tresor");
        params.distinguished_name.push(DnType::CommonName, name.short());
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(AuthorityError::Sign)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        finish(&mut params, validity, self.ca.validity().not_after)?;
        let issuer = Issuer::from_ca_cert_der(self.ca.der(), &self.key).map_err(AuthorityError::Sign)?;
        let certificate = params.signed_by(&key, &issuer).map_err(AuthorityError::Sign)?;
        Ok(Issued {
            certificate: PeerCertificate::from_der(certificate.der())?,
            der: certificate.der().to_vec(),
        })
    }

    /// Makes a key and a certificate for a node of this process: the first coordinator, and an embedded node.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn identity(&self, name: PeerName, now: i64) -> Result<Identity, AuthorityError> {
        let key = PrivateKey::generate()?;
        let issued = self.issue(&key.request()?, name, now)?;
        Ok(Identity::new(&key, &issued.der, self.ca.clone())?)
    }

    /// Its certificate: for everybody.
    pub fn certificate(&self) -> &CaCertificate {
        &self.ca
    }

    /// The fingerprint of its certificate: for join tokens and `tresor login`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.ca.fingerprint()
    }

    /// The cluster that it is of.
    pub fn cluster(&self) -> [u8; 16] {
        self.cluster
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &hex(&self.cluster))
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// From a little before now on, but not beyond `until`.
fn lasting(now: i64, lifetime: Duration, until: i64) -> Validity {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Validity {
        not_before: now.saturating_sub(seconds(CLOCK_SKEW)),
        not_after: now.saturating_add(seconds(lifetime)).min(until),
    }
}

/// Sets the times and a number that nobody can guess, so that nobody can prepare a collision for what is signed.
fn finish(params: &mut CertificateParams, validity: Validity, until: i64) -> Result<(), AuthorityError> {
    let wrong = AuthorityError::Time { validity, until };
    if validity.not_before < 0
        || validity.not_after > TIME_MAX
        || validity.not_after <= validity.not_before
        || validity.not_after > until
    {
        return Err(wrong);
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(validity.not_before.unsigned_abs());
    params.not_after = epoch + Duration::from_secs(validity.not_after.unsigned_abs());
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    // Positive, and always of 16 bytes.
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

/// The public key in the authority's certificate.
fn public_key_of(ca: &CaCertificate) -> Result<Vec<u8>, AuthorityError> {
    match x509_parser::parse_x509_certificate(ca.der()) {
        Ok((_, certificate)) => Ok(certificate.public_key().raw.to_vec()),
        Err(_) => Err(AuthorityError::Damaged("its certificate cannot be read")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use tresor_proto::tls::Role;

    const CLUSTER: [u8; 16] = [7; 16];
    const NOW: i64 = 1_750_000_000;
    const DAY: i64 = 24 * 60 * 60;
    const WORKER: PeerName = PeerName {
        cluster: CLUSTER,
        role: Role::Worker,
        id: 42,
    };

    fn authority() -> Authority {
        Authority::create(CLUSTER, NOW).unwrap()
    }

    #[test]
    fn a_certificate_says_what_the_coordinator_decided_and_nothing_of_the_request() {
        let authority = authority();
        let key = PrivateKey::generate().unwrap();
        // Somebody who would like to be more.
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let wanted = PeerName {
            role: Role::Coordinator,
            ..WORKER
        };
        params.subject_alt_names = vec![SanType::URI(wanted.to_string().try_into().unwrap())];
        let request = params.serialize_request(&key).unwrap();
        let issued = authority.issue(request.der(), WORKER, NOW).unwrap();
        assert_eq!(issued.certificate.name, WORKER);
        assert_eq!(
            issued.certificate.validity,
            Validity {
                not_before: NOW - 3600,
                not_after: NOW + 30 * DAY
            }
        );
        assert!(CaCertificate::from_der(&issued.der).is_err());
        let identity = Identity::new(&key, &issued.der, authority.certificate().clone()).unwrap();
        assert_eq!(identity.name(), WORKER);
        assert!(!identity.validity().is_renewal_due(NOW + 19 * DAY));
        assert!(identity.validity().is_renewal_due(NOW + 20 * DAY));
    }

    #[test]
    fn no_two_certificates_have_one_number() {
        let authority = authority();
        let request = PrivateKey::generate().unwrap().request().unwrap();
        let issue = || authority.issue(&request, WORKER, NOW).unwrap().certificate.serial;
        let (first, second) = (issue(), issue());
        assert_ne!(first, second);
        assert_eq!((first.as_bytes().len(), second.as_bytes().len()), (16, 16));
    }

    #[test]
    fn only_a_request_that_shows_its_key_is_answered() {
        let authority = authority();
        let key = PrivateKey::generate().unwrap();
        let request = key.request().unwrap();
        authority.issue(&request, WORKER, NOW).unwrap();
        let point = rcgen::PublicKeyData::der_bytes(&key);
        let at_point = request.windows(point.len()).position(|part| part == point).unwrap();
        let mut answered = 0;
        for at in 0..request.len() {
            let mut wrong = request.clone();
            wrong[at] ^= 1;
            // Some bytes around what is signed mean the same; none of them makes it another key.
            if let Ok(issued) = authority.issue(&wrong, WORKER, NOW) {
                Identity::new(&key, &issued.der, authority.certificate().clone()).unwrap();
                assert!(!(at_point..at_point + point.len()).contains(&at), "byte {at}");
                answered += 1;
            }
        }
        assert!(answered < 4, "{answered} changes went unnoticed");
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = CertificateParams::default().serialize_request(&other).unwrap();
        assert!(matches!(
            authority.issue(request.der(), WORKER, NOW),
            Err(AuthorityError::RequestKey)
        ));
        assert!(matches!(
            authority.issue(&vec![0; REQUEST_BYTES_MAX + 1], WORKER, NOW),
            Err(AuthorityError::RequestLength(_))
        ));
    }

    #[test]
    fn an_authority_vouches_for_its_own_cluster_and_its_own_time() {
        let authority = authority();
        let request = PrivateKey::generate().unwrap().request().unwrap();
        let elsewhere = PeerName {
            cluster: [8; 16],
            ..WORKER
        };
        assert!(matches!(
            authority.issue(&request, elsewhere, NOW),
            Err(AuthorityError::OtherCluster { .. })
        ));
        let end = authority.certificate().validity().not_after;
        assert_eq!(end, NOW + 3650 * DAY);
        let last = authority.issue(&request, WORKER, end - DAY).unwrap();
        assert_eq!(last.certificate.validity.not_after, end);
        for now in [end, end + DAY, i64::MAX, i64::MIN, -1] {
            assert!(
                matches!(authority.issue(&request, WORKER, now), Err(AuthorityError::Time { .. })),
                "{now}"
            );
        }
        let backwards = Validity {
            not_before: NOW,
            not_after: NOW,
        };
        assert!(matches!(
            authority.issue_for(&request, WORKER, backwards),
            Err(AuthorityError::Time { .. })
        ));
        assert!(matches!(
            Authority::create(CLUSTER, i64::MAX),
            Err(AuthorityError::Time { .. })
        ));
    }

    #[test]
    fn an_authority_survives_its_bytes_and_shows_its_key_nowhere() {
        let authority = authority();
        let bytes = authority.encode().unwrap();
        let read = Authority::decode(&bytes).unwrap();
        assert_eq!(read.cluster(), CLUSTER);
        assert_eq!(read.fingerprint(), authority.fingerprint());
        let made = read.identity(WORKER, NOW).unwrap();
        assert_eq!(made.ca(), authority.certificate());
        for cut in 0..bytes.len() {
            assert!(Authority::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(matches!(Authority::decode(&[2, 0, 0]), Err(AuthorityError::Version(2))));
        // The certificate of one and the key of another.
        let other = Authority {
            cluster: CLUSTER,
            ca: Authority::create(CLUSTER, NOW).unwrap().ca,
            key: PrivateKey::from_pkcs8(&authority.key.to_pkcs8().unwrap()).unwrap(),
        };
        let error = Authority::decode(&other.encode().unwrap()).unwrap_err();
        assert!(matches!(error, AuthorityError::Damaged(_)));
        let texts = format!("{authority:?} {authority:#?} {error} {error:?}");
        // The scalar is the 32 bytes after its tag and length (RFC 5915, section 3).
        let pkcs8 = authority.key.to_pkcs8().unwrap();
        let at = pkcs8.windows(2).position(|pair| pair == [4, 32]).unwrap() + 2;
        for part in pkcs8[at..at + 32].windows(4) {
            assert!(!texts.contains(&hex(part)) && !texts.contains(&format!("{part:?}")));
        }
    }
}
