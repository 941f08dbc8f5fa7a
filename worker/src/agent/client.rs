//! The port over gRPC: one try of each call, with a deadline, and what its status means.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tresor_proto::ids::WorkerId;
use tresor_proto::trace;
use tresor_proto::v1::agent_client::AgentClient;
use tresor_proto::v1::{self, ErrorInfo};
use tresor_storage::Kind;
use tresor_storage::ids::PointId;

use super::failure::Failure;
use super::port::{
    AdoptedPoint, Beat, CallError, CatalogueContent, Completion, Coordinator, Facts, LeaseId, LeaseProgress,
    LeaseVault, Life, LoggedPoint, Offer, OthersLease, Registered, WatchStream,
};
use super::wire;
use crate::control::home::POINTS_MAX;

/// How long a call may take that waits for an entry of the log: a leader that was just elected needs some seconds.
const CALL: Duration = Duration::from_secs(20);
/// How long a beat may take: the next one is sent soon after.
const BEAT: Duration = Duration::from_secs(8);
/// How long the report of a log may take: nobody needs it for anything else.
const LOG: Duration = Duration::from_secs(5);
/// How much longer than asked for a call that waits for work may take.
const POLL_SLACK: Duration = Duration::from_secs(10);
/// How long a stream may be silent.
const STREAM_SILENCE: Duration = Duration::from_secs(30);
/// Largest message taken: pieces of streams have about a megabyte.
const MESSAGE_MAX: usize = 8 << 20;
/// After so many calls without an answer another coordinator is tried.
const PATIENCE: u32 = 2;

/// The kind of a refusal that says that slots of the index moved.
const MOVED: &str = "moved";

/// Where channels to coordinators come from.
pub trait Channels: Send + Sync + 'static {
    /// A channel to the coordinator that is tried first now. It connects when it is used, and again when it broke.
    fn channel(&self) -> Channel;

    /// Another coordinator is tried first from now on.
    fn skip(&self);

    /// Hears where all coordinators are now, with every answer that says it. Who has one way to one coordinator has no use for it.
    fn learn(&self, _coordinators: &[String]) {}
}

/// The coordinators of a cluster.
pub struct Client<C> {
    channels: C,
    current: Mutex<Current>,
}

struct Current {
    client: AgentClient<Channel>,
    /// Counts the channels: a call on an old one says nothing of the present one.
    number: u64,
    failures: u32,
}

impl<C> std::fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn client_of(channel: Channel) -> AgentClient<Channel> {
    AgentClient::new(channel).max_decoding_message_size(MESSAGE_MAX)
}

fn request<M>(message: M, deadline: Duration) -> Request<M> {
    let mut request = Request::new(message);
    // The server stops waiting when nobody waits for it.
    request.set_timeout(deadline);
    trace::carry_in(&mut request);
    request
}

impl<C: Channels> Client<C> {
    /// A client that connects when it is first used.
    pub fn new(channels: C) -> Self {
        let client = client_of(channels.channel());
        Self {
            channels,
            current: Mutex::new(Current {
                client,
                number: 0,
                failures: 0,
            }),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // Nothing under it panics half way.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T, F, R>(&self, deadline: Duration, call: F) -> Result<T, CallError>
    where
        F: FnOnce(AgentClient<Channel>) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let (client, number) = {
            let current = self.current();
            (current.client.clone(), current.number)
        };
        let result = match tokio::time::timeout(deadline, call(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(error_of(&status)),
            Err(_) => Err(CallError::Unanswered {
                why: format!("nothing within {} s", deadline.as_secs()),
            }),
        };
        self.note(number, matches!(result, Err(CallError::Unanswered { .. })));
        result
    }

    /// Takes another channel when the present one gave no answer several times.
    fn note(&self, number: u64, is_silent: bool) {
        let mut current = self.current();
        if current.number != number {
            return;
        }
        current.failures = if is_silent { current.failures + 1 } else { 0 };
        if current.failures >= PATIENCE {
            self.channels.skip();
            *current = Current {
                client: client_of(self.channels.channel()),
                number: number + 1,
                failures: 0,
            };
        }
    }
}

/// The next message of a stream; none at its good end.
async fn next<M>(stream: &mut Streaming<M>) -> Result<Option<M>, CallError> {
    match tokio::time::timeout(STREAM_SILENCE, stream.message()).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) => Err(error_of(&status)),
        Err(_) => Err(CallError::Unanswered {
            why: format!("a stream was silent for {} s", STREAM_SILENCE.as_secs()),
        }),
    }
}

/// A kind by its word on the wire; of one that a later version uses nothing is known but that it is not for us.
fn kind_of(word: &str) -> Kind {
    match word {
        "retry" => Kind::Retry,
        "invalid" => Kind::Invalid,
        "missing" => Kind::Missing,
        "corrupt" => Kind::Corrupt,
        "fenced" => Kind::Fenced,
        "full" => Kind::Full,
        "denied" => Kind::Denied,
        "bug" => Kind::Bug,
        _ => Kind::Unsupported,
    }
}

/// What a status means. A coordinator says it with its kind; without that it is from a proxy or from this side of a broken connection, where only
/// codes that no broken connection has are final.
pub(crate) fn error_of(status: &Status) -> CallError {
    let why = || match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    if let Some(info) = ErrorInfo::of(status) {
        if info.kind == MOVED {
            return CallError::Moved { why: why() };
        }
        return match kind_of(&info.kind) {
            Kind::Retry => CallError::Unanswered { why: why() },
            kind => CallError::Refused {
                kind,
                why: why(),
                hint: info.hint,
            },
        };
    }
    let kind = match status.code() {
        // What a broken connection looks like has many codes, but always a source.
        _ if status.source().is_some() => Kind::Retry,
        Code::NotFound => Kind::Missing,
        Code::InvalidArgument | Code::AlreadyExists | Code::OutOfRange => Kind::Invalid,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::FailedPrecondition => Kind::Fenced,
        Code::Unimplemented => Kind::Unsupported,
        Code::DataLoss => Kind::Corrupt,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => Kind::Retry,
    };
    match kind {
        Kind::Retry => CallError::Unanswered { why: innermost(status) },
        kind => CallError::Refused {
            kind,
            why: why(),
            hint: String::new(),
        },
    }
}

/// The last cause: what is before it are layers of the connection that say `transport error`.
fn innermost(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[async_trait]
impl<C: Channels> Coordinator for Client<C> {
    async fn register(&self, life: Life, facts: &Facts) -> Result<Registered, CallError> {
        let message = wire::register(life, facts);
        let answer = self
            .call(CALL, |mut client| async move {
                client.register(request(message, CALL)).await
            })
            .await?;
        self.channels.learn(&answer.coordinators);
        wire::registered(answer)
    }

    async fn next_lease(&self, life: Life, free: u32, wait: Duration) -> Result<Option<Offer>, CallError> {
        let message = wire::next_lease(life, free, wait);
        let deadline = wait + POLL_SLACK;
        let answer = self
            .call(deadline, |mut client| async move {
                client.next_lease(request(message, deadline)).await
            })
            .await?;
        wire::offer(answer)
    }

    async fn beat(
        &self,
        life: Life,
        leases: Vec<LeaseProgress>,
        shares: BTreeMap<String, u32>,
    ) -> Result<Beat, CallError> {
        let message = wire::beat(life, jiff::Timestamp::now().as_millisecond(), leases, shares);
        let answer = self
            .call(
                BEAT,
                |mut client| async move { client.beat(request(message, BEAT)).await },
            )
            .await?;
        self.channels.learn(&answer.coordinators);
        Ok(wire::beat_answer(answer))
    }

    async fn complete(&self, completion: &Completion) -> Result<(), CallError> {
        let message = wire::complete(completion);
        self.call(CALL, |mut client| async move {
            client.complete(request(message, CALL)).await
        })
        .await
        .map(|v1::CompleteResponse {}| ())
    }

    async fn fail(&self, lease: LeaseId, failure: &Failure) -> Result<(), CallError> {
        let message = wire::fail(lease, failure);
        self.call(
            CALL,
            |mut client| async move { client.fail(request(message, CALL)).await },
        )
        .await
        .map(|v1::FailResponse {}| ())
    }

    async fn report_log(&self, lease: LeaseId, log: Vec<u8>) -> Result<(), CallError> {
        let message = v1::ReportLogRequest {
            id: wire::some_id(lease),
            log: log.into(),
        };
        self.call(LOG, |mut client| async move {
            client.report_log(request(message, LOG)).await
        })
        .await
        .map(|v1::ReportLogResponse {}| ())
    }

    async fn catalogue(&self, lease: LeaseId) -> Result<CatalogueContent, CallError> {
        let message = v1::CatalogueRequest {
            id: wire::some_id(lease),
        };
        let mut stream = self
            .call(CALL, |mut client| async move { client.catalogue(message).await })
            .await?;
        let mut catalogue = wire::Catalogue::default();
        while let Some(piece) = next(&mut stream).await? {
            catalogue.add(piece)?;
        }
        Ok(catalogue.finish())
    }

    async fn points(&self, lease: LeaseId, only: Option<PointId>) -> Result<Vec<LoggedPoint>, CallError> {
        let message = v1::AgentPointsRequest {
            id: wire::some_id(lease),
            point: only.map(|point| point.0.to_vec().into()).unwrap_or_default(),
        };
        let mut stream = self
            .call(CALL, |mut client| async move { client.points(message).await })
            .await?;
        let mut points = Vec::new();
        while let Some(piece) = next(&mut stream).await? {
            for point in &piece.points {
                points.push(wire::logged_point(point)?);
            }
            if points.len() > POINTS_MAX {
                return Err(CallError::Unreadable {
                    why: format!("more than {POINTS_MAX} points"),
                });
            }
        }
        Ok(points)
    }

    async fn adopt_points(&self, lease: LeaseId, points: &[AdoptedPoint]) -> Result<u64, CallError> {
        let message = wire::adopt_points(lease, points);
        let answer = self
            .call(CALL, |mut client| async move {
                client.adopt_points(request(message, CALL)).await
            })
            .await?;
        Ok(answer.adopted)
    }

    async fn watch(&self, life: Life) -> Result<WatchStream, CallError> {
        let message = v1::WatchRequest {
            life: life.0.to_vec().into(),
        };
        let stream = self
            .call(CALL, |mut client| async move { client.watch(message).await })
            .await?;
        // It may be silent for days; that the connection lives is HTTP/2's to find out.
        Ok(stream
            .map(|update| match update {
                Ok(update) => wire::watch_update(update),
                Err(status) => Err(error_of(&status)),
            })
            .boxed())
    }

    async fn lease_of(&self, life: Life, lease: LeaseId, holder: WorkerId) -> Result<OthersLease, CallError> {
        let message = v1::LeaseOfRequest {
            life: life.0.to_vec().into(),
            lease: wire::some_id(lease),
            worker: holder.0,
        };
        let answer = self
            .call(CALL, |mut client| async move {
                client.lease_of(request(message, CALL)).await
            })
            .await?;
        wire::others_lease(answer)
    }

    async fn index_vaults(&self, life: Life) -> Result<Vec<LeaseVault>, CallError> {
        let message = v1::IndexVaultsRequest {
            life: life.0.to_vec().into(),
        };
        let answer = self
            .call(CALL, |mut client| async move {
                client.index_vaults(request(message, CALL)).await
            })
            .await?;
        wire::index_vaults(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: &str) -> Status {
        ErrorInfo {
            kind: kind.to_owned(),
            hint: String::from("look"),
            ..Default::default()
        }
        .into_status("no")
    }

    #[test]
    fn what_a_coordinator_refuses_is_final_and_has_its_kind() {
        for (word, kind) in [
            ("invalid", Kind::Invalid),
            ("missing", Kind::Missing),
            ("corrupt", Kind::Corrupt),
            ("fenced", Kind::Fenced),
            ("full", Kind::Full),
            ("denied", Kind::Denied),
            ("bug", Kind::Bug),
            ("of tomorrow", Kind::Unsupported),
        ] {
            let refused = CallError::Refused {
                kind,
                why: String::from("no"),
                hint: String::from("look"),
            };
            assert_eq!(error_of(&info(word)), refused, "{word}");
        }
        assert!(matches!(error_of(&info("retry")), CallError::Unanswered { .. }));
    }

    #[test]
    fn without_a_coordinators_word_only_codes_that_no_broken_connection_has_are_final() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::Unknown,
            Code::Internal,
            Code::Cancelled,
            Code::ResourceExhausted,
        ] {
            let error = error_of(&Status::new(code, "x"));
            assert!(matches!(error, CallError::Unanswered { .. }), "{code:?}");
        }
        for (code, kind) in [
            (Code::NotFound, Kind::Missing),
            (Code::FailedPrecondition, Kind::Fenced),
            (Code::PermissionDenied, Kind::Denied),
            (Code::Unauthenticated, Kind::Denied),
            (Code::InvalidArgument, Kind::Invalid),
            (Code::Unimplemented, Kind::Unsupported),
        ] {
            assert_eq!(error_of(&Status::new(code, "x")).kind(), kind, "{code:?}");
        }
        let broken = Status::from_error("connection reset".into());
        assert!(matches!(error_of(&broken), CallError::Unanswered { why } if why == "connection reset"));
    }

    #[derive(Default)]
    struct Counted {
        made: std::sync::atomic::AtomicU32,
        skipped: std::sync::atomic::AtomicU32,
    }

    impl Channels for std::sync::Arc<Counted> {
        fn channel(&self) -> Channel {
            self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // Nobody listens on the discard port of this machine, or closes at once.
            Channel::from_static("http://127.0.0.1:9").connect_lazy()
        }

        fn skip(&self) {
            self.skipped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_coordinator_that_does_not_answer_twice_is_left_for_another() {
        let channels = std::sync::Arc::new(Counted::default());
        let client = Client::new(std::sync::Arc::clone(&channels));
        for _ in 0..4 {
            let error = client
                .beat(Life::random(), Vec::new(), BTreeMap::new())
                .await
                .map(|_| ());
            assert!(matches!(error, Err(CallError::Unanswered { .. })), "{error:?}");
        }
        let count = |number: &std::sync::atomic::AtomicU32| number.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!((count(&channels.skipped), count(&channels.made)), (2, 3));
    }
}
