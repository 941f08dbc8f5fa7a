//! What a node is: its certificate, its private key, and the authority that it belongs to, in a folder.
//!
//! ```text
//! node.crt   the certificate (PEM)
//! node.key   its private key (PKCS#8, PEM, 0600)
//! ca.crt     the certificate of the authority (PEM)
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::certificate::{self, CaCertificate, CertificateError, Fingerprint, PeerCertificate, Validity};
use super::files::{self, Step};
use super::key::{KeyError, PrivateKey};
use super::name::PeerName;
use super::pem;
use super::verify::{self, VerifyError};

const CERTIFICATE: &str = "node.crt";
const KEY: &str = "node.key";
const CA: &str = "ca.crt";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("{what} {path}")]
    File {
        /// `read`, `write`, …
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Some of the three files are there and one is not.
    #[error("{path} is missing beside the other files of this node's identity")]
    Incomplete {
        /// Which one.
        path: PathBuf,
    },
    /// Others than its owner may read the private key.
    #[error("{path} can be read by others than its owner (mode {mode:o}): make it 600, and renew it if anybody did")]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is not what was written there.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The certificate is not one of a node, or the other one of no authority.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is another one's.
    #[error("the private key does not belong to the certificate of {name}")]
    OtherKey {
        /// Whose certificate.
        name: PeerName,
    },
    /// Another authority made the certificate.
    #[error("the certificate of {name} is not of the authority with fingerprint {ca}")]
    OtherAuthority {
        /// Whose certificate.
        name: PeerName,
        /// The authority.
        ca: Fingerprint,
        /// What does not hold.
        #[source]
        source: Box<VerifyError>,
    },
    /// It is to take the place of another node's.
    #[error("the identity of {new} cannot replace that of {old}")]
    OtherNode {
        /// Who this is.
        old: PeerName,
        /// Who it would be.
        new: PeerName,
    },
}

/// A node's certificate, private key and authority, checked to belong together.
///
/// An expired one is one too: its holder must be able to say so, and to ask for another.
pub struct Identity {
    certificate: PeerCertificate,
    certificate_der: CertificateDer<'static>,
    key: Zeroizing<Vec<u8>>,
    ca: CaCertificate,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Joins a private key and what the authority made of its request.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`], [`IdentityError::OtherKey`], [`IdentityError::OtherAuthority`], [`IdentityError::Key`].
    pub fn new(key: &PrivateKey, certificate: &[u8], ca: CaCertificate) -> Result<Self, IdentityError> {
        let read = PeerCertificate::from_der(certificate)?;
        let der = CertificateDer::from(certificate.to_vec());
        let since = UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(read.validity.not_before).unwrap_or(0),
        ));
        if let Err(source) = verify::check_chain(&der, &ca, since) {
            return Err(IdentityError::OtherAuthority {
                name: read.name,
                ca: ca.fingerprint(),
                source: Box::new(source),
            });
        }
        // The authority goes along: who knows only its fingerprint finds it in the chain.
        let certified = CertifiedKey::new(vec![der.clone(), ca.der().clone()], key.signing_key()?);
        if certified.keys_match().is_err() {
            return Err(IdentityError::OtherKey { name: read.name });
        }
        Ok(Self {
            certificate: read,
            certificate_der: der,
            key: key.to_pkcs8()?,
            ca,
            certified: Arc::new(certified),
        })
    }

    /// Reads the identity in a folder, and finishes a replacement that was cut off. `None` when there is none: the node has not joined.
    ///
    /// # Errors
    /// By cause; every error names the file.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let in_place = Set::read(folder, |name| folder.join(name))?;
        // What is left beside it matters only if what is in place does not hold.
        let trouble = match in_place.identity() {
            Ok(Some(identity)) => return Ok(Some(identity)),
            Ok(None) => None,
            Err(e @ IdentityError::Exposed { .. }) => return Err(e),
            Err(e) => Some(e),
        };
        let newest = |name: &str| {
            let beside = files::beside(folder, name);
            if beside.exists() { beside } else { folder.join(name) }
        };
        let pending: Vec<_> = [CERTIFICATE, KEY, CA]
            .into_iter()
            .filter(|name| files::beside(folder, name).exists())
            .collect();
        match Set::read(folder, newest).and_then(|set| set.identity()) {
            Ok(Some(identity)) if !pending.is_empty() => {
                let renames = pending.into_iter().map(|name| Step::Rename { name });
                for step in renames.chain([Step::Sync]) {
                    files::run(&step, folder).map_err(|(path, source)| IdentityError::File {
                        what: "rename",
                        path,
                        source,
                    })?;
                }
                Ok(Some(identity))
            }
            // Half a first identity, or half a second one beside a broken first: what is in place is what there is to say.
            _ => trouble.map_or(Ok(None), Err),
        }
    }

    /// Writes it to a folder, in place of any other, so that a cut leaves the old one or the new one.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let file = |what| move |(path, source)| IdentityError::File { what, path, source };
        files::make_folder(folder).map_err(file("make the folder"))?;
        self.with_steps(|steps| {
            steps
                .iter()
                .try_for_each(|step| files::run(step, folder))
                .map_err(file("write"))
        })
    }

    fn with_steps<T>(&self, run: impl FnOnce(&[Step<'_>]) -> T) -> T {
        let certificate = certificate::to_pem(&self.certificate_der);
        let key = pem::encode(pem::PRIVATE_KEY, &self.key);
        let ca = self.ca.to_pem();
        run(&files::replacing(&[
            (CA, ca.as_bytes()),
            (KEY, key.as_bytes()),
            (CERTIFICATE, certificate.as_bytes()),
        ]))
    }

    /// Who this is.
    pub fn name(&self) -> PeerName {
        self.certificate.name
    }

    /// What its certificate says.
    pub fn certificate(&self) -> &PeerCertificate {
        &self.certificate
    }

    /// The certificate itself.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }

    /// The authority that it belongs to.
    pub fn ca(&self) -> &CaCertificate {
        &self.ca
    }

    /// When its certificate is good; [`Validity::is_renewal_due`] says when to ask for the next one.
    pub fn validity(&self) -> Validity {
        self.certificate.validity
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

/// Three files as they were found, which may or may not make an identity.
struct Set {
    folder: PathBuf,
    files: [Option<files::Found>; 3],
}

impl Set {
    const NAMES: [&str; 3] = [CERTIFICATE, KEY, CA];

    fn read(folder: &Path, place: impl Fn(&str) -> PathBuf) -> Result<Self, IdentityError> {
        let mut found = [None, None, None];
        for (found, name) in found.iter_mut().zip(Self::NAMES) {
            let path = place(name);
            *found = files::read(&path).map_err(|source| IdentityError::File {
                what: "read",
                path,
                source,
            })?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            files: found,
        })
    }

    fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let path = |name| self.folder.join(name);
        let missing = Self::NAMES
            .into_iter()
            .zip(&self.files)
            .find_map(|(name, found)| found.is_none().then_some(name));
        let [Some(certificate), Some(key), Some(ca)] = &self.files else {
            let name = missing.filter(|_| self.files.iter().any(Option::is_some));
            return name.map_or(Ok(None), |name| Err(IdentityError::Incomplete { path: path(name) }));
        };
        if key.mode & 0o077 != 0 {
            return Err(IdentityError::Exposed {
                path: path(KEY),
                mode: key.mode,
            });
        }
        let damaged = |name, why: &dyn fmt::Display| IdentityError::Damaged {
            path: path(name),
            why: why.to_string(),
        };
        let text = |name, found: &files::Found| match &found.text {
            Some(text) => Ok(text.clone()),
            None => Err(damaged(name, &"it is no text, or too long")),
        };
        let certificate = certificate::from_pem(&text(CERTIFICATE, certificate)?)
            .and_then(|der| PeerCertificate::from_der(&der).map(|_| der))
            .map_err(|e| damaged(CERTIFICATE, &e))?;
        let key = pem::decode(pem::PRIVATE_KEY, &text(KEY, key)?)
            .ok_or(KeyError::Encoding)
            .and_then(|der| PrivateKey::from_pkcs8(&der))
            .map_err(|e| damaged(KEY, &e))?;
        let ca = CaCertificate::from_pem(&text(CA, ca)?).map_err(|e| damaged(CA, &e))?;
        Identity::new(&key, &certificate, ca).map(Some)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::ids::hex;
    use crate::tls::testing::{COORDINATOR, TestAuthority, WORKER};
    use std::os::unix::fs::PermissionsExt as _;

    fn fingerprint(identity: Option<&Identity>) -> Option<Fingerprint> {
        identity.map(|identity| identity.certificate().fingerprint)
    }

    #[test]
    fn an_identity_survives_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("identity");
        assert!(Identity::load(&folder).unwrap().is_none());
        let identity = TestAuthority::new().identity(WORKER);
        identity.save(&folder).unwrap();
        let loaded = Identity::load(&folder).unwrap().unwrap();
        assert_eq!(loaded.certificate(), identity.certificate());
        assert_eq!(loaded.ca(), identity.ca());
        assert_eq!(loaded.key, identity.key);
        let mode = |name| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(KEY), 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
    }

    #[test]
    fn a_cut_anywhere_leaves_the_old_identity_or_the_new_one() {
        let authority = TestAuthority::new();
        let (old, renewed) = (authority.identity(WORKER), authority.identity(WORKER));
        // Joined again, elsewhere.
        let other = TestAuthority::new().identity(COORDINATOR);
        for (before, after) in [(None, &old), (Some(&old), &renewed), (Some(&old), &other)] {
            let count = after.with_steps(|steps| steps.len());
            let mut seen = Vec::new();
            for cut in 0..=count {
                let dir = tempfile::tempdir().unwrap();
                if let Some(before) = before {
                    before.save(dir.path()).unwrap();
                }
                after.with_steps(|steps| {
                    for step in &steps[..cut] {
                        files::run(step, dir.path()).unwrap();
                    }
                });
                let found = Identity::load(dir.path()).unwrap();
                let found = fingerprint(found.as_ref());
                assert!(
                    found == fingerprint(before) || found == fingerprint(Some(after)),
                    "cut after {cut} of {count} steps"
                );
                // The next process finds the same.
                let again = Identity::load(dir.path()).unwrap();
                assert_eq!(fingerprint(again.as_ref()), found);
                seen.push(found);
            }
            assert_eq!(seen[0], fingerprint(before));
            assert_eq!(seen[count], fingerprint(Some(after)));
            assert!(
                seen.windows(2).filter(|pair| pair[0] != pair[1]).count() == 1,
                "never back again"
            );
        }
    }

    #[test]
    fn what_lies_beside_a_whole_identity_is_left_alone() {
        let authority = TestAuthority::new();
        let dir = tempfile::tempdir().unwrap();
        let identity = authority.identity(WORKER);
        identity.save(dir.path()).unwrap();
        std::fs::write(files::beside(dir.path(), KEY), "half a k").unwrap();
        let loaded = Identity::load(dir.path()).unwrap();
        assert_eq!(fingerprint(loaded.as_ref()), fingerprint(Some(&identity)));
    }

    #[test]
    fn broken_files_are_named() {
        let authority = TestAuthority::new();
        let identity = authority.identity(WORKER);
        let load = |change: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            identity.save(dir.path()).unwrap();
            change(dir.path());
            Identity::load(dir.path()).unwrap_err()
        };
        let ends = |path: &Path, name| path.file_name().unwrap() == name;
        for name in Set::NAMES {
            assert!(matches!(
                load(&|dir| std::fs::remove_file(dir.join(name)).unwrap()),
                IdentityError::Incomplete { path } if ends(&path, name)
            ));
            assert!(matches!(
                load(&|dir| std::fs::write(dir.join(name), "").unwrap()),
                IdentityError::Damaged { path, .. } if ends(&path, name)
            ));
        }
        assert!(matches!(
            load(&|dir| std::fs::set_permissions(dir.join(KEY), std::fs::Permissions::from_mode(0o640)).unwrap()),
            IdentityError::Exposed { mode: 0o640, .. }
        ));
        let stranger = TestAuthority::new().identity(WORKER);
        assert!(matches!(
            load(&|dir| std::fs::write(dir.join(CA), stranger.ca().to_pem()).unwrap()),
            IdentityError::OtherAuthority { name: WORKER, .. }
        ));
        let key = pem::encode(pem::PRIVATE_KEY, &stranger.key);
        assert!(matches!(
            load(&|dir| std::fs::write(dir.join(KEY), key.as_bytes()).unwrap()),
            IdentityError::OtherKey { name: WORKER }
        ));
    }

    #[test]
    fn no_text_has_the_private_key() {
        let authority = TestAuthority::new();
        let identity = authority.identity(WORKER);
        let dir = tempfile::tempdir().unwrap();
        identity.save(dir.path()).unwrap();
        let key = pem::encode(pem::PRIVATE_KEY, &identity.key);
        std::fs::write(dir.path().join(CERTIFICATE), key.as_bytes()).unwrap();
        let error = Identity::load(dir.path()).unwrap_err();
        let texts = format!(
            "{identity:?} {identity:#?} {:?} {error:?} {error}",
            identity.certified()
        );
        let scalar = PrivateKey::from_pkcs8(&identity.key).unwrap().scalar();
        for part in scalar.windows(4) {
            assert!(!texts.contains(&hex(part)) && !texts.contains(&format!("{part:?}")));
        }
        for line in key.lines().filter(|line| !line.starts_with('-')) {
            assert!(!texts.contains(line));
        }
    }
}
