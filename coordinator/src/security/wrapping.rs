//! The cluster key, and what the log keeps under it.
//!
//! The log is copied to every coordinator, into snapshots and into backups of the cluster. What must not lie there in the clear (the
//! authority's key, platform keys of vaults) is wrapped: AES-256-GCM under a key that is a file on each coordinator and in no log. It says what
//! it is, so that nothing wrapped can stand in another's place.
//!
//! The nonce is random, 96 bits: a cluster wraps a handful of secrets in its life, far from the 2³² at which that would matter.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use tresor_proto::ids::{VaultId, hex, unhex};
use zeroize::Zeroizing;

/// Longest secret that is wrapped, bytes: an authority has about a thousand.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
/// Bytes of AES-GCM's tag.
const TAG_BYTES: usize = 16;
/// How the text in the file begins.
const PREFIX: &str = "tresor_cluster_key_";
/// Longest file that is read, bytes. Ours have 93.
const FILE_BYTES_MAX: usize = 256;
/// The version of [`Wrapped`].
const VERSION: u8 = 1;

/// Why something was not wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The key's file.
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
    /// There is one already: what is wrapped under it would be lost.
    #[error("{path} exists: a cluster key is never replaced by another")]
    Exists {
        /// Which one.
        path: PathBuf,
    },
    /// Others than its owner may read it.
    #[error("{path} can be read by others than its owner (mode {mode:o}): make it 600")]
    Exposed {
        /// Which one.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What is in it is not a cluster key.
    #[error("{path} is not a file of a cluster key, or damaged")]
    Damaged {
        /// Which one.
        path: PathBuf,
    },
    /// Another key wrapped it.
    #[error("this is wrapped under cluster key {wanted}, and this coordinator has {have}")]
    OtherKey {
        /// Under which.
        wanted: KeyId,
        /// Which one is here.
        have: KeyId,
    },
    /// A program of a later version wrapped it.
    #[error("this is wrapped as of version {0}, this program reads up to {VERSION}")]
    Version(u8),
    /// The key is the right one, and yet it does not open: changed, or not what it was taken for.
    #[error("what is wrapped here is damaged, or no {purpose}")]
    Sealed {
        /// What it was taken for.
        purpose: Purpose,
    },
    /// Longer than any secret of ours.
    #[error("a secret of {0} bytes")]
    TooLong(usize),
    /// The provider failed.
    #[error("wrap a secret")]
    Provider,
    /// The operating system gave no random numbers.
    #[error("draw random numbers")]
    Random,
}

/// What a secret is; it cannot be taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The authority, with its private key.
    Authority,
    /// The platform key of a vault.
    VaultKey(VaultId),
    /// Where a channel of notifications leads, and with what.
    Channel,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("ca-key"),
            Self::VaultKey(vault) => write!(f, "vault-key:{vault}"),
            Self::Channel => f.write_str("channel"),
        }
    }
}

/// Which cluster key it is; tells nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A wrapped secret, as it lies in the log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    /// How it is wrapped.
    pub version: u8,
    /// Under which key.
    pub key: KeyId,
    /// The nonce.
    pub nonce: [u8; NONCE_LEN],
    /// The secret and the tag, encrypted.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapped")
            .field("key", &self.key)
            .field("bytes", &self.sealed.len())
            .finish_non_exhaustive()
    }
}

/// The cluster key: 256 random bits, the same on every coordinator.
#[derive(Clone)]
pub struct ClusterKey {
    bytes: Zeroizing<[u8; 32]>,
    id: KeyId,
}

impl ClusterKey {
    /// Draws one, for a new cluster.
    ///
    /// # Errors
    /// [`WrapError::Random`].
    pub fn random() -> Result<Self, WrapError> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| WrapError::Random)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Takes the bytes that another coordinator handed over when this one joined.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let id = blake3::derive_key("tresor control v1 cluster key id", bytes);
        Self {
            bytes: Zeroizing::new(*bytes),
            id: KeyId(*id.first_chunk().expect("a hash has 32 bytes")),
        }
    }

    /// The secret itself, for the answer to a coordinator that joins; it goes through TLS and into a file there, nowhere else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The key that a vault gets which is made for this cluster. It follows from the cluster key, so that a copy of that one file opens every vault that
    /// the cluster made, whatever else is lost.
    pub fn vault_key(&self, vault: VaultId) -> Zeroizing<[u8; 32]> {
        let own = Zeroizing::new(blake3::derive_key(
            "tresor control v1 platform keys of vaults",
            self.bytes.as_ref(),
        ));
        Zeroizing::new(*blake3::keyed_hash(&own, &vault.0).as_bytes())
    }

    /// Which one it is.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Reads it from its file.
    ///
    /// # Errors
    /// [`WrapError::File`], [`WrapError::Exposed`], [`WrapError::Damaged`].
    pub fn load(path: &Path) -> Result<Self, WrapError> {
        let trouble = |source| WrapError::File {
            what: "read",
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(trouble)?;
        let mode = file.metadata().map_err(trouble)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(WrapError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut buffer = Zeroizing::new([0; FILE_BYTES_MAX]);
        let mut length = 0;
        while length < FILE_BYTES_MAX {
            match file.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(trouble(e)),
            }
        }
        std::str::from_utf8(&buffer[..length])
            .ok()
            .and_then(Self::from_text)
            .ok_or_else(|| WrapError::Damaged { path: path.to_owned() })
    }

    /// Writes it to its file, durably, with mode 0600. A file that is there stays: what was wrapped under it would be lost.
    ///
    /// # Errors
    /// [`WrapError::Exists`], [`WrapError::File`].
    pub fn create(&self, path: &Path) -> Result<(), WrapError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.new"));
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let text = self.to_text();
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(rustix::fs::CWD, &beside, rustix::fs::CWD, path, flags)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => WrapError::Exists { path: path.to_owned() },
            _ => WrapError::File {
                what: "write",
                path: path.to_owned(),
                source,
            },
        })
    }

    fn to_text(&self) -> Zeroizing<String> {
        // Reserved at once: a string that grows leaves copies behind that nobody wipes.
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
        text.push_str(PREFIX);
        text.push_str(&Zeroizing::new(hex(self.bytes.as_ref())));
        text.push('_');
        text.push_str(&hex(&self.checksum()));
        text.push('\n');
        text
    }

    fn from_text(text: &str) -> Option<Self> {
        let (key, sum) = text.trim_ascii().strip_prefix(PREFIX)?.split_once('_')?;
        let key = Self::from_bytes(&Zeroizing::new(unhex(key)?));
        (unhex(sum) == Some(key.checksum())).then_some(key)
    }

    fn checksum(&self) -> [u8; 4] {
        let sum = blake3::derive_key("tresor control v1 cluster key file", self.bytes.as_ref());
        *sum.first_chunk().expect("a hash has 32 bytes")
    }

    fn cipher(&self) -> Result<LessSafeKey, WrapError> {
        let key = Zeroizing::new(blake3::derive_key(
            "tresor control v1 wrapping key",
            self.bytes.as_ref(),
        ));
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| WrapError::Provider)?;
        Ok(LessSafeKey::new(key))
    }

    /// Wraps a secret.
    ///
    /// # Errors
    /// [`WrapError::TooLong`], [`WrapError::Random`], [`WrapError::Provider`].
    pub fn wrap(&self, purpose: Purpose, secret: &[u8]) -> Result<Wrapped, WrapError> {
        if secret.len() > SECRET_BYTES_MAX {
            return Err(WrapError::TooLong(secret.len()));
        }
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| WrapError::Random)?;
        let mut sealed = Vec::with_capacity(secret.len() + TAG_BYTES);
        sealed.extend_from_slice(secret);
        let nonce_once = Nonce::assume_unique_for_key(nonce);
        self.cipher()?
            .seal_in_place_append_tag(nonce_once, Aad::from(associated(purpose)), &mut sealed)
            .map_err(|_| WrapError::Provider)?;
        Ok(Wrapped {
            version: VERSION,
            key: self.id,
            nonce,
            sealed,
        })
    }

    /// Unwraps a secret of that purpose.
    ///
    /// # Errors
    /// [`WrapError::OtherKey`], [`WrapError::Version`], [`WrapError::Sealed`]; [`WrapError::TooLong`].
    pub fn unwrap(&self, purpose: Purpose, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        if wrapped.version != VERSION {
            return Err(WrapError::Version(wrapped.version));
        }
        if wrapped.key != self.id {
            return Err(WrapError::OtherKey {
                wanted: wrapped.key,
                have: self.id,
            });
        }
        if wrapped.sealed.len() > SECRET_BYTES_MAX + TAG_BYTES {
            return Err(WrapError::TooLong(wrapped.sealed.len()));
        }
        let mut bytes = Zeroizing::new(wrapped.sealed.clone());
        let nonce = Nonce::assume_unique_for_key(wrapped.nonce);
        let length = self
            .cipher()?
            .open_in_place(nonce, Aad::from(associated(purpose)), &mut bytes)
            .map_err(|_| WrapError::Sealed { purpose })?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterKey").field(&self.id).finish()
    }
}

fn associated(purpose: Purpose) -> Vec<u8> {
    format!("tresor control wrapped v{VERSION} {purpose}").into_bytes()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const VAULT: Purpose = Purpose::VaultKey(VaultId([3; 16]));

    #[test]
    fn a_secret_is_unwrapped_by_its_key_for_its_purpose_only() {
        let key = ClusterKey::random().unwrap();
        for secret in [b"".as_slice(), b"secret", &vec![1; SECRET_BYTES_MAX]] {
            let wrapped = key.wrap(VAULT, secret).unwrap();
            assert_eq!(key.unwrap(VAULT, &wrapped).unwrap().as_slice(), secret);
            for other in [Purpose::Authority, Purpose::VaultKey(VaultId([4; 16]))] {
                assert!(matches!(key.unwrap(other, &wrapped), Err(WrapError::Sealed { .. })));
            }
            let other = ClusterKey::random().unwrap();
            assert!(matches!(
                other.unwrap(VAULT, &wrapped),
                Err(WrapError::OtherKey { wanted, have }) if wanted == key.id() && have == other.id()
            ));
        }
        assert!(matches!(
            key.wrap(VAULT, &vec![1; SECRET_BYTES_MAX + 1]),
            Err(WrapError::TooLong(_))
        ));
    }

    #[test]
    fn every_changed_byte_of_what_is_wrapped_is_noticed() {
        let key = ClusterKey::random().unwrap();
        let wrapped = key.wrap(VAULT, b"secret").unwrap();
        let bytes = postcard::to_allocvec(&wrapped).unwrap();
        assert_eq!(postcard::from_bytes::<Wrapped>(&bytes).unwrap(), wrapped);
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            if let Ok(wrong) = postcard::from_bytes::<Wrapped>(&wrong) {
                assert!(key.unwrap(VAULT, &wrong).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn one_secret_is_never_wrapped_the_same_way_twice() {
        let key = ClusterKey::random().unwrap();
        let (first, second) = (key.wrap(VAULT, b"secret").unwrap(), key.wrap(VAULT, b"secret").unwrap());
        assert_ne!(first.nonce, second.nonce);
        assert_ne!(first.sealed, second.sealed);
    }

    #[test]
    fn a_key_survives_its_file_and_its_hand_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        assert!(matches!(ClusterKey::load(&path), Err(WrapError::File { .. })));
        let key = ClusterKey::random().unwrap();
        key.create(&path).unwrap();
        assert_eq!(ClusterKey::load(&path).unwrap().expose(), key.expose());
        assert_eq!(ClusterKey::from_bytes(key.expose()).id(), key.id());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let other = ClusterKey::random().unwrap();
        assert!(matches!(other.create(&path), Err(WrapError::Exists { .. })));
        assert_eq!(ClusterKey::load(&path).unwrap().id(), key.id());
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        ClusterKey::random().unwrap().create(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut wrong = whole.clone();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            std::fs::write(&path, wrong).unwrap();
            assert!(
                matches!(ClusterKey::load(&path), Err(WrapError::Damaged { .. })),
                "byte {at}"
            );
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(
                matches!(ClusterKey::load(&path), Err(WrapError::Damaged { .. })),
                "cut at {at}"
            );
        }
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert!(matches!(ClusterKey::load(&path), Err(WrapError::Damaged { .. })));
        std::fs::write(&path, &whole).unwrap();
        ClusterKey::load(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(
            ClusterKey::load(&path),
            Err(WrapError::Exposed { mode: 0o604, .. })
        ));
    }

    #[test]
    fn no_text_has_the_key_or_a_secret() {
        let key = ClusterKey::random().unwrap();
        let wrapped = key.wrap(VAULT, key.expose()).unwrap();
        let error = key.unwrap(Purpose::Authority, &wrapped).unwrap_err();
        let texts = format!("{key:?} {key:#?} {wrapped:?} {} {error} {error:?}", key.id());
        assert!(texts.contains(&key.id().to_string()), "which one it is may be told");
        for part in key.expose().windows(4) {
            assert!(!texts.contains(&hex(part)) && !texts.contains(&format!("{part:?}")));
        }
        assert!(!key.expose().starts_with(&key.id().0));
    }
}
