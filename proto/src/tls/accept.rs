//! The listening side: TLS under tonic's server.
//!
//! Handshakes run beside each other and beside what is served. Each has a time limit; when too many run at once, the oldest goes once it had
//! its chance. So clients that connect and say nothing take the place of nobody but each other, and a thousand workers that come back at once
//! are served as fast as the cores go.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use super::certificate::PeerCertificate;
use super::connection::{Connection, PeerInfo};
use super::refusal::{Refusal, refusal};
use super::shared::SharedIdentity;
use super::verify::{ClientVerifier, Revocations, VerifyError};
use super::{ALPN, VERSIONS, provider};

/// How long a handshake may take. It is two round trips and a millisecond of computing: this is for links that lose every other packet.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a handshake is left alone when there are too many: a second is five times around the world.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);
/// How many handshakes run at once. One holds some tens of KiB, so that this is about 10 MiB, and cores are full with far fewer.
const HANDSHAKES_MAX: usize = 256;
/// How many connections stand at once: a thousand workers with a few each, and programs.
const CONNECTIONS_MAX: usize = 8 << 10;
/// How many of them may be without a certificate, which anybody can open: nodes always find room.
const ANONYMOUS_MAX: usize = 2 << 10;
const _: () = assert!(ANONYMOUS_MAX + HANDSHAKES_MAX < CONNECTIONS_MAX);
/// How long to wait after the system could not accept. It is out of file descriptors or memory, and asking at once would only burn a core.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// How long one may take.
    pub time: Duration,
    /// How long one is left alone when there are too many.
    pub patience: Duration,
    /// How many run at once.
    pub concurrent: usize,
    /// How many connections stand at once; more are closed before a handshake.
    pub connections: usize,
    /// How many of them may be without a certificate; more are closed after the handshake.
    pub anonymous: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            time: HANDSHAKE_TIME,
            patience: HANDSHAKE_PATIENCE,
            concurrent: HANDSHAKES_MAX,
            connections: CONNECTIONS_MAX,
            anonymous: ANONYMOUS_MAX,
        }
    }
}

/// Accepts TLS connections with this node's identity.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    limits: HandshakeLimits,
}

impl Acceptor {
    /// Prepares to accept. `revocations` is asked in every handshake.
    ///
    /// # Errors
    /// [`VerifyError::Chain`] when the authority's certificate cannot be used as one.
    pub fn new(identity: &SharedIdentity, revocations: Arc<dyn Revocations>) -> Result<Self, VerifyError> {
        let current = identity.current();
        let verifier = ClientVerifier::new(current.ca(), current.name().cluster, revocations)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(VerifyError::Chain)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(identity.clone()));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would carry the certificate of its first handshake, which nobody would look at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            tls: TlsAcceptor::from(Arc::new(config)),
            limits: HandshakeLimits::default(),
        })
    }

    /// With other bounds.
    #[must_use]
    pub fn with_limits(self, limits: HandshakeLimits) -> Self {
        Self { limits, ..self }
    }

    /// The connections that come in, for `serve_with_incoming`. It never ends and never fails: what goes wrong with one connection is logged,
    /// and when the system cannot accept it is asked again a moment later. Dropping it ends the handshakes that run.
    pub fn incoming(&self, listener: TcpListener) -> Incoming {
        Incoming {
            acceptor: self.clone(),
            listener,
            handshakes: JoinSet::new(),
            running: VecDeque::new(),
            room: semaphore(self.limits.connections),
            room_anonymous: semaphore(self.limits.anonymous),
            is_full: false,
            pause: None,
        }
    }

    /// Does the handshake of one connection, with its time limit. Nothing is counted.
    ///
    /// # Errors
    /// What the stream or TLS says; [`io::ErrorKind::TimedOut`].
    pub async fn accept(&self, stream: TcpStream, address: SocketAddr) -> io::Result<Connection> {
        // Small messages go at once; a socket that does not know the option works without it.
        let _ = stream.set_nodelay(true);
        let stream = tokio::time::timeout(self.limits.time, self.tls.accept(stream))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no handshake in time"))??;
        let (_, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|der| PeerCertificate::from_der(der))
            .transpose()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(Connection::tls(stream, PeerInfo::Remote { address, certificate }))
    }
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// See [`Acceptor::incoming`].
pub struct Incoming {
    acceptor: Acceptor,
    listener: TcpListener,
    handshakes: JoinSet<Option<Connection>>,
    /// When each handshake began, the oldest first. Ended ones are taken out when there are too many.
    running: VecDeque<(Instant, AbortHandle)>,
    room: Arc<Semaphore>,
    room_anonymous: Arc<Semaphore>,
    is_full: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Makes room for one more handshake, or says when there may be some.
    fn make_room(&mut self, now: Instant) -> Result<(), Instant> {
        let limits = self.acceptor.limits;
        if self.running.len() < limits.concurrent {
            return Ok(());
        }
        self.running.retain(|(_, handshake)| !handshake.is_finished());
        if self.running.len() < limits.concurrent {
            return Ok(());
        }
        match self.running.front() {
            Some((since, _)) if now < *since + limits.patience => Err(*since + limits.patience),
            _ => {
                if let Some((_, oldest)) = self.running.pop_front() {
                    tracing::debug!("too many handshakes: the oldest is given up");
                    oldest.abort();
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, address: SocketAddr, now: Instant) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            // Once per time that it becomes so: whoever fills the listener must not fill the log too.
            if !std::mem::replace(&mut self.is_full, true) {
                tracing::warn!(
                    connections_max = self.acceptor.limits.connections,
                    "too many connections: new ones are closed"
                );
            }
            return;
        };
        self.is_full = false;
        let acceptor = self.acceptor.clone();
        let room_anonymous = Arc::clone(&self.room_anonymous);
        let handshake = self.handshakes.spawn(async move {
            let mut connection = match acceptor.accept(stream, address).await {
                Ok(connection) => connection,
                Err(error) => {
                    match refusal(&error) {
                        // Whoever scans ports, or speaks something else.
                        None | Some(Refusal::Protocol) => tracing::debug!(%address, %error, "handshake failed"),
                        Some(refusal) => tracing::info!(%address, %refusal, "handshake refused"),
                    }
                    return None;
                }
            };
            connection.hold(permit);
            if connection.peer().certificate().is_none() {
                let Ok(permit) = room_anonymous.try_acquire_owned() else {
                    tracing::debug!(%address, "too many connections without a certificate: this one is closed");
                    return None;
                };
                connection.hold(permit);
            }
            Some(connection)
        });
        self.running.push_back((now, handshake));
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Connection>>> {
        let this = self.get_mut();
        loop {
            match this.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(connection)))) => return Poll::Ready(Some(Ok(connection))),
                // Failed and logged, or given up.
                Poll::Ready(Some(_)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            let now = Instant::now();
            if let Err(until) = this.make_room(now) {
                this.pause = Some(Box::pin(tokio::time::sleep_until(until)));
                continue;
            }
            match ready!(this.listener.poll_accept(cx)) {
                Ok((stream, address)) => this.begin(stream, address, now),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    this.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("listener", &self.listener)
            .field("handshakes", &self.handshakes.len())
            .finish_non_exhaustive()
    }
}
