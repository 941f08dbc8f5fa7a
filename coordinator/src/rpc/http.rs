//! A listener for machines that watch: whether this process lives, whether it is of use, and its numbers. It shows nothing that is secret and changes
//! nothing, and has no tokens: whoever can connect may read. So it is for the loopback, unless somebody decides otherwise.
//!
//! ```text
//! /healthz   200 as long as the process answers: restart it when it does not
//! /readyz    200 when it knows a leader and has applied nearly all of the log; else 503 with the reason: send nothing here
//! /metrics   Prometheus' text format
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::connection::Cuttable;
use super::metrics::Metrics;
use crate::node::Handle;
use crate::node::handle::Standing;

/// Connections at once: some scrapers, some probes.
const CONNECTIONS_MAX: usize = 64;
/// How long one lasts: a scraper that keeps one open for longer connects again.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// How long the node has to say how it stands.
const STANDING_TIME: Duration = Duration::from_secs(2);
/// Entries that may be committed and not applied: a few moments of a busy cluster. More is a member that catches up.
const BEHIND_MAX: u64 = 10_000;

/// What the pages stand on.
#[derive(Debug, Clone)]
struct Pages {
    handle: Handle,
    metrics: Arc<Metrics>,
}

async fn standing(handle: &Handle) -> Result<Standing, &'static str> {
    match tokio::time::timeout(STANDING_TIME, handle.standing()).await {
        Ok(Ok(standing)) => Ok(standing),
        Ok(Err(_)) => Err("the coordinator stops"),
        Err(_) => Err("the coordinator does not say how it stands"),
    }
}

/// Whether a member is of use to who asks it.
fn is_ready(standing: &Standing, has_leader: bool) -> Result<(), &'static str> {
    if !has_leader {
        return Err("no leader is known");
    }
    if standing.commit.saturating_sub(standing.applied) > BEHIND_MAX {
        return Err("this coordinator catches up with the log");
    }
    Ok(())
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(Shared(pages): Shared<Pages>) -> Response {
    let has_leader = pages.handle.leadership().borrow().leader.is_some();
    let standing = standing(&pages.handle).await;
    match standing.and_then(|standing| is_ready(&standing, has_leader)) {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(Shared(pages): Shared<Pages>) -> Response {
    let lead = *pages.handle.leadership().borrow();
    match standing(&pages.handle).await {
        Ok(standing) => pages
            .metrics
            .note_standing(&standing, lead.is_me, lead.leader.is_some()),
        Err(why) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
    pages.handle.read(|state| pages.metrics.note_state(state));
    let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content, pages.metrics.text()).into_response()
}

/// Accepts some connections at a time, each for some time.
struct Limited {
    listener: TcpListener,
    room: Arc<Semaphore>,
    cut: CancellationToken,
}

impl Listener for Limited {
    type Io = Cuttable<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let permit = permit.expect("nobody closes it");
        // The one of axum waits and tries again when the system cannot accept.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let stream = Cuttable::new(stream, self.cut.clone()).limited(CONNECTION_TIME, permit);
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves the pages until `stop` is cancelled, and closes what is left when `cut` is.
pub(crate) async fn serve(
    listener: TcpListener,
    handle: Handle,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    cut: CancellationToken,
) -> io::Result<()> {
    let pages = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(self::metrics))
        .with_state(Pages { handle, metrics });
    let listener = Limited {
        listener,
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        cut,
    };
    axum::serve(listener, pages)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
