//! An authority for tests: certificates as the coordinator makes them, and with one thing wrong.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType,
};

use super::{CaCertificate, Identity, PeerName, PrivateKey, Role};

pub(crate) const CLUSTER: [u8; 16] = [0x11; 16];
pub(crate) const COORDINATOR: PeerName = PeerName {
    cluster: CLUSTER,
    role: Role::Coordinator,
    id: 1,
};
pub(crate) const WORKER: PeerName = PeerName {
    cluster: CLUSTER,
    role: Role::Worker,
    id: 7,
};

pub(crate) struct TestAuthority {
    ca: CaCertificate,
    key: Vec<u8>,
}

impl TestAuthority {
    pub(crate) fn new() -> Self {
        let key = PrivateKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            ca: CaCertificate::from_der(certificate.der()).unwrap(),
            key: key.to_pkcs8().unwrap().to_vec(),
        }
    }

    pub(crate) fn ca(&self) -> CaCertificate {
        self.ca.clone()
    }

    /// A certificate for `name`, changed before it is signed, and its key.
    pub(crate) fn certificate(&self, name: PeerName, change: &dyn Fn(&mut CertificateParams)) -> (Vec<u8>, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(name.to_string().try_into().unwrap())];
        change(&mut params);
        let issuer = Issuer::from_ca_cert_der(self.ca.der(), PrivateKey::from_pkcs8(&self.key).unwrap()).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.der().to_vec(), key)
    }

    pub(crate) fn identity(&self, name: PeerName) -> Identity {
        let (der, key) = self.certificate(name, &|_| {});
        Identity::new(&key, &der, self.ca()).unwrap()
    }
}
