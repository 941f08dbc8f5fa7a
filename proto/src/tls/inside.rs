//! Connections that never leave the process: an embedded node's worker, and the command that runs the node, speak to the coordinator beside them over
//! the same services as everybody, without a certificate. Whoever holds a [`Doorway`] was given it by the code that made the coordinator; nobody else can.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::Channel;

use super::connection::{Connection, PeerInfo};
use super::http2;

/// Connections that may wait to be accepted: a node has two users inside, a worker and a command.
const WAITING_MAX: usize = 8;

/// Where connections of this process come in. It never ends.
#[derive(Debug)]
pub struct InsideIncoming {
    accepted: mpsc::Receiver<Connection>,
    /// So that it does not end with the last doorway: a listener that ends takes its server with it.
    _open: mpsc::Sender<Connection>,
}

/// Makes connections for an [`InsideIncoming`].
#[derive(Debug, Clone)]
pub struct Doorway {
    connections: mpsc::Sender<Connection>,
}

/// A doorway, and what it leads to.
pub fn doorway() -> (Doorway, InsideIncoming) {
    let (connections, accepted) = mpsc::channel(WAITING_MAX);
    let incoming = InsideIncoming {
        accepted,
        _open: connections.clone(),
    };
    (Doorway { connections }, incoming)
}

impl Doorway {
    /// A channel on which every request is the worker's of that number.
    pub fn worker(&self, worker: u64) -> Channel {
        self.channel(PeerInfo::Inside { worker })
    }

    /// A channel on which every request is that of the user whose process this is.
    pub fn user(&self, uid: u32) -> Channel {
        self.channel(PeerInfo::Local { uid })
    }

    /// Connected when it is first used, and again when it broke.
    fn channel(&self, peer: PeerInfo) -> Channel {
        let connections = self.connections.clone();
        http2::endpoint("http://inside").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let (connections, peer) = (connections.clone(), peer.clone());
            async move {
                let (near, far) = UnixStream::pair()?;
                let sent = connections.send(Connection::inside(far, peer)).await;
                sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        }))
    }
}

impl Stream for InsideIncoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Connection>>> {
        self.accepted.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}
