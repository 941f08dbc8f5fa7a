//! Serving: the node, its services, its certificate's renewal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tresor_proto::ids::MemberId;
use tresor_proto::tls::SharedIdentity;
use tresor_proto::tls::inside::InsideIncoming;
use tresor_proto::tls::local::LocalIncoming;

use super::folder::{Folder, FolderError};
use super::removed::{connector, heard_of_removal};
use crate::lead::placement;
use crate::lead::plans::Plans;
use crate::node::driver::Upkeep;
use crate::node::{Handle, task};
use crate::raft::{Config, CoreError};
use crate::rpc::agent::KeysHere;
use crate::rpc::context::{Clock, Services};
use crate::rpc::metrics::Metrics;
use crate::rpc::peer::PeerService;
use crate::rpc::server::{self, Listeners, ServeError, Served};
use crate::security::{Authority, AuthorityError, ClusterKey, Purpose};
use crate::state::entry::Time;
use crate::store::rocks::Rocks;
use crate::store::{Stamp, Store, StoreError};

/// How often the certificate is looked at.
const RENEWAL: Duration = Duration::from_secs(3600);

/// Where and how to serve.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Where other coordinators, workers, people and programs come, `address:port`; none: no network.
    pub listen: Option<String>,
    /// Where machines that watch come; none: nowhere.
    pub http: Option<String>,
    /// The time zone of policies that name none.
    pub zone: String,
    /// Whether items have series of their own among the numbers; only so many.
    pub item_metrics: bool,
}

/// What makes a coordinator an embedded one, beside the worker of the same process.
pub struct Embedding {
    /// For other commands of the user; none: this command is alone.
    pub local: Option<LocalIncoming>,
    /// For the worker, and for the command itself.
    pub inside: InsideIncoming,
    /// What it does by itself.
    pub upkeep: Upkeep,
    /// Keys of vaults that the home has.
    pub keys: Arc<dyn KeysHere>,
    /// Numbers of the worker beside it, in Prometheus' text format; none: it has none.
    pub numbers: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

/// What was bound.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Who serves.
    pub member: MemberId,
    /// Where, over TLS.
    pub listen: Option<std::net::SocketAddr>,
    /// Where, for machines that watch.
    pub http: Option<std::net::SocketAddr>,
}

/// Why a coordinator did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The store.
    #[error("open the coordinator's store")]
    Store(#[from] StoreError),
    /// The member.
    #[error("run the coordinator")]
    Core(#[source] CoreError),
    /// It was removed from its cluster.
    #[error("{}", CoreError::Removed)]
    Removed,
    /// A listener.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The services.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A thread ended that must not.
    #[error("a part of the coordinator panicked")]
    Panicked,
}

impl From<CoreError> for StartError {
    fn from(error: CoreError) -> Self {
        match error {
            CoreError::Removed => Self::Removed,
            error => Self::Core(error),
        }
    }
}

/// The clocks that leases and people are counted with: the same as the node's.
struct Clocks;

impl Clock for Clocks {
    fn monotonic_ms(&self) -> u64 {
        task::monotonic_ms()
    }

    fn wall(&self) -> Time {
        super::found::wall()
    }
}

async fn bind(address: Option<&str>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        address: address.to_owned(),
        source,
    })?;
    Ok(Some(listener))
}

/// Serves the coordinator of a folder until `stop`. `ready` is called once everything listens.
///
/// # Errors
/// [`StartError`]: it did not start, or cannot go on.
pub async fn serve(
    folder: &Folder,
    settings: ServeSettings,
    embedding: Option<Embedding>,
    ready: impl FnOnce(&Bound, &Handle),
    stop: CancellationToken,
) -> Result<(), StartError> {
    let identity = SharedIdentity::new(folder.identity()?);
    let key = folder.key()?;
    let name = identity.current().name();
    let stamp = Stamp {
        node: MemberId(name.id),
        cluster: name.cluster,
    };
    let (local, inside, upkeep, keys_here, beside) = match embedding {
        Some(own) => (own.local, Some(own.inside), own.upkeep, Some(own.keys), own.numbers),
        None => (None, None, Upkeep::All, None, None),
    };
    let listeners = Listeners {
        network: bind(settings.listen.as_deref()).await?,
        local,
        inside,
        http: bind(settings.http.as_deref()).await?,
    };
    let bound = Bound {
        member: stamp.node,
        listen: listeners
            .network
            .as_ref()
            .and_then(|listener| listener.local_addr().ok()),
        http: listeners.http.as_ref().and_then(|listener| listener.local_addr().ok()),
    };
    let path = folder.raft_path();
    let store = tokio::task::spawn_blocking(move || Store::open(Rocks::open(&path)?, stamp));
    let store = store.await.map_err(|_| StartError::Panicked)??;
    let joined = store.membership().members.iter().map(|(id, member)| {
        let address = String::from_utf8_lossy(&member.address).into_owned();
        (*id, address)
    });
    let joined: BTreeMap<MemberId, String> = joined.collect();
    // Of 64 random bits none comes twice: answers to reads of an earlier life are told from this one's by them.
    let mut life = [0; 8];
    getrandom::fill(&mut life).map_err(|_| StartError::Panicked)?;
    // The node outlives its services: what they were asked last is still answered.
    let node_stop = CancellationToken::new();
    let running = task::start_with(
        upkeep,
        Config::new(u64::from_le_bytes(life) >> 8),
        store,
        dial(&identity),
        node_stop.clone(),
    )?;
    let services = Services::new(
        running.handle.clone(),
        Arc::clone(&running.presence),
        Arc::new(Clocks),
        Arc::new(key.clone()),
        &settings.zone,
    );
    let telling = services.clone();
    let plans = std::sync::Mutex::new(Plans::default());
    let served = Served {
        services,
        key: key.clone(),
        identity: identity.clone(),
        keys_here,
        placement: Arc::new(
            move |state: &crate::state::State,
                  presence: &crate::node::presence::Presence,
                  worker: tresor_proto::ids::WorkerId,
                  now: Time,
                  now_ms: u64| {
                let mut plans = plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                plans.refresh(state);
                placement::choose(state, presence, &plans, worker, now, now_ms)
            },
        ),
        peer: PeerService::new(running.inbox, running.handle.clone()),
        metrics: Arc::new(Metrics::new().with_items(settings.item_metrics)),
        folder: Some(folder.raft_path()),
        beside,
    };
    let serving_stop = stop.child_token();
    let renewing = tokio::spawn(renew(
        folder.clone(),
        identity.clone(),
        key,
        running.handle.clone(),
        serving_stop.clone(),
    ));
    if upkeep == Upkeep::All {
        // A coordinator that stands for one command is gone before anything could be told.
        tokio::spawn(crate::notify::task::run(telling, serving_stop.clone()));
    }
    let removal = heard_of_removal(running.handle.clone(), identity, joined);
    tokio::pin!(removal);
    ready(&bound, &running.handle);
    let mut ended = running.ended;
    let serving = server::serve(listeners, served, serving_stop.clone());
    tokio::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result.map_err(StartError::from),
        () = &mut removal => {
            serving_stop.cancel();
            let _ = serving.await;
            Err(StartError::Removed)
        }
        // The node cannot go on: neither can its services.
        node = &mut ended => {
            serving_stop.cancel();
            let _ = serving.await;
            return match node {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(())) => Ok(()),
                Err(_) => Err(StartError::Panicked),
            };
        }
    };
    serving_stop.cancel();
    node_stop.cancel();
    let node = ended.await;
    renewing.abort();
    result?;
    match node {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(StartError::Panicked),
    }
}

/// Connects to a member and to nobody else at its address.
fn dial(identity: &SharedIdentity) -> crate::peers::Dial {
    let identity = identity.clone();
    Arc::new(move |member: MemberId, address: &str| {
        connector(&identity, member, address).map(|connector| connector.channel())
    })
}

/// Renews the certificate in time: a coordinator has the authority itself.
async fn renew(folder: Folder, identity: SharedIdentity, key: ClusterKey, handle: Handle, stop: CancellationToken) {
    loop {
        let now = Timestamp::now().as_second();
        if identity.current().validity().is_renewal_due(now) {
            match renewed(&folder, &identity, &key, &handle, now) {
                Ok(()) => tracing::info!("the coordinator's certificate was renewed"),
                Err(why) => tracing::error!(why, "could not renew the coordinator's certificate"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RENEWAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn renewed(
    folder: &Folder,
    identity: &SharedIdentity,
    key: &ClusterKey,
    handle: &Handle,
    now: i64,
) -> Result<(), String> {
    let name = identity.current().name();
    let wrapped = handle
        .read(|state| {
            let removed = state.members().get(&MemberId(name.id)).is_none_or(|row| row.removed);
            state
                .cluster()
                .filter(|_| !removed)
                .map(|cluster| cluster.ca_key.clone())
        })
        .ok_or_else(|| String::from("this coordinator is not one of the cluster's"))?;
    let wrapped = postcard::from_bytes(&wrapped).map_err(|error| error.to_string())?;
    let bytes = key
        .unwrap(Purpose::Authority, &wrapped)
        .map_err(|error| error.to_string())?;
    let issued = Authority::decode(&bytes)
        .and_then(|authority| authority.identity(name, now))
        .map_err(|error: AuthorityError| error.to_string())?;
    issued
        .save(&folder.identity_path())
        .map_err(|error| error.to_string())?;
    identity.replace(issued).map_err(|error| error.to_string())
}
