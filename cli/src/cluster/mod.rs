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

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};
use tresor_proto::v1::WhoAmIRequest;
use tresor_proto::v1::admin_client::AdminClient;
use tresor_storage::ids::random_bytes;

use crate::human;
use crate::screen::Screen;
use address::{ADDRESSES_MAX, Address};
use backoff::Backoff;
use connect::{Bearer, Way};

pub(crate) use address::{Target, check_cluster_name, list, parse_addresses};
pub(crate) use connect::meet;
pub(crate) use error::{ClusterError, Refusal, kind_of};
pub(crate) use kept::{Kept, parse_token};
pub(crate) use pages::Go;

/// How long one try may take. A change waits for a majority of disks; what takes longer has lost its way.
const CALL_TIME: Duration = Duration::from_secs(15);
/// How long an answer that nothing depends on is waited for.
const LOOK_TIME: Duration = Duration::from_secs(3);
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
    keeper: Option<Keeper>,
}

/// Keeps the addresses of a login new.
struct Keeper {
    home: PathBuf,
    login: Kept,
    /// Nobody has looked for a while.
    is_old: bool,
    /// Whether this process has looked.
    has_looked: AtomicBool,
}

impl Keeper {
    fn take(&self, coordinators: &[String], connected: Option<Address>) {
        self.has_looked.store(true, Ordering::Relaxed);
        let Some(addresses) = nearest_first(coordinators, connected) else {
            return;
        };
        if addresses == self.login.addresses && !self.is_old {
            return;
        }
        if let Err(error) = self.login.refresh(&self.home, &addresses) {
            tracing::warn!(error = error.chain(), "could not keep where the coordinators are");
        }
    }
}

/// Where coordinators are, as the cluster says, behind the one that answered: that may be the only way from here. None where nothing can be understood, as
/// of a later version: then everything that is known stays.
fn nearest_first(coordinators: &[String], connected: Option<Address>) -> Option<Vec<Address>> {
    let others: Vec<Address> = coordinators
        .iter()
        .map(|address| address.parse().ok())
        .collect::<Option<_>>()?;
    if others.is_empty() {
        return None;
    }
    let is_other = |address: &Address| connected.as_ref() != Some(address);
    let others: Vec<Address> = others.into_iter().filter(is_other).collect();
    Some(connected.into_iter().chain(others).take(ADDRESSES_MAX).collect())
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
            keeper: None,
        }
    }

    /// The same; where its coordinators are is kept with its login in `home`, whenever the cluster says it.
    pub(crate) fn keeping(self, home: &Path, login: Kept, now: Timestamp) -> Self {
        let keeper = Keeper {
            is_old: login.is_old(home, now),
            home: home.to_owned(),
            login,
            has_looked: AtomicBool::new(false),
        };
        Self {
            keeper: Some(keeper),
            ..self
        }
    }

    /// Where the coordinators are, of an answer that says it; none if it does not.
    pub(crate) fn nearest_first(&self, coordinators: &[String]) -> Option<Vec<Address>> {
        nearest_first(coordinators, self.way.connected_to())
    }

    /// Hears where the coordinators are, from an answer that says it.
    pub(crate) fn hear_of<'a>(&self, coordinators: impl IntoIterator<Item = &'a str>) {
        if let Some(keeper) = &self.keeper {
            let coordinators: Vec<String> = coordinators.into_iter().map(str::to_owned).collect();
            keeper.take(&coordinators, self.way.connected_to());
        }
    }

    /// Asks where the coordinators are: when another one answers than the one that is known as the first, or nobody has asked for a day. Nothing depends
    /// on the answer, so it is waited for a moment only.
    async fn look_for_coordinators(&self) {
        let Some(keeper) = &self.keeper else { return };
        let to = self.way.connected_to();
        let is_elsewhere = to.is_some_and(|to| keeper.login.addresses.first() != Some(&to));
        let is_due = keeper.is_old || is_elsewhere;
        if !is_due || keeper.has_looked.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut client = self.client();
        let answer = timeout(LOOK_TIME, client.who_am_i(WhoAmIRequest {})).await;
        if let Ok(Ok(answer)) = answer {
            keeper.take(&answer.into_inner().coordinators, self.way.connected_to());
        }
    }

    /// Whether it is the node of this home.
    pub(crate) fn is_of_home(&self) -> bool {
        matches!(self.way, Way::Home(_))
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
        let mut began = Instant::now();
        let mut backoff = Backoff::new();
        let mut told = false;
        loop {
            let left = self.patience.saturating_sub(began.elapsed());
            let refusal = match timeout(CALL_TIME.min(left.max(Duration::from_secs(1))), call(self.client())).await {
                Ok(Ok(answer)) => {
                    self.look_for_coordinators().await;
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => self.judge(&status)?,
                Err(_) => silent(),
            };
            if self.is_node_now(&refusal).await? {
                began = Instant::now();
                continue;
            }
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

    /// Whether this process has become the node of its home, because the one that was it has left.
    async fn is_node_now(&self, refusal: &Refusal) -> Result<bool, ClusterError> {
        let Way::Home(seat) = &self.way else {
            return Ok(false);
        };
        if refusal.said {
            return Ok(false);
        }
        let became = Box::pin(seat.look_again()).await;
        let became = became.map_err(|error| ClusterError::Unreachable {
            cluster: self.name.clone(),
            why: error.chain(),
        })?;
        // What was connected led to the process that has left; it may be that an earlier call of this one has become the node.
        *self.channel() = self.way.channel();
        Ok(became)
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn who_answers_comes_before_whom_the_cluster_names_and_nonsense_is_not_taken() {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let known = texts(&["c1:7420", "c2:7420"]);
        let nearest = |connected: Option<&str>| {
            let connected = connected.map(|text| text.parse().unwrap());
            nearest_first(&known, connected).map(|all| list(&all))
        };
        assert_eq!(nearest(Some("c2:7420")).as_deref(), Some("c2:7420,c1:7420"));
        assert_eq!(nearest(Some("nat:1")).as_deref(), Some("nat:1,c1:7420,c2:7420"));
        assert_eq!(nearest(None).as_deref(), Some("c1:7420,c2:7420"));
        assert!(nearest_first(&[], Some("c1:7420".parse().unwrap())).is_none());
        assert!(nearest_first(&texts(&["c1:7420", "c2"]), None).is_none());
    }
}
