//! Stands before every service: who calls, may they, who is to answer, and for how long that may take.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;
use tresor_proto::tls::{PeerInfo, SharedIdentity};
use tresor_proto::trace;

use super::auth::{self, Auth, Identity, Removed, TurnedAway, refusal};
use super::caller::Caller;
use super::forward::{self, Forwarder};
use super::metrics::{Denied, Metrics};
use super::permissions::{self, Access};
use crate::node::{Handle, Leadership};

/// How long a call may take until its answer begins. The longest waits 30 s for work, and then 10 s for a majority.
const CALL_TIME: Duration = Duration::from_secs(60);
/// How long a call waits for a leader where none is known: elections take a second or two.
const LEADER_TIME: Duration = Duration::from_secs(5);
/// How long a call that could not be handed on is held before its caller is told to ask again, unless there is another leader sooner; a little longer for
/// each of [`AWAY_SPREAD`] callers, so that they do not come back together. Far less than callers wait for an answer.
const AWAY_TIME: Duration = Duration::from_millis(100);
const AWAY_STEP: Duration = Duration::from_millis(10);
const AWAY_SPREAD: u32 = 16;
/// Joining shows its token in the request, so what comes of it is looked at here.
const JOIN: &str = "/tresor.v1.Join/Join";
/// The calls of coordinators among themselves last as long as a connection.
const PEER: &str = "/tresor.v1.Peer/";

/// What all connections share.
pub(crate) struct Gate {
    handle: Handle,
    auth: Auth,
    forwarder: Forwarder,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
    /// The term of the leader that was found to be away last.
    unreached: AtomicU64,
    /// Counts callers that waited for another leader, to spread them.
    waits: AtomicU32,
}

impl Gate {
    /// Before services that end with `stopping`.
    pub(crate) fn new(
        handle: Handle,
        identity: SharedIdentity,
        metrics: Arc<Metrics>,
        stopping: CancellationToken,
    ) -> Self {
        let removed = Arc::new(Removed::new(handle.clone()));
        Self {
            auth: Auth::new(handle.clone()),
            forwarder: Forwarder::new(identity, removed),
            handle,
            metrics,
            stopping,
            unreached: AtomicU64::new(0),
            waits: AtomicU32::new(0),
        }
    }

    async fn answer<S>(&self, mut request: Request<Body>, inner: S) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let Some((path, access)) = permissions::row(request.uri().path()) else {
            self.metrics.denied(Denied::Method);
            let text = "this coordinator has no such call";
            let hint = "run the same version of tresor here and there";
            return refusal(Code::Unimplemented, "invalid", text, hint, "").into_http();
        };
        let Some(peer) = request.extensions().get::<PeerInfo>().cloned() else {
            return refusal(Code::Internal, "bug", "the call came from nowhere", "", "").into_http();
        };
        let response = match self.admit(path, access, &peer, &mut request).await {
            Ok((identity, was_forwarded)) => {
                let is_undecided = identity == Identity::Undecided;
                let response = self.serve(path, identity, was_forwarded, request, inner).await;
                let is_refused = code(&response) == Code::Unauthenticated;
                if is_refused && (is_undecided || path == JOIN) {
                    self.auth.note_failure(&peer);
                }
                response
            }
            Err(refused) => {
                self.metrics.denied(refused.why);
                tracing::debug!(path, ?peer, why = ?refused.why, status = %refused.status, "call refused");
                refused.status.into_http()
            }
        };
        self.metrics.request(path, code(&response));
        response
    }

    /// Who calls, among the extensions of the request; and whether another member handed it on.
    async fn admit(
        &self,
        path: &str,
        access: Access,
        peer: &PeerInfo,
        request: &mut Request<Body>,
    ) -> Result<(Identity, bool), TurnedAway> {
        if path == JOIN {
            self.auth.check_guesses(auth::place(peer), None)?;
        }
        let wall = jiff::Timestamp::now();
        let identity = self.auth.admit(access, request.headers(), peer, wall).await?;
        // What a service sees of the caller is what was found out here.
        let headers = request.headers_mut();
        headers.remove(forward::CALLER);
        let was_forwarded = headers.remove(forward::FORWARDED).is_some();
        if let Identity::Known(caller) = &identity {
            request.extensions_mut().insert(caller.clone());
        }
        Ok((identity, was_forwarded))
    }

    async fn serve<S>(
        &self,
        path: &str,
        identity: Identity,
        was_forwarded: bool,
        request: Request<Body>,
        mut inner: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let (caller, is_undecided) = match identity {
            Identity::Known(caller) => (Some(caller), false),
            Identity::Nobody => (None, false),
            Identity::Undecided => (None, true),
        };
        let work = async {
            if permissions::is_for_leader(path) {
                let lead = self.leadership().await;
                if !lead.is_me {
                    return self.hand_on(lead, caller, was_forwarded, request).await;
                }
            }
            if is_undecided {
                // It became the leader a moment ago.
                return refusal(Code::Unavailable, "retry", "the leader has changed", "ask again", "").into_http();
            }
            let ready = std::future::poll_fn(|cx| inner.poll_ready(cx)).await;
            match ready {
                Ok(()) => {}
                Err(never) => match never {},
            }
            match inner.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        if path.starts_with(PEER) {
            // Such a call has no end of its own.
            return tokio::select! {
                response = work => response,
                () = self.stopping.cancelled() => {
                    refusal(Code::Unavailable, "retry", "this coordinator stops", "", "").into_http()
                }
            };
        }
        tokio::time::timeout(CALL_TIME, work).await.unwrap_or_else(|_| {
            refusal(
                Code::DeadlineExceeded,
                "retry",
                "the call took too long",
                "ask again",
                "",
            )
            .into_http()
        })
    }

    /// Who leads; waits a little where nobody is known to.
    async fn leadership(&self) -> Leadership {
        let mut leadership = self.handle.leadership();
        let known = leadership.wait_for(|lead| lead.leader.is_some());
        let known = tokio::time::timeout(LEADER_TIME, known).await;
        match known {
            Ok(Ok(lead)) => *lead,
            // None is known, or the node's task has ended: what it said last.
            _ => *self.handle.leadership().borrow(),
        }
    }

    /// Waits a moment for another leader than the one that is away: who asks again at once would only be turned away again.
    async fn wait_for_another(&self, lead: Leadership) {
        let mut leadership = self.handle.leadership();
        let changed =
            leadership.wait_for(|now| now.leader.is_some() && (now.leader, now.term) != (lead.leader, lead.term));
        let turn = self.waits.fetch_add(1, Ordering::Relaxed) % AWAY_SPREAD;
        // However it ends, the caller is told to ask again.
        let _ = tokio::time::timeout(AWAY_TIME + AWAY_STEP * turn, changed).await;
    }

    async fn hand_on(
        &self,
        lead: Leadership,
        caller: Option<Caller>,
        was_forwarded: bool,
        request: Request<Body>,
    ) -> Response<Body> {
        let address = lead
            .leader
            .and_then(|leader| Some((leader, self.handle.read(|state| auth::address(state, leader))?)));
        let Some((leader, address)) = address else {
            let text = "no coordinator leads at the moment";
            return refusal(Code::Unavailable, "retry", text, "ask again in a moment", "").into_http();
        };
        if was_forwarded {
            let text = "this coordinator does not lead any more";
            return refusal(Code::Unavailable, "retry", text, "ask again in a moment", &address).into_http();
        }
        self.metrics.forwarded();
        match self.forwarder.forward(request, leader, &address, caller.as_ref()).await {
            Ok(response) => response,
            Err(error) => {
                // Callers ask again until there is another leader: one line for each that is away.
                let is_news = self.unreached.swap(lead.term, Ordering::Relaxed) != lead.term;
                {
                    let error = &error as &dyn std::error::Error;
                    if is_news {
                        tracing::info!(%leader, %address, error, term = lead.term, "could not hand a call on");
                    } else {
                        tracing::debug!(%leader, %address, error, "could not hand a call on");
                    }
                }
                self.wait_for_another(lead).await;
                let text = format!("coordinator {leader}, which leads, cannot be reached");
                refusal(Code::Unavailable, "retry", text, "ask again in a moment", &address).into_http()
            }
        }
    }
}

/// The code of an answer as far as its head says: of a stream, how it began.
fn code(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// Puts a [`Gate`] before services.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            gate: Arc::clone(&self.0),
            inner,
        }
    }
}

/// Services behind a [`Gate`].
#[derive(Clone)]
pub(crate) struct Gated<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Who calls is found out first; the services are asked when a call comes to them.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = Arc::clone(&self.gate);
        let inner = self.inner.clone();
        let method = permissions::row(request.uri().path()).map_or("none", |(path, _)| path);
        let span = trace::call(request.headers(), method);
        Box::pin(async move { Ok(gate.answer(request, inner).await) }.instrument(span))
    }
}
