//! All services of a coordinator on its listeners: over TLS, on the socket of an embedded node, and the pages for machines that watch.
//!
//! Everything over gRPC goes through one gate, which knows who calls before a service does; see `gate`. A stop is graceful and bounded: calls that wait
//! are ended, answers that are under way have a few seconds, and then connections are cut.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tresor_proto::tls::inside::InsideIncoming;
use tresor_proto::tls::local::LocalIncoming;
use tresor_proto::tls::verify::VerifyError;
use tresor_proto::tls::{Acceptor, Connection, SharedIdentity, http2};
use tresor_proto::v1;
use tresor_proto::v1::agent_server::AgentServer;
use tresor_proto::v1::join_server::JoinServer;
use tresor_proto::v1::peer_server::{Peer, PeerServer};

use super::admin::AdminService;
use super::agent::{AgentService, KeysHere, Placement};
use super::auth::Removed;
use super::connection::Cuttable;
use super::context::Services;
use super::gate::{Gate, GateLayer};
use super::http::{self, Watched};
use super::join::JoinService;
use super::metrics::{Around, Metrics, Watching};
use crate::node::Handle;
use crate::security::ClusterKey;

/// Largest message of a person or a program: an item with 128 disks has 600 KB.
const ADMIN_BYTES_MAX: usize = 4 << 20;
/// Largest message of a worker: ten thousand points of a vault that is taken over, or a hundred thousand that are harmed.
const AGENT_BYTES_MAX: usize = 8 << 20;
/// Largest message of a node that joins: a token, a request for a certificate, two names.
const JOIN_BYTES_MAX: usize = 64 << 10;
/// Largest message of another coordinator: a piece of a snapshot has 3 MiB at most, a message of Raft 2 MiB.
const PEER_BYTES_MAX: usize = 4 << 20;
/// Largest answer: a page of a list, and one more row.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long answers that are under way have when the server stops.
const GRACE: Duration = Duration::from_secs(3);
/// How long connections have to notice that they are cut.
const CUT: Duration = Duration::from_secs(1);

/// Where a coordinator listens. One without a network is embedded.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For other coordinators, workers, people and programs, over TLS.
    pub network: Option<TcpListener>,
    /// For other commands of the user whose node this is.
    pub local: Option<LocalIncoming>,
    /// For this process itself, where it is an embedded node.
    pub inside: Option<InsideIncoming>,
    /// For machines that watch.
    pub http: Option<TcpListener>,
}

/// What is served.
pub struct Served<P> {
    /// What handlers stand on.
    pub services: Services,
    /// Opens what is secret in the log.
    pub key: ClusterKey,
    /// Who this coordinator is.
    pub identity: SharedIdentity,
    /// Keys of vaults beside the log; none: all are in the log.
    pub keys_here: Option<Arc<dyn KeysHere>>,
    /// Chooses work for workers.
    pub placement: Arc<dyn Placement>,
    /// Takes what other coordinators send.
    pub peer: P,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Its folder, whose room is shown; none: it is not looked at.
    pub folder: Option<std::path::PathBuf>,
    /// Numbers of others in this process, in Prometheus' text format: shown beside ours.
    pub beside: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

/// Why a server could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The authority of the identity cannot be used.
    #[error("prepare TLS")]
    Tls(#[from] VerifyError),
    /// The descriptions of the services cannot be read.
    #[error("describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A listener over gRPC ended.
    #[error("serve gRPC")]
    Grpc(#[from] tonic::transport::Error),
    /// The listener of the pages ended.
    #[error("serve HTTP")]
    Http(#[source] io::Error),
    /// A part of the server panicked.
    #[error("a part of the server panicked")]
    Panicked,
}

/// Serves until `stop` is cancelled, or a listener fails. Returns within a few seconds of either.
///
/// # Errors
/// [`ServeError`].
pub async fn serve<P: Peer>(
    listeners: Listeners,
    served: Served<P>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let watching = Watching {
        services: served.services.clone(),
        metrics: Arc::clone(&served.metrics),
        around: Around {
            identity: served.identity.clone(),
            folder: served.folder.clone(),
        },
        beside: served.beside.clone(),
    };
    // Ends with `stop`, and when one part of the server ends.
    let stopping = stop.child_token();
    let gate = Gate::new(
        served.services.handle.clone(),
        served.identity.clone(),
        Arc::clone(&served.metrics),
        stopping.clone(),
    );
    if listeners.http.is_some() {
        // Nobody asks for its numbers otherwise.
        tokio::spawn(watching.clone().run(stopping.clone()));
    }
    let identity = served.identity.clone();
    let routes = routes(served, &stopping).await?;
    let handle = watching.services.handle.clone();
    run(listeners, &identity, handle, Arc::new(watching), gate, routes, stopping).await
}

/// All services.
async fn routes<P: Peer>(served: Served<P>, stopping: &CancellationToken) -> Result<Routes, ServeError> {
    let Served {
        services,
        key,
        keys_here,
        placement,
        peer,
        ..
    } = served;
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(reporter, services.handle.clone(), stopping.clone()));
    let mut agent = AgentService::new(services.clone(), key.clone(), placement, stopping.clone());
    agent.set_keys_here(keys_here);
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(
            AdminService::new(services.clone())
                .into_server()
                .max_decoding_message_size(ADMIN_BYTES_MAX)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(
            AgentServer::new(agent)
                .max_decoding_message_size(AGENT_BYTES_MAX)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(
            JoinServer::new(JoinService::new(services, key))
                .max_decoding_message_size(JOIN_BYTES_MAX)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(
            PeerServer::new(peer)
                .max_decoding_message_size(PEER_BYTES_MAX)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(health.max_decoding_message_size(JOIN_BYTES_MAX))
        .add_service(describe().build_v1()?.max_decoding_message_size(JOIN_BYTES_MAX))
        .add_service(describe().build_v1alpha()?.max_decoding_message_size(JOIN_BYTES_MAX));
    Ok(routes.routes())
}

/// Says that this process serves while it knows a leader.
async fn report_health(reporter: tonic_health::server::HealthReporter, handle: Handle, stopping: CancellationToken) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let mut leadership = handle.leadership();
    loop {
        let has_leader = leadership.borrow_and_update().leader.is_some();
        let is_over = stopping.is_cancelled();
        let status = if has_leader && !is_over { Serving } else { NotServing };
        for service in ["", "tresor.v1.Admin", "tresor.v1.Agent", "tresor.v1.Join"] {
            reporter.set_service_status(service, status).await;
        }
        if is_over {
            return;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() {
                // The node's task has ended: there is nothing to serve from.
                stopping.cancelled().await;
            },
            () = stopping.cancelled() => {}
        }
    }
}

fn boxed(
    incoming: impl Stream<Item = io::Result<Connection>> + Send + 'static,
) -> Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>> {
    Box::pin(incoming)
}

/// Serves `routes` behind `gate` on all listeners.
pub(crate) async fn run(
    listeners: Listeners,
    identity: &SharedIdentity,
    handle: Handle,
    watched: Arc<dyn Watched>,
    gate: Gate,
    routes: Routes,
    stopping: CancellationToken,
) -> Result<(), ServeError> {
    let cut = CancellationToken::new();
    let gate = GateLayer(Arc::new(gate));
    let mut parts: JoinSet<Result<(), ServeError>> = JoinSet::new();
    if let Some(listener) = listeners.network {
        let acceptor = Acceptor::new(identity, Arc::new(Removed::new(handle.clone())))?;
        let cut = cut.clone();
        let incoming = acceptor
            .incoming(listener)
            .map(move |accepted| accepted.map(|connection| Cuttable::new(connection, cut.clone())));
        let server = http2::server().layer(gate.clone()).add_routes(routes.clone());
        let stop = stopping.clone().cancelled_owned();
        parts.spawn(async move { Ok(server.serve_with_incoming_shutdown(incoming, stop).await?) });
    }
    let here = listeners.local.map(boxed);
    let inside = listeners.inside.map(boxed);
    for listener in here.into_iter().chain(inside) {
        let cut = cut.clone();
        let incoming = listener.map(move |accepted| accepted.map(|connection| Cuttable::new(connection, cut.clone())));
        let server = http2::server().layer(gate.clone()).add_routes(routes.clone());
        let stop = stopping.clone().cancelled_owned();
        parts.spawn(async move { Ok(server.serve_with_incoming_shutdown(incoming, stop).await?) });
    }
    if let Some(listener) = listeners.http {
        let pages = http::serve(listener, watched, stopping.clone(), cut.clone());
        parts.spawn(async move { pages.await.map_err(ServeError::Http) });
    }
    // Nothing ends by itself before it is told to; where something does, the rest goes with it.
    let first = tokio::select! {
        ended = parts.join_next() => ended,
        () = stopping.cancelled() => None,
    };
    stopping.cancel();
    let mut result = first.map_or(Ok(()), ended);
    if tokio::time::timeout(GRACE, end(&mut parts, &mut result)).await.is_err() {
        tracing::debug!("connections that are still open are cut");
        cut.cancel();
        let _ = tokio::time::timeout(CUT, end(&mut parts, &mut result)).await;
    }
    // Connections are tasks of their own, which may outlive their listener.
    cut.cancel();
    result
}

/// Waits for all parts; what went wrong first stays.
async fn end(parts: &mut JoinSet<Result<(), ServeError>>, result: &mut Result<(), ServeError>) {
    while let Some(part) = parts.join_next().await {
        let part = ended(part);
        if result.is_ok() {
            *result = part;
        }
    }
}

fn ended(part: Result<Result<(), ServeError>, tokio::task::JoinError>) -> Result<(), ServeError> {
    part.unwrap_or(Err(ServeError::Panicked))
}
