//! An accepted connection and who is at its other end.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::certificate::PeerCertificate;
use super::name::PeerName;
use super::verify::Revocations;

/// Who is at the other end of a connection. Every request that tonic hands to a service has it among its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerInfo {
    /// Over the network, by TLS.
    Remote {
        /// From where, as the system says; nothing is decided by it.
        address: SocketAddr,
        /// The certificate that was shown and checked. Without one it is a program, which shows a token with each request.
        certificate: Option<PeerCertificate>,
    },
    /// Over the Unix socket of this machine.
    Local {
        /// The user, as the kernel says.
        uid: u32,
    },
    /// Within this process: the worker of an embedded node.
    Inside {
        /// Its number.
        worker: u64,
    },
}

/// Why a peer whose handshake was fine is refused later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It was removed since.
    #[error("{} was removed from the cluster", name.short())]
    Revoked {
        /// Who.
        name: PeerName,
    },
    /// Its certificate ended since, and the connection is still that one.
    #[error("the certificate of {} is over: connect again with a renewed one", name.short())]
    Expired {
        /// Who.
        name: PeerName,
    },
}

impl PeerInfo {
    /// Out of a request's extensions. There is none only where the request did not come through our listeners.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get::<Self>()
    }

    /// The certificate, if one was shown.
    pub fn certificate(&self) -> Option<&PeerCertificate> {
        match self {
            Self::Remote { certificate, .. } => certificate.as_ref(),
            Self::Local { .. } | Self::Inside { .. } => None,
        }
    }

    /// The node, if it is one.
    pub fn name(&self) -> Option<PeerName> {
        self.certificate().map(|certificate| certificate.name)
    }

    /// Asks again what was asked in the handshake, for each request: a connection can outlive the membership of who made it, and its
    /// certificate. Who showed none passes; the token decides.
    ///
    /// # Errors
    /// [`PeerError::Revoked`], [`PeerError::Expired`].
    pub fn check(&self, revocations: &dyn Revocations, now: i64) -> Result<(), PeerError> {
        let Some(certificate) = self.certificate() else {
            return Ok(());
        };
        let name = certificate.name;
        if revocations.is_revoked(certificate) {
            return Err(PeerError::Revoked { name });
        }
        if now > certificate.validity.not_after {
            return Err(PeerError::Expired { name });
        }
        Ok(())
    }
}

/// A connection as tonic serves it.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: PeerInfo,
    /// What it takes of the listener's limits for as long as it lives.
    permits: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Stream {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Connection {
    pub(crate) fn tls(stream: TlsStream<TcpStream>, peer: PeerInfo) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream)),
            peer,
            permits: Vec::new(),
        }
    }

    pub(crate) fn unix(stream: UnixStream, uid: u32) -> Self {
        Self::inside(stream, PeerInfo::Local { uid })
    }

    /// One whose other end is known to whoever made it.
    pub(crate) fn inside(stream: UnixStream, peer: PeerInfo) -> Self {
        Self {
            stream: Stream::Unix(stream),
            peer,
            permits: Vec::new(),
        }
    }

    /// Keeps a permit until this is dropped.
    pub(crate) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permits.push(permit);
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{TestAuthority, WORKER};
    use crate::tls::verify::NothingRevoked;

    struct Removed(u64);

    impl Revocations for Removed {
        fn is_revoked(&self, peer: &PeerCertificate) -> bool {
            peer.name.id == self.0
        }
    }

    #[test]
    fn a_peer_is_asked_about_again_with_each_request() {
        let certificate = TestAuthority::new().identity(WORKER).certificate().clone();
        let end = certificate.validity.not_after;
        let peer = PeerInfo::Remote {
            address: "127.0.0.1:1".parse().expect("an address"),
            certificate: Some(certificate),
        };
        assert_eq!(peer.name(), Some(WORKER));
        assert_eq!(peer.check(&NothingRevoked, end), Ok(()));
        assert_eq!(
            peer.check(&NothingRevoked, end + 1),
            Err(PeerError::Expired { name: WORKER })
        );
        assert_eq!(
            peer.check(&Removed(WORKER.id), 0),
            Err(PeerError::Revoked { name: WORKER })
        );
        assert_eq!(peer.check(&Removed(WORKER.id + 1), 0), Ok(()));
        let local = PeerInfo::Local { uid: 0 };
        assert_eq!(local.check(&Removed(0), i64::MAX), Ok(()));
        assert_eq!(local.name(), None);
    }
}
