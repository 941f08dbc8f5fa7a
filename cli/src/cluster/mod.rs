//! A cluster as a client sees it: which one is meant, how it is reached, and every call of its Admin service.
//!
//! Read `address` for what `--cluster` may say, `kept` for what a login leaves, `connect` for channels, `calls` and `pages` for what can be asked,
//! `error` for what a refusal is to the caller.
//!
//! A call is repeated while nobody can answer it: coordinators restart, and a new leader is elected within seconds. It is bounded by the patience of
//! the settings. Requests that change something are repeated under the idempotency key of the first try (`calls`), so that none is done twice.

mod address;
mod backoff;
mod calls;
mod connect;
mod error;
mod kept;
mod pages;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};
use tresor_proto::v1::admin_client::AdminClient;
use tresor_storage::ids::random_bytes;

use crate::human;
use crate::screen::Screen;
use backoff::Backoff;
use connect::{Bearer, Way};

pub(crate) use address::{Target, check_cluster_name, list, parse_addresses};
pub(crate) use connect::meet;
pub(crate) use error::{ClusterError, Refusal, kind_of};
pub(crate) use kept::{Kept, parse_token};

/// How long one try may take. A change waits for a majority of disks; what takes longer has lost its way.
const CALL_TIME: Duration = Duration::from_secs(15);
/// Largest answer: a page of a thousand rows has about one megabyte, a status with all its notes some more.
const ANSWER_MAX: usize = 64 << 20;

/// The client of one call.
pub(crate) type Client = AdminClient<InterceptedService<Channel, Bearer>>;

/// A cluster that calls can be made of.
pub(crate) struct Cluster {
    name: String,
    way: Way,
    channel: Mutex<Channel>,
    patience: Duration,
    screen: Screen,
    is_of_home: bool,
}

impl Cluster {
    /// One by its way; nothing is connected yet.
    fn new(name: String, way: Way, patience: Duration, screen: &Screen) -> Self {
        Self {
            name,
            channel: Mutex::new(way.channel()),
            way,
            patience,
            screen: screen.clone(),
            is_of_home: false,
        }
    }

    /// The same, known to be the node of this home.
    pub(crate) fn of_home(self) -> Self {
        Self {
            is_of_home: true,
            ..self
        }
    }

    /// Whether it is the node of this home.
    pub(crate) fn is_of_home(&self) -> bool {
        self.is_of_home
    }

    /// Its name, as far as this side knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn channel(&self) -> std::sync::MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Client {
        AdminClient::with_interceptor(self.channel().clone(), self.way.bearer()).max_decoding_message_size(ANSWER_MAX)
    }

    /// Makes a call until it is answered, refused, or patience is at its end.
    async fn repeat<T>(
        &self,
        mut call: impl AsyncFnMut(Client) -> Result<Response<T>, Status>,
    ) -> Result<T, ClusterError> {
        let began = Instant::now();
        let mut backoff = Backoff::new();
        let mut told = false;
        loop {
            let left = self.patience.saturating_sub(began.elapsed());
            let refusal = match timeout(CALL_TIME.min(left.max(Duration::from_secs(1))), call(self.client())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => self.judge(&status)?,
                Err(_) => silent(),
            };
            let wait = backoff.next(random_bytes::<1>()[0]);
            if began.elapsed() + wait >= self.patience {
                return Err(self.unreachable(&refusal));
            }
            tracing::info!(why = %refusal, "the cluster cannot answer now, trying again");
            if !std::mem::replace(&mut told, true) {
                self.screen.note(&format!(
                    "cluster {} cannot answer now ({}); trying for {} s",
                    human::plain(&self.name),
                    human::plain(&refusal.to_string()),
                    self.patience.as_secs()
                ));
            }
            sleep(wait).await;
        }
    }

    /// What to make of a failure: one that may pass is given back, with the way to whom to ask next; any other is the error.
    fn judge(&self, status: &Status) -> Result<Refusal, ClusterError> {
        if let Some(untrusted) = self.way.untrusted(status) {
            return Err(untrusted);
        }
        let refusal = Refusal::from(status);
        if !refusal.may_pass() {
            return Err(ClusterError::Refused(Box::new(refusal)));
        }
        // Who answered and could not help keeps its connection: the next one goes to another. A broken one is made anew by the channel itself.
        if refusal.said {
            self.way.turn(&refusal.leader);
            *self.channel() = self.way.channel();
        }
        Ok(refusal)
    }

    fn unreachable(&self, refusal: &Refusal) -> ClusterError {
        ClusterError::Unreachable {
            cluster: self.name.clone(),
            why: refusal.to_string(),
        }
    }

    /// What to make of a stream that broke: nothing, when it may be asked for again.
    ///
    /// # Errors
    /// When it may not.
    pub(crate) fn forgive(&self, status: &Status) -> Result<(), ClusterError> {
        self.judge(status).map(drop)
    }
}

fn silent() -> Refusal {
    Refusal::from(&Status::deadline_exceeded("no answer in time"))
}
