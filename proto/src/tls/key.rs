//! The private key of a node or of an authority: ECDSA on P-256.
//!
//! P-256 and not Ed25519, because a port that speaks TLS is looked at with whatever is at hand, and browsers, proxies and FIPS builds do not
//! all know Ed25519 certificates. Signing is a few tens of microseconds either way.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// What can go wrong with a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are something else.
    #[error("not a private key on P-256 in PKCS#8")]
    Encoding,
    /// The provider made none.
    #[error("make a private key")]
    Generate,
    /// No request could be signed.
    #[error("sign a certificate request")]
    Sign,
}

/// A private key. Whoever makes one keeps it: only [`Self::request`] travels.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
}

impl PrivateKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate() -> Result<Self, KeyError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(|pair| Self { pair })
            .map_err(|_| KeyError::Generate)
    }

    /// Reads a stored one.
    ///
    /// # Errors
    /// [`KeyError::Encoding`].
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes)
            .map(|pair| Self { pair })
            .map_err(|_| KeyError::Encoding)
    }

    /// The secret itself, to be stored.
    ///
    /// # Errors
    /// [`KeyError::Encoding`] when the provider does not give it out.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.pair.to_pkcs8v1().map_err(|_| KeyError::Encoding)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// A request for a certificate (PKCS#10, DER): the public key, and a signature that shows that the private one is here. It names nobody;
    /// the coordinator decides who asks.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(self).map_err(|_| KeyError::Sign)?;
        Ok(request.der().to_vec())
    }

    /// The public key (SubjectPublicKeyInfo, DER).
    ///
    /// # Errors
    /// [`KeyError::Encoding`] when the provider does not give it out.
    pub fn public_key(&self) -> Result<Vec<u8>, KeyError> {
        let der = self.pair.public_key().as_der().map_err(|_| KeyError::Encoding)?;
        Ok(der.as_ref().to_vec())
    }

    /// What must be in no text.
    #[cfg(test)]
    pub(crate) fn scalar(&self) -> Vec<u8> {
        use aws_lc_rs::encoding::AsBigEndian as _;
        self.pair
            .private_key()
            .as_be_bytes()
            .expect("it has one")
            .as_ref()
            .to_vec()
    }

    /// The key as rustls wants it.
    pub(crate) fn signing_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, KeyError> {
        let der = self.to_pkcs8()?;
        // Borrows the bytes, which are wiped with `der`; aws-lc wipes its own when the key is dropped.
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_slice()));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(|_| KeyError::Encoding)
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::ids::hex;

    #[test]
    fn a_key_survives_its_bytes_and_shows_them_nowhere() {
        let key = PrivateKey::generate().unwrap();
        let bytes = key.to_pkcs8().unwrap();
        let again = PrivateKey::from_pkcs8(&bytes).unwrap();
        assert_eq!(key.public_key().unwrap(), again.public_key().unwrap());
        assert_eq!(key.public_key().unwrap(), key.subject_public_key_info());
        let text = format!("{key:?} {:?}", key.signing_key().unwrap());
        let scalar = key.scalar();
        assert!(
            bytes.windows(32).any(|part| part == scalar),
            "what is looked for is the secret"
        );
        for part in scalar.windows(4) {
            assert!(!text.contains(&hex(part)) && !text.contains(&format!("{part:?}")));
        }
        assert_eq!(PrivateKey::from_pkcs8(&bytes[1..]).unwrap_err(), KeyError::Encoding);
    }

    #[test]
    fn a_request_names_nobody() {
        let key = PrivateKey::generate().unwrap();
        let request = key.request().unwrap();
        let request = rcgen::CertificateSigningRequestParams::from_der(&request.as_slice().into()).unwrap();
        assert_eq!(request.params.distinguished_name, DistinguishedName::new());
        assert_eq!(request.params.subject_alt_names, []);
        assert_eq!(request.public_key.der_bytes(), key.der_bytes());
    }
}
