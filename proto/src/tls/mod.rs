//! How two processes of a cluster prove to each other who they are.
//!
//! Every cluster has an authority of its own. A node (a coordinator or a worker) holds a certificate of that authority with its name in it;
//! programs and people hold a token and know the authority. TLS 1.3 only, one provider (aws-lc-rs), and always our own acceptor and connector,
//! because a certificate must be renewable without a restart and a removed node must be refused at once.
//!
//! What is guarded here:
//! 1. A client talks only to who has a certificate of the pinned authority, of the expected cluster and with the expected role: addresses
//!    and DNS decide nothing ([`verify`]).
//! 2. A server asks for a certificate and takes none for an answer; one that is shown must be good. Who came without is told apart for ever
//!    by [`PeerInfo`], which every request carries.
//! 3. No session is resumed: a resumed one would skip the look at the certificate, and with it expiry and removal.
//! 4. Silent and slow clients cost a bounded amount of memory and time, and block nobody ([`accept`]).
//! 5. A private key is in a file that only its owner reads, and in memory that is wiped; it is in no text.
//!
//! Read `name` for names, `certificate` and `identity` for what a node holds, `verify` for what is believed, then `accept` and `connect`.
//! `contact` is the first talk of who knows nothing but a fingerprint; `local` is the same service on a Unix socket, `inside`
//! within one process.

pub mod accept;
pub mod certificate;
pub mod connect;
pub mod connection;
pub mod contact;
mod files;
pub mod http2;
pub mod identity;
pub mod inside;
pub mod key;
pub mod local;
pub mod name;
mod pem;
pub mod refusal;
pub mod shared;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod testing;
pub mod verify;

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use accept::{Acceptor, HandshakeLimits, Incoming};
pub use certificate::{CaCertificate, CertificateError, Fingerprint, PeerCertificate, Serial, Validity};
pub use connect::{ConnectError, Connector};
pub use connection::{Connection, PeerError, PeerInfo};
pub use contact::{Contact, first_contact};
pub use identity::{Identity, IdentityError};
pub use key::{KeyError, PrivateKey};
pub use name::{NameError, PeerName, Role};
pub use refusal::{Refusal, refusal};
pub use shared::SharedIdentity;
pub use verify::{NothingRevoked, Revocations, Trust, VerifyError};

/// What both sides say they speak after the handshake.
const ALPN: &[u8] = b"h2";
/// TLS 1.3 and nothing before: every process that talks here is ours.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The one provider, with the hybrid key exchange first: keys of vaults travel here, and those must stay secret for as long as backups
/// are kept, also from who records the traffic today and has a quantum computer later.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}
