//! Where this worker answers others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tresor_proto::tls::{Acceptor, SharedIdentity, VerifyError, http2};
use tresor_proto::trace::TraceLayer;
use tresor_proto::v1::parts_server::PartsServer;
use tresor_proto::v1::slots_server::SlotsServer;

use super::callers::Callers;
use super::owner::Owner;
use super::revoked::Revoked;
use super::service::SlotService;
use super::wire::MESSAGE_MAX;
use crate::control::ControlError;
use crate::parts::{PartService, ServiceParts};

/// Where workers listen for each other, unless they are told otherwise.
pub const PORT: u16 = 7422;

/// Where to listen, and what others are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The port; none: [`PORT`], or any that is free when it is taken.
    pub port: Option<u16>,
    /// The host at which others reach it: a name, or an address.
    pub host: String,
}

/// Why it cannot answer others.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port.
    #[error("could not listen for other workers on port {port}")]
    Listen {
        /// Which.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its certificate.
    #[error("could not prepare TLS for other workers")]
    Tls(#[source] VerifyError),
    /// The folder of its databases.
    #[error(transparent)]
    Folder(ControlError),
}

/// The address of this host as `towards` would see it: what the system would send from. Nothing is sent.
pub fn local_address(towards: &str) -> Option<SocketAddr> {
    use std::net::ToSocketAddrs as _;
    let to = towards.to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = match to.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok()
}

async fn bind(port: u16) -> io::Result<TcpListener> {
    // Both families where there are both.
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Listens; returns what others are told.
pub(super) async fn start(
    listen: &Listen,
    identity: &SharedIdentity,
    owner: Owner,
    parts: Option<ServiceParts>,
    revoked: Revoked,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<String, ServeError> {
    let port = listen.port.unwrap_or(PORT);
    let listener = match bind(port).await {
        Err(error) if listen.port.is_none() && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(
                port,
                "another process listens there: other workers are answered on a port that is free"
            );
            bind(0).await
        }
        listener => listener,
    };
    let failed = |source| ServeError::Listen { port, source };
    let listener = listener.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let acceptor = Acceptor::new(identity, Arc::new(revoked.clone())).map_err(ServeError::Tls)?;
    let callers = Callers::new(revoked);
    let parts = parts.map(|parts| PartsServer::new(PartService::new(parts, callers.clone())));
    let service = SlotsServer::new(SlotService::new(owner, callers))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let server = http2::server()
        .layer(TraceLayer)
        .add_service(service)
        .add_optional_service(parts);
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        if let Err(error) = server
            .serve_with_incoming_shutdown(acceptor.incoming(listener), stopped)
            .await
        {
            tracing::error!(%error, "other workers are not answered any more");
        }
    });
    let host = match listen.host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => listen.host.clone(),
    };
    tracing::info!(port, host, "other workers are answered");
    Ok(format!("{host}:{port}"))
}
