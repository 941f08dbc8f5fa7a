//! A listener for machines that watch: whether this process lives, whether it is of use, and its numbers. It shows nothing that is secret and changes
//! nothing, and has no tokens: whoever can connect may read. So it is for the loopback, unless somebody decides otherwise.
//!
//! ```text
//! /healthz   200 as long as the process lives: restart it when it does not, or when it does not answer
//! /readyz    200 when it is of use; else 503 with the reason: send nothing here
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
use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::connection::Cuttable;
use super::metrics::process;

/// Connections at once: some scrapers, some probes.
const CONNECTIONS_MAX: usize = 64;
/// How long one lasts: a scraper that keeps one open for longer connects again.
const CONNECTION_TIME: Duration = Duration::from_secs(300);

/// A process that is watched.
pub trait Watched: Send + Sync + 'static {
    /// Whether it lives.
    ///
    /// # Errors
    /// Why it is to be started again.
    fn is_alive(&self) -> Result<(), String>;

    /// Whether it is of use now.
    ///
    /// # Errors
    /// Why not.
    fn is_ready(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Its numbers, in Prometheus' text format.
    ///
    /// # Errors
    /// Why it cannot say them.
    fn metrics(&self) -> BoxFuture<'_, Result<String, String>>;
}

type Pages = Arc<dyn Watched>;

fn answer(is_so: Result<(), String>, word: &'static str) -> Response {
    match is_so {
        Ok(()) => (StatusCode::OK, word).into_response(),
        Err(why) => unavailable(&why),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

async fn healthz(Shared(pages): Shared<Pages>) -> Response {
    answer(pages.is_alive(), "ok\n")
}

async fn readyz(Shared(pages): Shared<Pages>) -> Response {
    answer(pages.is_ready().await, "ready\n")
}

async fn metrics(Shared(pages): Shared<Pages>) -> Response {
    match pages.metrics().await {
        Ok(text) => {
            let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (content, text + &process::text()).into_response()
        }
        Err(why) => unavailable(&why),
    }
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
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    watched: Arc<dyn Watched>,
    stop: CancellationToken,
    cut: CancellationToken,
) -> io::Result<()> {
    let pages = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(watched);
    let listener = Limited {
        listener,
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        cut,
    };
    axum::serve(listener, pages)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
